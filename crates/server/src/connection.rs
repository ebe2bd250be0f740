//! One client's connection: a task of about two hundred bytes that moves bytes between its stream
//! and its shard.
//!
//! While nothing happens it owns no buffer: it borrows the thread's read buffer when there is
//! something to read and gives it back before it waits. It must never understand a byte of MQTT.

use std::future::Future;
use std::io;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::BytesMut;
use dunlin_broker::{CloseReason, Conn};
use tokio::io::{AsyncReadExt, AsyncWrite};
use tokio::time::{Instant, Sleep};

use crate::driver::{Driver, Written};
use crate::listener::Seat;
use crate::stream::Stream;

/// Reads in a row before other tasks get their turn: four of 64 KiB.
const READS_PER_WAKE: u32 = 4;

/// How long a closed connection may take to accept its last bytes and to close its end. Long
/// enough for a round trip around the world, short enough that a reconnecting crowd does not pile
/// up.
const LINGER: Duration = Duration::from_secs(1);

/// A client's connection.
pub(crate) struct Connection {
    driver: Rc<Driver>,
    conn: Conn,
    seat: Seat,
    stream: Stream,
    /// An incomplete packet.
    rest: BytesMut,
    phase: Phase,
    /// The stream holds bytes of ours that it has not passed on.
    unflushed: bool,
    /// Runs while the stream takes nothing, or while the connection ends.
    timer: Option<Pin<Box<Sleep>>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Open,
    /// The last bytes are being written.
    Flushing(CloseReason),
    /// The shard has forgotten the connection; the client is given time to close its end, because
    /// closing ours with unread bytes would reset it and destroy what was just written.
    Lingering,
    Ended,
}

impl Connection {
    pub(crate) fn new(driver: Rc<Driver>, conn: Conn, seat: Seat, stream: Stream) -> Self {
        Self {
            driver,
            conn,
            seat,
            stream,
            rest: BytesMut::new(),
            phase: Phase::Open,
            unflushed: false,
            timer: None,
        }
    }

