//! The figures of `docs/performance.md` about clusters, measured from outside. Ignored unless asked
//! for: `scripts/measure-cluster`. Each prints rows of the table, and adds them as JSON to the file
//! that `DUNLIN_FIGURES` names.

use std::fs::OpenOptions;
use std::io::Write;
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, ensure};
use dunlin_tests::node::{cluster, together};
use dunlin_tests::{Client, Node, in_lab};
use rustix::process::Signal;
use serde_json::{Value, json};

use crate::field::{Field, Load, SEEN_DEAD, WHOLE, Watch};

/// How often short things are repeated.
const ROUNDS: usize = 10;

/// Messages of the latency figures.
const MESSAGES: usize = 2_000;

/// Retained messages and routes of the large cluster; `DUNLIN_JOIN_ROWS` sets another number of
/// messages.
const ROWS: usize = 1_000_000;
const ROUTES: usize = 100_000;

/// Where rows go beside the screen.
const FIGURES: &str = "DUNLIN_FIGURES";

/// A row with nothing to be held against.
fn row(what: &str, figure: &str) -> Result<()> {
    tell(what, figure, json!({}))
}

/// A row of times, least, middle and greatest, and what they may be.
fn times_row(what: &str, mut times: Vec<Duration>, goal: Duration) -> Result<()> {
    times.sort();
    let last = *times.last().context("no times")?;
    let middle = times[times.len() / 2];
    let figure = if times.len() == 1 {
        ms(last)
    } else {
        format!("{} / {} / {}", ms(times[0]), ms(middle), ms(last))
    };
    let judged = json!({
        "middle": ms_of(middle), "greatest": ms_of(last), "goal": ms_of(goal), "unit": "ms",
    });
    tell(what, &figure, judged)
}

/// A row of what should not have happened.
fn lost_row(what: &str, lost: usize, of: usize) -> Result<()> {
    let judged = json!({ "middle": lost, "greatest": lost, "goal": 0, "unit": "" });
    tell(what, &format!("{lost} of {of}"), judged)
}

fn tell(what: &str, figure: &str, mut judged: Value) -> Result<()> {
    eprintln!("| {what} | {figure} |");
    let Some(file) = std::env::var_os(FIGURES) else {
        return Ok(());
    };
    judged["name"] = json!(what);
    judged["figure"] = json!(figure);
    let mut file = OpenOptions::new().append(true).create(true).open(file)?;
    Ok(writeln!(file, "{judged}")?)
}

fn ms_of(time: Duration) -> f64 {
    time.as_secs_f64() * 1_000.0
}

fn ms(time: Duration) -> String {
    format!("{:.1} ms", ms_of(time))
}

fn percentile(sorted: &[Duration], per_mille: usize) -> Duration {
    sorted[(sorted.len() * per_mille / 1_000).min(sorted.len() - 1)]
}

#[test]
#[ignore = "a measurement"]
fn join_of_an_empty_node() -> Result<()> {
    let nodes = [Node::started()?, Node::started()?];
    let mut client = nodes[1].connect("stays")?;
    let mut times = Vec::new();
    for _ in 0..ROUNDS {
        let start = Instant::now();
        nodes[1].join(&nodes[0])?;
        times.push(start.elapsed());
        client.ping().context("the joiner's client stays")?;
        nodes[1].ctl(&["cluster", "leave"])?.ok()?;
    }
    times_row(
        "join of an empty node, command included; no client dropped",
        times,
        Duration::from_millis(200),
    )
}

