//! What a node sends to a client is valid MQTT of the client's version, and makes sense there.
//!
//! The clients decode strictly and follow the state of their connection; this reports what they
//! found.

use crate::violation::Violation;
use crate::world::World;

pub(super) fn step(world: &World) -> Result<(), Violation> {
    let fault = world
        .oracle
        .faults()
        .first()
        .or_else(|| world.faults.first());
    fault.map_or(Ok(()), |fault| Err(fault.clone()))
}
