//! A message reaches one member of a shared group.
//!
//! A second one may get it only when the first lost its connection before it acknowledged, when the
//! node of the first died before it could tell that it was done, or when the publisher, unsure
//! itself, sent it twice.

use crate::oracle::{Delivered, Promise, Published};
use crate::violation::Violation;
use crate::world::World;

pub(super) fn step(world: &World) -> Result<(), Violation> {
    for got in world.oracle.fresh().iter().filter(|got| !got.retain) {
        let Some(message) = world.oracle.message(got.message) else {
            continue;
        };
        let own = groups_of(world, got.client, &message.topic);
        for promise in own {
            check(world, got, promise, message.sends.len())?;
        }
    }
    Ok(())
}

fn groups_of<'a>(
    world: &'a World,
    client: usize,
    topic: &'a str,
) -> impl Iterator<Item = &'a Promise> {
    world.oracle.promises().iter().filter(move |promise| {
        promise.client == client
            && promise.group.is_some()
            && dunlin_mqtt::topic::matches(&promise.filter, topic)
    })
}

fn check(world: &World, got: &Delivered, own: &Promise, sends: usize) -> Result<(), Violation> {
    // Whoever is in two groups that match may get the message for either.
    let single = |client: usize, topic: &str| {
        let asked = world.clients[client].ever_asked().all(|filter| {
            let (bare, group) = crate::client::split_filter(filter);
            let own = (own.filter.as_str(), own.group.as_deref());
            (bare, group) == own || !dunlin_mqtt::topic::matches(bare, topic)
        });
        asked && groups_of(world, client, topic).all(|p| same(p, own))
    };
    let Some(message) = world.oracle.message(got.message) else {
        return Ok(());
    };
    if !single(got.client, &message.topic) {
        return Ok(());
    }
    let mut receivers = 0;
    for client in 0..world.clients.len() {
        let member = groups_of(world, client, &message.topic).any(|p| same(p, own));
        if !member || !single(client, &message.topic) {
            continue;
        }
        let theirs = world.oracle.got(client, got.message);
        // One that lost its connection meanwhile may not have acknowledged.
        let sure = |d: &Delivered| is_still_on(world, d) && !may_be_given_again(world, d, message);
        // A message of QoS 0 is sent to one member, and that is all.
        let once = |d: &Delivered| message.qos == 0 && d.qos == 0;
        let kept = |d: &&Delivered| !d.retain && (once(d) || sure(d));
        receivers += usize::from(theirs.iter().any(|d| kept(&d)));
    }
    // QoS 0 is sent once whatever happens; a repeated QoS 1 or 2 publish may be routed again.
    let allowed = if message.qos == 0 { 1 } else { sends.max(1) };
    if receivers > allowed {
        let seen = format!(
            "{receivers} members of group {} got {} ({})",
            own.group.as_deref().unwrap_or_default(),
            got.message.payload(),
            message.topic
        );
        return Err(Violation::new("groups", seen));
    }
    Ok(())
}

fn same(a: &Promise, b: &Promise) -> bool {
    a.group == b.group && a.filter == b.filter
}

/// Whether its node has died since: it may not have told that its client has the message, be it
/// that it had no time, or that the way was cut. Or another has that was given the message first,
/// for a member that had been on its last life, and gave it to this one.
fn may_be_given_again(world: &World, got: &Delivered, message: &Published) -> bool {
    let oracle = &world.oracle;
    let home = oracle.home(got);
    let sent_at = message.sends.first().map_or(0, |sent| sent.at);
    home.is_some_and(|(host, _)| !oracle.is_quiet(host, host, got.at, world.now))
        || oracle.wills.last_death().is_some_and(|at| at > sent_at)
}

fn is_still_on(world: &World, got: &Delivered) -> bool {
    let connection = world.clients[got.client].connection();
    connection.is_some_and(|(attempt, _)| attempt == got.attempt)
        && !world.oracle.has_hung_up(got.client, got.attempt)
}
