//! A whole cluster in memory: nodes, disks, connections and virtual time from one seed.
//!
//! Connections behave like TCP: ordered, delayed while cut, reset when a process dies. Disks keep
//! exactly what was reported as persisted, whole batches only.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use dunlin_cluster::{
    CallError, Check, Clock, Cluster, Config, ConnId, Cookie, DialError, Discover, Discovered,
    DiscoveryError, DownReason, Effect, Input, Lookup, MEMBERS, NodeName, Now, Operation,
    OperationError, Peer, RestoreError, Restored, SiteId, SnapshotId, Strategy, TableId, TableSpec,
    Wins, Write,
};

/// Virtual time at which everything starts, milliseconds since 1970.
pub(crate) const START_WALL_MS: u64 = 1_700_000_000_000;

/// Lost when leaving.
pub(crate) const RETAINED: TableId = TableId(16);

/// Kept when leaving.
pub(crate) const USERS: TableId = TableId(17);

pub(crate) fn specs() -> Vec<TableSpec> {
    let spec = |id, name, keep_on_leave| TableSpec {
        id,
        name,
        rows_max: 100_000,
        value_bytes_max: 1_000_000,
        keep_on_leave,
        wins: if id == USERS {
            Wins::Delete
        } else {
            Wins::Later
        },
    };
    vec![
        spec(RETAINED, "retained", false),
        spec(USERS, "users", true),
    ]
}

type Table = BTreeMap<Bytes, Bytes>;

/// What a crash leaves.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Disk {
    pub(crate) tables: BTreeMap<String, Table>,
}

impl Disk {
    fn apply(&mut self, writes: Vec<Write>) {
        for write in writes {
            match write {
                Write::Put { table, key, value } => {
                    self.tables.entry(table).or_default().insert(key, value);
                }
                Write::Delete { table, key } => {
                    self.tables.entry(table).or_default().remove(&key);
                }
                Write::Clear { table } => {
                    self.tables.remove(&table);
                }
                Write::Rename { from, to } => {
                    let rows = self.tables.remove(&from).unwrap_or_default();
                    self.tables.insert(to, rows);
                }
            }
        }
    }

    fn rows(&self, table: &str) -> impl Iterator<Item = (Bytes, Bytes)> {
        let rows = self.tables.get(table).into_iter().flatten();
        rows.map(|(key, value)| (key.clone(), value.clone()))
    }

    pub(crate) fn restored(&self) -> Restored {
        let mut rows: Vec<_> = self
            .rows("members")
            .map(|(key, value)| (MEMBERS, key, value))
            .collect();
        for spec in specs() {
            rows.extend(
                self.rows(spec.name)
                    .map(|(key, value)| (spec.id, key, value)),
            );
        }
        Restored {
            meta: self.rows("meta").collect(),
            rows,
        }
    }

    /// Whether any staging table has rows.
    pub(crate) fn is_staging(&self) -> bool {
        self.tables
            .iter()
            .any(|(name, rows)| name.starts_with("staging/") && !rows.is_empty())
    }
}

/// Keys and values of a batch.
fn bytes_of(writes: &[Write]) -> usize {
    let bytes = |write: &Write| match write {
        Write::Put { key, value, .. } => key.len() + value.len(),
        _ => 0,
    };
    writes.iter().map(bytes).sum()
}

