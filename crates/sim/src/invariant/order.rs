//! Messages of one publisher to one topic arrive at a session in the order they were sent, per
//! `QoS`; what is delivered again does not count.
//!
//! Promised on one connection of the publisher; over several, and from node to node, while all is
//! calm, to what was sent after the earlier message was acknowledged; on one node also to what was
//! not, unless there is a blip: each shard has a link of its own to the other nodes, and a cut that
//! nobody notices holds up that of the old connection longer than that of the new one. Else, when
//! the publisher moves, what its old node, or its old shard's link, still holds for a node that
//! could not be reached may come later than what the new one delivers at once.
//!
//! Except, on one connection as well, to a client that left a node and came back: what a link held
//! for the node all the time arrives when it can, also after what followed it and came to the
//! client where it was meanwhile. To leave it out would be to lose what was acknowledged.

use crate::oracle::{Delivered, MessageId, Oracle, Published, Sent};
use crate::violation::Violation;
use crate::world::World;

pub(super) fn step(world: &World) -> Result<(), Violation> {
    for got in world.oracle.fresh() {
        let Some(newest) = got.newest_before.filter(|newest| *newest > got.message.seq) else {
            continue;
        };
        let newer = MessageId {
            seq: newest,
            ..got.message
        };
        let (Some(late), Some(early)) = (
            world.oracle.message(got.message),
            world.oracle.message(newer),
        ) else {
            continue;
        };
        if promised(world, got, late, early) && !came_late(world, got, late) {
            let seen = format!(
                "client {} got {} after {} ({}, QoS {})",
                got.client,
                got.message.payload(),
                newer.payload(),
                late.topic,
                got.qos
            );
            return Err(Violation::new("order", seen));
        }
    }
    Ok(())
}

fn promised(world: &World, got: &Delivered, late: &Published, early: &Published) -> bool {
    // A group's message may come late because another member did not acknowledge it.
    let in_group = world.oracle.promises().iter().any(|promise| {
        promise.client == got.client
            && promise.group.is_some()
            && dunlin_mqtt::topic::matches(&promise.filter, &late.topic)
    });
    let mut sends = late.sends.iter().chain(&early.sends);
    let Some(first) = sends.next() else {
        return false;
    };
    let same_node = sends.clone().all(|sent| sent.to == first.to);
    let same_connection = sends.all(|sent| sent.attempt == first.attempt);
    // What was published with different grades may take turns where it is delivered with the same.
    let same_grade = late.qos == early.qos;
    let split = world.oracle.is_split(got.client);
    let subscribed = late.sends.len() == 1 || was_for_session(world, got, late, early);
    let always = |holds: fn(&Oracle, usize, usize, u64, u64) -> bool| {
        let mut from = late.sends.iter().chain(&early.sends);
        from.all(|sent| {
            let mut homes = world.oracle.homes(got.client).iter();
            homes.all(|home| holds(&world.oracle, sent.to.0, home.on.0, first.at, got.at))
        })
    };
    let acknowledged = late.acked_at.zip(early.sends.first());
    let acknowledged =
        acknowledged.is_some_and(|(at, sent)| at <= sent.at) && !answered_twice(late);
    let one_link = || world.options.shards == 1 || always(Oracle::is_quiet);
    let in_turn = || acknowledged || same_node && one_link();
    let ordered = same_connection || late.qos > 0 && always(Oracle::is_calm) && in_turn();
    !split && !in_group && same_grade && subscribed && ordered
}

/// Whether the acknowledgement may be of a second sending, whose PUBREC does not wait for the nodes
/// that the first one waited for.
fn answered_twice(message: &Published) -> bool {
    message.qos == 2 && message.sends.len() > 1
}

/// Whether the client came back to its node since the message was sent, and the way there from the
/// publisher's node was not calm meanwhile. A blip is no excuse: a session that leaves waits longer
/// for what is on the way to its old node.
fn came_late(world: &World, got: &Delivered, late: &Published) -> bool {
    let oracle = &world.oracle;
    let Some((here, _)) = oracle.home(got) else {
        return false;
    };
    let held = |sent: &Sent| {
        let calm = oracle.is_calm(sent.to.0, here, sent.at, got.at);
        sent.to.0 != here && !calm && oracle.came_back(got, sent.at)
    };
    late.sends.iter().any(held)
}

