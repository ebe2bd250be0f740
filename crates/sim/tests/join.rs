//! A join that is cut short anywhere leaves the old cluster state or the new one.

use dunlin_sim::invariant::join::kill_joiner;
use dunlin_sim::plant::Bug;

/// More batches than a join writes.
const BATCHES_MAX: u64 = 12;
/// More batches than are uncommitted at one moment.
const KEPT_MAX: usize = 4;

/// Every moment of a join: after so many batches, with so many uncommitted ones on the disk.
fn moments() -> impl Iterator<Item = (u64, usize)> {
    (1..=BATCHES_MAX).flat_map(|batches| (0..=KEPT_MAX).map(move |kept| (batches, kept)))
}

#[test]
fn a_joiner_killed_at_any_batch_has_its_old_state_or_its_new_one() {
    let mut reached = 0;
    for moment in moments() {
        match kill_joiner(1, moment, None) {
            Ok(was) => reached += usize::from(was),
            Err(violation) => panic!("killed at {moment:?}: {violation}"),
        }
    }
    assert!(reached > KEPT_MAX, "the join has steps to be killed at");
}

#[test]
fn a_switch_of_tables_that_is_written_by_half_is_found() {
    let found = moments().any(|moment| kill_joiner(1, moment, Some(Bug::TornSwap)).is_err());
    assert!(found);
}
