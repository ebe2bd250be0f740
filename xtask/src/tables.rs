//! The tables of docs/performance.md: each figure beside its peers', the ceiling's and its goal,
//! and whether the goal is reached.

use std::fmt::Write;

use anyhow::{Context, ensure};
use serde_json::Value;

/// Targets by the names that `scripts/measure` gives them.
const COLUMNS: [(&str, &str); 5] = [
    ("dunlin", "Dunlin"),
    ("mosquitto", "Mosquitto"),
    ("nats", "NATS"),
    ("rumqttd", "rumqttd"),
    (CEILING, "ceiling"),
];
const CEILING: &str = "null";
/// Sections whose rows are not all of one kind.
const PATH: &str = "Message path";
const MEMORY: &str = "Memory";
const CLUSTER: &str = "Cluster";

/// One thing that a row is held against.
struct Check {
    label: &'static str,
    /// As the page says it.
    goal: String,
    is_reached: bool,
}

impl Check {
    fn at_most(label: &'static str, found: f64, goal: f64, unit: &str) -> Self {
        Self {
            label,
            goal: format!("{label} ≤ {goal}{unit}").trim_start().to_owned(),
            is_reached: found <= goal,
        }
    }
}

/// All tables, of what `scripts/measure` and `scripts/measure-cluster` wrote.
pub(crate) fn all(table: &Value, cluster: &Value) -> anyhow::Result<String> {
    let mut out = String::new();
    head(table, &mut out)?;
    programs(table, &mut out)?;
    let rows = table["rows"].as_array().context("no rows")?;
    ensure!(!rows.is_empty(), "no rows");
    let mut sections: Vec<&str> = Vec::new();
    for row in rows {
        let section = row["section"].as_str().unwrap_or_default();
        if !sections.contains(&section) {
            sections.push(section);
        }
    }
    for section in sections {
        let rows: Vec<&Value> = rows
            .iter()
            .filter(|row| row["section"] == section)
            .collect();
        writeln!(out, "\n### {section}\n")?;
        if section == CLUSTER {
            out += "| what | figure | goal | reached | load |\n|---|---|---|---|---|\n";
        } else {
            let titles: Vec<&str> = COLUMNS.iter().map(|(_, title)| *title).collect();
            writeln!(
                out,
                "| what | {} | goal | reached | load |",
                titles.join(" | ")
            )?;
            writeln!(out, "|---|{}---|---|---|", "---|".repeat(titles.len()))?;
        }
        for row in &rows {
            line(section, row, &mut out)?;
        }
        if section == CLUSTER {
            cluster_rows(cluster, &mut out)?;
        }
        failures(&rows, &mut out)?;
        if section == PATH {
            against_the_ceiling(&rows, &mut out)?;
        }
    }
    out.push('\n');
    Ok(out)
}

fn head(table: &Value, out: &mut String) -> anyhow::Result<()> {
    let word = |key: &str| table[key].as_str().unwrap_or("?");
    let versions: Vec<String> = COLUMNS[..COLUMNS.len() - 1]
        .iter()
        .map(|(name, title)| {
            let key = if *name == "dunlin" { "commit" } else { name };
            format!("{title} {}", word(key))
        })
        .collect();
    writeln!(
        out,
        "{}; {}; {} rounds of {} s, brokers in turn; {}.\n",
        versions.join(", "),
        word("machine"),
        table["rounds"],
        table["seconds"],
        word("date"),
    )?;
    Ok(())
}

