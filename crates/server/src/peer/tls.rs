//! TLS of links: whose certificates are used, who is believed, and the handshake.
//!
//! All links of a node are encrypted or none is. With an authority both sides prove themselves,
//! and the dialed node for the host it was dialed at; without one the links are private against
//! listeners only, which a warning says at start. Files that are renewed are used for the next
//! connection. Bad files that appear later must not end a cluster: the old ones stay.

use std::fs;
use std::future::poll_fn;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::Poll;
use std::time::{Duration, Instant, SystemTime};

use bytes::BytesMut;
use dunlin_cluster::{CertificateFault, TlsFault, is_plain_handshake, plain_refusal};
use dunlin_config::settings::Settings;
use dunlin_config::ssl_dist::{SslDist, SslDistError, SslDistSide};
use rustls::client::Resumption;
use rustls::crypto::ring;
use rustls::pki_types::ServerName;
use rustls::server::{NoServerSessionStorage, WebPkiClientVerifier};
use rustls::{
    AlertDescription, CertificateError, ClientConfig, ClientConnection, Connection, ServerConfig,
    ServerConnection,
};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::stream::{PeerStream, Tls};
use crate::listeners::CertificatePaths;
use crate::tls::{self, Anybody, TlsError};

/// The file of EMQX with these options, below the installation's root.
const SSL_DIST: &str = "etc/ssl_dist.conf";

/// Another place of that file.
const SSL_DIST_VARIABLE: &str = "EMQX_SSL_DIST_OPTFILE";

/// The certificate and the key that every installation has, below its root.
const DEFAULT_FILES: (&str, &str) = ("etc/certs/cert.pem", "etc/certs/key.pem");

/// Limit on a handshake.
const HANDSHAKE_MAX: Duration = Duration::from_secs(5);

/// How long a node that is refused may take to go.
const REFUSAL_MAX: Duration = Duration::from_secs(1);

/// How long a file is trusted not to have changed.
const RECHECK: Duration = Duration::from_secs(10);

/// What the accepting side says once it has accepted the dialer's certificate. Without it, the
/// dialer of TLS 1.3 would take a refusal for a link that broke.
const ACCEPTED: u8 = 1;

/// First byte of a connection that speaks TLS: a record of the handshake.
const TLS_RECORD: u8 = 0x16;

/// Why the links of a node cannot be encrypted.
#[derive(Debug, thiserror::Error)]
pub enum PeerTlsError {
    /// A file cannot be used.
    #[error("TLS between nodes: {0}")]
    Files(#[from] TlsError),
    /// The file of options cannot be read.
    #[error("cannot read `{}` ({source}); put it there, or set rpc.certfile and rpc.keyfile",
            .path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The file of options makes no sense.
    #[error("`{}`: {source}", .path.display())]
    Options {
        /// The file.
        path: PathBuf,
        /// Why.
        source: SslDistError,
    },
    /// One of certificate and key is missing.
    #[error("TLS between nodes needs both certfile and keyfile; {missing} is not set in {place}")]
    Half {
        /// Which.
        missing: &'static str,
        /// Where.
        place: String,
    },
}

/// Files of one side.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Side {
    cert: PathBuf,
    key: PathBuf,
    /// Who is believed; nobody is verified without.
    authority: Option<PathBuf>,
}

/// Both sides of this node's links.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Sides {
    server: Side,
    client: Side,
}

/// The TLS of all links of a node.
pub(crate) struct PeerTls {
    sides: Sides,
    state: Mutex<State>,
}

struct State {
    configs: Configs,
    stamps: Vec<Stamp>,
    checked: Instant,
}

#[derive(Clone)]
struct Configs {
    server: Arc<ServerConfig>,
    client: Arc<ClientConfig>,
}

/// What tells a changed file from an unchanged one without reading it.
type Stamp = Option<(SystemTime, u64)>;

impl PeerTls {
    /// That of the configuration; `None` if links are not encrypted.
    pub(crate) fn of(
        settings: &Settings,
        certificates: &CertificatePaths,
    ) -> Result<Option<Arc<Self>>, PeerTlsError> {
        if !settings.links_are_tls() {
            return Ok(None);
        }
        let sides = Sides::of(settings, certificates)?;
        let tls = Self::new(sides)?;
        if tls.sides.server.authority.is_none() || tls.sides.client.authority.is_none() {
            tracing::warn!(
                "links_not_verified: they are encrypted, and any certificate is believed; set \
                 rpc.cacertfile to the authority that signs the nodes' certificates"
            );
        }
        Ok(Some(Arc::new(tls)))
    }

