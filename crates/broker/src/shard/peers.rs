//! The shard's side of its data links: letters about nodes, bytes of their connections.

use bytes::{Bytes, BytesMut};
use dunlin_cluster::{BootId, DialError, DownReason, Hello, Now, Peer, SiteId};

use crate::channel::Paused;
use crate::dispatch::{Giver, RECEIPTS_MS};
use crate::effects::{Conn, PeerConn, ShardEffects, ToControl};
use crate::peer_link::LOOK_MS;
use crate::router::NodeIndex;
use crate::shard::{Shard, Timer};

/// Dials failed in a row after which control is told that a node that is up cannot be reached.
const UNREACHABLE_AFTER: u32 = 5;

impl Shard {
    pub(crate) fn on_peer_up(
        &mut self,
        now: Now,
        peer: (NodeIndex, Peer),
        address: (String, u16),
        fx: &mut ShardEffects,
    ) {
        let (node, boot) = (peer.0, peer.1.boot);
        self.links.peer_up(now, peer, address, &mut self.random, fx);
        self.watch_links(now);
        // A new boot forgets what the old one was to acknowledge.
        self.release_acks(fx);
        self.dispatch_again(now, node, Some(boot), fx);
    }

    pub(crate) fn on_peer_down(
        &mut self,
        now: Now,
        node: NodeIndex,
        reason: DownReason,
        fx: &mut ShardEffects,
    ) {
        let blocked = self.links.peer_down(node, fx);
        self.release_acks(fx);
        self.unblock(now, blocked, fx);
        // One that is only silent may be serving its members: they have what they were given.
        if matches!(reason, DownReason::Refused | DownReason::Restarted) {
            self.dispatch_again(now, node, None, fx);
        }
    }

    /// What a dead node's members had not acknowledged goes to other members of their groups.
    fn dispatch_again(
        &mut self,
        now: Now,
        node: NodeIndex,
        alive: Option<BootId>,
        fx: &mut ShardEffects,
    ) {
        for (message, groups) in self.dispatched.take(node, alive) {
            for key in groups {
                self.redispatch(message.clone(), key, None);
            }
        }
        self.flush(now, fx);
    }

    /// A node is done with what was given to it.
    pub(crate) fn on_receipts(&mut self, node: NodeIndex, numbers: &[u64]) {
        self.dispatched.over(node, numbers);
    }

    /// Sends the receipts that were written since.
    pub(crate) fn send_receipts(&mut self, now: Now, fx: &mut ShardEffects) {
        for (giver, numbers) in self.shared.receipts().take() {
            let Giver { site, boot, shard } = giver;
            fx.tell(ToControl::Receipts {
                site,
                boot,
                shard,
                numbers,
            });
        }
        self.receipts_armed = false;
        if self.shared.receipts().are_awaited() {
            self.arm_receipts(now);
        }
    }

    pub(crate) fn arm_receipts(&mut self, now: Now) {
        if !std::mem::replace(&mut self.receipts_armed, true) {
            let due = now.mono_ms + RECEIPTS_MS;
            self.wheel.arm(due, Timer::Receipts);
        }
    }

    pub(crate) fn on_peer_gone(
        &mut self,
        now: Now,
        site: SiteId,
        node: NodeIndex,
        fx: &mut ShardEffects,
    ) {
        let left = self.links.is_up(node);
        let blocked = self.links.peer_gone(site, node, fx);
        self.release_acks(fx);
        self.unblock(now, blocked, fx);
        if left {
            // It lives on with its clients, who have what they were given.
            drop(self.dispatched.take(node, None));
        } else {
            self.dispatch_again(now, node, None, fx);
        }
    }

    /// A data connection this shard asked for stands.
    pub fn peer_connected(&mut self, _: Now, conn: PeerConn, fx: &mut ShardEffects) {
        self.links.connected(conn, fx);
    }

    /// A data connection this shard asked for could not be made.
    pub fn peer_dial_failed(
        &mut self,
        now: Now,
        conn: PeerConn,
        error: &DialError,
        fx: &mut ShardEffects,
    ) {
        tracing::debug!(conn = conn.0, %error, "peer_data_dial_failed");
        self.peer_closed(now, conn, fx);
    }

