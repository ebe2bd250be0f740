//! What a configuration means: plain, typed, validated values.
//!
//! `Settings` is the only thing the rest of the program reads. It is built from
//! the raw tree by the `from_*` functions of `section/`; nothing here parses, and
//! nothing here may depend on where a value came from.
//!
//! Units are in the field names. `None` stands for `infinity`, `disabled` or
//! "not set", as the field's documentation says.

use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;

pub use crate::words::{
    AutocleanQuorum, DenyAction, DnsRecordType, EnableAuthn, K8sAddressType, ListenerKind,
    LogFormatter, LogLevel, NoMatch, PayloadEncode, PeerCertField, Piggyback, ProtoDist,
    QueuePriority, RetainedStorage, RewriteAction, Role, RpcMode, RpcProtocol, SessionLocking,
    SharedStrategy, StickyPick, TimestampFormat, Verify,
};

/// A string that must not be shown: cookies, passwords, keys.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct Secret(String);

impl Secret {
    /// Wraps a secret.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The secret itself; for use, never for display.
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// Whether nothing is set.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(crate::render::MASK)
    }
}

/// An address to listen on: a port, with or without a host.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Bind {
    /// `None` listens on every address.
    pub host: Option<IpAddr>,
    /// 0 means "off" where the field says so.
    pub port: u16,
}

impl Bind {
    /// Whether two sockets cannot listen on both. Port 0 is a free port each time.
    pub fn overlaps(self, other: Self) -> bool {
        if self.port != other.port || self.port == 0 {
            return false;
        }
        match (self.host, other.host) {
            (None, _) | (_, None) => true,
            (Some(a), Some(b)) => {
                let either_is_all = a.is_unspecified() || b.is_unspecified();
                a == b || (a.is_ipv4() == b.is_ipv4() && either_is_all)
            }
        }
    }
}

impl fmt::Display for Bind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.host {
            None => write!(f, ":{}", self.port),
            Some(IpAddr::V4(ip)) => write!(f, "{ip}:{}", self.port),
            Some(IpAddr::V6(ip)) => write!(f, "[{ip}]:{}", self.port),
        }
    }
}

impl Settings {
    /// Whether links between nodes are encrypted. EMQX has two kinds of them, which are switched
    /// apart; whoever wants one of them private does not mean the other to be open.
    pub fn links_are_tls(&self) -> bool {
        self.cluster.proto_dist.is_tls() || self.rpc.protocol == RpcProtocol::Ssl
    }
}

/// A rate: so many units per interval.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Rate {
    /// Messages, connections or bytes per interval.
    pub amount: u64,
    /// The interval in milliseconds.
    pub per_ms: u64,
}

/// The whole configuration of a node.
#[derive(Debug, Clone, PartialEq)]
pub struct Settings {
    /// Who this node is.
    pub node: Node,
    /// How nodes find and watch each other.
    pub cluster: Cluster,
    /// The data links between nodes.
    pub rpc: Rpc,
    /// Every listener, enabled or not, in the order kind, then name.
    pub listeners: Vec<Listener>,
    /// Protocol behaviour of the zone `default`.
    pub mqtt: Mqtt,
    /// What differs per zone, resolved: unset keys are inherited. Always has `default`.
    pub zones: BTreeMap<String, Zone>,
    /// Log handlers.
    pub log: Log,
    /// The management interface.
    pub dashboard: Dashboard,
    /// API keys loaded at start.
    pub api_key: ApiKey,
    /// EMQX 5.0's push of counters over UDP.
    pub statsd: Statsd,
    /// Retained messages.
    pub retainer: Retainer,
    /// Delayed publication.
    pub delayed: Delayed,
    /// `$SYS` topics.
    pub sys_topics: SysTopics,
    /// Bans for clients that connect too often (zone `default`).
    pub flapping_detect: FlappingDetect,
    /// Limits of one connection (zone `default`).
    pub force_shutdown: ForceShutdown,
    /// Topic rewriting rules, in order.
    pub rewrite: Vec<RewriteRule>,
    /// Subscriptions made for every client at connect.
    pub auto_subscribe: Vec<AutoSubscription>,
    /// Topics with their own counters.
    pub topic_metrics: Vec<String>,
    /// Detection of slow subscribers.
    pub slow_subs: SlowSubs,
    /// Node-wide limits.
    pub limiter: Limits,
    /// File with bans loaded at start; empty = none.
    pub banned_bootstrap_file: String,
    /// What clients may do.
    pub authorization: Authorization,
    /// The chain of authenticators, in order, each as the operator wrote it.
    pub authentication: Vec<serde_json::Value>,
    /// Pre-shared keys for TLS.
    pub psk_authentication: PskAuthentication,
    /// Session registry.
    pub broker: Broker,
    /// Alarms.
    pub alarm: Alarm,
    /// Operating system watermarks.
    pub sysmon: Sysmon,
    /// Prometheus end points.
    pub prometheus: Prometheus,
    /// Sessions that survive their node.
    pub durable_sessions: DurableSessions,
}

