//! What the build server runs, step by step, stopping at the first failure.

use std::path::Path;
use std::process::Command;
use std::time::Instant;

use anyhow::{Context, ensure};

/// Seeds of the simulator inside the test command; the long runs are done by hand.
const SIM_SEEDS: &str = "2000";
/// Seeds at a time: a build server of two cores is the smallest that is of use.
const SIM_JOBS: &str = "2";

/// Runs every check in order of cost and prints what each took.
pub(crate) fn run(root: &Path) -> anyhow::Result<()> {
    let mut steps: Vec<(&str, Vec<&str>)> = vec![
        ("formatting", vec!["fmt", "--all", "--check"]),
        ("tidy", vec!["xtask", "tidy"]),
        (
            "lints",
            vec![
                "clippy",
                "--workspace",
                "--all-targets",
                "--quiet",
                "--",
                "-D",
                "warnings",
            ],
        ),
    ];
    steps.push(("unit and scenario tests", test_command(root)));
    steps.push((
        "documentation examples",
        vec!["test", "--workspace", "--doc", "--quiet"],
    ));
    let seeds = vec![
        "run",
        "--release",
        "--quiet",
        "-p",
        "dunlin-sim",
        "--",
        "--runs",
        SIM_SEEDS,
        "--jobs",
        SIM_JOBS,
    ];
    steps.push(("simulation", seeds));
    steps.push(("instruction counts", vec!["xtask", "gate"]));
    let count = steps.len();
    for (index, (name, arguments)) in steps.into_iter().enumerate() {
        println!(
            "[{}/{count}] {name}: cargo {}",
            index + 1,
            arguments.join(" ")
        );
        let started = Instant::now();
        let status = Command::new(env!("CARGO"))
            .args(&arguments)
            .current_dir(root)
            .status()
            .with_context(|| format!("cannot run cargo {}", arguments.join(" ")))?;
        ensure!(
            status.success(),
            "{name} failed: cargo {}",
            arguments.join(" ")
        );
        println!(
            "[{}/{count}] {name}: ok, {:.0} s",
            index + 1,
            started.elapsed().as_secs_f64()
        );
    }
    Ok(())
}

/// `cargo nextest` where it is installed (tests of all crates side by side), else `cargo test`.
/// The black-box crate `dunlin-tests` is a step of `make test`, after the release build.
fn test_command(root: &Path) -> Vec<&'static str> {
    let found = Command::new(env!("CARGO"))
        .args(["nextest", "--version"])
        .current_dir(root)
        .output()
        .is_ok_and(|output| output.status.success());
    let common = ["--workspace", "--exclude", "dunlin-tests"];
    if found {
        [&["nextest", "run"][..], &common, &["--no-fail-fast"]].concat()
    } else {
        [&["test"][..], &common, &["--lib", "--bins", "--tests"]].concat()
    }
}
