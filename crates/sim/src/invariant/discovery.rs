//! Nodes that look for each other form one cluster, whatever they were told meanwhile; who was told
//! to leave or was removed is not counted.

use std::collections::BTreeSet;

use dunlin_cluster::{ClusterId, Operation};

use crate::host::Host;
use crate::violation::Violation;
use crate::world::World;

pub(super) fn settled(world: &World) -> Result<(), Violation> {
    if !world.options.discovery {
        return Ok(());
    }
    let free = |host: &&Host| {
        world.operations.values().all(|operated| {
            let removed =
                matches!(&operated.op, Operation::ForceLeave { node } if *node == host.name);
            operated.host != host.index && !removed
        })
    };
    let hosts = world.hosts.iter().filter(free);
    let found: Vec<(usize, ClusterId)> = hosts
        .filter_map(|host| Some((host.index, host.node()?.status().cluster)))
        .collect();
    let clusters: BTreeSet<ClusterId> = found.iter().map(|(_, cluster)| *cluster).collect();
    if clusters.len() > 1 {
        let seen = format!("nodes that look for each other are in {found:?}");
        return Err(Violation::new("discovery", seen));
    }
    Ok(())
}
