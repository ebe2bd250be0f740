//! Evacuation of nodes: the same operation for this node and, by a question, for another.
//!
//! [`dunlin_broker::evacuation`] decides what goes when; here its answers are carried to the
//! shards, four times a second, and what the operator asked for is kept in a file, so that a
//! restart does not let clients in again.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use dunlin_broker::evacuation::{Evacuation, EvacuationOptions, Load, Share};
use dunlin_broker::redirect::Redirect;
use dunlin_broker::router::NodeIndex;
use dunlin_broker::{Answer, Ask, Evict, Evicted};
use serde::{Deserialize, Serialize};
use tokio::sync::Notify;
use tokio::time::sleep;

use super::remote::Question;
use super::{Admin, AdminError, Scope};
use crate::time;

/// The file in the data directory; EMQX's name.
const FILE: &str = ".evacuation";

/// Pause between two looks at what is left.
const STEP: Duration = Duration::from_millis(250);

/// Looks after which the addresses of the other nodes are read again.
const REDIRECT_STEPS: u32 = 20;

/// An evacuation as an operator sees it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EvacuationRow {
    /// The node.
    pub node: String,
    /// The name of its [`dunlin_broker::evacuation::Stage`].
    pub state: String,
    /// What the operator said.
    pub options: EvacuationOptions,
    /// What there was when it began.
    pub initial: Load,
    /// What there is.
    pub current: Load,
}

/// Why another node did not start or stop an evacuation or a rebalance, or takes no part in one.
/// Travels as JSON.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Refused {
    Enabled,
    Disabled,
    Unavailable(Vec<String>),
    Stored(String),
    /// These cannot take part in a rebalance.
    Nodes(Vec<String>),
    Even,
}

/// The evacuation of this node, if there is one.
#[derive(Debug)]
pub(crate) struct Evacuating {
    file: PathBuf,
    state: Mutex<Option<Evacuation>>,
    /// A step, a start or a stop at a time, so that a late step does not undo a stop. Orders of a
    /// rebalance wait for it too: only one of the two says whether clients are refused.
    turn: tokio::sync::Mutex<()>,
    started: Notify,
}

impl Evacuating {
    /// None yet; its file would be in `data`.
    pub(crate) fn new(data: &Path) -> Self {
        Self {
            file: data.join(FILE),
            state: Mutex::default(),
            turn: tokio::sync::Mutex::default(),
            started: Notify::new(),
        }
    }

