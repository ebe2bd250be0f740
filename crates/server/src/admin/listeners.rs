//! Listeners as an operator sees them.

use std::net::{IpAddr, Ipv6Addr};

use dunlin_broker::redirect::Redirect;
use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{Admin, AdminError};
use crate::control_thread::Request;
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
    /// Listeners for clients that are open, with their ports.
    pub(crate) fn listener_ports(&self) -> Vec<(String, u16)> {
        let listeners = &self.inner.listeners;
        let open = listeners.rows().into_iter().filter(|row| row.running);
        open.filter_map(|row| Some((row.id.clone(), listeners.port(&row.id)?)))
            .collect()
    }

    /// Where this node's clients may go: the listeners of the other running nodes. Those whose name
    /// is a loopback address serve clients of this machine only, so they are left out unless this
    /// node is one of them. With names in `only`, no others.
    pub(crate) async fn redirect(&self, only: &[String]) -> Redirect {
        let mut redirect = Redirect::default();
        let Ok(nodes) = self.inner.request(Request::Nodes).await else {
            return redirect;
        };
        let own = &self.inner.node;
        for (node, running, info) in nodes {
            let reachable = !is_loopback(node.host()) || is_loopback(own.host());
            let wanted = only.is_empty() || only.iter().any(|name| name == node.as_str());
            let fit = running && reachable && wanted && node != *own;
            let Some(info) = info.filter(|_| fit) else {
                continue;
            };
            for (listener, port) in info.listeners {
                redirect.add(&listener, address(node.host(), port));
            }
        }
        redirect
    }

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

fn is_loopback(host: &str) -> bool {
    host == "localhost" || host.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

fn address(host: &str, port: u16) -> String {
    match host.parse::<Ipv6Addr>() {
        Ok(ip) => format!("[{ip}]:{port}"),
        Err(_) => format!("{host}:{port}"),
    }
}
