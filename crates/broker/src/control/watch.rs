//! What is wrong with the cluster as this node sees it, as alarms.
//!
//! Faults are states: they are looked at about once a second, and an alarm is active as long as the
//! fault is found. What happened once (a removal, an overwritten write) stays shown until somebody
//! has seen it.

use std::collections::{BTreeMap, BTreeSet};

use dunlin_cluster::{
    DownReason, MemberState, MemberStatus, NodeName, Now, Peer, SKEW_REPORT_MS, SiteId, Status,
};

use super::{Control, ControlEffects};
use crate::alarm::{AlarmChange, details};

/// How often the state of the cluster is looked at, milliseconds.
const LOOK_PERIOD_MS: u64 = 1_000;

/// What is remembered between two looks.
#[derive(Debug, Default)]
pub(super) struct Watch {
    next_ms: u64,
    /// Members that fell silent; they may well live. Those whose process is known to be gone are
    /// stopped, which is no fault of the network.
    cut: BTreeMap<SiteId, DownReason>,
    /// Alarms that were raised and not cleared yet.
    raised: BTreeSet<String>,
    conflicts: u64,
}

impl Watch {
    pub(super) fn up(&mut self, site: SiteId) {
        self.cut.remove(&site);
        self.next_ms = 0;
    }

    pub(super) fn down(&mut self, site: SiteId, reason: DownReason) {
        if matches!(reason, DownReason::Silent | DownReason::Unlinked) {
            self.cut.insert(site, reason);
        } else {
            self.cut.remove(&site);
        }
        self.next_ms = 0;
    }

    pub(super) fn gone(&mut self, site: SiteId) {
        self.cut.remove(&site);
        self.next_ms = 0;
    }

    /// The faults there are now.
    fn faults(&self, status: &Status) -> Vec<AlarmChange> {
        let mut faults: Vec<_> = status.members.iter().flat_map(wrong).collect();
        faults.extend(self.partition(status));
        faults.extend(minority(status));
        faults.extend(status.discovery_failure.as_ref().map(|error| {
            let figures = details([("error", error.as_str().into())]);
            let message = format!("Discovery of other nodes fails: {error}");
            AlarmChange::activate("discovery_failed", figures, message)
        }));
        faults
    }

    fn partition(&self, status: &Status) -> Option<AlarmChange> {
        let cut: Vec<String> = status
            .members
            .iter()
            .filter(|member| self.cut.contains_key(&member.site))
            .map(|member| member.name.to_string())
            .collect();
        if cut.is_empty() {
            return None;
        }
        let message = format!("Partition occurs at node {}", cut.join(", "));
        let figures = details([("nodes", cut.into())]);
        Some(AlarmChange::activate("partition", figures, message))
    }
}

/// A node that cannot see more than half of the members serves all the same; but somebody should
/// know.
fn minority(status: &Status) -> Option<AlarmChange> {
    let members = status.members.len();
    let running = |member: &&MemberStatus| member.state != MemberState::Stopped;
    let seen = status.members.iter().filter(running).count();
    (members > 2 && seen * 2 <= members).then(|| {
        let figures = details([
            ("running", (seen as u64).into()),
            ("members", (members as u64).into()),
        ]);
        let message = format!("Only {seen} of {members} members of the cluster are running");
        AlarmChange::activate("minority", figures, message)
    })
}

impl Control {
    /// Looks at the cluster if it is time, and says what is wrong and what is not any more.
    pub(super) fn watch_cluster(&mut self, now: Now, fx: &mut ControlEffects) {
        if now.mono_ms < self.watch.next_ms {
            return;
        }
        self.watch.next_ms = now.mono_ms + LOOK_PERIOD_MS;
        let status = self.cluster.status();
        let faults = self.watch.faults(&status);
        let name = |change: &AlarmChange| match change {
            AlarmChange::Activate(fault) => Some(fault.name.clone()),
            AlarmChange::Deactivate { .. } => None,
        };
        let raised: BTreeSet<String> = faults.iter().filter_map(name).collect();
        for over in self.watch.raised.difference(&raised) {
            fx.alarms.push(AlarmChange::deactivate(over.as_str()));
        }
        self.watch.raised = raised;
        fx.alarms.extend(faults);
        self.tell_conflicts(&status, fx);
    }

    fn tell_conflicts(&mut self, status: &Status, fx: &mut ControlEffects) {
        let count = status.conflicts.saturating_sub(self.watch.conflicts);
        if count == 0 {
            return;
        }
        self.watch.conflicts = status.conflicts;
        fx.alarms.push(AlarmChange::happened(
            "concurrent_write_overwritten",
            details([("count", status.conflicts.into())]),
            format!(
                "{count} changes made here in a split were overwritten by the other side's; \
                 the log of this node names them"
            ),
        ));
    }

