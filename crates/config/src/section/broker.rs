//! `broker`: the registry of sessions.

use crate::schema::{Field, Kind, field, open, optional};
use crate::settings::{Broker, SessionLocking, SharedStrategy};
use crate::view::View;

pub(crate) static FIELDS: &[Field] = &[
    field(
        "session_history_retain",
        Kind::DurationS,
        "0s",
        "Time the record of an ended session is kept.",
    )
    .since("5.6")
    .inert(),
    field(
        "session_locking_strategy",
        Kind::Enum(SessionLocking::WORDS),
        "quorum",
        "On how many nodes EMQX locks a client identifier. Here the newest connection wins \
         without a lock.",
    )
    .inert(),
    field(
        "enable_session_registry",
        Kind::Bool,
        "true",
        "Whether the nodes know each other's sessions.",
    )
    .since("5.4")
    .inert(),
    optional(
        "shared_subscription_strategy",
        Kind::Enum(SharedStrategy::WORDS),
        "Which member of a group gets a message.",
    )
    .deprecated("use mqtt.shared_subscription_strategy")
    .inert()
    .hidden(),
    optional(
        "shared_dispatch_ack_enabled",
        Kind::Bool,
        "Whether another member gets a message that the first did not acknowledge.",
    )
    .deprecated("remove it, another member always gets it")
    .inert()
    .hidden(),
    open("shared_subscription_group", "Strategy per group.").hidden(),
    open("perf", "Locks of EMQX's router.").hidden(),
    open("routing", "Storage of EMQX's router.").hidden(),
    optional("route_batch_clean", Kind::Bool, "Cleaning of routes.")
        .inert()
        .hidden(),
    optional("enable_batch_sync", Kind::Bool, "Cleaning of routes.")
        .inert()
        .hidden(),
];

pub(crate) fn build(v: View<'_>) -> Broker {
    Broker {
        session_history_retain_ms: v.ms("session_history_retain"),
        session_locking_strategy: v.word("session_locking_strategy", SessionLocking::parse),
    }
}
