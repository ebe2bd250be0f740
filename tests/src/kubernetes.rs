//! A Kubernetes API server for tests: the part of the real wire that discovery speaks.
//!
//! Paths, bodies, headers and errors are those recorded from kube-apiserver 1.36: lists with pages,
//! watches as chunked streams with bookmarks, refusals as Status objects, TLS with a token. Knobs
//! make it fail as real ones do. It runs in the threads of the test and ends with it.

mod answer;
mod object;
mod wire;

use std::collections::VecDeque;
use std::fs;
use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use anyhow::{Context, Result};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

use crate::certificates::Issued;

/// The namespace of the pods.
pub const NAMESPACE: &str = "mq";
/// The service whose end points are the pods.
pub const SERVICE: &str = "emqx-headless";

/// No request or write may take longer than this.
const LIMIT: Duration = Duration::from_secs(10);
/// Events kept for watches; a test makes far fewer.
const EVENTS_MAX: usize = 100;

/// An end point of the service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pod {
    /// Its address.
    pub ip: String,
    /// Its host name, if it is of a stateful set.
    pub hostname: Option<String>,
    /// Whether its readiness probe succeeds.
    pub ready: bool,
}

impl Pod {
    /// One that is starting.
    pub fn not_ready(ip: impl Into<String>) -> Self {
        Self {
            ip: ip.into(),
            hostname: None,
            ready: false,
        }
    }

    /// The same pod in a stateful set.
    #[must_use]
    pub fn called(self, hostname: &str) -> Self {
        let hostname = Some(hostname.to_owned());
        Self { hostname, ..self }
    }
}

/// What the account may do, and how the server misbehaves.
#[derive(Clone, Debug)]
pub struct Knobs {
    /// The namespace of the service and of the account.
    pub namespace: String,
    /// The service whose end points are the pods.
    pub service: String,
    /// The token of the account; `None` lets everybody do everything, as the old insecure port.
    pub token: Option<String>,
    /// Whether a role lets the account read end point slices.
    pub may_slices: bool,
    /// Whether a role lets the account read end points.
    pub may_endpoints: bool,
    /// Whether these roles have the verb `watch`.
    pub may_watch: bool,
    /// Answers everything with this status.
    pub fails_with: Option<u16>,
    /// Takes requests and never answers.
    pub hangs: bool,
    /// End points in one slice.
    pub per_slice: usize,
    /// Most slices on one page, whatever the client's limit says.
    pub page: usize,
    /// Continue tokens that are refused as too old before one is taken.
    pub stale_continues: u32,
    /// Watches from before this version are told that it is too old.
    pub oldest: u64,
    /// Cuts the stream of events anywhere into chunks.
    pub cuts_chunks: bool,
}

/// The server.
pub struct ApiServer {
    inner: Arc<Inner>,
    address: SocketAddr,
    accepting: Option<JoinHandle<()>>,
}

struct Inner {
    state: Mutex<State>,
    changed: Condvar,
    tls: Option<Arc<rustls::ServerConfig>>,
    stopped: AtomicBool,
}

struct State {
    knobs: Knobs,
    pods: Vec<Pod>,
    /// The version of everything; each change makes the next one.
    version: u64,
    /// Versions at which the end points changed.
    events: VecDeque<u64>,
    requests: Vec<String>,
}

