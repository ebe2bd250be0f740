//! Links under every kind of connection: whole, split, lost, repeated, tampered with.

use bytes::{Bytes, BytesMut};
use proptest::prelude::*;

use super::frame::{self, Frame, FrameError, FrameKind};
use super::handshake::{
    Handshake, HandshakeError, Hello, Purpose, is_plain_handshake, plain_refusal,
};
use super::stream::{Receiver, Sender, WINDOW_FRAMES};
use crate::clock::Now;
use crate::identity::{BootId, ClusterId, Cookie, Identity, SiteId};
use crate::name::NodeName;

const NOW: Now = Now {
    mono_ms: 0,
    wall_ms: 1_000,
};

fn identity(id: u8) -> Identity {
    let name = NodeName::parse(&format!("emqx{id}@10.0.0.{id}")).expect("valid");
    Identity {
        listen_port: name.port(),
        name,
        site: SiteId([id; 16]),
        boot: BootId(u64::from(id)),
        cluster: ClusterId([id; 16]),
        cluster_name: "emqxcl".to_owned(),
    }
}

struct Pair {
    dialer: Handshake,
    acceptor: Handshake,
}

type Ends = (
    Result<Option<Hello>, HandshakeError>,
    Result<Option<Hello>, HandshakeError>,
);

impl Pair {
    fn new(cookies: (&str, &str), expected: Option<&str>) -> Self {
        let expected = expected.map(|name| NodeName::parse(name).expect("valid"));
        let purpose = Purpose::Data { index: 3 };
        let cookie = Cookie::new(cookies.0);
        Self {
            dialer: Handshake::dial(&identity(1), &cookie, purpose, [1; 32], NOW, expected),
            acceptor: Handshake::accept(&identity(2), &Cookie::new(cookies.1), [2; 32], NOW),
        }
    }

    /// Exchanges bytes until nobody has any; `alter` sees each byte once, with its index.
    fn run(&mut self, mut alter: impl FnMut(usize, u8) -> u8) -> Ends {
        let mut ends: Ends = (Ok(None), Ok(None));
        let (mut to_dialer, mut to_acceptor) = (BytesMut::new(), BytesMut::new());
        let mut index = 0;
        let mut altered = |bytes: Bytes| -> Vec<u8> {
            let out = bytes
                .iter()
                .enumerate()
                .map(|(i, byte)| alter(index + i, *byte))
                .collect();
            index += bytes.len();
            out
        };
        loop {
            let (a, b) = (self.dialer.take_output(), self.acceptor.take_output());
            if a.is_none() && b.is_none() {
                return ends;
            }
            to_acceptor.extend(a.map(&mut altered).unwrap_or_default());
            to_dialer.extend(b.map(&mut altered).unwrap_or_default());
            if matches!(ends.0, Ok(None)) {
                ends.0 = self.dialer.receive(&mut to_dialer);
            }
            if matches!(ends.1, Ok(None)) {
                ends.1 = self.acceptor.receive(&mut to_acceptor);
            }
        }
    }
}

#[test]
fn equal_cookies_introduce_both_ends() {
    let (dialer, acceptor) = Pair::new(("c", "c"), Some("emqx2@10.0.0.2")).run(|_, b| b);
    let (seen_by_dialer, seen_by_acceptor) = (
        dialer.expect("proven").expect("done"),
        acceptor.expect("proven").expect("done"),
    );
    assert_eq!(seen_by_dialer.peer, identity(2).peer());
    assert_eq!(seen_by_acceptor.peer, identity(1).peer());
    assert_eq!(seen_by_acceptor.purpose, Purpose::Data { index: 3 });
    assert_eq!(seen_by_acceptor.wall_ms, 1_000);
}

#[test]
fn both_ends_learn_the_reason_of_a_refusal() {
    let (dialer, acceptor) = Pair::new(("c", "other"), None).run(|_, b| b);
    assert_eq!(dialer, Err(HandshakeError::CookieMismatch));
    assert_eq!(acceptor, Err(HandshakeError::CookieMismatch));

    let (dialer, acceptor) = Pair::new(("c", "c"), Some("emqx3@10.0.0.3")).run(|_, b| b);
    assert!(matches!(dialer, Err(HandshakeError::NameMismatch { .. })));
    assert_eq!(dialer, acceptor);

    let mut pair = Pair::new(("c", "c"), None);
    pair.acceptor = Handshake::accept(&identity(1), &Cookie::new("c"), [2; 32], NOW);
    let (dialer, acceptor) = pair.run(|_, b| b);
    assert_eq!(dialer, Err(HandshakeError::SameNode));
    assert_eq!(acceptor, Err(HandshakeError::SameNode));
}

#[test]
fn a_later_protocol_is_told_its_range_from_both_sides() {
    let mut pair = Pair::new(("c", "c"), None);
    // Bytes 9..13 of the dialer's hello are its version range.
    let (dialer, acceptor) = pair.run(|i, b| if i == 10 || i == 12 { 9 } else { b });
    let ours = super::handshake::VERSIONS;
    assert_eq!(
        acceptor,
        Err(HandshakeError::VersionMismatch {
            ours,
            theirs: (9, 9)
        })
    );
    assert_eq!(
        dialer,
        Err(HandshakeError::VersionMismatch {
            ours: (9, 9),
            theirs: ours
        })
    );
}

