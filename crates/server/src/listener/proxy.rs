//! PROXY protocol: the client's real address, told by a load balancer before the first byte.

use std::io;
use std::net::SocketAddr;

use bytes::{Buf, BytesMut};
use proxy_header::{Error, ParseConfig, ProxyHeader};
use tokio::io::{AsyncRead, AsyncReadExt};

/// Longest header taken, in bytes. The text form has at most 107; the binary form may carry a
/// client certificate's fields.
const HEADER_BYTES_MAX: usize = 4096;

/// What a PROXY header said.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Proxied {
    /// The client's address and the one it connected to; `None` for the balancer's own checks.
    pub(crate) addresses: Option<(SocketAddr, SocketAddr)>,
    /// Common name of the certificate the client showed the load balancer.
    pub(crate) cn: Option<String>,
}

/// Reads a header, version 1 or 2; bytes after it stay in `buf`.
pub(crate) async fn read_header(
    stream: &mut (impl AsyncRead + Unpin),
    buf: &mut BytesMut,
) -> io::Result<Proxied> {
    loop {
        if let Some(proxied) = parse(buf)? {
            return Ok(proxied);
        }
        if buf.len() >= HEADER_BYTES_MAX {
            return Err(invalid("the PROXY header is too long"));
        }
        if stream.read_buf(buf).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    }
}

fn parse(buf: &mut BytesMut) -> io::Result<Option<Proxied>> {
    let (proxied, length) = match ProxyHeader::parse(buf, ParseConfig::default()) {
        Ok((header, length)) => {
            let addresses = header.proxied_address().map(|a| (a.source, a.destination));
            let cn = header.ssl().and_then(|ssl| ssl.cn().map(str::to_owned));
            (Proxied { addresses, cn }, length)
        }
        Err(Error::BufferTooShort) => return Ok(None),
        Err(_) => return Err(invalid("not a PROXY header")),
    };
    buf.advance(length);
    Ok(Some(proxied))
}

fn invalid(what: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn check(mut input: &[u8]) -> io::Result<(Proxied, BytesMut)> {
        let mut buf = BytesMut::new();
        let proxied = read_header(&mut input, &mut buf).await?;
        Ok((proxied, buf))
    }

    #[tokio::test]
    async fn version_1_gives_the_clients_address_and_leaves_the_rest() {
        let (proxied, rest) = check(b"PROXY TCP4 192.0.2.7 10.0.0.1 4711 1883\r\n\x10\x02")
            .await
            .expect("valid");
        let peer = "192.0.2.7:4711".parse().expect("an address");
        let local = "10.0.0.1:1883".parse().expect("an address");
        assert_eq!(proxied.addresses, Some((peer, local)));
        assert_eq!(&rest[..], b"\x10\x02");
        let (unknown, _) = check(b"PROXY UNKNOWN\r\n").await.expect("valid");
        assert_eq!(unknown.addresses, None);
    }

    #[tokio::test]
    async fn version_2_is_read_in_pieces_as_it_comes() {
        let peer = "[2001:db8::1]:4711".parse().expect("an address");
        let local = "[2001:db8::2]:1883".parse().expect("an address");
        let address = proxy_header::ProxiedAddress::stream(peer, local);
        let mut header = Vec::new();
        ProxyHeader::with_address(address)
            .encode_v2(&mut header)
            .expect("it fits");
        let (first, second) = header.split_at(20);
        let mut stream = AsyncReadExt::chain(first, second);
        let mut buf = BytesMut::with_capacity(20);
        let proxied = read_header(&mut stream, &mut buf).await.expect("valid");
        assert_eq!(proxied.addresses, Some((peer, local)));
    }

    #[tokio::test]
    async fn anything_else_is_refused() {
        let mqtt = b"\x10\x0c\x00\x04MQTT\x04\x02\x00\x3c\x00\x00";
        assert_eq!(
            check(mqtt).await.expect_err("MQTT").kind(),
            io::ErrorKind::InvalidData
        );
        let endless = [b"PROXY TCP4 ".as_slice(), &[b'1'; HEADER_BYTES_MAX]].concat();
        assert_eq!(
            check(&endless).await.expect_err("long").kind(),
            io::ErrorKind::InvalidData
        );
        let cut = check(b"PROXY TCP4 192.0").await.expect_err("cut off");
        assert_eq!(cut.kind(), io::ErrorKind::UnexpectedEof);
    }
}
