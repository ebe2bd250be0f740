//! Medians and ratios, for people and as JSON.

use serde_json::json;

use crate::one_to_one::Sample;
use crate::{Plan, Target};

struct Row {
    thousand_per_second: f64,
    cpu_us: Option<f64>,
}

/// Prints the result of all rounds; ratios are to the first target.
pub(crate) fn print(plan: &Plan, results: &[Vec<Sample>]) {
    let rows: Vec<Row> = results.iter().map(|samples| row(samples)).collect();
    if plan.json {
        let rows = plan.targets.iter().zip(&rows).map(|(target, row)| {
            json!({
                "target": target.name,
                "qos": plan.qos,
                "payload_bytes": plan.payload_bytes,
                "thousand_messages_per_second": row.thousand_per_second,
                "cpu_us_per_message": row.cpu_us,
            })
        });
        println!("{:#}", serde_json::Value::from_iter(rows));
        return;
    }
    println!(
        "1 publisher -> 1 subscriber, QoS {}, {} bytes, median of {} rounds",
        plan.qos, plan.payload_bytes, plan.rounds
    );
    println!(
        "{:<14}{:>14}{:>18}{:>14}",
        "broker", "k messages/s", "CPU us/message", "CPU ratio"
    );
    for (target, row) in plan.targets.iter().zip(&rows) {
        line(target, row, rows[0].cpu_us);
    }
}

fn line(target: &Target, row: &Row, first_cpu_us: Option<f64>) {
    let cpu = row
        .cpu_us
        .map_or_else(|| "-".to_owned(), |cpu| format!("{cpu:.2}"));
    let ratio = row.cpu_us.zip(first_cpu_us).map_or_else(
        || "-".to_owned(),
        |(cpu, first)| format!("{:.1}", cpu / first),
    );
    println!(
        "{:<14}{:>14.1}{cpu:>18}{ratio:>14}",
        target.name, row.thousand_per_second
    );
}

fn row(samples: &[Sample]) -> Row {
    let rate = |sample: &Sample| sample.messages as f64 / sample.seconds / 1000.0;
    let cpu = |sample: &Sample| {
        let messages = sample.messages.max(1) as f64;
        sample.cpu.map(|cpu| cpu.as_secs_f64() * 1e6 / messages)
    };
    let cpus: Vec<f64> = samples.iter().filter_map(cpu).collect();
    Row {
        thousand_per_second: median(samples.iter().map(rate).collect()),
        cpu_us: if cpus.is_empty() {
            None
        } else {
            Some(median(cpus))
        },
    }
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn median_is_the_middle_whatever_the_order() {
        assert!((median(vec![9.0, 1.0, 5.0]) - 5.0).abs() < f64::EPSILON);
    }
}
