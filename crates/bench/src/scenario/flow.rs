//! Messages from publishers to subscribers: who publishes what, and who hears it.

use std::time::Duration;

use dunlin_mqtt::QoS;

use crate::check::Spread;
use crate::client;
use crate::engine::Engine;
use crate::progress::Progress;
use crate::sample::Sample;
use crate::target::Target;

/// Topics that one publisher of the wildcard scenario uses in turn.
const WILDCARD_TOPICS: usize = 16;

/// When the next message is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Pace {
    /// As soon as fewer than `window` messages of its publisher are under way.
    Closed { window: u64 },
    /// At a fixed rate, all publishers together, whatever the broker does.
    Open { per_second: u64 },
}

/// A scenario of this kind.
#[derive(Clone, Debug)]
pub(crate) struct Flow {
    pub(crate) publishers: usize,
    pub(crate) subscribers: usize,
    pub(crate) spread: Spread,
    pub(crate) qos: QoS,
    pub(crate) payload_bytes: usize,
    pub(crate) pace: Pace,
    pub(crate) duration: Duration,
    /// Instead of the scenario's own; publishers and subscribers of all share it.
    pub(crate) topic: Option<String>,
    /// Wildcard filters held by one more client, which match nothing that is published but
    /// share its first levels.
    pub(crate) held_filters: usize,
}

impl Flow {
    /// Deliveries per message.
    pub(crate) fn fan(&self) -> u64 {
        match self.spread {
            Spread::Pairs | Spread::Shared => 1,
            Spread::All => self.subscribers as u64,
        }
    }

    /// Whether latencies are those of acknowledgements: nobody subscribes, and a rate is given.
    pub(crate) fn times_acknowledgements(&self) -> bool {
        self.subscribers == 0
            && self.qos > QoS::AtMostOnce
            && matches!(self.pace, Pace::Open { .. })
    }

    pub(crate) fn topics(&self, publisher: usize) -> Vec<String> {
        match self.spread {
            Spread::Pairs if self.held_filters > 0 => (0..WILDCARD_TOPICS)
                .map(|site| format!("bench/{site}/line{publisher}/temperature"))
                .collect(),
            Spread::Pairs => vec![format!("bench/pair/{publisher}")],
            Spread::All | Spread::Shared => vec![self.topic().to_owned()],
        }
    }

    pub(crate) fn filter(&self, subscriber: usize) -> String {
        match self.spread {
            Spread::Pairs if self.held_filters > 0 => {
                format!("bench/+/line{subscriber}/temperature")
            }
            Spread::Pairs => format!("bench/pair/{subscriber}"),
            Spread::All => self.topic().to_owned(),
            Spread::Shared => format!("$share/bench/{}", self.topic()),
        }
    }

    fn topic(&self) -> &str {
        self.topic.as_deref().unwrap_or("bench/all")
    }

    pub(crate) fn measure(
        &self,
        target: &Target,
        progress: &mut Progress,
    ) -> anyhow::Result<Sample> {
        if self.held_filters == 0 {
            return Engine::connect(self, target)?.run(target, progress);
        }
        let mut holder = client::connect(target.for_subscribers(), "bench-holder")?;
        let filters: Vec<String> = (0..self.held_filters)
            .map(|index| format!("bench/{index}/+/alarm"))
            .collect();
        let access = &target.for_subscribers().access;
        client::subscribe(&mut holder, access, &filters, self.qos)?;
        let sample = Engine::connect(self, target)?.run(target, progress);
        client::disconnect(holder)?;
        sample
    }
}
