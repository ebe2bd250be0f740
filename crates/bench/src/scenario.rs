//! What can be measured: each scenario by its name, with the sizes of the project's targets as
//! defaults.

pub(crate) mod connects;
pub(crate) mod flow;
pub(crate) mod idle;
pub(crate) mod replay;
pub(crate) mod storm;
#[cfg(test)]
mod tests;

use std::time::Duration;

use anyhow::{bail, ensure};
use dunlin_mqtt::QoS;

use crate::check::Spread;
use crate::progress::Progress;
use crate::sample::Sample;
use crate::target::Target;
use connects::Connects;
use flow::{Flow, Pace};
use idle::Idle;
use replay::Replay;
use storm::Storm;

/// Messages under way for one subscriber: EMQX and Mosquitto queue at most 1,000.
const UNDER_WAY: usize = 500;
/// Bytes under way for one publisher: what socket buffers hold without growing.
const UNDER_WAY_BYTES: usize = 1024 * 1024;
/// `QoS` 2 messages that are not complete: Mosquitto takes at most 20 from one client, EMQX 100.
const UNDER_WAY_QOS2: usize = 20;
/// Messages under way from one publisher to many subscribers. One, so that each delivery is a write
/// of its own; with more under way the figure tells how well a broker batches, see `--window`.
const UNDER_WAY_FAN_OUT: usize = 1;

/// Sizes from the command line; what is not given is the scenario's own.
#[derive(Clone, Debug, Default)]
pub(crate) struct Sizes {
    pub(crate) publishers: Option<usize>,
    pub(crate) subscribers: Option<usize>,
    pub(crate) clients: Option<usize>,
    pub(crate) count: Option<usize>,
    pub(crate) qos: QoS,
    pub(crate) payload_bytes: Option<usize>,
    pub(crate) window: Option<u64>,
    pub(crate) per_second: Option<u64>,
    pub(crate) duration: Option<Duration>,
}

/// One scenario with all its sizes.
#[derive(Clone, Debug)]
pub(crate) enum Scenario {
    Flow(Flow),
    Replay(Replay),
    Connects(Connects),
    Storm(Storm),
    Idle(Idle),
}

impl Scenario {
    pub(crate) fn build(name: &str, sizes: &Sizes) -> anyhow::Result<Self> {
        let duration = sizes.duration.unwrap_or(Duration::from_secs(3));
        let payload_bytes = sizes.payload_bytes.unwrap_or(64);
        let scenario = match name {
            "one-to-one" => Self::Flow(flow(sizes, Spread::Pairs, (1, 1), 0)),
            "pairs" | "cross-node" => Self::Flow(flow(sizes, Spread::Pairs, (10, 10), 0)),
            "fan-in" => Self::Flow(flow(sizes, Spread::All, (100, 1), 0)),
            "fan-out" => Self::Flow(flow(sizes, Spread::All, (1, 500), 0)),
            "shared" => Self::Flow(flow(sizes, Spread::Shared, (100, 10), 0)),
            "wildcard" => {
                let held_filters = sizes.count.unwrap_or(10_000);
                Self::Flow(flow(sizes, Spread::Pairs, (10, 10), held_filters))
            }
            "replay" => Self::Replay(Replay {
                messages: sizes.count.unwrap_or(50_000),
                qos: sizes.qos,
                payload_bytes,
                duration,
            }),
            "connects" => Self::Connects(Connects {
                at_once: sizes.clients.unwrap_or(32),
                duration,
            }),
            "storm" => Self::Storm(Storm {
                filters: sizes.count.unwrap_or(1_000_000),
                clients: sizes.clients.unwrap_or(100),
                qos: sizes.qos,
            }),
            "idle" => Self::Idle(Idle {
                connections: sizes.count.unwrap_or(10_000),
            }),
            _ => bail!("there is no scenario {name}"),
        };
        scenario.check()?;
        Ok(scenario)
    }

    fn check(&self) -> anyhow::Result<()> {
        let counts = match self {
            Self::Flow(flow) => {
                ensure!(
                    flow.spread != Spread::Pairs || flow.publishers == flow.subscribers,
                    "pairs have as many publishers as subscribers"
                );
                let open = match flow.pace {
                    Pace::Closed { window } => window as usize,
                    Pace::Open { per_second } => per_second as usize,
                };
                vec![flow.publishers, flow.subscribers, open]
            }
            Self::Replay(replay) => vec![replay.messages],
            Self::Connects(connects) => vec![connects.at_once],
            Self::Storm(storm) => vec![storm.filters, storm.clients],
            Self::Idle(idle) => vec![idle.connections],
        };
        ensure!(counts.iter().all(|&count| count > 0), "nothing to do");
        Ok(())
    }

