//! Subscribers alone: what others publish, counted.

use std::io::ErrorKind;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use dunlin_mqtt::{QoS, Version};
use mio::{Events, Poll, Token};

use crate::client;
use crate::link::Link;
use crate::progress::Progress;
use crate::sample::{Clocks, Sample};
use crate::target::Target;
use crate::wire::{Frame, PUBACK, PUBCOMP, PUBREC, PUBREL, acknowledge};

const EVENTS_MAX: usize = 1_024;
const WAIT_MAX: Duration = Duration::from_millis(50);

/// A scenario of this kind.
#[derive(Clone, Debug)]
pub(crate) struct Sub {
    pub(crate) subscribers: usize,
    pub(crate) filter: String,
    pub(crate) qos: QoS,
    pub(crate) duration: Duration,
}

impl Sub {
    pub(crate) fn measure(
        &self,
        target: &Target,
        progress: &mut Progress,
    ) -> anyhow::Result<Sample> {
        let mut poll = Poll::new()?;
        let mut links = Vec::new();
        let version = target.for_subscribers().access.version();
        for index in 0..self.subscribers {
            let id = format!("bench-subscriber-{index}");
            let mut stream = client::connect(target.for_subscribers(), &id)?;
            let filters = std::slice::from_ref(&self.filter);
            let access = &target.for_subscribers().access;
            client::subscribe(&mut stream, access, filters, self.qos)?;
            links.push(Link::adopt(stream, poll.registry(), Token(index))?);
        }
        let mut events = Events::with_capacity(EVENTS_MAX);
        let mut buffer = Vec::new();
        let mut sample = Sample::default();
        let (clocks, start, mut count) = (Clocks::read(target)?, Instant::now(), 0);
        while start.elapsed() < self.duration && !progress.is_stopped() {
            match poll.poll(&mut events, Some(WAIT_MAX)) {
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                other => other?,
            }
            for event in &events {
                let Token(index) = event.token();
                count += read(&mut links[index], version, &mut buffer)?;
            }
            progress.tick(Instant::now(), count);
        }
        clocks.charge(target, count, &mut sample)?;
        for link in links {
            client::disconnect(link.into_stream())?;
        }
        Ok(sample)
    }
}

/// Acknowledges what has come; how many messages that were.
fn read(link: &mut Link, version: Version, buffer: &mut Vec<u8>) -> anyhow::Result<u64> {
    let mut count = 0;
    loop {
        let filled = link.fill(buffer)?;
        let mut at = 0;
        while let Some(frame) = Frame::first(&buffer[at..filled.len])? {
            at += frame.bytes.len();
            if frame.kind() == PUBREL {
                acknowledge(PUBCOMP, frame.packet_id()?, &mut link.out);
                continue;
            }
            ensure!(frame.is_publish(), "a packet {:#x}", frame.kind());
            count += 1;
            if let Some(id) = frame.publish(version)?.packet_id {
                let is_qos2 = frame.kind() & 0b110 == 0b100;
                let answer = if is_qos2 { PUBREC } else { PUBACK };
                acknowledge(answer, id, &mut link.out);
            }
        }
        ensure!(!filled.closed, "the broker closed a subscriber");
        link.keep(&buffer[at..filled.len]);
        if !filled.more {
            break;
        }
    }
    link.flush().context("acknowledging")?;
    Ok(count)
}
