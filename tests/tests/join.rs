//! What a join does to the joiner, to the clusters on both sides, and to their clients; and what a
//! power cut in the middle of it does.

use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use dunlin_tests::node::{cluster, status_line};
use dunlin_tests::{Node, until_eq};

#[test]
fn l08_a_member_that_joins_another_cluster_leaves_its_old_one() -> Result<()> {
    let pair = cluster(2)?;
    let (stays, moves) = (&pair[0], &pair[1]);
    let other = Node::started()?;
    moves.join(&other)?;
    other.sees(&[&other, moves], &[], Duration::from_secs(2))?;
    moves.sees(&[&other, moves], &[], Duration::from_secs(2))?;
    stays
        .sees(&[stays], &[], Duration::from_secs(2))
        .context("no ghost stays behind")?;
    Ok(())
}

#[test]
fn l01_l02_clients_on_both_sides_stay_connected_and_served() -> Result<()> {
    let (target, joiner) = (Node::started()?, Node::started()?);
    let mut on_target = target.connect("on-target")?;
    let mut on_joiner = joiner.connect("on-joiner")?;
    on_target.subscribe("t/#", 1)?;
    on_joiner.subscribe("t/#", 1)?;
    joiner.join(&target)?;
    on_target
        .ping()
        .context("the target's client is still connected")?;
    on_joiner
        .ping()
        .context("the joiner's client is still connected")?;
    // Subscriptions made before the join have become routes.
    on_target.publish("t/x", "from target", 1, false)?;
    ensure!(
        on_joiner.receive_payload()? == "from target",
        "to the joiner"
    );
    ensure!(on_target.receive_payload()? == "from target", "and at home");
    on_joiner.publish("t/x", "from joiner", 1, false)?;
    ensure!(
        on_target.receive_payload()? == "from joiner",
        "to the target"
    );
    Ok(())
}

#[test]
fn l10_after_leave_users_are_kept_and_the_rest_is_gone() -> Result<()> {
    let pair = cluster(2)?;
    pair[0]
        .ctl(&["admins", "add", "alice", "alice-1234"])?
        .ok()?;
    pair[0].connect("p")?.publish("kept/x", "value", 1, true)?;
    pair[1].ctl(&["cluster", "leave"])?.ok()?;
    pair[1]
        .api()
        .login("alice", "alice-1234")
        .context("the password is not reset")?;
    pair[0].api().login("alice", "alice-1234")?;
    pair[0]
        .ctl(&["retainer", "topics"])?
        .ok()?
        .prints("kept/x\n")?;
    // What happens on one side stays there.
    pair[0].ctl(&["admins", "del", "alice"])?.ok()?;
    pair[1].api().login("alice", "alice-1234").map(drop)
}

#[test]
fn t16_force_leave_running_stopped_self_and_unknown() -> Result<()> {
    let nodes = cluster(3)?;
    let (a, b, c) = (&nodes[0], &nodes[1], &nodes[2]);
    let force = |node: &str| a.ctl(&["cluster", "force-leave", node]);
    force(&a.name)?.ok()?.prints("Ignore.\n")?;
    let unknown = force("nobody@127.0.0.1")?.exit(1)?;
    let line = "Failed to remove the node from cluster: node_not_in_cluster\n";
    ensure!(unknown.stdout.starts_with(line), "{unknown}");
    // Without a host, the node is on this one.
    let short = b
        .name
        .split('@')
        .next()
        .context("a name has a short part")?;
    let mut rest = [a.name.as_str(), c.name.as_str()];
    rest.sort_unstable();
    let text = "Remove the node from cluster successfully.\n";
    force(short)?
        .ok()?
        .prints(&format!("{text}{}\n", status_line(&rest, &[])))?;
    b.sees(&[b], &[], Duration::from_secs(2))
        .context("a running one learns it at once")?;
    c.kill9()?;
    let alone = status_line(&[a.name.as_str()], &[]);
    force(&c.name)?.ok()?.prints(&format!("{text}{alone}\n"))?;
    Ok(())
}

/// The moments of a join, by time since the command started.
const KILL_STEP: Duration = Duration::from_millis(6);
const KILLS: u32 = 24;

#[test]
fn l06_kill_9_at_any_moment_of_a_join_leaves_the_old_state_or_the_new() -> Result<()> {
    let (target, joiner) = (Node::started()?, Node::started()?);
    target.connect("p")?.publish("state", "new", 1, true)?;
    let mut outcomes = [0, 0];
    for round in 0..KILLS {
        joiner.connect("p")?.publish("state", "old", 1, true)?;
        let delay = KILL_STEP * round;
        let joined = killed_join(&joiner, &target, delay)
            .with_context(|| format!("killed {delay:?} after the start of the command"))?;
        outcomes[usize::from(joined)] += 1;
        if joined {
            target.sees(&[&target, &joiner], &[], Duration::from_secs(5))?;
            target
                .ctl(&["cluster", "force-leave", &joiner.name])?
                .ok()?;
            joiner.sees(&[&joiner], &[], Duration::from_secs(5))?;
        }
    }
    joiner
        .join(&target)
        .context("after all that, the join works")?;
    for node in [&target, &joiner] {
        node.sees(&[&target, &joiner], &[], Duration::from_secs(2))?;
    }
    eprintln!(
        "killed joins: {} ended in the old cluster, {} in the new",
        outcomes[0], outcomes[1]
    );
    Ok(())
}

/// One join, cut off after `delay`; whether the joiner is a member afterwards.
fn killed_join(joiner: &Node, target: &Node, delay: Duration) -> Result<bool> {
    let mut command = joiner.ctl_in_background(&["cluster", "join", &target.name])?;
    wait_exactly(delay);
    joiner.kill9()?;
    command.wait()?;
    joiner.start().context("it boots")?;
    let alone = status_line(&[joiner.name.as_str()], &[]);
    // The retained message says whose state this is, and membership must agree with it.
    let mut client = joiner.connect("reader")?;
    client.subscribe("state", 1)?;
    let state = client
        .receive_payload()
        .context("neither the old nor the new state")?;
    let expected = match state.as_str() {
        "old" => alone,
        "new" => {
            let mut both = [joiner.name.as_str(), target.name.as_str()];
            both.sort_unstable();
            status_line(&both, &[])
        }
        other => bail!("state {other:?}"),
    };
    let what = format!("membership beside the {state} state");
    until_eq(Duration::from_secs(5), &what, &expected, || joiner.status())?;
    Ok(state == "new")
}

/// Not a wait for something: the moment of the kill is what the test varies.
fn wait_exactly(delay: Duration) {
    let end = Instant::now() + delay;
    while let Some(left) = end.checked_duration_since(Instant::now()) {
        thread::park_timeout(left);
    }
}
