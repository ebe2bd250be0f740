//! Bans: who may not connect, on any node.

use axum::Json;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use dunlin_server::admin::{AdminError, BanRow, NewBan};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::body::Body;
use crate::page::Pairs;
use crate::refusal::Refusal;
use crate::time::{parse_rfc3339, rfc3339};
use crate::{Api, DONE};

/// EMQX's name for who made a ban that came by this API without saying so.
const BY: &str = "mgmt_api";

pub(crate) async fn list(State(api): State<Api>, query: Pairs) -> Result<Json<Value>, Refusal> {
    let page = query.page()?;
    let mut rows = api.admin.bans();
    for kind in ["clientid", "username", "peerhost"] {
        let who = query.all(kind);
        if !who.is_empty() {
            rows.retain(|row| row.kind == kind && who.contains(&row.who));
        }
    }
    for kind in ["clientid", "username", "peerhost", "peerhost_net"] {
        if let Some(part) = query.get(&format!("like_{kind}")) {
            rows.retain(|row| row.kind == kind && row.who.contains(part));
        }
    }
    Ok(page.of(&rows, item))
}

#[derive(Deserialize)]
pub(crate) struct New {
    r#as: String,
    who: String,
    #[serde(default)]
    by: Option<String>,
    #[serde(default)]
    reason: String,
    at: Option<Moment>,
    until: Option<Moment>,
}

/// `infinity`, RFC 3339, or seconds since 1970.
#[derive(Deserialize)]
#[serde(untagged)]
enum Moment {
    Seconds(u64),
    Text(String),
}

impl Moment {
    fn ms(&self, field: &str) -> Result<Option<u64>, Refusal> {
        let text = match self {
            Self::Seconds(seconds) => return Ok(Some(seconds.saturating_mul(1_000))),
            Self::Text(text) => text,
        };
        if text == "infinity" {
            return Ok(None);
        }
        parse_rfc3339(text).map(Some).ok_or_else(|| {
            Refusal::bad_request(format!(
                "{field} must be \"infinity\" or a time such as \"2030-01-01T00:00:00Z\""
            ))
        })
    }
}

pub(crate) async fn add(
    State(api): State<Api>,
    Body(body): Body<New>,
) -> Result<Json<Value>, Refusal> {
    let moment = |moment: Option<&Moment>, field| match moment {
        None => Ok(None),
        Some(moment) => moment.ms(field),
    };
    let new = NewBan {
        at_ms: moment(body.at.as_ref(), "at")?,
        until_ms: moment(body.until.as_ref(), "until")?,
        kind: body.r#as,
        who: body.who,
        by: body.by.unwrap_or_else(|| BY.to_owned()),
        reason: body.reason,
    };
    Ok(Json(item(&api.admin.ban(new).await?)))
}

pub(crate) async fn clear(State(api): State<Api>) -> Result<StatusCode, Refusal> {
    api.admin.lift_all_bans().await?;
    Ok(DONE)
}

pub(crate) async fn lift(
    State(api): State<Api>,
    Path((kind, who)): Path<(String, String)>,
) -> Result<StatusCode, Refusal> {
    let lifted = api.admin.lift_ban(&kind, &who).await;
    lifted.map_err(|error| match error {
        AdminError::BanNotFound { .. } => Refusal::not_found("NOT_FOUND", error.to_string()),
        error => error.into(),
    })?;
    Ok(DONE)
}

fn item(row: &BanRow) -> Value {
    let until = row.until_ms.map_or_else(|| "infinity".to_owned(), rfc3339);
    json!({
        "as": row.kind,
        "who": row.who,
        "by": row.by,
        "reason": row.reason,
        "at": rfc3339(row.at_ms),
        "until": until,
    })
}
