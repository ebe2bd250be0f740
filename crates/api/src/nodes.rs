//! The members of the cluster with their figures.

use axum::Json;
use axum::extract::{Path, State};
use dunlin_server::admin::NodeRow;
use serde_json::{Value, json};

use crate::Api;
use crate::refusal::Refusal;

pub(crate) async fn list(State(api): State<Api>) -> Result<Json<Value>, Refusal> {
    let mut rows = api.admin.nodes().await?;
    // Running ones first, as EMQX lists them.
    rows.sort_by(|a, b| (is_stopped(a), &a.node).cmp(&(is_stopped(b), &b.node)));
    Ok(Json(rows.iter().map(item).collect()))
}

pub(crate) async fn one(
    State(api): State<Api>,
    Path(node): Path<String>,
) -> Result<Json<Value>, Refusal> {
    Ok(Json(item(&api.admin.node(&node).await?)))
}

fn is_stopped(row: &NodeRow) -> bool {
    row.node_status == "stopped"
}

fn item(row: &NodeRow) -> Value {
    if is_stopped(row) {
        return json!({ "node": row.node, "node_status": row.node_status, "role": "core" });
    }
    let log_path = row.log_path.as_deref();
    let mut item = json!({
        "node": row.node,
        "node_status": row.node_status,
        "role": "core",
        "version": row.version,
        "edition": "Opensource",
        "uptime": row.uptime_ms,
        "connections": row.connections,
        "live_connections": row.live_connections,
        "cluster_sessions": row.cluster_sessions,
        "load1": hundredths(row.load[0]),
        "load5": hundredths(row.load[1]),
        "load15": hundredths(row.load[2]),
        "max_fds": row.max_fds,
        "memory_total": memory(row.memory_total_bytes),
        "memory_used": memory(row.memory_used_bytes),
        // Of an Erlang machine; scripts read them, so they have a number that makes sense.
        "process_used": row.threads,
        "process_available": row.max_fds,
        "otp_release": "none",
        "log_path": log_path.unwrap_or("log.file.enable is false, not logging to file."),
        "sys_path": row.sys_path,
    });
    if row.memory_process_bytes > 0 {
        // Not EMQX's: what the process itself takes, in bytes; known of this node only.
        item["memory_process"] = row.memory_process_bytes.into();
    }
    item
}

fn hundredths(load: f64) -> f64 {
    (load * 100.0).round() / 100.0
}

/// Bytes as EMQX shows them: `7.63G`, `512.00M`.
fn memory(bytes: u64) -> String {
    const KIB: f64 = 1024.0;
    let bytes = bytes as f64;
    let (unit, size) = if bytes >= KIB * KIB * KIB {
        ("G", KIB * KIB * KIB)
    } else if bytes >= KIB * KIB {
        ("M", KIB * KIB)
    } else {
        ("K", KIB)
    };
    format!("{:.2}{unit}", bytes / size)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_as_emqx_shows_it() {
        assert_eq!(memory(512 << 20), "512.00M");
        assert_eq!(memory(8_192_750_000), "7.63G");
        assert_eq!(memory(2048), "2.00K");
    }
}
