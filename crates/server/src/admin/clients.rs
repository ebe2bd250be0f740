//! Clients, their subscriptions, and the topics (routes) of the cluster.

use dunlin_broker::{Answer, Ask};
use serde::{Deserialize, Serialize};

use super::{Admin, AdminError};

/// Which nodes a listing covers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Scope {
    /// This node (`clients list`).
    Local,
    /// One node by its full name.
    Node(String),
    /// Every running member (REST). Nodes that do not answer in time are left out.
    Cluster,
}

/// What a listing of clients is narrowed to; an unset field does not narrow.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClientFilter {
    /// Exactly one of these ids.
    pub clientids: Vec<String>,
    /// Part of the client id.
    pub like_clientid: Option<String>,
    /// Exactly this user name.
    pub username: Option<String>,
    /// Part of the user name.
    pub like_username: Option<String>,
    /// Connected, or not.
    pub connected: Option<bool>,
    /// Address of the client without port.
    pub ip_address: Option<String>,
}

/// A client and its session.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClientRow {
    /// Client identifier.
    pub clientid: String,
    /// User name.
    pub username: Option<String>,
    /// The node it is on.
    pub node: String,
    /// Address of the client.
    pub ip_address: String,
    /// Its port.
    pub port: u16,
    /// Listener id, `tcp:default`.
    pub listener: String,
    /// `MQTT` or `MQIsdp`.
    pub proto_name: String,
    /// 3, 4 or 5.
    pub proto_ver: u8,
    /// Whether a connection is open.
    pub connected: bool,
    /// Milliseconds since the epoch.
    pub connected_at_ms: u64,
    /// Milliseconds since the epoch.
    pub disconnected_at_ms: Option<u64>,
    /// Milliseconds since the epoch, of the session.
    pub created_at_ms: u64,
    /// Clean start or clean session.
    pub clean_start: bool,
    /// Seconds in force.
    pub keepalive: u16,
    /// Session expiry in seconds; `u32::MAX` is never.
    pub expiry_interval: u32,
    /// Bridge bit of a v3 protocol level.
    pub is_bridge: bool,
    /// Mountpoint, placeholders filled in.
    pub mountpoint: Option<String>,
    /// Subscriptions.
    pub subscriptions_cnt: u64,
    /// Limit; `None` is infinity.
    pub subscriptions_max: Option<u64>,
    /// Sent and not acknowledged.
    pub inflight_cnt: u64,
    /// Window.
    pub inflight_max: u64,
    /// Queued.
    pub mqueue_len: u64,
    /// Limit; 0 is infinity.
    pub mqueue_max: u64,
    /// Dropped from or before the queue.
    pub mqueue_dropped: u64,
    /// QoS 2 waiting for PUBREL.
    pub awaiting_rel_cnt: u64,
    /// Limit; 0 is infinity.
    pub awaiting_rel_max: u64,
    /// Bytes received.
    pub recv_oct: u64,
    /// Packets received.
    pub recv_pkt: u64,
    /// Messages received.
    pub recv_msg: u64,
    /// Bytes sent.
    pub send_oct: u64,
    /// Packets sent.
    pub send_pkt: u64,
    /// Messages sent.
    pub send_msg: u64,
}

/// A subscription of a client.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SubscriptionRow {
    /// The node its client is on.
    pub node: String,
    /// Client identifier.
    pub clientid: String,
    /// The filter as subscribed, with its `$share/…` prefix.
    pub topic: String,
    /// Maximum QoS.
    pub qos: u8,
    /// No Local.
    pub nl: u8,
    /// Retain As Published.
    pub rap: u8,
    /// Retain Handling.
    pub rh: u8,
}

/// A route: messages for the filter are wanted on the node.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct TopicRow {
    /// The filter; a shared one with its `$share/…` prefix.
    pub topic: String,
    /// The node.
    pub node: String,
}

impl Admin {
    /// Clients in order of node and client id.
    pub async fn clients(
        &self,
        scope: Scope,
        filter: ClientFilter,
    ) -> Result<Vec<ClientRow>, AdminError>;

    /// One client, wherever in the scope it is.
    pub async fn client(&self, scope: Scope, clientid: &str) -> Result<ClientRow, AdminError>;

    /// Disconnects a client and ends its session, wherever in the cluster it is;
    /// [`AdminError::ClientNotFound`] if nowhere.
    pub async fn kick(&self, clientid: &str) -> Result<(), AdminError>;

    /// All subscriptions in order of node, client id and filter.
    pub async fn subscriptions(&self, scope: Scope) -> Result<Vec<SubscriptionRow>, AdminError>;

    /// The subscriptions of one client; [`AdminError::ClientNotFound`] if there is no such client.
    pub async fn subscriptions_of(
        &self,
        scope: Scope,
        clientid: &str,
    ) -> Result<Vec<SubscriptionRow>, AdminError>;

    /// Subscribes a client from outside.
    pub async fn subscribe(&self, clientid: &str, filter: &str, qos: u8) -> Result<(), AdminError>;

    /// Unsubscribes a client from outside.
    pub async fn unsubscribe(&self, clientid: &str, filter: &str) -> Result<(), AdminError>;

    /// Routes of the whole cluster, sorted by filter, then node.
    pub async fn topics(&self) -> Result<Vec<TopicRow>, AdminError>;

    /// Routes of one filter.
    pub async fn topics_of(&self, filter: &str) -> Result<Vec<TopicRow>, AdminError>;
}
