//! Evacuating and rebalancing nodes: their state, start and stop, and what load balancers ask.

use axum::Json;
use axum::body::Bytes;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use dunlin_server::admin::{
    AdminError, Averages, DonorRow, EvacuationOptions, EvacuationRow, RebalanceOptions,
    RebalanceRow,
};
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
    let evacuation = api
        .admin
        .evacuation()
        .map(|row| ("evacuation", fields(&row)));
    let donor = || {
        api.admin
            .donor()
            .map(|row| ("rebalance", donor_fields(&row)))
    };
    let Some((process, mut item)) = evacuation.or_else(donor) else {
        return Json(json!({ "status": "disabled" }));
    };
    item.insert("status".to_owned(), "enabled".into());
    item.insert("process".to_owned(), process.into());
    Json(item.into())
}

pub(crate) async fn global_status(State(api): State<Api>) -> Json<Value> {
    let item = |node: &str, mut item: Map<String, Value>| {
        item.insert("node".to_owned(), node.into());
        Value::from(item)
    };
    let evacuations = api.admin.evacuations().await;
    let evacuations = evacuations.iter().map(|row| item(&row.node, fields(row)));
    let evacuations: Vec<Value> = evacuations.collect();
    let rebalances = api.admin.rebalances().await;
    let rebalances = rebalances
        .iter()
        .map(|row| item(&row.node, coordinator_fields(row)));
    let rebalances: Vec<Value> = rebalances.collect();
    Json(json!({ "evacuations": evacuations, "purges": [], "rebalances": rebalances }))
}

pub(crate) async fn start_evacuation(
    State(api): State<Api>,
    Path(node): Path<String>,
    body: Bytes,
) -> Result<Json<Value>, Refusal> {
    let options = evacuation_options(&body)?;
    answer(api.admin.start_evacuation(&node, options).await, &node)
}

pub(crate) async fn stop_evacuation(
    State(api): State<Api>,
    Path(node): Path<String>,
) -> Result<Json<Value>, Refusal> {
    answer(api.admin.stop_evacuation(&node).await, &node)
}

pub(crate) async fn start(
    State(api): State<Api>,
    Path(node): Path<String>,
    body: Bytes,
) -> Result<Json<Value>, Refusal> {
    let options = rebalance_options(&body)?;
    answer(api.admin.start_rebalance(&node, options).await, &node)
}

pub(crate) async fn stop(
    State(api): State<Api>,
    Path(node): Path<String>,
) -> Result<Json<Value>, Refusal> {
    answer(api.admin.stop_rebalance(&node).await, &node)
}

fn answer(done: Result<(), AdminError>, node: &str) -> Result<Json<Value>, Refusal> {
    match done {
        Ok(()) => Ok(Json(json!({}))),
        Err(error) => Err(refused(error, node)),
    }
}

