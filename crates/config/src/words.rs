//! Enumerations whose variants are words of the configuration file.
//!
//! One macro, so that the list of allowed words that the registry shows and the
//! enum that the code matches on can never differ.

/// Declares an enum together with its configuration words.
macro_rules! words {
    ($(#[$meta:meta])* $name:ident { $($(#[$vmeta:meta])* $variant:ident = $word:literal,)+ }) => {
        $(#[$meta])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum $name { $($(#[$vmeta])* $variant,)+ }

        impl $name {
            /// The words of the configuration file, in declaration order.
            pub const WORDS: &'static [&'static str] = &[$($word,)+];

            /// The variant written as `word`; words are case-sensitive.
            pub fn parse(word: &str) -> Option<Self> {
                match word { $($word => Some(Self::$variant),)+ _ => None }
            }

            /// The word that stands for this variant.
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $word,)+ }
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(self.as_str())
            }
        }
    };
}

words! {
    /// `cluster.proto_dist`: transport of the links between nodes.
    ProtoDist {
        /// TCP over IPv4.
        InetTcp = "inet_tcp",
        /// TCP over IPv6.
        Inet6Tcp = "inet6_tcp",
        /// TLS over IPv4.
        InetTls = "inet_tls",
        /// TLS over IPv6.
        Inet6Tls = "inet6_tls",
    }
}

impl ProtoDist {
    /// Whether links between nodes are encrypted.
    pub const fn is_tls(self) -> bool {
        matches!(self, Self::InetTls | Self::Inet6Tls)
    }

    /// Whether links between nodes prefer IPv6.
    pub const fn is_ipv6(self) -> bool {
        matches!(self, Self::Inet6Tcp | Self::Inet6Tls)
    }
}

words! {
    /// `cluster.autoclean_quorum`: how many live members autoclean needs.
    AutocleanQuorum {
        /// A majority in clusters of three or more; none in a cluster of two.
        Auto = "auto",
        /// Always a majority of the members.
        Majority = "majority",
        /// No quorum: any live member may remove the ones that are down.
        None = "none",
    }
}

words! {
    /// `cluster.dns.record_type`.
    DnsRecordType {
        /// IPv4 addresses.
        A = "a",
        /// IPv6 addresses.
        Aaaa = "aaaa",
        /// Service records; the targets are host names.
        Srv = "srv",
    }
}

words! {
    /// `cluster.k8s.address_type`.
    K8sAddressType {
        /// Pod addresses.
        Ip = "ip",
        /// Pod DNS names made of the address, the namespace and the suffix.
        Dns = "dns",
        /// Stateful host names.
        Hostname = "hostname",
    }
}

words! {
    /// `node.role`.
    Role {
        /// A full member.
        Core = "core",
        /// A member that follows; it does not count for quorums.
        Replicant = "replicant",
    }
}

words! {
    /// `rpc.mode`: when a forwarded message counts as delivered.
    RpcMode {
        /// Forward and forget.
        Async = "async",
        /// Wait for the receiving node.
        Sync = "sync",
    }
}

words! {
    /// `rpc.protocol`.
    RpcProtocol {
        /// Plain TCP.
        Tcp = "tcp",
        /// TLS.
        Ssl = "ssl",
    }
}

words! {
    /// The transport of a client listener.
    ListenerKind {
        /// MQTT over TCP.
        Tcp = "tcp",
        /// MQTT over TLS.
        Ssl = "ssl",
        /// MQTT over WebSocket.
        Ws = "ws",
        /// MQTT over WebSocket and TLS.
        Wss = "wss",
    }
}

impl ListenerKind {
    /// Whether connections of this kind are encrypted.
    pub const fn is_tls(self) -> bool {
        matches!(self, Self::Ssl | Self::Wss)
    }

    /// Whether connections of this kind speak WebSocket.
    pub const fn is_websocket(self) -> bool {
        matches!(self, Self::Ws | Self::Wss)
    }
}

words! {
    /// `listeners.*.*.enable_authn`.
    EnableAuthn {
        /// Clients are authenticated.
        True = "true",
        /// Clients are let in unasked.
        False = "false",
        /// Clients without a user name are refused before any backend is asked.
        QuickDenyAnonymous = "quick_deny_anonymous",
    }
}

