//! Load generator: drives brokers with raw sockets and pre-encoded packets, so that what is
//! measured is the broker and not the client.
//!
//! Several targets are measured in turn within each round, so that whatever else the machine does
//! falls on all of them alike; what counts is the ratio between them. A null broker, the same
//! system calls and copies with no broker logic, marks the ceiling.

#![allow(clippy::print_stdout, reason = "the report of a command line tool")]

mod check;
mod client;
mod engine;
mod latency;
mod link;
mod null;
mod options;
mod process;
mod progress;
mod report;
mod sample;
mod scenario;
mod target;
mod wire;

use std::net::SocketAddr;

use anyhow::{Context, bail};

use null::Null;
use progress::Progress;
use sample::Sample;
use scenario::Scenario;
use target::Target;

const USAGE: &str = "\
usage: dunlin-bench SCENARIO --target NAME=IP:PORT[/PID][+IP:PORT[/PID]] [--target ...]
                    [--qos 0|1|2] [--payload BYTES] [--seconds S] [--rounds N]
                    [--window MESSAGES | --rate PER_SECOND] [--clients N]
                    [--publishers N] [--subscribers N] [--count N]
                    [--pid PID] [--compare] [--json]
       dunlin-bench null [IP:PORT]
       dunlin-bench memory PID

scenarios, with what --clients and --count mean:
  one-to-one  1 publisher, 1 subscriber
  pairs       publisher n to subscriber n; --clients 10 of each
  cross-node  pairs, publishers at a target's first address, subscribers at its last
  fan-in      --publishers 100 to --subscribers 1
  fan-out     --publishers 1 to --subscribers 500
  shared      --publishers 100 to a shared group of --subscribers 10
  wildcard    pairs, while another client holds --count 10000 wildcard filters
  replay      --count 50000 retained messages to one subscriber of all
  connects    connect and disconnect, --clients 32 at once
  storm       --count 1000000 different filters, by --clients 100
  idle        --count 10000 connections with one subscription each

--rate makes an open loop: a fixed rate, and latencies from the moment a message was due.
With a PID, processor time and memory of the broker are reported too.

null        the ceiling: forwards with no broker logic; prints its address
memory      resident memory of a process, bytes";

/// What to do to each target.
#[derive(Clone, Debug)]
struct Plan {
    scenario: Scenario,
    targets: Vec<Target>,
    rounds: usize,
    json: bool,
    compare: bool,
}

fn main() -> anyhow::Result<()> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let Some((command, rest)) = words.split_first() else {
        bail!("{USAGE}");
    };
    match (command.as_str(), rest) {
        ("--help" | "-h" | "help", _) => println!("{USAGE}"),
        ("null", []) => null("127.0.0.1:0")?,
        ("null", [address]) => null(address)?,
        ("memory", [pid]) => {
            let pid = pid.parse().context("PID is a number")?;
            println!("{}", process::resident_bytes(pid)?);
        }
        _ => {
            let plan = options::plan(command, rest)?;
            report::print(&plan, &run(&plan)?);
        }
    }
    Ok(())
}

fn null(address: &str) -> anyhow::Result<()> {
    let address: SocketAddr = address
        .parse()
        .with_context(|| format!("{address} is not IP:PORT"))?;
    let null = Null::bind(address).with_context(|| format!("{address}"))?;
    println!("{}", null.address()?);
    null.run().context("the null broker")
}

/// Measures every target in every round; the results are per target, in rounds.
fn run(plan: &Plan) -> anyhow::Result<Vec<Vec<Sample>>> {
    let mut results = vec![Vec::new(); plan.targets.len()];
    let mut progress = Progress::new();
    for round in 0..plan.rounds {
        for (target, samples) in plan.targets.iter().zip(&mut results) {
            progress.begin(format!(
                "round {}/{}: {}",
                round + 1,
                plan.rounds,
                target.name
            ));
            let sample = plan.scenario.measure(target, &mut progress);
            progress.end();
            samples.push(sample.with_context(|| target.name.clone())?);
        }
    }
    Ok(results)
}