#[test]
#[ignore = "a measurement"]
fn five_nodes_started_at_once() -> Result<()> {
    let nodes: Vec<Node> = (0..5).map(|_| Node::new()).collect::<Result<_>>()?;
    let seeds: Vec<_> = nodes.iter().map(|node| node.name.as_str()).collect();
    for node in &nodes {
        node.installation.configure(&format!(
            "cluster {{ discovery_strategy = static, static.seeds = \"{}\" }}\n",
            seeds.join(",")
        ))?;
    }
    let start = |node: &Node| Ok(node.command("emqx").arg("start").spawn()?);
    let began = Instant::now();
    let starts: Vec<_> = nodes.iter().map(start).collect::<Result<_>>()?;
    for (node, mut start) in nodes.iter().zip(starts) {
        ensure!(start.wait()?.success(), "{} starts", node.name);
        node.adopt()?;
    }
    let listening = Instant::now();
    let all: Vec<&Node> = nodes.iter().collect();
    for node in &nodes {
        node.sees(&all, &[], Duration::from_secs(20))?;
    }
    times_row(
        "five nodes started at once, from the first command to one cluster",
        vec![began.elapsed()],
        Duration::from_secs(2),
    )?;
    times_row(
        "the same, from the last listener",
        vec![listening.elapsed()],
        Duration::from_secs(2),
    )
}

#[test]
#[ignore = "a measurement"]
fn a_killed_member() -> Result<()> {
    let nodes = cluster(3)?;
    let (mut seen, mut whole) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS / 2 {
        let killed = Instant::now();
        nodes[2].kill9()?;
        nodes[0].sees(&[&nodes[0], &nodes[1]], &[&nodes[2]], WHOLE)?;
        seen.push(killed.elapsed());
        let started = Instant::now();
        nodes[2].start()?;
        together(&nodes)?;
        whole.push(started.elapsed());
    }
    times_row(
        "`kill -9` of one of three seen by another",
        seen,
        Duration::from_millis(500),
    )?;
    times_row(
        "restart of it, from the command to whole",
        whole,
        Duration::from_secs(1),
    )
}

#[test]
#[ignore = "a measurement"]
fn three_killed_together() -> Result<()> {
    let nodes = cluster(3)?;
    nodes[0].connect("p")?.publish("kept/x", "value", 1, true)?;
    let mut times = Vec::new();
    for order in [
        [0, 1, 2],
        [0, 2, 1],
        [1, 0, 2],
        [1, 2, 0],
        [2, 0, 1],
        [2, 1, 0],
    ] {
        for node in &nodes {
            node.kill9()?;
        }
        for index in order {
            let start = Instant::now();
            nodes[index].start()?;
            let mut client = nodes[index].connect("probe")?;
            client.subscribe("kept/#", 1)?;
            ensure!(client.receive_payload()? == "value");
            times.push(start.elapsed());
        }
        together(&nodes)?;
    }
    times_row(
        "three killed together, started in all six orders: each from its start to serving",
        times,
        Duration::from_millis(500),
    )
}

#[test]
#[ignore = "a measurement"]
fn a_silent_host_and_its_return() -> Result<()> {
    in_lab!(|lab| {
        let Some(field) = Field::joined(lab, 3, "")? else {
            return Ok(());
        };
        let (mut seen, mut whole, mut calls) = (Vec::new(), Vec::new(), Vec::new());
        for _ in 0..ROUNDS / 2 {
            let watch = Watch::start(field.api(0)?);
            let cut = Instant::now();
            field.split(&[0, 1], &[2])?;
            field.all_see(&[0, 1], &[2], SEEN_DEAD)?;
            seen.push(cut.elapsed());
            calls.push(watch.slowest()?);
            field.all_see(&[2], &[0, 1], SEEN_DEAD)?;
            field.open()?;
            let opened = Instant::now();
            field.whole(WHOLE)?;
            whole.push(opened.elapsed());
        }
        field.none_restarted()?;
        times_row("silent host seen by both others", seen, SILENT)?;
        times_row(CALLS, calls, Duration::from_secs(1))?;
        times_row(
            "whole after a cut of one of three ends; nobody restarted",
            whole,
            Duration::from_secs(2),
        )
    })
}

