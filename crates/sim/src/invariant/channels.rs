//! A client identifier has one connection in a cluster, the newest; the others were closed.

use crate::host::{Host, Peer};
use crate::violation::Violation;
use crate::world::World;

pub(super) fn settled(world: &World) -> Result<(), Violation> {
    for client in 0..world.clients.len() {
        let up = |host: &&Host| {
            let process = host.process.as_ref();
            process.is_some_and(|p| p.clients.values().any(|peer| is_up(peer, client)))
        };
        let hosts: Vec<&Host> = world.hosts.iter().filter(up).collect();
        for (at, host) in hosts.iter().enumerate() {
            let twice = connections(host, client) > 1;
            let other = hosts[at + 1..]
                .iter()
                .find(|other| are_members(host, other));
            if twice || other.is_some() {
                let nodes = (host.index, other.map_or(host.index, |other| other.index));
                let seen =
                    format!("client {client} is connected to nodes {nodes:?} of one cluster");
                return Err(Violation::new("channels", seen));
            }
        }
    }
    Ok(())
}

fn connections(host: &Host, client: usize) -> usize {
    let all = host
        .process
        .iter()
        .flat_map(|process| process.clients.values());
    all.filter(|peer| is_up(peer, client)).count()
}

fn is_up(peer: &Peer, client: usize) -> bool {
    peer.client == client && peer.up
}

/// Whether one node counts the other as a member.
fn are_members(host: &Host, other: &Host) -> bool {
    let members = host
        .node()
        .map(|node| node.status().members)
        .unwrap_or_default();
    members.iter().any(|member| member.name == other.name)
}
