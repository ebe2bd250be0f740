//! `cluster`: how nodes find, trust and watch each other.

use std::net::{IpAddr, Ipv4Addr};

use super::tls;
use crate::schema::{Field, Kind, field, group, open, optional};
use crate::settings::{
    AutocleanQuorum, Cluster, DnsRecordType, EtcdUser, K8sAddressType, ProtoDist, Secret, Strategy,
};
use crate::view::View;

const STRATEGIES: &[&str] = &[
    "manual",
    "static",
    "dns",
    "etcd",
    "k8s",
    "mcast",
    "singleton",
];

pub(crate) static FIELDS: &[Field] = &[
    field(
        "name",
        Kind::String,
        "emqxcl",
        "Name of the cluster. Nodes with different cluster names do not discover or join each \
         other.",
    ),
    field(
        "discovery_strategy",
        Kind::Spelled {
            words: STRATEGIES,
            also: &[("K8s", "k8s")],
        },
        "manual",
        "How a starting node finds its peers. `manual` leaves it to `cluster join`, `static`, \
         `dns`, `etcd`, `k8s` and `mcast` join by themselves, `singleton` forbids \
         clustering.",
    ),
    field(
        "autoclean",
        Kind::Duration,
        "24h",
        "A member that has been down for longer is removed from the cluster.",
    ),
    field(
        "autoclean_quorum",
        Kind::Enum(AutocleanQuorum::WORDS),
        "auto",
        "How many live members automatic removal needs: `majority`, `none`, or `auto` (a \
         majority in clusters of three or more, none in a cluster of two).",
    ),
    field(
        "autoheal",
        Kind::Bool,
        "true",
        "Whether the two sides of a split merge as soon as links return. If off, they stay apart \
         until `cluster heal` is run.",
    ),
    field(
        "proto_dist",
        Kind::Enum(ProtoDist::WORDS),
        "inet_tcp",
        "Transport of links between nodes. All nodes must use the same. With `inet_tls` and \
         `inet6_tls` they are encrypted: the certificate is `rpc.certfile`, else that of \
         `etc/ssl_dist.conf`, else the one every installation has.",
    ),
    field(
        "prevent_overlapping_partitions",
        Kind::Bool,
        "false",
        "Erlang's protection against partial splits.",
    )
    .since("5.2")
    .inert()
    .hidden(),
    field(
        "quic_lb_mode",
        Kind::Union(&[Kind::Int { min: 0, max: 2 }, Kind::String]),
        "0",
        "How QUIC connection identifiers are made.",
    )
    .inert()
    .hidden(),
    optional(
        "core_nodes",
        Kind::CommaList(&Kind::String),
        "Core nodes of a replicant.",
    )
    .deprecated("all nodes are members; remove it")
    .inert(),
    open("links", "Links to other clusters.").since("5.8"),
    optional("description", Kind::String, "A text for people.")
        .inert()
        .hidden(),
    group("static", STATIC, "The strategy `static`: a fixed list."),
    group(
        "dns",
        DNS,
        "The strategy `dns`: addresses or targets of a DNS name.",
    ),
    group(
        "etcd",
        ETCD,
        "The strategy `etcd`: each node keeps a key with its name.",
    ),
    group(
        "k8s",
        K8S,
        "The strategy `k8s`: end points of a Kubernetes service.",
    )
    .alias(&["K8s"]),
    group("mcast", MCAST, "The strategy `mcast`: UDP multicast.")
        .deprecated("use static, dns, etcd or k8s"),
];

static STATIC: &[Field] = &[field(
    "seeds",
    Kind::CommaList(&Kind::String),
    "[]",
    "Node names to cluster with, as a list or a string with commas; the same on all nodes.",
)];

static DNS: &[Field] = &[
    field("name", Kind::String, "localhost", "The name to look up."),
    field(
        "record_type",
        Kind::Enum(DnsRecordType::WORDS),
        "a",
        "`a` and `aaaa` give addresses, `srv` gives host names; each becomes a node name with \
         this node's own short name.",
    ),
    optional("app", Kind::String, "Named in EMQX's documentation only.")
        .deprecated("it never was a key; peers have this node's own short name")
        .inert()
        .hidden(),
];

static ETCD: &[Field] = &[
    optional(
        "server",
        Kind::CommaList(&Kind::String),
        "Client URLs of etcd; several are separated by commas. With `https` in one, or with \
         ssl_options.enable, TLS is used for all.",
    ),
    field(
        "prefix",
        Kind::String,
        "emqxcl",
        "First part of the keys, which are /PREFIX/CLUSTER/nodes/NODE.",
    ),
    field(
        "node_ttl",
        Kind::Duration,
        "1m",
        "A node's key disappears this long after the node stopped renewing it.",
    ),
    optional(
        "username",
        Kind::String,
        "User of etcd. With a client certificate etcd takes its common name instead.",
    ),
    optional("password", Kind::Secret, "Password of that user."),
    group("ssl_options", tls::CLIENT, "TLS towards etcd.").alias(&["ssl"]),
];

