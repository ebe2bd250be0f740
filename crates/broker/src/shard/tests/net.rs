//! The harness: nodes, shards, clients, and everything between them.

mod wires;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::{Arc, RwLock};

use bytes::{Bytes, BytesMut};
use dunlin_cluster::{
    BootId, Clock, ClusterId, Cookie, DownReason, Identity, Merged, NodeName, Now, SiteId,
};
use dunlin_mqtt::{
    Ack, AckKind, Connack, Connect, Disconnect, Limits, Packet, Properties, QoS, Reason,
    SubscriptionOptions, TopicFilter, Unsubscribe, Version, decode,
};

pub(super) use super::packets::{
    VERSIONS, id, message, persistent, puback, pubrel, qos, retained, subscribe,
};
use crate::access::Proof;
use crate::effects::{
    Accepted, Answer, Ask, ClientEvent, CloseReason, Conn, PeerConn, ReplyTo, ShardEffects,
    TakeoverRequest, TakeoverResult, TakeoverStep, ToControl, ToShard,
};
use crate::metrics::{Metric, sum};
use crate::peer_link::Peering;
use crate::router::NodeIndex;
use crate::session::{decode_result, encode_result};
use crate::settings::{ListenerSettings, Mqtt, Settings};
use crate::shard::Shard;
use crate::shared::Shared;
use wires::Wire;

/// A client of the net.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct C(pub usize);

pub(super) struct Client {
    pub node: usize,
    pub shard: usize,
    pub conn: Conn,
    pub version: Version,
    /// Sent and not yet taken by the shard.
    unread: BytesMut,
    inbox: BytesMut,
    pub closed: Option<CloseReason>,
    pub paused: bool,
    /// Does not read its socket.
    pub stalled: bool,
}

pub(super) struct Node {
    pub shared: Arc<Shared>,
    pub shards: Vec<Shard>,
    fx: ShardEffects,
    identity: Arc<RwLock<Identity>>,
    answers: BTreeMap<u64, Answer>,
    pub events: Vec<ClientEvent>,
    pub drained: usize,
    /// Milliseconds that its wall clock is ahead.
    pub ahead_ms: u64,
}

pub(super) enum Letter {
    Shard(usize, usize, ToShard),
    Control(usize, ToControl),
}

pub(super) struct Net {
    pub now: Now,
    pub nodes: Vec<Node>,
    pub clients: Vec<Client>,
    pub(super) letters: VecDeque<Letter>,
    wires: Vec<Wire>,
    /// From which node to which data connections do not carry.
    held_ways: BTreeSet<(usize, usize)>,
    next_accepted: u32,
    next_ask: u64,
    /// What other nodes' control has not yet heard of.
    pub hold_control: bool,
    /// Data connections cannot be made and do not carry.
    pub cut: bool,
    /// Data connections are hung up on when they are proven: nobody counts as a member.
    pub disowned: bool,
    /// Data connections dialed so far.
    pub dials: usize,
    /// Nodes that told control that data connections came to nothing, and how many did.
    pub unreachable: Vec<(usize, u32)>,
    /// Dials take their time.
    pub hold_dials: bool,
    held_dials: Vec<(usize, usize, PeerConn, u16)>,
    /// Calls between nodes get no answer.
    pub lose_calls: bool,
    /// Nothing is carried for now.
    pub lazy: bool,
    /// Checks of credentials take their time.
    pub hold_proofs: bool,
    held_proofs: Vec<(usize, usize, u64, Proof)>,
    /// The store does not answer.
    pub hold_store: bool,
    held_store: Vec<(usize, u16, u64)>,
    /// Who asked, and how many have not answered.
    calls: BTreeMap<u64, ((usize, u16, u64), usize)>,
    next_call: u64,
    /// Who asked for a fence, and how many shards have not answered, by number.
    fences: BTreeMap<u64, ((usize, u16, u64), usize)>,
}

pub(super) fn settings(mqtt: Mqtt) -> Settings {
    Settings {
        mqtt: Arc::new(mqtt),
        ..Settings::default()
    }
}

impl Net {
    /// One node of one shard with EMQX's defaults.
    pub(super) fn new() -> Self {
        Self::with(1, 1, Settings::default())
    }

    pub(super) fn mqtt(mqtt: Mqtt) -> Self {
        Self::with(1, 1, settings(mqtt))
    }

