//! Medians and ratios, for people and as JSON; and whether a run is a failure.

use anyhow::{bail, ensure};
use serde_json::{Value, json};

use crate::check::Faults;
use crate::latency::Quantiles;
use crate::process;
use crate::sample::Sample;
use crate::{Findings, Plan};

/// One target over all rounds: medians, except where a maximum or a sum says more.
struct Row<'a> {
    name: &'a str,
    samples: &'a [Sample],
    failure: Option<&'a anyhow::Error>,
    thousand_per_second: f64,
    cpu_us: Option<f64>,
    own_cpu_us: f64,
    units: u64,
    seconds: f64,
    /// Sum.
    faults: Faults,
    latency: Option<Quantiles>,
    /// The maximum: a later round finds memory that an earlier one left behind.
    unit_bytes: Option<f64>,
    /// Processor time to that of the first target, round by round.
    cpu_ratio: Option<Spread>,
    rate_ratio: Spread,
}

/// Middle and ends of a ratio over the rounds.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Spread {
    median: f64,
    min: f64,
    max: f64,
}

impl Spread {
    fn of(values: &[f64]) -> Option<Self> {
        Some(Self {
            median: median(values.to_vec())?,
            min: values.iter().copied().reduce(f64::min)?,
            max: values.iter().copied().reduce(f64::max)?,
        })
    }
}

/// Prints the result of all rounds; ratios are to the first target.
pub(crate) fn print(plan: &Plan, results: &[Findings]) {
    let first = results.first().map_or(&[][..], |found| &found.samples);
    let rows: Vec<Row<'_>> = plan
        .targets
        .iter()
        .zip(results)
        // Ctrl-C came before its turn.
        .filter(|(_, found)| !found.samples.is_empty() || found.failure.is_some())
        .map(|(target, found)| row(&target.name, found, first))
        .collect();
    if plan.json {
        println!("{:#}", document(plan, &rows));
    } else {
        table(plan, &rows);
    }
}

/// Fails for a target that failed, for messages lost, and for memory above the budget.
pub(crate) fn judge(plan: &Plan, results: &[Findings]) -> anyhow::Result<()> {
    let unit = plan.scenario.unit();
    for (target, found) in plan.targets.iter().zip(results) {
        let (name, samples) = (&target.name, &found.samples);
        if let Some(failure) = &found.failure {
            bail!("{failure:#}");
        }
        let lost: u64 = samples.iter().map(|sample| sample.faults.lost).sum();
        ensure!(lost == 0, "{name} lost {lost}, see above");
        let Some(budget) = plan.budget else {
            continue;
        };
        let bytes = samples.iter().filter_map(|sample| sample.unit_bytes);
        let bytes = bytes.reduce(f64::max);
        ensure!(
            bytes.is_some(),
            "{name}: no memory figure; --budget is for scenarios that have one, on this machine"
        );
        let bytes = bytes.unwrap_or_default();
        ensure!(
            bytes <= budget,
            "{name} takes {bytes:.0} bytes for each {unit}, its budget is {budget:.0}"
        );
    }
    Ok(())
}

fn row<'a>(name: &'a str, found: &'a Findings, first: &[Sample]) -> Row<'a> {
    let samples = &found.samples;
    let of = |value: &dyn Fn(&Sample) -> Option<f64>| -> Vec<f64> {
        samples.iter().filter_map(value).collect()
    };
    let against = |value: &dyn Fn(&Sample) -> Option<f64>| -> Vec<f64> {
        let ratio = |(own, other)| Some(value(own)? / value(other)?);
        samples.iter().zip(first).filter_map(ratio).collect()
    };
    let middle = |value: &dyn Fn(&Sample) -> Option<f64>| median(of(value)).unwrap_or_default();
    let quantile =
        |value: fn(&Quantiles) -> f64| median(of(&|sample| sample.latency.as_ref().map(value)));
    let mut faults = Faults::default();
    for sample in samples {
        faults.add(sample.faults);
    }
    let unity = Spread {
        median: 1.0,
        min: 1.0,
        max: 1.0,
    };
    Row {
        name,
        samples,
        failure: found.failure.as_ref(),
        thousand_per_second: middle(&|sample| Some(sample.thousand_per_second())),
        cpu_us: median(of(&Sample::cpu_us)),
        own_cpu_us: middle(&|sample| Some(sample.own_cpu_us())),
        units: middle(&|sample| Some(sample.units as f64)) as u64,
        seconds: middle(&|sample| Some(sample.seconds)),
        faults,
        latency: latency(quantile),
        unit_bytes: of(&|sample| sample.unit_bytes).into_iter().reduce(f64::max),
        cpu_ratio: Spread::of(&against(&Sample::cpu_us)),
        rate_ratio: Spread::of(&against(&|sample| Some(sample.thousand_per_second())))
            .unwrap_or(unity),
    }
}

