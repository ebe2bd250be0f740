//! The simulator bites: every planted bug is found, by the invariant that is there for it, and the
//! seed that finds it is clean without the bug.

use dunlin_sim::plant::Bug;
use dunlin_sim::{Order, run};

/// Seeds a bug may hide in at most.
const SEEDS: u64 = 1_000;

/// Finds the bug; returns the seed.
fn hunt(bug: Bug, invariant: &str) -> Option<u64> {
    (0..SEEDS).find(|&seed| {
        let report = run(&Order {
            seed,
            bug: Some(bug),
            ..Order::default()
        });
        report
            .violation
            .is_some_and(|violation| violation.invariant == invariant)
            && run(&Order {
                seed,
                ..Order::default()
            })
            .violation
            .is_none()
    })
}

macro_rules! planted {
    ($($name:ident: $bug:ident;)*) => { $(
        #[test]
        fn $name() {
            let (bug, _, invariant) = Bug::ALL
                .into_iter()
                .find(|(bug, _, _)| *bug == Bug::$bug)
                .expect("every bug is in the list");
            assert!(hunt(bug, invariant).is_some(), "{SEEDS} seeds do not find {bug:?}");
        }
    )* };
}

planted! {
    a_forwarded_message_that_is_acknowledged_and_lost: LoseForward;
    a_delivery_that_is_taken_for_acknowledged: LoseDelivery;
    retained_messages_that_never_reach_the_others: SwallowRows;
    a_qos_2_message_sent_again_after_its_end: TwiceQos2;
    messages_that_change_places: Reorder;
    retained_messages_confirmed_and_not_written: ForgetRetained;
    membership_confirmed_and_not_written: ForgetMembers;
    a_route_to_who_is_no_member: KeepRoute;
    two_receivers_in_a_group: TwoReceivers;
    a_connection_that_outlives_its_successor: KeepChannel;
    a_queue_without_bound: GrowQueue;
    tables_switched_by_half: TornSwap;
    an_acknowledgement_for_something_else: WrongPid;
    publishers_without_an_answer: Mute;
    look_ups_that_name_nobody: HideNodes;
    a_disk_that_fails_unnoticed: HideDisk;
    sides_that_merge_by_themselves: HealAnyway;
    a_will_that_is_not_seen: LoseWill;
    a_will_that_does_not_wait: HurryWill;
    a_goodbye_that_is_not_heard: DeafToGoodbye;
    wills_that_die_with_their_node: LoseLegacy;
    wills_published_by_whoever_has_them: TellNobody;
    writes_to_what_is_being_dialed: WriteEarly;
}

#[test]
fn every_bug_has_a_test_and_a_name() {
    assert_eq!(Bug::ALL.len(), 24, "add the new bug above");
    for (bug, name, _) in Bug::ALL {
        assert_eq!(Bug::from_name(name), Some(bug));
    }
}
