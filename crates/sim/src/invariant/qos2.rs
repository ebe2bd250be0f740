//! A `QoS` 2 message reaches a subscription once at most, through resends, lost connections and
//! moves of either session.
//!
//! Not promised to a session that moves while the way from the publisher's node is disturbed: what
//! it had on its old node may come late over the link to its new one.

use crate::invariant::loss::matching;
use crate::oracle::{Delivered, Published};
use crate::violation::Violation;
use crate::world::World;

pub(super) fn step(world: &World) -> Result<(), Violation> {
    for got in world.oracle.fresh() {
        // A publisher whose session was lost without its knowing sends again what was received.
        let split =
            world.oracle.is_split(got.client) || world.oracle.was_split(got.message.publisher);
        if got.qos != 2 || got.retain || got.copies <= 1 || split {
            continue;
        }
        // A message for several overlapping subscriptions of a client may come once for each.
        let Some(message) = world.oracle.message(got.message) else {
            continue;
        };
        if moved_in_trouble(world, got, message) {
            continue;
        }
        let allowed = world.clients[got.client]
            .filters()
            .filter(|f| matching(f, &message.topic));
        let promised = world.oracle.promises().iter().filter(|promise| {
            promise.client == got.client
                && promise.qos == 2
                && dunlin_mqtt::topic::matches(&promise.filter, &message.topic)
        });
        let filters: std::collections::BTreeSet<&str> = promised
            .map(|promise| promise.filter.as_str())
            .chain(allowed)
            .collect();
        if got.copies > filters.len().max(1) {
            let seen = format!(
                "client {} got {} ({}) {} times",
                got.client,
                got.message.payload(),
                message.topic,
                got.copies
            );
            return Err(Violation::new("qos2", seen));
        }
    }
    Ok(())
}

fn moved_in_trouble(world: &World, got: &Delivered, message: &Published) -> bool {
    let homes = world.oracle.homes(got.client);
    let homes = homes.iter().filter(|home| home.session == got.session);
    let moved = homes
        .clone()
        .any(|home| Some(home.on) != homes.clone().next().map(|h| h.on));
    let Some(first) = message.sends.first() else {
        return false;
    };
    let calm = |host| world.oracle.is_calm(first.to.0, host, first.at, got.at);
    moved && !homes.clone().all(|home| calm(home.on.0))
}
