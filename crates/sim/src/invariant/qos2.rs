//! A `QoS` 2 message reaches a subscription once at most, through resends, lost connections and
//! moves of either session, whatever is disturbed meanwhile.
//!
//! Except what the client had received and acknowledged on another node: nobody remembers what is
//! done, so a copy that a disturbed link brings late to the session's new node, for somebody else
//! there or because the client had been there before, is one more.

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
        if came_late(world, got, message) {
            continue;
        }
        let client = &world.clients[got.client];
        let allowed = client
            .filters()
            .chain(client.doubtful())
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

/// Whether the client had it on another node, and a way from a publisher's node to the present one
/// was disturbed since.
fn came_late(world: &World, got: &Delivered, message: &Published) -> bool {
    let Some(home) = world.oracle.home(got) else {
        return false;
    };
    let mut all = world.oracle.got(got.client, got.message).iter();
    let moved = all.any(|d| {
        world
            .oracle
            .home(d)
            .is_some_and(|before| before.0 != home.0)
    });
    let mut sends = message.sends.iter();
    let quiet = |from, at| world.oracle.is_quiet(from, home.0, at, got.at);
    moved && sends.any(|sent| !quiet(sent.to.0, sent.at))
}
