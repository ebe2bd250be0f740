//! TLS of listeners: settings to a rustls configuration, and re-reading files that changed.
//!
//! Certificates are renewed under a running broker. A listener's files are looked at again at most
//! every two minutes, when a client connects; new ones are used if they are whole, else the old
//! ones stay and a warning says why. This module must never close a listener because of a bad file
//! that appeared later.

pub mod certificate;
mod client;
mod peer_cert;

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use dunlin_config::settings::{SslOptions, Verify};
use rustls::crypto::{CryptoProvider, ring};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{NoServerSessionStorage, WebPkiClientVerifier};
use rustls::{RootCertStore, ServerConfig, SupportedCipherSuite, SupportedProtocolVersion};

pub(crate) use client::{Anybody, client_config};
pub(crate) use peer_cert::peer_cert;

/// How long a file is trusted not to have changed. EMQX's certificate cache lives as long.
const RECHECK: Duration = Duration::from_mins(2);

/// Largest PEM file read, in bytes. A bundle of all public authorities has about 250 KB.
const PEM_BYTES_MAX: u64 = 4 * 1024 * 1024;

/// TLS 1.3 tickets sent after a handshake. Two would let a browser resume twice at once; an MQTT
/// client opens one connection.
const TICKETS: usize = 1;

/// The files of one listener, resolved.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Files {
    pub(crate) cacert: Option<PathBuf>,
    pub(crate) cert: PathBuf,
    pub(crate) key: PathBuf,
}

impl Files {
    fn paths(&self) -> impl Iterator<Item = &Path> {
        self.cacert
            .iter()
            .chain([&self.cert, &self.key])
            .map(PathBuf::as_path)
    }
}

/// Why a TLS configuration could not be made. Each names the file or option to put right.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file cannot be read.
    #[error("cannot read {} `{}`: {source}; put the file there, readable by the broker's user, \
             or set {option}", .option, .path.display())]
    Read {
        /// The option that names it.
        option: &'static str,
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A file holds no PEM block of the kind needed.
    #[error("`{}` ({option}) holds no {wanted} in PEM form", .path.display())]
    Empty {
        /// The option that names it.
        option: &'static str,
        /// The file.
        path: PathBuf,
        /// What was looked for.
        wanted: &'static str,
    },
    /// A key protected by a password.
    #[error("the key in `{}` is encrypted, which is not supported; decrypt it with \
             `openssl pkey -in FILE -out NEW` and give the new file mode 0600", .path.display())]
    EncryptedKey {
        /// The file.
        path: PathBuf,
    },
    /// Certificate and key do not belong together or are of a kind that cannot be used.
    #[error("certificate `{}` and key `{}` cannot be used: {source}", .cert.display(),
            .key.display())]
    Pair {
        /// The certificate file.
        cert: PathBuf,
        /// The key file.
        key: PathBuf,
        /// What rustls says.
        source: rustls::Error,
    },
    /// A certificate authority that cannot be used.
    #[error("certificate authority `{}` cannot be used: {reason}", .path.display())]
    Authority {
        /// The file.
        path: PathBuf,
        /// Why.
        reason: String,
    },
    /// `verify_peer` without authorities.
    #[error("verify = verify_peer needs ssl_options.cacertfile, the authorities of the clients")]
    NoAuthorities,
    /// No version left to speak.
    #[error("none of ssl_options.versions [{versions}] is supported; use tlsv1.3, tlsv1.2")]
    Versions {
        /// What is configured.
        versions: String,
    },
    /// The default certificate could not be made.
    #[error("{0}; put certificates there or set ssl_options.certfile and keyfile")]
    Default(#[from] certificate::CertificateError),
    /// No cipher suite left.
    #[error("none of ssl_options.ciphers is supported; leave it empty for the default suites")]
    Ciphers,
}

/// The TLS side of a listener.
pub(crate) struct ServerTls {
    options: SslOptions,
    files: Files,
    alpn: Vec<Vec<u8>>,
    state: Mutex<State>,
}

struct State {
    config: Arc<ServerConfig>,
    stamps: Vec<Stamp>,
    checked: Instant,
}