#[test]
fn strangers_are_recognised_by_their_first_bytes() {
    let mut acceptor = Pair::new(("c", "c"), None).acceptor;
    let mut buf = BytesMut::from(&b"GET"[..]);
    assert_eq!(acceptor.receive(&mut buf), Err(HandshakeError::Malformed));
}

/// A sender and a receiver joined by connections that the test cuts.
#[derive(Default)]
struct Wire {
    to_receiver: BytesMut,
    to_sender: BytesMut,
}

fn flow(sender: &mut Sender, receiver: &mut Receiver, wire: &mut Wire, got: &mut Vec<u64>) {
    let mut out = Vec::new();
    sender.take_output(&mut out);
    for bytes in out.drain(..) {
        wire.to_receiver.extend_from_slice(&bytes);
    }
    let taken = receiver.receive(&mut wire.to_receiver, |number, payload| {
        assert_eq!(payload, number.to_be_bytes()[..]);
        got.push(number);
    });
    taken.expect("a clean stream");
    receiver.take_output(&mut out);
    for bytes in out {
        wire.to_sender.extend_from_slice(&bytes);
    }
}

fn connect(sender: &mut Sender, receiver: &mut Receiver) -> Wire {
    sender.connected();
    receiver.connected();
    Wire::default()
}

#[test]
fn frames_wait_for_the_peer_to_say_what_it_has() {
    let (mut sender, mut receiver) = (Sender::new(1), Receiver::new());
    for number in 1..=3_u64 {
        assert_eq!(sender.send(&[&number.to_be_bytes()]), Ok(number));
    }
    let mut wire = connect(&mut sender, &mut receiver);
    let mut got = Vec::new();
    flow(&mut sender, &mut receiver, &mut wire, &mut got);
    assert_eq!(got, []);
    sender.receive(&mut wire.to_sender).expect("attach");
    flow(&mut sender, &mut receiver, &mut wire, &mut got);
    sender.receive(&mut wire.to_sender).expect("ack");
    assert_eq!(
        (got, sender.unacked(), sender.unacked_bytes()),
        (vec![1, 2, 3], 0, 0)
    );
}

#[test]
fn a_new_stream_of_the_same_peer_starts_over() {
    let (mut sender, mut receiver) = (Sender::new(1), Receiver::new());
    let mut got = Vec::new();
    for stream in 1..=2 {
        let mut wire = connect(&mut sender, &mut receiver);
        for number in 1..=2_u64 {
            sender.send(&[&number.to_be_bytes()]).expect("room");
        }
        for _ in 0..2 {
            flow(&mut sender, &mut receiver, &mut wire, &mut got);
            sender.receive(&mut wire.to_sender).expect("clean");
        }
        sender = Sender::new(stream + 1);
    }
    assert_eq!(got, [1, 2, 1, 2]);
}

#[test]
fn the_window_is_bounded() {
    let mut sender = Sender::new(1);
    for _ in 0..WINDOW_FRAMES {
        sender.send(&[]).expect("room");
    }
    assert!(sender.send(&[]).is_err());
    assert_eq!(sender.unacked(), WINDOW_FRAMES);
}

#[test]
fn a_repeated_frame_is_dropped_and_a_missing_one_noticed() {
    let mut receiver = Receiver::new();
    let mut buf = BytesMut::new();
    buf.extend_from_slice(&frame::encode(FrameKind::Open, 1, &[&[0; 8]]));
    for number in [1, 1, 2, 1, 2] {
        buf.extend_from_slice(&frame::encode(FrameKind::Data, number, &[]));
    }
    let mut got = Vec::new();
    receiver
        .receive(&mut buf, |n, _| got.push(n))
        .expect("clean");
    assert_eq!((got, receiver.has()), (vec![1, 2], 2));
    buf.extend_from_slice(&frame::encode(FrameKind::Data, 4, &[]));
    let gap = super::stream::LinkError::Gap {
        expected: 3,
        got: 4,
    };
    assert_eq!(receiver.receive(&mut buf, |_, _| {}), Err(gap));
}

#[test]
fn datagrams_pass_at_most_once_and_take_no_number() {
    let (mut sender, mut receiver) = (Sender::new(1), Receiver::new());
    sender.datagram(&[b"lost"]);
    let mut wire = connect(&mut sender, &mut receiver);
    sender.datagram(&[b"seen"]);
    let mut out = Vec::new();
    sender.take_output(&mut out);
    for bytes in &out {
        wire.to_receiver.extend_from_slice(bytes);
    }
    let mut got = Vec::new();
    receiver
        .receive(&mut wire.to_receiver, |n, p| got.push((n, p)))
        .expect("clean");
    assert_eq!(
        (got, receiver.has()),
        (vec![(0, Bytes::from_static(b"seen"))], 0)
    );
}

