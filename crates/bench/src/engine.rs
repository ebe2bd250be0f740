//! Drives the publishers and subscribers of a [`Flow`] from one thread.
//!
//! One thread, because a generator with as many threads as the machine has cores would take them
//! from the broker. It never blocks on one connection, and it does as little per message as it can:
//! a copy to send, a look at the stamp to receive.

use std::collections::VecDeque;
use std::io;
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use dunlin_mqtt::{QoS, Version};
use mio::{Events, Poll, Token};

use crate::check::Checker;
use crate::client;
use crate::latency::Latencies;
use crate::link::Link;
use crate::progress::Progress;
use crate::sample::{Clocks, Sample};
use crate::scenario::flow::{Flow, Pace};
use crate::target::{Endpoint, Target};
use crate::wire::{Frame, PUBACK, PUBCOMP, PUBREC, PUBREL, Stamp, Template, acknowledge};

const EVENTS_MAX: usize = 1_024;
/// Nothing arrives for so long: what is under way counts as lost.
const SILENCE: Duration = Duration::from_secs(5);
/// Wake-ups without events, so that the live line and the end are not missed.
const WAIT_MAX: Duration = Duration::from_millis(50);
/// The poll counts whole milliseconds and rounds up; closer dues are waited for by polling without
/// pause.
const WAIT_MIN: Duration = Duration::from_millis(2);
/// Before the measured time, for caches, allocators and congestion windows.
const WARM_UP_MAX: Duration = Duration::from_millis(500);
/// Messages under way in an open loop; more, and the target cannot keep the rate. Below 65,535,
/// so that packet ids do not meet again.
const OPEN_UNDER_WAY_MAX: u64 = 50_000;

struct Publisher {
    link: Link,
    /// One per topic, used in turn.
    templates: Vec<Template>,
    sent: u64,
    /// Messages whose acknowledgement is complete; equals `sent` at `QoS` 0.
    acked: u64,
    /// Deliveries at all receivers.
    delivered: u64,
    /// Messages above `QoS` 0 that the broker takes before it has acknowledged one.
    receive_max: u64,
    /// Packet id and due time of what is not acknowledged, where that is what is timed.
    waiting: VecDeque<(u16, u64)>,
}

impl Publisher {
    /// Messages both acknowledged and delivered to all `fan` receivers; with none, it is enough
    /// that they have left.
    fn done(&self, fan: u64) -> u64 {
        match self.delivered.checked_div(fan) {
            Some(delivered) => self.acked.min(delivered),
            None if self.link.unwritten_bytes() > 0 => 0,
            None => self.acked,
        }
    }

    /// When the message with this id was due; brokers acknowledge in order, or nearly so.
    fn acknowledged(&mut self, packet_id: u16) -> Option<u64> {
        let at = self.waiting.iter().position(|(id, _)| *id == packet_id)?;
        self.waiting.remove(at).map(|(_, due_ns)| due_ns)
    }

    fn append(&mut self, publisher: usize, due_ns: u64) {
        let template = &self.templates[(self.sent % self.templates.len() as u64) as usize];
        let stamp = Stamp {
            publisher: publisher as u32,
            sequence: self.sent,
            due_ns,
        };
        template.append(stamp, &mut self.link.out);
        self.sent += 1;
    }
}

/// One run of a flow against one target.
pub(crate) struct Engine<'a> {
    flow: &'a Flow,
    version: Version,
    poll: Poll,
    publishers: Vec<Publisher>,
    subscribers: Vec<Link>,
    checker: Checker,
    latencies: Latencies,
    buffer: Vec<u8>,
    start: Instant,
    /// Latencies count from this due time on, nanoseconds since the start.
    measured_ns: u64,
    last_arrival: Instant,
    delivered: u64,
    /// Without subscribers: what the last arrival was seen by.
    acknowledged: u64,
    /// Messages of the open loop sent so far.
    paced: u64,
}

