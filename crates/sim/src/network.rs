//! The network: TCP connections as ordered byte streams that are delayed, stalled and reset, never
//! reordered and never corrupted.
//!
//! A cut stops one direction between two hosts: bytes on the way stall and are tried again, as TCP
//! does. A connection that stalls for too long is given up by its sender; the other end learns of
//! it when the way is free, or gives up as well. A dead process refuses and resets, a host without
//! power says nothing at all. Must never decide anything about what the bytes mean.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use bytes::Bytes;
use dunlin_broker::node::SocketId;
use dunlin_cluster::DialError;
use rand::Rng;
use rand::rngs::SmallRng;

/// How often a stalled segment and an unanswered dial are tried again, milliseconds.
const RETRY_MS: u64 = 400;
/// When a dial without any answer fails, milliseconds.
const DIAL_TIMEOUT_MS: u64 = 5_000;

/// A machine on the network.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Place {
    /// The machine of a node.
    Host(usize),
    /// The machine of a client.
    Client(usize),
}

/// Who reads and writes one end of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum End {
    /// A node's process.
    Node {
        /// The host.
        host: usize,
        /// The node's name of the connection.
        socket: SocketId,
    },
    /// A client.
    Client {
        /// Which.
        client: usize,
        /// Its number of the connection.
        attempt: u64,
    },
}

impl End {
    /// The machine it is on.
    pub fn place(self) -> Place {
        match self {
            Self::Node { host, .. } => Place::Host(host),
            Self::Client { client, .. } => Place::Client(client),
        }
    }
}

/// What a listening port is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Port {
    /// Clients.
    Mqtt,
    /// Other nodes.
    Peer,
}

/// Something the network wants to be woken for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Wake {
    /// The first segment of a flow.
    Arrive {
        /// The connection.
        wire: u32,
        /// The sending side.
        from: usize,
    },
    /// A connection attempt.
    Dial(u32),
}

/// Something that reached one end.
#[derive(Debug)]
pub enum Arrival {
    /// A listening port got a connection; `from` dialed it.
    Accepted {
        /// Where.
        host: usize,
        /// At which port.
        port: Port,
        /// The end the acceptor has to give a name with [`Network::accept`].
        wire: u32,
        /// Who dialed.
        from: Place,
    },
    /// The dialed connection stands.
    Connected(End),
    /// It could not be made.
    DialFailed(End, DialError),
    /// Bytes.
    Bytes(End, Bytes),
    /// The connection ended.
    Closed {
        /// Whose end.
        end: End,
        /// Whether it was reset and not closed in order.
        reset: bool,
    },
}

#[derive(Debug)]
enum Segment {
    Open,
    Refused,
    Bytes(Bytes),
    Fin,
    Reset,
}

#[derive(Debug, Default)]
struct Flow {
    /// Segments with the time they arrive at the earliest.
    queue: VecDeque<(u64, Segment)>,
    armed: bool,
    stalled_since: Option<u64>,
    last_ms: u64,
}

#[derive(Debug)]
struct Wire {
    ends: [Option<End>; 2],
    places: [Place; 2],
    port: Port,
    /// By sending side.
    flows: [Flow; 2],
    /// One machine vanished from the network without a word, for this connection.
    silent: bool,
    /// It carries nothing for now, whatever its way.
    hung: bool,
}

#[derive(Debug)]
struct Dial {
    from: End,
    to: usize,
    port: Port,
    deadline_ms: u64,
}

/// How bytes travel.
#[derive(Clone, Debug)]
pub struct Conditions {
    /// Shortest delay of one way, milliseconds.
    pub delay_min_ms: u64,
    /// Longest delay of one way, milliseconds.
    pub delay_max_ms: u64,
    /// When a stalled connection is given up, milliseconds.
    pub give_up_ms: u64,
    /// Chance that a piece of bytes arrives in two pieces.
    pub split: f64,
}

