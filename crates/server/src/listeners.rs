//! All listeners of a node: opening, closing and showing them.
//!
//! At start every listener is bound before any accepts, so a node that cannot have all its ports
//! never serves a single client.

use std::collections::BTreeMap;
use std::net::TcpListener;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use dunlin_config::settings::{self, SslOptions};
use tokio::sync::oneshot;

use crate::admin::ListenerRow;
use crate::broker_settings;
use crate::console::say;
use crate::inbox::Inbox;
use crate::listener::{BindFault, Listen, ListenError, Listener, open};
use crate::shard_thread::ShardLetter;
use crate::tls::certificate::DefaultCertificate;
use crate::tls::{Files, ServerTls, TlsError};

/// Whether a change changed anything.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Change {
    Done,
    WasSo,
}

/// Where certificate files are.
#[derive(Clone, Debug)]
pub(crate) struct CertificatePaths {
    /// Relative paths start here.
    pub(crate) root: PathBuf,
    /// `etc/certs`.
    pub(crate) etc: PathBuf,
    /// `data/certs`.
    pub(crate) data: PathBuf,
    /// Names a default certificate is made for.
    pub(crate) names: Vec<String>,
}

/// The listeners of a node.
pub(crate) struct Listeners {
    shards: Arc<[Arc<Inbox<ShardLetter>>]>,
    certificates: CertificatePaths,
    entries: Mutex<BTreeMap<String, Entry>>,
}

struct Entry {
    settings: settings::Listener,
    open: Option<Arc<Listener>>,
    /// The port in use where the configured one is 0.
    port: u16,
}

/// A listener that is bound and not yet served.
struct Bound {
    listener: Arc<Listener>,
    sockets: Vec<TcpListener>,
}

impl Listeners {
    pub(crate) fn new(
        settings: &[settings::Listener],
        shards: Arc<[Arc<Inbox<ShardLetter>>]>,
        certificates: CertificatePaths,
    ) -> Self {
        let entry = |settings: &settings::Listener| {
            let port = settings.bind.port;
            (
                settings.id(),
                Entry {
                    settings: settings.clone(),
                    open: None,
                    port,
                },
            )
        };
        let entries = Mutex::new(settings.iter().map(entry).collect());
        Self {
            shards,
            certificates,
            entries,
        }
    }

    /// Opens every enabled listener, or none.
    pub(crate) fn open_all(&self) -> Result<(), ListenError> {
        let mut entries = self.lock();
        let mut bound = Vec::new();
        for (id, entry) in entries.iter() {
            if entry.settings.enable {
                bound.push(self.bind(&entry.settings)?);
            } else {
                say(&format!("Listener {id} is NOT started due to: disabled."));
            }
        }
        for bound in bound {
            if let Some(entry) = entries.get_mut(&bound.listener.id) {
                self.serve(entry, bound);
            }
        }
        Ok(())
    }

    /// Opens one listener, enabled or not.
    pub(crate) fn start(&self, id: &str) -> Result<Change, ListenError> {
        let mut entries = self.lock();
        match entries.get_mut(id) {
            Some(entry) if entry.open.is_none() => {
                let bound = self.bind(&entry.settings)?;
                self.serve(entry, bound);
                Ok(Change::Done)
            }
            _ => Ok(Change::WasSo),
        }
    }

    /// Closes one listener and has its connections closed.
    pub(crate) async fn stop(&self, id: &str) -> Change {
        let Some(listener) = self.lock().get_mut(id).and_then(|entry| entry.open.take()) else {
            return Change::WasSo;
        };
        listener.stop();
        listener.close();
        self.unlisten(&listener.id).await;
        say(&format!(
            "Listener {id} on {} stopped.",
            listener.settings.bind
        ));
        Change::Done
    }

    /// Closes the sockets of all listeners; clients stay, for the shards to end. The listeners, to
    /// wait for that.
    pub(crate) async fn stop_accepting(&self) -> Vec<Arc<Listener>> {
        let open: Vec<Arc<Listener>> = self
            .lock()
            .values_mut()
            .filter_map(|entry| entry.open.take())
            .collect();
        for listener in &open {
            listener.close();
            self.unlisten(&listener.id).await;
            let (id, bind) = (&listener.id, listener.settings.bind);
            say(&format!("Listener {id} on {bind} stopped."));
        }
        open
    }

    /// The port of a listener; the real one where the system chose it.
    pub(crate) fn port(&self, id: &str) -> Option<u16> {
        self.lock().get(id).map(|entry| entry.port)
    }