/// How long a silent or stopped host may look alive, and what is slow on the others meanwhile.
const SILENT: Duration = Duration::from_secs(5);
const CALLS: &str = "  slowest call of the REST API on a healthy node meanwhile";

#[test]
#[ignore = "a measurement"]
fn a_stopped_process() -> Result<()> {
    in_lab!(|lab| {
        let Some(field) = Field::joined(lab, 3, "")? else {
            return Ok(());
        };
        let (mut seen, mut calls) = (Vec::new(), Vec::new());
        for _ in 0..ROUNDS / 2 {
            let watch = Watch::start(field.api(0)?);
            let stopped = Instant::now();
            field.nodes[2].signal(Signal::STOP)?;
            field.all_see(&[0, 1], &[2], SEEN_DEAD)?;
            seen.push(stopped.elapsed());
            calls.push(watch.slowest()?);
            field.nodes[2].signal(Signal::CONT)?;
            field.whole(WHOLE)?;
        }
        field.none_restarted()?;
        times_row("stopped process seen by both others", seen, SILENT)?;
        times_row(CALLS, calls, Duration::from_secs(1))
    })
}

/// A link that is down so long, so often, is still the same link.
const DROP: Duration = Duration::from_millis(500);
const DROPS: usize = 5;
/// A node that hangs so long is still a member.
const HANG: Duration = Duration::from_secs(2);

#[test]
#[ignore = "a measurement"]
fn acknowledged_across_faults() -> Result<()> {
    in_lab!(|lab| {
        let Some(field) = Field::joined(lab, 2, "")? else {
            return Ok(());
        };
        let fault = |what: &str, act: &dyn Fn() -> Result<()>| {
            let load = Load::start(&field.nodes)?;
            thread::park_timeout(DROP);
            act()?;
            field.whole(WHOLE)?;
            let delivered = load.end()?;
            let pairs = [(0, 0), (0, 1), (1, 0), (1, 1)];
            let missing = pairs.map(|(from, to)| delivered.missing(from, to, |_| true).len());
            let acked: usize = delivered.acked.iter().map(Vec::len).sum();
            // Everybody subscribes to everybody.
            lost_row(what, missing.iter().sum(), acked * field.nodes.len())
        };
        fault(
            "QoS 1 acknowledged, lost while a link drops and returns",
            &|| {
                for _ in 0..DROPS {
                    field.cut(0, 1)?;
                    thread::park_timeout(DROP);
                    field.open()?;
                    thread::park_timeout(DROP);
                }
                Ok(())
            },
        )?;
        fault(
            "QoS 1 acknowledged, lost while a node hangs and returns",
            &|| {
                field.nodes[1].signal(Signal::STOP)?;
                thread::park_timeout(HANG);
                field.nodes[1].signal(Signal::CONT)
            },
        )?;
        field.none_restarted()
    })
}

#[test]
#[ignore = "a measurement"]
fn messages_across_nodes() -> Result<()> {
    let nodes = cluster(2)?;
    let mut publisher = nodes[0].connect("p")?;
    let mut reader = nodes[1].connect("s")?;
    reader.subscribe("x", 1)?;
    let mut times = Vec::new();
    for number in 0..MESSAGES {
        let start = Instant::now();
        publisher.send_publish("x", &number.to_string(), 1, false)?;
        reader.receive()?;
        times.push(start.elapsed());
        publisher.ping()?;
    }
    times.sort();
    times_row(
        "QoS 1 across nodes, one at a time, p50",
        vec![percentile(&times, 500)],
        Duration::from_micros(300),
    )?;
    times_row(
        "QoS 1 across nodes, one at a time, p99",
        vec![percentile(&times, 990)],
        Duration::from_millis(1),
    )?;
    let mut lost = 0;
    for number in 0..MESSAGES / 4 {
        let topic = format!("fresh/{number}");
        reader.subscribe(&topic, 0)?;
        publisher.send_publish(&topic, "first", 0, false)?;
        publisher.ping()?;
        // The answer of the other node comes after whatever was forwarded before.
        lost += usize::from(!arrives(&mut reader)?);
    }
    lost_row(
        "first PUBLISH after SUBACK on the other node, lost",
        lost,
        MESSAGES / 4,
    )
}

