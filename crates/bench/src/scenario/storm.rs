//! A storm of subscriptions, all with different filters, and the memory each takes.

use std::io;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use dunlin_mqtt::{QoS, Version};
use mio::{Events, Poll, Token};

use crate::client;
use crate::link::Link;
use crate::progress::Progress;
use crate::sample::{Clocks, Sample};
use crate::target::Target;
use crate::wire::{self, Frame, GRANTED_MAX, SUBACK, SUBSCRIBE_FILTERS};

const EVENTS_MAX: usize = 1_024;
/// SUBSCRIBE packets of one client under way.
const WINDOW: usize = 4;
/// Nothing is answered for so long: the rest counts as lost.
const SILENCE: Duration = Duration::from_secs(10);
const WAIT_MAX: Duration = Duration::from_millis(50);

/// A scenario of this kind.
#[derive(Clone, Debug)]
pub(crate) struct Storm {
    pub(crate) filters: usize,
    pub(crate) clients: usize,
    pub(crate) qos: QoS,
    /// Whose memory is charged.
    pub(crate) memory: Memory,
}

/// Where the memory of a filter is looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Memory {
    /// On the node of its subscriber.
    Subscription,
    /// On the target's first node, for which it is a route to the last.
    Route,
}

/// Routes are told to other nodes a little later than their subscribers.
const SETTLE: Duration = Duration::from_secs(2);

struct Subscriber {
    link: Link,
    version: Version,
    share: usize,
    asked: usize,
    answered: usize,
    refused: usize,
}

impl Storm {
    pub(crate) fn measure(
        &self,
        target: &Target,
        progress: &mut Progress,
    ) -> anyhow::Result<Sample> {
        let mut poll = Poll::new()?;
        let mut subscribers = self.connect(target, &poll)?;
        let mut sample = Sample::default();
        let charged = match self.memory {
            Memory::Subscription => target.for_subscribers(),
            Memory::Route => target.for_publishers(),
        };
        let memory_before = charged.resident_bytes()?;
        let clocks = Clocks::read(target)?;
        self.subscribe(&mut poll, &mut subscribers, progress)?;
        let answered: usize = subscribers.iter().map(|each| each.answered).sum();
        clocks.charge(target, answered as u64, &mut sample)?;
        if self.memory == Memory::Route {
            thread::sleep(SETTLE);
        }
        let grown = charged.resident_bytes()?.zip(memory_before);
        sample.unit_bytes =
            grown.map(|(after, before)| (after as f64 - before as f64) / answered.max(1) as f64);
        let refused: usize = subscribers.iter().map(|each| each.refused).sum();
        let asked: usize = subscribers.iter().map(|each| each.asked).sum();
        // What was not asked any more, after Ctrl-C, is not lost.
        sample.faults.lost = (asked - answered + refused) as u64;
        if progress.is_stopped() {
            sample.faults.lost = refused as u64;
        }
        for subscriber in subscribers {
            client::disconnect(subscriber.link.into_stream())?;
        }
        Ok(sample)
    }

    fn connect(&self, target: &Target, poll: &Poll) -> anyhow::Result<Vec<Subscriber>> {
        let mut subscribers = Vec::new();
        for index in 0..self.clients {
            let id = format!("bench-storm-{index}");
            let stream = client::connect(target.for_subscribers(), &id)?;
            let link = Link::adopt(stream, poll.registry(), Token(index))?;
            let share =
                self.filters * (index + 1) / self.clients - self.filters * index / self.clients;
            subscribers.push(Subscriber {
                link,
                version: target.for_subscribers().access.version(),
                share,
                asked: 0,
                answered: 0,
                refused: 0,
            });
        }
        Ok(subscribers)
    }

    fn subscribe(
        &self,
        poll: &mut Poll,
        subscribers: &mut [Subscriber],
        progress: &mut Progress,
    ) -> anyhow::Result<()> {
        let mut events = Events::with_capacity(EVENTS_MAX);
        let mut buffer = Vec::new();
        let mut answered = 0;
        let mut last = Instant::now();
        for (index, subscriber) in subscribers.iter_mut().enumerate() {
            subscriber.ask(index, self.qos)?;
        }
        while answered < self.filters && last.elapsed() < SILENCE && !progress.is_stopped() {
            match poll.poll(&mut events, Some(WAIT_MAX)) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                other => other?,
            }
            let now = Instant::now();
            for event in &events {
                let Token(index) = event.token();
                let subscriber = &mut subscribers[index];
                let before = subscriber.answered;
                subscriber.read(&mut buffer)?;
                subscriber.ask(index, self.qos)?;
                if subscriber.answered > before {
                    answered += subscriber.answered - before;
                    last = now;
                }
            }
            progress.tick(now, answered as u64);
        }
        Ok(())
    }
}

impl Subscriber {
    /// Fills the window.
    fn ask(&mut self, client: usize, qos: QoS) -> anyhow::Result<()> {
        while self.asked < self.share && self.asked - self.answered < WINDOW * SUBSCRIBE_FILTERS {
            let end = (self.asked + SUBSCRIBE_FILTERS).min(self.share);
            let filters: Vec<String> = (self.asked..end)
                .map(|index| format!("bench/storm/{client}/{index}/state"))
                .collect();
            let packet_id = ((end / SUBSCRIBE_FILTERS) % 65_535 + 1) as u16;
            let out = &mut self.link.out;
            wire::subscribe((packet_id, self.version), &filters, qos, out);
            self.asked = end;
        }
        self.link.flush().context("subscribing")
    }

    fn read(&mut self, buffer: &mut Vec<u8>) -> anyhow::Result<()> {
        loop {
            let filled = self.link.fill(buffer)?;
            let mut at = 0;
            while let Some(frame) = Frame::first(&buffer[at..filled.len])? {
                at += frame.bytes.len();
                ensure!(frame.kind() == SUBACK, "a packet {:#x}", frame.kind());
                let codes = wire::codes(frame.body(), self.version)?;
                self.answered += codes.len();
                self.refused += codes.iter().filter(|&&code| code > GRANTED_MAX).count();
            }
            ensure!(!filled.closed, "the broker closed the connection");
            self.link.keep(&buffer[at..filled.len]);
            if !filled.more {
                return Ok(());
            }
        }
    }
}
