//! The messages inside a control link's frames, and the rows they carry.
//!
//! Encoded with postcard, an enum whose variants are only ever appended to; a change of a variant
//! is a new protocol version in the handshake. `docs/wire.md` draws the bytes.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::apart::Side;
use crate::clock::Stamp;
use crate::discovery::Standing;
use crate::failure::SwimId;
use crate::identity::SiteId;
use crate::table::merged::{DIGEST_BUCKETS, Row, TableId};

/// Words of a [`Buckets`] bitmap.
const BUCKET_WORDS: usize = DIGEST_BUCKETS / 64;

/// One row of a merged table.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct WireRow {
    pub(crate) key: Bytes,
    pub(crate) row: Row,
}

/// One change or row of node state.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct OwnChange {
    pub(crate) table: u8,
    pub(crate) key: Bytes,
    pub(crate) value: Option<Bytes>,
}

/// A set of digest buckets.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Buckets(Vec<u64>);

impl Buckets {
    /// The buckets in which two digests differ; a digest of another length differs everywhere.
    pub(crate) fn differing(ours: &[u64], theirs: &[u64]) -> Self {
        let mut words = vec![0; BUCKET_WORDS];
        for (bucket, own) in ours.iter().enumerate() {
            if theirs.get(bucket) != Some(own) {
                words[bucket / 64] |= 1 << (bucket % 64);
            }
        }
        Self(words)
    }

    pub(crate) fn contains(&self, bucket: u16) -> bool {
        let word = self
            .0
            .get(usize::from(bucket) / 64)
            .copied()
            .unwrap_or_default();
        word & (1 << (bucket % 64)) != 0
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.iter().all(|word| *word == 0)
    }
}

/// Why a node will not take a joiner.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Refusal {
    /// It is changing its own cluster.
    Busy,
    /// A running member has the joiner's name.
    NameTaken(SiteId),
    /// Its `cluster.name` differs.
    ClusterName(String),
    /// It is configured never to cluster.
    Singleton,
    /// The member table is full.
    Full,
}

/// One message of a control link.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Message {
    /// The first payload on every connection between nodes of one cluster, before the link.
    Greeting { swim: SwimId, members: Vec<WireRow> },
    /// Rows of a merged table.
    Rows { table: TableId, rows: Vec<WireRow> },
    /// The digests of a merged table's buckets; the reading is returned in `InSync`.
    Digest {
        table: TableId,
        wall_ms: u64,
        buckets: Vec<u64>,
    },
    /// The digests of that reading were equal to ours.
    InSync { table: TableId, wall_ms: u64 },
    /// All keys of the named buckets in `(after, until]` with their stamps.
    Stamps {
        table: TableId,
        buckets: Buckets,
        after: Option<Bytes>,
        until: Option<Bytes>,
        stamps: Vec<(Bytes, Stamp)>,
    },
    /// Send these rows.
    Want { table: TableId, keys: Vec<Bytes> },
    /// The last change of the receiver's node state the sender has; none asks for a snapshot.
    OwnHave { number: Option<u64> },
    /// Changes of the sender's node state, numbered from `first`.
    OwnChanges { first: u64, changes: Vec<OwnChange> },
    /// A snapshot begins that stands for everything up to `number`.
    OwnBegin { number: u64 },
    /// Rows of the snapshot.
    OwnRows { rows: Vec<OwnChange> },
    /// The snapshot is complete.
    OwnEnd { number: u64 },
    /// The receiver's node state has arrived up to this number.
    OwnAck { number: u64 },
    /// A datagram of the failure detector.
    Swim { data: Bytes },
    /// The sender's present life of its failure detector.
    SwimIs { id: SwimId },
    /// This life of the receiver is over: it was declared down, or the receiver told an older one.
    SwimDown { id: SwimId },
    /// A call.
    Call { number: u64, payload: Bytes },
    /// The answer to a call.
    Reply { number: u64, payload: Bytes },
    /// A message without answer.
    Cast { payload: Bytes },
    /// May I become a member? Sent over a link between different clusters.
    JoinAsk { singleton: bool },
    /// No.
    JoinRefused { why: Refusal },
    /// Yes; the cluster state follows.
    JoinWelcome,
    /// Rows of the cluster state, tombstones included.
    JoinRows { table: TableId, rows: Vec<WireRow> },
    /// That was all.
    JoinEnd,
    /// What do you belong to? With the asker's own standing; sent between different clusters.
    MeetAsk { standing: Standing },
    /// The answer.
    MeetIs { standing: Standing },
    /// Whom the sender holds apart. Goes before a greeting, numbered 0 like it, and over the link
    /// when `cluster heal` was run; not sent at all while `cluster.autoheal` is true.
    Side(Side),
    /// Would I be taken as a member? Answered by `JoinRefused` or `JoinMayBe`.
    JoinMay { singleton: bool },
    /// Yes, as it stands.
    JoinMayBe,
    /// Join my cluster.
    Invite,
    /// I shall try.
    InviteTaken,
    /// I shall not, or could not.
    InviteFailed { why: String },
}

