//! The REST API under `/api/v5`, and the dashboard that uses it.
//!
//! Paths, bodies, codes and texts are EMQX 5's, so that what was written for it keeps working.
//! Everything is done by `server::admin`; this crate only authenticates, decodes and renders. It
//! must never hold a right that the API does not give, keep state that another node needs, or make
//! a request about one node wait for another.

mod alarms;
mod api_keys;
mod auth;
mod authentication;
mod banned;
mod body;
mod clients;
mod cluster;
mod configs;
mod dashboard;
mod figures;
mod invitations;
mod listeners;
mod load_rebalance;
mod nodes;
mod page;
mod publish;
mod refusal;
mod serve;
mod status;
pub mod term;
pub mod time;
mod token;
mod users;

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::http::StatusCode;
use axum::middleware::from_fn_with_state;
use axum::routing::{delete, get, post, put};
use dunlin_server::admin::Admin;
pub use serve::serve;
use tokio::sync::Semaphore;

use crate::invitations::Invitations;
use crate::refusal::Refusal;
use crate::token::Tokens;

/// Largest request body in bytes: a published message of MQTT's default size limit, in base64.
const BODY_BYTES_MAX: usize = 2 * 1024 * 1024;

/// Passwords checked at once. One check takes about 25 ms of a core on purpose; a flood of logins
/// must not take more than its share of the machine.
const LOGINS_AT_ONCE: usize = 2;

/// What an operator can set about the API.
#[derive(Debug, Clone, Copy)]
pub struct Config {
    /// `dashboard.token_expired_time`: an unused login ends after this time.
    pub token_lifetime: Duration,
    /// `prometheus.enable_basic_auth`: whether reading metrics needs an API key.
    pub prometheus_needs_key: bool,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            token_lifetime: Duration::from_hours(1),
            prometheus_needs_key: false,
        }
    }
}

/// What every request handler may use.
#[derive(Clone)]
pub(crate) struct Api(Arc<Inner>);

pub(crate) struct Inner {
    pub(crate) admin: Admin,
    tokens: Mutex<Tokens>,
    invitations: Mutex<Invitations>,
    pub(crate) logins: Semaphore,
    started: Instant,
    pub(crate) config: Config,
}

impl std::ops::Deref for Api {
    type Target = Inner;

    fn deref(&self) -> &Inner {
        &self.0
    }
}

impl Inner {
    /// Runs `work` on the invitations nobody waits for.
    pub(crate) fn invitations<T>(&self, work: impl FnOnce(&mut Invitations) -> T) -> T {
        let list = self.invitations.lock();
        // Every change is whole when it returns, so a poisoned lock is used on.
        work(&mut list.unwrap_or_else(std::sync::PoisonError::into_inner))
    }

    /// Runs `work` on the logins, with the time since start in milliseconds.
    pub(crate) fn tokens<T>(&self, work: impl FnOnce(u64, &mut Tokens) -> T) -> T {
        let now_ms = u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX);
        // A panic while the lock was held leaves a whole table: every change is one insert or
        // remove, so a poisoned lock is used on.
        let mut tokens = self
            .tokens
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        work(now_ms, &mut tokens)
    }
}

/// Everything the HTTP listener of a node answers.
pub fn router(admin: Admin, config: Config) -> Router {
    let api = Api(Arc::new(Inner {
        admin,
        tokens: Mutex::new(Tokens::new(config.token_lifetime)),
        invitations: Mutex::default(),
        logins: Semaphore::new(LOGINS_AT_ONCE),
        started: Instant::now(),
        config,
    }));
    let v5 = open_routes(&api).merge(guarded_routes(&api));
    dashboard::routes()
        .route("/status", get(status::get))
        .nest("/api/v5", v5)
        .fallback(|| async { Refusal::path_not_found() })
        .method_not_allowed_fallback(|| async { Refusal::method_not_allowed() })
        .layer(DefaultBodyLimit::max(BODY_BYTES_MAX))
        .with_state(api)
}

/// What needs no login.
fn open_routes(api: &Api) -> Router<Api> {
    let prometheus = Router::new().route("/prometheus/stats", get(figures::prometheus));
    let prometheus = if api.config.prometheus_needs_key {
        prometheus.route_layer(from_fn_with_state(api.clone(), auth::require))
    } else {
        prometheus
    };
    Router::new()
        .route("/status", get(status::get))
        .route("/login", post(users::login))
        .route(
            "/load_rebalance/availability_check",
            get(load_rebalance::availability),
        )
        .merge(prometheus)
}

