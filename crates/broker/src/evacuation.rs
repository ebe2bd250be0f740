//! Evacuating a node: what is to be done when, so that all of its clients and their sessions are on
//! other nodes before it is stopped.
//!
//! ```text
//!  waiting_health_check   load balancers learn that no client should come here; those who do may
//!  evicting_conns         nobody may; the connected ones are sent away, so many each second
//!  waiting_takeover       they come back elsewhere and take their sessions along
//!  evicting_sessions      sessions nobody came for are given away, so many each second
//!  prohibiting            nothing is left, and nobody may come until it is stopped
//! ```
//! Pure: it is told the time and what is left, and answers with what to give away now. It must
//! never know who does it.

use serde::{Deserialize, Serialize};

/// What an operator can say about an evacuation; the defaults are EMQX's.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct EvacuationOptions {
    /// How long load balancers have to notice, seconds.
    pub wait_health_check_s: u64,
    /// What clients of MQTT 5 are told as Server Reference; `None`: the addresses of the other
    /// nodes.
    pub redirect_to: Option<String>,
    /// Clients disconnected in a second, at least 1.
    pub conn_evict_rate: u64,
    /// Names of the nodes that get the sessions; none: all others.
    pub migrate_to: Vec<String>,
    /// How long clients have to come back elsewhere, seconds.
    pub wait_takeover_s: u64,
    /// Sessions given away in a second, at least 1.
    pub sess_evict_rate: u64,
}

impl Default for EvacuationOptions {
    fn default() -> Self {
        Self {
            wait_health_check_s: 60,
            redirect_to: None,
            conn_evict_rate: 500,
            migrate_to: Vec::new(),
            wait_takeover_s: 60,
            sess_evict_rate: 500,
        }
    }
}

/// Where an evacuation stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Stage {
    /// See the module.
    WaitingHealthCheck,
    /// See the module.
    EvictingConns,
    /// See the module.
    WaitingTakeover,
    /// See the module.
    EvictingSessions,
    /// See the module.
    Prohibiting,
}

impl Stage {
    /// The name EMQX prints.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::WaitingHealthCheck => "waiting_health_check",
            Self::EvictingConns => "evicting_conns",
            Self::WaitingTakeover => "waiting_takeover",
            Self::EvictingSessions => "evicting_sessions",
            Self::Prohibiting => "prohibiting",
        }
    }
}

/// What a node has of clients.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Load {
    /// Connected clients.
    pub connected: u64,
    /// Sessions without a connection.
    pub sessions: u64,
}

/// What is to be given away now, at most.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Share {
    /// Clients to disconnect.
    pub connections: u64,
    /// Sessions to give to others.
    pub sessions: u64,
}

/// So many in a second, whatever the pauses between two looks.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pace {
    per_second: u64,
    /// Thousandths of one that have been saved up.
    saved: u64,
    at_ms: u64,
}

impl Pace {
    pub(crate) fn new(per_second: u64, now_ms: u64) -> Self {
        Self {
            per_second: per_second.max(1),
            saved: 0,
            at_ms: now_ms,
        }
    }

    /// How many may go now. What was not used in a second is not saved for later.
    pub(crate) fn take(&mut self, now_ms: u64) -> u64 {
        let passed_ms = now_ms.saturating_sub(self.at_ms).min(1_000);
        self.at_ms = now_ms;
        self.saved += self.per_second.saturating_mul(passed_ms);
        let whole = self.saved / 1_000;
        self.saved %= 1_000;
        whole
    }
}

/// An evacuation of this node. See the module.
#[derive(Clone, Debug)]
pub struct Evacuation {
    options: EvacuationOptions,
    stage: Stage,
    /// When the stage began, mono ms.
    since_ms: u64,
    connections: Pace,
    sessions: Pace,
    initial: Option<Load>,
    current: Load,
}

impl Evacuation {
    /// One that an operator starts now.
    pub fn start(options: EvacuationOptions, now_ms: u64) -> Self {
        Self::at(options, Stage::WaitingHealthCheck, now_ms)
    }

    /// One that goes on after a restart of its node. Load balancers have seen it down, so they are
    /// not waited for again.
    pub fn resume(options: EvacuationOptions, now_ms: u64) -> Self {
        Self::at(options, Stage::EvictingConns, now_ms)
    }

    fn at(options: EvacuationOptions, stage: Stage, now_ms: u64) -> Self {
        Self {
            connections: Pace::new(options.conn_evict_rate, now_ms),
            sessions: Pace::new(options.sess_evict_rate, now_ms),
            options,
            stage,
            since_ms: now_ms,
            initial: None,
            current: Load::default(),
        }
    }

    /// What the operator said.
    pub fn options(&self) -> &EvacuationOptions {
        &self.options
    }

    /// Where it stands.
    pub fn stage(&self) -> Stage {
        self.stage
    }

    /// What there was when it began, and what there was at the last look.
    pub fn loads(&self) -> (Load, Load) {
        (self.initial.unwrap_or(self.current), self.current)
    }

