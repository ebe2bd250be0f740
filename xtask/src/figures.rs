//! Tables and plots of docs/performance.md, made of what `scripts/measure`,
//! `scripts/measure-cluster` and `scripts/scale` wrote: nobody copies figures by hand, and whoever
//! doubts one finds every round of it.

use std::fmt::Write;
use std::fs;
use std::path::Path;

use anyhow::Context;
use serde_json::Value;

use crate::plot::{Line, Plot};
use crate::tables;

const PAGE: &str = "docs/performance.md";
const TABLE: &str = "docs/performance/table.json";
const CLUSTER: &str = "docs/performance/cluster.json";
const SCALE: &str = "docs/performance/scale.json";
const BEGIN: &str = "<!-- figures: written by `cargo xtask figures` -->";
const END: &str = "<!-- end of figures -->";
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
    let mut text = tables::all(&json(root, TABLE)?, &json(root, CLUSTER)?)?;
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
