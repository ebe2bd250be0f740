//! What is wrong with this node: raised once, kept for a while after it is over.
//!
//! A pure table, told the wall clock, so that the same alarms come and go in the simulator and on a
//! real node. Whoever finds a fault only says so ([`AlarmChange`]); that a fault reported every
//! second is one alarm is decided here. It must never grow without a bound, nor lose an active
//! alarm to make room for an ended one.

use std::collections::{BTreeMap, VecDeque};

use serde::{Deserialize, Serialize};

/// Active alarms at once. Their names come from code, a member name or a table key at most; more
/// than this says nothing that the first ones do not.
pub const ACTIVE_MAX: usize = 1_000;

/// One figure of an alarm's details.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Detail {
    /// A count or a time.
    Number(i64),
    /// A word.
    Text(String),
    /// Several, nodes for example.
    List(Vec<String>),
}

impl From<u64> for Detail {
    fn from(number: u64) -> Self {
        Self::Number(i64::try_from(number).unwrap_or(i64::MAX))
    }
}

impl From<i64> for Detail {
    fn from(number: i64) -> Self {
        Self::Number(number)
    }
}

impl From<String> for Detail {
    fn from(text: String) -> Self {
        Self::Text(text)
    }
}

impl From<&str> for Detail {
    fn from(text: &str) -> Self {
        Self::Text(text.to_owned())
    }
}

impl From<Vec<String>> for Detail {
    fn from(list: Vec<String>) -> Self {
        Self::List(list)
    }
}

/// The details of an alarm, by name.
pub type Details = BTreeMap<String, Detail>;

/// Details from pairs.
pub fn details<const N: usize>(pairs: [(&str, Detail); N]) -> Details {
    let owned = pairs.map(|(name, detail)| (name.to_owned(), detail));
    owned.into_iter().collect()
}

/// How an alarm ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lasting {
    /// When whoever raised it says that it is over.
    UntilCleared,
    /// It tells of something that happened and cannot be over: when an operator has seen it
    /// (`POST /alarms/force_deactivate`), or after [`Limits::kept_ms`].
    UntilSeen,
}

/// What a part of the node has to say about a fault.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AlarmChange {
    /// It is there.
    Activate(Activation),
    /// It is over.
    Deactivate {
        /// Its name.
        name: String,
    },
}

/// A fault that was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Activation {
    /// The stable name scripts watch for; with the thing concerned after a `/` if there can be
    /// several, `removed_member/emqx@host`.
    pub name: String,
    /// Figures.
    pub details: Details,
    /// What is wrong, for people; one sentence.
    pub message: String,
    /// How it ends.
    pub lasting: Lasting,
}

impl AlarmChange {
    /// A fault that somebody will say is over.
    pub fn activate(name: impl Into<String>, details: Details, message: String) -> Self {
        let lasting = Lasting::UntilCleared;
        Self::Activate(Activation {
            name: name.into(),
            details,
            message,
            lasting,
        })
    }

    /// Something that happened.
    pub fn happened(name: impl Into<String>, details: Details, message: String) -> Self {
        let lasting = Lasting::UntilSeen;
        Self::Activate(Activation {
            name: name.into(),
            details,
            message,
            lasting,
        })
    }

    /// A fault is over.
    pub fn deactivate(name: impl Into<String>) -> Self {
        Self::Deactivate { name: name.into() }
    }
}

/// An alarm as it is shown.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Alarm {
    /// Its name.
    pub name: String,
    /// Figures.
    pub details: Details,
    /// What is wrong, for people.
    pub message: String,
    /// Since when, milliseconds since 1970.
    pub activated_ms: u64,
    /// Until when; none while it is active.
    pub deactivated_ms: Option<u64>,
}

/// How much is remembered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// `alarm.size_limit`: ended alarms kept.
    pub ended_max: usize,
    /// `alarm.validity_period`: how long, milliseconds.
    pub kept_ms: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            ended_max: 1_000,
            kept_ms: 24 * 60 * 60 * 1_000,
        }
    }
}

/// The alarms of a node.
#[derive(Debug, Default)]
pub struct Alarms {
    limits: Limits,
    active: BTreeMap<String, (Alarm, Lasting)>,
    /// Oldest end first.
    ended: VecDeque<Alarm>,
    /// Alarms not shown because [`ACTIVE_MAX`] were.
    suppressed: u64,
}

impl Alarms {
    /// An empty table.
    pub fn new(limits: Limits) -> Self {
        Self {
            limits,
            ..Self::default()
        }
    }

    /// Other limits are in force from now on.
    pub fn set_limits(&mut self, limits: Limits) {
        self.limits = limits;
    }

    /// Takes a change. Returns the alarm if it came or went, so that it is told once.
    pub fn apply(&mut self, wall_ms: u64, change: AlarmChange) -> Option<Alarm> {
        match change {
            AlarmChange::Activate(activation) => self.activate(wall_ms, activation),
            AlarmChange::Deactivate { name } => self.deactivate(wall_ms, &name),
        }
    }

