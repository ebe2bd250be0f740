//! What clients were promised, and what they got.
//!
//! Only facts a client can know: what it sent and when, what was acknowledged, what arrived. A
//! request without an answer is *unknown*: it may or may not have happened. Beside them stand the
//! times at which the world was disturbed, because some promises hold only between nodes that were
//! up and reachable.

use std::collections::{BTreeMap, BTreeSet};

use dunlin_cluster::ClusterId;

use crate::splits::Splits;
use crate::violation::Violation;
use crate::wills::{Parting, WillId, Wills};
use crate::workload::Options;

/// How long after a disturbance two nodes may need to be as if nothing had happened, milliseconds:
/// stalled bytes are tried again, links dialed, snapshots sent.
pub const RECOVERY_MS: u64 = 15_000;

/// A cut up to this long must not be noticed by anybody, milliseconds: it is below the time after
/// which a silent member is suspected for good.
pub const BLIP_MS: u64 = 1_500;

/// How long after a join, or whatever else an operator wanted, all members know it all,
/// milliseconds.
const SETTLED_MS: u64 = 4_000;

/// How long bytes are on the way from a client to its node, and until that has read them, at most,
/// milliseconds.
const UNREAD_MS: u64 = 500;

/// How soon after a disturbance a node may not know yet which node has the newest session of a
/// client, milliseconds.
const SPLIT_MS: u64 = 6_000;

/// A message: who published it and its number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MessageId {
    /// The publishing client.
    pub publisher: usize,
    /// Counted per publisher from 0.
    pub seq: usize,
}

impl MessageId {
    /// The payload that carries it.
    pub fn payload(self) -> String {
        format!("m{}.{}", self.publisher, self.seq)
    }

    /// Reads a payload back.
    pub fn parse(payload: &[u8]) -> Option<Self> {
        let text = std::str::from_utf8(payload).ok()?;
        let (publisher, seq) = text.strip_prefix('m')?.split_once('.')?;
        Some(Self {
            publisher: publisher.parse().ok()?,
            seq: seq.parse().ok()?,
        })
    }
}

/// A node's life: its host and the number of its start.
pub type Life = (usize, u32);

/// One time a PUBLISH was handed to a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sent {
    /// When.
    pub at: u64,
    /// To which node.
    pub to: Life,
    /// On which connection of the publisher.
    pub attempt: u64,
}

/// A message as its publisher knows it.
#[derive(Clone, Debug)]
pub struct Published {
    /// Its topic.
    pub topic: String,
    /// 0, 1 or 2.
    pub qos: u8,
    /// Whether it is retained.
    pub retain: bool,
    /// Whether its payload is empty: it deletes what is retained.
    pub empty: bool,
    /// All sends, oldest first.
    pub sends: Vec<Sent>,
    /// PUBACK or PUBREC.
    pub acked_at: Option<u64>,
}

/// A granted subscription.
#[derive(Clone, Debug)]
pub struct Promise {
    /// The subscriber.
    pub client: usize,
    /// Its session.
    pub session: u32,
    /// The filter without `$share/group/`.
    pub filter: String,
    /// The group.
    pub group: Option<String>,
    /// The granted quality of service.
    pub qos: u8,
    /// When SUBSCRIBE was sent.
    pub sent_at: u64,
    /// When SUBACK came.
    pub acked_at: u64,
    /// When UNSUBSCRIBE was sent or the session was over.
    pub ended_at: Option<u64>,
}

/// From when on a session was on a node.
#[derive(Clone, Copy, Debug)]
pub struct Home {
    /// The session.
    pub session: u32,
    /// The node.
    pub on: Life,
    /// When CONNECT was sent.
    pub from: u64,
    /// When CONNACK came.
    pub since: u64,
}

/// A message that reached an application.
#[derive(Clone, Copy, Debug)]
pub struct Delivered {
    /// The receiving client.
    pub client: usize,
    /// Its session.
    pub session: u32,
    /// Its connection.
    pub attempt: u64,
    /// The message.
    pub message: MessageId,
    /// The quality of service it came with.
    pub qos: u8,
    /// Whether it was flagged as retained.
    pub retain: bool,
    /// When.
    pub at: u64,
    /// How many copies, this one included, this session has got at this quality of service,
    /// not retained.
    pub copies: usize,
    /// The newest message of the same publisher, topic and quality of service before it.
    pub newest_before: Option<usize>,
}

