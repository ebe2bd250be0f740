//! A tiny HTTP client: one request per connection.

use std::fmt::Write as _;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

/// No answer of the API may take longer.
const LIMIT: Duration = Duration::from_secs(10);

/// An answer.
#[derive(Clone, Debug)]
pub struct Response {
    /// The request, for messages.
    pub request: String,
    /// Status code.
    pub status: u16,
    /// Header lines, names in lower case.
    pub headers: Vec<(String, String)>,
    /// The body as text.
    pub body: String,
}

impl Response {
    /// The value of a header.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers
            .iter()
            .find(|(n, _)| n == name)
            .map(|(_, value)| value.as_str())
    }

    /// The body as JSON.
    pub fn json(&self) -> Result<Value> {
        serde_json::from_str(&self.body).with_context(|| format!("no JSON: {self:?}"))
    }

    /// Requires this status.
    pub fn status(self, status: u16) -> Result<Self> {
        ensure!(self.status == status, "status {status} expected: {self:?}");
        Ok(self)
    }

    /// Requires this status and error body.
    pub fn refused(self, status: u16, code: &str, message: &str) -> Result<Self> {
        let body = self.json()?;
        ensure!(
            self.status == status && body["code"] == code && body["message"] == message,
            "status {status}, code {code:?}, message {message:?} expected: {self:?}"
        );
        Ok(self)
    }
}

/// The API of one node, with or without credentials.
#[derive(Clone, Debug)]
pub struct Api {
    address: SocketAddr,
    authorization: Option<String>,
}

impl Api {
    /// Without credentials.
    pub fn new(address: SocketAddr) -> Self {
        Self {
            address,
            authorization: None,
        }
    }

    /// With an `Authorization` header.
    #[must_use]
    pub fn with(&self, authorization: &str) -> Self {
        Self {
            address: self.address,
            authorization: Some(authorization.to_owned()),
        }
    }

    /// The same credentials at another node.
    #[must_use]
    pub fn at(&self, address: SocketAddr) -> Self {
        Self {
            address,
            authorization: self.authorization.clone(),
        }
    }

    /// Logs in; the default password opens nothing but its change.
    pub fn login(&self, username: &str, password: &str) -> Result<Self> {
        let body = serde_json::json!({ "username": username, "password": password });
        let answer = self.post("/api/v5/login", &body)?.status(200)?.json()?;
        let token = answer["token"].as_str().context("a login gives a token")?;
        Ok(self.with(&format!("Bearer {token}")))
    }

    /// `GET`.
    pub fn get(&self, path: &str) -> Result<Response> {
        self.request("GET", path, None)
    }

    /// `POST` with a JSON body.
    pub fn post(&self, path: &str, body: &Value) -> Result<Response> {
        self.request("POST", path, Some(&body.to_string()))
    }

    /// Any method, with any body.
    pub fn request(&self, method: &str, path: &str, body: Option<&str>) -> Result<Response> {
        let request = format!("{method} http://{}{path}", self.address);
        let mut head = format!(
            "{method} {path} HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n",
            self.address
        );
        if let Some(value) = &self.authorization {
            let _ = write!(head, "Authorization: {value}\r\n");
        }
        let body = body.unwrap_or_default();
        if !body.is_empty() {
            head.push_str("Content-Type: application/json\r\n");
        }
        let _ = write!(head, "Content-Length: {}\r\n\r\n{body}", body.len());
        let text = self.exchange(&head).with_context(|| request.clone())?;
        parse(request, &text)
    }

    fn exchange(&self, request: &str) -> Result<String> {
        let mut stream = TcpStream::connect_timeout(&self.address, LIMIT)?;
        stream.set_read_timeout(Some(LIMIT))?;
        stream.write_all(request.as_bytes())?;
        let mut bytes = Vec::new();
        stream.read_to_end(&mut bytes)?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }
}

fn parse(request: String, text: &str) -> Result<Response> {
    let (head, body) = text
        .split_once("\r\n\r\n")
        .with_context(|| format!("{text:?}"))?;
    let mut lines = head.lines();
    let status = lines
        .next()
        .and_then(|line| line.split(' ').nth(1))
        .context("a status line")?;
    let headers = lines
        .filter_map(|line| line.split_once(':'))
        .map(|(name, value)| (name.to_ascii_lowercase(), value.trim().to_owned()))
        .collect();
    let status = status.parse().context("a status code")?;
    Ok(Response {
        request,
        status,
        headers,
        body: body.to_owned(),
    })
}
