//! What nodes of this release say to each other, byte for byte: fixtures that a change must not
//! break unseen.

use std::fmt::Write;

use bytes::{Bytes, BytesMut};

use crate::apart::Side;
use crate::clock::{Hlc, Now, Stamp};
use crate::discovery::Standing;
use crate::failure::SwimId;
use crate::identity::{BootId, ClusterId, Cookie, Identity, SiteId};
use crate::link::frame::{self, FrameKind};
use crate::link::{Handshake, HandshakeError, Purpose};
use crate::name::NodeName;
use crate::table::merged::{Row, TableId};
use crate::wire::{Buckets, MESSAGES, Message, OwnChange, Refusal, WireRow};

const RECORDED: &str = include_str!("../tests/fixtures/wire-1.txt");

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        _ = write!(text, "{byte:02x}");
        text
    })
}

/// The recorded form of `name`, and what a failure tells whoever changed it.
#[track_caller]
fn check(name: &str, present: &[u8]) -> Vec<u8> {
    let recorded = RECORDED
        .lines()
        .find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    let present = hex(present);
    let recorded = recorded.unwrap_or_default();
    assert_eq!(
        recorded, present,
        "\nThe recorded form of `{name}` is not what this release writes. Other releases read and \
         write it, so a format is changed as docs/wire.md says under \"Changing a format\". If it \
         is new, append this line to crates/cluster/tests/fixtures/wire-1.txt:\n{name} {present}\n",
    );
    let byte = |at| u8::from_str_radix(&recorded[at..at + 2], 16).expect("hexadecimal");
    (0..recorded.len()).step_by(2).map(byte).collect()
}

const SITE: SiteId = SiteId([0xab; 16]);

const STAMP: Stamp = Stamp {
    hlc: Hlc(0x0123_4567_89ab_cdef),
    site: SITE,
};

fn row() -> Row {
    Row::new(STAMP, Some(Bytes::from_static(b"value")))
}

fn rows() -> Vec<WireRow> {
    let gone = Row {
        value: None,
        ..row()
    };
    let key = |key: &'static [u8]| Bytes::from_static(key);
    vec![
        WireRow {
            key: key(b"key"),
            row: row(),
        },
        WireRow {
            key: key(b"gone"),
            row: gone,
        },
    ]
}

fn changes() -> Vec<OwnChange> {
    let change = |value: Option<&'static [u8]>| OwnChange {
        table: 2,
        key: Bytes::from_static(b"client"),
        value: value.map(Bytes::from_static),
    };
    vec![change(Some(b"v")), change(None)]
}

const TABLE: TableId = TableId(16);
const ID: SwimId = SwimId {
    site: SITE,
    epoch: 300,
};
const NUMBER: u64 = 300;

/// One of each variant, in the order of their tags.
fn messages() -> Vec<(&'static str, Message)> {
    [cluster_state(), node_state(), calls_and_joins()].concat()
}

fn cluster_state() -> Vec<(&'static str, Message)> {
    let (table, bytes) = (TABLE, Bytes::from_static);
    let ours = vec![0_u64; 1_024];
    let mut theirs = ours.clone();
    theirs[65] = 1;
    let buckets = Buckets::differing(&ours, &theirs);
    vec![
        (
            "greeting",
            Message::Greeting {
                swim: ID,
                members: rows(),
            },
        ),
        (
            "rows",
            Message::Rows {
                table,
                rows: rows(),
            },
        ),
        (
            "digest",
            Message::Digest {
                table,
                wall_ms: 7,
                buckets: vec![1, u64::MAX],
            },
        ),
        ("in-sync", Message::InSync { table, wall_ms: 7 }),
        (
            "stamps",
            Message::Stamps {
                table,
                buckets,
                after: Some(bytes(b"a")),
                until: None,
                stamps: vec![(bytes(b"k"), STAMP)],
            },
        ),
        (
            "want",
            Message::Want {
                table,
                keys: vec![bytes(b"a"), bytes(b"")],
            },
        ),
    ]
}

fn node_state() -> Vec<(&'static str, Message)> {
    let (id, number, bytes) = (ID, NUMBER, Bytes::from_static);
    vec![
        (
            "own-have",
            Message::OwnHave {
                number: Some(number),
            },
        ),
        (
            "own-changes",
            Message::OwnChanges {
                first: number,
                changes: changes(),
            },
        ),
        ("own-begin", Message::OwnBegin { number }),
        ("own-rows", Message::OwnRows { rows: changes() }),
        ("own-end", Message::OwnEnd { number }),
        ("own-ack", Message::OwnAck { number }),
        (
            "swim",
            Message::Swim {
                data: bytes(b"datagram"),
            },
        ),
        ("swim-is", Message::SwimIs { id }),
        ("swim-down", Message::SwimDown { id }),
    ]
}

