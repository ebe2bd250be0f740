//! Who may ask: a dashboard user by token, or an API key by basic authentication.
//!
//! Keys and users are cluster state and hold on every node; a token holds on the node that gave it.

use axum::extract::{Request, State};
use axum::http::header::AUTHORIZATION;
use axum::http::{Method, StatusCode};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use dunlin_server::admin::Role;

use crate::Api;
use crate::refusal::{NO_CREDENTIALS, Refusal};
use crate::token::{Login, TokenError};

/// Who made the request; handlers find it among the request's extensions.
#[derive(Debug, Clone)]
pub(crate) enum Caller {
    User {
        login: Login,
        token: String,
    },
    /// An API key.
    Key,
}

/// Lets a request through to its handler if its caller may make it.
pub(crate) async fn require(State(api): State<Api>, mut request: Request, next: Next) -> Response {
    match caller(&api, &request) {
        Ok(caller) => {
            request.extensions_mut().insert(caller);
            next.run(request).await
        }
        Err(refusal) => refusal.into_response(),
    }
}

fn caller(api: &Api, request: &Request) -> Result<Caller, Refusal> {
    // The router has cut `/api/v5` off.
    let path = request.uri().path();
    let header = request
        .headers()
        .get(AUTHORIZATION)
        .and_then(|value| value.to_str().ok());
    let (scheme, value) = header
        .and_then(|h| h.split_once(' '))
        .ok_or_else(no_header)?;
    if scheme.eq_ignore_ascii_case("bearer") {
        by_token(api, path, value.trim())
    } else if scheme.eq_ignore_ascii_case("basic") {
        by_key(api, request.method(), path, value.trim())
    } else {
        Err(no_header())
    }
}

fn no_header() -> Refusal {
    let message = "Support authorization: basic/bearer ";
    Refusal::unauthorized(NO_CREDENTIALS, message)
}

fn by_token(api: &Api, path: &str, token: &str) -> Result<Caller, Refusal> {
    let login = api.tokens(|now_ms, tokens| tokens.check(now_ms, token));
    let login = login.map_err(|error| match error {
        TokenError::Unknown => Refusal::unauthorized("BAD_TOKEN", "Get a token by POST /login"),
        TokenError::Expired => Refusal::unauthorized(
            "TOKEN_TIME_OUT",
            "Token expired, get new token by POST /login",
        ),
    })?;
    // The user may have been deleted since, on any node.
    if !api
        .admin
        .users()
        .iter()
        .any(|user| user.username == login.username)
    {
        api.tokens(|_, tokens| tokens.revoke_all(&login.username));
        return Err(Refusal::unauthorized(
            "BAD_TOKEN",
            "Get a token by POST /login",
        ));
    }
    if login.must_change && !allowed_before_change(path) {
        return Err(password_change_required(&login.username));
    }
    Ok(Caller::User {
        login,
        token: token.to_owned(),
    })
}

/// What a user with the default password may call: the way to change it, and the way out.
fn allowed_before_change(path: &str) -> bool {
    path == "/logout" || (path.starts_with("/users/") && path.ends_with("/change_pwd"))
}

fn password_change_required(username: &str) -> Refusal {
    let message = format!(
        "The user {username} still has the default password. Change it in the dashboard, with POST \
         /api/v5/users/{username}/change_pwd {{\"old_pwd\",\"new_pwd\"}}, or with 'emqx ctl admins \
         passwd {username} <new password>' on a node; then log in again."
    );
    Refusal::new(StatusCode::FORBIDDEN, "PASSWORD_CHANGE_REQUIRED", message)
}

fn by_key(api: &Api, method: &Method, path: &str, value: &str) -> Result<Caller, Refusal> {
    let bad = || Refusal::unauthorized("BAD_API_KEY_OR_SECRET", "Check api_key/api_secret");
    let decoded = STANDARD
        .decode(value)
        .ok()
        .and_then(|bytes| String::from_utf8(bytes).ok());
    let (key, secret) = decoded
        .as_deref()
        .and_then(|d| d.split_once(':'))
        .ok_or_else(bad)?;
    let role = api.admin.check_api_key(key, secret).ok_or_else(bad)?;
    if of_users_only(path) {
        let message = format!(
            "Please use bearer Token instead, using API key/secret in {path} path is not permitted"
        );
        return Err(Refusal::unauthorized("API_KEY_NOT_ALLOW", message));
    }
    if !may(role, method, path) {
        let message = "The role of this API key does not permit this request";
        return Err(Refusal::new(
            StatusCode::FORBIDDEN,
            "UNAUTHORIZED_ROLE",
            message,
        ));
    }
    Ok(Caller::Key)
}

fn of_users_only(path: &str) -> bool {
    ["/users", "/api_key", "/logout"].iter().any(|own| {
        path.strip_prefix(own)
            .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    })
}

fn may(role: Role, method: &Method, path: &str) -> bool {
    match role {
        Role::Administrator => true,
        Role::Viewer => *method == Method::GET,
        Role::Publisher => path == "/publish" && *method == Method::POST,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_stay_out_of_accounts() {
        for path in [
            "/users",
            "/users/admin/change_pwd",
            "/api_key",
            "/api_key/k",
            "/logout",
        ] {
            assert!(of_users_only(path), "{path}");
        }
        for path in ["/userspace", "/nodes", "/login"] {
            assert!(!of_users_only(path), "{path}");
        }
    }

    #[test]
    fn roles() {
        assert!(may(Role::Administrator, &Method::DELETE, "/clients/c"));
        assert!(may(Role::Viewer, &Method::GET, "/clients"));
        assert!(!may(Role::Viewer, &Method::DELETE, "/clients/c"));
        assert!(may(Role::Publisher, &Method::POST, "/publish"));
        assert!(!may(Role::Publisher, &Method::GET, "/clients"));
    }

    #[test]
    fn the_default_password_opens_nothing_but_its_change() {
        assert!(allowed_before_change("/users/admin/change_pwd"));
        assert!(allowed_before_change("/logout"));
        assert!(!allowed_before_change("/users"));
        assert!(!allowed_before_change("/nodes"));
    }
}
