//! Retained messages as an operator sees them.

use serde::{Deserialize, Serialize};

use super::{Admin, AdminError};

/// A retained message.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RetainedRow {
    /// Its topic.
    pub topic: String,
    /// QoS it was published with.
    pub qos: u8,
    /// When, in milliseconds since the epoch.
    pub published_at_ms: u64,
    /// Who published it.
    pub from_clientid: String,
    /// Its payload; empty in listings.
    pub payload: Vec<u8>,
}

impl Admin {
    /// How many messages are retained in the cluster.
    pub fn retained_count(&self) -> u64;

    /// Retained messages in topic order: those after `after`, at most `limit`, without payload.
    /// `filter` narrows to matching topics.
    pub fn retained(
        &self,
        filter: Option<&str>,
        after: Option<&str>,
        limit: usize,
    ) -> Result<Vec<RetainedRow>, AdminError>;

    /// The message retained on a topic, with payload.
    pub fn retained_message(&self, topic: &str) -> Result<Option<RetainedRow>, AdminError>;

    /// Deletes the message retained on a topic (false: there was none), or on all topics a filter
    /// matches.
    pub async fn clean_retained(&self, filter: &str) -> Result<u64, AdminError>;
}
