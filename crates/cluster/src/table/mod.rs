//! Replicated tables of opaque rows.
//!
//! `merged` holds cluster state: any node writes, the last writer wins per key. `owned` carries
//! node state: each node streams its own rows to its peers, who hold them for it.

pub mod merged;
pub(crate) mod owned;
mod rows;