    fn new(sides: Sides) -> Result<Self, PeerTlsError> {
        let configs = Configs::of(&sides)?;
        let state = State {
            configs,
            stamps: sides.stamps(),
            checked: Instant::now(),
        };
        Ok(Self {
            sides,
            state: Mutex::new(state),
        })
    }

    /// The present configuration; files that changed are read again.
    fn configs(&self) -> Configs {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if state.checked.elapsed() >= RECHECK {
            state.checked = Instant::now();
            let stamps = self.sides.stamps();
            if stamps != state.stamps {
                state.stamps = stamps;
                match Configs::of(&self.sides) {
                    Ok(configs) => {
                        state.configs = configs;
                        tracing::info!("link_certificate_reloaded");
                    }
                    Err(error) => {
                        tracing::error!(reason = %error, "link_certificate_reload_failed");
                    }
                }
            }
        }
        state.configs.clone()
    }

    /// The dialing side of a handshake with the node at `host`.
    pub(crate) async fn connect(&self, tcp: TcpStream, host: &str) -> Result<PeerStream, TlsFault> {
        let name = ServerName::try_from(host.to_owned())
            .map_err(|error| TlsFault::Other(error.to_string()))?;
        let session = ClientConnection::new(self.configs().client, name)
            .map_err(|error| fault(&error, host))?;
        let mut tls = Tls {
            tcp,
            session: Connection::Client(session),
        };
        let shaken = timeout(HANDSHAKE_MAX, async {
            tls.handshake(host).await?;
            tls.is_accepted(host).await
        });
        shaken.await.unwrap_or(Err(TlsFault::TimedOut))?;
        Ok(PeerStream::Tls(Box::new(tls)))
    }

    /// The accepting side.
    pub(crate) async fn accept(&self, tcp: TcpStream) -> Result<PeerStream, TlsFault> {
        let shaken = timeout(HANDSHAKE_MAX, self.accept_unlimited(tcp));
        shaken.await.unwrap_or(Err(TlsFault::TimedOut))
    }

    async fn accept_unlimited(&self, mut tcp: TcpStream) -> Result<PeerStream, TlsFault> {
        let mut first = [0];
        match tcp.peek(&mut first).await {
            Ok(1) if first[0] == TLS_RECORD => {}
            Ok(1) if is_plain_handshake(&first) => {
                let _ = timeout(REFUSAL_MAX, refuse_plain(&mut tcp)).await;
                return Err(TlsFault::Plain);
            }
            Ok(1) => {
                return Err(TlsFault::Other(
                    "it begins with no record of TLS".to_owned(),
                ));
            }
            _ => return Err(TlsFault::Closed),
        }
        let session = ServerConnection::new(self.configs().server)
            .map_err(|error| TlsFault::Other(error.to_string()))?;
        let mut tls = Tls {
            tcp,
            session: Connection::Server(session),
        };
        tls.handshake("").await?;
        let mut stream = PeerStream::Tls(Box::new(tls));
        let said = poll_fn(|cx| {
            let accepted = [io::IoSlice::new(&[ACCEPTED])];
            std::task::ready!(stream.poll_write(cx, &accepted))?;
            Poll::Ready(io::Result::Ok(()))
        });
        said.await.map_err(|_| TlsFault::Closed)?;
        poll_fn(|cx| stream.poll_flush(cx))
            .await
            .map_err(|_| TlsFault::Closed)?;
        Ok(stream)
    }
}

/// Tells a node that speaks without TLS why not, in its language, and lets it go first: a socket
/// that is closed with unread bytes in it takes back what it said.
async fn refuse_plain(tcp: &mut TcpStream) -> io::Result<()> {
    tcp.write_all(&plain_refusal()).await?;
    tcp.shutdown().await?;
    let mut unread = [0; 4096];
    while tcp.read(&mut unread).await? > 0 {}
    Ok(())
}

impl Tls {
    async fn handshake(&mut self, host: &str) -> Result<(), TlsFault> {
        poll_fn(|cx| {
            loop {
                if let Poll::Ready(Err(_)) = self.poll_flush(cx) {
                    return Poll::Ready(Err(TlsFault::Closed));
                }
                if !self.session.is_handshaking() {
                    return Poll::Ready(Ok(()));
                }
                match self.poll_records(cx) {
                    Poll::Pending => return Poll::Pending,
                    Poll::Ready(Ok(0)) => return Poll::Ready(Err(TlsFault::Closed)),
                    Poll::Ready(Ok(_)) => {}
                    Poll::Ready(Err(error)) => return Poll::Ready(Err(io_fault(&error, host))),
                }
            }
        })
        .await
    }

