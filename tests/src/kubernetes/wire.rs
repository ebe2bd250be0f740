//! HTTP/1.1 as the server speaks it.

use std::io::{Read, Write};

use anyhow::{Context, Result, ensure};
use serde_json::Value;

/// Longest head of a request, in bytes.
const HEAD_MAX: usize = 64 * 1024;

/// A request without a body.
pub(super) struct Request {
    /// Method and path.
    pub(super) line: String,
    pub(super) path: String,
    pub(super) query: Vec<(String, String)>,
    pub(super) token: Option<String>,
}

impl Request {
    /// Reads the next one of a connection; `None` when the client has closed it.
    pub(super) fn read(stream: &mut impl Read, buffer: &mut Vec<u8>) -> Result<Option<Self>> {
        loop {
            let end = buffer.windows(4).position(|window| window == b"\r\n\r\n");
            if let Some(end) = end {
                let head = String::from_utf8_lossy(&buffer[..end]).into_owned();
                buffer.drain(..end + 4);
                return Self::parse(&head).map(Some);
            }
            ensure!(buffer.len() < HEAD_MAX, "a request without an end");
            let mut bytes = [0; 4096];
            let count = stream.read(&mut bytes)?;
            if count == 0 {
                return Ok(None);
            }
            buffer.extend_from_slice(&bytes[..count]);
        }
    }

    fn parse(head: &str) -> Result<Self> {
        let mut lines = head.lines();
        let first = lines.next().context("a request line")?;
        let line = first.trim_end_matches(" HTTP/1.1").to_owned();
        let target = line.strip_prefix("GET ").context("GET")?;
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        let headers = lines.filter_map(|line| line.split_once(": "));
        let mut authorization = headers.filter(|(n, _)| n.eq_ignore_ascii_case("authorization"));
        let token = authorization.next().map(|(_, value)| value.to_owned());
        Ok(Self {
            path: path.to_owned(),
            query: query
                .split('&')
                .filter_map(|pair| pair.split_once('='))
                .map(|(name, value)| (name.to_owned(), decode(value)))
                .collect(),
            token: token.and_then(|value| value.strip_prefix("Bearer ").map(str::to_owned)),
            line,
        })
    }

    pub(super) fn get(&self, name: &str) -> Option<&str> {
        let found = self.query.iter().find(|(known, _)| known == name);
        found.map(|(_, value)| value.as_str())
    }
}

fn decode(text: &str) -> String {
    let mut bytes = Vec::new();
    let mut rest = text.as_bytes();
    while let [first, tail @ ..] = rest {
        let escaped = tail.get(..2).and_then(|hex| std::str::from_utf8(hex).ok());
        let escaped = escaped.and_then(|hex| u8::from_str_radix(hex, 16).ok());
        match (first, escaped) {
            (b'%', Some(byte)) => {
                bytes.push(byte);
                rest = &tail[2..];
            }
            (b'+', _) => {
                bytes.push(b' ');
                rest = tail;
            }
            _ => {
                bytes.push(*first);
                rest = tail;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// An answer that is sent as a whole.
pub(super) struct Whole {
    pub(super) code: u16,
    pub(super) body: Value,
    /// End points are deprecated, and the server says so.
    pub(super) warns: bool,
}

impl Whole {
    pub(super) fn write(&self, stream: &mut impl Write) -> Result<()> {
        let body = self.body.to_string();
        let warning = if self.warns {
            "Warning: 299 - \"v1 Endpoints is deprecated in v1.33+; use discovery.k8s.io/v1 \
             EndpointSlice\"\r\n"
        } else {
            ""
        };
        let head = format!(
            "HTTP/1.1 {} {}\r\nAudit-Id: 9c0e\r\nCache-Control: no-cache, private\r\n\
             Content-Type: application/json\r\n{warning}Content-Length: {}\r\n\r\n",
            self.code,
            phrase(self.code),
            body.len()
        );
        stream.write_all(head.as_bytes())?;
        stream.write_all(body.as_bytes())?;
        Ok(stream.flush()?)
    }
}

fn phrase(code: u16) -> &'static str {
    match code {
        200 => "OK",
        400 => "Bad Request",
        401 => "Unauthorized",
        403 => "Forbidden",
        404 => "Not Found",
        410 => "Gone",
        429 => "Too Many Requests",
        503 => "Service Unavailable",
        _ => "Internal Server Error",
    }
}

/// What a server of TLS says to a client of plain HTTP.
pub(super) fn refuse_plain(mut stream: impl Write) -> Result<()> {
    let text = "HTTP/1.0 400 Bad Request\r\n\r\nClient sent an HTTP request to an HTTPS server.\n";
    Ok(stream.write_all(text.as_bytes())?)
}

pub(super) fn begin_chunks(stream: &mut impl Write) -> Result<()> {
    let head = "HTTP/1.1 200 OK\r\nAudit-Id: 9c0e\r\nCache-Control: no-cache, private\r\n\
                Content-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n";
    stream.write_all(head.as_bytes())?;
    Ok(stream.flush()?)
}

/// Each event a chunk, or all of them cut in the middle of a line.
pub(super) fn write_chunks(stream: &mut impl Write, events: &[Value], cuts: bool) -> Result<()> {
    let lines: Vec<String> = events.iter().map(|event| format!("{event}\n")).collect();
    let all = lines.concat();
    let (first, second) = all.split_at(all.len() / 2);
    let cut = [first.to_owned(), second.to_owned()];
    let chunks = if cuts { &cut[..] } else { &lines[..] };
    for chunk in chunks.iter().filter(|chunk| !chunk.is_empty()) {
        stream.write_all(format!("{:x}\r\n{chunk}\r\n", chunk.len()).as_bytes())?;
        stream.flush()?;
    }
    Ok(())
}

pub(super) fn end_chunks(stream: &mut impl Write) -> Result<()> {
    stream.write_all(b"0\r\n\r\n")?;
    Ok(stream.flush()?)
}
