//! Clients, their subscriptions, and the routes of the cluster.

use axum::Json;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use dunlin_server::admin::{ClientFilter, ClientRow, Scope, SubscriptionRow, TopicRow};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::body::Body;
use crate::page::Pairs;
use crate::refusal::Refusal;
use crate::time::rfc3339;
use crate::{Api, DONE};

/// The nodes a query is about: `node=…`, or all running ones.
pub(crate) fn scope(query: &Pairs) -> Scope {
    query
        .get("node")
        .map_or(Scope::Cluster, |node| Scope::Node(node.to_owned()))
}

pub(crate) async fn list(State(api): State<Api>, query: Pairs) -> Result<Json<Value>, Refusal> {
    let page = query.page()?;
    let one = |key: &str| query.get(key).map(str::to_owned);
    let filter = ClientFilter {
        clientids: query.all("clientid"),
        like_clientid: one("like_clientid"),
        username: one("username"),
        like_username: one("like_username"),
        connected: match query.get("conn_state") {
            None => None,
            Some("connected") => Some(true),
            Some("idle" | "disconnected") => Some(false),
            Some(_) => {
                let message = "conn_state must be one of connected, idle, disconnected";
                return Err(Refusal::bad_request(message));
            }
        },
        ip_address: one("ip_address"),
        clean_start: query.truth("clean_start")?,
    };
    let mut rows = api.admin.clients(scope(&query), filter).await?;
    let shown = page.range(rows.len());
    api.admin.complete_clients(&mut rows[shown]).await;
    Ok(page.of(&rows, client))
}

pub(crate) async fn one(
    State(api): State<Api>,
    Path(clientid): Path<String>,
) -> Result<Json<Value>, Refusal> {
    Ok(Json(client(
        &api.admin.client(Scope::Cluster, &clientid).await?,
    )))
}

pub(crate) async fn kick(
    State(api): State<Api>,
    Path(clientid): Path<String>,
) -> Result<StatusCode, Refusal> {
    api.admin.kick(&clientid).await?;
    Ok(DONE)
}

pub(crate) async fn subscriptions_of(
    State(api): State<Api>,
    Path(clientid): Path<String>,
) -> Result<Json<Value>, Refusal> {
    let rows = api
        .admin
        .subscriptions_of(Scope::Cluster, &clientid)
        .await?;
    Ok(Json(rows.iter().map(subscription).collect()))
}

/// Body of subscribe.
#[derive(Deserialize)]
pub(crate) struct Subscribe {
    topic: String,
    #[serde(default)]
    qos: u8,
}

/// Body of unsubscribe.
#[derive(Deserialize)]
pub(crate) struct Unsubscribe {
    topic: String,
}

pub(crate) async fn subscribe(
    State(api): State<Api>,
    Path(clientid): Path<String>,
    Body(body): Body<Subscribe>,
) -> Result<Json<Value>, Refusal> {
    api.admin
        .subscribe(&clientid, &body.topic, body.qos)
        .await?;
    let rows = api
        .admin
        .subscriptions_of(Scope::Cluster, &clientid)
        .await?;
    let made = rows.iter().find(|row| row.topic == body.topic);
    Ok(Json(made.map_or_else(
        || json!({ "clientid": clientid, "topic": body.topic, "qos": body.qos }),
        subscription,
    )))
}

pub(crate) async fn unsubscribe(
    State(api): State<Api>,
    Path(clientid): Path<String>,
    Body(body): Body<Unsubscribe>,
) -> Result<StatusCode, Refusal> {
    api.admin.unsubscribe(&clientid, &body.topic).await?;
    Ok(DONE)
}

