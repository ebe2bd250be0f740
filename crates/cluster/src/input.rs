//! What a driver tells the core and what the core wants done: plain values, no handles.

use bytes::Bytes;

use crate::clock::Stamp;
use crate::discovery::{Discover, Discovered};
use crate::error::{CallError, DialError, DownReason, OperationError};
use crate::identity::{BootId, Peer, SiteId};
use crate::link::Hello;
use crate::name::NodeName;
use crate::table::merged::TableId;

/// A TCP connection of the control plane; dialed ones are even (allocated by the core), accepted
/// ones odd (allocated by the driver).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ConnId(pub u64);

/// A snapshot of the own node state being read out by the driver.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SnapshotId(pub u64);

/// A call of a peer that waits for its [`Input::Reply`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct InCall {
    /// Who asked.
    pub from: SiteId,
    /// The caller's number of the call.
    pub number: u64,
}

/// Most rows the driver puts into one [`Input::SnapshotRows`].
pub const SNAPSHOT_CHUNK: usize = 1_000;

/// Longest payload of a call, reply or cast, bytes.
pub const PAYLOAD_BYTES_MAX: usize = 16 * 1_024 * 1_024;

/// What an operator asks of this node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Operation {
    /// Make this node a member of the cluster `target` belongs to.
    Join {
        /// Any member of that cluster.
        target: NodeName,
    },
    /// Make this node stand alone.
    Leave,
    /// Remove another member, running or not.
    ForceLeave {
        /// The member to remove.
        node: NodeName,
    },
    /// Merge the sides of a split although `cluster.autoheal` is false.
    Heal,
    /// Look at another node as far as a join would before it changes anything; what is found is
    /// told with [`Effect::Checked`].
    Look {
        /// The node.
        target: NodeName,
    },
    /// Have another node join this node's cluster.
    Invite {
        /// The node.
        node: NodeName,
        /// How long that may take, milliseconds.
        timeout_ms: u64,
    },
    /// Look for others again after a leave, and now; nothing if no strategy is configured.
    EnableDiscovery,
}

/// What a look at another node found so far.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Check {
    /// Its port accepts connections.
    Dialed,
    /// It knows the cookie, has the name asked for and speaks our protocol.
    Proven {
        /// What it says of itself.
        hello: Box<Hello>,
        /// Whether it is of our cluster.
        same_cluster: bool,
        /// Our `cluster.name`.
        own_cluster_name: String,
        /// Our wall clock when its hello arrived.
        own_wall_ms: u64,
    },
    /// It would take us as a member.
    Admitted,
}

/// Where a join is; names the step in progress reports and in [`OperationError::Aborted`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum JoinStep {
    /// Resolving, dialing and checking the target.
    Preflight,
    /// Leaving the old cluster.
    LeaveOld,
    /// Copying the target's cluster state into the staging area.
    Copy,
    /// Still copying: so many rows have arrived.
    Copied {
        /// Rows.
        rows: u64,
        /// How many come in a second, on the whole.
        per_s: u64,
    },
    /// Archiving the own old cluster state.
    Archive,
    /// Making the copy the cluster state, in one batch on disk.
    Swap,
    /// Connecting to the members.
    Connect,
}

impl std::fmt::Display for JoinStep {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Copied { rows, per_s } => {
                return write!(
                    f,
                    "copying the cluster state: {rows} rows, {per_s} a second"
                );
            }
            Self::Preflight => "preflight",
            Self::LeaveOld => "leaving the old cluster",
            Self::Copy => "copying the cluster state",
            Self::Archive => "archiving the old cluster state",
            Self::Swap => "switching to the new cluster state",
            Self::Connect => "connecting to the members",
        })
    }
}