/// What disturbs. Each ends by itself: a cut that heals says nothing about another one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// A way is cut.
    Cut,
    /// Connections were reset.
    Reset,
    /// Name look-ups fail.
    Dns,
    /// A process does not run.
    Stopped,
    /// A process is stopped, and will go on.
    Paused,
    /// One connection between two nodes hangs.
    Hung,
    /// The same of one that carries messages: whatever its length, none may be lost by it.
    DataHung,
    /// Somebody may have been held apart since a split.
    Apart,
    /// An operator's request, by number.
    Operation(u64),
}

impl Cause {
    /// Whether nobody may notice it when it is short.
    fn may_be_a_blip(self) -> bool {
        matches!(
            self,
            Self::Cut | Self::Reset | Self::Dns | Self::Paused | Self::Hung
        )
    }

    /// Whether it is over when the faults end.
    fn is_healed(self) -> bool {
        self.may_be_a_blip() || self == Self::DataHung
    }
}

/// Something happened to one node, or between two, that lifts promises for a while.
#[derive(Clone, Copy, Debug)]
pub struct Disturbance {
    /// What.
    pub cause: Cause,
    /// The node.
    pub a: usize,
    /// The other one; `None` concerns everything `a` does.
    pub b: Option<usize>,
    /// Begin.
    pub from: u64,
    /// End, `None` while it lasts.
    pub to: Option<u64>,
}

type Stream = (usize, u32, usize, String, u8);

/// Everything promised and delivered in one run.
#[derive(Debug, Default)]
pub struct Oracle {
    published: Vec<Vec<Published>>,
    promises: Vec<Promise>,
    homes: BTreeMap<usize, Vec<Home>>,
    sessions: BTreeMap<usize, u32>,
    delivered: BTreeMap<(usize, MessageId), Vec<Delivered>>,
    fresh: Vec<Delivered>,
    newest: BTreeMap<Stream, usize>,
    disturbances: Vec<Disturbance>,
    /// Connections, by client and number, that their node has closed.
    hung_up: BTreeSet<(usize, u64)>,
    lives: Vec<u32>,
    /// When each host's node last started.
    births: Vec<u64>,
    /// Acknowledgements since the last check.
    fresh_acks: Vec<MessageId>,
    /// Hosts whose disk failed, from when until when.
    disks: Vec<(usize, u64, Option<u64>)>,
    /// Whether sides of a split merge by themselves.
    autoheal: bool,
    /// Wills, and what arrived of them.
    pub wills: Wills,
    /// Who was split off from whom, where they do not.
    pub splits: Splits,
    faults: Vec<Violation>,
    /// Hosts that may have a session of the client: where it was, and those that got a CONNECT
    /// since.
    asked: BTreeMap<usize, BTreeSet<usize>>,
    /// Whether wall clocks differ: after a split the newest session is the one they say.
    skewed: bool,
    /// Sessions a client believes to be one and that may be several: it moved in a split.
    split: BTreeSet<(usize, u32)>,
    /// Hosts that changed their cluster, with the time.
    moved: BTreeMap<usize, u64>,
    /// Which cluster each host's node belongs to, from when on.
    clusters: BTreeMap<usize, Vec<(u64, ClusterId)>>,
    /// Hosts somebody removed from their cluster: when they learn of it is up to them.
    exiled: BTreeMap<usize, u64>,
}

impl Oracle {
    /// An oracle for the clients and hosts of a run.
    pub fn new(options: &Options) -> Self {
        let clients = options.clients.len();
        Self {
            published: vec![Vec::new(); clients],
            lives: vec![0; options.nodes],
            births: vec![0; options.nodes],
            skewed: options.is_skewed(),
            autoheal: options.autoheal,
            splits: Splits::new(options.nodes),
            ..Self::default()
        }
    }

    // What the world tells.

    /// A node starts.
    pub fn started(&mut self, now: u64, host: usize) {
        self.lives[host] += 1;
        self.births[host] = now;
    }

    /// When a host's node last started.
    pub fn born(&self, host: usize) -> u64 {
        self.births[host]
    }

    /// A node closes a client's connection, of which the client hears later.
    pub fn hung_up(&mut self, now: u64, connection: WillId, how: Parting) {
        self.hung_up.insert((connection.client, connection.attempt));
        self.wills.ended(connection, now, how);
    }

    /// Whether a client's connection was closed by its node.
    pub fn has_hung_up(&self, client: usize, attempt: u64) -> bool {
        self.hung_up.contains(&(client, attempt))
    }

