//! Clients, their subscriptions, and the topics (routes) of the cluster.

use std::collections::BTreeSet;
use std::ops::Bound;

use dunlin_broker::control::ControlInput;
use dunlin_broker::effects::ASK_ROWS_MAX;
use dunlin_broker::registry::Place;
use dunlin_broker::router::Route;
use dunlin_broker::{Answer, Ask, effects};
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
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
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
    /// `QoS` 2 waiting for PUBREL.
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
    /// Maximum `QoS`.
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
    ///
    /// Of clients on other nodes only what every node knows of them is shown: id, node and time of
    /// connect. No question about all nodes waits for one of them.
    pub async fn clients(
        &self,
        scope: Scope,
        filter: ClientFilter,
    ) -> Result<Vec<ClientRow>, AdminError> {
        let mut rows = Vec::new();
        if self.covers_self(&scope) {
            rows.extend(self.local_clients().await?);
        }
        rows.extend(self.remote_clients(&scope));
        rows.retain(|row| filter.admits(row));
        rows.sort_by(|a, b| (&a.node, &a.clientid).cmp(&(&b.node, &b.clientid)));
        Ok(rows)
    }

    /// One client, wherever in the scope it is.
    pub async fn client(&self, scope: Scope, clientid: &str) -> Result<ClientRow, AdminError> {
        if self.covers_self(&scope) {
            let answers = self.inner.ask_all(Ask::Client(clientid.to_owned())).await?;
            let found = answers.into_iter().find_map(|answer| match answer {
                Answer::Client(row) => row,
                _ => None,
            });
            if let Some(row) = found {
                return Ok(client_row(self.inner.node.as_str(), *row));
            }
        }
        self.remote_client(&scope, clientid)
            .ok_or_else(|| not_found(clientid))
    }

    /// Disconnects a client and ends its session, wherever in the cluster it is;
    /// [`AdminError::ClientNotFound`] if nowhere.
    pub async fn kick(&self, clientid: &str) -> Result<(), AdminError> {
        let ask = Ask::Kick(clientid.to_owned());
        if self.is_done(ask).await? {
            return Ok(());
        }
        self.remote_client(&Scope::Cluster, clientid)
            .ok_or_else(|| not_found(clientid))?;
        self.inner.input(ControlInput::Kick {
            clientid: clientid.to_owned(),
        });
        Ok(())
    }

    /// All subscriptions in order of node, client id and filter.
    /// Those of clients on other nodes are not known here and left out.
    pub async fn subscriptions(&self, scope: Scope) -> Result<Vec<SubscriptionRow>, AdminError> {
        let mut rows = Vec::new();
        if self.covers_self(&scope) {
            for shard in 0..self.inner.shards() {
                rows.extend(self.subscriptions_of_shard(shard).await?);
            }
        }
        rows.sort_by(|a, b| (&a.clientid, &a.topic).cmp(&(&b.clientid, &b.topic)));
        Ok(rows)
    }

    /// The subscriptions of one client; [`AdminError::ClientNotFound`] if there is no such client.
    pub async fn subscriptions_of(
        &self,
        scope: Scope,
        clientid: &str,
    ) -> Result<Vec<SubscriptionRow>, AdminError> {
        self.client(scope, clientid).await?;
        let answers = self
            .inner
            .ask_all(Ask::SubscriptionsOf(clientid.to_owned()))
            .await?;
        Ok(answers
            .into_iter()
            .flat_map(|answer| self.subscription_rows(answer))
            .collect())
    }

    /// Subscribes a client from outside.
    pub async fn subscribe(&self, clientid: &str, filter: &str, qos: u8) -> Result<(), AdminError> {
        if qos > 2 {
            return Err(AdminError::Qos);
        }
        check_filter(filter)?;
        let (clientid, filter) = (clientid.to_owned(), filter.to_owned());
        let ask = Ask::Subscribe {
            clientid: clientid.clone(),
            filter,
            qos,
        };
        if self.is_done(ask).await? {
            Ok(())
        } else {
            Err(not_found(&clientid))
        }
    }

    /// Unsubscribes a client from outside.
    pub async fn unsubscribe(&self, clientid: &str, filter: &str) -> Result<(), AdminError> {
        let (clientid, filter) = (clientid.to_owned(), filter.to_owned());
        let ask = Ask::Unsubscribe {
            clientid: clientid.clone(),
            filter,
        };
        if self.is_done(ask).await? {
            Ok(())
        } else {
            Err(not_found(&clientid))
        }
    }

    /// Routes of the whole cluster, sorted by filter, then node.
    #[expect(
        clippy::unused_async,
        reason = "callers need not know which operations wait"
    )]
    pub async fn topics(&self) -> Result<Vec<TopicRow>, AdminError> {
        let mut rows = BTreeSet::new();
        let router = self.inner.shared.router().read();
        router.for_each_route(|route| _ = rows.insert(self.topic_row(route)));
        drop(router);
        Ok(rows.into_iter().collect())
    }

    /// Routes of one filter, those of shared groups on it included.
    #[expect(
        clippy::unused_async,
        reason = "callers need not know which operations wait"
    )]
    pub async fn topics_of(&self, filter: &str) -> Result<Vec<TopicRow>, AdminError> {
        let mut rows = BTreeSet::new();
        let plain = plain_filter(filter);
        let router = self.inner.shared.router().read();
        router.for_each_route_of(plain, |route| _ = rows.insert(self.topic_row(route)));
        drop(router);
        Ok(rows
            .into_iter()
            .filter(|row| plain == filter || row.topic == filter)
            .collect())
    }

    fn covers_self(&self, scope: &Scope) -> bool {
        match scope {
            Scope::Local | Scope::Cluster => true,
            Scope::Node(node) => node == self.inner.node.as_str(),
        }
    }

    /// Clients of this node, page by page, so that no shard stands still for a listing.
    async fn local_clients(&self) -> Result<Vec<ClientRow>, AdminError> {
        let mut rows = Vec::new();
        for shard in 0..self.inner.shards() {
            let mut after = None;
            loop {
                let ask = Ask::Clients {
                    after,
                    limit: ASK_ROWS_MAX,
                };
                let Answer::Clients(page) = self.inner.ask_shard(shard, ask).await? else {
                    break;
                };
                let full = page.len() == ASK_ROWS_MAX;
                after = page.last().map(|row| row.clientid.clone());
                let node = self.inner.node.as_str();
                rows.extend(page.into_iter().map(|row| client_row(node, row)));
                if !full {
                    break;
                }
            }
        }
        Ok(rows)
    }

    async fn subscriptions_of_shard(&self, shard: u16) -> Result<Vec<SubscriptionRow>, AdminError> {
        let (mut rows, mut after) = (Vec::new(), None);
        loop {
            let ask = Ask::Subscriptions {
                after,
                limit: ASK_ROWS_MAX,
            };
            let page = self.subscription_rows(self.inner.ask_shard(shard, ask).await?);
            let full = page.len() == ASK_ROWS_MAX;
            after = page
                .last()
                .map(|row| (row.clientid.clone(), row.topic.clone()));
            rows.extend(page);
            if !full {
                return Ok(rows);
            }
        }
    }

    fn subscription_rows(&self, answer: Answer) -> Vec<SubscriptionRow> {
        let Answer::Subscriptions(rows) = answer else {
            return Vec::new();
        };
        let row = |row: effects::SubscriptionRow| SubscriptionRow {
            node: self.inner.node.to_string(),
            clientid: row.clientid,
            topic: row.topic,
            qos: row.qos,
            nl: row.nl,
            rap: row.rap,
            rh: row.rh,
        };
        rows.into_iter().map(row).collect()
    }

    /// Whether any shard did what was asked.
    async fn is_done(&self, ask: Ask) -> Result<bool, AdminError> {
        let answers = self.inner.ask_all(ask).await?;
        Ok(answers
            .iter()
            .any(|answer| matches!(answer, Answer::Done(true))))
    }

    fn remote_clients(&self, scope: &Scope) -> Vec<ClientRow> {
        let shared = &self.inner.shared;
        let mut rows = Vec::new();
        for (index, peer, reachable) in shared.peers() {
            let wanted = match scope {
                Scope::Local => false,
                Scope::Cluster => reachable,
                Scope::Node(node) => node == peer.name.as_str(),
            };
            if wanted {
                let clients = shared
                    .registry()
                    .clients_of(index, Bound::Unbounded, usize::MAX);
                let row = |(clientid, hlc): (String, dunlin_cluster::Hlc)| {
                    remote_row(peer.name.as_str(), clientid, hlc.wall_ms())
                };
                rows.extend(clients.into_iter().map(row));
            }
        }
        rows
    }

    fn remote_client(&self, scope: &Scope, clientid: &str) -> Option<ClientRow> {
        let place = self.inner.shared.registry().lookup(clientid)?;
        let Place::Remote { node, hlc, .. } = place else {
            return None;
        };
        let name = self.inner.shared.peer_name(node)?;
        let wanted = match scope {
            Scope::Local => false,
            Scope::Cluster => true,
            Scope::Node(node) => node == name.as_str(),
        };
        wanted.then(|| remote_row(name.as_str(), clientid.to_owned(), hlc.wall_ms()))
    }

    fn topic_row(&self, route: Route<'_>) -> TopicRow {
        let node = match route.node {
            None => self.inner.node.to_string(),
            Some(index) => {
                let name = self.inner.shared.peer_name(index);
                name.map(|name| name.to_string()).unwrap_or_default()
            }
        };
        let topic = match route.group {
            None => route.filter.to_owned(),
            Some(group) => format!("$share/{group}/{}", route.filter),
        };
        TopicRow { topic, node }
    }
}

