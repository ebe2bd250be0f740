//! With `cluster.autoheal = false` the sides of a split stay apart until an operator merges them:
//! two processes that had no way between them for longer than anybody is suspected do not count
//! each other as running, however free the way is now.

use dunlin_cluster::MemberState;

use crate::oracle::Life;
use crate::splits::MEET_MS;
use crate::violation::Violation;
use crate::world::World;

pub(super) fn audit(world: &World) -> Result<(), Violation> {
    if world.options.autoheal {
        return Ok(());
    }
    for sides in world.oracle.splits.sides() {
        let lives = |life: Life| world.oracle.life(life.0) == life;
        let (a, b) = (sides.a.0, sides.b.0);
        // Who joined or started just before it may not have met the other.
        let from = sides.unmet_since.saturating_sub(MEET_MS);
        let together = world.oracle.were_together(a, b, from, world.now);
        let had_met = world.oracle.born(a).max(world.oracle.born(b)) < from;
        if !lives(sides.a) || !lives(sides.b) || !together || !had_met {
            continue;
        }
        for (own, other) in [(a, b), (b, a)] {
            if sees_running(world, own, other) {
                let seen = format!(
                    "node {own} counts {other} as running, split off at {} ms and never merged",
                    sides.since
                );
                return Err(Violation::new("apart", seen));
            }
        }
    }
    Ok(())
}

fn sees_running(world: &World, own: usize, other: usize) -> bool {
    let name = &world.hosts[other].name;
    let members = world.hosts[own].node().map(|node| node.status().members);
    let mut members = members.into_iter().flatten();
    members.any(|member| member.name == *name && member.state == MemberState::Running)
}