    #[allow(clippy::needless_pass_by_value)] // every caller makes one for it
    pub(super) fn with(nodes: usize, shards: u16, settings: Settings) -> Self {
        let now = Now {
            mono_ms: 1_000_000,
            wall_ms: 1_700_000_000_000,
        };
        let mut net = Self {
            now,
            nodes: Vec::new(),
            clients: Vec::new(),
            letters: VecDeque::new(),
            wires: Vec::new(),
            held_ways: BTreeSet::new(),
            next_accepted: 1,
            next_ask: 0,
            hold_control: false,
            cut: false,
            disowned: false,
            dials: 0,
            unreachable: Vec::new(),
            hold_dials: false,
            held_dials: Vec::new(),
            lose_calls: false,
            lazy: false,
            hold_proofs: false,
            held_proofs: Vec::new(),
            hold_store: false,
            held_store: Vec::new(),
            calls: BTreeMap::new(),
            next_call: 0,
            fences: BTreeMap::new(),
        };
        for at in 0..nodes {
            net.nodes.push(new_node(at as u8, shards, settings.clone()));
        }
        for a in 0..nodes {
            for b in 0..nodes {
                if a != b {
                    net.peer_up(a, b);
                }
            }
        }
        net.run();
        net
    }

    pub(super) fn index(&self, of: usize, at: usize) -> NodeIndex {
        let site = self.nodes[of].shared.site();
        self.nodes[at]
            .shared
            .peer_index(site)
            .expect("the nodes know each other")
    }

    pub(super) fn peer_up(&mut self, at: usize, other: usize) {
        let peer = self.nodes[other]
            .identity
            .read()
            .expect("not poisoned")
            .peer();
        let node = self.nodes[at].shared.peer_up(&peer);
        for shard in 0..self.nodes[at].shards.len() {
            let letter = ToShard::PeerUp {
                peer: peer.clone(),
                node,
                host: peer.name.host().to_owned(),
                port: peer.name.port(),
            };
            self.letters.push_back(Letter::Shard(at, shard, letter));
        }
    }

    /// The present process of a node has told everything.
    pub(super) fn peer_told(&mut self, at: usize, other: usize) {
        let peer = self.nodes[other]
            .identity
            .read()
            .expect("not poisoned")
            .peer();
        self.nodes[at].shared.peer_told(peer.site, peer.boot);
    }

    /// A node restarts, as far as others can tell: it is another boot.
    pub(super) fn reborn(&mut self, node: usize) {
        let mut identity = self.nodes[node].identity.write().expect("not poisoned");
        identity.boot = BootId(identity.boot.0 + 1_000);
    }

    pub(super) fn peer_down(&mut self, at: usize, other: usize) {
        self.peer_down_for(at, other, DownReason::Silent);
    }

    pub(super) fn peer_down_for(&mut self, at: usize, other: usize, reason: DownReason) {
        let site = self.nodes[other].shared.site();
        let node = self.nodes[at].shared.peer_down(site).expect("known");
        for shard in 0..self.nodes[at].shards.len() {
            self.letters
                .push_back(Letter::Shard(at, shard, ToShard::PeerDown { node, reason }));
        }
        self.run();
    }

    pub(super) fn on_shard<T>(
        &mut self,
        node: usize,
        shard: usize,
        f: impl FnOnce(&mut Shard, Now, &mut ShardEffects) -> T,
    ) -> T {
        let Node {
            shards,
            fx,
            ahead_ms,
            ..
        } = &mut self.nodes[node];
        let now = Now {
            wall_ms: self.now.wall_ms + *ahead_ms,
            ..self.now
        };
        let result = f(&mut shards[shard], now, fx);
        self.carry(node, shard);
        result
    }