/// What a broker is before anybody connects.
fn programs(table: &Value, out: &mut String) -> anyhow::Result<()> {
    let brokers = table["brokers"].as_array().context("no brokers")?;
    let of = |name: &str, key: &str| {
        let broker = brokers.iter().find(|broker| broker["name"] == name);
        broker.and_then(|broker| broker[key].as_f64())
    };
    let columns = &COLUMNS[..COLUMNS.len() - 1];
    let titles: Vec<&str> = columns.iter().map(|(_, title)| *title).collect();
    writeln!(out, "| what | {} | goal | reached |", titles.join(" | "))?;
    writeln!(out, "|---|{}---|---|", "---|".repeat(titles.len()))?;
    for (title, key, unit, divisor, goal) in [
        ("program, stripped", "program_bytes", "MB", 1e6, 25.0),
        (
            "command to listening, median of 10",
            "start_ms",
            "ms",
            1.0,
            150.0,
        ),
        ("resident memory, idle", "idle_bytes", "MB", 1e6, 15.0),
    ] {
        write!(out, "| {title} |")?;
        for (name, _) in columns {
            let value = of(name, key).map(|value| format!("{:.1} {unit}", value / divisor));
            write!(out, " {} |", value.unwrap_or_else(dash))?;
        }
        let found = of("dunlin", key).context("a figure of our own")? / divisor;
        let check = Check::at_most("", found, goal, &format!(" {unit}"));
        writeln!(
            out,
            " {} | {} |",
            check.goal,
            verdict(std::slice::from_ref(&check))
        )?;
    }
    let commands = table["commands"].as_array().context("no commands")?;
    let slowest = commands
        .iter()
        .filter_map(|command| Some((command["ms"].as_f64()?, command["command"].as_str()?)))
        .max_by(|one, other| one.0.total_cmp(&other.0));
    if let Some((ms, command)) = slowest {
        let check = Check::at_most("", ms, 30.0, " ms");
        write!(
            out,
            "| slowest of {} `emqx ctl` commands, `{command}`, median of 10 | {ms:.1} ms |",
            commands.len()
        )?;
        write!(out, "{}", " – |".repeat(columns.len() - 1))?;
        writeln!(
            out,
            " {} | {} |",
            check.goal,
            verdict(std::slice::from_ref(&check))
        )?;
    }
    Ok(())
}

fn line(section: &str, row: &Value, out: &mut String) -> anyhow::Result<()> {
    let targets = targets(row)?;
    write!(out, "| {} |", row["name"].as_str().unwrap_or_default())?;
    if section == CLUSTER {
        let only = targets.first().context("a target")?;
        write!(out, " {} |", cell(section, only))?;
    } else {
        for (name, _) in COLUMNS {
            let target = targets.iter().find(|target| target["target"] == name);
            // Of a cluster's row the one figure stands in the first column.
            let target = target.or(match (name, targets.as_slice()) {
                ("dunlin", [only]) => Some(only),
                _ => None,
            });
            write!(
                out,
                " {} |",
                target.map_or_else(dash, |one| cell(section, one))
            )?;
        }
    }
    let checks = checks(&row["goal"], targets);
    let goals: Vec<&str> = checks.iter().map(|check| check.goal.as_str()).collect();
    let goals = goals.join(", ");
    let goals = if goals.is_empty() { dash() } else { goals };
    let load = row["result"]["load"].as_f64().unwrap_or_default();
    writeln!(out, " {goals} | {} | {load:.1} |", verdict(&checks))?;
    Ok(())
}

fn targets(row: &Value) -> anyhow::Result<&Vec<Value>> {
    row["result"]["targets"].as_array().context("no targets")
}

/// What the first target, ours, is held against.
fn checks(goal: &Value, targets: &[Value]) -> Vec<Check> {
    let Some(own) = targets.first() else {
        return Vec::new();
    };
    let mut checks = Vec::new();
    let mut at_most = |label, found: &Value, goal: &Value, unit| {
        if let (Some(found), Some(goal)) = (found.as_f64(), goal.as_f64()) {
            checks.push(Check::at_most(label, found, goal, unit));
        }
    };
    at_most("CPU", &own["cpu_us"], &goal["cpu_us"], "");
    at_most("", &own["unit_bytes"], &goal["unit_bytes"], " B");
    let latency = &own["latency_ms"];
    at_most("p50", &latency["p50"], &goal["p50_ms"], " ms");
    at_most("p99", &latency["p99"], &goal["p99_ms"], " ms");
    let rate = (
        own["thousand_per_second"].as_f64(),
        goal["thousand_per_second"].as_f64(),
    );
    if let (Some(found), Some(goal)) = rate {
        checks.push(Check {
            label: "rate",
            goal: format!("rate ≥ {goal}"),
            is_reached: found >= goal,
        });
    }
    if goal["best_peer"] == true {
        checks.extend(best_peer(latency, &targets[1..]));
    }
    if own["faults"]["lost"].as_u64() > Some(0) {
        checks.push(Check {
            label: "loss",
            goal: "nothing lost".to_owned(),
            is_reached: false,
        });
    }
    checks
}

