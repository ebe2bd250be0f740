//! From an accepted socket to a client's byte stream: limits, PROXY header, TLS, WebSocket.
//!
//! Each of these steps is under a deadline, so that a peer that connects and says nothing costs a
//! bounded time. What goes wrong here concerns one peer and is logged at debug level only: the
//! internet is full of scanners.

use std::io;
use std::net::TcpListener as StdListener;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use dunlin_broker::Accepted;
use dunlin_broker::effects::PeerCert;
use dunlin_config::settings::{Piggyback, TcpOptions, Websocket};
use socket2::{SockRef, TcpKeepalive};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_websockets::{Limits, ServerBuilder};

use super::proxy::{self, Proxied};
use super::{Ends, Listener, Seat, ws};
use crate::connection::Connection;
use crate::driver::Driver;
use crate::stream::{PacketCut, Prefixed, Stream, WsStream};
use crate::time::now;
use crate::tls::peer_cert;

/// Pause after the system had no more sockets to give. They come back when connections end; until
/// then trying again at once would only burn a core.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// How long the HTTP upgrade may take. EMQX (Cowboy) allows as long for a request.
const UPGRADE_TIMEOUT: Duration = Duration::from_secs(5);

/// Largest WebSocket message, in bytes, where `max_frame_size` sets no limit: the largest MQTT
/// packet.
const FRAME_BYTES_MAX: u64 = 268_435_456;

