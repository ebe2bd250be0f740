//! Discovery: finding other nodes by a strategy, and who joins whom when clusters meet.
//!
//! ```text
//!   Idle -> LookUp or Listen -> Meet -> Join (join.rs) -> Idle
//! ```
//! A strategy names candidates; each is asked for its cluster's standing, and a node whose own
//! cluster stands lower joins the best. Standings are ordered totally and alike for everybody, so
//! nodes that start at once agree without a lock; none is taken in etcd either, where a node writes
//! its key before it reads the others', so that of any two at least one sees the other. A lock
//! could only dangle. Discovery never removes anyone, never waits for a
//! candidate longer than a round, and never makes a node serve later than [`READY_MAX_MS`].

mod k8s;

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;

use bytes::Bytes;
use rand::RngExt;
use serde::{Deserialize, Serialize};

use crate::connect::Flow;
use crate::error::{DiscoveryError, OperationError};
use crate::identity::ClusterId;
use crate::input::{ConnId, Effect};
use crate::join::send_stranger;
use crate::link::Hello;
use crate::membership::{Member, Membership};
use crate::multicast::{Datagram, Kind, Refused};
use crate::name::{NameError, NodeName};
use crate::node::Cluster;
use crate::peer::{Conn, Goal, Stage};
use crate::table::merged::MEMBERS;
use crate::wire::Message;

pub use k8s::{K8sAddress, K8sEndpoint, K8sError, K8sRule, K8sService};

/// How long the first search may keep a node from serving, milliseconds.
pub const READY_MAX_MS: u64 = 5_000;

/// Pause between rounds of a node that is alone, milliseconds; as in EMQX.
const ALONE_PERIOD_MS: u64 = 5_000;

/// Pause between rounds on behalf of a whole cluster, milliseconds: they only find clusters that
/// formed apart, which is rare and not urgent.
const CLUSTER_PERIOD_MS: u64 = 30_000;

/// Pause between rounds before a node serves, milliseconds.
const STARTING_PERIOD_MS: u64 = 500;

/// Pause between a round and the next if somebody called or appeared meanwhile, milliseconds:
/// none, but for a storm of callers.
const CALLED_PERIOD_MS: u64 = 20;

/// How long a look-up may take, milliseconds; the driver's own limit is shorter.
const LOOK_UP_MAX_MS: u64 = 4_000;

/// How long answers to a question in the network are awaited, milliseconds: long beside the delays
/// of one network, which is as far as multicast goes.
const LISTEN_MS: u64 = 300;

/// Pause between two warnings of refused datagrams, milliseconds: anybody may send them.
const REFUSED_PERIOD_MS: u64 = 60_000;

/// How long all candidates together may take, milliseconds: a dead one must not hold up the others.
const MEET_MAX_MS: u64 = 1_500;

/// Most candidates of a round; a full mesh is far smaller. All nodes take the same ones, the first
/// in order.
const CANDIDATES_MAX: usize = 64;

/// How a node finds others by itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Strategy {
    /// Not at all: nodes are joined by command.
    #[default]
    Manual,
    /// A fixed list.
    Static {
        /// Names of nodes, this one among them or not.
        seeds: Vec<NodeName>,
    },
    /// Whoever a service names when it is asked.
    LookUp(Lookup),
    /// Whoever answers in the network.
    Multicast,
}

/// Which records of a DNS name are the hosts of nodes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Record {
    /// IPv4 addresses.
    A,
    /// IPv6 addresses.
    Aaaa,
    /// Targets; their ports, priorities and weights mean nothing here.
    Srv,
}

impl std::fmt::Display for Record {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::A => "A",
            Self::Aaaa => "AAAA",
            Self::Srv => "SRV",
        })
    }
}

/// What the driver is to look up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Lookup {
    /// The hosts of a DNS name: addresses, or targets. Each is taken for a node with this node's
    /// own short name.
    Dns {
        /// The name, to be asked for exactly as it is written.
        name: String,
        /// Which records.
        record: Record,
    },
    /// The keys below a directory of etcd. The rest of each is the name of a node.
    Etcd {
        /// First part of the keys, up to and with the last slash.
        directory: String,
    },
    /// The hosts of the end points of a service of Kubernetes, ready or not.
    K8s {
        /// Whose end points.
        service: K8sService,
        /// Short name of all nodes; `None` is this node's own.
        short: Option<String>,
    },
}

