//! A client's byte stream, whatever carries it.
//!
//! One enum instead of a type parameter: the task of a connection is the same code and the same
//! small size for all four transports. WebSocket streams hide their frames here, so that nothing
//! above this module knows about them.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes, BytesMut};
use futures_core::Stream as _;
use futures_sink::Sink as _;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::server::TlsStream;
use tokio_websockets::{CloseCode, Message, WebSocketStream};

/// A byte stream of a client.
pub(crate) enum Stream {
    /// TCP.
    Tcp(TcpStream),
    /// TLS over TCP.
    Tls(Box<TlsStream<Prefixed<TcpStream>>>),
    /// TCP with bytes that came along with a PROXY header.
    Proxied(Box<Prefixed<TcpStream>>),
    /// WebSocket over TCP.
    Ws(Box<WsStream<Prefixed<TcpStream>>>),
    /// WebSocket over TLS.
    Wss(Box<WsStream<Prefixed<TlsStream<Prefixed<TcpStream>>>>>),
}

macro_rules! each {
    ($self:expr, $stream:ident => $call:expr) => {
        match $self.get_mut() {
            Stream::Tcp($stream) => $call,
            Stream::Tls($stream) => $call,
            Stream::Proxied($stream) => $call,
            Stream::Ws($stream) => $call,
            Stream::Wss($stream) => $call,
        }
    };
}

impl AsyncRead for Stream {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        each!(self, stream => Pin::new(stream).poll_read(cx, buf))
    }
}

impl AsyncWrite for Stream {
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
        bufs: &[IoSlice<'_>],
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

/// A stream of which some bytes were read already, by who had to look at its beginning.
pub(crate) struct Prefixed<S> {
    prefix: BytesMut,
    inner: S,
}

impl<S> Prefixed<S> {
    pub(crate) fn new(prefix: BytesMut, inner: S) -> Self {
        Self { prefix, inner }
    }

    /// What was read already and what follows.
    pub(crate) fn into_parts(self) -> (BytesMut, S) {
        (self.prefix, self.inner)
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Prefixed<S> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.prefix.is_empty() {
            return Pin::new(&mut this.inner).poll_read(cx, buf);
        }
        let count = this.prefix.len().min(buf.remaining());
        buf.put_slice(&this.prefix[..count]);
        this.prefix.advance(count);
        if this.prefix.is_empty() {
            this.prefix = BytesMut::new();
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Prefixed<S> {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().inner).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().inner).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().inner).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().inner).poll_shutdown(cx)
    }
}

/// The largest frame we send. Larger output goes in several frames; MQTT packets may span them
/// [MQTT-6.0.0-2]. Bounds the copy made per frame.
const FRAME_BYTES: usize = 64 * 1024;

/// The payloads of binary WebSocket messages as one byte stream.
pub(crate) struct WsStream<S> {
    frames: WebSocketStream<S>,
    /// What is left of the last message read.
    rest: Bytes,
    /// Set where every packet gets frames of its own (`mqtt_piggyback = single`).
    packets: Option<PacketCut>,
    closing: bool,
}

/// Finds where MQTT packets end in a stream of them.
#[derive(Default)]
pub(crate) struct PacketCut {
    /// Bytes of the present packet that are still to come.
    left: usize,
}

impl PacketCut {
    /// How many of these bytes belong to the present packet, or to the one that begins here.
    fn next(&mut self, bytes: &[u8]) -> usize {
        if self.left == 0 {
            self.left = packet_bytes(bytes).unwrap_or(bytes.len());
        }
        let count = self.left.min(bytes.len());
        self.left -= count;
        count
    }
}

/// Length of the packet that begins here, by its fixed header [MQTT 5, section 2.1].
fn packet_bytes(bytes: &[u8]) -> Option<usize> {
    let mut body = 0;
    for (index, byte) in bytes.get(1..)?.iter().take(4).enumerate() {
        body |= usize::from(byte & 0x7f) << (7 * index);
        if byte & 0x80 == 0 {
            return Some(index + 2 + body);
        }
    }
    None
}