    fn activate(&mut self, wall_ms: u64, activation: Activation) -> Option<Alarm> {
        let Activation {
            name,
            details,
            message,
            lasting,
        } = activation;
        if let Some((alarm, _)) = self.active.get_mut(&name) {
            // The latest figures are the useful ones; the time is when it began.
            alarm.details = details;
            alarm.message = message;
            return None;
        }
        if self.active.len() >= ACTIVE_MAX {
            self.suppressed += 1;
            return None;
        }
        let alarm = Alarm {
            name: name.clone(),
            details,
            message,
            activated_ms: wall_ms,
            deactivated_ms: None,
        };
        self.active.insert(name, (alarm.clone(), lasting));
        Some(alarm)
    }

    /// Ends an alarm, whoever raised it.
    pub fn deactivate(&mut self, wall_ms: u64, name: &str) -> Option<Alarm> {
        let (mut alarm, _) = self.active.remove(name)?;
        alarm.deactivated_ms = Some(wall_ms);
        while self.ended.len() >= self.limits.ended_max {
            self.ended.pop_front();
        }
        self.ended.push_back(alarm.clone());
        Some(alarm)
    }

    /// Ends what happened long ago and forgets what ended long ago. Returns what ended.
    pub fn expire(&mut self, wall_ms: u64) -> Vec<Alarm> {
        let kept_ms = self.limits.kept_ms;
        let old = |since_ms: u64| since_ms.saturating_add(kept_ms) <= wall_ms;
        let over: Vec<String> = self
            .active
            .values()
            .filter(|(alarm, lasting)| *lasting == Lasting::UntilSeen && old(alarm.activated_ms))
            .map(|(alarm, _)| alarm.name.clone())
            .collect();
        let over = over
            .iter()
            .filter_map(|name| self.deactivate(wall_ms, name));
        let over = over.collect();
        self.ended
            .retain(|alarm| !alarm.deactivated_ms.is_some_and(old));
        over
    }

    /// The active alarms, by name.
    pub fn active(&self) -> impl Iterator<Item = &Alarm> {
        self.active.values().map(|(alarm, _)| alarm)
    }

    /// Whether one is active.
    pub fn is_active(&self, name: &str) -> bool {
        self.active.contains_key(name)
    }

    /// The ended alarms that are remembered, latest first.
    pub fn ended(&self) -> impl Iterator<Item = &Alarm> {
        self.ended.iter().rev()
    }

    /// Forgets the ended alarms.
    pub fn clear_ended(&mut self) {
        self.ended.clear();
    }

    /// Alarms that were not taken because [`ACTIVE_MAX`] were active.
    pub fn suppressed(&self) -> u64 {
        self.suppressed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn up(name: &str, message: &str) -> AlarmChange {
        AlarmChange::activate(name, Details::new(), message.to_owned())
    }

    fn down(name: &str) -> AlarmChange {
        AlarmChange::deactivate(name)
    }

    #[test]
    fn an_alarm_is_told_once_and_shows_its_latest_figures() {
        let mut alarms = Alarms::default();
        let told = alarms.apply(10, up("a", "first")).expect("it came");
        assert_eq!((told.activated_ms, told.deactivated_ms), (10, None));
        assert_eq!(alarms.apply(20, up("a", "second")), None);
        let shown: Vec<_> = alarms.active().collect();
        assert_eq!(shown.len(), 1);
        assert_eq!(
            (shown[0].message.as_str(), shown[0].activated_ms),
            ("second", 10)
        );
        let told = alarms.apply(30, down("a")).expect("it went");
        assert_eq!(told.deactivated_ms, Some(30));
        assert_eq!(alarms.apply(40, down("a")), None);
        assert_eq!(alarms.active().count(), 0);
        assert_eq!(alarms.ended().count(), 1);
    }

    #[test]
    fn what_happened_ends_when_seen_or_when_it_is_old() {
        let kept_ms = 100;
        let mut alarms = Alarms::new(Limits {
            ended_max: 5,
            kept_ms,
        });
        let happened = |name: &str| {
            AlarmChange::happened(name, details([("n", 1_u64.into())]), "gone".to_owned())
        };
        alarms.apply(0, happened("seen"));
        alarms.apply(0, happened("unseen"));
        alarms.apply(0, up("state", "still so"));
        assert!(alarms.deactivate(50, "seen").is_some());
        assert_eq!(alarms.expire(99), []);
        let over: Vec<_> = alarms.expire(100).into_iter().map(|a| a.name).collect();
        assert_eq!(over, ["unseen"]);
        assert!(
            alarms.is_active("state"),
            "a state ends only when it is over"
        );
        assert_eq!(alarms.ended().count(), 2);
        alarms.expire(150);
        let left: Vec<_> = alarms.ended().map(|a| a.name.as_str()).collect();
        assert_eq!(left, ["unseen"]);
        alarms.clear_ended();
        assert_eq!(alarms.ended().count(), 0);
        assert!(alarms.is_active("state"));
    }

    #[test]
    fn both_lists_are_bounded() {
        let mut alarms = Alarms::new(Limits {
            ended_max: 3,
            kept_ms: 1_000,
        });
        for n in 0..=ACTIVE_MAX {
            alarms.apply(0, up(&format!("{n}"), ""));
        }
        assert_eq!(
            (alarms.active().count(), alarms.suppressed()),
            (ACTIVE_MAX, 1)
        );
        for n in 0..ACTIVE_MAX {
            alarms.apply(n as u64, down(&format!("{n}")));
        }
        let last: Vec<_> = alarms.ended().map(|a| a.name.as_str()).collect();
        assert_eq!(last, ["999", "998", "997"]);
    }
}