/// The goal of a latency: no worse than the best peer of the same run.
fn best_peer(own: &Value, peers: &[Value]) -> Option<Check> {
    let peers = peers.iter().filter(|peer| peer["target"] != CEILING);
    let figures = peers.filter_map(|peer| {
        Some((
            peer["latency_ms"]["p99"].as_f64()?,
            peer["target"].as_str()?,
        ))
    });
    let (best, name) = figures.min_by(|one, other| one.0.total_cmp(&other.0))?;
    let title = COLUMNS.iter().find(|column| column.0 == name)?.1;
    Some(Check {
        label: "p99",
        goal: format!("p99 ≤ {best:.2} ms ({title})"),
        // As precise as the page is.
        is_reached: own["p99"].as_f64()? < best + 0.005,
    })
}

fn verdict(checks: &[Check]) -> String {
    let missed = checks.iter().filter(|check| !check.is_reached);
    let missed: Vec<&str> = missed.map(|check| check.label).collect();
    match (checks, missed.as_slice()) {
        ([], _) => dash(),
        (_, []) => "yes".to_owned(),
        ([_], _) => "**missed**".to_owned(),
        _ => format!("{} **missed**", missed.join(" and ")),
    }
}

fn dash() -> String {
    "–".to_owned()
}

fn cell(section: &str, target: &Value) -> String {
    let number = |key: &str| target[key].as_f64();
    let rounds = target["rounds"].as_array().map_or(0, Vec::len);
    if rounds == 0 && target["failure"].is_string() {
        return "failed".to_owned();
    }
    let mut text = String::new();
    let latency = &target["latency_ms"];
    if let (Some(p50), Some(p99)) = (latency["p50"].as_f64(), latency["p99"].as_f64()) {
        let _ = write!(text, "{p50:.2} / {p99:.2} ms");
    } else if let (Some(bytes), true) = (number("unit_bytes"), section == MEMORY) {
        let _ = write!(text, "{bytes:.0} B");
    } else if let Some(cpu) = number("cpu_us") {
        let rate = number("thousand_per_second").unwrap_or_default();
        let _ = write!(text, "{} ({})", short(cpu), short(rate));
        let ratio = &target["cpu_ratio"];
        if let (Some(min), Some(max)) = (ratio["min"].as_f64(), ratio["max"].as_f64())
            && target["target"] != "dunlin"
            && target["target"] != "cluster"
        {
            let _ = write!(text, " ×{}–{}", short(min), short(max));
        }
    }
    for (key, word) in [
        ("lost", "lost"),
        ("duplicated", "twice"),
        ("reordered", "late"),
    ] {
        let count = target["faults"][key].as_u64().unwrap_or_default();
        if count > 0 {
            let _ = write!(text, ", {count} {word}");
        }
    }
    text
}

/// Two digits that count.
fn short(value: f64) -> String {
    match value {
        ..9.95 => format!("{value:.2}"),
        ..99.5 => format!("{value:.1}"),
        _ => format!("{value:.0}"),
    }
}

/// Why cells of a table have no figure, or not of all rounds.
fn failures(rows: &[&Value], out: &mut String) -> anyhow::Result<()> {
    let mut is_first = true;
    for row in rows {
        for target in targets(row)? {
            let Some(failure) = target["failure"].as_str() else {
                continue;
            };
            if std::mem::take(&mut is_first) {
                out.push('\n');
            }
            let what = row["name"].as_str().unwrap_or_default();
            writeln!(out, "- {what}, failed: {}", failure.replace('\n', " "))?;
        }
    }
    Ok(())
}

