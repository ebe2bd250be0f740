//! A whole cluster in one seeded process: nodes, their disks and clocks, a network that fails, and
//! clients that remember what they were promised.
//!
//! It exists because agreement between nodes is wrong in ways no example shows. A seed is expanded
//! to every option and to a script; the same seed is the same run, to the byte. It must never use
//! the machine's clock, threads or random source, and never look at a node to decide what happens.

#![warn(missing_docs)]

pub mod client;
pub mod disk;
pub mod host;
pub mod invariant;
pub mod network;
pub mod oracle;
pub mod plant;
pub mod run;
pub mod scale;
pub mod splits;
pub mod trace;
pub mod violation;
pub mod wills;
pub mod workload;
pub mod world;

pub use run::{Order, Report, run, shrink};
pub use violation::Violation;