pub(crate) async fn subscriptions(
    State(api): State<Api>,
    query: Pairs,
) -> Result<Json<Value>, Refusal> {
    let page = query.page()?;
    let mut rows = match query.get("clientid") {
        Some(clientid) => api.admin.subscriptions_of(scope(&query), clientid).await?,
        None => api.admin.subscriptions(scope(&query)).await?,
    };
    if let Some(topic) = query.get("topic") {
        rows.retain(|row| row.topic == topic);
    }
    if let Some(qos) = query.get("qos") {
        rows.retain(|row| row.qos.to_string() == qos);
    }
    if let Some(group) = query.get("share_group") {
        let prefix = format!("$share/{group}/");
        rows.retain(|row| row.topic.starts_with(&prefix));
    }
    Ok(page.of(&rows, subscription))
}

pub(crate) async fn topics(State(api): State<Api>, query: Pairs) -> Result<Json<Value>, Refusal> {
    let page = query.page()?;
    let mut rows = match query.get("topic") {
        Some(filter) => api.admin.topics_of(filter).await?,
        None => api.admin.topics().await?,
    };
    if let Some(node) = query.get("node") {
        rows.retain(|row| row.node == node);
    }
    Ok(page.of(&rows, topic_item))
}

pub(crate) async fn topic(
    State(api): State<Api>,
    Path(filter): Path<String>,
) -> Result<Json<Value>, Refusal> {
    let rows = api.admin.topics_of(&filter).await?;
    if rows.is_empty() {
        return Err(Refusal::not_found("TOPIC_NOT_FOUND", "Topic not found"));
    }
    Ok(Json(rows.iter().map(topic_item).collect()))
}

fn topic_item(row: &TopicRow) -> Value {
    json!({ "topic": row.topic, "node": row.node })
}

fn subscription(row: &SubscriptionRow) -> Value {
    json!({
        "clientid": row.clientid,
        "durable": false,
        "nl": row.nl,
        "node": row.node,
        "qos": row.qos,
        "rap": row.rap,
        "rh": row.rh,
        "topic": row.topic,
    })
}

/// Only what is known: fields of EMQX that would be constants here are left out, except those that
/// describe the session's limits and kind; and of a client on another node a node knows little.
fn client(row: &ClientRow) -> Value {
    if row.is_stub() {
        return json!({
            "clientid": row.clientid,
            "node": row.node,
            "connected": row.connected,
            "connected_at": rfc3339(row.connected_at_ms),
        });
    }
    let subscriptions_max = row
        .subscriptions_max
        .map_or_else(|| json!("infinity"), |n| json!(n));
    let mut item = json!({
        "clientid": row.clientid,
        "username": row.username,
        "node": row.node,
        "ip_address": row.ip_address,
        "port": row.port,
        "listener": row.listener,
        "proto_name": row.proto_name,
        "proto_ver": row.proto_ver,
        "connected": row.connected,
        "connected_at": rfc3339(row.connected_at_ms),
        "created_at": rfc3339(row.created_at_ms),
        "clean_start": row.clean_start,
        "keepalive": row.keepalive,
        "expiry_interval": row.expiry_interval,
        "is_bridge": row.is_bridge,
        "is_persistent": false,
        "is_expired": false,
        "durable": false,
        "mountpoint": row.mountpoint,
        "subscriptions_cnt": row.subscriptions_cnt,
        "subscriptions_max": subscriptions_max,
        "inflight_cnt": row.inflight_cnt,
        "inflight_max": row.inflight_max,
        "mqueue_len": row.mqueue_len,
        "mqueue_max": row.mqueue_max,
        "mqueue_dropped": row.mqueue_dropped,
        "awaiting_rel_cnt": row.awaiting_rel_cnt,
        "awaiting_rel_max": row.awaiting_rel_max,
        "recv_oct": row.recv_oct,
        "recv_pkt": row.recv_pkt,
        "recv_msg": row.recv_msg,
        "send_oct": row.send_oct,
        "send_pkt": row.send_pkt,
        "send_msg": row.send_msg,
    });
    if let Some(ms) = row.disconnected_at_ms {
        item["disconnected_at"] = rfc3339(ms).into();
    }
    item
}
