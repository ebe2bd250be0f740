//! The simulated world: one clock, one generator, one heap of events; hosts, clients and a network
//! between them.
//!
//! It takes events off the heap in the order of their time, gives them to whom they concern and
//! carries out what those want. Nothing happens outside an event, and nothing here depends on the
//! machine it runs on: a seed is a run.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap, VecDeque};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;

use bytes::Bytes;
use dunlin_broker::Shard;
use dunlin_broker::effects::{Accepted, CloseReason};
use dunlin_broker::node::{NodeEffect, NodeInput, SocketId};
use dunlin_broker::settings::ListenerSettings;
use dunlin_cluster::{
    DialError, Discover, Discovered, DiscoveryError, Operation, OperationError, Service,
};
use dunlin_storage::Batch;
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

use crate::client::{Act, Alarm, Client};
use crate::disk::RETRY_MS;
use crate::host::{Host, Peer};
use crate::network::{Arrival, End, Network, Place, Port, Wake};
use crate::oracle::{Cause, Life, Oracle};
use crate::plant::{Persisting, Plant};
use crate::trace::{Record, Trace};
use crate::violation::Violation;
use crate::wills::{Death, Parting, WillId};
use crate::workload::{Options, Step};

mod operate;

/// How long an archive takes, milliseconds.
const ARCHIVE_MS: u64 = 5;
/// Sessions a shard gives away at once.
const EVICTED_SESSIONS: usize = 4;
/// How often an operator tries a join again that was refused because somebody was busy.
const JOIN_TRIES: u32 = 20;
/// How long the operator waits between tries, milliseconds.
const JOIN_PAUSE_MS: u64 = 700;
/// Ticks in a row without the clock moving on, after which a node spins.
const SPIN_MAX: u32 = 1_000;

#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Event {
    Script(usize),
    Net(Wake),
    Tick { host: usize, life: u32 },
    Drained { host: usize, life: u32, socket: u64 },
    Commit { host: usize, life: u32 },
    Archived { host: usize, life: u32, token: u64 },
    DialFailed { host: usize, life: u32, socket: u64 },
    Client(usize, Alarm),
    Retry(u64),
}

/// An operator's request and what became of it.
#[derive(Clone, Debug)]
pub struct Operated {
    /// On which host.
    pub host: usize,
    /// The request.
    pub op: Operation,
    /// When it was given.
    pub at: u64,
    /// When and how it ended; `None` while it is not known.
    pub done: Option<(u64, Result<(), OperationError>)>,
    /// In which life of the node.
    pub on: Life,
    tries: u32,
}

/// One run's world.
pub struct World {
    /// What the seed stands for.
    pub options: Options,
    /// The script.
    pub script: Vec<Step>,
    /// Virtual time, milliseconds.
    pub now: u64,
    /// The machines of nodes.
    pub hosts: Vec<Host>,
    /// The clients.
    pub clients: Vec<Client>,
    /// The network.
    pub network: Network,
    /// What was promised.
    pub oracle: Oracle,
    /// What happened.
    pub trace: Trace,
    /// What operators asked for, by number.
    pub operations: BTreeMap<u64, Operated>,
    /// What is done wrong on purpose.
    pub plant: Plant,
    /// Nodes that could not start, or otherwise broke a rule of the world.
    pub faults: Vec<Violation>,
    /// Connections that nodes wrote to before they stood: the host, and its name of the connection.
    pub early_writes: Vec<(usize, SocketId)>,
    /// What nodes wrote to each other so far: how often, and bytes.
    pub between_nodes: (u64, u64),
    heap: BinaryHeap<Reverse<(u64, u64, Event)>>,
    recording: bool,
    healed: bool,
    pushed: u64,
    steps: u64,
    rng: SmallRng,
    effects: Vec<NodeEffect>,
    arrivals: Vec<Arrival>,
    acts: Vec<Act>,
    listener: Arc<ListenerSettings>,
    spin: (usize, u64, u32),
    /// What each host last held, for the trace.
    loads: BTreeMap<usize, String>,
}

