//! Topics matched against tables of three sizes.

use dunlin_broker::router::{Matches, Router, SessionKey, SubOptions, Subscriber};
use dunlin_mqtt::QoS;

use crate::measured;

/// Different topics matched, each found once.
const TOPICS: u32 = 5_000;

fn subscriber(n: u32) -> Subscriber {
    let session = SessionKey {
        slot: n,
        generation: 0,
    };
    Subscriber {
        session,
        options: SubOptions::new(QoS::AtLeastOnce),
        shard: 0,
    }
}

pub(crate) fn ten() {
    let mut router = Router::new(1);
    for n in 0..10 {
        router.subscribe(&format!("bench/topic/{n}"), subscriber(n));
    }
    matches(&router, |n| format!("bench/topic/{}", n % 10));
}

/// Wildcards alone: the table of exact topics does not help.
pub(crate) fn ten_thousand() {
    let mut router = Router::new(1);
    for n in 0..10_000 {
        router.subscribe(&format!("site/{n}/+/temperature"), subscriber(n));
    }
    matches(&router, |n| {
        format!("site/{}/room/temperature", n * 7 % 10_000)
    });
}

/// Exact filters, and a few wildcards beside them which every topic has to be tried against.
pub(crate) fn million() {
    let mut router = Router::new(1);
    for n in 0..1_000_000 {
        router.subscribe(&format!("big/{n}/state"), subscriber(n));
    }
    for n in 0..100 {
        router.subscribe(&format!("big/+/alarm/{n}"), subscriber(n));
    }
    matches(&router, |n| {
        format!("big/{}/state", u64::from(n) * 7_919 % 1_000_000)
    });
}

fn matches(router: &Router, topic: impl Fn(u32) -> String) {
    let topics: Vec<String> = (0..TOPICS).map(topic).collect();
    let mut found = Matches::new();
    let mut hits = 0;
    measured(|| {
        for topic in &topics {
            router.match_topic(topic, &mut found);
            hits += found.local.len();
        }
    });
    assert_eq!(hits, topics.len(), "every topic has one subscriber");
}
