//! API keys: credentials for programs, the same on every node.

use axum::Json;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use dunlin_server::admin::{AdminError, ApiKeyRow};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::body::Body;
use crate::refusal::Refusal;
use crate::time::{parse_rfc3339, rfc3339};
use crate::{Api, DONE};

pub(crate) async fn list(State(api): State<Api>) -> Json<Value> {
    Json(api.admin.api_keys().iter().map(item).collect())
}

pub(crate) async fn one(
    State(api): State<Api>,
    Path(name): Path<String>,
) -> Result<Json<Value>, Refusal> {
    let rows = api.admin.api_keys();
    let row = rows.iter().find(|row| row.name == name);
    Ok(Json(item(row.ok_or(AdminError::ApiKeyNotFound { name })?)))
}

#[derive(Deserialize)]
pub(crate) struct NewKey {
    name: String,
    #[serde(default, alias = "description")]
    desc: String,
    expired_at: Option<String>,
}

pub(crate) async fn create(
    State(api): State<Api>,
    Body(body): Body<NewKey>,
) -> Result<Json<Value>, Refusal> {
    let expired_at_ms = body
        .expired_at
        .as_deref()
        .map(expiry)
        .transpose()?
        .flatten();
    let (row, secret) = api
        .admin
        .create_api_key(&body.name, &body.desc, expired_at_ms)
        .await?;
    let mut item = item(&row);
    item["api_secret"] = secret.into();
    Ok(Json(item))
}

#[derive(Deserialize)]
pub(crate) struct Change {
    #[serde(alias = "description")]
    desc: Option<String>,
    enable: Option<bool>,
    expired_at: Option<String>,
}

pub(crate) async fn update(
    State(api): State<Api>,
    Path(name): Path<String>,
    Body(body): Body<Change>,
) -> Result<Json<Value>, Refusal> {
    let expired_at_ms = body.expired_at.as_deref().map(expiry).transpose()?;
    let row = api
        .admin
        .update_api_key(&name, body.desc.as_deref(), body.enable, expired_at_ms)
        .await?;
    Ok(Json(item(&row)))
}

pub(crate) async fn delete(
    State(api): State<Api>,
    Path(name): Path<String>,
) -> Result<StatusCode, Refusal> {
    api.admin.delete_api_key(&name).await?;
    Ok(DONE)
}

/// `infinity` or a point in time.
fn expiry(text: &str) -> Result<Option<u64>, Refusal> {
    if text == "infinity" {
        return Ok(None);
    }
    parse_rfc3339(text).map(Some).ok_or_else(|| {
        Refusal::bad_request(
            "expired_at must be \"infinity\" or a time such as \
                              \"2030-01-01T00:00:00Z\"",
        )
    })
}

fn item(row: &ApiKeyRow) -> Value {
    let expired_at = row
        .expired_at_ms
        .map_or_else(|| "infinity".to_owned(), rfc3339);
    json!({
        "name": row.name,
        "api_key": row.api_key,
        "desc": row.description,
        "enable": row.enable,
        "expired_at": expired_at,
        "created_at": rfc3339(row.created_at_ms),
        "role": row.role,
    })
}