/// One node: its core, its disk, and what its driver knows.
pub(crate) struct Node {
    pub(crate) name: NodeName,
    pub(crate) config: Config,
    pub(crate) core: Option<Cluster>,
    pub(crate) disk: Disk,
    /// Milliseconds its wall clock is ahead.
    pub(crate) skew_ms: i64,
    /// Own node state.
    pub(crate) own: BTreeMap<(u8, Bytes), Bytes>,
    /// The node state of others.
    pub(crate) seen: BTreeMap<SiteId, BTreeMap<(u8, Bytes), Bytes>>,
    snapshot: BTreeMap<SiteId, BTreeMap<(u8, Bytes), Bytes>>,
    pub(crate) snapshots: usize,
    pub(crate) up: BTreeMap<SiteId, Peer>,
    pub(crate) downs: Vec<(SiteId, DownReason)>,
    pub(crate) gone: Vec<SiteId>,
    /// Those of them that said so themselves.
    pub(crate) left: Vec<SiteId>,
    pub(crate) done: BTreeMap<u64, Result<(), OperationError>>,
    pub(crate) called: BTreeMap<u64, Result<Bytes, CallError>>,
    pub(crate) calls_in: Vec<Bytes>,
    pub(crate) casts: Vec<Bytes>,
    pub(crate) checks: Vec<Check>,
    pub(crate) settled: u64,
    pub(crate) resets: usize,
    pub(crate) archives: usize,
    pub(crate) handed: Vec<(ConnId, Bytes)>,
    /// Calls are answered with their own payload, unless switched off.
    pub(crate) answers: bool,
    pub(crate) frozen: bool,
    /// The process dies when this many more batches are durable.
    pub(crate) dies_after: Option<usize>,
    pub(crate) archive_fails: bool,
    pub(crate) disk_fails: bool,
    /// How long its disk takes for a batch, in milliseconds.
    pub(crate) disk_ms: u64,
    /// Bytes on their way to its disk, now and at most.
    pub(crate) unwritten: usize,
    pub(crate) most_unwritten: usize,
    pub(crate) batches: usize,
    life: u64,
    next_accept: u64,
}

#[derive(Debug)]
enum Event {
    Input(Input),
    Persist(u64, Vec<Write>),
    Dialed(ConnId, String, u16),
}