/// What tells a changed file from an unchanged one without reading it.
type Stamp = Option<(SystemTime, u64)>;

impl ServerTls {
    /// Reads the files. `alpn` are protocols to agree on (HTTP).
    pub(crate) fn with_alpn(
        options: SslOptions,
        files: Files,
        alpn: Vec<Vec<u8>>,
    ) -> Result<Self, TlsError> {
        let stamps = stamps(&files);
        let config = Arc::new(server_config(&options, &files, &alpn)?);
        let state = Mutex::new(State {
            config,
            stamps,
            checked: Instant::now(),
        });
        Ok(Self {
            options,
            files,
            alpn,
            state,
        })
    }

    /// The configuration for the next client.
    pub(crate) fn config(&self, id: &str) -> Arc<ServerConfig> {
        self.config_at(Instant::now(), id)
    }

    fn config_at(&self, now: Instant, id: &str) -> Arc<ServerConfig> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if now.saturating_duration_since(state.checked) >= RECHECK {
            state.checked = now;
            let stamps = stamps(&self.files);
            if stamps != state.stamps {
                // Remembered even if the new files are bad: one warning per change.
                state.stamps = stamps;
                self.reload(&mut state, id);
            }
        }
        state.config.clone()
    }

    fn reload(&self, state: &mut State, id: &str) {
        match server_config(&self.options, &self.files, &self.alpn) {
            Ok(config) => {
                state.config = Arc::new(config);
                tracing::info!(listener = id, "certificate_reloaded");
            }
            Err(error) => {
                tracing::error!(listener = id, reason = %error, "certificate_reload_failed");
            }
        }
    }

    pub(crate) fn handshake_timeout(&self) -> Duration {
        Duration::from_millis(self.options.handshake_timeout_ms)
    }
}

fn stamps(files: &Files) -> Vec<Stamp> {
    let stamp = |path: &Path| {
        let meta = fs::metadata(path).ok()?;
        Some((meta.modified().ok()?, meta.len()))
    };
    files.paths().map(stamp).collect()
}

fn server_config(
    options: &SslOptions,
    files: &Files,
    alpn: &[Vec<u8>],
) -> Result<ServerConfig, TlsError> {
    let provider = Arc::new(provider(options)?);
    let builder = ServerConfig::builder_with_provider(provider.clone())
        .with_protocol_versions(&versions(options)?)
        .map_err(|_| TlsError::Ciphers)?;
    let builder = match options.verify {
        Verify::VerifyNone => builder.with_no_client_auth(),
        Verify::VerifyPeer => {
            let cacert = files.cacert.as_deref().ok_or(TlsError::NoAuthorities)?;
            let roots = Arc::new(authorities("ssl_options.cacertfile", cacert)?);
            let mut verifier = WebPkiClientVerifier::builder_with_provider(roots, provider);
            if !options.fail_if_no_peer_cert {
                verifier = verifier.allow_unauthenticated();
            }
            let verifier = verifier.build().map_err(|error| TlsError::Authority {
                path: cacert.to_owned(),
                reason: error.to_string(),
            })?;
            builder.with_client_cert_verifier(verifier)
        }
    };
    let pair_error = |source| TlsError::Pair {
        cert: files.cert.clone(),
        key: files.key.clone(),
        source,
    };
    let (chain, key) = pair(
        "ssl_options.certfile",
        &files.cert,
        "ssl_options.keyfile",
        &files.key,
    )?;
    let mut config = builder.with_single_cert(chain, key).map_err(pair_error)?;
    config.alpn_protocols = alpn.to_vec();
    config.ignore_client_order = options.honor_cipher_order;
    config.send_tls13_tickets = if options.reuse_sessions { TICKETS } else { 0 };
    // Tickets keep the state at the client; a cache here would cost memory per client.
    config.session_storage = Arc::new(NoServerSessionStorage {});
    if options.reuse_sessions {
        config.ticketer = ring::Ticketer::new().map_err(pair_error)?;
    }
    Ok(config)
}

