//! The client's side of WebSocket, as much of it as MQTT needs: an upgrade, then binary frames.
//!
//! Outgoing frames are masked with a key of zeros, which the protocol allows and costs nothing.
//! Pings are not answered: no broker sends them within the time of a measurement.

use std::io;

/// A response head of more bytes is none.
const HEAD_BYTES_MAX: usize = 16 * 1024;
const MASKED: u8 = 0x80;
const BINARY: u8 = 0x82;
/// In place of a length: two, or eight bytes of it follow.
const MEDIUM: u8 = 126;
const LONG: u8 = 127;
/// What an accept key is computed from is fixed, and so is the key.
const KEY: &str = "ZHVubGluLWJlbmNoLWtleQ==";

/// One connection's framing.
#[derive(Debug)]
pub(crate) struct WebSocket {
    is_open: bool,
    /// Bytes of the peer that are not looked at yet, from `at` on.
    raw: Vec<u8>,
    at: usize,
    /// Payload bytes of the current frame that have not come.
    left: u64,
    /// Whether that frame is data.
    is_data: bool,
    is_closed: bool,
    /// Bytes for the socket.
    pub(crate) out: Vec<u8>,
    /// Frames that wait for the upgrade.
    early: Vec<u8>,
}

fn invalid(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what.to_owned())
}

impl WebSocket {
    /// Begins with the request for an upgrade in `out`.
    pub(crate) fn new(host: &str, path: &str) -> Self {
        let request = format!(
            "GET {path} HTTP/1.1\r\nHost: {host}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
             Sec-WebSocket-Key: {KEY}\r\nSec-WebSocket-Version: 13\r\n\
             Sec-WebSocket-Protocol: mqtt\r\n\r\n"
        );
        Self {
            is_open: false,
            raw: Vec::new(),
            at: 0,
            left: 0,
            is_data: false,
            is_closed: false,
            out: request.into_bytes(),
            early: Vec::new(),
        }
    }

    /// Puts one frame around `bytes`.
    pub(crate) fn send(&mut self, bytes: &[u8]) {
        let out = if self.is_open {
            &mut self.out
        } else {
            &mut self.early
        };
        out.push(BINARY);
        match bytes.len() {
            len @ ..126 => out.push(MASKED | len as u8),
            len @ 126..=0xFFFF => {
                out.push(MASKED | MEDIUM);
                out.extend_from_slice(&(len as u16).to_be_bytes());
            }
            len => {
                out.push(MASKED | LONG);
                out.extend_from_slice(&(len as u64).to_be_bytes());
            }
        }
        out.extend_from_slice(&[0; 4]);
        out.extend_from_slice(bytes);
    }

    /// Bytes from the socket.
    pub(crate) fn received(&mut self, bytes: &[u8]) {
        self.raw.drain(..self.at);
        self.at = 0;
        self.raw.extend_from_slice(bytes);
    }

    /// Copies payload into `buf`: `None` when more bytes are needed, 0 at the end of the stream.
    pub(crate) fn read(&mut self, buf: &mut [u8]) -> io::Result<Option<usize>> {
        if !self.is_open && !self.opened()? {
            return Ok(None);
        }
        let mut filled = 0;
        while filled < buf.len() && !self.is_closed {
            if self.left == 0 && !self.header()? {
                break;
            }
            let rest = &self.raw[self.at..];
            let count = rest.len().min(self.left as usize);
            let count = if self.is_data {
                count.min(buf.len() - filled)
            } else {
                count
            };
            if count == 0 && self.left > 0 {
                break;
            }
            if self.is_data {
                buf[filled..filled + count].copy_from_slice(&rest[..count]);
                filled += count;
            }
            self.at += count;
            self.left -= count as u64;
        }
        Ok((filled > 0 || self.is_closed).then_some(filled))
    }