/// `node`.
#[derive(Debug, Clone, PartialEq)]
pub struct Node {
    /// `name@host`; the identity of the node.
    pub name: String,
    /// Shared secret of the cluster.
    pub cookie: Secret,
    /// Data directory; relative to the installation.
    pub data_dir: String,
    /// Ceiling for connections.
    pub max_ports: u32,
    /// Bytes of a link's send buffer.
    pub dist_buffer_bytes: u64,
    /// A silent peer is declared down after about this time.
    pub dist_net_ticktime_ms: u64,
    /// `core` or `replicant`.
    pub role: Role,
}

impl Node {
    /// The part before `@`.
    pub fn short(&self) -> &str {
        self.name
            .split_once('@')
            .map_or(self.name.as_str(), |(short, _)| short)
    }

    /// The part after `@`, if there is one.
    pub fn host(&self) -> Option<&str> {
        self.name.split_once('@').map(|(_, host)| host)
    }
}

/// `cluster`.
#[derive(Debug, Clone, PartialEq)]
pub struct Cluster {
    /// Must match to join or be discovered.
    pub name: String,
    /// How peers are found.
    pub strategy: Strategy,
    /// A member down for longer is removed.
    pub autoclean_ms: u64,
    /// How many live members that takes.
    pub autoclean_quorum: AutocleanQuorum,
    /// Whether two sides of a split merge by themselves.
    pub autoheal: bool,
    /// Transport of inter-node links.
    pub proto_dist: ProtoDist,
}

/// `cluster.discovery_strategy` with the settings of that strategy.
#[derive(Debug, Clone, PartialEq)]
pub enum Strategy {
    /// Nodes are joined by command.
    Manual,
    /// The node never clusters.
    Singleton,
    /// A fixed list.
    Static {
        /// Node names `name@host`.
        seeds: Vec<String>,
    },
    /// Addresses or targets of one DNS name.
    Dns {
        /// The name to look up.
        name: String,
        /// What to look up.
        record_type: DnsRecordType,
    },
    /// Keys in etcd.
    Etcd {
        /// Client URLs.
        servers: Vec<String>,
        /// First part of every key.
        prefix: String,
        /// Life of a key without renewal.
        node_ttl_ms: u64,
        /// Who this node is towards etcd, if not the name in its certificate.
        user: Option<EtcdUser>,
        /// TLS towards etcd, if enabled.
        ssl: Option<ClientTls>,
    },
    /// End points of a Kubernetes service.
    K8s {
        /// URL of the API server.
        apiserver: String,
        /// Service whose end points are the nodes.
        service_name: String,
        /// How node names are made from end points.
        address_type: K8sAddressType,
        /// Namespace of the service.
        namespace: String,
        /// Last part of DNS names.
        suffix: String,
        /// Short name of the peers; `None` = this node's own short name.
        app_name: Option<String>,
    },
    /// UDP multicast (deprecated).
    Mcast {
        /// Multicast group.
        addr: IpAddr,
        /// Ports to try and to ping.
        ports: Vec<u16>,
        /// Local interface address.
        iface: IpAddr,
        /// Time to live of datagrams.
        ttl: u8,
        /// Whether own datagrams come back.
        loopback: bool,
        /// Send buffer of the socket, bytes.
        sndbuf: u64,
        /// Receive buffer of the socket, bytes.
        recbuf: u64,
        /// Longest datagram read, bytes.
        buffer: u64,
    },
}

