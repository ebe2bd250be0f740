//! The HTTP upgrade before MQTT over WebSocket [RFC 6455, section 4.2].
//!
//! Written here and not left to the WebSocket library because the path, the sub-protocol and the
//! origin are configured, and because a client that is refused must be told why in HTTP.

use std::io;
use std::net::{IpAddr, SocketAddr};

use base64::Engine as _;
use bytes::{Buf, BytesMut};
use dunlin_config::settings::Websocket;
use ring::digest;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

/// Longest request head, in bytes; browsers send cookies, which may be a few kilobytes.
const HEAD_BYTES_MAX: usize = 16 * 1024;

/// Most header fields.
const HEADERS_MAX: usize = 64;

/// Concatenated to the client's key [RFC 6455, section 1.3].
const ACCEPT_GUID: &[u8] = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11";

/// A request that was taken.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Upgraded {
    /// The client's address as a proxy in front told it.
    pub(crate) forwarded: Option<SocketAddr>,
}

/// Why a request was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Refusal {
    Malformed,
    NotGet,
    WrongPath,
    NoUpgrade,
    Version,
    Subprotocol,
    Origin,
    TooLong,
}

impl Refusal {
    fn status(self) -> &'static str {
        match self {
            Self::Malformed | Self::Subprotocol => "400 Bad Request",
            Self::NotGet => "405 Method Not Allowed",
            Self::WrongPath => "404 Not Found",
            Self::NoUpgrade | Self::Version => "426 Upgrade Required",
            Self::Origin => "403 Forbidden",
            Self::TooLong => "431 Request Header Fields Too Large",
        }
    }

    fn reason(self) -> &'static str {
        match self {
            Self::Malformed => "This is not an HTTP/1.1 request.",
            Self::NotGet => "Only GET can be upgraded to WebSocket.",
            Self::WrongPath => "No MQTT here: the path of this listener is set by mqtt_path.",
            Self::NoUpgrade => "This is an MQTT listener: ask for an upgrade to WebSocket.",
            Self::Version => "Only version 13 of WebSocket is spoken here.",
            Self::Subprotocol => "None of the offered sub-protocols is spoken here; offer mqtt.",
            Self::Origin => "This origin is not allowed.",
            Self::TooLong => "The request head is too long.",
        }
    }

    fn extra_headers(self) -> &'static str {
        match self {
            Self::NoUpgrade | Self::Version => {
                "Upgrade: websocket\r\nConnection: Upgrade\r\n\
                 Sec-WebSocket-Version: 13\r\n"
            }
            Self::NotGet => "Allow: GET\r\n",
            _ => "",
        }
    }
}

/// Reads the request and answers it. Bytes after it stay in `buf`. A refused request is answered
/// and then an error here.
pub(crate) async fn upgrade(
    stream: &mut (impl AsyncRead + AsyncWrite + Unpin),
    buf: &mut BytesMut,
    settings: &Websocket,
) -> io::Result<Upgraded> {
    let verdict = loop {
        match examine(buf, settings) {
            Ok(None) if buf.len() >= HEAD_BYTES_MAX => break Err(Refusal::TooLong),
            Ok(None) => {}
            Ok(Some(taken)) => break Ok(taken),
            Err(refusal) => break Err(refusal),
        }
        if stream.read_buf(buf).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    };
    match verdict {
        Ok(taken) => {
            buf.advance(taken.head_bytes);
            stream.write_all(taken.response.as_bytes()).await?;
            stream.flush().await?;
            Ok(Upgraded {
                forwarded: taken.forwarded,
            })
        }
        Err(refusal) => {
            stream
                .write_all(refusal_response(refusal).as_bytes())
                .await?;
            stream.shutdown().await?;
            Err(io::Error::new(io::ErrorKind::InvalidData, refusal.reason()))
        }
    }
}

fn refusal_response(refusal: Refusal) -> String {
    let (status, reason) = (refusal.status(), refusal.reason());
    format!(
        "HTTP/1.1 {status}\r\n{}Connection: close\r\nContent-Type: text/plain\r\n\
         Content-Length: {}\r\n\r\n{reason}\n",
        refusal
            .extra_headers()
            .replace("Connection: Upgrade\r\n", ""),
        reason.len() + 1
    )
}

struct Taken {
    head_bytes: usize,
    response: String,
    forwarded: Option<SocketAddr>,
}

