//! All members agree on who is a member and that all run; nobody is removed by itself, nobody
//! stays who left.

use std::collections::BTreeSet;

use dunlin_cluster::{ClusterId, MemberState, NodeName, Operation, Status};

use crate::violation::Violation;
use crate::world::{Operated, World};

pub(super) fn settled(world: &World) -> Result<(), Violation> {
    let statuses = world
        .hosts
        .iter()
        .filter_map(|host| Some(host.node()?.status()));
    let statuses: Vec<Status> = statuses.collect();
    for status in &statuses {
        agree(status, &statuses)?;
        apart(world, status, &statuses)?;
    }
    stayed(world)?;
    left(world)
}

fn wrong(seen: String) -> Result<(), Violation> {
    Err(Violation::new("membership", seen))
}

fn agree(status: &Status, all: &[Status]) -> Result<(), Violation> {
    let own = &status.own;
    if status.members.iter().all(|member| member.name != *own) {
        return wrong(format!("{own} does not count itself as a member"));
    }
    for member in &status.members {
        let Some(other) = all.iter().find(|other| other.own == member.name) else {
            return wrong(format!("{own} has a member {} that never was", member.name));
        };
        if other.cluster != status.cluster {
            return wrong(format!(
                "{own} counts {} as a member, which is not",
                member.name
            ));
        }
        if member.state != MemberState::Running {
            return wrong(format!("{own} sees {} as {:?}", member.name, member.state));
        }
        if names(other) != names(status) {
            let (theirs, ours) = (names(other), names(status));
            return wrong(format!(
                "{own} knows {ours:?}, {} knows {theirs:?}",
                member.name
            ));
        }
    }
    Ok(())
}

/// Who is no member has another cluster id, unless two removed each other when they could not hear
/// each other: those learn it when they meet. It is the same if one of them was not removed but had
/// left and come back, of which the other heard only the former before it was removed itself.
fn apart(world: &World, status: &Status, all: &[Status]) -> Result<(), Violation> {
    let own = &status.own;
    let stranger = all.iter().find(|other| {
        other.cluster == status.cluster && status.members.iter().all(|m| m.name != other.own)
    });
    let Some(other) = stranger else {
        return Ok(());
    };
    let removed = |name: &NodeName| {
        world
            .operations
            .values()
            .any(|operated| matches!(&operated.op, Operation::ForceLeave { node } if node == name))
    };
    let parted = |a: &NodeName, b: &NodeName| removed_unheard(world, a) && has_left(world, b);
    let other = &other.own;
    if removed(own) && removed(other) || parted(own, other) || parted(other, own) {
        return Ok(());
    }
    wrong(format!(
        "{own} and {other} have one cluster id and are no members of each other"
    ))
}

/// Whether a node was removed by one that it may not have heard just then.
fn removed_unheard(world: &World, name: &NodeName) -> bool {
    let host = world.hosts.iter().position(|host| host.name == *name);
    let unheard = |operated: &Operated| {
        let before = operated.at.saturating_sub(1);
        let calm = |host| world.oracle.is_calm(operated.host, host, before, before);
        matches!(&operated.op, Operation::ForceLeave { node } if node == name)
            && !host.is_some_and(calm)
    };
    world.operations.values().any(unheard)
}

fn has_left(world: &World, name: &NodeName) -> bool {
    let left = |operated: &Operated| matches!(operated.op, Operation::Leave);
    let mut operations = world.operations.values();
    operations.any(|operated| world.hosts[operated.host].name == *name && left(operated))
}

fn names(status: &Status) -> Vec<&NodeName> {
    status.members.iter().map(|member| &member.name).collect()
}

/// Operations that concern a host, oldest first.
fn operations(world: &World, host: usize) -> impl Iterator<Item = &Operated> {
    let name = &world.hosts[host].name;
    world.operations.values().filter(move |operated| {
        operated.host == host
            || matches!(&operated.op, Operation::ForceLeave { node } if node == name)
    })
}

/// When a request was over; never, if that is not known.
fn ended_at(operated: &Operated) -> u64 {
    operated.done.as_ref().map_or(u64::MAX, |(at, _)| *at)
}

fn joined(operated: &Operated, first: &NodeName) -> bool {
    let ok = operated
        .done
        .as_ref()
        .is_some_and(|(_, result)| result.is_ok());
    ok && matches!(&operated.op, Operation::Join { target } if target == first)
}

fn cluster_of(world: &World, host: usize) -> Option<ClusterId> {
    world.hosts[host].node().map(|node| node.status().cluster)
}

/// Nodes that joined the first one and were never told anything else are still together.
fn stayed(world: &World) -> Result<(), Violation> {
    // Who joined it after it had gone elsewhere is there, and not with those of before.
    let moved = operations(world, 0).map(|operated| operated.at).min();
    let moved = moved.unwrap_or(u64::MAX);
    let faithful = |host: &usize| {
        let only: Vec<&Operated> = operations(world, *host).collect();
        match *only {
            [] => *host == 0,
            [only] => *host != 0 && joined(only, &world.hosts[0].name) && ended_at(only) < moved,
            _ => false,
        }
    };
    let hosts: Vec<usize> = (0..world.hosts.len()).filter(faithful).collect();
    let clusters: BTreeSet<_> = hosts.iter().filter_map(|h| cluster_of(world, *h)).collect();
    if clusters.len() > 1 {
        return wrong(format!(
            "nodes {hosts:?} joined one cluster and are in {clusters:?}"
        ));
    }
    Ok(())
}

/// A node that left, and that nobody joined since, is alone.
fn left(world: &World) -> Result<(), Violation> {
    for host in 0..world.hosts.len() {
        // What was refused and tried again may have been asked for earlier.
        let Some(last) = operations(world, host).max_by_key(|operated| ended_at(operated)) else {
            continue;
        };
        let done = matches!(&last.done, Some((_, Ok(()))));
        let leaves = done && matches!(last.op, Operation::Leave);
        let name = &world.hosts[host].name;
        let joined_since = world.operations.values().any(|operated| {
            ended_at(operated) >= last.at
                && matches!(&operated.op, Operation::Join { target } if target == name)
        });
        let Some(node) = world.hosts[host].node() else {
            continue;
        };
        // By discovery a restarted node looks for the others again.
        let searches = world.options.discovery && world.oracle.life(host) != last.on;
        if leaves && !searches && !joined_since && node.status().members.len() > 1 {
            let status = node.status();
            return wrong(format!("{name} left and is with {:?}", names(&status)));
        }
    }
    Ok(())
}
