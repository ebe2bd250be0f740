//! Rebalancing: nodes that all stay even out their clients and sessions.
//!
//! ```text
//!  wait_health_check  load balancers learn that no client should come to the donors; who does may
//!  evicting_conns     nobody may; of the connected ones so many each second are sent away
//!  wait_takeover      they come back elsewhere and take their sessions along
//!  evicting_sessions  sessions without a connection are given away, so many each second
//! ```
//! One node, the *coordinator*, decides. *Donors* are the nodes with at least the average of
//! connections, *recipients* the others. Once a second the coordinator hears of all and gives every
//! donor an [`Order`]. An order is only good for a few seconds, so donors whose coordinator has
//! died, was cut off or has finished become ordinary nodes by themselves.
//!
//! Pure: it is told the time and what the nodes have, and answers with what each is to give away.
//! It must never know how orders travel.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::evacuation::{Load, Share};

/// Longest time a participant may be silent, and longest time a donor obeys an order that no other
/// follows, ms: five looks of the coordinator.
pub const SILENCE_MAX_MS: u64 = 5_000;

/// What an operator can say about a rebalance; the defaults are EMQX's.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct RebalanceOptions {
    /// How long load balancers have to notice, seconds.
    pub wait_health_check_s: u64,
    /// Clients each donor disconnects in a second, at least 1.
    pub conn_evict_rate: u64,
    /// How far donors may be above recipients, connections.
    pub conn_threshold: Threshold,
    /// How long clients have to come back elsewhere, seconds.
    pub wait_takeover_s: u64,
    /// Sessions each donor gives away in a second, at least 1.
    pub sess_evict_rate: u64,
    /// How far donors may be above recipients, sessions without a connection.
    pub sess_threshold: Threshold,
    /// Names of the nodes that take part; none: all that run.
    pub nodes: Vec<String>,
}

impl Default for RebalanceOptions {
    fn default() -> Self {
        Self {
            wait_health_check_s: 60,
            conn_evict_rate: 500,
            conn_threshold: Threshold::default(),
            wait_takeover_s: 60,
            sess_evict_rate: 500,
            sess_threshold: Threshold::default(),
            nodes: Vec::new(),
        }
    }
}

/// How far the average of the donors may be above that of the recipients; one of the two is enough.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Threshold {
    /// By so many, at least 1.
    pub absolute: u64,
    /// So many times as much, above 1.
    pub relative: f64,
}

impl Default for Threshold {
    fn default() -> Self {
        Self {
            absolute: 1_000,
            relative: 1.1,
        }
    }
}

impl Threshold {
    fn admits(self, donors: f64, recipients: f64) -> bool {
        donors <= recipients + self.absolute as f64 || donors <= recipients * self.relative
    }
}

/// Where a rebalance stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Stage {
    /// See the module.
    WaitHealthCheck,
    /// See the module.
    EvictingConns,
    /// See the module.
    WaitTakeover,
    /// See the module.
    EvictingSessions,
}

impl Stage {
    /// The name EMQX prints.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::WaitHealthCheck => "wait_health_check",
            Self::EvictingConns => "evicting_conns",
            Self::WaitTakeover => "wait_takeover",
            Self::EvictingSessions => "evicting_sessions",
        }
    }
}

/// What a coordinator has heard of a participant since its last look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Heard {
    /// What it has. Sessions that are on their way to others do not count.
    Load(Load),
    /// Nothing; that may pass.
    Nothing,
    /// It does not run any more, or does not take part.
    Gone,
}

/// What a donor is to do until the next order.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Order {
    /// Who gives it.
    pub coordinator: String,
    /// Where the rebalance stands.
    pub stage: Stage,
    /// Who gets the clients and sessions.
    pub recipients: Vec<String>,
    /// What to give away now.
    pub share: Share,
    /// What the operator allows in a second.
    pub rates: Share,
    /// What the recipients have.
    pub goals: Averages,
}

/// What nodes have on average; `None` before that matters.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Averages {
    /// Connected clients.
    pub connections: Option<f64>,
    /// Sessions without a connection.
    pub sessions: Option<f64>,
}

/// What comes of a look.
#[derive(Clone, Debug, PartialEq)]
pub enum Step {
    /// It goes on: an order for each donor.
    Orders(BTreeMap<String, Order>),
    /// The load is even enough.
    Done,
    /// A participant was lost. What would be even without it is for the operator to say.
    Lost(String),
}

/// Nobody has so much more than the others that the thresholds forbid it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NothingToBalance;

#[derive(Clone, Debug)]
struct Participant {
    load: Load,
    heard_ms: u64,
}

/// Loads that nobody is to fall below: what each would have if all had the same.
#[derive(Clone, Copy, Debug, Default)]
struct Even {
    connections: u64,
    sessions: u64,
}

