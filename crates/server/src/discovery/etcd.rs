//! This node's key in etcd, and those of the others.
//!
//! The key lives as long as a lease, which this node keeps alive for as long as it is to be found;
//! a watch on the directory tells of nodes that appear. Both need one connection; every look-up
//! makes its own, so that the two never wait for each other. Servers are tried in turn, beginning
//! with the one that last answered. Nothing here removes anybody from a cluster.

use std::cell::{Cell, RefCell};
use std::error::Error as _;
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use dunlin_cluster::{Discovered, DiscoveryError, NodeName, Service};
use dunlin_config::settings::{ClientTls, EtcdUser};
use etcd_client::{
    Channel, Client, ConnectOptions, Error, EventType, GetOptions, LeaseGrantOptions,
    LeaseKeepAliveStream, LeaseKeeper, PutOptions, WatchOptions, WatchStream,
};
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::task::AbortHandle;
use tokio::time::{MissedTickBehavior, interval, sleep, timeout};
use tokio_rustls::TlsConnector;
use tonic::Code;
use tonic::transport::Endpoint;

use super::{FOUND_MAX, Report};
use crate::tls::client_config;

/// Limit on what one server is asked at a time, connecting and logging in included; two must fit
/// into one look-up.
const SERVER_MAX: Duration = Duration::from_millis(1_400);

/// Pause after the key could not be written, or the connection that keeps it was lost.
const RETRY_PAUSE: Duration = Duration::from_secs(2);

/// A lease is renewed this many times within its life, so that a lost renewal costs nothing.
const RENEWALS: u32 = 3;

/// What is said of a server that is silent for too long.
const NO_ANSWER: &str = "no answer in time";

/// The port of a server that is named without one.
const DEFAULT_PORT: u16 = 2379;

/// Shortest life of a lease, seconds; etcd itself lets none be much shorter.
const TTL_MIN_S: u64 = 1;

/// How etcd is reached, from the configuration.
#[derive(Debug)]
pub(super) struct Access {
    pub(super) servers: Vec<String>,
    pub(super) ttl: Duration,
    pub(super) user: Option<EtcdUser>,
    pub(super) ssl: Option<ClientTls>,
    /// Where relative paths begin.
    pub(super) root: PathBuf,
}

/// etcd, for one node.
pub(super) struct Etcd {
    access: Access,
    node: NodeName,
    report: Report,
    /// The server that last answered, or the one after those that did not.
    first: Cell<usize>,
    entry: RefCell<Option<Rc<Entry>>>,
}

/// This node's key while it is kept.
struct Entry {
    directory: String,
    lease: Cell<Option<i64>>,
    /// Whether writing it was tried.
    tried: watch::Sender<bool>,
    keeping: RefCell<Option<AbortHandle>>,
}

/// A connection to one server.
struct Session<'a> {
    server: &'a str,
    client: Client,
}

/// What keeps the key, and tells of others.
struct Kept {
    server: String,
    keeper: LeaseKeeper,
    renewed: LeaseKeepAliveStream,
    watch: WatchStream,
}

impl Etcd {
    pub(super) fn new(access: Access, node: NodeName, report: Report) -> Rc<Self> {
        Rc::new(Self {
            access,
            node,
            report,
            first: Cell::new(0),
            entry: RefCell::new(None),
        })
    }