static K8S: &[Field] = &[
    field(
        "apiserver",
        Kind::String,
        "\"https://kubernetes.default.svc:443\"",
        "URL of the Kubernetes API server. In a pod the default is the API server of its own \
         cluster, whatever its address.",
    ),
    field(
        "service_name",
        Kind::String,
        "emqx",
        "Service whose end points are the nodes.",
    ),
    field(
        "address_type",
        Kind::Enum(K8sAddressType::WORDS),
        "ip",
        "How node names are made from end points: `ip` is the address, `dns` the address with \
         dashes, then namespace and suffix, `hostname` the host name of a pod of a StatefulSet, \
         then service, namespace and suffix.",
    ),
    field(
        "namespace",
        Kind::String,
        "default",
        "Namespace of the service.",
    ),
    field(
        "suffix",
        Kind::String,
        "\"pod.local\"",
        "Last part of node hosts when address_type is dns (usually `pod.cluster.local`) or \
         hostname (usually `svc.cluster.local`).",
    ),
    optional(
        "app_name",
        Kind::String,
        "Short name of the peers; by default this node's own short name.",
    ),
];

static MCAST: &[Field] = &[
    field("addr", Kind::Ip, "\"239.192.0.1\"", "Multicast group."),
    field(
        "ports",
        Kind::CommaList(&super::PORT),
        "[4369, 4370]",
        "Ports of the nodes of one host: each takes the first that is free. The same everywhere.",
    ),
    field(
        "iface",
        Kind::Ip,
        "\"0.0.0.0\"",
        "Address of the interface to use.",
    ),
    field(
        "ttl",
        Kind::Int { min: 0, max: 255 },
        "255",
        "Time to live of the datagrams.",
    ),
    field(
        "loop",
        Kind::Bool,
        "true",
        "Whether datagrams reach the sender too.",
    ),
    field(
        "sndbuf",
        Kind::ByteSize,
        "16KB",
        "Send buffer of the socket.",
    ),
    field(
        "recbuf",
        Kind::ByteSize,
        "16KB",
        "Receive buffer of the socket; what is too much for it is lost.",
    ),
    field("buffer", Kind::ByteSize, "32KB", "Longest datagram read."),
];

pub(crate) fn build(v: View<'_>) -> Cluster {
    Cluster {
        name: v.text("name"),
        strategy: strategy(v),
        autoclean_ms: v.ms("autoclean"),
        autoclean_quorum: v.word("autoclean_quorum", AutocleanQuorum::parse),
        autoheal: v.bool("autoheal"),
        proto_dist: v.word("proto_dist", ProtoDist::parse),
    }
}

fn strategy(v: View<'_>) -> Strategy {
    match v
        .word("discovery_strategy", |word| Some(word.to_owned()))
        .as_str()
    {
        "singleton" => Strategy::Singleton,
        "static" => Strategy::Static {
            seeds: v.view("static").texts("seeds"),
        },
        "dns" => Strategy::Dns {
            name: v.view("dns").text("name"),
            record_type: v.view("dns").word("record_type", DnsRecordType::parse),
        },
        "etcd" => etcd(v.view("etcd")),
        "k8s" => k8s(v.view("k8s")),
        "mcast" => mcast(v.view("mcast")),
        _ => Strategy::Manual,
    }
}

fn etcd(v: View<'_>) -> Strategy {
    let (servers, ssl) = (v.texts("server"), v.view("ssl_options"));
    let is_https = |server: &String| server.starts_with("https://");
    let encrypted = ssl.bool("enable") || servers.iter().any(is_https);
    Strategy::Etcd {
        prefix: v.text("prefix"),
        node_ttl_ms: v.ms("node_ttl"),
        user: v.opt_text("username").map(|username| EtcdUser {
            username,
            password: Secret::new(v.opt_text("password").unwrap_or_default()),
        }),
        ssl: encrypted.then(|| tls::client(ssl)),
        servers,
    }
}

fn k8s(v: View<'_>) -> Strategy {
    Strategy::K8s {
        apiserver: v.text("apiserver"),
        service_name: v.text("service_name"),
        address_type: v.word("address_type", K8sAddressType::parse),
        namespace: v.text("namespace"),
        suffix: v.text("suffix"),
        app_name: v.opt_text("app_name").filter(|name| !name.is_empty()),
    }
}

fn mcast(v: View<'_>) -> Strategy {
    let ip = |key: &str| {
        v.text(key)
            .parse()
            .unwrap_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED))
    };
    Strategy::Mcast {
        addr: ip("addr"),
        ports: super::ints(v.list("ports")),
        iface: ip("iface"),
        ttl: v.int("ttl"),
        loopback: v.bool("loop"),
        sndbuf: v.bytes("sndbuf"),
        recbuf: v.bytes("recbuf"),
        buffer: v.bytes("buffer"),
    }
}