/// What the driver is to do for discovery.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Discover {
    /// Look up who else there is; answer with [`Discovered::Answer`].
    LookUp {
        /// To be returned.
        token: u64,
        /// What.
        lookup: Lookup,
    },
    /// Send a datagram, at most once.
    Send {
        /// To whom; `None`: to the group.
        to: Option<SocketAddr>,
        /// What.
        datagram: Bytes,
    },
    /// Keep what this look-up needs to find this node, where the node itself keeps it (its key in
    /// etcd), and report who appears as [`Discovered::Sighted`], where the service tells. `None`:
    /// take the own entry away and report nobody.
    Follow {
        /// What.
        lookup: Option<Lookup>,
    },
}

/// What the driver found out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Discovered {
    /// A look-up ended.
    Answer {
        /// Which.
        token: u64,
        /// The parts of the answer; the look-up says what they mean.
        result: Result<Vec<String>, DiscoveryError>,
    },
    /// A datagram came in.
    Received {
        /// From where; answers go there.
        from: SocketAddr,
        /// What.
        datagram: Bytes,
    },
    /// These parts of an answer are new, as far as the service tells.
    Sighted {
        /// Like those of an answer.
        found: Vec<String>,
    },
}

/// Who answers a look-up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Service {
    /// The name servers of this host.
    Dns,
    /// The servers of `cluster.etcd.server`.
    Etcd,
    /// The API server of Kubernetes.
    K8s,
}

impl Service {
    /// What to look at when it does not answer.
    pub(crate) const fn cure(self) -> &'static str {
        match self {
            Self::Dns => "check the DNS servers of this host (/etc/resolv.conf)",
            Self::Etcd => "check cluster.etcd.server and that etcd runs there",
            Self::K8s => "check cluster.k8s.apiserver and the network policies of this namespace",
        }
    }
}

impl Lookup {
    /// The keys of a cluster's nodes, below `cluster.etcd.prefix` as the manual shows them. The
    /// cluster's name is in them, so that two clusters with one prefix do not meet.
    pub fn etcd(prefix: &str, cluster_name: &str) -> Self {
        let prefix = prefix.trim_matches('/');
        let directory = format!("/{prefix}/{cluster_name}/nodes/");
        Self::Etcd { directory }
    }

    /// Who answers it.
    pub const fn service(&self) -> Service {
        match self {
            Self::Dns { .. } => Service::Dns,
            Self::Etcd { .. } => Service::Etcd,
            Self::K8s { .. } => Service::K8s,
        }
    }

    /// The node that a part of the answer stands for.
    fn node(&self, found: &str, own: &NodeName) -> Result<NodeName, NameError> {
        match self {
            Self::Dns { .. } => {
                let host = found.trim_end_matches('.');
                NodeName::parse(&format!("{}@{host}", own.short()))
            }
            Self::Etcd { .. } => NodeName::parse(found),
            Self::K8s { short, .. } => {
                let short = short.as_deref().unwrap_or_else(|| own.short());
                NodeName::parse(&format!("{short}@{found}"))
            }
        }
    }
}

/// Whether a node looks for others by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum DiscoveryState {
    /// No strategy is configured.
    Unconfigured,
    /// It does.
    On,
    /// It left its cluster and is alone. It does not look until it is restarted, told to, or has
    /// another member beside it, which only an operator brings about.
    Off,
}

/// What a node says of its cluster to another cluster it meets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Standing {
    members: u32,
    /// Rows of cluster state besides the members.
    rows: u64,
    /// When its oldest membership was written, milliseconds since 1970.
    since_wall_ms: u64,
    /// Whether it would come to us if we stand higher.
    discovery: DiscoveryState,
}

/// The order of clusters: the lower joins the higher. One that has data is above all that have
/// none, so that a fresh node never takes an older one's data; then the larger, then the elder.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Rank {
    has_data: bool,
    members: u32,
    rows: u64,
    age: Reverse<u64>,
    tie: Reverse<ClusterId>,
}

impl Standing {
    #[cfg(test)]
    pub(crate) fn sample() -> Self {
        Self {
            members: 3,
            rows: 200,
            since_wall_ms: 1_700_000_000_000,
            discovery: DiscoveryState::On,
        }
    }

