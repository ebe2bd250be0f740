//! Every operation an operator can do on a running node, each implemented once.
//!
//! The command line, the REST API and the dashboard call these functions and only render what they
//! return, so the three can never disagree. An `Admin` is a cheap handle that may be used from any
//! thread; it reaches the cores by messages and waits for the answer with a deadline. It must never
//! print, and never format text for one particular caller.

mod clients;
mod cluster;
mod error;
mod figures;
mod listeners;
mod publish;
mod retained;
mod users;

use std::sync::Arc;
use std::time::Duration;

pub use clients::{ClientFilter, ClientRow, Scope, SubscriptionRow, TopicRow};
pub use cluster::{ClusterStatus, JoinOutcome, LeaveOutcome, MemberRow, NodeRow, Progress};
pub use error::AdminError;
pub use figures::{BrokerDescription, Figures, NodeStatus};
pub use listeners::ListenerRow;
pub use publish::{Publication, Published};
pub use retained::RetainedRow;
pub use users::{ApiKeyRow, Login, Role, UserRow, check_password_rule};

/// The longest time an operation waits for another thread of this node before it is reported as
/// [`AdminError::Timeout`]. A healthy thread answers within microseconds; this is for one that
/// hangs.
pub const LOCAL_TIMEOUT: Duration = Duration::from_secs(5);

/// The longest time a question to another node may take. A healthy node answers in a millisecond;
/// one that does not answer within a second must not hold up a page about the others.
pub const PEER_TIMEOUT: Duration = Duration::from_secs(1);

/// Handle on a running node.
#[derive(Clone)]
pub struct Admin {
    pub(crate) inner: Arc<Inner>,
}