impl Node {
    /// Takes note of what the core says about others.
    fn note(&mut self, effect: Effect) {
        match effect {
            Effect::HandOff { conn, unread, .. } => self.handed.push((conn, unread)),
            Effect::Up { peer } => _ = self.up.insert(peer.site, peer),
            Effect::Down { site, reason } => {
                assert!(self.up.remove(&site).is_some(), "down without up");
                self.downs.push((site, reason));
            }
            Effect::Gone { site, left } => {
                self.up.remove(&site);
                self.seen.remove(&site);
                self.gone.push(site);
                if left {
                    self.left.push(site);
                }
            }
            Effect::OwnedBegin { site, .. } => {
                self.snapshots += 1;
                self.snapshot.insert(site, BTreeMap::new());
            }
            Effect::OwnedRow {
                site,
                table,
                key,
                value,
            } => {
                let bracket = self.snapshot.get_mut(&site);
                let rows = bracket.unwrap_or_else(|| self.seen.entry(site).or_default());
                match value {
                    Some(value) => rows.insert((table, key), value),
                    None => rows.remove(&(table, key)),
                };
            }
            Effect::OwnedEnd { site } => {
                let rows = self.snapshot.remove(&site).expect("begun");
                self.seen.insert(site, rows);
            }
            Effect::Settled { number } => {
                assert!(number > self.settled, "settled goes forward");
                self.settled = number;
            }
            Effect::Reset => self.resets += 1,
            Effect::CallDone { id, result } => {
                assert!(self.called.insert(id, result).is_none(), "done once");
            }
            Effect::CastIn { payload, .. } => self.casts.push(payload),
            Effect::Checked { check, .. } => self.checks.push(check),
            Effect::Done { id, result } => {
                assert!(self.done.insert(id, result).is_none(), "done once");
            }
            _ => {}
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
struct End {
    node: usize,
    conn: ConnId,
}

struct Pipe {
    other: End,
    /// When the last byte sent arrives.
    last_ms: u64,
}

pub(crate) struct Net {
    pub(crate) nodes: Vec<Node>,
    pub(crate) now_ms: u64,
    pub(crate) delay_ms: u64,
    /// Connections dialed so far.
    pub(crate) dials: usize,
    seed: u64,
    starts: u64,
    count: u64,
    queue: BinaryHeap<Reverse<(u64, u64)>>,
    events: BTreeMap<u64, (usize, u64, Event)>,
    pipes: BTreeMap<End, Pipe>,
    /// What waits for a stopped process.
    parked: Vec<(usize, u64)>,
    /// Bytes and ends that wait for a cut to heal.
    held: BTreeMap<End, Vec<Input>>,
    cuts: std::collections::BTreeSet<(usize, usize)>,
    pub(crate) trace: DefaultHasher,
    next_id: u64,
    /// What services answer, by the name or the directory they are asked for.
    pub(crate) answers: BTreeMap<String, Result<Vec<String>, DiscoveryError>>,
    /// Look-ups so far.
    pub(crate) lookups: Vec<(usize, Lookup)>,
    /// Keys in etcd and who wrote them; whoever has one watches the directory.
    pub(crate) keys: BTreeMap<String, usize>,
}

impl Net {
    pub(crate) fn new(seed: u64) -> Self {
        Self {
            nodes: Vec::new(),
            now_ms: 0,
            delay_ms: 2,
            dials: 0,
            seed,
            starts: 0,
            count: 0,
            queue: BinaryHeap::new(),
            events: BTreeMap::new(),
            pipes: BTreeMap::new(),
            held: BTreeMap::new(),
            parked: Vec::new(),
            cuts: std::collections::BTreeSet::new(),
            trace: DefaultHasher::new(),
            next_id: 0,
            answers: BTreeMap::new(),
            lookups: Vec::new(),
            keys: BTreeMap::new(),
        }
    }

    /// `count` nodes, running and alone.
    pub(crate) fn with(seed: u64, count: usize) -> Self {
        let mut net = Self::new(seed);
        for index in 1..=count {
            net.add(&format!("emqx{index}@10.0.0.{index}"));
        }
        for node in 0..count {
            net.start(node);
        }
        net.run(10);
        net
    }

    /// `count` nodes in one cluster.
    pub(crate) fn clustered(seed: u64, count: usize) -> Self {
        let mut net = Self::with(seed, count);
        for node in 1..count {
            net.join(node, 0).expect("joins");
        }
        net.until_whole();
        net
    }

    pub(crate) fn add(&mut self, name: &str) -> usize {
        let name = NodeName::parse(name).expect("valid");
        let mut config = Config::new(name.clone(), Cookie::new("secret"));
        config.tables = specs();
        self.nodes.push(Node {
            name,
            config,
            core: None,
            disk: Disk::default(),
            skew_ms: 0,
            own: BTreeMap::new(),
            seen: BTreeMap::new(),
            snapshot: BTreeMap::new(),
            snapshots: 0,
            up: BTreeMap::new(),
            downs: Vec::new(),
            gone: Vec::new(),
            left: Vec::new(),
            done: BTreeMap::new(),
            called: BTreeMap::new(),
            calls_in: Vec::new(),
            casts: Vec::new(),
            checks: Vec::new(),
            settled: 0,
            resets: 0,
            archives: 0,
            handed: Vec::new(),
            answers: true,
            frozen: false,
            dies_after: None,
            archive_fails: false,
            disk_fails: false,
            disk_ms: 1,
            unwritten: 0,
            most_unwritten: 0,
            batches: 0,
            life: 0,
            next_accept: 1,
        });
        self.nodes.len() - 1
    }

    pub(crate) fn start(&mut self, node: usize) {
        self.try_start(node).expect("starts");
    }

    pub(crate) fn try_start(&mut self, node: usize) -> Result<(), RestoreError> {
        assert!(self.nodes[node].core.is_none(), "runs already");
        self.starts += 1;
        let seed = self.seed.wrapping_mul(1_000_003).wrapping_add(self.starts);
        let now = self.now(node);
        let config = self.nodes[node].config.clone();
        let restored = self.nodes[node].disk.restored();
        let (core, effects) = Cluster::new(now, config, restored, Arc::new(Clock::new()), seed)?;
        let this = &mut self.nodes[node];
        this.core = Some(core);
        this.life += 1;
        this.seen.clear();
        this.up.clear();
        this.own.clear();
        this.settled = 0;
        self.perform(node, effects);
        Ok(())
    }

    /// The process dies: its peers' connections are reset, its port refuses.
    pub(crate) fn kill(&mut self, node: usize) {
        self.nodes[node].core = None;
        self.nodes[node].frozen = false;
        let ends: Vec<_> = self
            .pipes
            .keys()
            .copied()
            .filter(|end| end.node == node)
            .collect();
        for end in ends {
            self.hang_up(end);
        }
    }

    /// Bytes between two nodes stop, both ways; connections stay until somebody gives up.
    pub(crate) fn cut(&mut self, a: usize, b: usize) {
        self.cuts.extend([(a, b), (b, a)]);
    }

    pub(crate) fn heal(&mut self, a: usize, b: usize) {
        self.cuts.remove(&(a, b));
        self.cuts.remove(&(b, a));
        let held: Vec<_> = self.held.keys().copied().collect();
        for end in held {
            let Some(pipe) = self.pipes.get(&end) else {
                self.held.remove(&end);
                continue;
            };
            let other = pipe.other;
            if !self.is_cut(end.node, other.node) {
                // TCP repeats after a while, not at once.
                for input in self.held.remove(&end).unwrap_or_default() {
                    self.carry(end, other, input, 200);
                }
            }
        }
    }

    /// Resets one connection of each pair between two nodes.
    pub(crate) fn reset_links(&mut self, a: usize, b: usize) {
        let between = |(end, pipe): (&End, &Pipe)| {
            (end.node == a && pipe.other.node == b).then_some((*end, pipe.other))
        };
        let pairs: Vec<_> = self.pipes.iter().filter_map(between).collect();
        for (end, other) in pairs {
            self.hang_up(end);
            self.after(1, end.node, Event::Input(Input::Closed { conn: end.conn }));
            let _ = other;
        }
    }

    fn is_cut(&self, from: usize, to: usize) -> bool {
        self.cuts.contains(&(from, to))
    }

    pub(crate) fn now(&self, node: usize) -> Now {
        let wall_ms = (START_WALL_MS + self.now_ms).saturating_add_signed(self.nodes[node].skew_ms);
        Now {
            mono_ms: self.now_ms,
            wall_ms,
        }
    }

    fn after(&mut self, ms: u64, node: usize, event: Event) {
        self.count += 1;
        self.queue.push(Reverse((self.now_ms + ms, self.count)));
        self.events
            .insert(self.count, (node, self.nodes[node].life, event));
    }

    /// A little different for every message, from the seed.
    fn jitter(&mut self) -> u64 {
        let mut hasher = DefaultHasher::new();
        (self.seed, self.count).hash(&mut hasher);
        hasher.finish() % (self.delay_ms + 1)
    }

    fn carry(&mut self, from: End, to: End, input: Input, extra_ms: u64) {
        let delay = self.delay_ms + self.jitter() + extra_ms;
        let now_ms = self.now_ms;
        let Some(pipe) = self.pipes.get_mut(&from) else {
            return;
        };
        let due = (now_ms + delay).max(pipe.last_ms);
        pipe.last_ms = due;
        self.after(due - now_ms, to.node, Event::Input(input));
    }

    fn hang_up(&mut self, end: End) {
        let Some(pipe) = self.pipes.get(&end) else {
            return;
        };
        let other = pipe.other;
        let input = Input::Closed { conn: other.conn };
        if self.is_cut(end.node, other.node) {
            // Nobody hears of it; the other end gives up by itself.
        } else {
            self.carry(end, other, input, 0);
        }
        self.pipes.remove(&end);
        self.held.remove(&end);
    }

    fn dialed(&mut self, from: usize, conn: ConnId, host: &str, port: u16) {
        self.dials += 1;
        let found = self
            .nodes
            .iter()
            .position(|n| n.name.host() == host && n.name.port() == port);
        let failed = |error| Event::Input(Input::DialFailed { conn, error });
        let Some(to) = found else {
            return self.after(0, from, failed(DialError::Resolve("no such host".into())));
        };
        if self.is_cut(from, to) {
            return;
        }
        if self.nodes[to].core.is_none() {
            return self.after(0, from, failed(DialError::Refused(None)));
        }
        let accepted = ConnId(self.nodes[to].next_accept);
        self.nodes[to].next_accept += 2;
        let (near, far) = (
            End { node: from, conn },
            End {
                node: to,
                conn: accepted,
            },
        );
        let last_ms = self.now_ms;
        self.pipes.insert(
            near,
            Pipe {
                other: far,
                last_ms,
            },
        );
        self.pipes.insert(
            far,
            Pipe {
                other: near,
                last_ms,
            },
        );
        let name = self.nodes[from].name.to_string();
        self.carry(
            near,
            far,
            Input::Accepted {
                conn: accepted,
                from: name,
            },
            0,
        );
        self.carry(far, near, Input::Connected { conn }, 0);
    }

    pub(crate) fn input(&mut self, node: usize, input: Input) {
        let now = self.now(node);
        let Some(core) = self.nodes[node].core.as_mut() else {
            return;
        };
        let mut effects = Vec::new();
        core.handle(now, input, &mut effects);
        self.perform(node, effects);
    }

    fn perform(&mut self, node: usize, effects: Vec<Effect>) {
        for effect in effects {
            (node, self.now_ms, format!("{effect:?}")).hash(&mut self.trace);
            self.effect(node, effect);
        }
    }

    /// Carries out what touches the network or the disk; the rest is only taken note of.
    fn effect(&mut self, node: usize, effect: Effect) {
        match effect {
            Effect::Dial { conn, host, port } => {
                self.after(self.delay_ms, node, Event::Dialed(conn, host, port));
            }
            Effect::Send { conn, bytes } => self.send(End { node, conn }, bytes),
            Effect::Close { conn } => self.hang_up(End { node, conn }),
            Effect::Persist { token, writes } => {
                let this = &mut self.nodes[node];
                this.unwritten += bytes_of(&writes);
                this.most_unwritten = this.most_unwritten.max(this.unwritten);
                let disk_ms = this.disk_ms;
                self.after(disk_ms, node, Event::Persist(token, writes));
            }
            Effect::Archive { token } => {
                let this = &mut self.nodes[node];
                this.archives += 1;
                let result = if this.archive_fails {
                    Err("full".into())
                } else {
                    Ok("backup/x".into())
                };
                self.after(1, node, Event::Input(Input::Archived { token, result }));
            }
            Effect::SnapshotWanted { want, cursor } => self.snapshot(node, want, cursor.as_ref()),
            Effect::Discover(Discover::LookUp { token, lookup }) => {
                self.look_up(node, token, lookup);
            }
            Effect::Discover(Discover::Follow { lookup }) => self.follow(node, lookup),
            Effect::Discover(Discover::Send { to, datagram }) => {
                self.multicast(node, to, &datagram);
            }
            Effect::CallIn { call, payload, .. } => {
                let this = &mut self.nodes[node];
                this.calls_in.push(payload.clone());
                if this.answers {
                    self.after(1, node, Event::Input(Input::Reply { call, payload }));
                }
            }
            noted => self.nodes[node].note(noted),
        }
    }

    fn send(&mut self, end: End, bytes: Bytes) {
        let Some(pipe) = self.pipes.get(&end) else {
            return;
        };
        let other = pipe.other;
        let input = Input::Received {
            conn: other.conn,
            bytes,
        };
        if self.is_cut(end.node, other.node) {
            self.held.entry(end).or_default().push(input);
        } else {
            self.carry(end, other, input, 0);
        }
    }

    fn look_up(&mut self, node: usize, token: u64, lookup: Lookup) {
        let result = match &lookup {
            Lookup::Dns { name, .. } => self.answers.get(name).cloned(),
            Lookup::K8s { service, .. } => self.answers.get(&service.service_name).cloned(),
            Lookup::Etcd { directory } => self.answers.get(directory).cloned().or_else(|| {
                let names = self.keys.keys();
                Some(Ok(names
                    .filter_map(|key| key.strip_prefix(directory))
                    .map(String::from)
                    .collect()))
            }),
        };
        self.lookups.push((node, lookup));
        // A name nobody set is a server that never answers.
        if let Some(result) = result {
            let input = Input::Discovered(Discovered::Answer { token, result });
            self.after(2 * self.delay_ms, node, Event::Input(input));
        }
    }

    /// One network, in which everybody hears everybody, itself included.
    fn multicast(&mut self, node: usize, to: Option<SocketAddr>, datagram: &Bytes) {
        let address = |node: usize| SocketAddr::from(([10, 0, 0, node as u8 + 1], 4369));
        for other in 0..self.nodes.len() {
            let meant = to.is_none_or(|to| to == address(other));
            let uses = self.nodes[other].config.strategy == Strategy::Multicast;
            if meant && uses && !self.is_cut(node, other) {
                let (from, datagram) = (address(node), datagram.clone());
                let input = Input::Discovered(Discovered::Received { from, datagram });
                self.after(self.delay_ms, other, Event::Input(input));
            }
        }
    }

    /// As the driver does for etcd.
    fn follow(&mut self, node: usize, lookup: Option<Lookup>) {
        match lookup {
            Some(Lookup::Etcd { directory }) => {
                let name = self.nodes[node].name.as_str().to_owned();
                self.keys.insert(format!("{directory}{name}"), node);
                let in_it = self
                    .keys
                    .iter()
                    .filter(|(key, _)| key.starts_with(&directory));
                let watchers: Vec<usize> = in_it.map(|(_, node)| *node).collect();
                for watcher in watchers {
                    let found = vec![name.clone()];
                    let input = Input::Discovered(Discovered::Sighted { found });
                    self.after(2 * self.delay_ms, watcher, Event::Input(input));
                }
            }
            Some(Lookup::Dns { .. } | Lookup::K8s { .. }) => {}
            None => self.keys.retain(|_, owner| *owner != node),
        }
    }

    fn snapshot(&mut self, node: usize, want: SnapshotId, cursor: Option<&(u8, Bytes)>) {
        let after = |row: &(u8, Bytes)| cursor.is_none_or(|c| row > c);
        let own = &self.nodes[node].own;
        let rows: Vec<_> = own.iter().filter(|(row, _)| after(row)).collect();
        // Smaller chunks than a real driver's, to have many.
        let done = rows.len() <= 10;
        let chunk = rows.into_iter().take(10);
        let rows = chunk
            .map(|((t, k), v)| (*t, k.clone(), v.clone()))
            .collect();
        let answer = Input::SnapshotRows { want, rows, done };
        self.after(1, node, Event::Input(answer));
    }

    fn happen(&mut self, node: usize, life: u64, event: Event) {
        let alive = self.nodes[node].core.is_some() && self.nodes[node].life == life;
        match event {
            Event::Dialed(conn, host, port) if alive => self.dialed(node, conn, &host, port),
            Event::Persist(token, writes) if alive => self.persisted(node, token, writes),
            Event::Input(Input::Accepted { conn, from }) if !alive => {
                drop(from);
                self.hang_up(End { node, conn });
            }
            Event::Input(input) if alive => {
                if let Input::Closed { conn } = &input {
                    self.pipes.remove(&End { node, conn: *conn });
                }
                self.input(node, input);
            }
            _ => {}
        }
    }

    fn persisted(&mut self, node: usize, token: u64, writes: Vec<Write>) {
        let this = &mut self.nodes[node];
        this.unwritten -= bytes_of(&writes);
        if this.disk_fails {
            let error = "disk full".to_owned();
            return self.input(node, Input::PersistFailed { token, error });
        }
        this.disk.apply(writes);
        this.batches += 1;
        if let Some(left) = &mut this.dies_after {
            if *left == 0 {
                this.dies_after = None;
                return self.kill(node);
            }
            *left -= 1;
        }
        self.input(node, Input::Persisted { token });
    }

    /// One step of virtual time; `false` when nothing would happen before `limit_ms`.
    fn step(&mut self, limit_ms: u64) -> bool {
        for (node, id) in std::mem::take(&mut self.parked) {
            if self.nodes[node].frozen {
                self.parked.push((node, id));
            } else {
                self.queue.push(Reverse((self.now_ms, id)));
            }
        }
        let ticks = self
            .nodes
            .iter()
            .filter(|n| !n.frozen)
            .filter_map(|n| n.core.as_ref());
        let tick = ticks.map(Cluster::next_tick).min().unwrap_or(u64::MAX);
        let event = self.queue.peek().map_or(u64::MAX, |Reverse((due, _))| *due);
        let next = tick.min(event);
        if next > limit_ms {
            self.now_ms = limit_ms;
            return false;
        }
        if event <= tick.max(self.now_ms) {
            let Some(Reverse((due, id))) = self.queue.pop() else {
                return false;
            };
            self.now_ms = self.now_ms.max(due);
            let Some((node, life, event)) = self.events.remove(&id) else {
                return true;
            };
            if self.nodes[node].frozen && self.nodes[node].life == life {
                // A stopped process hears everything when it goes on, in order.
                self.events.insert(id, (node, life, event));
                self.parked.push((node, id));
            } else {
                self.happen(node, life, event);
            }
            return true;
        }
        self.now_ms = self.now_ms.max(tick);
        for node in 0..self.nodes.len() {
            let this = &self.nodes[node];
            let due = this
                .core
                .as_ref()
                .is_some_and(|core| core.next_tick() <= self.now_ms);
            if due && !this.frozen {
                self.input(node, Input::Tick);
                let again = self.nodes[node]
                    .core
                    .as_ref()
                    .map_or(u64::MAX, Cluster::next_tick);
                assert!(
                    again > self.now_ms,
                    "node {node} is due again at once at {again}, seed {}\n{}",
                    self.seed,
                    self.describe()
                );
            }
        }
        true
    }

    pub(crate) fn run(&mut self, ms: u64) {
        let limit = self.now_ms + ms;
        while self.step(limit) {}
    }

    /// Runs until something holds and returns how long that took.
    pub(crate) fn until(&mut self, max_ms: u64, what: &str, holds: impl Fn(&Self) -> bool) -> u64 {
        let start = self.now_ms;
        while !holds(self) {
            let more = self.step(start + max_ms);
            assert!(
                more || holds(self),
                "not within {max_ms} ms: {what}\n{}",
                self.describe()
            );
        }
        self.now_ms - start
    }

    pub(crate) fn describe(&self) -> String {
        let shown = self.nodes.iter().map(|node| {
            let status = node.core.as_ref().map(Cluster::status);
            format!("{}: {status:?}\n  done {:?}\n", node.name, node.done)
        });
        shown.collect()
    }

    pub(crate) fn core(&self, node: usize) -> &Cluster {
        self.nodes[node].core.as_ref().expect("runs")
    }

    pub(crate) fn site(&self, node: usize) -> SiteId {
        self.core(node).identity().read().expect("readable").site
    }

    /// Starts an operation and returns its id.
    pub(crate) fn operate(&mut self, node: usize, op: Operation) -> u64 {
        self.next_id += 1;
        let id = self.next_id;
        self.input(node, Input::Operation { id, op });
        id
    }

    /// An operation and its outcome.
    pub(crate) fn run_operation(
        &mut self,
        node: usize,
        op: Operation,
    ) -> Result<(), OperationError> {
        let id = self.operate(node, op);
        self.until(30_000, "the operation ends", |net| {
            net.nodes[node].done.contains_key(&id)
        });
        self.nodes[node].done[&id].clone()
    }

    pub(crate) fn join(&mut self, node: usize, target: usize) -> Result<(), OperationError> {
        let target = self.nodes[target].name.clone();
        self.run_operation(node, Operation::Join { target })
    }

    pub(crate) fn put(&mut self, node: usize, table: TableId, key: &str, value: Option<&str>) {
        let value = value.map(|value| Bytes::copy_from_slice(value.as_bytes()));
        let key = Bytes::copy_from_slice(key.as_bytes());
        self.input(node, Input::Put { table, key, value });
    }

    pub(crate) fn get(&self, node: usize, table: TableId, key: &str) -> Option<Bytes> {
        self.core(node).table(table).get(key.as_bytes())
    }

    pub(crate) fn own(&mut self, node: usize, key: &str, value: Option<&str>) {
        let key = Bytes::copy_from_slice(key.as_bytes());
        let value = value.map(|value| Bytes::copy_from_slice(value.as_bytes()));
        let rows = &mut self.nodes[node].own;
        match &value {
            Some(value) => rows.insert((0, key.clone()), value.clone()),
            None => rows.remove(&(0, key.clone())),
        };
        self.input(
            node,
            Input::Own {
                table: 0,
                key,
                value,
            },
        );
    }

    /// Running and stopped members as a node shows them, by short name.
    pub(crate) fn shown(&self, node: usize) -> (Vec<String>, Vec<String>) {
        let status = self.core(node).status();
        let short = |name: &NodeName| name.short().to_owned();
        (
            status.running().map(short).collect(),
            status.stopped().map(short).collect(),
        )
    }

    pub(crate) fn shows(&self, node: usize, running: &[usize], stopped: &[usize]) -> bool {
        let names = |nodes: &[usize]| -> Vec<String> {
            nodes
                .iter()
                .map(|n| self.nodes[*n].name.short().to_owned())
                .collect()
        };
        self.shown(node) == (names(running), names(stopped))
    }

    /// Whether all running nodes show each other as running, are up to each other, and have equal
    /// tables and each other's node state.
    pub(crate) fn is_whole(&self) -> bool {
        let running: Vec<_> = (0..self.nodes.len())
            .filter(|n| self.nodes[*n].core.is_some())
            .collect();
        running.iter().all(|a| {
            let shown = self.shown(*a).0;
            let mut names: Vec<_> = running
                .iter()
                .map(|n| self.nodes[*n].name.short().to_owned())
                .collect();
            names.sort();
            shown == names && running.iter().all(|b| a == b || self.agree(*a, *b))
        })
    }

    fn agree(&self, a: usize, b: usize) -> bool {
        let site = self.site(b);
        let seen = self.nodes[a].seen.get(&site).cloned().unwrap_or_default();
        let equal =
            |table| self.core(a).table(table).digests() == self.core(b).table(table).digests();
        self.nodes[a].up.contains_key(&site)
            && seen == self.nodes[b].own
            && [MEMBERS, RETAINED, USERS].into_iter().all(equal)
    }

    pub(crate) fn until_whole(&mut self) -> u64 {
        self.until(30_000, "one whole cluster", Self::is_whole)
    }

    /// Checks that every node's disk would restore what its memory has.
    pub(crate) fn check_disks(&mut self) {
        self.run(5);
        for node in 0..self.nodes.len() {
            let Some(core) = &self.nodes[node].core else {
                continue;
            };
            for (name, id) in [
                ("members", MEMBERS),
                ("retained", RETAINED),
                ("users", USERS),
            ] {
                let table = core.table(id);
                let read = table.read();
                let memory: Table = read
                    .rows(std::ops::Bound::Unbounded)
                    .map(|(key, row)| (Bytes::copy_from_slice(key), row.to_row().encode()))
                    .collect();
                let disk: Table = self.nodes[node].disk.rows(name).collect();
                assert_eq!(memory, disk, "{name} of node {node}, seed {}", self.seed);
            }
            assert!(
                !self.nodes[node].disk.is_staging(),
                "staging of node {node}"
            );
        }
    }
}
