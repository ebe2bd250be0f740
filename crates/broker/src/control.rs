//! The part of a node that concerns all of its shards: membership, what other nodes have, what is
//! replicated, what operators ask.
//!
//! It wraps the cluster core, which knows no MQTT, and translates between its opaque rows and the
//! router, the registry and the retained messages. It must never touch a client's channel: that is
//! the shard's, reached by letters.

mod calls;
mod fences;
mod info;
mod node_state;
mod restore;
mod watch;
mod wills;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use bytes::Bytes;
use dunlin_cluster::{
    CallError, Check, Cluster, ConnId, Cookie, DialError, Discover, Discovered, Effect, Hello,
    Input, JoinStep, Merged, NodeName, Now, Operation, OperationError, SiteId, Status, TableId,
    TableSpec, Wins, Write,
};
use dunlin_storage as storage;

#[cfg(test)]
pub(crate) use calls::fixture::{is_notice, notice_bytes, takeover_bytes, takeover_of};
pub use info::NodeInfo;
#[cfg(test)]
pub(crate) use info::{info_bytes, is_info};
pub use restore::{ControlConfig, ControlError};

use crate::alarm::AlarmChange;
use crate::effects::{Answer, ClientEvent, ShardId, ToControl, ToShard};
use crate::peer_link::Peering;
use crate::settings::Settings;
use crate::shared::Shared;
use fences::Fences;
use node_state::Snapshot;

/// Retained messages; key: topic.
pub const RETAINED: TableId = TableId(16);
/// Dashboard users; key: user name.
pub const USERS: TableId = TableId(17);
/// API keys; key: the key's name.
pub const API_KEYS: TableId = TableId(18);
/// Users of the built-in databases of MQTT authentication; key: chain, 0, user id.
pub const MQTT_USERS: TableId = TableId(19);
/// Bans; key: [`crate::banned::Subject::key`].
pub const BANNED: TableId = TableId(20);
/// Changes of the configuration at run time; key: dotted path, value: JSON.
pub const CONFIGURATION: TableId = TableId(21);

/// The cluster-state tables of the broker: what is replicated and how much of it.
///
/// Retained messages are dropped by `leave` (they belong to the cluster), credentials are kept (an
/// operator who leaves must not find the default password again), and so are bans and changes of
/// the configuration. What protects wins over a concurrent edit: a deleted credential stays
/// deleted, a ban holds.
pub const TABLES: [TableSpec; 6] = [
    TableSpec {
        id: RETAINED,
        name: "retained",
        rows_max: 50_000_000,
        value_bytes_max: 256 * 1024 * 1024,
        keep_on_leave: false,
        wins: Wins::Later,
    },
    TableSpec {
        id: USERS,
        name: "users",
        rows_max: 10_000,
        value_bytes_max: 64 * 1024,
        keep_on_leave: true,
        wins: Wins::Delete,
    },
    TableSpec {
        id: API_KEYS,
        name: "api_keys",
        rows_max: 10_000,
        value_bytes_max: 64 * 1024,
        keep_on_leave: true,
        wins: Wins::Delete,
    },
    TableSpec {
        id: BANNED,
        name: "banned",
        rows_max: 1_000_000,
        value_bytes_max: 8 * 1024,
        keep_on_leave: true,
        wins: Wins::Put,
    },
    TableSpec {
        id: MQTT_USERS,
        name: "mqtt_users",
        rows_max: 1_000_000,
        value_bytes_max: 256 * 1024,
        keep_on_leave: true,
        wins: Wins::Delete,
    },
    TableSpec {
        id: CONFIGURATION,
        name: "configuration",
        rows_max: 10_000,
        value_bytes_max: 64 * 1024,
        keep_on_leave: true,
        wins: Wins::Later,
    },
];

/// How often bans that are over are looked for, milliseconds, and how many are deleted then.
const LIFT_PERIOD_MS: u64 = 60_000;
const LIFTED_MAX: usize = 1_000;

