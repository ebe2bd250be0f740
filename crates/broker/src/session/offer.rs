//! What a node must know of a client to take over its session while it is not connected.
//!
//! A CONNECT says all of this; where there is none, the node that gives the session away does. The
//! session itself follows by the takeover that a connection would have begun.

use std::net::SocketAddr;
use std::sync::Arc;

use dunlin_cluster::{Hlc, Now};
use dunlin_mqtt::Version;
use serde::{Deserialize, Serialize};

use super::{Client, Session};
use crate::effects::ShardId;
use crate::message::Origin;
use crate::settings::{ListenerSettings, Settings};
use crate::will::Will;
use crate::wills::WillRow;

/// See the module. Travels between nodes; fields are only ever added at the end, with a new kind of
/// notice.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SessionOffer {
    pub(crate) clientid: String,
    pub(crate) username: Option<String>,
    /// Of its last connection.
    pub(crate) stamp: Hlc,
    pub(crate) expiry_s: u32,
    pub(crate) window: u16,
    peer: SocketAddr,
    listener: String,
    zone: String,
    mountpoint: Option<String>,
    connected_at_wall_ms: u64,
    disconnected_at_wall_ms: Option<u64>,
    version: u8,
    keepalive_s: u16,
    clean_start: bool,
    bridge: bool,
    assigned: bool,
    superuser: bool,
    /// A will that waits for its delay, as [`WillRow`] encodes it.
    will: Option<Vec<u8>>,
    /// How long it still waits, milliseconds: clocks of two nodes may differ.
    will_due_in_ms: Option<u64>,
}

impl SessionOffer {
    /// What there is to know of a session's client; `will` is the row of the one that waits.
    pub(crate) fn of(session: &Session, now: Now, will: Option<Vec<u8>>) -> Self {
        let client = &session.client;
        let row = will.as_deref().and_then(WillRow::decode);
        let due_wall_ms = row.and_then(|row| row.due_wall_ms());
        Self {
            clientid: session.clientid().to_owned(),
            username: session.origin.username.as_deref().map(str::to_owned),
            stamp: session.stamp,
            expiry_s: session.expiry_s,
            window: session.window,
            peer: client.peer,
            listener: client.listener.id.clone(),
            zone: client.listener.zone.clone(),
            mountpoint: client.mountpoint.as_deref().map(str::to_owned),
            connected_at_wall_ms: client.connected_at_wall_ms,
            disconnected_at_wall_ms: client.disconnected_at_wall_ms,
            version: client.version.level(),
            keepalive_s: client.keepalive_s,
            clean_start: client.clean_start,
            bridge: client.bridge,
            assigned: client.assigned,
            superuser: client.superuser,
            will,
            will_due_in_ms: due_wall_ms.map(|due| due.saturating_sub(now.wall_ms)),
        }
    }

    /// The session its takeover fills.
    pub(crate) fn session(&self, settings: &Settings) -> Session {
        let origin = Arc::new(Origin {
            clientid: self.clientid.as_str().into(),
            username: self.username.as_deref().map(Into::into),
        });
        // The listener of that name here, if there is one, is for connections made through it.
        let listener = ListenerSettings {
            id: self.listener.clone(),
            zone: self.zone.clone(),
            ..ListenerSettings::default()
        };
        let client = Client {
            peer: self.peer,
            mqtt: Arc::clone(settings.zone(&self.zone)),
            listener: Arc::new(listener),
            cert: None,
            mountpoint: self.mountpoint.as_deref().map(Into::into),
            connected_at_wall_ms: self.connected_at_wall_ms,
            disconnected_at_wall_ms: self.disconnected_at_wall_ms,
            version: match self.version {
                5 => Version::V5,
                3 => Version::V3_1,
                _ => Version::V3_1_1,
            },
            keepalive_s: self.keepalive_s,
            clean_start: self.clean_start,
            bridge: self.bridge,
            assigned: self.assigned,
            superuser: self.superuser,
        };
        let mut session = Session::new(origin, client, 0, self.window);
        session.stamp = self.stamp;
        session.expiry_s = self.expiry_s;
        session
    }

    /// The will that waits, and when it is due by this node's clock, wall ms.
    pub(crate) fn will(&self, now: Now) -> Option<(Arc<Will>, u64)> {
        let row = WillRow::decode(self.will.as_deref()?)?;
        let due_wall_ms = now.wall_ms.saturating_add(self.will_due_in_ms?);
        Some((Arc::new(row.will(&self.clientid)), due_wall_ms))
    }

    /// One of `shards`, the same for the same client, evenly spread.
    pub(crate) fn shard_of(&self, shards: ShardId) -> ShardId {
        let sum = self
            .clientid
            .bytes()
            .fold(0_u32, |sum, b| sum.wrapping_mul(31).wrapping_add(b.into()));
        ((sum ^ (sum >> 8)) % u32::from(shards.max(1))) as ShardId
    }

    #[cfg(test)]
    pub(crate) fn sample() -> Self {
        Self {
            clientid: "client".to_owned(),
            username: Some("user".to_owned()),
            stamp: Hlc(0x0123_4567_89ab_cdef),
            expiry_s: 3_600,
            window: 32,
            peer: ([10, 0, 0, 1], 5_000).into(),
            listener: "tcp:default".to_owned(),
            zone: "default".to_owned(),
            mountpoint: Some("m/".to_owned()),
            connected_at_wall_ms: 1_700_000_000_000,
            disconnected_at_wall_ms: Some(1_700_000_001_000),
            version: 5,
            keepalive_s: 60,
            clean_start: false,
            bridge: false,
            assigned: true,
            superuser: false,
            will: Some(vec![1, 2, 3]),
            will_due_in_ms: Some(1_000),
        }
    }
}
