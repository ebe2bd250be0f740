//! Wills as their clients left them, and what arrived of them.
//!
//! Kept is what a client can know: that it left one with a CONNECT, what the answer was, how its
//! connection ended and when it connected again. What follows from that is the invariant's.

use std::collections::BTreeMap;

use crate::oracle::Life;

/// A will: whose, and with which of its connections it was left.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct WillId {
    /// The client.
    pub client: usize,
    /// The number of its connection.
    pub attempt: u64,
}

impl WillId {
    /// The payload that carries it.
    pub fn payload(self) -> String {
        format!("w{}.{}", self.client, self.attempt)
    }

    /// Reads a payload back.
    pub fn parse(payload: &[u8]) -> Option<Self> {
        let text = std::str::from_utf8(payload).ok()?;
        let (client, attempt) = text.strip_prefix('w')?.split_once('.')?;
        Some(Self {
            client: client.parse().ok()?,
            attempt: attempt.parse().ok()?,
        })
    }
}

/// How a connection ended, as far as its client knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Parting {
    /// It said DISCONNECT, and that all is well.
    Clean,
    /// The connection was closed or reset: its node hears of it.
    Closed,
    /// The client's machine vanished: its node hears nothing.
    Vanished,
}

/// What a client asks for with a CONNECT.
#[derive(Clone, Debug)]
pub struct Left {
    /// Where the will is published.
    pub topic: &'static str,
    /// 0, 1 or 2.
    pub qos: u8,
    /// Whether it is retained.
    pub retain: bool,
    /// How long after the end of the connection it is published, milliseconds; 0 as well if the
    /// session ends with the connection.
    pub delay_ms: u64,
}

/// A CONNACK that says yes.
#[derive(Clone, Copy, Debug)]
pub struct Answer {
    /// When it came.
    pub at: u64,
    /// Whether a session was present.
    pub present: bool,
    /// The number of the session it leads to.
    pub session: u32,
}

/// One CONNECT of a client.
#[derive(Clone, Copy, Debug)]
pub struct Connecting {
    /// When it was sent.
    pub at: u64,
    /// To which node.
    pub on: Life,
    /// Whether it forgets an earlier session.
    pub clean: bool,
    /// What was answered, if that was yes.
    pub answered: Option<Answer>,
    /// When and how the connection ended.
    pub end: Option<(u64, Parting)>,
}

/// The end of a node's process.
#[derive(Clone, Copy, Debug)]
pub struct Death {
    /// When.
    pub at: u64,
    /// Its host is gone as well: nothing says that it is dead.
    pub silent: bool,
}

/// A will that reached a client.
#[derive(Clone, Copy, Debug)]
pub struct WillGot {
    /// Which.
    pub will: WillId,
    /// By whom.
    pub client: usize,
    /// On which of its connections.
    pub attempt: u64,
    /// Whether it was flagged as retained.
    pub retain: bool,
    /// When.
    pub at: u64,
}

/// See the module.
#[derive(Debug, Default)]
pub struct Wills {
    left: BTreeMap<WillId, Left>,
    connections: BTreeMap<WillId, Connecting>,
    /// When lives of nodes ended.
    deaths: BTreeMap<Life, Death>,
    got: BTreeMap<WillId, Vec<WillGot>>,
    fresh: Vec<WillGot>,
}

impl Wills {
    /// CONNECT is sent.
    pub fn connecting(&mut self, id: WillId, connecting: Connecting, left: Option<Left>) {
        self.connections.insert(id, connecting);
        if let Some(left) = left {
            self.left.insert(id, left);
        }
    }

    /// CONNACK said yes.
    pub fn answered(&mut self, id: WillId, answer: Answer) {
        if let Some(connection) = self.connections.get_mut(&id) {
            connection.answered = Some(answer);
        }
    }

    /// A connection ended; what is heard of it later changes nothing, unless its node closed it
    /// before it could read the client's goodbye.
    pub fn ended(&mut self, id: WillId, at: u64, how: Parting) {
        let Some(connection) = self.connections.get_mut(&id) else {
            return;
        };
        match &mut connection.end {
            Some((_, known @ Parting::Clean)) => *known = how,
            Some(_) => {}
            none => *none = Some((at, how)),
        }
    }

    /// A node's process is gone.
    pub fn died(&mut self, life: Life, death: Death) {
        self.deaths.insert(life, death);
    }

    /// A will reached a client.
    pub fn deliver(&mut self, got: WillGot) {
        self.got.entry(got.will).or_default().push(got);
        self.fresh.push(got);
    }

    /// They were checked.
    pub fn checked(&mut self) {
        self.fresh.clear();
    }

    // What the invariant asks.

    /// Wills that arrived since the last check.
    pub fn fresh(&self) -> &[WillGot] {
        &self.fresh
    }

    /// All wills.
    pub fn all(&self) -> impl Iterator<Item = (WillId, &Left)> {
        self.left.iter().map(|(id, left)| (*id, left))
    }

    /// One of them.
    pub fn left(&self, id: WillId) -> Option<&Left> {
        self.left.get(&id)
    }

    /// The connection a will was left with.
    pub fn connection(&self, id: WillId) -> Option<&Connecting> {
        self.connections.get(&id)
    }

    /// The client's next CONNECT.
    pub fn next(&self, id: WillId) -> Option<&Connecting> {
        let from = WillId {
            attempt: id.attempt + 1,
            ..id
        };
        let until = WillId {
            attempt: u64::MAX,
            ..id
        };
        let mut later = self.connections.range(from..=until);
        later.next().map(|(_, connection)| connection)
    }

    /// The CONNECTs of a client, oldest first.
    pub fn connections(&self, client: usize) -> impl Iterator<Item = &Connecting> {
        let of = |attempt| WillId { client, attempt };
        let all = self.connections.range(of(0)..=of(u64::MAX));
        all.map(|(_, connection)| connection)
    }

    /// When a life of a node ended.
    pub fn death(&self, life: Life) -> Option<u64> {
        self.dead(life).map(|death| death.at)
    }

    /// When, and how.
    pub fn dead(&self, life: Life) -> Option<Death> {
        self.deaths.get(&life).copied()
    }

    /// When a process ended last.
    pub fn last_death(&self) -> Option<u64> {
        self.deaths.values().map(|death| death.at).max()
    }

    /// All arrivals of a will.
    pub fn got(&self, id: WillId) -> &[WillGot] {
        self.got.get(&id).map_or(&[], Vec::as_slice)
    }
}
