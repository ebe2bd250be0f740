//! HTTP connections: how long they may be silent, and how they meet the router.
//!
//! How many there are is bounded where they are accepted.

use std::time::Duration;

use axum::Router;
use dunlin_server::http::HttpListener;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite};

/// How long a connection may wait for the rest, or the next, of a request's head. A management port
/// faces networks too; one that sends nothing must not keep its seat.
const HEAD_TIMEOUT: Duration = Duration::from_secs(30);

/// Answers on `listener` until dropped. Answers under way then are finished.
pub async fn serve(mut listener: HttpListener, router: Router) {
    loop {
        let (stream, _) = listener.accept().await;
        tokio::spawn(connection(stream, router.clone()));
    }
}

/// Answers on one connection until it ends; how a client ends it is its own affair.
async fn connection(stream: impl AsyncRead + AsyncWrite + Unpin, router: Router) {
    let service = TowerToHyperService::new(router);
    let mut builder = http1::Builder::new();
    builder
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT);
    if let Err(error) = builder
        .serve_connection(TokioIo::new(stream), service)
        .await
    {
        tracing::debug!(reason = %error, "http_connection_failed");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::routing::get;
    use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};

    #[tokio::test]
    async fn a_connection_carries_several_requests() {
        let router = Router::new().route("/", get(|| async { "here" }));
        let (mut client, server) = duplex(1024);
        let serving = tokio::spawn(connection(server, router));
        client
            .write_all(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n")
            .await
            .expect("open");
        let last = b"GET / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n";
        client.write_all(last).await.expect("open");
        let mut answers = String::new();
        client
            .read_to_string(&mut answers)
            .await
            .expect("two answers, then the end");
        assert_eq!(answers.matches("HTTP/1.1 200").count(), 2, "{answers}");
        assert_eq!(answers.matches("here").count(), 2, "{answers}");
        serving.await.expect("no panic");
    }
}
