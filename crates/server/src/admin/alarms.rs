//! What is wrong, and was, on every node of the cluster.

use super::remote::Question;
use super::{Admin, AdminError, Scope};
use crate::alarm::AlarmRow;

impl Admin {
    /// The active alarms, or the ended ones, latest first on each node. Nodes that do not answer in
    /// time are left out.
    pub async fn alarms(&self, scope: &Scope, activated: bool) -> Vec<AlarmRow> {
        let mut rows = Vec::new();
        if self.covers(scope) {
            rows.extend(self.inner.alarms.list(activated));
        }
        let question = Question::Alarms { activated };
        for (_, theirs) in self.gather::<Vec<AlarmRow>>(scope, &question).await {
            rows.extend(theirs);
        }
        rows
    }

    /// Forgets the ended alarms of all nodes.
    pub async fn clear_alarms(&self) {
        self.inner.alarms.clear_ended();
        self.gather::<bool>(&Scope::Cluster, &Question::ClearAlarms)
            .await;
    }

    /// Ends an alarm an operator has seen, wherever it is active; it comes back if its cause is
    /// found again.
    pub async fn end_alarm(&self, name: &str) -> Result<(), AdminError> {
        let name = name.to_owned();
        let here = self.inner.alarms.deactivate(&name);
        let question = Question::EndAlarm { name: name.clone() };
        let ended = self.gather::<bool>(&Scope::Cluster, &question).await;
        if here || ended.iter().any(|(_, ended)| *ended) {
            return Ok(());
        }
        Err(AdminError::AlarmNotFound { name })
    }
}
