//! Silence: no CONNECT, no packet for too long, PINGREQ.
//!
//! A connection has one deadline at a time. It is armed for the moment the client would be late,
//! seen from the last packet known then, and re-armed when it fires and the client was heard.

use bytes::BufMut;
use dunlin_cluster::Now;
use dunlin_mqtt::Reason;

use crate::channel::{Channel, Phase};
use crate::effects::{CloseReason, Conn, ShardEffects};
use crate::metrics::Metric;
use crate::shard::{Shard, Timer};

/// PINGRESP, the same in every version.
const PINGRESP: [u8; 2] = [0xD0, 0x00];

impl Channel {
    /// How long the client may be silent, ms; `None` for ever.
    pub(crate) fn silence_ms(&self) -> Option<u64> {
        let keepalive_ms = f64::from(self.keepalive_s) * 1_000.0;
        (self.keepalive_s > 0).then(|| (keepalive_ms * self.mqtt.keepalive_multiplier) as u64)
    }
}

impl Shard {
    pub(crate) fn on_ping(&mut self, conn: Conn, fx: &mut ShardEffects) {
        self.metrics.count(Metric::PacketsPingreqReceived);
        if let Some(out) = self.write(conn, fx) {
            out.put_slice(&PINGRESP);
            self.count_sent(conn, Metric::PacketsPingrespSent, PINGRESP.len());
        }
    }

    pub(crate) fn on_idle(&mut self, now: Now, conn: Conn, generation: u32, fx: &mut ShardEffects) {
        if self.is_current(conn, generation) && self.channels[conn.0 as usize].phase == Phase::New {
            self.hang_up(now, conn, CloseReason::IdleTimeout, None, fx);
        }
    }

    pub(crate) fn on_keepalive(
        &mut self,
        now: Now,
        conn: Conn,
        generation: u32,
        fx: &mut ShardEffects,
    ) {
        if !self.is_current(conn, generation) {
            return;
        }
        let channel = &self.channels[conn.0 as usize];
        let Some(silence_ms) = channel.silence_ms().filter(|_| channel.is_open()) else {
            return;
        };
        // A connection we do not read cannot be heard: its silence is ours.
        let late_ms = if channel.paused.any() {
            now.mono_ms + 1
        } else {
            channel.heard_ms
        } + silence_ms;
        if now.mono_ms >= late_ms {
            let reason = Some(Reason::KeepAliveTimeout);
            self.hang_up(now, conn, CloseReason::KeepaliveTimeout, reason, fx);
        } else {
            self.wheel.arm(late_ms, Timer::Keepalive(conn, generation));
        }
    }

    pub(crate) fn on_auth_expiry(
        &mut self,
        now: Now,
        conn: Conn,
        generation: u32,
        fx: &mut ShardEffects,
    ) {
        if self.is_current(conn, generation) {
            let reason = Some(Reason::NotAuthorized);
            self.hang_up(now, conn, CloseReason::NotAuthorized, reason, fx);
        }
    }
}
