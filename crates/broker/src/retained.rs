//! Retained messages: the last message of a topic, for those who subscribe later.
//!
//! They are cluster state: one merged table for all nodes, ordered by topic, so that the table
//! itself is the index. A filter is answered by a skip scan: walk the keys in order, and on one
//! that does not match seek to the next that could. There is no second structure to keep in step.
//!
//! A row's key is the topic; its value (all numbers big endian):
//!
//! ```text
//! version u8 = 1 | QoS u8 | published wall ms u64 | expires wall ms u64 (0 never)
//! username u16 | properties u32 | payload u32      lengths
//! username | properties | payload | clientid       the rest is the client identifier
//! ```
//!
//! Must never hold the table's lock for longer than a bounded scan: writers wait.

use std::ops::{ControlFlow, Deref};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::{BufMut, Bytes, BytesMut};
use dunlin_cluster::{Applied, Merged, Now, Stamp, TableSpec, Value};
use dunlin_mqtt::QoS;

use crate::control::TABLES;
use crate::message::{Head, Layout, Message, Parts};
use crate::router::SubOptions;
use crate::settings::Retainer;

/// The table they are in.
pub const RETAINED: TableSpec = TABLES[0];

/// Rows looked at under one lock, about a millisecond.
const SCAN_ROWS_MAX: usize = 10_000;

/// Up to this size a replayed message is copied into one buffer with its topic, which is cheaper
/// than two allocations for a topic on the side.
const COPY_BYTES_MAX: usize = 1_024;

const VERSION: u8 = 1;
const HEAD_BYTES: usize = 28;

/// What became of a message with the retain flag.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stored {
    /// It is the topic's retained message: persist and replicate the row.
    Stored,
    /// The payload was empty, the topic has none any more: persist and replicate the row.
    Deleted,
    /// Another node has written later.
    Older,
    /// `retainer.enable = false`.
    Disabled,
    /// Payload larger than `retainer.max_payload_size`.
    PayloadTooLarge,
    /// A new topic, and `retainer.max_retained_messages` (or the table's bound) is reached.
    TableFull,
    /// More than `retainer.max_publish_rate` this second.
    RateExceeded,
}

impl Stored {
    /// Whether the table changed.
    pub fn is_change(self) -> bool {
        matches!(self, Self::Stored | Self::Deleted)
    }
}

/// The retained messages. See the module.
#[derive(Debug)]
pub struct Retained {
    table: Arc<Merged>,
    /// This second (upper half) and messages stored in it (lower half).
    rate: AtomicU64,
}

impl Retained {
    /// Over the cluster's table.
    pub fn new(table: Arc<Merged>) -> Self {
        Self {
            table,
            rate: AtomicU64::new(0),
        }
    }

    /// The table below.
    pub fn table(&self) -> &Arc<Merged> {
        &self.table
    }

    /// How many there are, expired ones that are not swept yet included.
    pub fn len(&self) -> usize {
        self.table.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.table.is_empty()
    }

    /// Stores a message with the retain flag, or deletes if its payload is empty. `topic` is the
    /// row's key in either case.
    pub fn put(&self, now: Now, message: &Message, stamp: Stamp, rule: &Retainer) -> Stored {
        if !rule.enable {
            return Stored::Disabled;
        }
        if message.payload().is_empty() {
            return self.delete(message.topic(), stamp);
        }
        let bytes = message.payload().len() as u64;
        if rule.max_payload_bytes.is_some_and(|max| bytes > max) {
            return Stored::PayloadTooLarge;
        }
        let topic = message.topic().as_bytes();
        let full = |max| self.table.len() as u64 >= max && self.table.get(topic).is_none();
        if rule.max_retained_messages.is_some_and(full) {
            return Stored::TableFull;
        }
        if rule
            .max_publish_rate
            .is_some_and(|max| !self.take_turn(now, max))
        {
            return Stored::RateExceeded;
        }
        let value = encode(message, now.wall_ms, expiry(message, now.wall_ms, rule));
        match self.table.put(topic, Some(value), stamp) {
            Applied::Won => Stored::Stored,
            Applied::Lost => Stored::Older,
            Applied::Full => Stored::TableFull,
            Applied::TooLarge => Stored::PayloadTooLarge,
        }
    }

    /// Deletes a topic's message. Leaves a tombstone even if there is none here: another node's
    /// earlier write may still be on its way.
    pub fn delete(&self, topic: &str, stamp: Stamp) -> Stored {
        match self.table.put(topic.as_bytes(), None, stamp) {
            Applied::Won => Stored::Deleted,
            Applied::Lost => Stored::Older,
            Applied::Full => Stored::TableFull,
            Applied::TooLarge => Stored::PayloadTooLarge,
        }
    }

