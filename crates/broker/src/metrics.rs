//! Counters and gauges under the names EMQX's users have in their dashboards.
//!
//! Each shard owns one [`Metrics`] and is its only writer, so counting is a load and a store, not a
//! locked add; who reads sums over all shards. Must never be written by two threads.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

macro_rules! names {
    ($(#[$doc:meta])* $kind:ident { $($variant:ident = $name:literal,)* }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum $kind {
            $(#[doc = concat!("`", $name, "`")] $variant,)*
        }

        impl $kind {
            /// All, in the order of the table.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)*];
            const NAMES: &'static [&'static str] = &[$($name,)*];

            /// The name operators see.
            pub const fn name(self) -> &'static str {
                Self::NAMES[self as usize]
            }

            /// The one of a name.
            pub fn from_name(name: &str) -> Option<Self> {
                let at = Self::NAMES.iter().position(|n| *n == name)?;
                Some(Self::ALL[at])
            }
        }
    };
}

names! {
    /// Counters that only grow, from the start of the node.
    Metric {
        BytesReceived = "bytes.received",
        BytesSent = "bytes.sent",
        PacketsReceived = "packets.received",
        PacketsSent = "packets.sent",
        PacketsConnectReceived = "packets.connect.received",
        PacketsConnackSent = "packets.connack.sent",
        PacketsConnackError = "packets.connack.error",
        PacketsConnackAuthError = "packets.connack.auth_error",
        PacketsPublishReceived = "packets.publish.received",
        PacketsPublishSent = "packets.publish.sent",
        PacketsPublishInuse = "packets.publish.inuse",
        PacketsPublishError = "packets.publish.error",
        PacketsPublishAuthError = "packets.publish.auth_error",
        PacketsPublishDropped = "packets.publish.dropped",
        PacketsPubackReceived = "packets.puback.received",
        PacketsPubackSent = "packets.puback.sent",
        PacketsPubackInuse = "packets.puback.inuse",
        PacketsPubackMissed = "packets.puback.missed",
        PacketsPubrecReceived = "packets.pubrec.received",
        PacketsPubrecSent = "packets.pubrec.sent",
        PacketsPubrecInuse = "packets.pubrec.inuse",
        PacketsPubrecMissed = "packets.pubrec.missed",
        PacketsPubrelReceived = "packets.pubrel.received",
        PacketsPubrelSent = "packets.pubrel.sent",
        PacketsPubrelMissed = "packets.pubrel.missed",
        PacketsPubcompReceived = "packets.pubcomp.received",
        PacketsPubcompSent = "packets.pubcomp.sent",
        PacketsPubcompInuse = "packets.pubcomp.inuse",
        PacketsPubcompMissed = "packets.pubcomp.missed",
        PacketsSubscribeReceived = "packets.subscribe.received",
        PacketsSubscribeError = "packets.subscribe.error",
        PacketsSubscribeAuthError = "packets.subscribe.auth_error",
        PacketsSubackSent = "packets.suback.sent",
        PacketsUnsubscribeReceived = "packets.unsubscribe.received",
        PacketsUnsubscribeError = "packets.unsubscribe.error",
        PacketsUnsubackSent = "packets.unsuback.sent",
        PacketsPingreqReceived = "packets.pingreq.received",
        PacketsPingrespSent = "packets.pingresp.sent",
        PacketsDisconnectReceived = "packets.disconnect.received",
        PacketsDisconnectSent = "packets.disconnect.sent",
        PacketsAuthReceived = "packets.auth.received",
        PacketsAuthSent = "packets.auth.sent",
        MessagesReceived = "messages.received",
        MessagesSent = "messages.sent",
        MessagesQos0Received = "messages.qos0.received",
        MessagesQos0Sent = "messages.qos0.sent",
        MessagesQos1Received = "messages.qos1.received",
        MessagesQos1Sent = "messages.qos1.sent",
        MessagesQos2Received = "messages.qos2.received",
        MessagesQos2Sent = "messages.qos2.sent",
        MessagesPublish = "messages.publish",
        MessagesDropped = "messages.dropped",
        MessagesDroppedAwaitPubrelTimeout = "messages.dropped.await_pubrel_timeout",
        MessagesDroppedNoSubscribers = "messages.dropped.no_subscribers",
        MessagesForward = "messages.forward",
        MessagesDelayed = "messages.delayed",
        MessagesDelivered = "messages.delivered",
        MessagesAcked = "messages.acked",
        MessagesPersisted = "messages.persisted",
        MessagesValidationFailed = "messages.validation_failed",
        MessagesValidationSucceeded = "messages.validation_succeeded",
        MessagesTransformationFailed = "messages.transformation_failed",
        MessagesTransformationSucceeded = "messages.transformation_succeeded",
        DeliveryDropped = "delivery.dropped",
        DeliveryDroppedNoLocal = "delivery.dropped.no_local",
        DeliveryDroppedTooLarge = "delivery.dropped.too_large",
        DeliveryDroppedQos0Msg = "delivery.dropped.qos0_msg",
        DeliveryDroppedQueueFull = "delivery.dropped.queue_full",
        DeliveryDroppedExpired = "delivery.dropped.expired",
        ClientConnect = "client.connect",
        ClientConnack = "client.connack",
        ClientConnected = "client.connected",
        ClientAuthenticate = "client.authenticate",
        ClientAuthAnonymous = "client.auth.anonymous",
        ClientAuthorize = "client.authorize",
        ClientSubscribe = "client.subscribe",
        ClientUnsubscribe = "client.unsubscribe",
        ClientDisconnected = "client.disconnected",
        SessionCreated = "session.created",
        SessionResumed = "session.resumed",
        SessionTakenover = "session.takenover",
        SessionDiscarded = "session.discarded",
        SessionTerminated = "session.terminated",
        AuthorizationAllow = "authorization.allow",
        AuthorizationDeny = "authorization.deny",
        AuthorizationCacheHit = "authorization.cache_hit",
        AuthorizationCacheMiss = "authorization.cache_miss",
        AuthorizationSuperuser = "authorization.superuser",
        AuthorizationNomatch = "authorization.nomatch",
        AuthorizationMatchedAllow = "authorization.matched.allow",
        AuthorizationMatchedDeny = "authorization.matched.deny",
        AuthenticationSuccess = "authentication.success",
        AuthenticationSuccessAnonymous = "authentication.success.anonymous",
        AuthenticationFailure = "authentication.failure",
        OverloadProtectionDelayOk = "overload_protection.delay.ok",
        OverloadProtectionDelayTimeout = "overload_protection.delay.timeout",
        OverloadProtectionHibernation = "overload_protection.hibernation",
        OverloadProtectionGc = "overload_protection.gc",
        OverloadProtectionNewConn = "overload_protection.new_conn",
    }
}