impl ClientFilter {
    fn admits(&self, row: &ClientRow) -> bool {
        let has = |text: &str, part: &Option<String>| {
            part.as_ref()
                .is_none_or(|part| text.contains(part.as_str()))
        };
        let username = row.username.as_deref().unwrap_or_default();
        (self.clientids.is_empty() || self.clientids.contains(&row.clientid))
            && has(&row.clientid, &self.like_clientid)
            && self
                .username
                .as_ref()
                .is_none_or(|wanted| row.username.as_ref() == Some(wanted))
            && has(username, &self.like_username)
            && self.connected.is_none_or(|wanted| row.connected == wanted)
            && self
                .ip_address
                .as_ref()
                .is_none_or(|wanted| row.ip_address == *wanted)
    }
}

/// The filter below `$share/group/`.
fn plain_filter(filter: &str) -> &str {
    let shared = filter
        .strip_prefix("$share/")
        .and_then(|rest| rest.split_once('/'));
    shared.map_or(filter, |(_, plain)| plain)
}

fn check_filter(filter: &str) -> Result<(), AdminError> {
    match dunlin_mqtt::TopicFilter::new(filter) {
        Ok(_) => Ok(()),
        Err(_) => Err(AdminError::Filter {
            filter: filter.to_owned(),
        }),
    }
}