impl World {
    /// A world before its first event.
    pub fn new(options: Options, script: Vec<Step>, plant: Plant, record: Record) -> Self {
        let hosts: Vec<Host> = (0..options.nodes).map(|n| Host::new(n, &options)).collect();
        let profiles = options.clients.iter().cloned().enumerate();
        let client = |(n, profile)| Client::new(n, profile, &options);
        let clients: Vec<Client> = profiles.map(client).collect();
        let mut world = Self {
            now: 0,
            oracle: Oracle::new(&options),
            network: Network::new(options.conditions.clone()),
            healed: false,
            recording: !matches!(record, Record::Nothing),
            trace: Trace::new(record),
            operations: BTreeMap::new(),
            plant,
            faults: Vec::new(),
            early_writes: Vec::new(),
            between_nodes: (0, 0),
            heap: BinaryHeap::new(),
            pushed: 0,
            steps: 0,
            rng: SmallRng::seed_from_u64(options.seed ^ 0x3011_d0e5_1b0b_5eed),
            effects: Vec::new(),
            arrivals: Vec::new(),
            acts: Vec::new(),
            listener: Arc::new(ListenerSettings::default()),
            spin: (0, 0, 0),
            loads: BTreeMap::new(),
            options,
            script,
            hosts,
            clients,
        };
        let recording = world.recording;
        world
            .clients
            .iter_mut()
            .for_each(|client| client.chatty = recording);
        for index in 0..world.script.len() {
            world.push(world.script[index].at, Event::Script(index));
        }
        world
    }

    fn push(&mut self, at: u64, event: Event) {
        self.pushed += 1;
        self.heap
            .push(Reverse((at.max(self.now), self.pushed, event)));
    }

    /// When the next event is.
    pub fn next_at(&self) -> Option<u64> {
        self.heap.peek().map(|Reverse((at, _, _))| *at)
    }

    /// Runs one event; `false` when there is none before `until`.
    pub fn step(&mut self, until: u64) -> bool {
        if self.next_at().is_none_or(|at| at > until) {
            self.now = self.now.max(until);
            return false;
        }
        let Some(Reverse((at, _, event))) = self.heap.pop() else {
            return false;
        };
        self.now = at;
        self.steps += 1;
        self.event(event);
        self.arm();
        true
    }

    /// Enters what the network wants to be woken for.
    fn arm(&mut self) {
        let wakes: Vec<_> = self.network.wakes().collect();
        for (at, wake) in wakes {
            self.push(at, Event::Net(wake));
        }
    }

    fn event(&mut self, event: Event) {
        let alive = |world: &Self, host: usize, life: u32| {
            world.hosts[host]
                .process
                .as_ref()
                .is_some_and(|p| p.life == life)
        };
        match event {
            // What the script has left when the faults end does not happen.
            Event::Script(_) if self.healed => {}
            Event::Script(index) => {
                let op = self.script[index].op.clone();
                self.operate(&op);
            }
            Event::Net(wake) => self.net(wake),
            Event::Tick { host, life } => {
                if alive(self, host, life) {
                    self.tick(host);
                }
            }
            Event::Drained { host, life, socket } => {
                if alive(self, host, life) {
                    self.drained(host, SocketId(socket));
                }
            }
            Event::Commit { host, life } => {
                if alive(self, host, life) {
                    self.commit(host);
                }
            }
            Event::Archived { host, life, token } => {
                if alive(self, host, life) {
                    let written = self.hosts[host].disk.archive();
                    let result = written.map_err(|error| error.to_string());
                    self.tell(host, NodeInput::Archived { token, result });
                }
            }
            Event::DialFailed { host, life, socket } => {
                if alive(self, host, life) {
                    let error = DialError::Resolve("no such host".to_owned());
                    let socket = SocketId(socket);
                    self.tell(host, NodeInput::PeerDialFailed { socket, error });
                }
            }
            Event::Client(client, alarm) => {
                let hosts = self.hosts.len();
                let about = (hosts, &mut self.oracle);
                let acts = &mut self.acts;
                self.clients[client].wake(self.now, &alarm, about, &mut self.rng, acts);
                self.act(client);
            }
            Event::Retry(id) => self.retry(id),
        }
    }

    // Nodes.

