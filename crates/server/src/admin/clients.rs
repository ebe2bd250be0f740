//! Clients, their subscriptions, and the topics (routes) of the cluster.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;

use dunlin_broker::control::ControlInput;
use dunlin_broker::effects::ASK_ROWS_MAX;
use dunlin_broker::registry::Place;
use dunlin_broker::router::Route;
use dunlin_broker::{Answer, Ask, effects};
use dunlin_cluster::NodeName;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use tokio::task::JoinSet;

use super::remote::{Question, REMOTE_ROWS_MAX, REMOTE_TIMEOUT_MS};
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
    /// Clean start or clean session.
    pub clean_start: Option<bool>,
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
    /// Clients on other nodes come with what every node knows of them, id, node and time of
    /// connect; [`Self::complete_clients`] adds the rest for those that are shown. A filter that
    /// needs more is answered by the nodes themselves, those that do so in time.
    pub async fn clients(
        &self,
        scope: Scope,
        filter: ClientFilter,
    ) -> Result<Vec<ClientRow>, AdminError> {
        let mut rows = Vec::new();
        if self.covers_self(&scope) {
            rows.extend(self.local_clients().await?);
        }
        if filter.needs_details() {
            let question = Question::Clients(filter.clone());
            let answered = self.gather::<Vec<ClientRow>>(&scope, &question).await;
            rows.extend(answered.into_iter().flat_map(|(_, theirs)| theirs));
        } else {
            rows.extend(self.remote_clients(&scope));
        }
        rows.retain(|row| filter.admits(row));
        rows.sort_by(|a, b| (&a.node, &a.clientid).cmp(&(&b.node, &b.clientid)));
        Ok(rows)
    }

    /// Adds what only the nodes themselves know of their clients, as far as they answer in time.
    pub async fn complete_clients(&self, rows: &mut [ClientRow]) {
        let own = self.inner.node.as_str();
        let mut wanted: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for row in rows.iter().filter(|row| row.is_stub() && row.node != own) {
            let ids = wanted.entry(row.node.clone()).or_default();
            ids.push(row.clientid.clone());
        }
        let mut asked = JoinSet::new();
        for (node, ids) in wanted {
            let Ok(node) = NodeName::parse(&node) else {
                continue;
            };
            let admin = self.clone();
            asked.spawn(async move {
                let question = Question::ClientsNamed(ids);
                admin.ask_node::<Vec<ClientRow>>(&node, &question).await
            });
        }
        let mut known = BTreeMap::new();
        for answered in asked.join_all().await {
            for row in answered.answer.unwrap_or_default() {
                known.insert((row.node.clone(), row.clientid.clone()), row);
            }
        }
        for row in rows.iter_mut().filter(|row| row.is_stub()) {
            let key = (row.node.clone(), row.clientid.clone());
            if let Some(details) = known.remove(&key) {
                *row = details;
            }
        }
    }

    /// Clients of this node by their ids.
    pub(crate) async fn clients_named(&self, ids: &[String]) -> Result<Vec<ClientRow>, AdminError> {
        let mut rows = Vec::new();
        for id in ids.iter().take(REMOTE_ROWS_MAX) {
            rows.extend(self.local_client(id).await?);
        }
        Ok(rows)
    }

    async fn local_client(&self, clientid: &str) -> Result<Option<ClientRow>, AdminError> {
        let Some(shard) = self.inner.shared.registry().local_shard(clientid) else {
            return Ok(None);
        };
        let ask = Ask::Client(clientid.to_owned());
        let Answer::Client(row) = self.inner.ask_shard(shard, ask).await? else {
            return Ok(None);
        };
        Ok(row.map(|row| client_row(self.inner.node.as_str(), *row)))
    }

    /// One client, wherever in the scope it is.
    pub async fn client(&self, scope: Scope, clientid: &str) -> Result<ClientRow, AdminError> {
        if self.covers_self(&scope)
            && let Some(row) = self.local_client(clientid).await?
        {
            return Ok(row);
        }
        let mut row = self
            .remote_client(&scope, clientid)
            .ok_or_else(|| not_found(clientid))?;
        self.complete_clients(std::slice::from_mut(&mut row)).await;
        Ok(row)
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
    /// Those of nodes that do not answer in time are left out.
    pub async fn subscriptions(&self, scope: Scope) -> Result<Vec<SubscriptionRow>, AdminError> {
        let mut rows = Vec::new();
        if self.covers_self(&scope) {
            for shard in 0..self.inner.shards() {
                rows.extend(self.subscriptions_of_shard(shard).await?);
            }
        }
        rows.sort_by(|a, b| (&a.clientid, &a.topic).cmp(&(&b.clientid, &b.topic)));
        let question = Question::Subscriptions;
        let answered = self.gather::<Vec<SubscriptionRow>>(&scope, &question);
        rows.extend(answered.await.into_iter().flat_map(|(_, theirs)| theirs));
        Ok(rows)
    }

    /// The subscriptions of one client; [`AdminError::ClientNotFound`] if there is no such client.
    pub async fn subscriptions_of(
        &self,
        scope: Scope,
        clientid: &str,
    ) -> Result<Vec<SubscriptionRow>, AdminError> {
        if let Some(node) = self.node_of(&scope, clientid) {
            let question = Question::SubscriptionsOf(clientid.to_owned());
            return self.ask_owner(&node, &question).await;
        }
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
        let done = match self.node_of(&Scope::Cluster, clientid) {
            None => self.subscribe_here(clientid, filter, qos).await?,
            Some(node) => {
                let question = Question::Subscribe {
                    clientid: clientid.to_owned(),
                    filter: filter.to_owned(),
                    qos,
                };
                self.ask_owner(&node, &question).await?
            }
        };
        done.then_some(()).ok_or_else(|| not_found(clientid))
    }

    /// Whether the client is here.
    pub(crate) async fn subscribe_here(
        &self,
        clientid: &str,
        filter: &str,
        qos: u8,
    ) -> Result<bool, AdminError> {
        let (clientid, filter) = (clientid.to_owned(), filter.to_owned());
        let ask = Ask::Subscribe {
            clientid,
            filter,
            qos,
        };
        self.is_done(ask).await
    }

    /// Unsubscribes a client from outside.
    pub async fn unsubscribe(&self, clientid: &str, filter: &str) -> Result<(), AdminError> {
        let done = match self.node_of(&Scope::Cluster, clientid) {
            None => self.unsubscribe_here(clientid, filter).await?,
            Some(node) => {
                let question = Question::Unsubscribe {
                    clientid: clientid.to_owned(),
                    filter: filter.to_owned(),
                };
                self.ask_owner(&node, &question).await?
            }
        };
        done.then_some(()).ok_or_else(|| not_found(clientid))
    }

    /// Whether the client is here.
    pub(crate) async fn unsubscribe_here(
        &self,
        clientid: &str,
        filter: &str,
    ) -> Result<bool, AdminError> {
        let (clientid, filter) = (clientid.to_owned(), filter.to_owned());
        self.is_done(Ask::Unsubscribe { clientid, filter }).await
    }

    /// The other node of the scope that has the client, unless this one has.
    fn node_of(&self, scope: &Scope, clientid: &str) -> Option<NodeName> {
        let row = self.remote_client(scope, clientid)?;
        NodeName::parse(&row.node).ok()
    }

    /// Asks the node that has a client, where no answer is no answer.
    async fn ask_owner<T: DeserializeOwned>(
        &self,
        node: &NodeName,
        question: &Question,
    ) -> Result<T, AdminError> {
        let answered = self.ask_node(node, question).await;
        answered.answer.map_err(|_| AdminError::NodeSilent {
            node: node.to_string(),
            waited_ms: REMOTE_TIMEOUT_MS,
        })
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

impl ClientRow {
    /// Whether only that is known which every node knows of every client.
    pub fn is_stub(&self) -> bool {
        self.proto_ver == 0
    }
}

impl ClientFilter {
    /// Whether it asks for what only a client's own node knows.
    fn needs_details(&self) -> bool {
        self.username.is_some()
            || self.like_username.is_some()
            || self.connected.is_some()
            || self.ip_address.is_some()
            || self.clean_start.is_some()
    }

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
            && self
                .clean_start
                .is_none_or(|wanted| row.clean_start == wanted)
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
