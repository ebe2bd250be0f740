//! One seed from beginning to end: the script with its faults, then healing, convergence in bounded
//! time, a last round of messages, and what can only be told at the end.

use std::fmt::Write;

use dunlin_broker::Shard;
use dunlin_broker::node::Node;

use crate::client::Client;
use crate::host::Host;
use crate::invariant::{self, ALL, AUDIT_EVENTS, Check, Invariant};
use crate::plant::{Bug, Plant};
use crate::trace::Record;
use crate::violation::Violation;
use crate::workload::{Op, Options, Step};
use crate::world::World;

/// How long the cluster has to converge once the faults are over, milliseconds: stalled connections
/// are given up after 15 s at most, and dialing backs off.
const CONVERGE_MS: u64 = 60_000;
/// How often convergence is looked at, milliseconds.
const LOOK_MS: u64 = 250;
/// How long convergence has to hold before it counts, milliseconds.
const HOLD_MS: u64 = 1_000;
/// How long the last round may take, milliseconds.
const ROUND_MS: u64 = 20_000;
/// How long after it everything has to be quiet, milliseconds: queues behind slow clients drain.
const DRAIN_MS: u64 = 120_000;
/// How long nobody may have anything to do before the round is over, milliseconds.
const IDLE_MS: u64 = 2_000;
/// How long the same if a session without a client holds messages, milliseconds: it ends 15 s after
/// its node has heard of the newer one.
const SUPERSEDED_MS: u64 = 40_000;
/// How often that is looked at, milliseconds; more often than any acknowledgement takes.
const IDLE_LOOK_MS: u64 = 50;
/// How long the sides of a split are watched that do not merge by themselves, milliseconds.
const APART_MS: u64 = 6_000;
/// Topics of the last round.
const ROUND_TOPICS: [&str; 5] = ["a/0", "b/x/1", "c", "s/0", "s/1"];

/// How a run is to be done.
#[derive(Clone, Debug, Default)]
pub struct Order {
    /// The seed.
    pub seed: u64,
    /// Another script than the seed's own.
    pub script: Option<Vec<Step>>,
    /// A bug to plant.
    pub bug: Option<Bug>,
    /// What becomes of lines.
    pub record: Record,
}

/// What came of a run.
#[derive(Debug)]
pub struct Report {
    /// What the seed stands for.
    pub options: Options,
    /// What was done.
    pub script: Vec<Step>,
    /// Hash over everything that happened.
    pub hash: u64,
    /// Events.
    pub events: u64,
    /// Virtual time at the end, milliseconds.
    pub virtual_ms: u64,
    /// How much of what is rare was put to the test.
    pub tally: Tally,
    /// The broken promise.
    pub violation: Option<Violation>,
    /// Lines, if recorded.
    pub lines: Vec<String>,
}

/// How much of what is rare was put to the test.
#[derive(Clone, Copy, Debug, Default)]
pub struct Tally {
    /// Wills left by clients.
    pub wills: usize,
    /// Wills and subscribers they had to reach.
    pub owed: usize,
    /// Those of clients whose node was dead.
    pub owed_by_others: usize,
}

impl Tally {
    fn of(world: &World) -> Self {
        let owed = invariant::wills::owed(world);
        Self {
            wills: world.oracle.wills.all().count(),
            owed: owed.len(),
            owed_by_others: owed.iter().filter(|owed| owed.dead).count(),
        }
    }

    /// Adds those of another run.
    pub fn add(&mut self, other: Self) {
        self.wills += other.wills;
        self.owed += other.owed;
        self.owed_by_others += other.owed_by_others;
    }
}

/// Runs a seed.
pub fn run(order: &Order) -> Report {
    let options = Options::draw(order.seed);
    let script = order.script.clone().unwrap_or_else(|| options.script());
    let plant = Plant::new(order.bug, options.ordinary());
    let mut world = World::new(options.clone(), script.clone(), plant, order.record);
    let violation = phases(&mut world).err();
    Report {
        options,
        script,
        hash: world.trace.hash(),
        events: world.trace.events(),
        virtual_ms: world.now,
        tally: Tally::of(&world),
        violation,
        lines: world.trace.into_lines(),
    }
}

fn phases(world: &mut World) -> Result<(), Violation> {
    let until = world.options.script_ms;
    play(world, until)?;
    world.heal();
    if !world.options.autoheal {
        play(world, world.now + APART_MS)?;
        world.merge();
    }
    converge(world)?;
    last_round(world)?;
    converge(world)?;
    each(world, |invariant| invariant.end)
}

fn each(world: &World, of: impl Fn(&Invariant) -> Option<Check>) -> Result<(), Violation> {
    ALL.iter().filter_map(of).try_for_each(|check| check(world))
}

