//! Datagrams to and from a multicast group; what they mean is decided in the core.
//!
//! Each node of a host takes the first of the configured ports that is free, so a question goes to
//! all of them. What cannot be sent or received is lost, as datagrams are; the core asks again.

use std::cell::RefCell;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use dunlin_cluster::Discovered;
use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::UdpSocket;
use tokio::time::sleep;

use super::Report;

/// Pause before the socket is opened again after it could not be, or failed.
const REOPEN_PAUSE: Duration = Duration::from_secs(5);

/// Datagrams read in a row before others get their turn; the rest waits in the kernel, which drops
/// what is too much.
const READS_PER_WAKE: usize = 32;

/// Bounds of `cluster.mcast.buffer`, bytes: a datagram of ours, and the longest there is.
const BUFFER: std::ops::RangeInclusive<u64> = 1_024..=65_535;

/// `cluster.mcast`.
#[derive(Clone, Debug)]
pub(super) struct Group {
    pub(super) addr: IpAddr,
    pub(super) ports: Vec<u16>,
    pub(super) iface: IpAddr,
    pub(super) ttl: u8,
    pub(super) loopback: bool,
    pub(super) sndbuf: u64,
    pub(super) recbuf: u64,
    pub(super) buffer: u64,
}

/// This node's part in the group.
pub(super) struct Mcast {
    group: Group,
    socket: RefCell<Option<Rc<UdpSocket>>>,
    report: Report,
    said: RefCell<Option<String>>,
}

/// Why the group cannot be used.
#[derive(Debug, thiserror::Error)]
enum McastError {
    #[error("cluster.mcast.{key} = {ip} is no {wanted}; the default is {default}")]
    Address {
        key: &'static str,
        ip: IpAddr,
        wanted: &'static str,
        default: &'static str,
    },
    #[error("none of cluster.mcast.ports {ports:?} is free on this host: {source}; name another")]
    Ports { ports: Vec<u16>, source: io::Error },
    #[error("group {group} cannot be joined on {iface}: {source}; check cluster.mcast.iface")]
    Join {
        group: Ipv4Addr,
        iface: Ipv4Addr,
        source: io::Error,
    },
    #[error("the socket failed: {0}; check the network of this host")]
    Io(#[from] io::Error),
}

impl Mcast {
    /// Takes a port at once, so that the first question can be sent.
    pub(super) fn open(group: Group, report: Report) -> Rc<Self> {
        let mcast = Rc::new(Self {
            group,
            socket: RefCell::new(None),
            report,
            said: RefCell::new(None),
        });
        mcast.reopen();
        tokio::task::spawn_local(mcast.clone().receive());
        mcast
    }

    fn reopen(&self) -> Option<Rc<UdpSocket>> {
        let opened = self.group.socket();
        let socket = opened.inspect_err(|error| self.say(error)).ok()?;
        let socket = Rc::new(socket);
        *self.socket.borrow_mut() = Some(socket.clone());
        self.said.take();
        Some(socket)
    }

    /// Once for as long as it lasts.
    fn say(&self, error: &McastError) {
        let reason = error.to_string();
        if self.said.borrow().as_ref() != Some(&reason) {
            tracing::warn!(reason, "multicast_unusable: nobody is found by it");
            *self.said.borrow_mut() = Some(reason);
        }
    }

    async fn receive(self: Rc<Self>) {
        let mut buf = vec![0; self.group.buffer.clamp(*BUFFER.start(), *BUFFER.end()) as usize];
        loop {
            let socket = self.socket.borrow().clone();
            if let Some(socket) = socket.or_else(|| self.reopen()) {
                let error = self.receive_on(&socket, &mut buf).await;
                self.say(&error.into());
                self.socket.take();
            }
            sleep(REOPEN_PAUSE).await;
        }
    }

    async fn receive_on(&self, socket: &UdpSocket, buf: &mut [u8]) -> io::Error {
        loop {
            for _ in 0..READS_PER_WAKE {
                match socket.recv_from(buf).await {
                    Ok((count, from)) => {
                        let datagram = Bytes::copy_from_slice(&buf[..count]);
                        (self.report)(Discovered::Received { from, datagram });
                    }
                    Err(error) => return error,
                }
            }
            tokio::task::yield_now().await;
        }
    }

    /// Sends to one node, or to the group on each of its ports.
    pub(super) async fn send(self: Rc<Self>, to: Option<SocketAddr>, datagram: Bytes) {
        let Some(socket) = self.socket.borrow().clone() else {
            return;
        };
        let group = self.group.addr;
        let ports = self.group.ports.iter();
        let to = to.map_or_else(
            || ports.map(|port| SocketAddr::new(group, *port)).collect(),
            |to| vec![to],
        );
        for to in to {
            if let Err(error) = socket.send_to(&datagram, to).await {
                self.say(&error.into());
            }
        }
    }
}

impl Group {
    fn socket(&self) -> Result<UdpSocket, McastError> {
        let address = |key, ip: IpAddr, wanted, default| match ip {
            IpAddr::V4(ip) if key == "iface" || ip.is_multicast() => Ok(ip),
            ip => Err(McastError::Address {
                key,
                ip,
                wanted,
                default,
            }),
        };
        let group = address("addr", self.addr, "IPv4 multicast group", "239.192.0.1")?;
        let iface = address("iface", self.iface, "IPv4 address", "0.0.0.0")?;
        let socket = Socket::new(Domain::IPV4, Type::DGRAM, Some(Protocol::UDP))?;
        socket.set_nonblocking(true)?;
        // The kernel doubles and bounds them as it sees fit.
        socket.set_send_buffer_size(self.sndbuf as usize)?;
        socket.set_recv_buffer_size(self.recbuf as usize)?;
        socket.set_multicast_ttl_v4(u32::from(self.ttl))?;
        socket.set_multicast_loop_v4(self.loopback)?;
        if !iface.is_unspecified() {
            socket.set_multicast_if_v4(&iface)?;
        }
        self.bind(&socket)?;
        let joined = socket.join_multicast_v4(&group, &iface);
        joined.map_err(|source| McastError::Join {
            group,
            iface,
            source,
        })?;
        Ok(UdpSocket::from_std(socket.into())?)
    }

    fn bind(&self, socket: &Socket) -> Result<(), McastError> {
        let mut last = io::Error::from(io::ErrorKind::AddrNotAvailable);
        for port in &self.ports {
            let address = SocketAddr::from((Ipv4Addr::UNSPECIFIED, *port));
            match socket.bind(&address.into()) {
                Ok(()) => return Ok(()),
                Err(error) => last = error,
            }
        }
        Err(McastError::Ports {
            ports: self.ports.clone(),
            source: last,
        })
    }
}

#[cfg(test)]
mod tests;