    /// Gives a node an input and carries out what it wants.
    fn tell(&mut self, host: usize, input: NodeInput) {
        if let Some(waiting) = &mut self.hosts[host].waiting {
            waiting.push(input);
            return;
        }
        let mut inputs = VecDeque::from([input]);
        while let Some(input) = inputs.pop_front() {
            let now = self.hosts[host].now(self.now);
            let Some(process) = self.hosts[host].process.as_mut() else {
                return;
            };
            self.trace.speaks(self.now, host);
            note(&mut self.trace, self.now, host, &input);
            process.hears(&input);
            let mut out = std::mem::take(&mut self.effects);
            process.node.handle(now, input, &mut out);
            self.load(host);
            let Some(process) = self.hosts[host].process.as_ref() else {
                return;
            };
            let identity = process.node.control().core().identity();
            let cluster = identity.read().expect("no writer panics").cluster;
            self.oracle.belongs(self.now, host, cluster);
            for effect in out.drain(..) {
                self.effect(host, effect, &mut inputs);
            }
            self.effects = out;
            inputs.extend(self.plant.forged(host));
        }
        self.schedule(host);
    }

    /// Puts what a node holds into the trace when that has changed.
    fn load(&mut self, host: usize) {
        if !self.recording {
            return;
        }
        let Some(node) = self.hosts[host].node() else {
            return;
        };
        let counts = node.shards().iter().map(Shard::counts);
        let shards = counts.map(|c| format!("{}/{}/{}", c.sessions, c.queued, c.inflight));
        let mut load = shards.collect::<Vec<_>>().join(" ");
        node.shared().router().read().for_each_route(|route| {
            if let Some(group) = route.group {
                let at = route
                    .node
                    .map_or_else(|| "here".to_owned(), |node| node.0.to_string());
                load.extend([" ", group, ":", route.filter, "@", &at]);
            }
        });
        if self.loads.get(&host) != Some(&load) {
            self.trace.say(self.now, || {
                format!("n{host} sessions/queued/inflight {load}")
            });
            self.loads.insert(host, load);
        }
    }

    fn effect(&mut self, host: usize, effect: NodeEffect, inputs: &mut VecDeque<NodeInput>) {
        match effect {
            NodeEffect::ClientSend { socket, bytes } => self.client_send(host, socket, bytes),
            NodeEffect::ClientClose { socket, why } => {
                self.accused(host, socket, why);
                if self.plant.keeps_open(why) {
                    return;
                }
                self.trace
                    .say(self.now, || format!("n{host} closes {socket:?}: {why:?}"));
                let Some(process) = self.hosts[host].process.as_mut() else {
                    return;
                };
                if let Some(peer) = process.clients.remove(&socket) {
                    let Peer {
                        client, attempt, ..
                    } = peer;
                    let how = if why == CloseReason::Normal {
                        Parting::Clean
                    } else {
                        Parting::Closed
                    };
                    let connection = WillId { client, attempt };
                    self.oracle.hung_up(self.now, connection, how);
                }
                process.draining.remove(&socket);
                let end = End::Node { host, socket };
                self.network.close(self.now, end, &mut self.rng);
                inputs.push_back(NodeInput::ClientClosed { socket, why });
            }
            NodeEffect::PeerDial {
                socket,
                host: to,
                port,
            } => self.dial(host, socket, &to, port),
            NodeEffect::PeerSend { socket, bytes } => self.peer_send(host, socket, bytes),
            NodeEffect::PeerClose { socket } => {
                if let Some(process) = self.hosts[host].process.as_mut() {
                    process.peers.remove(&socket);
                    process.dialing.remove(&socket);
                }
                let end = End::Node { host, socket };
                self.network.close(self.now, end, &mut self.rng);
            }
            NodeEffect::Persist { token, batch } => self.persist(host, token, batch),
            NodeEffect::Archive { token } => {
                let life = self.oracle.life(host).1;
                self.push(self.now + ARCHIVE_MS, Event::Archived { host, life, token });
            }
            NodeEffect::Discover(Discover::LookUp { token, lookup }) => {
                if let Some(result) = self.looked_up(host, lookup.service()) {
                    inputs.push_back(NodeInput::Discovered(Discovered::Answer { token, result }));
                }
            }
            NodeEffect::Discover(Discover::Follow { .. } | Discover::Send { .. }) => {}
            NodeEffect::Progress { id, step } => {
                self.trace
                    .say(self.now, || format!("n{host} operation {id}: {step}"));
            }
            NodeEffect::Done { id, result } => self.done(host, id, result),
        }
    }

