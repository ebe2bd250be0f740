//! The protocol state of one connection.
//!
//! A channel dies with its connection; what outlives it is the session. Everything rare is boxed
//! and made on first use: ten thousand idle channels are the common case.

pub(crate) mod acks;
pub(crate) mod alias;
pub(crate) mod connect;
mod disconnect;
mod keepalive;
pub(crate) mod publish;
pub(crate) mod qos2;
pub(crate) mod subscribe;

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::Bytes;
use dunlin_mqtt::Version;

use crate::effects::{Accepted, Output, Traffic};
use crate::message::Message;
use crate::router::SessionKey;
use crate::settings::Mqtt;
use acks::{AckKind, Acks};
use alias::{AliasIn, AliasOut};
use subscribe::Replay;

/// Where a connection stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    /// No CONNECT yet.
    New,
    /// CONNECT is in, its credentials are being checked elsewhere.
    Proving,
    /// It may connect, its session is on the way here.
    Held,
    /// CONNACK success is out.
    Open,
    /// The driver was told to close; only the output lives.
    Closing,
}

/// Why the socket is not read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Paused(u8);

impl Paused {
    /// CONNECT waits for its verdict or its session.
    pub(crate) const HELD: u8 = 1;
    /// A link to another node has no room.
    pub(crate) const WINDOW: u8 = 2;
    /// The client does not read its answers.
    pub(crate) const OUTPUT: u8 = 4;
    /// Too many acknowledgements wait.
    pub(crate) const ACKS: u8 = 8;

    /// Sets a reason; true if the socket was read until then.
    pub(crate) fn set(&mut self, reason: u8) -> bool {
        let was = self.0;
        self.0 |= reason;
        was == 0
    }

    /// Clears a reason; true if it was the last.
    pub(crate) fn clear(&mut self, reason: u8) -> bool {
        let was = self.0;
        self.0 &= !reason;
        was != 0 && self.0 == 0
    }

    pub(crate) fn any(self) -> bool {
        self.0 != 0
    }
}

/// A publish that was read and waits for room on a link.
#[derive(Debug)]
pub(crate) struct HeldPublish {
    pub(crate) message: Message,
    pub(crate) ack: Option<(AckKind, u16)>,
}

/// What few connections ever need.
#[derive(Debug, Default)]
pub(crate) struct Rare {
    pub(crate) aliases_in: AliasIn,
    pub(crate) aliases_out: Option<AliasOut>,
    /// Publishes that wait for room, in order.
    pub(crate) held: VecDeque<HeldPublish>,
    /// SUBACKs that wait until other nodes have the routes.
    pub(crate) subacks: Vec<(u64, Bytes)>,
    /// Retained messages still to be sent.
    pub(crate) replays: VecDeque<Replay>,
}

/// One connection.
#[derive(Debug)]
pub(crate) struct Channel {
    pub(crate) output: Output,
    pub(crate) phase: Phase,
    pub(crate) version: Version,
    pub(crate) paused: Paused,
    /// Already in `wake` since the driver last took the output.
    pub(crate) woken: bool,
    /// A deadline runs at which what is in flight is looked at.
    pub(crate) retry_armed: bool,
    pub(crate) superuser: bool,
    pub(crate) wants_response_information: bool,
    /// Raised when the place is used again, so that an old deadline does not hit a new connection.
    pub(crate) generation: u32,
    pub(crate) session: SessionKey,
    /// Largest packet the client takes; `u32::MAX` any.
    pub(crate) packet_bytes_max: u32,
    /// Unacknowledged QoS 1 and 2 the client may have sent us.
    pub(crate) receive_maximum: u16,
    /// Seconds in force, 0 never.
    pub(crate) keepalive_s: u16,
    /// Last packet, in ms since the shard's start.
    pub(crate) heard_ms: u64,
    pub(crate) mqtt: Arc<Mqtt>,
    /// Until CONNECT.
    pub(crate) accepted: Option<Box<Accepted>>,
    pub(crate) acks: Option<Box<Acks>>,
    pub(crate) rare: Option<Box<Rare>>,
    pub(crate) traffic: Traffic,
}

impl Channel {
    pub(crate) fn new(generation: u32, accepted: Accepted, mqtt: Arc<Mqtt>, now_ms: u64) -> Self {
        Self {
            output: Output::default(),
            phase: Phase::New,
            version: Version::V3_1_1,
            paused: Paused::default(),
            woken: false,
            retry_armed: false,
            superuser: false,
            wants_response_information: false,
            generation,
            session: SessionKey::default(),
            packet_bytes_max: u32::MAX,
            receive_maximum: u16::MAX,
            keepalive_s: 0,
            heard_ms: now_ms,
            mqtt,
            accepted: Some(Box::new(accepted)),
            acks: None,
            rare: None,
            traffic: Traffic::default(),
        }
    }

    /// Whether packets of an established session may be sent.
    pub(crate) fn is_open(&self) -> bool {
        self.phase == Phase::Open
    }

    pub(crate) fn rare(&mut self) -> &mut Rare {
        self.rare.get_or_insert_default()
    }

    /// Unacknowledged publishes of the client that wait here.
    pub(crate) fn acks_waiting(&self) -> usize {
        self.acks.as_ref().map_or(0, |acks| acks.len())
    }

    /// Retained messages still to be sent.
    pub(crate) fn has_replay(&self) -> bool {
        self.rare
            .as_ref()
            .is_some_and(|rare| !rare.replays.is_empty())
    }
}