impl Strategy {
    /// The word of `cluster.discovery_strategy`.
    pub const fn as_str(&self) -> &'static str {
        match self {
            Self::Manual => "manual",
            Self::Singleton => "singleton",
            Self::Static { .. } => "static",
            Self::Dns { .. } => "dns",
            Self::Etcd { .. } => "etcd",
            Self::K8s { .. } => "k8s",
            Self::Mcast { .. } => "mcast",
        }
    }
}

/// A user of etcd.
#[derive(Debug, Clone, PartialEq)]
pub struct EtcdUser {
    /// Its name.
    pub username: String,
    /// Its password.
    pub password: Secret,
}

/// TLS as a client: towards etcd, HTTP services and the like.
#[derive(Debug, Clone, PartialEq)]
pub struct ClientTls {
    /// PEM file with trusted authorities; empty = the system's.
    pub cacertfile: String,
    /// PEM file with the client certificate; empty = none.
    pub certfile: String,
    /// PEM file with its key.
    pub keyfile: String,
    /// Password of the key.
    pub password: Secret,
    /// Whether the server is verified.
    pub verify: Verify,
    /// Name sent and checked instead of the host; `None` = the host, `"disable"` = none.
    pub server_name_indication: Option<String>,
}

/// `rpc`.
#[derive(Debug, Clone, PartialEq)]
pub struct Rpc {
    /// Whether a forwarded message waits for the receiving node.
    pub mode: RpcMode,
    /// TCP or TLS.
    pub protocol: RpcProtocol,
    /// Data connections per peer.
    pub client_num: u16,
    /// Messages per batch.
    pub async_batch_size: u32,
    /// Time to connect.
    pub connect_timeout_ms: u64,
    /// Time to hand bytes to the network.
    pub send_timeout_ms: u64,
    /// Time for the proof of the cookie.
    pub authentication_timeout_ms: u64,
    /// Time for an answer of a call.
    pub call_receive_timeout_ms: u64,
    /// Send buffer of the socket.
    pub socket_sndbuf_bytes: u64,
    /// Receive buffer of the socket.
    pub socket_recbuf_bytes: u64,
    /// TCP keepalive: idle time before the first probe.
    pub socket_keepalive_idle_ms: u64,
    /// TCP keepalive: time between probes.
    pub socket_keepalive_interval_ms: u64,
    /// TCP keepalive: probes before the peer counts as gone.
    pub socket_keepalive_count: u32,
    /// Address for inter-node connections; `None` = derived from the node name.
    pub listen_address: Option<IpAddr>,
    /// Whether an IPv6 socket refuses IPv4.
    pub ipv6_only: bool,
    /// PEM files for TLS; empty = not set.
    pub cacertfile: String,
    /// Certificate of this node.
    pub certfile: String,
    /// Key of this node.
    pub keyfile: String,
}