    /// Serves until it has to wait or the connection ends.
    fn serve(&mut self, cx: &mut Context<'_>) -> Poll<Phase> {
        self.driver.attach(self.conn, cx.waker());
        for _ in 0..READS_PER_WAKE {
            if let Err(error) = self.write(cx) {
                return Poll::Ready(self.failed(&error));
            }
            if let Some(reason) = self.driver.close_wanted(self.conn) {
                return Poll::Ready(Phase::Flushing(reason));
            }
            if self.seat.listener().is_stopped() {
                return Poll::Ready(Phase::Flushing(CloseReason::Shutdown));
            }
            if self.is_timer_over(cx) {
                return Poll::Ready(self.end(CloseReason::TcpError));
            }
            if self.driver.take_retry(self.conn) && !self.rest.is_empty() {
                self.driver.receive(self.conn, &mut self.rest);
                continue;
            }
            if self.is_overfull() || !self.driver.may_read(self.conn) {
                return Poll::Pending;
            }
            match ready!(self.read(cx)) {
                Ok(0) => return Poll::Ready(self.end(CloseReason::TcpClosed)),
                Ok(_) => {}
                Err(error) => return Poll::Ready(self.failed(&error)),
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    /// One read, and the shard's turn with what came.
    fn read(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let mut buf = self.driver.lend_buffer(&mut self.rest);
        let read = pin!(self.stream.read_buf(&mut buf)).poll(cx);
        if matches!(read, Poll::Ready(Ok(count)) if count > 0) {
            self.driver.receive(self.conn, &mut buf);
        }
        self.driver.return_buffer(buf, &mut self.rest);
        read
    }

    /// Writes until nothing waits or the stream is full.
    fn write(&mut self, cx: &mut Context<'_>) -> io::Result<()> {
        loop {
            match self.driver.write(self.conn, &mut self.stream, cx)? {
                Written::All => self.unflushed = true,
                Written::Nothing => {
                    self.timer = None;
                    return self.flush(cx);
                }
                Written::Stalled { some } => {
                    if some || self.timer.is_none() {
                        let options = &self.seat.listener().settings.tcp_options;
                        self.start_timer(Duration::from_millis(options.send_timeout_ms));
                    }
                    return Ok(());
                }
            }
        }
    }

    fn flush(&mut self, cx: &mut Context<'_>) -> io::Result<()> {
        if self.unflushed {
            match Pin::new(&mut self.stream).poll_flush(cx) {
                Poll::Ready(result) => {
                    self.unflushed = false;
                    return result;
                }
                Poll::Pending => {}
            }
        }
        Ok(())
    }

    /// A client that takes nothing while much waits for it is not read from either: what it sends
    /// could only add to the heap.
    fn is_overfull(&self) -> bool {
        let limit = self
            .seat
            .listener()
            .settings
            .tcp_options
            .high_watermark_bytes;
        self.timer.is_some() && self.driver.waiting_bytes(self.conn) as u64 > limit
    }

    fn start_timer(&mut self, after: Duration) {
        let at = Instant::now() + after;
        match &mut self.timer {
            Some(timer) => timer.as_mut().reset(at),
            none => *none = Some(Box::pin(tokio::time::sleep_until(at))),
        }
    }

    fn is_timer_over(&mut self, cx: &mut Context<'_>) -> bool {
        self.timer
            .as_mut()
            .is_some_and(|timer| timer.as_mut().poll(cx).is_ready())
    }

    /// Writes the last bytes and ends our half of the stream.
    fn flush_out(&mut self, cx: &mut Context<'_>, reason: CloseReason) -> Poll<Phase> {
        let done = match self.write_out(cx) {
            Poll::Ready(result) => result.is_ok(),
            Poll::Pending if !self.is_timer_over(cx) => return Poll::Pending,
            Poll::Pending => false,
        };
        self.end(reason);
        Poll::Ready(if done { Phase::Lingering } else { Phase::Ended })
    }

    fn write_out(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        loop {
            match self.driver.write(self.conn, &mut self.stream, cx)? {
                Written::All => {}
                Written::Nothing => break,
                Written::Stalled { .. } => return Poll::Pending,
            }
        }
        ready!(Pin::new(&mut self.stream).poll_flush(cx))?;
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }

    /// Reads and drops until the client has closed its end.
    fn linger(&mut self, cx: &mut Context<'_>) -> Poll<Phase> {
        for _ in 0..READS_PER_WAKE {
            let mut buf = self.driver.lend_buffer(&mut BytesMut::new());
            let read = pin!(self.stream.read_buf(&mut buf)).poll(cx);
            buf.clear();
            self.driver.return_buffer(buf, &mut BytesMut::new());
            match read {
                Poll::Ready(Ok(count)) if count > 0 => {}
                Poll::Ready(_) => return Poll::Ready(Phase::Ended),
                Poll::Pending if self.is_timer_over(cx) => return Poll::Ready(Phase::Ended),
                Poll::Pending => return Poll::Pending,
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    fn failed(&mut self, error: &io::Error) -> Phase {
        let reason = match (error.kind(), &self.stream) {
            // A client that leaves TLS without saying so; most do.
            (io::ErrorKind::UnexpectedEof, _) => CloseReason::TcpClosed,
            (io::ErrorKind::InvalidData, Stream::Tls(_)) => CloseReason::TlsError,
            (io::ErrorKind::InvalidData, _) => CloseReason::FrameError,
            _ => CloseReason::TcpError,
        };
        tracing::debug!(peer_error = %error, reason = reason.as_str(), "connection_failed");
        self.end(reason)
    }

    /// Tells the shard, once.
    fn end(&mut self, reason: CloseReason) -> Phase {
        if !matches!(self.phase, Phase::Lingering | Phase::Ended) {
            self.phase = Phase::Ended;
            self.seat.ended(reason);
            self.driver.closed(self.conn, reason);
        }
        Phase::Ended
    }
}

impl Future for Connection {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let this = self.get_mut();
        loop {
            let next = match this.phase {
                Phase::Open => ready!(this.serve(cx)),
                Phase::Flushing(reason) => ready!(this.flush_out(cx, reason)),
                Phase::Lingering => ready!(this.linger(cx)),
                Phase::Ended => return Poll::Ready(()),
            };
            if let Phase::Flushing(_) | Phase::Lingering = next {
                this.start_timer(LINGER);
            }
            this.phase = next;
        }
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        // Not ended yet: the thread stops, or this task panicked.
        self.end(CloseReason::Shutdown);
    }
}
