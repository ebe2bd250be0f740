use std::collections::BTreeSet;

use dunlin_cluster::{Hlc, SiteId};
use dunlin_mqtt::topic::matches;
use proptest::prelude::*;

use super::*;
use crate::message::Origin;

fn retained() -> Retained {
    Retained::new(Arc::new(Merged::new(RETAINED)))
}

fn stamp(n: u64) -> Stamp {
    Stamp {
        hlc: Hlc(n),
        site: SiteId([1; 16]),
    }
}

fn at(wall_ms: u64) -> Now {
    Now {
        mono_ms: wall_ms,
        wall_ms,
    }
}

fn message(topic: &str, payload: &str) -> Message {
    let parts = Parts {
        topic,
        payload: payload.as_bytes(),
        ..Parts::default()
    };
    Message::new(
        parts,
        Head {
            retain: true,
            ..Head::default()
        },
    )
}

fn unlimited() -> Retainer {
    Retainer {
        max_publish_rate: None,
        ..Retainer::default()
    }
}

/// All topics found for a filter, in pages of `page`.
fn topics(retained: &Retained, filter: &str, wall_ms: u64, page: usize) -> Vec<String> {
    let mut found = Vec::new();
    let mut after: Option<String> = None;
    loop {
        let mut left = page;
        after = retained.match_filter(filter, after.as_deref(), wall_ms, |one| {
            found.push(one.topic.into_owned());
            left -= 1;
            if left == 0 {
                ControlFlow::Break(())
            } else {
                ControlFlow::Continue(())
            }
        });
        if after.is_none() {
            return found;
        }
    }
}

#[test]
fn a_message_comes_back_as_it_was() {
    let retained = retained();
    let origin = Arc::new(Origin {
        clientid: "c1".into(),
        username: Some("u1".into()),
    });
    for payload in ["small".to_owned(), "large".repeat(1_000)] {
        let parts = Parts {
            topic: "a/b",
            properties: &[1, 1],
            payload: payload.as_bytes(),
            clientid: "",
        };
        let head = Head {
            qos: QoS::AtLeastOnce,
            origin: Some(Arc::clone(&origin)),
            expires_wall_ms: Some(5_000),
            ..Head::default()
        };
        let sent = Message::new(parts, head);
        let put = retained.put(at(10), &sent, stamp(payload.len() as u64), &unlimited());
        assert_eq!(put, Stored::Stored);
        let found = retained.get("a/b", 10).expect("it is retained");
        assert_eq!((found.clientid(), found.username()), ("c1", "u1"));
        assert_eq!(
            (found.published_wall_ms(), found.expires_wall_ms()),
            (10, Some(5_000))
        );
        assert_eq!(found.payload(), payload.as_bytes());
        let replayed = found.message();
        assert_eq!(
            (replayed.topic(), replayed.payload()),
            ("a/b", payload.as_bytes())
        );
        assert_eq!(
            (replayed.properties(), replayed.clientid()),
            (&[1, 1][..], "c1")
        );
        assert_eq!(
            (replayed.qos(), replayed.retain()),
            (QoS::AtLeastOnce, true)
        );
        assert_eq!(replayed.expiry_left_s(4_000), Some(1));
        assert!(retained.get("a/b", 5_000).is_none(), "its time is over");
    }
}

#[test]
fn an_empty_payload_deletes_and_the_later_write_wins() {
    let retained = retained();
    let rule = unlimited();
    assert_eq!(
        retained.put(at(0), &message("a", "x"), stamp(5), &rule),
        Stored::Stored
    );
    assert_eq!(
        retained.put(at(0), &message("a", "y"), stamp(4), &rule),
        Stored::Older
    );
    assert_eq!(
        retained.put(at(0), &message("a", ""), stamp(6), &rule),
        Stored::Deleted
    );
    assert!(retained.get("a", 0).is_none() && retained.is_empty());
    assert_eq!(
        retained.put(at(0), &message("b", ""), stamp(8), &rule),
        Stored::Deleted
    );
    let late = retained.put(at(0), &message("b", "late"), stamp(7), &rule);
    assert_eq!(late, Stored::Older, "deleted before it came");
}