/// One listener of `listeners.<kind>.<name>`.
#[derive(Debug, Clone, PartialEq)]
pub struct Listener {
    /// Transport.
    pub kind: ListenerKind,
    /// Name within its kind.
    pub name: String,
    /// Whether it is started with the node.
    pub enable: bool,
    /// Where it listens.
    pub bind: Bind,
    /// Accepting tasks.
    pub acceptors: u32,
    /// `None` = no limit.
    pub max_connections: Option<u64>,
    /// Prefix of every topic of its clients; may hold `${clientid}` and the like.
    pub mountpoint: String,
    /// Zone of its clients.
    pub zone: String,
    /// Whether its clients are authenticated.
    pub enable_authn: EnableAuthn,
    /// Who may connect, first match wins.
    pub access_rules: Vec<AccessRule>,
    /// Whether connections begin with a PROXY header.
    pub proxy_protocol: bool,
    /// Time for that header.
    pub proxy_protocol_timeout_ms: u64,
    /// New connections of the listener; `None` = no limit.
    pub max_conn_rate: Option<Rate>,
    /// Messages of each client; `None` = no limit.
    pub messages_rate: Option<Rate>,
    /// Bytes of each client; `None` = no limit.
    pub bytes_rate: Option<Rate>,
    /// Socket options.
    pub tcp_options: TcpOptions,
    /// TLS options of `ssl` and `wss`.
    pub ssl_options: Option<SslOptions>,
    /// WebSocket options of `ws` and `wss`.
    pub websocket: Option<Websocket>,
    /// The listener's own chain of authenticators; empty = the global one.
    pub authentication: Vec<serde_json::Value>,
}

impl Listener {
    /// `kind:name`, as in the CLI and the API.
    pub fn id(&self) -> String {
        format!("{}:{}", self.kind, self.name)
    }
}

/// One item of `access_rules`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AccessRule {
    /// `allow` or `deny`.
    pub allow: bool,
    /// Address block; `None` = all.
    pub net: Option<Cidr>,
}

/// A block of addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cidr {
    /// Any address of the block.
    pub addr: IpAddr,
    /// Leading bits that must be equal.
    pub prefix_bits: u8,
}

impl Cidr {
    /// Whether `ip` lies in the block.
    pub fn contains(&self, ip: IpAddr) -> bool {
        fn same(a: u128, b: u128, width: u32, bits: u8) -> bool {
            let drop = width.saturating_sub(u32::from(bits));
            drop >= width || (a >> drop) == (b >> drop)
        }
        match (self.addr, ip) {
            (IpAddr::V4(a), IpAddr::V4(b)) => same(
                u32::from(a).into(),
                u32::from(b).into(),
                32,
                self.prefix_bits,
            ),
            (IpAddr::V6(a), IpAddr::V6(b)) => {
                same(u128::from(a), u128::from(b), 128, self.prefix_bits)
            }
            _ => false,
        }
    }
}

/// `tcp_options`.
#[derive(Debug, Clone, PartialEq)]
pub struct TcpOptions {
    /// Length of the accept queue.
    pub backlog: u32,
    /// Time to hand bytes to the network before the connection is given up.
    pub send_timeout_ms: u64,
    /// Whether a timed-out send closes the connection.
    pub send_timeout_close: bool,
    /// Receive buffer of the socket; `None` = the system's default.
    pub recbuf_bytes: Option<u64>,
    /// Send buffer of the socket; `None` = the system's default.
    pub sndbuf_bytes: Option<u64>,
    /// User-space receive buffer.
    pub buffer_bytes: u64,
    /// Unsent bytes at which a connection counts as congested.
    pub high_watermark_bytes: u64,
    /// Whether small segments are sent at once.
    pub nodelay: bool,
    /// Whether closing discards unsent bytes.
    pub nolinger: bool,
    /// Whether a port in `TIME_WAIT` may be bound.
    pub reuseaddr: bool,
    /// TCP keepalive; `None` = off.
    pub keepalive: Option<TcpKeepalive>,
}

/// TCP keepalive as `idle,interval,probes` in seconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TcpKeepalive {
    /// Idle seconds before the first probe.
    pub idle_s: u32,
    /// Seconds between probes.
    pub interval_s: u32,
    /// Probes before the peer counts as gone.
    pub probes: u32,
}