/// Looks at what has come so far: `None` if the head is not complete.
fn examine(buf: &[u8], settings: &Websocket) -> Result<Option<Taken>, Refusal> {
    let mut headers = [httparse::EMPTY_HEADER; HEADERS_MAX];
    let mut request = httparse::Request::new(&mut headers);
    let head_bytes = match request.parse(buf) {
        Ok(httparse::Status::Complete(length)) => length,
        Ok(httparse::Status::Partial) => return Ok(None),
        Err(httparse::Error::TooManyHeaders) => return Err(Refusal::TooLong),
        Err(_) => return Err(Refusal::Malformed),
    };
    let fields = Fields(request.headers);
    check_request(request.method, request.path, settings)?;
    if !fields.lists("upgrade", "websocket") || !fields.lists("connection", "upgrade") {
        return Err(Refusal::NoUpgrade);
    }
    if fields.get("sec-websocket-version") != Some("13") {
        return Err(Refusal::Version);
    }
    let key = fields.get("sec-websocket-key").ok_or(Refusal::Malformed)?;
    check_origin(&fields, settings)?;
    let subprotocol = choose_subprotocol(&fields, settings)?;
    Ok(Some(Taken {
        head_bytes,
        response: accept_response(key, subprotocol),
        forwarded: forwarded(&fields, settings),
    }))
}

fn check_request(
    method: Option<&str>,
    path: Option<&str>,
    settings: &Websocket,
) -> Result<(), Refusal> {
    if method != Some("GET") {
        return Err(Refusal::NotGet);
    }
    let path = path.unwrap_or_default();
    let path = path.split(['?', '#']).next().unwrap_or_default();
    if path == settings.mqtt_path {
        Ok(())
    } else {
        Err(Refusal::WrongPath)
    }
}

fn check_origin(fields: &Fields<'_>, settings: &Websocket) -> Result<(), Refusal> {
    if !settings.check_origin_enable {
        return Ok(());
    }
    let allowed = match fields.get("origin") {
        None => settings.allow_origin_absence,
        Some(origin) => settings.check_origins.iter().any(|known| known == origin),
    };
    if allowed {
        Ok(())
    } else {
        Err(Refusal::Origin)
    }
}

/// The first sub-protocol the client offers that is spoken here.
fn choose_subprotocol<'a>(
    fields: &Fields<'a>,
    settings: &Websocket,
) -> Result<Option<&'a str>, Refusal> {
    let known = |offer: &&str| {
        settings
            .supported_subprotocols
            .iter()
            .any(|ours| ours.eq_ignore_ascii_case(offer))
    };
    let chosen = fields.list("sec-websocket-protocol").find(known);
    if chosen.is_none() && settings.fail_if_no_subprotocol {
        return Err(Refusal::Subprotocol);
    }
    Ok(chosen)
}

fn accept_response(key: &str, subprotocol: Option<&str>) -> String {
    let mut context = digest::Context::new(&digest::SHA1_FOR_LEGACY_USE_ONLY);
    context.update(key.as_bytes());
    context.update(ACCEPT_GUID);
    let accept = base64::engine::general_purpose::STANDARD.encode(context.finish());
    let subprotocol = subprotocol
        .map(|name| format!("Sec-WebSocket-Protocol: {name}\r\n"))
        .unwrap_or_default();
    format!(
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Accept: {accept}\r\n{subprotocol}\r\n"
    )
}

/// The client's address in the headers a proxy adds; the first of a list is the client.
fn forwarded(fields: &Fields<'_>, settings: &Websocket) -> Option<SocketAddr> {
    let first = |name: &str| fields.list(name).next();
    let ip: IpAddr = first(&settings.proxy_address_header)?.parse().ok()?;
    let port = first(&settings.proxy_port_header).and_then(|port| port.parse().ok());
    Some(SocketAddr::new(ip, port.unwrap_or(0)))
}

