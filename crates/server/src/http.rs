//! The HTTP listeners of the dashboard and the API: sockets only, requests are the `api` crate's.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use dunlin_config::settings::{HttpListener as HttpSettings, TcpOptions};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use crate::listener::{BindFault, Listen, ListenError, open};
use crate::tls::ServerTls;

/// Pause after the system had no more sockets to give.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Connections that have finished TLS and wait to be taken.
const READY_MAX: usize = 16;

/// A listener whose connections carry HTTP.
pub struct HttpListener {
    /// `http:dashboard` or `https:dashboard`.
    pub id: String,
    source: Source,
    seats: Arc<Semaphore>,
}

enum Source {
    Plain(TcpListener),
    /// Handshakes run beside each other; one that hangs must not hold up the next client.
    Tls(mpsc::Receiver<(HttpStream, SocketAddr)>),
}

/// A connection that carries HTTP.
pub struct HttpStream {
    kind: Kind,
    _seat: OwnedSemaphorePermit,
}

enum Kind {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

/// An HTTP listener that is bound and not yet served.
pub(crate) struct BoundHttp {
    id: &'static str,
    socket: std::net::TcpListener,
    tls: Option<Arc<ServerTls>>,
    connections_max: usize,
}

/// Binds `http:dashboard` or, with TLS, `https:dashboard`.
pub(crate) fn bind(
    settings: &HttpSettings,
    tls: Option<ServerTls>,
) -> Result<BoundHttp, ListenError> {
    let id = if tls.is_some() {
        "https:dashboard"
    } else {
        "http:dashboard"
    };
    let options = TcpOptions {
        backlog: settings.backlog,
        send_timeout_ms: settings.send_timeout_ms,
        send_timeout_close: true,
        recbuf_bytes: None,
        sndbuf_bytes: None,
        buffer_bytes: 0,
        high_watermark_bytes: 0,
        nodelay: true,
        nolinger: false,
        reuseaddr: true,
        keepalive: None,
    };
    let mut sockets = open(Listen {
        bind: settings.bind,
        options: &options,
        sockets: 1,
    })
    .map_err(|error| ListenError::Bind {
        id: id.to_owned(),
        bind: settings.bind.to_string(),
        reason: BindFault(error),
    })?;
    Ok(BoundHttp {
        id,
        socket: sockets.remove(0),
        tls: tls.map(Arc::new),
        connections_max: settings.max_connections as usize,
    })
}

impl BoundHttp {
    pub(crate) fn id(&self) -> &'static str {
        self.id
    }

    /// Begins to accept; needs a runtime.
    pub(crate) fn listen(self) -> io::Result<HttpListener> {
        let socket = TcpListener::from_std(self.socket)?;
        let seats = Arc::new(Semaphore::new(self.connections_max));
        let id = self.id.to_owned();
        let source = match self.tls {
            None => Source::Plain(socket),
            Some(tls) => {
                let (ready, receiver) = mpsc::channel(READY_MAX);
                tokio::spawn(accept_tls(socket, tls, seats.clone(), ready));
                Source::Tls(receiver)
            }
        };
        Ok(HttpListener { id, source, seats })
    }
}

impl HttpListener {
    /// The next connection. Never fails: what goes wrong with one is logged and passed over.
    pub async fn accept(&mut self) -> (HttpStream, SocketAddr) {
        loop {
            match &mut self.source {
                Source::Plain(socket) => {
                    let (stream, peer, seat) = accept_plain(socket, &self.seats).await;
                    return (
                        HttpStream {
                            kind: Kind::Plain(stream),
                            _seat: seat,
                        },
                        peer,
                    );
                }
                Source::Tls(ready) => match ready.recv().await {
                    Some(accepted) => return accepted,
                    // The accepting task is gone, which it is only with the runtime.
                    None => std::future::pending().await,
                },
            }
        }
    }
}

async fn accept_plain(
    socket: &TcpListener,
    seats: &Arc<Semaphore>,
) -> (TcpStream, SocketAddr, OwnedSemaphorePermit) {
    loop {
        let seat = seats
            .clone()
            .acquire_owned()
            .await
            .expect("the semaphore is never closed");
        match socket.accept().await {
            Ok((stream, peer)) => {
                let _ = stream.set_nodelay(true);
                return (stream, peer, seat);
            }
            Err(error) => {
                tracing::warn!(reason = %error, "http_accept_failed");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

async fn accept_tls(
    socket: TcpListener,
    tls: Arc<ServerTls>,
    seats: Arc<Semaphore>,
    ready: mpsc::Sender<(HttpStream, SocketAddr)>,
) {
    while !ready.is_closed() {
        let (stream, peer, seat) = accept_plain(&socket, &seats).await;
        let (tls, ready) = (tls.clone(), ready.clone());
        tokio::spawn(async move {
            let acceptor = TlsAcceptor::from(tls.config("https:dashboard"));
            match timeout(tls.handshake_timeout(), acceptor.accept(stream)).await {
                Ok(Ok(stream)) => {
                    let stream = HttpStream {
                        kind: Kind::Tls(Box::new(stream)),
                        _seat: seat,
                    };
                    // Nobody listens any more: the connection ends.
                    let _ = ready.send((stream, peer)).await;
                }
                Ok(Err(error)) => {
                    tracing::debug!(peername = %peer, reason = %error, "https_not_welcome");
                }
                Err(_) => tracing::debug!(peername = %peer, "https_handshake_timeout"),
            }
        });
    }
}

macro_rules! each {
    ($self:expr, $stream:ident => $call:expr) => {
        match &mut $self.get_mut().kind {
            Kind::Plain($stream) => $call,
            Kind::Tls($stream) => $call,
        }
    };
}

impl AsyncRead for HttpStream {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        each!(self, stream => Pin::new(stream).poll_read(cx, buf))
    }
}

impl AsyncWrite for HttpStream {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        each!(self, stream => Pin::new(stream).poll_write(cx, buf))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        each!(self, stream => Pin::new(stream).poll_write_vectored(cx, bufs))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        each!(self, stream => Pin::new(stream).poll_flush(cx))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        each!(self, stream => Pin::new(stream).poll_shutdown(cx))
    }
}
