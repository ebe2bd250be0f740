//! The member table: who belongs to the cluster.
//!
//! One row per site, live or gone, in the merged table [`crate::MEMBERS`]; gone rows stay, so that a
//! removed site that returns is told. Liveness is not membership and is never stored here.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::name::NodeName;

/// Whether a site belongs to the cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Membership {
    /// It does.
    Member,
    /// It left or was removed.
    Gone,
}

/// One row of the member table.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Member {
    /// The node's name, which is also its address.
    pub name: NodeName,
    /// Whether it belongs to the cluster.
    pub state: Membership,
    /// How often this site's membership changed; a rejoin is a later version than the removal.
    pub version: u64,
}

impl Member {
    /// The stored and replicated form.
    pub fn encode(&self) -> Bytes {
        postcard::to_stdvec(self).unwrap_or_default().into()
    }

    /// Reads the stored form.
    pub fn decode(value: &[u8]) -> Option<Self> {
        postcard::from_bytes(value).ok()
    }
}
