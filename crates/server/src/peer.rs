//! TCP between nodes: the port they listen on, dialing, and moving bytes of links.
//!
//! What the bytes mean is the cluster core's business; here connections are opened, watched and
//! closed. A connection is accepted on the control thread, and if it turns out to be a data link,
//! the socket itself moves to the shard it belongs to, so that forwarded messages never pass
//! through the control thread. Nothing here may wait without a limit.

mod stream;
mod tls;

use std::collections::VecDeque;
use std::future::poll_fn;
use std::io::{self, IoSlice};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use dunlin_broker::PeerConn;
use dunlin_cluster::{DialError, Hello, NodeName};
use socket2::{Domain, Protocol, SockRef, Socket, TcpKeepalive, Type};
use tokio::net::{TcpListener, TcpStream, lookup_host};
use tokio::time::timeout;

use crate::driver::Driver;

pub(crate) use stream::{Detached, PeerStream};
pub(crate) use tls::PeerTls;
pub use tls::PeerTlsError;

/// Limit on resolving and connecting together; `rpc.connect_timeout` of EMQX.
const DIAL_TIMEOUT: Duration = Duration::from_secs(5);

/// Limit on resolving this node's own name at start. A name server that does not answer must not
/// hold up a node that can serve without it.
const RESOLVE_OWN_TIMEOUT: Duration = Duration::from_secs(2);

/// Peers that may wait to be accepted; a cluster of all its members starting at once.
const BACKLOG: i32 = 256;

/// Keepalive of links. The cluster core probes its control links itself; this clears sockets of
/// hosts that vanished while nothing was to be sent.
const KEEPALIVE_IDLE: Duration = Duration::from_secs(15);
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(5);
const KEEPALIVE_PROBES: u32 = 3;

/// Sent bytes that nobody acknowledges for so long end the connection.
const USER_TIMEOUT: Duration = Duration::from_secs(20);

/// Reads of a link in a row before other tasks get their turn.
const READS_PER_WAKE: u32 = 4;

/// Slices per vectored write.
const SLICES: usize = 64;

/// Where the inter-node port is to be opened.
pub(crate) struct PeerAddress<'a> {
    pub(crate) node: &'a NodeName,
    /// `rpc.listen_address`.
    pub(crate) listen_address: Option<IpAddr>,
    pub(crate) port: u16,
}

/// Opens the inter-node port: on the configured address, else on the address the node's host
/// resolves to if that is this machine's (so a loopback name is reached from loopback only), else
/// on all. The error names the address tried.
pub(crate) async fn listen(
    address: PeerAddress<'_>,
) -> Result<TcpListener, (SocketAddr, io::Error)> {
    let at = |ip| SocketAddr::new(ip, address.port);
    if let Some(ip) = address.listen_address {
        return open(at(ip)).map_err(|error| (at(ip), error));
    }
    for ip in resolve_own(address.node.host()).await {
        match open(at(ip)) {
            Err(error) if error.kind() == io::ErrorKind::AddrNotAvailable => {}
            opened => return opened.map_err(|error| (at(ip), error)),
        }
    }
    // A name that leads elsewhere, as behind address translation.
    match open(at(Ipv6Addr::UNSPECIFIED.into())) {
        Err(error) if error.kind() != io::ErrorKind::AddrInUse => {
            let ip = Ipv4Addr::UNSPECIFIED.into();
            open(at(ip)).map_err(|error| (at(ip), error))
        }
        opened => opened.map_err(|error| (at(Ipv6Addr::UNSPECIFIED.into()), error)),
    }
}

async fn resolve_own(host: &str) -> Vec<IpAddr> {
    if let Ok(ip) = host.parse() {
        return vec![ip];
    }
    match timeout(RESOLVE_OWN_TIMEOUT, lookup_host((host, 0))).await {
        Ok(Ok(addresses)) => addresses.map(|address| address.ip()).collect(),
        Ok(Err(error)) => {
            tracing::warn!(host, reason = %error, "own_host_name_not_resolved");
            Vec::new()
        }
        Err(_) => {
            tracing::warn!(
                host,
                reason = "no answer in time",
                "own_host_name_not_resolved"
            );
            Vec::new()
        }
    }
}

fn open(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(
        Domain::for_address(address),
        Type::STREAM,
        Some(Protocol::TCP),
    )?;
    socket.set_reuse_address(true)?;
    if address.is_ipv6() {
        socket.set_only_v6(!address.ip().is_unspecified())?;
    }
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    TcpListener::from_std(socket.into())
}

/// Options every link has.
pub(crate) fn set_options(stream: &TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let socket = SockRef::from(stream);
    let keepalive = TcpKeepalive::new()
        .with_time(KEEPALIVE_IDLE)
        .with_interval(KEEPALIVE_INTERVAL)
        .with_retries(KEEPALIVE_PROBES);
    socket.set_tcp_keepalive(&keepalive)?;
    socket.set_tcp_user_timeout(Some(USER_TIMEOUT))
}

