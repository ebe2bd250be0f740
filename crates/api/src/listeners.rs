//! Listeners. A listener belongs to its node: what is started and stopped here is this node's.

use axum::Json;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use dunlin_server::admin::ListenerRow;
use serde_json::{Value, json};

use crate::refusal::Refusal;
use crate::{Api, DONE};

pub(crate) async fn list(State(api): State<Api>) -> Json<Value> {
    let node = api.admin.status().node;
    Json(
        api.admin
            .listeners()
            .iter()
            .map(|row| item(row, &node))
            .collect(),
    )
}

pub(crate) async fn one(
    State(api): State<Api>,
    Path(id): Path<String>,
) -> Result<Json<Value>, Refusal> {
    Ok(Json(item(
        &api.admin.listener(&id)?,
        &api.admin.status().node,
    )))
}

pub(crate) async fn act(
    State(api): State<Api>,
    Path((id, action)): Path<(String, String)>,
) -> Result<StatusCode, Refusal> {
    match action.as_str() {
        "start" => api.admin.start_listener(&id).await?,
        "stop" => api.admin.stop_listener(&id).await?,
        "restart" => api.admin.restart_listener(&id).await?,
        _ => return Err(Refusal::path_not_found()),
    }
    Ok(DONE)
}

fn item(row: &ListenerRow, node: &str) -> Value {
    let max = row
        .max_connections
        .map_or_else(|| json!("infinity"), |max| json!(max));
    let status = json!({
        "running": row.running,
        "current_connections": row.current_connections,
        "max_connections": max,
    });
    json!({
        "id": row.id,
        "type": row.kind,
        "name": row.name,
        "bind": row.bind,
        "acceptors": row.acceptors,
        "enable": row.enable,
        "number": 1,
        "running": row.running,
        "current_connections": row.current_connections,
        "proxy_protocol": row.proxy_protocol,
        "status": status,
        "node_status": [{ "node": node, "status": status }],
    })
}
