//! How a cluster's own traffic and its time to agree grow with its number of nodes.
//!
//! The same world as for seeds, with a script that is not drawn: all nodes join the first one at
//! the same moment, rest, a tenth of them dies and comes back, the cluster is cut in two halves and
//! heals. What is counted is what nodes write to each other, control and data links together. Must
//! not be read as a bench: virtual time knows delays, and no processor.

use std::fmt::Write;

use dunlin_broker::node::Node;
use dunlin_mqtt::Version;

use crate::client::Profile;
use crate::invariant::ALL;
use crate::network::Conditions;
use crate::plant::Plant;
use crate::trace::Record;
use crate::workload::{Faults, Op, Options, Step};
use crate::world::World;

/// When all nodes run and have their client, milliseconds.
const JOIN_MS: u64 = 3_000;
/// Longest time a phase may take to converge, milliseconds.
const CONVERGE_MAX_MS: u64 = 180_000;
/// How exactly times of convergence are told, milliseconds.
const LOOK_MS: u64 = 10;
/// How long a resting cluster is looked at, milliseconds.
const REST_MS: u64 = 10_000;
/// How long dead nodes stay dead and halves apart, milliseconds: longer than suspicion takes.
const APART_MS: u64 = 10_000;
/// One subscription for each node, of these.
const FILTERS: [&str; 4] = ["a/+", "b/#", "c", "r/+"];

/// What one phase took.
#[derive(Clone, Copy, Debug)]
pub struct Phase {
    /// Its name.
    pub name: &'static str,
    /// Until all nodes agreed, or how long it was looked at; `None`: they did not.
    pub ms: Option<u64>,
    /// Writes between nodes.
    pub writes: u64,
    /// Bytes in them.
    pub bytes: u64,
}

/// Runs one size; `None` in a phase ends it.
pub fn measure(nodes: usize) -> Vec<Phase> {
    let mut world = World::new(
        options(nodes),
        script(nodes),
        Plant::default(),
        Record::Nothing,
    );
    run(&mut world, JOIN_MS - 1);
    let mut phases = vec![phase(&mut world, "all join one", |_| {})];
    phases.push(rest(&mut world));
    phases.push(phase(&mut world, "a subscription", |world| {
        let (client, filter) = (nodes - 1, "b/x/0");
        world.operate(&Op::Subscribe {
            client,
            filter,
            qos: 1,
        });
    }));
    phases.push(phase(&mut world, "a tenth returns", |world| {
        let dead = 0..nodes.div_ceil(10);
        dead.clone().for_each(|host| world.operate(&Op::Kill(host)));
        run(world, world.now + APART_MS);
        dead.for_each(|host| world.operate(&Op::Start(host)));
    }));
    phases.push(phase(&mut world, "halves meet", |world| {
        halves(nodes).for_each(|(a, b)| world.operate(&Op::Cut(a, b)));
        run(world, world.now + APART_MS);
        halves(nodes).for_each(|(a, b)| world.operate(&Op::Heal(a, b)));
    }));
    phases
}

/// A table of sizes.
pub fn table(sizes: &[usize], mut each: impl FnMut(&str)) {
    each("| nodes | phase | converged | writes | bytes | per node |\n|---|---|---|---|---|---|\n");
    for &nodes in sizes {
        for Phase {
            name,
            ms,
            writes,
            bytes,
        } in measure(nodes)
        {
            let time = ms.map_or_else(|| "no".to_owned(), |ms| format!("{ms} ms"));
            let mut line = String::new();
            let own = bytes / nodes as u64;
            _ = writeln!(
                line,
                "| {nodes} | {name} | {time} | {writes} | {} | {} |",
                rounded(bytes),
                rounded(own)
            );
            each(&line);
        }
    }
}

fn rounded(bytes: u64) -> String {
    match bytes {
        0..10_000 => format!("{bytes} B"),
        10_000..10_000_000 => format!("{} kB", bytes / 1_000),
        _ => format!("{} MB", bytes / 1_000_000),
    }
}

fn options(nodes: usize) -> Options {
    let mut options = Options::draw(1);
    options.nodes = nodes;
    options.shards = 1;
    options.skew_ms = vec![0; nodes];
    options.faults = Faults::default();
    options.discovery = false;
    options.group_members = 0;
    options.commit_ms = 5;
    options.conditions = Conditions {
        delay_min_ms: 1,
        delay_max_ms: 1,
        give_up_ms: 15_000,
        split: 0.0,
    };
    options.clients = (0..nodes)
        .map(|n| Profile {
            clientid: format!("c{n}"),
            version: Version::V5,
            persistent: false,
            keepalive_s: 0,
            receive_maximum: 100,
            ack_delay_ms: 0,
        })
        .collect();
    options
}

fn script(nodes: usize) -> Vec<Step> {
    let step = |at, op| Step { at, op };
    let mut steps = Vec::new();
    for n in 0..nodes {
        let filter = FILTERS[n % FILTERS.len()];
        steps.push(step(0, Op::Start(n)));
        let (client, host) = (n, n);
        steps.push(step(
            1_000,
            Op::Connect {
                client,
                host,
                clean: true,
            },
        ));
        let qos = 1;
        steps.push(step(
            2_000,
            Op::Subscribe {
                client,
                filter,
                qos,
            },
        ));
    }
    let joins = (1..nodes).map(|host| step(JOIN_MS, Op::Join { host, target: 0 }));
    steps.extend(joins);
    steps
}

/// All ways between the nodes of even and those of odd number.
fn halves(nodes: usize) -> impl Iterator<Item = (usize, usize)> {
    let pairs = (0..nodes).flat_map(move |a| (0..nodes).map(move |b| (a, b)));
    pairs.filter(|(a, b)| a % 2 != b % 2)
}

fn run(world: &mut World, until: u64) {
    while world.step(until) {
        world.oracle.checked();
    }
}

/// Does something and waits until all agree; the time counts from when it was done.
fn phase(world: &mut World, name: &'static str, what: impl FnOnce(&mut World)) -> Phase {
    let before = world.between_nodes;
    what(world);
    let from = world.now;
    let mut ms = None;
    while ms.is_none() && world.now < from + CONVERGE_MAX_MS {
        run(world, world.now + LOOK_MS);
        ms = agrees(world).then_some(world.now - from);
    }
    let (writes, bytes) = since(world, before);
    Phase {
        name,
        ms,
        writes,
        bytes,
    }
}

fn rest(world: &mut World) -> Phase {
    let before = world.between_nodes;
    run(world, world.now + REST_MS);
    let (writes, bytes) = since(world, before);
    Phase {
        name: "10 s of rest",
        ms: Some(REST_MS),
        writes,
        bytes,
    }
}

fn since(world: &World, (writes, bytes): (u64, u64)) -> (u64, u64) {
    let now = world.between_nodes;
    (now.0 - writes, now.1 - bytes)
}

/// All nodes are members of one cluster, and everything that has to hold in the end holds.
fn agrees(world: &World) -> bool {
    let whole = world.hosts.iter().all(|host| {
        let status = host.node().map(Node::status);
        status.is_some_and(|status| status.members.len() == world.hosts.len())
    });
    whole
        && ALL
            .iter()
            .filter_map(|invariant| invariant.settled)
            .all(|settled| settled(world).is_ok())
}