    /// The message of a topic.
    pub fn get(&self, topic: &str, wall_ms: u64) -> Option<Found<'static>> {
        let value = self.table.get(topic.as_bytes())?;
        let found = Found::read(topic, Value::Large(&value))?.into_owned(topic, &value);
        (!found.is_expired(wall_ms)).then_some(found)
    }

    /// Calls `f` with the messages whose topics match `filter`, in the order of their topics,
    /// beginning behind `after`. Returns the topic to go on after, if `f` broke off or so much was
    /// looked at that writers should have a turn; `None` when all have been seen.
    pub fn match_filter(
        &self,
        filter: &str,
        after: Option<&str>,
        wall_ms: u64,
        f: impl FnMut(Found<'_>) -> ControlFlow<()>,
    ) -> Option<String> {
        let levels: Vec<&[u8]> = filter.as_bytes().split(|b| *b == b'/').collect();
        self.scan(|key, seek| judge(&levels, key, seek), after, wall_ms, f)
    }

    /// Calls `f` with all messages, `$`-topics included; else as [`Retained::match_filter`].
    pub fn for_each(
        &self,
        after: Option<&str>,
        wall_ms: u64,
        f: impl FnMut(Found<'_>) -> ControlFlow<()>,
    ) -> Option<String> {
        self.scan(|_, _| Verdict::Match, after, wall_ms, f)
    }

    /// Topics whose messages' time is over, beginning behind `after`, and where to go on: what a
    /// sweep deletes.
    pub fn expired(&self, after: Option<&str>, wall_ms: u64) -> (Vec<String>, Option<String>) {
        let mut topics = Vec::new();
        // Looked at with a clock at 0 nothing is expired, so everything is shown.
        let next = self.for_each(after, 0, |found| {
            if found.is_expired(wall_ms) {
                topics.push(found.topic.into_owned());
            }
            ControlFlow::Continue(())
        });
        (topics, next)
    }

    fn scan(
        &self,
        judge: impl Fn(&[u8], &mut Vec<u8>) -> Verdict,
        after: Option<&str>,
        wall_ms: u64,
        mut f: impl FnMut(Found<'_>) -> ControlFlow<()>,
    ) -> Option<String> {
        // The least key behind `after` is `after` with a zero byte.
        let mut seek = after.map_or_else(Vec::new, |after| [after.as_bytes(), &[0]].concat());
        let mut left = SCAN_ROWS_MAX;
        let table = self.table.read();
        'seek: loop {
            for (key, value) in table.range(&std::mem::take(&mut seek)) {
                let verdict = judge(key, &mut seek);
                let mut go_on = ControlFlow::Continue(());
                if verdict == Verdict::Match
                    && let Ok(topic) = std::str::from_utf8(key)
                    && let Some(found) = Found::read(topic, value)
                    && !found.is_expired(wall_ms)
                {
                    go_on = f(found);
                }
                left -= 1;
                if go_on.is_break() || left == 0 {
                    return Some(String::from_utf8_lossy(key).into_owned());
                }
                match verdict {
                    Verdict::Match | Verdict::Next => {}
                    Verdict::Seek => continue 'seek,
                    Verdict::End => return None,
                }
            }
            return None;
        }
    }

    /// Counts one message against the rate; false if this second's are used up.
    fn take_turn(&self, now: Now, max: u64) -> bool {
        let second = (now.mono_ms / 1_000) << 32;
        let count = |seen: u64| {
            let used = if seen & !u64::from(u32::MAX) == second {
                seen as u32
            } else {
                0
            };
            (u64::from(used) < max).then(|| second | u64::from(used.saturating_add(1)))
        };
        self.rate
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, count)
            .is_ok()
    }
}

/// The replay of retained messages to one new subscription, a piece at a time: a client takes them
/// as fast as it reads, and the table is not locked meanwhile.
#[derive(Clone, Debug)]
pub struct Replay {
    filter: Box<str>,
    after: Option<String>,
    options: SubOptions,
}

impl Replay {
    /// To a subscription to `filter` (without a prefix) with these options.
    pub fn new(filter: &str, options: SubOptions) -> Self {
        Self {
            filter: filter.into(),
            after: None,
            options,
        }
    }

    /// The filter.
    pub fn filter(&self) -> &str {
        &self.filter
    }

    /// The subscription's options.
    pub fn options(&self) -> SubOptions {
        self.options
    }

