//! Connections made and ended, as many per second as the broker takes.

use std::io;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use mio::net::TcpStream;
use mio::{Events, Poll, Token};

use crate::client::{self, Keep};
use crate::link::Link;
use crate::progress::Progress;
use crate::sample::{Clocks, Sample};
use crate::stream::Stream;
use crate::target::{Endpoint, Target};
use crate::wire::{CONNACK, DISCONNECT, Frame};

const EVENTS_MAX: usize = 1_024;
/// Nothing happens for so long: the broker has stopped taking connections.
const SILENCE: Duration = Duration::from_secs(5);
const WAIT_MAX: Duration = Duration::from_millis(50);

/// A scenario of this kind.
#[derive(Clone, Debug)]
pub(crate) struct Conn {
    /// Connections being made at any time.
    pub(crate) at_once: usize,
    pub(crate) duration: Duration,
}

/// One connection: TCP, CONNECT, CONNACK, DISCONNECT, and the broker's end of the stream. The
/// broker closes first, so that no port of this side waits a minute for its next use.
struct Attempt {
    link: Link,
    is_answered: bool,
}

impl Conn {
    pub(crate) fn measure(
        &self,
        target: &Target,
        progress: &mut Progress,
    ) -> anyhow::Result<Sample> {
        let endpoint = target.for_publishers();
        let mut poll = Poll::new()?;
        let mut attempts = Vec::new();
        let mut next_id = 0;
        for index in 0..self.at_once {
            attempts.push(attempt(endpoint, &poll, index, &mut next_id)?);
        }
        let mut events = Events::with_capacity(EVENTS_MAX);
        let mut buffer = Vec::new();
        let mut sample = Sample::default();
        let (clocks, start) = (Clocks::read(target)?, Instant::now());
        let (mut done, mut last) = (0, start);
        loop {
            let now = Instant::now();
            if now - start >= self.duration || progress.is_stopped() {
                break;
            }
            ensure!(now - last < SILENCE, "no connection for {SILENCE:?}");
            progress.tick(now, done);
            match poll.poll(&mut events, Some(WAIT_MAX)) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                other => other?,
            }
            for event in &events {
                let Token(index) = event.token();
                if attempts[index].advance(&mut buffer)? {
                    attempts[index] = attempt(endpoint, &poll, index, &mut next_id)?;
                    done += 1;
                    last = now;
                }
            }
        }
        clocks.charge(target, done, &mut sample)?;
        Ok(sample)
    }
}

fn attempt(
    endpoint: &Endpoint,
    poll: &Poll,
    index: usize,
    next_id: &mut u64,
) -> anyhow::Result<Attempt> {
    let address = endpoint.address;
    let tcp = TcpStream::connect(address).with_context(|| format!("{address}"))?;
    let stream = Stream::new(tcp.into(), endpoint)?;
    let mut link = Link::adopt(stream, poll.registry(), Token(index))?;
    let id = format!("bench-conn-{next_id}");
    link.out = client::connect_packet(&id, &endpoint.access, Keep::Nothing);
    *next_id += 1;
    let is_answered = false;
    Ok(Attempt { link, is_answered })
}

impl Attempt {
    /// Whether it is over.
    fn advance(&mut self, buffer: &mut Vec<u8>) -> anyhow::Result<bool> {
        if self.link.unwritten_bytes() > 0 {
            match self.link.flush() {
                Err(error) if error.kind() == io::ErrorKind::NotConnected => return Ok(false),
                other => other.context("connecting")?,
            }
        }
        loop {
            let filled = match self.link.fill(buffer) {
                Err(error) if error.kind() == io::ErrorKind::NotConnected => return Ok(false),
                // An answered connection may end as the broker likes.
                Err(_) if self.is_answered => return Ok(true),
                other => other.context("waiting for CONNACK")?,
            };
            self.answer(&buffer[..filled.len])?;
            ensure!(
                self.is_answered || !filled.closed,
                "the broker closed a connection without CONNACK"
            );
            if filled.closed || !filled.more {
                return Ok(filled.closed);
            }
        }
    }

    fn answer(&mut self, bytes: &[u8]) -> anyhow::Result<()> {
        if let Some(frame) = Frame::first(bytes)? {
            let is_welcome = frame.kind() == CONNACK && frame.body().starts_with(&[0, 0]);
            ensure!(is_welcome, "CONNECT was answered by {:?}", frame.bytes);
            self.is_answered = true;
            self.link.out.extend_from_slice(&[DISCONNECT, 0]);
            self.link.flush().context("disconnecting")?;
        } else {
            self.link.keep(bytes);
        }
        Ok(())
    }
}