/// A rebalance, as its coordinator keeps it. See the module.
#[derive(Clone, Debug)]
pub struct Rebalance {
    coordinator: String,
    options: RebalanceOptions,
    stage: Stage,
    /// When the stage began, mono ms.
    since_ms: u64,
    donors: BTreeMap<String, Participant>,
    recipients: BTreeMap<String, Participant>,
    even: Even,
}

impl Rebalance {
    /// One that an operator starts now between nodes that have this.
    pub fn start(
        coordinator: String,
        options: RebalanceOptions,
        loads: &BTreeMap<String, Load>,
        now_ms: u64,
    ) -> Result<Self, NothingToBalance> {
        let connected = |load: &Load| load.connected;
        let mean = average(loads.values().map(connected));
        let participant = |(node, load): (&String, &Load)| {
            let (load, heard_ms) = (*load, now_ms);
            (node.clone(), Participant { load, heard_ms })
        };
        let (donors, recipients) = loads
            .iter()
            .partition::<Vec<_>, _>(|(_, load)| load.connected as f64 >= mean);
        // Who goes first in EMQX too: all sessions count here, later only those without a client.
        let all = |load: &Load| load.connected + load.sessions;
        let is_even = |of: &dyn Fn(&Load) -> u64, threshold: Threshold| {
            let donors = average(donors.iter().map(|(_, load)| of(load)));
            let recipients = average(recipients.iter().map(|(_, load)| of(load)));
            threshold.admits(donors, recipients)
        };
        let connections_even = is_even(&connected, options.conn_threshold);
        let sessions_even = is_even(&all, options.sess_threshold);
        if donors.is_empty() || recipients.is_empty() || (connections_even && sessions_even) {
            return Err(NothingToBalance);
        }
        Ok(Self {
            coordinator,
            options,
            stage: Stage::WaitHealthCheck,
            since_ms: now_ms,
            donors: donors.into_iter().map(participant).collect(),
            recipients: recipients.into_iter().map(participant).collect(),
            even: Even {
                connections: mean.ceil() as u64,
                sessions: 0,
            },
        })
    }

    /// What the operator said.
    pub fn options(&self) -> &RebalanceOptions {
        &self.options
    }

    /// Where it stands.
    pub fn stage(&self) -> Stage {
        self.stage
    }

    /// Those who give, by name.
    pub fn donors(&self) -> impl Iterator<Item = &String> {
        self.donors.keys()
    }

    /// Those who get, by name.
    pub fn recipients(&self) -> impl Iterator<Item = &String> {
        self.recipients.keys()
    }

    /// What the recipients have.
    pub fn goals(&self) -> Averages {
        self.averages(&self.recipients)
    }

    /// What the donors have.
    pub fn donor_averages(&self) -> Averages {
        self.averages(&self.donors)
    }

    fn averages(&self, of: &BTreeMap<String, Participant>) -> Averages {
        let connections = average(of.values().map(|one| one.load.connected));
        let sessions = average(of.values().map(|one| one.load.sessions));
        Averages {
            connections: (self.stage != Stage::WaitHealthCheck).then_some(connections),
            sessions: (self.stage == Stage::EvictingSessions).then_some(sessions),
        }
    }

    /// Takes note of what was heard since the last look and says what is to be done until the next.
    /// Asked once a second.
    pub fn step(&mut self, now_ms: u64, heard: &BTreeMap<String, Heard>) -> Step {
        if let Some(lost) = self.note(now_ms, heard) {
            return Step::Lost(lost);
        }
        if self.advance(now_ms) {
            return Step::Done;
        }
        let order = |(node, donor): (&String, &Participant)| (node.clone(), self.order(donor.load));
        Step::Orders(self.donors.iter().map(order).collect())
    }

    /// Who is lost.
    fn note(&mut self, now_ms: u64, heard: &BTreeMap<String, Heard>) -> Option<String> {
        for (node, participant) in self.donors.iter_mut().chain(&mut self.recipients) {
            match heard.get(node) {
                Some(Heard::Load(load)) => {
                    let (load, heard_ms) = (*load, now_ms);
                    *participant = Participant { load, heard_ms };
                }
                Some(Heard::Gone) => return Some(node.clone()),
                _ if now_ms.saturating_sub(participant.heard_ms) > SILENCE_MAX_MS => {
                    return Some(node.clone());
                }
                _ => {}
            }
        }
        None
    }

