//! Retained messages replayed to one subscriber of all of them, again and again.

use std::io::{Read, Write};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use dunlin_mqtt::{QoS, Version};

use crate::check::Faults;
use crate::client;
use crate::link::READ_BYTES;
use crate::progress::Progress;
use crate::sample::{Clocks, Sample};
use crate::stream::Stream;
use crate::target::Target;
use crate::wire::{self, Frame, PUBACK, PUBREC, PUBREL, SUBACK, Stamp, Template};

/// Retained messages written before their acknowledgements are read.
const STORE_BURST: usize = 1_000;
/// Nothing arrives for so long: the rest counts as lost.
const SILENCE: Duration = Duration::from_secs(3);

/// Between the last message stored and the look at the memory.
const SETTLE: Duration = Duration::from_secs(1);

/// A scenario of this kind.
#[derive(Clone, Debug)]
pub(crate) struct Retained {
    pub(crate) messages: usize,
    pub(crate) qos: QoS,
    pub(crate) payload_bytes: usize,
    /// Replays begin until so much time has gone into them.
    pub(crate) duration: Duration,
}

impl Retained {
    pub(crate) fn measure(
        &self,
        target: &Target,
        progress: &mut Progress,
    ) -> anyhow::Result<Sample> {
        let mut keeper = client::connect(target.for_publishers(), "bench-keeper")?;
        let memory_before = target.resident_bytes()?;
        let version = target.for_publishers().access.version();
        if let Err(error) = self.store(&mut keeper, version, progress) {
            self.clear(&mut keeper, version)?;
            return Err(error);
        }
        thread::sleep(SETTLE);
        let grown = target.resident_bytes()?.zip(memory_before);
        let mut sample = Sample {
            unit_bytes: grown
                .map(|(after, before)| (after as f64 - before as f64) / self.messages as f64),
            ..Sample::default()
        };
        while sample.seconds < self.duration.as_secs_f64() && !progress.is_stopped() {
            self.replay(target, &mut sample)?;
            progress.tick(Instant::now(), sample.units);
            if sample.faults != Faults::default() {
                break;
            }
        }
        self.clear(&mut keeper, version)?;
        client::disconnect(keeper)?;
        Ok(sample)
    }

    fn topic(index: usize) -> String {
        format!("bench/retained/{index:06}")
    }

    fn store(
        &self,
        keeper: &mut Stream,
        version: Version,
        progress: &mut Progress,
    ) -> anyhow::Result<()> {
        let mut out = Vec::new();
        let at_once = STORE_BURST.min(keeper.receive_max.into());
        for burst in (0..self.messages).step_by(at_once) {
            out.clear();
            let end = (burst + at_once).min(self.messages);
            for index in burst..end {
                let topic = Self::topic(index);
                let stamp = Stamp {
                    publisher: 0,
                    sequence: index as u64,
                    due_ns: 0,
                };
                let qos = QoS::AtLeastOnce;
                Template::new(version, (&topic, true), qos, self.payload_bytes)
                    .append(stamp, &mut out);
            }
            keeper.write_all(&out)?;
            for _ in burst..end {
                client::receive(keeper, PUBACK).context("storing")?;
            }
            ensure!(
                !progress.is_stopped(),
                "stopped before the messages were stored"
            );
            progress.tick(Instant::now(), end as u64);
        }
        Ok(())
    }

    fn clear(&self, keeper: &mut Stream, version: Version) -> anyhow::Result<()> {
        let mut out = Vec::new();
        for index in 0..self.messages {
            wire::clear_retained(version, &Self::topic(index), &mut out);
        }
        keeper.write_all(&out).context("clearing")
    }

    fn replay(&self, target: &Target, sample: &mut Sample) -> anyhow::Result<()> {
        let mut stream = client::connect(target.for_subscribers(), "bench-retained")?;
        stream.tcp().set_read_timeout(Some(SILENCE))?;
        let version = target.for_subscribers().access.version();
        let mut out = Vec::new();
        let filters = ["bench/retained/#".to_owned()];
        wire::subscribe((1, version), &filters, self.qos, &mut out);
        let clocks = Clocks::read(target)?;
        stream.write_all(&out)?;
        let mut seen = vec![false; self.messages];
        let received = self.read(&mut stream, version, (&mut seen, &mut sample.faults))?;
        clocks.charge(target, received as u64, sample)?;
        sample.faults.lost += (self.messages - received) as u64;
        client::disconnect(stream)
    }

    /// Reads until all have come; answers how many have. Retained messages have no order.
    fn read(
        &self,
        stream: &mut Stream,
        version: Version,
        (seen, faults): (&mut [bool], &mut Faults),
    ) -> anyhow::Result<usize> {
        let mut buffer = vec![0; 2 * READ_BYTES + self.payload_bytes];
        let (mut held, mut received) = (0, 0);
        let mut out = Vec::new();
        while received < self.messages {
            let Ok(count) = stream.read(&mut buffer[held..]) else {
                break;
            };
            ensure!(count > 0, "the broker closed the connection");
            let len = held + count;
            let mut at = 0;
            while let Some(frame) = Frame::first(&buffer[at..len])? {
                at += frame.bytes.len();
                match take(frame, version, seen, &mut out)? {
                    Took::New => received += 1,
                    Took::Again => faults.duplicated += 1,
                    Took::Other => {}
                }
            }
            buffer.copy_within(at..len, 0);
            held = len - at;
            if !out.is_empty() {
                stream.write_all(&out)?;
                out.clear();
            }
        }
        Ok(received)
    }
}

enum Took {
    New,
    Again,
    Other,
}

fn take(
    frame: Frame<'_>,
    version: Version,
    seen: &mut [bool],
    out: &mut Vec<u8>,
) -> anyhow::Result<Took> {
    if frame.kind() == PUBREL {
        wire::acknowledge(wire::PUBCOMP, frame.packet_id()?, out);
        return Ok(Took::Other);
    }
    if frame.kind() == SUBACK {
        return Ok(Took::Other);
    }
    ensure!(frame.is_publish(), "a packet {:#x}", frame.kind());
    let publish = frame.publish(version)?;
    if let Some(packet_id) = publish.packet_id {
        let is_qos2 = frame.kind() & 0b110 == 0b100;
        let answer = if is_qos2 { PUBREC } else { PUBACK };
        wire::acknowledge(answer, packet_id, out);
    }
    let stamp = Stamp::read(publish.payload).context("a message without a stamp")?;
    let slot = seen
        .get_mut(stamp.sequence as usize)
        .context("a message that was not stored")?;
    let was_seen = std::mem::replace(slot, true);
    Ok(if was_seen { Took::Again } else { Took::New })
}