    /// The present life of a host's node.
    pub fn life(&self, host: usize) -> Life {
        (host, self.lives[host])
    }

    /// A host's disk fails from now on, or works again.
    pub fn disk(&mut self, now: u64, host: usize, fails: bool) {
        let mut open = self.disks.iter_mut();
        match open.find(|(at, _, to)| *at == host && to.is_none()) {
            Some((_, _, to)) if !fails => *to = Some(now),
            None if fails => self.disks.push((host, now, None)),
            _ => {}
        }
    }

    /// Whether a host's disk had failed for so long at a time, or shortly before.
    pub fn disk_failed(&self, host: usize, at: u64, long_ms: u64) -> bool {
        self.disks.iter().any(|(on, from, to)| {
            let until = to.map_or(u64::MAX, |to| to + BLIP_MS);
            *on == host && from + long_ms <= at && at <= until
        })
    }

    /// One direction between two hosts is cut.
    pub fn cut(&mut self, now: u64, a: usize, b: usize) {
        self.disturb(now, Cause::Cut, a, Some(b));
        self.split(now, (a, b, true));
    }

    /// Connections between two hosts that hung carry again.
    pub fn unhung(&mut self, now: u64, a: usize, b: usize) {
        self.calm_again(now, Cause::Hung, a, Some(b));
        self.calm_again(now, Cause::DataHung, a, Some(b));
    }

    /// It is free again.
    pub fn uncut(&mut self, now: u64, a: usize, b: usize) {
        self.calm_again(now, Cause::Cut, a, Some(b));
        self.split(now, (a, b, false));
    }

    fn split(&mut self, now: u64, change: (usize, usize, bool)) {
        if !self.autoheal {
            let lives = &self.lives;
            self.splits.change(now, change, |host| (host, lives[host]));
        }
    }

    /// Begins a disturbance; end it with [`Oracle::calm_again`].
    pub fn disturb(&mut self, now: u64, cause: Cause, a: usize, b: Option<usize>) {
        self.disturbances.push(Disturbance {
            cause,
            a,
            b,
            from: now,
            to: None,
        });
    }

    /// Ends the disturbances of this kind of exactly these nodes.
    pub fn calm_again(&mut self, now: u64, cause: Cause, a: usize, b: Option<usize>) {
        self.end(now, |d| (d.cause, d.a, d.b) == (cause, a, b));
    }

    /// A process runs again: what it was asked to do before is over.
    pub fn runs_again(&mut self, now: u64, host: usize) {
        let over = |cause| matches!(cause, Cause::Stopped | Cause::Paused | Cause::Operation(_));
        self.end(now, |d| d.a == host && over(d.cause));
    }

    /// Ends everything that healing the network ends.
    pub fn all_healed(&mut self, now: u64) {
        let lives = &self.lives;
        self.splits.free(now, |host| (host, lives[host]));
        self.end(now, |d| d.cause.is_healed());
    }

    fn end(&mut self, now: u64, ends: impl Fn(&Disturbance) -> bool) {
        let open = self.disturbances.iter_mut().filter(|d| d.to.is_none());
        let mut split_since = None;
        for d in open.filter(|d| ends(d)) {
            d.to = Some(now);
            let noticed = d.cause.may_be_a_blip() && now - d.from > BLIP_MS;
            split_since = split_since.or_else(|| noticed.then_some(d.from));
        }
        // Somebody may have been given up, and then whoever meets both is on one of the sides.
        if let Some(from) = split_since.filter(|_| !self.autoheal) {
            let apart = |a| Disturbance {
                cause: Cause::Apart,
                a,
                b: None,
                from,
                to: None,
            };
            self.disturbances.extend((0..self.lives.len()).map(apart));
        }
    }

    /// An operator merged the sides of all splits, and nothing else is wrong.
    pub fn merged(&mut self, now: u64) {
        self.splits.merged();
        self.end(now, |d| d.cause == Cause::Apart);
    }

    /// A node joined, left or was removed.
    pub fn moved(&mut self, now: u64, host: usize) {
        self.moved.insert(host, now);
    }

    /// A member was removed by another one; nothing is promised about it from then on.
    pub fn exile(&mut self, now: u64, host: usize) {
        self.exiled.entry(host).or_insert(now);
    }

