//! Addresses and ports; whole nodes in one network are tested from outside.

use super::*;

fn group(ports: Vec<u16>) -> Group {
    Group {
        addr: IpAddr::V4(Ipv4Addr::new(239, 192, 0, 1)),
        ports,
        iface: IpAddr::V4(Ipv4Addr::LOCALHOST),
        ttl: 1,
        loopback: true,
        sndbuf: 16_384,
        recbuf: 16_384,
        buffer: 32_768,
    }
}

#[tokio::test]
async fn the_first_free_port_is_taken_and_a_lack_of_them_is_said() {
    let taken = std::net::UdpSocket::bind("0.0.0.0:0").expect("a free port");
    let free = std::net::UdpSocket::bind("0.0.0.0:0").expect("a free port");
    let port = |socket: &std::net::UdpSocket| socket.local_addr().expect("bound").port();
    let (taken_port, free_port) = (port(&taken), port(&free));
    let error = group(vec![taken_port]).socket().expect_err("it is taken");
    assert!(error.to_string().contains("name another"), "{error}");
    drop(free);
    let socket = group(vec![taken_port, free_port])
        .socket()
        .expect("one is free");
    assert_eq!(socket.local_addr().expect("bound").port(), free_port);
}

#[tokio::test]
async fn addresses_that_are_none_of_multicast_are_said() {
    for addr in ["10.0.0.1", "ff02::1"] {
        let addr: IpAddr = addr.parse().expect("an address");
        let error = Group {
            addr,
            ..group(vec![0])
        }
        .socket()
        .expect_err("no group");
        assert!(error.to_string().contains("239.192.0.1"), "{error}");
    }
}
