//! Sessions that come back all at once to what was queued for them.

use std::io::{ErrorKind, Write};
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use dunlin_mqtt::{QoS, Version};
use mio::{Events, Poll, Token};
use rustix::net::sockopt;

use crate::check::{Faults, Stream as Order};
use crate::client::{self, Keep};
use crate::link::Link;
use crate::progress::Progress;
use crate::sample::{Clocks, Sample};
use crate::stream::Stream;
use crate::target::{Endpoint, Target};
use crate::wire::{CONNACK, Frame, PUBACK, Stamp, Template, acknowledge};

const EVENTS_MAX: usize = 1_024;
/// Nothing arrives for so long: the rest counts as lost.
const SILENCE: Duration = Duration::from_secs(3);
const WAIT_MAX: Duration = Duration::from_millis(50);
/// Messages stored before their acknowledgements are read.
const BURST: usize = 100;

/// A scenario of this kind; at `QoS` 1.
#[derive(Clone, Debug)]
pub(crate) struct Resume {
    pub(crate) sessions: usize,
    /// Queued for each.
    pub(crate) messages: usize,
    pub(crate) payload_bytes: usize,
    pub(crate) duration: Duration,
}

impl Resume {
    pub(crate) fn measure(
        &self,
        target: &Target,
        progress: &mut Progress,
    ) -> anyhow::Result<Sample> {
        let endpoint = target.for_subscribers();
        for index in 0..self.sessions {
            client::disconnect(client::connect(endpoint, &id(index))?)?;
            let mut stream = client::connect_and(endpoint, &id(index), Keep::Session)?;
            let filters = [topic(index)];
            client::subscribe(&mut stream, &endpoint.access, &filters, QoS::AtLeastOnce)?;
            client::disconnect(stream)?;
        }
        let mut publisher = client::connect(target.for_publishers(), "bench-publisher")?;
        let mut sample = Sample::default();
        while sample.seconds < self.duration.as_secs_f64() && !progress.is_stopped() {
            for index in 0..self.sessions {
                self.queue(&mut publisher, endpoint.access.version(), index)?;
            }
            self.resume(target, &mut sample)?;
            progress.tick(Instant::now(), sample.units);
            if sample.faults != Faults::default() {
                break;
            }
        }
        for index in 0..self.sessions {
            client::disconnect(client::connect(endpoint, &id(index))?)?;
        }
        client::disconnect(publisher)?;
        Ok(sample)
    }

    fn queue(&self, publisher: &mut Stream, version: Version, index: usize) -> anyhow::Result<()> {
        let topic = topic(index);
        let qos = QoS::AtLeastOnce;
        let template = Template::new(version, (&topic, false), qos, self.payload_bytes);
        let at_once = BURST.min(publisher.receive_max.into());
        for first in (0..self.messages).step_by(at_once) {
            let mut out = Vec::new();
            let burst = first..(first + at_once).min(self.messages);
            for sequence in burst.clone() {
                let stamp = Stamp {
                    publisher: 0,
                    sequence: sequence as u64,
                    due_ns: 0,
                };
                template.append(stamp, &mut out);
            }
            publisher.write_all(&out)?;
            // A broker that leaves Nagle's algorithm on holds all acknowledgements but the first
            // until we have acknowledged that one, which takes the system 40 ms otherwise. The
            // system forgets the option by itself.
            sockopt::set_tcp_quickack(publisher.tcp(), true)?;
            for _ in burst {
                client::receive(publisher, PUBACK).context("queueing")?;
            }
        }
        Ok(())
    }

    /// All connect; measured until all have everything.
    fn resume(&self, target: &Target, sample: &mut Sample) -> anyhow::Result<()> {
        let endpoint = target.for_subscribers();
        let mut poll = Poll::new()?;
        let clocks = Clocks::read(target)?;
        let mut sessions = Vec::new();
        for index in 0..self.sessions {
            sessions.push(Session::connect(endpoint, index, &poll)?);
        }
        let mut events = Events::with_capacity(EVENTS_MAX);
        let mut buffer = Vec::new();
        let (mut arrived, mut last) = (0, Instant::now());
        while arrived < self.sessions * self.messages && last.elapsed() < SILENCE {
            match poll.poll(&mut events, Some(WAIT_MAX)) {
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                other => other?,
            }
            for event in &events {
                let Token(index) = event.token();
                let count = sessions[index].read(&mut buffer)?;
                if count > 0 {
                    arrived += count;
                    last = Instant::now();
                }
            }
        }
        clocks.charge(target, arrived as u64, sample)?;
        for session in sessions {
            sample
                .faults
                .add(session.order.faults(self.messages as u64));
            client::disconnect(session.link.into_stream())?;
        }
        Ok(())
    }
}

fn id(index: usize) -> String {
    format!("bench-resume-{index}")
}

fn topic(index: usize) -> String {
    format!("bench/resume/{index}")
}

struct Session {
    version: Version,
    link: Link,
    order: Order,
}

impl Session {
    fn connect(endpoint: &Endpoint, index: usize, poll: &Poll) -> anyhow::Result<Self> {
        let mut stream = client::open(endpoint)?;
        let connect = client::connect_packet(&id(index), &endpoint.access, Keep::Session);
        stream.write_all(&connect)?;
        Ok(Self {
            version: endpoint.access.version(),
            link: Link::adopt(stream, poll.registry(), Token(index))?,
            order: Order::default(),
        })
    }

    /// Acknowledges what has come; how many messages that were.
    fn read(&mut self, buffer: &mut Vec<u8>) -> anyhow::Result<usize> {
        let mut count = 0;
        loop {
            let filled = self.link.fill(buffer)?;
            let mut at = 0;
            while let Some(frame) = Frame::first(&buffer[at..filled.len])? {
                at += frame.bytes.len();
                if frame.kind() == CONNACK {
                    let is_kept = frame.body().starts_with(&[1, 0]);
                    ensure!(is_kept, "the session is gone: {:?}", frame.body());
                    continue;
                }
                ensure!(frame.is_publish(), "a packet {:#x}", frame.kind());
                let publish = frame.publish(self.version)?;
                if let Some(id) = publish.packet_id {
                    acknowledge(PUBACK, id, &mut self.link.out);
                }
                let stamp = Stamp::read(publish.payload).context("a message without a stamp")?;
                self.order.see(stamp.sequence);
                count += 1;
            }
            ensure!(!filled.closed, "the broker closed a session");
            self.link.keep(&buffer[at..filled.len]);
            if !filled.more {
                break;
            }
        }
        self.link.flush().context("acknowledging")?;
        Ok(count)
    }
}