/// What a driver tells the core.
#[derive(Clone, Debug)]
pub enum Input {
    /// Time has passed; nothing else happened.
    Tick,
    /// A peer connected to us.
    Accepted {
        /// The driver's (odd) id.
        conn: ConnId,
        /// Its address, for logs.
        from: String,
    },
    /// A dialed connection stands.
    Connected {
        /// The core's (even) id.
        conn: ConnId,
    },
    /// A dialed connection could not be made; the id is free again.
    DialFailed {
        /// The core's (even) id.
        conn: ConnId,
        /// Why.
        error: DialError,
    },
    /// Bytes arrived.
    Received {
        /// On which connection.
        conn: ConnId,
        /// What arrived.
        bytes: Bytes,
    },
    /// A connection ended, for whatever reason; the id is free again.
    Closed {
        /// Which one.
        conn: ConnId,
    },
    /// One row of our own node state changed.
    Own {
        /// Its table.
        table: u8,
        /// Its key.
        key: Bytes,
        /// Its value, or `None` when it is gone.
        value: Option<Bytes>,
    },
    /// The answer to [`Effect::SnapshotWanted`].
    SnapshotRows {
        /// Which snapshot.
        want: SnapshotId,
        /// Rows after the cursor, in (table, key) order, at most [`SNAPSHOT_CHUNK`].
        rows: Vec<(u8, Bytes, Bytes)>,
        /// Whether these were the last.
        done: bool,
    },
    /// Write a cluster-state row.
    Put {
        /// Its table.
        table: TableId,
        /// Its key.
        key: Bytes,
        /// Its value; `None` deletes.
        value: Option<Bytes>,
    },
    /// Another thread has put a row into the shared table already: persist and replicate it.
    Wrote {
        /// Its table.
        table: TableId,
        /// Its key.
        key: Bytes,
        /// The stamp it was put with.
        stamp: Stamp,
    },
    /// Ask a member something.
    Call {
        /// The driver's number, returned in [`Effect::CallDone`].
        id: u64,
        /// Whom.
        to: SiteId,
        /// What.
        payload: Bytes,
        /// How long to wait, milliseconds.
        timeout_ms: u64,
    },
    /// Answer a member's call.
    Reply {
        /// Which one.
        call: InCall,
        /// The answer.
        payload: Bytes,
    },
    /// Tell a member something; lost if it is down.
    Cast {
        /// Whom.
        to: SiteId,
        /// What.
        payload: Bytes,
    },
    /// Carry out an operator's request.
    Operation {
        /// The driver's number, returned in [`Effect::Done`].
        id: u64,
        /// The request.
        op: Operation,
    },
    /// What came of an [`Effect::Discover`].
    Discovered(Discovered),
    /// The writes of [`Effect::Persist`] are durable.
    Persisted {
        /// Which ones.
        token: u64,
    },
    /// The writes of [`Effect::Persist`] failed; none of them is durable.
    PersistFailed {
        /// Which ones.
        token: u64,
        /// What storage said.
        error: String,
    },
    /// [`Effect::Archive`] is done.
    Archived {
        /// Which one.
        token: u64,
        /// Where the archive is, or what went wrong.
        result: Result<String, String>,
    },
}

/// One write to the driver's durable tables, named by [`crate::TableSpec::name`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Write {
    /// Insert or replace a row.
    Put {
        /// The table.
        table: String,
        /// The key.
        key: Bytes,
        /// The stored value (for merged tables: [`crate::Row::encode`]).
        value: Bytes,
    },
    /// Remove a row.
    Delete {
        /// The table.
        table: String,
        /// The key.
        key: Bytes,
    },
    /// Remove all rows of a table.
    Clear {
        /// The table.
        table: String,
    },
    /// Make `from` replace `to`; `from` is empty afterwards. Neither need exist.
    Rename {
        /// The table that is moved.
        from: String,
        /// The table that is replaced.
        to: String,
    },
}

