//! A node writes to no connection to another node before it has heard that the connection stands.
//!
//! There is nothing to write to until then. What is written all the same is lost without a word,
//! and whoever waits for it hangs up after a while: a history that shows it otherwise is rare.

use crate::violation::Violation;
use crate::world::World;

pub(super) fn step(world: &World) -> Result<(), Violation> {
    let Some((host, socket)) = world.early_writes.first() else {
        return Ok(());
    };
    let seen = format!("node {host} writes to {socket:?}, which it is still dialing");
    Err(Violation::new("links", seen))
}