/// What the driver tells control.
#[derive(Debug)]
pub enum ControlInput {
    /// Time has passed.
    Tick,
    /// A peer connected to the inter-node port; the driver's ids are odd.
    Accepted {
        /// The connection.
        conn: ConnId,
        /// The peer's address, for logs.
        from: String,
    },
    /// A dialed connection stands.
    Connected {
        /// The connection.
        conn: ConnId,
    },
    /// A dialed connection could not be made.
    DialFailed {
        /// The connection.
        conn: ConnId,
        /// Why.
        error: DialError,
    },
    /// Bytes from a peer.
    Received {
        /// The connection.
        conn: ConnId,
        /// The bytes.
        bytes: Bytes,
    },
    /// A peer's connection ended.
    Closed {
        /// The connection.
        conn: ConnId,
    },
    /// A batch is durable, or failed.
    Persisted {
        /// From [`ControlEffects::persist`].
        token: u64,
        /// What storage said when it failed.
        result: Result<(), String>,
    },
    /// An archive is written, or failed.
    Archived {
        /// From [`ControlEffects::archive`].
        token: u64,
        /// Its path, or what went wrong.
        result: Result<String, String>,
    },
    /// What came of [`ControlEffects::discover`].
    Discovered(Discovered),
    /// A letter from a shard.
    Shard(ToControl),
    /// An operator's request; answered in [`ControlEffects::done`].
    Operation {
        /// The driver's number.
        id: u64,
        /// The request.
        op: Operation,
    },
    /// Write a cluster-state row of the broker (users, API keys, bans).
    Put {
        /// The table.
        table: TableId,
        /// The key.
        key: Bytes,
        /// The value; `None` deletes.
        value: Option<Bytes>,
        /// Answered in [`ControlEffects::durable`] once it survives a crash.
        done: Option<u64>,
    },
    /// Kick a client wherever it is connected.
    Kick {
        /// The client.
        clientid: String,
    },
    /// Ask another member something on behalf of an operator; answered in
    /// [`ControlEffects::called`].
    Call {
        /// The driver's number.
        id: u64,
        /// Whom.
        node: NodeName,
        /// What; the driver of that node understands it.
        payload: Bytes,
        /// How long to wait, milliseconds.
        timeout_ms: u64,
    },
    /// The answer to a question in [`ControlEffects::asked`]; empty when there is none.
    Answer {
        /// Its number.
        call: u64,
        /// The answer.
        payload: Bytes,
    },
    /// This node's load figures, to be shown on every node.
    Info(NodeInfo),
    /// Other settings are in force from now on.
    Settings(Box<Settings>),
}

/// What control wants done. The driver drains every field after each call and keeps the buffers.
#[derive(Debug, Default)]
pub struct ControlEffects {
    /// Connections to peers, in order: dial, send, close, hand over.
    pub links: Vec<LinkEffect>,
    /// Batches to make durable, in order.
    pub persist: Vec<(u64, storage::Batch)>,
    /// Archives of all cluster-state tables to write, after the batches before it.
    pub archive: Vec<u64>,
    /// What is to be done to find other nodes, in order.
    pub discover: Vec<Discover>,
    /// Letters to shards.
    pub to_shard: Vec<(ShardId, ToShard)>,
    /// Operations that ended.
    pub done: Vec<(u64, Result<(), OperationError>)>,
    /// What a look at another node found.
    pub checked: Vec<(u64, Check)>,
    /// Operations that got to a step.
    pub progress: Vec<(u64, JoinStep)>,
    /// Writes of [`ControlInput::Put`] that are durable, or refused.
    pub durable: Vec<(u64, Result<(), String>)>,
    /// Shards' answers to the driver's questions.
    pub answers: Vec<(ShardId, u64, Answer)>,
    /// Clients that came and went.
    pub clients: Vec<ClientEvent>,
    /// Shards whose clients are all gone after a drain.
    pub drained: Vec<ShardId>,
    /// Answers of other nodes to [`ControlInput::Call`].
    pub called: Vec<(u64, Result<Bytes, CallError>)>,
    /// Questions of other nodes for the driver; each is owed a [`ControlInput::Answer`].
    pub asked: Vec<(u64, Bytes)>,
    /// Faults found, and faults that are over; may repeat.
    pub alarms: Vec<AlarmChange>,
    /// Rows of [`CONFIGURATION`] changed: what they mean together with this node's own files is
    /// the driver's to say, by [`ControlInput::Settings`].
    pub configured: bool,
}