    /// What the service that knows all nodes answers, if it does.
    fn looked_up(
        &mut self,
        host: usize,
        of: Service,
    ) -> Option<Result<Vec<String>, DiscoveryError>> {
        if self.hosts[host].dns_fails {
            return Some(Err(DiscoveryError::TimedOut { of, ms: 0 }));
        }
        let mut names: Vec<String> = self.hosts.iter().map(|h| h.name.to_string()).collect();
        if self.plant.hides_nodes() {
            names.clear();
        }
        if !self.hosts[host].lied_to {
            return Some(Ok(names));
        }
        match self.rng.random_range(0..6) {
            0 => return None,
            1 => return Some(Err(DiscoveryError::TimedOut { of, ms: 4_000 })),
            _ => {}
        }
        names.retain(|_| self.rng.random_bool(0.5));
        let lies = [
            "emqx9@h9.sim",
            "",
            "@",
            "emqx0@",
            "emqx0@nowhere.sim",
            "emqx0@h1.sim",
        ];
        for lie in lies {
            if self.rng.random_bool(0.3) {
                names.push(lie.to_owned());
            }
        }
        Some(Ok(names))
    }

    /// Clients here follow the specification; a node that says otherwise is wrong.
    fn accused(&mut self, host: usize, socket: SocketId, why: CloseReason) {
        let wrong = [CloseReason::ProtocolError, CloseReason::FrameError];
        let process = self.hosts[host].process.as_ref();
        let client = process.and_then(|process| process.clients.get(&socket));
        if let (true, Some(&Peer { client, .. })) = (wrong.contains(&why), client)
            && !self.oracle.is_split(client)
        {
            let seen = format!("node {host} closes client {client}: {}", why.as_str());
            self.faults.push(Violation::new("protocol", seen));
        }
    }

    fn schedule(&mut self, host: usize) {
        let machine = &mut self.hosts[host];
        let Some(process) = machine.process.as_ref() else {
            return;
        };
        let next = process.node.next_tick();
        if next == u64::MAX {
            return;
        }
        let (life, scheduled) = (process.life, process.tick_at);
        let at = machine.world_ms(next).max(self.now);
        // An earlier tick is never in the way: a node ticked too soon does nothing.
        if at < scheduled || scheduled < self.now {
            if let Some(process) = machine.process.as_mut() {
                process.tick_at = at;
            }
            self.push(at, Event::Tick { host, life });
        }
    }

    fn tick(&mut self, host: usize) {
        let Some(process) = self.hosts[host].process.as_mut() else {
            return;
        };
        if process.tick_at > self.now {
            return;
        }
        process.tick_at = u64::MAX;
        let (last, at, count) = self.spin;
        let spinning = (last, at) == (host, self.now);
        self.spin = (host, self.now, if spinning { count + 1 } else { 0 });
        if self.spin.2 == SPIN_MAX {
            let seen = format!("node {host} asks for ticks without end at {} ms", self.now);
            self.faults.push(Violation::new("bounds", seen));
        }
        self.tell(host, NodeInput::Tick);
    }

    fn client_send(&mut self, host: usize, socket: SocketId, bytes: Bytes) {
        let Some(process) = self.hosts[host].process.as_mut() else {
            return;
        };
        let Some(peer) = process.clients.get_mut(&socket) else {
            return;
        };
        // The first packet a client gets is CONNACK; its code is the fourth byte.
        if !peer.up && bytes.first() == Some(&0x20) && bytes.get(3) == Some(&0) {
            peer.up = true;
        }
        let client = peer.client;
        let version = self.options.clients[client].version;
        for (socket, bytes) in self
            .plant
            .client_send((host, socket, client), version, bytes)
        {
            let end = End::Node { host, socket };
            self.network.send(self.now, end, bytes, &mut self.rng);
        }
        let Some(process) = self.hosts[host].process.as_mut() else {
            return;
        };
        if process.draining.insert(socket) {
            let drained = Event::Drained {
                host,
                life: process.life,
                socket: socket.0,
            };
            self.push(self.now + 1, drained);
        }
    }

    fn drained(&mut self, host: usize, socket: SocketId) {
        let Some(process) = self.hosts[host].process.as_mut() else {
            return;
        };
        if process.draining.remove(&socket) {
            self.tell(host, NodeInput::ClientDrained { socket });
        }
    }

