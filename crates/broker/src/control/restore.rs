//! From what the store holds to a running control: the first thing a node does.
//!
//! Everything is read at once, before any link or listener is open; a store that cannot be read
//! stops the start, never loses a row silently.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use dunlin_cluster::{Clock, Cluster, Config, MEMBERS, META_TABLE, Now, RestoreError, Restored};
use dunlin_storage::{Store, StoreError, TableId as StoreTable};

use super::fences::Fences;
use super::{BANNED, Control, ControlEffects, NodeInfo, RETAINED, TABLES};
use crate::settings::Settings;
use crate::shared::Shared;

/// Rows read from the store at a time.
const SCAN_ROWS: usize = 4_096;
/// The members' table in the store; the cluster core names it so.
const MEMBERS_TABLE: &str = "members";

/// What a node is started with.
#[derive(Clone, Debug)]
pub struct ControlConfig {
    /// Names, secrets and timings of the cluster core; its tables are added here.
    pub cluster: Config,
    /// The broker's settings.
    pub settings: Settings,
    /// Threads that own clients, at least 1.
    pub shards: u16,
    /// What this node says about itself at first.
    pub info: NodeInfo,
}

/// Why a node cannot start from its store.
#[derive(Debug, thiserror::Error)]
pub enum ControlError {
    /// The store could not be read.
    #[error("reading the data directory: {0}")]
    Store(#[from] StoreError),
    /// What it holds is not this node's, or damaged.
    #[error(transparent)]
    Restore(#[from] RestoreError),
}

impl Control {
    /// Starts from what `store` holds. The effects are to be carried out before anything else.
    pub fn new(
        now: Now,
        config: ControlConfig,
        store: &dyn Store,
        seed: u64,
    ) -> Result<(Self, ControlEffects), ControlError> {
        let clock = Arc::new(Clock::new());
        let restored = restored(store)?;
        let mut cluster_config = config.cluster;
        cluster_config.tables = TABLES.to_vec();
        let cookie = cluster_config.cookie.clone();
        let (cluster, effects) = Cluster::new(now, cluster_config, restored, clock.clone(), seed)?;
        let site = cluster.identity().read().expect("no writer panics").site;
        let shared = Shared::new(
            config.settings,
            config.shards,
            clock,
            (cluster.table(RETAINED), cluster.table(BANNED)),
            site,
            seed,
        );
        let mut control = Self {
            shared: Arc::new(shared),
            cluster,
            cookie,
            wanted: Vec::new(),
            effects: effects.into(),
            carrying: false,
            settling: VecDeque::new(),
            settled: 0,
            waiting: BTreeMap::new(),
            takeovers: BTreeMap::new(),
            in_calls: BTreeMap::new(),
            fences: Fences::default(),
            next_call: 0,
            snapshots: BTreeMap::new(),
            infos: BTreeMap::new(),
            wills: super::wills::PeerWills::default(),
            later: std::collections::BTreeSet::new(),
            own_info: NodeInfo::default(),
            next_lift_ms: now.mono_ms,
            questions: BTreeMap::new(),
            watch: super::watch::Watch::default(),
        };
        let mut fx = ControlEffects::default();
        control.publish_info(now, config.info, &mut fx);
        Ok((control, fx))
    }
}

/// Reads everything the cluster core wants to see again.
fn restored(store: &dyn Store) -> Result<Restored, StoreError> {
    let mut restored = Restored::default();
    rows(store, META_TABLE, |key, value| {
        restored.meta.push((key, value));
    })?;
    rows(store, MEMBERS_TABLE, |key, value| {
        restored.rows.push((MEMBERS, key, value));
    })?;
    for spec in &TABLES {
        rows(store, spec.name, |key, value| {
            restored.rows.push((spec.id, key, value));
        })?;
    }
    Ok(restored)
}

fn rows(
    store: &dyn Store,
    table: &'static str,
    mut each: impl FnMut(bytes::Bytes, bytes::Bytes),
) -> Result<(), StoreError> {
    let table = StoreTable::fixed(table);
    let mut from = Vec::new();
    loop {
        let page = store.scan(&table, &from, SCAN_ROWS)?;
        let full = page.len() == SCAN_ROWS;
        if let (true, Some((last, _))) = (full, page.last()) {
            // The smallest key greater than the last one.
            from = [last.as_ref(), &[0]].concat();
        }
        for (key, value) in page {
            each(key, value);
        }
        if !full {
            return Ok(());
        }
    }
}