    /// Calls `f` with the next messages until it breaks off. True if there may be more.
    pub fn next(
        &mut self,
        retained: &Retained,
        wall_ms: u64,
        f: impl FnMut(Found<'_>) -> ControlFlow<()>,
    ) -> bool {
        let next = retained.match_filter(&self.filter, self.after.as_deref(), wall_ms, f);
        let more = next.is_some();
        self.after = next.or_else(|| self.after.take());
        more
    }
}

fn expiry(message: &Message, wall_ms: u64, rule: &Retainer) -> u64 {
    let from_now = |ms: u64| wall_ms.saturating_add(ms);
    let forced = rule.msg_expiry_interval_override_ms.map(from_now);
    let own = || message.expires_wall_ms();
    let general = || rule.msg_expiry_interval_ms.map(from_now);
    forced.or_else(own).or_else(general).unwrap_or(0)
}

#[cfg(test)]
pub(crate) fn sample(message: &Message) -> Bytes {
    encode(message, 1_700_000_000_000, 1_700_000_060_000)
}

#[cfg(test)]
pub(crate) fn is_row(value: &[u8]) -> bool {
    Found::read("t", Value::Inline(value)).is_some()
}

fn encode(message: &Message, published_wall_ms: u64, expires_wall_ms: u64) -> Bytes {
    let username = message.username().unwrap_or_default().as_bytes();
    let username = &username[..username.len().min(usize::from(u16::MAX))];
    let (properties, payload) = (message.properties(), message.payload());
    let clientid = message.clientid().as_bytes();
    let bytes = HEAD_BYTES + username.len() + properties.len() + payload.len() + clientid.len();
    let mut out = BytesMut::with_capacity(bytes);
    out.put_u8(VERSION);
    out.put_u8(message.qos().as_u8());
    out.put_u64(published_wall_ms);
    out.put_u64(expires_wall_ms);
    out.put_u16(username.len() as u16);
    out.put_u32(properties.len() as u32);
    out.put_u32(payload.len() as u32);
    for part in [username, properties, payload, clientid] {
        out.put_slice(part);
    }
    out.freeze()
}

/// A row that is looked at under the table's lock, or was taken out of it.
#[derive(Clone, Debug)]
enum Body<'a> {
    InTable(Value<'a>),
    Own(Bytes),
}

impl Body<'_> {
    fn to_bytes(&self) -> Bytes {
        match self {
            Self::InTable(value) => value.to_bytes(),
            Self::Own(value) => value.clone(),
        }
    }
}

impl Deref for Body<'_> {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match self {
            Self::InTable(value) => value,
            Self::Own(value) => value,
        }
    }
}

/// A retained message in its row.
#[derive(Clone, Debug)]
pub struct Found<'a> {
    /// Its topic.
    pub topic: std::borrow::Cow<'a, str>,
    value: Body<'a>,
    published_wall_ms: u64,
    expires_wall_ms: u64,
    properties_at: usize,
    payload_at: usize,
    payload_end: usize,
    qos: QoS,
}

impl<'a> Found<'a> {
    /// Reads a row; `None` if it is not one this release can read.
    fn read(topic: &'a str, value: Value<'a>) -> Option<Self> {
        let head: &[u8; HEAD_BYTES] = value.first_chunk()?;
        if head[0] != VERSION {
            return None;
        }
        let u32_at =
            |at: usize| Some(u32::from_be_bytes(head[at..at + 4].try_into().ok()?) as usize);
        let u64_at = |at: usize| Some(u64::from_be_bytes(head[at..at + 8].try_into().ok()?));
        let username = usize::from(u16::from_be_bytes([head[18], head[19]]));
        let properties_at = HEAD_BYTES + username;
        let payload_at = properties_at.checked_add(u32_at(20)?)?;
        let payload_end = payload_at.checked_add(u32_at(24)?)?;
        if payload_end > value.len() {
            return None;
        }
        Some(Self {
            topic: topic.into(),
            value: Body::InTable(value),
            published_wall_ms: u64_at(2)?,
            expires_wall_ms: u64_at(10)?,
            properties_at,
            payload_at,
            payload_end,
            qos: QoS::from_u8(head[1])?,
        })
    }

