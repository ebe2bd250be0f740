//! Questions to other nodes, and their answers: what makes a listing about the whole cluster.
//!
//! A question is one of this module's; the node asked answers it with the same functions it answers
//! its own operators with. Every question has a deadline below a second, all nodes are asked at
//! once, and whoever does not answer is left out or shown with what is known of it here: no
//! operation ever waits for a node that hangs.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use bytes::Bytes;
use dunlin_broker::evacuation::EvacuationOptions;
use dunlin_broker::rebalance::{Order, RebalanceOptions};
use dunlin_cluster::{CallError, NodeName};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::evacuation::refused;
use super::{Admin, AdminError, ClientFilter, Scope};
use crate::control_thread::Request;

/// How long another node may take to answer. The whole request has to be answered within a second,
/// also when one of the nodes hangs.
pub(crate) const REMOTE_TIMEOUT_MS: u64 = 800;

/// Rows of a listing that one node gives another. More would hold up the control link, which
/// carries them; whoever needs all of them asks the node itself.
pub(crate) const REMOTE_ROWS_MAX: usize = 10_000;

/// What nodes ask each other for their operators. Travels as JSON: fields may be added, and a kind
/// that the other release does not know is not answered.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) enum Question {
    /// Clients by their ids.
    ClientsNamed(Vec<String>),
    /// Clients that a filter admits, at most [`REMOTE_ROWS_MAX`].
    Clients(ClientFilter),
    /// All subscriptions, at most [`REMOTE_ROWS_MAX`].
    Subscriptions,
    /// Those of one client; none if it is not there.
    SubscriptionsOf(String),
    /// Subscribe a client.
    Subscribe {
        clientid: String,
        filter: String,
        qos: u8,
    },
    /// Unsubscribe a client.
    Unsubscribe { clientid: String, filter: String },
    /// Counters.
    Metrics,
    /// Gauges.
    Stats,
    /// Alarms, active or ended.
    Alarms { activated: bool },
    /// Forget the ended ones.
    ClearAlarms,
    /// End one that somebody has seen.
    EndAlarm { name: String },
    /// What the node sees of the cluster.
    View,
    /// Whether it is being evacuated.
    Evacuation,
    /// Evacuate it.
    StartEvacuation(EvacuationOptions),
    /// Let clients in again.
    StopEvacuation,
    /// What it coordinates.
    Rebalance,
    /// Coordinate a rebalance.
    StartRebalance(RebalanceOptions),
    /// End it.
    StopRebalance,
    /// What it has of clients, if it can take part in a rebalance.
    Load,
    /// Give clients away, and the same.
    Donate(Order),
    /// Give no more to those of this coordinator.
    StopDonating { coordinator: String },
    /// Whether it gives clients away.
    Donor,
}

/// An answer, and how long it took to come.
pub(crate) struct Answered<T> {
    pub(crate) node: NodeName,
    pub(crate) answer: Result<T, CallError>,
    pub(crate) took: Duration,
}

impl Admin {
    /// Asks one node.
    pub(crate) async fn ask_node<T: DeserializeOwned>(
        &self,
        node: &NodeName,
        question: &Question,
    ) -> Answered<T> {
        let started = Instant::now();
        let answer = self.call(node.clone(), question).await;
        Answered {
            node: node.clone(),
            answer,
            took: started.elapsed(),
        }
    }

    async fn call<T: DeserializeOwned>(
        &self,
        node: NodeName,
        question: &Question,
    ) -> Result<T, CallError> {
        let payload = Bytes::from(serde_json::to_vec(question).unwrap_or_default());
        let timeout_ms = REMOTE_TIMEOUT_MS;
        let asked = self.inner.request(|done| Request::Call {
            node,
            payload,
            timeout_ms,
            done,
        });
        // The core keeps the deadline; this is for a control thread that is itself too busy.
        let limit = Duration::from_millis(timeout_ms + 50);
        let Ok(Ok(answer)) = timeout(limit, asked).await else {
            return Err(CallError::TimedOut);
        };
        // An answer that is empty, or of another shape, is that of a release that does not know the
        // question, or of a node that could not.
        serde_json::from_slice(&answer?).map_err(|_| CallError::Unreachable)
    }

    /// Asks one node what has to be answered.
    pub(crate) async fn ask_one<T: DeserializeOwned>(
        &self,
        node: &str,
        question: &Question,
    ) -> Result<T, AdminError> {
        let name = self.complete(node)?;
        let answered = self.ask_node(&name, question).await;
        answered.answer.map_err(|_| AdminError::NodeSilent {
            node: node.to_owned(),
            waited_ms: answered.took.as_millis() as u64,
        })
    }