    /// A node belongs to a cluster from now on.
    pub fn belongs(&mut self, now: u64, host: usize, cluster: ClusterId) {
        let of = self.clusters.entry(host).or_default();
        if of.last().is_none_or(|(_, last)| *last != cluster) {
            let moves = !of.is_empty();
            of.push((now, cluster));
            if moves {
                self.moved(now, host);
            }
        }
    }

    /// Whether two nodes were members of one cluster all the time.
    pub fn were_together(&self, a: usize, b: usize, from: u64, to: u64) -> bool {
        let during = |host| {
            let of = self.clusters.get(&host).map_or(&[][..], Vec::as_slice);
            let next = of.iter().skip(1).map(|(at, _)| *at).chain([u64::MAX]);
            let lasted = of
                .iter()
                .zip(next)
                .filter(move |((at, _), next)| *at <= to && *next >= from);
            lasted.map(|((_, cluster), _)| *cluster)
        };
        let first = during(a).next();
        a == b
            || during(a)
                .chain(during(b))
                .all(|cluster| Some(cluster) == first)
    }

    /// When a node was removed by another one.
    pub fn exiled_at(&self, host: usize) -> Option<u64> {
        self.exiled.get(&host).copied()
    }

    /// When a node last changed its cluster.
    pub fn moved_at(&self, host: usize) -> Option<u64> {
        self.moved.get(&host).copied()
    }

    /// When the node that a message was handed to has surely read it: a stopped process reads what
    /// came meanwhile once it goes on, also from a connection that its client has given up.
    pub fn read_by(&self, sent: &Sent) -> u64 {
        let stops = self.disturbances.iter().filter(|d| {
            (d.cause, d.a) == (Cause::Paused, sent.to.0)
                && d.from <= sent.at + UNREAD_MS
                && d.to.is_none_or(|to| to >= sent.at)
        });
        let goes_on = |d: &Disturbance| d.to.map_or(u64::MAX, |to| to + UNREAD_MS);
        stops.map(goes_on).fold(sent.at, u64::max)
    }

    // What clients tell.

    /// A message is about to be published.
    pub fn publish(&mut self, publisher: usize, published: Published) -> MessageId {
        let of = &mut self.published[publisher];
        of.push(published);
        MessageId {
            publisher,
            seq: of.len() - 1,
        }
    }

    /// It was handed to a connection.
    pub fn sent(&mut self, id: MessageId, at: u64, host: usize, attempt: u64) {
        let to = self.life(host);
        self.published[id.publisher][id.seq]
            .sends
            .push(Sent { at, to, attempt });
    }

    /// It was acknowledged.
    pub fn acked(&mut self, id: MessageId, at: u64) {
        let acked_at = &mut self.published[id.publisher][id.seq].acked_at;
        if acked_at.is_none() {
            *acked_at = Some(at);
            self.fresh_acks.push(id);
        }
    }

    /// CONNECT is sent: whatever becomes of it, the node may take the session over.
    pub fn asked(&mut self, client: usize, host: usize) {
        self.asked.entry(client).or_default().insert(host);
    }

    /// CONNACK: returns the number of the session.
    pub fn connected(
        &mut self,
        client: usize,
        host: usize,
        (asked_at, at): (u64, u64),
        present: bool,
    ) -> u32 {
        let since = asked_at.saturating_sub(SPLIT_MS);
        let mut asked = self.asked.remove(&client).unwrap_or_default();
        asked.retain(|other| !self.was_calm((*other, host), (since, at), SPLIT_MS));
        // A node that was asked and could not answer may do so later, for the client's newest
        // connection as far as it knows; and clocks that differ may call any session the newest.
        let doubtful = !asked.is_empty() || self.skewed;
        let last = self.homes(client).last().map(|home| home.on.0);
        let last = last.filter(|last| !self.was_calm((*last, host), (since, at), SPLIT_MS));
        asked.extend(last);
        let knew = asked.is_empty();
        if !present || !knew {
            self.session_over(client, asked_at);
        }
        if !knew && (present || doubtful) {
            self.split.insert((client, self.session(client)));
        }
        if doubtful {
            self.asked.insert(client, asked);
        }
        let session = self.session(client);
        let home = Home {
            session,
            on: self.life(host),
            from: asked_at,
            since: at,
        };
        self.homes.entry(client).or_default().push(home);
        session
    }

    /// The session of a client has ended, as far as the client is concerned.
    pub fn session_over(&mut self, client: usize, at: u64) {
        let session = self.session(client);
        let of = |p: &&mut Promise| (p.client, p.session) == (client, session);
        for promise in self.promises.iter_mut().filter(of) {
            promise.ended_at.get_or_insert(at);
        }
        *self.sessions.entry(client).or_default() += 1;
    }

