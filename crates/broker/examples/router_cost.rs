//! What router and retained messages cost: nanoseconds per match, bytes per row, subscribes per
//! second.
//!
//! ```text
//! cargo run --release -p dunlin-broker --example router_cost
//! ```
#![allow(
    clippy::disallowed_methods,
    clippy::print_stdout,
    reason = "a measuring program"
)]

use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Instant;

use dunlin_broker::message::{Head, Message, Origin, Parts};
use dunlin_broker::retained::{RETAINED, Retained};
use dunlin_broker::router::{
    Matches, NodeIndex, Router, SessionKey, SubOptions, Subscriber, SubscriberKey,
};
use dunlin_broker::settings::Retainer;
use dunlin_cluster::{Hlc, Merged, Now, SiteId, Stamp};
use dunlin_mqtt::QoS;

const MANY: u32 = 1_000_000;
const WILDCARDS: u32 = 10_000;
const MATCHES: u32 = 2_000_000;

/// As in the executable.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Each adds one of a million to a router.
type Add = fn(&mut Router, u32);
const MEMORY: [(&str, Add); 8] = [
    ("own exact filter", |router, n| {
        router.subscribe(&format!("bench/{n}/state"), subscriber(n));
    }),
    ("own exact filter, 40 bytes", |router, n| {
        router.subscribe(&long_name(n, 40), subscriber(n));
    }),
    ("own wildcard filter", |router, n| {
        router.subscribe(&format!("bench/{n}/+/x"), subscriber(n));
    }),
    ("route on another node", |router, n| {
        router.add_remote(&format!("bench/{n}/state"), NodeIndex(1));
    }),
    ("route on another node, 26 bytes", |router, n| {
        router.add_remote(&long_name(n, 26), NodeIndex(1));
    }),
    ("route on another node, 30 bytes", |router, n| {
        router.add_remote(&long_name(n, 30), NodeIndex(1));
    }),
    ("route on another node, 45 bytes", |router, n| {
        router.add_remote(&long_name(n, 45), NodeIndex(1));
    }),
    ("route on another node, 60 bytes", |router, n| {
        router.add_remote(&long_name(n, 60), NodeIndex(1));
    }),
];

fn main() {
    // Memory is measured in a process of its own, that has used none before.
    if let Some(what) = std::env::args().nth(1) {
        let row = MEMORY.iter().find(|row| row.0 == what);
        return row.map_or_else(retained, |row| memory(row.0, row.1));
    }
    matching();
    storm();
    rows();
    let program = std::env::current_exe().expect("it runs");
    for what in MEMORY.iter().map(|row| row.0).chain(["retained"]) {
        let status = std::process::Command::new(&program).arg(what).status();
        assert!(status.is_ok_and(|status| status.success()), "{what}");
    }
}

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

/// A filter of so many bytes.
fn long_name(n: u32, bytes: usize) -> String {
    format!("{:x<width$}/{n:07}/state", "plant/", width = bytes - 14)
}

fn matching() {
    let mut router = Router::new(1);
    for n in 0..10 {
        router.subscribe(&format!("bench/topic/{n}"), subscriber(n));
    }
    time_matches("exact, 10 filters", &router, |n| {
        format!("bench/topic/{}", n % 10)
    });
    for n in 0..WILDCARDS {
        router.subscribe(&format!("site/{n}/+/temperature"), subscriber(n));
    }
    time_matches("exact beside 10,000 wildcards", &router, |n| {
        format!("bench/topic/{}", n % 10)
    });
    time_matches("one of 10,000 wildcards", &router, |n| {
        format!("site/{}/room/temperature", n * 7 % WILDCARDS)
    });
    for n in 0..WILDCARDS {
        router.subscribe(&format!("+/device-{n}/#"), subscriber(n));
    }
    time_matches("one of 20,000, two shapes", &router, |n| {
        format!("any/device-{}/a/b/c", n * 7 % WILDCARDS)
    });
    for n in 0..MANY {
        router.subscribe(&format!("big/{n}/state"), subscriber(n));
    }
    time_matches("exact of 1,000,000, spread", &router, |n| {
        format!("big/{}/state", u64::from(n) * 7_919 % u64::from(MANY))
    });
    let mut router = Router::new(1);
    for n in 0..MANY {
        router.subscribe(&long_name(n, 40), subscriber(n));
    }
    time_matches("exact of 1,000,000, 40 bytes", &router, |n| {
        long_name((u64::from(n) * 7_919 % u64::from(MANY)) as u32, 40)
    });
}