#[test]
fn limits_refuse_and_say_why() {
    let retained = retained();
    let rule = Retainer {
        max_payload_bytes: Some(3),
        max_retained_messages: Some(2),
        max_publish_rate: Some(4),
        ..Retainer::default()
    };
    let mut n = 0;
    let mut put = |wall_ms, topic, payload| {
        n += 1;
        retained.put(at(wall_ms), &message(topic, payload), stamp(n), &rule)
    };
    assert_eq!(put(0, "a", "1234"), Stored::PayloadTooLarge);
    assert_eq!(put(0, "a", "123"), Stored::Stored);
    assert_eq!(put(0, "b", "1"), Stored::Stored);
    assert_eq!(put(0, "c", "1"), Stored::TableFull);
    assert_eq!(
        put(0, "b", "2"),
        Stored::Stored,
        "what is there may be replaced"
    );
    assert_eq!(put(999, "b", "3"), Stored::Stored);
    assert_eq!(put(999, "b", "4"), Stored::RateExceeded);
    assert_eq!(put(1_000, "b", "5"), Stored::Stored);
    assert_eq!(put(1_000, "a", ""), Stored::Deleted);
    assert_eq!(put(1_000, "c", "1"), Stored::Stored);
    let off = Retainer {
        enable: false,
        ..Retainer::default()
    };
    let refused = retained.put(at(0), &message("a", "1"), stamp(99), &off);
    assert_eq!(refused, Stored::Disabled);
    assert!(!refused.is_change() && Stored::Deleted.is_change());
}

#[test]
fn expiry_is_forced_or_own_or_general() {
    let retained = retained();
    let mut n = 0;
    let mut check = |own, general, forced, expected| {
        let rule = Retainer {
            msg_expiry_interval_ms: general,
            msg_expiry_interval_override_ms: forced,
            ..unlimited()
        };
        n += 1;
        let parts = Parts {
            topic: "a",
            payload: b"x",
            ..Parts::default()
        };
        let message = Message::new(
            parts,
            Head {
                expires_wall_ms: own,
                ..Head::default()
            },
        );
        retained.put(at(1_000), &message, stamp(n), &rule);
        let found = retained.get("a", 0).expect("stored");
        assert_eq!(found.expires_wall_ms(), expected);
    };
    check(None, None, None, None);
    check(None, Some(50), None, Some(1_050));
    check(Some(7_000), Some(50), None, Some(7_000));
    check(Some(7_000), Some(50), Some(60), Some(1_060));
}

#[test]
fn a_sweep_finds_what_expired() {
    let retained = retained();
    for (n, (topic, expires)) in [
        ("a", Some(10)),
        ("b", None),
        ("$c", Some(5)),
        ("d", Some(30)),
    ]
    .into_iter()
    .enumerate()
    {
        let parts = Parts {
            topic,
            payload: b"x",
            ..Parts::default()
        };
        let message = Message::new(
            parts,
            Head {
                expires_wall_ms: expires,
                ..Head::default()
            },
        );
        retained.put(at(0), &message, stamp(n as u64 + 1), &unlimited());
    }
    assert_eq!(
        retained.expired(None, 20),
        (vec!["$c".to_owned(), "a".to_owned()], None)
    );
    assert_eq!(topics(&retained, "#", 20, 10), ["b", "d"]);
}