/// What is to be done with a connection to a peer.
#[derive(Debug)]
pub enum LinkEffect {
    /// Open it; answer with `Connected` or `DialFailed`.
    Dial(ConnId, String, u16),
    /// Write bytes.
    Send(ConnId, Bytes),
    /// Close it after what was sent.
    Close(ConnId),
    /// It is a data link of shard `index % shards`; with the bytes that followed the handshake.
    HandOff(ConnId, Hello, Bytes),
}

impl ControlEffects {
    /// Whether nothing is wanted.
    pub fn is_empty(&self) -> bool {
        self.links.is_empty()
            && self.persist.is_empty()
            && self.archive.is_empty()
            && self.discover.is_empty()
            && self.to_shard.is_empty()
            && self.done.is_empty()
            && self.progress.is_empty()
            && self.checked.is_empty()
            && self.durable.is_empty()
            && self.answers.is_empty()
            && self.clients.is_empty()
            && self.drained.is_empty()
            && self.alarms.is_empty()
            && self.called.is_empty()
            && self.asked.is_empty()
            && !self.configured
    }
}

/// Who waits for a batch to become durable.
#[derive(Debug)]
enum Waiting {
    Shard(ShardId, u64),
    Driver(u64),
}

/// Things of later releases that are remembered, so that each is said once.
const LATER_MAX: usize = 1_024;

/// A shard's SUBACK waits until every live member has our node state up to `number`.
#[derive(Debug)]
struct Settling {
    number: u64,
    shard: ShardId,
    token: u64,
}

/// The node-wide half of a broker node.
pub struct Control {
    shared: Arc<Shared>,
    cluster: Cluster,
    cookie: Cookie,
    /// What the core wants, as it hands it over.
    wanted: Vec<Effect>,
    /// What the core wants and is not yet carried out, oldest first.
    effects: VecDeque<Effect>,
    carrying: bool,
    /// In rising order of number.
    settling: VecDeque<Settling>,
    settled: u64,
    waiting: BTreeMap<u64, Vec<Waiting>>,
    /// Takeovers on their way to another node: call id to the asking shard and its token.
    takeovers: BTreeMap<u64, (ShardId, u64)>,
    /// Questions of the driver on their way to another node: call id to the driver's number.
    questions: BTreeMap<u64, u64>,
    /// Calls of other nodes that a shard or the driver is working on.
    in_calls: BTreeMap<u64, calls::Working>,
    fences: Fences,
    next_call: u64,
    snapshots: BTreeMap<SiteId, Snapshot>,
    infos: BTreeMap<SiteId, NodeInfo>,
    wills: wills::PeerWills,
    /// What members have and this release has not, as far as it was said.
    later: BTreeSet<(SiteId, &'static str, u32)>,
    own_info: NodeInfo,
    next_lift_ms: u64,
    watch: watch::Watch,
}

impl Control {
    /// Handles one input; what is wanted is appended to `fx`.
    pub fn handle(&mut self, now: Now, input: ControlInput, fx: &mut ControlEffects) {
        match input {
            ControlInput::Tick => {
                self.lift_bans(now, fx);
                self.watch_cluster(now, fx);
                self.cluster(now, Input::Tick, fx);
                self.publish_wills(now, fx);
            }
            ControlInput::Accepted { conn, from } => {
                self.cluster(now, Input::Accepted { conn, from }, fx);
            }
            ControlInput::Connected { conn } => self.cluster(now, Input::Connected { conn }, fx),
            ControlInput::DialFailed { conn, error } => {
                self.cluster(now, Input::DialFailed { conn, error }, fx);
            }
            ControlInput::Received { conn, bytes } => {
                self.cluster(now, Input::Received { conn, bytes }, fx);
            }
            ControlInput::Closed { conn } => self.cluster(now, Input::Closed { conn }, fx),
            ControlInput::Persisted { token, result } => self.persisted(now, token, result, fx),
            ControlInput::Archived { token, result } => {
                self.cluster(now, Input::Archived { token, result }, fx);
            }
            ControlInput::Discovered(discovered) => {
                self.cluster(now, Input::Discovered(discovered), fx);
            }
            ControlInput::Shard(letter) => self.letter(now, letter, fx),
            ControlInput::Operation { id, op } => {
                self.cluster(now, Input::Operation { id, op }, fx);
            }
            ControlInput::Put {
                table,
                key,
                value,
                done,
            } => {
                let banned = (table == BANNED).then(|| key.clone());
                let input = Input::Put { table, key, value };
                self.write(now, input, done.map(Waiting::Driver), fx);
                if let Some(key) = banned {
                    self.shared.banned().changed(&key);
                }
                fx.configured |= table == CONFIGURATION;
            }
            ControlInput::Kick { clientid } => self.kick(now, &clientid, fx),
            ControlInput::Call {
                id,
                node,
                payload,
                timeout_ms,
            } => self.ask_node(now, id, (&node, payload, timeout_ms), fx),
            ControlInput::Answer { call, payload } => self.answer_node(now, call, payload, fx),
            ControlInput::Info(info) => self.publish_info(now, info, fx),
            ControlInput::Settings(settings) => {
                self.shared.set_settings(*settings);
                self.all_shards(fx, || ToShard::SettingsChanged);
            }
        }
    }

