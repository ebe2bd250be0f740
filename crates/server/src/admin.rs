//! Every operation an operator can do on a running node, each implemented once.
//!
//! The command line, the REST API and the dashboard call these functions and only render what they
//! return, so the three can never disagree. An `Admin` is a cheap handle that may be used from any
//! thread; it reaches the cores by messages and waits for the answer with a deadline. It must never
//! print, and never format text for one particular caller.

mod alarms;
mod banned;
mod clients;
mod cluster;
mod configuration;
mod diagnose;
mod error;
mod evacuation;
mod figures;
mod listeners;
mod mqtt_users;
mod publish;
mod rebalance;
mod remote;
mod retained;
mod users;
mod view;

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use dunlin_broker::control::ControlInput;
use dunlin_broker::message::Message;
use dunlin_broker::metrics::Gauges;
use dunlin_broker::shared::Shared;
use dunlin_broker::{Answer, Ask};
use dunlin_cluster::{Merged, NodeName, TableId};
use dunlin_config::Loaded;
use tokio::sync::{Notify, oneshot};
use tokio::time::timeout;

use crate::access::Authentication;
use crate::alarm::Alarms;
use crate::configuration::Configuration;
use crate::control_thread::{ControlLetter, Request};
use crate::inbox::Inbox;
use crate::listeners::Listeners;
use crate::log::LogHandle;

pub use crate::alarm::AlarmRow;
pub use banned::{BanRow, NewBan};
pub use clients::{ClientFilter, ClientRow, Scope, SubscriptionRow, TopicRow};
pub use cluster::{
    ClusterStatus, DiscoveryStatus, JoinOutcome, LeaveOutcome, MemberRow, NodeRow, Progress,
};
pub use configuration::Configured;
pub use diagnose::{Diagnosis, DiagnosisStep, DiagnosisSteps};
pub use dunlin_broker::evacuation::{EvacuationOptions, Load, Share};
pub use dunlin_broker::rebalance::{Averages, Order, RebalanceOptions, Stage, Threshold};
pub use dunlin_cluster::OperationError;
pub use error::{AdminError, PasswordRule};
pub use evacuation::EvacuationRow;
pub(crate) use evacuation::{Evacuating, evacuate};
pub use figures::{BrokerDescription, Figures, NodeStatus};
pub use listeners::ListenerRow;
pub use mqtt_users::{AuthenticatorRow, MqttUserRow};
pub use publish::{Publication, Published};
pub use rebalance::{DonorRow, RebalanceRow};
pub(crate) use rebalance::{Rebalancing, rebalance};
pub use retained::RetainedRow;
pub(crate) use users::random;
pub use users::{ApiKeyRow, Login, Role, UserRow, check_password_rule};
pub use view::{ClusterView, DiscoveryRow, MemberView, NodeView, SeenRow, TableRow};

/// The longest time an operation waits for another thread of this node before it is reported as
/// [`AdminError::Timeout`]. A healthy thread answers within microseconds; this is for one that
/// hangs.
pub const LOCAL_TIMEOUT: Duration = Duration::from_secs(5);

/// Handle on a running node.
#[derive(Clone)]
pub struct Admin {
    pub(crate) inner: Arc<Inner>,
}

/// What operations work with.
pub(crate) struct Inner {
    pub(crate) node: NodeName,
    pub(crate) started: Instant,
    /// The configuration the node was started with.
    pub(crate) loaded: Arc<Loaded>,
    pub(crate) configuration: Configuration,
    pub(crate) shared: Arc<Shared>,
    pub(crate) users: Arc<Merged>,
    pub(crate) api_keys: Arc<Merged>,
    pub(crate) mqtt_users: Arc<Merged>,
    pub(crate) authentication: Authentication,
    pub(crate) control: Arc<Inbox<ControlLetter>>,
    pub(crate) listeners: Arc<Listeners>,
    pub(crate) alarms: Arc<Alarms>,
    pub(crate) log: LogHandle,
    pub(crate) sys_path: String,
    pub(crate) evacuating: Evacuating,
    pub(crate) rebalancing: Rebalancing,
    pub(crate) serving: AtomicBool,
    pub(crate) stop: Notify,
    pub(crate) gauges: Mutex<Gauges>,
}

impl Admin {
    /// The log, to read and set levels.
    pub fn log(&self) -> &LogHandle {
        &self.inner.log
    }

