//! A retained message that was acknowledged is on the disk of the node that acknowledged it.
//!
//! While the disk fails the acknowledgement waits; when it has failed for longer than clients are
//! to stand still for it, the node says so (an alarm of the store) and goes on with what is in
//! memory and on the other nodes.

use dunlin_broker::retained::RETAINED;
use dunlin_storage::TableId;

use crate::disk::PATIENCE_MS;
use crate::violation::Violation;
use crate::world::World;

pub(super) fn step(world: &World) -> Result<(), Violation> {
    let table = TableId::fixed(RETAINED.name);
    for id in world.oracle.fresh_acks() {
        let Some(message) = world.oracle.message(*id) else {
            continue;
        };
        let Some(sent) = message.sends.last() else {
            continue;
        };
        // Elsewhere the second answer to a QoS 2 message says only that it was routed once.
        let moved = message.qos == 2 && message.sends.iter().any(|s| s.to.0 != sent.to.0);
        let (host, now) = (sent.to.0, world.now);
        let lives = world.oracle.life(host) == sent.to && world.hosts[host].node().is_some();
        let given_up = world.oracle.disk_failed(host, now, PATIENCE_MS);
        if moved || !message.retain || message.empty || !lives || given_up {
            continue;
        }
        let payload = id.payload();
        let is_it = |value: &[u8]| holds(value, payload.as_bytes());
        let found = world.hosts[host].node().and_then(|node| {
            let retained = node.shared().retained();
            retained.get(&message.topic, u64::MAX / 2)
        });
        let held = found.is_some_and(|found| is_it(found.payload()));
        let row = (&table, message.topic.as_bytes());
        if world.hosts[host].disk.can_lose(row, held, is_it) {
            let seen = format!(
                "node {host} acknowledged {payload} ({}) and can still lose it",
                message.topic
            );
            return Err(Violation::new("durable", seen));
        }
    }
    Ok(())
}

/// Whether a row has this payload in it, and not the longer number of another message.
fn holds(value: &[u8], payload: &[u8]) -> bool {
    let mut at = (0..value.len()).filter(|at| value[*at..].starts_with(payload));
    at.any(|at| {
        value
            .get(at + payload.len())
            .is_none_or(|next| !next.is_ascii_digit())
    })
}
