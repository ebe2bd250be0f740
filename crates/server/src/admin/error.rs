//! Why an operator's request was refused: values, so that each caller words them in its own way.

use dunlin_broker::banned::SubjectError;
use dunlin_cluster::OperationError;
use dunlin_config::ConfigError;
use dunlin_config::change::{ROWS_MAX, Refusal, VALUE_BYTES_MAX};

/// Why an operation did not happen. `Display` is a sentence for people that ends with the cure.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AdminError {
    /// A cluster operation (join, leave, force-leave) failed.
    #[error(transparent)]
    Cluster(#[from] OperationError),
    /// A node name that is none.
    #[error("`{name}` is not a node name: {reason}; use name@host, for example emqx@10.0.0.1")]
    NodeName {
        /// What was given.
        name: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The named node is not a running member of the cluster.
    #[error("node {node} is not a running member of this cluster; see `emqx_ctl cluster status`")]
    NodeNotFound {
        /// The node asked for.
        node: String,
    },
    /// The named node did not answer in time.
    #[error("node {node} did not answer within {waited_ms} ms; check it and the link to it")]
    NodeSilent {
        /// The node asked.
        node: String,
        /// How long it was waited for.
        waited_ms: u64,
    },
    /// No client of that id.
    #[error("no client with the id `{clientid}`")]
    ClientNotFound {
        /// The client id.
        clientid: String,
    },
    /// No active alarm of that name.
    #[error("no active alarm is called `{name}`; see GET /api/v5/alarms")]
    AlarmNotFound {
        /// The name.
        name: String,
    },
    /// A topic filter that is none.
    #[error("`{filter}` is not a topic filter")]
    Filter {
        /// What was given.
        filter: String,
    },
    /// A topic name that is none.
    #[error("`{topic}` is not a topic name: it is empty, too long or holds a wildcard")]
    Topic {
        /// What was given.
        topic: String,
    },
    /// `QoS` above 2.
    #[error("QoS should be 0, 1, 2")]
    Qos,
    /// No listener of that id.
    #[error("no listener `{id}`; see `emqx_ctl listeners`")]
    ListenerNotFound {
        /// `type:name`.
        id: String,
    },
    /// The listener is running already.
    #[error("listener {id} is running already")]
    ListenerRunning {
        /// `type:name`.
        id: String,
    },
    /// The listener is stopped already.
    #[error("listener {id} is not running")]
    ListenerStopped {
        /// `type:name`.
        id: String,
    },
    /// The listener could not be opened.
    #[error(transparent)]
    Listener(#[from] crate::listener::ListenError),
    /// A user of that name exists.
    #[error("the user `{username}` exists already; to change the password use `admins passwd`")]
    UserExists {
        /// The name.
        username: String,
    },
    /// No user of that name.
    #[error("no user `{username}`")]
    UserNotFound {
        /// The name.
        username: String,
    },
    /// A user name that may not be used.
    #[error(
        "Bad Username. Only upper and lower case letters, numbers and underscores are supported"
    )]
    Username,
    /// No authenticator of that id, or not one with users.
    #[error("no authenticator with users has the id `{id}`; see authentication in emqx.conf")]
    AuthenticatorNotFound {
        /// `mechanism:backend`.
        id: String,
    },
    /// A user id of an MQTT client that may not be used.
    #[error("user_id must have 1 to 65535 bytes, none of them zero")]
    UserId,
    /// A password of an MQTT client that may not be used.
    #[error("the password must have 1 to 65535 bytes")]
    MqttPassword,
    /// The password breaks the rule.
    #[error(transparent)]
    Password(#[from] PasswordRule),
    /// An API key of that name exists.
    #[error("an API key named `{name}` exists already")]
    ApiKeyExists {
        /// The name.
        name: String,
    },
    /// No API key of that name.
    #[error("no API key named `{name}`")]
    ApiKeyNotFound {
        /// The name.
        name: String,
    },
    /// Nobody can be banned like that.
    #[error(transparent)]
    BanSubject(#[from] SubjectError),
    /// The ban would end before it begins.
    #[error("the ban is over already; `until` must be in the future")]
    BanOver,
    /// There is such a ban already.
    #[error("{kind} {who} is banned already; lift that ban first")]
    BanExists {
        /// By what.
        kind: &'static str,
        /// Whom.
        who: String,
    },
    /// There is no such ban.
    #[error("{kind} {who} is not banned")]
    BanNotFound {
        /// By what.
        kind: &'static str,
        /// Whom.
        who: String,
    },
    /// User name or password are wrong; it is not said which.
    #[error("user name or password is wrong")]
    Credentials,
    /// The table is full.
    #[error("the {table} table is full ({rows_max} rows); delete some first")]
    TableFull {
        /// Which.
        table: &'static str,
        /// Its limit.
        rows_max: usize,
    },
    /// A change that would not be a valid configuration.
    #[error("{}", lines(.errors))]
    ConfigInvalid {
        /// All that is wrong with it.
        errors: Vec<ConfigError>,
    },
    /// Keys that nodes read from their own files only.
    #[error(
        "Cannot update read-only key '{}': change it in etc/emqx.conf of each node and restart it \
         (emqx restart)", .keys.join(",")
    )]
    ConfigReadOnly {
        /// Their paths.
        keys: Vec<String>,
    },
    /// Keys that are read at start only.
    #[error(
        "Cannot update key '{}' while nodes run: change it in etc/emqx.conf of each node and \
         restart it (emqx restart)", .keys.join(",")
    )]
    ConfigNeedsRestart {
        /// Their paths.
        keys: Vec<String>,
    },
    /// A value is too long to be kept.
    #[error("the value of {key} is longer than {bytes_max} bytes; set it in etc/emqx.conf")]
    ConfigTooLong {
        /// Its path.
        key: String,
        /// The limit.
        bytes_max: usize,
    },
    /// Something this release does not do.
    #[error("{what} is not supported by this release; {instead}")]
    Unsupported {
        /// What was asked.
        what: &'static str,
        /// What to do instead.
        instead: String,
    },
    /// The node is being evacuated already, or takes part in a rebalance.
    #[error(
        "node {node} is being evacuated or rebalanced already; see `emqx_ctl rebalance status`, \
         end it by `emqx_ctl rebalance stop` there"
    )]
    RebalanceEnabled {
        /// The node.
        node: String,
    },
    /// The node is not being evacuated, or coordinates no rebalance.
    #[error(
        "node {node} has nothing of that kind to stop; see `emqx_ctl rebalance status` for who has"
    )]
    RebalanceDisabled {
        /// The node.
        node: String,
    },
    /// Nodes that are to get sessions and cannot.
    #[error(
        "{} cannot get sessions: not other running nodes of this cluster; see `emqx_ctl cluster \
         status`",
        .nodes.join(", ")
    )]
    MigrateTo {
        /// Which.
        nodes: Vec<String>,
    },
    /// Nodes that are to take part in a rebalance and cannot.
    #[error(
        "{} cannot take part: not running, of another release, or being evacuated or rebalanced; \
         see `emqx_ctl cluster status` and `emqx_ctl rebalance status`",
        .nodes.join(", ")
    )]
    RebalanceNodes {
        /// Which.
        nodes: Vec<String>,
    },
    /// No node has so much more than the others.
    #[error(
        "the load of these nodes is within the thresholds; see `emqx_ctl rebalance help` for lower \
         ones"
    )]
    NothingToBalance,
    /// A row could not be stored.
    #[error("the change could not be stored: {reason}; check disk space and node.data_dir")]
    Storage {
        /// What the store said.
        reason: String,
    },
    /// A thread of this node did not answer in time.
    #[error("the node did not answer within {waited_ms} ms; see its log")]
    Timeout {
        /// How long it was waited for.
        waited_ms: u64,
    },
    /// The node is going down.
    #[error("the node is shutting down")]
    Stopping,
}

fn lines(errors: &[ConfigError]) -> String {
    let lines: Vec<String> = errors.iter().map(ConfigError::to_string).collect();
    lines.join("\n")
}

impl From<Refusal> for AdminError {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::Invalid(errors) => Self::ConfigInvalid { errors },
            Refusal::ReadOnly(keys) => Self::ConfigReadOnly { keys },
            Refusal::Restart(keys) => Self::ConfigNeedsRestart { keys },
            Refusal::TooLong(key) => Self::ConfigTooLong {
                key,
                bytes_max: VALUE_BYTES_MAX,
            },
            Refusal::TooMany => Self::TableFull {
                table: "configuration",
                rows_max: ROWS_MAX,
            },
        }
    }
}

/// Which part of the password rule a password breaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PasswordRule {
    /// Fewer than 8 or more than 64 bytes.
    #[error("The range of password length is 8~64")]
    Length,
    /// A byte outside printable ASCII.
    #[error("only ascii characters are allowed in the password")]
    NotAscii,
    /// Letters only, digits only or specials only.
    #[error(
        "must contain at least two different kind of characters from groups of letters, numbers, \
         and special characters"
    )]
    OneKind,
}
