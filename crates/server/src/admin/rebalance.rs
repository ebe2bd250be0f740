//! Rebalancing of nodes: the same operation with this node as coordinator and, by a question, with
//! another.
//!
//! [`dunlin_broker::rebalance`] decides who gives what when; here its orders are carried to the
//! donors, this node among them if it is one, and what all have is carried back, once a second.
//! Nothing is kept over a restart: the load is another one then.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use dunlin_broker::Ask;
use dunlin_broker::evacuation::{Load, Share};
use dunlin_broker::rebalance::{
    Averages, Donor, Heard, NothingToBalance, Order, Rebalance, RebalanceOptions, Step,
};
use dunlin_broker::router::NodeIndex;
use serde::{Deserialize, Serialize};
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio::time::sleep;

use super::evacuation::Refused;
use super::remote::Question;
use super::{Admin, AdminError, Scope};
use crate::time;

/// Pause between two looks of a coordinator.
const LOOK: Duration = Duration::from_secs(1);

/// A rebalance as its coordinator sees it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RebalanceRow {
    /// The coordinator.
    pub node: String,
    /// The name of its [`dunlin_broker::rebalance::Stage`].
    pub state: String,
    /// What the operator said.
    pub options: RebalanceOptions,
    /// Those who give.
    pub donors: Vec<String>,
    /// Those who get.
    pub recipients: Vec<String>,
    /// What the recipients have.
    pub goals: Averages,
    /// What the donors have.
    pub donor_averages: Averages,
}

/// A node that gives clients away, as it sees that itself.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct DonorRow {
    /// The node.
    pub node: String,
    /// What its coordinator told it last.
    pub order: Order,
    /// What there was when it began.
    pub initial: Load,
    /// What there is.
    pub current: Load,
}

#[derive(Debug)]
struct Coordinated {
    rebalance: Rebalance,
    /// Since the last look.
    heard: BTreeMap<String, Heard>,
}

/// What this node coordinates, and what it is told by another, or by itself.
#[derive(Debug, Default)]
pub(crate) struct Rebalancing {
    coordinated: Mutex<Option<Coordinated>>,
    donor: Mutex<Option<Donor>>,
    /// A look, a start or a stop at a time, so that a late look does not undo a stop. Whatever
    /// concerns the donor is in turn with evacuations.
    looking: tokio::sync::Mutex<()>,
    started: Notify,
}

/// No change leaves it half done, so a poisoned lock protects a sound value.
fn lock<T>(state: &Mutex<T>) -> MutexGuard<'_, T> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Rebalancing {
    /// Whether this node gives clients away.
    pub(crate) fn donates(&self) -> bool {
        lock(&self.donor).is_some()
    }
}

/// For operators.
impl Admin {
    /// Starts to even out clients and sessions, with a node as coordinator.
    pub async fn start_rebalance(
        &self,
        node: &str,
        options: RebalanceOptions,
    ) -> Result<(), AdminError> {
        let node = self.node(node).await?.node;
        if node == self.inner.node.as_str() {
            return self.coordinate(options).await;
        }
        self.tell_node(&node, &Question::StartRebalance(options))
            .await
    }

    /// Ends the rebalance that a node coordinates.
    pub async fn stop_rebalance(&self, node: &str) -> Result<(), AdminError> {
        let node = self.node(node).await?.node;
        if node == self.inner.node.as_str() {
            return self.stop_coordinating().await;
        }
        self.tell_node(&node, &Question::StopRebalance).await
    }

    /// The rebalance that this node coordinates.
    pub fn rebalance(&self) -> Option<RebalanceRow> {
        let coordinated = lock(&self.inner.rebalancing.coordinated);
        let rebalance = &coordinated.as_ref()?.rebalance;
        Some(RebalanceRow {
            node: self.inner.node.to_string(),
            state: rebalance.stage().as_str().to_owned(),
            options: rebalance.options().clone(),
            donors: rebalance.donors().cloned().collect(),
            recipients: rebalance.recipients().cloned().collect(),
            goals: rebalance.goals(),
            donor_averages: rebalance.donor_averages(),
        })
    }