/// What needs a login or an API key.
fn guarded_routes(api: &Api) -> Router<Api> {
    Router::new()
        .merge(account_routes())
        .merge(authentication_routes())
        .merge(load_rebalance_routes())
        .merge(configuration_routes())
        .route("/nodes", get(nodes::list))
        .route("/nodes/{node}", get(nodes::one))
        .route("/nodes/{node}/metrics", get(figures::node_metrics))
        .route("/nodes/{node}/stats", get(figures::node_stats))
        .route("/cluster", get(cluster::get))
        .route("/cluster/topology", get(cluster::topology))
        .route("/cluster/invitation", get(cluster::invitation))
        .route(
            "/cluster/{node}/invite",
            put(cluster::invite).post(cluster::invite),
        )
        .route(
            "/cluster/{node}/invite_async",
            put(cluster::invite_async).post(cluster::invite_async),
        )
        .route("/cluster/{node}/force_leave", delete(cluster::force_leave))
        .route("/alarms", get(alarms::list).delete(alarms::clear))
        .route("/alarms/force_deactivate", post(alarms::force_deactivate))
        .route(
            "/banned",
            get(banned::list).post(banned::add).delete(banned::clear),
        )
        .route("/banned/{as}/{who}", delete(banned::lift))
        .route("/clients", get(clients::list))
        .route(
            "/clients/{clientid}",
            get(clients::one).delete(clients::kick),
        )
        .route(
            "/clients/{clientid}/subscriptions",
            get(clients::subscriptions_of),
        )
        .route("/clients/{clientid}/subscribe", post(clients::subscribe))
        .route(
            "/clients/{clientid}/unsubscribe",
            post(clients::unsubscribe),
        )
        .route("/subscriptions", get(clients::subscriptions))
        .route("/topics", get(clients::topics))
        .route("/topics/{topic}", get(clients::topic))
        .route("/publish", post(publish::one))
        .route("/stats", get(figures::stats))
        .route("/metrics", get(figures::metrics))
        .route("/listeners", get(listeners::list))
        .route("/listeners/{id}", get(listeners::one))
        .route("/listeners/{id}/{action}", post(listeners::act))
        .route_layer(from_fn_with_state(api.clone(), auth::require))
}

fn load_rebalance_routes() -> Router<Api> {
    Router::new()
        .route("/load_rebalance/status", get(load_rebalance::status))
        .route(
            "/load_rebalance/global_status",
            get(load_rebalance::global_status),
        )
        .route(
            "/load_rebalance/{node}/evacuation/start",
            post(load_rebalance::start_evacuation),
        )
        .route(
            "/load_rebalance/{node}/evacuation/stop",
            post(load_rebalance::stop_evacuation),
        )
        .route("/load_rebalance/{node}/start", post(load_rebalance::start))
        .route("/load_rebalance/{node}/stop", post(load_rebalance::stop))
}

fn configuration_routes() -> Router<Api> {
    Router::new()
        .route("/configs", get(configs::all).put(configs::load))
        .route("/configs/{root}", get(configs::one).put(configs::update))
        .route("/configs_reset/{root}", post(configs::reset))
        .route(
            "/mqtt/retainer",
            get(configs::retainer).put(configs::update_retainer),
        )
}

fn authentication_routes() -> Router<Api> {
    Router::new()
        .route("/authentication", get(authentication::list))
        .route("/authentication/{id}", get(authentication::one))
        .route(
            "/authentication/{id}/users",
            get(authentication::users).post(authentication::add_user),
        )
        .route(
            "/authentication/{id}/users/{user_id}",
            get(authentication::user)
                .put(authentication::update_user)
                .delete(authentication::delete_user),
        )
}

fn account_routes() -> Router<Api> {
    Router::new()
        .route("/logout", post(users::logout))
        .route("/users", get(users::list).post(users::add))
        .route(
            "/users/{username}",
            put(users::describe).delete(users::delete),
        )
        .route("/users/{username}/change_pwd", post(users::change_password))
        .route("/api_key", get(api_keys::list).post(api_keys::create))
        .route(
            "/api_key/{name}",
            get(api_keys::one)
                .put(api_keys::update)
                .delete(api_keys::delete),
        )
}

/// Nothing to say: what was asked is done.
const DONE: StatusCode = StatusCode::NO_CONTENT;
