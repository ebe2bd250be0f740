//! The configuration as operators see and change it.
//!
//! A change is checked whole, written as rows of cluster state, and in force here when the call
//! returns; on the other nodes when the rows have arrived there.

use std::sync::Arc;

use dunlin_broker::control::CONFIGURATION;
use dunlin_config::change::Change;
use dunlin_config::{Layers, Loaded};

use super::{Admin, AdminError};

/// What came of a change.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Configured {
    /// Keys that this node's own files or environment set to something else, which goes before the
    /// change here, and where.
    pub overruled: Vec<(String, String)>,
    /// Keys that do nothing in this release.
    pub without_effect: Vec<String>,
}

impl Configured {
    /// What the operator should know, in sentences.
    pub fn warnings(&self) -> Vec<String> {
        let overruled = self.overruled.iter().map(|(key, place)| {
            format!(
                "{key} is set in {place} on this node, which goes before the change here; remove \
                 it there and run 'emqx ctl conf reload'"
            )
        });
        let without_effect = self.without_effect.iter();
        let without_effect = without_effect.map(|key| format!("{key} has no effect here"));
        overruled.chain(without_effect).collect()
    }
}

impl Admin {
    /// The configuration in force.
    pub fn loaded(&self) -> Arc<Loaded> {
        self.inner.configuration.loaded()
    }

    /// Changes the configuration of the cluster.
    pub async fn configure(&self, change: &Change) -> Result<Configured, AdminError> {
        let configuration = &self.inner.configuration;
        let _turn = configuration.turn.lock().await;
        let plan = configuration.plan(change)?;
        let keys: Vec<&str> = plan.writes.keys().map(String::as_str).collect();
        let keys = keys.join(",");
        let put = self.inner.put_rows(CONFIGURATION, plan.writes.into_iter());
        put.await?;
        configuration.apply();
        if !keys.is_empty() {
            tracing::info!(keys, "configuration_change_accepted");
        }
        let overruled = plan.overruled.into_iter();
        let configured = Configured {
            overruled: overruled.map(|(key, at)| (key, at.to_string())).collect(),
            without_effect: plan.without_effect,
        };
        for warning in configured.warnings() {
            tracing::warn!(warning, "configuration_change");
        }
        Ok(configured)
    }

    /// Takes up what this node's own files say now; the keys that have changed.
    pub fn reload_configuration(&self, layers: &Layers) -> Result<Vec<String>, AdminError> {
        Ok(self.inner.configuration.reload(layers)?)
    }

    /// Puts what a `cluster.hocon` of EMQX says into the table; later it is written from there.
    pub(crate) async fn import_cluster_hocon(&self) {
        let configuration = &self.inner.configuration;
        let rows = configuration.to_import();
        let count = rows.len();
        let rows = rows.into_iter().map(|(key, value)| (key, Some(value)));
        match self.inner.put_rows(CONFIGURATION, rows).await {
            Ok(()) if count > 0 => tracing::info!(rows = count, "cluster_hocon_imported"),
            Ok(()) => {}
            Err(error) => return tracing::error!(reason = %error, "cluster_hocon_not_imported"),
        }
        configuration.apply();
    }
}
