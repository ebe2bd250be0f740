//! Who publishes the wills of a dead node, when, and when nobody does.

use std::sync::Arc;

use dunlin_cluster::{Clock, Merged, NodeName};

use super::*;
use crate::settings::Settings;
use crate::wills::tests::{NOW, row};

/// The node that dies, and what the three survivors are called.
const DEAD: u8 = 5;
const OTHERS: [u8; 2] = [3, 7];

fn site(n: u8) -> SiteId {
    SiteId([n; 16])
}

fn peer(n: u8, boot: u64) -> Peer {
    Peer {
        site: site(n),
        boot: BootId(boot),
        name: NodeName::parse(&format!("n{n}@127.0.0.1")).expect("valid"),
    }
}

/// One survivor's view: its own site, what it knows, and the time.
struct View {
    shared: Shared,
    wills: PeerWills,
    now: Now,
}

impl View {
    /// A survivor that has the rows of clients `a` (no delay) and `b` (30 s).
    fn of(own: u8) -> Self {
        let table = || Arc::new(Merged::new(crate::retained::RETAINED));
        let clock = Arc::new(Clock::new());
        let tables = (table(), table());
        let shared = Shared::new(Settings::default(), 1, clock, tables, site(own), 1);
        for n in OTHERS.iter().filter(|n| **n != own) {
            shared.peer_up(&peer(*n, 1));
        }
        let node = shared.peer_up(&peer(DEAD, 1));
        let mut wills = PeerWills::default();
        wills.begins(NOW, site(DEAD), BootId(1));
        for (id, delay_s) in [("a", 0), ("b", 30)] {
            shared.registry().remote_put(id, node, Hlc(7));
            wills.row(site(DEAD), id, Some(&row(7, delay_s).encode()));
        }
        wills.ends(NOW, site(DEAD), |_| true);
        assert!(wills.up(NOW, &peer(DEAD, 1)).is_empty());
        Self {
            shared,
            wills,
            now: NOW,
        }
    }

    fn down(&mut self, reason: DownReason) {
        self.shared.peer_down(site(DEAD));
        self.wills.down(self.now, site(DEAD), reason);
    }

    fn up(&mut self, boot: u64) -> Vec<Spent> {
        self.shared.peer_up(&peer(DEAD, boot));
        self.wills.up(self.now, &peer(DEAD, boot))
    }

    /// Time passes; the clients whose wills are published meanwhile, with when.
    fn pass(&mut self, ms: u64) -> Vec<(u64, String)> {
        let until = self.now.mono_ms + ms;
        let mut published = Vec::new();
        while self.wills.next_tick() <= until {
            let step = self.wills.next_tick().saturating_sub(self.now.mono_ms);
            self.now.mono_ms += step;
            self.now.wall_ms += step;
            let due = self.wills.due(self.now, &self.shared);
            let since = self.now.mono_ms - NOW.mono_ms;
            published.extend(due.into_iter().map(|due| (since, due.spent.clientid)));
        }
        self.now.wall_ms += until - self.now.mono_ms;
        self.now.mono_ms = until;
        published
    }
}

fn names(published: Vec<(u64, String)>) -> Vec<String> {
    published.into_iter().map(|(_, id)| id).collect()
}

#[test]
fn the_lowest_survivor_publishes_each_will_after_its_delay() {
    let mut first = View::of(1);
    first.down(DownReason::Refused);
    let expected = [(0, "a".to_owned()), (30_000, "b".to_owned())];
    assert_eq!(first.pass(600_000), expected);
    assert_eq!(first.wills.next_tick(), u64::MAX, "nothing is left");
}

#[test]
fn the_next_one_publishes_only_what_nobody_says_was_published() {
    let mut first = View::of(1);
    let mut second = View::of(4);
    second.shared.peer_up(&peer(1, 1));
    second.shared.peer_down(site(3));
    for view in [&mut first, &mut second] {
        view.down(DownReason::Refused);
    }
    let told = first.wills.due(first.now, &first.shared);
    assert_eq!(told.len(), 1);
    assert_eq!(second.pass(1_000), []);
    second.wills.published(&told[0].spent);
    // The first one dies before it has published the other.
    let expected = [(32_000, "b".to_owned())];
    assert_eq!(second.pass(600_000), expected);
}

