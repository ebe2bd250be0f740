//! Load generator: drives brokers with raw sockets and pre-encoded packets, so that what is
//! measured is the broker and not the client.
//!
//! Several targets are measured in turn within each round, so that whatever else the machine does
//! falls on all of them alike; what counts is the ratio between them. A null broker, the same
//! system calls and copies with no broker logic, marks the ceiling. Nothing here may use a part of
//! the broker under test but the codec.

#![allow(clippy::print_stdout, reason = "the report of a command line tool")]

mod access;
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
mod stream;
mod target;
mod websocket;
mod wire;

use std::net::SocketAddr;
use std::process::ExitCode;

use anyhow::{Context, ensure};

use null::Null;
use progress::Progress;
use sample::Sample;
use scenario::Scenario;
use target::Target;

/// What `help` prints.
pub const USAGE: &str = "\
Measure MQTT brokers: this one, any other, or several in turn.

usage: dunlin bench SCENARIO [TARGET...] [OPTIONS]
       dunlin bench null [IP:PORT [CERT KEY]]
                                        run the ceiling: a forwarder without a broker's logic,
                                        with two files over TLS
       dunlin bench memory PID          resident memory of a process, bytes

  dunlin bench pairs                                 this machine's broker, port 1883
  dunlin bench fan-out mqtts://host:8883 --insecure  over TLS
  dunlin bench pairs --rate 5000 --qos 1             latencies at a fixed rate
  dunlin bench pairs 127.0.0.1:1883 127.0.0.1:1884 null      three in turn, with ratios
  dunlin bench pairs 127.0.0.1:1883 127.0.0.1:1884 --start 'mosquitto -p 1884'