/// Accepts clients of one listener on one shard until the listener stops or the task is dropped.
pub(crate) async fn accept_clients(
    driver: Rc<Driver>,
    listener: Arc<Listener>,
    socket: StdListener,
) {
    let socket = match TcpListener::from_std(socket) {
        Ok(socket) => socket,
        Err(error) => {
            tracing::error!(listener = listener.id, reason = %error, "listener_failed");
            return;
        }
    };
    loop {
        let wait_ms = listener.rate_wait_ms(now().mono_ms);
        if wait_ms > 0 {
            tokio::time::sleep(Duration::from_millis(wait_ms)).await;
            continue;
        }
        match socket.accept().await {
            Ok((stream, peer)) => {
                if let Ok(local) = stream.local_addr() {
                    welcome(&driver, &listener, stream, Ends { peer, local }.canonical());
                }
            }
            Err(error) if is_of_one_peer(&error) => {}
            Err(error) => {
                tracing::error!(listener = listener.id, reason = %error, "accept_failed");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// The peer was gone before it was accepted.
fn is_of_one_peer(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::Interrupted
    )
}

/// Gives a new connection its task.
fn welcome(driver: &Rc<Driver>, listener: &Arc<Listener>, stream: TcpStream, ends: Ends) {
    if !listener.settings.proxy_protocol && !listener.admits(ends.peer.ip()) {
        return;
    }
    let Some(seat) = listener.seat() else {
        tracing::debug!(listener = listener.id, peername = %ends.peer, "listener_full");
        return;
    };
    if set_options(&stream, &listener.settings.tcp_options).is_err() {
        return; // The peer is gone.
    }
    let kind = listener.settings.kind;
    if !kind.is_tls() && !kind.is_websocket() && !listener.settings.proxy_protocol {
        let client = Client {
            stream: Stream::Tcp(stream),
            ends,
            peer_cert: None,
        };
        serve(driver, seat, client);
        return;
    }
    let driver = driver.clone();
    tokio::task::spawn_local(async move {
        let peer = ends.peer;
        let prepared = tokio::select! {
            prepared = prepare(seat.listener(), stream, ends) => prepared,
            () = seat.listener().closing.notified() => return,
        };
        match prepared {
            Ok(client) => serve(&driver, seat, client),
            Err(error) => {
                let listener = &seat.listener().id;
                tracing::debug!(%listener, peername = %peer, reason = %error, "client_not_welcome");
            }
        }
    });
}

/// A byte stream on which MQTT may begin, and what is known of the client.
struct Client {
    stream: Stream,
    ends: Ends,
    peer_cert: Option<Box<PeerCert>>,
}

fn serve(driver: &Rc<Driver>, seat: Seat, client: Client) {
    let listener = seat.listener();
    let info = Accepted {
        listener: listener.broker.clone(),
        peer: client.ends.peer,
        local: client.ends.local,
        peer_cert: client.peer_cert,
        ws: listener.settings.kind.is_websocket(),
    };
    let conn = driver.accept(info);
    let connection = Connection::new(driver.clone(), conn, seat, client.stream);
    tokio::task::spawn_local(connection);
}

/// Does what comes before MQTT.
async fn prepare(listener: &Listener, mut tcp: TcpStream, mut ends: Ends) -> io::Result<Client> {
    let mut buf = BytesMut::new();
    let mut cert = None;
    if listener.settings.proxy_protocol {
        let limit = Duration::from_millis(listener.settings.proxy_protocol_timeout_ms);
        let proxied = timeout(limit, proxy::read_header(&mut tcp, &mut buf)).await??;
        let Proxied { addresses, cn } = proxied;
        if let Some((peer, local)) = addresses {
            ends = Ends { peer, local }.canonical();
        }
        if !listener.admits(ends.peer.ip()) {
            return Err(io::ErrorKind::PermissionDenied.into());
        }
        cert = cn.map(|cn| {
            Box::new(PeerCert {
                dn: format!("CN={cn}"),
                cn,
                ..PeerCert::default()
            })
        });
    }
    let tcp = Prefixed::new(buf, tcp);
    let Some(tls) = &listener.tls else {
        return plain(listener, tcp, ends, cert).await;
    };
    let acceptor = TlsAcceptor::from(tls.config(&listener.id));
    let stream = timeout(tls.handshake_timeout(), acceptor.accept(tcp)).await??;
    let cert = peer_certificate(&stream).or(cert);
    encrypted(listener, stream, ends, cert).await
}

async fn plain(
    listener: &Listener,
    tcp: Prefixed<TcpStream>,
    mut ends: Ends,
    peer_cert: Option<Box<PeerCert>>,
) -> io::Result<Client> {
    let Some(websocket) = &listener.settings.websocket else {
        return Ok(Client {
            stream: Stream::Proxied(Box::new(tcp)),
            ends,
            peer_cert,
        });
    };
    let (mut buf, mut tcp) = tcp.into_parts();
    let upgraded = timeout(UPGRADE_TIMEOUT, ws::upgrade(&mut tcp, &mut buf, websocket)).await??;
    ends.peer = upgraded.forwarded.unwrap_or(ends.peer);
    let frames = ServerBuilder::new()
        .limits(frame_limits(websocket.max_frame_bytes))
        .serve(Prefixed::new(buf, tcp));
    Ok(Client {
        stream: Stream::Ws(Box::new(WsStream::new(frames, packet_cut(websocket)))),
        ends,
        peer_cert,
    })
}

async fn encrypted(
    listener: &Listener,
    mut tls: TlsStream<Prefixed<TcpStream>>,
    mut ends: Ends,
    peer_cert: Option<Box<PeerCert>>,
) -> io::Result<Client> {
    let Some(websocket) = &listener.settings.websocket else {
        return Ok(Client {
            stream: Stream::Tls(Box::new(tls)),
            ends,
            peer_cert,
        });
    };
    let mut buf = BytesMut::new();
    let upgraded = timeout(UPGRADE_TIMEOUT, ws::upgrade(&mut tls, &mut buf, websocket)).await??;
    ends.peer = upgraded.forwarded.unwrap_or(ends.peer);
    let frames = ServerBuilder::new()
        .limits(frame_limits(websocket.max_frame_bytes))
        .serve(Prefixed::new(buf, tls));
    Ok(Client {
        stream: Stream::Wss(Box::new(WsStream::new(frames, packet_cut(websocket)))),
        ends,
        peer_cert,
    })
}

fn packet_cut(websocket: &Websocket) -> Option<PacketCut> {
    (websocket.mqtt_piggyback == Piggyback::Single).then(PacketCut::default)
}

fn frame_limits(max_frame_bytes: Option<u64>) -> Limits {
    let bytes = max_frame_bytes
        .unwrap_or(FRAME_BYTES_MAX)
        .min(FRAME_BYTES_MAX);
    Limits::default().max_payload_len(Some(bytes as usize))
}

fn peer_certificate(stream: &TlsStream<Prefixed<TcpStream>>) -> Option<Box<PeerCert>> {
    let (_, connection) = stream.get_ref();
    let leaf = connection.peer_certificates()?.first()?;
    Some(Box::new(peer_cert(leaf)))
}

fn set_options(stream: &TcpStream, options: &TcpOptions) -> io::Result<()> {
    stream.set_nodelay(options.nodelay)?;
    let socket = SockRef::from(stream);
    if let Some(keepalive) = options.keepalive {
        let probes = TcpKeepalive::new()
            .with_time(Duration::from_secs(keepalive.idle_s.into()))
            .with_interval(Duration::from_secs(keepalive.interval_s.into()))
            .with_retries(keepalive.probes);
        socket.set_tcp_keepalive(&probes)?;
    }
    if options.nolinger {
        socket.set_linger(Some(Duration::ZERO))?;
    }
    Ok(())
}
