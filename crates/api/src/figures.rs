//! Gauges ("stats") and counters ("metrics"), as JSON and for Prometheus.

use std::collections::BTreeMap;
use std::fmt::Write;

use axum::Json;
use axum::extract::{Path, State};
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use dunlin_server::admin::{Figures, Scope};
use serde_json::{Value, json};

use crate::Api;
use crate::page::Pairs;
use crate::refusal::Refusal;

pub(crate) async fn stats(State(api): State<Api>, query: Pairs) -> Result<Json<Value>, Refusal> {
    let aggregate = query.truth("aggregate")?.unwrap_or(false);
    Ok(Json(render(
        &api.admin.stats(Scope::Cluster).await?,
        aggregate,
    )))
}

pub(crate) async fn metrics(State(api): State<Api>, query: Pairs) -> Result<Json<Value>, Refusal> {
    let aggregate = query.truth("aggregate")?.unwrap_or(false);
    Ok(Json(render(
        &api.admin.metrics(Scope::Cluster).await?,
        aggregate,
    )))
}

pub(crate) async fn node_stats(
    State(api): State<Api>,
    Path(node): Path<String>,
) -> Result<Json<Value>, Refusal> {
    Ok(Json(render(
        &api.admin.stats(Scope::Node(node)).await?,
        true,
    )))
}

pub(crate) async fn node_metrics(
    State(api): State<Api>,
    Path(node): Path<String>,
) -> Result<Json<Value>, Refusal> {
    Ok(Json(render(
        &api.admin.metrics(Scope::Node(node)).await?,
        true,
    )))
}

/// One object with sums, or one object per node with its name.
fn render(nodes: &[Figures], aggregate: bool) -> Value {
    if aggregate {
        return json!(sum(nodes));
    }
    let with_name = |node: &Figures| {
        let mut item = json!(node.values);
        item["node"] = node.node.clone().into();
        item
    };
    nodes.iter().map(with_name).collect()
}

/// These count the whole cluster on every node, so adding them up would count twice.
const CLUSTER_WIDE: &[&str] = &[
    "cluster_sessions",
    "retained",
    "topics",
    "subscriptions.shared",
    "durable_subscriptions",
];

fn sum(nodes: &[Figures]) -> BTreeMap<&str, u64> {
    let mut sums: BTreeMap<&str, u64> = BTreeMap::new();
    for (name, value) in nodes.iter().flat_map(|node| &node.values) {
        let sum = sums.entry(name).or_default();
        let family = name
            .strip_suffix(".count")
            .or_else(|| name.strip_suffix(".max"));
        if family.is_some_and(|family| CLUSTER_WIDE.contains(&family)) {
            *sum = (*sum).max(*value);
        } else {
            *sum += value;
        }
    }
    sums
}

/// How nodes appear in the metrics.
enum Mode {
    /// This node only, without a label.
    Node,
    /// The sum of all nodes.
    Aggregated,
    /// Every node, with a `node` label.
    Unaggregated,
}

pub(crate) async fn prometheus(State(api): State<Api>, query: Pairs) -> Result<Response, Refusal> {
    let mode = match query.get("mode") {
        None | Some("node") => Mode::Node,
        Some("all_nodes_aggregated") => Mode::Aggregated,
        Some("all_nodes_unaggregated") => Mode::Unaggregated,
        Some(_) => {
            let modes = "mode must be one of node, all_nodes_aggregated, all_nodes_unaggregated";
            return Err(Refusal::bad_request(modes));
        }
    };
    let scope = if matches!(mode, Mode::Node) {
        Scope::Local
    } else {
        Scope::Cluster
    };
    let stats = api.admin.stats(scope.clone()).await?;
    let metrics = api.admin.metrics(scope).await?;
    let cluster = api.admin.cluster_status().await?;
    let mut text = String::new();
    family(
        &mut text,
        "emqx_cluster_nodes_running",
        "gauge",
        [("", cluster.running.len() as u64)],
    );
    family(
        &mut text,
        "emqx_cluster_nodes_stopped",
        "gauge",
        [("", cluster.stopped.len() as u64)],
    );
    samples(&mut text, &stats, "gauge", &mode);
    samples(&mut text, &metrics, "counter", &mode);
    Ok(([(CONTENT_TYPE, "text/plain")], text).into_response())
}

fn samples(text: &mut String, nodes: &[Figures], kind: &str, mode: &Mode) {
    if matches!(mode, Mode::Node | Mode::Aggregated) {
        for (name, value) in sum(nodes) {
            family(text, &prometheus_name(name), kind, [("", value)]);
        }
        return;
    }
    let mut families: BTreeMap<&str, Vec<(&str, u64)>> = BTreeMap::new();
    for node in nodes {
        for (name, value) in &node.values {
            families.entry(name).or_default().push((&node.node, *value));
        }
    }
    for (name, values) in families {
        family(text, &prometheus_name(name), kind, values);
    }
}

/// One metric in EMQX's layout: TYPE, then an empty HELP with its trailing space, then values.
fn family<'a>(
    text: &mut String,
    name: &str,
    kind: &str,
    values: impl IntoIterator<Item = (&'a str, u64)>,
) {
    let _ = writeln!(text, "# TYPE {name} {kind}\n# HELP {name} ");
    for (node, value) in values {
        let _ = if node.is_empty() {
            writeln!(text, "{name} {value}")
        } else {
            writeln!(text, "{name}{{node=\"{node}\"}} {value}")
        };
    }
}

/// EMQX's names: dots become underscores, with two exceptions that its Grafana boards rely on.
fn prometheus_name(name: &str) -> String {
    match name {
        "packets.connect.received" => "emqx_packets_connect".to_owned(),
        "messages.dropped.await_pubrel_timeout" => "emqx_messages_dropped_expired".to_owned(),
        _ => format!("emqx_{}", name.replace('.', "_")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn figures(node: &str, values: &[(&str, u64)]) -> Figures {
        Figures {
            node: node.to_owned(),
            values: values
                .iter()
                .map(|&(name, value)| (name.to_owned(), value))
                .collect(),
        }
    }

    fn two() -> [Figures; 2] {
        [
            figures("a@h", &[("connections.count", 2), ("retained.count", 7)]),
            figures("b@h", &[("connections.count", 3), ("retained.count", 7)]),
        ]
    }

    #[test]
    fn sums_do_not_count_cluster_wide_gauges_twice() {
        assert_eq!(
            render(&two(), true),
            json!({ "connections.count": 5, "retained.count": 7 })
        );
    }

    #[test]
    fn per_node_rows_carry_their_node() {
        let rows = render(&two(), false);
        assert_eq!(rows[1]["node"], json!("b@h"));
        assert_eq!(rows[1]["connections.count"], json!(3));
    }

    #[test]
    fn prometheus_text() {
        let mut text = String::new();
        samples(&mut text, &two()[..1], "gauge", &Mode::Node);
        assert_eq!(
            text,
            "# TYPE emqx_connections_count gauge\n# HELP emqx_connections_count \n\
             emqx_connections_count 2\n\
             # TYPE emqx_retained_count gauge\n# HELP emqx_retained_count \n\
             emqx_retained_count 7\n"
        );
        let mut text = String::new();
        samples(&mut text, &two(), "gauge", &Mode::Unaggregated);
        assert!(
            text.contains("emqx_connections_count{node=\"b@h\"} 3\n"),
            "{text}"
        );
        assert_eq!(
            prometheus_name("packets.connect.received"),
            "emqx_packets_connect"
        );
    }
}
