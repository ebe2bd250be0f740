//! What the core knows about each connection and about each other member.

use std::collections::{BTreeMap, VecDeque};

use bytes::{Bytes, BytesMut};

use crate::apart::{Apart, Heard, Side, Split};
use crate::clock::{Hlc, Now, Stamp};
use crate::failure::SwimId;
use crate::identity::{BootId, SiteId};
use crate::input::{ConnId, Effect};
use crate::link::frame::{self, FrameKind};
use crate::link::{Handshake, Hello, LinkError, Receiver, Sender};
use crate::name::NodeName;
use crate::skew::WallSkew;
use crate::table::merged::TableId;
use crate::table::owned::{OwnedIn, OwnedOut};
use crate::wire::Buckets;

/// Bytes on their way to a peer at which bulk (snapshots, table comparison, copies) waits for room,
/// so that calls and probes never queue behind more than this.
pub(crate) const BULK_BYTES: usize = 512 * 1_024;

/// What one frame of a link brought.
#[derive(Debug)]
pub(crate) enum Got {
    /// There is no whole frame.
    Nothing,
    /// Something for the link itself, or a repetition.
    Answer,
    /// A message.
    Payload(Bytes),
}

/// Both halves of a control link.
#[derive(Debug)]
pub(crate) struct Link {
    pub(crate) sender: Sender,
    pub(crate) receiver: Receiver,
}

impl Link {
    pub(crate) fn new(stream: u64) -> Self {
        Self {
            sender: Sender::new(stream),
            receiver: Receiver::new(),
        }
    }

    pub(crate) fn connected(&mut self) {
        self.sender.connected();
        self.receiver.connected();
    }

    /// Takes one frame off `buf`.
    pub(crate) fn receive(&mut self, buf: &mut BytesMut) -> Result<Got, LinkError> {
        let Some(frame) = frame::decode(buf)? else {
            return Ok(Got::Nothing);
        };
        match frame.kind {
            FrameKind::Attach | FrameKind::Ack => self.sender.frame(&frame).map(|()| Got::Answer),
            FrameKind::Open | FrameKind::Data => {
                let payload = self.receiver.frame(frame)?;
                Ok(payload.map_or(Got::Answer, |(_, payload)| Got::Payload(payload)))
            }
        }
    }

    /// Writes everything that can be written to `conn`; returns whether there was anything.
    pub(crate) fn flush(&mut self, conn: ConnId, out: &mut Vec<Effect>) -> bool {
        let mut bytes = Vec::new();
        self.receiver.take_output(&mut bytes);
        self.sender.take_output(&mut bytes);
        let any = !bytes.is_empty();
        out.extend(bytes.into_iter().map(|bytes| Effect::Send { conn, bytes }));
        any
    }

    /// Whether bulk may be sent.
    pub(crate) fn has_room(&self) -> bool {
        self.sender.unacked_bytes() < BULK_BYTES
    }
}

/// Why we dial.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Goal {
    /// To be linked to a member.
    Member(SiteId),
    /// To join the cluster of the node at the other end.
    Join,
    /// To learn what the node at the other end belongs to.
    Meet,
    /// To look at it, or to invite it.
    Errand,
}

/// How far a connection is.
#[derive(Debug)]
pub(crate) enum Stage {
    /// Being dialed.
    Dialing(Goal),
    /// In the handshake; accepted ones have no goal.
    Shaking(Box<Handshake>, Option<Goal>),
    /// Both are of one cluster and exchange greetings; with whom the other end holds apart.
    Greeting(Box<Hello>, Side),
    /// It carries the link to this member.
    Member(SiteId),
    /// The other end is of another cluster.
    Stranger(Box<Stranger>),
}

/// A connection between nodes of different clusters.
#[derive(Debug)]
pub(crate) struct Stranger {
    pub(crate) hello: Hello,
    pub(crate) link: Link,
    /// Where the copy of our cluster state for this joiner is, while it is being sent.
    pub(crate) serve: Option<Serve>,
    /// Whether it was welcomed: until it is gone we do not change our own cluster.
    pub(crate) welcomed: bool,
    /// Whether it invited us and waits to hear what comes of it.
    pub(crate) inviting: bool,
}

/// A position in the copy of the cluster state.
#[derive(Debug)]
pub(crate) struct Serve {
    pub(crate) tables: VecDeque<TableId>,
    pub(crate) after: Option<Bytes>,
}

/// One TCP connection.
#[derive(Debug)]
pub(crate) struct Conn {
    pub(crate) id: ConnId,
    pub(crate) stage: Stage,
    pub(crate) buf: BytesMut,
    pub(crate) since_ms: u64,
    pub(crate) heard_ms: u64,
    pub(crate) sent_ms: u64,
}

