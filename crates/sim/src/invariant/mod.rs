//! What must hold, one file per property, each with the promise it checks.
//!
//! Some hold after every event, some are looked at now and then because looking is dear, some hold
//! once the faults are over and the cluster has had time, some can only be told at the end.

mod apart;
mod bounds;
mod channels;
mod discovery;
mod durable;
mod groups;
pub mod join;
mod links;
mod loss;
mod membership;
mod order;
mod protocol;
mod qos2;
mod retained;
mod routes;
pub mod wills;

use crate::violation::Violation;
use crate::world::World;

/// Looks at a world.
pub type Check = fn(&World) -> Result<(), Violation>;

/// One property.
#[derive(Debug)]
pub struct Invariant {
    /// Its name.
    pub name: &'static str,
    /// What users were told.
    pub promise: &'static str,
    /// After every event.
    pub step: Option<Check>,
    /// Every [`AUDIT_EVENTS`] events.
    pub audit: Option<Check>,
    /// When faults are over: has to hold within bounded time.
    pub settled: Option<Check>,
    /// When everything is over.
    pub end: Option<Check>,
}

/// How often the dear checks run, events.
pub const AUDIT_EVENTS: u64 = 128;

const NONE: Invariant = Invariant {
    name: "",
    promise: "",
    step: None,
    audit: None,
    settled: None,
    end: None,
};

/// All properties.
pub const ALL: [Invariant; 16] = [
    Invariant {
        name: "protocol",
        promise: "what a node sends to a client is valid MQTT of the client's version",
        step: Some(protocol::step),
        ..NONE
    },
    Invariant {
        name: "qos2",
        promise: "a QoS 2 message reaches a subscription once at most",
        step: Some(qos2::step),
        ..NONE
    },
    Invariant {
        name: "order",
        promise: "messages of one publisher to one topic arrive in the order they were sent",
        step: Some(order::step),
        ..NONE
    },
    Invariant {
        name: "groups",
        promise: "a message reaches one member of a shared group",
        step: Some(groups::step),
        ..NONE
    },
    Invariant {
        name: "bounds",
        promise: "queues, windows and work have bounds",
        step: Some(bounds::step),
        audit: Some(bounds::audit),
        ..NONE
    },
    Invariant {
        name: "links",
        promise: "a node writes to no connection to another node before it stands",
        step: Some(links::step),
        ..NONE
    },
    Invariant {
        name: "routes",
        promise: "no route to a node that is no member; in the end all nodes know all routes",
        audit: Some(routes::audit),
        settled: Some(routes::settled),
        ..NONE
    },
    Invariant {
        name: "membership",
        promise: "all members agree on who is a member and running; nobody is removed by itself",
        settled: Some(membership::settled),
        ..NONE
    },
    Invariant {
        name: "discovery",
        promise: "nodes that look for each other form one cluster, whatever they are told",
        settled: Some(discovery::settled),
        ..NONE
    },
    Invariant {
        name: "channels",
        promise: "a client identifier has one connection in a cluster: the newest",
        settled: Some(channels::settled),
        ..NONE
    },
    Invariant {
        name: "retained",
        promise: "all members hold the same retained messages, the last acknowledged ones",
        settled: Some(retained::settled),
        end: Some(retained::end),
        ..NONE
    },
    Invariant {
        name: "join",
        promise: "a node always has its old or its new cluster state, never neither",
        audit: Some(join::audit),
        ..NONE
    },
    Invariant {
        name: "loss",
        promise: "an acknowledged message reaches every session it was promised to",
        end: Some(loss::end),
        ..NONE
    },
    Invariant {
        name: "durable",
        promise: "a retained message that was acknowledged is on the disk",
        step: Some(durable::step),
        ..NONE
    },
    Invariant {
        name: "apart",
        promise: "without autoheal the sides of a split stay apart until an operator merges them",
        audit: Some(apart::audit),
        ..NONE
    },
    Invariant {
        name: "wills",
        promise: "the will of a client that is gone arrives once, after its delay, and no other",
        step: Some(wills::step),
        end: Some(wills::end),
        ..NONE
    },
];