impl<'a> Engine<'a> {
    /// Connects everybody; subscribers first.
    pub(crate) fn connect(flow: &'a Flow, target: &Target) -> anyhow::Result<Self> {
        let poll = Poll::new()?;
        let mut subscribers = Vec::new();
        for index in 0..flow.subscribers {
            let id = format!("bench-subscriber-{index}");
            let mut stream = client::connect(target.for_subscriber(index), &id)?;
            let access = &target.for_subscriber(index).access;
            client::subscribe(&mut stream, access, &[flow.filter(index)], flow.qos)?;
            let token = Token(flow.publishers + index);
            subscribers.push(Link::adopt(stream, poll.registry(), token)?);
        }
        let mut publishers = Vec::new();
        for index in 0..flow.publishers {
            publishers.push(publisher(flow, target.for_publishers(), index, &poll)?);
        }
        let now = Instant::now();
        Ok(Self {
            flow,
            version: target.for_publishers().access.version(),
            poll,
            publishers,
            subscribers,
            checker: Checker::new(flow.spread, flow.publishers, flow.subscribers),
            latencies: Latencies::new(),
            buffer: Vec::new(),
            start: now,
            measured_ns: u64::MAX,
            last_arrival: now,
            delivered: 0,
            acknowledged: 0,
            paced: 0,
        })
    }

    /// Warms up, measures, waits for what is under way, and judges.
    pub(crate) fn run(
        mut self,
        target: &Target,
        progress: &mut Progress,
    ) -> anyhow::Result<Sample> {
        let mut sample = Sample::default();
        self.start = Instant::now();
        self.last_arrival = self.start;
        let begin = self.start + (self.flow.duration / 5).min(WARM_UP_MAX);
        self.send_until(begin, progress)?;
        self.measured_ns = (begin - self.start).as_nanos() as u64;
        let clocks = Clocks::read(target)?;
        let before = self.units();
        let mut end = begin + self.flow.duration;
        self.send_until(end, progress)?;
        // A figure needs a message, however short the run and busy the machine.
        while self.units() == before && end - self.last_arrival < SILENCE && !progress.is_stopped()
        {
            end = Instant::now() + WAIT_MAX;
            self.send_until(end, progress)?;
        }
        clocks.charge(target, self.units() - before, &mut sample)?;
        self.drain(progress)?;
        let sent: Vec<u64> = self.publishers.iter().map(|each| each.sent).collect();
        sample.faults = self.checker.faults(&sent);
        if let Pace::Open { .. } = self.flow.pace {
            sample.latency = self.latencies.quantiles();
        }
        self.close()?;
        Ok(sample)
    }

    /// Ends all connections, so that no message of the next run goes to a receiver of this one.
    fn close(self) -> anyhow::Result<()> {
        let publishers = self.publishers.into_iter().map(|each| each.link);
        for link in publishers.chain(self.subscribers) {
            client::disconnect(link.into_stream())?;
        }
        Ok(())
    }

    fn send_until(&mut self, end: Instant, progress: &mut Progress) -> anyhow::Result<()> {
        loop {
            let now = Instant::now();
            if now >= end || now - self.last_arrival > SILENCE || progress.is_stopped() {
                if let Pace::Open { per_second } = self.flow.pace {
                    // What was due and could not be sent is as late as what was sent late.
                    self.send_due(end.min(now), per_second)?;
                }
                return Ok(());
            }
            progress.tick(now, self.units());
            let wait = match self.flow.pace {
                Pace::Closed { window } => self.send_window(window)?,
                Pace::Open { per_second } => self.send_due(now, per_second)?,
            };
            self.receive(wait.min(end - now))?;
            if self.flow.fan() == 0 && self.units() > self.acknowledged {
                self.acknowledged = self.units();
                self.last_arrival = now;
            }
        }
    }

    fn drain(&mut self, progress: &mut Progress) -> anyhow::Result<()> {
        loop {
            let now = Instant::now();
            if self.under_way() == 0 || now - self.last_arrival > SILENCE {
                return Ok(());
            }
            progress.tick(now, self.units());
            self.receive(WAIT_MAX)?;
        }
    }