/// How many variants a [`Message`] has: tags from here on are a later release's.
pub(crate) const MESSAGES: u32 = 31;

/// What the payload of a frame is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Read {
    /// A message.
    Message(Message),
    /// A message that a later release has and this one has not, by its tag: it is passed over.
    Later(u32),
    /// No message.
    Malformed,
}

impl Message {
    pub(crate) fn read(payload: &[u8]) -> Read {
        match Self::decode(payload) {
            Some(message) => Read::Message(message),
            None => match postcard::take_from_bytes::<u32>(payload) {
                Ok((tag, _)) if tag >= MESSAGES => Read::Later(tag),
                _ => Read::Malformed,
            },
        }
    }

    pub(crate) fn encode(&self) -> Vec<u8> {
        // Serialising plain data into a Vec cannot fail.
        postcard::to_stdvec(self).unwrap_or_default()
    }

    pub(crate) fn decode(payload: &[u8]) -> Option<Self> {
        let (message, rest) = postcard::take_from_bytes(payload).ok()?;
        rest.is_empty().then_some(message)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn differing_buckets_are_found() {
        let ours = vec![0_u64; DIGEST_BUCKETS];
        let mut theirs = ours.clone();
        assert!(Buckets::differing(&ours, &theirs).is_empty());
        theirs[77] = 1;
        let differing = Buckets::differing(&ours, &theirs);
        assert!(differing.contains(77) && !differing.contains(76) && !differing.is_empty());
        assert!(Buckets::differing(&ours, &[]).contains(1_023));
    }

    #[test]
    fn a_message_of_a_later_release_is_told_from_garbage() {
        // Zeros are a body of each: the first tag that is none has no body.
        let known = |tag: &u32| {
            let mut bytes = vec![0; 256];
            bytes[0] = *tag as u8;
            postcard::take_from_bytes::<Message>(&bytes).is_ok()
        };
        let variants = (0..127).take_while(known).count();
        assert_eq!(variants, MESSAGES as usize, "count the variants");
        for tag in [MESSAGES, 100, 70_000] {
            let later = postcard::to_stdvec(&(tag, "its fields")).expect("plain values");
            assert_eq!(Message::read(&later), Read::Later(tag));
        }
        assert_eq!(Message::read(&[1, 2, 3]), Read::Malformed);
        assert_eq!(Message::read(&[]), Read::Malformed);
        let known = Message::OwnAck { number: 3 };
        assert_eq!(Message::read(&known.encode()), Read::Message(known));
    }

    #[test]
    fn a_message_with_trailing_bytes_is_refused() {
        let mut bytes = Message::JoinAsk { singleton: false }.encode();
        assert!(Message::decode(&bytes).is_some());
        bytes.push(0);
        assert_eq!(Message::decode(&bytes), None);
    }

    proptest! {
        #[test]
        fn any_bytes_are_decoded_without_panic(bytes: Vec<u8>) {
            let decoded = Message::decode(&bytes);
            if let Some(message) = decoded {
                prop_assert_eq!(Message::decode(&message.encode()), Some(message));
            }
        }

        #[test]
        fn any_bucket_may_be_asked(words: Vec<u64>, bucket: u16) {
            let set = Buckets(words.clone());
            prop_assert!(!set.contains(bucket) || usize::from(bucket) < words.len() * 64);
        }
    }
}
