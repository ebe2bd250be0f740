//! An acknowledged `QoS` 1 or 2 message reaches every session it was promised to.
//!
//! Promised is: the subscription was acknowledged before the message was sent; the session is the
//! same still; and between the publisher's node and every node the session was on, nothing happened
//! from shortly before the message was sent until it was acknowledged that anybody may notice. A
//! cut below the suspicion time and a reset connection are nothing. Nodes keep sessions in memory:
//! one that dies takes them with it.

use crate::oracle::{Home, MessageId, Promise, Published};
use crate::violation::Violation;
use crate::world::World;

/// A SUBACK that came while the way was not free does not say that all nodes have the route; they
/// have it so much later, milliseconds.
pub(super) const ROUTE_MS: u64 = 3_000;

/// The rest of a session that moves comes so long after its CONNACK at the latest, milliseconds:
/// what is on connections that hang is waited for.
const MOVED_MS: u64 = 7_000;

/// Whether a filter, `$share/` allowed, matches a topic.
pub(super) fn matching(filter: &str, topic: &str) -> bool {
    let (bare, _) = crate::client::split_filter(filter);
    dunlin_mqtt::topic::matches(bare, topic)
}

pub(super) fn end(world: &World) -> Result<(), Violation> {
    for (id, message) in world.oracle.messages() {
        if message.qos == 0 || message.empty || message.acked_at.is_none() {
            continue;
        }
        for promise in world.oracle.promises() {
            check(world, (id, message), promise)?;
        }
    }
    Ok(())
}

fn check(
    world: &World,
    (id, message): (MessageId, &Published),
    promise: &Promise,
) -> Result<(), Violation> {
    if !is_promised(world, message, promise) || is_there(world, id, promise) {
        return Ok(());
    }
    let at = message.sends.first().map_or(0, |sent| sent.at);
    let seen = format!(
        "client {} never got {} ({}, QoS {}, sent {at} ms to node {}, acknowledged {} ms) for {}{}",
        promise.client,
        id.payload(),
        message.topic,
        message.qos,
        message.sends.first().map_or(0, |sent| sent.to.0),
        message.acked_at.unwrap_or_default(),
        promise.filter,
        promise
            .group
            .as_ref()
            .map_or_else(String::new, |group| format!(" of group {group}")),
    );
    Err(Violation::new("loss", seen))
}

/// Got by the client, or by another member of its group.
fn is_there(world: &World, id: MessageId, promise: &Promise) -> bool {
    let Some(group) = &promise.group else {
        return !world.oracle.got(promise.client, id).is_empty();
    };
    let mut members = world.oracle.promises().iter();
    members.any(|other| {
        other.group.as_ref() == Some(group)
            && other.filter == promise.filter
            && !world.oracle.got(other.client, id).is_empty()
    })
}

fn is_promised(world: &World, message: &Published, promise: &Promise) -> bool {
    let (Some(first), Some(last)) = (message.sends.first(), message.sends.last()) else {
        return false;
    };
    let Some(acked_at) = message.acked_at else {
        return false;
    };
    let oracle = &world.oracle;
    let alive = promise.ended_at.is_none() && oracle.session(promise.client) == promise.session;
    if promise.qos == 0
        || !alive
        || oracle.is_split(promise.client)
        || promise.acked_at >= first.at
        || !dunlin_mqtt::topic::matches(&promise.filter, &message.topic)
        || message.sends.iter().any(|sent| sent.to != last.to)
        || world.options.mqueue_len_max < QUEUE_ENOUGH
    {
        return false;
    }
    if promise.group.is_some() && !group_is_calm(world, message, promise) {
        return false;
    }
    homes_are_calm(world, (first.at, acked_at), last.to.0, promise)
}

/// Queues at least this long never overflow in a run; shorter ones may drop what they promise.
pub(super) const QUEUE_ENOUGH: u32 = 500;

/// Every node the session was on since it was granted, or was moved from since the message was
/// sent, could talk to the publisher's node, and none of them died later.
fn homes_are_calm(
    world: &World,
    (sent_at, acked_at): (u64, u64),
    publisher_on: usize,
    promise: &Promise,
) -> bool {
    let oracle = &world.oracle;
    let of = |home: &&Home| home.session == promise.session;
    let homes: Vec<&Home> = oracle.homes(promise.client).iter().filter(of).collect();
    homes.iter().enumerate().all(|(at, home)| {
        let next = homes.get(at + 1).map_or(u64::MAX, |next| next.since);
        if next < sent_at {
            return true;
        }
        let host = home.on.0;
        let same_life = oracle.life(host) == home.on;
        let quiet = oracle.is_control_quiet(publisher_on, host, promise.sent_at, promise.acked_at)
            || promise.acked_at + ROUTE_MS < sent_at;
        let moved_calmly = match at.checked_sub(1).and_then(|before| homes.get(before)) {
            Some(before) => oracle.is_calm(before.on.0, host, home.from, home.since + MOVED_MS),
            None => true,
        };
        // A session that moves while the message is on its way may be asked for on either node.
        let calm = oracle.is_calm(
            publisher_on,
            host,
            sent_at,
            acked_at.max(home.since.min(next)),
        );
        same_life && quiet && moved_calmly && calm
    })
}

/// All members of the group are as the promise wants it: any of them may have been picked.
fn group_is_calm(world: &World, message: &Published, promise: &Promise) -> bool {
    let oracle = &world.oracle;
    let publisher_on = message.sends.last().map_or(0, |sent| sent.to.0);
    let (from, to) = (message.sends[0].at, message.acked_at.unwrap_or(u64::MAX));
    oracle
        .promises()
        .iter()
        .filter(|other| other.group == promise.group && other.filter == promise.filter)
        .all(|other| {
            let alive = other.ended_at.is_none() && oracle.session(other.client) == other.session;
            let mut homes = oracle.homes(other.client).iter();
            alive
                && other.qos > 0
                && homes.all(|home| {
                    oracle.life(home.on.0) == home.on
                        && oracle.is_calm(publisher_on, home.on.0, from, to)
                })
        })
}
