//! A forwarded message: the payload of a frame between two shards of different nodes.
//!
//! ```text
//! version u8 = 1 | flags u8 | topic u16 | properties u32 | payload u32      lengths
//! id u64 | expiry ms u64 | groups u16 | dispatch u64, if flagged
//! groups times: group u16 | filter u16 | group | filter
//! topic | properties | payload | clientid           the rest is the client identifier
//! ```
//! Numbers are big endian. Flags: bits 0-1 QoS, 2 retain, 3 DUP, 4 plain subscribers are meant, 5 a
//! receipt for this dispatch number is awaited. The id is the message's, the same in every copy.
//! The expiry is what is left when it is sent (`u64::MAX` none), because wall clocks differ.
//!
//! The receiver gives it to its own subscribers and to one of its members of each group named, and
//! must never forward it again.

use std::sync::Arc;

use bytes::{Buf, BufMut, Bytes};
use dunlin_cluster::Now;
use dunlin_mqtt::QoS;

use crate::message::{Head, Layout, Message};
use crate::router::GroupKey;

const VERSION: u8 = 1;
const HEAD_BYTES: usize = 30;
const RETAIN: u8 = 1 << 2;
const DUP: u8 = 1 << 3;
const PLAIN: u8 = 1 << 4;
const DISPATCH: u8 = 1 << 5;
const NO_EXPIRY: u64 = u64::MAX;

/// What a data link's read buffer holds at most, bytes: a message from it that is kept is copied
/// out when it is much smaller.
const LINK_BUFFER_BYTES: usize = 64 * 1024;

/// A message from another node.
#[derive(Debug)]
pub(crate) struct Forward {
    pub(crate) message: Message,
    /// Plain subscribers get it.
    pub(crate) plain: bool,
    /// One member of each of these gets it.
    pub(crate) groups: Vec<GroupKey>,
    /// The sender's number for it, if it wants a receipt.
    pub(crate) dispatch: Option<u64>,
}

/// Writes everything before the topic; the topic, properties, payload and client identifier follow.
pub(crate) fn put_head(
    out: &mut Vec<u8>,
    now: Now,
    message: &Message,
    plain: bool,
    groups: &[Arc<GroupKey>],
    dispatch: Option<u64>,
) {
    let mut flags = message.qos().as_u8();
    flags |= if message.retain() { RETAIN } else { 0 };
    flags |= if message.dup() { DUP } else { 0 };
    flags |= if plain { PLAIN } else { 0 };
    flags |= if dispatch.is_some() { DISPATCH } else { 0 };
    let left_ms = message
        .expires_wall_ms()
        .map(|at| at.saturating_sub(now.wall_ms));
    out.put_u8(VERSION);
    out.put_u8(flags);
    out.put_u16(message.topic().len() as u16);
    out.put_u32(message.properties().len() as u32);
    out.put_u32(message.payload().len() as u32);
    out.put_u64(message.id().unwrap_or(0));
    out.put_u64(left_ms.unwrap_or(NO_EXPIRY));
    out.put_u16(groups.len() as u16);
    if let Some(number) = dispatch {
        out.put_u64(number);
    }
    for key in groups {
        out.put_u16(key.group().len() as u16);
        out.put_u16(key.filter().len() as u16);
        out.put_slice(key.group().as_bytes());
        out.put_slice(key.filter().as_bytes());
    }
}

