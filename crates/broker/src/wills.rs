//! The wills of this node's clients as the other nodes keep them, in case this one dies.
//!
//! The sessions own their wills; here is what a row of node state is made of when a peer wants it.
//! A will is listed while its client is connected or its delay runs, and unlisted in the moment it
//! is published or taken back. Must never hold a will its session has not.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::ops::Bound;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use dunlin_cluster::{Hlc, Now};
use dunlin_mqtt::QoS;
use serde::{Deserialize, Serialize};

use crate::message::{Head, Message, Origin, Parts};
use crate::settings::ListenerSettings;
use crate::will::Will;

/// Version of an encoded row; rows of a newer one are kept by nobody and published by nobody.
const ROW_VERSION: u8 = 1;

/// Largest row the others keep. Topic and payload of a will are at most 64 KiB each; what is
/// larger has properties of that size, and dies with its node.
const ROW_BYTES_MAX: usize = 256 * 1_024;

/// A will with what the others have to know beside it.
#[derive(Clone, Debug)]
pub(crate) struct Listed {
    /// When its client connected.
    pub(crate) stamp: Hlc,
    pub(crate) will: Arc<Will>,
    /// Will delay, or what the session outlives its connection if that is less.
    pub(crate) delay_s: u32,
    /// When it is published, while it waits.
    pub(crate) due_wall_ms: Option<u64>,
    pub(crate) peer: SocketAddr,
    pub(crate) listener: Arc<ListenerSettings>,
    /// Bytes of the topic that are the listener's mountpoint.
    pub(crate) mounted: u16,
    /// Authorization does not concern its client.
    pub(crate) superuser: bool,
}

/// The wills by client identifier.
#[derive(Debug, Default)]
pub(crate) struct Wills(Mutex<BTreeMap<Box<str>, Listed>>);

impl Wills {
    /// Enters or replaces a client's will, unless a newer connection of it has one.
    pub(crate) fn list(&self, clientid: &str, listed: Listed) {
        let mut wills = self.lock();
        match wills.get_mut(clientid) {
            Some(known) if known.stamp > listed.stamp => {}
            Some(known) => *known = listed,
            None => _ = wills.insert(clientid.into(), listed),
        }
    }

    /// Takes out the will of the connection with this stamp. Whether it was there.
    pub(crate) fn unlist(&self, clientid: &str, stamp: Hlc) -> bool {
        let mut wills = self.lock();
        let there = wills.get(clientid).is_some_and(|l| l.stamp == stamp);
        if there {
            wills.remove(clientid);
        }
        there
    }

    /// A client's row.
    pub(crate) fn row(&self, clientid: &str) -> Option<Bytes> {
        let listed = self.lock().get(clientid).cloned()?;
        encode(clientid, &listed)
    }

    /// Rows in key order after `after`, at most `limit`: a part of a snapshot.
    pub(crate) fn rows(&self, after: Option<&str>, limit: usize) -> Vec<(String, Bytes)> {
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        let wills = self.lock();
        let listed = wills.range::<str, _>((from, Bound::Unbounded));
        listed
            .filter_map(|(id, listed)| Some((id.to_string(), encode(id, listed)?)))
            .take(limit)
            .collect()
    }

    /// No method leaves the table half changed, so a poisoned lock protects a sound one.
    fn lock(&self) -> MutexGuard<'_, BTreeMap<Box<str>, Listed>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A will of another node's client. Fields are only ever added at the end, with a new version.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct WillRow {
    stamp: u64,
    delay_s: u32,
    due_wall_ms: Option<u64>,
    expiry_s: Option<u32>,
    username: Option<String>,
    topic: String,
    properties: Vec<u8>,
    payload: Vec<u8>,
    qos: u8,
    retain: bool,
    pub(crate) peer: SocketAddr,
    pub(crate) listener: String,
    mounted: u16,
    pub(crate) superuser: bool,
}

fn encode(clientid: &str, listed: &Listed) -> Option<Bytes> {
    let message = &listed.will.message;
    let row = WillRow {
        stamp: listed.stamp.0,
        delay_s: listed.delay_s,
        due_wall_ms: listed.due_wall_ms,
        expiry_s: listed.will.expiry_s,
        username: message.username().map(str::to_owned),
        topic: message.topic().to_owned(),
        properties: message.properties().to_vec(),
        payload: message.payload().to_vec(),
        qos: message.qos().as_u8(),
        retain: message.retain(),
        peer: listed.peer,
        listener: listed.listener.id.clone(),
        mounted: listed.mounted,
        superuser: listed.superuser,
    };
    let bytes = row.encode();
    if bytes.len() > ROW_BYTES_MAX {
        let bytes = bytes.len();
        tracing::warn!(clientid, bytes, "will_too_large_to_outlive_its_node");
        return None;
    }
    Some(bytes)
}

impl WillRow {
    pub(crate) fn encode(&self) -> Bytes {
        let out = postcard::to_extend(self, vec![ROW_VERSION]);
        out.expect("plain values always encode").into()
    }

    /// Reads a row; `None` for bytes that are none, or of a newer version.
    pub(crate) fn decode(bytes: &[u8]) -> Option<Self> {
        let (version, rest) = bytes.split_first()?;
        if *version != ROW_VERSION {
            return None;
        }
        postcard::from_bytes(rest).ok()
    }

    /// When its client connected.
    pub(crate) fn stamp(&self) -> Hlc {
        Hlc(self.stamp)
    }

    /// When it is published, if it waits for that.
    pub(crate) fn due_wall_ms(&self) -> Option<u64> {
        self.due_wall_ms
    }

