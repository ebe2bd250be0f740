//! Removing members that have been down for long.
//!
//! Done by the lowest live site alone, and only where enough members live, so that a minority never
//! removes the majority. Since when a member is down is on disk and survives restarts of this node;
//! it is counted in time that passed, not in what the wall clock shows, so that a clock that is set
//! removes nobody. A member that is held apart runs, and is not removed.

use crate::identity::SiteId;
use crate::membership::Membership;
use crate::node::Cluster;
use crate::restore;

impl Cluster {
    /// Notes since when members are down, and removes those down for longer than the configuration
    /// allows.
    pub(crate) fn autoclean(&mut self) {
        self.note_down();
        let Some(limit_ms) = self.config.autoclean_ms else {
            return;
        };
        let live = 1 + self.neighbours.values().filter(|n| n.alive).count();
        let all = 1 + self.neighbours.len();
        if !self.is_speaker() || !self.config.autoclean_quorum.is_met(live, all) {
            return;
        }
        let wall_ms = self.now.wall_ms;
        let expired = |since: &u64| wall_ms.saturating_sub(*since) > limit_ms;
        let apart = |site: &SiteId| self.neighbours.get(site).is_some_and(|n| n.apart.is_some());
        let long: Vec<_> = self
            .down_since
            .iter()
            .filter(|(site, since)| expired(since) && !apart(site))
            .map(|(site, since)| (*site, *since))
            .collect();
        for (site, since) in long {
            let member = self.member(site);
            let Some(member) = member.filter(|m| m.state == Membership::Member) else {
                self.forget_down(site);
                continue;
            };
            tracing::warn!(
                node = %member.name,
                down_ms = wall_ms.saturating_sub(since),
                "member_autocleaned: down for longer than cluster.autoclean; it may join again"
            );
            self.write_gone(site);
        }
    }

    fn note_down(&mut self) {
        let wall_ms = self.now.wall_ms;
        let unnoted: Vec<_> = self
            .neighbours
            .iter()
            .filter(|(site, n)| !n.alive && !self.down_since.contains_key(site))
            .map(|(site, _)| *site)
            .collect();
        for site in unnoted {
            self.down_since.insert(site, wall_ms);
            self.writes.push(restore::write_down(site, wall_ms));
        }
    }
}