    /// What the run counts: deliveries, or acknowledged messages if nobody subscribes.
    fn units(&self) -> u64 {
        match self.flow.fan() {
            0 => self.publishers.iter().map(|each| each.acked).sum(),
            _ => self.delivered,
        }
    }

    /// Messages sent, and not yet both delivered to everybody and acknowledged.
    fn under_way(&self) -> u64 {
        let fan = self.flow.fan();
        self.publishers
            .iter()
            .map(|each| each.sent.saturating_sub(each.done(fan)))
            .sum()
    }

    /// Refills every window that is at least half empty: then bursts are of the same size for a
    /// quick broker and a slow one, where a full refill would settle at bursts of one message.
    fn send_window(&mut self, window: u64) -> anyhow::Result<Duration> {
        let fan = self.flow.fan();
        for (index, publisher) in self.publishers.iter_mut().enumerate() {
            let window = window.min(publisher.receive_max);
            let under_way = publisher.sent.saturating_sub(publisher.done(fan));
            let room = window.saturating_sub(under_way);
            if room < window.div_ceil(2) {
                continue;
            }
            for _ in 0..room {
                publisher.append(index, 0);
            }
            flush(publisher, self.flow.qos)?;
        }
        // Nothing will arrive that could wake us: the next window goes as soon as this one has.
        let free = |each: &Publisher| each.link.unwritten_bytes() == 0;
        let is_silent = fan == 0 && self.flow.qos == QoS::AtMostOnce;
        Ok(if is_silent && self.publishers.iter().any(free) {
            Duration::ZERO
        } else {
            WAIT_MAX
        })
    }

    /// Sends whatever is due, then answers how long nothing will be.
    fn send_due(&mut self, now: Instant, per_second: u64) -> anyhow::Result<Duration> {
        let due = |index: u64| Duration::from_nanos((index * 1_000_000_000) / per_second);
        let elapsed = now - self.start;
        let first = self.paced;
        while due(self.paced) < elapsed {
            let index = (self.paced % self.publishers.len() as u64) as usize;
            let due_ns = due(self.paced).as_nanos() as u64;
            let publisher = &mut self.publishers[index];
            ensure!(
                publisher.sent - publisher.acked < publisher.receive_max,
                "the target takes {} unacknowledged messages of a client (its Receive Maximum) \
                 and does not keep up with {per_second} messages/s",
                publisher.receive_max
            );
            if self.flow.times_acknowledgements() {
                let packet_id = Template::packet_id(publisher.sent);
                publisher.waiting.push_back((packet_id, due_ns));
            }
            publisher.append(index, due_ns);
            self.paced += 1;
        }
        if self.paced > first {
            ensure!(
                self.under_way() <= OPEN_UNDER_WAY_MAX,
                "the target does not keep up with {per_second} messages/s"
            );
            for publisher in &mut self.publishers {
                if publisher.link.unwritten_bytes() > 0 {
                    flush(publisher, self.flow.qos)?;
                }
            }
        }
        let wait = due(self.paced).saturating_sub(elapsed);
        Ok(wait.checked_sub(WAIT_MIN).unwrap_or_default())
    }

