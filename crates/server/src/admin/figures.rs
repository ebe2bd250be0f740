//! What the node is and what it has counted.

use std::collections::BTreeMap;

use dunlin_broker::metrics::{self, Gauge, Gauges};
use dunlin_broker::{Answer, Ask, Counts};
use serde::{Deserialize, Serialize};

use super::remote::{Question, Values};
use super::{Admin, AdminError, Scope};
use crate::time::wall_ms;

/// Whether this node serves.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeStatus {
    /// `name@host`.
    pub node: String,
    /// The release.
    pub version: String,
    /// False until all listeners are open, and from the beginning of a stop on.
    pub started: bool,
}

/// `emqx ctl broker`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BrokerDescription {
    /// What the software is.
    pub sysdescr: String,
    /// The release.
    pub version: String,
    /// Milliseconds since the epoch.
    pub datetime_ms: u64,
    /// Since start, in milliseconds.
    pub uptime_ms: u64,
}

/// Stats or metrics of one node by EMQX's names (`connections.count`, `messages.received`).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Figures {
    /// The node.
    pub node: String,
    /// Name and value, sorted by name.
    pub values: BTreeMap<String, u64>,
}

impl Admin {
    /// Whether this node serves.
    pub fn status(&self) -> NodeStatus {
        NodeStatus {
            node: self.inner.node.to_string(),
            version: crate::VERSION.to_owned(),
            started: self.inner.is_started(),
        }
    }

    /// What this node is.
    pub fn broker(&self) -> BrokerDescription {
        BrokerDescription {
            sysdescr: crate::PRODUCT.to_owned(),
            version: crate::VERSION.to_owned(),
            datetime_ms: wall_ms(),
            uptime_ms: self.inner.started.elapsed().as_millis() as u64,
        }
    }

    /// Gauges with their high-water marks (`broker stats`). Of nodes that do not answer in time
    /// those figures are shown that they publish themselves.
    pub async fn stats(&self, scope: Scope) -> Result<Vec<Figures>, AdminError> {
        let mut figures = Vec::new();
        if self.covers(&scope) {
            figures.push(self.figures(self.local_stats().await?));
        }
        let answered = self.gather::<Values>(&scope, &Question::Stats).await;
        for row in self.others(&scope).await? {
            if let Some((_, values)) = answered.iter().find(|(node, _)| *node == row.node) {
                let (node, values) = (row.node, values.clone());
                figures.push(Figures { node, values });
                continue;
            }
            let gauges = [
                (Gauge::Connections, row.connections),
                (Gauge::Sessions, row.connections),
                (Gauge::Channels, row.connections),
                (Gauge::LiveConnections, row.live_connections),
                (Gauge::ClusterSessions, row.cluster_sessions),
            ];
            let pair = |(gauge, value): &(Gauge, u64)| {
                [("count", *value), ("max", *value)]
                    .map(|(kind, value)| (format!("{}.{kind}", gauge.name()), value))
            };
            let values = gauges.iter().flat_map(pair).collect();
            figures.push(Figures {
                node: row.node,
                values,
            });
        }
        Ok(figures)
    }

    /// Counters (`broker metrics`). Nodes that do not answer in time are left out.
    pub async fn metrics(&self, scope: Scope) -> Result<Vec<Figures>, AdminError> {
        let mut figures = Vec::new();
        if self.covers(&scope) {
            figures.push(self.figures(self.local_metrics()));
        }
        let answered = self.gather::<Values>(&scope, &Question::Metrics).await;
        let row = |(node, values)| Figures { node, values };
        figures.extend(answered.into_iter().map(row));
        Ok(figures)
    }

    pub(crate) fn local_metrics(&self) -> BTreeMap<String, u64> {
        let sums = metrics::sum(self.inner.shared.all_metrics());
        sums.into_iter()
            .map(|(metric, value)| (metric.name().to_owned(), value))
            .collect()
    }

