//! The regression gate: instructions of fixed work on the message path, compared with those
//! recorded in the repository.
//!
//! Only instructions of our own executable count: those of the C library differ between machines,
//! so of it only the calls to its allocator are counted. What the compiler makes of the code
//! differs between compilers: with another one than the record's nothing is compared, and that is
//! said aloud.

use std::collections::BTreeMap;
use std::env;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::Instant;

use anyhow::{Context, bail, ensure};
use serde_json::{Value, json};

/// More than this above the record fails.
const WORSE: f64 = 1.03;
/// Less than this is worth a new record, or later changes may eat up what was won.
const BETTER: f64 = 0.97;
/// Functions with a smaller share than this are left out of the record.
const SHARE_MIN: f64 = 0.005;
/// Functions named for one piece of work that failed.
const GROWN_MAX: usize = 6;
const RECORD: &str = "crates/gate/record.json";
const RECORD_AGAIN: &str = "cargo xtask gate --record";
/// The function of `dunlin-gate` inside which is counted.
const MEASURED: &str = "*dunlin_gate::measured*";
const ALLOCATOR: [&str; 5] = ["malloc", "calloc", "realloc", "free", "posix_memalign"];

/// What one piece of work costs.
#[derive(Debug, Default, PartialEq)]
struct Cost {
    instructions: u64,
    /// Calls to the allocator, frees included.
    allocator_calls: u64,
    /// Instructions of each function itself, without those it calls.
    functions: BTreeMap<String, u64>,
}

type Costs = BTreeMap<String, Cost>;

/// Counts, and compares with the record.
pub(crate) fn check(root: &Path) -> anyhow::Result<()> {
    let compiler = compiler()?;
    let text = fs::read_to_string(root.join(RECORD))
        .with_context(|| format!("{RECORD} is missing. Make it: {RECORD_AGAIN}"))?;
    let record: Value = serde_json::from_str(&text).with_context(|| RECORD)?;
    if record["compiler"] != compiler.as_str() {
        return not_compared(&format!(
            "{RECORD} was made by {}, this is {compiler}. On an unchanged main: {RECORD_AGAIN}",
            record["compiler"]
        ));
    }
    if !has_valgrind() {
        return not_compared("valgrind is missing. Debian's package valgrind has it");
    }
    let costs = count(root)?;
    let failures = compare(&read(&record["work"])?, &costs);
    ensure!(
        failures == 0,
        "{failures} pieces of work cost more than {:.0} % above their record.\n\
         If that is the price of something worth it, record it, and say why in the commit: \
         {RECORD_AGAIN}",
        (WORSE - 1.0) * 100.0
    );
    Ok(())
}

/// Counts, and makes that the record.
pub(crate) fn record(root: &Path) -> anyhow::Result<()> {
    ensure!(
        has_valgrind(),
        "valgrind is missing. On Debian: apt-get install valgrind"
    );
    let costs = count(root)?;
    if let Ok(text) = fs::read_to_string(root.join(RECORD)) {
        let before: Value = serde_json::from_str(&text).with_context(|| RECORD)?;
        compare(&read(&before["work"])?, &costs);
    }
    let work: serde_json::Map<String, Value> = costs
        .iter()
        .map(|(name, cost)| (name.clone(), cost_json(cost)))
        .collect();
    let record = json!({ "compiler": compiler()?, "work": work });
    fs::write(root.join(RECORD), format!("{record:#}\n")).with_context(|| RECORD)?;
    println!("{RECORD} is written; commit it.");
    Ok(())
}

/// Says on standard error, and where `make test` collects such things, that nothing was compared.
fn not_compared(why: &str) -> anyhow::Result<()> {
    let line = format!("NOT TESTED: instruction counts were not compared: {why}");
    eprintln!("{line}");
    if let Some(log) = env::var_os("DUNLIN_NOT_TESTED_LOG") {
        let mut file = fs::File::options().create(true).append(true).open(log)?;
        writeln!(file, "{line}")?;
    }
    Ok(())
}

fn has_valgrind() -> bool {
    let version = Command::new("valgrind").arg("--version").output();
    version.is_ok_and(|output| output.status.success())
}

/// Version and target of the compiler: what decides which instructions there are.
fn compiler() -> anyhow::Result<String> {
    let output = Command::new("rustc").arg("-vV").output().context("rustc")?;
    let text = String::from_utf8_lossy(&output.stdout);
    let line = |key: &str| text.lines().find_map(|line| line.strip_prefix(key));
    let (Some(version), Some(target)) = (line("rustc "), line("host: ")) else {
        bail!("rustc -vV does not say what it is: {text}");
    };
    Ok(format!("rustc {version}, {target}"))
}

