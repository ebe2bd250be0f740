//! One node of the broker in one thread: its control and its shards, with the letters between
//! them carried at once. The simulator runs nodes; the server runs the same parts on threads.
//!
//! It must never decide anything: it only carries.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use dunlin_cluster::{
    ConnId, DialError, Discover, Discovered, Hello, JoinStep, Now, Operation, OperationError,
    Purpose, Status,
};
use dunlin_storage as storage;

use crate::control::{
    Control, ControlConfig, ControlEffects, ControlError, ControlInput, LinkEffect,
};
use crate::effects::{
    Accepted, CloseReason, Conn, Evict, PeerConn, ShardEffects, ShardId, ToControl, ToShard,
};
use crate::shard::Shard;
use crate::shared::Shared;

/// One TCP connection of the node's machine. Accepted ones are chosen by the driver and odd,
/// dialed ones by the node and even.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SocketId(pub u64);

/// What the machine tells a node.
#[derive(Debug)]
pub enum NodeInput {
    /// Time has passed.
    Tick,
    /// A client connected.
    ClientAccepted {
        /// The driver's id.
        socket: SocketId,
        /// What the listener saw.
        info: Accepted,
    },
    /// Bytes from a client.
    ClientReceived {
        /// From which.
        socket: SocketId,
        /// The bytes.
        bytes: Bytes,
    },
    /// The machine took all output of a client.
    ClientDrained {
        /// Of which.
        socket: SocketId,
    },
    /// A client's connection ended.
    ClientClosed {
        /// Which.
        socket: SocketId,
        /// Why.
        why: CloseReason,
    },
    /// A node connected to the inter-node port.
    PeerAccepted {
        /// The driver's id.
        socket: SocketId,
        /// Its address.
        from: String,
    },
    /// A dialed connection stands.
    PeerConnected {
        /// Which.
        socket: SocketId,
    },
    /// A dialed connection could not be made.
    PeerDialFailed {
        /// Which.
        socket: SocketId,
        /// Why.
        error: DialError,
    },
    /// Bytes from a node.
    PeerReceived {
        /// From which connection.
        socket: SocketId,
        /// The bytes.
        bytes: Bytes,
    },
    /// A connection to a node ended.
    PeerClosed {
        /// Which.
        socket: SocketId,
    },
    /// A batch is durable, or failed.
    Persisted {
        /// From [`NodeEffect::Persist`].
        token: u64,
        /// What storage said when it failed.
        result: Result<(), String>,
    },
    /// An archive is written, or failed.
    Archived {
        /// From [`NodeEffect::Archive`].
        token: u64,
        /// Its path, or what went wrong.
        result: Result<String, String>,
    },
    /// What came of a [`NodeEffect::Discover`].
    Discovered(Discovered),
    /// An operator's request.
    Operation {
        /// The driver's number.
        id: u64,
        /// The request.
        op: Operation,
    },
    /// Every shard gives some of its clients and sessions to the nodes it can reach.
    Evict {
        /// Clients to disconnect, at most.
        connections: usize,
        /// Sessions to offer, at most.
        sessions: usize,
    },
}

/// What a node wants of its machine.
#[derive(Debug)]
pub enum NodeEffect {
    /// Write to a client.
    ClientSend {
        /// To which.
        socket: SocketId,
        /// What.
        bytes: Bytes,
    },
    /// Close a client's connection after what was sent; answer with `ClientClosed`.
    ClientClose {
        /// Which.
        socket: SocketId,
        /// Why.
        why: CloseReason,
    },
    /// Dial a node; answer with `PeerConnected` or `PeerDialFailed`.
    PeerDial {
        /// The new connection.
        socket: SocketId,
        /// Name or address.
        host: String,
        /// Port.
        port: u16,
    },
    /// Write to a node.
    PeerSend {
        /// On which connection.
        socket: SocketId,
        /// What.
        bytes: Bytes,
    },
    /// Close a connection to a node; no answer.
    PeerClose {
        /// Which.
        socket: SocketId,
    },
    /// Make a batch durable; answer with `Persisted`.
    Persist {
        /// To be returned.
        token: u64,
        /// The batch.
        batch: storage::Batch,
    },
    /// Archive the cluster state; answer with `Archived`.
    Archive {
        /// To be returned.
        token: u64,
    },
    /// Find out who else there is; tell with `Discovered`.
    Discover(Discover),
    /// An operation got to a step.
    Progress {
        /// Its number.
        id: u64,
        /// The step.
        step: JoinStep,
    },
    /// An operation ended.
    Done {
        /// Its number.
        id: u64,
        /// How.
        result: Result<(), OperationError>,
    },
}