    /// Whether all is done.
    fn advance(&mut self, now_ms: u64) -> bool {
        loop {
            let waited_s = now_ms.saturating_sub(self.since_ms) / 1_000;
            let over = match self.stage {
                Stage::WaitHealthCheck => waited_s >= self.options.wait_health_check_s,
                Stage::WaitTakeover => waited_s >= self.options.wait_takeover_s,
                Stage::EvictingConns | Stage::EvictingSessions => {
                    self.is_even() || self.donors.values().all(|d| self.gives(d.load) == 0)
                }
            };
            if !over {
                return false;
            }
            self.stage = match self.stage {
                Stage::WaitHealthCheck => Stage::EvictingConns,
                Stage::EvictingConns => Stage::WaitTakeover,
                Stage::WaitTakeover => {
                    let all = self.donors.values().chain(self.recipients.values());
                    self.even.sessions = average(all.map(|one| one.load.sessions)).ceil() as u64;
                    Stage::EvictingSessions
                }
                Stage::EvictingSessions => return true,
            };
            self.since_ms = now_ms;
            tracing::info!(stage = self.stage.as_str(), "rebalance");
        }
    }

    fn is_even(&self) -> bool {
        let (donors, recipients) = (self.donor_averages(), self.goals());
        let (threshold, donors, recipients) = if self.stage == Stage::EvictingConns {
            let threshold = self.options.conn_threshold;
            (threshold, donors.connections, recipients.connections)
        } else {
            let threshold = self.options.sess_threshold;
            (threshold, donors.sessions, recipients.sessions)
        };
        donors
            .zip(recipients)
            .is_some_and(|(donors, recipients)| threshold.admits(donors, recipients))
    }

    /// What a donor is to give away now of what this stage is about. Clients that were sent away
    /// are nowhere for a moment: a goal that only looked at the others would send all of them away.
    fn gives(&self, load: Load) -> u64 {
        let above = |count: u64, even: u64, goal: Option<f64>, rate: u64| {
            let floor = goal.map_or(0, |goal| goal.ceil() as u64).max(even);
            count.saturating_sub(floor).min(rate)
        };
        let (options, even, goals) = (&self.options, self.even, self.goals());
        match self.stage {
            Stage::EvictingConns => {
                let rate = options.conn_evict_rate;
                above(load.connected, even.connections, goals.connections, rate)
            }
            Stage::EvictingSessions => {
                let rate = options.sess_evict_rate;
                above(load.sessions, even.sessions, goals.sessions, rate)
            }
            Stage::WaitHealthCheck | Stage::WaitTakeover => 0,
        }
    }

    fn order(&self, load: Load) -> Order {
        let now = self.gives(load);
        let gives = |stage| if self.stage == stage { now } else { 0 };
        Order {
            coordinator: self.coordinator.clone(),
            stage: self.stage,
            recipients: self.recipients.keys().cloned().collect(),
            share: Share {
                connections: gives(Stage::EvictingConns),
                sessions: gives(Stage::EvictingSessions),
            },
            rates: Share {
                connections: self.options.conn_evict_rate,
                sessions: self.options.sess_evict_rate,
            },
            goals: self.goals(),
        }
    }
}

fn average(counts: impl Iterator<Item = u64>) -> f64 {
    let (sum, nodes) = counts.fold((0, 0_u64), |(sum, nodes), count| (sum + count, nodes + 1));
    sum as f64 / nodes.max(1) as f64
}

/// A node that gives clients away, as it sees that itself. See the module.
#[derive(Clone, Debug)]
pub struct Donor {
    order: Order,
    /// When the order was got, mono ms.
    since_ms: u64,
    initial: Option<Load>,
    current: Load,
}

impl Donor {
    /// Takes an order; whoever obeys another coordinator does not, and says whom.
    pub fn obey(donor: &mut Option<Self>, order: Order, now_ms: u64) -> Result<(), String> {
        match donor {
            Some(donor) if !donor.is_abandoned(now_ms) => {
                if donor.order.coordinator != order.coordinator {
                    return Err(donor.order.coordinator.clone());
                }
                (donor.order, donor.since_ms) = (order, now_ms);
            }
            _ => {
                *donor = Some(Self {
                    order,
                    since_ms: now_ms,
                    initial: None,
                    current: Load::default(),
                });
            }
        }
        Ok(())
    }

    /// What it was told last.
    pub fn order(&self) -> &Order {
        &self.order
    }

    /// Whether its coordinator has been silent for so long that clients are to be let in again.
    pub fn is_abandoned(&self, now_ms: u64) -> bool {
        now_ms.saturating_sub(self.since_ms) > SILENCE_MAX_MS
    }

    /// Whether clients that come are to be sent away.
    pub fn refuses(&self) -> bool {
        self.order.stage != Stage::WaitHealthCheck
    }

    /// Takes note of what is left.
    pub fn note(&mut self, left: Load) {
        self.initial.get_or_insert(left);
        self.current = left;
    }

    /// What there was when it began, and what there is.
    pub fn loads(&self) -> (Load, Load) {
        (self.initial.unwrap_or(self.current), self.current)
    }
}

#[cfg(test)]
mod tests;
