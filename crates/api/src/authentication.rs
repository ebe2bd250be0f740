//! Authenticators of MQTT clients, and the users of the built-in database.

use axum::Json;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use dunlin_server::admin::{AdminError, AuthenticatorRow, MqttUserRow};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::body::Body;
use crate::page::Pairs;
use crate::refusal::Refusal;
use crate::{Api, DONE};

/// What is shown in place of a secret.
const HIDDEN: &str = "******";
/// Keys of an authenticator that hold secrets.
const SECRETS: [&str; 3] = ["password", "secret", "bind_password"];

pub(crate) async fn list(State(api): State<Api>) -> Json<Value> {
    Json(api.admin.authenticators().iter().map(item).collect())
}

pub(crate) async fn one(
    State(api): State<Api>,
    Path(id): Path<String>,
) -> Result<Json<Value>, Refusal> {
    let rows = api.admin.authenticators();
    let row = rows.iter().find(|row| row.id == id);
    Ok(Json(item(
        row.ok_or(AdminError::AuthenticatorNotFound { id })?,
    )))
}

pub(crate) async fn users(
    State(api): State<Api>,
    Path(id): Path<String>,
    query: Pairs,
) -> Result<Json<Value>, Refusal> {
    let page = query.page()?;
    let mut rows = api.admin.mqtt_users(&id)?;
    if let Some(like) = query.get("like_user_id") {
        rows.retain(|row| row.user_id.contains(like));
    }
    if let Some(superuser) = query.truth("is_superuser")? {
        rows.retain(|row| row.is_superuser == superuser);
    }
    Ok(page.of(&rows, user_item))
}

#[derive(Deserialize)]
pub(crate) struct NewUser {
    user_id: String,
    password: String,
    #[serde(default)]
    is_superuser: bool,
}

pub(crate) async fn add_user(
    State(api): State<Api>,
    Path(id): Path<String>,
    Body(body): Body<NewUser>,
) -> Result<(StatusCode, Json<Value>), Refusal> {
    let (user_id, password) = (&body.user_id, &body.password);
    let added = api
        .admin
        .add_mqtt_user(&id, user_id, password, body.is_superuser)
        .await;
    match added {
        Ok(row) => Ok((StatusCode::CREATED, Json(user_item(&row)))),
        Err(AdminError::UserExists { .. }) => Err(Refusal::new(
            StatusCode::CONFLICT,
            "ALREADY_EXISTS",
            "User already exists",
        )),
        Err(error) => Err(user_refusal(error)),
    }
}

pub(crate) async fn user(
    State(api): State<Api>,
    Path((id, user_id)): Path<(String, String)>,
) -> Result<Json<Value>, Refusal> {
    let row = api.admin.mqtt_user(&id, &user_id).map_err(user_refusal)?;
    Ok(Json(user_item(&row)))
}

#[derive(Deserialize)]
pub(crate) struct ChangedUser {
    password: Option<String>,
    is_superuser: Option<bool>,
}

pub(crate) async fn update_user(
    State(api): State<Api>,
    Path((id, user_id)): Path<(String, String)>,
    Body(body): Body<ChangedUser>,
) -> Result<Json<Value>, Refusal> {
    let password = body.password.as_deref();
    let changed = api
        .admin
        .update_mqtt_user(&id, &user_id, password, body.is_superuser)
        .await;
    Ok(Json(user_item(&changed.map_err(user_refusal)?)))
}

pub(crate) async fn delete_user(
    State(api): State<Api>,
    Path((id, user_id)): Path<(String, String)>,
) -> Result<StatusCode, Refusal> {
    let deleted = api.admin.delete_mqtt_user(&id, &user_id).await;
    deleted.map_err(user_refusal)?;
    Ok(DONE)
}

/// On these paths a user that is not there has the code of anything that is not there.
fn user_refusal(error: AdminError) -> Refusal {
    match error {
        AdminError::UserNotFound { .. } => Refusal::not_found("NOT_FOUND", "User not found"),
        error => error.into(),
    }
}

fn user_item(row: &MqttUserRow) -> Value {
    json!({ "user_id": row.user_id, "is_superuser": row.is_superuser })
}

fn item(row: &AuthenticatorRow) -> Value {
    let mut item = row.configured.clone();
    if let Some(object) = item.as_object_mut() {
        for secret in SECRETS {
            if let Some(value) = object.get_mut(secret) {
                *value = HIDDEN.into();
            }
        }
        object.entry("enable").or_insert(Value::Bool(true));
        object.insert("id".to_owned(), row.id.clone().into());
    }
    item
}
