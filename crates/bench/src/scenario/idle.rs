//! Connections that do nothing, each with one subscription, and the memory each takes.

use std::thread;
use std::time::{Duration, Instant};

use dunlin_mqtt::QoS;

use crate::client;
use crate::progress::Progress;
use crate::sample::{Clocks, Sample};
use crate::target::Target;

/// Between the last connection and the look at the memory: brokers give buffers back late.
const SETTLE: Duration = Duration::from_secs(1);

/// A scenario of this kind.
#[derive(Clone, Debug)]
pub(crate) struct Idle {
    pub(crate) connections: usize,
}

impl Idle {
    pub(crate) fn measure(
        &self,
        target: &Target,
        progress: &mut Progress,
    ) -> anyhow::Result<Sample> {
        let mut sample = Sample::default();
        let memory_before = target.resident_bytes()?;
        let clocks = Clocks::read(target)?;
        let mut streams = Vec::with_capacity(self.connections);
        for index in 0..self.connections {
            let address = target.for_subscribers();
            let mut stream = client::connect(address, &format!("bench-idle-{index}"))?;
            let filters = [format!("bench/idle/{index}")];
            client::subscribe(&mut stream, &filters, QoS::AtMostOnce)?;
            streams.push(stream);
            progress.tick(Instant::now(), index as u64);
        }
        clocks.charge(target, self.connections as u64, &mut sample)?;
        thread::sleep(SETTLE);
        let grown = target.resident_bytes()?.zip(memory_before);
        sample.unit_bytes = grown
            .map(|(after, before)| (after as f64 - before as f64) / self.connections.max(1) as f64);
        for stream in streams {
            client::disconnect(stream)?;
        }
        Ok(sample)
    }
}
