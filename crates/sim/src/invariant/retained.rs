//! All members of a cluster hold the same cluster state, retained messages above all, and what they
//! hold is the last acknowledged message of a topic.

use dunlin_broker::control::{API_KEYS, RETAINED, USERS};
use dunlin_cluster::{MEMBERS, TableId};

use crate::disk::PATIENCE_MS;
use crate::oracle::{MessageId, Published};
use crate::violation::Violation;
use crate::world::World;

pub(super) fn settled(world: &World) -> Result<(), Violation> {
    for table in [MEMBERS, RETAINED, USERS, API_KEYS] {
        equal(world, table)?;
    }
    Ok(())
}

fn equal(world: &World, id: TableId) -> Result<(), Violation> {
    let nodes: Vec<_> = world
        .hosts
        .iter()
        .filter_map(|host| Some((host.index, host.node()?)))
        .collect();
    for (at, (a, node)) in nodes.iter().enumerate() {
        for (b, other) in &nodes[at + 1..] {
            let own = other.status().own;
            if node
                .status()
                .members
                .iter()
                .all(|member| member.name != own)
            {
                continue;
            }
            let (ours, theirs) = (node.control().table(id), other.control().table(id));
            if ours.digests() == theirs.digests() {
                continue;
            }
            let ours = ours.read();
            let theirs = theirs.read();
            let differs = ours
                .rows(std::ops::Bound::Unbounded)
                .find(|(key, row)| {
                    let mut same = theirs.rows(std::ops::Bound::Included(key));
                    same.next()
                        .is_none_or(|(other, found)| other != *key || found != *row)
                })
                .map(|(key, row)| format!("{} {row:?}", String::from_utf8_lossy(key)));
            let seen = format!("table {} of nodes {a} and {b} differs: {differs:?}", id.0);
            return Err(Violation::new("retained", seen));
        }
    }
    Ok(())
}

pub(super) fn end(world: &World) -> Result<(), Violation> {
    // Stamps order writes by the nodes' clocks; only when those agree is that the order clients
    // saw. A node that changed its cluster may have left messages behind, and so may one that was
    // removed: when it learns of that, is up to the network.
    let skewed = world.options.is_skewed();
    let settled_down = (0..world.hosts.len()).all(|host| {
        let moved = world.oracle.moved_at(host);
        moved.is_none_or(|at| at < MOVES_UNTIL_MS) && world.oracle.exiled_at(host).is_none()
    });
    if skewed || !settled_down || !one_cluster(world) {
        return Ok(());
    }
    let mut topics: Vec<&str> = retained(world).map(|(_, m)| m.topic.as_str()).collect();
    topics.sort_unstable();
    topics.dedup();
    topics
        .into_iter()
        .try_for_each(|topic| last_wins(world, topic))
}

/// Joins of the beginning are over by then, and no message is retained before; milliseconds.
const MOVES_UNTIL_MS: u64 = 10_000;

/// How long a disk that works takes for a batch at most, milliseconds.
const COMMITTED_MS: u64 = 100;

fn one_cluster(world: &World) -> bool {
    let of = |host: &crate::host::Host| host.node().map(|node| node.status().cluster);
    world
        .hosts
        .windows(2)
        .all(|pair| of(&pair[0]) == of(&pair[1]))
}

fn retained(world: &World) -> impl Iterator<Item = (MessageId, &Published)> {
    world
        .oracle
        .messages()
        .filter(|(_, m)| m.retain && !m.sends.is_empty())
}

/// Acknowledged although the disk had failed for long: gone if the node dies before it works again.
/// The second answer to a `QoS` 2 message, if another node gives it, does not wait for the first
/// one's disk.
fn may_be_lost(world: &World, message: &Published) -> bool {
    let at = message.acked_at.unwrap_or_default();
    let first = message.sends.first().map(|sent| sent.to.0);
    let mut hosts = message.sends.iter().map(|sent| sent.to.0);
    let moved = message.qos == 2 && hosts.clone().any(|host| Some(host) != first);
    let waited_ms = if moved { 0 } else { PATIENCE_MS };
    hosts.any(|host| {
        let unwritten = moved && !world.oracle.is_quiet(host, host, at, at + COMMITTED_MS);
        unwritten || world.oracle.disk_failed(host, at, waited_ms)
    })
}

/// What is held must be a write that no acknowledged one surely followed.
fn last_wins(world: &World, topic: &str) -> Result<(), Violation> {
    let Some(node) = world.hosts.iter().find_map(|host| host.node()) else {
        return Ok(());
    };
    let wall_ms = u64::MAX / 2;
    let held = node.shared().retained().get(topic, wall_ms);
    let held = held
        .map(|found| found.payload().to_vec())
        .unwrap_or_default();
    let writes: Vec<_> = retained(world).filter(|(_, m)| m.topic == topic).collect();
    // A node that changed its cluster when it had messages already left them behind.
    let moved = (0..world.hosts.len())
        .filter_map(|h| world.oracle.moved_at(h))
        .max()
        .unwrap_or(0);
    let sure = writes
        .iter()
        .filter(|(_, m)| m.qos > 0 && m.sends[0].at > moved && !may_be_lost(world, m));
    let mut possible = vec![];
    for (id, write) in &writes {
        let copies = write.sends.iter().map(|sent| world.oracle.read_by(sent));
        let end = copies.fold(write.acked_at.unwrap_or(u64::MAX), u64::max);
        let followed = sure
            .clone()
            .any(|(_, m)| m.acked_at.is_some() && m.sends[0].at > end);
        if !followed {
            possible.push(if write.empty {
                Vec::new()
            } else {
                id.payload().into_bytes()
            });
        }
    }
    let any_sure = sure.clone().any(|(_, m)| m.acked_at.is_some());
    if !possible.contains(&held) && (any_sure || !held.is_empty()) {
        let text = |payload: &Vec<u8>| String::from_utf8_lossy(payload).into_owned();
        let seen = format!(
            "topic {topic} holds {:?}, it may only be one of {:?}",
            text(&held),
            possible.iter().map(text).collect::<Vec<_>>()
        );
        return Err(Violation::new("retained", seen));
    }
    Ok(())
}