    /// All rebalances in the cluster, by coordinator. Nodes that do not answer in time are left
    /// out.
    pub async fn rebalances(&self) -> Vec<RebalanceRow> {
        let question = Question::Rebalance;
        let theirs = self.gather::<Option<RebalanceRow>>(&Scope::Cluster, &question);
        let theirs = theirs.await.into_iter().filter_map(|(_, row)| row);
        let mut rows: Vec<_> = self.rebalance().into_iter().chain(theirs).collect();
        rows.sort_by(|a, b| a.node.cmp(&b.node));
        rows
    }

    /// What this node gives away in a rebalance.
    pub fn donor(&self) -> Option<DonorRow> {
        let donor = lock(&self.inner.rebalancing.donor);
        let donor = donor.as_ref()?;
        let (initial, current) = donor.loads();
        Some(DonorRow {
            node: self.inner.node.to_string(),
            order: donor.order().clone(),
            initial,
            current,
        })
    }

    /// What a node gives away in a rebalance.
    pub async fn donor_of(&self, node: &str) -> Result<Option<DonorRow>, AdminError> {
        let node = self.node(node).await?.node;
        if node == self.inner.node.as_str() {
            return Ok(self.donor());
        }
        self.ask_one(&node, &Question::Donor).await
    }
}

/// As coordinator.
impl Admin {
    pub(crate) async fn coordinate(&self, mut options: RebalanceOptions) -> Result<(), AdminError> {
        let rebalancing = &self.inner.rebalancing;
        let _looking = rebalancing.looking.lock().await;
        let own = self.inner.node.to_string();
        if lock(&rebalancing.coordinated).is_some() {
            return Err(AdminError::RebalanceEnabled { node: own });
        }
        let loads = self.loads(&options.nodes).await?;
        options.nodes = loads.keys().cloned().collect();
        let now_ms = time::now().mono_ms;
        let started = Rebalance::start(own, options.clone(), &loads, now_ms);
        let rebalance = started.map_err(|NothingToBalance| AdminError::NothingToBalance)?;
        tracing::warn!(?options, "rebalance_started");
        *lock(&rebalancing.coordinated) = Some(Coordinated {
            rebalance,
            heard: BTreeMap::new(),
        });
        // Donors are to be known as such when the operator reads that it has started.
        self.look_around().await;
        rebalancing.started.notify_one();
        Ok(())
    }

    pub(crate) async fn stop_coordinating(&self) -> Result<(), AdminError> {
        let _looking = self.inner.rebalancing.looking.lock().await;
        if self.finish().await {
            tracing::warn!("rebalance_stopped");
            return Ok(());
        }
        let node = self.inner.node.to_string();
        Err(AdminError::RebalanceDisabled { node })
    }

    /// What the nodes have that are to take part: those named, or all that run and stay.
    async fn loads(&self, names: &[String]) -> Result<BTreeMap<String, Load>, AdminError> {
        let mut asked = JoinSet::new();
        let mut unavailable = Vec::new();
        let names = if names.is_empty() {
            let evacuated = self.evacuations().await;
            let stays = |name: &String| evacuated.iter().all(|row| row.node != *name);
            let others = self.running_others().into_iter().map(|(_, name)| name);
            let all = others.chain([self.inner.node.to_string()]);
            all.filter(stays).collect()
        } else {
            names.to_vec()
        };
        for name in names {
            let Ok(node) = self.complete(&name) else {
                unavailable.push(name);
                continue;
            };
            let admin = self.clone();
            asked.spawn(async move {
                let heard = admin.hear_of(node.as_str(), None).await;
                (node.to_string(), heard)
            });
        }
        let mut loads = BTreeMap::new();
        for (node, heard) in asked.join_all().await {
            match heard {
                Heard::Load(load) => drop(loads.insert(node, load)),
                Heard::Nothing | Heard::Gone => unavailable.push(node),
            }
        }
        unavailable.sort();
        if unavailable.is_empty() {
            Ok(loads)
        } else {
            Err(AdminError::RebalanceNodes { nodes: unavailable })
        }
    }