names! {
    /// Figures that rise and fall. Shown as `<name>.count`, and `<name>.max` for the highest seen.
    Gauge {
        Connections = "connections",
        LiveConnections = "live_connections",
        Channels = "channels",
        Sessions = "sessions",
        ClusterSessions = "cluster_sessions",
        Topics = "topics",
        Suboptions = "suboptions",
        Subscribers = "subscribers",
        Subscriptions = "subscriptions",
        SubscriptionsShared = "subscriptions.shared",
        DurableSubscriptions = "durable_subscriptions",
        Retained = "retained",
        Delayed = "delayed",
    }
}

impl Metric {
    /// How many there are.
    pub const COUNT: usize = Self::ALL.len();

    /// `messages.qos<n>.received`.
    pub const fn received_at(qos: u8) -> Self {
        match qos {
            0 => Self::MessagesQos0Received,
            1 => Self::MessagesQos1Received,
            _ => Self::MessagesQos2Received,
        }
    }

    /// `messages.qos<n>.sent`.
    pub const fn sent_at(qos: u8) -> Self {
        match qos {
            0 => Self::MessagesQos0Sent,
            1 => Self::MessagesQos1Sent,
            _ => Self::MessagesQos2Sent,
        }
    }
}

impl Gauge {
    /// How many there are.
    pub const COUNT: usize = Self::ALL.len();
}