/// `ssl_options` of a listener.
#[derive(Debug, Clone, PartialEq)]
pub struct SslOptions {
    /// PEM file with the authorities of client certificates.
    pub cacertfile: String,
    /// PEM file with the server's certificate chain.
    pub certfile: String,
    /// PEM file with its key.
    pub keyfile: String,
    /// Password of the key.
    pub password: Secret,
    /// Whether clients are asked for a certificate.
    pub verify: Verify,
    /// Whether clients without one are refused.
    pub fail_if_no_peer_cert: bool,
    /// Longest chain.
    pub depth: u32,
    /// Allowed versions, for example `tlsv1.3`.
    pub versions: Vec<String>,
    /// Allowed cipher suites; empty = the library's choice.
    pub ciphers: Vec<String>,
    /// Whether the server's order of suites wins.
    pub honor_cipher_order: bool,
    /// Whether sessions are resumed.
    pub reuse_sessions: bool,
    /// Time for the handshake.
    pub handshake_timeout_ms: u64,
}

/// `websocket` of a listener.
#[derive(Debug, Clone, PartialEq)]
pub struct Websocket {
    /// Path of the end point.
    pub mqtt_path: String,
    /// Whether several packets may share a frame.
    pub mqtt_piggyback: Piggyback,
    /// Whether permessage-deflate is offered.
    pub compress: bool,
    /// Time without any frame before the connection is closed; `None` = never.
    pub idle_timeout_ms: Option<u64>,
    /// Largest frame; `None` = no limit.
    pub max_frame_bytes: Option<u64>,
    /// Whether a client that offers no known sub-protocol is refused.
    pub fail_if_no_subprotocol: bool,
    /// Known sub-protocols.
    pub supported_subprotocols: Vec<String>,
    /// Whether the Origin header is checked.
    pub check_origin_enable: bool,
    /// Whether a missing Origin passes the check.
    pub allow_origin_absence: bool,
    /// Allowed origins.
    pub check_origins: Vec<String>,
    /// Header with the client's address behind a proxy.
    pub proxy_address_header: String,
    /// Header with the client's port behind a proxy.
    pub proxy_port_header: String,
}

/// `mqtt`.
#[derive(Debug, Clone, PartialEq)]
pub struct Mqtt {
    /// Time for CONNECT after the connection opened; `None` = no limit.
    pub idle_timeout_ms: Option<u64>,
    /// Largest packet.
    pub max_packet_bytes: u64,
    /// Longest client identifier.
    pub max_clientid_len: u32,
    /// Most levels of a topic.
    pub max_topic_levels: u32,
    /// Largest topic alias; 0 = none allowed.
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
    pub shared_subscription_strategy: SharedStrategy,
    /// How `sticky` picks its first member.
    pub shared_subscription_initial_sticky_pick: StickyPick,
    /// Whether MQTT 3 clients do not receive their own messages.
    pub ignore_loop_deliver: bool,
    /// Whether UTF-8 and reserved bits are checked.
    pub strict_mode: bool,
    /// Answer to a request for response information; empty = none.
    pub response_information: String,
    /// Keepalive imposed on MQTT 5 clients, in seconds; `None` = the client's.
    pub server_keepalive_s: Option<u16>,
    /// Silence of this many keepalives closes the connection.
    pub keepalive_multiplier: f64,
    /// Longest time between two checks of that.
    pub keepalive_check_interval_ms: u64,
    /// Time before an unacknowledged message is sent again; `None` = only at reconnect.
    pub retry_interval_ms: Option<u64>,
    /// Whether the user name becomes the client identifier.
    pub use_username_as_clientid: bool,
    /// Part of the certificate that becomes the user name.
    pub peer_cert_as_username: Option<PeerCertField>,
    /// Part of the certificate that becomes the client identifier.
    pub peer_cert_as_clientid: Option<PeerCertField>,
    /// Attributes computed at connect.
    pub client_attrs_init: Vec<ClientAttr>,
    /// Expression that replaces the client identifier; `None` = disabled.
    pub clientid_override: Option<String>,
    /// Session expiry of MQTT 3 clients with clean session off.
    pub session_expiry_interval_ms: u64,
    /// Expiry of messages without their own; `None` = never.
    pub message_expiry_interval_ms: Option<u64>,
    /// Incoming QoS 2 messages waiting for PUBREL; `None` = no limit.
    pub max_awaiting_rel: Option<u32>,
    /// Time they may wait; `None` = no limit.
    pub await_rel_timeout_ms: Option<u64>,
    /// Highest QoS.
    pub max_qos_allowed: u8,
    /// Priority 1 to 255 per topic; empty = disabled.
    pub mqueue_priorities: BTreeMap<String, u8>,
    /// Priority of other topics.
    pub mqueue_default_priority: QueuePriority,
    /// Whether QoS 0 messages are queued.
    pub mqueue_store_qos0: bool,
    /// Longest queue per priority; `None` = no limit.
    pub max_mqueue_len: Option<u32>,
    /// Unacknowledged messages at once.
    pub max_inflight: u16,
    /// Subscriptions per client; `None` = no limit.
    pub max_subscriptions: Option<u32>,
    /// Whether the delivered QoS is the greater of publisher's and subscriber's.
    pub upgrade_qos: bool,
}