#[test]
fn a_damaged_frame_is_noticed() {
    let whole = frame::encode(FrameKind::Data, 7, &[b"pay", b"load"]);
    let mut buf = BytesMut::from(&whole[..]);
    let decoded = frame::decode(&mut buf).expect("whole").expect("complete");
    assert_eq!(
        decoded,
        Frame {
            kind: FrameKind::Data,
            number: 7,
            payload: "payload".into()
        }
    );
    let mut damaged = BytesMut::from(&whole[..]);
    let last = damaged.len() - 1;
    damaged[last] ^= 1;
    assert_eq!(frame::decode(&mut damaged), Err(FrameError::Checksum));
}

/// One step of a random life of a link.
#[derive(Clone, Debug)]
enum Step {
    Send(u8),
    Flow,
    Ack,
    /// The connection is lost after this many bytes of what is under way arrive.
    Cut(usize),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        (1_u8..20).prop_map(Step::Send),
        Just(Step::Flow),
        Just(Step::Ack),
        (0_usize..200).prop_map(Step::Cut),
    ]
}

proptest! {
    #[test]
    fn any_bytes_are_decoded_without_panic(bytes: Vec<u8>) {
        let mut buf = BytesMut::from(&bytes[..]);
        while let Ok(Some(_)) = frame::decode(&mut buf) {}
        let mut buf = BytesMut::from(&bytes[..]);
        let _ = Receiver::new().receive(&mut buf, |_, _| {});
        let mut buf = BytesMut::from(&bytes[..]);
        let mut sender = Sender::new(1);
        sender.connected();
        let _ = sender.receive(&mut buf);
    }

    #[test]
    fn any_body_in_a_handshake_is_refused_without_panic(kind in 0_u8..5, body: Vec<u8>) {
        let mut buf = BytesMut::from(&b"dnln"[..]);
        buf.extend([kind]);
        buf.extend((body.len() as u32).to_be_bytes());
        buf.extend(body);
        let mut acceptor = Pair::new(("c", "c"), None).acceptor;
        prop_assert!(!matches!(acceptor.receive(&mut buf), Ok(Some(_))));
    }

    #[test]
    fn no_altered_byte_is_authenticated(at in 0_usize..700, flip in 1_u8..=255) {
        let mut changed = false;
        let mut pair = Pair::new(("c", "c"), None);
        let ends = pair.run(|index, byte| {
            changed |= index == at;
            if index == at { byte ^ flip } else { byte }
        });
        let both = matches!(ends, (Ok(Some(_)), Ok(Some(_))));
        prop_assert_eq!(both, !changed);
    }

    #[test]
    fn every_frame_arrives_once_and_in_order(
        steps in proptest::collection::vec(step(), 1..60)
    ) {
        let (mut sender, mut receiver) = (Sender::new(1), Receiver::new());
        let mut wire = connect(&mut sender, &mut receiver);
        let mut got = Vec::new();
        let mut sent = 0_u64;
        for step in steps {
            match step {
                Step::Send(count) => for _ in 0..count {
                    sent += 1;
                    sender.send(&[&sent.to_be_bytes()]).expect("room");
                },
                Step::Flow => flow(&mut sender, &mut receiver, &mut wire, &mut got),
                Step::Ack => sender.receive(&mut wire.to_sender).expect("clean"),
                Step::Cut(arrive) => {
                    let mut out = Vec::new();
                    sender.take_output(&mut out);
                    for bytes in &out {
 wire.to_receiver.extend_from_slice(bytes);
 }
                    wire.to_receiver.truncate(arrive);
                    let mut rest = wire.to_receiver.split();
                    receiver.receive(&mut rest, |number, _| got.push(number)).expect("clean");
                    sender.detach();
                    wire = connect(&mut sender, &mut receiver);
                }
            }
        }
        for _ in 0..3 {
            flow(&mut sender, &mut receiver, &mut wire, &mut got);
            sender.receive(&mut wire.to_sender).expect("clean");
        }
        prop_assert_eq!(got, (1..=sent).collect::<Vec<_>>());
        prop_assert_eq!(sender.unacked(), 0);
    }
}

#[test]
fn who_speaks_tls_and_who_does_not_tell_each_other() {
    let cookie = Cookie::new("secret");
    let acceptor = || Handshake::accept(&identity(2), &cookie, [2; 32], NOW);
    let dialer = || Handshake::dial(&identity(1), &cookie, Purpose::Control, [1; 32], NOW, None);
    let mismatch = |tls_here| Err(HandshakeError::TlsMismatch { tls_here });
    for begin in [[0x16, 3, 1, 2, 0], [0x15, 3, 3, 0, 2]] {
        assert!(!is_plain_handshake(&begin));
        let mut acceptor = acceptor();
        let received = acceptor.receive(&mut BytesMut::from(&begin[..]));
        assert_eq!(received, mismatch(false));
        // Whoever reads it behind TLS that was switched on in vain learns the same.
        let said = acceptor.take_output().expect("an error message");
        assert_eq!(dialer().receive(&mut BytesMut::from(said)), mismatch(true));
    }
    assert!(is_plain_handshake(&plain_refusal()) && is_plain_handshake(b"d"));
    let received = dialer().receive(&mut BytesMut::from(plain_refusal()));
    assert_eq!(received, mismatch(false));
}
