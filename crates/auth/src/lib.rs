//! Who may connect, and who may publish and subscribe to what: the backends behind
//! [`dunlin_broker::access`].
//!
//! Decisions only: the text of `acl.conf`, the configured objects and the stored rows come in as
//! values. What takes long on purpose (a stretched password) is handed back as work for somebody
//! else's thread. Must never open a file or a socket, know a packet, or log a password.

#![warn(missing_docs)]

mod acl;
mod authentication;
mod authorization;
mod filter;
mod password;
mod term;
mod user;

pub use acl::{Acl, AclError, AclFault};
pub use authentication::{
    Bootstrap, BootstrapFault, Chain, ChainError, Chains, FindUser, UserDatabase,
};
pub use authorization::{Authorization, FileSource, SourceError, Sources};
pub use password::{Algorithm, AlgorithmError, DigestKind, SaltPosition, Stored};
pub use user::{User, UserIdType};