    /// What is below the directory.
    pub(super) async fn look_up(&self, directory: &str) -> Result<Vec<String>, DiscoveryError> {
        // Of two nodes that start at once, the later to write its key sees the other's.
        let entry = self.entry.borrow().clone();
        if let Some(entry) = entry {
            let _ = entry.tried.subscribe().wait_for(|tried| *tried).await;
        }
        let read = async |mut session: Session<'_>| {
            let options = GetOptions::new()
                .with_prefix()
                .with_keys_only()
                .with_limit(FOUND_MAX as i64);
            let answer = session.client.get(directory, Some(options)).await;
            let answer = answer.map_err(|error| session.fault(&error))?;
            let keys = answer.kvs().iter();
            Ok(keys.filter_map(|kv| below(directory, kv.key())).collect())
        };
        self.on_some_server(read).await
    }

    /// Keeps this node's key in a directory, or no longer.
    pub(super) fn follow(self: &Rc<Self>, directory: Option<String>) {
        if let Some(entry) = self.entry.take() {
            tokio::task::spawn_local(self.clone().take_away(entry));
        }
        let Some(directory) = directory else {
            return;
        };
        let entry = Rc::new(Entry {
            directory,
            lease: Cell::new(None),
            tried: watch::Sender::new(false),
            keeping: RefCell::new(None),
        });
        *self.entry.borrow_mut() = Some(entry.clone());
        let keeping = tokio::task::spawn_local(self.clone().keep(entry.clone()));
        *entry.keeping.borrow_mut() = Some(keeping.abort_handle());
    }

    /// Takes this node's key away, as the node stops.
    pub(super) async fn stop(self: Rc<Self>) {
        if let Some(entry) = self.entry.take() {
            self.take_away(entry).await;
        }
    }

    async fn take_away(self: Rc<Self>, entry: Rc<Entry>) {
        if let Some(keeping) = entry.keeping.take() {
            keeping.abort();
        }
        let Some(lease) = entry.lease.take() else {
            return;
        };
        let revoke = async |mut session: Session<'_>| {
            let revoked = session.client.lease_revoke(lease).await;
            revoked.map_err(|error| session.fault(&error)).map(drop)
        };
        if let Err(error) = self.on_some_server(revoke).await {
            // It goes by itself when the lease ends.
            tracing::info!(reason = %error, "etcd_key_left_to_its_lease");
        }
    }

    /// Keeps the key until the task is dropped.
    async fn keep(self: Rc<Self>, entry: Rc<Entry>) {
        let mut said = None;
        loop {
            let registered = self
                .on_some_server(async |session| self.register(session, &entry).await)
                .await;
            entry.tried.send_replace(true);
            let error = match registered {
                Ok(kept) => {
                    if said.take().is_some() {
                        tracing::info!(directory = entry.directory, "etcd_key_kept_again");
                    }
                    self.hold(kept, &entry).await
                }
                Err(error) => error,
            };
            if said.as_ref() != Some(&error) {
                tracing::warn!(
                    reason = %error,
                    "etcd_key_not_kept: nodes that start do not find this one; \
                     the cluster is not affected"
                );
                said = Some(error);
            }
            sleep(RETRY_PAUSE).await;
        }
    }

    /// Writes the key under the lease there is, or a new one, and watches the directory from then
    /// on.
    async fn register(
        &self,
        mut session: Session<'_>,
        entry: &Entry,
    ) -> Result<Kept, DiscoveryError> {
        let client = &mut session.client;
        let renewed = match entry.lease.get() {
            // Fails if the lease has ended meanwhile.
            Some(lease) => client.lease_keep_alive(lease).await.ok(),
            None => None,
        };
        let registered = async {
            let (keeper, renewed) = if let Some(renewed) = renewed {
                renewed
            } else {
                let ttl_s = self.access.ttl.as_millis().div_ceil(1_000) as u64;
                let options = Some(LeaseGrantOptions::new());
                let ttl_s = ttl_s.max(TTL_MIN_S) as i64;
                let lease = client.lease_grant(ttl_s, options).await?.id();
                entry.lease.set(Some(lease));
                client.lease_keep_alive(lease).await?
            };
            let key = format!("{}{}", entry.directory, self.node);
            let options = PutOptions::new().with_lease(keeper.id());
            let put = client.put(key, self.node.as_str(), Some(options)).await?;
            let revision = put.header().map_or(0, |header| header.revision() + 1);
            let options = WatchOptions::new()
                .with_prefix()
                .with_start_revision(revision);
            let directory = entry.directory.as_str();
            let watch = client.watch(directory, Some(options)).await?;
            Ok((keeper, renewed, watch))
        };
        let (keeper, renewed, watch) = registered.await.map_err(|error| session.fault(&error))?;
        let server = session.server.to_owned();
        Ok(Kept {
            server,
            keeper,
            renewed,
            watch,
        })
    }

    /// Renews the lease and reports who appears, until something is lost.
    async fn hold(&self, mut kept: Kept, entry: &Entry) -> DiscoveryError {
        let mut renewals = interval(self.access.ttl.max(SERVER_MAX) / RENEWALS);
        renewals.set_missed_tick_behavior(MissedTickBehavior::Delay);
        renewals.tick().await;
        loop {
            let result = tokio::select! {
                _ = renewals.tick() => kept.renew().await,
                message = kept.watch.message() => self.take_event(&kept.server, message, entry),
            };
            if let Err(error) = result {
                return error;
            }
        }
    }

    fn take_event(
        &self,
        server: &str,
        message: Result<Option<etcd_client::WatchResponse>, Error>,
        entry: &Entry,
    ) -> Result<(), DiscoveryError> {
        let response = match message {
            Ok(Some(response)) if !response.canceled() => response,
            Ok(Some(response)) => return Err(lost(server, response.cancel_reason())),
            Ok(None) => return Err(lost(server, "the server ended the watch")),
            Err(error) => return Err(fault(server, &error)),
        };
        let mut found = Vec::new();
        for event in response.events() {
            let key = event.kv().map_or(&[][..], |kv| kv.key());
            let Some(name) = below(&entry.directory, key) else {
                continue;
            };
            match event.event_type() {
                EventType::Delete if name == self.node.as_str() => {
                    return Err(lost(server, "this node's key was deleted"));
                }
                EventType::Put if name != self.node.as_str() => found.push(name),
                _ => {}
            }
        }
        if !found.is_empty() {
            (self.report)(Discovered::Sighted { found });
        }
        Ok(())
    }

    // --- servers ---

    /// Does the work on the first server that can.
    async fn on_some_server<'a, T>(
        &'a self,
        mut work: impl AsyncFnMut(Session<'a>) -> Result<T, DiscoveryError>,
    ) -> Result<T, DiscoveryError> {
        let servers = &self.access.servers;
        let first = self.first.get();
        let mut last = DiscoveryError::TimedOut {
            of: Service::Etcd,
            ms: 0,
        };
        for step in 0..servers.len() {
            let index = (first + step) % servers.len();
            let server = servers[index].as_str();
            let done = timeout(SERVER_MAX, async {
                let session = self.connect(server).await?;
                work(session).await
            });
            match done.await {
                Ok(Ok(value)) => {
                    self.first.set(index);
                    return Ok(value);
                }
                // The other servers know the same users.
                Ok(Err(error @ DiscoveryError::EtcdDenied { .. })) => return Err(error),
                Ok(Err(error)) => last = error,
                Err(_) => last = lost(server, NO_ANSWER),
            }
            self.first.set((index + 1) % servers.len());
        }
        Err(last)
    }

    async fn connect<'a>(&self, server: &'a str) -> Result<Session<'a>, DiscoveryError> {
        let (host, port) = address(server);
        let unreachable = |error: std::io::Error| DiscoveryError::EtcdUnreachable {
            server: server.to_owned(),
            error: error.to_string(),
        };
        let stream = TcpStream::connect((host, port)).await;
        let stream = stream.map_err(unreachable)?;
        let _ = stream.set_nodelay(true);
        let channel = match &self.access.ssl {
            None => channel(host, port, stream).await,
            Some(ssl) => {
                let stream = self.encrypt(ssl, server, host, stream).await?;
                channel(host, port, stream).await
            }
        };
        let channel = channel.map_err(|error| fault(server, &error))?;
        let user = self.access.user.as_ref();
        let options = user.map(|user| {
            ConnectOptions::new()
                .with_user(&user.username, user.password.expose())
                .with_auto_token_refresh(true)
        });
        let client = Client::from_channel(Channel::Tonic(channel), options).await;
        let client = client.map_err(|error| fault(server, &error))?;
        Ok(Session { server, client })
    }

    async fn encrypt(
        &self,
        ssl: &ClientTls,
        server: &str,
        host: &str,
        stream: TcpStream,
    ) -> Result<tokio_rustls::client::TlsStream<TcpStream>, DiscoveryError> {
        let failed = |error: String| DiscoveryError::EtcdTls {
            server: server.to_owned(),
            error,
        };
        let (config, name) = client_config(ssl, &self.access.root, &[b"h2"])
            .map_err(|error| failed(error.to_string()))?;
        let name = name.unwrap_or_else(|| host.to_owned());
        let name = ServerName::try_from(name).map_err(|error| failed(error.to_string()))?;
        let connector = TlsConnector::from(Arc::new(config));
        let connected = connector.connect(name, stream).await;
        connected.map_err(|error| failed(error.to_string()))
    }
}