    /// Whether clients that come are to be sent away.
    pub fn refuses(&self) -> bool {
        self.stage != Stage::WaitingHealthCheck
    }

    /// Takes note of what is left and says what is to be given away now. Asked several times a
    /// second.
    pub fn step(&mut self, now_ms: u64, left: Load) -> Share {
        self.initial.get_or_insert(left);
        self.current = left;
        let waited_s = now_ms.saturating_sub(self.since_ms) / 1_000;
        match self.stage {
            Stage::WaitingHealthCheck if waited_s >= self.options.wait_health_check_s => {
                self.enter(Stage::EvictingConns, now_ms);
            }
            Stage::EvictingConns if left.connected == 0 => {
                self.enter(Stage::WaitingTakeover, now_ms);
            }
            Stage::WaitingTakeover if waited_s >= self.options.wait_takeover_s => {
                self.enter(Stage::EvictingSessions, now_ms);
            }
            Stage::EvictingSessions if left == Load::default() => {
                self.enter(Stage::Prohibiting, now_ms);
            }
            _ => {}
        }
        // What turns up later (a client whose password was being checked) goes the same way.
        let connections = self.connections.take(now_ms);
        let sessions = self.sessions.take(now_ms);
        let gives_sessions = matches!(self.stage, Stage::EvictingSessions | Stage::Prohibiting);
        Share {
            connections: if self.refuses() { connections } else { 0 },
            sessions: if gives_sessions { sessions } else { 0 },
        }
    }

    fn enter(&mut self, stage: Stage, now_ms: u64) {
        self.stage = stage;
        self.since_ms = now_ms;
        tracing::info!(stage = stage.as_str(), "evacuation");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load(connected: u64, sessions: u64) -> Load {
        Load {
            connected,
            sessions,
        }
    }

    fn options() -> EvacuationOptions {
        EvacuationOptions {
            wait_health_check_s: 2,
            conn_evict_rate: 10,
            wait_takeover_s: 3,
            sess_evict_rate: 4,
            ..EvacuationOptions::default()
        }
    }

    /// A node with clients that do as they are told: the stages with when they began.
    fn stages(mut evacuation: Evacuation, mut left: Load, comes_back: u64) -> Vec<(u64, Stage)> {
        let mut seen = vec![(0, evacuation.stage())];
        for now_ms in (0..60_000).step_by(250) {
            let share = evacuation.step(now_ms, left);
            if seen.last().map(|(_, stage)| *stage) != Some(evacuation.stage()) {
                seen.push((now_ms, evacuation.stage()));
            }
            let gone = share.connections.min(left.connected);
            left.connected -= gone;
            left.sessions += gone - gone.min(comes_back);
            left.sessions -= share.sessions.min(left.sessions);
        }
        assert_eq!(left, Load::default());
        seen
    }

    #[test]
    fn every_stage_has_its_time() {
        let evacuation = Evacuation::start(options(), 0);
        let seen = stages(evacuation, load(20, 3), 0);
        let expected = [
            (0, Stage::WaitingHealthCheck),
            (2_000, Stage::EvictingConns),
            // 20 clients at 10 a second.
            (4_000, Stage::WaitingTakeover),
            (7_000, Stage::EvictingSessions),
            // 23 sessions at 4 a second.
            (12_750, Stage::Prohibiting),
        ];
        assert_eq!(seen, expected);
    }

    #[test]
    fn after_a_restart_nobody_is_let_in_from_the_first_moment() {
        let mut evacuation = Evacuation::resume(options(), 0);
        assert!(evacuation.refuses());
        assert_eq!(evacuation.step(0, load(0, 0)), Share::default());
        assert_eq!(evacuation.stage(), Stage::WaitingTakeover);
    }

    #[test]
    fn nobody_is_sent_away_while_load_balancers_are_waited_for() {
        let mut evacuation = Evacuation::start(options(), 0);
        assert_eq!(evacuation.step(1_900, load(9, 9)), Share::default());
        assert!(!evacuation.refuses());
        let share = evacuation.step(2_000, load(12, 9));
        assert!(evacuation.refuses());
        assert_eq!(share.sessions, 0);
        assert_eq!(evacuation.loads(), (load(9, 9), load(12, 9)));
    }

    #[test]
    fn the_pace_holds_whatever_the_pauses() {
        let mut pace = Pace::new(3, 0);
        let taken: u64 = (0..=10_000).step_by(250).map(|now| pace.take(now)).sum();
        assert_eq!(taken, 30);
        assert_eq!(
            pace.take(100_000),
            3,
            "a long pause is no reason for a storm"
        );
    }

    #[test]
    fn a_late_client_is_sent_away_too() {
        let mut evacuation = Evacuation::resume(options(), 0);
        for now_ms in [0, 3_000, 3_250] {
            evacuation.step(now_ms, load(0, 0));
        }
        assert_eq!(evacuation.stage(), Stage::Prohibiting);
        let share = evacuation.step(4_250, load(1, 1));
        assert_eq!((share.connections, share.sessions), (10, 4));
    }
}