fn calls_and_joins() -> Vec<(&'static str, Message)> {
    let (table, number, bytes) = (TABLE, NUMBER, Bytes::from_static);
    let standing = Standing::sample();
    vec![
        (
            "call",
            Message::Call {
                number,
                payload: bytes(b"question"),
            },
        ),
        (
            "reply",
            Message::Reply {
                number,
                payload: bytes(b"answer"),
            },
        ),
        (
            "cast",
            Message::Cast {
                payload: bytes(b"notice"),
            },
        ),
        ("join-ask", Message::JoinAsk { singleton: true }),
        (
            "join-refused",
            Message::JoinRefused {
                why: Refusal::NameTaken(SITE),
            },
        ),
        ("join-welcome", Message::JoinWelcome),
        (
            "join-rows",
            Message::JoinRows {
                table,
                rows: rows(),
            },
        ),
        ("join-end", Message::JoinEnd),
        ("meet-ask", Message::MeetAsk { standing }),
        ("meet-is", Message::MeetIs { standing }),
        (
            "side",
            Message::Side(Side {
                apart: vec![(SITE, BootId(300))],
                healed: Hlc(7),
                clock: STAMP.hlc,
            }),
        ),
        ("join-may", Message::JoinMay { singleton: true }),
        ("join-may-be", Message::JoinMayBe),
        ("invite", Message::Invite),
        ("invite-taken", Message::InviteTaken),
        (
            "invite-failed",
            Message::InviteFailed {
                why: "why".to_owned(),
            },
        ),
    ]
}

#[test]
fn control_messages_are_what_other_releases_read() {
    assert_eq!(messages().len(), MESSAGES as usize, "one of each");
    for (tag, (name, message)) in messages().into_iter().enumerate() {
        let encoded = message.encode();
        assert_eq!(usize::from(encoded[0]), tag, "{name} keeps its place");
        let recorded = check(name, &encoded);
        assert_eq!(Message::decode(&recorded), Some(message), "{name} is read");
    }
}

#[test]
fn refusals_keep_their_numbers() {
    let all = [
        Refusal::Busy,
        Refusal::NameTaken(SITE),
        Refusal::ClusterName("other".to_owned()),
        Refusal::Singleton,
        Refusal::Full,
    ];
    for (number, why) in all.into_iter().enumerate() {
        let bytes = postcard::to_stdvec(&why).expect("plain values");
        assert_eq!(usize::from(bytes[0]), number, "{why:?}");
    }
}

#[test]
fn frames_are_what_other_releases_read() {
    let payload: &[&[u8]] = &[b"pay", b"load"];
    for (name, kind, number) in [
        ("frame-open", FrameKind::Open, 1),
        ("frame-attach", FrameKind::Attach, 2),
        ("frame-ack", FrameKind::Ack, 3),
        ("frame-data", FrameKind::Data, u64::MAX),
    ] {
        let recorded = check(name, &frame::encode(kind, number, payload));
        let mut buf = BytesMut::from(&recorded[..]);
        let read = frame::decode(&mut buf).expect("sound").expect("whole");
        assert_eq!((read.kind, read.number), (kind, number), "{name}");
        assert_eq!(&read.payload[..], b"payload");
    }
}

#[test]
fn stored_rows_are_what_other_releases_read() {
    let gone = Row {
        value: None,
        ..row()
    };
    for (name, row) in [("row-live", row()), ("row-gone", gone)] {
        let recorded = check(name, &row.encode());
        assert_eq!(Row::decode(&recorded.into()), Some(row), "{name}");
    }
}

fn identity(name: &str, site: u8) -> Identity {
    Identity {
        name: NodeName::parse(name).expect("valid"),
        site: SiteId([site; 16]),
        boot: BootId(300),
        cluster: ClusterId([0xcd; 16]),
        cluster_name: "emqxcl".to_owned(),
        listen_port: 4_370,
    }
}

const NOW: Now = Now {
    mono_ms: 1,
    wall_ms: 1_700_000_000_000,
};

fn hello() -> Bytes {
    let cookie = Cookie::new("cookie");
    let identity = identity("emqx@a", 1);
    let purpose = Purpose::Data { index: 3 };
    let mut dialer = Handshake::dial(&identity, &cookie, purpose, [9; 32], NOW, None);
    dialer.take_output().expect("it speaks first")
}

fn accept(hello: &[u8]) -> Result<Option<crate::link::Hello>, HandshakeError> {
    let cookie = Cookie::new("cookie");
    let mut acceptor = Handshake::accept(&identity("emqx@b", 2), &cookie, [8; 32], NOW);
    acceptor.receive(&mut BytesMut::from(hello))
}

#[test]
fn a_hello_is_what_other_releases_read() {
    let recorded = check("hello", &hello());
    assert_eq!(
        accept(&recorded),
        Ok(None),
        "it is taken, and the proof awaited"
    );
}

/// A hello as a later release may say it: another range of versions, and fields at its end.
fn later_hello(oldest: u16, newest: u16) -> Vec<u8> {
    let mut bytes = hello().to_vec();
    bytes[9..11].copy_from_slice(&oldest.to_be_bytes());
    bytes[11..13].copy_from_slice(&newest.to_be_bytes());
    bytes.extend(b"a new field");
    let body = (bytes.len() - 9) as u32;
    bytes[5..9].copy_from_slice(&body.to_be_bytes());
    bytes
}

#[test]
fn a_later_release_that_speaks_our_version_too_is_welcome() {
    assert_eq!(accept(&later_hello(1, 7)), Ok(None));
    let refused = accept(&later_hello(2, 7));
    assert!(
        matches!(refused, Err(HandshakeError::VersionMismatch { .. })),
        "{refused:?}"
    );
}
