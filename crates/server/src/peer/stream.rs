//! The byte stream of a link: TCP, or TLS over it.
//!
//! The session of TLS is kept beside the socket instead of inside a library's stream, because a
//! data link moves from the control thread to a shard's after it has proven itself, session and
//! all. Nothing is buffered here beyond what the session itself holds back.

use std::io::{self, BufRead as _, IoSlice, Read, Write};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::BytesMut;
use rustls::Connection;
use tokio::io::{AsyncRead as _, AsyncWrite as _, ReadBuf};
use tokio::net::TcpStream;

/// Room offered to one read, in bytes: forwarded messages come in large batches.
const READ_BYTES: usize = 128 * 1024;

/// A link's stream.
pub(crate) enum PeerStream {
    /// TCP.
    Plain(TcpStream),
    /// TLS over TCP.
    Tls(Box<Tls>),
}

/// A socket with its session.
pub(crate) struct Tls {
    pub(super) tcp: TcpStream,
    pub(super) session: Connection,
}

/// A stream on its way to another thread.
pub(crate) struct Detached {
    tcp: std::net::TcpStream,
    session: Option<Box<Connection>>,
}

impl PeerStream {
    /// Takes it from this thread's runtime.
    pub(crate) fn detach(self) -> io::Result<Detached> {
        let (tcp, session) = match self {
            Self::Plain(tcp) => (tcp, None),
            Self::Tls(tls) => (tls.tcp, Some(Box::new(tls.session))),
        };
        let tcp = tcp.into_std()?;
        Ok(Detached { tcp, session })
    }

    /// Writes some of `slices`; with TLS they may stay in the session until it is flushed.
    pub(crate) fn poll_write(
        &mut self,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self {
            Self::Plain(tcp) => Pin::new(tcp).poll_write_vectored(cx, slices),
            Self::Tls(tls) => tls.poll_write(cx, slices),
        }
    }

    /// Ready when everything written has gone out.
    pub(crate) fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Self::Plain(_) => Poll::Ready(Ok(())),
            Self::Tls(tls) => tls.poll_flush(cx),
        }
    }

    /// Reads once into `buf`; zero at the end.
    pub(crate) fn poll_read(
        &mut self,
        cx: &mut Context<'_>,
        buf: &mut BytesMut,
    ) -> Poll<io::Result<usize>> {
        match self {
            Self::Plain(tcp) => {
                buf.reserve(READ_BYTES);
                std::pin::pin!(tokio::io::AsyncReadExt::read_buf(tcp, buf)).poll(cx)
            }
            Self::Tls(tls) => tls.poll_read(cx, buf),
        }
    }
}

impl Detached {
    /// Gives it to this thread's runtime.
    pub(crate) fn attach(self) -> io::Result<PeerStream> {
        let tcp = TcpStream::from_std(self.tcp)?;
        Ok(match self.session {
            None => PeerStream::Plain(tcp),
            Some(session) => PeerStream::Tls(Box::new(Tls {
                tcp,
                session: *session,
            })),
        })
    }
}

impl Tls {
    fn poll_write(
        &mut self,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        // What is encrypted already goes first: that bounds what the session keeps.
        ready!(self.poll_flush(cx))?;
        let count = self.session.writer().write_vectored(slices)?;
        match self.poll_flush(cx) {
            Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
            // Whoever writes the next bytes, or flushes, waits for these.
            _ => Poll::Ready(Ok(count)),
        }
    }

    pub(super) fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.session.wants_write() {
            let tcp = &mut self.tcp;
            match self.session.write_tls(&mut Socket { tcp, cx }) {
                Ok(0) => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Poll::Pending,
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
        Poll::Ready(Ok(()))
    }

    pub(super) fn poll_read(
        &mut self,
        cx: &mut Context<'_>,
        buf: &mut BytesMut,
    ) -> Poll<io::Result<usize>> {
        loop {
            let mut reader = self.session.reader();
            match reader.fill_buf() {
                Ok(plain) => {
                    let count = plain.len();
                    buf.extend_from_slice(plain);
                    reader.consume(count);
                    return Poll::Ready(Ok(count));
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Poll::Ready(Err(error)),
            }
            if ready!(self.poll_records(cx))? == 0 {
                return Poll::Ready(Ok(0));
            }
        }
    }

    /// Takes in what the socket has; zero at its end. An error of TLS is a `rustls::Error` inside.
    pub(super) fn poll_records(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let tcp = &mut self.tcp;
        let count = match self.session.read_tls(&mut Socket { tcp, cx }) {
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Poll::Pending,
            Err(error) => return Poll::Ready(Err(error)),
        };
        let processed = self.session.process_new_packets();
        // Answers of the protocol itself, the alert that says what is wrong among them.
        let flushed = self.poll_flush(cx);
        if let Err(error) = processed {
            return Poll::Ready(Err(io::Error::new(io::ErrorKind::InvalidData, error)));
        }
        match flushed {
            Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
            _ => Poll::Ready(Ok(count)),
        }
    }
}

/// A socket as the session wants it: it would block where it is not ready, and has then been told
/// whom to wake.
struct Socket<'a, 'b> {
    tcp: &'a mut TcpStream,
    cx: &'a mut Context<'b>,
}

impl Read for Socket<'_, '_> {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        let mut buf = ReadBuf::new(bytes);
        match Pin::new(&mut *self.tcp).poll_read(self.cx, &mut buf) {
            Poll::Ready(result) => result.map(|()| buf.filled().len()),
            Poll::Pending => Err(io::ErrorKind::WouldBlock.into()),
        }
    }
}

impl Write for Socket<'_, '_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = Pin::new(&mut *self.tcp).poll_write(self.cx, bytes);
        would_block(written)
    }

    fn write_vectored(&mut self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        let written = Pin::new(&mut *self.tcp).poll_write_vectored(self.cx, slices);
        would_block(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn would_block<T>(written: Poll<io::Result<T>>) -> io::Result<T> {
    match written {
        Poll::Ready(result) => result,
        Poll::Pending => Err(io::ErrorKind::WouldBlock.into()),
    }
}