/// Header fields by name, whatever their case.
struct Fields<'a>(&'a [httparse::Header<'a>]);

impl<'a> Fields<'a> {
    fn all(&self, name: &str) -> impl Iterator<Item = &'a str> {
        let same = move |field: &&httparse::Header<'_>| field.name.eq_ignore_ascii_case(name);
        let value = |field: &httparse::Header<'a>| std::str::from_utf8(field.value).ok();
        self.0.iter().filter(same).filter_map(value).map(str::trim)
    }

    fn get(&self, name: &str) -> Option<&'a str> {
        self.all(name).next()
    }

    /// The items of comma-separated lists.
    fn list(&self, name: &str) -> impl Iterator<Item = &'a str> {
        self.all(name)
            .flat_map(|value| value.split(','))
            .map(str::trim)
    }

    fn lists(&self, name: &str, item: &str) -> bool {
        self.list(name)
            .any(|found| found.eq_ignore_ascii_case(item))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings() -> Websocket {
        Websocket {
            mqtt_path: "/mqtt".to_owned(),
            mqtt_piggyback: dunlin_config::settings::Piggyback::Multiple,
            compress: false,
            idle_timeout_ms: None,
            max_frame_bytes: None,
            fail_if_no_subprotocol: true,
            supported_subprotocols: ["mqtt", "mqtt-v3.1.1"].map(str::to_owned).to_vec(),
            check_origin_enable: false,
            allow_origin_absence: true,
            check_origins: vec!["https://example.org".to_owned()],
            proxy_address_header: "x-forwarded-for".to_owned(),
            proxy_port_header: "x-forwarded-port".to_owned(),
        }
    }

    fn request(path: &str, drop: &str, add: &str) -> String {
        let lines = [
            "Host: h",
            "Upgrade: WebSocket",
            "Connection: keep-alive, Upgrade",
            "Sec-WebSocket-Version: 13",
            "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
            "Sec-WebSocket-Protocol: mqttv3.1, mqtt",
        ];
        let kept: Vec<&str> = lines
            .into_iter()
            .filter(|l| drop.is_empty() || !l.starts_with(drop))
            .collect();
        format!("GET {path} HTTP/1.1\r\n{}\r\n{add}\r\n", kept.join("\r\n"))
    }

    fn refused(text: &str, settings: &Websocket) -> Option<Refusal> {
        examine(text.as_bytes(), settings).err()
    }

    #[test]
    fn the_rfcs_own_example_is_answered_with_the_rfcs_own_answer() {
        let text = request("/mqtt?x=1", "", "");
        let taken = examine(text.as_bytes(), &settings())
            .ok()
            .flatten()
            .expect("it is right");
        assert_eq!(taken.head_bytes, text.len());
        assert!(
            taken
                .response
                .contains("Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n")
        );
        assert!(taken.response.contains("Sec-WebSocket-Protocol: mqtt\r\n"));
        assert!(taken.response.ends_with("\r\n\r\n"));
    }

    #[test]
    fn each_fault_has_its_answer() {
        let settings = settings();
        let check = |text: String, refusal| assert_eq!(refused(&text, &settings), Some(refusal));
        check(request("/other", "", ""), Refusal::WrongPath);
        check(request("/mqtt", "Upgrade", ""), Refusal::NoUpgrade);
        check(request("/mqtt", "Connection", ""), Refusal::NoUpgrade);
        check(
            request("/mqtt", "Sec-WebSocket-Version", ""),
            Refusal::Version,
        );
        check(
            request("/mqtt", "Sec-WebSocket-Key", ""),
            Refusal::Malformed,
        );
        check(
            request("/mqtt", "Sec-WebSocket-Protocol", ""),
            Refusal::Subprotocol,
        );
        check(
            request("/mqtt", "", "").replace("GET", "POST"),
            Refusal::NotGet,
        );
        check("\x10\x0c\0\x04MQTT".to_owned(), Refusal::Malformed);
        let many = "X: y\r\n".repeat(HEADERS_MAX);
        check(request("/mqtt", "", &many), Refusal::TooLong);
    }

    #[test]
    fn options_loosen_and_tighten() {
        let lenient = Websocket {
            fail_if_no_subprotocol: false,
            ..settings()
        };
        assert_eq!(
            refused(&request("/mqtt", "Sec-WebSocket-Protocol", ""), &lenient),
            None
        );
        let strict = Websocket {
            check_origin_enable: true,
            allow_origin_absence: false,
            ..settings()
        };
        assert_eq!(
            refused(&request("/mqtt", "", ""), &strict),
            Some(Refusal::Origin)
        );
        let origin = |origin: &str| request("/mqtt", "", &format!("Origin: {origin}\r\n"));
        assert_eq!(
            refused(&origin("https://evil.org"), &strict),
            Some(Refusal::Origin)
        );
        assert_eq!(refused(&origin("https://example.org"), &strict), None);
    }

    #[test]
    fn the_first_forwarded_address_is_the_clients() {
        let add = "X-Forwarded-For: 192.0.2.1, 10.0.0.1\r\nX-Forwarded-Port: 4711\r\n";
        let text = request("/mqtt", "", add);
        let taken = examine(text.as_bytes(), &settings())
            .ok()
            .flatten()
            .expect("it is right");
        assert_eq!(taken.forwarded, "192.0.2.1:4711".parse().ok());
    }

    #[tokio::test]
    async fn a_refused_client_reads_why() {
        let (mut client, mut server) = tokio::io::duplex(4096);
        let text = request("/wrong", "", "");
        client.write_all(text.as_bytes()).await.expect("it fits");
        let mut buf = BytesMut::new();
        upgrade(&mut server, &mut buf, &settings())
            .await
            .expect_err("the path is wrong");
        let mut answer = String::new();
        client.read_to_string(&mut answer).await.expect("text");
        assert!(answer.starts_with("HTTP/1.1 404 Not Found\r\n"), "{answer}");
        assert!(answer.contains("mqtt_path"), "{answer}");
    }
}
