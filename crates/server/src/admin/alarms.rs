//! What is wrong, and was.

use super::{Admin, AdminError};
use crate::alarm::AlarmRow;

impl Admin {
    /// The active alarms of this node by name, or the ended ones, latest first.
    pub fn alarms(&self, activated: bool) -> Vec<AlarmRow> {
        self.inner.alarms.list(activated)
    }

    /// Forgets the ended alarms.
    pub fn clear_alarms(&self) {
        self.inner.alarms.clear_ended();
    }

    /// Ends an alarm an operator has seen; it comes back if its cause is found again.
    pub fn end_alarm(&self, name: &str) -> Result<(), AdminError> {
        if self.inner.alarms.deactivate(name) {
            return Ok(());
        }
        Err(AdminError::AlarmNotFound {
            name: name.to_owned(),
        })
    }
}