/// How long a first message is waited for.
const FIRST: Duration = Duration::from_millis(200);

/// Whether a message comes in time.
fn arrives(reader: &mut Client) -> Result<bool> {
    let end = Instant::now() + FIRST;
    while reader.pending() == 0 {
        if Instant::now() > end {
            return Ok(false);
        }
        reader.ping()?;
    }
    reader.receive().map(|_| true)
}

#[test]
#[ignore = "a measurement"]
fn takeover_between_nodes() -> Result<()> {
    let nodes = cluster(2)?;
    let mut publisher = nodes[0].connect("p")?;
    let mut client = Client::connect(nodes[0].tcp(), "moves", false)?;
    client.subscribe("q", 1)?;
    let mut times = Vec::new();
    for round in 1..=ROUNDS * 10 {
        drop(client);
        publisher.publish("q", &round.to_string(), 1, false)?;
        let start = Instant::now();
        client = Client::connect(nodes[round % 2].tcp(), "moves", false)?;
        ensure!(client.session_present, "the session moved");
        let payload = client.receive_payload()?;
        times.push(start.elapsed());
        ensure!(payload == round.to_string(), "{payload} in round {round}");
        client.ping()?;
    }
    times_row(
        "takeover by the other node, from CONNECT to the queued message",
        times,
        Duration::from_millis(1),
    )
}

#[test]
#[ignore = "a measurement"]
fn a_node_killed_under_load() -> Result<()> {
    let (mut gaps, mut lost, mut sum) = (Vec::new(), 0, 0);
    for _ in 0..ROUNDS / 2 {
        let nodes = cluster(2)?;
        let stop = Arc::new(AtomicBool::new(false));
        let seen = Arc::clone(&stop);
        let mut publisher = nodes[0].connect("p")?;
        let publishing = thread::spawn(move || -> Result<usize> {
            let mut count = 0;
            while !seen.load(Ordering::Relaxed) {
                publisher.publish("load", &count.to_string(), 1, false)?;
                count += 1;
            }
            Ok(count)
        });
        let mut reader = nodes[1].connect("s")?;
        reader.subscribe("load", 1)?;
        let mut last = 0;
        for _ in 0..500 {
            last = reader.receive_payload()?.parse::<usize>()?;
        }
        nodes[1].kill9()?;
        let mut at = Instant::now();
        while let Ok(message) = reader.receive() {
            (last, at) = (message.payload.parse()?, Instant::now());
        }
        reader = nodes[0].connect("s")?;
        reader.subscribe("load", 1)?;
        let first: usize = reader.receive_payload()?.parse()?;
        gaps.push(at.elapsed());
        lost += first - last - 1;
        stop.store(true, Ordering::Relaxed);
        let published = publishing.join().map_err(|_| anyhow!("it panicked"))??;
        ensure!(published > 500, "load went on: {published}");
        sum += published;
    }
    times_row(
        "node killed under QoS 1 load: gap for a client that reconnects to the other",
        gaps,
        Duration::from_millis(200),
    )?;
    row(
        "  published in these gaps, with no session to wait for the client",
        &format!("{lost} of {sum}"),
    )
}

/// The highest resident memory of a process, in MiB.
fn peak_mib(pid: u32) -> Result<u64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find(|line| line.starts_with("VmHWM:"));
    let kib = line.and_then(|line| line.split_whitespace().nth(1));
    Ok(kib.context("VmHWM")?.parse::<u64>()? / 1_024)
}

