//! What nodes of this release say to each other about MQTT, and what they keep of it, byte for
//! byte: fixtures that a change must not break unseen.

use std::fmt::Write;
use std::sync::Arc;

use dunlin_cluster::{Hlc, Now};
use dunlin_mqtt::QoS;

use crate::effects::{TakeoverRequest, TakeoverResult, TakeoverStep};
use crate::forward;
use crate::inflight::Exchange;
use crate::message::{Head, Message, Origin, Parts};
use crate::queue::Queued;
use crate::router::{GroupKey, SubOptions};
use crate::session::{MovedSubscription, SessionState, decode_result, encode_result};
use crate::wills::WillRow;

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
         is new, append this line to crates/broker/tests/fixtures/wire-1.txt:\n{name} {present}\n",
    );
    let byte = |at| u8::from_str_radix(&recorded[at..at + 2], 16).expect("hexadecimal");
    (0..recorded.len()).step_by(2).map(byte).collect()
}

const NOW: Now = Now {
    mono_ms: 1_000,
    wall_ms: 1_700_000_000_000,
};

fn message() -> Message {
    let parts = Parts {
        topic: "a/b",
        properties: &[1, 1],
        payload: b"payload",
        clientid: "",
    };
    let origin = Origin {
        clientid: "publisher".into(),
        username: Some("user".into()),
    };
    let head = Head {
        qos: QoS::ExactlyOnce,
        retain: true,
        dup: true,
        origin: Some(Arc::new(origin)),
        id: 5,
        expires_wall_ms: Some(NOW.wall_ms + 60_000),
    };
    Message::new(parts, head)
}

fn group() -> Arc<GroupKey> {
    Arc::new(GroupKey::new("group", "a/#"))
}

#[test]
fn a_forwarded_message_is_what_other_releases_read() {
    for (name, dispatch) in [("forward", None), ("forward-dispatch", Some(300))] {
        check_forward(name, dispatch);
    }
}

fn check_forward(name: &str, dispatch: Option<u64>) {
    let message = message();
    let mut bytes = Vec::new();
    forward::put_head(&mut bytes, NOW, &message, true, &[group()], dispatch);
    for part in [
        message.topic().as_bytes(),
        message.properties(),
        message.payload(),
        message.clientid().as_bytes(),
    ] {
        bytes.extend_from_slice(part);
    }
    let recorded = check(name, &bytes);
    let read = forward::decode(NOW, recorded.into()).expect("it is read");
    assert!(read.plain && read.groups == [(*group()).clone()]);
    assert_eq!(read.dispatch, dispatch);
    assert_eq!(read.message.id(), Some(5));
    assert_eq!(read.message.topic(), "a/b");
    assert_eq!(read.message.payload(), b"payload");
    assert_eq!(read.message.clientid(), "publisher");
    assert_eq!(read.message.expires_wall_ms(), message.expires_wall_ms());
}

fn queued() -> Queued {
    Queued {
        message: message(),
        group: Some(group()),
        sub_id: 7,
        qos: QoS::AtLeastOnce,
        retain: false,
    }
}

#[test]
fn a_moving_session_is_what_other_releases_read() {
    let options = SubOptions::new(QoS::AtLeastOnce);
    let state = SessionState {
        created_at_wall_ms: NOW.wall_ms,
        subscriptions: vec![MovedSubscription {
            filter: "a/#".to_owned(),
            group: Some("group".to_owned()),
            options: options.with_no_local(true).with_sub_id(7),
            retain_handling: 2,
        }],
        inflight: vec![Exchange::Sent(3, queued()), Exchange::Released(4)],
        queue: vec![queued()],
        awaiting_rel: vec![8, 900],
        dropped: 2,
        handed: std::collections::BTreeMap::new(),
    };
    let session = TakeoverResult::Session(Box::new(state));
    let recorded = check("session", &encode_result(&session));
    let Some(TakeoverResult::Session(read)) = decode_result(&recorded) else {
        panic!("a session is read");
    };
    assert_eq!(read.subscriptions.len(), 1);
    assert_eq!((read.inflight.len(), read.queue.len()), (2, 1));
    assert_eq!(read.awaiting_rel, [8, 900]);
    for (name, result) in [
        ("session-none", TakeoverResult::None),
        ("session-failed", TakeoverResult::Failed),
    ] {
        let recorded = check(name, &encode_result(&result));
        assert!(decode_result(&recorded).is_some(), "{name}");
    }
}

#[test]
fn questions_and_notices_are_what_other_releases_read() {
    for (name, step) in [
        ("takeover-discard", TakeoverStep::Discard),
        ("takeover-take", TakeoverStep::Take),
        ("takeover-begin", TakeoverStep::Begin),
        ("takeover-finish", TakeoverStep::Finish),
    ] {
        let request = TakeoverRequest {
            clientid: "client".to_owned(),
            stamp: Hlc(0x0123_4567_89ab_cdef),
            step,
            heir: None,
        };
        let recorded = check(name, &crate::control::takeover_bytes(&request));
        assert_eq!(
            crate::control::takeover_of(&recorded),
            Some(request),
            "{name}"
        );
    }
    for (name, notice) in crate::control::notice_bytes() {
        let recorded = check(name, &notice);
        assert!(crate::control::is_notice(&recorded), "{name}");
    }
}

#[test]
fn rows_are_what_other_releases_read() {
    let row = crate::wills::tests::row(0x0123_4567, 30);
    let recorded = check("will", &row.encode());
    assert_eq!(WillRow::decode(&recorded), Some(row));
    let recorded = check("retained", &crate::retained::sample(&message()));
    assert!(
        crate::retained::is_row(&recorded),
        "a retained message is read"
    );
    let recorded = check("figures", &crate::control::info_bytes());
    assert!(crate::control::is_info(&recorded), "figures are read");
}