    fn rank(self, cluster: ClusterId) -> Rank {
        Rank {
            has_data: self.rows > 0,
            members: self.members,
            rows: self.rows,
            age: Reverse(self.since_wall_ms),
            tie: Reverse(cluster),
        }
    }
}

/// The state of the search.
#[derive(Debug)]
pub(crate) struct Discovery {
    state: DiscoveryState,
    /// Whether the driver was told to follow the service.
    following: bool,
    /// Whether the node may serve.
    ready: bool,
    ready_by_ms: u64,
    phase: Phase,
    last_token: u64,
    /// What was last said of each candidate and of the look-up, so that what lasts is said once.
    said: BTreeMap<Option<NodeName>, String>,
    /// Datagrams refused so far, and when that is said next.
    refused: u64,
    refused_due_ms: u64,
    /// Candidates that could not be joined: others go first.
    failed: BTreeSet<NodeName>,
    /// Higher nodes that asked us, and nodes that just appeared: candidates of the next round, so
    /// that no list need name both sides.
    callers: BTreeSet<NodeName>,
}

#[derive(Debug)]
enum Phase {
    Idle(Due),
    LookUp {
        token: u64,
        deadline_ms: u64,
    },
    Listen {
        deadline_ms: u64,
        heard: BTreeSet<NodeName>,
    },
    Meet(Box<Meeting>),
    Join {
        above: Rank,
        target: Rank,
    },
}

/// When the next round begins.
#[derive(Clone, Copy, Debug)]
struct Due {
    alone_ms: u64,
    cluster_ms: u64,
}

/// Candidates being asked.
#[derive(Debug)]
struct Meeting {
    waiting: BTreeMap<ConnId, NodeName>,
    met: Vec<(Rank, NodeName)>,
    deadline_ms: u64,
    /// Somebody was there and did not answer: it may be changing its cluster, or starting.
    unclear: bool,
}

impl Discovery {
    pub(crate) fn new(strategy: &Strategy, now_ms: u64, has_others: bool) -> Self {
        let state = match strategy {
            Strategy::Manual => DiscoveryState::Unconfigured,
            _ => DiscoveryState::On,
        };
        Self {
            state,
            following: false,
            ready: state == DiscoveryState::Unconfigured || has_others,
            ready_by_ms: now_ms + READY_MAX_MS,
            phase: Phase::Idle(Due {
                alone_ms: now_ms,
                cluster_ms: now_ms + CLUSTER_PERIOD_MS,
            }),
            last_token: 0,
            said: BTreeMap::new(),
            refused: 0,
            refused_due_ms: now_ms,
            failed: BTreeSet::new(),
            callers: BTreeSet::new(),
        }
    }

    /// Why the last look-up failed; `None` if it did not.
    pub(crate) fn failure(&self) -> Option<&str> {
        self.said.get(&None).map(String::as_str)
    }

    /// A node that was told to go must not be led back a moment later.
    pub(crate) fn switch_off(&mut self) {
        if self.state == DiscoveryState::On {
            tracing::info!(
                "discovery_disabled: until a restart, a join by hand, or `cluster discovery enable`"
            );
            self.state = DiscoveryState::Off;
            self.callers.clear();
        }
    }

    /// A node that was led back by hand, or that others were joined to, is a member like any other:
    /// it may be the one that has to look on behalf of all of them.
    pub(crate) fn switch_on_again(&mut self) {
        if self.state == DiscoveryState::Off {
            tracing::info!("discovery_enabled: this node has a cluster again");
            self.state = DiscoveryState::On;
        }
    }

    /// Says what is known of a candidate (of the look-up: `None`), unless it was said before.
    fn say(&mut self, of: Option<&NodeName>, reason: String) {
        let of = of.cloned();
        if self.said.get(&of) == Some(&reason) {
            return;
        }
        if let Some(node) = &of {
            tracing::info!(%node, reason, "discovered_node_not_joined");
        } else {
            tracing::warn!(reason, "discovery_failed");
        }
        self.said.insert(of, reason);
    }
}

impl Cluster {
    /// Whether discovery has settled, or taken as long as it may: the node is to serve.
    pub fn is_ready(&self) -> bool {
        self.discovery.ready
    }

    pub(crate) fn discovery_state(&self) -> DiscoveryState {
        self.discovery.state
    }

