//! Tables and plots of docs/performance.md, made of what `scripts/measure` and `scripts/scale`
//! wrote: nobody copies figures by hand, and whoever doubts one finds every round of it.

use std::fmt::Write;
use std::fs;
use std::path::Path;

use anyhow::{Context, ensure};
use serde_json::Value;

use crate::plot::{Line, Plot};

const PAGE: &str = "docs/performance.md";
/// The section whose figures are bytes.
const MEMORY: &str = "Memory";
const TABLE: &str = "docs/performance/table.json";
const SCALE: &str = "docs/performance/scale.json";
const BEGIN: &str = "<!-- figures: written by `cargo xtask figures` -->";
const END: &str = "<!-- end of figures -->";
const COLUMNS: [(&str, &str); 4] = [
    ("dunlin", "Dunlin"),
    ("mosquitto", "Mosquitto"),
    ("nats", "NATS"),
    ("null", "ceiling"),
];

/// Every plot: file, title, what is on the axes, and its lines: label, series, figure.
type Drawing = (
    &'static str,
    &'static str,
    (&'static str, &'static str),
    &'static [(&'static str, &'static str, &'static str)],
);
const PLOTS: &[Drawing] = &[
    (
        "connections",
        "Idle connections with one subscription each",
        ("connections", "bytes each"),
        &[("resident memory", "idle", "unit_bytes")],
    ),
    (
        "active",
        "Active connections, 64 bytes, QoS 0",
        (
            "publishers (pairs) or subscribers (fan-out)",
            "CPU us per delivery",
        ),
        &[
            ("pairs, 20 under way", "pairs", "cpu_us"),
            ("fan-out, one at a time", "fan-out", "cpu_us"),
        ],
    ),
    (
        "filters",
        "Filters",
        ("filters on the node", "CPU us"),
        &[
            ("to subscribe one", "storm", "cpu_us"),
            ("to deliver through so many wildcards", "wildcard", "cpu_us"),
        ],
    ),
    (
        "filter-memory",
        "Memory of filters and retained messages",
        ("filters, retained messages", "bytes each"),
        &[
            ("filter", "storm", "unit_bytes"),
            ("retained message, 64 B", "retained", "unit_bytes"),
        ],
    ),
    (
        "retained",
        "Replay of all retained messages to one subscriber",
        ("retained messages", "CPU us per message"),
        &[("replay", "retained", "cpu_us")],
    ),
    (
        "nodes",
        "Publishers on one node, subscribers on the others: CPU of all nodes together",
        ("nodes", "CPU us per delivery"),
        &[
            ("12 pairs, QoS 0", "nodes-qos0", "cpu_us"),
            ("12 pairs, QoS 1", "nodes-qos1", "cpu_us"),
            ("1 to 120, QoS 0", "nodes-fan-out", "cpu_us"),
        ],
    ),
];

/// Writes the plots, and the page between its marks.
pub(crate) fn write(root: &Path) -> anyhow::Result<()> {
    let page = fs::read_to_string(root.join(PAGE)).context(PAGE)?;
    let (before, rest) = page
        .split_once(BEGIN)
        .with_context(|| format!("{PAGE}: {BEGIN}"))?;
    let (_, after) = rest
        .split_once(END)
        .with_context(|| format!("{PAGE}: {END}"))?;
    let mut text = tables(&json(root, TABLE)?)?;
    text += &plots(root, &json(root, SCALE)?)?;
    fs::write(
        root.join(PAGE),
        format!("{before}{BEGIN}\n\n{text}{END}{after}"),
    )?;
    println!("{PAGE} and its plots are written");
    Ok(())
}

fn json(root: &Path, file: &str) -> anyhow::Result<Value> {
    let text = fs::read_to_string(root.join(file)).with_context(|| file.to_owned())?;
    serde_json::from_str(&text).with_context(|| file.to_owned())
}

fn tables(table: &Value) -> anyhow::Result<String> {
    let mut out = String::new();
    let word = |key: &str| table[key].as_str().unwrap_or("?").to_owned();
    writeln!(
        out,
        "Dunlin {}, Mosquitto {}, NATS {}; {}; {} rounds of {} s, brokers in turn; {}.\n",
        word("commit"),
        word("mosquitto"),
        word("nats"),
        word("machine"),
        table["rounds"],
        table["seconds"],
        word("date"),
    )?;
    programs(table, &mut out)?;
    let rows = table["rows"].as_array().context("no rows")?;
    ensure!(!rows.is_empty(), "no rows");
    let mut section = "";
    for row in rows {
        let of = row["section"].as_str().unwrap_or_default();
        let is_alone = matches!(of, MEMORY | "Cluster");
        if of != section {
            section = of;
            writeln!(out, "\n### {section}\n")?;
            if is_alone {
                out += "| what | figure | goal | load |\n|---|---|---|---|\n";
            } else {
                let titles: Vec<&str> = COLUMNS.iter().map(|(_, title)| *title).collect();
                writeln!(out, "| what | {} | goal | load |", titles.join(" | "))?;
                writeln!(out, "|---|{}---|---|", "---|".repeat(titles.len()))?;
            }
        }
        let targets = row["result"]["targets"].as_array().context("no targets")?;
        write!(out, "| {} |", row["name"].as_str().unwrap_or_default())?;
        if is_alone {
            write!(
                out,
                " {} |",
                targets
                    .first()
                    .map_or_else(String::new, |only| cell(of, only))
            )?;
        } else {
            for (name, _) in COLUMNS {
                let target = targets.iter().find(|target| target["target"] == name);
                write!(
                    out,
                    " {} |",
                    target.map_or_else(|| "–".to_owned(), |one| cell(of, one))
                )?;
            }
        }
        let goal = row["goal"].as_f64();
        let missed = goal.zip(targets.first().and_then(|first| judged(of, first)));
        let missed = missed.is_some_and(|(goal, figure)| figure > goal);
        let goal = goal.map_or_else(|| "–".to_owned(), |goal| goal.to_string());
        let load = row["result"]["load"]
            .as_f64()
            .map_or_else(String::new, |load| format!("{load:.1}"));
        writeln!(
            out,
            " {goal}{} | {load} |",
            if missed { ", **missed**" } else { "" }
        )?;
    }
    out.push('\n');
    Ok(out)
}

