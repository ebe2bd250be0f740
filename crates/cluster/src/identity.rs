//! Who a node is: site, boot and cluster ids, the cookie, and the identity shown to peers.
//!
//! Ids are random values handed in or drawn from the core's seeded generator; nothing here reads
//! a global random source. The cookie must never be printed, logged or sent.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::name::NodeName;

/// Writes `bytes` as lower-case hex.
fn hex(bytes: &[u8], f: &mut fmt::Formatter<'_>) -> fmt::Result {
    bytes.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
}

/// Identifies one installation (one data directory), whatever its name; made once at first start.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct SiteId(pub [u8; 16]);

impl fmt::Display for SiteId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        hex(&self.0, f)
    }
}

impl fmt::Debug for SiteId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        hex(&self.0[..4], f)
    }
}

/// Identifies one life of a node towards its peers: random per start and per change of cluster.
///
/// Everything numbered (links, node-state streams) counts within one boot.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct BootId(pub u64);

impl fmt::Display for BootId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        hex(&self.0.to_be_bytes(), f)
    }
}

impl fmt::Debug for BootId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        hex(&self.0.to_be_bytes(), f)
    }
}

/// Identifies a cluster; nodes exchange state only when theirs are equal.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ClusterId(pub [u8; 16]);

impl fmt::Display for ClusterId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        hex(&self.0, f)
    }
}

impl fmt::Debug for ClusterId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        hex(&self.0[..4], f)
    }
}

/// The shared secret of a cluster; it is proven in the handshake and never travels.
#[derive(Clone, PartialEq, Eq)]
pub struct Cookie(Box<[u8]>);

impl Cookie {
    /// Takes the secret from configuration.
    pub fn new(secret: &str) -> Self {
        Self(secret.as_bytes().into())
    }

    pub(crate) fn secret(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for Cookie {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("******")
    }
}

/// One life of another node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Peer {
    /// Its installation.
    pub site: SiteId,
    /// Its current life.
    pub boot: BootId,
    /// Its name, which is also its address.
    pub name: NodeName,
}

/// What this node says about itself in every handshake; joining and leaving change it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// The node's name.
    pub name: NodeName,
    /// Its installation.
    pub site: SiteId,
    /// Its current life; renewed with every change of cluster.
    pub boot: BootId,
    /// The cluster it belongs to (alone or not).
    pub cluster: ClusterId,
    /// `cluster.name` from configuration.
    pub cluster_name: String,
    /// The port it listens on for peers.
    pub listen_port: u16,
}

impl Identity {
    /// This identity as others see it.
    pub fn peer(&self) -> Peer {
        Peer {
            site: self.site,
            boot: self.boot,
            name: self.name.clone(),
        }
    }
}
