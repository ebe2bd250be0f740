//! What the failure detector and the links say together: which members are up.
//!
//! A member is *alive* when anybody can reach it, and *up* when this node can, too. The driver
//! hears of up and down; `status` shows alive, so that all nodes show the same.

use crate::error::DownReason;
use crate::failure::{SwimId, Verdict};
use crate::identity::{Peer, SiteId};
use crate::input::Effect;
use crate::link::Sender;
use crate::node::Cluster;
use crate::peer::Conn;
use crate::restore;
use crate::wire::Message;
use rand::RngExt;

/// How long a member may stay up without a link, milliseconds, while others still reach it. Longer
/// than any suspicion, so that a blip stays invisible; bounded, so that nobody waits for a member
/// behind a broken route.
const UNLINKED_MAX_MS: u64 = 5_000;

/// A member of which something came so lately can be heard, milliseconds: two heartbeats.
const HEARD_LATELY_MS: u64 = 1_000;

impl Cluster {
    /// Acts on what the failure detector found out.
    pub(crate) fn take_verdicts(&mut self) {
        for verdict in self.failure.take_verdicts() {
            match verdict {
                // Whoever says so is linked to both sides; it can be no more than that.
                Verdict::Alive(site) if self.is_apart(site) => {}
                Verdict::Alive(site) => self.now_alive(site),
                // The other side of a split that is merged says so, and knows nothing newer.
                Verdict::SaidDown(id) if self.hears(id.site) => {
                    self.send(id.site, &Message::SwimDown { id });
                }
                Verdict::Down(id) | Verdict::SaidDown(id) => self.fell_silent(id.site),
                Verdict::Renewed(id) => self.tell_life(id),
            }
        }
    }

    /// A member told its present life over its link.
    pub(crate) fn learn_life(&mut self, site: SiteId, id: SwimId) {
        if id.site != site {
            return;
        }
        match self.failure.learn(self.now.mono_ms, id) {
            Some(id) => {
                self.send(site, &Message::SwimDown { id });
            }
            None => self.now_alive(site),
        }
    }

    /// We took a new life: every member we can reach hears it at once.
    fn tell_life(&mut self, id: SwimId) {
        let linked: Vec<_> = self
            .neighbours
            .iter()
            .filter(|(_, n)| n.conn.is_some())
            .map(|(s, _)| *s)
            .collect();
        for site in linked {
            self.send(site, &Message::SwimIs { id });
        }
    }

    fn now_alive(&mut self, site: SiteId) {
        let Some(neighbour) = self.neighbours.get_mut(&site) else {
            return;
        };
        if !neighbour.alive {
            neighbour.alive = true;
            neighbour.since_wall_ms = self.now.wall_ms;
            self.forget_down(site);
        }
        self.update_up(site);
    }

    fn update_up(&mut self, site: SiteId) {
        let Some(neighbour) = self.neighbours.get_mut(&site) else {
            return;
        };
        if let Some(boot) = neighbour.boot
            && !neighbour.up
            && neighbour.alive
            && neighbour.link.sender.is_attached()
        {
            neighbour.attempts = 0;
            neighbour.up = true;
            let peer = Peer {
                site,
                boot,
                name: neighbour.name.clone(),
            };
            tracing::info!(node = %peer.name, "peer_up");
            self.out.push(Effect::Up { peer });
        }
    }

    /// Its connection was reset and its port refuses: the process is gone.
    pub(crate) fn process_gone(&mut self, site: SiteId) {
        self.failure.declare_down(self.now.mono_ms, site);
        self.now_down(site, DownReason::Refused);
    }

    /// Nobody has reached it for the suspicion time, or so it is told.
    fn fell_silent(&mut self, site: SiteId) {
        let alive = self.neighbours.get(&site).is_some_and(|n| n.alive);
        if alive && !self.hears(site) {
            self.note_split(site);
        }
        self.now_down(site, DownReason::Silent);
    }

    /// Whether something came from it just now. That a link stands says little after a time in
    /// which this node did not run.
    fn hears(&self, site: SiteId) -> bool {
        let conn = self.neighbours.get(&site).and_then(|n| n.conn);
        let heard = |conn: &Conn| {
            conn.heard_ms >= self.stalled_ms && self.now.mono_ms < conn.heard_ms + HEARD_LATELY_MS
        };
        conn.and_then(|id| self.conns.get(&id)).is_some_and(heard)
    }

    /// The link of a member that is alive only because we heard it is gone.
    pub(crate) fn no_longer_heard(&mut self, site: SiteId) {
        let alive = self.neighbours.get(&site).is_some_and(|n| n.alive);
        if alive && !self.failure.is_alive(site) {
            self.fell_silent(site);
        }
    }

    pub(crate) fn now_down(&mut self, site: SiteId, reason: DownReason) {
        let stream = self.rng.random();
        let Some(neighbour) = self.neighbours.get_mut(&site) else {
            return;
        };
        if neighbour.alive {
            neighbour.alive = false;
            neighbour.since_wall_ms = self.now.wall_ms;
            self.down_since.insert(site, self.now.wall_ms);
            self.writes
                .push(restore::write_down(site, self.now.wall_ms));
            // The link is usually gone for longer; then it has been noted.
            self.note_diverging(site);
        }
        let Some(neighbour) = self.neighbours.get_mut(&site) else {
            return;
        };
        neighbour.reset = false;
        // Whatever was queued is older than the comparison that follows a reconnect.
        neighbour.link.sender = Sender::new(stream);
        neighbour.owned_out.reconnected();
        if let Some(conn) = neighbour.conn.take() {
            neighbour.retry_ms = self.now.mono_ms;
            neighbour.unlinked_ms = self.now.mono_ms;
            self.close(conn);
        }
        self.not_up(site, reason);
    }

    /// The driver hears that a member is not reachable, if it was told otherwise.
    fn not_up(&mut self, site: SiteId, reason: DownReason) {
        let Some(neighbour) = self.neighbours.get_mut(&site) else {
            return;
        };
        if std::mem::take(&mut neighbour.up) {
            tracing::warn!(node = %neighbour.name, ?reason, "peer_down");
            self.out.push(Effect::Down { site, reason });
        }
        self.fail_calls_to(site);
    }

    /// Another process answers for a member.
    pub(crate) fn restarted(&mut self, site: SiteId) {
        self.not_up(site, DownReason::Restarted);
    }

    pub(crate) fn unlinked_next_tick(&self) -> impl Iterator<Item = u64> {
        let waiting = self
            .neighbours
            .values()
            .filter(|n| n.up && n.conn.is_none());
        waiting.map(|n| n.unlinked_ms + UNLINKED_MAX_MS)
    }

    /// Members that only others reach are down for this node after a while.
    pub(crate) fn unlinked_tick(&mut self) {
        let now_ms = self.now.mono_ms;
        let late = self
            .neighbours
            .iter()
            .filter(|(_, n)| n.up && n.conn.is_none() && n.unlinked_ms + UNLINKED_MAX_MS <= now_ms);
        let late: Vec<_> = late.map(|(site, _)| *site).collect();
        for site in late {
            self.not_up(site, DownReason::Unlinked);
        }
    }
}