fn not_found(clientid: &str) -> AdminError {
    AdminError::ClientNotFound {
        clientid: clientid.to_owned(),
    }
}

/// A client of another node, as far as it is known here.
fn remote_row(node: &str, clientid: String, connected_at_ms: u64) -> ClientRow {
    ClientRow {
        clientid,
        node: node.to_owned(),
        connected: true,
        connected_at_ms,
        created_at_ms: connected_at_ms,
        ..ClientRow::default()
    }
}

fn client_row(node: &str, row: effects::ClientRow) -> ClientRow {
    ClientRow {
        clientid: row.clientid,
        username: row.username,
        node: node.to_owned(),
        ip_address: row.peer.ip().to_string(),
        port: row.peer.port(),
        listener: row.listener,
        proto_name: row.proto_name.to_owned(),
        proto_ver: row.proto_ver,
        connected: row.connected,
        connected_at_ms: row.connected_at,
        disconnected_at_ms: row.disconnected_at,
        created_at_ms: row.created_at,
        clean_start: row.clean_start,
        keepalive: row.keepalive,
        expiry_interval: row.expiry_interval,
        is_bridge: row.is_bridge,
        mountpoint: row.mountpoint,
        subscriptions_cnt: row.subscriptions_cnt,
        subscriptions_max: row.subscriptions_max,
        inflight_cnt: row.inflight_cnt,
        inflight_max: row.inflight_max,
        mqueue_len: row.mqueue_len,
        mqueue_max: row.mqueue_max,
        mqueue_dropped: row.mqueue_dropped,
        awaiting_rel_cnt: row.awaiting_rel_cnt,
        awaiting_rel_max: row.awaiting_rel_max,
        recv_oct: row.traffic.recv_oct,
        recv_pkt: row.traffic.recv_pkt,
        recv_msg: row.traffic.recv_msg,
        send_oct: row.traffic.send_oct,
        send_pkt: row.traffic.send_pkt,
        send_msg: row.traffic.send_msg,
    }
}
