//! One node's part in a cluster as a state machine: inputs and `now` in, effects out.

use std::sync::{Arc, RwLock};

use crate::clock::{Clock, Now};
use crate::config::{Config, Restored};
use crate::error::RestoreError;
use crate::identity::Identity;
use crate::input::{Effect, Input};
use crate::status::Status;
use crate::table::merged::{Merged, TableId};

/// One node's part in a cluster.
#[derive(Debug)]
pub struct Cluster {
    identity: Arc<RwLock<Identity>>,
    tables: std::collections::BTreeMap<TableId, Arc<Merged>>,
}

impl Cluster {
    /// Starts from what storage held. The effects returned are to be carried out like any others,
    /// before anything else.
    pub fn new(
        now: Now,
        config: Config,
        restored: Restored,
        clock: Arc<Clock>,
        seed: u64,
    ) -> Result<(Self, Vec<Effect>), RestoreError> {
        let _ = (now, restored, clock, seed);
        let identity = Identity {
            name: config.name,
            site: crate::SiteId([0; 16]),
            boot: crate::BootId(0),
            cluster: crate::ClusterId([0; 16]),
            cluster_name: config.cluster_name,
            listen_port: config.listen_port,
        };
        let cluster = Self {
            identity: Arc::new(RwLock::new(identity)),
            tables: std::collections::BTreeMap::new(),
        };
        Ok((cluster, Vec::new()))
    }

    /// Takes one input and appends what is to be done.
    pub fn handle(&mut self, now: Now, input: Input, out: &mut Vec<Effect>) {
        let _ = (now, input, out);
    }

    /// When to call with [`Input::Tick`] at the latest, in `Now::mono_ms`.
    pub fn next_tick(&self) -> u64 {
        u64::MAX
    }

    /// A merged table named in the configuration (or [`crate::MEMBERS`]).
    ///
    /// # Panics
    /// When the table was not configured, which is a fault of the caller's code.
    pub fn table(&self, id: TableId) -> Arc<Merged> {
        self.tables
            .get(&id)
            .expect("only configured tables are asked for")
            .clone()
    }

    /// The cluster as this node sees it.
    pub fn status(&self) -> Status {
        let identity = self.identity.read().expect("no writer panics").clone();
        Status {
            cluster_name: identity.cluster_name,
            cluster: identity.cluster,
            own: identity.name,
            members: Vec::new(),
            skew_refused: 0,
        }
    }

    /// The identity shown in handshakes; data links read it, joining and leaving change it.
    pub fn identity(&self) -> Arc<RwLock<Identity>> {
        self.identity.clone()
    }

    /// The number of the latest change of the own node state.
    pub fn own_number(&self) -> u64 {
        0
    }
}
