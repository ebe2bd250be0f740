//! What an idle client costs.

use dunlin_mqtt::{QoS, Version};

use super::net::Net;
use crate::channel::Channel;
use crate::session::{Client, Session, Subscription};

/// Heap bytes of one idle connection with a session and one subscription, without the router's and
/// registry's part: the slab's place, the session, what it boxes, its identifier.
#[test]
fn an_idle_client_is_small() {
    let origin = 16 + size_of::<crate::message::Origin>() + "client-00001".len();
    let subscriptions = size_of::<Subscription>();
    let slot = 16;
    let total = size_of::<Channel>()
        + size_of::<Session>()
        + size_of::<Client>()
        + origin
        + subscriptions
        + slot;
    let parts = (
        size_of::<Channel>(),
        size_of::<Session>(),
        size_of::<Client>(),
        origin,
        subscriptions,
    );
    assert!(total <= 600, "{total} bytes: {parts:?}");
}

#[test]
fn an_idle_connection_holds_no_buffer() {
    let mut net = Net::new();
    let c = net.client(Version::V5, "c");
    net.subscribe(c, "t", QoS::AtMostOnce);
    let conn = net.clients[c.0].conn;
    let output = net.nodes[0].shards[0].output(conn).expect("open");
    assert!(output.wants_buffer());
}