    /// Switches discovery on again and has a round begin now, if a strategy is configured.
    pub(crate) fn enable_discovery(&mut self) {
        if self.discovery.state == DiscoveryState::Unconfigured {
            return;
        }
        self.discovery.state = DiscoveryState::On;
        self.hasten_round();
    }

    fn hasten_round(&mut self) {
        if let Phase::Idle(due) = &mut self.discovery.phase {
            *due = Due {
                alone_ms: self.now.mono_ms,
                cluster_ms: self.now.mono_ms,
            };
        }
    }

    /// Whether this node looks for others on behalf of its cluster.
    fn searches(&self) -> bool {
        self.discovery.state == DiscoveryState::On && self.operations.is_idle() && self.is_speaker()
    }

    fn own_rank(&self) -> Rank {
        self.own_standing().rank(self.own.cluster)
    }

    fn own_standing(&self) -> Standing {
        let table = self.table(MEMBERS);
        let read = table.read();
        let live = read
            .rows(std::ops::Bound::Unbounded)
            .filter(|(_, row)| {
                let member = row.value.and_then(|value| Member::decode(&value));
                member.is_some_and(|member| member.state == Membership::Member)
            })
            .map(|(_, row)| row.stamp.hlc.wall_ms());
        let (members, since_wall_ms) = live.fold((0, u64::MAX), |(count, first), wall_ms| {
            (count + 1, first.min(wall_ms))
        });
        let others = self.tables.iter().filter(|(id, _)| **id != MEMBERS);
        let rows = others.map(|(_, table)| table.len() as u64).sum();
        Standing {
            members,
            rows,
            since_wall_ms,
            discovery: self.discovery.state,
        }
    }

    // --- a round ---

    pub(crate) fn discovery_next_tick(&self) -> u64 {
        let discovery = &self.discovery;
        let due = match &discovery.phase {
            Phase::Idle(_) if !self.searches() => u64::MAX,
            Phase::Idle(due) if self.has_others() => due.cluster_ms,
            Phase::Idle(due) => due.alone_ms,
            Phase::LookUp { deadline_ms, .. } | Phase::Listen { deadline_ms, .. } => *deadline_ms,
            Phase::Meet(meeting) => meeting.deadline_ms,
            Phase::Join { .. } => u64::MAX,
        };
        if discovery.ready {
            due
        } else {
            due.min(discovery.ready_by_ms)
        }
    }

    pub(crate) fn discovery_tick(&mut self) {
        let now_ms = self.now.mono_ms;
        self.follow();
        if !self.discovery.ready && self.discovery.ready_by_ms <= now_ms {
            tracing::warn!("discovery_unsettled: this node serves, and looks on");
            self.discovery.ready = true;
        }
        if self.discovery_next_tick() > now_ms {
            return;
        }
        match &mut self.discovery.phase {
            Phase::Idle(_) => self.look_up(),
            Phase::Listen { heard, .. } => {
                let heard = std::mem::take(heard);
                self.meet(heard.into_iter().collect());
            }
            Phase::LookUp { .. } => {
                self.look_up_timed_out();
            }
            Phase::Meet(_) => self.decide(),
            Phase::Join { .. } => {}
        }
    }

    /// Has this node be found as long as it looks for others: who left is not to be led back, and
    /// not to lead others.
    fn follow(&mut self) {
        let on = self.discovery.state == DiscoveryState::On;
        if let Strategy::LookUp(lookup) = &self.config.strategy
            && self.discovery.following != on
        {
            self.discovery.following = on;
            let lookup = on.then(|| lookup.clone());
            self.out.push(Effect::Discover(Discover::Follow { lookup }));
        }
    }

    fn look_up(&mut self) {
        let lookup = match &self.config.strategy {
            Strategy::Manual => return,
            Strategy::Static { seeds } => {
                let seeds = seeds.clone();
                return self.meet(seeds);
            }
            Strategy::Multicast => return self.ask_around(),
            Strategy::LookUp(lookup) => lookup.clone(),
        };
        self.discovery.last_token += 1;
        let token = self.discovery.last_token;
        let deadline_ms = self.now.mono_ms + LOOK_UP_MAX_MS;
        self.discovery.phase = Phase::LookUp { token, deadline_ms };
        let look_up = Discover::LookUp { token, lookup };
        self.out.push(Effect::Discover(look_up));
    }

