//! Listeners: from a configured address to the byte streams of clients.
//!
//! Every shard has its own listening socket on the same address (`SO_REUSEPORT`), so the kernel
//! hands a client to the thread it will stay on. This file is what the shards' sockets of one
//! listener share: the configuration, the limits and the counts. It must never hold up a thread.

mod open;
mod proxy;
mod rate;
mod welcome;
mod ws;

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use dunlin_broker::CloseReason;
use dunlin_broker::settings::ListenerSettings;
use dunlin_config::settings;

use tokio::sync::Notify;

use crate::tls::{ServerTls, TlsError};
use rate::Bucket;

pub(crate) use open::{Listen, open};
pub(crate) use welcome::accept_clients;

/// A listener that could not be opened: which, where, why, and what to do.
#[derive(Debug, thiserror::Error)]
pub enum ListenError {
    /// The address cannot be listened on.
    #[error("Failed to start listener {id} on {bind}: {}. {}", .reason.posix(), .reason.cure(.id))]
    Bind {
        /// `tcp:default`.
        id: String,
        /// The address as configured.
        bind: String,
        /// Why.
        reason: BindFault,
    },
    /// The TLS options cannot be used.
    #[error("Failed to start listener {id} on {bind}: {source}.")]
    Tls {
        /// `ssl:default`.
        id: String,
        /// The address as configured.
        bind: String,
        /// Why.
        source: Box<TlsError>,
    },
}

/// Why an address cannot be listened on.
#[derive(Debug)]
pub struct BindFault(pub(crate) std::io::Error);

impl BindFault {
    /// The name EMQX prints.
    pub fn posix(&self) -> String {
        match self.0.kind() {
            std::io::ErrorKind::AddrInUse => "eaddrinuse".to_owned(),
            std::io::ErrorKind::AddrNotAvailable => "eaddrnotavail".to_owned(),
            std::io::ErrorKind::PermissionDenied => "eacces".to_owned(),
            _ => self.0.to_string(),
        }
    }

    fn cure(&self, id: &str) -> String {
        let key = match id.split_once(':') {
            Some(("http" | "https", _)) => format!(
                "dashboard.listeners.{}.bind",
                id.split(':').next().unwrap_or_default()
            ),
            Some((kind, name)) => format!("listeners.{kind}.{name}.bind"),
            None => "the port".to_owned(),
        };
        match self.0.kind() {
            std::io::ErrorKind::AddrInUse => format!(
                "Another program uses this address (`ss -ltnp` shows which): stop it or change \
                 {key}"
            ),
            std::io::ErrorKind::AddrNotAvailable => {
                format!("No interface of this machine has this address: change {key}")
            }
            std::io::ErrorKind::PermissionDenied => {
                format!("Ports below 1024 need CAP_NET_BIND_SERVICE: change {key} or grant it")
            }
            _ => format!("Change {key}"),
        }
    }
}

/// One listener while it is open.
pub(crate) struct Listener {
    /// `tcp:default`.
    pub(crate) id: String,
    pub(crate) settings: settings::Listener,
    /// The part the broker needs with every client.
    pub(crate) broker: Arc<ListenerSettings>,
    pub(crate) tls: Option<ServerTls>,
    connections: AtomicU64,
    rate: Option<Mutex<Bucket>>,
    ended: Mutex<BTreeMap<CloseReason, u64>>,
    stopped: AtomicBool,
    /// Peers that are not clients yet (handshakes) are to go.
    closing: Notify,
    emptied: Notify,
}

impl Listener {
    pub(crate) fn new(
        settings: settings::Listener,
        broker: Arc<ListenerSettings>,
        tls: Option<ServerTls>,
    ) -> Self {
        Self {
            id: settings.id(),
            broker,
            tls,
            connections: AtomicU64::new(0),
            rate: settings
                .max_conn_rate
                .map(|rate| Mutex::new(Bucket::new(rate))),
            ended: Mutex::new(BTreeMap::new()),
            stopped: AtomicBool::new(false),
            closing: Notify::new(),
            emptied: Notify::new(),
            settings,
        }
    }

    /// Whether its connections are to end.
    pub(crate) fn is_stopped(&self) -> bool {
        self.stopped.load(Ordering::Relaxed)
    }

    /// From here on its connections end when they are woken.
    pub(crate) fn stop(&self) {
        self.stopped.store(true, Ordering::Relaxed);
    }

    /// Sends away who is not a client yet.
    pub(crate) fn close(&self) {
        self.closing.notify_waiters();
    }

    /// Waits until it has no connections.
    pub(crate) async fn emptied(&self) {
        loop {
            let emptied = self.emptied.notified();
            if self.connections() == 0 {
                return;
            }
            emptied.await;
        }
    }

    /// Connections it has.
    pub(crate) fn connections(&self) -> u64 {
        self.connections.load(Ordering::Relaxed)
    }

    /// Ended connections by reason.
    pub(crate) fn ended(&self) -> BTreeMap<String, u64> {
        let ended = self.ended.lock().unwrap_or_else(PoisonError::into_inner);
        ended
            .iter()
            .map(|(reason, count)| (reason.as_str().to_owned(), *count))
            .collect()
    }

    /// Whether clients from this address may connect: the first rule that matches decides; an
    /// address no rule matches may.
    fn admits(&self, ip: IpAddr) -> bool {
        let ip = ip.to_canonical();
        let matching = |rule: &&settings::AccessRule| rule.net.is_none_or(|net| net.contains(ip));
        self.settings
            .access_rules
            .iter()
            .find(matching)
            .is_none_or(|rule| rule.allow)
    }

    /// A seat for one more connection, if there is one.
    fn seat(self: &Arc<Self>) -> Option<Seat> {
        let limit = self.settings.max_connections.unwrap_or(u64::MAX);
        if self.connections.fetch_add(1, Ordering::Relaxed) >= limit {
            self.connections.fetch_sub(1, Ordering::Relaxed);
            return None;
        }
        Some(Seat(self.clone()))
    }

    /// How long to wait before the next connection is taken, in milliseconds; 0: take it.
    fn rate_wait_ms(&self, mono_ms: u64) -> u64 {
        match &self.rate {
            None => 0,
            Some(bucket) => bucket
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .take(mono_ms),
        }
    }
}

/// A connection's place at its listener, counted while it is held.
pub(crate) struct Seat(Arc<Listener>);

impl Seat {
    pub(crate) fn listener(&self) -> &Arc<Listener> {
        &self.0
    }

    /// Counts why the connection ended.
    pub(crate) fn ended(&self, reason: CloseReason) {
        let mut ended = self.0.ended.lock().unwrap_or_else(PoisonError::into_inner);
        *ended.entry(reason).or_default() += 1;
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        if self.0.connections.fetch_sub(1, Ordering::Relaxed) == 1 {
            self.0.emptied.notify_waiters();
        }
    }
}

/// The two ends of an accepted connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Ends {
    pub(crate) peer: SocketAddr,
    pub(crate) local: SocketAddr,
}

impl Ends {
    /// IPv4 clients of an IPv6 socket are shown as IPv4.
    pub(crate) fn canonical(self) -> Self {
        let plain =
            |address: SocketAddr| SocketAddr::new(address.ip().to_canonical(), address.port());
        Self {
            peer: plain(self.peer),
            local: plain(self.local),
        }
    }
}