    fn receive(&mut self, wait: Duration) -> anyhow::Result<()> {
        let mut events = Events::with_capacity(EVENTS_MAX);
        match self.poll.poll(&mut events, Some(wait)) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => return Ok(()),
            other => other?,
        }
        if events.is_empty() {
            return Ok(());
        }
        let now = Instant::now();
        let now_ns = (now - self.start).as_nanos() as u64;
        let before = self.delivered;
        for event in &events {
            let Token(index) = event.token();
            match index.checked_sub(self.publishers.len()) {
                None => self.publisher_ready(index, now_ns)?,
                Some(index) => self.subscriber_ready(index, now_ns)?,
            }
        }
        if self.delivered > before {
            self.last_arrival = now;
        }
        Ok(())
    }

    fn publisher_ready(&mut self, index: usize, now_ns: u64) -> anyhow::Result<()> {
        let is_timed = self.flow.times_acknowledgements();
        let publisher = &mut self.publishers[index];
        loop {
            let filled = publisher.link.fill(&mut self.buffer)?;
            let mut at = 0;
            while let Some(frame) = Frame::first(&self.buffer[at..filled.len])? {
                if let Some(reason) = frame.refusal() {
                    bail!("publisher {index}: a message was refused with {reason:#x}");
                }
                match frame.kind() {
                    PUBACK | PUBCOMP if is_timed => {
                        publisher.acked += 1;
                        let due_ns = publisher.acknowledged(frame.packet_id()?);
                        let due_ns = due_ns.context("an acknowledgement of nothing")?;
                        if due_ns >= self.measured_ns {
                            self.latencies.record(due_ns, now_ns);
                        }
                    }
                    PUBACK | PUBCOMP => publisher.acked += 1,
                    PUBREC => {
                        acknowledge(PUBREL, frame.packet_id()?, &mut publisher.link.out);
                    }
                    other => bail!("publisher {index} received a packet {other:#x}"),
                }
                at += frame.bytes.len();
            }
            ensure!(!filled.closed, "the broker closed publisher {index}");
            publisher.link.keep(&self.buffer[at..filled.len]);
            if !filled.more {
                break;
            }
        }
        publisher.link.flush().context("writing")
    }

    fn subscriber_ready(&mut self, index: usize, now_ns: u64) -> anyhow::Result<()> {
        let link = &mut self.subscribers[index];
        let answer = if self.flow.qos == QoS::ExactlyOnce {
            PUBREC
        } else {
            PUBACK
        };
        let is_open = matches!(self.flow.pace, Pace::Open { .. });
        loop {
            let filled = link.fill(&mut self.buffer)?;
            let mut at = 0;
            while let Some(frame) = Frame::first(&self.buffer[at..filled.len])? {
                at += frame.bytes.len();
                if frame.kind() == PUBREL {
                    acknowledge(PUBCOMP, frame.packet_id()?, &mut link.out);
                    continue;
                }
                ensure!(
                    frame.is_publish(),
                    "subscriber {index}: {:#x}",
                    frame.kind()
                );
                let publish = frame.publish(self.version)?;
                if let Some(packet_id) = publish.packet_id {
                    acknowledge(answer, packet_id, &mut link.out);
                }
                let stamp = Stamp::read(publish.payload).context("a message without a stamp")?;
                let publisher = stamp.publisher as usize;
                if self.checker.see(index, publisher, stamp.sequence) {
                    self.publishers[publisher].delivered += 1;
                    self.delivered += 1;
                    if is_open && stamp.due_ns >= self.measured_ns {
                        self.latencies.record(stamp.due_ns, now_ns);
                    }
                }
            }
            ensure!(!filled.closed, "the broker closed subscriber {index}");
            link.keep(&self.buffer[at..filled.len]);
            if !filled.more {
                break;
            }
        }
        link.flush().context("writing")
    }
}

fn publisher(
    flow: &Flow,
    endpoint: &Endpoint,
    index: usize,
    poll: &Poll,
) -> anyhow::Result<Publisher> {
    let stream = client::connect(endpoint, &format!("bench-publisher-{index}"))?;
    let receive_max = match flow.qos {
        QoS::AtMostOnce => u64::MAX,
        QoS::AtLeastOnce | QoS::ExactlyOnce => stream.receive_max.into(),
    };
    let version = endpoint.access.version();
    let template =
        |topic: &String| Template::new(version, (topic, false), flow.qos, flow.payload_bytes);
    Ok(Publisher {
        link: Link::adopt(stream, poll.registry(), Token(index))?,
        templates: flow.topics(index).iter().map(template).collect(),
        sent: 0,
        acked: 0,
        delivered: 0,
        receive_max,
        waiting: VecDeque::new(),
    })
}

fn flush(publisher: &mut Publisher, qos: QoS) -> anyhow::Result<()> {
    if qos == QoS::AtMostOnce {
        publisher.acked = publisher.sent;
    }
    publisher.link.flush().context("publishing")
}