    /// Waits for [`ACCEPTED`].
    async fn is_accepted(&mut self, host: &str) -> Result<(), TlsFault> {
        let mut said = BytesMut::new();
        match poll_fn(|cx| self.poll_read(cx, &mut said)).await {
            Ok(0) => Err(TlsFault::Closed),
            Ok(_) if said[..] == [ACCEPTED] => Ok(()),
            Ok(_) => Err(TlsFault::Other("the other side speaks first".to_owned())),
            Err(error) => Err(io_fault(&error, host)),
        }
    }
}

fn io_fault(error: &io::Error, host: &str) -> TlsFault {
    let inner = error.get_ref().and_then(|inner| inner.downcast_ref());
    inner.map_or(TlsFault::Closed, |error| fault(error, host))
}

/// What a library's error means to an operator.
fn fault(error: &rustls::Error, host: &str) -> TlsFault {
    use AlertDescription as Alert;
    match error {
        rustls::Error::InvalidCertificate(error) => TlsFault::Theirs(certificate(error, host)),
        rustls::Error::NoCertificatesPresented => TlsFault::Theirs(CertificateFault::Missing),
        rustls::Error::InvalidMessage(rustls::InvalidMessage::InvalidContentType) => {
            TlsFault::Plain
        }
        rustls::Error::AlertReceived(alert) => match alert {
            Alert::UnknownCA | Alert::DecryptError => {
                TlsFault::Ours(CertificateFault::UnknownAuthority)
            }
            Alert::CertificateExpired => TlsFault::Ours(CertificateFault::Expired),
            Alert::CertificateRequired => TlsFault::Ours(CertificateFault::Missing),
            Alert::BadCertificate
            | Alert::UnsupportedCertificate
            | Alert::CertificateRevoked
            | Alert::CertificateUnknown
            | Alert::AccessDenied => {
                TlsFault::Ours(CertificateFault::Unusable(format!("{alert:?}")))
            }
            _ => TlsFault::Other(error.to_string()),
        },
        error => TlsFault::Other(error.to_string()),
    }
}

fn certificate(error: &CertificateError, host: &str) -> CertificateFault {
    use CertificateError as Error;
    match error {
        // A bad signature is that of another authority of the same name.
        Error::UnknownIssuer | Error::BadSignature => CertificateFault::UnknownAuthority,
        Error::Expired | Error::ExpiredContext { .. } => CertificateFault::Expired,
        Error::NotValidYet | Error::NotValidYetContext { .. } => CertificateFault::NotYetValid,
        Error::NotValidForName | Error::NotValidForNameContext { .. } => {
            let host = host.to_owned();
            CertificateFault::WrongName { host }
        }
        error => CertificateFault::Unusable(error.to_string()),
    }
}

impl Sides {
    /// `rpc.certfile` and its like, else the file of EMQX, else the certificate every installation
    /// has.
    fn of(settings: &Settings, certificates: &CertificatePaths) -> Result<Self, PeerTlsError> {
        let rpc = &settings.rpc;
        let mut sides = match (rpc.certfile.as_str(), rpc.keyfile.as_str()) {
            ("", "") => Self::of_emqx(certificates)?,
            files => Self::same(Side::of(files, "rpc", certificates)?),
        };
        if !rpc.cacertfile.is_empty() {
            let authority = Some(certificates.root.join(&rpc.cacertfile));
            sides.server.authority.clone_from(&authority);
            sides.client.authority = authority;
        }
        Ok(sides)
    }

    fn same(side: Side) -> Self {
        Self {
            server: side.clone(),
            client: side,
        }
    }

    fn of_emqx(certificates: &CertificatePaths) -> Result<Self, PeerTlsError> {
        let variable = std::env::var_os(SSL_DIST_VARIABLE).map(PathBuf::from);
        let is_set = variable.is_some();
        let path = variable.unwrap_or_else(|| SSL_DIST.into());
        let path = certificates.root.join(path);
        match fs::read_to_string(&path) {
            Ok(text) => Self::of_file(&text, &path, certificates),
            Err(error) if error.kind() == io::ErrorKind::NotFound && !is_set => {
                Ok(Self::same(Side::of(DEFAULT_FILES, "rpc", certificates)?))
            }
            Err(source) => Err(PeerTlsError::Read { path, source }),
        }
    }

