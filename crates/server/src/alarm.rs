//! What is wrong with the node right now: raised once, cleared when it is well again.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use serde::{Deserialize, Serialize};
use tokio::sync::Notify;

use crate::time::wall_ms;

/// The things that can be wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Alarm {
    /// The disk refuses.
    Store,
}

impl Alarm {
    fn name(self) -> &'static str {
        match self {
            Self::Store => "store_sync_failed",
        }
    }
}

/// An active alarm.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AlarmRow {
    /// Its stable name.
    pub name: String,
    /// What is wrong, for people.
    pub message: String,
    /// Since when, in milliseconds since the epoch.
    pub activated_at_ms: u64,
}

/// The alarms of a node.
#[derive(Default)]
pub(crate) struct Alarms {
    active: Mutex<BTreeMap<Alarm, AlarmRow>>,
    changed: Notify,
}

impl Alarms {
    /// Raises an alarm, or does nothing if it is raised.
    pub(crate) fn raise(&self, alarm: Alarm, message: &str) {
        let mut active = self.lock();
        if active.contains_key(&alarm) {
            return;
        }
        let name = alarm.name();
        tracing::warn!(name, message, "alarm_is_activated");
        let row = AlarmRow {
            name: name.to_owned(),
            message: message.to_owned(),
            activated_at_ms: wall_ms(),
        };
        active.insert(alarm, row);
        drop(active);
        self.changed.notify_waiters();
    }

    /// Clears an alarm, if it is raised.
    pub(crate) fn clear(&self, alarm: Alarm) {
        if self.lock().remove(&alarm).is_some() {
            tracing::warn!(name = alarm.name(), "alarm_is_deactivated");
            self.changed.notify_waiters();
        }
    }

    /// The active alarms.
    pub(crate) fn list(&self) -> Vec<AlarmRow> {
        self.lock().values().cloned().collect()
    }

    /// Waits until an alarm is raised.
    #[cfg(test)]
    pub(crate) async fn raised(&self, alarm: Alarm) {
        loop {
            let changed = self.changed.notified();
            if self.lock().contains_key(&alarm) {
                return;
            }
            changed.await;
        }
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<Alarm, AlarmRow>> {
        self.active.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