    fn carry(&mut self, node: usize, shard: usize) {
        let mut fx = std::mem::take(&mut self.nodes[node].fx);
        for (to, letters) in fx.to_shard.iter_mut().enumerate() {
            let letters = letters
                .drain(..)
                .map(|letter| Letter::Shard(node, to, letter));
            self.letters.extend(letters);
        }
        self.letters
            .extend(fx.to_control.drain(..).map(|l| Letter::Control(node, l)));
        for (token, proof) in fx.prove.drain(..) {
            self.held_proofs.push((node, shard, token, proof));
        }
        if !self.hold_proofs {
            self.make_proofs();
        }
        for conn in fx.pause.drain(..) {
            self.client_at(node, shard, conn).expect("paused").paused = true;
        }
        for conn in fx.wake.drain(..) {
            self.take_output(node, shard, conn);
        }
        let resumed: Vec<Conn> = fx.resume.drain(..).collect();
        let closing: Vec<_> = fx.close.drain(..).collect();
        let dials: Vec<_> = fx.peer_dial.drain(..).collect();
        let peer_wakes: Vec<_> = fx.peer_wake.drain(..).collect();
        let peer_closes: Vec<_> = fx.peer_close.drain(..).collect();
        self.nodes[node].fx = fx;
        for (conn, why) in closing {
            self.take_output(node, shard, conn);
            if let Some(client) = self.client_at(node, shard, conn) {
                client.closed = Some(why);
                client.unread.clear();
            }
            self.on_shard(node, shard, |s, now, fx| s.closed(now, conn, why, fx));
        }
        for conn in resumed {
            if let Some(client) = self.client_at(node, shard, conn) {
                client.paused = false;
                self.feed(node, shard, conn);
            }
        }
        let dials = dials.into_iter();
        self.held_dials
            .extend(dials.map(|(conn, _, port)| (node, shard, conn, port)));
        if !self.hold_dials {
            self.make_dials();
        }
        for conn in peer_wakes {
            self.take_peer_output(node, shard, conn);
        }
        for conn in peer_closes {
            self.close_wire(node, shard, conn);
        }
    }

    fn client_at(&mut self, node: usize, shard: usize, conn: Conn) -> Option<&mut Client> {
        self.clients
            .iter_mut()
            .find(|c| (c.node, c.shard, c.conn) == (node, shard, conn) && c.closed.is_none())
    }

    fn take_output(&mut self, node: usize, shard: usize, conn: Conn) {
        let Some(output) = self.nodes[node].shards[shard].output(conn) else {
            return;
        };
        let mut chunks = Vec::new();
        let Some(client) = self
            .clients
            .iter_mut()
            .find(|c| (c.node, c.shard, c.conn) == (node, shard, conn) && c.closed.is_none())
        else {
            return;
        };
        if client.stalled {
            return;
        }
        output.take(&mut chunks);
        for chunk in chunks {
            client.inbox.extend_from_slice(&chunk);
        }
        self.on_shard(node, shard, |s, now, fx| s.writable_drained(now, conn, fx));
    }

    /// Lets a client read again.
    pub(super) fn unstall(&mut self, c: C) {
        let client = &mut self.clients[c.0];
        client.stalled = false;
        let (node, shard, conn) = (client.node, client.shard, client.conn);
        self.take_output(node, shard, conn);
        self.run();
    }

    fn feed(&mut self, node: usize, shard: usize, conn: Conn) {
        let Some(client) = self.client_at(node, shard, conn) else {
            return;
        };
        if client.paused {
            return;
        }
        let mut unread = std::mem::take(&mut client.unread);
        self.on_shard(node, shard, |s, now, fx| {
            s.receive(now, conn, &mut unread, fx);
        });
        if let Some(client) = self.client_at(node, shard, conn) {
            let later = std::mem::take(&mut client.unread);
            unread.extend_from_slice(&later);
            client.unread = unread;
        }
    }

    /// Carries everything until nothing moves.
    pub(super) fn run(&mut self) {
        if self.lazy {
            return;
        }
        for _ in 0..100_000 {
            if let Some(letter) = self.letters.pop_front() {
                self.letter(letter);
                continue;
            }
            let mut moved = false;
            for at in 0..self.wires.len() {
                if at < self.wires.len() {
                    moved |= self.carry_wire(at);
                }
            }
            if !moved && self.letters.is_empty() {
                return;
            }
        }
        panic!("the net does not come to rest");
    }

    /// Carries one letter.
    pub(super) fn step(&mut self) {
        if let Some(letter) = self.letters.pop_front() {
            self.letter(letter);
        }
    }

    fn letter(&mut self, letter: Letter) {
        match letter {
            Letter::Shard(node, shard, letter) => {
                self.on_shard(node, shard, |s, now, fx| s.message(now, letter, fx));
            }
            Letter::Control(node, letter) => self.control(node, letter),
        }
    }

