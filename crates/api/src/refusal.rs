//! Refused requests: a status, EMQX's code, and a message for people.

use axum::Json;
use axum::http::header::WWW_AUTHENTICATE;
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use dunlin_server::admin::AdminError;
use serde_json::json;

/// EMQX's code for a request without credentials.
pub(crate) const NO_CREDENTIALS: &str = "AUTHORIZATION_HEADER_ERROR";

/// Why a request was not carried out. The body is `{"code","message"}`, always.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Refusal {
    pub(crate) status: StatusCode,
    pub(crate) code: &'static str,
    pub(crate) message: String,
    /// Why, in a sentence with the cure, where `message` is a term that scripts match.
    pub(crate) reason: Option<String>,
}

impl Refusal {
    pub(crate) fn new(status: StatusCode, code: &'static str, message: impl Into<String>) -> Self {
        Self {
            status,
            code,
            message: message.into(),
            reason: None,
        }
    }

    pub(crate) fn bad_request(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "BAD_REQUEST", message)
    }

    pub(crate) fn not_found(code: &'static str, message: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, code, message)
    }

    pub(crate) fn unauthorized(code: &'static str, message: impl Into<String>) -> Self {
        Self::new(StatusCode::UNAUTHORIZED, code, message)
    }

    pub(crate) fn path_not_found() -> Self {
        Self::not_found("NOT_FOUND", "There is nothing at this path")
    }

    pub(crate) fn method_not_allowed() -> Self {
        let status = StatusCode::METHOD_NOT_ALLOWED;
        Self::new(
            status,
            "METHOD_NOT_ALLOWED",
            "This path does not know that method",
        )
    }

    pub(crate) fn because(mut self, reason: &impl ToString) -> Self {
        self.reason = Some(reason.to_string());
        self
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let mut body = json!({ "code": self.code, "message": self.message });
        if let Some(reason) = self.reason {
            body["reason"] = reason.into();
        }
        let mut response = (self.status, Json(body)).into_response();
        // Only to who sent no credentials at all: at this header browsers open a dialog of their
        // own, in the middle of the dashboard's login.
        if self.code == NO_CREDENTIALS {
            let realm = HeaderValue::from_static("Basic Realm=\"emqx-dashboard\"");
            response.headers_mut().insert(WWW_AUTHENTICATE, realm);
        }
        response
    }
}

impl From<AdminError> for Refusal {
    /// The one place that knows which failure is which status. Handlers whose path needs other
    /// words catch the failure before it gets here.
    fn from(error: AdminError) -> Self {
        use AdminError as E;
        let message = error.to_string();
        let (status, code) = match error {
            E::NodeNotFound { node } => {
                return Self::not_found("NOT_FOUND", format!("Node not found: {node}"));
            }
            E::ClientNotFound { .. } => {
                return Self::not_found("CLIENTID_NOT_FOUND", "Client ID not found");
            }
            E::AlarmNotFound { .. }
            | E::AuthenticatorNotFound { .. }
            | E::ApiKeyNotFound { .. } => (StatusCode::NOT_FOUND, "NOT_FOUND"),
            E::ListenerNotFound { .. } => (StatusCode::NOT_FOUND, "BAD_LISTENER_ID"),
            E::UserNotFound { .. } => (StatusCode::NOT_FOUND, "USER_NOT_FOUND"),
            E::UserExists { .. } | E::ApiKeyExists { .. } | E::BanExists { .. } => {
                (StatusCode::BAD_REQUEST, "ALREADY_EXISTS")
            }
            E::TableFull { .. } => (StatusCode::BAD_REQUEST, "EXCEED_LIMIT"),
            E::Credentials => (StatusCode::UNAUTHORIZED, "BAD_USERNAME_OR_PWD"),
            E::Unsupported { .. } => (StatusCode::NOT_IMPLEMENTED, "NOT_IMPLEMENTED"),
            E::Storage { .. } => (StatusCode::INTERNAL_SERVER_ERROR, "INTERNAL_ERROR"),
            E::NodeSilent { .. } => (StatusCode::SERVICE_UNAVAILABLE, "NODE_DOWN"),
            E::Timeout { .. } | E::Stopping => {
                (StatusCode::SERVICE_UNAVAILABLE, "SERVICE_UNAVAILABLE")
            }
            _ => (StatusCode::BAD_REQUEST, "BAD_REQUEST"),
        };
        Self::new(status, code, message)
    }
}