/// Connects to a node; addresses of its host are tried in turn until one answers.
pub(crate) async fn dial(
    host: &str,
    port: u16,
    tls: Option<&PeerTls>,
) -> Result<PeerStream, DialError> {
    let dialed = timeout(DIAL_TIMEOUT, dial_any(host, port)).await;
    let tcp = dialed.unwrap_or(Err(DialError::TimedOut))?;
    match tls {
        None => Ok(PeerStream::Plain(tcp)),
        Some(tls) => Ok(tls.connect(tcp, host).await?),
    }
}

/// The addresses of a node's host, within the limit of a dial.
pub(crate) async fn resolve(host: &str, port: u16) -> Result<Vec<SocketAddr>, DialError> {
    match timeout(DIAL_TIMEOUT, addresses(host, port)).await {
        Ok(Ok(none)) if none.is_empty() => Err(no_address()),
        Ok(resolved) => resolved,
        Err(_) => Err(DialError::TimedOut),
    }
}

async fn addresses(host: &str, port: u16) -> Result<Vec<SocketAddr>, DialError> {
    match host.parse::<IpAddr>() {
        // No look-up, no helper thread for what is an address already.
        Ok(ip) => Ok(vec![SocketAddr::new(ip, port)]),
        Err(_) => lookup_host((host, port))
            .await
            .map_err(|error| DialError::Resolve(error.to_string()))
            .map(Iterator::collect),
    }
}

fn no_address() -> DialError {
    DialError::Resolve("the name has no address".to_owned())
}

async fn dial_any(host: &str, port: u16) -> Result<TcpStream, DialError> {
    let addresses = addresses(host, port).await?;
    let mut failed = no_address();
    let share = DIAL_TIMEOUT / addresses.len().max(1) as u32;
    for address in addresses {
        let connected = timeout(share, TcpStream::connect(address)).await;
        failed = match connected.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into())) {
            Ok(stream) if is_own_echo(&stream) => DialError::Refused(Some(address)),
            Ok(stream) => match set_options(&stream) {
                Ok(()) => return Ok(stream),
                Err(error) => dial_error(&error, address),
            },
            Err(error) => dial_error(&error, address),
        };
    }
    Err(failed)
}

/// A port nobody listens on may, by chance of the system's choice, connect to itself.
fn is_own_echo(stream: &TcpStream) -> bool {
    matches!((stream.local_addr(), stream.peer_addr()), (Ok(local), Ok(peer)) if local == peer)
}

fn dial_error(error: &io::Error, address: SocketAddr) -> DialError {
    match error.kind() {
        io::ErrorKind::ConnectionRefused => DialError::Refused(Some(address)),
        io::ErrorKind::TimedOut => DialError::TimedOut,
        io::ErrorKind::HostUnreachable | io::ErrorKind::NetworkUnreachable => {
            DialError::Unreachable(error.to_string())
        }
        _ => DialError::Io(error.to_string()),
    }
}

/// Bytes waiting to be written to a link.
#[derive(Default)]
pub(crate) struct LinkOutput(VecDeque<Bytes>);

impl LinkOutput {
    pub(crate) fn push(&mut self, bytes: Bytes) {
        if !bytes.is_empty() {
            self.0.push_back(bytes);
        }
    }

    /// Writes as much as the stream takes; ready when nothing is left.
    pub(crate) fn poll_write(
        &mut self,
        stream: &mut PeerStream,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<()>> {
        while !self.0.is_empty() {
            let mut slices = [IoSlice::new(&[]); SLICES];
            let mut count = 0;
            for (slice, bytes) in slices.iter_mut().zip(&self.0) {
                *slice = IoSlice::new(bytes);
                count += 1;
            }
            match stream.poll_write(cx, &slices[..count]) {
                Poll::Ready(Ok(0)) => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                Poll::Ready(Ok(written)) => self.wrote(written),
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                Poll::Pending => return Poll::Pending,
            }
        }
        stream.poll_flush(cx)
    }

    fn wrote(&mut self, mut written: usize) {
        while let Some(front) = self.0.front_mut() {
            if front.len() > written {
                front.advance(written);
                return;
            }
            written -= front.len();
            self.0.pop_front();
        }
    }
}

// --- data links, on the shards' threads ---

/// Dials a shard's data link and serves it.
pub(crate) async fn dial_data_link(driver: Rc<Driver>, conn: PeerConn, host: String, port: u16) {
    let tls = driver.post().tls.clone();
    match dial(&host, port, tls.as_deref()).await {
        Ok(stream) => {
            driver.peer_connected(conn);
            DataLink::new(driver, conn, stream).run().await;
        }
        Err(error) => {
            driver.peer_forget(conn);
            driver.peer_dial_failed(conn, &error);
        }
    }
}

/// Serves a data link another node's shard dialed.
pub(crate) fn adopt_data_link(driver: &Rc<Driver>, stream: Detached, hello: &Hello, unread: Bytes) {
    let stream = match stream.attach() {
        Ok(stream) => stream,
        Err(error) => {
            // The peer sees the connection end and dials again.
            tracing::warn!(node = %hello.peer.name, reason = %error, "data_link_not_adopted");
            return;
        }
    };
    let conn = driver.peer_accepted(hello);
    let link = DataLink {
        unread,
        ..DataLink::new(driver.clone(), conn, stream)
    };
    tokio::task::spawn_local(link.run());
}

struct DataLink {
    driver: Rc<Driver>,
    conn: PeerConn,
    stream: PeerStream,
    buf: BytesMut,
    output: LinkOutput,
    chunks: Vec<Bytes>,
    unread: Bytes,
}

/// How a data link ends.
enum LinkEnd {
    /// The shard wants it closed and has forgotten it.
    Wanted,
    /// The stream ended or failed.
    Lost,
}

impl DataLink {
    fn new(driver: Rc<Driver>, conn: PeerConn, stream: PeerStream) -> Self {
        let (buf, output, chunks) = (BytesMut::new(), LinkOutput::default(), Vec::new());
        Self {
            driver,
            conn,
            stream,
            buf,
            output,
            chunks,
            unread: Bytes::new(),
        }
    }

