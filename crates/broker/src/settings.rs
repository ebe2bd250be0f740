//! What the broker lets itself be told. Plain values; the server reads them from `emqx.conf`.
//!
//! The defaults are EMQX 5.8's. Field names are the configuration's keys with their unit; a limit
//! that may be off is an `Option`.

use std::collections::BTreeMap;
use std::sync::Arc;

pub use crate::router::{SharedRule, Strategy};

/// Name of the zone that listeners without another one use.
pub const DEFAULT_ZONE: &str = "default";

/// All settings of the broker.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Settings {
    /// `mqtt`: what zones start from.
    pub mqtt: Arc<Mqtt>,
    /// `zones`: whole sections, with what they do not override filled in.
    pub zones: BTreeMap<String, Arc<Mqtt>>,
    /// `retainer`.
    pub retainer: Retainer,
    /// `delayed`.
    pub delayed: Delayed,
    /// `flapping_detect`.
    pub flapping_detect: FlappingDetect,
    /// `sys_topics`.
    pub sys_topics: SysTopics,
    /// Between nodes.
    pub rpc: Rpc,
}

impl Settings {
    /// The settings of a zone; of no or an unknown zone, the general ones.
    pub fn zone(&self, name: &str) -> &Arc<Mqtt> {
        self.zones.get(name).unwrap_or(&self.mqtt)
    }
}

/// `mqtt`.
#[derive(Clone, Debug, PartialEq)]
pub struct Mqtt {
    /// Time for CONNECT after the connection opened; `None` no limit.
    pub idle_timeout_ms: Option<u64>,
    /// Largest packet, whole.
    pub max_packet_bytes: u64,
    /// Longest client identifier.
    pub max_clientid_len: u32,
    /// Most levels of a topic.
    pub max_topic_levels: u32,
    /// Largest topic alias a client may use; 0 none.
    pub max_topic_alias: u16,
    /// Whether messages may be retained.
    pub retain_available: bool,
    /// Whether filters may have wildcards.
    pub wildcard_subscription: bool,
    /// Whether `$share` works.
    pub shared_subscription: bool,
    /// Whether `$exclusive` works.
    pub exclusive_subscription: bool,
    /// How the receiver in a shared subscription is chosen.
    pub shared: SharedRule,
    /// MQTT 3 clients do not receive their own messages.
    pub ignore_loop_deliver: bool,
    /// UTF-8 and reserved bits are checked.
    pub strict_mode: bool,
    /// Answer to a request for response information; empty none.
    pub response_information: String,
    /// Keepalive imposed on MQTT 5 clients; `None` the client's.
    pub server_keepalive_s: Option<u16>,
    /// Silence of this many keepalives closes the connection.
    pub keepalive_multiplier: f64,
    /// Longest time between two checks of that.
    pub keepalive_check_interval_ms: u64,
    /// Time before an unacknowledged message is sent again; `None` only at reconnect.
    pub retry_interval_ms: Option<u64>,
    /// The user name becomes the client identifier.
    pub use_username_as_clientid: bool,
    /// Session expiry of MQTT 3 clients with clean session off.
    pub session_expiry_interval_ms: u64,
    /// Expiry of messages without their own; `None` never.
    pub message_expiry_interval_ms: Option<u64>,
    /// Incoming QoS 2 messages waiting for PUBREL; `None` no limit.
    pub max_awaiting_rel: Option<u32>,
    /// Time they may wait; `None` no limit.
    pub await_rel_timeout_ms: Option<u64>,
    /// Highest QoS, 0..=2.
    pub max_qos_allowed: u8,
    /// Priority 1..=255 by exact topic; empty: all the same.
    pub mqueue_priorities: BTreeMap<String, u8>,
    /// Priority of topics that are not among them.
    pub mqueue_default_priority: QueuePriority,
    /// QoS 0 messages are queued too.
    pub mqueue_store_qos0: bool,
    /// Longest queue for each priority; `None` no limit.
    pub max_mqueue_len: Option<u32>,
    /// Unacknowledged messages at once, 1..=65535.
    pub max_inflight: u16,
    /// Subscriptions of a client; `None` no limit.
    pub max_subscriptions: Option<u32>,
    /// The delivered QoS is the greater of publisher's and subscriber's.
    pub upgrade_qos: bool,
}

impl Default for Mqtt {
    fn default() -> Self {
        Self {
            idle_timeout_ms: Some(15_000),
            max_packet_bytes: 1 << 20,
            max_clientid_len: 65_535,
            max_topic_levels: 128,
            max_topic_alias: 65_535,
            retain_available: true,
            wildcard_subscription: true,
            shared_subscription: true,
            exclusive_subscription: false,
            shared: SharedRule::default(),
            ignore_loop_deliver: false,
            strict_mode: false,
            response_information: String::new(),
            server_keepalive_s: None,
            keepalive_multiplier: 1.5,
            keepalive_check_interval_ms: 30_000,
            retry_interval_ms: None,
            use_username_as_clientid: false,
            session_expiry_interval_ms: 2 * 3_600_000,
            message_expiry_interval_ms: None,
            max_awaiting_rel: Some(100),
            await_rel_timeout_ms: Some(300_000),
            max_qos_allowed: 2,
            mqueue_priorities: BTreeMap::new(),
            mqueue_default_priority: QueuePriority::Lowest,
            mqueue_store_qos0: true,
            max_mqueue_len: Some(1_000),
            max_inflight: 32,
            max_subscriptions: None,
            upgrade_qos: false,
        }
    }
}

