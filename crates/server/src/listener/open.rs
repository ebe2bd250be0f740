//! Opening the sockets of one listener.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener};

use dunlin_config::settings::{Bind, TcpOptions};
use socket2::{Domain, Protocol, Socket, Type};

/// How an address is listened on.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Listen<'a> {
    pub(crate) bind: Bind,
    pub(crate) options: &'a TcpOptions,
    /// Sockets wanted, one per shard.
    pub(crate) sockets: usize,
}

/// Opens `sockets` listening sockets on one address.
///
/// The first is bound alone, so that an address in use by anybody, another node of ours included,
/// is refused; only then may the others share it.
pub(crate) fn open(listen: Listen<'_>) -> io::Result<Vec<TcpListener>> {
    let (first, address) = bind_first(listen)?;
    first.set_reuse_port(true)?;
    let mut sockets = vec![first];
    for _ in 1..listen.sockets {
        let socket = new_socket(address, listen.options)?;
        socket.set_reuse_port(true)?;
        socket.bind(&address.into())?;
        sockets.push(socket);
    }
    let backlog = i32::try_from(listen.options.backlog).unwrap_or(i32::MAX);
    let start = |socket: Socket| {
        socket.listen(backlog)?;
        Ok(socket.into())
    };
    sockets.into_iter().map(start).collect()
}

/// Binds exclusively; the address has the real port even where the system was to choose one.
fn bind_first(listen: Listen<'_>) -> io::Result<(Socket, SocketAddr)> {
    let bind = |ip: IpAddr| {
        let address = SocketAddr::new(ip, listen.bind.port);
        let socket = new_socket(address, listen.options)?;
        socket.bind(&address.into())?;
        let bound = socket
            .local_addr()?
            .as_socket()
            .ok_or(io::ErrorKind::Unsupported)?;
        Ok((socket, bound))
    };
    match listen.bind.host {
        Some(ip) => bind(ip),
        // Every address: an IPv6 socket takes IPv4 clients too, where the system has IPv6.
        None => match bind(Ipv6Addr::UNSPECIFIED.into()) {
            Err(error) if is_without_ipv6(&error) => bind(Ipv4Addr::UNSPECIFIED.into()),
            bound => bound,
        },
    }
}

fn is_without_ipv6(error: &io::Error) -> bool {
    use rustix::io::Errno;
    let without = [Errno::AFNOSUPPORT, Errno::ADDRNOTAVAIL].map(Errno::raw_os_error);
    error
        .raw_os_error()
        .is_some_and(|code| without.contains(&code))
}

fn new_socket(address: SocketAddr, options: &TcpOptions) -> io::Result<Socket> {
    let socket = Socket::new(
        Domain::for_address(address),
        Type::STREAM,
        Some(Protocol::TCP),
    )?;
    socket.set_reuse_address(options.reuseaddr)?;
    if address.is_ipv6() {
        socket.set_only_v6(!address.ip().is_unspecified())?;
    }
    // Accepted sockets inherit the buffer sizes; the window scale is chosen at connect, so they
    // have to be set here.
    if let Some(bytes) = options.recbuf_bytes {
        socket.set_recv_buffer_size(bytes as usize)?;
    }
    if let Some(bytes) = options.sndbuf_bytes {
        socket.set_send_buffer_size(bytes as usize)?;
    }
    socket.set_nonblocking(true)?;
    Ok(socket)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options() -> TcpOptions {
        TcpOptions {
            backlog: 1024,
            send_timeout_ms: 15_000,
            send_timeout_close: true,
            recbuf_bytes: None,
            sndbuf_bytes: None,
            buffer_bytes: 4096,
            high_watermark_bytes: 1 << 20,
            nodelay: true,
            nolinger: false,
            reuseaddr: true,
            keepalive: None,
        }
    }

    fn loopback(port: u16) -> Bind {
        Bind {
            host: Some(Ipv4Addr::LOCALHOST.into()),
            port,
        }
    }

    #[test]
    fn all_shards_share_one_address_and_nobody_else_does() {
        let options = options();
        let listen = Listen {
            bind: loopback(0),
            options: &options,
            sockets: 3,
        };
        let sockets = open(listen).expect("a free port");
        let port = |socket: &TcpListener| socket.local_addr().expect("bound").port();
        assert!(
            sockets
                .iter()
                .all(|socket| port(socket) == port(&sockets[0]))
        );
        let again = Listen {
            bind: loopback(port(&sockets[0])),
            ..listen
        };
        let refused = open(again).expect_err("another node must not share the port");
        assert_eq!(refused.kind(), io::ErrorKind::AddrInUse);
    }

    #[test]
    fn no_host_means_every_address() {
        let options = options();
        let bind = Bind {
            host: None,
            port: 0,
        };
        let sockets = open(Listen {
            bind,
            options: &options,
            sockets: 1,
        })
        .expect("a free port");
        let port = sockets[0].local_addr().expect("bound").port();
        std::net::TcpStream::connect(("127.0.0.1", port)).expect("IPv4 is listened on");
    }

    #[test]
    fn a_port_in_use_on_one_address_is_refused_on_all() {
        let taken = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let port = taken.local_addr().expect("bound").port();
        let options = options();
        let listen = Listen {
            bind: loopback(port),
            options: &options,
            sockets: 2,
        };
        assert_eq!(
            open(listen).expect_err("in use").kind(),
            io::ErrorKind::AddrInUse
        );
    }
}
