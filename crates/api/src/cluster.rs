//! The cluster: who is in it, inviting a node, removing one.

use std::time::{SystemTime, UNIX_EPOCH};

use axum::Json;
use axum::body::Bytes;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use dunlin_server::admin::{AdminError, LeaveOutcome, OperationError};
use serde_json::{Value, json};

use crate::refusal::Refusal;
use crate::{Api, DONE, term};

/// How long an invited node may take to join when the caller does not say.
const INVITE_MS: u64 = 15_000;
/// The least a caller may say.
const INVITE_MS_MIN: u64 = 5_000;

pub(crate) async fn get(State(api): State<Api>) -> Result<Json<Value>, Refusal> {
    let status = api.admin.cluster_status().await?;
    Ok(Json(json!({
        "name": status.name,
        "nodes": status.running,
        "self": status.self_node,
    })))
}

pub(crate) async fn topology(State(api): State<Api>) -> Result<Json<Value>, Refusal> {
    let status = api.admin.cluster_status().await?;
    let node = |name: &String| json!({ "core_node": name, "replicant_nodes": [] });
    Ok(Json(status.running.iter().map(node).collect()))
}

pub(crate) async fn invite(
    State(api): State<Api>,
    Path(node): Path<String>,
    body: Bytes,
) -> Result<StatusCode, Refusal> {
    let timeout_ms = timeout_ms(&body)?;
    if node.split('@').count() != 2 {
        return Err(Refusal::bad_request("Bad node name"));
    }
    if node == api.admin.status().node {
        return Err(Refusal::bad_request("Cannot invite self"));
    }
    match api.admin.invite(&node, timeout_ms).await {
        Ok(_) => Ok(StatusCode::OK),
        Err(error) => Err(refused(error, &node)),
    }
}

/// Answers at once; `GET /cluster/invitation` shows what comes of it.
pub(crate) async fn invite_async(
    State(api): State<Api>,
    Path(node): Path<String>,
    body: Bytes,
) -> Result<StatusCode, Refusal> {
    let timeout_ms = timeout_ms(&body)?;
    if node.split('@').count() != 2 {
        return Err(Refusal::bad_request("Bad node name"));
    }
    if node == api.admin.status().node {
        return Err(Refusal::bad_request("Can't invite self"));
    }
    if !api.invitations(|list| list.begin(&node, wall_ms())) {
        let message = "The invitation task already created for this node";
        return Err(Refusal::bad_request(message));
    }
    tokio::spawn(async move {
        let result = api.admin.invite(&node, timeout_ms).await;
        let reason = match result {
            Ok(_) | Err(AdminError::Cluster(OperationError::AlreadyInCluster { .. })) => None,
            Err(error) => Some(error.to_string()),
        };
        api.invitations(|list| list.end(&node, wall_ms(), reason));
    });
    Ok(StatusCode::OK)
}

pub(crate) async fn invitation(State(api): State<Api>) -> Json<Value> {
    Json(api.invitations(|list| list.to_json()))
}

fn wall_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |since| since.as_millis() as u64)
}

/// `{"timeout": 15000}`, or no body at all.
fn timeout_ms(body: &[u8]) -> Result<u64, Refusal> {
    if body.is_empty() {
        return Ok(INVITE_MS);
    }
    let body: Value = serde_json::from_slice(body)
        .map_err(|error| Refusal::bad_request(format!("The body is not JSON: {error}")))?;
    match &body["timeout"] {
        Value::Null => Ok(INVITE_MS),
        value => match value.as_i64() {
            Some(ms) if ms >= INVITE_MS_MIN as i64 => Ok(ms as u64),
            Some(_) => Err(Refusal::bad_request("timeout cannot be less than 5000ms")),
            None => Err(Refusal::bad_request("timeout must be an integer")),
        },
    }
}

pub(crate) async fn force_leave(
    State(api): State<Api>,
    Path(node): Path<String>,
) -> Result<StatusCode, Refusal> {
    match api.admin.force_leave(&node).await {
        Ok(LeaveOutcome::Left { .. }) => Ok(DONE),
        Ok(LeaveOutcome::Ignored) | Err(AdminError::Cluster(OperationError::SelfNode { .. })) => {
            Err(Refusal::bad_request("Can't leave self"))
        }
        Err(error) => Err(refused(error, &node)),
    }
}

/// EMQX's term as the message, since scripts match it, and our reason beside it.
fn refused(error: AdminError, node: &str) -> Refusal {
    use AdminError as E;
    if !matches!(
        error,
        E::Cluster(_) | E::NodeName { .. } | E::NodeNotFound { .. }
    ) {
        return error.into();
    }
    let term = term::of(&error, node);
    let message = if term.starts_with("{node_down,") {
        "nodedown".to_owned()
    } else {
        term
    };
    Refusal::bad_request(message).because(&error)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timeouts_of_an_invitation() {
        let message = |body: &str| timeout_ms(body.as_bytes()).map_err(|r| r.message);
        assert_eq!(message(""), Ok(15_000));
        assert_eq!(message("{}"), Ok(15_000));
        assert_eq!(message(r#"{"timeout":5000}"#), Ok(5_000));
        let too_short = Err("timeout cannot be less than 5000ms".to_owned());
        assert_eq!(message(r#"{"timeout":4999}"#), too_short);
        assert_eq!(message(r#"{"timeout":-1}"#), too_short);
        let no_integer = Err("timeout must be an integer".to_owned());
        assert_eq!(message(r#"{"timeout":"5000"}"#), no_integer);
        assert_eq!(message(r#"{"timeout":5000.5}"#), no_integer);
    }
}