A TARGET is [NAME=][SCHEME://]HOST[:PORT][/PATH][/PID], with mqtt, mqtts, ws or wss; the nodes of
a cluster are joined by +: publishers connect to the first, subscribers to the others. The target
null is the ceiling. Processor time and memory are read from the process that listens there, if it
is on this machine; PID names it if it is not found.

Scenarios, with their sizes:
  pub         --clients 1 that publish, nobody subscribes; --topic bench/all
  sub         --clients 1 that subscribe to --topic bench/#, and count
  conn        connect and disconnect, --clients 32 at once
  one-to-one  1 publisher, 1 subscriber
  pairs       publisher n to subscriber n; --clients 10 of each
  cross-node  pairs, publishers on one node, subscribers on the others
  fan-in      --publishers 100 to --subscribers 1
  fan-out     --publishers 1 to --subscribers 500
  shared      --publishers 100 to a shared group of --subscribers 10
  wildcard    pairs, while another client holds --count 10000 wildcard filters
  retained    --count 50000 retained messages to one subscriber of all, again and again
  takeover    a client comes anew (in a cluster: elsewhere) to --count 10 messages under way
  resume      --clients 100 sessions return to --count 500 queued messages each
  storm       --count 1000000 different filters, by --clients 100; memory of each
  routes      the same in a cluster; memory of each on the other node
  idle        --count 10000 connections with one subscription each; memory of each
  sessions    --count 10000 sessions without connection, one subscription each; memory of each

Options:
  --qos 0|1|2             quality of service (0)
  --mqtt 3.1.1|5          version of the protocol (3.1.1)
  --keepalive S           of all clients, longer than the run; none by default, which some
                          brokers refuse
  --payload BYTES         at least 20, for the stamp (64)
  --seconds S             for each measurement (3)
  --rounds N              each target in each round (3)
  --rate N                open loop: so many messages a second, all publishers together, and
                          latencies from the moment a message was due to its arrival, in pub to
                          its acknowledgement
  --window N              closed loop: so many messages of a publisher under way
  --clients, --publishers, --subscribers, --count N; --topic TOPIC
  --start COMMAND         starts the broker of the TARGET before it, and ends it afterwards
  --username, --password  of all clients
  --cacert FILE           whom to trust; --insecure trusts anybody
  --cert FILE --key FILE  of the clients
  --budget BYTES          fail if the memory of each is more (storm, routes, idle, sessions,
                          retained)
  --json                  everything, every round
  --compare               ratio columns for one target too

Ctrl-C ends a measurement early and reports what it has. A run that loses messages fails.";

/// What to do to each target.
#[derive(Debug)]
struct Plan {
    scenario: Scenario,
    targets: Vec<Target>,
    rounds: usize,
    json: bool,
    compare: bool,
    /// The most bytes that each unit may take.
    budget: Option<f64>,
}

/// Does what `words` say; `program` are the words that start this program again.
pub fn run(program: &[String], words: &[String]) -> ExitCode {
    match command(program, words) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bench: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn command(program: &[String], words: &[String]) -> anyhow::Result<()> {
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    match words.as_slice() {
        [] | ["--help" | "-h" | "help", ..] | [_, "--help" | "-h" | "help", ..] => {
            println!("{USAGE}");
            Ok(())
        }
        ["null"] => null("127.0.0.1:0", None),
        ["null", address] => null(address, None),
        ["null", address, cert, key] => null(address, Some((cert, key))),
        ["memory", pid] => {
            let pid = pid.parse().context("PID is a number")?;
            println!("{}", process::resident_bytes(pid)?);
            Ok(())
        }
        [scenario, rest @ ..] => {
            raise_file_limit();
            let plan = options::plan(program, scenario, rest)?;
            let results = measure(&plan)?;
            report::print(&plan, &results);
            report::judge(&plan, &results)
        }
    }
}

fn null(address: &str, tls: Option<(&str, &str)>) -> anyhow::Result<()> {
    let address: SocketAddr = address
        .parse()
        .with_context(|| format!("{address} is not IP:PORT"))?;
    let tls = tls.map(|(cert, key)| access::server_tls(cert.as_ref(), key.as_ref()));
    raise_file_limit();
    let null = Null::bind(address, tls.transpose()?).with_context(|| format!("{address}"))?;
    println!("{}", null.address()?);
    null.run().context("the null broker")
}

/// As many connections as this user may have. Fewer are no error until they are needed.
fn raise_file_limit() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit {
        current: limit.maximum,
        maximum: limit.maximum,
    };
    let _ = setrlimit(Resource::Nofile, raised);
}

/// What was found of one target.
#[derive(Debug, Default)]
struct Findings {
    /// In rounds.
    samples: Vec<Sample>,
    /// Why there are no more of them.
    failure: Option<anyhow::Error>,
}

/// Measures every target in every round. A target that fails is left out from then on, for the
/// others' figures are worth having. Ctrl-C ends it with what there is.
fn measure(plan: &Plan) -> anyhow::Result<Vec<Findings>> {
    let mut results: Vec<Findings> = plan.targets.iter().map(|_| Findings::default()).collect();
    let mut progress = Progress::new();
    progress.hear_ctrl_c().context("waiting for Ctrl-C")?;
    'rounds: for round in 0..plan.rounds {
        for (target, found) in plan.targets.iter().zip(&mut results) {
            if found.failure.is_some() {
                continue;
            }
            progress.begin(format!(
                "round {}/{}: {}",
                round + 1,
                plan.rounds,
                target.name
            ));
            let sample = plan.scenario.measure(target, &mut progress);
            progress.end();
            let sample = sample.with_context(|| target.name.clone());
            if progress.is_stopped() {
                let sample = sample.ok().filter(|sample| sample.units > 0);
                found.samples.extend(sample);
                break 'rounds;
            }
            match sample {
                Ok(sample) => found.samples.push(sample),
                Err(error) => found.failure = Some(error),
            }
        }
    }
    let has_figures = results.iter().any(|found| !found.samples.is_empty());
    if !has_figures && let Some(failure) = first_failure(&mut results) {
        return Err(failure);
    }
    ensure!(has_figures, "stopped before anything was measured");
    Ok(results)
}

fn first_failure(results: &mut [Findings]) -> Option<anyhow::Error> {
    results.iter_mut().find_map(|found| found.failure.take())
}
