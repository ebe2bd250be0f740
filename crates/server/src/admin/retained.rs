//! Retained messages as an operator sees them.

use std::ops::ControlFlow;

use dunlin_broker::control::RETAINED;
use dunlin_broker::retained::Found;
use serde::{Deserialize, Serialize};

use super::{Admin, AdminError};
use crate::time::wall_ms;

/// Rows deleted before it is waited until they are durable: a few group commits at a time, so that
/// others' writes have their turn.
const CLEAN_AT_ONCE: usize = 1000;

/// A retained message.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RetainedRow {
    /// Its topic.
    pub topic: String,
    /// `QoS` it was published with.
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
    pub fn retained_count(&self) -> u64 {
        self.inner.shared.retained().len() as u64
    }

    /// Retained messages in topic order: those after `after`, at most `limit`, without payload.
    /// `filter` narrows to matching topics.
    pub fn retained(
        &self,
        filter: Option<&str>,
        after: Option<&str>,
        limit: usize,
    ) -> Result<Vec<RetainedRow>, AdminError> {
        let mut rows = Vec::new();
        self.each_retained(filter, after, |found| {
            if rows.len() == limit {
                return ControlFlow::Break(());
            }
            rows.push(RetainedRow {
                payload: Vec::new(),
                ..row(&found)
            });
            ControlFlow::Continue(())
        })?;
        Ok(rows)
    }

    /// The message retained on a topic, with payload.
    pub fn retained_message(&self, topic: &str) -> Result<Option<RetainedRow>, AdminError> {
        let found = self.inner.shared.retained().get(topic, wall_ms());
        Ok(found.map(|found| row(&found)))
    }

    /// Deletes the messages retained on all topics a filter matches; how many there were.
    pub async fn clean_retained(&self, filter: &str) -> Result<u64, AdminError> {
        let mut topics = Vec::new();
        self.each_retained(Some(filter), None, |found| {
            topics.push(found.topic.into_owned());
            ControlFlow::Continue(())
        })?;
        for some in topics.chunks(CLEAN_AT_ONCE) {
            self.inner.delete_rows(RETAINED, some).await?;
        }
        Ok(topics.len() as u64)
    }

    /// Calls `each` for what a filter matches (all there is, without one), in topic order, behind
    /// `after`, until it breaks off. The table's lock is given up now and then for writers.
    fn each_retained(
        &self,
        filter: Option<&str>,
        after: Option<&str>,
        mut each: impl FnMut(Found<'_>) -> ControlFlow<()>,
    ) -> Result<(), AdminError> {
        if let Some(filter) = filter.filter(|filter| dunlin_mqtt::TopicFilter::new(filter).is_err())
        {
            return Err(AdminError::Filter {
                filter: filter.to_owned(),
            });
        }
        let retained = self.inner.shared.retained();
        let mut after = after.map(str::to_owned);
        let mut broken = false;
        loop {
            let watched = |found: Found<'_>| {
                let flow = each(found);
                broken = flow.is_break();
                flow
            };
            let from = after.as_deref();
            after = match filter {
                None => retained.for_each(from, wall_ms(), watched),
                Some(filter) => retained.match_filter(filter, from, wall_ms(), watched),
            };
            if broken || after.is_none() {
                return Ok(());
            }
        }
    }
}

fn row(found: &Found<'_>) -> RetainedRow {
    RetainedRow {
        topic: found.topic.to_string(),
        qos: found.qos().as_u8(),
        published_at_ms: found.published_wall_ms(),
        from_clientid: found.clientid().to_owned(),
        payload: found.payload().to_vec(),
    }
}