    /// What the control of every node would do, at once.
    fn control(&mut self, node: usize, letter: ToControl) {
        let to_shard = |shard: u16, letter| Letter::Shard(node, usize::from(shard), letter);
        match letter {
            ToControl::RouteChanged { .. }
            | ToControl::GroupChanged { .. }
            | ToControl::ClientChanged { .. } => self.node_state(node, letter),
            ToControl::Takeover { .. } | ToControl::TakeoverReply { .. } if self.lose_calls => {}
            ToControl::FenceLinks { .. } | ToControl::LinkFenced { .. } => {
                self.fence(node, &letter);
            }
            ToControl::Takeover { .. } | ToControl::TakeoverReply { .. } => {
                self.call(node, letter);
            }
            ToControl::Settle { shard, token } if !self.hold_control => {
                self.letters
                    .push_back(to_shard(shard, ToShard::Settled { token }));
            }
            ToControl::Retained {
                wait: Some((shard, token)),
                ..
            } if self.hold_store => {
                self.held_store.push((node, shard, token));
            }
            ToControl::Retained {
                wait: Some((shard, token)),
                ..
            } => {
                self.letters
                    .push_back(to_shard(shard, ToShard::Persisted { token }));
            }
            ToControl::Answered { ask, answer, .. } => {
                self.nodes[node].answers.insert(ask, answer);
            }
            ToControl::Receipts {
                site,
                shard,
                numbers,
                ..
            } => {
                let to = (0..self.nodes.len()).find(|at| self.nodes[*at].shared.site() == site);
                let to = to.expect("it exists");
                let node = self.index(node, to);
                let letter = ToShard::Receipts { node, numbers };
                self.letters
                    .push_back(Letter::Shard(to, usize::from(shard), letter));
            }
            ToControl::PeerUnreachable { failures, .. } => self.unreachable.push((node, failures)),
            ToControl::Offer { node: to, offer } => self.offer(node, to, offer),
            ToControl::Client(event) => self.nodes[node].events.push(*event),
            ToControl::Drained { .. } => self.nodes[node].drained += 1,
            _ => {}
        }
    }

    /// What every node would know of another's routes, groups and clients.
    fn node_state(&mut self, node: usize, letter: ToControl) {
        match letter {
            ToControl::RouteChanged { filter } if !self.hold_control => {
                let filter = std::str::from_utf8(&filter).expect("text");
                let has = self.nodes[node].shared.router().read().has_local(filter);
                for other in self.others(node) {
                    let index = self.index(node, other);
                    let mut router = self.nodes[other].shared.router().write();
                    if has {
                        router.add_remote(filter, index);
                    } else {
                        router.remove_remote(filter, index);
                    }
                }
            }
            ToControl::GroupChanged { group, filter } if !self.hold_control => {
                let group = std::str::from_utf8(&group).expect("text");
                let filter = std::str::from_utf8(&filter).expect("text");
                let count = self.nodes[node]
                    .shared
                    .router()
                    .read()
                    .local_group_count(group, filter);
                for other in self.others(node) {
                    let index = self.index(node, other);
                    let mut router = self.nodes[other].shared.router().write();
                    router.set_remote_group(group, filter, index, count as u32);
                }
            }
            ToControl::ClientChanged { clientid } if !self.hold_control => {
                let stamp = self.nodes[node].shared.registry().local_stamp(&clientid);
                for other in self.others(node) {
                    let index = self.index(node, other);
                    let site = self.nodes[node].shared.site();
                    let shared = &self.nodes[other].shared;
                    let Some(stamp) = stamp else {
                        shared.registry().remote_remove(&clientid, index);
                        continue;
                    };
                    if let Some(shard) = shared.client_elsewhere(&clientid, (index, site), stamp) {
                        let letter = ToShard::Elsewhere {
                            clientid: clientid.clone(),
                            newer: stamp,
                        };
                        let shard = usize::from(shard);
                        self.letters.push_back(Letter::Shard(other, shard, letter));
                    }
                }
            }
            _ => {}
        }
    }