impl Kept {
    async fn renew(&mut self) -> Result<(), DiscoveryError> {
        let renewed = timeout(SERVER_MAX, async {
            self.keeper.keep_alive().await?;
            self.renewed.message().await
        });
        match renewed.await {
            Ok(Ok(Some(answer))) if answer.ttl() > 0 => Ok(()),
            Ok(Ok(Some(_))) => Err(lost(&self.server, "the lease of this node's key ended")),
            Ok(Ok(None)) => Err(lost(&self.server, "the server ended the lease's stream")),
            Ok(Err(error)) => Err(fault(&self.server, &error)),
            Err(_) => Err(lost(&self.server, NO_ANSWER)),
        }
    }
}

impl Session<'_> {
    fn fault(&self, error: &Error) -> DiscoveryError {
        fault(self.server, error)
    }
}

/// HTTP/2 over a stream that stands already: connecting is ours, for precise errors and our TLS.
async fn channel<S>(host: &str, port: u16, stream: S) -> Result<tonic::transport::Channel, Error>
where
    S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Send + Unpin + 'static,
{
    let authority = if host.contains(':') {
        format!("http://[{host}]:{port}")
    } else {
        format!("http://{host}:{port}")
    };
    let mut stream = Some(TokioIo::new(stream));
    // Once it is lost there is no second: whoever holds the channel begins anew.
    let connector = tower::service_fn(move |_| {
        let stream = stream.take();
        async { stream.ok_or_else(|| std::io::Error::from(std::io::ErrorKind::NotConnected)) }
    });
    let endpoint = Endpoint::from_shared(authority)?;
    Ok(endpoint.connect_with_connector(connector).await?)
}