fn programs(table: &Value, out: &mut String) -> anyhow::Result<()> {
    *out += "| what | Dunlin | Mosquitto | NATS | goal |\n|---|---|---|---|---|\n";
    let brokers = table["brokers"].as_array().context("no brokers")?;
    for (title, key, unit, divisor, goal) in [
        ("program, stripped", "program_bytes", "MB", 1e6, "25 MB"),
        (
            "command to listening, median of 10",
            "start_ms",
            "ms",
            1.0,
            "150 ms",
        ),
        ("resident memory, idle", "idle_bytes", "MB", 1e6, "15 MB"),
    ] {
        write!(out, "| {title} |")?;
        for broker in brokers {
            let value = broker[key].as_f64().unwrap_or_default() / divisor;
            write!(out, " {value:.1} {unit} |")?;
        }
        writeln!(out, " {goal} |")?;
    }
    Ok(())
}

/// What the goal is about.
fn judged(section: &str, target: &Value) -> Option<f64> {
    let key = if section == MEMORY {
        "unit_bytes"
    } else {
        "cpu_us"
    };
    target[key].as_f64()
}

fn cell(section: &str, target: &Value) -> String {
    let number = |key: &str| target[key].as_f64();
    let mut text = String::new();
    let latency = &target["latency_ms"];
    if let (Some(p50), Some(p99)) = (latency["p50"].as_f64(), latency["p99"].as_f64()) {
        let _ = write!(text, "{p50:.2} / {p99:.2} ms");
    } else if let (Some(bytes), true) = (number("unit_bytes"), section == MEMORY) {
        let _ = write!(text, "{bytes:.0} B");
    }
    if let (Some(cpu), true) = (number("cpu_us"), text.is_empty()) {
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

fn plots(root: &Path, scale: &Value) -> anyhow::Result<String> {
    let rows = scale["rows"].as_array().context("no rows")?;
    let mut out = format!(
        "### Growth\n\nMeasured by `scripts/scale` at {} on {}.\n\n",
        scale["commit"].as_str().unwrap_or("?"),
        scale["date"].as_str().unwrap_or("?"),
    );
    for (file, title, (x_axis, y_axis), lines) in PLOTS {
        let lines: Vec<Line> = lines
            .iter()
            .map(|(label, series, figure)| Line {
                label,
                points: points(rows, series, figure),
            })
            .filter(|line| !line.points.is_empty())
            .collect();
        if lines.is_empty() {
            continue;
        }
        let plot = Plot {
            title,
            x_axis,
            y_axis,
            lines,
        };
        let path = format!("docs/performance/{file}.svg");
        fs::write(root.join(&path), plot.svg()).with_context(|| path.clone())?;
        writeln!(out, "![{title}](performance/{file}.svg)\n")?;
    }
    Ok(out)
}

fn points(rows: &[Value], series: &str, figure: &str) -> Vec<(f64, f64)> {
    let of_series = rows.iter().filter(|row| row["series"] == series);
    let point = |row: &Value| {
        let figure = row["result"]["targets"][0][figure].as_f64()?;
        Some((row["x"].as_f64()?, figure))
    };
    of_series
        .filter_map(point)
        .filter(|&(x, y)| x > 0.0 && y > 0.0)
        .collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_row_says_what_was_measured_and_whether_the_goal_is_missed() {
        let target = |name: &str, cpu: f64| {
            json!({
                "target": name, "cpu_us": cpu, "thousand_per_second": 1234.5, "unit_bytes": null,
                "latency_ms": null, "faults": { "lost": 2, "duplicated": 0, "reordered": 0 },
                "cpu_ratio": { "median": 2.0, "min": 1.5, "max": 2.5 },
            })
        };
        let table = json!({
            "brokers": [],
            "rows": [{
                "section": "Message path", "name": "1 → 1", "goal": 0.7,
                "result": {
                    "load": 1.25,
                    "targets": [target("dunlin", 0.801), target("null", 0.2)],
                },
            }],
        });
        let text = tables(&table).expect("a table");
        let row = "| 1 → 1 | 0.80 (1234), 2 lost | – | – | 0.20 (1234) ×1.50–2.50, 2 lost | \
                   0.7, **missed** | 1.2 |";
        assert!(text.contains(row), "{text}");
    }
}