fn latency(quantile: impl Fn(fn(&Quantiles) -> f64) -> Option<f64>) -> Option<Quantiles> {
    Some(Quantiles {
        messages: quantile(|quantiles| quantiles.messages as f64)? as u64,
        p50: quantile(|quantiles| quantiles.p50)?,
        p99: quantile(|quantiles| quantiles.p99)?,
        p999: quantile(|quantiles| quantiles.p999)?,
        max: quantile(|quantiles| quantiles.max)?,
    })
}

fn table(plan: &Plan, rows: &[Row<'_>]) {
    let unit = plan.scenario.unit();
    println!("{}", plan.scenario.title());
    println!(
        "median of {} rounds; targets in turn; load of the machine {:.1}",
        plan.rounds,
        process::load()
    );
    println!();
    let mut head = vec![
        "target".to_owned(),
        format!("k {unit}s/s"),
        format!("CPU us/{unit}"),
        format!("{unit}s"),
        "seconds".to_owned(),
        "own us".to_owned(),
        "lost".to_owned(),
        "twice".to_owned(),
        "late".to_owned(),
    ];
    if plan.compare {
        head.extend(["CPU ratio (spread)", "rate ratio (spread)"].map(str::to_owned));
    }
    if rows.iter().any(|row| row.latency.is_some()) {
        head.extend(["of messages", "p50 ms", "p99 ms", "p99.9 ms", "max ms"].map(str::to_owned));
    }
    if rows.iter().any(|row| row.unit_bytes.is_some()) {
        head.push(format!("bytes/{unit}"));
    }
    let mut lines = vec![head];
    let measured = rows.iter().filter(|row| !row.samples.is_empty());
    lines.extend(measured.map(|row| cells(plan, row)));
    print_aligned(&lines);
    for failure in rows.iter().filter_map(|row| row.failure) {
        println!("{failure:#}");
    }
}

fn cells(plan: &Plan, row: &Row<'_>) -> Vec<String> {
    let dash = || "-".to_owned();
    let mut cells = vec![
        row.name.to_owned(),
        format!("{:.1}", row.thousand_per_second),
        row.cpu_us.map_or_else(dash, |cpu| format!("{cpu:.3}")),
        row.units.to_string(),
        format!("{:.2}", row.seconds),
        format!("{:.3}", row.own_cpu_us),
        row.faults.lost.to_string(),
        row.faults.duplicated.to_string(),
        row.faults.reordered.to_string(),
    ];
    let spread = |spread: Spread| {
        let Spread { median, min, max } = spread;
        format!("{median:.2} ({min:.2}-{max:.2})")
    };
    if plan.compare {
        cells.push(row.cpu_ratio.map_or_else(dash, spread));
        cells.push(spread(row.rate_ratio));
    }
    if let Some(latency) = row.latency {
        cells.push(latency.messages.to_string());
        let all = [latency.p50, latency.p99, latency.p999, latency.max];
        cells.extend(all.map(|ms| format!("{ms:.3}")));
    }
    cells.extend(row.unit_bytes.map(|bytes| format!("{bytes:.0}")));
    cells
}

fn print_aligned(lines: &[Vec<String>]) {
    let width = |column: usize| {
        let cells = lines.iter().filter_map(|line| line.get(column));
        cells.map(String::len).max().unwrap_or_default()
    };
    for line in lines {
        for (column, cell) in line.iter().enumerate() {
            let width = width(column);
            if column == 0 {
                print!("{cell:<width$}");
            } else {
                print!("  {cell:>width$}");
            }
        }
        println!();
    }
}

fn document(plan: &Plan, rows: &[Row<'_>]) -> Value {
    json!({
        "scenario": plan.scenario.title(),
        "unit": plan.scenario.unit(),
        "rounds": plan.rounds,
        "load": process::load(),
        "targets": rows.iter().map(row_json).collect::<Vec<_>>(),
    })
}

fn row_json(row: &Row<'_>) -> Value {
    let spread = |spread: Spread| {
        let Spread { median, min, max } = spread;
        json!({ "median": median, "min": min, "max": max })
    };
    json!({
        "target": row.name,
        "failure": row.failure.map(|failure| format!("{failure:#}")),
        "thousand_per_second": row.thousand_per_second,
        "cpu_us": row.cpu_us,
        "generator_cpu_us": row.own_cpu_us,
        "unit_bytes": row.unit_bytes,
        "latency_ms": row.latency.as_ref().map(latency_json),
        "faults": faults_json(row.faults),
        "cpu_ratio": row.cpu_ratio.map(spread),
        "rate_ratio": spread(row.rate_ratio),
        "rounds": row.samples.iter().map(sample_json).collect::<Vec<_>>(),
    })
}

fn sample_json(sample: &Sample) -> Value {
    json!({
        "units": sample.units,
        "seconds": sample.seconds,
        "cpu_us": sample.cpu_us(),
        "generator_cpu_us": sample.own_cpu_us(),
        "unit_bytes": sample.unit_bytes,
        "latency_ms": sample.latency.as_ref().map(latency_json),
        "faults": faults_json(sample.faults),
    })
}

fn faults_json(faults: Faults) -> Value {
    json!({
        "lost": faults.lost,
        "duplicated": faults.duplicated,
        "reordered": faults.reordered,
    })
}

fn latency_json(latency: &Quantiles) -> Value {
    json!({
        "messages": latency.messages,
        "p50": latency.p50,
        "p99": latency.p99,
        "p99.9": latency.p999,
        "max": latency.max,
    })
}

/// The middle one; of an even number, the upper of the two.
fn median(mut values: Vec<f64>) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn close(found: Option<f64>, expected: f64) {
        let found = found.expect("a figure");
        assert!((found - expected).abs() < 1e-9, "{found} is not {expected}");
    }

    fn found(samples: &[Sample]) -> Findings {
        Findings {
            samples: samples.to_vec(),
            failure: None,
        }
    }

    fn sample(units: u64, cpu_ms: u64) -> Sample {
        Sample {
            units,
            seconds: 1.0,
            cpu: Some(Duration::from_millis(cpu_ms)),
            ..Sample::default()
        }
    }

    #[test]
    fn median_is_the_middle_whatever_the_order() {
        close(median(vec![9.0, 1.0, 5.0]), 5.0);
        assert_eq!(median(Vec::new()), None);
    }

    #[test]
    fn ratios_are_taken_round_by_round() {
        // The machine is three times slower in the second round, for both alike.
        let first = [sample(1_000, 1), sample(1_000, 3), sample(1_000, 1)];
        let other = [sample(1_000, 2), sample(1_000, 6), sample(1_000, 3)];
        let other = found(&other);
        let row = row("other", &other, &first);
        close(row.cpu_us, 3.0);
        let ratio = row.cpu_ratio.expect("both have processor times");
        let found = [ratio.median, ratio.min, ratio.max];
        for (found, expected) in found.into_iter().zip([2.0, 2.0, 3.0]) {
            close(Some(found), expected);
        }
    }

    #[test]
    fn faults_of_all_rounds_are_added() {
        let mut samples = [sample(1, 1), sample(1, 1)];
        samples[0].faults.lost = 2;
        samples[1].faults.lost = 3;
        let found = found(&samples);
        assert_eq!(row("any", &found, &samples).faults.lost, 5);
    }
}