    fn of_file(
        text: &str,
        path: &Path,
        certificates: &CertificatePaths,
    ) -> Result<Self, PeerTlsError> {
        let dist = SslDist::parse(text).map_err(|source| PeerTlsError::Options {
            path: path.to_owned(),
            source,
        })?;
        for option in &dist.ignored {
            tracing::warn!(file = %path.display(), option, "ssl_dist_option_without_effect");
        }
        let (server, client) = (&dist.server, &dist.client);
        let own = files(server).unwrap_or(DEFAULT_FILES);
        let dialing = files(client).unwrap_or(own);
        // An authority is there to be used, unless the file says otherwise.
        let authority = |side: &SslDistSide, other: &SslDistSide| {
            let file = side.cacertfile.as_ref().or(other.cacertfile.as_ref());
            let file = file.filter(|_| side.verify != Some(false));
            file.map(|file| certificates.root.join(file))
        };
        let place = format!("`{}`", path.display());
        Ok(Self {
            server: Side {
                authority: authority(server, client),
                ..Side::of(own, &place, certificates)?
            },
            client: Side {
                authority: authority(client, server),
                ..Side::of(dialing, &place, certificates)?
            },
        })
    }

    fn stamps(&self) -> Vec<Stamp> {
        let files = [&self.server, &self.client]
            .into_iter()
            .flat_map(|side| side.authority.iter().chain([&side.cert, &side.key]));
        let stamp = |path: &PathBuf| {
            let meta = fs::metadata(path).ok()?;
            Some((meta.modified().ok()?, meta.len()))
        };
        files.map(stamp).collect()
    }
}

/// The certificate and the key of one side of the file, if one of them is in it.
fn files(side: &SslDistSide) -> Option<(&str, &str)> {
    match (side.certfile.as_deref(), side.keyfile.as_deref()) {
        (None, None) => None,
        (cert, key) => Some((cert.unwrap_or_default(), key.unwrap_or_default())),
    }
}

impl Configs {
    fn of(sides: &Sides) -> Result<Self, TlsError> {
        Ok(Self {
            server: Arc::new(server_config(&sides.server)?),
            client: Arc::new(client_config(&sides.client)?),
        })
    }
}

fn server_config(side: &Side) -> Result<ServerConfig, TlsError> {
    let provider = Arc::new(ring::default_provider());
    let builder = ServerConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .map_err(|_| TlsError::Ciphers)?;
    let builder = match &side.authority {
        None => builder.with_no_client_auth(),
        Some(path) => {
            let roots = Arc::new(tls::authorities("rpc.cacertfile", path)?);
            let verifier = WebPkiClientVerifier::builder_with_provider(roots, provider);
            let verifier = verifier.build().map_err(|error| TlsError::Authority {
                path: path.clone(),
                reason: error.to_string(),
            })?;
            builder.with_client_cert_verifier(verifier)
        }
    };
    let (chain, key) = tls::pair("rpc.certfile", &side.cert, "rpc.keyfile", &side.key)?;
    let mut config = builder
        .with_single_cert(chain, key)
        .map_err(|source| side.pair_error(source))?;
    // Links are few and long; nothing is gained by resuming one.
    config.send_tls13_tickets = 0;
    config.session_storage = Arc::new(NoServerSessionStorage {});
    Ok(config)
}

fn client_config(side: &Side) -> Result<ClientConfig, TlsError> {
    let provider = Arc::new(ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .map_err(|_| TlsError::Ciphers)?;
    let builder = match &side.authority {
        Some(path) => builder.with_root_certificates(tls::authorities("rpc.cacertfile", path)?),
        None => builder
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(Anybody { provider })),
    };
    let (chain, key) = tls::pair("rpc.certfile", &side.cert, "rpc.keyfile", &side.key)?;
    let mut config = builder
        .with_client_auth_cert(chain, key)
        .map_err(|source| side.pair_error(source))?;
    config.resumption = Resumption::disabled();
    Ok(config)
}

impl Side {
    /// A certificate and its key, which verify nobody. Those that every installation has are made
    /// if they are not there yet.
    fn of(
        (cert, key): (&str, &str),
        place: &str,
        certificates: &CertificatePaths,
    ) -> Result<Self, PeerTlsError> {
        for (missing, file) in [("certfile", cert), ("keyfile", key)] {
            if file.is_empty() {
                let place = place.to_owned();
                return Err(PeerTlsError::Half { missing, place });
            }
        }
        let (cert, key) = certificates.default_pair(cert, key)?;
        Ok(Self {
            cert,
            key,
            authority: None,
        })
    }

    fn pair_error(&self, source: rustls::Error) -> TlsError {
        TlsError::Pair {
            cert: self.cert.clone(),
            key: self.key.clone(),
            source,
        }
    }
}

#[cfg(test)]
mod tests;