    /// The number of a client's present session.
    pub fn session(&self, client: usize) -> u32 {
        self.sessions.get(&client).copied().unwrap_or_default()
    }

    /// SUBACK said yes.
    pub fn subscribed(&mut self, promise: Promise) {
        self.promises.push(promise);
    }

    /// UNSUBSCRIBE is sent.
    pub fn unsubscribing(&mut self, client: usize, filter: &str, group: Option<&str>, at: u64) {
        for promise in &mut self.promises {
            let same = promise.client == client
                && promise.filter == filter
                && promise.group.as_deref() == group;
            if same {
                promise.ended_at.get_or_insert(at);
            }
        }
    }

    /// A message reached the application of a client.
    pub fn deliver(&mut self, mut delivery: Delivered, topic: &str) {
        let Delivered {
            client,
            session,
            message,
            qos,
            ..
        } = delivery;
        if !delivery.retain {
            let got = self.delivered.entry((client, message)).or_default();
            let same = |d: &&Delivered| d.qos == qos && !d.retain && d.session == session;
            delivery.copies = got.iter().filter(same).count() + 1;
            let in_session = got.iter().any(|d| d.session == session && d.qos == qos);
            if !in_session {
                let stream = (client, session, message.publisher, topic.to_owned(), qos);
                let newest = self.newest.get(&stream).copied();
                delivery.newest_before = newest;
                self.newest
                    .insert(stream, newest.map_or(message.seq, |n| n.max(message.seq)));
            }
        }
        self.delivered
            .entry((client, message))
            .or_default()
            .push(delivery);
        self.fresh.push(delivery);
    }

    /// A node broke the protocol towards a client.
    pub fn fault(&mut self, violation: Violation) {
        self.faults.push(violation);
    }

    // What invariants ask.

    /// Whether that was ever so.
    pub fn was_split(&self, client: usize) -> bool {
        self.split
            .range((client, 0)..=(client, u32::MAX))
            .next()
            .is_some()
    }

    /// The same of one of its sessions.
    pub fn is_split_session(&self, client: usize, session: u32) -> bool {
        self.split.contains(&(client, session))
    }

    /// Whether what a client takes for its session may be several, because it moved in a split.
    pub fn is_split(&self, client: usize) -> bool {
        self.is_split_session(client, self.session(client))
    }

    /// A message as its publisher knows it.
    pub fn message(&self, id: MessageId) -> Option<&Published> {
        self.published.get(id.publisher)?.get(id.seq)
    }

    /// All messages.
    pub fn messages(&self) -> impl Iterator<Item = (MessageId, &Published)> {
        self.published
            .iter()
            .enumerate()
            .flat_map(|(publisher, of)| {
                let id = move |(seq, p)| (MessageId { publisher, seq }, p);
                of.iter().enumerate().map(id)
            })
    }

    /// All subscriptions ever granted.
    pub fn promises(&self) -> &[Promise] {
        &self.promises
    }

    /// Where a client's sessions were, oldest first.
    pub fn homes(&self, client: usize) -> &[Home] {
        self.homes.get(&client).map_or(&[], Vec::as_slice)
    }

    /// The node a client was on when it got something.
    pub fn home(&self, got: &Delivered) -> Option<Life> {
        let mut homes = self.homes(got.client).iter().rev();
        homes.find(|home| home.since <= got.at).map(|home| home.on)
    }

    /// Whether a client that got something had come back to its node, from another one, at a time
    /// or later; be it with a new session.
    pub fn came_back(&self, got: &Delivered, since: u64) -> bool {
        let homes = self.homes(got.client);
        let homes = &homes[..homes.partition_point(|home| home.since <= got.at)];
        let is_elsewhere = |home: &Home| homes.last().is_some_and(|last| home.on != last.on);
        let Some(elsewhere) = homes.iter().rposition(is_elsewhere) else {
            return false;
        };
        let was_here_before = !homes[..elsewhere].iter().all(is_elsewhere);
        was_here_before && homes[elsewhere + 1].since >= since
    }

    /// What a client got of a message.
    pub fn got(&self, client: usize, id: MessageId) -> &[Delivered] {
        self.delivered.get(&(client, id)).map_or(&[], Vec::as_slice)
    }