#[test]
fn what_was_published_is_not_published_again_when_the_node_runs_anew() {
    let mut first = View::of(1);
    let mut second = View::of(4);
    second.shared.peer_up(&peer(1, 1));
    for view in [&mut first, &mut second] {
        view.down(DownReason::Refused);
    }
    let told = first.wills.due(first.now, &first.shared);
    second.wills.published(&told[0].spent);
    for view in [&mut first, &mut second] {
        let node = view.shared.peer_index(site(DEAD)).expect("known");
        view.wills.begins(view.now, site(DEAD), BootId(2));
        view.wills.ends(view.now, site(DEAD), |_| false);
        for id in ["a", "b"] {
            view.shared.registry().remote_remove(id, node);
        }
        assert!(view.up(2).is_empty());
    }
    assert_eq!(names(first.pass(600_000)), ["b"]);
}

#[test]
fn a_client_that_came_and_went_elsewhere_leaves_nothing_for_its_nodes_restart() {
    let mut view = View::of(1);
    let elsewhere = view.shared.peer_up(&peer(3, 1));
    view.shared.registry().remote_put("a", elsewhere, Hlc(9));
    view.down(DownReason::Refused);
    assert_eq!(view.pass(1), []);
    view.shared.registry().remote_remove("a", elsewhere);
    view.wills.begins(view.now, site(DEAD), BootId(2));
    assert_eq!(names(view.pass(600_000)), ["b"]);
}

#[test]
fn each_survivor_has_its_own_turn() {
    for (own, rank) in [(1, 0), (4, 1), (9, 2)] {
        let mut view = View::of(own);
        view.down(DownReason::Refused);
        let first = view.pass(20_000);
        assert_eq!(first, [(rank * RANK_STEP_MS, "a".to_owned())], "of {own}");
    }
}

#[test]
fn a_silent_node_gets_a_minute_and_one_that_others_reach_for_ever() {
    let mut view = View::of(1);
    view.down(DownReason::Silent);
    assert_eq!(view.pass(SILENT_GRACE_MS - 1), []);
    assert_eq!(names(view.pass(1)), ["a"]);
    let mut view = View::of(1);
    view.down(DownReason::Unlinked);
    assert_eq!(view.pass(3_600_000), []);
}

#[test]
fn silence_that_turns_out_to_be_death_is_death() {
    let mut view = View::of(1);
    view.down(DownReason::Silent);
    assert_eq!(view.pass(10_000), []);
    // It runs again, as another process without these clients.
    view.wills.begins(view.now, site(DEAD), BootId(2));
    let node = view.shared.peer_index(site(DEAD)).expect("known");
    view.shared.registry().remove_node(node);
    view.wills.ends(view.now, site(DEAD), |_| false);
    view.up(2);
    let expected = [(10_000, "a".to_owned()), (40_000, "b".to_owned())];
    assert_eq!(view.pass(600_000), expected);
}

#[test]
fn a_link_that_returns_in_time_makes_nothing_of_it() {
    let mut view = View::of(1);
    view.down(DownReason::Silent);
    assert_eq!(view.pass(59_000), []);
    assert!(view.up(1).is_empty());
    assert_eq!(view.pass(3_600_000), []);
    // And when it dies later, they are its wills still.
    view.down(DownReason::Refused);
    assert_eq!(names(view.pass(600_000)), ["a", "b"]);
}

#[test]
fn a_node_that_was_only_cut_off_hears_what_was_published_for_it() {
    let mut view = View::of(1);
    view.down(DownReason::Silent);
    assert_eq!(names(view.pass(61_000)), ["a"]);
    let told = view.up(1);
    assert_eq!(told.len(), 1);
    assert_eq!((told[0].clientid.as_str(), told[0].stamp), ("a", 7));
    assert_eq!(view.pass(3_600_000), [], "the other one is its own again");
    assert!(view.up(1).is_empty(), "it is told once");
}

