//! Load generator: drives brokers with raw sockets and pre-encoded packets, so that what is measured
//! is the broker and not the client.
//!
//! Several targets are measured in turn within each round, so that whatever else the machine does
//! falls on all of them alike; what counts is the ratio between them.

#![allow(clippy::print_stdout, reason = "the report of a command line tool")]

mod client;
mod one_to_one;
mod process;
mod report;

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, bail, ensure};

const USAGE: &str = "\
usage: dunlin-bench one-to-one --target NAME=ADDRESS[/PID] [--target ...]
                    [--qos 0|1] [--payload BYTES] [--seconds S] [--rounds N] [--json]
       dunlin-bench memory PID

one-to-one  one publisher, one subscriber, closed loop: thousand messages per second, and with PID
            the processor time the broker spends per message
memory      resident memory of a process, bytes";

/// One broker to measure.
#[derive(Clone, Debug)]
struct Target {
    name: String,
    address: SocketAddr,
    pid: Option<u32>,
}

/// What to do to each target.
#[derive(Clone, Debug)]
struct Plan {
    targets: Vec<Target>,
    qos: u8,
    payload_bytes: usize,
    duration: Duration,
    rounds: usize,
    json: bool,
}

fn main() -> anyhow::Result<()> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    match words.split_first() {
        Some((command, rest)) if command == "one-to-one" => {
            let plan = plan(rest)?;
            let results = one_to_one::run(&plan)?;
            report::print(&plan, &results);
            Ok(())
        }
        Some((command, [pid])) if command == "memory" => {
            println!(
                "{}",
                process::resident_bytes(pid.parse().context("PID is a number")?)?
            );
            Ok(())
        }
        _ => bail!("{USAGE}"),
    }
}

fn plan(words: &[String]) -> anyhow::Result<Plan> {
    let mut plan = Plan {
        targets: Vec::new(),
        qos: 0,
        payload_bytes: 64,
        duration: Duration::from_secs(3),
        rounds: 3,
        json: false,
    };
    let mut words = words.iter();
    while let Some(word) = words.next() {
        if word == "--json" {
            plan.json = true;
            continue;
        }
        let value = words
            .next()
            .with_context(|| format!("{word} needs a value\n{USAGE}"))?;
        match word.as_str() {
            "--target" => plan.targets.push(target(value)?),
            "--qos" => plan.qos = value.parse().context("--qos is 0 or 1")?,
            "--payload" => plan.payload_bytes = value.parse().context("--payload: bytes")?,
            "--seconds" => {
                plan.duration = Duration::from_secs_f64(value.parse().context("--seconds")?);
            }
            "--rounds" => plan.rounds = value.parse().context("--rounds: a number")?,
            _ => bail!("unknown option {word}\n{USAGE}"),
        }
    }
    ensure!(!plan.targets.is_empty(), "no --target\n{USAGE}");
    ensure!(plan.qos <= 1, "--qos is 0 or 1");
    ensure!(plan.rounds > 0, "--rounds is at least 1");
    Ok(plan)
}

fn target(word: &str) -> anyhow::Result<Target> {
    let (name, place) = word
        .split_once('=')
        .context("--target NAME=ADDRESS[/PID]")?;
    let (address, pid) = match place.split_once('/') {
        Some((address, pid)) => (address, Some(pid.parse().context("PID is a number")?)),
        None => (place, None),
    };
    let address = address
        .parse()
        .with_context(|| format!("{address} is not IP:PORT"))?;
    Ok(Target {
        name: name.to_owned(),
        address,
        pid,
    })
}
