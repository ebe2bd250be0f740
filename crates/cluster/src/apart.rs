//! `cluster.autoheal = false`: the sides of a split stay apart until `cluster heal` is run.
//!
//! A member that was declared down while its process ran on is *split off*. When it can be reached
//! again the two prove who they are and tell each other whom they hold apart, and that is all: no
//! link is taken, so no stream resumes and no table merges, except the member table, which decides
//! who is to be told at all. A node that knows nothing of the split (it was restarted, or joined)
//! belongs to the side it meets first, and holds the other side apart as well.
//!
//! A blip shorter than the suspicion time splits nobody off, and neither does a restart: a new
//! process of a member is taken in as ever. `cluster heal` is a moment: every split before it
//! counts for nothing. It spreads over links and with the next greeting of the other side.
//!
//! A split is as old as the silence that made it, and not as the news of it: those who have not
//! heard of a heal yet go on calling members dead, which others pass on for seconds. Only who has
//! been heard since the heal, and not for a suspicion time after that, is split off anew.

use serde::{Deserialize, Serialize};

use crate::clock::Hlc;
use crate::error::DownReason;
use crate::identity::{BootId, SiteId};
use crate::input::ConnId;
use crate::link::Hello;
use crate::node::Cluster;
use crate::peer::Neighbour;
use crate::wire::Message;

/// When a member was heard, as both clocks show it.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Heard {
    mono_ms: u64,
    at: Hlc,
}

/// A member that was declared down while its process ran on.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Split {
    /// Its process at that time; another one is no longer the other side.
    boot: BootId,
    /// When it was heard last.
    heard: Heard,
}

/// A member that can be reached and is held apart.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Apart {
    pub(crate) since_wall_ms: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Why {
    /// It was split off from us.
    Split,
    /// It says that we were split off from it.
    Told,
    /// It holds somebody apart who is on our side.
    Between,
}

/// What a node says before its greeting: whom it holds apart, and the latest `cluster heal`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Side {
    pub(crate) apart: Vec<(SiteId, BootId)>,
    pub(crate) healed: Hlc,
    /// The sender's clock, so that a heal is later than every split its node has heard of.
    pub(crate) clock: Hlc,
}

impl Cluster {
    /// What to say before a greeting; nothing where splits heal by themselves.
    pub(crate) fn side(&self) -> Option<Side> {
        if self.config.autoheal && self.healed == Hlc::default() {
            return None;
        }
        // Also who only told us so: a new process that knows our side must hear it from both.
        let held = |(site, neighbour): (&SiteId, &Neighbour)| {
            let boot = neighbour.boot.filter(|_| neighbour.apart.is_some());
            let boot = boot.or_else(|| self.split(*site).map(|split| split.boot));
            boot.map(|boot| (*site, boot))
        };
        Some(Side {
            apart: self.neighbours.iter().filter_map(held).collect(),
            healed: self.healed,
            clock: self.clock.tick(self.now),
        })
    }

    /// The split that still counts.
    fn split(&self, site: SiteId) -> Option<Split> {
        let split = self.neighbours.get(&site)?.split?;
        let silent_ms = self.now.mono_ms.saturating_sub(split.heard.mono_ms);
        let is_silent = silent_ms >= self.config.suspicion_ms;
        (split.heard.at > self.healed && is_silent).then_some(split)
    }

    /// Whether a member is on another side, as far as is known: then nobody's word makes it run.
    pub(crate) fn is_apart(&self, site: SiteId) -> bool {
        let held = self.neighbours.get(&site).and_then(|n| n.apart);
        held.is_some() || self.split(site).is_some()
    }

    /// A member was declared down without its process being known to be gone.
    pub(crate) fn note_split(&mut self, site: SiteId) {
        if self.config.autoheal {
            return;
        }
        if let Some(neighbour) = self.neighbours.get_mut(&site) {
            let heard = neighbour.heard;
            neighbour.split = neighbour.boot.map(|boot| Split { boot, heard });
        }
    }

    /// Something came over a connection; it counts if a member's link is on that.
    pub(crate) fn note_heard(&mut self, site: SiteId, conn: ConnId) {
        let heard = Heard {
            mono_ms: self.now.mono_ms,
            at: self.clock.shows(self.now),
        };
        let neighbour = self.neighbours.get_mut(&site);
        if let Some(neighbour) = neighbour.filter(|n| n.conn == Some(conn)) {
            neighbour.heard = heard;
        }
    }

