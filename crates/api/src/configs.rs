//! The configuration in force, and its changes at run time in the whole cluster.

use axum::Json;
use axum::extract::{Path, State};
use axum::http::header::{ACCEPT, CONTENT_TYPE, WARNING};
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use dunlin_config::change::{Change, Mode};
use dunlin_config::render;
use dunlin_server::admin::{AdminError, Configured};
use serde_json::{Map, Value};

use crate::Api;
use crate::body::Body;
use crate::page::Pairs;
use crate::refusal::Refusal;

/// EMQX's name for the roots that zones can have for themselves.
const GLOBAL_ZONE: &str = "global_zone";

/// What is in it.
const ZONE_ROOTS: [&str; 5] = [
    "mqtt",
    "flapping_detect",
    "force_shutdown",
    "force_gc",
    "conn_congestion",
];

const TEXT: &str = "text/plain";

/// The whole of it, or what is below `key`: configuration text for who accepts `text/plain`, JSON
/// for everybody else.
pub(crate) async fn all(
    State(api): State<Api>,
    headers: HeaderMap,
    query: Pairs,
) -> Result<Response, Refusal> {
    let key = query.get("key").unwrap_or_default();
    let loaded = api.admin.loaded();
    let accepted = headers.get(ACCEPT).and_then(|accept| accept.to_str().ok());
    if accepted.is_some_and(|accepted| accepted.starts_with(TEXT)) {
        let text = render::conf_show(&loaded.raw, key).ok_or_else(|| not_found(key))?;
        return Ok(([(CONTENT_TYPE, HeaderValue::from_static(TEXT))], text).into_response());
    }
    Ok(Json(shown(&api, key)?).into_response())
}

/// One root.
pub(crate) async fn one(
    State(api): State<Api>,
    Path(root): Path<String>,
) -> Result<Json<Value>, Refusal> {
    Ok(Json(root_of(&api, &root)?))
}

/// Changes keys of one root; those the body does not name stay as they are.
pub(crate) async fn update(
    State(api): State<Api>,
    Path(root): Path<String>,
    Body(body): Body<Map<String, Value>>,
) -> Result<Response, Refusal> {
    update_root(&api, &root, body).await
}

/// `retainer` under EMQX's own path for it.
pub(crate) async fn retainer(State(api): State<Api>) -> Result<Json<Value>, Refusal> {
    Ok(Json(root_of(&api, "retainer")?))
}

pub(crate) async fn update_retainer(
    State(api): State<Api>,
    Body(body): Body<Map<String, Value>>,
) -> Result<Response, Refusal> {
    update_root(&api, "retainer", body).await
}

/// Configuration text, as `emqx ctl conf load`; `?mode=merge` or `replace`.
pub(crate) async fn load(
    State(api): State<Api>,
    query: Pairs,
    text: String,
) -> Result<Response, Refusal> {
    let mode = match query.get("mode") {
        None | Some("merge") => Mode::Merge,
        Some("replace") => Mode::Replace,
        Some(_) => return Err(Refusal::bad_request("mode must be merge or replace")),
    };
    let change = Change::from_text("the request", &text, mode);
    let mut change = change.map_err(|errors| refusal(AdminError::ConfigInvalid { errors }))?;
    if query.truth("ignore_readonly")?.unwrap_or(false) {
        change.leave_out_read_only();
    }
    let configured = api.admin.configure(&change).await.map_err(refusal)?;
    Ok(with_warnings(StatusCode::OK.into_response(), &configured))
}

/// Takes changes back: of a root, or of the key `conf_path` in it.
pub(crate) async fn reset(
    State(api): State<Api>,
    Path(root): Path<String>,
    query: Pairs,
) -> Result<Response, Refusal> {
    shown(&api, &root)?;
    let path = match query.get("conf_path") {
        None | Some("") => root,
        Some(inner) => format!("{root}.{inner}"),
    };
    let configured = api.admin.configure(&Change::reset(&path)).await;
    let configured = configured.map_err(refusal)?;
    Ok(with_warnings(StatusCode::OK.into_response(), &configured))
}

async fn update_root(api: &Api, root: &str, body: Map<String, Value>) -> Result<Response, Refusal> {
    let before = root_of(api, root)?;
    let change = if root == GLOBAL_ZONE {
        let foreign = body.keys().find(|key| !ZONE_ROOTS.contains(&key.as_str()));
        if let Some(key) = foreign {
            return Err(not_found(&format!("{GLOBAL_ZONE}.{key}")));
        }
        Change::from_json("", &Value::Object(body), Mode::Merge)
    } else if before.is_object() {
        Change::from_json(root, &Value::Object(body), Mode::Merge)
    } else {
        let what = format!("{root} is a list; set it in etc/emqx.conf");
        return Err(Refusal::bad_request(what));
    };
    let configured = api.admin.configure(&change).await.map_err(refusal)?;
    let now = Json(root_of(api, root)?).into_response();
    Ok(with_warnings(now, &configured))
}

fn root_of(api: &Api, root: &str) -> Result<Value, Refusal> {
    if root != GLOBAL_ZONE {
        return shown(api, root);
    }
    let zone = |root: &&str| Some(((*root).to_owned(), shown(api, root).ok()?));
    Ok(Value::Object(ZONE_ROOTS.iter().filter_map(zone).collect()))
}

fn shown(api: &Api, key: &str) -> Result<Value, Refusal> {
    render::json(&api.admin.loaded().raw, key).ok_or_else(|| not_found(key))
}

fn not_found(key: &str) -> Refusal {
    Refusal::not_found(
        "NOT_FOUND",
        format!("There is no configuration key '{key}'"),
    )
}

fn refusal(error: AdminError) -> Refusal {
    match error {
        AdminError::ConfigInvalid { .. }
        | AdminError::ConfigReadOnly { .. }
        | AdminError::ConfigNeedsRestart { .. }
        | AdminError::ConfigTooLong { .. } => {
            Refusal::new(StatusCode::BAD_REQUEST, "UPDATE_FAILED", error.to_string())
        }
        error => error.into(),
    }
}

/// What the operator should know beside the answer, one header for each sentence.
fn with_warnings(mut response: Response, configured: &Configured) -> Response {
    for warning in configured.warnings() {
        let quoted = warning.replace(['"', '\\'], "'");
        if let Ok(value) = HeaderValue::from_str(&format!("299 - \"{quoted}\"")) {
            response.headers_mut().append(WARNING, value);
        }
    }
    response
}