/// `mqtt.mqueue_default_priority`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum QueuePriority {
    /// Below all others.
    #[default]
    Lowest,
    /// Above all others.
    Highest,
}

/// `retainer`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Retainer {
    /// Messages are retained at all.
    pub enable: bool,
    /// Expiry of messages without their own; `None` never.
    pub msg_expiry_interval_ms: Option<u64>,
    /// Expiry forced on all messages; `None` not forced.
    pub msg_expiry_interval_override_ms: Option<u64>,
    /// A message may be kept without any expiry.
    pub allow_never_expire: bool,
    /// Time between sweeps of expired messages; `None` off.
    pub msg_clear_interval_ms: Option<u64>,
    /// Largest payload kept; `None` no limit.
    pub max_payload_bytes: Option<u64>,
    /// An empty retained message deletes and is not forwarded.
    pub stop_publish_clear_msg: bool,
    /// Messages replayed to one new subscription per second; `None` no limit.
    pub delivery_rate: Option<u64>,
    /// Messages stored per second; `None` no limit.
    pub max_publish_rate: Option<u64>,
    /// Most messages; `None` no limit.
    pub max_retained_messages: Option<u64>,
}

impl Default for Retainer {
    fn default() -> Self {
        Self {
            enable: true,
            msg_expiry_interval_ms: None,
            msg_expiry_interval_override_ms: None,
            allow_never_expire: true,
            msg_clear_interval_ms: None,
            max_payload_bytes: Some(1 << 20),
            stop_publish_clear_msg: false,
            delivery_rate: None,
            max_publish_rate: None,
            max_retained_messages: None,
        }
    }
}

/// `delayed`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Delayed {
    /// `$delayed/…` works.
    pub enable: bool,
    /// Most waiting messages; `None` no limit.
    pub max_delayed_messages: Option<u64>,
}

impl Default for Delayed {
    fn default() -> Self {
        Self {
            enable: true,
            max_delayed_messages: None,
        }
    }
}

/// `flapping_detect`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FlappingDetect {
    /// Clients that connect too often are banned.
    pub enable: bool,
    /// The time looked at.
    pub window_time_ms: u64,
    /// Connects in that time that earn a ban.
    pub max_count: u32,
    /// Length of the ban.
    pub ban_time_ms: u64,
}

impl Default for FlappingDetect {
    fn default() -> Self {
        Self {
            enable: false,
            window_time_ms: 60_000,
            max_count: 15,
            ban_time_ms: 300_000,
        }
    }
}

/// `sys_topics`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SysTopics {
    /// Time between statistics; `None` off.
    pub sys_msg_interval_ms: Option<u64>,
    /// Time between heartbeats; `None` off.
    pub sys_heartbeat_interval_ms: Option<u64>,
    /// A message for each client that connected.
    pub client_connected: bool,
    /// A message for each client that disconnected.
    pub client_disconnected: bool,
    /// A message for each subscription.
    pub client_subscribed: bool,
    /// A message for each subscription that ended.
    pub client_unsubscribed: bool,
}

impl Default for SysTopics {
    fn default() -> Self {
        Self {
            sys_msg_interval_ms: Some(60_000),
            sys_heartbeat_interval_ms: Some(30_000),
            client_connected: true,
            client_disconnected: true,
            client_subscribed: false,
            client_unsubscribed: false,
        }
    }
}

/// How a publisher's acknowledgement waits for other nodes: `rpc.mode`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum RpcMode {
    /// PUBACK and PUBREC wait until every reachable destination node has the message.
    #[default]
    Sync,
    /// They do not wait, as with EMQX.
    Async,
}

/// What the broker needs of `rpc`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rpc {
    /// Whether acknowledgements wait for other nodes.
    pub mode: RpcMode,
}

/// `enable_authn` of a listener.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum EnableAuthn {
    /// Clients are authenticated.
    #[default]
    Yes,
    /// They are not.
    No,
    /// They are, and those without a user name are refused before any backend is asked.
    QuickDenyAnonymous,
}

/// So many units per interval.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    /// Messages or bytes per interval.
    pub amount: u64,
    /// The interval.
    pub per_ms: u64,
}

/// What a client connection needs to know of the listener it came through.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListenerSettings {
    /// `tcp:default`.
    pub id: String,
    /// Prefix of every topic of its clients; may hold `${clientid}` and the like.
    pub mountpoint: String,
    /// Zone of its clients.
    pub zone: String,
    /// Whether its clients are authenticated.
    pub enable_authn: EnableAuthn,
    /// Messages of each client; `None` no limit.
    pub messages_rate: Option<Rate>,
    /// Bytes of each client; `None` no limit.
    pub bytes_rate: Option<Rate>,
}

impl Default for ListenerSettings {
    fn default() -> Self {
        Self {
            id: "tcp:default".to_owned(),
            mountpoint: String::new(),
            zone: DEFAULT_ZONE.to_owned(),
            enable_authn: EnableAuthn::Yes,
            messages_rate: None,
            bytes_rate: None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_zone_without_its_own_section_has_the_general_settings() {
        let mut settings = Settings::default();
        let own = Arc::new(Mqtt {
            max_inflight: 7,
            ..Mqtt::default()
        });
        settings.zones.insert("narrow".to_owned(), own);
        assert_eq!(settings.zone("narrow").max_inflight, 7);
        assert_eq!(settings.zone(DEFAULT_ZONE).max_inflight, 32);
        assert_eq!(settings.zone("nowhere").max_mqueue_len, Some(1_000));
    }
}
