//! A node always has its old or its new cluster state, never neither: whatever moment of a join it
//! dies at, and however much of what it wrote is on the disk.

use dunlin_broker::node::Node;
use dunlin_cluster::Operation;

use crate::plant::{Bug, Plant};
use crate::trace::Record;
use crate::violation::Violation;
use crate::workload::{Faults, Op, Options, Step};
use crate::world::{Operated, World};

/// When the joiner is told to join, milliseconds.
const JOIN_MS: u64 = 3_000;
/// When the join is over at the latest, milliseconds.
const OVER_MS: u64 = 10_000;
/// How long the restarted node gets to find its members, milliseconds.
const SETTLE_MS: u64 = 20_000;

pub(super) fn audit(world: &World) -> Result<(), Violation> {
    for host in &world.hosts {
        let Some(node) = host.node() else { continue };
        // Who was removed, or died while it left, may know that it is no member any more a moment
        // before its new cluster is on the disk.
        let leaves = |o: &Operated| o.host == host.index && matches!(o.op, Operation::Leave);
        let goes = world.operations.values().any(leaves);
        if goes || world.oracle.exiled_at(host.index).is_some() {
            continue;
        }
        let status = node.status();
        if status
            .members
            .iter()
            .all(|member| member.name != status.own)
        {
            let seen = format!("node {} is no member of its own cluster", host.index);
            return Err(Violation::new("join", seen));
        }
    }
    Ok(())
}

/// Two nodes with a retained message each; the second joins the first.
fn script() -> Vec<Step> {
    let step = |at, op| Step { at, op };
    let publish = |client, topic| Op::Publish {
        client,
        topic,
        qos: 1,
        retain: true,
        empty: false,
    };
    vec![
        step(0, Op::Start(0)),
        step(0, Op::Start(1)),
        step(
            200,
            Op::Connect {
                client: 0,
                host: 0,
                clean: true,
            },
        ),
        step(
            200,
            Op::Connect {
                client: 1,
                host: 1,
                clean: true,
            },
        ),
        step(1_000, publish(0, "r/0")),
        step(1_000, publish(1, "r/1")),
        step(JOIN_MS, Op::Join { host: 1, target: 0 }),
    ]
}

/// The joiner dies when it has written `batches` batches of the join, with `kept` of those not
/// committed on the disk. `Ok(false)`: the join wrote fewer.
pub fn kill_joiner(
    seed: u64,
    (batches, kept): (u64, usize),
    bug: Option<Bug>,
) -> Result<bool, Violation> {
    let mut options = Options::draw(seed);
    options.nodes = 2;
    options.skew_ms = vec![0; 2];
    options.faults = Faults::default();
    let mut world = World::new(
        options,
        script(),
        Plant::new(bug, usize::MAX),
        Record::Nothing,
    );
    while world.step(JOIN_MS - 1) {}
    let before = world.hosts[1].disk.written();
    let old = world.hosts[1].node().map(Node::status);
    while world.hosts[1].disk.written() < before + batches {
        if !world.step(OVER_MS) {
            return Ok(false);
        }
    }
    world.stop_keeping(1, kept);
    world.start(1);
    if let Some(fault) = world.faults.first() {
        return Err(fault.clone());
    }
    let Some(node) = world.hosts[1].node() else {
        return Ok(false);
    };
    let (status, old) = (node.status(), old.map(|status| status.cluster));
    let retained = |topic| node.shared().retained().get(topic, u64::MAX / 2).is_some();
    let holds = (retained("r/0"), retained("r/1"));
    let is_old = Some(status.cluster) == old && holds == (false, true);
    let is_new = Some(status.cluster) != old && holds == (true, false);
    if !(is_old || is_new && status.members.len() == 2) {
        let seen = format!(
            "killed after {batches} batches of a join, {kept} uncommitted kept, the node has \
             cluster {} (old {old:?}), {} members, retained {holds:?}",
            status.cluster,
            status.members.len()
        );
        return Err(Violation::new("join", seen));
    }
    if is_new && !archived(&world) {
        let seen = "the old cluster state was replaced before it was archived".to_owned();
        return Err(Violation::new("join", seen));
    }
    if is_new {
        let until = world.now + SETTLE_MS;
        while world.step(until) {}
        super::membership::settled(&world)?;
    }
    Ok(true)
}

/// Whether the joiner's own retained message is in an archive.
fn archived(world: &World) -> bool {
    let archives = world.hosts[1].disk.archives().iter();
    archives.flatten().any(|(table, rows)| {
        table == "retained" && rows.iter().any(|(key, _)| key.as_ref() == b"r/1")
    })
}
