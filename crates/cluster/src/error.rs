//! What can go wrong between nodes, as data; every text an operator sees ends with the cure.

use std::net::SocketAddr;

use crate::discovery::{K8sError, Record, Service};
use crate::identity::SiteId;
use crate::input::JoinStep;
use crate::link::HandshakeError;
use crate::name::NodeName;
use crate::tls::TlsFault;

/// Why a connection could not be made.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DialError {
    /// The host name has no address.
    #[error("cannot be resolved: {0}")]
    Resolve(String),
    /// The host answered that nobody listens there.
    #[error("connection refused")]
    Refused(Option<SocketAddr>),
    /// Nothing answered in time.
    #[error("no answer in time")]
    TimedOut,
    /// There is no way to the host.
    #[error("unreachable: {0}")]
    Unreachable(String),
    /// The handshake of TLS failed.
    #[error(transparent)]
    Tls(#[from] TlsFault),
    /// Anything else the system reported.
    #[error("{0}")]
    Io(String),
}

/// Why a look-up found no candidates.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DiscoveryError {
    /// There is no such name.
    #[error("'{name}' does not exist in the DNS; check cluster.dns.name")]
    NoSuchName {
        /// The name.
        name: String,
    },
    /// The name exists and has none of the records asked for.
    #[error("'{name}' has no {record} records; check cluster.dns.record_type and the DNS")]
    NoRecords {
        /// The name.
        name: String,
        /// Which records.
        record: Record,
    },
    /// A server answered that it cannot or will not.
    #[error("the DNS server answers {code} to '{name}'; check the server")]
    Refused {
        /// The name.
        name: String,
        /// The server's response code.
        code: String,
    },
    /// No server answered.
    #[error("no answer within {ms} ms; {}", of.cure())]
    TimedOut {
        /// Who was asked.
        of: Service,
        /// How long was waited.
        ms: u64,
    },
    /// No connection to an etcd server.
    #[error("etcd at {server} cannot be reached: {error}; check cluster.etcd.server")]
    EtcdUnreachable {
        /// The server.
        server: String,
        /// What the system said.
        error: String,
    },
    /// The server and this node do not agree on TLS or on a certificate.
    #[error("TLS to etcd at {server} failed: {error}; check cluster.etcd.ssl_options")]
    EtcdTls {
        /// The server.
        server: String,
        /// What happened.
        error: String,
    },
    /// The server does not let this node do what it must.
    #[error(
        "etcd at {server} refuses this node: {error}; check cluster.etcd.username and password, \
         or the common name of its certificate, and that this user may read and write the keys \
         below cluster.etcd.prefix"
    )]
    EtcdDenied {
        /// The server.
        server: String,
        /// What it said.
        error: String,
    },
    /// The server failed in a way not named elsewhere.
    #[error("etcd at {server} failed: {error}; check that it is healthy (etcdctl endpoint health)")]
    EtcdFailed {
        /// The server.
        server: String,
        /// What happened.
        error: String,
    },
    /// The program was built without what asks it.
    #[error("this program was built without it; choose another cluster.discovery_strategy")]
    NotBuilt {
        /// Who would have been asked.
        of: Service,
    },
    /// `cluster.dns.name` cannot be looked up, or this host's resolver not be used.
    #[error("'{name}' cannot be looked up: {error}; check cluster.dns.name and /etc/resolv.conf")]
    Unusable {
        /// The name.
        name: String,
        /// What the resolver said.
        error: String,
    },
    /// Kubernetes named no nodes.
    #[error(transparent)]
    K8s(#[from] K8sError),
}

/// Why a member counts as down.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DownReason {
    /// Its connection was reset and its port refuses: the process is gone.
    Refused,
    /// It did not answer anybody for the suspicion time.
    Silent,
    /// This node has had no connection to it for a while, though other members have.
    Unlinked,
    /// It runs again, as a new process.
    Restarted,
    /// It counts this node as split off, and splits do not heal by themselves.
    HeldApart,
}

/// Why a call has no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CallError {
    /// The node is not a reachable member.
    #[error("the node is not reachable")]
    Unreachable,
    /// It did not answer in the time given.
    #[error("the node did not answer in time")]
    TimedOut,
    /// The payload is longer than [`crate::PAYLOAD_BYTES_MAX`], or too much is under way to it.
    #[error("the call is too large or the link to the node is full")]
    TooLarge,
}

/// Why an existing data directory cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RestoreError {
    /// The data directory belongs to a node of another name.
    #[error("this data directory belongs to node '{found}', not '{configured}'; {cure}")]
    OtherName {
        /// The name it was made under.
        found: NodeName,
        /// The name in the configuration.
        configured: NodeName,
        /// What to do.
        cure: String,
    },
    /// It was written by a later release.
    #[error("this data directory has format {found}, this release reads up to {known}; upgrade it")]
    Format {
        /// The format found.
        found: u16,
        /// The latest one this release reads.
        known: u16,
    },
    /// A row cannot be read.
    #[error("table '{table}' of this data directory has a damaged row; restore it from a backup")]
    Damaged {
        /// The table.
        table: String,
    },
}