/// The same rows as multiples of the ceiling, which is what travels from one machine to another.
fn against_the_ceiling(rows: &[&Value], out: &mut String) -> anyhow::Result<()> {
    writeln!(
        out,
        "\n#### Beside the ceiling\n\nThe same as multiples of the ceiling, and the goals as \
         multiples of the ceiling of the machine they were set on.\n\n\
         | what | CPU | goal | rate | goal | reached |\n|---|---|---|---|---|---|"
    )?;
    for row in rows {
        let ceiling = targets(row)?
            .iter()
            .find(|target| target["target"] == CEILING);
        let goal = |key: &str| row["goal"][key].as_f64();
        let (Some(ceiling), Some(cpu), Some(rate)) =
            (ceiling, goal("ceiling_cpu_us"), goal("ceiling_per_second"))
        else {
            continue;
        };
        // Taken round by round, ours being 1.
        let here = |key: &str| ceiling[key]["median"].as_f64().map(|ratio| 1.0 / ratio);
        let mut checks = Vec::new();
        write!(out, "| {} |", row["name"].as_str().unwrap_or_default())?;
        for (label, here, goal) in [
            (
                "CPU",
                here("cpu_ratio"),
                goal("cpu_us").map(|goal| goal / cpu),
            ),
            (
                "rate",
                here("rate_ratio"),
                goal("thousand_per_second").map(|goal| goal / rate),
            ),
        ] {
            let (Some(here), Some(goal)) = (here, goal) else {
                out.push_str(" – | – |");
                continue;
            };
            let sign = if label == "CPU" { '≤' } else { '≥' };
            write!(out, " ×{here:.2} | {sign} ×{goal:.2} |")?;
            let is_reached = if label == "CPU" {
                here <= goal
            } else {
                here >= goal
            };
            checks.push(Check {
                label,
                goal: String::new(),
                is_reached,
            });
        }
        writeln!(out, " {} |", verdict(&checks))?;
    }
    Ok(())
}