impl<S: AsyncRead + AsyncWrite + Unpin> WsStream<S> {
    pub(crate) fn new(frames: WebSocketStream<S>, packets: Option<PacketCut>) -> Self {
        Self {
            frames,
            rest: Bytes::new(),
            packets,
            closing: false,
        }
    }

    fn poll_message(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Option<Bytes>>> {
        loop {
            return Poll::Ready(match ready!(Pin::new(&mut self.frames).poll_next(cx)) {
                Some(Ok(message)) if message.is_binary() => Ok(Some(message.into_payload().into())),
                // [MQTT-6.0.0-1]: anything but binary data frames closes the connection.
                Some(Ok(message)) if message.is_text() => Err(io::ErrorKind::InvalidData.into()),
                // Ping and pong are answered by the library while it is polled.
                Some(Ok(message)) if !message.is_close() => continue,
                Some(Ok(_)) | None => Ok(None),
                Some(Err(error)) => Err(ws_error(error)),
            });
        }
    }

    fn send(&mut self, cx: &mut Context<'_>, bufs: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        ready!(Pin::new(&mut self.frames).poll_ready(cx)).map_err(ws_error)?;
        let waiting: usize = bufs.iter().map(|buf| buf.len()).sum();
        let mut payload = BytesMut::with_capacity(waiting.min(FRAME_BYTES));
        for buf in bufs {
            let room = FRAME_BYTES - payload.len();
            payload.extend_from_slice(&buf[..buf.len().min(room)]);
        }
        if let Some(packets) = &mut self.packets {
            payload.truncate(packets.next(&payload));
        }
        let count = payload.len();
        let frame = Message::binary(payload);
        Pin::new(&mut self.frames)
            .start_send(frame)
            .map_err(ws_error)?;
        Poll::Ready(Ok(count))
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncRead for WsStream<S> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        while this.rest.is_empty() {
            match ready!(this.poll_message(cx))? {
                Some(payload) => this.rest = payload,
                None => return Poll::Ready(Ok(())),
            }
        }
        let count = this.rest.len().min(buf.remaining());
        buf.put_slice(&this.rest[..count]);
        this.rest.advance(count);
        if this.rest.is_empty() {
            this.rest = Bytes::new();
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for WsStream<S> {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.get_mut().send(cx, &[IoSlice::new(buf)])
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.get_mut().send(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().frames)
            .poll_flush(cx)
            .map_err(ws_error)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if !this.closing {
            ready!(Pin::new(&mut this.frames).poll_ready(cx)).map_err(ws_error)?;
            let close = Message::close(Some(CloseCode::NORMAL_CLOSURE), "");
            Pin::new(&mut this.frames)
                .start_send(close)
                .map_err(ws_error)?;
            this.closing = true;
        }
        // Not the library's poll_close: it also ends the TCP stream's sending half before the
        // client's close frame is there, which some clients take for a broken connection.
        Pin::new(&mut this.frames).poll_flush(cx).map_err(ws_error)
    }
}

fn ws_error(error: tokio_websockets::Error) -> io::Error {
    match error {
        tokio_websockets::Error::Io(error) => error,
        other => io::Error::new(io::ErrorKind::InvalidData, other),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packets_are_cut_where_they_end() {
        let large = [&[0x30, 0xac, 0x02][..], &[7; 300]].concat();
        let stream = [&[0xd0, 0][..], &large, &[0x40, 2, 0, 1]].concat();
        let cut = |piece: usize| {
            let (mut packets, mut at, mut frames) = (PacketCut::default(), 0, Vec::new());
            while at < stream.len() {
                let end = stream.len().min(at + piece);
                let count = packets.next(&stream[at..end]);
                frames.push(count);
                at += count;
            }
            frames
        };
        assert_eq!(cut(1000), [2, 303, 4]);
        assert_eq!(cut(200), [2, 200, 103, 4]);
    }
}