/// Who owns a connection to a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum PeerOwner {
    Control(ConnId),
    Shard(ShardId, PeerConn),
}

/// A client connection: where it lives and what of its input is not yet a whole packet.
#[derive(Debug)]
struct Client {
    shard: ShardId,
    conn: Conn,
    unread: BytesMut,
    paused: bool,
}

/// One node of the broker in one thread.
pub struct Node {
    control: Control,
    shards: Vec<Shard>,
    control_fx: ControlEffects,
    shard_fx: ShardEffects,
    letters: VecDeque<Letter>,
    clients: BTreeMap<SocketId, Client>,
    client_sockets: BTreeMap<(ShardId, Conn), SocketId>,
    peers: BTreeMap<SocketId, PeerOwner>,
    peer_sockets: BTreeMap<PeerOwner, SocketId>,
    peer_unread: BTreeMap<SocketId, BytesMut>,
    next_socket: u64,
    next_shard: ShardId,
    next_accepted: u32,
    scratch: Vec<Bytes>,
}

#[derive(Debug)]
enum Letter {
    Control(ToControl),
    Shard(ShardId, ToShard),
}

impl Node {
    /// Starts a node from what its store holds; carry the effects out first.
    pub fn new(
        now: Now,
        config: ControlConfig,
        store: &dyn storage::Store,
        seed: u64,
        out: &mut Vec<NodeEffect>,
    ) -> Result<Self, ControlError> {
        let count = config.shards;
        let (control, control_fx) = Control::new(now, config, store, seed)?;
        let shared = control.shared().clone();
        let shard = |id: ShardId| {
            let seed = seed.wrapping_add(1 + u64::from(id));
            let mut shard = Shard::new(id, shared.clone(), seed);
            shard.set_peering(control.peering());
            shard
        };
        let shards: Vec<Shard> = (0..count).map(shard).collect();
        let mut node = Self {
            control,
            shards,
            control_fx,
            shard_fx: ShardEffects::new(count),
            letters: VecDeque::new(),
            clients: BTreeMap::new(),
            client_sockets: BTreeMap::new(),
            peers: BTreeMap::new(),
            peer_sockets: BTreeMap::new(),
            peer_unread: BTreeMap::new(),
            next_socket: 2,
            next_shard: 0,
            next_accepted: 1,
            scratch: Vec::new(),
        };
        node.control_done(now, out);
        node.carry(now, out);
        Ok(node)
    }

    /// Handles one input; what is wanted is appended to `out`.
    pub fn handle(&mut self, now: Now, input: NodeInput, out: &mut Vec<NodeEffect>) {
        match input {
            NodeInput::Tick => self.tick(now, out),
            NodeInput::ClientAccepted { socket, info } => self.client_accepted(now, socket, info),
            NodeInput::ClientReceived { socket, bytes } => {
                self.client_received(now, socket, &bytes, out);
            }
            NodeInput::ClientDrained { socket } => self.client_drained(now, socket, out),
            NodeInput::ClientClosed { socket, why } => self.client_closed(now, socket, why, out),
            NodeInput::PeerAccepted { socket, from } => {
                let conn = ConnId(socket.0);
                self.own(socket, PeerOwner::Control(conn));
                self.tell_control(now, ControlInput::Accepted { conn, from }, out);
            }
            NodeInput::PeerConnected { socket } => self.peer_connected(now, socket, out),
            NodeInput::PeerDialFailed { socket, error } => {
                self.peer_dial_failed(now, socket, error, out);
            }
            NodeInput::PeerReceived { socket, bytes } => {
                self.peer_received(now, socket, bytes, out);
            }
            NodeInput::PeerClosed { socket } => self.peer_closed(now, socket, out),
            NodeInput::Persisted { token, result } => {
                self.tell_control(now, ControlInput::Persisted { token, result }, out);
            }
            NodeInput::Archived { token, result } => {
                self.tell_control(now, ControlInput::Archived { token, result }, out);
            }
            NodeInput::Discovered(discovered) => {
                self.tell_control(now, ControlInput::Discovered(discovered), out);
            }
            NodeInput::Operation { id, op } => {
                self.tell_control(now, ControlInput::Operation { id, op }, out);
            }
            NodeInput::Evict {
                connections,
                sessions,
            } => self.evict(now, connections, sessions, out),
        }
        self.carry(now, out);
    }