    /// What nodes ask each other.
    fn call(&mut self, node: usize, letter: ToControl) {
        let to_shard = |shard: u16, letter| Letter::Shard(node, usize::from(shard), letter);
        match letter {
            ToControl::Takeover {
                shard,
                token,
                node: to,
                request,
            } => {
                let site = self.nodes[node].shared.peer_site(to).expect("known");
                let other = (0..self.nodes.len())
                    .find(|at| self.nodes[*at].shared.site() == site)
                    .expect("exists");
                let asked = self.asked(other, self.index(other, node), &request);
                if asked.is_empty() {
                    let result = TakeoverResult::None;
                    self.letters
                        .push_back(to_shard(shard, ToShard::TakenOver { token, result }));
                    return;
                }
                self.next_call += 1;
                let asker = (node, shard, token);
                self.calls.insert(self.next_call, (asker, asked.len()));
                let reply = ReplyTo::Call(self.next_call);
                for there in asked {
                    let request = request.clone();
                    let letter = ToShard::Takeover { request, reply };
                    self.letters.push_back(Letter::Shard(other, there, letter));
                }
            }
            ToControl::TakeoverReply { call, result } => {
                let Some((asker, left)) = self.calls.get_mut(&call) else {
                    return;
                };
                *left -= 1;
                if *left > 0 && matches!(result, TakeoverResult::None) {
                    return;
                }
                let (node, shard, token) = *asker;
                self.calls.remove(&call);
                let result = decode_result(&encode_result(&result)).expect("readable");
                let letter = ToShard::TakenOver { token, result };
                self.letters
                    .push_back(Letter::Shard(node, usize::from(shard), letter));
            }
            _ => {}
        }
    }

    /// The shards that are asked for a session by another node.
    fn asked(&self, node: usize, from: NodeIndex, request: &TakeoverRequest) -> Vec<usize> {
        if request.step == TakeoverStep::Finish {
            return (0..self.nodes[node].shards.len()).collect();
        }
        let registry = self.nodes[node].shared.registry();
        registry.remote_asks(&request.clientid, from, request.stamp);
        let shard = registry.local_shard(&request.clientid);
        shard.map(usize::from).into_iter().collect()
    }

    fn make_proofs(&mut self) {
        for (node, shard, token, proof) in std::mem::take(&mut self.held_proofs) {
            let answer = proof.run();
            let letter = ToShard::Proven { token, answer };
            self.letters.push_back(Letter::Shard(node, shard, letter));
        }
    }

    /// The checks of credentials are made.
    pub(super) fn release_proofs(&mut self) {
        self.hold_proofs = false;
        self.make_proofs();
        self.run();
    }

    /// All nodes' shards are asked what is on their links to one node.
    fn fence(&mut self, node: usize, letter: &ToControl) {
        match *letter {
            ToControl::FenceLinks {
                shard,
                token,
                towards,
            } => {
                let site = self.nodes[node].shared.peer_site(towards).expect("known");
                self.next_call += 1;
                let number = self.next_call;
                let mut asked = 0;
                for other in 0..self.nodes.len() {
                    let Some(index) = self.nodes[other].shared.peer_index(site) else {
                        continue;
                    };
                    for to in 0..self.nodes[other].shards.len() {
                        asked += 1;
                        let letter = ToShard::FenceLink {
                            node: index,
                            number,
                        };
                        self.letters.push_back(Letter::Shard(other, to, letter));
                    }
                }
                self.fences.insert(number, ((node, shard, token), asked));
            }
            ToControl::LinkFenced { number } => {
                let (asker, left) = self.fences.get_mut(&number).expect("asked");
                *left -= 1;
                if *left == 0 {
                    let (node, shard, token) = *asker;
                    self.fences.remove(&number);
                    let letter = ToShard::LinksFenced { token };
                    self.letters
                        .push_back(Letter::Shard(node, usize::from(shard), letter));
                }
            }
            _ => {}
        }
    }

    pub(super) fn release_store(&mut self) {
        self.hold_store = false;
        for (node, shard, token) in std::mem::take(&mut self.held_store) {
            let letter = ToShard::Persisted { token };
            self.letters
                .push_back(Letter::Shard(node, usize::from(shard), letter));
        }
        self.run();
    }

    fn others(&self, node: usize) -> Vec<usize> {
        (0..self.nodes.len())
            .filter(|other| *other != node)
            .collect()
    }

    pub(super) fn tell(&mut self, node: usize, shard: usize, letter: ToShard) {
        self.letters.push_back(Letter::Shard(node, shard, letter));
        self.run();
    }

    pub(super) fn ask(&mut self, node: usize, shard: usize, what: Ask) -> Answer {
        self.next_ask += 1;
        let ask = self.next_ask;
        self.tell(node, shard, ToShard::Ask { ask, what });
        self.nodes[node].answers.remove(&ask).expect("answered")
    }

    pub(super) fn take_answer(&mut self, ask: u64) -> Answer {
        self.nodes[0].answers.remove(&ask).expect("answered")
    }