fn time_matches(what: &str, router: &Router, topic: impl Fn(u32) -> String) {
    let topics: Vec<String> = (0..100_000).map(topic).collect();
    let mut found = Matches::new();
    let mut hits = 0;
    let start = Instant::now();
    for n in 0..MATCHES {
        router.match_topic(&topics[n as usize % topics.len()], &mut found);
        hits += found.local.len();
    }
    let ns = start.elapsed().as_nanos() / u128::from(MATCHES);
    println!("{what:36} {ns:5} ns/match  ({hits} hits)");
}

fn memory(what: &str, add: Add) {
    let before = resident_bytes();
    let mut router = Router::new(1);
    for n in 0..MANY {
        add(&mut router, n);
    }
    let bytes = resident_bytes().saturating_sub(before) / u64::from(MANY);
    println!("{what:36} {bytes:5} bytes each");
}

fn storm() {
    let filters: Vec<String> = (0..MANY).map(|n| format!("storm/{n}/state")).collect();
    let mut router = Router::new(1);
    let start = Instant::now();
    for (n, filter) in filters.iter().enumerate() {
        router.subscribe(filter, subscriber(n as u32));
    }
    let rate = f64::from(MANY) / start.elapsed().as_secs_f64();
    println!("{:36} {:5.0} k/s", "subscribe", rate / 1_000.0);
    let start = Instant::now();
    for (n, filter) in filters.iter().enumerate() {
        let session = SessionKey {
            slot: n as u32,
            generation: 0,
        };
        router.unsubscribe(filter, SubscriberKey { session, shard: 0 });
    }
    let rate = f64::from(MANY) / start.elapsed().as_secs_f64();
    println!("{:36} {:5.0} k/s", "unsubscribe", rate / 1_000.0);
}

fn rows() {
    let mut router = Router::new(1);
    for n in 0..MANY {
        router.subscribe(&format!("bench/{n}/state"), subscriber(n));
    }
    let start = Instant::now();
    let mut after: Option<String> = None;
    let mut rows = 0;
    let mut longest = 0;
    loop {
        let one = Instant::now();
        let page = router.own_routes(after.as_deref(), 1_000);
        longest = longest.max(one.elapsed().as_micros());
        rows += page.len();
        let Some(last) = page.into_iter().next_back() else {
            break;
        };
        after = Some(last);
    }
    let ms = start.elapsed().as_millis();
    println!("snapshot of {rows} routes in pages of 1,000: {ms} ms, longest page {longest} us");
}

fn retained() {
    let before = resident_bytes();
    let table = Retained::new(Arc::new(Merged::new(RETAINED)));
    let rule = Retainer {
        max_publish_rate: None,
        ..Retainer::default()
    };
    let origin = Arc::new(Origin {
        clientid: "bench-publisher".into(),
        username: None,
    });
    for n in 0..MANY {
        let topic = format!("bench/{n}/state");
        let parts = Parts {
            topic: &topic,
            payload: &[7; 64],
            ..Parts::default()
        };
        let head = Head {
            origin: Some(Arc::clone(&origin)),
            ..Head::default()
        };
        let stamp = Stamp {
            hlc: Hlc(u64::from(n)),
            site: SiteId([1; 16]),
        };
        table.put(Now::default(), &Message::new(parts, head), stamp, &rule);
    }
    let bytes = resident_bytes().saturating_sub(before) / u64::from(MANY);
    println!("{:36} {bytes:5} bytes each", "retained message of 64 bytes");
    for filter in ["#", "bench/+/state"] {
        let start = Instant::now();
        let (mut after, mut payload_bytes) = (None, 0);
        loop {
            after = table.match_filter(filter, after.as_deref(), 0, |found| {
                payload_bytes += found.message().payload().len();
                ControlFlow::Continue(())
            });
            if after.is_none() {
                break;
            }
        }
        let ns = start.elapsed().as_nanos() / u128::from(MANY);
        println!("replay of 1,000,000 to {filter:13} {ns:5} ns each  ({payload_bytes} bytes)");
    }
}

/// Memory of this process in use.
fn resident_bytes() -> u64 {
    let status = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    let pages = status
        .split(' ')
        .nth(1)
        .and_then(|pages| pages.parse().ok());
    pages.unwrap_or(0_u64) * 4_096
}