    /// Asks the other running nodes of a scope, all at once; in order of their names.
    pub(crate) async fn ask_others<T: DeserializeOwned + Send + 'static>(
        &self,
        scope: &Scope,
        question: &Question,
    ) -> Vec<Answered<T>> {
        let mut asked = JoinSet::new();
        for node in self.reachable(scope) {
            let (admin, question) = (self.clone(), question.clone());
            asked.spawn(async move { admin.ask_node(&node, &question).await });
        }
        let mut answers = asked.join_all().await;
        answers.sort_by(|a: &Answered<T>, b| a.node.cmp(&b.node));
        for silent in &answers {
            if let Err(error) = &silent.answer {
                tracing::debug!(node = %silent.node, %error, "node_left_out_of_answer");
            }
        }
        answers
    }

    /// Like [`Self::ask_others`], without those that did not answer.
    pub(crate) async fn gather<T: DeserializeOwned + Send + 'static>(
        &self,
        scope: &Scope,
        question: &Question,
    ) -> Vec<(String, T)> {
        let answered = self.ask_others(scope, question).await.into_iter();
        answered
            .filter_map(|one| Some((one.node.to_string(), one.answer.ok()?)))
            .collect()
    }

    /// The other nodes of a scope that can be reached.
    fn reachable(&self, scope: &Scope) -> Vec<NodeName> {
        let peers = self.inner.shared.peers().into_iter();
        let wanted = |name: &NodeName| match scope {
            Scope::Local => false,
            Scope::Cluster => true,
            Scope::Node(node) => node == name.as_str(),
        };
        peers
            .filter(|(_, peer, reachable)| *reachable && wanted(&peer.name))
            .map(|(_, peer, _)| peer.name)
            .collect()
    }

    /// Answers another node's question; empty if it is not understood or cannot be answered.
    pub(crate) async fn answer(&self, payload: &[u8]) -> Bytes {
        let question = match serde_json::from_slice(payload) {
            Ok(question) => question,
            Err(error) => {
                tracing::warn!(reason = %error, "question_of_node_not_understood");
                return Bytes::new();
            }
        };
        match self.answer_to(question).await {
            Ok(answer) => answer,
            Err(error) => {
                tracing::warn!(reason = %error, "question_of_node_not_answered");
                Bytes::new()
            }
        }
    }

    async fn answer_to(&self, question: Question) -> Result<Bytes, AdminError> {
        let scope = Scope::Local;
        Ok(match question {
            Question::ClientsNamed(ids) => json(&self.clients_named(&ids).await?),
            Question::Clients(filter) => {
                let mut rows = self.clients(scope, filter).await?;
                cut("clients", &mut rows);
                json(&rows)
            }
            Question::Subscriptions => {
                let mut rows = self.subscriptions(scope).await?;
                cut("subscriptions", &mut rows);
                json(&rows)
            }
            Question::SubscriptionsOf(id) => json(&self.subscriptions_of(scope, &id).await?),
            Question::Subscribe {
                clientid,
                filter,
                qos,
            } => json(&self.subscribe_here(&clientid, &filter, qos).await?),
            Question::Unsubscribe { clientid, filter } => {
                json(&self.unsubscribe_here(&clientid, &filter).await?)
            }
            Question::Metrics => json(&self.local_metrics()),
            Question::Stats => json(&self.local_stats().await?),
            Question::Alarms { activated } => json(&self.inner.alarms.list(activated)),
            Question::ClearAlarms => {
                self.inner.alarms.clear_ended();
                json(&true)
            }
            Question::EndAlarm { name } => json(&self.inner.alarms.deactivate(&name)),
            Question::View => json(&self.own_view().await?),
            Question::Evacuation => json(&self.evacuation()),
            Question::StartEvacuation(options) => json(&self.start_for(options).await),
            Question::StopEvacuation => json(&self.stop_for().await),
            Question::Rebalance => json(&self.rebalance()),
            Question::StartRebalance(options) => json(&refused(self.coordinate(options).await)),
            Question::StopRebalance => json(&refused(self.stop_coordinating().await)),
            Question::Load => json(&self.load().await),
            Question::Donate(order) => json(&self.obey(order).await),
            Question::StopDonating { coordinator } => json(&self.stop_donating(&coordinator).await),
            Question::Donor => json(&self.donor()),
        })
    }
}

/// Names and values.
pub(crate) type Values = BTreeMap<String, u64>;

fn json<T: Serialize>(answer: &T) -> Bytes {
    // Plain rows always encode; an empty answer would be taken for none.
    serde_json::to_vec(answer).unwrap_or_default().into()
}

fn cut<T>(what: &'static str, rows: &mut Vec<T>) {
    if rows.len() > REMOTE_ROWS_MAX {
        let left_out = rows.len() - REMOTE_ROWS_MAX;
        tracing::warn!(what, left_out, "listing_for_other_node_cut");
        rows.truncate(REMOTE_ROWS_MAX);
    }
}