    /// When `Tick` is wanted, monotonic milliseconds.
    pub fn next_tick(&self) -> u64 {
        let shards = self.shards.iter().map(Shard::next_tick);
        shards
            .chain([self.control.next_tick()])
            .min()
            .unwrap_or(u64::MAX)
    }

    /// Members and who of them is running.
    pub fn status(&self) -> Status {
        self.control.status()
    }

    /// What the shards share.
    pub fn shared(&self) -> &Arc<Shared> {
        self.control.shared()
    }

    /// The node-wide half.
    pub fn control(&self) -> &Control {
        &self.control
    }

    /// The shards.
    pub fn shards(&self) -> &[Shard] {
        &self.shards
    }

    fn tick(&mut self, now: Now, out: &mut Vec<NodeEffect>) {
        for shard in 0..self.shards.len() as ShardId {
            if self.shards[usize::from(shard)].next_tick() <= now.mono_ms {
                self.shards[usize::from(shard)].tick(now, &mut self.shard_fx);
                self.shard_done(now, shard, out);
            }
        }
        if self.control.next_tick() <= now.mono_ms {
            self.tell_control(now, ControlInput::Tick, out);
        }
    }

    // Clients.

    /// New clients go to the shards in turn, as the kernel spreads them over the server's threads.
    fn client_accepted(&mut self, now: Now, socket: SocketId, info: Accepted) {
        let shard = self.next_shard;
        self.next_shard = (shard + 1) % self.shards.len() as ShardId;
        let conn = self.shards[usize::from(shard)].accept(now, info);
        let client = Client {
            shard,
            conn,
            unread: BytesMut::new(),
            paused: false,
        };
        self.clients.insert(socket, client);
        self.client_sockets.insert((shard, conn), socket);
    }

    fn client_received(
        &mut self,
        now: Now,
        socket: SocketId,
        bytes: &[u8],
        out: &mut Vec<NodeEffect>,
    ) {
        let Some(client) = self.clients.get_mut(&socket) else {
            return;
        };
        client.unread.extend_from_slice(bytes);
        if !client.paused {
            self.read_client(now, socket, out);
        }
    }

    /// Gives the shard what a client has sent.
    fn read_client(&mut self, now: Now, socket: SocketId, out: &mut Vec<NodeEffect>) {
        let Some(client) = self.clients.get_mut(&socket) else {
            return;
        };
        let (shard, conn) = (client.shard, client.conn);
        let mut unread = std::mem::take(&mut client.unread);
        let fx = &mut self.shard_fx;
        self.shards[usize::from(shard)].receive(now, conn, &mut unread, fx);
        client.unread = unread;
        self.shard_done(now, shard, out);
    }

    fn client_drained(&mut self, now: Now, socket: SocketId, out: &mut Vec<NodeEffect>) {
        let Some(client) = self.clients.get(&socket) else {
            return;
        };
        let (shard, conn) = (client.shard, client.conn);
        self.shards[usize::from(shard)].writable_drained(now, conn, &mut self.shard_fx);
        self.shard_done(now, shard, out);
    }

    fn client_closed(
        &mut self,
        now: Now,
        socket: SocketId,
        why: CloseReason,
        out: &mut Vec<NodeEffect>,
    ) {
        let Some(client) = self.clients.remove(&socket) else {
            return;
        };
        let (shard, conn) = (client.shard, client.conn);
        self.client_sockets.remove(&(shard, conn));
        self.shards[usize::from(shard)].closed(now, conn, why, &mut self.shard_fx);
        self.shard_done(now, shard, out);
    }