    /// When `Tick` is wanted, monotonic milliseconds.
    pub fn next_tick(&self) -> u64 {
        self.cluster.next_tick().min(self.wills.next_tick())
    }

    /// Deletes bans that are over: one node for all, so that the others need not.
    fn lift_bans(&mut self, now: Now, fx: &mut ControlEffects) {
        if now.mono_ms < self.next_lift_ms {
            return;
        }
        self.next_lift_ms = now.mono_ms + LIFT_PERIOD_MS;
        if !self.cluster.is_speaker() {
            return;
        }
        for key in self.shared.banned().expired(now, LIFTED_MAX) {
            let input = Input::Put {
                table: BANNED,
                key: key.clone(),
                value: None,
            };
            self.write(now, input, None, fx);
            self.shared.banned().changed(&key);
        }
    }

    /// Whether this node has looked for others long enough to serve.
    pub fn is_ready(&self) -> bool {
        self.cluster.is_ready()
    }

    /// Members and who of them is running.
    pub fn status(&self) -> Status {
        self.cluster.status()
    }

    /// The name of this node.
    pub fn name(&self) -> NodeName {
        self.cluster.status().own
    }

    /// A cluster-state table.
    pub fn table(&self, id: TableId) -> Arc<Merged> {
        self.cluster.table(id)
    }

    /// What the shards of this node share.
    pub fn shared(&self) -> &Arc<Shared> {
        &self.shared
    }

    /// What the shards of this node prove themselves with to other nodes.
    pub fn peering(&self) -> Peering {
        Peering {
            identity: self.cluster.identity(),
            cookie: self.cookie.clone(),
        }
    }

    /// The cluster core, for reading.
    pub fn core(&self) -> &Cluster {
        &self.cluster
    }