    /// Asks the node to stop; returns at once. The process ends when clients are told and
    /// everything is on disk.
    pub fn stop(&self) {
        self.inner.stop.notify_one();
    }
}

impl Inner {
    pub(crate) fn is_started(&self) -> bool {
        self.serving.load(Ordering::Relaxed)
    }

    pub(crate) fn gauges(&self) -> MutexGuard<'_, Gauges> {
        self.gauges.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn shards(&self) -> u16 {
        self.shared.shards()
    }

    fn send(&self, request: Request) {
        self.control.push(ControlLetter::Ask(request));
    }

    fn input(&self, input: ControlInput) {
        self.control.push(ControlLetter::Core(input));
    }

    /// Sends a request made with the given answer slot and waits for the answer.
    async fn request<T>(
        &self,
        request: impl FnOnce(oneshot::Sender<T>) -> Request,
    ) -> Result<T, AdminError> {
        let (done, answer) = oneshot::channel();
        self.send(request(done));
        match timeout(LOCAL_TIMEOUT, answer).await {
            Ok(answer) => answer.map_err(|_| AdminError::Stopping),
            Err(_) => Err(AdminError::Timeout {
                waited_ms: LOCAL_TIMEOUT.as_millis() as u64,
            }),
        }
    }

    async fn ask_all(&self, what: Ask) -> Result<Vec<Answer>, AdminError> {
        self.request(|done| Request::AskAll { what, done }).await
    }

    async fn ask_shard(&self, shard: u16, what: Ask) -> Result<Answer, AdminError> {
        let answers = self
            .request(|done| Request::AskShard { shard, what, done })
            .await?;
        answers.into_iter().next().ok_or(AdminError::Stopping)
    }

    /// Routes a message of the node itself; whether anybody is subscribed.
    async fn publish(&self, message: Message) -> Result<bool, AdminError> {
        let answers = self
            .request(|done| Request::Publish { message, done })
            .await?;
        Ok(answers
            .iter()
            .any(|answer| matches!(answer, Answer::Published { matched: true })))
    }

    /// Deletes cluster-state rows and waits until that is durable.
    async fn delete_rows(&self, table: TableId, keys: &[String]) -> Result<(), AdminError> {
        self.put_rows(table, keys.iter().map(|key| (key.clone(), None)))
            .await
    }

    /// Writes cluster-state rows (deletes those without a value) and waits until that is durable.
    async fn put_rows(
        &self,
        table: TableId,
        rows: impl Iterator<Item = (String, Option<String>)>,
    ) -> Result<(), AdminError> {
        let mut written = Vec::new();
        for (key, value) in rows {
            let (done, answer) = oneshot::channel();
            self.send(Request::Put {
                table,
                key: key.into(),
                value: value.map(bytes::Bytes::from),
                done,
            });
            written.push(answer);
        }
        for answer in written {
            let Ok(stored) = timeout(LOCAL_TIMEOUT, answer).await else {
                let waited_ms = LOCAL_TIMEOUT.as_millis() as u64;
                return Err(AdminError::Timeout { waited_ms });
            };
            let stored = stored.map_err(|_| AdminError::Stopping)?;
            stored.map_err(|reason| AdminError::Storage { reason })?;
        }
        Ok(())
    }

    /// Writes a row if its table is empty, and waits until that is durable.
    async fn put_first_row(
        &self,
        table: TableId,
        key: &str,
        value: Vec<u8>,
    ) -> Result<(), AdminError> {
        let key = bytes::Bytes::copy_from_slice(key.as_bytes());
        let value = value.into();
        let stored = self
            .request(|done| Request::PutFirst {
                table,
                key,
                value,
                done,
            })
            .await?;
        stored.map_err(|reason| AdminError::Storage { reason })
    }

    /// Writes (or, without a value, deletes) a cluster-state row and waits until it is durable.
    async fn put_row(
        &self,
        table: TableId,
        key: &str,
        value: Option<Vec<u8>>,
    ) -> Result<(), AdminError> {
        let key = bytes::Bytes::copy_from_slice(key.as_bytes());
        let value = value.map(bytes::Bytes::from);
        let stored = self
            .request(|done| Request::Put {
                table,
                key,
                value,
                done,
            })
            .await?;
        stored.map_err(|reason| AdminError::Storage { reason })
    }
}