    /// A member took our link, so no side holds the other apart. It hears of the latest heal once
    /// more: we may have heard of that after our greeting.
    pub(crate) fn note_merged(&mut self, site: SiteId) {
        if let Some(neighbour) = self.neighbours.get_mut(&site) {
            neighbour.split = None;
        }
        if self.healed != Hlc::default()
            && let Some(side) = self.side()
        {
            self.send(site, &Message::Side(side));
        }
    }

    /// A fellow member told its side before its greeting.
    pub(crate) fn on_side(&mut self, side: &Side) {
        // Far ahead or not: all that matters is that a later heal is later.
        let _ = self.clock.observe(self.now, side.clock);
        self.adopt_heal(side.healed);
    }

    /// Whether a member that has greeted must be held apart; if so, says so once.
    pub(crate) fn hold_apart(&mut self, hello: &Hello, theirs: &Side) -> bool {
        let site = hello.peer.site;
        let why = self.why_apart(hello, theirs);
        if why == Some(Why::Told) && self.has_healed(hello) {
            // Our heal came after the split, but its clock was behind theirs: say it again, now
            // that we have heard theirs. The next greeting is taken.
            self.heal();
            return true;
        }
        let wall_ms = self.now.wall_ms;
        if why.is_some() && !self.is_known_boot(hello) {
            self.new_boot(hello);
        }
        let Some(neighbour) = self.neighbours.get_mut(&site) else {
            return false;
        };
        if why.is_none() {
            neighbour.apart = None;
            return false;
        }
        let since_wall_ms = neighbour.apart.map_or(wall_ms, |apart| apart.since_wall_ms);
        let before = neighbour.apart.replace(Apart { since_wall_ms });
        if before.is_none() {
            tracing::warn!(
                node = %neighbour.name,
                "held_apart: it can be reached again after a split, and cluster.autoheal is false; \
                 run `emqx ctl cluster heal` on any node to merge the sides"
            );
        }
        let (alive, linked) = (neighbour.alive, neighbour.conn.is_some());
        if alive {
            // It counted us as down and we did not: the sides are the same for both.
            self.failure.declare_down(self.now.mono_ms, site);
        }
        if alive || linked {
            self.now_down(site, DownReason::HeldApart);
        }
        true
    }

    /// Whether this node knows of the split and of a heal after it.
    fn has_healed(&self, hello: &Hello) -> bool {
        let split = self.neighbours.get(&hello.peer.site).and_then(|n| n.split);
        split.is_some_and(|split| split.boot == hello.peer.boot && split.heard.at <= self.healed)
    }

    fn is_known_boot(&self, hello: &Hello) -> bool {
        let neighbour = self.neighbours.get(&hello.peer.site);
        neighbour.is_none_or(|n| n.boot == Some(hello.peer.boot))
    }

    fn why_apart(&self, hello: &Hello, theirs: &Side) -> Option<Why> {
        let Hello { peer, .. } = hello;
        if self.split(peer.site).is_some_and(|s| s.boot == peer.boot) {
            return Some(Why::Split);
        }
        if theirs.healed < self.healed {
            // What they said before they heard of our heal. If it still counts for them, the next
            // greeting says so.
            return None;
        }
        if theirs.apart.contains(&(self.own.site, self.own.boot)) {
            return Some(Why::Told);
        }
        // Whose link was only just lost is on our side still; so is who let us in, unless it has
        // been split off since.
        let ours = |other: &(SiteId, BootId)| {
            let runs = |n: &Neighbour| (n.alive || n.conn.is_some()) && n.boot == Some(other.1);
            let let_in = self.joined_by == Some(*other) && !self.is_apart(other.0);
            let_in || self.neighbours.get(&other.0).is_some_and(runs)
        };
        theirs.apart.iter().any(ours).then_some(Why::Between)
    }

    /// `cluster heal`: the sides merge as soon as they reach each other.
    pub(crate) fn heal(&mut self) {
        let at = self.clock.tick(self.now);
        self.adopt_heal(at);
    }

    /// Takes over a heal that is later than what is known, and passes it on.
    pub(crate) fn adopt_heal(&mut self, at: Hlc) {
        if at <= self.healed {
            return;
        }
        self.healed = at;
        tracing::info!("cluster_healed: the sides of a split merge as they reach each other");
        for neighbour in self.neighbours.values_mut() {
            if neighbour.apart.take().is_some() {
                neighbour.attempts = 0;
                neighbour.retry_ms = self.now.mono_ms;
            }
        }
        let linked = self.neighbours.iter().filter(|(_, n)| n.conn.is_some());
        let linked: Vec<_> = linked.map(|(site, _)| *site).collect();
        let side = self.side().unwrap_or_default();
        for site in linked {
            self.send(site, &Message::Side(side.clone()));
        }
    }
}
