//! The bytes between a client and a broker: TCP, TLS, WebSocket, or WebSocket over TLS.
//!
//! Works on a blocking socket, to set a scenario up, and on a non-blocking one, to run it.

use std::io::{self, ErrorKind, Read, Write};
use std::net::TcpStream;
use std::os::fd::{AsRawFd, RawFd};
use std::sync::Arc;

use rustls::{ClientConnection, Connection, ServerConfig, ServerConnection};

use crate::target::Endpoint;
use crate::websocket::WebSocket;

/// Frames that wait for the socket; with more, nothing further is taken.
const WAITING_BYTES_MAX: usize = 1024 * 1024;
const READ_BYTES: usize = 16 * 1024;

/// One connection.
#[derive(Debug)]
pub(crate) struct Stream {
    carrier: Carrier,
    socket: Option<Box<WebSocket>>,
    /// Messages above `QoS` 0 that the peer takes before it has acknowledged one; MQTT 5.
    pub(crate) receive_max: u16,
}

#[derive(Debug)]
struct Carrier {
    tcp: TcpStream,
    tls: Option<Box<Connection>>,
}

impl From<TcpStream> for Stream {
    fn from(tcp: TcpStream) -> Self {
        Self {
            carrier: Carrier { tcp, tls: None },
            socket: None,
            receive_max: u16::MAX,
        }
    }
}

impl Stream {
    /// Puts the layers of an endpoint on a connection, which may still be in the making.
    pub(crate) fn new(tcp: TcpStream, endpoint: &Endpoint) -> anyhow::Result<Self> {
        let tls = endpoint
            .tls
            .as_ref()
            .map(|tls| ClientConnection::new(tls.config.clone(), tls.name.clone()));
        let tls = tls.transpose()?.map(|client| Box::new(client.into()));
        let socket = endpoint.path.as_ref().map(|path| {
            let host = endpoint.address.to_string();
            Box::new(WebSocket::new(&host, path))
        });
        Ok(Self {
            carrier: Carrier { tcp, tls },
            socket,
            receive_max: u16::MAX,
        })
    }

    /// The other end of a connection: the ceiling's, over TLS if it has a certificate.
    pub(crate) fn serve(tcp: TcpStream, tls: Option<&Arc<ServerConfig>>) -> io::Result<Self> {
        let tls = tls.map(|config| ServerConnection::new(config.clone()));
        let tls = tls.transpose().map_err(io::Error::other)?;
        let tls = tls.map(|server| Box::new(server.into()));
        Ok(Self {
            carrier: Carrier { tcp, tls },
            socket: None,
            receive_max: u16::MAX,
        })
    }

    /// Whether a read of fewer bytes than there was room for has emptied the socket.
    pub(crate) fn is_plain(&self) -> bool {
        self.carrier.tls.is_none() && self.socket.is_none()
    }

    pub(crate) fn tcp(&self) -> &TcpStream {
        &self.carrier.tcp
    }

    fn push(&mut self) -> io::Result<()> {
        if let Some(socket) = &mut self.socket {
            let mut written = 0;
            let result = loop {
                if written == socket.out.len() {
                    break Ok(());
                }
                match self.carrier.write(&socket.out[written..]) {
                    Ok(count) => written += count,
                    Err(error) => break Err(error),
                }
            };
            socket.out.drain(..written);
            result?;
        }
        self.carrier.push()
    }
}

impl AsRawFd for Stream {
    fn as_raw_fd(&self) -> RawFd {
        self.carrier.tcp.as_raw_fd()
    }
}

/// What is not an error yet: the bytes are taken and leave later.
fn later(result: io::Result<()>) -> io::Result<()> {
    match result {
        Err(error) if is_later(&error) => Ok(()),
        other => other,
    }
}

fn is_later(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        ErrorKind::WouldBlock | ErrorKind::NotConnected
    )
}

impl Carrier {
    /// Writes what TLS has ready.
    fn push(&mut self) -> io::Result<()> {
        let Some(tls) = &mut self.tls else {
            return Ok(());
        };
        while tls.wants_write() {
            tls.write_tls(&mut self.tcp)?;
        }
        Ok(())
    }
}

impl Read for Carrier {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        loop {
            let Some(tls) = &mut self.tls else {
                return self.tcp.read(buf);
            };
            match tls.reader().read(buf) {
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                other => return other,
            }
            if tls.read_tls(&mut self.tcp)? == 0 {
                return Ok(0);
            }
            tls.process_new_packets()
                .map_err(|error| io::Error::new(ErrorKind::InvalidData, error))?;
            later(self.push())?;
        }
    }
}

impl Write for Carrier {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        let Some(tls) = &mut self.tls else {
            return self.tcp.write(buf);
        };
        let taken = tls.writer().write(buf)?;
        if taken == 0 && !buf.is_empty() {
            // Full: what is ready has to leave first.
            self.push()?;
            return self.write(buf);
        }
        later(self.push())?;
        Ok(taken)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.push()
    }
}

impl Read for Stream {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        loop {
            let Some(socket) = &mut self.socket else {
                return self.carrier.read(buf);
            };
            if let Some(count) = socket.read(buf)? {
                return Ok(count);
            }
            // The upgrade may just have let frames go.
            later(self.push())?;
            let mut raw = [0; READ_BYTES];
            let count = self.carrier.read(&mut raw)?;
            if count == 0 {
                return Ok(0);
            }
            if let Some(socket) = &mut self.socket {
                socket.received(&raw[..count]);
            }
        }
    }
}

impl Write for Stream {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        let Some(socket) = &mut self.socket else {
            return self.carrier.write(buf);
        };
        if socket.out.len() > WAITING_BYTES_MAX {
            self.push()?;
            return Err(ErrorKind::WouldBlock.into());
        }
        socket.send(buf);
        later(self.push())?;
        Ok(buf.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.push()
    }
}