    /// What the driver found out.
    pub(crate) fn discovered(&mut self, discovered: Discovered) {
        match discovered {
            Discovered::Answer { token, result } => self.answered(token, result),
            Discovered::Received { from, datagram } => self.heard(from, &datagram),
            Discovered::Sighted { found } => self.sighted(&found),
        }
    }

    // --- multicast ---

    fn ask_around(&mut self) {
        if self.send_datagram_of(Kind::Ask, None) {
            self.discovery.phase = Phase::Listen {
                deadline_ms: self.now.mono_ms + LISTEN_MS,
                heard: BTreeSet::new(),
            };
        } else {
            let reason =
                "cluster.name or node.name is too long for multicast; use at most 255 bytes";
            self.discovery.say(None, reason.to_owned());
            self.idle();
        }
    }

    fn send_datagram_of(&mut self, kind: Kind, to: Option<SocketAddr>) -> bool {
        let Some(datagram) = Datagram::of(kind, &self.own, &self.config.cookie) else {
            return false;
        };
        let send = Discover::Send { to, datagram };
        self.out.push(Effect::Discover(send));
        true
    }

    /// A node that asks is told of this one, and met soon: its question may be the only one that
    /// arrives.
    fn heard(&mut self, from: SocketAddr, datagram: &[u8]) {
        if self.config.strategy != Strategy::Multicast || self.discovery.state != DiscoveryState::On
        {
            return;
        }
        let Datagram {
            kind,
            cluster_name,
            node,
        } = match Datagram::read(datagram, &self.config.cookie) {
            Ok(datagram) => datagram,
            Err(refused) => return self.datagram_refused(from, refused),
        };
        // Clusters of several names may share a group; own datagrams come back.
        if cluster_name != self.own.cluster_name || node.same_as(&self.own.name) {
            return;
        }
        if kind == Kind::Ask {
            self.send_datagram_of(Kind::Answer, Some(from));
        }
        if let Phase::Listen { heard, .. } = &mut self.discovery.phase {
            if heard.len() < CANDIDATES_MAX {
                heard.insert(node);
            }
        } else if kind == Kind::Ask && self.member_named(&node).is_none() {
            self.meet_soon(node);
        }
    }

    fn datagram_refused(&mut self, from: SocketAddr, refused: Refused) {
        let now_ms = self.now.mono_ms;
        let discovery = &mut self.discovery;
        discovery.refused += 1;
        if discovery.refused_due_ms <= now_ms {
            discovery.refused_due_ms = now_ms + REFUSED_PERIOD_MS;
            let count = discovery.refused;
            tracing::warn!(%from, reason = %refused, count, "multicast_datagram_refused");
        }
    }

    /// Nodes that just appeared are met now and not at the next round.
    fn sighted(&mut self, found: &[String]) {
        for node in self.nodes_of(found) {
            if self.member_named(&node).is_none() && !node.same_as(&self.own.name) {
                self.meet_soon(node);
            }
        }
    }

    fn meet_soon(&mut self, node: NodeName) {
        let callers = &mut self.discovery.callers;
        if self.discovery.state == DiscoveryState::On && callers.len() < CANDIDATES_MAX {
            callers.insert(node);
            self.hasten_round();
        }
    }

    /// The nodes that an answer of the configured look-up names.
    fn nodes_of(&self, found: &[String]) -> Vec<NodeName> {
        let Strategy::LookUp(lookup) = &self.config.strategy else {
            return Vec::new();
        };
        let node = |found: &String| {
            if k8s::is_other_family(found, self.own.name.host()) {
                tracing::debug!(found, "discovered_address_of_other_family");
                return None;
            }
            let node = lookup.node(found, &self.own.name);
            node.inspect_err(|error| tracing::warn!(%error, "discovered_node_unusable"))
                .ok()
        };
        found.iter().filter_map(node).collect()
    }

    fn answered(&mut self, token: u64, result: Result<Vec<String>, DiscoveryError>) {
        let asked = matches!(self.discovery.phase, Phase::LookUp { token: t, .. } if t == token);
        if !asked {
            return;
        }
        let found = match result {
            Ok(found) => found,
            Err(error) => return self.look_up_failed(&error),
        };
        self.discovery.said.remove(&None);
        self.meet(self.nodes_of(&found));
    }

    fn look_up_timed_out(&mut self) {
        let Strategy::LookUp(lookup) = &self.config.strategy else {
            return;
        };
        let error = DiscoveryError::TimedOut {
            of: lookup.service(),
            ms: LOOK_UP_MAX_MS,
        };
        self.look_up_failed(&error);
    }