/// Host and port of a client URL; the scheme is looked at where the configuration is read.
fn address(server: &str) -> (&str, u16) {
    let rest = server.split_once("://").map_or(server, |(_, rest)| rest);
    let rest = rest.split('/').next().unwrap_or(rest);
    if let Some((host, port)) = rest.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        let port = port.strip_prefix(':').and_then(|port| port.parse().ok());
        return (host, port.unwrap_or(DEFAULT_PORT));
    }
    match rest.rsplit_once(':') {
        Some((host, port)) => (host, port.parse().unwrap_or(DEFAULT_PORT)),
        None => (rest, DEFAULT_PORT),
    }
}

/// The rest of a key in the directory; none for what is in a directory of its own.
fn below(directory: &str, key: &[u8]) -> Option<String> {
    let rest = std::str::from_utf8(key).ok()?.strip_prefix(directory)?;
    (!rest.is_empty() && !rest.contains('/')).then(|| rest.to_owned())
}

fn lost(server: &str, error: &str) -> DiscoveryError {
    DiscoveryError::EtcdFailed {
        server: server.to_owned(),
        error: error.to_owned(),
    }
}

/// What an error of the client means. A refused client certificate shows only now: with TLS 1.3
/// the server looks at it after the handshake.
fn fault(server: &str, error: &Error) -> DiscoveryError {
    let server = server.to_owned();
    let denies = |status: &tonic::Status| {
        matches!(
            status.code(),
            Code::PermissionDenied
                | Code::Unauthenticated
                | Code::InvalidArgument
                | Code::FailedPrecondition
        )
    };
    if let Error::GRpcStatus(status) = error
        && denies(status)
    {
        let error = status.message().trim_start_matches("etcdserver: ");
        return DiscoveryError::EtcdDenied {
            server,
            error: error.to_owned(),
        };
    }
    let error = with_causes(error);
    if error.contains("received fatal alert") {
        DiscoveryError::EtcdTls { server, error }
    } else {
        DiscoveryError::EtcdFailed { server, error }
    }
}

fn with_causes(error: &Error) -> String {
    let (mut text, mut cause) = match error {
        Error::GRpcStatus(status) => (status.message().to_owned(), status.source()),
        Error::TransportError(error) => (error.to_string(), error.source()),
        other => (other.to_string(), other.source()),
    };
    while let Some(error) = cause {
        let more = error.to_string();
        // Wrappers often repeat what they wrap.
        if !text.contains(&more) {
            text = format!("{text}: {more}");
        }
        cause = error.source();
    }
    text
}

#[cfg(test)]
mod tests;
