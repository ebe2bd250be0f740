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
    // What was sent before the subscription was there first came when it was sent again.
    let sent_at = late.sends.first().map_or(0, |sent| sent.at);
    let subscribed = world.oracle.promises().iter().any(|promise| {
        promise.client == got.client
            && promise.acked_at <= sent_at
            && dunlin_mqtt::topic::matches(&promise.filter, &late.topic)
    });
    let subscribed = subscribed || late.sends.len() == 1;
    let always = |holds: fn(&Oracle, usize, usize, u64, u64) -> bool| {
        let mut from = late.sends.iter().chain(&early.sends);
        from.all(|sent| {
            let mut homes = world.oracle.homes(got.client).iter();
            homes.all(|home| holds(&world.oracle, sent.to.0, home.on.0, first.at, got.at))
        })
    };
    let acknowledged = late.acked_at.zip(early.sends.first());
    let acknowledged = acknowledged.is_some_and(|(at, sent)| at <= sent.at);
    let one_link = || world.options.shards == 1 || always(Oracle::is_quiet);
    let in_turn = || acknowledged || same_node && one_link();
    let ordered = same_connection || late.qos > 0 && always(Oracle::is_calm) && in_turn();
    !split && !in_group && same_grade && subscribed && ordered
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