#[test]
fn a_client_that_has_connected_since_cancels_its_will() {
    for back_at in [DEAD, 7, 1] {
        let mut view = View::of(1);
        view.down(DownReason::Refused);
        assert_eq!(names(view.pass(1_000)), ["a"]);
        match view.shared.peer_index(site(back_at)) {
            Some(node) => view.shared.registry().remote_put("b", node, Hlc(8)),
            None => _ = view.shared.claim(view.now, "b", (0, 0)),
        }
        assert_eq!(view.pass(600_000), [], "back at {back_at}");
    }
}

#[test]
fn a_process_that_changed_its_cluster_still_has_its_clients() {
    let mut view = View::of(1);
    view.down(DownReason::Silent);
    let node = view.shared.peer_index(site(DEAD)).expect("known");
    view.wills.begins(view.now, site(DEAD), BootId(2));
    view.wills.row(site(DEAD), "b", Some(&row(7, 30).encode()));
    view.up(2);
    view.shared.registry().remote_remove("a", node);
    view.wills.ends(view.now, site(DEAD), |id| id == "b");
    assert_eq!(names(view.pass(600_000)), ["a"]);
}

#[test]
fn a_node_that_left_and_is_back_has_its_clients_before_it_has_said_so() {
    for up_first in [true, false] {
        let mut view = View::of(1);
        view.down(DownReason::Restarted);
        assert_eq!(view.pass(1_000), []);
        view.wills.begins(view.now, site(DEAD), BootId(2));
        if up_first {
            view.up(2);
        }
        assert_eq!(view.pass(1_000), [], "what it has is on its way");
        view.wills.row(site(DEAD), "a", Some(&row(7, 0).encode()));
        view.wills.row(site(DEAD), "b", Some(&row(7, 30).encode()));
        view.wills.ends(view.now, site(DEAD), |_| true);
        if !up_first {
            assert_eq!(view.pass(1_000), [], "nor is it up yet");
            view.up(2);
        }
        assert_eq!(view.pass(3_600_000), []);
    }
}

#[test]
fn a_process_that_restarted_is_dead_as_soon_as_the_next_has_said_so() {
    let mut view = View::of(1);
    view.down(DownReason::Restarted);
    assert_eq!(view.pass(1_000), []);
    let node = view.shared.peer_index(site(DEAD)).expect("known");
    view.wills.begins(view.now, site(DEAD), BootId(2));
    view.up(2);
    view.shared.registry().remove_node(node);
    view.wills.ends(view.now, site(DEAD), |_| false);
    let expected = [(1_000, "a".to_owned()), (30_000, "b".to_owned())];
    assert_eq!(view.pass(600_000), expected);
}

#[test]
fn a_next_process_that_says_nothing_is_not_awaited_for_long() {
    let mut view = View::of(1);
    view.down(DownReason::Restarted);
    let expected = [(HEIR_MAX_MS, "a".to_owned()), (30_000, "b".to_owned())];
    assert_eq!(view.pass(600_000), expected);
    // It is dead as well, before or after it began.
    for begins in [true, false] {
        let mut view = View::of(1);
        view.down(DownReason::Restarted);
        if begins {
            view.wills.begins(view.now, site(DEAD), BootId(2));
        }
        assert_eq!(view.pass(1_000), []);
        view.down(DownReason::Refused);
        let expected = [(1_000, "a".to_owned()), (30_000, "b".to_owned())];
        assert_eq!(view.pass(600_000), expected, "begins: {begins}");
    }
}

#[test]
fn a_node_that_leaves_takes_its_wills_along() {
    let mut view = View::of(1);
    view.shared.peer_gone(site(DEAD));
    view.wills.gone(site(DEAD));
    view.wills.down(view.now, site(DEAD), DownReason::Refused);
    assert_eq!(view.pass(600_000), []);
    // One that was removed because it is dead does not.
    let mut view = View::of(1);
    view.down(DownReason::Silent);
    view.shared
        .registry()
        .remove_node(view.shared.peer_index(site(DEAD)).expect("known"));
    view.shared.peer_gone(site(DEAD));
    view.wills.gone(site(DEAD));
    assert_eq!(names(view.pass(600_000)), ["a", "b"]);
}

