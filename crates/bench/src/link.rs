//! One non-blocking connection: what was read but is not a whole packet yet, and what was written
//! but does not fit the socket yet. The load generator and the null broker share it.

use std::io::{self, Read, Write};
use std::os::fd::AsRawFd;

use mio::event::Source;
use mio::unix::SourceFd;
use mio::{Interest, Registry, Token};

use crate::stream::Stream;

/// Bytes asked for per read. Large, so that a busy connection is drained by few system calls.
pub(crate) const READ_BYTES: usize = 256 * 1024;

/// A connection registered with a poll.
#[derive(Debug)]
pub(crate) struct Link {
    stream: Stream,
    /// The beginning of a packet whose rest has not come.
    held: Vec<u8>,
    /// Bytes for the peer; those before `written` have left.
    pub(crate) out: Vec<u8>,
    written: usize,
}

/// What a read brought.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Filled {
    /// Bytes at the front of the buffer, held ones first.
    pub(crate) len: usize,
    /// Whether the socket may have more.
    pub(crate) more: bool,
    pub(crate) closed: bool,
}

impl Link {
    /// Takes a connection over, blocking or not.
    pub(crate) fn adopt(
        stream: impl Into<Stream>,
        registry: &Registry,
        token: Token,
    ) -> io::Result<Self> {
        let stream = stream.into();
        stream.tcp().set_nonblocking(true)?;
        SourceFd(&stream.as_raw_fd()).register(
            registry,
            token,
            Interest::READABLE | Interest::WRITABLE,
        )?;
        Ok(Self {
            stream,
            held: Vec::new(),
            out: Vec::new(),
            written: 0,
        })
    }

    /// Reads once into `buffer`, behind what was held. Lengthens `buffer` for a packet larger
    /// than it. The caller parses, then gives the rest back by [`Link::keep`].
    pub(crate) fn fill(&mut self, buffer: &mut Vec<u8>) -> io::Result<Filled> {
        let held = self.held.len();
        if buffer.len() < held + READ_BYTES {
            buffer.resize(held + READ_BYTES, 0);
        }
        buffer[..held].copy_from_slice(&self.held);
        self.held.clear();
        loop {
            return match self.stream.read(&mut buffer[held..]) {
                Ok(count) => Ok(Filled {
                    len: held + count,
                    // The poll is edge-triggered. A short read has drained a bare socket; layers
                    // may hold more.
                    more: count > 0 && (count == buffer.len() - held || !self.stream.is_plain()),
                    closed: count == 0,
                }),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(Filled {
                    len: held,
                    more: false,
                    closed: false,
                }),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => Err(error),
            };
        }
    }

    /// Holds the beginning of a packet until its rest comes.
    pub(crate) fn keep(&mut self, rest: &[u8]) {
        self.held.extend_from_slice(rest);
    }

    /// Bytes that wait for the socket.
    pub(crate) fn unwritten_bytes(&self) -> usize {
        self.out.len() - self.written
    }

    /// Writes what the socket takes.
    pub(crate) fn flush(&mut self) -> io::Result<()> {
        while self.written < self.out.len() {
            match self.stream.write(&self.out[self.written..]) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(count) => self.written += count,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.compact();
                    return Ok(());
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        self.out.clear();
        self.written = 0;
        match self.stream.flush() {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(()),
            other => other,
        }
    }

    /// Bytes that have left go only when they are the larger part: each is moved at most once.
    fn compact(&mut self) {
        if self.written > self.out.len() / 2 {
            self.out.drain(..self.written);
            self.written = 0;
        }
    }

    /// Gives the connection up, with whatever was not written or not read.
    pub(crate) fn into_stream(self) -> Stream {
        self.stream
    }

    pub(crate) fn deregister(&mut self, registry: &Registry) -> io::Result<()> {
        SourceFd(&self.stream.as_raw_fd()).deregister(registry)
    }
}