    pub(crate) async fn local_stats(&self) -> Result<BTreeMap<String, u64>, AdminError> {
        let gauges = self.read_gauges().await?;
        let pair = |(gauge, now, max): (Gauge, u64, u64)| {
            [("count", now), ("max", max)]
                .map(|(kind, value)| (format!("{}.{kind}", gauge.name()), value))
        };
        Ok(gauges.all().flat_map(pair).collect())
    }

    /// Reads the gauges that cost no shard any time, for the regular look, and remembers the
    /// highest values.
    pub(crate) fn glance(&self) -> Gauges {
        let shared = &self.inner.shared;
        let usage = shared.router().read().usage();
        let (own, in_cluster) = shared.registry().counts();
        let subscriptions = (usage.subscriptions + usage.shared_subscriptions) as u64;
        let mut gauges = self.inner.gauges();
        for gauge in [Gauge::Connections, Gauge::Channels, Gauge::Sessions] {
            gauges.set(gauge, own as u64);
        }
        gauges.set(Gauge::LiveConnections, self.inner.listeners.connections());
        gauges.set(Gauge::ClusterSessions, in_cluster as u64);
        gauges.set(Gauge::Topics, usage.routes as u64);
        gauges.set(Gauge::Suboptions, subscriptions);
        gauges.set(Gauge::Subscriptions, subscriptions);
        gauges.set(Gauge::Retained, shared.retained().len() as u64);
        *gauges
    }

    /// Reads all gauges and remembers the highest values.
    pub(crate) async fn read_gauges(&self) -> Result<Gauges, AdminError> {
        let counts = self.counts().await?;
        let usage = self.inner.shared.router().read().usage();
        let (_, in_cluster) = self.inner.shared.registry().counts();
        let mut gauges = self.inner.gauges();
        gauges.set(Gauge::Connections, counts.sessions);
        gauges.set(Gauge::LiveConnections, counts.live_connections);
        gauges.set(Gauge::Channels, counts.sessions);
        gauges.set(Gauge::Sessions, counts.sessions);
        gauges.set(Gauge::ClusterSessions, in_cluster as u64);
        gauges.set(Gauge::Topics, usage.routes as u64);
        gauges.set(Gauge::Suboptions, counts.subscriptions);
        gauges.set(Gauge::Subscribers, counts.subscribers);
        gauges.set(Gauge::Subscriptions, counts.subscriptions);
        gauges.set(Gauge::SubscriptionsShared, counts.shared_subscriptions);
        gauges.set(Gauge::Retained, self.inner.shared.retained().len() as u64);
        Ok(*gauges)
    }

    async fn counts(&self) -> Result<Counts, AdminError> {
        let answers = self.inner.ask_all(Ask::Counts).await?;
        let mut sum = Counts::default();
        for answer in answers {
            let Answer::Counts(counts) = answer else {
                continue;
            };
            sum.live_connections += counts.live_connections;
            sum.sessions += counts.sessions;
            sum.subscribers += counts.subscribers;
            sum.subscriptions += counts.subscriptions;
            sum.shared_subscriptions += counts.shared_subscriptions;
            sum.queued += counts.queued;
            sum.inflight += counts.inflight;
        }
        Ok(sum)
    }

    pub(crate) fn covers(&self, scope: &Scope) -> bool {
        match scope {
            Scope::Local | Scope::Cluster => true,
            Scope::Node(node) => node == self.inner.node.as_str(),
        }
    }

    /// The other running nodes of a scope.
    async fn others(&self, scope: &Scope) -> Result<Vec<super::NodeRow>, AdminError> {
        if *scope == Scope::Local {
            return Ok(Vec::new());
        }
        let own = self.inner.node.as_str();
        let wanted = |row: &super::NodeRow| {
            row.node != own
                && row.node_status == "running"
                && !matches!(scope, Scope::Node(node) if *node != row.node)
        };
        Ok(self.nodes().await?.into_iter().filter(wanted).collect())
    }

    fn figures(&self, values: BTreeMap<String, u64>) -> Figures {
        Figures {
            node: self.inner.node.to_string(),
            values,
        }
    }
}