    /// Waits until nobody changes who may come.
    pub(crate) async fn turn(&self) -> tokio::sync::MutexGuard<'_, ()> {
        self.turn.lock().await
    }

    /// No change leaves it half done, so a poisoned lock protects a sound value.
    fn state(&self) -> MutexGuard<'_, Option<Evacuation>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn store(&self, options: &EvacuationOptions) -> io::Result<()> {
        let fresh = self.file.with_extension("new");
        let mut file = File::create(&fresh)?;
        file.write_all(&serde_json::to_vec_pretty(options)?)?;
        file.sync_all()?;
        fs::rename(&fresh, &self.file)?;
        self.sync_directory()
    }

    fn remove(&self) -> io::Result<()> {
        match fs::remove_file(&self.file) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => self.sync_directory(),
        }
    }

    fn sync_directory(&self) -> io::Result<()> {
        let directory = self.file.parent().unwrap_or_else(|| Path::new("."));
        File::open(directory)?.sync_all()
    }

    fn load(&self) -> io::Result<Option<EvacuationOptions>> {
        match fs::read(&self.file) {
            Ok(text) => Ok(Some(serde_json::from_slice(&text)?)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }
}

impl Admin {
    /// Starts to give all clients and sessions of a node away.
    pub async fn start_evacuation(
        &self,
        node: &str,
        options: EvacuationOptions,
    ) -> Result<(), AdminError> {
        let node = self.node(node).await?.node;
        if node == self.inner.node.as_str() {
            return self.start_here(options).await;
        }
        self.tell_node(&node, &Question::StartEvacuation(options))
            .await
    }

    /// Ends the evacuation of a node: clients may come again.
    pub async fn stop_evacuation(&self, node: &str) -> Result<(), AdminError> {
        let node = self.node(node).await?.node;
        if node == self.inner.node.as_str() {
            return self.stop_here().await;
        }
        self.tell_node(&node, &Question::StopEvacuation).await
    }

    /// The evacuation of this node.
    pub fn evacuation(&self) -> Option<EvacuationRow> {
        let state = self.inner.evacuating.state();
        let evacuation = state.as_ref()?;
        let (initial, current) = evacuation.loads();
        Some(EvacuationRow {
            node: self.inner.node.to_string(),
            state: evacuation.stage().as_str().to_owned(),
            options: evacuation.options().clone(),
            initial,
            current,
        })
    }

    /// The evacuation of a node.
    pub async fn evacuation_of(&self, node: &str) -> Result<Option<EvacuationRow>, AdminError> {
        let node = self.node(node).await?.node;
        if node == self.inner.node.as_str() {
            return Ok(self.evacuation());
        }
        self.ask_one(&node, &Question::Evacuation).await
    }

    /// All evacuations in the cluster, by node. Nodes that do not answer in time are left out.
    pub async fn evacuations(&self) -> Vec<EvacuationRow> {
        let question = Question::Evacuation;
        let theirs = self.gather::<Option<EvacuationRow>>(&Scope::Cluster, &question);
        let theirs = theirs.await.into_iter().filter_map(|(_, row)| row);
        let mut rows: Vec<_> = self.evacuation().into_iter().chain(theirs).collect();
        rows.sort_by(|a, b| a.node.cmp(&b.node));
        rows
    }

    /// Whether load balancers may send clients to this node.
    pub fn is_available(&self) -> bool {
        let stays = self.inner.evacuating.state().is_none() && !self.inner.rebalancing.donates();
        self.inner.is_started() && stays
    }

    pub(crate) async fn tell_node(
        &self,
        node: &str,
        question: &Question,
    ) -> Result<(), AdminError> {
        let done: Result<(), Refused> = self.ask_one(node, question).await?;
        let node = node.to_owned();
        done.map_err(|refused| match refused {
            Refused::Enabled => AdminError::RebalanceEnabled { node },
            Refused::Disabled => AdminError::RebalanceDisabled { node },
            Refused::Unavailable(nodes) => AdminError::MigrateTo { nodes },
            Refused::Stored(reason) => AdminError::Storage { reason },
            Refused::Nodes(nodes) => AdminError::RebalanceNodes { nodes },
            Refused::Even => AdminError::NothingToBalance,
        })
    }

    /// Starts it here, for another node's operator.
    pub(crate) async fn start_for(&self, options: EvacuationOptions) -> Result<(), Refused> {
        refused(self.start_here(options).await)
    }

    /// Stops it here, for another node's operator.
    pub(crate) async fn stop_for(&self) -> Result<(), Refused> {
        refused(self.stop_here().await)
    }

    async fn start_here(&self, mut options: EvacuationOptions) -> Result<(), AdminError> {
        let evacuating = &self.inner.evacuating;
        let _turn = evacuating.turn.lock().await;
        if evacuating.state().is_some() || self.inner.rebalancing.donates() {
            let node = self.inner.node.to_string();
            return Err(AdminError::RebalanceEnabled { node });
        }
        options.migrate_to = self.check_recipients(&options.migrate_to)?;
        let reason = |error: io::Error| AdminError::Storage {
            reason: error.to_string(),
        };
        evacuating.store(&options).map_err(reason)?;
        tracing::warn!(?options, "evacuation_started");
        *evacuating.state() = Some(Evacuation::start(options, time::now().mono_ms));
        evacuating.started.notify_one();
        Ok(())
    }

    async fn stop_here(&self) -> Result<(), AdminError> {
        let evacuating = &self.inner.evacuating;
        let _turn = evacuating.turn.lock().await;
        if evacuating.state().is_none() {
            let node = self.inner.node.to_string();
            return Err(AdminError::RebalanceDisabled { node });
        }
        evacuating.remove().map_err(|error| AdminError::Storage {
            reason: error.to_string(),
        })?;
        *evacuating.state() = None;
        self.inner.ask_all(Ask::Refuse(None)).await?;
        tracing::warn!("evacuation_stopped");
        Ok(())
    }

    /// The full names of nodes that are to get the sessions; all have to be running.
    fn check_recipients(&self, names: &[String]) -> Result<Vec<String>, AdminError> {
        let running = self.running_others();
        let (mut known, mut nodes) = (Vec::new(), Vec::new());
        for name in names {
            match self.complete(name) {
                Ok(full) if running.iter().any(|(_, node)| node == full.as_str()) => {
                    known.push(full.to_string());
                }
                _ => nodes.push(name.clone()),
            }
        }
        if nodes.is_empty() {
            Ok(known)
        } else {
            Err(AdminError::MigrateTo { nodes })
        }
    }

    pub(crate) fn running_others(&self) -> Vec<(NodeIndex, String)> {
        let peers = self.inner.shared.peers().into_iter();
        let running = peers.filter(|(_, _, reachable)| *reachable);
        running
            .map(|(index, peer, _)| (index, peer.name.to_string()))
            .collect()
    }

    /// Goes on with an evacuation from before a restart; called before clients can connect.
    pub(crate) async fn resume_evacuation(&self) {
        let evacuating = &self.inner.evacuating;
        let options = match evacuating.load() {
            Ok(None) => return,
            Ok(Some(options)) => options,
            Err(error) => {
                // It was to be evacuated, that much is known.
                let file = evacuating.file.display();
                tracing::error!(%file, reason = %error, "evacuation_options_unreadable");
                EvacuationOptions::default()
            }
        };
        tracing::warn!(?options, "evacuation_goes_on");
        *evacuating.state() = Some(Evacuation::resume(options, time::now().mono_ms));
        self.refuse_clients().await;
        evacuating.started.notify_one();
    }

    async fn refuse_clients(&self) {
        let options = match self.inner.evacuating.state().as_ref() {
            Some(evacuation) if evacuation.refuses() => evacuation.options().clone(),
            _ => return,
        };
        let redirect = match options.redirect_to {
            Some(reference) => Redirect::everyone(reference),
            None => self.redirect(&options.migrate_to).await,
        };
        let refuse = Ask::Refuse(Some(Arc::new(redirect)));
        if let Err(error) = self.inner.ask_all(refuse).await {
            tracing::error!(reason = %error, "evacuation_refusal_failed");
        }
    }

    /// One look; false when there is no evacuation any more.
    async fn step_evacuation(&self, step: u32, left: &mut Load) -> bool {
        let evacuating = &self.inner.evacuating;
        let _turn = evacuating.turn.lock().await;
        let (share, migrate_to, news) = {
            let mut state = evacuating.state();
            let Some(evacuation) = state.as_mut() else {
                return false;
            };
            let before = evacuation.refuses();
            let share = evacuation.step(time::now().mono_ms, *left);
            let news = evacuation.refuses() && !before;
            (share, evacuation.options().migrate_to.clone(), news)
        };
        if news || step % REDIRECT_STEPS == REDIRECT_STEPS - 1 {
            self.refuse_clients().await;
        }
        let to = if share.sessions > 0 && left.sessions > 0 {
            self.recipients(&migrate_to).await
        } else {
            Vec::new()
        };
        match self.give_away(share, &to).await {
            Ok(now_left) => *left = load(now_left),
            Err(error) => tracing::error!(reason = %error, "evacuation_step_failed"),
        }
        true
    }

    /// Who may get sessions: running nodes of this release that are not evacuated themselves.
    async fn recipients(&self, migrate_to: &[String]) -> Vec<NodeIndex> {
        let question = Question::Evacuation;
        let rows = self.gather::<Option<EvacuationRow>>(&Scope::Cluster, &question);
        let rows = rows.await;
        let fit = |name: &String| {
            let stays = rows.iter().any(|(node, row)| node == name && row.is_none());
            stays && (migrate_to.is_empty() || migrate_to.contains(name))
        };
        let others = self.running_others().into_iter();
        others
            .filter(|(_, name)| fit(name))
            .map(|(index, _)| index)
            .collect()
    }

    /// Has the shards give a share away, one after the other; what is left.
    pub(crate) async fn give_away(
        &self,
        mut share: Share,
        to: &[NodeIndex],
    ) -> Result<Evicted, AdminError> {
        let mut left = Evicted::default();
        for shard in 0..self.inner.shared.shards() {
            let wanted = Evict {
                connections: usize::try_from(share.connections).unwrap_or(usize::MAX),
                sessions: usize::try_from(share.sessions).unwrap_or(usize::MAX),
                to: to.to_vec(),
            };
            let answer = self.inner.ask_shard(shard, Ask::Evict(wanted)).await?;
            if let Answer::Evicted(evicted) = answer {
                share.connections -= share.connections.min(evicted.connections as u64);
                share.sessions -= share.sessions.min(evicted.sessions as u64);
                left.connections += evicted.connections;
                left.sessions += evicted.sessions;
                left.connected += evicted.connected;
                left.disconnected += evicted.disconnected;
                left.offered += evicted.offered;
            }
        }
        Ok(left)
    }
}

/// Carries evacuations of this node out until the task is dropped.
pub(crate) async fn evacuate(admin: Admin) {
    loop {
        admin.inner.evacuating.started.notified().await;
        let nothing = Share::default();
        let left = admin.give_away(nothing, &[]).await;
        let mut left = left.map_or_else(|_| Load::default(), load);
        let mut step = 0_u32;
        while admin.step_evacuation(step, &mut left).await {
            step = step.wrapping_add(1);
            sleep(STEP).await;
        }
    }
}

fn load(left: Evicted) -> Load {
    Load {
        connected: left.connected as u64,
        sessions: left.disconnected as u64,
    }
}

pub(crate) fn refused(done: Result<(), AdminError>) -> Result<(), Refused> {
    done.map_err(|error| match error {
        AdminError::RebalanceEnabled { .. } => Refused::Enabled,
        AdminError::RebalanceDisabled { .. } => Refused::Disabled,
        AdminError::MigrateTo { nodes } => Refused::Unavailable(nodes),
        AdminError::Storage { reason } => Refused::Stored(reason),
        AdminError::RebalanceNodes { nodes } => Refused::Nodes(nodes),
        AdminError::NothingToBalance => Refused::Even,
        other => Refused::Stored(other.to_string()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_outlive_a_restart_and_are_gone_after_a_stop() {
        let directory = tempfile::tempdir().expect("a directory");
        let evacuating = Evacuating::new(directory.path());
        assert_eq!(evacuating.load().expect("readable"), None);
        let options = EvacuationOptions {
            conn_evict_rate: 7,
            migrate_to: vec!["b@h".to_owned()],
            ..EvacuationOptions::default()
        };
        evacuating.store(&options).expect("stored");
        assert_eq!(evacuating.load().expect("readable"), Some(options));
        evacuating.remove().expect("removed");
        evacuating.remove().expect("removed already");
        assert_eq!(evacuating.load().expect("readable"), None);
    }

    #[test]
    fn a_file_of_another_release_may_lack_options() {
        let directory = tempfile::tempdir().expect("a directory");
        let evacuating = Evacuating::new(directory.path());
        fs::write(&evacuating.file, r#"{"conn_evict_rate":7}"#).expect("written");
        let expected = EvacuationOptions {
            conn_evict_rate: 7,
            ..EvacuationOptions::default()
        };
        assert_eq!(evacuating.load().expect("readable"), Some(expected));
        fs::write(&evacuating.file, "garbage").expect("written");
        assert!(evacuating.load().is_err());
    }
}
