//! Listeners as an operator sees them.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{Admin, AdminError};
use crate::listeners::Change;

/// One configured listener of a node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ListenerRow {
    /// `tcp:default`; the dashboard's are `http:dashboard` and `https:dashboard`.
    pub id: String,
    /// `tcp`, `ssl`, `ws`, `wss`.
    pub kind: String,
    /// The part after the colon.
    pub name: String,
    /// Where it listens, as configured: `0.0.0.0:1883` or `:1883`.
    pub bind: String,
    /// As configured (has no meaning here: every core accepts).
    pub acceptors: u32,
    /// Whether connections begin with a PROXY header.
    pub proxy_protocol: bool,
    /// Whether it starts with the node.
    pub enable: bool,
    /// Whether it is open.
    pub running: bool,
    /// Connections it has now.
    pub current_connections: u64,
    /// Limit; `None` is infinity.
    pub max_connections: Option<u64>,
    /// Ended connections by reason, since it was opened.
    pub shutdown_count: BTreeMap<String, u64>,
}

impl Admin {
    /// The listeners of this node, in order of id.
    pub fn listeners(&self) -> Vec<ListenerRow> {
        self.inner.listeners.rows()
    }

    /// One of them.
    pub fn listener(&self, id: &str) -> Result<ListenerRow, AdminError> {
        let found = self.listeners().into_iter().find(|row| row.id == id);
        found.ok_or_else(|| AdminError::ListenerNotFound { id: id.to_owned() })
    }

    /// The port of a listener; the real one where the system chose it.
    pub fn listener_port(&self, id: &str) -> Option<u16> {
        self.inner.listeners.port(id)
    }

    /// Opens a listener that is not running.
    #[expect(
        clippy::unused_async,
        reason = "callers need not know which operations wait"
    )]
    pub async fn start_listener(&self, id: &str) -> Result<(), AdminError> {
        self.listener(id)?;
        match self.inner.listeners.start(id)? {
            Change::Done => Ok(()),
            Change::WasSo => Err(AdminError::ListenerRunning { id: id.to_owned() }),
        }
    }

    /// Closes a listener and its connections.
    pub async fn stop_listener(&self, id: &str) -> Result<(), AdminError> {
        self.listener(id)?;
        match self.inner.listeners.stop(id).await {
            Change::Done => Ok(()),
            Change::WasSo => Err(AdminError::ListenerStopped { id: id.to_owned() }),
        }
    }

    /// Closes a listener and its connections, if it runs, and opens it again.
    pub async fn restart_listener(&self, id: &str) -> Result<(), AdminError> {
        self.listener(id)?;
        self.inner.listeners.stop(id).await;
        self.inner.listeners.start(id)?;
        Ok(())
    }
}