/// Builds the work and counts each piece of it, two at a time.
fn count(root: &Path) -> anyhow::Result<Costs> {
    let started = Instant::now();
    let status = Command::new(env!("CARGO"))
        .args(["build", "--release", "--quiet", "-p", "dunlin-gate"])
        .current_dir(root)
        .status()?;
    ensure!(status.success(), "dunlin-gate does not build");
    let target = env::var_os("CARGO_TARGET_DIR").map_or_else(|| root.join("target"), PathBuf::from);
    let program = root.join(target).join("release/dunlin-gate");
    let listed = Command::new(&program).output().context("dunlin-gate")?;
    let listed = String::from_utf8(listed.stdout)?;
    let names: Vec<&str> = listed.lines().collect();
    println!("built in {:.0} s", started.elapsed().as_secs_f64());
    let (even, odd): (Vec<_>, Vec<_>) = names.iter().enumerate().partition(|(at, _)| at % 2 == 0);
    let count_all = |half: Vec<(usize, &&str)>| -> anyhow::Result<Vec<(String, Cost)>> {
        half.into_iter()
            .map(|(_, &name)| Ok((name.to_owned(), count_one(&program, name)?)))
            .collect()
    };
    let halves = thread::scope(|scope| {
        let other = scope.spawn(|| count_all(odd));
        let own = count_all(even);
        [own, other.join().expect("it does not panic")]
    });
    let mut costs = Costs::new();
    for half in halves {
        costs.extend(half?);
    }
    println!("counted after {:.0} s", started.elapsed().as_secs_f64());
    Ok(costs)
}

fn count_one(program: &Path, name: &str) -> anyhow::Result<Cost> {
    let out = env::temp_dir().join(format!("dunlin-gate-{}-{name}", std::process::id()));
    let output = Command::new("valgrind")
        .args([
            "--tool=callgrind",
            "--collect-atstart=no",
            "--compress-strings=no",
        ])
        .arg(format!("--toggle-collect={MEASURED}"))
        .arg(format!("--callgrind-out-file={}", out.display()))
        .arg(program)
        .arg(name)
        // The environment lies on the stack: another one would move what is aligned there.
        .env_clear()
        .output()
        .context("valgrind")?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(
        output.status.success(),
        "valgrind dunlin-gate {name}: {said}"
    );
    let text = fs::read_to_string(&out).with_context(|| out.display().to_string())?;
    fs::remove_file(&out)?;
    let cost = parse(&text, &program.display().to_string());
    ensure!(
        cost.instructions > 0,
        "{name}: nothing was counted. Is {MEASURED} gone?"
    );
    Ok(cost)
}

/// Reads what callgrind wrote: under `ob=` and `fn=` lines of costs; a line behind `calls=` is the
/// cost of a whole call, which is not the caller's own.
fn parse(text: &str, program: &str) -> Cost {
    let mut cost = Cost::default();
    let (mut is_ours, mut function) = (false, String::new());
    let (mut called, mut is_call) = (String::new(), false);
    for line in text.lines() {
        if let Some(object) = line.strip_prefix("ob=") {
            is_ours = object == program;
        } else if let Some(name) = line.strip_prefix("fn=") {
            function = plain(name);
        } else if let Some(name) = line.strip_prefix("cfn=") {
            called = plain(name);
        } else if let Some(calls) = line.strip_prefix("calls=") {
            is_call = true;
            if is_ours && ALLOCATOR.contains(&called.as_str()) {
                let calls = calls.split(' ').next().and_then(|count| count.parse().ok());
                cost.allocator_calls += calls.unwrap_or(0_u64);
            }
        } else if line.starts_with(|first: char| first.is_ascii_digit() || "+-*".contains(first)) {
            let own = line.split(' ').nth(1).and_then(|count| count.parse().ok());
            if is_ours && !is_call {
                let own = own.unwrap_or(0_u64);
                cost.instructions += own;
                *cost.functions.entry(function.clone()).or_default() += own;
            }
            is_call = false;
        }
    }
    let least = (cost.instructions as f64 * SHARE_MIN) as u64;
    cost.functions.retain(|_, &mut own| own > least);
    cost
}

/// A function's name without what changes from build to build: the hash at its end, and the
/// `'2` of a recursion.
fn plain(name: &str) -> String {
    let name = name.split('\'').next().unwrap_or(name);
    match name.rsplit_once("::h") {
        Some((rest, hash)) if hash.len() == 16 => rest.to_owned(),
        _ => name.to_owned(),
    }
}

