//! `rpc`: the connections that carry messages between nodes.

use super::POSITIVE;
use crate::schema::{Field, Kind, field, optional};
use crate::settings::{Rpc, RpcMode, RpcProtocol};
use crate::view::View;

pub(crate) static FIELDS: &[Field] = &[
    field(
        "mode",
        Kind::Enum(RpcMode::WORDS),
        "sync",
        "Whether the acknowledgement of a QoS 1 or 2 message waits until the other nodes have \
         it (`sync`), or not (`async`, EMQX's default).",
    ),
    field(
        "protocol",
        Kind::Enum(RpcProtocol::WORDS),
        "tcp",
        "Plain TCP or TLS. Nodes have one port for all they say to each other, so `ssl` is the \
         same as `cluster.proto_dist = inet_tls`.",
    )
    .alias(&["driver"]),
    field(
        "async_batch_size",
        POSITIVE,
        "256",
        "Most messages per batch.",
    )
    .inert(),
    field(
        "port_discovery",
        Kind::Enum(&["stateless", "manual"]),
        "stateless",
        "How EMQX chose the port of this channel. Here there is one inter-node port, computed \
         from the node name.",
    )
    .inert(),
    field(
        "server_port",
        super::PORT,
        "5369",
        "Port of this channel in EMQX.",
    )
    .alias(&["tcp_server_port", "ssl_server_port"])
    .inert(),
    field(
        "client_num",
        Kind::Int { min: 1, max: 256 },
        "10",
        "Data connections to each peer.",
    )
    .inert()
    .alias(&["tcp_client_num"]),
    field(
        "connect_timeout",
        Kind::Duration,
        "5s",
        "Time to connect to a peer.",
    )
    .inert(),
    field(
        "send_timeout",
        Kind::Duration,
        "5s",
        "Time to hand bytes to the network.",
    )
    .inert(),
    field(
        "authentication_timeout",
        Kind::Duration,
        "5s",
        "Time for the proof of the cookie.",
    )
    .inert(),
    field(
        "call_receive_timeout",
        Kind::Duration,
        "15s",
        "Time for the answer to a call.",
    )
    .inert(),
    field(
        "socket_keepalive_idle",
        Kind::DurationS,
        "15m",
        "Idle time before the first probe.",
    )
    .inert(),
    field(
        "socket_keepalive_interval",
        Kind::DurationS,
        "75s",
        "Time between probes.",
    )
    .inert(),
    field(
        "socket_keepalive_count",
        POSITIVE,
        "9",
        "Lost probes that end a connection.",
    )
    .inert(),
    field(
        "socket_sndbuf",
        Kind::ByteSize,
        "1MB",
        "Send buffer of the socket.",
    )
    .inert(),
    field(
        "socket_recbuf",
        Kind::ByteSize,
        "1MB",
        "Receive buffer of the socket.",
    )
    .inert(),
    field("socket_buffer", Kind::ByteSize, "1MB", "User-space buffer.").inert(),
    field(
        "certfile",
        Kind::Path,
        "\"\"",
        "PEM file with this node's certificate, for TLS.",
    ),
    field(
        "keyfile",
        Kind::Path,
        "\"\"",
        "PEM file with the key of the certificate.",
    ),
    field(
        "cacertfile",
        Kind::Path,
        "\"\"",
        "PEM file with the authorities that sign the nodes' certificates; if set, both sides \
         are verified, and the dialed one for the host of its name.",
    ),
    field(
        "insecure_fallback",
        Kind::Bool,
        "true",
        "Whether EMQX's older handshake was allowed.",
    )
    .inert()
    .hidden(),
    field(
        "ciphers",
        Kind::CommaList(&Kind::String),
        "[]",
        "Allowed cipher suites.",
    )
    .since("5.3")
    .inert(),
    field(
        "tls_versions",
        Kind::CommaList(&Kind::String),
        "[\"tlsv1.3\", \"tlsv1.2\"]",
        "Allowed protocol versions.",
    )
    .since("5.3")
    .inert(),
    optional(
        "listen_address",
        Kind::Ip,
        "Address for inter-node connections. By default it follows the node name: the address \
         of its host if that is local, else all addresses.",
    ),
    field(
        "ipv6_only",
        Kind::Bool,
        "false",
        "Whether an IPv6 socket refuses IPv4.",
    )
    .inert()
    .since("5.3"),
    optional(
        "verify",
        Kind::String,
        "Named in EMQX's documentation only.",
    )
    .deprecated("it never was a key; peers are verified if cacertfile is set")
    .inert()
    .hidden(),
    optional(
        "fail_if_no_peer_cert",
        Kind::Bool,
        "Named in EMQX's documentation only.",
    )
    .deprecated("it never was a key; peers are verified if cacertfile is set")
    .inert()
    .hidden(),
];

pub(crate) fn build(v: View<'_>) -> Rpc {
    Rpc {
        mode: v.word("mode", RpcMode::parse),
        protocol: v.word("protocol", RpcProtocol::parse),
        client_num: v.int("client_num"),
        async_batch_size: v.int("async_batch_size"),
        connect_timeout_ms: v.ms("connect_timeout"),
        send_timeout_ms: v.ms("send_timeout"),
        authentication_timeout_ms: v.ms("authentication_timeout"),
        call_receive_timeout_ms: v.ms("call_receive_timeout"),
        socket_sndbuf_bytes: v.bytes("socket_sndbuf"),
        socket_recbuf_bytes: v.bytes("socket_recbuf"),
        socket_keepalive_idle_ms: v.ms("socket_keepalive_idle"),
        socket_keepalive_interval_ms: v.ms("socket_keepalive_interval"),
        socket_keepalive_count: v.int("socket_keepalive_count"),
        listen_address: v.opt_text("listen_address").and_then(|ip| ip.parse().ok()),
        ipv6_only: v.bool("ipv6_only"),
        cacertfile: v.text("cacertfile"),
        certfile: v.text("certfile"),
        keyfile: v.text("keyfile"),
    }
}
