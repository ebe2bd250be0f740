//! Queues, windows and work have bounds: a session's queue its configured length, a client's window
//! its Receive Maximum (clients count that themselves), the network connections between two nodes a
//! handful, and no node asks for ticks without end.

use crate::violation::Violation;
use crate::world::World;

/// Connections between nodes that may be open for each node and shard: control both ways, data both
/// ways, each once dying and once new.
const WIRES_PER_SHARD: usize = 8;

pub(super) fn step(world: &World) -> Result<(), Violation> {
    world
        .faults
        .first()
        .map_or(Ok(()), |fault| Err(fault.clone()))
}

pub(super) fn audit(world: &World) -> Result<(), Violation> {
    let nodes = world.hosts.len();
    for host in &world.hosts {
        let Some(process) = &host.process else {
            continue;
        };
        let max = nodes * (usize::from(world.options.shards) + 1) * WIRES_PER_SHARD;
        if process.peers.len() > max {
            let seen = format!("node {} has {} node links", host.index, process.peers.len());
            return Err(Violation::new("bounds", seen));
        }
    }
    queues(world)
}

fn queues(world: &World) -> Result<(), Violation> {
    for host in &world.hosts {
        let Some(node) = host.node() else { continue };
        for shard in node.shards() {
            let counts = shard.counts();
            let max = counts.sessions * u64::from(world.options.mqueue_len_max);
            if counts.queued > max {
                let seen = format!(
                    "node {} queues {} messages for {} sessions, {max} allowed",
                    host.index, counts.queued, counts.sessions
                );
                return Err(Violation::new("bounds", seen));
            }
        }
    }
    Ok(())
}