    pub(crate) fn measure(
        &self,
        target: &Target,
        progress: &mut Progress,
    ) -> anyhow::Result<Sample> {
        match self {
            Self::Flow(flow) => flow.measure(target, progress),
            Self::Replay(replay) => replay.measure(target, progress),
            Self::Connects(connects) => connects.measure(target, progress),
            Self::Storm(storm) => storm.measure(target, progress),
            Self::Idle(idle) => idle.measure(target, progress),
        }
    }

    /// What is counted.
    pub(crate) fn unit(&self) -> &'static str {
        match self {
            Self::Flow(_) | Self::Replay(_) => "message",
            Self::Connects(_) | Self::Idle(_) => "connection",
            Self::Storm(_) => "filter",
        }
    }

    /// All sizes in one line.
    pub(crate) fn title(&self) -> String {
        match self {
            Self::Flow(flow) => flow_title(flow),
            Self::Replay(replay) => format!(
                "replay of {} retained messages to one subscriber, QoS {}, {} bytes",
                replay.messages,
                replay.qos.as_u8(),
                replay.payload_bytes
            ),
            Self::Connects(connects) => {
                format!("connect and disconnect, {} at once", connects.at_once)
            }
            Self::Storm(storm) => format!(
                "{} different filters subscribed by {} clients",
                storm.filters, storm.clients
            ),
            Self::Idle(idle) => format!(
                "{} idle connections with one subscription each",
                idle.connections
            ),
        }
    }
}

fn flow_title(flow: &Flow) -> String {
    let to = match flow.spread {
        Spread::Pairs | Spread::All => "->",
        Spread::Shared => "-> shared group of",
    };
    let held = match flow.held_filters {
        0 => String::new(),
        count => format!(" through {count} wildcard filters"),
    };
    let pace = match flow.pace {
        Pace::Closed { window } => format!("window {window}"),
        Pace::Open { per_second } => format!("{per_second} published/s"),
    };
    format!(
        "{} {to} {}{held}, QoS {}, {} bytes, {pace}",
        flow.publishers,
        flow.subscribers,
        flow.qos.as_u8(),
        flow.payload_bytes
    )
}

fn flow(
    sizes: &Sizes,
    spread: Spread,
    (publishers, subscribers): (usize, usize),
    held_filters: usize,
) -> Flow {
    let publishers = sizes.publishers.or(sizes.clients).unwrap_or(publishers);
    let subscribers = match spread {
        Spread::Pairs => sizes.subscribers.unwrap_or(publishers),
        Spread::All | Spread::Shared => sizes.subscribers.unwrap_or(subscribers),
    };
    let payload_bytes = sizes.payload_bytes.unwrap_or(64);
    let pace = match sizes.per_second {
        Some(per_second) => Pace::Open { per_second },
        None => Pace::Closed {
            window: sizes.window.unwrap_or_else(|| {
                let clients = (publishers, subscribers);
                window(spread, clients, sizes.qos, payload_bytes)
            }),
        },
    };
    Flow {
        publishers,
        subscribers,
        spread,
        qos: sizes.qos,
        payload_bytes,
        pace,
        duration: sizes.duration.unwrap_or(Duration::from_secs(3)),
        held_filters,
    }
}

/// Messages of one publisher under way, such that no broker's queue overflows.
fn window(
    spread: Spread,
    (publishers, subscribers): (usize, usize),
    qos: QoS,
    payload_bytes: usize,
) -> u64 {
    let count = match spread {
        Spread::Pairs => UNDER_WAY,
        Spread::All if subscribers > publishers => UNDER_WAY_FAN_OUT,
        // A group may give all its messages to one member.
        Spread::All | Spread::Shared => UNDER_WAY / publishers.max(1),
    };
    let count = count.min(UNDER_WAY_BYTES / payload_bytes.max(1));
    let count = match qos {
        QoS::ExactlyOnce => count.min(UNDER_WAY_QOS2),
        QoS::AtMostOnce | QoS::AtLeastOnce => count,
    };
    count.max(1) as u64
}