    /// The will in its session.
    pub(crate) fn will(&self, clientid: &str) -> Will {
        let (parts, head) = self.parts(clientid);
        Will {
            message: Message::new(parts, head),
            delay_s: self.delay_s,
            expiry_s: self.expiry_s,
        }
    }

    /// How long after the death of its node it is published, milliseconds.
    pub(crate) fn delay_ms(&self, now: Now) -> u64 {
        match self.due_wall_ms {
            Some(due) => due.saturating_sub(now.wall_ms),
            None => u64::from(self.delay_s) * 1_000,
        }
    }

    #[cfg(test)]
    pub(crate) fn set_due(&mut self, wall_ms: u64) {
        self.due_wall_ms = Some(wall_ms);
    }

    /// The user name of its client.
    pub(crate) fn username(&self) -> Option<&str> {
        self.username.as_deref()
    }

    /// Its topic as the client wrote it.
    pub(crate) fn unmounted_topic(&self) -> &str {
        let mounted = usize::from(self.mounted);
        self.topic.get(mounted..).unwrap_or(&self.topic)
    }

    /// The message, published now: its expiry interval counts from here [MQTT-3.3.2-5].
    pub(crate) fn message(&self, now: Now, clientid: &str) -> Message {
        let (parts, mut head) = self.parts(clientid);
        let expires = |seconds| now.wall_ms.saturating_add(u64::from(seconds) * 1_000);
        head.expires_wall_ms = self.expiry_s.map(expires);
        Message::new(parts, head)
    }

    fn parts(&self, clientid: &str) -> (Parts<'_>, Head) {
        let parts = Parts {
            topic: &self.topic,
            properties: &self.properties,
            payload: &self.payload,
            clientid: "",
        };
        let origin = Origin {
            clientid: clientid.into(),
            username: self.username.as_deref().map(Into::into),
        };
        let head = Head {
            qos: QoS::from_u8(self.qos).unwrap_or_default(),
            retain: self.retain,
            dup: false,
            origin: Some(Arc::new(origin)),
            id: 0,
            expires_wall_ms: None,
        };
        (parts, head)
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) const NOW: Now = Now {
        mono_ms: 1_000,
        wall_ms: 1_700_000_000_000,
    };

    pub(crate) fn row(stamp: u64, delay_s: u32) -> WillRow {
        WillRow {
            stamp,
            delay_s,
            due_wall_ms: None,
            expiry_s: Some(60),
            username: Some("u".to_owned()),
            topic: "m/gone".to_owned(),
            properties: vec![1, 1],
            payload: b"x".to_vec(),
            qos: 1,
            retain: true,
            peer: ([10, 0, 0, 1], 5_000).into(),
            listener: "tcp:default".to_owned(),
            mounted: 2,
            superuser: false,
        }
    }

    fn listed(stamp: u64) -> Listed {
        let message = row(stamp, 5).message(NOW, "c");
        Listed {
            stamp: Hlc(stamp),
            will: Arc::new(Will {
                message,
                delay_s: 5,
                expiry_s: Some(60),
            }),
            delay_s: 5,
            due_wall_ms: None,
            peer: ([10, 0, 0, 1], 5_000).into(),
            listener: Arc::default(),
            mounted: 2,
            superuser: false,
        }
    }

    #[test]
    fn a_row_brings_the_will_as_it_was() {
        let wills = Wills::default();
        wills.list("c", listed(7));
        let bytes = wills.row("c").expect("listed");
        assert_eq!(WillRow::decode(&bytes), Some(row(7, 5)));
        let message = row(7, 5).message(NOW, "c");
        assert_eq!((message.topic(), message.payload()), ("m/gone", &b"x"[..]));
        assert_eq!(message.expiry_left_s(NOW.wall_ms), Some(60));
        assert_eq!((message.clientid(), message.username()), ("c", Some("u")));
        assert_eq!(row(7, 5).unmounted_topic(), "gone");
    }

    #[test]
    fn only_the_connection_that_left_it_takes_it_back() {
        let wills = Wills::default();
        wills.list("c", listed(7));
        wills.list("c", listed(6));
        assert!(!wills.unlist("c", Hlc(6)));
        assert!(wills.unlist("c", Hlc(7)));
        assert_eq!(wills.row("c"), None);
    }

    #[test]
    fn rows_come_in_key_order_page_by_page() {
        let wills = Wills::default();
        for id in ["b", "a", "c"] {
            wills.list(id, listed(1));
        }
        let ids = |rows: Vec<(String, Bytes)>| rows.into_iter().map(|r| r.0).collect::<Vec<_>>();
        assert_eq!(ids(wills.rows(None, 2)), ["a", "b"]);
        assert_eq!(ids(wills.rows(Some("b"), 2)), ["c"]);
    }

    #[test]
    fn garbage_and_newer_rows_are_no_wills() {
        assert_eq!(WillRow::decode(&[]), None);
        assert_eq!(WillRow::decode(&[1, 2, 3]), None);
        let mut newer = row(1, 0).encode().to_vec();
        newer[0] = 2;
        assert_eq!(WillRow::decode(&newer), None);
    }

    #[test]
    fn a_will_that_waits_is_due_at_its_time() {
        let mut waiting = row(1, 50);
        assert_eq!(waiting.delay_ms(NOW), 50_000);
        waiting.due_wall_ms = Some(NOW.wall_ms + 3_000);
        assert_eq!(waiting.delay_ms(NOW), 3_000);
        waiting.due_wall_ms = Some(NOW.wall_ms - 3_000);
        assert_eq!(waiting.delay_ms(NOW), 0);
    }
}