/// All hosts' and clients' connections.
#[derive(Debug)]
pub struct Network {
    conditions: Conditions,
    wires: BTreeMap<u32, Wire>,
    by_end: BTreeMap<End, (u32, usize)>,
    dials: BTreeMap<u32, Dial>,
    next: u32,
    /// Directions that are cut.
    cuts: BTreeSet<(Place, Place)>,
    /// Hosts without power.
    dark: BTreeSet<usize>,
    /// Hosts whose process listens.
    listening: BTreeSet<usize>,
    wakes: Vec<(u64, Wake)>,
}

impl Network {
    /// A network without any connection.
    pub fn new(conditions: Conditions) -> Self {
        Self {
            conditions,
            wires: BTreeMap::new(),
            by_end: BTreeMap::new(),
            dials: BTreeMap::new(),
            next: 0,
            cuts: BTreeSet::new(),
            dark: BTreeSet::new(),
            listening: BTreeSet::new(),
            wakes: Vec::new(),
        }
    }

    /// What is to be woken since the last call.
    pub fn wakes(&mut self) -> std::vec::Drain<'_, (u64, Wake)> {
        self.wakes.drain(..)
    }

    /// Stops one direction.
    pub fn cut(&mut self, from: Place, to: Place) {
        self.cuts.insert((from, to));
    }

    /// Frees one direction.
    pub fn heal(&mut self, from: Place, to: Place) {
        self.cuts.remove(&(from, to));
    }

    /// Frees everything.
    pub fn heal_all(&mut self) {
        self.cuts.clear();
        self.wires.values_mut().for_each(|wire| wire.hung = false);
    }

    /// One connection hangs, both ways, while all others are well.
    pub fn hang(&mut self, end: End) {
        if let Some((wire, _)) = self.by_end.get(&end)
            && let Some(found) = self.wires.get_mut(wire)
        {
            found.hung = true;
        }
    }

    /// Connections between two machines that hang carry again.
    pub fn resume(&mut self, a: Place, b: Place) {
        for wire in self.wires.values_mut() {
            if wire.places == [a, b] || wire.places == [b, a] {
                wire.hung = false;
            }
        }
    }

    /// Whether bytes pass that way now.
    pub fn is_open(&self, from: Place, to: Place) -> bool {
        let lit = |place| !matches!(place, Place::Host(host) if self.dark.contains(&host));
        !self.cuts.contains(&(from, to)) && lit(from) && lit(to)
    }

    /// A process listens at a host, or does not.
    pub fn listen(&mut self, host: usize, listens: bool) {
        if listens {
            self.listening.insert(host);
            self.dark.remove(&host);
        } else {
            self.listening.remove(&host);
        }
    }

    /// A host's power goes: nobody is told.
    pub fn power_off(&mut self, now: u64, host: usize) {
        self.listening.remove(&host);
        self.dark.insert(host);
        self.drop_ends(now, host, None);
    }

    /// A host is on again, without a process.
    pub fn power_on(&mut self, host: usize) {
        self.dark.remove(&host);
    }

    /// A process dies: the system closes its connections; what it had sent may still arrive.
    pub fn kill(&mut self, now: u64, host: usize, rng: &mut SmallRng) {
        self.listening.remove(&host);
        let lose = rng.random_bool(0.5);
        self.drop_ends(now, host, Some((lose, rng)));
    }

    fn drop_ends(&mut self, now: u64, host: usize, mut tell: Option<(bool, &mut SmallRng)>) {
        self.dials
            .retain(|_, dial| dial.from.place() != Place::Host(host));
        let at = |end: &End| end.place() == Place::Host(host);
        let ends: Vec<End> = self.by_end.keys().copied().filter(at).collect();
        for end in ends {
            let Some((wire, side)) = self.by_end.remove(&end) else {
                continue;
            };
            let Some(found) = self.wires.get_mut(&wire) else {
                continue;
            };
            found.ends[side] = None;
            let Some((lose, rng)) = &mut tell else {
                let answer = found.flows[side]
                    .queue
                    .iter()
                    .any(|(_, s)| matches!(s, Segment::Open));
                found.flows[side].queue.clear();
                if answer {
                    self.unanswered(now, wire);
                }
                continue;
            };
            if *lose {
                found.flows[side].queue.clear();
                self.push(now, (wire, side), Segment::Reset, rng);
            } else {
                self.push(now, (wire, side), Segment::Fin, rng);
            }
        }
    }

    /// The answer to a dial was lost with the machine that gave it: the dialer tries on.
    fn unanswered(&mut self, now: u64, id: u32) {
        let Some(Wire {
            ends: [Some(from), _],
            places: [_, Place::Host(to)],
            port,
            ..
        }) = self.wires.remove(&id)
        else {
            return;
        };
        self.by_end.remove(&from);
        self.dials.insert(
            id,
            Dial {
                from,
                to,
                port,
                deadline_ms: now + DIAL_TIMEOUT_MS,
            },
        );
        self.wakes.push((now + RETRY_MS, Wake::Dial(id)));
    }

    /// Opens a connection to a host.
    pub fn dial(&mut self, now: u64, from: End, to: usize, port: Port, rng: &mut SmallRng) {
        let id = self.number();
        let dial = Dial {
            from,
            to,
            port,
            deadline_ms: now + DIAL_TIMEOUT_MS,
        };
        self.dials.insert(id, dial);
        let delay = self.delay(rng);
        self.wakes.push((now + delay, Wake::Dial(id)));
    }

    /// Names the accepting end of a connection.
    pub fn accept(&mut self, wire: u32, end: End) {
        if let Some(found) = self.wires.get_mut(&wire) {
            found.ends[1] = Some(end);
            self.by_end.insert(end, (wire, 1));
        }
    }

    /// Sends bytes; they are lost when the connection is gone. Nodes write to none that is still
    /// being dialed: `links` is there for that.
    pub fn send(&mut self, now: u64, end: End, bytes: Bytes, rng: &mut SmallRng) {
        let Some(&at) = self.by_end.get(&end) else {
            return;
        };
        let split = bytes.len() > 1 && rng.random_bool(self.conditions.split);
        if split {
            let (mut first, mid) = (bytes, 0);
            let mid = rng.random_range(mid + 1..first.len());
            let rest = first.split_off(mid);
            self.push(now, at, Segment::Bytes(first), rng);
            self.push(now, at, Segment::Bytes(rest), rng);
        } else {
            self.push(now, at, Segment::Bytes(bytes), rng);
        }
    }

    /// Closes an end in order, or gives up dialing it.
    pub fn close(&mut self, now: u64, end: End, rng: &mut SmallRng) {
        self.dials.retain(|_, dial| dial.from != end);
        if let Some((wire, side)) = self.leave(end) {
            self.push(now, (wire, side), Segment::Fin, rng);
        }
    }

    /// Resets an end from the outside: both sides see the connection end.
    pub fn reset(&mut self, now: u64, end: End, rng: &mut SmallRng) -> Option<Arrival> {
        let (wire, side) = self.leave(end)?;
        let found = self.wires.get_mut(&wire)?;
        found.flows[side].queue.clear();
        self.push(now, (wire, side), Segment::Reset, rng);
        Some(Arrival::Closed { end, reset: true })
    }

    /// A client's machine vanishes for this connection: the other end hears nothing at all.
    pub fn vanish(&mut self, end: End) {
        self.dials.retain(|_, dial| dial.from != end);
        if let Some((wire, _)) = self.leave(end)
            && let Some(found) = self.wires.get_mut(&wire)
        {
            found.silent = true;
        }
    }

    /// Ends of connections between two machines, the first machine's.
    pub fn ends_between(&self, a: Place, b: Place) -> Vec<End> {
        let wires = self.wires.values();
        let ends = wires.filter_map(|wire| match wire.places {
            places if places == [a, b] => wire.ends[0],
            places if places == [b, a] => wire.ends[1],
            _ => None,
        });
        ends.collect()
    }

    /// Ends of connections that one machine has dialed to another, the dialer's.
    pub fn ends_dialed(&self, from: Place, to: Place) -> Vec<End> {
        let dialed = self.wires.values().filter(|w| w.places == [from, to]);
        dialed.filter_map(|wire| wire.ends[0]).collect()
    }

    /// Whether the other end of an established connection is gone.
    pub fn is_half_open(&self, end: End) -> bool {
        let wire = self
            .by_end
            .get(&end)
            .and_then(|(wire, side)| Some((self.wires.get(wire)?, side)));
        wire.is_some_and(|(wire, side)| wire.ends[1 - side].is_none())
    }

    /// Connections that are open at one end at least.
    pub fn wires_len(&self) -> usize {
        self.wires.len()
    }

    fn leave(&mut self, end: End) -> Option<(u32, usize)> {
        let (wire, side) = self.by_end.remove(&end)?;
        let found = self.wires.get_mut(&wire)?;
        found.ends[side] = None;
        Some((wire, side))
    }

    fn number(&mut self) -> u32 {
        self.next += 1;
        self.next
    }

    fn delay(&self, rng: &mut SmallRng) -> u64 {
        rng.random_range(self.conditions.delay_min_ms..=self.conditions.delay_max_ms)
    }

    fn push(&mut self, now: u64, (id, from): (u32, usize), segment: Segment, rng: &mut SmallRng) {
        let delay = self.delay(rng);
        let Some(wire) = self.wires.get_mut(&id) else {
            return;
        };
        let flow = &mut wire.flows[from];
        flow.last_ms = flow.last_ms.max(now + delay);
        flow.queue.push_back((flow.last_ms, segment));
        if !flow.armed {
            flow.armed = true;
            self.wakes
                .push((flow.last_ms, Wake::Arrive { wire: id, from }));
        }
    }

    /// Does what it asked to be woken for.
    pub fn wake(&mut self, now: u64, wake: Wake, rng: &mut SmallRng, out: &mut Vec<Arrival>) {
        match wake {
            Wake::Arrive { wire, from } => self.arrive(now, (wire, from), rng, out),
            Wake::Dial(id) => self.try_dial(now, id, rng, out),
        }
    }

    fn try_dial(&mut self, now: u64, id: u32, rng: &mut SmallRng, out: &mut Vec<Arrival>) {
        let Some(dial) = self.dials.get(&id) else {
            return;
        };
        let (from, to, port) = (dial.from, dial.to, dial.port);
        let here = from.place();
        let there = Place::Host(to);
        if !self.is_open(here, there) || !self.is_open(there, here) {
            if now >= dial.deadline_ms {
                self.dials.remove(&id);
                out.push(Arrival::DialFailed(from, DialError::TimedOut));
            } else {
                self.wakes.push((now + RETRY_MS, Wake::Dial(id)));
            }
            return;
        }
        self.dials.remove(&id);
        let wire = Wire {
            ends: [Some(from), None],
            places: [here, there],
            port,
            flows: [Flow::default(), Flow::default()],
            silent: false,
            hung: false,
        };
        self.wires.insert(id, wire);
        self.by_end.insert(from, (id, 0));
        if self.listening.contains(&to) {
            self.push(now, (id, 1), Segment::Open, rng);
            out.push(Arrival::Accepted {
                host: to,
                port,
                wire: id,
                from: here,
            });
        } else {
            self.push(now, (id, 1), Segment::Refused, rng);
        }
    }

    fn arrive(
        &mut self,
        now: u64,
        (id, from): (u32, usize),
        rng: &mut SmallRng,
        out: &mut Vec<Arrival>,
    ) {
        let Some(wire) = self.wires.get(&id) else {
            return;
        };
        let stuck = wire.silent || wire.hung;
        let open = !stuck && self.is_open(wire.places[from], wire.places[1 - from]);
        if !open {
            self.stall(now, (id, from), rng, out);
            return;
        }
        let Some(wire) = self.wires.get_mut(&id) else {
            return;
        };
        let flow = &mut wire.flows[from];
        flow.stalled_since = None;
        flow.armed = false;
        let mut due = Vec::new();
        while flow.queue.front().is_some_and(|(at, _)| *at <= now) {
            due.extend(flow.queue.pop_front().map(|(_, segment)| segment));
        }
        for segment in due {
            self.land(now, (id, from), segment, rng, out);
        }
        self.rearm((id, from));
        self.forget_if_over(id);
    }

    /// The way is closed: try again, or give the connection up.
    fn stall(
        &mut self,
        now: u64,
        (id, from): (u32, usize),
        rng: &mut SmallRng,
        out: &mut Vec<Arrival>,
    ) {
        let Some(wire) = self.wires.get_mut(&id) else {
            return;
        };
        let flow = &mut wire.flows[from];
        let since = *flow.stalled_since.get_or_insert(now);
        if now - since < self.conditions.give_up_ms {
            self.wakes
                .push((now + RETRY_MS, Wake::Arrive { wire: id, from }));
            return;
        }
        flow.queue.clear();
        flow.armed = false;
        flow.stalled_since = None;
        // The sender gives up; without a sender it is the receiver whose probes get no answer.
        let sender = wire.ends[from];
        let loser = if sender.is_some() { from } else { 1 - from };
        if let Some(end) = wire.ends[loser].take() {
            self.by_end.remove(&end);
            out.push(Arrival::Closed { end, reset: true });
        }
        if wire.ends[1 - loser].is_some() {
            self.push(now, (id, loser), Segment::Reset, rng);
        }
        self.forget_if_over(id);
    }

    fn land(
        &mut self,
        now: u64,
        (id, from): (u32, usize),
        segment: Segment,
        rng: &mut SmallRng,
        out: &mut Vec<Arrival>,
    ) {
        let Some(wire) = self.wires.get_mut(&id) else {
            return;
        };
        let Some(end) = wire.ends[1 - from] else {
            // Nobody is there: the machine answers data with a reset.
            if matches!(segment, Segment::Bytes(_)) && wire.ends[from].is_some() {
                self.push(now, (id, 1 - from), Segment::Reset, rng);
            }
            return;
        };
        match segment {
            Segment::Open => out.push(Arrival::Connected(end)),
            Segment::Bytes(bytes) => out.push(Arrival::Bytes(end, bytes)),
            Segment::Refused => {
                self.gone((id, 1 - from), end);
                out.push(Arrival::DialFailed(end, DialError::Refused(None)));
            }
            Segment::Fin | Segment::Reset => {
                let reset = matches!(segment, Segment::Reset);
                self.gone((id, 1 - from), end);
                out.push(Arrival::Closed { end, reset });
            }
        }
    }

    fn gone(&mut self, (id, side): (u32, usize), end: End) {
        self.by_end.remove(&end);
        if let Some(wire) = self.wires.get_mut(&id) {
            wire.ends[side] = None;
            wire.flows[side].queue.clear();
        }
    }

    fn rearm(&mut self, (id, from): (u32, usize)) {
        let Some(wire) = self.wires.get_mut(&id) else {
            return;
        };
        let flow = &mut wire.flows[from];
        if !flow.armed
            && let Some((at, _)) = flow.queue.front()
        {
            flow.armed = true;
            self.wakes.push((*at, Wake::Arrive { wire: id, from }));
        }
    }

    fn forget_if_over(&mut self, id: u32) {
        let over = |wire: &Wire| wire.ends == [None, None];
        if self.wires.get(&id).is_some_and(over) {
            self.wires.remove(&id);
        }
    }
}
