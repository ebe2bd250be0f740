//! An MQTT client over any byte stream, as small as can be: it knows just enough to check that
//! bytes travel.

use std::path::Path;
use std::sync::Arc;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::harness::DEADLINE;

pub(crate) trait Bytes: AsyncRead + AsyncWrite + Unpin + Send {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send> Bytes for T {}

/// A client of MQTT 5 on a byte stream.
pub(crate) struct Client<S> {
    pub(crate) stream: S,
}

fn string(text: &str) -> Vec<u8> {
    [&(text.len() as u16).to_be_bytes()[..], text.as_bytes()].concat()
}

/// A packet; bodies here are shorter than 128 bytes or have their length encoded in full.
pub(crate) fn packet(first: u8, body: &[u8]) -> Vec<u8> {
    let mut packet = vec![first];
    let mut left = body.len();
    loop {
        let digit = (left % 128) as u8;
        left /= 128;
        packet.push(if left > 0 { digit | 0x80 } else { digit });
        if left == 0 {
            break;
        }
    }
    packet.extend(body);
    packet
}

pub(crate) fn connect(clientid: &str) -> Vec<u8> {
    let head = [&string("MQTT")[..], &[5, 0b10, 0, 60, 0]].concat();
    packet(0x10, &[head, string(clientid)].concat())
}

pub(crate) fn publish(topic: &str, payload: &[u8]) -> Vec<u8> {
    packet(0x30, &[&string(topic)[..], &[0], payload].concat())
}

impl<S: Bytes> Client<S> {
    /// Connects and checks that it is accepted.
    pub(crate) async fn connect(stream: S, clientid: &str) -> Self {
        let mut client = Self { stream };
        client.send(&connect(clientid)).await;
        let (first, body) = client.packet().await;
        assert_eq!((first, body[1]), (0x20, 0), "CONNACK {body:?}");
        client
    }

    pub(crate) async fn send(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).await.expect("the node reads");
        self.stream.flush().await.expect("the node reads");
    }

    /// First byte and body of the next packet.
    pub(crate) async fn packet(&mut self) -> (u8, Vec<u8>) {
        let read = async {
            let first = self.stream.read_u8().await?;
            let (mut length, mut shift) = (0, 0);
            loop {
                let digit = self.stream.read_u8().await?;
                length |= usize::from(digit & 0x7f) << shift;
                shift += 7;
                if digit & 0x80 == 0 {
                    break;
                }
            }
            let mut body = vec![0; length];
            self.stream.read_exact(&mut body).await?;
            std::io::Result::Ok((first, body))
        };
        timeout(DEADLINE, read)
            .await
            .expect("a packet in time")
            .expect("a whole packet")
    }

    pub(crate) async fn subscribe(&mut self, filter: &str) {
        let body = [&[0, 1, 0][..], &string(filter), &[0]].concat();
        self.send(&packet(0x82, &body)).await;
        let (first, body) = self.packet().await;
        assert_eq!((first, body.last()), (0x90, Some(&0)), "SUBACK {body:?}");
    }

    /// Publishes to itself and checks what comes back.
    pub(crate) async fn echo(&mut self, topic: &str, payload: &[u8]) {
        self.send(&publish(topic, payload)).await;
        let (first, body) = self.packet().await;
        assert_eq!(first, 0x30);
        assert_eq!(body, [&string(topic)[..], &[0], payload].concat());
    }

    /// Reads until the other end closes; what came.
    pub(crate) async fn rest(&mut self) -> Vec<u8> {
        let mut rest = Vec::new();
        let read = timeout(DEADLINE, self.stream.read_to_end(&mut rest)).await;
        // A reset is an end too.
        let _ = read.expect("the node closes in time");
        rest
    }
}

pub(crate) async fn tcp(port: u16) -> TcpStream {
    let stream = TcpStream::connect(("127.0.0.1", port))
        .await
        .expect("the node listens");
    stream.set_nodelay(true).expect("it is TCP");
    stream
}

/// Connects with TLS, trusting the authority in `cacert`; with a certificate of its own if given.
pub(crate) async fn tls(
    port: u16,
    cacert: &Path,
    own: Option<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>)>,
) -> std::io::Result<TlsStream<TcpStream>> {
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_file_iter(cacert).expect("the file is there") {
        roots.add(certificate.expect("PEM")).expect("an authority");
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("the defaults work")
        .with_root_certificates(roots);
    let config = match own {
        None => config.with_no_client_auth(),
        Some((chain, key)) => config
            .with_client_auth_cert(chain, key)
            .expect("they match"),
    };
    let name = ServerName::try_from("localhost").expect("a name");
    TlsConnector::from(Arc::new(config))
        .connect(name, tcp(port).await)
        .await
}

/// The binary frames of a WebSocket as a byte stream, for [`Client`]: one write is one frame.
pub(crate) struct Ws<S> {
    pub(crate) inner: S,
}

impl<S: Bytes> Ws<S> {
    /// Asks for the upgrade; the head of the answer.
    pub(crate) async fn upgrade(mut stream: S, path: &str, protocol: &str) -> (Self, String) {
        let request = format!(
            "GET {path} HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\n\
             Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\n\
             Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n{protocol}\r\n"
        );
        stream
            .write_all(request.as_bytes())
            .await
            .expect("the node reads");
        let mut head = Vec::new();
        let read = async {
            while !head.ends_with(b"\r\n\r\n") {
                head.push(stream.read_u8().await?);
            }
            std::io::Result::Ok(())
        };
        timeout(DEADLINE, read)
            .await
            .expect("an answer in time")
            .expect("a whole head");
        (
            Self { inner: stream },
            String::from_utf8(head).expect("text"),
        )
    }

    /// Sends one masked binary frame, or a part of a message.
    pub(crate) async fn frame(&mut self, opcode: u8, last: bool, payload: &[u8]) {
        let mask = [1, 2, 3, 4];
        let mut frame = vec![opcode | if last { 0x80 } else { 0 }];
        match payload.len() {
            length @ 0..126 => frame.push(0x80 + length as u8),
            length => {
                frame.push(0x80 + 126);
                frame.extend((length as u16).to_be_bytes());
            }
        }
        frame.extend(mask);
        frame.extend(
            payload
                .iter()
                .zip(mask.iter().cycle())
                .map(|(byte, mask)| byte ^ mask),
        );
        self.inner.write_all(&frame).await.expect("the node reads");
        self.inner.flush().await.expect("the node reads");
    }

    /// Opcode and payload of the next frame.
    pub(crate) async fn next(&mut self) -> (u8, Vec<u8>) {
        let read = async {
            let first = self.inner.read_u8().await?;
            let length = match self.inner.read_u8().await? {
                126 => usize::from(self.inner.read_u16().await?),
                127 => self.inner.read_u64().await? as usize,
                length => usize::from(length),
            };
            let mut payload = vec![0; length];
            self.inner.read_exact(&mut payload).await?;
            std::io::Result::Ok((first & 0x0f, payload))
        };
        timeout(DEADLINE, read)
            .await
            .expect("a frame in time")
            .expect("a whole frame")
    }
}
