//! The end of a connection: DISCONNECT from either side, violations, lost sockets.
//!
//! All of them go through [`Shard::hang_up`], once.

use dunlin_cluster::Now;
use dunlin_mqtt::{Auth, Disconnect, Packet, Reason};

use crate::channel::Phase;
use crate::effects::{CloseReason, Conn, ShardEffects};
use crate::metrics::Metric;
use crate::shard::Shard;

impl Shard {
    pub(crate) fn on_disconnect(
        &mut self,
        now: Now,
        conn: Conn,
        packet: &Disconnect,
        fx: &mut ShardEffects,
    ) {
        self.metrics.count(Metric::PacketsDisconnectReceived);
        let key = self.channels[conn.0 as usize].session;
        let Some(session) = self.sessions.get_mut(key) else {
            return;
        };
        if let Some(expiry_s) = packet.properties.session_expiry_interval() {
            // [MQTT-3.14.2-2]: a session that was to end cannot be prolonged.
            if session.expiry_s == 0 && expiry_s != 0 {
                self.violation(now, conn, Reason::ProtocolError, fx);
                return;
            }
            session.expiry_s = expiry_s;
        }
        // Only 0x00 takes the will back [MQTT-3.14.4-3].
        if packet.reason == Reason::Success {
            self.drop_will(key, fx);
        }
        self.hang_up(now, conn, CloseReason::Normal, None, fx);
    }

    /// AUTH outside of an exchange: no method is offered, so there never is one.
    pub(crate) fn on_auth(&mut self, now: Now, conn: Conn, _: &Auth, fx: &mut ShardEffects) {
        self.metrics.count(Metric::PacketsAuthReceived);
        self.violation(now, conn, Reason::ProtocolError, fx);
    }

    /// A packet that may not come there.
    pub(crate) fn out_of_place(&mut self, now: Now, conn: Conn, fx: &mut ShardEffects) {
        self.violation(now, conn, Reason::ProtocolError, fx);
    }

    /// The client broke a rule: DISCONNECT with the reason (v5), and the end.
    pub(crate) fn violation(
        &mut self,
        now: Now,
        conn: Conn,
        reason: Reason,
        fx: &mut ShardEffects,
    ) {
        self.hang_up(now, conn, CloseReason::ProtocolError, Some(reason), fx);
    }

    /// Ends a connection. `reason` is told to an open v5 client; what was written before goes out.
    pub(crate) fn hang_up(
        &mut self,
        now: Now,
        conn: Conn,
        why: CloseReason,
        reason: Option<Reason>,
        fx: &mut ShardEffects,
    ) {
        let Some(channel) = self.channels.get(conn.0 as usize) else {
            return;
        };
        let phase = channel.phase;
        if phase == Phase::Closing {
            return;
        }
        // A server of v3 has no DISCONNECT, and one before CONNACK is no MQTT.
        if let Some(reason) = reason
            && phase == Phase::Open
            && channel.version.is_v5()
        {
            let packet = Packet::Disconnect(Disconnect::new(reason));
            self.send(conn, &packet, Metric::PacketsDisconnectSent, fx);
        }
        let channel = &mut self.channels[conn.0 as usize];
        channel.phase = Phase::Closing;
        channel.accepted = None;
        channel.acks = None;
        channel.rare = None;
        let key = channel.session;
        self.acks_waiting.retain(|waiting| *waiting != conn);
        fx.close.push((conn, why));
        match phase {
            Phase::Open => {
                self.metrics.count(Metric::ClientDisconnected);
                self.detach(now, key, conn, why, fx);
            }
            Phase::Held => self.abandon(now, key, conn, fx),
            Phase::New | Phase::Proving | Phase::Closing => {}
        }
    }
}