    fn evict(&mut self, now: Now, connections: usize, sessions: usize, out: &mut Vec<NodeEffect>) {
        let peers = self.control.shared().peers().into_iter();
        let wanted = Evict {
            connections,
            sessions,
            to: peers.filter(|(_, _, up)| *up).map(|(at, ..)| at).collect(),
        };
        for shard in 0..self.shards.len() {
            self.shards[shard].evict(now, &wanted, &mut self.shard_fx);
            self.shard_done(now, shard as ShardId, out);
        }
    }

    // Connections to other nodes.

    /// Whether a connection to a node is a shard's, for messages; else it is control's.
    pub fn is_data_link(&self, socket: SocketId) -> bool {
        matches!(self.peers.get(&socket), Some(PeerOwner::Shard(..)))
    }

    fn own(&mut self, socket: SocketId, owner: PeerOwner) {
        self.peers.insert(socket, owner);
        self.peer_sockets.insert(owner, socket);
    }

    fn disown(&mut self, owner: PeerOwner) -> Option<SocketId> {
        let socket = self.peer_sockets.remove(&owner)?;
        self.peers.remove(&socket);
        self.peer_unread.remove(&socket);
        Some(socket)
    }

    fn peer_connected(&mut self, now: Now, socket: SocketId, out: &mut Vec<NodeEffect>) {
        match self.peers.get(&socket) {
            Some(&PeerOwner::Control(conn)) => {
                self.tell_control(now, ControlInput::Connected { conn }, out);
            }
            Some(&PeerOwner::Shard(shard, conn)) => {
                let fx = &mut self.shard_fx;
                self.shards[usize::from(shard)].peer_connected(now, conn, fx);
                self.shard_done(now, shard, out);
            }
            None => {}
        }
    }

    fn peer_dial_failed(
        &mut self,
        now: Now,
        socket: SocketId,
        error: DialError,
        out: &mut Vec<NodeEffect>,
    ) {
        let Some(owner) = self.peers.get(&socket).copied() else {
            return;
        };
        self.disown(owner);
        match owner {
            PeerOwner::Control(conn) => {
                self.tell_control(now, ControlInput::DialFailed { conn, error }, out);
            }
            PeerOwner::Shard(shard, conn) => {
                let fx = &mut self.shard_fx;
                self.shards[usize::from(shard)].peer_dial_failed(now, conn, &error, fx);
                self.shard_done(now, shard, out);
            }
        }
    }

    fn peer_received(
        &mut self,
        now: Now,
        socket: SocketId,
        bytes: Bytes,
        out: &mut Vec<NodeEffect>,
    ) {
        match self.peers.get(&socket) {
            Some(&PeerOwner::Control(conn)) => {
                self.tell_control(now, ControlInput::Received { conn, bytes }, out);
            }
            Some(&PeerOwner::Shard(shard, conn)) => {
                self.read_peer(now, socket, (shard, conn), &bytes, out);
            }
            None => {}
        }
    }

    /// Gives a shard what came over one of its data links.
    fn read_peer(
        &mut self,
        now: Now,
        socket: SocketId,
        (shard, conn): (ShardId, PeerConn),
        bytes: &[u8],
        out: &mut Vec<NodeEffect>,
    ) {
        let mut unread = self.peer_unread.remove(&socket).unwrap_or_default();
        unread.extend_from_slice(bytes);
        let fx = &mut self.shard_fx;
        self.shards[usize::from(shard)].peer_received(now, conn, &mut unread, fx);
        if self.peers.contains_key(&socket) {
            self.peer_unread.insert(socket, unread);
        }
        self.shard_done(now, shard, out);
    }

