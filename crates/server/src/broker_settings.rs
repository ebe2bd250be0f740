//! What the configuration says, in the words of the broker.

use std::collections::BTreeMap;
use std::sync::Arc;

use dunlin_broker::settings as broker;
use dunlin_config::settings as config;

/// The broker's settings.
pub(crate) fn settings(from: &config::Settings) -> broker::Settings {
    let zone = |(name, zone): (&String, &config::Zone)| (name.clone(), Arc::new(mqtt(&zone.mqtt)));
    broker::Settings {
        mqtt: Arc::new(mqtt(&from.mqtt)),
        zones: from.zones.iter().map(zone).collect::<BTreeMap<_, _>>(),
        retainer: retainer(&from.retainer),
        delayed: broker::Delayed {
            enable: from.delayed.enable,
            max_delayed_messages: from.delayed.max_delayed_messages,
        },
        flapping_detect: flapping_detect(&from.flapping_detect),
        sys_topics: sys_topics(&from.sys_topics),
        rpc: broker::Rpc {
            mode: match from.rpc.mode {
                config::RpcMode::Sync => broker::RpcMode::Sync,
                config::RpcMode::Async => broker::RpcMode::Async,
            },
        },
    }
}

/// What a client connection needs to know of its listener.
pub(crate) fn listener(from: &config::Listener) -> broker::ListenerSettings {
    broker::ListenerSettings {
        id: from.id(),
        mountpoint: from.mountpoint.clone(),
        zone: from.zone.clone(),
        enable_authn: match from.enable_authn {
            config::EnableAuthn::True => broker::EnableAuthn::Yes,
            config::EnableAuthn::False => broker::EnableAuthn::No,
            config::EnableAuthn::QuickDenyAnonymous => broker::EnableAuthn::QuickDenyAnonymous,
        },
        messages_rate: from.messages_rate.map(rate),
        bytes_rate: from.bytes_rate.map(rate),
    }
}

fn rate(from: config::Rate) -> broker::Rate {
    broker::Rate {
        amount: from.amount,
        per_ms: from.per_ms,
    }
}

/// The broker counts by the second.
fn per_second(from: config::Rate) -> u64 {
    (from.amount.saturating_mul(1000) / from.per_ms.max(1)).max(1)
}

fn mqtt(from: &config::Mqtt) -> broker::Mqtt {
    let strategy = |name: &str| broker::Strategy::from_name(name).unwrap_or_default();
    broker::Mqtt {
        idle_timeout_ms: from.idle_timeout_ms,
        max_packet_bytes: from.max_packet_bytes,
        max_clientid_len: from.max_clientid_len,
        max_topic_levels: from.max_topic_levels,
        max_topic_alias: from.max_topic_alias,
        retain_available: from.retain_available,
        wildcard_subscription: from.wildcard_subscription,
        shared_subscription: from.shared_subscription,
        exclusive_subscription: from.exclusive_subscription,
        shared: broker::SharedRule {
            strategy: strategy(from.shared_subscription_strategy.as_str()),
            initial_sticky_pick: strategy(from.shared_subscription_initial_sticky_pick.as_str()),
        },
        ignore_loop_deliver: from.ignore_loop_deliver,
        strict_mode: from.strict_mode,
        response_information: from.response_information.clone(),
        server_keepalive_s: from.server_keepalive_s,
        keepalive_multiplier: from.keepalive_multiplier,
        keepalive_check_interval_ms: from.keepalive_check_interval_ms,
        retry_interval_ms: from.retry_interval_ms,
        use_username_as_clientid: from.use_username_as_clientid,
        session_expiry_interval_ms: from.session_expiry_interval_ms,
        message_expiry_interval_ms: from.message_expiry_interval_ms,
        max_awaiting_rel: from.max_awaiting_rel,
        await_rel_timeout_ms: from.await_rel_timeout_ms,
        max_qos_allowed: from.max_qos_allowed,
        mqueue_priorities: from.mqueue_priorities.clone(),
        mqueue_default_priority: match from.mqueue_default_priority {
            config::QueuePriority::Lowest => broker::QueuePriority::Lowest,
            config::QueuePriority::Highest => broker::QueuePriority::Highest,
        },
        mqueue_store_qos0: from.mqueue_store_qos0,
        max_mqueue_len: from.max_mqueue_len,
        max_inflight: from.max_inflight,
        max_subscriptions: from.max_subscriptions,
        upgrade_qos: from.upgrade_qos,
    }
}

fn retainer(from: &config::Retainer) -> broker::Retainer {
    broker::Retainer {
        enable: from.enable,
        msg_expiry_interval_ms: from.msg_expiry_interval_ms,
        msg_expiry_interval_override_ms: from.msg_expiry_interval_override_ms,
        allow_never_expire: from.allow_never_expire,
        msg_clear_interval_ms: from.msg_clear_interval_ms,
        max_payload_bytes: from.max_payload_bytes,
        stop_publish_clear_msg: from.stop_publish_clear_msg,
        delivery_rate: from.delivery_rate.map(per_second),
        max_publish_rate: from.max_publish_rate.map(per_second),
        max_retained_messages: from.max_retained_messages,
    }
}

fn flapping_detect(from: &config::FlappingDetect) -> broker::FlappingDetect {
    let default = broker::FlappingDetect::default();
    broker::FlappingDetect {
        enable: from.enable && from.window_time_ms.is_some(),
        window_time_ms: from.window_time_ms.unwrap_or(default.window_time_ms),
        max_count: from.max_count,
        ban_time_ms: from.ban_time_ms,
    }
}

fn sys_topics(from: &config::SysTopics) -> broker::SysTopics {
    broker::SysTopics {
        sys_msg_interval_ms: from.sys_msg_interval_ms,
        sys_heartbeat_interval_ms: from.sys_heartbeat_interval_ms,
        client_connected: from.client_connected,
        client_disconnected: from.client_disconnected,
        client_subscribed: from.client_subscribed,
        client_unsubscribed: from.client_unsubscribed,
    }
}