    fn look_up_failed(&mut self, error: &DiscoveryError) {
        self.discovery.say(None, error.to_string());
        if self.discovery.callers.is_empty() {
            self.idle();
        } else {
            self.meet(Vec::new());
        }
    }

    /// Asks every candidate that is not a member what it belongs to.
    fn meet(&mut self, names: Vec<NodeName>) {
        let own = self.own.name.clone();
        let callers = std::mem::take(&mut self.discovery.callers);
        let candidates: BTreeSet<NodeName> = callers
            .into_iter()
            .chain(names)
            .filter(|name| !name.same_as(&own) && self.member_named(name).is_none())
            .collect();
        let said = &mut self.discovery.said;
        said.retain(|of, _| of.as_ref().is_none_or(|node| candidates.contains(node)));
        let failed = &mut self.discovery.failed;
        failed.retain(|node| candidates.contains(node));
        let deadline_ms = self.now.mono_ms + MEET_MAX_MS;
        let mut waiting = BTreeMap::new();
        for node in candidates.into_iter().take(CANDIDATES_MAX) {
            let conn = self.new_conn();
            let (host, port) = (node.host().to_owned(), node.port());
            let stage = Stage::Dialing(Goal::Meet);
            self.conns
                .insert(conn, Conn::new(conn, stage, self.now.mono_ms));
            self.out.push(Effect::Dial { conn, host, port });
            waiting.insert(conn, node);
        }
        self.discovery.phase = Phase::Meet(Box::new(Meeting {
            waiting,
            met: Vec::new(),
            deadline_ms,
            unclear: false,
        }));
        self.decide_if_all_answered();
    }

    /// The name a candidate is expected to have.
    pub(crate) fn candidate(&self, conn: ConnId) -> Option<NodeName> {
        match &self.discovery.phase {
            Phase::Meet(meeting) => meeting.waiting.get(&conn).cloned(),
            _ => None,
        }
    }

    /// A candidate is proven and of another cluster.
    pub(crate) fn candidate_shaken(&mut self, conn: &mut Conn, hello: &Hello) -> Flow {
        if hello.cluster_name != self.own.cluster_name {
            let reason = format!(
                "it has cluster.name '{}', this node '{}'",
                hello.cluster_name, self.own.cluster_name
            );
            self.candidate_out(conn.id, reason);
            return Flow::Close;
        }
        self.ask_standing(conn);
        Flow::Again
    }

    /// Asks the node at the other end what it belongs to.
    pub(crate) fn ask_standing(&self, conn: &mut Conn) {
        let standing = self.own_standing();
        send_stranger(conn, &Message::MeetAsk { standing });
    }

    /// A node of another cluster asks what we belong to. If it stands higher, we should hear of
    /// each other now and not at our next round.
    pub(crate) fn meet_asked(&mut self, conn: &mut Conn, theirs: Standing) {
        let standing = self.own_standing();
        send_stranger(conn, &Message::MeetIs { standing });
        let Stage::Stranger(stranger) = &conn.stage else {
            return;
        };
        let hello = &stranger.hello;
        let higher = theirs.rank(hello.cluster) > self.own_rank();
        if higher && hello.cluster_name == self.own.cluster_name {
            let node = hello.peer.name.clone();
            self.meet_soon(node);
        }
    }

    /// A candidate answered.
    pub(crate) fn met(&mut self, conn: &Conn, standing: Standing) {
        let (Stage::Stranger(stranger), Phase::Meet(meeting)) =
            (&conn.stage, &mut self.discovery.phase)
        else {
            return;
        };
        let Some(node) = meeting.waiting.remove(&conn.id) else {
            return;
        };
        let cluster = stranger.hello.cluster;
        if self.is_above(standing, cluster) {
            if let Phase::Meet(meeting) = &mut self.discovery.phase {
                meeting.met.push((standing.rank(cluster), node));
            }
        } else if standing.discovery != DiscoveryState::On {
            let reason = "it joins nobody by itself; use `emqx ctl cluster join`".to_owned();
            self.discovery.say(Some(&node), reason);
        }
        self.decide_if_all_answered();
    }