/// Runs events until a time, with the checks of every step.
fn play(world: &mut World, until: u64) -> Result<(), Violation> {
    while world.step(until) {
        each(world, |invariant| invariant.step)?;
        world.oracle.checked();
        if world.steps().is_multiple_of(AUDIT_EVENTS) {
            world.meddle();
            each(world, |invariant| invariant.audit)?;
        }
    }
    Ok(())
}

/// Lets time pass until everything that has to hold in the end holds for a while.
fn converge(world: &mut World) -> Result<(), Violation> {
    let deadline = world.now + CONVERGE_MS;
    let mut held_since = None;
    loop {
        let state = each(world, |invariant| invariant.settled).and_then(|()| everybody_up(world));
        match state {
            Ok(()) if held_since.is_some_and(|since| world.now >= since + HOLD_MS) => return Ok(()),
            Ok(()) => _ = held_since.get_or_insert(world.now),
            Err(violation) if world.now >= deadline => {
                let seen = format!("{CONVERGE_MS} ms after the faults: {}", violation.seen);
                return Err(Violation { seen, ..violation });
            }
            Err(_) => held_since = None,
        }
        play(world, world.now + LOOK_MS)?;
    }
}

fn everybody_up(world: &World) -> Result<(), Violation> {
    // One whose session was another than it thought may have to wait until that expires.
    let down = |client: &&Client| !client.is_up() && !world.oracle.was_split(client.index);
    match world.clients.iter().find(down) {
        None => Ok(()),
        Some(client) => {
            let seen = format!("client {} cannot connect", client.index);
            Err(Violation::new("liveness", seen))
        }
    }
}

fn last_round(world: &mut World) -> Result<(), Violation> {
    for client in 0..world.clients.len() {
        for topic in ROUND_TOPICS {
            let qos = 1 + (client % 2) as u8;
            world.operate(&Op::Publish {
                client,
                topic,
                qos,
                retain: false,
                empty: false,
            });
        }
    }
    let started = world.now;
    play(world, started + ROUND_MS / 4)?;
    // Between two messages a slow client is idle for a moment as well.
    let mut idle_since = None;
    loop {
        let busy = |client: &&Client| !client.is_idle() && !world.oracle.was_split(client.index);
        match world.clients.iter().find(busy) {
            None if idle_since.is_some_and(|since| world.now >= since + idle_ms(world)) => {
                return Ok(());
            }
            None => _ = idle_since.get_or_insert(world.now),
            Some(busy) if world.now > started + DRAIN_MS => {
                let seen = format!("client {} waits for answers: {busy:?}", busy.index);
                return Err(Violation::new("liveness", seen));
            }
            Some(_) => idle_since = None,
        }
        play(world, world.now + IDLE_LOOK_MS)?;
    }
}

/// A session that was superseded in a split keeps what it was picked for until it ends.
fn idle_ms(world: &World) -> u64 {
    let nodes = world.hosts.iter().filter_map(Host::node);
    let mut counts = nodes.flat_map(Node::shards).map(Shard::counts);
    if counts.all(|counts| counts.queued + counts.inflight == 0) {
        IDLE_MS
    } else {
        SUPERSEDED_MS
    }
}

impl Report {
    /// The report for people.
    pub fn describe(&self, lines_max: usize) -> String {
        let mut out = String::new();
        let Options {
            seed,
            nodes,
            shards,
            clients,
            faults,
            conditions,
            ..
        } = &self.options;
        _ = writeln!(
            out,
            "seed {seed}: {nodes} nodes with {shards} shards, {} clients, {conditions:?}, skew \
             {:?} ms, {faults:?}",
            clients.len(),
            self.options.skew_ms
        );
        let from = self.lines.len().saturating_sub(lines_max);
        for line in &self.lines[from..] {
            _ = writeln!(out, "{line}");
        }
        match &self.violation {
            None => _ = writeln!(out, "seed {seed} holds; trace {:016x}", self.hash),
            Some(violation) => {
                _ = writeln!(out, "seed {seed} breaks {violation}");
                _ = writeln!(out, "replay: dunlin-sim --seed {seed} --verbose");
            }
        }
        out
    }
}

/// Cuts a failing script down while it breaks the same invariant; the result is short, not least.
pub fn shrink(order: &Order, invariant: &str, mut script: Vec<Step>) -> Vec<Step> {
    let mut chunk = script.len().div_ceil(2);
    while chunk > 0 {
        let mut at = 0;
        while at < script.len() {
            let mut shorter = script.clone();
            shorter.drain(at..(at + chunk).min(shorter.len()));
            let attempt = Order {
                script: Some(shorter.clone()),
                ..order.clone()
            };
            let found = run(&attempt).violation;
            if found.is_some_and(|violation| violation.invariant == invariant) {
                script = shorter;
            } else {
                at += chunk;
            }
        }
        chunk /= 2;
    }
    script
}