/// Why an operation failed; the node is as it was before unless the variant says otherwise.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OperationError {
    /// The node named is this node.
    #[error("'{node}' is this node; name another one")]
    SelfNode {
        /// This node.
        node: NodeName,
    },
    /// Both are members of one cluster already.
    #[error("'{node}' is in this node's cluster already; nothing to do")]
    AlreadyInCluster {
        /// The node named.
        node: NodeName,
    },
    /// The target's host has no address.
    #[error("host '{host}' of '{node}' cannot be resolved ({error}); check the name and the DNS")]
    Unresolvable {
        /// The target.
        node: NodeName,
        /// The part after `@`.
        host: String,
        /// What the resolver said.
        error: String,
    },
    /// Nobody listens at the target's port.
    #[error("'{node}' does not listen at {addr}; start it and check its name")]
    Refused {
        /// The target.
        node: NodeName,
        /// Where it was looked for.
        addr: String,
    },
    /// The target did not answer.
    #[error("'{node}' at {addr} did not answer within {ms} ms; check its state and the firewall")]
    TimedOut {
        /// The target.
        node: NodeName,
        /// Where it was looked for.
        addr: String,
        /// How long.
        ms: u64,
    },
    /// There is no way to the target.
    #[error("'{node}' at {addr} cannot be reached ({error}); check the network between the hosts")]
    Unreachable {
        /// The target.
        node: NodeName,
        /// Where it was looked for.
        addr: String,
        /// What the system said.
        error: String,
    },
    /// TLS stands between the target and this node.
    #[error("'{node}': {fault}")]
    Tls {
        /// The target.
        node: NodeName,
        /// What is wrong, with the cure.
        fault: TlsFault,
    },
    /// One of the two speaks TLS, the other does not.
    #[error("'{node}': {error}")]
    TlsMismatch {
        /// The target.
        node: NodeName,
        /// Who does, with the cure.
        error: HandshakeError,
    },
    /// The target has another cookie.
    #[error("'{node}' has another cookie; set the same node.cookie on both nodes and restart one")]
    CookieMismatch {
        /// The target.
        node: NodeName,
    },
    /// The two releases do not understand each other.
    #[error(
        "'{node}' speaks protocol {}-{}, this node {}-{}; upgrade the older one",
        theirs.0, theirs.1, ours.0, ours.1
    )]
    VersionMismatch {
        /// The target.
        node: NodeName,
        /// Our oldest and newest protocol version.
        ours: (u16, u16),
        /// Theirs.
        theirs: (u16, u16),
    },
    /// Another node answers at that address.
    #[error("'{found}' answered at the address of '{expected}'; use the name the node itself has")]
    NameMismatch {
        /// The name used.
        expected: NodeName,
        /// The name the node has.
        found: NodeName,
    },
    /// A running member of the target cluster has this node's name.
    #[error(
        "a running member of that cluster is called '{node}' too (site {by}); rename this node, \
         or run 'emqx ctl cluster force-leave {node}' there first"
    )]
    NameTaken {
        /// This node's name.
        node: NodeName,
        /// The other site of that name.
        by: SiteId,
    },
    /// `cluster.name` differs.
    #[error("'{node}' has cluster.name '{theirs}', this node '{ours}'; make them equal")]
    ClusterNameMismatch {
        /// The target.
        node: NodeName,
        /// Our `cluster.name`.
        ours: String,
        /// Theirs.
        theirs: String,
    },
    /// The clocks are too far apart for last-writer-wins.
    #[error("the clock of '{node}' differs by {ms} ms; synchronise the clocks (NTP) and try again")]
    ClockSkew {
        /// The target.
        node: NodeName,
        /// The difference, milliseconds.
        ms: u64,
    },
    /// This node is alone, or the node named is no member.
    #[error("{}; see 'emqx ctl cluster status'", not_in_cluster(node.as_ref()))]
    NotInCluster {
        /// The node named, if one was.
        node: Option<NodeName>,
    },
    /// Another operation runs on this node or on the target.
    #[error("another cluster operation is running on '{node}'; try again when it has ended")]
    Busy {
        /// Where.
        node: NodeName,
    },
    /// One side is configured never to cluster.
    #[error("'{node}' has cluster.discovery_strategy = singleton; choose another and restart it")]
    Singleton {
        /// Which one.
        node: NodeName,
    },
    /// The target's tables do not fit into this node's limits.
    #[error("the cluster of '{node}' has too many members or rows for this node; raise its limits")]
    TooLarge {
        /// The target.
        node: NodeName,
    },
    /// The other side or the link failed on the way; the old state is intact, except that a node
    /// aborted after [`JoinStep::LeaveOld`] stands alone with its old data.
    #[error("failed at step '{step}': {cause}; check '{node}' and run the command again")]
    Aborted {
        /// The step that failed.
        step: JoinStep,
        /// The other node.
        node: NodeName,
        /// What happened.
        cause: AbortCause,
    },
    /// The invited node did not join.
    #[error("'{node}' did not join: {why}")]
    InviteFailed {
        /// The invited node.
        node: NodeName,
        /// What it said, with the cure.
        why: String,
    },
    /// The invited node is joining and has not finished in the time given.
    #[error("'{node}' took the invitation and is not a member yet; see 'emqx ctl cluster status'")]
    InviteUnfinished {
        /// The invited node.
        node: NodeName,
    },
    /// The own disk failed.
    #[error("failed at step '{step}': {error}; check disk space and permissions of node.data_dir")]
    Storage {
        /// The step that failed.
        step: JoinStep,
        /// What storage said.
        error: String,
    },
}

fn not_in_cluster(node: Option<&NodeName>) -> String {
    node.map_or_else(
        || "this node is not in a cluster".to_owned(),
        |node| format!("'{node}' is not a member of this node's cluster"),
    )
}

/// What ended a join on the way.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AbortCause {
    /// The connection ended.
    #[error("the connection was lost")]
    Closed,
    /// Nothing came for too long.
    #[error("the other node stopped answering")]
    Silent,
    /// The other node changed its own cluster meanwhile.
    #[error("the other node changed its cluster")]
    Changed,
    /// The other node sent something senseless.
    #[error("the other node sent a malformed message")]
    Malformed,
    /// The handshake failed in a way not named elsewhere.
    #[error("{0}")]
    Handshake(HandshakeError),
}
