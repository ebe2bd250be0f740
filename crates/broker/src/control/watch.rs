//! Alarms about the cluster as this node sees it: clocks that differ, members that are held apart,
//! writes that were overwritten. Looked at about once a second, told when it changes.

use std::collections::BTreeSet;

use dunlin_cluster::{MemberStatus, Now, SKEW_REPORT_MS, Status};

use super::{Control, ControlEffects};
use crate::alarm::{AlarmChange, details};

/// How often the state of the cluster is looked at, milliseconds.
const LOOK_PERIOD_MS: u64 = 1_000;

/// What was told.
#[derive(Debug, Default)]
pub(super) struct Watch {
    next_ms: u64,
    raised: BTreeSet<String>,
    conflicts: u64,
}

impl Control {
    pub(super) fn watch_cluster(&mut self, now: Now, fx: &mut ControlEffects) {
        if now.mono_ms < self.watch.next_ms {
            return;
        }
        self.watch.next_ms = now.mono_ms + LOOK_PERIOD_MS;
        let status = self.cluster.status();
        let mut raised = BTreeSet::new();
        for alarm in status.members.iter().flat_map(wrong) {
            if let AlarmChange::Activate(activation) = &alarm {
                raised.insert(activation.name.clone());
            }
            fx.alarms.push(alarm);
        }
        for name in self.watch.raised.difference(&raised) {
            fx.alarms.push(AlarmChange::deactivate(name.as_str()));
        }
        self.watch.raised = raised;
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