    /// A candidate is of no use, for this reason.
    pub(crate) fn candidate_out(&mut self, conn: ConnId, reason: String) {
        let Phase::Meet(meeting) = &mut self.discovery.phase else {
            return;
        };
        if let Some(node) = meeting.waiting.remove(&conn) {
            self.discovery.say(Some(&node), reason);
        }
        self.decide_if_all_answered();
    }

    /// A connection ended, perhaps a candidate's before its answer.
    pub(crate) fn candidate_ended(&mut self, conn: &Conn) {
        let Phase::Meet(meeting) = &mut self.discovery.phase else {
            return;
        };
        if meeting.waiting.remove(&conn.id).is_some() {
            meeting.unclear |= !matches!(conn.stage, Stage::Dialing(_));
        }
        self.decide_if_all_answered();
    }

    /// Whether this node should join that cluster, and not the other way round.
    pub(crate) fn is_above(&self, theirs: Standing, cluster: ClusterId) -> bool {
        let own = self.own_rank();
        match theirs.discovery {
            DiscoveryState::On => theirs.rank(cluster) > own,
            // It will not come; a node that has nothing to lose goes there.
            DiscoveryState::Unconfigured => {
                theirs.rank(cluster) > own || (!own.has_data && !self.has_others())
            }
            // Who left its cluster is not followed by it.
            DiscoveryState::Off => false,
        }
    }

    fn decide_if_all_answered(&mut self) {
        if matches!(&self.discovery.phase, Phase::Meet(meeting) if meeting.waiting.is_empty()) {
            self.decide();
        }
    }

    /// Joins the best of the clusters met, if it stands higher than the own one.
    fn decide(&mut self) {
        let next = self.next_due();
        let phase = std::mem::replace(&mut self.discovery.phase, Phase::Idle(next));
        let Phase::Meet(mut meeting) = phase else {
            return;
        };
        for conn in std::mem::take(&mut meeting.waiting).into_keys() {
            let dialing = |conn: &Conn| matches!(conn.stage, Stage::Dialing(_));
            meeting.unclear |= !self.conns.get(&conn).is_some_and(dialing);
            self.close(conn);
        }
        let failed = &self.discovery.failed;
        let met = meeting.met.into_iter();
        let best = met.max_by_key(|(rank, node)| (!failed.contains(node), *rank));
        match best {
            Some((rank, node)) if self.searches() => {
                tracing::info!(%node, "discovered_cluster_to_join");
                let own = self.own_rank();
                self.discovery.phase = Phase::Join {
                    above: own,
                    target: rank,
                };
                self.join_automatically(node);
            }
            Some(_) => self.idle(),
            None => {
                self.discovery.ready |= !meeting.unclear;
                self.idle();
            }
        }
    }

    /// Whether the own cluster is still as low as when the join was decided on.
    pub(crate) fn still_joins(&self) -> bool {
        match &self.discovery.phase {
            Phase::Join { above, target } => (*above).max(*target) >= self.own_rank(),
            _ => false,
        }
    }

    /// A join that discovery began has ended.
    pub(crate) fn joined_automatically(
        &mut self,
        node: &NodeName,
        result: &Result<(), OperationError>,
    ) {
        match result {
            Ok(()) => {
                tracing::info!(%node, "discovered_cluster_joined");
                self.discovery.ready = true;
            }
            Err(error) => {
                self.discovery.failed.insert(node.clone());
                self.discovery.say(Some(node), error.to_string());
            }
        }
        self.idle();
    }

    fn idle(&mut self) {
        let due = self.next_due();
        self.discovery.phase = Phase::Idle(due);
    }

    /// The end of the pause that begins now, up to a fifth shorter, so that nodes do not search in
    /// step. Whoever called or appeared during a round is not kept waiting.
    fn next_due(&mut self) -> Due {
        if !self.discovery.callers.is_empty() {
            let soon_ms = self.now.mono_ms + CALLED_PERIOD_MS;
            return Due {
                alone_ms: soon_ms,
                cluster_ms: soon_ms,
            };
        }
        let mut after =
            |pause_ms: u64| self.now.mono_ms + pause_ms - self.rng.random_range(0..=pause_ms / 5);
        let alone_ms = if self.discovery.ready {
            ALONE_PERIOD_MS
        } else {
            STARTING_PERIOD_MS
        };
        Due {
            alone_ms: after(alone_ms),
            cluster_ms: after(CLUSTER_PERIOD_MS),
        }
    }
}