    /// Time passes in steps of 50 ms (steps of a second beyond a minute).
    pub(super) fn pass(&mut self, ms: u64) {
        let until = self.now.mono_ms + ms;
        let step = if ms > 60_000 { 1_000 } else { 50 };
        while self.now.mono_ms < until {
            let step = step.min(until - self.now.mono_ms);
            self.now.mono_ms += step;
            self.now.wall_ms += step;
            for node in 0..self.nodes.len() {
                for shard in 0..self.nodes[node].shards.len() {
                    if self.nodes[node].shards[shard].next_tick() <= self.now.mono_ms {
                        self.on_shard(node, shard, Shard::tick);
                    }
                }
            }
            self.run();
        }
    }

    pub(super) fn metric(&self, metric: Metric) -> u64 {
        let all = self.nodes.iter().map(|n| sum(n.shared.all_metrics()));
        all.flatten()
            .filter(|(m, _)| *m == metric)
            .map(|(_, n)| n)
            .sum()
    }
}

/// What clients do.
impl Net {
    pub(super) fn accept_at(&mut self, node: usize, shard: usize, version: Version) -> C {
        self.accept_via(node, shard, version, ListenerSettings::default())
    }

    pub(super) fn accept_via(
        &mut self,
        node: usize,
        shard: usize,
        version: Version,
        listener: ListenerSettings,
    ) -> C {
        let info = Accepted {
            listener: Arc::new(listener),
            peer: ([127, 0, 0, 1], 40_000 + self.clients.len() as u16).into(),
            local: ([127, 0, 0, 1], 1883).into(),
            peer_cert: None,
            ws: false,
        };
        let conn = self.nodes[node].shards[shard].accept(self.now, info);
        self.clients.push(Client {
            node,
            shard,
            conn,
            version,
            unread: BytesMut::new(),
            inbox: BytesMut::new(),
            closed: None,
            paused: false,
            stalled: false,
        });
        C(self.clients.len() - 1)
    }

    pub(super) fn accept(&mut self, version: Version) -> C {
        self.accept_at(0, 0, version)
    }

    /// Sends bytes without carrying anything further.
    pub(super) fn push(&mut self, c: C, bytes: &[u8]) {
        let client = &mut self.clients[c.0];
        if client.closed.is_some() {
            return;
        }
        client.unread.extend_from_slice(bytes);
        let (node, shard, conn) = (client.node, client.shard, client.conn);
        self.feed(node, shard, conn);
    }

    pub(super) fn bytes(&mut self, c: C, bytes: &[u8]) {
        self.push(c, bytes);
        self.run();
    }

    pub(super) fn send(&mut self, c: C, packet: impl Into<Packet>) {
        let bytes = self.encode(c, packet);
        self.bytes(c, &bytes);
    }

    pub(super) fn encode(&self, c: C, packet: impl Into<Packet>) -> Bytes {
        let mut bytes = BytesMut::new();
        packet.into().encode(self.clients[c.0].version, &mut bytes);
        bytes.freeze()
    }

    /// Everything the client has received since.
    pub(super) fn take(&mut self, c: C) -> Vec<Packet> {
        let client = &mut self.clients[c.0];
        let limits = Limits {
            max_packet_size: 1 << 28,
            strict: true,
        };
        let mut packets = Vec::new();
        while let Some(packet) =
            decode(&mut client.inbox, client.version, &limits).expect("we send valid packets")
        {
            packets.push(packet);
        }
        assert!(client.inbox.is_empty(), "half a packet");
        packets
    }

    /// The one packet received.
    #[track_caller]
    pub(super) fn one(&mut self, c: C) -> Packet {
        let mut packets = self.take(c);
        assert_eq!(packets.len(), 1, "{packets:?}");
        packets.remove(0)
    }

    #[track_caller]
    pub(super) fn nothing(&mut self, c: C) {
        assert_eq!(self.take(c), []);
    }

    /// The publishes received: topic, payload, QoS. Nothing else may have come.
    #[track_caller]
    pub(super) fn messages(&mut self, c: C) -> Vec<(String, String, u8)> {
        let packets = self.take(c);
        let one = |packet: Packet| match packet {
            Packet::Publish(p) => (
                p.topic().to_owned(),
                String::from_utf8_lossy(p.payload()).into_owned(),
                p.qos.as_u8(),
            ),
            other => panic!("not a publish: {other:?}"),
        };
        packets.into_iter().map(one).collect()
    }

