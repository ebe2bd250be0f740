//! The command line of a measurement.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use dunlin_mqtt::QoS;

use crate::Plan;
use crate::access::Access;
use crate::scenario::{Scenario, Sizes};
use crate::target::{NULL, Target};

/// More rounds than this would run for days.
const ROUNDS_MAX: usize = 1_000;
/// Where a broker of this machine listens.
const TARGET: &str = "127.0.0.1:1883";

/// What the words say, before anybody is looked for.
#[derive(Debug)]
struct Options<'a> {
    /// Targets, each with the command that starts it and its process, if given.
    targets: Vec<(&'a str, Option<&'a str>, Option<u32>)>,
    sizes: Sizes,
    access: Access,
    rounds: usize,
    json: bool,
    compare: bool,
    budget: Option<f64>,
}

/// Reads the words behind a scenario's name, and starts what is to be started.
pub(crate) fn plan(program: &[String], name: &str, words: &[&str]) -> anyhow::Result<Plan> {
    let options = read(words)?;
    // Before anything is started: a wrong word must not cost a broker's start.
    let scenario = Scenario::build(name, &options.sizes)?;
    let access = Arc::new(options.access);
    let mut targets = Vec::new();
    for (word, start, pid) in options.targets {
        let mut target = match word {
            NULL => Target::null(program, &access)?,
            word => Target::parse(word, &access)?,
        };
        if let Some(command) = start {
            target.start(command)?;
        }
        if let Some(pid) = pid {
            target.set_pid(pid);
        }
        targets.push(target);
    }
    ensure!(
        !matches!(name, "cross-node" | "routes") || targets.iter().all(Target::is_cluster),
        "{name}: every target has two addresses, HOST:PORT+HOST:PORT"
    );
    Ok(Plan {
        // One target alone has nothing to be compared with.
        compare: options.compare || targets.len() > 1,
        scenario,
        targets,
        rounds: options.rounds,
        json: options.json,
        budget: options.budget,
    })
}

fn read<'a>(words: &[&'a str]) -> anyhow::Result<Options<'a>> {
    let mut options = Options {
        targets: Vec::new(),
        sizes: Sizes::default(),
        access: Access::default(),
        rounds: 3,
        json: false,
        compare: false,
        budget: None,
    };
    let mut words = words.iter();
    while let Some(&word) = words.next() {
        match word {
            "--json" => options.json = true,
            "--compare" => options.compare = true,
            "--insecure" => options.access.insecure = true,
            _ if !word.starts_with('-') => options.targets.push((word, None, None)),
            _ => {
                let value = words.next();
                let value = value.with_context(|| format!("{word} needs a value; see --help"))?;
                options.take(word, value)?;
            }
        }
    }
    if options.targets.is_empty() {
        options.targets.push((TARGET, None, None));
    }
    ensure!(
        (1..=ROUNDS_MAX).contains(&options.rounds),
        "--rounds: 1 to {ROUNDS_MAX}"
    );
    Ok(options)
}

impl<'a> Options<'a> {
    fn take(&mut self, word: &str, value: &'a str) -> anyhow::Result<()> {
        match word {
            "--target" => self.targets.push((value, None, None)),
            "--start" => {
                let last = self.targets.last_mut();
                last.context("--start follows its TARGET")?.1 = Some(value);
            }
            "--pid" => {
                let last = self
                    .targets
                    .last_mut()
                    .context("--pid follows its TARGET")?;
                last.2 = Some(value.parse().context("--pid: a number")?);
            }
            "--rounds" => self.rounds = value.parse().context("--rounds: a number")?,
            "--budget" => {
                let number = value.replace('_', "");
                self.budget = Some(number.parse().context("--budget: a number")?);
            }
            "--mqtt" => {
                self.access.is_v5 = match value {
                    "3.1.1" | "4" => false,
                    "5" => true,
                    _ => bail!("--mqtt: 3.1.1 or 5"),
                }
            }
            "--keepalive" => {
                self.access.keepalive = value.parse().context("--keepalive: seconds")?;
            }
            "--username" | "-u" => self.access.username = Some(value.to_owned()),
            "--password" | "-P" => self.access.password = Some(value.to_owned()),
            "--cacert" => self.access.cacert = Some(value.into()),
            "--cert" => self.access.cert = Some(value.into()),
            "--key" => self.access.key = Some(value.into()),
            _ => size(&mut self.sizes, word, value)?,
        }
        Ok(())
    }
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
        "--topic" => sizes.topic = Some(value.to_owned()),
        "--rate" => sizes.per_second = Some(count()? as u64),
        _ => bail!("unknown option {word}; see --help"),
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(line: &str) -> anyhow::Result<Plan> {
        let words: Vec<&str> = line.split(' ').collect();
        plan(&[], words[0], &words[1..])
    }

    #[test]
    fn a_line_becomes_a_plan() {
        let line = "pairs a=127.0.0.1:1 --pid 7 --qos 1 --clients 4 --payload 16_384 \
                    --seconds 0.5 --rounds 5 --json --window 20 --budget 300";
        let plan = check(line).expect("a plan");
        assert_eq!((plan.rounds, plan.json, plan.compare), (5, true, false));
        assert_eq!(
            plan.scenario.title(),
            "4 -> 4, QoS 1, 16384 bytes, window 20"
        );
        assert_eq!(plan.budget, Some(300.0));
        let two = check("idle a=127.0.0.1:1 --target b=127.0.0.1:2").expect("a plan");
        assert!(two.compare);
        let none = check("pub").expect("this machine's broker");
        assert_eq!(none.targets[0].for_publishers().address.port(), 1883);
        assert_eq!(
            none.scenario.title(),
            "1 publishers alone, QoS 0, 64 bytes, window 500"
        );
    }

    #[test]
    fn mistakes_are_named() {
        for (line, expected) in [
            ("pairs a=127.0.0.1:1 --qos 3", "--qos"),
            ("pairs a=127.0.0.1:1 --rounds 0", "--rounds"),
            ("pairs a=127.0.0.1:1 --what 0", "--what"),
            ("pairs a=127.0.0.1:1 --window", "--window"),
            ("pairs --start mosquitto", "follows its TARGET"),
            ("pairs a=127.0.0.1:1 --mqtt 6", "3.1.1 or 5"),
            ("pairs a=127.0.0.1:1 --keepalive 65536", "--keepalive"),
            ("pairs a=127.0.0.1:1 --start false", "ended by itself"),
            ("cross-node a=127.0.0.1:1", "two addresses"),
            ("nonsense a=127.0.0.1:1", "nonsense"),
        ] {
            let Err(error) = check(line) else {
                panic!("{line} became a plan");
            };
            let error = format!("{error:#}");
            assert!(error.contains(expected), "{line}: {error}");
        }
    }
}
