//! `listeners`: where clients connect.

use super::{COUNT, INFINITY, POSITIVE, authentication, tls};
use crate::check::{Checked, Typed};
use crate::error::{LayerKind, Warning};
use crate::schema::{Field, Kind, field, group, open, optional};
use crate::settings::{
    AccessRule, Bind, EnableAuthn, Listener, ListenerKind, Piggyback, TcpOptions, Websocket,
};
use crate::unit;
use crate::view::View;

/// The value that keeps a default listener away.
pub(crate) const MARKED_FOR_DELETION: &str = "marked_for_deletion";

/// The listeners every node has unless they are disabled or marked for deletion.
pub(crate) const BUILT_IN: &str = r"
listeners.tcp.default {}
listeners.ssl.default {}
listeners.ws.default {}
listeners.wss.default {}
";

const fn named(fields: &'static Kind) -> Kind {
    Kind::Map(fields)
}

const DELETED: &[&str] = &[MARKED_FOR_DELETION];
static TCP_KIND: Kind = Kind::Words(DELETED, &Kind::Object(TCP));
static SSL_KIND: Kind = Kind::Words(DELETED, &Kind::Object(SSL));
static WS_KIND: Kind = Kind::Words(DELETED, &Kind::Object(WS));
static WSS_KIND: Kind = Kind::Words(DELETED, &Kind::Object(WSS));

pub(crate) static FIELDS: &[Field] = &[
    optional("tcp", named(&TCP_KIND), "MQTT over TCP, by name."),
    optional("ssl", named(&SSL_KIND), "MQTT over TLS, by name."),
    optional("ws", named(&WS_KIND), "MQTT over WebSocket, by name."),
    optional(
        "wss",
        named(&WSS_KIND),
        "MQTT over WebSocket and TLS, by name.",
    ),
    open("quic", "MQTT over QUIC, by name."),
];

/// Declares the fields of one kind: the default address, the common fields and `$extra`.
macro_rules! listener_fields {
    ($name:ident, $bind:literal: $($extra:expr),* $(,)?) => {
        static $name: &[Field] = &[
            field("enable", Kind::Bool, "true", "Whether the listener starts with the node.")
                .alias(&["enabled"]),
            field("bind", Kind::Bind, $bind,
                "Port, or address and port, to listen on; a port alone means all addresses."),
            field("acceptors", POSITIVE, "16", "Tasks that accept connections.").inert(),
            field("max_connections", Kind::Words(INFINITY, &COUNT), "infinity",
                "Most connections at once."),
            field("mountpoint", Kind::String, "\"\"",
                "Prefix of all topics of this listener's clients; may hold ${clientid}, \
                 ${username} and ${client_attrs.NAME}."),
            field("zone", Kind::String, "default", "Zone of this listener's clients."),
            field("enable_authn", Kind::Enum(EnableAuthn::WORDS), "true",
                "Whether clients are authenticated. `quick_deny_anonymous` refuses clients \
                 without a user name before any backend is asked."),
            field("access_rules", Kind::List(&Kind::AccessRule), "[\"allow all\"]",
                "Who may connect: `allow` or `deny`, then an address block or `all`; the first \
                 match wins."),
            field("proxy_protocol", Kind::Bool, "false",
                "Whether connections come from a proxy that sends a PROXY header (v1 or v2)."),
            field("proxy_protocol_timeout", Kind::Duration, "3s", "Time for the PROXY header."),
            optional("max_conn_rate", Kind::Words(INFINITY, &Kind::Rate),
                "New connections of the listener, such as 1000/s."),
            optional("messages_rate", Kind::Words(INFINITY, &Kind::Rate),
                "Messages of each client, such as 100/s.")
                .inert(),
            optional("bytes_rate", Kind::Words(INFINITY, &Kind::Rate),
                "Bytes of each client, such as 1MB/s.")
                .inert(),
            optional("authentication", authentication::CHAIN,
                "Authenticators of this listener; if there are any, they replace the global ones.")
                .fixed().hidden(),
            group("tcp_options", TCP_OPTIONS, "Options of the socket."),
            open("limiter", "Limiters of EMQX 5.0.").hidden(),
            $($extra,)*
        ];
    };
}

listener_fields!(TCP, "\"0.0.0.0:1883\"": optional("parse_unit", Kind::Enum(&["chunk", "frame"]),
    "How EMQX cuts packets.").inert().hidden());
listener_fields!(SSL, "\"0.0.0.0:8883\"":
    group("ssl_options", tls::SERVER, "Certificates and protocol."));
listener_fields!(WS, "\"0.0.0.0:8083\"":
    group("websocket", WEBSOCKET, "Options of WebSocket."));