    fn into_owned(self, topic: &str, value: &Bytes) -> Found<'static> {
        Found {
            topic: topic.to_owned().into(),
            value: Body::Own(value.clone()),
            published_wall_ms: self.published_wall_ms,
            expires_wall_ms: self.expires_wall_ms,
            properties_at: self.properties_at,
            payload_at: self.payload_at,
            payload_end: self.payload_end,
            qos: self.qos,
        }
    }

    /// QoS as published.
    pub fn qos(&self) -> QoS {
        self.qos
    }

    /// The payload.
    pub fn payload(&self) -> &[u8] {
        &self.value[self.payload_at..self.payload_end]
    }

    /// The encoded MQTT 5 properties that are forwarded.
    pub fn properties(&self) -> &[u8] {
        &self.value[self.properties_at..self.payload_at]
    }

    /// Publisher's client identifier.
    pub fn clientid(&self) -> &str {
        std::str::from_utf8(&self.value[self.payload_end..]).unwrap_or_default()
    }

    /// Publisher's user name; empty if there is none.
    pub fn username(&self) -> &str {
        std::str::from_utf8(&self.value[HEAD_BYTES..self.properties_at]).unwrap_or_default()
    }

    /// When it was published, wall clock ms.
    pub fn published_wall_ms(&self) -> u64 {
        self.published_wall_ms
    }

    /// When its time is over, wall clock ms.
    pub fn expires_wall_ms(&self) -> Option<u64> {
        (self.expires_wall_ms > 0).then_some(self.expires_wall_ms)
    }

    fn is_expired(&self, wall_ms: u64) -> bool {
        self.expires_wall_ms > 0 && self.expires_wall_ms <= wall_ms
    }

    /// The message to deliver, with the retain flag set.
    pub fn message(&self) -> Message {
        let head = Head {
            qos: self.qos,
            retain: true,
            expires_wall_ms: self.expires_wall_ms(),
            ..Head::default()
        };
        if self.value.len() <= COPY_BYTES_MAX {
            let parts = Parts {
                topic: &self.topic,
                properties: self.properties(),
                payload: self.payload(),
                clientid: self.clientid(),
            };
            return Message::new(parts, head);
        }
        let body = self.value.to_bytes().slice(self.properties_at..);
        let layout = Layout {
            topic_bytes: 0,
            properties_at: 0,
            payload_at: (self.payload_at - self.properties_at) as u32,
            payload_end: (self.payload_end - self.properties_at) as u32,
        };
        let buffer_bytes = body.len();
        let topic = Arc::new(Box::from(&*self.topic));
        Message::in_place(body, layout, head, buffer_bytes).with_topic(topic)
    }
}

/// What to do about a key of the scan.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    /// It matches.
    Match,
    /// It does not; the next one may.
    Next,
    /// It does not, nor any before the key in `seek`, which is greater.
    Seek,
    /// It does not, nor any behind it.
    End,
}

/// Holds a key against a filter. Keys are ordered as bytes, so the subtree of `a` is not next to
/// it: `a`, `a-b`, `a/b`, `a0`. It is exactly the keys from `a/` to before `a0`, because `0` is the
/// character behind `/`.
fn judge(filter: &[&[u8]], key: &[u8], seek: &mut Vec<u8>) -> Verdict {
    if matches!(filter[0], b"+" | b"#") && key.first() == Some(&b'$') {
        return go_to(seek, &[b"%"]);
    }
    // End of the key's level that the last `+` took.
    let mut plus_end = None;
    let mut start = 0;
    for (at, level) in filter.iter().enumerate() {
        if *level == b"#" {
            return Verdict::Match;
        }
        let end = key[start..]
            .iter()
            .position(|b| *b == b'/')
            .map_or(key.len(), |n| start + n);
        let is_last = at + 1 == filter.len();
        if *level == b"+" {
            plus_end = Some(end);
        } else if key[start..end] != **level {
            return missed(&key[..start], level, is_last, key, plus_end, seek);
        }
        if is_last {
            // Not a match if the key has more levels; then neither is its whole subtree.
            return if end == key.len() {
                Verdict::Match
            } else {
                go_to(seek, &[&key[..end], b"0"])
            };
        }
        if end == key.len() {
            return if filter[at + 1] == b"#" {
                Verdict::Match
            } else {
                Verdict::Next
            };
        }
        start = end + 1;
    }
    Verdict::Match
}

/// The key has another level where the filter wants `level` behind `parent`.
fn missed(
    parent: &[u8],
    level: &[u8],
    is_last: bool,
    key: &[u8],
    plus_end: Option<usize>,
    seek: &mut Vec<u8>,
) -> Verdict {
    go_to(seek, &[parent, level]);
    if key < seek.as_slice() {
        return Verdict::Seek;
    }
    seek.push(b'/');
    if !is_last && key < seek.as_slice() {
        return Verdict::Seek;
    }
    // All below the parent is behind us: on to the next value of the last `+` above it.
    match plus_end {
        Some(end) => go_to(seek, &[&key[..end], b"0"]),
        None => Verdict::End,
    }
}

fn go_to(seek: &mut Vec<u8>, parts: &[&[u8]]) -> Verdict {
    seek.clear();
    for part in parts {
        seek.extend_from_slice(part);
    }
    Verdict::Seek
}

#[cfg(test)]
mod tests;