    fn peer_closed(&mut self, now: Now, socket: SocketId, out: &mut Vec<NodeEffect>) {
        let Some(owner) = self.peers.get(&socket).copied() else {
            return;
        };
        self.disown(owner);
        match owner {
            PeerOwner::Control(conn) => {
                self.tell_control(now, ControlInput::Closed { conn }, out);
            }
            PeerOwner::Shard(shard, conn) => {
                self.shards[usize::from(shard)].peer_closed(now, conn, &mut self.shard_fx);
                self.shard_done(now, shard, out);
            }
        }
    }

    /// A data link was proven: the connection is a shard's from here on.
    fn hand_off(
        &mut self,
        now: Now,
        conn: ConnId,
        hello: &Hello,
        unread: &[u8],
        out: &mut Vec<NodeEffect>,
    ) {
        let Some(socket) = self.disown(PeerOwner::Control(conn)) else {
            return;
        };
        let Purpose::Data { index } = hello.purpose else {
            return;
        };
        let shard = index % self.shards.len() as ShardId;
        let peer = PeerConn(self.next_accepted);
        // Shards number the connections they dial evenly.
        self.next_accepted = self.next_accepted.wrapping_add(2);
        self.own(socket, PeerOwner::Shard(shard, peer));
        let fx = &mut self.shard_fx;
        self.shards[usize::from(shard)].peer_accepted(now, peer, hello, fx);
        self.shard_done(now, shard, out);
        if !unread.is_empty() {
            self.read_peer(now, socket, (shard, peer), unread, out);
        }
    }

    // Carrying.

    /// Carries letters until there are none: letters lead to letters, but each kind of exchange
    /// ends by itself.
    fn carry(&mut self, now: Now, out: &mut Vec<NodeEffect>) {
        while let Some(letter) = self.letters.pop_front() {
            match letter {
                Letter::Control(letter) => {
                    self.tell_control(now, ControlInput::Shard(letter), out);
                }
                Letter::Shard(shard, letter) => {
                    self.shards[usize::from(shard)].message(now, letter, &mut self.shard_fx);
                    self.shard_done(now, shard, out);
                }
            }
        }
    }

    fn tell_control(&mut self, now: Now, input: ControlInput, out: &mut Vec<NodeEffect>) {
        self.control.handle(now, input, &mut self.control_fx);
        self.control_done(now, out);
    }

    fn control_done(&mut self, now: Now, out: &mut Vec<NodeEffect>) {
        let mut fx = std::mem::take(&mut self.control_fx);
        for link in fx.links.drain(..) {
            self.link(now, link, out);
        }
        let letters = fx
            .to_shard
            .drain(..)
            .map(|(shard, letter)| Letter::Shard(shard, letter));
        self.letters.extend(letters);
        let persist = fx.persist.drain(..);
        out.extend(persist.map(|(token, batch)| NodeEffect::Persist { token, batch }));
        out.extend(
            fx.archive
                .drain(..)
                .map(|token| NodeEffect::Archive { token }),
        );
        out.extend(fx.discover.drain(..).map(NodeEffect::Discover));
        out.extend(
            fx.progress
                .drain(..)
                .map(|(id, step)| NodeEffect::Progress { id, step }),
        );
        out.extend(
            fx.done
                .drain(..)
                .map(|(id, result)| NodeEffect::Done { id, result }),
        );
        // Answers to operators, events and drains concern a driver with operators.
        fx.durable.clear();
        fx.answers.clear();
        fx.clients.clear();
        fx.drained.clear();
        fx.alarms.clear();
        fx.checked.clear();
        fx.called.clear();
        fx.asked.clear();
        fx.configured = false;
        self.control_fx = fx;
    }

    fn link(&mut self, now: Now, link: LinkEffect, out: &mut Vec<NodeEffect>) {
        match link {
            LinkEffect::Dial(conn, host, port) => {
                let socket = self.dialed(PeerOwner::Control(conn));
                out.push(NodeEffect::PeerDial { socket, host, port });
            }
            LinkEffect::Send(conn, bytes) => {
                if let Some(&socket) = self.peer_sockets.get(&PeerOwner::Control(conn)) {
                    out.push(NodeEffect::PeerSend { socket, bytes });
                }
            }
            LinkEffect::Close(conn) => {
                if let Some(socket) = self.disown(PeerOwner::Control(conn)) {
                    out.push(NodeEffect::PeerClose { socket });
                }
            }
            LinkEffect::HandOff(conn, hello, unread) => {
                self.hand_off(now, conn, &hello, &unread, out);
            }
        }
    }