impl ApiServer {
    /// A server on this address; with a certificate it speaks TLS only.
    pub fn start(address: (IpAddr, u16), tls: Option<&Issued>) -> Result<Self> {
        let listener = TcpListener::bind(address).context("the API server's port")?;
        let address = listener.local_addr()?;
        let inner = Arc::new(Inner {
            state: Mutex::new(State::new()),
            changed: Condvar::new(),
            tls: tls.map(tls_config).transpose()?,
            stopped: AtomicBool::new(false),
        });
        let shared = Arc::clone(&inner);
        let accepting = thread::spawn(move || {
            for stream in listener.incoming() {
                if shared.stopped.load(Ordering::Relaxed) {
                    return;
                }
                let (Ok(stream), inner) = (stream, Arc::clone(&shared)) else {
                    continue;
                };
                // A client that goes away in the middle is its own business.
                thread::spawn(move || inner.serve(stream));
            }
        });
        Ok(Self {
            inner,
            address,
            accepting: Some(accepting),
        })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Turns knobs.
    pub fn set(&self, turn: impl FnOnce(&mut Knobs)) {
        turn(&mut self.inner.state().knobs);
        self.inner.changed.notify_all();
    }

    /// Changes the pods of the service; watches hear of it.
    pub fn pods(&self, pods: &[Pod]) {
        let mut state = self.inner.state();
        state.pods = pods.to_vec();
        state.version += 1;
        let version = state.version;
        state.events.push_back(version);
        if state.events.len() > EVENTS_MAX {
            state.events.pop_front();
        }
        drop(state);
        self.inner.changed.notify_all();
    }

    /// What was asked since the last call: the answer's status, method and path.
    pub fn requests(&self) -> Vec<String> {
        std::mem::take(&mut self.inner.state().requests)
    }
}

impl Drop for ApiServer {
    fn drop(&mut self) {
        self.inner.stopped.store(true, Ordering::Relaxed);
        self.inner.changed.notify_all();
        // Wakes the thread that accepts.
        let _ = TcpStream::connect(self.address);
        if let Some(accepting) = self.accepting.take() {
            // From here on the port is free.
            let _ = accepting.join();
        }
    }
}

/// Writes what a pod finds below `/var/run/secrets/kubernetes.io/serviceaccount`.
pub fn write_account(folder: &Path, authority: Option<&str>, token: &str) -> Result<()> {
    fs::create_dir_all(folder)?;
    fs::write(folder.join("namespace"), NAMESPACE)?;
    if let Some(authority) = authority {
        fs::write(folder.join("ca.crt"), authority)?;
    }
    // As the kubelet does: readers see the old one or the new one.
    fs::write(folder.join("token.new"), format!("{token}\n"))?;
    Ok(fs::rename(folder.join("token.new"), folder.join("token"))?)
}

fn tls_config(issued: &Issued) -> Result<Arc<rustls::ServerConfig>> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(
            vec![CertificateDer::from_pem_slice(issued.cert.as_bytes())?],
            PrivateKeyDer::from_pem_slice(issued.key.as_bytes())?,
        )?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}

impl State {
    fn new() -> Self {
        Self {
            knobs: Knobs {
                namespace: NAMESPACE.to_owned(),
                service: SERVICE.to_owned(),
                token: Some("token-1".to_owned()),
                may_slices: true,
                may_endpoints: true,
                may_watch: true,
                fails_with: None,
                hangs: false,
                per_slice: 100,
                page: 500,
                stale_continues: 0,
                oldest: 0,
                cuts_chunks: false,
            },
            pods: Vec::new(),
            version: 225,
            events: VecDeque::new(),
            requests: Vec::new(),
        }
    }
}

impl Inner {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn serve(&self, stream: TcpStream) -> Result<()> {
        stream.set_read_timeout(Some(LIMIT))?;
        stream.set_write_timeout(Some(LIMIT))?;
        let Some(tls) = &self.tls else {
            return self.serve_requests(stream);
        };
        let mut first = [0];
        stream.peek(&mut first)?;
        if first[0] != 0x16 {
            return wire::refuse_plain(stream);
        }
        let tls = rustls::ServerConnection::new(Arc::clone(tls))?;
        self.serve_requests(rustls::StreamOwned::new(tls, stream))
    }

    fn serve_requests(&self, mut stream: impl Read + Write) -> Result<()> {
        let mut buffer = Vec::new();
        while let Some(request) = wire::Request::read(&mut stream, &mut buffer)? {
            if self.state().knobs.hangs {
                self.state().requests.push(format!("hung {}", request.line));
                self.hang();
                return Ok(());
            }
            let answer = answer::answer(&mut self.state(), &request);
            let line = format!("{} {}", answer.status(), request.line);
            self.state().requests.push(line);
            match answer {
                answer::Answer::Whole(answer) => answer.write(&mut stream)?,
                answer::Answer::Watch(watch) => {
                    wire::begin_chunks(&mut stream)?;
                    self.serve_watch(&mut stream, watch)?;
                }
            }
        }
        Ok(())
    }

    fn hang(&self) {
        let mut state = self.state();
        while state.knobs.hangs && !self.stopped.load(Ordering::Relaxed) {
            state = self.wait(state, LIMIT);
        }
    }

    fn wait<'a>(&self, state: MutexGuard<'a, State>, limit: Duration) -> MutexGuard<'a, State> {
        let waited = self.changed.wait_timeout(state, limit);
        waited.unwrap_or_else(PoisonError::into_inner).0
    }

    /// Sends events until the time that the client gave is over.
    fn serve_watch(&self, stream: &mut impl Write, mut watch: answer::Watch) -> Result<()> {
        loop {
            let mut state = self.state();
            let (events, ended) = watch.next(&state);
            let cuts = state.knobs.cuts_chunks;
            if events.is_empty() && !ended {
                state = self.wait(state, watch.pause());
            }
            drop(state);
            wire::write_chunks(stream, &events, cuts)?;
            if ended || self.stopped.load(Ordering::Relaxed) {
                return wire::end_chunks(stream);
            }
        }
    }
}