    /// Connections of all open listeners.
    pub(crate) fn connections(&self) -> u64 {
        let open = |entry: &Entry| entry.open.as_ref().map(|open| open.connections());
        self.lock().values().filter_map(open).sum()
    }

    pub(crate) fn rows(&self) -> Vec<ListenerRow> {
        let row = |(id, entry): (&String, &Entry)| {
            let settings = &entry.settings;
            ListenerRow {
                id: id.clone(),
                kind: settings.kind.to_string(),
                name: settings.name.clone(),
                bind: settings.bind.to_string(),
                acceptors: settings.acceptors,
                proxy_protocol: settings.proxy_protocol,
                enable: settings.enable,
                running: entry.open.is_some(),
                current_connections: entry.open.as_ref().map_or(0, |open| open.connections()),
                max_connections: settings.max_connections,
                shutdown_count: entry
                    .open
                    .as_ref()
                    .map(|open| open.ended())
                    .unwrap_or_default(),
            }
        };
        self.lock().iter().map(row).collect()
    }

    fn bind(&self, settings: &settings::Listener) -> Result<Bound, ListenError> {
        let tls = settings
            .ssl_options
            .as_ref()
            .filter(|_| settings.kind.is_tls());
        let tls = tls
            .map(|options| self.certificates.tls(options, Vec::new()))
            .transpose();
        let tls = tls.map_err(|source| ListenError::Tls {
            id: settings.id(),
            bind: settings.bind.to_string(),
            source: Box::new(source),
        })?;
        let listen = Listen {
            bind: settings.bind,
            options: &settings.tcp_options,
            sockets: self.shards.len(),
        };
        let sockets = open(listen).map_err(|error| ListenError::Bind {
            id: settings.id(),
            bind: settings.bind.to_string(),
            reason: BindFault(error),
        })?;
        let broker = Arc::new(broker_settings::listener(settings));
        Ok(Bound {
            listener: Arc::new(Listener::new(settings.clone(), broker, tls)),
            sockets,
        })
    }

    fn serve(&self, entry: &mut Entry, bound: Bound) {
        let Bound { listener, sockets } = bound;
        if let Some(Ok(address)) = sockets.first().map(TcpListener::local_addr) {
            entry.port = address.port();
        }
        for (shard, socket) in self.shards.iter().zip(sockets) {
            shard.push(ShardLetter::Listen {
                listener: listener.clone(),
                socket,
            });
        }
        say(&format!(
            "Listener {} on {} started.",
            listener.id, listener.settings.bind
        ));
        entry.open = Some(listener);
    }

    async fn unlisten(&self, id: &str) {
        let mut closed = Vec::new();
        for shard in self.shards.iter() {
            let (done, answer) = oneshot::channel();
            shard.push(ShardLetter::Unlisten {
                id: id.to_owned(),
                done,
            });
            closed.push(answer);
        }
        for answer in closed {
            // A shard that is gone has closed its sockets too.
            let _ = answer.await;
        }
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, Entry>> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl CertificatePaths {
    /// The TLS side of a listener; makes the default certificate where it is wanted.
    pub(crate) fn tls(
        &self,
        options: &SslOptions,
        alpn: Vec<Vec<u8>>,
    ) -> Result<ServerTls, TlsError> {
        let (cert, key) = self.default_pair(&options.certfile, &options.keyfile)?;
        let cacert = Some(&options.cacertfile).filter(|file| !file.is_empty());
        let files = Files {
            cacert: cacert.map(|file| self.default().locate(&self.root.join(file))),
            cert,
            key,
        };
        ServerTls::with_alpn(options.clone(), files, alpn)
    }

    /// The files of a certificate and its key; makes the default ones where they are wanted.
    pub(crate) fn default_pair(
        &self,
        cert: &str,
        key: &str,
    ) -> Result<(PathBuf, PathBuf), TlsError> {
        let default = self.default();
        let (cert, key) = (self.root.join(cert), self.root.join(key));
        if let Some(dir) = default.make(&cert, &key)? {
            tracing::warn!(dir = %dir.display(), "self_signed_certificate_made");
        }
        Ok((default.locate(&cert), default.locate(&key)))
    }

    fn default(&self) -> DefaultCertificate<'_> {
        DefaultCertificate {
            etc: &self.etc,
            data: &self.data,
            names: &self.names,
        }
    }
}