fn versions(options: &SslOptions) -> Result<Vec<&'static SupportedProtocolVersion>, TlsError> {
    let known = |name: &String| match name.as_str() {
        "tlsv1.3" => Some(&rustls::version::TLS13),
        "tlsv1.2" => Some(&rustls::version::TLS12),
        _ => None,
    };
    let versions: Vec<_> = options.versions.iter().filter_map(known).collect();
    if versions.is_empty() && !options.versions.is_empty() {
        return Err(TlsError::Versions {
            versions: options.versions.join(", "),
        });
    }
    Ok(if versions.is_empty() {
        rustls::ALL_VERSIONS.to_vec()
    } else {
        versions
    })
}

/// The library's algorithms, narrowed to the configured suites.
fn provider(options: &SslOptions) -> Result<CryptoProvider, TlsError> {
    let mut provider = ring::default_provider();
    if options.ciphers.is_empty() {
        return Ok(provider);
    }
    let all = std::mem::take(&mut provider.cipher_suites);
    for name in &options.ciphers {
        let found = all.iter().find(|suite| is_named(**suite, name));
        match found {
            Some(suite) if !provider.cipher_suites.contains(suite) => {
                provider.cipher_suites.push(*suite);
            }
            _ => {}
        }
    }
    if provider.cipher_suites.is_empty() {
        Err(TlsError::Ciphers)
    } else {
        Ok(provider)
    }
}

/// Whether `name` means the suite: its IANA name, or OpenSSL's, which leaves out `TLS`, `WITH` and
/// some separators (`ECDHE-RSA-AES128-GCM-SHA256`).
fn is_named(suite: SupportedCipherSuite, name: &str) -> bool {
    let plain = |text: &str| {
        text.replace(['-', '_'], "")
            .replace("TLS13", "")
            .replace("TLS", "")
            .replace("WITH", "")
    };
    // OpenSSL omits the hash of the ChaCha suites: it is part of their definition.
    let ours = plain(&format!("{:?}", suite.suite()));
    let theirs = plain(&name.to_ascii_uppercase());
    ours == theirs || ours == format!("{theirs}SHA256")
}

/// A certificate with those after it, and its key.
pub(crate) fn pair(
    cert_option: &'static str,
    cert: &Path,
    key_option: &'static str,
    key: &Path,
) -> Result<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>), TlsError> {
    Ok((
        certificates(cert_option, cert)?,
        private_key(key_option, key)?,
    ))
}

/// The certificates of a file, each of which may sign others.
pub(crate) fn authorities(option: &'static str, path: &Path) -> Result<RootCertStore, TlsError> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(option, path)? {
        roots
            .add(certificate)
            .map_err(|error| TlsError::Authority {
                path: path.to_owned(),
                reason: error.to_string(),
            })?;
    }
    Ok(roots)
}

fn certificates(
    option: &'static str,
    path: &Path,
) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let pem = read(option, path)?;
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&pem).collect();
    match found {
        Ok(certificates) if !certificates.is_empty() => Ok(certificates),
        _ => Err(TlsError::Empty {
            option,
            path: path.to_owned(),
            wanted: "certificate",
        }),
    }
}

fn private_key(option: &'static str, path: &Path) -> Result<PrivateKeyDer<'static>, TlsError> {
    let pem = read(option, path)?;
    PrivateKeyDer::from_pem_slice(&pem).map_err(|_| {
        let path = path.to_owned();
        if pem.windows(9).any(|window| window == b"ENCRYPTED") {
            TlsError::EncryptedKey { path }
        } else {
            TlsError::Empty {
                option,
                path,
                wanted: "private key",
            }
        }
    })
}

fn read(option: &'static str, path: &Path) -> Result<Vec<u8>, TlsError> {
    use std::io::Read as _;
    let read = || {
        let mut pem = Vec::new();
        fs::File::open(path)?
            .take(PEM_BYTES_MAX)
            .read_to_end(&mut pem)?;
        Ok(pem)
    };
    read().map_err(|source| TlsError::Read {
        option,
        path: path.to_owned(),
        source,
    })
}

#[cfg(test)]
mod tests;