words! {
    /// How the receiver of a message in a shared subscription is chosen.
    SharedStrategy {
        /// Any member.
        Random = "random",
        /// In turn, per publishing connection.
        RoundRobin = "round_robin",
        /// In turn, per group and node.
        RoundRobinPerGroup = "round_robin_per_group",
        /// The same member until it goes away.
        Sticky = "sticky",
        /// A member on the publishing node if there is one.
        Local = "local",
        /// By a hash of the topic.
        HashTopic = "hash_topic",
        /// By a hash of the publisher's client identifier.
        HashClientid = "hash_clientid",
    }
}

words! {
    /// How `sticky` picks its first member.
    StickyPick {
        /// Any member.
        Random = "random",
        /// A member on the publishing node if there is one.
        Local = "local",
        /// By a hash of the topic.
        HashTopic = "hash_topic",
        /// By a hash of the publisher's client identifier.
        HashClientid = "hash_clientid",
    }
}

words! {
    /// Which part of a client certificate is taken as a name.
    PeerCertField {
        /// The common name.
        Cn = "cn",
        /// The distinguished name.
        Dn = "dn",
        /// The certificate in DER.
        Crt = "crt",
        /// The certificate in PEM.
        Pem = "pem",
        /// The MD5 of the DER form, in hexadecimal.
        Md5 = "md5",
    }
}

words! {
    /// Priority of topics that `mqtt.mqueue_priorities` does not name.
    QueuePriority {
        /// Before all named topics.
        Highest = "highest",
        /// After all named topics.
        Lowest = "lowest",
    }
}

words! {
    /// Log levels, as EMQX names them.
    LogLevel {
        /// Everything.
        Debug = "debug",
        /// Routine events.
        Info = "info",
        /// Events worth a look.
        Notice = "notice",
        /// Something is not as it should be.
        Warning = "warning",
        /// Something failed.
        Error = "error",
        /// A part of the node does not work.
        Critical = "critical",
        /// Act at once.
        Alert = "alert",
        /// The node is unusable.
        Emergency = "emergency",
        /// The same as `debug`.
        All = "all",
    }
}

words! {
    /// The form of a log line.
    LogFormatter {
        /// `time [level] key: value, …`.
        Text = "text",
        /// One JSON object per line.
        Json = "json",
    }
}

words! {
    /// The form of the time in a log line.
    TimestampFormat {
        /// RFC 3339 for text, microseconds since 1970 for JSON.
        Auto = "auto",
        /// Microseconds since 1970.
        Epoch = "epoch",
        /// RFC 3339.
        Rfc3339 = "rfc3339",
    }
}

words! {
    /// How packets' payloads appear in logs and traces.
    PayloadEncode {
        /// As UTF-8 text.
        Text = "text",
        /// In hexadecimal.
        Hex = "hex",
        /// Not at all.
        Hidden = "hidden",
    }
}

words! {
    /// `authorization.no_match`.
    NoMatch {
        /// What no rule forbids is allowed.
        Allow = "allow",
        /// What no rule allows is forbidden.
        Deny = "deny",
    }
}

words! {
    /// `authorization.deny_action`.
    DenyAction {
        /// Refuse the operation and keep the connection.
        Ignore = "ignore",
        /// Close the connection.
        Disconnect = "disconnect",
    }
}

words! {
    /// `retainer.backend.storage_type`.
    RetainedStorage {
        /// In memory only.
        Ram = "ram",
        /// In memory and on disk.
        Disc = "disc",
    }
}

words! {
    /// Which operation a rewrite rule applies to.
    RewriteAction {
        /// Filters of subscriptions.
        Subscribe = "subscribe",
        /// Topics of published messages.
        Publish = "publish",
        /// Both.
        All = "all",
    }
}

words! {
    /// `ssl_options.verify`.
    Verify {
        /// The peer's certificate is checked.
        VerifyPeer = "verify_peer",
        /// The peer's certificate is not asked for.
        VerifyNone = "verify_none",
    }
}

words! {
    /// `websocket.mqtt_piggyback`.
    Piggyback {
        /// Several packets may share a frame.
        Multiple = "multiple",
        /// One packet per frame.
        Single = "single",
    }
}

words! {
    /// `broker.session_locking_strategy`.
    SessionLocking {
        /// Lock on this node only.
        Local = "local",
        /// Lock on one node of the cluster.
        Leader = "leader",
        /// Lock on a majority.
        Quorum = "quorum",
        /// Lock everywhere.
        All = "all",
    }
}
