//! Clients that do nothing, each with one subscription, and the memory each takes: connected, or
//! away with their sessions kept.

use std::thread;
use std::time::{Duration, Instant};

use dunlin_mqtt::QoS;

use crate::client::{self, Keep};
use crate::progress::Progress;
use crate::sample::{Clocks, Sample};
use crate::stream::Stream;
use crate::target::{Endpoint, Target};

/// Between the last client and the look at the memory: brokers give buffers back late.
const SETTLE: Duration = Duration::from_secs(1);

/// A scenario of this kind.
#[derive(Clone, Debug)]
pub(crate) struct Idle {
    pub(crate) clients: usize,
    pub(crate) are: Are,
}

/// What the clients are while memory is looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Are {
    Connected,
    Away,
}

impl Idle {
    pub(crate) fn measure(
        &self,
        target: &Target,
        progress: &mut Progress,
    ) -> anyhow::Result<Sample> {
        let mut sample = Sample::default();
        let endpoint = target.for_subscribers();
        let memory_before = target.resident_bytes()?;
        let clocks = Clocks::read(target)?;
        let mut streams = Vec::with_capacity(self.clients);
        let mut count = 0;
        while count < self.clients && !progress.is_stopped() {
            let stream = self.client(endpoint, count)?;
            match self.are {
                Are::Connected => streams.push(stream),
                Are::Away => client::disconnect(stream)?,
            }
            count += 1;
            progress.tick(Instant::now(), count as u64);
        }
        clocks.charge(target, count as u64, &mut sample)?;
        thread::sleep(SETTLE);
        let grown = target.resident_bytes()?.zip(memory_before);
        sample.unit_bytes =
            grown.map(|(after, before)| (after as f64 - before as f64) / count.max(1) as f64);
        for stream in streams {
            client::disconnect(stream)?;
        }
        if self.are == Are::Away {
            for index in 0..count {
                // A clean start ends the session that was kept.
                client::disconnect(client::connect(endpoint, &self.id(index))?)?;
            }
        }
        Ok(sample)
    }

    fn id(&self, index: usize) -> String {
        match self.are {
            Are::Connected => format!("bench-idle-{index}"),
            Are::Away => format!("bench-session-{index}"),
        }
    }

    fn client(&self, endpoint: &Endpoint, index: usize) -> anyhow::Result<Stream> {
        let (keep, qos) = match self.are {
            Are::Connected => (Keep::Nothing, QoS::AtMostOnce),
            Are::Away => (Keep::Session, QoS::AtLeastOnce),
        };
        let mut stream = client::connect_and(endpoint, &self.id(index), keep)?;
        let filters = [format!("bench/idle/{index}")];
        client::subscribe(&mut stream, &endpoint.access, &filters, qos)?;
        Ok(stream)
    }
}
