//! The decision who may connect and who may publish or subscribe to what.
//!
//! Backends (password database, ACL file, HTTP, JWT) live in the crate `auth`; this module holds
//! the seam they plug into and the default that lets everyone do everything. What a client may do
//! is decided at once; whether it may connect is decided at once too, or by a [`Proof`] that takes
//! so long (a stretched password) that it is made on another thread while the CONNECT waits. It
//! must never know packets.

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;

use crate::effects::PeerCert;

/// Who asks, as far as a decision may depend on it.
#[derive(Clone, Copy, Debug)]
pub struct Identity<'a> {
    /// Client identifier.
    pub clientid: &'a str,
    /// User name from CONNECT.
    pub username: Option<&'a str>,
    /// The client's address.
    pub peer: SocketAddr,
    /// Listener id, `tcp:default`.
    pub listener: &'a str,
    /// The verified client certificate.
    pub cert: Option<&'a PeerCert>,
}

/// What CONNECT offers as proof.
#[derive(Clone, Copy, Debug)]
pub struct Credentials<'a> {
    /// Who asks.
    pub identity: Identity<'a>,
    /// The password.
    pub password: Option<&'a [u8]>,
}

/// Whether a client may connect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Authentication {
    /// Welcome.
    Accept {
        /// Skips authorization.
        superuser: bool,
        /// No credentials were needed.
        anonymous: bool,
        /// The connection is closed at this wall clock time, ms.
        expire_at_wall_ms: Option<u64>,
    },
    /// Wrong user name or password (0x86).
    BadCredentials,
    /// No backend vouched for it (0x87).
    NotAuthorized,
    /// Banned (0x8A).
    Banned,
    /// No backend can answer (0x88).
    Unavailable,
}

/// An authenticator's answer, or the work that leads to it.
#[derive(Debug)]
pub enum Decision {
    /// Known.
    Now(Authentication),
    /// To be made on a thread that serves no clients.
    Later(Proof),
}

/// A check of credentials that takes milliseconds of a core.
pub struct Proof(Box<dyn FnOnce() -> Authentication + Send>);

impl Proof {
    /// The check is `work`.
    pub fn new(work: impl FnOnce() -> Authentication + Send + 'static) -> Self {
        Self(Box::new(work))
    }

    /// Makes it.
    pub fn run(self) -> Authentication {
        (self.0)()
    }
}

impl fmt::Debug for Proof {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Proof")
    }
}

/// What a client wants to do with a topic.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Publish to a topic name.
    Publish {
        /// 0..=2.
        qos: u8,
        /// Retain flag.
        retain: bool,
    },
    /// Subscribe to a topic filter (without `$share/group/`).
    Subscribe {
        /// Maximum QoS asked for.
        qos: u8,
    },
}

/// The answer to an [`Action`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Go on.
    Allow,
    /// Refuse with 0x87.
    Deny,
}

/// What a denial does to the connection (`authorization.deny_action`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum DenyAction {
    /// The packet is refused (QoS 0: dropped); the connection stays.
    #[default]
    Ignore,
    /// DISCONNECT 0x87.
    Disconnect,
}

/// Decides about CONNECT.
pub trait Authenticator: Send + Sync {
    /// Whether the client may connect. Called once per CONNECT.
    fn authenticate(&self, wall_ms: u64, credentials: &Credentials<'_>) -> Decision;
}

/// Decides about PUBLISH, SUBSCRIBE and wills.
pub trait Authorizer: Send + Sync {
    /// Whether the client may do it. Called once per packet (per filter of SUBSCRIBE); an
    /// implementation caches as it sees fit.
    fn authorize(&self, who: &Identity<'_>, action: Action, topic: &str) -> Verdict;
}

/// The decisions in force. Without backends everyone may do everything, at no cost per message.
#[derive(Clone, Default)]
pub struct Access {
    /// `None`: everyone may connect, anonymously.
    pub authenticator: Option<Arc<dyn Authenticator>>,
    /// `None`: everything is allowed.
    pub authorizer: Option<Arc<dyn Authorizer>>,
    /// What a denial does.
    pub deny_action: DenyAction,
}

impl fmt::Debug for Access {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Access")
            .field("authenticator", &self.authenticator.is_some())
            .field("authorizer", &self.authorizer.is_some())
            .field("deny_action", &self.deny_action)
            .finish()
    }
}

impl Access {
    /// Asks the authenticator.
    pub fn authenticate(&self, wall_ms: u64, credentials: &Credentials<'_>) -> Decision {
        match &self.authenticator {
            Some(authenticator) => authenticator.authenticate(wall_ms, credentials),
            None => Decision::Now(Authentication::Accept {
                superuser: false,
                anonymous: true,
                expire_at_wall_ms: None,
            }),
        }
    }
}