/// Whether the older message was sent for a subscription of this very session before the newer one
/// was. What was sent only earlier than that, be it for a session that is over, comes to this one
/// when its publisher sends it again.
fn was_for_session(world: &World, got: &Delivered, late: &Published, early: &Published) -> bool {
    let Some(newer) = early.sends.first() else {
        return false;
    };
    let before = |sent: &&Sent| sent.at <= newer.at && sent.attempt <= newer.attempt;
    let Some(sent) = late.sends.iter().rfind(before) else {
        return false;
    };
    world.oracle.promises().iter().any(|promise| {
        (promise.client, promise.session) == (got.client, got.session)
            && promise.acked_at <= sent.at
            && dunlin_mqtt::topic::matches(&promise.filter, &late.topic)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::oracle::Promise;
    use crate::plant::Plant;
    use crate::trace::Record;
    use crate::workload::Options;

    const PUBLISHER: usize = 0;
    const SUBSCRIBER: usize = 1;
    const TOPIC: &str = "c";

    /// Two nodes of one shard, with nothing wrong; the publisher on the first, the subscriber on
    /// the second.
    fn calm() -> World {
        let options = Options {
            nodes: 2,
            shards: 1,
            skew_ms: vec![0; 2],
            ..Options::draw(0)
        };
        let mut world = World::new(options, Vec::new(), Plant::default(), Record::Nothing);
        (0..2).for_each(|host| world.oracle.started(0, host));
        world
    }

    impl World {
        /// The subscriber connects and subscribes.
        fn subscribe(&mut self, at: u64, present: bool) {
            let oracle = &mut self.oracle;
            let session = oracle.connected(SUBSCRIBER, 1, (at, at), present);
            oracle.subscribed(Promise {
                client: SUBSCRIBER,
                session,
                filter: TOPIC.to_owned(),
                group: None,
                qos: 0,
                sent_at: at,
                acked_at: at,
                ended_at: None,
            });
        }

        fn publish(&mut self) -> MessageId {
            self.publish_with(1)
        }

        fn publish_with(&mut self, qos: u8) -> MessageId {
            let message = Published {
                topic: TOPIC.to_owned(),
                qos,
                retain: false,
                empty: false,
                sends: Vec::new(),
                acked_at: None,
            };
            self.oracle.publish(PUBLISHER, message)
        }

        /// The publisher sends it on one of its connections.
        fn send(&mut self, message: MessageId, at: u64, attempt: u64) {
            self.oracle.sent(message, at, 0, attempt);
        }

        /// It arrives, and is looked at.
        fn arrive(&mut self, message: MessageId, at: u64) -> bool {
            let got = Delivered {
                client: SUBSCRIBER,
                session: self.oracle.session(SUBSCRIBER),
                attempt: 1,
                message,
                qos: 0,
                retain: false,
                at,
                copies: 0,
                newest_before: None,
            };
            self.oracle.deliver(got, TOPIC);
            let holds = step(self).is_ok();
            self.oracle.checked();
            holds
        }
    }

    #[test]
    fn what_a_publisher_sent_for_a_former_session_may_come_again_to_a_new_one() {
        let mut world = calm();
        world.subscribe(10, false);
        let older = world.publish();
        world.send(older, 20, 1);
        assert!(world.arrive(older, 25));
        world.subscribe(30, false);
        let newer = world.publish();
        world.send(newer, 40, 1);
        assert!(world.arrive(newer, 45));
        world.send(older, 50, 2);
        world.send(newer, 50, 2);
        assert!(world.arrive(older, 55));
    }

    #[test]
    fn what_was_sent_for_a_session_must_not_overtake_in_it() {
        for present in [false, true] {
            let mut world = calm();
            world.subscribe(10, false);
            let older = world.publish();
            if !present {
                // Sent for a former session first, and then for this one as well.
                world.send(older, 15, 1);
            }
            world.subscribe(20, present);
            let newer = world.publish();
            world.send(older, 30, 2);
            world.send(newer, 40, 2);
            assert!(world.arrive(newer, 45));
            world.send(older, 50, 3);
            world.send(newer, 50, 3);
            assert!(!world.arrive(older, 55), "session present: {present}");
        }
    }
    /// Its first PUBREC waits for the subscriber's node, a second one for nobody.
    #[test]
    fn a_second_pubrec_promises_no_order_and_any_other_acknowledgement_does() {
        for (qos, may_come_late) in [(1, false), (2, true)] {
            let mut world = calm();
            world.subscribe(10, false);
            let older = world.publish_with(qos);
            let newer = world.publish_with(qos);
            world.oracle.sent(older, 20, 0, 1);
            world.oracle.sent(older, 30, 1, 2);
            world.oracle.acked(older, 35);
            world.oracle.sent(newer, 40, 1, 2);
            assert!(world.arrive(newer, 45));
            assert_eq!(world.arrive(older, 50), may_come_late, "QoS {qos}");
        }
    }
}
