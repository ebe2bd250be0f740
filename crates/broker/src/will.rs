//! Wills: the message a client leaves with its CONNECT, and when it is published.
//!
//! One table of rules ([`fate`]); the shard only obeys it. A will is never published twice: taking
//! it out of the session is the act of deciding.

use crate::effects::CloseReason;
use crate::message::Message;

/// A will in its session.
#[derive(Clone, Debug)]
pub(crate) struct Will {
    /// What is published.
    pub message: Message,
    /// Seconds between the end of the connection and the publish.
    pub delay_s: u32,
    /// Message Expiry Interval, seconds, from the publish on.
    pub expiry_s: Option<u32>,
}

/// What becomes of a will when its connection ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    /// Removed, never published.
    Drop,
    /// Published at once.
    Now,
    /// Published when the delay is over, or when the session ends, whichever comes first.
    After {
        /// Seconds.
        delay_s: u32,
    },
}

/// The rules, for a connection that ended for `reason` and whose session lives `expiry_s` longer.
///
/// `keep` is a DISCONNECT other than 0x00 from the client (0x04 and errors keep the will).
pub(crate) fn fate(reason: CloseReason, keep: bool, delay_s: u32, expiry_s: u32) -> Fate {
    match reason {
        CloseReason::Normal if !keep => Fate::Drop,
        // A new connection took the session before the delay was over: not published.
        CloseReason::TakenOver if delay_s > 0 => Fate::Drop,
        // The session ends with the connection [MQTT-3.1.3-9], or with the node: no delay.
        CloseReason::Discarded
        | CloseReason::Kicked
        | CloseReason::Expired
        | CloseReason::Shutdown => Fate::Now,
        _ if delay_s == 0 || expiry_s == 0 => Fate::Now,
        _ => Fate::After {
            delay_s: delay_s.min(expiry_s),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(reason: CloseReason, keep: bool, delay_s: u32, expiry_s: u32, expected: Fate) {
        assert_eq!(fate(reason, keep, delay_s, expiry_s), expected);
    }

    #[test]
    fn the_matrix() {
        use CloseReason as R;
        check(R::Normal, false, 0, 0, Fate::Drop);
        check(R::Normal, false, 10, 100, Fate::Drop);
        check(R::Normal, true, 0, 0, Fate::Now);
        check(R::Normal, true, 10, 100, Fate::After { delay_s: 10 });
        for reason in [
            R::TcpClosed,
            R::TcpError,
            R::KeepaliveTimeout,
            R::ProtocolError,
        ] {
            check(reason, false, 0, 100, Fate::Now);
            check(reason, false, 10, 0, Fate::Now);
            check(reason, false, 10, 100, Fate::After { delay_s: 10 });
            check(reason, false, 100, 10, Fate::After { delay_s: 10 });
            check(reason, false, 10, u32::MAX, Fate::After { delay_s: 10 });
        }
        check(R::TakenOver, false, 0, 100, Fate::Now);
        check(R::TakenOver, false, 1, 100, Fate::Drop);
        check(R::Discarded, false, 10, 100, Fate::Now);
        check(R::Kicked, false, 10, 100, Fate::Now);
        check(R::Shutdown, false, 10, 100, Fate::Now);
    }
}
