//! Each scenario against the null broker in this process: that it ends, counts and judges right.

use std::net::SocketAddr;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use dunlin_mqtt::QoS;
use mio::Waker;

use super::{Scenario, Sizes};
use crate::access::Access;
use crate::check::Faults;
use crate::null::Null;
use crate::progress::Progress;
use crate::sample::Sample;
use crate::target::Target;

/// A null broker on a thread of its own, until dropped.
pub(super) struct Running {
    pub(super) address: SocketAddr,
    stop: Waker,
    thread: Option<JoinHandle<()>>,
}

impl Running {
    pub(super) fn start() -> Self {
        let (sender, receiver) = std::sync::mpsc::channel();
        let thread = thread::spawn(move || {
            let any = SocketAddr::from(([127, 0, 0, 1], 0));
            let null = Null::bind(any, None).expect("a free port");
            let address = null.address().expect("an address");
            sender
                .send((address, null.stop().expect("a waker")))
                .expect("the test waits for it");
            null.run().expect("the null broker runs");
        });
        let (address, stop) = receiver.recv().expect("the null broker starts");
        let thread = Some(thread);
        Self {
            address,
            stop,
            thread,
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.stop.wake().expect("the poll lives");
        let ended = self.thread.take().map(JoinHandle::join);
        assert!(
            thread::panicking() || matches!(ended, Some(Ok(()))),
            "the null broker ends"
        );
    }
}

fn measure(name: &str, sizes: &Sizes) -> Sample {
    measure_as(Access::default(), name, sizes)
}

fn measure_as(access: Access, name: &str, sizes: &Sizes) -> Sample {
    let null = Running::start();
    measure_at(&Target::at(null.address, access), name, sizes)
        .unwrap_or_else(|error| panic!("{name}: {error:?}"))
}

pub(super) fn measure_at(target: &Target, name: &str, sizes: &Sizes) -> anyhow::Result<Sample> {
    let scenario = Scenario::build(name, sizes).expect("a scenario");
    scenario.measure(target, &mut Progress::silent())
}

pub(super) fn short(qos: QoS) -> Sizes {
    Sizes {
        duration: Some(Duration::from_millis(50)),
        qos,
        ..Sizes::default()
    }
}

fn check(name: &str, sizes: &Sizes) {
    let sample = measure(name, sizes);
    assert!(sample.units > 0, "{name}: nothing arrived");
    assert!(sample.seconds > 0.0, "{name}: no time passed");
    assert!(sample.cpu.is_some(), "{name}: no processor time");
    assert_eq!(sample.faults, Faults::default(), "{name}");
}

#[test]
fn pairs_at_every_qos_and_size() {
    for qos in [QoS::AtMostOnce, QoS::AtLeastOnce, QoS::ExactlyOnce] {
        check("one-to-one", &short(qos));
        check("pairs", &short(qos));
        let payload_bytes = Some(100_000);
        check(
            "pairs",
            &Sizes {
                payload_bytes,
                clients: Some(2),
                ..short(qos)
            },
        );
    }
}

#[test]
fn fan_in_and_fan_out() {
    for qos in [QoS::AtMostOnce, QoS::AtLeastOnce] {
        check("fan-in", &short(qos));
        let subscribers = Some(50);
        check(
            "fan-out",
            &Sizes {
                subscribers,
                ..short(qos)
            },
        );
    }
}

#[test]
fn shared_group_and_wildcards() {
    check("shared", &short(QoS::AtLeastOnce));
    let count = Some(300);
    check(
        "wildcard",
        &Sizes {
            count,
            ..short(QoS::AtMostOnce)
        },
    );
}

#[test]
fn open_loop_has_latencies() {
    let sizes = Sizes {
        per_second: Some(2_000),
        clients: Some(2),
        ..short(QoS::AtLeastOnce)
    };
    let sample = measure("pairs", &sizes);
    assert_eq!(sample.faults, Faults::default());
    let latency = sample.latency.expect("latencies of an open loop");
    assert!(latency.p50 > 0.0 && latency.p50 <= latency.max);
    // 2,000 a second for 50 ms, however late a busy machine makes them.
    assert!(latency.messages >= 100, "{}", latency.messages);
}

#[test]
fn retained_conn_storm_and_idle() {
    for qos in [QoS::AtMostOnce, QoS::AtLeastOnce] {
        let count = Some(1_000);
        check(
            "retained",
            &Sizes {
                count,
                ..short(qos)
            },
        );
    }
    check("conn", &short(QoS::AtMostOnce));
    let storm = Sizes {
        count: Some(2_345),
        clients: Some(7),
        ..Sizes::default()
    };
    let sample = measure("storm", &storm);
    assert_eq!((sample.units, sample.faults.lost), (2_345, 0));
    let idle = Sizes {
        count: Some(20),
        ..Sizes::default()
    };
    let sample = measure("idle", &idle);
    assert_eq!(sample.units, 20);
    assert!(sample.unit_bytes.is_some());
}

#[test]
fn publishers_and_subscribers_alone() {
    for qos in [QoS::AtMostOnce, QoS::AtLeastOnce, QoS::ExactlyOnce] {
        check("pub", &short(qos));
    }
    let none = measure("sub", &short(QoS::AtLeastOnce));
    assert_eq!(none.units, 0);
}

#[test]
fn acknowledgements_have_latencies_when_nobody_subscribes() {
    for qos in [QoS::AtLeastOnce, QoS::ExactlyOnce] {
        let sizes = Sizes {
            per_second: Some(2_000),
            ..short(qos)
        };
        let sample = measure("pub", &sizes);
        let latency = sample.latency.expect("latencies of acknowledgements");
        assert!(latency.messages >= 100, "{}", latency.messages);
        assert!(latency.p50 > 0.0 && latency.p50 <= latency.max);
    }
}

#[test]
fn every_scenario_speaks_mqtt_5() {
    let access = || Access {
        is_v5: true,
        ..Access::default()
    };
    for qos in [QoS::AtMostOnce, QoS::AtLeastOnce, QoS::ExactlyOnce] {
        for name in [
            "pairs", "pub", "conn", "storm", "idle", "shared", "retained",
        ] {
            let count = Some(1_000);
            let sizes = Sizes {
                count,
                ..short(qos)
            };
            let sample = measure_as(access(), name, &sizes);
            assert!(sample.units > 0, "{name}: nothing arrived");
            assert_eq!(sample.faults, Faults::default(), "{name}");
        }
    }
}

#[test]
fn ctrl_c_reports_what_there_is() {
    let null = Running::start();
    let long = Sizes {
        duration: Some(Duration::from_hours(1)),
        count: Some(10_000_000),
        ..Sizes::default()
    };
    for name in ["pairs", "pub", "sub", "conn", "storm", "idle"] {
        let scenario = Scenario::build(name, &long).expect("a scenario");
        let sample = scenario
            .measure(
                &Target::at(null.address, Access::default()),
                &mut Progress::stopped(),
            )
            .unwrap_or_else(|error| panic!("{name}: {error:?}"));
        assert_eq!(sample.faults, Faults::default(), "{name}");
    }
}

#[test]
fn sizes_that_make_no_sense_are_refused() {
    let none = Sizes {
        clients: Some(0),
        ..Sizes::default()
    };
    Scenario::build("pairs", &none).expect_err("nobody there");
    let odd = Sizes {
        publishers: Some(2),
        subscribers: Some(3),
        ..Sizes::default()
    };
    Scenario::build("pairs", &odd).expect_err("no pairs");
    Scenario::build("nonsense", &Sizes::default()).expect_err("no such scenario");
}