    /// One look; the caller keeps others from looking.
    async fn look_around(&self) {
        let rebalancing = &self.inner.rebalancing;
        let (step, recipients) = {
            let mut coordinated = lock(&rebalancing.coordinated);
            let Some(Coordinated { rebalance, heard }) = coordinated.as_mut() else {
                return;
            };
            let step = rebalance.step(time::now().mono_ms, &std::mem::take(heard));
            let recipients: Vec<String> = rebalance.recipients().cloned().collect();
            (step, recipients)
        };
        match step {
            Step::Orders(orders) => {
                let donors = orders.into_iter().map(|(node, order)| (node, Some(order)));
                let all = donors.chain(recipients.into_iter().map(|node| (node, None)));
                let heard = self.hear(all).await;
                if let Some(coordinated) = lock(&rebalancing.coordinated).as_mut() {
                    coordinated.heard = heard;
                }
            }
            Step::Done => {
                self.finish().await;
                tracing::warn!("rebalance_done");
            }
            Step::Lost(node) => {
                self.finish().await;
                tracing::error!(lost = node, "rebalance_given_up");
            }
        }
    }

    async fn hear(
        &self,
        nodes: impl Iterator<Item = (String, Option<Order>)>,
    ) -> BTreeMap<String, Heard> {
        let mut asked = JoinSet::new();
        for (node, order) in nodes {
            let admin = self.clone();
            asked.spawn(async move {
                let heard = admin.hear_of(&node, order).await;
                (node, heard)
            });
        }
        asked.join_all().await.into_iter().collect()
    }

    /// Gives a node its order, if it is a donor, and hears what it has.
    async fn hear_of(&self, node: &str, order: Option<Order>) -> Heard {
        let own = node == self.inner.node.as_str();
        if !own && self.running_others().iter().all(|(_, name)| name != node) {
            return Heard::Gone;
        }
        let answer = match (own, order) {
            (true, Some(order)) => Ok(self.obey(order).await),
            (true, None) => Ok(self.load().await),
            (false, Some(order)) => self.ask_one(node, &Question::Donate(order)).await,
            (false, None) => self.ask_one(node, &Question::Load).await,
        };
        match answer {
            Ok(Ok(load)) => Heard::Load(load),
            Ok(Err(refused)) => {
                tracing::warn!(node, ?refused, "rebalance_not_taken_part_in");
                Heard::Gone
            }
            Err(error) => {
                tracing::warn!(node, reason = %error, "rebalance_not_answered");
                Heard::Nothing
            }
        }
    }

    /// Ends what this node coordinates; whether there was anything. A donor that does not hear of
    /// it ends by itself.
    async fn finish(&self) -> bool {
        let Some(ended) = lock(&self.inner.rebalancing.coordinated).take() else {
            return false;
        };
        let mut told = JoinSet::new();
        for node in ended.rebalance.donors() {
            let (admin, node) = (self.clone(), node.clone());
            told.spawn(async move { admin.tell_donor(&node).await });
        }
        told.join_all().await;
        true
    }

    async fn tell_donor(&self, node: &str) {
        let coordinator = self.inner.node.to_string();
        let done = if node == coordinator {
            self.stop_donating(&coordinator).await;
            Ok(true)
        } else {
            let question = Question::StopDonating { coordinator };
            self.ask_one::<bool>(node, &question).await
        };
        if let Err(error) = done {
            tracing::warn!(node, reason = %error, "rebalance_end_not_heard");
        }
    }
}

/// As participant.
impl Admin {
    /// What this node has; refused while it gives that away.
    pub(crate) async fn load(&self) -> Result<Load, Refused> {
        if !self.is_available() {
            return Err(Refused::Enabled);
        }
        let nothing = self.donate(Share::default(), &[]).await;
        nothing.map_err(|error| Refused::Stored(error.to_string()))
    }

