//! A client that appears again and again on a new connection, in a cluster on the other node, with
//! messages under way: how long until it has the first of them, and whether it gets all, once.
//!
//! The old connection has been sent the messages and acknowledges none, so the broker owes them to
//! the new one.

use std::io::Write;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use dunlin_mqtt::{QoS, Version};

use crate::client::{self, Keep};
use crate::latency::Latencies;
use crate::progress::Progress;
use crate::sample::{Clocks, Sample};
use crate::stream::Stream;
use crate::target::{Endpoint, Target};
use crate::wire::{
    Frame, PUBACK, PUBCOMP, PUBREC, PUBREL, PublishView, Stamp, Template, acknowledge,
};

const CLIENT: &str = "bench-takeover";
const TOPIC: &str = "bench/takeover";
/// Nothing arrives for so long: the rest counts as lost.
const SILENCE: Duration = Duration::from_secs(3);
/// After the last message, so long for one that comes twice.
const AFTER: Duration = Duration::from_millis(2);

/// A scenario of this kind.
#[derive(Clone, Debug)]
pub(crate) struct Takeover {
    /// At each takeover.
    pub(crate) messages: usize,
    pub(crate) qos: QoS,
    pub(crate) payload_bytes: usize,
    pub(crate) duration: Duration,
}

impl Takeover {
    pub(crate) fn measure(
        &self,
        target: &Target,
        progress: &mut Progress,
    ) -> anyhow::Result<Sample> {
        let places = [target.for_publishers(), target.for_subscribers()];
        let mut sample = Sample::default();
        let mut latencies = Latencies::new();
        // Whatever an earlier run has left of the session ends here.
        client::disconnect(client::connect(places[0], CLIENT)?)?;
        let mut old = client::connect_and(places[0], CLIENT, Keep::Session)?;
        client::subscribe(&mut old, &places[0].access, &[TOPIC.to_owned()], self.qos)?;
        let mut publisher = client::connect(places[0], "bench-publisher")?;
        let version = places[0].access.version();
        let clocks = Clocks::read(target)?;
        let (start, mut turns) = (Instant::now(), 0);
        while start.elapsed() < self.duration && !progress.is_stopped() {
            self.publish(&mut publisher, version, turns)?;
            let place = places[(turns as usize + 1) % 2];
            old = self.take(place, old, turns, (&mut latencies, &mut sample))?;
            turns += 1;
            progress.tick(Instant::now(), turns);
        }
        clocks.charge(target, turns, &mut sample)?;
        sample.latency = latencies.quantiles();
        client::disconnect(old)?;
        client::disconnect(client::connect(places[0], CLIENT)?)?;
        client::disconnect(publisher)?;
        Ok(sample)
    }

    /// Publishes, and waits until the broker has acknowledged all.
    fn publish(&self, publisher: &mut Stream, version: Version, turn: u64) -> anyhow::Result<()> {
        ensure!(
            self.messages <= publisher.receive_max.into(),
            "the target takes {} messages at once, its Receive Maximum; give a smaller --count",
            publisher.receive_max
        );
        let template = Template::new(version, (TOPIC, false), self.qos, self.payload_bytes);
        let mut out = Vec::new();
        for sequence in 0..self.messages as u64 {
            let stamp = Stamp {
                publisher: turn as u32,
                sequence,
                due_ns: 0,
            };
            template.append(stamp, &mut out);
        }
        publisher.write_all(&out)?;
        let first = if self.qos == QoS::AtLeastOnce {
            PUBACK
        } else {
            PUBREC
        };
        out.clear();
        for _ in 0..self.messages {
            let body = client::receive(publisher, first).context("publishing")?;
            out.extend_from_slice(&[PUBREL, 2]);
            out.extend_from_slice(&body[..2]);
        }
        if first == PUBREC {
            publisher.write_all(&out)?;
            for _ in 0..self.messages {
                client::receive(publisher, PUBCOMP).context("publishing")?;
            }
        }
        Ok(())
    }

    /// Connects anew and receives what is owed.
    fn take(
        &self,
        place: &Endpoint,
        old: Stream,
        turn: u64,
        (latencies, sample): (&mut Latencies, &mut Sample),
    ) -> anyhow::Result<Stream> {
        let mut stream = client::open(place)?;
        stream.tcp().set_read_timeout(Some(SILENCE))?;
        let connect = client::connect_packet(CLIENT, &place.access, Keep::Session);
        let begin = Instant::now();
        stream.write_all(&connect)?;
        client::welcome(&mut stream, place)?;
        let mut seen = vec![false; self.messages];
        let (mut arrived, mut released) = (0, 0);
        let wanted_releases = if self.qos == QoS::ExactlyOnce {
            self.messages
        } else {
            0
        };
        let mut next = 0;
        while arrived < self.messages || released < wanted_releases {
            let Ok(packet) = client::next(&mut stream) else {
                break;
            };
            let frame = Frame::first(&packet)?.context("a whole packet")?;
            if frame.kind() == PUBREL {
                released += 1;
                send(&mut stream, PUBCOMP, frame.packet_id()?)?;
                continue;
            }
            if arrived == 0 {
                latencies.record(0, begin.elapsed().as_nanos() as u64);
            }
            let publish = frame.publish(place.access.version())?;
            let sequence = self.message(publish, turn, &mut stream)?;
            match sequence.and_then(|sequence| seen.get_mut(sequence)) {
                Some(slot) if !*slot => {
                    *slot = true;
                    arrived += 1;
                }
                _ => sample.faults.duplicated += 1,
            }
            if let Some(sequence) = sequence {
                sample.faults.reordered += u64::from(sequence < next);
                next = sequence + 1;
            }
        }
        sample.faults.lost += (self.messages - arrived) as u64;
        stream.tcp().set_read_timeout(Some(AFTER))?;
        while client::next(&mut stream).is_ok() {
            sample.faults.duplicated += 1;
        }
        stream.tcp().set_read_timeout(Some(SILENCE))?;
        // The broker has closed the old one, or does now.
        drop(old);
        Ok(stream)
    }

    /// Acknowledges a message; its number, if it is of this turn.
    fn message(
        &self,
        publish: PublishView<'_>,
        turn: u64,
        stream: &mut Stream,
    ) -> anyhow::Result<Option<usize>> {
        if let Some(id) = publish.packet_id {
            let answer = if self.qos == QoS::ExactlyOnce {
                PUBREC
            } else {
                PUBACK
            };
            send(stream, answer, id)?;
        }
        let stamp = Stamp::read(publish.payload).context("a message without a stamp")?;
        Ok((stamp.publisher == turn as u32).then_some(stamp.sequence as usize))
    }
}

fn send(stream: &mut Stream, kind: u8, packet_id: u16) -> anyhow::Result<()> {
    let mut out = Vec::new();
    acknowledge(kind, packet_id, &mut out);
    stream.write_all(&out).context("acknowledging")
}