/// The counters of one shard. One thread writes, any reads.
#[derive(Debug)]
pub struct Metrics {
    values: [AtomicU64; Metric::COUNT],
}

impl Default for Metrics {
    fn default() -> Self {
        Self {
            values: [const { AtomicU64::new(0) }; Metric::COUNT],
        }
    }
}

impl Metrics {
    /// All zero.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds `n`. Only the owning shard may call this: it is not an atomic addition.
    #[inline]
    pub fn add(&self, metric: Metric, n: u64) {
        let value = &self.values[metric as usize];
        value.store(
            value.load(Ordering::Relaxed).wrapping_add(n),
            Ordering::Relaxed,
        );
    }

    /// Adds one; see [`Metrics::add`].
    #[inline]
    pub fn count(&self, metric: Metric) {
        self.add(metric, 1);
    }

    /// The present value.
    #[inline]
    pub fn get(&self, metric: Metric) -> u64 {
        self.values[metric as usize].load(Ordering::Relaxed)
    }
}

/// The counters of all shards together, in the order of [`Metric::ALL`].
pub fn sum(shards: &[Arc<Metrics>]) -> Vec<(Metric, u64)> {
    let total = |metric| shards.iter().map(|shard| shard.get(metric)).sum();
    Metric::ALL
        .iter()
        .map(|&metric| (metric, total(metric)))
        .collect()
}

/// The gauges of a node with their highest values.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Gauges {
    now: [u64; Gauge::COUNT],
    max: [u64; Gauge::COUNT],
}

impl Gauges {
    /// Takes a reading.
    pub fn set(&mut self, gauge: Gauge, value: u64) {
        self.now[gauge as usize] = value;
        let max = &mut self.max[gauge as usize];
        *max = value.max(*max);
    }

    /// The last reading.
    pub fn get(&self, gauge: Gauge) -> u64 {
        self.now[gauge as usize]
    }

    /// The highest reading.
    pub fn max(&self, gauge: Gauge) -> u64 {
        self.max[gauge as usize]
    }

    /// All as (gauge, last, highest).
    pub fn all(&self) -> impl Iterator<Item = (Gauge, u64, u64)> {
        Gauge::ALL
            .iter()
            .map(|&gauge| (gauge, self.get(gauge), self.max(gauge)))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn names_are_unique_and_found_again() {
        let names: BTreeSet<&str> = Metric::ALL.iter().map(|m| m.name()).collect();
        assert_eq!(names.len(), Metric::COUNT);
        assert_eq!(Metric::COUNT, 99, "GET /metrics of EMQX 5.8 has 99 names");
        for &metric in Metric::ALL {
            assert_eq!(Metric::from_name(metric.name()), Some(metric));
        }
        assert_eq!(Metric::from_name("messages.lost"), None);
        assert_eq!(Metric::received_at(1).name(), "messages.qos1.received");
        assert_eq!(Metric::sent_at(2).name(), "messages.qos2.sent");
    }

    #[test]
    fn sums_run_over_all_shards() {
        let shards = [Arc::new(Metrics::new()), Arc::new(Metrics::new())];
        shards[0].add(Metric::BytesSent, 5);
        shards[1].count(Metric::BytesSent);
        let sums = sum(&shards);
        assert_eq!(sums.len(), Metric::COUNT);
        assert!(sums.contains(&(Metric::BytesSent, 6)));
        assert!(sums.contains(&(Metric::BytesReceived, 0)));
    }

    #[test]
    fn a_gauge_remembers_its_highest_value() {
        let mut gauges = Gauges::default();
        gauges.set(Gauge::Sessions, 3);
        gauges.set(Gauge::Sessions, 1);
        assert_eq!(
            (gauges.get(Gauge::Sessions), gauges.max(Gauge::Sessions)),
            (1, 3)
        );
        assert_eq!(gauges.all().count(), Gauge::COUNT);
    }
}