    /// Payloads of the publishes received; acknowledges them like a good client.
    #[track_caller]
    pub(super) fn payloads(&mut self, c: C) -> Vec<String> {
        let mut payloads = Vec::new();
        loop {
            let packets = self.take(c);
            if packets.is_empty() {
                return payloads;
            }
            for packet in packets {
                self.acknowledge(c, &packet);
                if let Packet::Publish(p) = packet {
                    payloads.push(String::from_utf8_lossy(p.payload()).into_owned());
                }
            }
        }
    }

    /// Acknowledges one packet like a good client.
    pub(super) fn answer(&mut self, c: C, packet: &Packet) {
        self.acknowledge(c, packet);
    }

    fn acknowledge(&mut self, c: C, packet: &Packet) {
        match packet {
            Packet::Publish(p) => {
                let Some(id) = p.packet_id else { return };
                let kind = if p.qos == QoS::AtLeastOnce {
                    AckKind::Puback
                } else {
                    AckKind::Pubrec
                };
                self.send(c, Packet::Ack(Ack::new(kind, id, Reason::Success)));
            }
            Packet::Ack(ack) if ack.kind == AckKind::Pubrel => {
                let pubcomp = Ack::new(AckKind::Pubcomp, ack.packet_id, Reason::Success);
                self.send(c, Packet::Ack(pubcomp));
            }
            _ => {}
        }
    }

    /// Takes the first packet of a kind; everything else stays.
    #[track_caller]
    fn pick<T>(&mut self, c: C, wanted: impl Fn(&Packet) -> Option<T>) -> T {
        let mut found = None;
        let mut rest = BytesMut::new();
        let version = self.clients[c.0].version;
        for packet in self.take(c) {
            match wanted(&packet).filter(|_| found.is_none()) {
                Some(it) => found = Some(it),
                None => packet.encode(version, &mut rest),
            }
        }
        self.clients[c.0].inbox = rest;
        found.expect("such a packet")
    }

    #[track_caller]
    pub(super) fn connack(&mut self, c: C) -> Connack {
        self.pick(c, |packet| match packet {
            Packet::Connack(connack) => Some(connack.clone()),
            _ => None,
        })
    }

    /// Connects and expects success; says whether a session was present.
    #[track_caller]
    pub(super) fn connect(&mut self, c: C, connect: Connect) -> bool {
        self.send(c, Packet::Connect(Box::new(connect)));
        let connack = self.connack(c);
        assert_eq!(connack.reason, Reason::Success);
        connack.session_present
    }

    /// A connected client with clean start on node 0, shard 0.
    #[track_caller]
    pub(super) fn client(&mut self, version: Version, id: &str) -> C {
        self.client_at_shard(0, 0, version, id)
    }

    #[track_caller]
    pub(super) fn client_at_shard(
        &mut self,
        node: usize,
        shard: usize,
        version: Version,
        id: &str,
    ) -> C {
        let c = self.accept_at(node, shard, version);
        assert!(!self.connect(c, Connect::new(version, id)));
        c
    }

    /// A client whose session stays.
    #[track_caller]
    pub(super) fn persistent(&mut self, version: Version, id: &str) -> (C, bool) {
        self.persistent_at(0, 0, version, id)
    }

    #[track_caller]
    pub(super) fn persistent_at(
        &mut self,
        node: usize,
        shard: usize,
        version: Version,
        id: &str,
    ) -> (C, bool) {
        let c = self.accept_at(node, shard, version);
        let present = self.connect(c, persistent(version, id));
        (c, present)
    }

    /// The connection breaks.
    pub(super) fn drop_client(&mut self, c: C) {
        self.lose(c, CloseReason::TcpClosed);
    }

    pub(super) fn lose(&mut self, c: C, why: CloseReason) {
        let client = &mut self.clients[c.0];
        if client.closed.replace(why).is_some() {
            return;
        }
        let (node, shard, conn) = (client.node, client.shard, client.conn);
        self.on_shard(node, shard, |s, now, fx| s.closed(now, conn, why, fx));
        self.run();
    }

    pub(super) fn disconnect(&mut self, c: C, reason: Reason) {
        self.send(c, Packet::Disconnect(Disconnect::new(reason)));
    }

    /// Subscribes and expects to be granted.
    #[track_caller]
    pub(super) fn subscribe(&mut self, c: C, filter: &str, qos: QoS) {
        let reasons = self.try_subscribe(c, filter, SubscriptionOptions::with_qos(qos), 0);
        assert_eq!(reasons, [Reason::granted(qos)]);
    }