/// What the core wants done; to be carried out in order.
#[derive(Clone, Debug)]
pub enum Effect {
    /// Open a connection; answer with `Connected` or `DialFailed`. A `Close` may come first.
    Dial {
        /// The new connection's id.
        conn: ConnId,
        /// A host name or an address.
        host: String,
        /// The port.
        port: u16,
    },
    /// Write bytes.
    Send {
        /// On which connection.
        conn: ConnId,
        /// What.
        bytes: Bytes,
    },
    /// Close a connection (or give up dialing) after what was sent; no `Closed` is needed.
    Close {
        /// Which one.
        conn: ConnId,
    },
    /// A data link was accepted and proven: it belongs to shard `index % shards` from here on.
    HandOff {
        /// Which connection; the core has forgotten it.
        conn: ConnId,
        /// Who is at the other end and which link it is.
        hello: Hello,
        /// Bytes that followed the handshake.
        unread: Bytes,
    },
    /// Make all writes durable as one batch, all or nothing, in the order of these effects; answer
    /// with `Persisted`.
    Persist {
        /// To be returned.
        token: u64,
        /// The batch.
        writes: Vec<Write>,
    },
    /// Write all current cluster-state tables to `data/backup`; answer with `Archived`.
    Archive {
        /// To be returned.
        token: u64,
    },
    /// Find out who else there is; tell with `Discovered`.
    Discover(Discover),
    /// A member is reachable; also on first contact after a start and with every new boot.
    Up {
        /// The member.
        peer: Peer,
    },
    /// A member is no longer reachable; it stays a member.
    Down {
        /// The member.
        site: SiteId,
        /// Why.
        reason: DownReason,
    },
    /// A site is not a member any more; forget its node state.
    Gone {
        /// The site.
        site: SiteId,
        /// Whether it said so itself, or has shown that it is of another cluster: it ran then, also
        /// if nobody here could hear it.
        left: bool,
    },
    /// Somebody else has removed a site from the cluster: another member, or this node itself.
    Removed {
        /// The site.
        site: SiteId,
        /// Its name.
        name: NodeName,
        /// Who did, if that is still a member.
        by: Option<NodeName>,
    },
    /// A full snapshot of a member's node state begins.
    OwnedBegin {
        /// The member.
        site: SiteId,
        /// Which of its lives; rows of another one are a dead process's.
        boot: BootId,
    },
    /// One row of a member's node state.
    OwnedRow {
        /// The member.
        site: SiteId,
        /// The row's table.
        table: u8,
        /// Its key.
        key: Bytes,
        /// Its value, or `None` when it is gone.
        value: Option<Bytes>,
    },
    /// The snapshot is complete; rows it did not repeat are gone.
    OwnedEnd {
        /// The member.
        site: SiteId,
    },
    /// Give our own rows after the cursor.
    SnapshotWanted {
        /// To be returned with the rows.
        want: SnapshotId,
        /// The last row given, `None` at the start.
        cursor: Option<(u8, Bytes)>,
    },
    /// Every live member has our node state up to this number.
    Settled {
        /// Compare with [`crate::Cluster::own_number`].
        number: u64,
    },
    /// A cluster-state row was changed by another node; the shared table has it.
    Merged {
        /// Its table.
        table: TableId,
        /// Its key.
        key: Bytes,
    },
    /// All cluster-state tables were replaced (join, leave): read them again.
    Reset,
    /// A member asks; answer with `Reply`.
    CallIn {
        /// To be returned.
        call: InCall,
        /// Who asks.
        from: SiteId,
        /// What.
        payload: Bytes,
    },
    /// A call of ours ended.
    CallDone {
        /// The driver's number.
        id: u64,
        /// The answer.
        result: Result<Bytes, CallError>,
    },
    /// A member tells us something.
    CastIn {
        /// Who.
        from: SiteId,
        /// What.
        payload: Bytes,
    },
    /// An operation got to a step.
    Progress {
        /// The driver's number.
        id: u64,
        /// The step that begins.
        step: JoinStep,
    },
    /// A look at another node got a step further.
    Checked {
        /// The driver's number.
        id: u64,
        /// What was found.
        check: Check,
    },
    /// An operation ended.
    Done {
        /// The driver's number.
        id: u64,
        /// How.
        result: Result<(), OperationError>,
    },
}