    async fn run(mut self) {
        if !self.unread.is_empty() {
            self.buf
                .extend_from_slice(&std::mem::take(&mut self.unread));
            self.driver.peer_received(self.conn, &mut self.buf);
        }
        match poll_fn(|cx| self.poll(cx)).await {
            LinkEnd::Wanted => self.driver.peer_forget(self.conn),
            LinkEnd::Lost => self.driver.peer_closed(self.conn),
        }
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<LinkEnd> {
        if !self.driver.peer_attach(self.conn, cx.waker()) {
            return Poll::Ready(LinkEnd::Wanted);
        }
        for _ in 0..READS_PER_WAKE {
            if self.write(cx).is_err() {
                return Poll::Ready(LinkEnd::Lost);
            }
            if !self.driver.peer_may_read() {
                return Poll::Pending;
            }
            match self.stream.poll_read(cx, &mut self.buf) {
                Poll::Ready(Ok(count)) if count > 0 => {
                    self.driver.peer_received(self.conn, &mut self.buf);
                }
                Poll::Ready(_) => return Poll::Ready(LinkEnd::Lost),
                Poll::Pending => {
                    if self.buf.is_empty() {
                        self.buf = BytesMut::new();
                    }
                    return Poll::Pending;
                }
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    fn write(&mut self, cx: &mut Context<'_>) -> io::Result<()> {
        loop {
            match self.output.poll_write(&mut self.stream, cx) {
                Poll::Ready(result) => result?,
                // What waits behind stays with the shard, whose window bounds it.
                Poll::Pending => return Ok(()),
            }
            self.driver.peer_output(self.conn, &mut self.chunks);
            if self.chunks.is_empty() {
                return Ok(());
            }
            self.chunks
                .drain(..)
                .for_each(|bytes| self.output.push(bytes));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(text: &str) -> NodeName {
        NodeName::parse(text).expect("a node name")
    }

    async fn listen_as(node: &str, listen_address: Option<IpAddr>) -> SocketAddr {
        let node = name(node);
        let listener = listen(PeerAddress {
            node: &node,
            listen_address,
            port: 0,
        })
        .await;
        listener.expect("a free port").local_addr().expect("bound")
    }

    #[tokio::test]
    async fn the_port_is_opened_where_the_name_leads() {
        assert_eq!(
            listen_as("emqx@127.0.0.1", None).await.ip(),
            Ipv4Addr::LOCALHOST
        );
        let elsewhere = listen_as("emqx@192.0.2.1", None).await.ip();
        assert!(elsewhere.is_unspecified(), "{elsewhere}");
        let overridden = listen_as("emqx@192.0.2.1", Some(Ipv4Addr::LOCALHOST.into()))
            .await
            .ip();
        assert_eq!(overridden, Ipv4Addr::LOCALHOST);
    }

    #[tokio::test]
    async fn a_port_in_use_is_refused_with_the_address() {
        let node = name("emqx@127.0.0.1");
        let first = listen(PeerAddress {
            node: &node,
            listen_address: None,
            port: 0,
        })
        .await;
        let first = first.expect("a free port");
        let port = first.local_addr().expect("bound").port();
        let (address, error) = listen(PeerAddress {
            node: &node,
            listen_address: None,
            port,
        })
        .await
        .expect_err("it is in use");
        assert_eq!(address, SocketAddr::from(([127, 0, 0, 1], port)));
        assert_eq!(error.kind(), io::ErrorKind::AddrInUse);
    }

    #[tokio::test]
    async fn dialing_says_why_it_failed() {
        let free = open(SocketAddr::from(([127, 0, 0, 1], 0))).expect("a free port");
        let address = free.local_addr().expect("bound");
        drop(free);
        let refused = dial("127.0.0.1", address.port(), None)
            .await
            .err()
            .expect("nobody listens");
        assert_eq!(refused, DialError::Refused(Some(address)));
        let unknown = dial("no-such-host.invalid", 4370, None)
            .await
            .err()
            .expect("no such host");
        assert!(matches!(unknown, DialError::Resolve(_)), "{unknown:?}");
    }
}