impl Conn {
    pub(crate) fn new(id: ConnId, stage: Stage, now_ms: u64) -> Self {
        let buf = BytesMut::new();
        Self {
            id,
            stage,
            buf,
            since_ms: now_ms,
            heard_ms: now_ms,
            sent_ms: now_ms,
        }
    }

    /// Whether we dialed it.
    pub(crate) fn is_dialed(&self) -> bool {
        self.id.0.is_multiple_of(2)
    }
}

/// Bulk work for one peer that compares a table.
#[derive(Debug)]
pub(crate) enum Job {
    /// Name all keys of these buckets with their stamps.
    Name {
        table: TableId,
        buckets: Buckets,
        after: Option<Bytes>,
    },
    /// Send the rows of a range that are newer than what the peer named.
    Push {
        table: TableId,
        buckets: Buckets,
        after: Option<Bytes>,
        until: Option<Bytes>,
        theirs: BTreeMap<Bytes, Stamp>,
    },
    /// Send the rows asked for.
    Give {
        table: TableId,
        keys: VecDeque<Bytes>,
    },
}

/// Another member of the cluster.
#[derive(Debug)]
pub(crate) struct Neighbour {
    pub(crate) name: NodeName,
    pub(crate) boot: Option<BootId>,
    /// When the latest connection began over which that process greeted; a connection that began
    /// earlier and shows another process is to one that is over.
    pub(crate) ran_ms: u64,
    pub(crate) link: Link,
    /// The connection the link is on.
    pub(crate) conn: Option<ConnId>,
    pub(crate) conn_since_ms: u64,
    /// The life it greeted with, until it takes our link, too: only then is it known to be ours.
    pub(crate) greeted: Option<SwimId>,
    /// When something came over the link last; at first never.
    pub(crate) heard: Heard,
    /// Since when there is none.
    pub(crate) unlinked_ms: u64,
    /// The connection being dialed.
    pub(crate) dialing: Option<ConnId>,
    pub(crate) retry_ms: u64,
    pub(crate) attempts: u32,
    /// Whether the driver was told it is up.
    pub(crate) up: bool,
    /// Whether the failure detector says it is alive.
    pub(crate) alive: bool,
    pub(crate) since_wall_ms: u64,
    /// The link was lost while it was up: if its port refuses now, the process is gone.
    pub(crate) reset: bool,
    pub(crate) owned_in: OwnedIn,
    pub(crate) owned_out: OwnedOut,
    pub(crate) jobs: VecDeque<Job>,
    /// It was declared down while its process ran on.
    pub(crate) split: Option<Split>,
    /// How its wall clock differs from ours.
    pub(crate) skew: WallSkew,
    /// Since when it is known to be a member, and which version of its membership; mono ms.
    pub(crate) member_ms: u64,
    pub(crate) version: u64,
    /// It has shown that it is of another cluster.
    pub(crate) elsewhere: bool,
    /// Tables that both may have written without the other's knowledge, and since when.
    pub(crate) diverged: BTreeMap<TableId, Hlc>,
    /// When its tables are compared again to see that they are equal, and the pause before that.
    pub(crate) recheck: Option<(u64, u64)>,
    /// Conflicts told one by one since then.
    pub(crate) conflicts_told: u32,
    /// It can be reached and is held apart.
    pub(crate) apart: Option<Apart>,
    /// Our wall clock when a table was last known to equal the peer's.
    pub(crate) synced: BTreeMap<TableId, u64>,
}

impl Neighbour {
    pub(crate) fn new(name: NodeName, stream: u64, now: Now) -> Self {
        Self {
            name,
            boot: None,
            ran_ms: 0,
            link: Link::new(stream),
            conn: None,
            conn_since_ms: now.mono_ms,
            greeted: None,
            heard: Heard::default(),
            unlinked_ms: now.mono_ms,
            dialing: None,
            retry_ms: now.mono_ms,
            attempts: 0,
            up: false,
            alive: false,
            since_wall_ms: now.wall_ms,
            reset: false,
            owned_in: OwnedIn::default(),
            owned_out: OwnedOut::new(),
            jobs: VecDeque::new(),
            diverged: BTreeMap::new(),
            recheck: None,
            conflicts_told: 0,
            split: None,
            skew: WallSkew::default(),
            member_ms: now.mono_ms,
            elsewhere: false,
            version: 0,
            apart: None,
            synced: BTreeMap::new(),
        }
    }
}