    /// A member that was removed once is back.
    pub(super) fn tell_back(peer: &Peer, fx: &mut ControlEffects) {
        let name = removed_alarm(&peer.name);
        fx.alarms.push(AlarmChange::deactivate(name));
    }

    /// Somebody removed a member, or this node.
    pub(super) fn tell_removed(
        &mut self,
        site: SiteId,
        name: &NodeName,
        by: Option<&NodeName>,
        fx: &mut ControlEffects,
    ) {
        let own = self.cluster.status().own == *name;
        let by = by.map_or_else(|| "another node".to_owned(), NodeName::to_string);
        let message = if own {
            format!("This node was removed from its cluster by {by} and stands alone")
        } else {
            format!("{name} was removed from the cluster by {by}")
        };
        let figures = details([
            ("node", name.to_string().into()),
            ("site", site.to_string().into()),
            ("by", by.into()),
        ]);
        let change = AlarmChange::happened(removed_alarm(name), figures, message);
        fx.alarms.push(change);
    }
}

/// What is wrong with a member.
fn wrong(member: &MemberStatus) -> Vec<AlarmChange> {
    let mut alarms = Vec::new();
    let ahead_ms = member.clock_ahead_ms.unwrap_or_default();
    if ahead_ms.unsigned_abs() > SKEW_REPORT_MS {
        let message = format!(
            "The clock of {} differs from this host's; synchronise both (NTP)",
            member.name
        );
        let figures = details([("ahead_ms", ahead_ms.into())]);
        let name = format!("clock_skew/{}", member.name);
        alarms.push(AlarmChange::activate(name, figures, message));
    }
    if let Some(since_ms) = member.apart_since_wall_ms {
        let message = format!(
            "{} is held apart since a split, because cluster.autoheal is false; run `emqx ctl \
             cluster heal`",
            member.name
        );
        let figures = details([("since_ms", since_ms.into())]);
        let name = format!("held_apart/{}", member.name);
        alarms.push(AlarmChange::activate(name, figures, message));
    }
    alarms
}

fn removed_alarm(name: &NodeName) -> String {
    format!("removed_member/{name}")
}

#[cfg(test)]
mod tests {
    use dunlin_cluster::{ClusterId, DiscoveryState, LinkState, MemberStatus};

    use super::*;

    fn site(n: u8) -> SiteId {
        SiteId([n; 16])
    }

    fn status(states: &[MemberState]) -> Status {
        let name = |n: usize| NodeName::parse(&format!("n{n}@h")).expect("a node name");
        let member = |(n, state): (usize, &MemberState)| MemberStatus {
            site: site(n as u8),
            name: name(n),
            state: *state,
            since_wall_ms: 0,
            apart_since_wall_ms: None,
            clock_ahead_ms: None,
            link: LinkState::Connected,
        };
        Status {
            cluster_name: "c".to_owned(),
            cluster: ClusterId([0; 16]),
            own: name(0),
            members: states.iter().enumerate().map(member).collect(),
            skew_refused: 0,
            conflicts: 0,
            discovery_failure: None,
            discovery: DiscoveryState::On,
        }
    }

    fn found(faults: &[AlarmChange]) -> Vec<(&str, &str)> {
        faults
            .iter()
            .filter_map(|change| match change {
                AlarmChange::Activate(found) => Some((found.name.as_str(), found.message.as_str())),
                AlarmChange::Deactivate { .. } => None,
            })
            .collect()
    }

    use MemberState::{Running, Stopped};

    #[test]
    fn a_silent_member_is_a_partition_and_a_stopped_one_is_not() {
        let mut watch = Watch::default();
        watch.down(site(1), DownReason::Silent);
        watch.down(site(2), DownReason::Refused);
        let status = status(&[Running, Stopped, Stopped, Running, Running]);
        let faults = watch.faults(&status);
        assert_eq!(
            found(&faults),
            [("partition", "Partition occurs at node n1@h")]
        );
        watch.up(site(1));
        assert_eq!(watch.faults(&status), []);
        watch.down(site(1), DownReason::Unlinked);
        watch.gone(site(1));
        assert_eq!(watch.faults(&status), []);
    }

    #[test]
    fn half_of_the_members_is_a_minority_except_in_a_pair() {
        let of = |states: &[MemberState]| minority(&status(states)).is_some();
        assert!(of(&[Running, Stopped, Stopped]));
        assert!(of(&[Running, Running, Stopped, Stopped]));
        assert!(!of(&[Running, Running, Stopped]));
        assert!(!of(&[Running, Stopped]));
        assert!(!of(&[Running]));
    }

    #[test]
    fn a_failing_look_up_is_named() {
        let mut status = status(&[Running]);
        status.discovery_failure = Some("no answer".to_owned());
        let faults = Watch::default().faults(&status);
        let text = "Discovery of other nodes fails: no answer";
        assert_eq!(found(&faults), [("discovery_failed", text)]);
    }
}