    fn dial(&mut self, host: usize, socket: SocketId, to: &str, port: u16) {
        let target = self
            .hosts
            .iter()
            .find(|h| h.name.host() == to && h.name.port() == port);
        let resolved = target
            .filter(|_| !self.hosts[host].dns_fails)
            .map(|h| h.index);
        self.trace.say(self.now, || {
            format!("n{host} dials {to}:{port} as {socket:?}")
        });
        if let Some(process) = self.hosts[host].process.as_mut() {
            process.dialing.insert(socket);
        }
        if let Some(bytes) = self.plant.early_write() {
            self.peer_send(host, socket, bytes);
        }
        let Some(target) = resolved else {
            let life = self.oracle.life(host).1;
            self.push(
                self.now + 1,
                Event::DialFailed {
                    host,
                    life,
                    socket: socket.0,
                },
            );
            return;
        };
        if let Some(process) = self.hosts[host].process.as_mut() {
            process.peers.insert(socket, target);
        }
        let end = End::Node { host, socket };
        self.network
            .dial(self.now, end, target, Port::Peer, &mut self.rng);
    }

    fn peer_send(&mut self, host: usize, socket: SocketId, bytes: Bytes) {
        let process = self.hosts[host].process.as_ref();
        if process.is_some_and(|process| process.dialing.contains(&socket)) {
            self.early_writes.push((host, socket));
            return;
        }
        let bytes = self.plant.peer_send(host, bytes);
        self.between_nodes.0 += 1;
        self.between_nodes.1 += bytes.len() as u64;
        let end = End::Node { host, socket };
        self.network.send(self.now, end, bytes, &mut self.rng);
    }

    fn persist(&mut self, host: usize, token: u64, batch: Batch) {
        self.trace.event(
            "persist",
            self.now,
            &[host as u64, token, batch.ops.len() as u64],
        );
        let disk = &mut self.hosts[host].disk;
        let first = match self.plant.persist(batch) {
            Persisting::Write(batch) => disk.write(token, batch),
            Persisting::Forget => Ok(disk.forget(token)),
        };
        match first {
            Ok(true) => {
                let life = self.oracle.life(host).1;
                let at = self.now + self.options.commit_ms + self.plant.delay_ms();
                self.push(at, Event::Commit { host, life });
            }
            Ok(false) => {}
            Err(error) => {
                let seen = format!("node {host} wrote a batch the store refuses: {error}");
                self.faults.push(Violation::new("bounds", seen));
            }
        }
    }

    fn commit(&mut self, host: usize) {
        let (answers, again) = self.hosts[host]
            .disk
            .commit(self.now, self.plant.hides_disk());
        if again {
            let life = self.oracle.life(host).1;
            self.push(self.now + RETRY_MS, Event::Commit { host, life });
        }
        for (token, result) in answers {
            self.tell(host, NodeInput::Persisted { token, result });
        }
    }

    /// Starts the process of a host, if it does not run.
    pub fn start(&mut self, host: usize) {
        if self.hosts[host].process.is_some() {
            return;
        }
        self.trace.event("start", self.now, &[host as u64]);
        self.trace.say(self.now, || format!("n{host} starts"));
        self.oracle.started(self.now, host);
        self.trace.speaks(self.now, host);
        let queue_max = self.plant.mqueue_len_max(self.options.mqueue_len_max);
        let configured = (queue_max, self.plant.autoheal(self.options.autoheal));
        match self.hosts[host].start(self.now, &self.options, configured) {
            Ok(effects) => {
                self.network.listen(host, true);
                self.oracle.runs_again(self.now, host);
                let mut inputs = VecDeque::new();
                for effect in effects {
                    self.effect(host, effect, &mut inputs);
                }
                for input in inputs {
                    self.tell(host, input);
                }
                self.schedule(host);
            }
            Err(error) => {
                let seen = format!("node {host} cannot start: {error}");
                self.faults.push(Violation::new("join", seen));
            }
        }
    }

    /// Ends the process of a host; `power` takes the machine from the network as well.
    pub fn stop(&mut self, host: usize, power: bool) {
        if self.hosts[host].process.take().is_none() {
            return;
        }
        self.hosts[host].disk.crash(&mut self.rng);
        self.stopped(host, power);
    }

    /// Ends the process of a host with exactly `kept` of its uncommitted batches on disk.
    pub fn stop_keeping(&mut self, host: usize, kept: usize) {
        if self.hosts[host].process.take().is_some() {
            self.hosts[host].disk.crash_keeping(kept);
            self.stopped(host, false);
        }
    }