    fn dialed(&mut self, owner: PeerOwner) -> SocketId {
        let socket = SocketId(self.next_socket);
        self.next_socket += 2;
        self.own(socket, owner);
        socket
    }

    /// Carries out what a shard wants.
    fn shard_done(&mut self, now: Now, shard: ShardId, out: &mut Vec<NodeEffect>) {
        let mut fx = std::mem::replace(&mut self.shard_fx, ShardEffects::new(0));
        for (to, letters) in fx.to_shard.iter_mut().enumerate() {
            let to = to as ShardId;
            self.letters
                .extend(letters.drain(..).map(|letter| Letter::Shard(to, letter)));
        }
        self.letters
            .extend(fx.to_control.drain(..).map(Letter::Control));
        // In one thread a check is made at once; how long it takes is nobody's concern here.
        let proven = fx.prove.drain(..).map(|(token, proof)| {
            let answer = proof.run();
            Letter::Shard(shard, ToShard::Proven { token, answer })
        });
        self.letters.extend(proven);
        for (conn, host, port) in fx.peer_dial.drain(..) {
            let socket = self.dialed(PeerOwner::Shard(shard, conn));
            out.push(NodeEffect::PeerDial { socket, host, port });
        }
        for conn in fx.peer_wake.drain(..) {
            self.send_peer(shard, conn, out);
        }
        for conn in fx.peer_close.drain(..) {
            if let Some(socket) = self.disown(PeerOwner::Shard(shard, conn)) {
                out.push(NodeEffect::PeerClose { socket });
            }
        }
        let mut wake = std::mem::take(&mut fx.wake);
        let mut close = std::mem::take(&mut fx.close);
        for conn in wake.drain(..) {
            self.send_client(shard, conn, out);
        }
        for (conn, why) in close.drain(..) {
            self.send_client(shard, conn, out);
            if let Some(&socket) = self.client_sockets.get(&(shard, conn)) {
                out.push(NodeEffect::ClientClose { socket, why });
            }
        }
        let pauses = fx
            .pause
            .drain(..)
            .map(|conn| (conn, true))
            .collect::<Vec<_>>();
        let resumes = fx
            .resume
            .drain(..)
            .map(|conn| (conn, false))
            .collect::<Vec<_>>();
        fx.wake = wake;
        fx.close = close;
        self.shard_fx = fx;
        for (conn, paused) in pauses.into_iter().chain(resumes) {
            self.pause(now, (shard, conn), paused, out);
        }
    }

    fn pause(
        &mut self,
        now: Now,
        client: (ShardId, Conn),
        paused: bool,
        out: &mut Vec<NodeEffect>,
    ) {
        let Some(&socket) = self.client_sockets.get(&client) else {
            return;
        };
        let Some(client) = self.clients.get_mut(&socket) else {
            return;
        };
        client.paused = paused;
        if !paused && !client.unread.is_empty() {
            self.read_client(now, socket, out);
        }
    }

    fn send_client(&mut self, shard: ShardId, conn: Conn, out: &mut Vec<NodeEffect>) {
        let Some(&socket) = self.client_sockets.get(&(shard, conn)) else {
            return;
        };
        let Some(output) = self.shards[usize::from(shard)].output(conn) else {
            return;
        };
        output.take(&mut self.scratch);
        let chunks = self.scratch.drain(..);
        out.extend(chunks.map(|bytes| NodeEffect::ClientSend { socket, bytes }));
    }

    fn send_peer(&mut self, shard: ShardId, conn: PeerConn, out: &mut Vec<NodeEffect>) {
        let Some(&socket) = self.peer_sockets.get(&PeerOwner::Shard(shard, conn)) else {
            return;
        };
        self.shards[usize::from(shard)].peer_output(conn, &mut self.scratch);
        let chunks = self.scratch.drain(..);
        out.extend(chunks.map(|bytes| NodeEffect::PeerSend { socket, bytes }));
    }
}