/// One item of `mqtt.client_attrs_init`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClientAttr {
    /// How the value is computed.
    pub expression: String,
    /// Name of the attribute.
    pub set_as_attr: String,
}

/// A zone: settings that clients of some listeners have for themselves.
#[derive(Debug, Clone, PartialEq)]
pub struct Zone {
    /// Protocol behaviour.
    pub mqtt: Mqtt,
    /// Bans for clients that connect too often.
    pub flapping_detect: FlappingDetect,
    /// Limits of one connection.
    pub force_shutdown: ForceShutdown,
}

/// `log`.
#[derive(Debug, Clone, PartialEq)]
pub struct Log {
    /// Log to standard output.
    pub console: LogHandler,
    /// Log files by name; the usual one is `default`.
    pub files: BTreeMap<String, LogFile>,
    /// Repeated events are logged once per window.
    pub throttling_window_ms: u64,
}

/// What all log handlers have.
#[derive(Debug, Clone, PartialEq)]
pub struct LogHandler {
    /// `None` = as the way of starting says (console in the foreground, file in the background).
    pub enable: Option<bool>,
    /// Lowest level shown.
    pub level: LogLevel,
    /// Form of the lines.
    pub formatter: LogFormatter,
    /// Form of the time.
    pub timestamp_format: TimestampFormat,
    /// Time zone of the time.
    pub time_offset: TimeOffset,
    /// Form of payloads.
    pub payload_encode: PayloadEncode,
}

/// The time zone of log lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TimeOffset {
    /// The machine's.
    System,
    /// UTC.
    Utc,
    /// A fixed offset in minutes, east is positive.
    Minutes(i16),
}

/// A log file.
#[derive(Debug, Clone, PartialEq)]
pub struct LogFile {
    /// What all handlers have.
    pub handler: LogHandler,
    /// Path of the newest file.
    pub path: String,
    /// Files kept.
    pub rotation_count: u32,
    /// Size at which a new file begins; `None` = never.
    pub rotation_bytes: Option<u64>,
}

/// `dashboard`.
#[derive(Debug, Clone, PartialEq)]
pub struct Dashboard {
    /// Plain HTTP; `None` = off.
    pub http: Option<HttpListener>,
    /// HTTPS; `None` = off.
    pub https: Option<HttpsListener>,
    /// User made at first start.
    pub default_username: String,
    /// Password of that user.
    pub default_password: Secret,
    /// Life of a login.
    pub token_expired_time_ms: u64,
    /// Whether other origins may call the API.
    pub cors: bool,
    /// Whether the API describes itself.
    pub swagger_support: bool,
    /// Time between two samples of the overview charts.
    pub sample_interval_ms: u64,
}