/// What the tests of whole clusters measured.
fn cluster_rows(cluster: &Value, out: &mut String) -> anyhow::Result<()> {
    let load = cluster["load"].as_f64().unwrap_or_default();
    for row in cluster["rows"].as_array().context("no rows of clusters")? {
        let word = |key: &str| row[key].as_str().unwrap_or_default();
        let (middle, greatest) = (row["middle"].as_f64(), row["greatest"].as_f64());
        let (goal, reached) = match (row["goal"].as_f64(), row["at_least"].as_f64()) {
            (Some(goal), _) => {
                let within = |value: Option<f64>| value.is_some_and(|value| value <= goal);
                let reached = match (within(middle), within(greatest)) {
                    (false, _) => "**missed**",
                    (true, false) => "median yes, greatest **missed**",
                    (true, true) => "yes",
                };
                (format!("≤ {goal} {}", word("unit")), reached)
            }
            (None, Some(goal)) => {
                let is_reached = middle.is_some_and(|value| value >= goal);
                (
                    format!("≥ {goal}"),
                    if is_reached { "yes" } else { "**missed**" },
                )
            }
            (None, None) => (dash(), "–"),
        };
        writeln!(
            out,
            "| {} | {} | {} | {reached} | {load:.1} |",
            word("name").trim(),
            word("figure"),
            goal.trim(),
        )?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn target(name: &str, cpu: f64, rate: f64) -> Value {
        json!({
            "target": name, "failure": null, "cpu_us": cpu, "thousand_per_second": rate,
            "unit_bytes": null, "latency_ms": null, "rounds": [{}],
            "faults": { "lost": 0, "duplicated": 0, "reordered": 0 },
            "cpu_ratio": { "median": 0.25, "min": 0.2, "max": 0.3 },
            "rate_ratio": { "median": 2.0, "min": 1.5, "max": 2.5 },
        })
    }

    fn table(section: &str, goal: &Value, targets: &[Value]) -> String {
        let broker = json!({
            "name": "dunlin", "program_bytes": 22e6, "start_ms": 100.0, "idle_bytes": 19.6e6,
        });
        let table = json!({
            "brokers": [broker],
            "commands": [
                { "command": "status", "ms": 2.0 }, { "command": "vm all", "ms": 31.5 },
            ],
            "rows": [{
                "section": section, "name": "a row", "goal": goal,
                "result": { "load": 1.25, "targets": targets },
            }],
        });
        let cluster = json!({ "load": 0.5, "rows": [
            { "name": "seen", "figure": "1 / 2 / 9 ms", "middle": 2, "greatest": 9, "goal": 5,
              "unit": "ms" },
            { "name": "seeds", "figure": "4000", "middle": 4000, "at_least": 1000 },
            { "name": "bytes", "figure": "143 MB" },
        ] });
        all(&table, &cluster).expect("a table")
    }

    fn has(text: &str, line: &str) {
        assert!(
            text.lines().any(|each| each == line),
            "{line}\nis not in\n{text}"
        );
    }

    #[test]
    fn a_row_says_what_was_measured_and_which_goal_is_missed() {
        let goal = json!({
            "cpu_us": 0.7, "thousand_per_second": 1000, "ceiling_cpu_us": 0.17,
            "ceiling_per_second": 4590,
        });
        let mut slow = target("mosquitto", 5.02, 91.8);
        slow["faults"]["lost"] = json!(2);
        let targets = [
            target("dunlin", 0.801, 1234.5),
            slow,
            target(CEILING, 0.2, 2469.0),
        ];
        let text = table(PATH, &goal, &targets);
        has(
            &text,
            "| a row | 0.80 (1234) | 5.02 (91.8) ×0.20–0.30, 2 lost | – | – | \
             0.20 (2469) ×0.20–0.30 | CPU ≤ 0.7, rate ≥ 1000 | CPU **missed** | 1.2 |",
        );
        has(&text, "| a row | ×4.00 | ≤ ×4.12 | ×0.50 | ≥ ×0.22 | yes |");
    }

    #[test]
    fn programs_and_commands_have_goals() {
        let text = table(PATH, &json!({}), &[target("dunlin", 1.0, 1.0)]);
        has(
            &text,
            "| program, stripped | 22.0 MB | – | – | – | ≤ 25 MB | yes |",
        );
        has(
            &text,
            "| resident memory, idle | 19.6 MB | – | – | – | ≤ 15 MB | **missed** |",
        );
        has(
            &text,
            "| slowest of 2 `emqx ctl` commands, `vm all`, median of 10 | 31.5 ms | – | – | – | \
             ≤ 30 ms | **missed** |",
        );
    }

    #[test]
    fn latency_is_held_against_the_best_peer_not_the_ceiling() {
        let with = |name: &str, p99: f64| {
            let mut target = target(name, 45.0, 5.0);
            target["latency_ms"] = json!({ "p50": 0.1, "p99": p99 });
            target
        };
        let goal = json!({ "best_peer": true });
        let all = [
            with("dunlin", 0.26),
            with("mosquitto", 0.24),
            with("nats", 0.5),
            with(CEILING, 0.1),
        ];
        let text = table("At 5,000 messages/s", &goal, &all);
        has(
            &text,
            "| a row | 0.10 / 0.26 ms | 0.10 / 0.24 ms | 0.10 / 0.50 ms | – | 0.10 / 0.10 ms | \
             p99 ≤ 0.24 ms (Mosquitto) | **missed** | 1.2 |",
        );
    }

    #[test]
    fn what_failed_is_said_below_the_table() {
        let mut gone = target("nats", 0.0, 0.0);
        gone["rounds"] = json!([]);
        gone["failure"] = json!("nats: the broker closed\nthe connection");
        let text = table(MEMORY, &json!({}), &[target("dunlin", 1.0, 1.0), gone]);
        assert!(text.contains("| failed |"), "{text}");
        has(
            &text,
            "- a row, failed: nats: the broker closed the connection",
        );
    }

    #[test]
    fn rows_of_clusters_are_judged_by_middle_and_greatest() {
        let text = table(CLUSTER, &json!({}), &[target("cluster", 0.8, 1390.0)]);
        has(&text, "| a row | 0.80 (1390) | – | – | 1.2 |");
        has(
            &text,
            "| seen | 1 / 2 / 9 ms | ≤ 5 ms | median yes, greatest **missed** | 0.5 |",
        );
        has(&text, "| seeds | 4000 | ≥ 1000 | yes | 0.5 |");
        has(&text, "| bytes | 143 MB | – | – | 0.5 |");
    }
}
