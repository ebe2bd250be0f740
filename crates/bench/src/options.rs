//! The command line of a measurement.

use std::time::Duration;

use anyhow::{Context, bail, ensure};
use dunlin_mqtt::QoS;

use crate::scenario::{Scenario, Sizes};
use crate::target::Target;
use crate::{Plan, USAGE};

/// More rounds than this would run for days.
const ROUNDS_MAX: usize = 1_000;

/// Reads the words behind a scenario's name.
pub(crate) fn plan(name: &str, words: &[String]) -> anyhow::Result<Plan> {
    let mut targets: Vec<Target> = Vec::new();
    let mut sizes = Sizes::default();
    let (mut rounds, mut json, mut compare) = (3, false, false);
    let mut words = words.iter();
    while let Some(word) = words.next() {
        match word.as_str() {
            "--json" => {
                json = true;
                continue;
            }
            "--compare" => {
                compare = true;
                continue;
            }
            _ => {}
        }
        let value = words
            .next()
            .with_context(|| format!("{word} needs a value\n{USAGE}"))?;
        match word.as_str() {
            "--target" => targets.push(Target::parse(value)?),
            "--pid" => {
                let pid = value.parse().context("--pid: a number")?;
                let last = targets.last_mut().context("--pid follows its --target")?;
                last.set_pid(pid);
            }
            "--rounds" => rounds = value.parse().context("--rounds: a number")?,
            _ => size(&mut sizes, word, value)?,
        }
    }
    ensure!(!targets.is_empty(), "no --target\n{USAGE}");
    ensure!(
        (1..=ROUNDS_MAX).contains(&rounds),
        "--rounds: 1 to {ROUNDS_MAX}"
    );
    ensure!(
        name != "cross-node" || targets.iter().all(Target::is_cluster),
        "cross-node: every target has two addresses, NAME=IP:PORT/PID+IP:PORT/PID"
    );
    Ok(Plan {
        // One target alone has nothing to be compared with.
        compare: compare || targets.len() > 1,
        scenario: Scenario::build(name, &sizes)?,
        targets,
        rounds,
        json,
    })
}

fn size(sizes: &mut Sizes, word: &str, value: &str) -> anyhow::Result<()> {
    let count = || {
        let number = value.replace('_', "");
        number.parse().with_context(|| format!("{word}: a number"))
    };
    match word {
        "--qos" => {
            let number: u8 = value.parse().context("--qos: 0, 1 or 2")?;
            sizes.qos = QoS::from_u8(number).context("--qos: 0, 1 or 2")?;
        }
        "--payload" => sizes.payload_bytes = Some(count()?),
        "--seconds" => {
            let seconds = value.parse().context("--seconds: a number")?;
            let duration = Duration::try_from_secs_f64(seconds).context("--seconds")?;
            sizes.duration = Some(duration);
        }
        "--clients" => sizes.clients = Some(count()?),
        "--publishers" => sizes.publishers = Some(count()?),
        "--subscribers" => sizes.subscribers = Some(count()?),
        "--count" => sizes.count = Some(count()?),
        "--window" => sizes.window = Some(count()? as u64),
        "--rate" => sizes.per_second = Some(count()? as u64),
        _ => bail!("unknown option {word}\n{USAGE}"),
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(line: &str) -> anyhow::Result<Plan> {
        let words: Vec<String> = line.split(' ').map(str::to_owned).collect();
        plan(&words[0], &words[1..])
    }

    #[test]
    fn a_line_becomes_a_plan() {
        let line = "pairs --target a=127.0.0.1:1 --pid 7 --qos 1 --clients 4 --payload 16_384 \
                    --seconds 0.5 --rounds 5 --json --window 20";
        let plan = check(line).expect("a plan");
        assert_eq!((plan.rounds, plan.json, plan.compare), (5, true, false));
        assert_eq!(
            plan.scenario.title(),
            "4 -> 4, QoS 1, 16384 bytes, window 20"
        );
        let two = check("idle --target a=127.0.0.1:1 --target b=127.0.0.1:2").expect("a plan");
        assert!(two.compare);
    }

    #[test]
    fn mistakes_are_named() {
        for (line, expected) in [
            ("pairs --qos 1", "no --target"),
            ("pairs --target a=127.0.0.1:1 --qos 3", "--qos"),
            ("pairs --target a=127.0.0.1:1 --rounds 0", "--rounds"),
            ("pairs --target a=127.0.0.1:1 --what 0", "--what"),
            ("pairs --target a=127.0.0.1:1 --window", "--window"),
            ("cross-node --target a=127.0.0.1:1", "two addresses"),
            ("nonsense --target a=127.0.0.1:1", "nonsense"),
        ] {
            let Err(error) = check(line) else {
                panic!("{line} became a plan");
            };
            assert!(error.to_string().contains(expected), "{line}: {error}");
        }
    }
}