/// `dashboard.listeners.http`.
#[derive(Debug, Clone, PartialEq)]
pub struct HttpListener {
    /// Where it listens.
    pub bind: Bind,
    /// Most connections.
    pub max_connections: u32,
    /// Length of the accept queue.
    pub backlog: u32,
    /// Time to hand bytes to the network.
    pub send_timeout_ms: u64,
    /// Whether IPv6 is listened on when no host is given.
    pub inet6: bool,
    /// Whether an IPv6 socket refuses IPv4.
    pub ipv6_v6only: bool,
    /// Whether connections begin with a PROXY header.
    pub proxy_header: bool,
}

/// `dashboard.listeners.https`.
#[derive(Debug, Clone, PartialEq)]
pub struct HttpsListener {
    /// The part it shares with HTTP.
    pub http: HttpListener,
    /// Certificates and protocol.
    pub ssl_options: SslOptions,
}

/// `api_key`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ApiKey {
    /// File with `key:secret[:role]` lines; empty = none.
    pub bootstrap_file: String,
}

/// `statsd` (EMQX 5.0).
#[derive(Debug, Clone, PartialEq)]
pub struct Statsd {
    /// Whether counters are pushed.
    pub enable: bool,
    /// `host:port`.
    pub server: String,
    /// Time between samples.
    pub sample_time_interval_ms: u64,
    /// Time between datagrams.
    pub flush_time_interval_ms: u64,
}

/// `retainer`.
#[derive(Debug, Clone, PartialEq)]
pub struct Retainer {
    /// Whether messages are retained at all.
    pub enable: bool,
    /// Expiry of messages without their own; `None` = never.
    pub msg_expiry_interval_ms: Option<u64>,
    /// Expiry forced on all messages; `None` = not forced.
    pub msg_expiry_interval_override_ms: Option<u64>,
    /// Whether a message may be kept without any expiry.
    pub allow_never_expire: bool,
    /// Time between sweeps; `None` = off.
    pub msg_clear_interval_ms: Option<u64>,
    /// Largest payload kept; `None` = no limit.
    pub max_payload_bytes: Option<u64>,
    /// Whether an empty retained message is not forwarded.
    pub stop_publish_clear_msg: bool,
    /// Speed of replay; `None` = no limit.
    pub delivery_rate: Option<Rate>,
    /// Speed of storing; `None` = no limit.
    pub max_publish_rate: Option<Rate>,
    /// Where messages are kept.
    pub storage: RetainedStorage,
    /// Most messages; `None` = no limit.
    pub max_retained_messages: Option<u64>,
}

/// `delayed`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Delayed {
    /// Whether `$delayed` works.
    pub enable: bool,
    /// Most waiting messages; `None` = no limit.
    pub max_delayed_messages: Option<u64>,
}

/// `sys_topics`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SysTopics {
    /// Time between statistics; `None` = off.
    pub sys_msg_interval_ms: Option<u64>,
    /// Time between heartbeats; `None` = off.
    pub sys_heartbeat_interval_ms: Option<u64>,
    /// Event on connect.
    pub client_connected: bool,
    /// Event on disconnect.
    pub client_disconnected: bool,
    /// Event on subscribe.
    pub client_subscribed: bool,
    /// Event on unsubscribe.
    pub client_unsubscribed: bool,
}

/// `flapping_detect`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FlappingDetect {
    /// Whether it is on.
    pub enable: bool,
    /// Window in which connects are counted; `None` = off.
    pub window_time_ms: Option<u64>,
    /// Connects that lead to a ban.
    pub max_count: u32,
    /// Length of the ban.
    pub ban_time_ms: u64,
}

/// `force_shutdown`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ForceShutdown {
    /// Whether it is on.
    pub enable: bool,
    /// Waiting items at which a connection is closed.
    pub max_mailbox_size: u64,
    /// Bytes at which a connection is closed.
    pub max_heap_bytes: u64,
}