listener_fields!(WSS, "\"0.0.0.0:8084\"":
    group("websocket", WEBSOCKET, "Options of WebSocket."),
    group("ssl_options", tls::SERVER, "Certificates and protocol."),
);

static TCP_OPTIONS: &[Field] = &[
    field("active_n", POSITIVE, "100", "Packets read at once in EMQX.").inert(),
    field(
        "backlog",
        POSITIVE,
        "1024",
        "Connections waiting to be accepted.",
    ),
    field(
        "send_timeout",
        Kind::Duration,
        "15s",
        "A connection that takes no byte for this long is given up.",
    ),
    field(
        "send_timeout_close",
        Kind::Bool,
        "true",
        "Whether it is then closed.",
    )
    .inert(),
    optional(
        "recbuf",
        Kind::ByteSize,
        "Receive buffer of the socket; the system's by default.",
    ),
    optional(
        "sndbuf",
        Kind::ByteSize,
        "Send buffer of the socket; the system's by default.",
    ),
    field(
        "buffer",
        Kind::ByteSize,
        "4KB",
        "User-space receive buffer.",
    )
    .inert(),
    field(
        "high_watermark",
        Kind::ByteSize,
        "1MB",
        "Unsent bytes at which a connection counts as congested.",
    ),
    field(
        "nodelay",
        Kind::Bool,
        "true",
        "Whether small segments are sent at once.",
    ),
    field(
        "nolinger",
        Kind::Bool,
        "false",
        "Whether closing discards unsent bytes.",
    ),
    field(
        "reuseaddr",
        Kind::Bool,
        "true",
        "Whether a port that was just closed can be reused.",
    ),
    field(
        "keepalive",
        Kind::String,
        "none",
        "TCP keepalive as idle seconds, interval seconds, probes, such as \"240,30,5\"; or none.",
    ),
];

static WEBSOCKET: &[Field] = &[
    field(
        "mqtt_path",
        Kind::String,
        "\"/mqtt\"",
        "Path of the end point.",
    ),
    field(
        "mqtt_piggyback",
        Kind::Enum(Piggyback::WORDS),
        "multiple",
        "Whether several packets may share a frame.",
    )
    .inert(),
    field(
        "compress",
        Kind::Bool,
        "false",
        "Whether compression is offered.",
    )
    .inert(),
    field(
        "idle_timeout",
        Kind::Words(INFINITY, &Kind::Duration),
        "7200s",
        "A connection without any frame for this long is closed.",
    )
    .inert(),
    field(
        "max_frame_size",
        Kind::Words(INFINITY, &Kind::ByteSize),
        "infinity",
        "Largest frame.",
    ),
    field(
        "fail_if_no_subprotocol",
        Kind::Bool,
        "true",
        "Whether a client that offers none of the supported sub-protocols is refused.",
    ),
    field(
        "supported_subprotocols",
        Kind::CommaList(&Kind::String),
        "\"mqtt, mqtt-v3, mqtt-v3.1.1, mqtt-v5\"",
        "Sub-protocols that clients may offer.",
    ),
    field(
        "check_origin_enable",
        Kind::Bool,
        "false",
        "Whether the Origin header is checked.",
    ),
    field(
        "allow_origin_absence",
        Kind::Bool,
        "true",
        "Whether a missing Origin passes.",
    ),
    field(
        "check_origins",
        Kind::CommaList(&Kind::String),
        "\"http://localhost:18083, http://127.0.0.1:18083\"",
        "Origins that pass.",
    ),
    field(
        "proxy_address_header",
        Kind::String,
        "\"x-forwarded-for\"",
        "Header in which a proxy sends the client's address.",
    ),
    field(
        "proxy_port_header",
        Kind::String,
        "\"x-forwarded-port\"",
        "Header in which a proxy sends the client's port.",
    ),
    field(
        "validate_utf8",
        Kind::Bool,
        "true",
        "Whether text frames are checked.",
    )
    .inert(),
    open("deflate_opts", "Parameters of the compression."),
];

/// A built-in listener nobody configured gives its address to one of its kind that somebody did:
/// EMQX's own examples name a second listener on 1883, on which EMQX itself then fails to start.
pub(crate) fn settle(listeners: &mut Checked) -> Vec<Warning> {
    let kinds = listeners.fields_mut().into_iter().flatten();
    kinds
        .filter_map(|(kind, named)| {
            let named = named.fields_mut()?;
            let built_in = named.get("default").filter(|it| nobody_wrote(it))?;
            let address = bind(built_in)?;
            let (name, written) = named.iter().find(|(name, other)| {
                *name != "default"
                    && enabled(other)
                    && bind(other).is_some_and(|b| b.overlaps(address))
            })?;
            let warning = Warning::BuiltInYields {
                built_in: format!("listeners.{kind}.default"),
                to: format!("listeners.{kind}.{name}"),
                place: written.place.clone(),
            };
            named.remove("default");
            Some(warning)
        })
        .collect()
}

