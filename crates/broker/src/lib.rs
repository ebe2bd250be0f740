//! dunlin-broker

pub mod inflight;
pub mod message;
pub mod metrics;
pub mod queue;
pub mod registry;
pub mod retained;
pub mod router;
pub mod settings;
pub mod shared;
