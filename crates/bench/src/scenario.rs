//! What can be measured: each scenario by its name, with the sizes of the project's targets as
//! defaults.

#[cfg(test)]
mod broken;
pub(crate) mod conn;
pub(crate) mod flow;
pub(crate) mod idle;
pub(crate) mod resume;
pub(crate) mod retained;
pub(crate) mod storm;
pub(crate) mod sub;
pub(crate) mod takeover;
#[cfg(test)]
mod tests;

use std::time::Duration;

use anyhow::{bail, ensure};
use dunlin_mqtt::QoS;

use crate::check::Spread;
use crate::progress::Progress;
use crate::sample::Sample;
use crate::target::Target;
use conn::Conn;
use flow::{Flow, Pace};
use idle::{Are, Idle};
use resume::Resume;
use retained::Retained;
use storm::{Memory, Storm};
use sub::Sub;
use takeover::Takeover;

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
    pub(crate) topic: Option<String>,
}

/// One scenario with all its sizes.
#[derive(Clone, Debug)]
pub(crate) enum Scenario {
    Flow(Flow),
    Sub(Sub),
    Retained(Retained),
    Takeover(Takeover),
    Resume(Resume),
    Conn(Conn),
    Storm(Storm),
    Idle(Idle),
}

impl Scenario {
    pub(crate) fn build(name: &str, sizes: &Sizes) -> anyhow::Result<Self> {
        let duration = sizes.duration.unwrap_or(Duration::from_secs(3));
        let payload_bytes = sizes.payload_bytes.unwrap_or(64);
        let scenario = match name {
            "pub" => {
                let alone = Sizes {
                    subscribers: Some(0),
                    ..sizes.clone()
                };
                Self::Flow(flow(&alone, Spread::All, (1, 0), 0))
            }
            "sub" => Self::Sub(Sub {
                subscribers: sizes.subscribers.or(sizes.clients).unwrap_or(1),
                filter: sizes.topic.clone().unwrap_or_else(|| "bench/#".to_owned()),
                qos: sizes.qos,
                duration,
            }),
            "one-to-one" => Self::Flow(flow(sizes, Spread::Pairs, (1, 1), 0)),
            "pairs" | "cross-node" => Self::Flow(flow(sizes, Spread::Pairs, (10, 10), 0)),
            "fan-in" => Self::Flow(flow(sizes, Spread::All, (100, 1), 0)),
            "fan-out" => Self::Flow(flow(sizes, Spread::All, (1, 500), 0)),
            "shared" => Self::Flow(flow(sizes, Spread::Shared, (100, 10), 0)),
            "wildcard" => {
                let held_filters = sizes.count.unwrap_or(10_000);
                Self::Flow(flow(sizes, Spread::Pairs, (10, 10), held_filters))
            }
            "retained" => Self::Retained(Retained {
                messages: sizes.count.unwrap_or(50_000),
                qos: sizes.qos,
                payload_bytes,
                duration,
            }),
            "takeover" => Self::Takeover(Takeover {
                messages: sizes.count.unwrap_or(10),
                qos: sizes.qos.max(QoS::AtLeastOnce),
                payload_bytes,
                duration,
            }),
            "resume" => Self::Resume(Resume {
                sessions: sizes.clients.unwrap_or(100),
                messages: sizes.count.unwrap_or(500),
                payload_bytes,
                duration,
            }),
            "conn" => Self::Conn(Conn {
                at_once: sizes.clients.unwrap_or(32),
                duration,
            }),
            "storm" | "routes" => Self::Storm(Storm {
                filters: sizes.count.unwrap_or(1_000_000),
                clients: sizes.clients.unwrap_or(100),
                qos: sizes.qos,
                memory: match name {
                    "routes" => Memory::Route,
                    _ => Memory::Subscription,
                },
            }),
            "idle" | "sessions" => Self::Idle(Idle {
                clients: sizes.count.unwrap_or(10_000),
                are: match name {
                    "sessions" => Are::Away,
                    _ => Are::Connected,
                },
            }),
            _ => bail!("there is no scenario {name}; --help lists them"),
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
                vec![flow.publishers, open]
            }
            Self::Sub(sub) => vec![sub.subscribers],
            Self::Retained(retained) => vec![retained.messages],
            Self::Takeover(takeover) => vec![takeover.messages],
            Self::Resume(resume) => vec![resume.sessions, resume.messages],
            Self::Conn(conn) => vec![conn.at_once],
            Self::Storm(storm) => vec![storm.filters, storm.clients],
            Self::Idle(idle) => vec![idle.clients],
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
            Self::Sub(sub) => sub.measure(target, progress),
            Self::Retained(retained) => retained.measure(target, progress),
            Self::Takeover(takeover) => takeover.measure(target, progress),
            Self::Resume(resume) => resume.measure(target, progress),
            Self::Conn(conn) => conn.measure(target, progress),
            Self::Storm(storm) => storm.measure(target, progress),
            Self::Idle(idle) => idle.measure(target, progress),
        }
    }

    /// What is counted.
    pub(crate) fn unit(&self) -> &'static str {
        match self {
            Self::Flow(_) | Self::Sub(_) | Self::Retained(_) | Self::Resume(_) => "message",
            Self::Takeover(_) => "takeover",
            Self::Idle(idle) if idle.are == Are::Away => "session",
            Self::Conn(_) | Self::Idle(_) => "connection",
            Self::Storm(storm) if storm.memory == Memory::Route => "route",
            Self::Storm(_) => "filter",
        }
    }

    /// All sizes in one line.
    pub(crate) fn title(&self) -> String {
        match self {
            Self::Flow(flow) => flow_title(flow),
            Self::Sub(sub) => format!(
                "{} subscribers of {}, QoS {}",
                sub.subscribers,
                sub.filter,
                sub.qos.as_u8()
            ),
            Self::Retained(retained) => format!(
                "replay of {} retained messages to one subscriber, QoS {}, {} bytes",
                retained.messages,
                retained.qos.as_u8(),
                retained.payload_bytes
            ),
            Self::Takeover(takeover) => format!(
                "takeovers of a session with {} messages under way, QoS {}; latency from CONNECT \
                 to the first message",
                takeover.messages,
                takeover.qos.as_u8()
            ),
            Self::Resume(resume) => format!(
                "{} sessions resumed with {} queued messages each, QoS 1, {} bytes",
                resume.sessions, resume.messages, resume.payload_bytes
            ),
            Self::Conn(conn) => format!("connect and disconnect, {} at once", conn.at_once),
            Self::Storm(storm) => format!(
                "{} different filters subscribed by {} clients",
                storm.filters, storm.clients
            ),
            Self::Idle(idle) => format!(
                "{} {} with one subscription each",
                idle.clients,
                match idle.are {
                    Are::Connected => "idle connections",
                    Are::Away => "sessions without connection",
                }
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
    let receivers = match flow.subscribers {
        0 => " publishers alone".to_owned(),
        count => format!(" {to} {count}"),
    };
    format!(
        "{}{receivers}{held}, QoS {}, {} bytes, {pace}",
        flow.publishers,
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
        topic: sizes.topic.clone(),
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