    fn letter(&mut self, now: Now, letter: ToControl, fx: &mut ControlEffects) {
        match letter {
            ToControl::RouteChanged { filter } => self.route_changed(now, filter, fx),
            ToControl::GroupChanged { group, filter } => {
                self.group_changed(now, &group, &filter, fx);
            }
            ToControl::ClientChanged { clientid } => self.client_changed(now, &clientid, fx),
            ToControl::WillChanged { clientid } => self.will_changed(now, &clientid, fx),
            ToControl::Receipts {
                site,
                boot,
                shard,
                numbers,
            } => self.send_receipts(now, site, (boot, shard), &numbers, fx),
            ToControl::Settle { shard, token } => self.settle(shard, token, fx),
            ToControl::FenceLinks {
                shard,
                token,
                towards,
            } => self.fence_links(now, (shard, token), towards, fx),
            ToControl::LinkFenced { number } => self.link_fenced(now, number, fx),
            ToControl::Retained { key, stamp, wait } => {
                let waiting = wait.map(|(shard, token)| Waiting::Shard(shard, token));
                self.write(
                    now,
                    Input::Wrote {
                        table: RETAINED,
                        key,
                        stamp,
                    },
                    waiting,
                    fx,
                );
            }
            ToControl::Takeover {
                shard,
                token,
                node,
                request,
            } => {
                self.takeover(now, (shard, token), node, &request, fx);
            }
            ToControl::TakeoverReply { call, result } => {
                self.takeover_reply(now, call, &result, fx);
            }
            ToControl::Offer { node, offer } => self.offer(now, node, offer, fx),
            ToControl::Answered { shard, ask, answer } => fx.answers.push((shard, ask, answer)),
            ToControl::Client(event) => fx.clients.push(*event),
            ToControl::Drained { shard } => fx.drained.push(shard),
            ToControl::PeerUnreachable {
                node: _,
                name,
                failures,
            } => {
                tracing::warn!(node = %name, failures, "peer_data_link_unreachable");
            }
        }
    }

    /// A shard asks to be told when every live member has all that was reported before.
    fn settle(&mut self, shard: ShardId, token: u64, fx: &mut ControlEffects) {
        let number = self.cluster.own_number();
        if number <= self.settled || self.shared.live_peers() == 0 {
            fx.to_shard.push((shard, ToShard::Settled { token }));
        } else {
            self.settling.push_back(Settling {
                number,
                shard,
                token,
            });
        }
    }

    fn settled(&mut self, number: u64, fx: &mut ControlEffects) {
        self.settled = number;
        while self
            .settling
            .front()
            .is_some_and(|waiting| waiting.number <= number)
        {
            let Some(Settling { shard, token, .. }) = self.settling.pop_front() else {
                break;
            };
            fx.to_shard.push((shard, ToShard::Settled { token }));
        }
    }

    /// A write of a cluster-state row, and who is told when it is durable.
    ///
    /// The core answers each write with its batch at once, also while it leaves or joins, so the
    /// batch that appears is this one's.
    fn write(&mut self, now: Now, input: Input, waiting: Option<Waiting>, fx: &mut ControlEffects) {
        let before = fx.persist.len();
        self.cluster(now, input, fx);
        let Some(waiting) = waiting else { return };
        match fx.persist.get(before) {
            Some((token, _)) => self.waiting.entry(*token).or_default().push(waiting),
            // A later write has already won, or the row was refused: nothing is owed to the disk.
            None => release(&waiting, &Ok(()), fx),
        }
    }

    fn persisted(
        &mut self,
        now: Now,
        token: u64,
        result: Result<(), String>,
        fx: &mut ControlEffects,
    ) {
        for waiting in self.waiting.remove(&token).unwrap_or_default() {
            release(&waiting, &result, fx);
        }
        let input = match result {
            Ok(()) => Input::Persisted { token },
            Err(error) => Input::PersistFailed { token, error },
        };
        self.cluster(now, input, fx);
    }

    /// Gives the cluster core one input and carries out what it wants, strictly in order: an effect
    /// that leads to another input (a snapshot to be read) has its consequences queued behind what
    /// was wanted before, or frames would overtake each other.
    fn cluster(&mut self, now: Now, input: Input, fx: &mut ControlEffects) {
        self.cluster.handle(now, input, &mut self.wanted);
        self.effects.extend(self.wanted.drain(..));
        if self.carrying {
            return;
        }
        self.carrying = true;
        while let Some(effect) = self.effects.pop_front() {
            self.effect(now, effect, fx);
        }
        self.carrying = false;
    }

