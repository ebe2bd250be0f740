//! `mqtt`: behaviour of the protocol; every key can be set per zone.

use std::collections::BTreeMap;

use super::{COUNT, DISABLED, INFINITY, POSITIVE};
use crate::check::Typed;
use crate::schema::{Field, Kind, field, optional};
use crate::settings::{ClientAttr, Mqtt, PeerCertField, QueuePriority, SharedStrategy, StickyPick};
use crate::view::View;

const CERT: Kind = Kind::Enum(&["disabled", "cn", "dn", "crt", "pem", "md5"]);
static PRIORITY: Kind = Kind::Int { min: 1, max: 255 };
static PRIORITIES: Kind = Kind::Map(&PRIORITY);
static U16: Kind = Kind::Int {
    min: 1,
    max: 65_535,
};

pub(crate) static FIELDS: &[Field] = &[
    field(
        "idle_timeout",
        Kind::Words(INFINITY, &Kind::Duration),
        "15s",
        "A connection that sends no CONNECT for this long is closed.",
    ),
    field(
        "max_packet_size",
        Kind::ByteSize,
        "1MB",
        "Largest packet a client may send; at most 268435455 bytes.",
    ),
    field(
        "max_clientid_len",
        Kind::Int {
            min: 23,
            max: 65_535,
        },
        "65535",
        "Longest client identifier in bytes.",
    ),
    field(
        "max_topic_levels",
        Kind::Int {
            min: 1,
            max: 65_535,
        },
        "128",
        "Most levels of a topic.",
    ),
    field(
        "max_topic_alias",
        Kind::Int {
            min: 0,
            max: 65_535,
        },
        "65535",
        "Largest topic alias of MQTT 5; 0 allows none.",
    ),
    field(
        "retain_available",
        Kind::Bool,
        "true",
        "Whether messages can be retained.",
    ),
    field(
        "wildcard_subscription",
        Kind::Bool,
        "true",
        "Whether filters may have wildcards.",
    ),
    field(
        "shared_subscription",
        Kind::Bool,
        "true",
        "Whether $share subscriptions work.",
    ),
    field(
        "exclusive_subscription",
        Kind::Bool,
        "false",
        "Whether $exclusive subscriptions work.",
    ),
    field(
        "shared_subscription_strategy",
        Kind::Enum(SharedStrategy::WORDS),
        "round_robin",
        "Which member of a group gets a message.",
    ),
    field(
        "shared_subscription_initial_sticky_pick",
        Kind::Enum(StickyPick::WORDS),
        "random",
        "Which member the strategy `sticky` takes first.",
    )
    .since("5.8"),
    field(
        "ignore_loop_deliver",
        Kind::Bool,
        "false",
        "Whether MQTT 3 clients do not get back what they publish.",
    ),
    field(
        "strict_mode",
        Kind::Bool,
        "false",
        "Whether UTF-8 and reserved bits are checked in every packet.",
    ),
    field(
        "response_information",
        Kind::String,
        "\"\"",
        "What clients that ask for response information are told; empty answers nothing.",
    ),
    field(
        "server_keepalive",
        Kind::Words(DISABLED, &U16),
        "disabled",
        "Keepalive in seconds that MQTT 5 clients must use.",
    ),
    field(
        "keepalive_multiplier",
        Kind::Float {
            min: 1.0,
            max: 100.0,
        },
        "1.5",
        "Silence of so many keepalives closes a connection.",
    ),
    optional(
        "keepalive_backoff",
        Kind::Float {
            min: 0.0,
            max: 100.0,
        },
        "Half of the multiplier.",
    )
    .deprecated("use keepalive_multiplier")
    .inert()
    .hidden(),
    field(
        "keepalive_check_interval",
        Kind::Duration,
        "30s",
        "Longest time between two checks of the keepalive.",
    )
    .inert()
    .since("5.5"),
    field(
        "retry_interval",
        Kind::Words(INFINITY, &Kind::Duration),
        "infinity",
        "Time before an unacknowledged message is sent again on the same connection.",
    ),
    field(
        "use_username_as_clientid",
        Kind::Bool,
        "false",
        "Whether the user name replaces the client identifier.",
    ),
    field(
        "peer_cert_as_username",
        CERT,
        "disabled",
        "Part of the client's certificate that becomes its user name.",
    )
    .unguarded("clients name themselves"),
    field(
        "peer_cert_as_clientid",
        CERT,
        "disabled",
        "Part of the client's certificate that becomes its client identifier.",
    )
    .unguarded("clients name themselves"),
    field(
        "client_attrs_init",
        Kind::List(&Kind::Object(CLIENT_ATTR)),
        "[]",
        "Attributes of a client, computed when it connects.",
    )
    .inert()
    .since("5.7"),
    field(
        "clientid_override",
        Kind::String,
        "disabled",
        "Expression whose value replaces the client identifier.",
    )
    .unguarded("clients name themselves")
    .since("5.8"),
    field(
        "session_expiry_interval",
        Kind::Duration,
        "2h",
        "Life of the sessions of MQTT 3 clients with clean session off, after they disconnect.",
    ),
    field(
        "message_expiry_interval",
        Kind::Words(INFINITY, &Kind::Duration),
        "infinity",
        "Life of messages that have none of their own.",
    ),
    field(
        "max_awaiting_rel",
        Kind::Words(INFINITY, &COUNT),
        "100",
        "Incoming QoS 2 messages of a client that may wait for their release.",
    ),
    field(
        "await_rel_timeout",
        Kind::Words(INFINITY, &Kind::Duration),
        "300s",
        "Time they may wait.",
    ),
    field(
        "max_qos_allowed",
        Kind::Int { min: 0, max: 2 },
        "2",
        "Highest QoS.",
    ),
    field(
        "mqueue_priorities",
        Kind::Words(DISABLED, &PRIORITIES),
        "disabled",
        "Priority, 1 to 255, of messages in the queue by exact topic.",
    ),
    field(
        "mqueue_default_priority",
        Kind::Enum(QueuePriority::WORDS),
        "lowest",
        "Priority of other topics.",
    ),
    field(
        "mqueue_store_qos0",
        Kind::Bool,
        "true",
        "Whether QoS 0 messages are queued for clients that are offline or busy.",
    ),
    field(
        "max_mqueue_len",
        Kind::Words(INFINITY, &COUNT),
        "1000",
        "Longest queue of a session, per priority; 0 and infinity set no limit.",
    ),
    field(
        "max_inflight",
        U16,
        "32",
        "Messages sent to a client that it has not acknowledged.",
    ),
    field(
        "max_subscriptions",
        Kind::Words(INFINITY, &POSITIVE),
        "infinity",
        "Most subscriptions of a client.",
    ),
    field(
        "upgrade_qos",
        Kind::Bool,
        "false",
        "Whether the higher QoS of publisher and subscriber is used for delivery.",
    ),
];