    /// Reads the answer to the upgrade, if it is there.
    fn opened(&mut self) -> io::Result<bool> {
        let end = self.raw.windows(4).position(|bytes| bytes == b"\r\n\r\n");
        let Some(end) = end else {
            if self.raw.len() > HEAD_BYTES_MAX {
                return Err(invalid("no answer to the WebSocket upgrade"));
            }
            return Ok(false);
        };
        let head = String::from_utf8_lossy(&self.raw[..end]);
        let first = head.lines().next().unwrap_or_default();
        if first.split(' ').nth(1) != Some("101") {
            return Err(invalid(&format!(
                "the WebSocket upgrade was refused: {first}"
            )));
        }
        self.at = end + 4;
        self.is_open = true;
        self.out.append(&mut self.early);
        Ok(true)
    }

    /// Reads a frame's header, if it is there.
    fn header(&mut self) -> io::Result<bool> {
        let rest = &self.raw[self.at..];
        let &[kind, len, ..] = rest else {
            return Ok(false);
        };
        if len & MASKED != 0 {
            return Err(invalid("a masked WebSocket frame from a server"));
        }
        let (left, header_bytes) = match len {
            MEDIUM => match rest.get(2..4).and_then(|bytes| bytes.first_chunk()) {
                Some(&bytes) => (u64::from(u16::from_be_bytes(bytes)), 4),
                None => return Ok(false),
            },
            LONG => match rest.get(2..10).and_then(|bytes| bytes.first_chunk()) {
                Some(&bytes) => (u64::from_be_bytes(bytes), 10),
                None => return Ok(false),
            },
            len => (u64::from(len), 2),
        };
        self.at += header_bytes;
        self.left = left;
        self.is_data = kind & 0x0F <= 2;
        self.is_closed = kind & 0x0F == 8;
        Ok(true)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WELCOME: &[u8] = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\r\n";

    fn open() -> WebSocket {
        let mut socket = WebSocket::new("h:1", "/mqtt");
        socket.out.clear();
        socket.received(WELCOME);
        assert_eq!(socket.read(&mut [0; 9]).expect("valid"), None);
        socket
    }

    #[test]
    fn what_is_sent_before_the_upgrade_waits_for_it() {
        let mut socket = WebSocket::new("h:1", "/mqtt");
        assert!(
            socket
                .out
                .starts_with(b"GET /mqtt HTTP/1.1\r\nHost: h:1\r\n")
        );
        socket.out.clear();
        socket.send(b"ab");
        assert!(socket.out.is_empty());
        socket.received(&WELCOME[..30]);
        assert_eq!(socket.read(&mut [0; 9]).expect("valid"), None);
        socket.received(&WELCOME[30..]);
        assert_eq!(socket.read(&mut [0; 9]).expect("valid"), None);
        assert_eq!(socket.out, [BINARY, 0x82, 0, 0, 0, 0, b'a', b'b']);
    }

    #[test]
    fn payload_is_the_same_however_the_bytes_are_cut() {
        let mut wire = vec![
            0x82, 3, b'a', b'b', b'c', 0x89, 1, b'p', 0x82, 0, 0x82, 126, 1, 0,
        ];
        wire.extend_from_slice(&[b'z'; 256]);
        for step in [1, 2, 7, 300] {
            let mut socket = open();
            let (mut payload, mut buf) = (Vec::new(), [0; 5]);
            for part in wire.chunks(step) {
                socket.received(part);
                while let Some(count) = socket.read(&mut buf).expect("valid") {
                    payload.extend_from_slice(&buf[..count]);
                }
            }
            assert_eq!(payload, [&b"abc"[..], &[b'z'; 256]].concat(), "{step}");
        }
    }

    #[test]
    fn refusals_and_good_byes() {
        let mut socket = WebSocket::new("h:1", "/");
        socket.received(b"HTTP/1.1 404 Not Found\r\n\r\n");
        let error = socket.read(&mut [0; 9]).expect_err("refused");
        assert!(error.to_string().contains("404"));
        let mut socket = open();
        socket.received(&[0x88, 2, 3, 0xE8]);
        assert_eq!(socket.read(&mut [0; 9]).expect("valid"), Some(0));
        let mut socket = open();
        socket.received(&[0x82, 0x81, 0, 0, 0, 0, 1]);
        socket.read(&mut [0; 9]).expect_err("masked");
    }
}
