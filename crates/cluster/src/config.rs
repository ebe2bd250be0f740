//! What a node's cluster core is started with; every default has its unit and reason.

use bytes::Bytes;

use crate::discovery::Strategy;
use crate::identity::Cookie;
use crate::name::NodeName;
use crate::table::merged::{TableId, TableSpec};

/// How often one random member is probed, milliseconds.
pub const PROBE_PERIOD_MS: u64 = 500;

/// How long a probed member may take before others are asked to probe it, milliseconds; far above
/// any round trip between data centres.
pub const PROBE_ROUND_TRIP_MS: u64 = 200;

/// How long a suspected member may stay silent before it counts as down, milliseconds. With the
/// probe before it a silent host is down within 5 s; a pause of a second changes nothing.
pub const SUSPICION_MS: u64 = 2_500;

/// `cluster.autoclean`, milliseconds: 24 h as in EMQX.
pub const AUTOCLEAN_MS: u64 = 24 * 3_600 * 1_000;

/// What a cluster core is started with.
#[derive(Clone, Debug)]
pub struct Config {
    /// `node.name`.
    pub name: NodeName,
    /// `cluster.name`.
    pub cluster_name: String,
    /// `node.cookie`.
    pub cookie: Cookie,
    /// The port peers reach this node at; normally [`NodeName::port`].
    pub listen_port: u16,
    /// Whether `cluster.discovery_strategy` is `singleton`: joins are refused in both directions.
    pub singleton: bool,
    /// How this node finds others by itself.
    pub strategy: Strategy,
    /// The merged tables besides [`crate::MEMBERS`].
    pub tables: Vec<TableSpec>,
    /// See [`PROBE_PERIOD_MS`].
    pub probe_period_ms: u64,
    /// See [`PROBE_ROUND_TRIP_MS`].
    pub probe_round_trip_ms: u64,
    /// See [`SUSPICION_MS`].
    pub suspicion_ms: u64,
    /// `cluster.autoheal`: whether the sides of a split merge as soon as they reach each other.
    pub autoheal: bool,
    /// How long a member may be down before it is removed, milliseconds; `None` never removes.
    pub autoclean_ms: Option<u64>,
    /// `cluster.autoclean_quorum`.
    pub autoclean_quorum: Quorum,
}

/// How many live members autoclean needs, so that a minority does not remove the others.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Quorum {
    /// A majority of three members or more; one of two may remove the other.
    #[default]
    Auto,
    /// A majority, in a cluster of two as well: nobody is removed there.
    Majority,
    /// Any live member will do.
    None,
}

impl Quorum {
    /// Whether `live` members of `all`, this node included, may remove one.
    pub(crate) fn is_met(self, live: usize, all: usize) -> bool {
        match self {
            Self::Auto => all <= 2 || live * 2 > all,
            Self::Majority => live * 2 > all,
            Self::None => true,
        }
    }
}

impl Config {
    /// The defaults for a node.
    pub fn new(name: NodeName, cookie: Cookie) -> Self {
        Self {
            listen_port: name.port(),
            name,
            cluster_name: "emqxcl".to_owned(),
            cookie,
            singleton: false,
            strategy: Strategy::Manual,
            tables: Vec::new(),
            probe_period_ms: PROBE_PERIOD_MS,
            probe_round_trip_ms: PROBE_ROUND_TRIP_MS,
            suspicion_ms: SUSPICION_MS,
            autoheal: true,
            autoclean_ms: Some(AUTOCLEAN_MS),
            autoclean_quorum: Quorum::Auto,
        }
    }
}

/// Name of the storage table with the node's own facts (name, ids, format).
pub const META_TABLE: &str = "meta";

/// What storage held at start; empty on a first start.
#[derive(Clone, Debug, Default)]
pub struct Restored {
    /// All rows of [`META_TABLE`].
    pub meta: Vec<(Bytes, Bytes)>,
    /// All rows of the merged tables, [`crate::MEMBERS`] included, as they were persisted. Staging
    /// tables are not read.
    pub rows: Vec<(TableId, Bytes, Bytes)>,
}