    /// Does what a coordinator says, and what there is then.
    pub(crate) async fn obey(&self, order: Order) -> Result<Load, Refused> {
        let _turn = self.inner.evacuating.turn().await;
        if self.evacuation().is_some() {
            return Err(Refused::Enabled);
        }
        let rebalancing = &self.inner.rebalancing;
        let (share, recipients) = (order.share, order.recipients.clone());
        let refuses = {
            let mut donor = lock(&rebalancing.donor);
            let begins = donor.is_none();
            let obeyed = Donor::obey(&mut donor, order, time::now().mono_ms);
            obeyed.map_err(|_| Refused::Enabled)?;
            if begins {
                tracing::warn!("rebalance_donor");
                rebalancing.started.notify_one();
            }
            donor.as_ref().is_some_and(Donor::refuses)
        };
        let failed = |error: AdminError| Refused::Stored(error.to_string());
        if refuses {
            let redirect = Arc::new(self.redirect(&recipients).await);
            let refuse = Ask::Refuse(Some(redirect));
            self.inner.ask_all(refuse).await.map_err(failed)?;
        }
        let others = self.running_others().into_iter();
        let to: Vec<NodeIndex> = others
            .filter(|(_, name)| recipients.contains(name))
            .map(|(index, _)| index)
            .collect();
        let left = self.donate(share, &to).await.map_err(failed)?;
        if let Some(donor) = lock(&rebalancing.donor).as_mut() {
            donor.note(left);
        }
        Ok(left)
    }

    /// Gives a share away; what is left that is not on its way.
    async fn donate(&self, share: Share, to: &[NodeIndex]) -> Result<Load, AdminError> {
        let left = self.give_away(share, to).await?;
        Ok(Load {
            connected: left.connected as u64,
            sessions: (left.disconnected - left.offered) as u64,
        })
    }

    /// Its coordinator needs nothing more of this node; whether it was its coordinator.
    pub(crate) async fn stop_donating(&self, coordinator: &str) -> bool {
        let of_coordinator = |donor: &Donor| donor.order().coordinator == coordinator;
        self.release(of_coordinator, "rebalance_donor_released")
            .await
    }

    async fn release(&self, which: impl FnOnce(&Donor) -> bool, why: &'static str) -> bool {
        let _turn = self.inner.evacuating.turn().await;
        let ended = lock(&self.inner.rebalancing.donor).take_if(|donor| which(donor));
        let Some(ended) = ended else {
            return false;
        };
        tracing::warn!(coordinator = ended.order().coordinator, "{why}");
        if let Err(error) = self.inner.ask_all(Ask::Refuse(None)).await {
            tracing::error!(reason = %error, "rebalance_release_failed");
        }
        true
    }
}

/// Looks as long as this node coordinates or gives, until the task is dropped.
pub(crate) async fn rebalance(admin: Admin) {
    let rebalancing = &admin.inner.rebalancing;
    loop {
        rebalancing.started.notified().await;
        loop {
            sleep(LOOK).await;
            let now_ms = time::now().mono_ms;
            let abandoned = |donor: &Donor| donor.is_abandoned(now_ms);
            admin
                .release(abandoned, "rebalance_coordinator_silent")
                .await;
            {
                let _looking = rebalancing.looking.lock().await;
                admin.look_around().await;
            }
            if lock(&rebalancing.coordinated).is_none() && !rebalancing.donates() {
                break;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use dunlin_broker::rebalance::Stage;

    #[test]
    fn an_order_of_a_later_release_is_understood() {
        let order = Order {
            coordinator: "a@h".to_owned(),
            stage: Stage::EvictingConns,
            recipients: vec!["b@h".to_owned()],
            share: Share::default(),
            rates: Share::default(),
            goals: Averages::default(),
        };
        let mut text = serde_json::to_value(&order).expect("plain");
        text["later"] = 1.into();
        let read: Order = serde_json::from_value(text).expect("fields may be added");
        assert_eq!(read, order);
    }
}
