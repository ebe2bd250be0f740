//! A client identifier has one connection in a cluster, the newest; the others were closed.

use crate::violation::Violation;
use crate::world::World;

pub(super) fn settled(world: &World) -> Result<(), Violation> {
    for client in 0..world.clients.len() {
        let mut at = Vec::new();
        for host in &world.hosts {
            let Some(process) = &host.process else { continue };
            let up = process.clients.values().filter(|(of, up)| *of == client && *up);
            let cluster = process.node.status().cluster;
            at.extend(up.map(|_| (cluster, host.index)));
        }
        at.sort_unstable();
        if let Some(twice) = at.windows(2).find(|pair| pair[0].0 == pair[1].0) {
            let seen = format!(
                "client {client} is connected to nodes {} and {} of one cluster",
                twice[0].1, twice[1].1
            );
            return Err(Violation::new("channels", seen));
        }
    }
    Ok(())
}