#[test]
#[ignore = "a measurement of minutes"]
fn join_of_an_empty_node_into_a_large_cluster() -> Result<()> {
    in_lab!(|lab| {
        let Some(field) = Field::joined(lab, 2, "")? else {
            return Ok(());
        };
        field.nodes[1].ctl(&["cluster", "leave"])?.ok()?;
        let rows = std::env::var("DUNLIN_JOIN_ROWS").ok();
        let rows = rows.and_then(|text| text.parse().ok()).unwrap_or(ROWS);
        let (a, b) = (&field.nodes[0], &field.nodes[1]);
        let mut loader = a.connect("loader")?;
        for number in 0..rows {
            let topic = format!("site/{}/device/{number}", number % 1_000);
            loader.send_publish(
                &topic,
                "64 bytes of a reading that a device has taken: 12.5 C ...",
                0,
                true,
            )?;
        }
        loader.publish("site/last", "x", 1, true)?;
        let filters: Vec<_> = (0..ROUTES).map(|n| format!("r/{n}")).collect();
        for some in filters.chunks(1_000) {
            loader.subscribe_all(some, 1)?;
        }
        let latency = watch_latency(a)?;
        let (before_a, before_b) = (peak_mib(a.pid()?)?, peak_mib(b.pid()?)?);
        let before = received(&field, 1)?;
        let start = Instant::now();
        let mut join = b.command("emqx_ctl");
        join.args(["cluster", "join", &a.name])
            .stdout(Stdio::piped());
        let output = join.stderr(Stdio::piped()).spawn()?.wait_with_output()?;
        let took = start.elapsed();
        ensure!(output.status.success(), "{output:?}");
        let bytes = received(&field, 1)? - before;
        let slowest = latency.slowest()?;
        row(
            &format!("join of an empty node into {rows} retained messages and {ROUTES} routes"),
            &format!("{:.1} s", took.as_secs_f64()),
        )?;
        row(
            "  bytes received by the joiner",
            &format!("{:.0} MB", bytes as f64 / 1e6),
        )?;
        row(
            "  peak memory of the joiner / of the member, before and after",
            &format!(
                "{before_b} to {} / {before_a} to {} MiB",
                peak_mib(b.pid()?)?,
                peak_mib(a.pid()?)?
            ),
        )?;
        times_row(
            "  slowest round trip of a client of the member meanwhile",
            vec![slowest],
            Duration::from_millis(50),
        )
    })
}

/// Bytes a host has received so far.
fn received(field: &Field, host: usize) -> Result<u64> {
    let mut command = std::process::Command::new("cat");
    command.arg("/sys/class/net/eth0/statistics/rx_bytes");
    let output = field.hosts[host].command_like(&command).output()?;
    let text = String::from_utf8_lossy(&output.stdout);
    text.trim().parse().with_context(|| format!("{output:?}"))
}

/// A publisher and a subscriber of one node that measure each other.
struct Latency {
    stop: Arc<AtomicBool>,
    thread: thread::JoinHandle<Result<Duration>>,
}

fn watch_latency(node: &Node) -> Result<Latency> {
    let mut publisher = node.connect("latency-p")?;
    let mut reader = node.connect("latency-s")?;
    reader.subscribe("latency", 1)?;
    let stop = Arc::new(AtomicBool::new(false));
    let seen = Arc::clone(&stop);
    let thread = thread::spawn(move || {
        let mut slowest = Duration::ZERO;
        while !seen.load(Ordering::Relaxed) {
            let start = Instant::now();
            publisher.publish("latency", "x", 1, false)?;
            reader.receive()?;
            slowest = slowest.max(start.elapsed());
            thread::park_timeout(Duration::from_millis(1));
        }
        Ok(slowest)
    });
    Ok(Latency { stop, thread })
}

impl Latency {
    fn slowest(self) -> Result<Duration> {
        self.stop.store(true, Ordering::Relaxed);
        let joined = self.thread.join();
        joined.map_err(|_| anyhow!("it panicked"))?
    }
}
