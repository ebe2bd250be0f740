//! `sys_topics`: what the node tells about itself under `$SYS`.

use super::DISABLED;
use crate::schema::{Field, Kind, field, group};
use crate::settings::SysTopics;
use crate::view::View;

pub(crate) static FIELDS: &[Field] = &[
    field(
        "sys_msg_interval",
        Kind::Words(DISABLED, &Kind::Duration),
        "1m",
        "Time between statistics.",
    ),
    field(
        "sys_heartbeat_interval",
        Kind::Words(DISABLED, &Kind::Duration),
        "30s",
        "Time between heartbeats.",
    ),
    group(
        "sys_event_messages",
        EVENTS,
        "Events of clients that are published.",
    ),
];

static EVENTS: &[Field] = &[
    field(
        "client_connected",
        Kind::Bool,
        "true",
        "Publish when a client connects.",
    ),
    field(
        "client_disconnected",
        Kind::Bool,
        "true",
        "Publish when a client disconnects.",
    ),
    field(
        "client_subscribed",
        Kind::Bool,
        "false",
        "Publish when a client subscribes.",
    ),
    field(
        "client_unsubscribed",
        Kind::Bool,
        "false",
        "Publish when a client unsubscribes.",
    ),
];

pub(crate) fn build(v: View<'_>) -> SysTopics {
    let events = v.view("sys_event_messages");
    SysTopics {
        sys_msg_interval_ms: v.opt_ms("sys_msg_interval"),
        sys_heartbeat_interval_ms: v.opt_ms("sys_heartbeat_interval"),
        client_connected: events.bool("client_connected"),
        client_disconnected: events.bool("client_disconnected"),
        client_subscribed: events.bool("client_subscribed"),
        client_unsubscribed: events.bool("client_unsubscribed"),
    }
}