#[test]
fn a_node_that_left_while_it_could_not_be_heard_has_its_clients_still() {
    for (reason, expected) in [
        (DownReason::Silent, &[][..]),
        // Its process was dead, and another one of it has left.
        (DownReason::Refused, &["a", "b"]),
    ] {
        let mut view = View::of(1);
        view.down(DownReason::Silent);
        view.down(reason);
        let node = view.shared.peer_index(site(DEAD)).expect("known");
        let taken_along = view.wills.left(site(DEAD));
        assert_eq!(taken_along.len(), 2 - expected.len());
        view.shared.registry().remove_node(node);
        view.shared.peer_gone(site(DEAD));
        view.wills.gone(site(DEAD));
        assert_eq!(names(view.pass(600_000)), expected);
    }
}

#[test]
fn what_the_node_took_back_is_not_published() {
    let mut view = View::of(1);
    view.wills.row(site(DEAD), "a", None);
    view.wills.begins(view.now, site(DEAD), BootId(1));
    view.wills.ends(view.now, site(DEAD), |id| id != "b");
    view.down(DownReason::Refused);
    assert_eq!(view.pass(600_000), []);
}

#[test]
fn a_delay_that_runs_goes_on() {
    let mut view = View::of(1);
    let mut waiting = row(7, 30);
    waiting.set_due(NOW.wall_ms + 4_000);
    view.wills.row(site(DEAD), "b", Some(&waiting.encode()));
    view.down(DownReason::Refused);
    let expected = [(0, "a".to_owned()), (4_000, "b".to_owned())];
    assert_eq!(view.pass(600_000), expected);
}

#[test]
fn many_wills_come_in_steps() {
    let mut view = View::of(1);
    for n in 0..STEP * 2 {
        let id = format!("c{n}");
        view.wills.row(site(DEAD), &id, Some(&row(7, 0).encode()));
    }
    view.down(DownReason::Refused);
    assert_eq!(view.wills.due(view.now, &view.shared).len(), STEP);
    assert!(view.wills.due(view.now, &view.shared).is_empty());
    assert_eq!(view.wills.next_tick(), view.now.mono_ms + STEP_PAUSE_MS);
    assert_eq!(view.pass(1_000).len(), STEP + 1);
}

#[test]
fn an_unreadable_row_is_passed_over() {
    let mut view = View::of(1);
    view.wills.row(site(DEAD), "a", Some(b"\xff garbage"));
    view.down(DownReason::Refused);
    assert_eq!(names(view.pass(600_000)), ["b"]);
}

/// A survivor that knows that another one is getting, or has, the session of `b`.
fn with_moved_session() -> (View, crate::router::NodeIndex) {
    let mut view = View::of(1);
    let heir = view.shared.peer_index(site(3)).expect("known");
    view.shared.registry().remote_put("b", heir, Hlc(7));
    view.down(DownReason::Refused);
    (view, heir)
}

#[test]
fn a_session_that_was_moved_as_its_node_died_has_taken_its_will_along() {
    let (mut view, _) = with_moved_session();
    assert_eq!(names(view.pass(600_000)), ["a"]);
    assert_eq!(view.wills.next_tick(), u64::MAX, "nothing is left");
}

#[test]
fn the_will_of_a_session_that_did_not_arrive_is_published() {
    let (mut view, heir) = with_moved_session();
    assert_eq!(names(view.pass(35_000)), ["a"]);
    view.shared.registry().remote_remove("b", heir);
    assert_eq!(view.pass(600_000), [(50_000, "b".to_owned())]);
}

#[test]
fn the_will_of_a_session_that_died_again_is_published() {
    let (mut view, _) = with_moved_session();
    assert_eq!(names(view.pass(35_000)), ["a"]);
    view.shared.peer_down(site(3));
    assert_eq!(view.pass(600_000), [(50_000, "b".to_owned())]);
}
