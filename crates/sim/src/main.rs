//! `dunlin-sim`: runs seeds of the simulator and shows what broke.

use std::io::{IsTerminal, Write};
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc;
use std::time::Instant;

use dunlin_sim::plant::Bug;
use dunlin_sim::run::Tally;
use dunlin_sim::trace::Record;
use dunlin_sim::{Order, Report, run, shrink};

mod log;

const USAGE: &str = "\
dunlin-sim: a whole cluster in one seeded process

  dunlin-sim --seed N [--verbose]              run one seed, show its events
  dunlin-sim --runs K [--from N] [--jobs J]    run K seeds from N on (0), J at a time
  dunlin-sim --seed N --shrink                 cut a failing seed's script down
  dunlin-sim --scale 3,10,30                   traffic and time to agree by number of nodes
options
  --plant NAME    with a bug planted on purpose; --plants lists them
  --keep-going    go on after a failure, list all failing seeds
  --log           with --seed: show the nodes' own log as well
";
/// Lines of a failing run shown without `--verbose`.
const LINES_SHOWN: usize = 60;

#[derive(Debug, Default)]
struct Arguments {
    seed: Option<u64>,
    runs: u64,
    from: u64,
    jobs: usize,
    bug: Option<Bug>,
    verbose: bool,
    shrink: bool,
    keep_going: bool,
    log: bool,
    plants: bool,
    scale: Vec<usize>,
}

fn main() -> ExitCode {
    let arguments = match arguments(std::env::args().skip(1)) {
        Ok(arguments) => arguments,
        Err(wrong) => {
            eprintln!("{wrong}\n\n{USAGE}");
            return ExitCode::from(2);
        }
    };
    if arguments.plants {
        for (_, name, invariant) in Bug::ALL {
            say(&format!("{name}: to be found by {invariant}\n"));
        }
        return ExitCode::SUCCESS;
    }
    if !arguments.scale.is_empty() {
        dunlin_sim::scale::table(&arguments.scale, say);
        return ExitCode::SUCCESS;
    }
    let passed = match arguments.seed {
        Some(seed) => one(seed, &arguments),
        None => many(&arguments),
    };
    if passed {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

fn arguments(mut words: impl Iterator<Item = String>) -> Result<Arguments, String> {
    let mut arguments = Arguments {
        runs: 100,
        jobs: 1,
        ..Arguments::default()
    };
    while let Some(word) = words.next() {
        let mut number = || {
            let value = words.next().unwrap_or_default();
            value
                .parse::<u64>()
                .map_err(|_| format!("{word} wants a number, not '{value}'"))
        };
        match word.as_str() {
            "--seed" => arguments.seed = Some(number()?),
            "--runs" => arguments.runs = number()?,
            "--from" => arguments.from = number()?,
            "--jobs" => arguments.jobs = number()?.clamp(1, 64) as usize,
            "--verbose" => arguments.verbose = true,
            "--shrink" => arguments.shrink = true,
            "--keep-going" => arguments.keep_going = true,
            "--log" => arguments.log = true,
            "--plants" => arguments.plants = true,
            "--scale" => {
                let sizes = words.next().unwrap_or_default();
                arguments.scale = sizes_of(&sizes)?;
            }
            "--plant" => {
                let name = words.next().unwrap_or_default();
                let bug = Bug::from_name(&name);
                arguments.bug = Some(bug.ok_or_else(|| format!("no plant '{name}'"))?);
            }
            _ => return Err(format!("unknown argument '{word}'")),
        }
    }
    Ok(arguments)
}

/// Sizes of clusters, two nodes at least and as many as there are addresses for.
fn sizes_of(text: &str) -> Result<Vec<usize>, String> {
    let size = |text: &str| {
        let size = text.parse().ok();
        size.filter(|n| (2..=250).contains(n))
    };
    let sizes = text.split(',').map(size).collect::<Option<Vec<_>>>();
    sizes.ok_or_else(|| format!("--scale wants numbers of nodes from 2 to 250, not '{text}'"))
}

fn say(text: &str) {
    // A closed pipe is no reason to fail: whoever reads has seen enough.
    _ = std::io::stdout().lock().write_all(text.as_bytes());
}

fn one(seed: u64, arguments: &Arguments) -> bool {
    if arguments.log {
        log::show();
    }
    let echo = |line: &str| say(&format!("{line}\n"));
    let record = if arguments.log {
        Record::Echo(echo)
    } else {
        Record::Lines
    };
    let order = Order {
        seed,
        bug: arguments.bug,
        record,
        script: None,
    };
    let mut report = run(&order);
    if let (true, Some(violation)) = (arguments.shrink, &report.violation) {
        let script = shrink(&order, violation.invariant, report.script.clone());
        report = run(&Order {
            script: Some(script),
            ..order
        });
        for step in &report.script {
            say(&format!("{:>6}  {:?}\n", step.at, step.op));
        }
    }
    let lines = if arguments.verbose {
        usize::MAX
    } else {
        LINES_SHOWN
    };
    say(&report.describe(lines));
    report.violation.is_none()
}

fn many(arguments: &Arguments) -> bool {
    let started = Instant::now();
    let next = AtomicU64::new(arguments.from);
    let until = arguments.from + arguments.runs;
    let stop = AtomicBool::new(false);
    let (send, receive) = mpsc::channel();
    let mut failed = Vec::new();
    let mut tally = Tally::default();
    std::thread::scope(|scope| {
        for _ in 0..arguments.jobs {
            let (send, next, stop) = (send.clone(), &next, &stop);
            scope.spawn(move || {
                while !stop.load(Ordering::Relaxed) {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= until || send.send(quick(seed, arguments.bug)).is_err() {
                        return;
                    }
                }
            });
        }
        drop(send);
        let mut done = 0;
        for report in receive {
            done += 1;
            progress(done, arguments.runs, failed.len(), started);
            tally.add(report.tally);
            if let Some(violation) = &report.violation {
                say(&format!(
                    "seed {} breaks {violation}\n",
                    report.options.seed
                ));
                failed.push(report.options.seed);
                stop.store(!arguments.keep_going, Ordering::Relaxed);
            }
        }
    });
    let Tally {
        wills,
        owed,
        owed_by_others,
    } = tally;
    say(&format!(
        "{wills} wills, which had to arrive {owed} times, {owed_by_others} of them of dead nodes\n"
    ));
    finish(&failed, arguments, started)
}

fn quick(seed: u64, bug: Option<Bug>) -> Report {
    run(&Order {
        seed,
        bug,
        record: Record::Nothing,
        script: None,
    })
}

fn progress(done: u64, runs: u64, failed: usize, started: Instant) {
    let mut err = std::io::stderr().lock();
    if err.is_terminal() {
        let each = started.elapsed().as_millis() / u128::from(done.max(1));
        _ = write!(
            err,
            "\r{done}/{runs} seeds, {failed} failed, {each} ms each "
        );
        _ = err.flush();
    }
}

fn finish(failed: &[u64], arguments: &Arguments, started: Instant) -> bool {
    let seconds = started.elapsed().as_secs_f64();
    if failed.is_empty() {
        say(&format!("{} seeds hold, {seconds:.1} s\n", arguments.runs));
        return true;
    }
    if !arguments.keep_going {
        // The same seed again, with its events kept.
        let order = Order {
            seed: failed[0],
            bug: arguments.bug,
            record: Record::Lines,
            script: None,
        };
        say(&run(&order).describe(LINES_SHOWN));
    }
    say(&format!(
        "{} seeds fail: {failed:?}, {seconds:.1} s\n",
        failed.len()
    ));
    false
}
