//! Random bytes and random histories.

use std::collections::{BTreeMap, BTreeSet};

use dunlin_mqtt::{Ack, AckKind, Connect, Packet, QoS, Reason, SubscriptionOptions, Version};
use proptest::prelude::*;

use super::net::{C, Net, VERSIONS, id, message, persistent, qos, settings};
use crate::settings::Mqtt;

#[derive(Clone, Debug)]
enum Step {
    Connect {
        who: usize,
        shard: usize,
        clean: bool,
        version: usize,
        window: u16,
    },
    Drop {
        who: usize,
    },
    Disconnect {
        who: usize,
    },
    Subscribe {
        who: usize,
        filter: usize,
        qos: u8,
    },
    Unsubscribe {
        who: usize,
        filter: usize,
    },
    Publish {
        who: usize,
        topic: usize,
        qos: u8,
        retain: bool,
    },
    Read {
        who: usize,
        acknowledge: bool,
    },
    Pass {
        ms: u64,
    },
}

const FILTERS: [&str; 6] = ["a", "a/+", "#", "a/b", "$share/g/a/#", "$queue/a"];
const TOPICS: [&str; 4] = ["a", "a/b", "c", "a/c"];
const WHO: usize = 4;
const SHARDS: u16 = 2;
const QUEUE: u32 = 20;

fn step() -> impl Strategy<Value = Step> {
    let who = 0..WHO;
    prop_oneof![
        2 => (who.clone(), 0..usize::from(SHARDS), any::<bool>(), 0..3_usize, 1..10_u16)
            .prop_map(|(who, shard, clean, version, window)| {
                Step::Connect { who, shard, clean, version, window }
            }),
        1 => who.clone().prop_map(|who| Step::Drop { who }),
        1 => who.clone().prop_map(|who| Step::Disconnect { who }),
        2 => (who.clone(), 0..FILTERS.len(), 0..3_u8)
            .prop_map(|(who, filter, qos)| Step::Subscribe { who, filter, qos }),
        1 => (who.clone(), 0..FILTERS.len())
            .prop_map(|(who, filter)| Step::Unsubscribe { who, filter }),
        6 => (who.clone(), 0..TOPICS.len(), 0..3_u8, any::<bool>())
            .prop_map(|(who, topic, qos, retain)| Step::Publish { who, topic, qos, retain }),
        4 => (who, any::<bool>())
            .prop_map(|(who, acknowledge)| Step::Read { who, acknowledge }),
        1 => (1..100_000_u64).prop_map(|ms| Step::Pass { ms }),
    ]
}

/// What each identifier's connection has in flight, as a client sees it.
#[derive(Default)]
struct Seen {
    conn: Option<C>,
    window: usize,
    unacknowledged: BTreeSet<u16>,
    next_id: u16,
    open_ids: BTreeMap<u16, u8>,
}

struct World {
    net: Net,
    seen: Vec<Seen>,
}

impl World {
    fn new() -> Self {
        let mqtt = Mqtt {
            max_mqueue_len: Some(QUEUE),
            ..Mqtt::default()
        };
        let net = Net::with(1, SHARDS, settings(mqtt));
        Self {
            net,
            seen: (0..WHO).map(|_| Seen::default()).collect(),
        }
    }

    /// One step; with `lazy` what follows from it is carried with a later one.
    fn step(&mut self, step: &Step, lazy: bool) {
        self.net.lazy = lazy;
        match *step {
            Step::Connect {
                who,
                shard,
                clean,
                version,
                window,
            } => {
                self.connect(who, shard, clean, VERSIONS[version], window);
            }
            Step::Drop { who } => {
                if let Some(c) = self.seen[who].conn.take() {
                    self.net.drop_client(c);
                }
            }
            Step::Disconnect { who } => {
                if let Some(c) = self.seen[who].conn.take() {
                    self.net.disconnect(c, Reason::Success);
                }
            }
            Step::Subscribe {
                who,
                filter,
                qos: level,
            } => {
                let options = SubscriptionOptions::with_qos(qos(level));
                let packet = super::net::subscribe(1, FILTERS[filter], options, 0);
                self.send(who, packet);
            }
            Step::Unsubscribe { who, filter } => {
                let filters = vec![dunlin_mqtt::TopicFilter::new(FILTERS[filter])];
                let properties = dunlin_mqtt::Properties::new();
                let packet = dunlin_mqtt::Unsubscribe {
                    packet_id: id(2),
                    properties,
                    filters,
                };
                self.send(who, Packet::Unsubscribe(packet));
            }
            Step::Publish {
                who,
                topic,
                qos,
                retain,
            } => self.publish(who, topic, qos, retain),
            Step::Read { who, acknowledge } => self.read(who, acknowledge),
            Step::Pass { ms } => self.net.pass(ms),
        }
        if !lazy {
            self.net.run();
            self.check();
        }
    }

    fn connect(&mut self, who: usize, shard: usize, clean: bool, version: Version, window: u16) {
        let name = format!("c{who}");
        let mut connect = if clean {
            Connect::new(version, &name)
        } else {
            persistent(version, &name)
        };
        let mut expected_window = 32;
        if version.is_v5() {
            connect.properties.set_receive_maximum(window);
            expected_window = usize::from(window);
        }
        let c = self.net.accept_at(0, shard, version);
        self.net.send(c, Packet::Connect(Box::new(connect)));
        let seen = &mut self.seen[who];
        seen.conn = Some(c);
        seen.window = expected_window;
        // What an older, wider window left in flight is sent again and counts.
        seen.unacknowledged.clear();
        seen.open_ids.clear();
    }