fn nobody_wrote(checked: &Checked) -> bool {
    match checked.fields() {
        Some(fields) => fields.values().all(nobody_wrote),
        None => checked.place.layer == LayerKind::Default,
    }
}

fn enabled(listener: &Checked) -> bool {
    let enable = listener.fields().and_then(|fields| fields.get("enable"));
    enable.is_some_and(|enable| enable.typed == Typed::Bool(true))
}

fn bind(listener: &Checked) -> Option<Bind> {
    match listener.fields()?.get("bind")?.typed {
        Typed::Bind(bind) => Some(bind),
        _ => None,
    }
}

pub(crate) fn build(v: View<'_>) -> Vec<Listener> {
    let mut listeners = Vec::new();
    for kind in [
        ListenerKind::Tcp,
        ListenerKind::Ssl,
        ListenerKind::Ws,
        ListenerKind::Wss,
    ] {
        for (name, checked) in v.entries(kind.as_str()) {
            if checked.fields().is_some() {
                listeners.push(listener(kind, name, View::of(checked)));
            }
        }
    }
    listeners
}

fn listener(kind: ListenerKind, name: &str, v: View<'_>) -> Listener {
    Listener {
        kind,
        name: name.to_owned(),
        enable: v.bool("enable"),
        bind: v.bind("bind"),
        acceptors: v.int("acceptors"),
        max_connections: v.opt_int("max_connections"),
        mountpoint: v.text("mountpoint"),
        zone: v.text("zone"),
        enable_authn: v.word("enable_authn", EnableAuthn::parse),
        access_rules: access_rules(v.list("access_rules")),
        proxy_protocol: v.bool("proxy_protocol"),
        proxy_protocol_timeout_ms: v.ms("proxy_protocol_timeout"),
        max_conn_rate: v.opt_rate("max_conn_rate"),
        messages_rate: v.opt_rate("messages_rate"),
        bytes_rate: v.opt_rate("bytes_rate"),
        tcp_options: tcp_options(v.view("tcp_options")),
        ssl_options: kind.is_tls().then(|| tls::server(v.view("ssl_options"))),
        websocket: kind.is_websocket().then(|| websocket(v.view("websocket"))),
        authentication: v.raws("authentication"),
    }
}

fn access_rules(items: &[Checked]) -> Vec<AccessRule> {
    items
        .iter()
        .filter_map(|item| match &item.typed {
            Typed::Text(text) => access_rule(text),
            _ => None,
        })
        .collect()
}

/// `allow all`, `deny 192.168.0.0/16`.
pub(crate) fn access_rule(text: &str) -> Option<AccessRule> {
    let (verdict, what) = text.trim().split_once(char::is_whitespace)?;
    let allow = match verdict {
        "allow" => true,
        "deny" => false,
        _ => return None,
    };
    match what.trim() {
        "all" => Some(AccessRule { allow, net: None }),
        net => unit::cidr(net).map(|net| AccessRule {
            allow,
            net: Some(net),
        }),
    }
}

fn tcp_options(v: View<'_>) -> TcpOptions {
    TcpOptions {
        backlog: v.int("backlog"),
        send_timeout_ms: v.ms("send_timeout"),
        send_timeout_close: v.bool("send_timeout_close"),
        recbuf_bytes: v.opt_bytes("recbuf"),
        sndbuf_bytes: v.opt_bytes("sndbuf"),
        buffer_bytes: v.bytes("buffer"),
        high_watermark_bytes: v.bytes("high_watermark"),
        nodelay: v.bool("nodelay"),
        nolinger: v.bool("nolinger"),
        reuseaddr: v.bool("reuseaddr"),
        keepalive: unit::tcp_keepalive(&v.text("keepalive")),
    }
}

fn websocket(v: View<'_>) -> Websocket {
    Websocket {
        mqtt_path: v.text("mqtt_path"),
        mqtt_piggyback: v.word("mqtt_piggyback", Piggyback::parse),
        compress: v.bool("compress"),
        idle_timeout_ms: v.opt_ms("idle_timeout"),
        max_frame_bytes: v.opt_bytes("max_frame_size"),
        fail_if_no_subprotocol: v.bool("fail_if_no_subprotocol"),
        supported_subprotocols: v.texts("supported_subprotocols"),
        check_origin_enable: v.bool("check_origin_enable"),
        allow_origin_absence: v.bool("allow_origin_absence"),
        check_origins: v.texts("check_origins"),
        proxy_address_header: v.text("proxy_address_header"),
        proxy_port_header: v.text("proxy_port_header"),
    }
}
