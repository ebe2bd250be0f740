//! What one measurement of one target found.

use std::time::{Duration, Instant};

use crate::check::Faults;
use crate::latency::Quantiles;
use crate::process;
use crate::target::Target;

/// One measurement.
#[derive(Clone, Debug, Default)]
pub(crate) struct Sample {
    /// Messages delivered, connections made or filters subscribed.
    pub(crate) units: u64,
    pub(crate) seconds: f64,
    /// Processor time of the target, when its processes are known.
    pub(crate) cpu: Option<Duration>,
    /// Processor time of the generator. Near the elapsed time, the generator is the limit.
    pub(crate) own_cpu: Duration,
    pub(crate) faults: Faults,
    pub(crate) latency: Option<Quantiles>,
    /// Memory the target took for each unit, bytes.
    pub(crate) unit_bytes: Option<f64>,
}

impl Sample {
    pub(crate) fn cpu_us(&self) -> Option<f64> {
        self.cpu.map(|cpu| self.us_per_unit(cpu))
    }

    pub(crate) fn own_cpu_us(&self) -> f64 {
        self.us_per_unit(self.own_cpu)
    }

    pub(crate) fn thousand_per_second(&self) -> f64 {
        self.units as f64 / self.seconds.max(1e-9) / 1_000.0
    }

    fn us_per_unit(&self, time: Duration) -> f64 {
        time.as_secs_f64() * 1e6 / self.units.max(1) as f64
    }
}

/// The clocks at one moment.
pub(crate) struct Clocks {
    at: Instant,
    cpu: Option<Duration>,
    own_cpu: Duration,
}

impl Clocks {
    pub(crate) fn read(target: &Target) -> anyhow::Result<Self> {
        Ok(Self {
            at: Instant::now(),
            cpu: target.cpu()?,
            own_cpu: process::cpu(std::process::id())?,
        })
    }

    /// Adds the time since this moment, and `units`, to a sample.
    pub(crate) fn charge(
        &self,
        target: &Target,
        units: u64,
        sample: &mut Sample,
    ) -> anyhow::Result<()> {
        let now = Self::read(target)?;
        sample.units += units;
        sample.seconds += (now.at - self.at).as_secs_f64();
        sample.own_cpu += now.own_cpu.saturating_sub(self.own_cpu);
        let spent = now.cpu.zip(self.cpu);
        let spent = spent.map(|(now, then)| now.saturating_sub(then));
        if let Some(spent) = spent {
            *sample.cpu.get_or_insert_default() += spent;
        }
        Ok(())
    }
}