    fn stopped(&mut self, host: usize, power: bool) {
        self.trace
            .event("stop", self.now, &[host as u64, u64::from(power)]);
        self.trace
            .say(self.now, || format!("n{host} dies (power: {power})"));
        self.hosts[host].waiting = None;
        let life = self.oracle.life(host);
        let death = Death {
            at: self.now,
            silent: power,
        };
        self.oracle.wills.died(life, death);
        self.oracle.disturb(self.now, Cause::Stopped, host, None);
        self.plant.stopped(host);
        if power {
            self.network.power_off(self.now, host);
        } else {
            self.network.kill(self.now, host, &mut self.rng);
        }
    }

    // The network.

    fn net(&mut self, wake: Wake) {
        let mut arrivals = std::mem::take(&mut self.arrivals);
        self.network
            .wake(self.now, wake, &mut self.rng, &mut arrivals);
        for arrival in arrivals.drain(..) {
            self.arrival(arrival);
        }
        self.arrivals = arrivals;
    }

    fn arrival(&mut self, arrival: Arrival) {
        match arrival {
            Arrival::Accepted {
                host,
                port,
                wire,
                from,
            } => self.accept(host, port, wire, from),
            Arrival::Connected(End::Node { host, socket }) => {
                self.tell(host, NodeInput::PeerConnected { socket });
            }
            Arrival::Connected(End::Client { client, attempt }) => {
                let acts = &mut self.acts;
                self.clients[client].connected(self.now, attempt, &mut self.oracle, acts);
                self.act(client);
            }
            Arrival::DialFailed(End::Node { host, socket }, error) => {
                if let Some(process) = self.hosts[host].process.as_mut() {
                    process.peers.remove(&socket);
                }
                self.tell(host, NodeInput::PeerDialFailed { socket, error });
            }
            Arrival::Bytes(End::Node { host, socket }, bytes) => {
                self.node_received(host, socket, bytes);
            }
            Arrival::Bytes(End::Client { client, attempt }, bytes) => {
                let about = (attempt, &bytes[..]);
                let acts = &mut self.acts;
                self.clients[client].received(self.now, about, &mut self.oracle, acts);
                self.act(client);
            }
            Arrival::Closed {
                end: End::Node { host, socket },
                reset,
            } => {
                self.node_lost(host, socket, reset);
            }
            Arrival::DialFailed(End::Client { client, attempt }, _)
            | Arrival::Closed {
                end: End::Client { client, attempt },
                ..
            } => {
                let (rng, acts) = (&mut self.rng, &mut self.acts);
                self.clients[client].closed(self.now, attempt, &mut self.oracle, rng, acts);
                self.act(client);
            }
        }
    }

    fn accept(&mut self, host: usize, port: Port, wire: u32, from: Place) {
        let Some(process) = self.hosts[host].process.as_mut() else {
            return;
        };
        let socket = process.next_socket();
        self.network.accept(wire, End::Node { host, socket });
        match (port, from) {
            (Port::Mqtt, Place::Client(client)) => {
                // Who gives a connection up gives its dialing up as well: it is the present one.
                let connection = self.clients[client].connection();
                let peer = Peer {
                    client,
                    attempt: connection.map_or(0, |(attempt, _)| attempt),
                    up: false,
                };
                process.clients.insert(socket, peer);
                let info = Accepted {
                    listener: self.listener.clone(),
                    peer: address(from, 40_000),
                    local: address(Place::Host(host), 1_883),
                    peer_cert: None,
                    ws: false,
                };
                self.tell(host, NodeInput::ClientAccepted { socket, info });
            }
            (_, from) => {
                if let Place::Host(other) = from {
                    process.peers.insert(socket, other);
                }
                let from = address(from, 50_000).to_string();
                self.tell(host, NodeInput::PeerAccepted { socket, from });
            }
        }
    }

    fn node_received(&mut self, host: usize, socket: SocketId, bytes: Bytes) {
        let Some(process) = self.hosts[host].process.as_ref() else {
            return;
        };
        match process.clients.get(&socket) {
            Some(&Peer { client, .. }) => {
                let version = self.options.clients[client].version;
                let at = (host, socket, client);
                let passed = self.plant.client_received(at, version, bytes);
                for (host, socket, bytes) in self.plant.sneaked() {
                    let end = End::Node { host, socket };
                    self.network.send(self.now, end, bytes, &mut self.rng);
                }
                if let Some(bytes) = passed {
                    self.tell(host, NodeInput::ClientReceived { socket, bytes });
                }
            }
            None => self.tell(host, NodeInput::PeerReceived { socket, bytes }),
        }
    }

