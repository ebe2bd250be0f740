//! Evacuating nodes: their state, start and stop, and what load balancers ask.

use axum::Json;
use axum::body::Bytes;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use dunlin_server::admin::{AdminError, EvacuationOptions, EvacuationRow};
use serde_json::{Map, Value, json};

use crate::Api;
use crate::refusal::Refusal;

/// Whether clients may be sent to this node. Needs no login: load balancers have none.
pub(crate) async fn availability(State(api): State<Api>) -> Result<Json<Value>, Refusal> {
    if api.admin.is_available() {
        return Ok(Json(json!({})));
    }
    let status = StatusCode::SERVICE_UNAVAILABLE;
    Err(Refusal::new(status, "NODE_EVACUATING", "Node Evacuating"))
}

pub(crate) async fn status(State(api): State<Api>) -> Json<Value> {
    let Some(row) = api.admin.evacuation() else {
        return Json(json!({ "status": "disabled" }));
    };
    let mut item = fields(&row);
    item.insert("status".to_owned(), "enabled".into());
    item.insert("process".to_owned(), "evacuation".into());
    Json(item.into())
}

pub(crate) async fn global_status(State(api): State<Api>) -> Json<Value> {
    let rows = api.admin.evacuations().await;
    let item = |row: &EvacuationRow| {
        let mut item = fields(row);
        item.insert("node".to_owned(), row.node.clone().into());
        Value::from(item)
    };
    let evacuations: Vec<Value> = rows.iter().map(item).collect();
    Json(json!({ "evacuations": evacuations, "purges": [], "rebalances": [] }))
}

pub(crate) async fn start(
    State(api): State<Api>,
    Path(node): Path<String>,
    body: Bytes,
) -> Result<Json<Value>, Refusal> {
    let options = options(&body)?;
    match api.admin.start_evacuation(&node, options).await {
        Ok(()) => Ok(Json(json!({}))),
        Err(error) => Err(refused(error, &node)),
    }
}

pub(crate) async fn stop(
    State(api): State<Api>,
    Path(node): Path<String>,
) -> Result<Json<Value>, Refusal> {
    match api.admin.stop_evacuation(&node).await {
        Ok(()) => Ok(Json(json!({}))),
        Err(error) => Err(refused(error, &node)),
    }
}

/// EMQX's term as the message, since scripts match it, and our reason beside it.
fn refused(error: AdminError, node: &str) -> Refusal {
    let term = match &error {
        AdminError::RebalanceEnabled { .. } => "already_started",
        AdminError::RebalanceDisabled { .. } => "not_enabled",
        AdminError::MigrateTo { .. } => "unavailable_nodes",
        _ => return error.into(),
    };
    Refusal::bad_request(format!("error on node {node}: {term}")).because(&error)
}

fn fields(row: &EvacuationRow) -> Map<String, Value> {
    let item = json!({
        "state": row.state,
        "connection_eviction_rate": row.options.conn_evict_rate,
        "session_eviction_rate": row.options.sess_evict_rate,
        "connection_goal": 0,
        "session_goal": 0,
        "session_recipients": row.options.migrate_to,
        "stats": {
            "initial_connected": row.initial.connected,
            "current_connected": row.current.connected,
            "initial_sessions": row.initial.sessions,
            "current_sessions": row.current.sessions,
        },
    });
    match item {
        Value::Object(fields) => fields,
        _ => Map::new(),
    }
}

/// The body of a start; all of it may be left out.
fn options(body: &[u8]) -> Result<EvacuationOptions, Refusal> {
    let mut options = EvacuationOptions::default();
    if body.is_empty() {
        return Ok(options);
    }
    let body: Map<String, Value> = serde_json::from_slice(body)
        .map_err(|error| Refusal::bad_request(format!("The body is no JSON object: {error}")))?;
    for (key, value) in &body {
        match key.as_str() {
            "wait_health_check" => options.wait_health_check_s = seconds(key, value)?,
            "wait_takeover" => options.wait_takeover_s = seconds(key, value)?,
            "conn_evict_rate" => options.conn_evict_rate = rate(key, value)?,
            "sess_evict_rate" => options.sess_evict_rate = rate(key, value)?,
            "redirect_to" => {
                let text = value.as_str();
                let text = text.ok_or_else(|| wrong(key, "a string, \"host:port host:port\""))?;
                options.redirect_to = Some(text.to_owned());
            }
            "migrate_to" => {
                let names = value.as_array().map(|nodes| {
                    let name = |node: &Value| node.as_str().map(str::to_owned);
                    nodes.iter().map(name).collect::<Option<Vec<_>>>()
                });
                let names = names.flatten();
                options.migrate_to = names.ok_or_else(|| wrong(key, "a list of node names"))?;
            }
            _ => {
                let message = format!(
                    "unknown field {key}; known are wait_health_check, redirect_to, \
                     conn_evict_rate, migrate_to, wait_takeover, sess_evict_rate"
                );
                return Err(Refusal::bad_request(message));
            }
        }
    }
    Ok(options)
}

/// A number of seconds, or a text with one: `60`, `"60s"`, `"1m"`.
fn seconds(key: &str, value: &Value) -> Result<u64, Refusal> {
    let of_text = |text: &str| {
        let (number, unit) = text.split_at(text.find(|c: char| !c.is_ascii_digit())?);
        let factor = match unit {
            "s" => 1,
            "m" => 60,
            "h" => 3_600,
            _ => return None,
        };
        number.parse::<u64>().ok()?.checked_mul(factor)
    };
    let seconds = value.as_u64().or_else(|| of_text(value.as_str()?));
    seconds.ok_or_else(|| wrong(key, "seconds: 60, \"60s\" or \"1m\""))
}

fn rate(key: &str, value: &Value) -> Result<u64, Refusal> {
    let rate = value.as_u64().filter(|rate| *rate > 0);
    rate.ok_or_else(|| wrong(key, "a whole number above 0"))
}

fn wrong(key: &str, wanted: &str) -> Refusal {
    Refusal::bad_request(format!("{key} must be {wanted}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(body: &str, expected: Result<EvacuationOptions, &str>) {
        let read = options(body.as_bytes()).map_err(|refusal| refusal.message);
        assert_eq!(read, expected.map_err(str::to_owned));
    }

    #[test]
    fn bodies_of_a_start() {
        check("", Ok(EvacuationOptions::default()));
        check("{}", Ok(EvacuationOptions::default()));
        let all = r#"{"wait_health_check":"2m","redirect_to":"b:1883","conn_evict_rate":10,
            "migrate_to":["b@h"],"wait_takeover":3,"sess_evict_rate":4}"#;
        check(
            all,
            Ok(EvacuationOptions {
                wait_health_check_s: 120,
                redirect_to: Some("b:1883".to_owned()),
                conn_evict_rate: 10,
                migrate_to: vec!["b@h".to_owned()],
                wait_takeover_s: 3,
                sess_evict_rate: 4,
            }),
        );
        let whole = "conn_evict_rate must be a whole number above 0";
        check(r#"{"conn_evict_rate":0}"#, Err(whole));
        let seconds = "wait_takeover must be seconds: 60, \"60s\" or \"1m\"";
        check(r#"{"wait_takeover":"soon"}"#, Err(seconds));
        check(
            r#"{"migrate_to":"b"}"#,
            Err("migrate_to must be a list of node names"),
        );
    }
}