    /// A data connection another node made; control has proven who it is. `conn` is the driver's
    /// number and odd.
    pub fn peer_accepted(&mut self, _: Now, conn: PeerConn, hello: &Hello, fx: &mut ShardEffects) {
        self.links.accepted(conn, hello, fx);
    }

    /// Bytes of a data connection; takes all complete frames off `buf`.
    pub fn peer_received(
        &mut self,
        now: Now,
        conn: PeerConn,
        buf: &mut BytesMut,
        fx: &mut ShardEffects,
    ) {
        let got = self.links.received(now, conn, buf, fx);
        for payload in got.payloads {
            self.route_forward(now, payload, got.from);
        }
        self.flush(now, fx);
        if got.acked {
            self.release_acks(fx);
        }
        self.unblock(now, got.unblocked, fx);
        if let Some((node, after_ms)) = got.redial {
            self.wheel.arm(now.mono_ms + after_ms, Timer::Redial(node));
        }
    }

    /// A data connection ended. It is dialed again after a pause while its node is up.
    pub fn peer_closed(&mut self, now: Now, conn: PeerConn, fx: &mut ShardEffects) {
        let Some((node, after_ms)) = self.links.closed(conn) else {
            return;
        };
        self.wheel.arm(now.mono_ms + after_ms, Timer::Redial(node));
        self.tell_unreachable(node, fx);
    }

    /// Tells control when so many connections in a row came to nothing.
    fn tell_unreachable(&self, node: NodeIndex, fx: &mut ShardEffects) {
        if let Some((peer, failures)) = self.links.failures(node)
            && failures == UNREACHABLE_AFTER
        {
            let name = peer.name.clone();
            fx.tell(ToControl::PeerUnreachable {
                node,
                name,
                failures,
            });
        }
    }

    /// Control wants to know when everything sent to a node so far has arrived there. A node that
    /// is not reachable holds nobody.
    pub(crate) fn on_fence_link(&mut self, node: NodeIndex, number: u64, fx: &mut ShardEffects) {
        if let Some(wait) = self.links.last_sent(node) {
            self.fenced_links.push((number, wait));
            self.release_fences(fx);
        } else {
            fx.tell(ToControl::LinkFenced { number });
        }
    }

    /// Answers for the links whose frames have arrived.
    pub(crate) fn release_fences(&mut self, fx: &mut ShardEffects) {
        let links = &self.links;
        self.fenced_links.retain(|(number, wait)| {
            let is_over = links.is_over(wait);
            if is_over {
                fx.tell(ToControl::LinkFenced { number: *number });
            }
            !is_over
        });
    }

    /// What is to be written to a data connection.
    pub fn peer_output(&mut self, conn: PeerConn, out: &mut Vec<Bytes>) {
        self.links.output(conn, out);
    }

    /// Dials a node that is up and has no connection.
    pub(crate) fn dial_node(&mut self, now: Now, node: NodeIndex, fx: &mut ShardEffects) {
        self.links.dial(now, node, &mut self.random, fx);
        self.watch_links(now);
    }

    /// Something is due from a peer: looks that it comes. A shard that waits for nobody does not.
    pub(crate) fn watch_links(&mut self, now: Now) {
        if !std::mem::replace(&mut self.links_watched, true) {
            self.wheel.arm(now.mono_ms + LOOK_MS, Timer::Stalled);
        }
    }

    pub(crate) fn on_stalled(&mut self, now: Now, fx: &mut ShardEffects) {
        self.links_watched = false;
        for node in self.links.drop_stalled(fx) {
            tracing::warn!(node = node.0, "peer_data_link_stalled");
            self.tell_unreachable(node, fx);
            self.dial_node(now, node, fx);
        }
        if self.links.any_waits() {
            self.watch_links(now);
        }
    }

    /// Connections that waited for room on a link go on.
    fn unblock(&mut self, now: Now, blocked: Vec<Conn>, fx: &mut ShardEffects) {
        for conn in blocked {
            let Some(channel) = self.channels.get_mut(conn.0 as usize) else {
                continue;
            };
            if channel.is_open() && channel.paused.clear(Paused::WINDOW) {
                let goes_on = self.retry_held(now, conn, fx);
                if goes_on {
                    fx.resume.push(conn);
                }
            }
        }
    }
}
