//! One machine: a disk, clocks that are not quite right, and a node's process while it runs.

use std::collections::{BTreeMap, BTreeSet};

use dunlin_broker::control::{ControlConfig, ControlError, NodeInfo};
use dunlin_broker::node::{Node, NodeEffect, NodeInput, SocketId};
use dunlin_broker::settings::{Mqtt, Settings};
use dunlin_cluster::{Config, Cookie, Lookup, NodeName, Now, Strategy};

use crate::disk::Disk;
use crate::workload::Options;

/// Wall clock at the beginning of a run, milliseconds since 1970.
const WALL_START_MS: u64 = 1_750_000_000_000;

/// The other end of a client connection.
#[derive(Clone, Copy, Debug)]
pub struct Peer {
    /// Whose.
    pub client: usize,
    /// Its number of the connection.
    pub attempt: u64,
    /// Whether CONNACK said yes.
    pub up: bool,
}

/// A node's process.
pub struct Process {
    /// The node.
    pub node: Node,
    /// Number of this start, to tell late events of an earlier one.
    pub life: u32,
    /// When its tick is scheduled.
    pub tick_at: u64,
    /// Client connections that were written to since they were last reported as drained.
    pub draining: BTreeSet<SocketId>,
    /// Client connections.
    pub clients: BTreeMap<SocketId, Peer>,
    /// Connections to other nodes.
    pub peers: BTreeMap<SocketId, usize>,
    /// Those the node dialed and has heard nothing of yet.
    pub dialing: BTreeSet<SocketId>,
    next_socket: u64,
}

impl Process {
    /// A name for an accepted connection; accepted ones are odd.
    pub fn next_socket(&mut self) -> SocketId {
        self.next_socket += 2;
        SocketId(self.next_socket)
    }

    /// Takes note of what became of a dial when the node is told.
    pub fn hears(&mut self, input: &NodeInput) {
        if let NodeInput::PeerConnected { socket }
        | NodeInput::PeerDialFailed { socket, .. }
        | NodeInput::PeerClosed { socket } = input
        {
            self.dialing.remove(socket);
        }
    }
}

/// A machine.
pub struct Host {
    /// Its number.
    pub index: usize,
    /// The name of the node on it.
    pub name: NodeName,
    /// Its disk.
    pub disk: Disk,
    /// The node, while it runs.
    pub process: Option<Process>,
    /// Whether name look-ups fail.
    pub dns_fails: bool,
    /// How far its wall clock is ahead.
    pub skew_ms: i64,
    /// Whether discovery is told lies.
    pub lied_to: bool,
    /// What a process that is stopped has not been told yet; `None` while it goes.
    pub waiting: Option<Vec<NodeInput>>,
    mono_offset_ms: u64,
    lives: u32,
}

impl Host {
    /// A machine that is switched on and has an empty disk.
    pub fn new(index: usize, options: &Options) -> Self {
        let name = format!("emqx{index}@h{index}.sim");
        Self {
            index,
            name: NodeName::parse(&name).expect("a valid name"),
            disk: Disk::default(),
            process: None,
            dns_fails: false,
            lied_to: false,
            waiting: None,
            skew_ms: options.skew_ms.get(index).copied().unwrap_or_default(),
            mono_offset_ms: 1_000 + 7_919 * index as u64,
            lives: 0,
        }
    }

    /// Its clocks.
    pub fn now(&self, now: u64) -> Now {
        Now {
            mono_ms: now + self.mono_offset_ms,
            wall_ms: WALL_START_MS.saturating_add_signed(self.skew_ms) + now,
        }
    }

    /// A time of its monotonic clock as a time of the world.
    pub fn world_ms(&self, mono_ms: u64) -> u64 {
        mono_ms.saturating_sub(self.mono_offset_ms)
    }

    /// The node, while it runs.
    pub fn node(&self) -> Option<&Node> {
        self.process.as_ref().map(|process| &process.node)
    }

    /// Starts the process; returns what it wants first, or why it cannot start.
    pub fn start(
        &mut self,
        now: u64,
        options: &Options,
        (queue_max, autoheal): (Option<u32>, bool),
    ) -> Result<Vec<NodeEffect>, ControlError> {
        self.lives += 1;
        let seed = options.seed.wrapping_mul(0x9e37_79b9_7f4a_7c15)
            ^ ((self.index as u64) << 32)
            ^ u64::from(self.lives);
        let mut out = Vec::new();
        let config = config(&self.name, options, queue_max, autoheal);
        let node = Node::new(self.now(now), config, self.disk.store(), seed, &mut out)?;
        self.process = Some(Process {
            node,
            life: self.lives,
            tick_at: u64::MAX,
            draining: BTreeSet::new(),
            clients: BTreeMap::new(),
            peers: BTreeMap::new(),
            dialing: BTreeSet::new(),
            next_socket: 1,
        });
        Ok(out)
    }
}

fn config(
    name: &NodeName,
    options: &Options,
    queue_max: Option<u32>,
    autoheal: bool,
) -> ControlConfig {
    let mqtt = Mqtt {
        max_mqueue_len: queue_max,
        ..Mqtt::default()
    };
    let mut cluster = Config::new(name.clone(), Cookie::new("simulated"));
    cluster.autoheal = autoheal;
    if options.discovery {
        cluster.strategy = Strategy::LookUp(Lookup::etcd("emqxcl", &cluster.cluster_name));
    }
    ControlConfig {
        cluster,
        settings: Settings {
            mqtt: mqtt.into(),
            ..Settings::default()
        },
        shards: options.shards,
        info: NodeInfo::default(),
    }
}