static CLIENT_ATTR: &[Field] = &[
    optional("expression", Kind::String, "How the value is computed.")
        .required("expression = \"username\"")
        .alias(&["extract_from"]),
    optional("set_as_attr", Kind::String, "Name of the attribute.")
        .required("set_as_attr = \"group\"")
        .alias(&["extract_as"]),
    optional(
        "extract_regexp",
        Kind::String,
        "Regular expression of EMQX 5.7.0.",
    )
    .inert()
    .hidden(),
];

pub(crate) fn build(v: View<'_>) -> Mqtt {
    Mqtt {
        idle_timeout_ms: v.opt_ms("idle_timeout"),
        max_packet_bytes: v.bytes("max_packet_size"),
        max_clientid_len: v.int("max_clientid_len"),
        max_topic_levels: v.int("max_topic_levels"),
        max_topic_alias: v.int("max_topic_alias"),
        retain_available: v.bool("retain_available"),
        wildcard_subscription: v.bool("wildcard_subscription"),
        shared_subscription: v.bool("shared_subscription"),
        exclusive_subscription: v.bool("exclusive_subscription"),
        shared_subscription_strategy: v.word("shared_subscription_strategy", SharedStrategy::parse),
        shared_subscription_initial_sticky_pick: v
            .word("shared_subscription_initial_sticky_pick", StickyPick::parse),
        ignore_loop_deliver: v.bool("ignore_loop_deliver"),
        strict_mode: v.bool("strict_mode"),
        response_information: v.text("response_information"),
        server_keepalive_s: v.opt_int("server_keepalive"),
        keepalive_multiplier: v.float("keepalive_multiplier"),
        keepalive_check_interval_ms: v.ms("keepalive_check_interval"),
        retry_interval_ms: v.opt_ms("retry_interval"),
        use_username_as_clientid: v.bool("use_username_as_clientid"),
        peer_cert_as_username: v.opt_word("peer_cert_as_username", PeerCertField::parse),
        peer_cert_as_clientid: v.opt_word("peer_cert_as_clientid", PeerCertField::parse),
        client_attrs_init: client_attrs(v),
        clientid_override: v
            .opt_text("clientid_override")
            .filter(|text| text != "disabled"),
        session_expiry_interval_ms: v.ms("session_expiry_interval"),
        message_expiry_interval_ms: v.opt_ms("message_expiry_interval"),
        max_awaiting_rel: v.opt_int("max_awaiting_rel"),
        await_rel_timeout_ms: v.opt_ms("await_rel_timeout"),
        max_qos_allowed: v.int("max_qos_allowed"),
        mqueue_priorities: priorities(v),
        mqueue_default_priority: v.word("mqueue_default_priority", QueuePriority::parse),
        mqueue_store_qos0: v.bool("mqueue_store_qos0"),
        max_mqueue_len: v.opt_int("max_mqueue_len").filter(|len| *len > 0),
        max_inflight: v.int("max_inflight"),
        max_subscriptions: v.opt_int("max_subscriptions"),
        upgrade_qos: v.bool("upgrade_qos"),
    }
}

fn client_attrs(v: View<'_>) -> Vec<ClientAttr> {
    v.list("client_attrs_init")
        .iter()
        .map(View::of)
        .map(|v| ClientAttr {
            expression: v.text("expression"),
            set_as_attr: v.text("set_as_attr"),
        })
        .collect()
}

fn priorities(v: View<'_>) -> BTreeMap<String, u8> {
    v.entries("mqueue_priorities")
        .filter_map(|(topic, checked)| match checked.typed {
            Typed::Int(priority) => Some((topic.clone(), u8::try_from(priority).ok()?)),
            _ => None,
        })
        .collect()
}