    #[track_caller]
    pub(super) fn try_subscribe(
        &mut self,
        c: C,
        filter: &str,
        options: SubscriptionOptions,
        sub_id: u32,
    ) -> Vec<Reason> {
        self.send(c, subscribe(1, filter, options, sub_id));
        self.pick(c, |packet| match packet {
            Packet::Suback(suback) => Some(suback.reasons.clone()),
            _ => None,
        })
    }

    #[track_caller]
    pub(super) fn unsubscribe(&mut self, c: C, filter: &str) -> Vec<Reason> {
        let packet = Unsubscribe {
            packet_id: id(9),
            properties: Properties::new(),
            filters: vec![TopicFilter::new(filter)],
        };
        self.send(c, Packet::Unsubscribe(packet));
        match self.one(c) {
            Packet::Unsuback(unsuback) => unsuback.reasons,
            other => panic!("not an UNSUBACK: {other:?}"),
        }
    }

    pub(super) fn publish(&mut self, c: C, topic: &str, payload: &str) {
        self.send(c, message(topic, payload, 0, 0));
    }

    /// Publishes and expects the whole acknowledgement with success.
    #[track_caller]
    pub(super) fn publish_acked(&mut self, c: C, topic: &str, payload: &str, qos: u8) {
        self.send(c, message(topic, payload, qos, 77));
        if qos == 0 {
            return;
        }
        let kind = if qos == 1 {
            AckKind::Puback
        } else {
            AckKind::Pubrec
        };
        let ack = self.ack(c, kind, 77);
        assert!(!ack.is_error(), "{ack:?}");
        if qos == 2 {
            self.send(c, pubrel(77));
            assert_eq!(self.ack(c, AckKind::Pubcomp, 77), Reason::Success);
        }
    }

    /// Expects one acknowledgement.
    #[track_caller]
    pub(super) fn ack(&mut self, c: C, kind: AckKind, packet_id: u16) -> Reason {
        self.pick(c, |packet| match packet {
            Packet::Ack(ack) if ack.kind == kind && ack.packet_id.get() == packet_id => {
                Some(ack.reason)
            }
            _ => None,
        })
    }

    #[track_caller]
    pub(super) fn check_disconnected(&mut self, c: C, reason: Reason) {
        let packets = self.take(c);
        let Some(Packet::Disconnect(last)) = packets.last() else {
            panic!("no DISCONNECT: {packets:?}");
        };
        assert_eq!(last.reason, reason);
        assert!(self.clients[c.0].closed.is_some());
    }

    #[track_caller]
    pub(super) fn check_closed(&self, c: C, why: CloseReason) {
        assert_eq!(self.clients[c.0].closed, Some(why));
    }

    pub(super) fn is_open(&self, c: C) -> bool {
        self.clients[c.0].closed.is_none()
    }
}

fn name(at: u8) -> NodeName {
    NodeName::parse(&format!("n{at}@127.0.0.1")).expect("a valid name")
}

fn cookie() -> Cookie {
    Cookie::new("secret")
}

fn new_node(at: u8, shards: u16, settings: Settings) -> Node {
    let site = SiteId([at + 1; 16]);
    let identity = Arc::new(RwLock::new(Identity {
        name: name(at),
        site,
        boot: BootId(u64::from(at) + 100),
        cluster: ClusterId([1; 16]),
        cluster_name: "emqxcl".to_owned(),
        listen_port: name(at).port(),
    }));
    let [retained, _, _, banned, _, _] = crate::control::TABLES.map(|t| Arc::new(Merged::new(t)));
    let clock = Arc::new(Clock::new());
    let seed = u64::from(at);
    let shared = Arc::new(Shared::new(
        settings,
        shards,
        clock,
        (retained, banned),
        site,
        seed,
    ));
    let peering = Peering {
        identity: Arc::clone(&identity),
        cookie: cookie(),
    };
    let shard = |id: u16| {
        let mut shard = Shard::new(id, Arc::clone(&shared), seed * 100 + u64::from(id));
        shard.set_peering(peering.clone());
        shard
    };
    Node {
        shards: (0..shards).map(shard).collect(),
        shared,
        fx: ShardEffects::new(shards),
        identity,
        answers: BTreeMap::new(),
        events: Vec::new(),
        drained: 0,
        ahead_ms: 0,
    }
}

/// Stop, without anywhere to send clients.
pub(super) fn drain() -> ToShard {
    let redirect = Arc::default();
    ToShard::Drain { redirect }
}
