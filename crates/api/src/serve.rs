//! HTTP connections: how many, how long, and how they end.
//!
//! A management port faces networks too: the number of connections is bounded, one that sends
//! nothing is closed, and a stop waits for answers under way, but not for ever.

use std::convert::Infallible;
use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;
use tokio::sync::Semaphore;

/// How long a connection may wait for the rest, or the next, of a request's head.
const HEAD_TIMEOUT: Duration = Duration::from_secs(30);

/// How long a stop waits for answers under way.
const STOP_TIMEOUT: Duration = Duration::from_secs(2);

/// Pause after the system had no connection to give (out of file descriptors): the cause does not
/// go away faster when asked again at once.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Answers on `listener` until `stop` completes, on at most `connections_max` connections; more
/// wait in the listener's backlog.
pub async fn serve(
    listener: TcpListener,
    router: Router,
    connections_max: usize,
    stop: impl Future<Output = ()>,
) {
    let slots = Arc::new(Semaphore::new(connections_max));
    let open = GracefulShutdown::new();
    let mut stop = pin!(stop);
    loop {
        let accepted = async {
            let slot = slots.clone().acquire_owned().await;
            (slot, listener.accept().await)
        };
        let (slot, accepted) = tokio::select! {
            both = accepted => both,
            () = &mut stop => break,
        };
        let Ok((stream, _)) = accepted else {
            tokio::time::sleep(ACCEPT_PAUSE).await;
            continue;
        };
        // Answers are small and written at once.
        let _ = stream.set_nodelay(true);
        let service = TowerToHyperService::new(router.clone());
        let connection = open.watch(builder().serve_connection(TokioIo::new(stream), service));
        tokio::spawn(async move {
            // How a client's connection ends is its own affair.
            let _ = connection.await;
            drop(slot);
        });
    }
    drop(listener);
    if tokio::time::timeout(STOP_TIMEOUT, open.shutdown())
        .await
        .is_err()
    {
        tracing::warn!("http_connections_cut_at_stop");
    }
}

/// Answers on one connection that is open already, such as a TLS one, until it ends.
pub async fn serve_connection(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    router: Router,
) -> Result<(), hyper::Error> {
    let service = TowerToHyperService::new(router);
    builder()
        .serve_connection(TokioIo::new(stream), service)
        .await
}

fn builder() -> http1::Builder {
    let mut builder = http1::Builder::new();
    builder
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT);
    builder
}

/// The router's requests have hyper's body and its answers cannot fail; said here so that a change
/// of either library shows up in this file.
const _: fn() = || {
    fn serves<S>()
    where
        S: hyper::service::Service<hyper::Request<Incoming>, Error = Infallible>,
    {
    }
    serves::<TowerToHyperService<Router>>();
};

#[cfg(test)]
mod tests {
    use super::*;
    use axum::routing::get;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpStream;

    const REQUEST: &[u8] = b"GET / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n";

    async fn ask(stream: &mut TcpStream) -> String {
        stream.write_all(REQUEST).await.expect("open");
        let mut answer = String::new();
        stream
            .read_to_string(&mut answer)
            .await
            .expect("an answer, then the end");
        answer
    }

    async fn ask_and_stay(stream: &mut TcpStream) {
        stream
            .write_all(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n")
            .await
            .expect("open");
        let mut answer = Vec::new();
        while !answer.ends_with(b"here") {
            let byte = stream.read_u8().await.expect("an answer");
            answer.push(byte);
        }
    }

    #[tokio::test]
    async fn connections_are_bounded_and_a_stop_ends_idle_ones() {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("loopback");
        let address = listener.local_addr().expect("bound");
        let router = Router::new().route("/", get(|| async { "here" }));
        let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
        let server = tokio::spawn(serve(listener, router, 1, async {
            let _ = stopped.await;
        }));
        let mut first = TcpStream::connect(address).await.expect("the only slot");
        ask_and_stay(&mut first).await;
        let mut waiting = TcpStream::connect(address)
            .await
            .expect("the backlog takes it");
        waiting
            .write_all(REQUEST)
            .await
            .expect("the system takes it");
        // The server has had its turns since the second request arrived, and left it alone.
        ask_and_stay(&mut first).await;
        let unanswered = waiting.try_read(&mut [0; 1]).expect_err("no slot for it");
        assert_eq!(unanswered.kind(), std::io::ErrorKind::WouldBlock);
        drop(first);
        let mut answer = String::new();
        waiting
            .read_to_string(&mut answer)
            .await
            .expect("its turn has come");
        assert!(answer.ends_with("here"), "{answer}");
        let mut third = TcpStream::connect(address).await.expect("loopback");
        assert!(ask(&mut third).await.ends_with("here"));
        stop.send(()).expect("the server listens");
        server.await.expect("no panic");
    }
}