/// EMQX's term as the message, since scripts match it, and our reason beside it.
fn refused(error: AdminError, node: &str) -> Refusal {
    let term = match &error {
        AdminError::RebalanceEnabled { .. } => "already_started",
        AdminError::RebalanceDisabled { .. } => "not_enabled",
        AdminError::MigrateTo { .. } | AdminError::RebalanceNodes { .. } => "unavailable_nodes",
        AdminError::NothingToBalance => "nothing_to_balance",
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
    map(item)
}

fn coordinator_fields(row: &RebalanceRow) -> Map<String, Value> {
    let mut fields = map(json!({
        "state": row.state,
        "coordinator_node": row.node,
        "connection_eviction_rate": row.options.conn_evict_rate,
        "session_eviction_rate": row.options.sess_evict_rate,
        "donors": row.donors,
        "recipients": row.recipients,
    }));
    insert_goals(&mut fields, row.goals);
    insert(
        &mut fields,
        "donor_conn_avg",
        row.donor_averages.connections,
    );
    insert(&mut fields, "donor_sess_avg", row.donor_averages.sessions);
    fields
}

fn donor_fields(row: &DonorRow) -> Map<String, Value> {
    let DonorRow {
        order,
        initial,
        current,
        ..
    } = row;
    let mut fields = map(json!({
        "state": order.stage.as_str(),
        "coordinator_node": order.coordinator,
        "connection_eviction_rate": order.rates.connections,
        "session_eviction_rate": order.rates.sessions,
        "recipients": order.recipients,
        "stats": {
            "initial_connected": initial.connected,
            "current_connected": current.connected,
            "initial_sessions": initial.connected + initial.sessions,
            "current_sessions": current.connected + current.sessions,
            "current_disconnected_sessions": current.sessions,
        },
    }));
    insert_goals(&mut fields, order.goals);
    fields
}

fn insert_goals(fields: &mut Map<String, Value>, goals: Averages) {
    insert(fields, "connection_goal", goals.connections);
    insert(fields, "disconnected_session_goal", goals.sessions);
}

/// Averages are left out while they do not matter yet.
fn insert(fields: &mut Map<String, Value>, name: &str, average: Option<f64>) {
    if let Some(average) = average {
        fields.insert(name.to_owned(), average.into());
    }
}

fn map(item: Value) -> Map<String, Value> {
    match item {
        Value::Object(fields) => fields,
        _ => Map::new(),
    }
}

/// The body of a start; all of it may be left out.
fn fields_of(body: &[u8]) -> Result<Map<String, Value>, Refusal> {
    if body.is_empty() {
        return Ok(Map::new());
    }
    serde_json::from_slice(body)
        .map_err(|error| Refusal::bad_request(format!("The body is no JSON object: {error}")))
}

fn rebalance_options(body: &[u8]) -> Result<RebalanceOptions, Refusal> {
    let mut options = RebalanceOptions::default();
    let (connections, sessions) = (&mut options.conn_threshold, &mut options.sess_threshold);
    for (key, value) in &fields_of(body)? {
        match key.as_str() {
            "wait_health_check" => options.wait_health_check_s = seconds(key, value)?,
            "wait_takeover" => options.wait_takeover_s = seconds(key, value)?,
            "conn_evict_rate" => options.conn_evict_rate = whole(key, value)?,
            "sess_evict_rate" => options.sess_evict_rate = whole(key, value)?,
            "abs_conn_threshold" => connections.absolute = whole(key, value)?,
            "rel_conn_threshold" => connections.relative = fraction(key, value)?,
            "abs_sess_threshold" => sessions.absolute = whole(key, value)?,
            "rel_sess_threshold" => sessions.relative = fraction(key, value)?,
            "nodes" => options.nodes = names(key, value)?,
            _ => {
                let known = "wait_health_check, conn_evict_rate, abs_conn_threshold, \
                    rel_conn_threshold, wait_takeover, sess_evict_rate, abs_sess_threshold, \
                    rel_sess_threshold, nodes";
                return Err(unknown(key, known));
            }
        }
    }
    Ok(options)
}

fn evacuation_options(body: &[u8]) -> Result<EvacuationOptions, Refusal> {
    let mut options = EvacuationOptions::default();
    for (key, value) in &fields_of(body)? {
        match key.as_str() {
            "wait_health_check" => options.wait_health_check_s = seconds(key, value)?,
            "wait_takeover" => options.wait_takeover_s = seconds(key, value)?,
            "conn_evict_rate" => options.conn_evict_rate = whole(key, value)?,
            "sess_evict_rate" => options.sess_evict_rate = whole(key, value)?,
            "redirect_to" => {
                let text = value.as_str();
                let text = text.ok_or_else(|| wrong(key, "a string, \"host:port host:port\""))?;
                options.redirect_to = Some(text.to_owned());
            }
            "migrate_to" => options.migrate_to = names(key, value)?,
            _ => {
                let known = "wait_health_check, redirect_to, conn_evict_rate, migrate_to, \
                    wait_takeover, sess_evict_rate";
                return Err(unknown(key, known));
            }
        }
    }
    Ok(options)
}

fn unknown(key: &str, known: &str) -> Refusal {
    Refusal::bad_request(format!("unknown field {key}; known are {known}"))
}

fn names(key: &str, value: &Value) -> Result<Vec<String>, Refusal> {
    let names = value.as_array().map(|nodes| {
        let name = |node: &Value| node.as_str().map(str::to_owned);
        nodes.iter().map(name).collect::<Option<Vec<_>>>()
    });
    names
        .flatten()
        .ok_or_else(|| wrong(key, "a list of node names"))
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

fn fraction(key: &str, value: &Value) -> Result<f64, Refusal> {
    let fraction = value.as_f64().filter(|fraction| *fraction > 1.0);
    fraction.ok_or_else(|| wrong(key, "a number above 1.0"))
}

fn whole(key: &str, value: &Value) -> Result<u64, Refusal> {
    let whole = value.as_u64().filter(|whole| *whole > 0);
    whole.ok_or_else(|| wrong(key, "a whole number above 0"))
}

fn wrong(key: &str, wanted: &str) -> Refusal {
    Refusal::bad_request(format!("{key} must be {wanted}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use dunlin_server::admin::Threshold;

    #[track_caller]
    fn check(body: &str, expected: Result<EvacuationOptions, &str>) {
        let read = evacuation_options(body.as_bytes()).map_err(|refusal| refusal.message);
        assert_eq!(read, expected.map_err(str::to_owned));
    }

    #[test]
    fn bodies_of_an_evacuation() {
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

    #[test]
    fn bodies_of_a_rebalance() {
        let check = |body: &str, expected: Result<RebalanceOptions, &str>| {
            let read = rebalance_options(body.as_bytes()).map_err(|refusal| refusal.message);
            assert_eq!(read, expected.map_err(str::to_owned));
        };
        check("", Ok(RebalanceOptions::default()));
        let all = r#"{"wait_health_check":"2s","conn_evict_rate":10,"abs_conn_threshold":5,
            "rel_conn_threshold":1.5,"wait_takeover":3,"sess_evict_rate":4,
            "abs_sess_threshold":6,"rel_sess_threshold":2,"nodes":["a@h","b@h"]}"#;
        check(
            all,
            Ok(RebalanceOptions {
                wait_health_check_s: 2,
                conn_evict_rate: 10,
                conn_threshold: Threshold {
                    absolute: 5,
                    relative: 1.5,
                },
                wait_takeover_s: 3,
                sess_evict_rate: 4,
                sess_threshold: Threshold {
                    absolute: 6,
                    relative: 2.0,
                },
                nodes: vec!["a@h".to_owned(), "b@h".to_owned()],
            }),
        );
        let above = "rel_conn_threshold must be a number above 1.0";
        check(r#"{"rel_conn_threshold":1.0}"#, Err(above));
        let whole = "abs_sess_threshold must be a whole number above 0";
        check(r#"{"abs_sess_threshold":0.5}"#, Err(whole));
    }
}
