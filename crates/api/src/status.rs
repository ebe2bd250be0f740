//! `GET /status`: does this node serve? For load balancers; needs no login.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use axum::http::header::{CONTENT_TYPE, RETRY_AFTER};
use axum::response::{IntoResponse, Response};
use dunlin_server::admin::NodeStatus;
use serde_json::json;

use crate::Api;
use crate::page::Pairs;
use crate::refusal::Refusal;

/// When to ask again, in seconds; EMQX sends it with every answer.
const RETRY_AFTER_S: &str = "15";

pub(crate) async fn get(State(api): State<Api>, query: Pairs) -> Result<Response, Refusal> {
    Ok(answer(
        &api.admin.status(),
        query.get("format") == Some("json"),
    ))
}

fn answer(status: &NodeStatus, as_json: bool) -> Response {
    let NodeStatus {
        node,
        version,
        started,
    } = status;
    let (code, broker, app) = if *started {
        (StatusCode::OK, "started", "running")
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, "stopped", "not_running")
    };
    let retry = [(RETRY_AFTER, RETRY_AFTER_S)];
    if as_json {
        let body = json!({
            "rel_vsn": format!("v{version}"),
            "node_name": node,
            "broker_status": broker,
            "app_status": app,
        });
        (code, retry, Json(body)).into_response()
    } else {
        let body = format!("Node {node} is {broker}\nemqx is {app}");
        (code, retry, [(CONTENT_TYPE, "text/plain")], body).into_response()
    }
}