/// Reads a forward; `None` for bytes that are none, or of a newer version.
pub(crate) fn decode(now: Now, mut bytes: Bytes) -> Option<Forward> {
    let mut head = bytes.get(..HEAD_BYTES)?;
    if head.get_u8() != VERSION {
        return None;
    }
    let flags = head.get_u8();
    let topic = usize::from(head.get_u16());
    let properties = head.get_u32() as usize;
    let payload = head.get_u32() as usize;
    let id = head.get_u64();
    let left_ms = head.get_u64();
    let count = head.get_u16();
    bytes.advance(HEAD_BYTES);
    let mut dispatch = None;
    if flags & DISPATCH != 0 {
        dispatch = Some(u64::from_be_bytes(*bytes.first_chunk()?));
        bytes.advance(8);
    }
    let mut groups = Vec::new();
    for _ in 0..count {
        groups.push(read_group(&mut bytes)?);
    }
    let payload_end = topic.checked_add(properties)?.checked_add(payload)?;
    if payload_end > bytes.len() || std::str::from_utf8(bytes.get(..topic)?).is_err() {
        return None;
    }
    let layout = Layout {
        topic_bytes: topic as u16,
        properties_at: topic as u32,
        payload_at: (topic + properties) as u32,
        payload_end: payload_end as u32,
    };
    let head = Head {
        qos: QoS::from_u8(flags & 3)?,
        retain: flags & RETAIN != 0,
        dup: flags & DUP != 0,
        origin: None,
        id,
        expires_wall_ms: (left_ms != NO_EXPIRY).then(|| now.wall_ms.saturating_add(left_ms)),
    };
    let message = Message::in_place(bytes, layout, head, LINK_BUFFER_BYTES);
    Some(Forward {
        message,
        plain: flags & PLAIN != 0,
        groups,
        dispatch,
    })
}

fn read_group(bytes: &mut Bytes) -> Option<GroupKey> {
    let mut head = bytes.get(..4)?;
    let (group, filter) = (usize::from(head.get_u16()), usize::from(head.get_u16()));
    bytes.advance(4);
    let names = bytes.get(..group + filter)?;
    let key = GroupKey::new(
        std::str::from_utf8(&names[..group]).ok()?,
        std::str::from_utf8(&names[group..]).ok()?,
    );
    bytes.advance(group + filter);
    Some(key)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::message::Parts;

    fn at(wall_ms: u64) -> Now {
        Now {
            mono_ms: 3,
            wall_ms,
        }
    }

    fn encode(message: &Message, plain: bool, groups: &[Arc<GroupKey>]) -> Bytes {
        let mut out = Vec::new();
        put_head(&mut out, at(1_000), message, plain, groups, None);
        out.extend_from_slice(message.topic().as_bytes());
        out.extend_from_slice(message.properties());
        out.extend_from_slice(message.payload());
        out.extend_from_slice(message.clientid().as_bytes());
        out.into()
    }

    fn sample() -> Message {
        let parts = Parts {
            topic: "a/b",
            properties: &[1, 1],
            payload: b"xyz",
            clientid: "me",
        };
        let head = Head {
            qos: QoS::ExactlyOnce,
            retain: true,
            dup: true,
            id: 77,
            expires_wall_ms: Some(1_500),
            ..Head::default()
        };
        Message::new(parts, head)
    }

    #[test]
    fn a_forward_comes_back_with_its_groups_and_what_is_left_of_its_time() {
        let groups = [
            Arc::new(GroupKey::new("g", "a/#")),
            Arc::new(GroupKey::new("h", "+/b")),
        ];
        let bytes = encode(&sample(), true, &groups);
        let back = decode(at(70_000), bytes).expect("a forward");
        assert!(back.plain);
        assert_eq!(back.groups, groups.map(|g| (*g).clone()));
        let message = back.message;
        assert_eq!((message.topic(), message.payload()), ("a/b", &b"xyz"[..]));
        assert_eq!(
            (message.properties(), message.clientid()),
            (&[1, 1][..], "me")
        );
        assert_eq!((message.qos(), message.retain()), (QoS::ExactlyOnce, true));
        assert_eq!(message.expires_wall_ms(), Some(70_500));
        assert_eq!(message.id(), Some(77));
    }

    proptest! {
        #[test]
        fn no_bytes_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            _ = decode(at(0), bytes.into());
        }

        #[test]
        fn cut_forwards_do_not_panic(len in 0usize..60) {
            let bytes = encode(&sample(), false, &[Arc::new(GroupKey::new("g", "f"))]);
            _ = decode(at(0), bytes.slice(..len.min(bytes.len())));
        }
    }
}