    fn effect(&mut self, now: Now, effect: Effect, fx: &mut ControlEffects) {
        match effect {
            Effect::Dial { conn, host, port } => fx.links.push(LinkEffect::Dial(conn, host, port)),
            Effect::Send { conn, bytes } => fx.links.push(LinkEffect::Send(conn, bytes)),
            Effect::Close { conn } => fx.links.push(LinkEffect::Close(conn)),
            Effect::HandOff {
                conn,
                hello,
                unread,
            } => {
                fx.links.push(LinkEffect::HandOff(conn, hello, unread));
            }
            Effect::Persist { token, writes } => fx.persist.push((token, batch(writes))),
            Effect::Archive { token } => fx.archive.push(token),
            Effect::Discover(discover) => fx.discover.push(discover),
            Effect::Up { peer } => {
                self.watch.up(peer.site);
                Self::tell_back(&peer, fx);
                self.peer_up(now, &peer, fx);
            }
            Effect::Down { site, reason } => {
                self.watch.down(site, reason);
                self.peer_down(now, site, reason, fx);
            }
            Effect::Gone { site, left } => {
                self.watch.gone(site);
                if left {
                    self.wills_left(now, site, fx);
                }
                self.peer_gone(site, fx);
            }
            Effect::Removed { site, name, by } => self.tell_removed(site, &name, by.as_ref(), fx),
            Effect::OwnedBegin { site, boot } => self.snapshot_begins(now, site, boot),
            Effect::OwnedRow {
                site,
                table,
                key,
                value,
            } => {
                self.peer_row(site, table, (key, value.as_deref()), fx);
            }
            Effect::OwnedEnd { site } => self.snapshot_ends(now, site),
            Effect::SnapshotWanted { want, cursor } => self.snapshot(now, want, cursor, fx),
            Effect::Settled { number } => self.settled(number, fx),
            // Shards read the shared tables; only what is compiled of them has to be told.
            Effect::Merged { table, key } => {
                if table == BANNED {
                    self.shared.banned().changed(&key);
                }
                fx.configured |= table == CONFIGURATION;
            }
            Effect::Reset => {
                self.wills.reset();
                self.shared.banned().compile();
                fx.configured = true;
            }
            Effect::CallIn {
                call,
                from,
                payload,
            } => self.call_in(now, call, from, &payload, fx),
            Effect::CallDone { id, result } => self.call_done(now, id, result, fx),
            Effect::CastIn { from, payload } => self.cast_in(from, &payload, fx),
            Effect::Checked { id, check } => fx.checked.push((id, check)),
            Effect::Progress { id, step } => fx.progress.push((id, step)),
            Effect::Done { id, result } => fx.done.push((id, result)),
        }
    }

    /// A member has something that this release has not, or something unreadable: it is passed
    /// over, and said once.
    fn note_later(&mut self, site: SiteId, what: &'static str, which: u32) {
        if self.later.len() < LATER_MAX && self.later.insert((site, what, which)) {
            tracing::warn!(%site, what, which, "from_a_later_release_passed_over");
        }
    }

    fn all_shards(&self, fx: &mut ControlEffects, letter: impl Fn() -> ToShard) {
        fx.to_shard
            .extend((0..self.shared.shards()).map(|shard| (shard, letter())));
    }
}

fn release(waiting: &Waiting, result: &Result<(), String>, fx: &mut ControlEffects) {
    match *waiting {
        // A retained message that could not be stored is still retained in memory and on the other
        // nodes; the failure is an alarm of the store, not a reason to hold the client for ever.
        Waiting::Shard(shard, token) => fx.to_shard.push((shard, ToShard::Persisted { token })),
        Waiting::Driver(done) => fx.durable.push((done, result.clone())),
    }
}

/// The cluster core names its tables by text; all of them come from constants.
fn batch(writes: Vec<Write>) -> storage::Batch {
    let table = |name: String| storage::TableId::new(name).expect("table names are constants");
    let mut batch = storage::Batch::new();
    for write in writes {
        match write {
            Write::Put {
                table: name,
                key,
                value,
            } => batch.put(&table(name), key, value),
            Write::Delete { table: name, key } => batch.delete(&table(name), key),
            Write::Clear { table: name } => batch.clear(&table(name)),
            Write::Rename { from, to } => batch.rename(&table(from), &table(to)),
        }
    }
    batch
}