/// Prints both, piece by piece; answers how many cost too much.
fn compare(record: &Costs, costs: &Costs) -> usize {
    let mut failures = 0;
    println!(
        "{:20} {:>12} {:>12} {:>8}",
        "work", "recorded", "counted", "change"
    );
    for (name, cost) in costs {
        let Some(before) = record.get(name) else {
            println!(
                "{name:20} {:>12} {:>12} {:>8}",
                "-", cost.instructions, "new"
            );
            continue;
        };
        let ratio = cost.instructions as f64 / before.instructions as f64;
        let calls = (before.allocator_calls, cost.allocator_calls);
        let allocates_more = calls.1 as f64 > calls.0 as f64 * WORSE;
        println!(
            "{name:20} {:>12} {:>12} {:>+7.1}%{}",
            before.instructions,
            cost.instructions,
            (ratio - 1.0) * 100.0,
            if ratio < BETTER { "  record it" } else { "" },
        );
        if allocates_more {
            println!("    calls of the allocator: {} -> {}", calls.0, calls.1);
        }
        if ratio > WORSE || allocates_more {
            failures += 1;
            print_grown(before, cost);
        }
    }
    for name in record.keys().filter(|name| !costs.contains_key(*name)) {
        println!("{name:20} is not there any more; record it");
    }
    failures
}

fn print_grown(before: &Cost, cost: &Cost) {
    let was = |name: &String| before.functions.get(name).copied().unwrap_or_default();
    let mut grown: Vec<(u64, &String)> = cost
        .functions
        .iter()
        .map(|(name, &own)| (own.saturating_sub(was(name)), name))
        .filter(|&(growth, _)| growth > 0)
        .collect();
    grown.sort_by(|a, b| b.cmp(a));
    for (growth, name) in grown.into_iter().take(GROWN_MAX) {
        println!(
            "    grew by {growth}: {name} ({} -> {})",
            was(name),
            was(name) + growth
        );
    }
}

fn cost_json(cost: &Cost) -> Value {
    json!({
        "instructions": cost.instructions,
        "allocator_calls": cost.allocator_calls,
        "functions": cost.functions,
    })
}

fn read(work: &Value) -> anyhow::Result<Costs> {
    let number = |value: &Value| value.as_u64().with_context(|| format!("{RECORD}: {value}"));
    let work = work
        .as_object()
        .with_context(|| format!("{RECORD}: no work"))?;
    let mut costs = Costs::new();
    for (name, cost) in work {
        let functions = cost["functions"].as_object().into_iter().flatten();
        let functions = functions.map(|(name, own)| Ok((name.clone(), number(own)?)));
        let cost = Cost {
            instructions: number(&cost["instructions"])?,
            allocator_calls: number(&cost["allocator_calls"])?,
            functions: functions.collect::<anyhow::Result<_>>()?,
        };
        costs.insert(name.clone(), cost);
    }
    Ok(costs)
}

#[cfg(test)]
mod tests {
    use super::*;

    const OUT: &str = "\
events: Ir
fn=(below main)
ob=/lib/libc.so.6
fn=malloc
10 40
ob=/t/dunlin-gate
fl=???
fn=dunlin_mqtt::codec::decode::h0123456789abcdef
0 700
cob=/lib/libc.so.6
cfn=malloc
calls=3 10
0 40
cfn=dunlin_mqtt::topic::check
calls=2 0
+4 200
fn=dunlin_mqtt::topic::check'2
* 200
totals: 940
";

    #[test]
    fn only_our_own_instructions_count() {
        let cost = parse(OUT, "/t/dunlin-gate");
        assert_eq!((cost.instructions, cost.allocator_calls), (900, 3));
        assert_eq!(cost.functions["dunlin_mqtt::codec::decode"], 700);
        assert_eq!(cost.functions["dunlin_mqtt::topic::check"], 200);
    }

    #[test]
    fn a_record_reads_as_it_was_written() {
        let costs = Costs::from([("decode".to_owned(), parse(OUT, "/t/dunlin-gate"))]);
        let written = json!({ "decode": cost_json(&costs["decode"]) });
        assert_eq!(read(&written).expect("a record"), costs);
    }

    #[test]
    fn more_than_three_per_cent_fails_and_more_allocations_too() {
        let cost = |instructions, allocator_calls| Cost {
            instructions,
            allocator_calls,
            functions: BTreeMap::new(),
        };
        let against = |now: Cost| {
            let record = Costs::from([("work".to_owned(), cost(1_000, 10))]);
            compare(&record, &Costs::from([("work".to_owned(), now)]))
        };
        assert_eq!(against(cost(1_029, 10)), 0);
        assert_eq!(against(cost(1_031, 10)), 1);
        assert_eq!(against(cost(900, 11)), 1);
    }
}
