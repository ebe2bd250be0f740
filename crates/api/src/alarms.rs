//! What is wrong with the cluster, and was.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use dunlin_server::admin::AlarmRow;
use serde::Deserialize;
use serde_json::Value;

use crate::body::Body;
use crate::clients::scope;
use crate::page::Pairs;
use crate::refusal::Refusal;
use crate::{Api, DONE};

/// `?activated=false` shows what is over; anything else what is not.
pub(crate) async fn list(State(api): State<Api>, query: Pairs) -> Result<Json<Value>, Refusal> {
    let page = query.page()?;
    let activated = query.truth("activated")?.unwrap_or(true);
    let scope = scope(&query);
    let rows = api.admin.alarms(&scope, activated).await;
    Ok(page.of(&rows, AlarmRow::to_json))
}

/// Forgets what is over.
pub(crate) async fn clear(State(api): State<Api>) -> StatusCode {
    api.admin.clear_alarms().await;
    DONE
}

#[derive(Deserialize)]
pub(crate) struct Seen {
    name: String,
}

/// An operator has seen an alarm.
pub(crate) async fn force_deactivate(
    State(api): State<Api>,
    Body(seen): Body<Seen>,
) -> Result<StatusCode, Refusal> {
    api.admin.end_alarm(&seen.name).await?;
    Ok(DONE)
}
