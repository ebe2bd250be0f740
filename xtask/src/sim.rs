//! `cargo xtask sim`: builds the simulator as it runs fastest and runs seeds, with a line that says
//! how far it is. Without `--keep-going` it stops at the first seed that fails and shows its
//! events.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, bail, ensure};

/// Seeds when nothing is said: what `make test` runs.
const SEEDS: &str = "2000";

/// Runs the seeds the words ask for.
pub(crate) fn run(root: &Path, words: &[String]) -> anyhow::Result<()> {
    let passed = translated(words)?;
    let status = Command::new(env!("CARGO"))
        .args(["run", "--release", "--quiet", "-p", "dunlin-sim", "--"])
        .args(passed)
        .current_dir(root)
        .status()
        .context("cannot run cargo")?;
    ensure!(
        status.success(),
        "seeds failed; each can be replayed as said above"
    );
    Ok(())
}

/// The simulator's own words for ours.
fn translated(words: &[String]) -> anyhow::Result<Vec<String>> {
    let mut passed = Vec::new();
    let mut seeds = SEEDS.to_owned();
    let mut words = words.iter();
    while let Some(word) = words.next() {
        match word.as_str() {
            "--keep-going" => passed.push(word.clone()),
            "--seeds" | "--jobs" | "--from" => {
                let number = words.next().filter(|n| n.parse::<u64>().is_ok());
                let Some(number) = number else {
                    bail!("{word} wants a number");
                };
                if word == "--seeds" {
                    seeds.clone_from(number);
                } else {
                    passed.extend([word.clone(), number.clone()]);
                }
            }
            _ => bail!(
                "'{word}' is no option; usage: \
                 cargo xtask sim [--seeds N] [--from N] [--jobs J] [--keep-going]"
            ),
        }
    }
    passed.extend(["--runs".to_owned(), seeds]);
    Ok(passed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(words: &str, expected: Option<&str>) {
        let words: Vec<String> = words.split_whitespace().map(str::to_owned).collect();
        let passed = translated(&words).ok().map(|passed| passed.join(" "));
        assert_eq!(passed.as_deref(), expected);
    }

    #[test]
    fn words_are_passed_on() {
        check("", Some("--runs 2000"));
        check(
            "--seeds 5 --jobs 2 --from 7 --keep-going",
            Some("--jobs 2 --from 7 --keep-going --runs 5"),
        );
        check("--seeds many", None);
        check("--jobs", None);
        check("seeds", None);
    }
}