    /// Acknowledgements since the last check.
    pub fn fresh_acks(&self) -> &[MessageId] {
        &self.fresh_acks
    }

    /// Deliveries since the last check.
    pub fn fresh(&self) -> &[Delivered] {
        &self.fresh
    }

    /// They were checked.
    pub fn checked(&mut self) {
        self.fresh.clear();
        self.fresh_acks.clear();
        self.wills.checked();
    }

    /// Faults towards clients.
    pub fn faults(&self) -> &[Violation] {
        &self.faults
    }

    /// Whether nothing that may be noticed happened to two nodes, or between them, in a time, nor
    /// so shortly before that they may still recover from it.
    pub fn is_calm(&self, a: usize, b: usize, from: u64, to: u64) -> bool {
        self.was_calm((a, b), (from, to), RECOVERY_MS)
    }

    /// The same, but what an operator asked for and got is over sooner.
    pub fn is_settled(&self, a: usize, b: usize, from: u64, to: u64) -> bool {
        let recovery = |cause| match cause {
            Cause::Operation(_) => SETTLED_MS,
            _ => RECOVERY_MS,
        };
        let together = self.were_together(a, b, from.saturating_sub(SETTLED_MS), to);
        together && self.is_undisturbed((a, b), (from, to), recovery)
    }

    fn was_calm(&self, (a, b): (usize, usize), (from, to): (u64, u64), recovery_ms: u64) -> bool {
        let together = self.were_together(a, b, from.saturating_sub(recovery_ms), to);
        together && self.is_undisturbed((a, b), (from, to), |_| recovery_ms)
    }

    /// Whether nobody was removed, and nothing but blips happened since each kind's recovery.
    fn is_undisturbed(
        &self,
        (a, b): (usize, usize),
        (from, to): (u64, u64),
        recovery_ms: impl Fn(Cause) -> u64,
    ) -> bool {
        let exiled = |host| self.exiled_at(host).is_some_and(|at| at <= to);
        let recovery_ms = |cause| Some(recovery_ms(cause));
        !exiled(a) && !exiled(b) && !self.is_disturbed((a, b), (from, to), recovery_ms)
    }

    /// Whether anything but a blip happened since each kind's recovery; kinds without one do not
    /// count.
    fn is_disturbed(
        &self,
        (a, b): (usize, usize),
        (from, to): (u64, u64),
        recovery_ms: impl Fn(Cause) -> Option<u64>,
    ) -> bool {
        self.disturbances.iter().any(|d| {
            let ended = d.to.unwrap_or(u64::MAX);
            let short = d.cause.may_be_a_blip() && ended.saturating_sub(d.from) <= BLIP_MS;
            let blip = short || d.cause == Cause::DataHung;
            let over = recovery_ms(d.cause).map(|recovery| ended.saturating_add(recovery));
            !blip && concerns(d, a, b) && d.from <= to && over.is_some_and(|over| over >= from)
        })
    }

    /// Whether two nodes could hear each other all the time, whatever operators did and but for
    /// blips.
    pub fn is_in_touch(&self, a: usize, b: usize, from: u64, to: u64) -> bool {
        let recovery = |cause| match cause {
            Cause::Operation(_) => None,
            _ => Some(RECOVERY_MS),
        };
        !self.is_disturbed((a, b), (from, to), recovery)
    }

    /// Whether nothing at all was between two nodes in a time, not even a blip.
    pub fn is_quiet(&self, a: usize, b: usize, from: u64, to: u64) -> bool {
        self.is_quiet_for((a, b), (from, to), |_| true)
    }

    /// The same of what nodes tell each other, messages apart.
    pub fn is_control_quiet(&self, a: usize, b: usize, from: u64, to: u64) -> bool {
        self.is_quiet_for((a, b), (from, to), |cause| cause != Cause::DataHung)
    }

    fn is_quiet_for(
        &self,
        (a, b): (usize, usize),
        (from, to): (u64, u64),
        counts: impl Fn(Cause) -> bool,
    ) -> bool {
        !self.disturbances.iter().any(|d| {
            counts(d.cause)
                && concerns(d, a, b)
                && d.from <= to
                && d.to.unwrap_or(u64::MAX).saturating_add(BLIP_MS) >= from
        })
    }
}

fn concerns(d: &Disturbance, a: usize, b: usize) -> bool {
    match d.b {
        None => d.a == a || d.a == b,
        Some(other) => (d.a, other) == (a, b) || (d.a, other) == (b, a),
    }
}
