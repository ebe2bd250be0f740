//! Black-box tests of the real binary: what they start, talk to and look at.
//!
//! Everything here works from outside: the program `emqx`, sockets, files, signals. It must never
//! link a crate of the product, sleep for a fixed time, or leave a process behind.
//!
//! Most tests start nodes on ports of their own and may run side by side. A test that needs the
//! well-known ports, or several hosts, runs in a [`lab`]: network, mounts and processes of its own.

pub mod certificates;
pub mod client;
pub mod etcd;
pub mod http;
pub mod installation;
pub mod kubernetes;
pub mod lab;
pub mod missing;
pub mod mosquitto;
pub mod node;
pub mod paho;
pub mod ports;
pub mod process;
pub mod repeated;
pub mod until;

pub use client::Client;
pub use installation::Installation;
pub use lab::{Host, Lab};
pub use node::{Node, cluster};
pub use process::Output;
pub use until::{until, until_eq};