    fn node_lost(&mut self, host: usize, socket: SocketId, reset: bool) {
        let Some(process) = self.hosts[host].process.as_mut() else {
            return;
        };
        process.draining.remove(&socket);
        if process.clients.remove(&socket).is_some() {
            let why = if reset {
                CloseReason::TcpError
            } else {
                CloseReason::TcpClosed
            };
            self.tell(host, NodeInput::ClientClosed { socket, why });
        } else {
            process.peers.remove(&socket);
            self.tell(host, NodeInput::PeerClosed { socket });
        }
    }

    // Clients.

    fn act(&mut self, client: usize) {
        let acts = std::mem::take(&mut self.acts);
        for act in acts {
            match act {
                Act::Dial(attempt, host) => {
                    let end = End::Client { client, attempt };
                    self.trace
                        .say(self.now, || format!("c{client} dials n{host}"));
                    self.network
                        .dial(self.now, end, host, Port::Mqtt, &mut self.rng);
                }
                Act::Send(attempt, bytes) => {
                    let end = End::Client { client, attempt };
                    self.trace
                        .event("client", self.now, &[client as u64, attempt]);
                    self.trace.bytes(&bytes);
                    self.network.send(self.now, end, bytes, &mut self.rng);
                }
                Act::Close(attempt) => {
                    let end = End::Client { client, attempt };
                    self.trace.say(self.now, || format!("c{client} closes"));
                    self.network.close(self.now, end, &mut self.rng);
                }
                Act::Say(line) => self.trace.say(self.now, || line),
                Act::Wake(at, alarm) => self.push(at, Event::Client(client, alarm)),
            }
        }
    }

    /// Events taken off the heap so far.
    pub fn steps(&self) -> u64 {
        self.steps
    }

    /// Lets a planted bug reach into the nodes.
    pub fn meddle(&mut self) {
        self.plant.meddle(&self.hosts);
    }
}

fn note(trace: &mut Trace, now: u64, host: usize, input: &NodeInput) {
    let (kind, socket, bytes): (_, _, &[u8]) = match input {
        NodeInput::Tick => ("tick", 0, &[]),
        NodeInput::ClientAccepted { socket, .. } => ("client accepted", socket.0, &[]),
        NodeInput::ClientReceived { socket, bytes } => ("client received", socket.0, bytes),
        NodeInput::ClientDrained { socket } => ("client drained", socket.0, &[]),
        NodeInput::ClientClosed { socket, .. } => ("client closed", socket.0, &[]),
        NodeInput::PeerAccepted { socket, .. } => ("peer accepted", socket.0, &[]),
        NodeInput::PeerConnected { socket } => ("peer connected", socket.0, &[]),
        NodeInput::PeerDialFailed { socket, .. } => ("peer dial failed", socket.0, &[]),
        NodeInput::PeerReceived { socket, bytes } => ("peer received", socket.0, bytes),
        NodeInput::PeerClosed { socket } => ("peer closed", socket.0, &[]),
        NodeInput::Persisted { token, .. } => ("persisted", *token, &[]),
        NodeInput::Archived { token, .. } => ("archived", *token, &[]),
        NodeInput::Discovered(_) => ("discovered", 0, &[]),
        NodeInput::Operation { id, .. } => ("operation", *id, &[]),
        NodeInput::Evict { connections, .. } => ("evict", *connections as u64, &[]),
    };
    trace.event(kind, now, &[host as u64, socket]);
    trace.bytes(bytes);
    if !matches!(kind, "tick" | "client drained" | "peer received") {
        trace.say(now, || {
            format!("n{host} {kind} {socket} ({} bytes)", bytes.len())
        });
    }
}

fn address(place: Place, port: u16) -> SocketAddr {
    let ip = match place {
        Place::Host(n) => Ipv4Addr::new(10, 0, 0, n as u8 + 1),
        Place::Client(n) => Ipv4Addr::new(10, 1, 0, n as u8 + 1),
    };
    SocketAddr::new(IpAddr::V4(ip), port)
}