#[test]
fn a_long_scan_gives_writers_a_turn_and_goes_on() {
    let retained = retained();
    let count = SCAN_ROWS_MAX + 500;
    for n in 0..count {
        retained.put(
            at(0),
            &message(&format!("t/{n:06}/x"), "1"),
            stamp(1),
            &unlimited(),
        );
    }
    let mut seen = 0;
    let mut replay = Replay::new("t/+/x", SubOptions::default());
    let mut calls = 1;
    while replay.next(&retained, 0, |_| {
        seen += 1;
        ControlFlow::Continue(())
    }) {
        calls += 1;
    }
    assert_eq!((seen, calls), (count, 2));
    assert!(topics(&retained, "t/+/y", 0, 10).is_empty());
    assert_eq!(topics(&retained, "t/000777/#", 0, 10), ["t/000777/x"]);
}

#[test]
fn a_value_of_another_release_is_passed_over() {
    let retained = retained();
    for (n, value) in [&b""[..], b"\x02", &[1; 10], &[1; 40], &[255; 64]]
        .into_iter()
        .enumerate()
    {
        let key = format!("t/{n}");
        retained.table().put(
            key.as_bytes(),
            Some(Bytes::copy_from_slice(value)),
            stamp(1),
        );
        assert!(retained.get(&key, 0).is_none());
    }
    retained.put(at(0), &message("t/9", "x"), stamp(1), &unlimited());
    assert_eq!(topics(&retained, "#", 0, 10), ["t/9"]);
}

/// Levels around `/` and `0` in byte order, where a skip scan can go wrong.
fn level() -> impl Strategy<Value = String> {
    prop_oneof![
        4 => prop_oneof![Just("a"), Just("b"), Just("ab")].prop_map(str::to_owned),
        2 => prop_oneof![Just(""), Just("a-"), Just("a0"), Just("$a"), Just("a!")]
            .prop_map(str::to_owned),
        1 => Just("é".to_owned()),
    ]
}

fn topic() -> impl Strategy<Value = String> {
    prop::collection::vec(level(), 1..5)
        .prop_map(|levels| levels.join("/"))
        .prop_filter("a topic has a character", |topic| !topic.is_empty())
}

fn filter() -> impl Strategy<Value = String> {
    let level = prop_oneof![2 => level(), 1 => Just("+".to_owned())];
    (prop::collection::vec(level, 0..4), any::<bool>())
        .prop_map(|(mut levels, multi)| {
            if multi {
                levels.push("#".to_owned());
            }
            levels.join("/")
        })
        .prop_filter("a filter has a character", |filter| !filter.is_empty())
}

proptest! {
    #![proptest_config(ProptestConfig {
        failure_persistence: None,
        cases: 1_000,
        ..ProptestConfig::default()
    })]

    #[test]
    fn the_skip_scan_finds_what_the_naive_matcher_finds(
        stored in prop::collection::btree_set(topic(), 0..60),
        deleted in prop::collection::btree_set(topic(), 0..10),
        filters in prop::collection::vec(filter(), 1..10),
        page in 1..20_usize,
    ) {
        let retained = retained();
        for topic in &stored {
            retained.put(at(0), &message(topic, "x"), stamp(1), &unlimited());
        }
        for topic in &deleted {
            retained.delete(topic, stamp(2));
        }
        let left: BTreeSet<&String> = stored.difference(&deleted).collect();
        for filter in &filters {
            let expected: Vec<&String> =
                left.iter().copied().filter(|topic| matches(filter, topic)).collect();
            let found = topics(&retained, filter, 0, page);
            prop_assert_eq!(found.iter().collect::<Vec<_>>(), expected, "{}", filter);
        }
    }

    #[test]
    fn a_seek_never_goes_back(key in topic(), filter in filter()) {
        let levels: Vec<&[u8]> = filter.as_bytes().split(|b| *b == b'/').collect();
        let mut seek = Vec::new();
        let verdict = judge(&levels, key.as_bytes(), &mut seek);
        prop_assert_eq!(verdict == Verdict::Match, matches(&filter, &key));
        if verdict == Verdict::Seek {
            prop_assert!(seek.as_slice() > key.as_bytes());
        }
    }
}