    fn send(&mut self, who: usize, packet: Packet) {
        if let Some(c) = self.seen[who].conn.filter(|c| self.net.is_open(*c)) {
            self.net.send(c, packet);
        }
    }

    fn publish(&mut self, who: usize, topic: usize, level: u8, retain: bool) {
        let seen = &mut self.seen[who];
        // A good client keeps our Receive Maximum of at most ten.
        if level > 0 && !seen.open_ids.is_empty() {
            return;
        }
        seen.next_id = seen.next_id % 60_000 + 1;
        let packet_id = seen.next_id;
        if level > 0 {
            seen.open_ids.insert(packet_id, level);
        }
        let Packet::Publish(mut publish) = message(TOPICS[topic], "x", level, packet_id) else {
            return;
        };
        publish.retain = retain;
        self.send(who, Packet::Publish(publish));
    }

    fn read(&mut self, who: usize, acknowledge: bool) {
        let Some(c) = self.seen[who].conn else { return };
        let packets = self.net.take(c);
        for packet in &packets {
            self.note(who, packet);
            if acknowledge && self.net.is_open(c) {
                if let Packet::Publish(p) = packet
                    && p.qos == QoS::AtLeastOnce
                {
                    let packet_id = p.packet_id.expect("above 0").get();
                    self.seen[who].unacknowledged.remove(&packet_id);
                }
                self.net.answer(c, packet);
            }
        }
    }

    fn note(&mut self, who: usize, packet: &Packet) {
        let seen = &mut self.seen[who];
        match packet {
            Packet::Publish(p) if p.qos != QoS::AtMostOnce => {
                let packet_id = p.packet_id.expect("above 0").get();
                let fresh = seen.unacknowledged.insert(packet_id);
                assert!(fresh || p.dup, "packet identifier {packet_id} is in use");
                let again = p.dup;
                assert!(
                    again || seen.unacknowledged.len() <= seen.window,
                    "{} in flight, window {}",
                    seen.unacknowledged.len(),
                    seen.window
                );
            }
            Packet::Ack(ack) => match ack.kind {
                AckKind::Puback | AckKind::Pubcomp => {
                    seen.open_ids.remove(&ack.packet_id.get());
                }
                AckKind::Pubrec => {
                    let release = Ack::new(AckKind::Pubrel, ack.packet_id, Reason::Success);
                    let c = seen.conn.expect("it reads");
                    if ack.reason.is_error() {
                        seen.open_ids.remove(&ack.packet_id.get());
                    } else {
                        self.net.send(c, Packet::Ack(release));
                    }
                }
                AckKind::Pubrel => {
                    // Over once we answer; the place is free then.
                    self.seen[who].unacknowledged.remove(&ack.packet_id.get());
                }
            },
            _ => {}
        }
    }

    fn check(&self) {
        let mut owners: BTreeMap<String, usize> = BTreeMap::new();
        let mut subscriptions = 0;
        for shard in &self.net.nodes[0].shards {
            for row in shard.client_rows(None, 1_000) {
                assert!(row.mqueue_len <= u64::from(QUEUE), "{row:?}");
                *owners.entry(row.clientid).or_default() += 1;
            }
            subscriptions += shard.counts().subscriptions as usize;
        }
        assert!(owners.values().all(|n| *n == 1), "{owners:?}");
        let shared = &self.net.nodes[0].shared;
        let usage = shared.router().read().usage();
        assert_eq!(
            usage.subscriptions + usage.shared_subscriptions,
            subscriptions
        );
        assert_eq!(shared.registry().counts().0, owners.len());
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn histories_keep_the_invariants(
        steps in proptest::collection::vec((step(), any::<bool>()), 1..120),
    ) {
        let mut world = World::new();
        for (step, lazy) in &steps {
            world.step(step, *lazy);
        }
        world.net.lazy = false;
        world.net.run();
        world.check();
    }

    #[test]
    fn random_bytes_never_panic(
        chunks in proptest::collection::vec(
            proptest::collection::vec(any::<u8>(), 0..40), 1..20),
        version in 0..3_usize,
        open in any::<bool>(),
    ) {
        let mut net = Net::new();
        let c = if open {
            net.client(VERSIONS[version], "c")
        } else {
            net.accept(VERSIONS[version])
        };
        for chunk in chunks {
            net.bytes(c, &chunk);
        }
    }

    #[test]
    fn damaged_packets_never_panic(
        at in 0..200_usize, with in any::<u8>(), version in 0..3_usize,
    ) {
        let version = VERSIONS[version];
        let mut net = Net::new();
        let c = net.accept(version);
        let mut bytes = Vec::new();
        let mut connect = persistent(version, "client");
        connect.username = Some("user".into());
        bytes.extend_from_slice(&net.encode(c, Packet::Connect(Box::new(connect))));
        let options = SubscriptionOptions::with_qos(QoS::ExactlyOnce);
        bytes.extend_from_slice(&net.encode(c, super::net::subscribe(1, "a/#", options, 0)));
        for level in 0..3 {
            bytes.extend_from_slice(&net.encode(c, message("a/b", "payload", level, 7)));
        }
        bytes.extend_from_slice(&net.encode(c, super::net::pubrel(7)));
        let at = at % bytes.len();
        bytes[at] = with;
        net.bytes(c, &bytes);
    }
}
