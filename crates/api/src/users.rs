//! Users of the dashboard: logging in, and the accounts themselves.

use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::{Extension, Json};
use dunlin_server::admin::{AdminError, UserRow};
use ring::rand::{SecureRandom, SystemRandom};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::auth::Caller;
use crate::body::Body;
use crate::refusal::Refusal;
use crate::token::{Login, TOKEN_BYTES};
use crate::{Api, DONE};

#[derive(Deserialize)]
pub(crate) struct Credentials {
    username: String,
    password: String,
}

pub(crate) async fn login(
    State(api): State<Api>,
    Body(body): Body<Credentials>,
) -> Result<Json<Value>, Refusal> {
    let busy = |_| AdminError::Stopping;
    let turn = api.logins.acquire().await.map_err(busy)?;
    let checked = api.admin.login(&body.username, &body.password).await;
    drop(turn);
    let checked = checked.map_err(|error| match error {
        AdminError::Credentials => {
            tracing::warn!(username = %body.username, "dashboard_login_failed");
            Refusal::unauthorized("BAD_USERNAME_OR_PWD", "Auth failed")
        }
        error => error.into(),
    })?;
    let mut random = [0; TOKEN_BYTES];
    SystemRandom::new().fill(&mut random).map_err(|_| {
        let status = StatusCode::INTERNAL_SERVER_ERROR;
        Refusal::new(status, "INTERNAL_ERROR", "the system gives no random bytes")
    })?;
    let login = Login {
        username: checked.username,
        must_change: checked.default_password,
    };
    let must_change = login.must_change;
    let token = api.tokens(|now_ms, tokens| tokens.issue(now_ms, login, &random));
    Ok(Json(json!({
        "token": token,
        "version": api.admin.status().version,
        "license": { "edition": "opensource" },
        "password_change_required": must_change,
    })))
}

pub(crate) async fn logout(
    State(api): State<Api>,
    Extension(caller): Extension<Caller>,
) -> StatusCode {
    if let Caller::User { token, .. } = caller {
        api.tokens(|_, tokens| tokens.revoke(&token));
    }
    DONE
}

pub(crate) async fn list(State(api): State<Api>) -> Json<Value> {
    Json(api.admin.users().iter().map(item).collect())
}

#[derive(Deserialize)]
pub(crate) struct NewUser {
    username: String,
    password: String,
    #[serde(default)]
    description: String,
}

pub(crate) async fn add(
    State(api): State<Api>,
    Body(body): Body<NewUser>,
) -> Result<Json<Value>, Refusal> {
    let row = api
        .admin
        .add_user(&body.username, &body.password, &body.description)
        .await?;
    Ok(Json(item(&row)))
}

#[derive(Deserialize)]
pub(crate) struct Description {
    description: String,
}

pub(crate) async fn describe(
    State(api): State<Api>,
    Path(username): Path<String>,
    Body(body): Body<Description>,
) -> Result<Json<Value>, Refusal> {
    Ok(Json(item(
        &api.admin
            .describe_user(&username, &body.description)
            .await?,
    )))
}

pub(crate) async fn delete(
    State(api): State<Api>,
    Extension(caller): Extension<Caller>,
    Path(username): Path<String>,
) -> Result<StatusCode, Refusal> {
    if matches!(&caller, Caller::User { login, .. } if login.username == username) {
        let message = "Cannot delete self";
        return Err(Refusal::new(
            StatusCode::BAD_REQUEST,
            "NOT_ALLOWED",
            message,
        ));
    }
    api.admin.delete_user(&username).await?;
    api.tokens(|_, tokens| tokens.revoke_all(&username));
    Ok(DONE)
}

#[derive(Deserialize)]
pub(crate) struct ChangePassword {
    old_pwd: String,
    new_pwd: String,
}

pub(crate) async fn change_password(
    State(api): State<Api>,
    Path(username): Path<String>,
    Body(body): Body<ChangePassword>,
) -> Result<StatusCode, Refusal> {
    let turn = api
        .logins
        .acquire()
        .await
        .map_err(|_| AdminError::Stopping)?;
    let changed = api
        .admin
        .change_password(&username, &body.old_pwd, &body.new_pwd)
        .await;
    drop(turn);
    changed.map_err(|error| match error {
        AdminError::Credentials => Refusal::new(
            StatusCode::BAD_REQUEST,
            "ERROR_PWD_NOT_MATCH",
            "The present password is wrong",
        ),
        error => error.into(),
    })?;
    // Whoever logged in with the old password has to log in with the new one.
    api.tokens(|_, tokens| tokens.revoke_all(&username));
    Ok(DONE)
}

fn item(row: &UserRow) -> Value {
    json!({ "username": row.username, "description": row.description, "role": "administrator" })
}