/// One rule of `rewrite`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RewriteRule {
    /// What it applies to.
    pub action: RewriteAction,
    /// Filter that selects the rule.
    pub source_topic: String,
    /// Regular expression over the topic.
    pub re: String,
    /// New topic with `$1`, `${clientid}`, `${username}`.
    pub dest_topic: String,
}

/// One item of `auto_subscribe.topics`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AutoSubscription {
    /// Filter with `${clientid}`, `${username}`, `${host}`, `${port}`.
    pub topic: String,
    /// QoS 0 to 2.
    pub qos: u8,
    /// Retain handling 0 to 2.
    pub rh: u8,
    /// Retain as published.
    pub rap: bool,
    /// No local.
    pub nl: bool,
}

/// `slow_subs`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SlowSubs {
    /// Whether it is on.
    pub enable: bool,
    /// Latency that counts as slow.
    pub threshold_ms: u64,
    /// Time an entry is kept.
    pub expire_interval_ms: u64,
    /// Entries kept.
    pub top_k_num: u32,
    /// `whole`, `internal` or `response`.
    pub stats_type: String,
}

/// Rates; `None` = no limit.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Limits {
    /// New connections.
    pub max_conn_rate: Option<Rate>,
    /// Messages.
    pub messages_rate: Option<Rate>,
    /// Bytes.
    pub bytes_rate: Option<Rate>,
}

/// `authorization`.
#[derive(Debug, Clone, PartialEq)]
pub struct Authorization {
    /// Verdict when no source has one.
    pub no_match: NoMatch,
    /// What a refusal does.
    pub deny_action: DenyAction,
    /// Cache of verdicts per connection.
    pub cache: AuthorizationCache,
    /// Sources in order, each as the operator wrote it, with paths expanded.
    pub sources: Vec<serde_json::Value>,
}

/// `authorization.cache`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AuthorizationCache {
    /// Whether verdicts are cached.
    pub enable: bool,
    /// Entries per connection.
    pub max_size: u32,
    /// Life of an entry.
    pub ttl_ms: u64,
    /// Filters of topics that are never cached.
    pub excludes: Vec<String>,
}

/// `psk_authentication`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PskAuthentication {
    /// Whether pre-shared keys are accepted.
    pub enable: bool,
    /// File with `identity:secret` lines.
    pub init_file: String,
    /// Separator of those lines.
    pub separator: String,
}

/// `broker`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Broker {
    /// Time an ended session is still listed.
    pub session_history_retain_ms: u64,
    /// Accepted; one node's registry decides in our design.
    pub session_locking_strategy: SessionLocking,
}

/// `alarm`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Alarm {
    /// `log` and `publish`.
    pub actions: Vec<String>,
    /// Deactivated alarms kept.
    pub size_limit: u32,
    /// Time they are kept.
    pub validity_period_ms: u64,
}

/// `sysmon.os`.
#[derive(Debug, Clone, PartialEq)]
pub struct Sysmon {
    /// Time between CPU checks; `None` = off.
    pub cpu_check_interval_ms: Option<u64>,
    /// Fraction 0 to 1 that raises the alarm.
    pub cpu_high_watermark: f64,
    /// Fraction 0 to 1 that clears it.
    pub cpu_low_watermark: f64,
    /// Time between memory checks; `None` = off.
    pub mem_check_interval_ms: Option<u64>,
    /// Fraction of all memory that raises the alarm.
    pub sysmem_high_watermark: f64,
    /// Fraction of all memory one process may have.
    pub procmem_high_watermark: f64,
}

/// `prometheus`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Prometheus {
    /// Whether the end points ask for an API key.
    pub enable_basic_auth: bool,
}

/// `durable_sessions`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DurableSessions {
    /// Whether they are on.
    pub enable: bool,
    /// Messages read at once.
    pub batch_size: u32,
    /// Time between liveness marks.
    pub heartbeat_interval_ms: u64,
    /// Time messages are kept.
    pub message_retention_period_ms: u64,
}
