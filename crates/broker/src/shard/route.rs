//! From a message to its receivers.
//!
//! Messages of one read are collected and matched together under one guard of the router; the guard
//! is dropped before anything is encoded. A run of messages to one topic is matched once. What a
//! batch may hold is bounded by a read buffer; how much is matched before it is delivered, by
//! [`DELIVERIES_MAX`].

use std::sync::Arc;

use bytes::Bytes;
use dunlin_cluster::{Now, Stamp};
use dunlin_mqtt::Reason;
use smallvec::SmallVec;

use crate::channel::acks::{AckKind, Wait, Waits};
use crate::channel::{HeldPublish, Paused};
use crate::dispatch::{Giver, Receipt};
use crate::effects::{Answer, Conn, Delivery, ShardEffects, ShardId, Target, ToControl, ToShard};
use crate::forward::{self, Forward};
use crate::message::Message;
use crate::metrics::Metric;
use crate::peer_link::Forwarded;
use crate::router::{
    GroupKey, GroupRef, Matches, NodeIndex, Pick, Picker, Publisher, Router, Subscriber,
    SubscriberKey,
};
use crate::settings::{RpcMode, SharedRule};
use crate::shard::Shard;
use crate::shard::deliver::Encoded;

/// Deliveries matched before they are carried out: 64 KiB of records, and a guard held for about a
/// tenth of a millisecond.
const DELIVERIES_MAX: usize = 4_096;

/// Who may receive a message.
#[derive(Debug)]
enum Scope {
    /// Everybody, on every node.
    Everywhere,
    /// This node's part, as another node decided.
    Here {
        plain: bool,
        groups: Vec<GroupKey>,
        receipt: Option<Arc<Receipt>>,
    },
    /// One other member of a group than the one that had its chance.
    Group {
        key: Arc<GroupKey>,
        exclude: Option<SubscriberKey>,
    },
}

/// A message of the batch.
#[derive(Debug)]
struct Pending {
    message: Message,
    conn: Option<Conn>,
    ack: Option<(AckKind, u16)>,
    scope: Scope,
}

/// A message's receivers; ranges of the batch's lists.
#[derive(Clone, Copy, Debug, Default)]
struct Routed {
    subscribers: (u32, u32),
    nodes: (u32, u32),
    picks: (u32, u32),
}

/// The members picked of shared groups, each with its group.
type Picks = [(Pick, Arc<GroupKey>)];

/// Messages that wait for their match, and the scratch of matching and encoding.
#[derive(Debug, Default)]
pub(crate) struct Batch {
    /// Size of the buffer the present bytes lie in.
    pub(crate) buffer_bytes: usize,
    pending: Vec<Pending>,
    routed: Vec<Routed>,
    matches: Matches,
    subscribers: Vec<Subscriber>,
    nodes: Vec<NodeIndex>,
    picks: Vec<(Pick, Arc<GroupKey>)>,
    pub(crate) encoded: Encoded,
    head: Vec<u8>,
}

impl Batch {
    /// Adds a client's publish.
    pub(crate) fn push(&mut self, conn: Conn, id: u64, publish: HeldPublish) {
        let HeldPublish { message, ack } = publish;
        self.pending.push(Pending {
            message: message.with_id(id),
            conn: Some(conn),
            ack,
            scope: Scope::Everywhere,
        });
    }

    fn add(&mut self, message: Message, scope: Scope) {
        self.pending.push(Pending {
            message,
            conn: None,
            ack: None,
            scope,
        });
    }
}

impl Shard {
    /// Routes a message of the node itself (a will, an operator's publish). Says whether anybody
    /// receives it.
    pub fn publish(&mut self, now: Now, message: Message, fx: &mut ShardEffects) -> bool {
        self.flush(now, fx);
        self.metrics.count(Metric::MessagesPublish);
        let id = self.message_id();
        self.batch.add(message.with_id(id), Scope::Everywhere);
        self.flush(now, fx)
    }

    pub(crate) fn on_publish_here(
        &mut self,
        now: Now,
        message: Message,
        ask: Option<u64>,
        fx: &mut ShardEffects,
    ) {
        let matched = self.publish(now, message, fx);
        if let Some(ask) = ask {
            let answer = Answer::Published { matched };
            fx.tell(ToControl::Answered {
                shard: self.id,
                ask,
                answer,
            });
        }
    }

    /// Routes what another node forwarded.
    pub(crate) fn route_forward(&mut self, now: Now, payload: Bytes, from: Option<Giver>) {
        if let Some(Forward {
            message,
            plain,
            groups,
            dispatch,
        }) = forward::decode(now, payload)
        {
            let numbered = from.zip(dispatch);
            let receipt = numbered.map(|(giver, number)| {
                self.arm_receipts(now);
                self.shared.receipts().receipt(giver, number)
            });
            self.batch.add(
                message,
                Scope::Here {
                    plain,
                    groups,
                    receipt,
                },
            );
        } else {
            tracing::error!(shard = self.id, "forward_unreadable");
        }
    }

    /// Gives a message that a group's member did not acknowledge to another one.
    pub(crate) fn redispatch(
        &mut self,
        message: Message,
        key: Arc<GroupKey>,
        exclude: Option<SubscriberKey>,
    ) {
        self.batch.add(message, Scope::Group { key, exclude });
    }

    /// Matches and delivers the batch. Says whether the last message had a receiver.
    pub(crate) fn flush(&mut self, now: Now, fx: &mut ShardEffects) -> bool {
        if self.batch.pending.is_empty() {
            return false;
        }
        let mut batch = std::mem::take(&mut self.batch);
        self.batch.buffer_bytes = batch.buffer_bytes;
        let mut pending = std::mem::take(&mut batch.pending);
        let mut from = 0;
        let mut matched = false;
        while from < pending.len() {
            let upto = self.match_some(&mut batch, &pending[from..]) + from;
            for at in from..upto {
                let routed = batch.routed[at - from];
                if self.must_wait(&batch, routed, &pending[at]) {
                    self.hold(&batch, routed, &mut pending, at, fx);
                    from = pending.len();
                    break;
                }
                matched = self.dispatch(now, &mut batch, routed, &pending[at], fx);
            }
            from = from.max(upto);
        }
        pending.clear();
        // Groups must not be kept alive by who was picked last.
        batch.picks.clear();
        batch.pending = pending;
        // Delivering never publishes; should it, what was added is not lost.
        batch.pending.append(&mut self.batch.pending);
        batch.buffer_bytes = self.batch.buffer_bytes;
        self.batch = batch;
        matched
    }

    /// Matches messages under one guard until enough deliveries have come together. Returns how
    /// many messages.
    fn match_some(&mut self, batch: &mut Batch, pending: &[Pending]) -> usize {
        let shared = Arc::clone(&self.shared);
        let rule = self.settings.mqtt.shared;
        let router = shared.router().read();
        batch.routed.clear();
        batch.subscribers.clear();
        batch.nodes.clear();
        batch.picks.clear();
        let mut deliveries = 0;
        let mut last: Option<(&[u8], Routed)> = None;
        for message in pending {
            let topic = message.message.topic_bytes();
            let known = last.filter(|(known, _)| *known == topic);
            let mut routed = match (&message.scope, known) {
                (Scope::Everywhere, Some((_, routed))) => routed,
                (Scope::Everywhere, None) => {
                    let routed = match_everywhere(&router, message.message.topic(), batch);
                    last = Some((topic, routed));
                    routed
                }
                (Scope::Here { plain, .. }, _) => {
                    last = None;
                    match_here(&router, message.message.topic(), *plain, batch)
                }
                (Scope::Group { .. }, _) => Routed::default(),
            };
            routed.picks = self.pick(&router, rule, batch, message);
            deliveries += (routed.subscribers.1 - routed.subscribers.0) as usize + 1;
            batch.routed.push(routed);
            if deliveries >= DELIVERIES_MAX {
                break;
            }
        }
        batch.routed.len()
    }

    /// Picks a member of each group.
    fn pick(
        &mut self,
        router: &Router,
        rule: SharedRule,
        batch: &mut Batch,
        pending: &Pending,
    ) -> (u32, u32) {
        let from = batch.picks.len() as u32;
        if matches!(pending.scope, Scope::Everywhere) && batch.matches.groups.is_empty() {
            return (from, from);
        }
        let publisher = Publisher {
            id: pending.conn.map_or(u64::MAX, |conn| u64::from(conn.0)),
            clientid: pending.message.clientid(),
            topic: pending.message.topic(),
        };
        let picker = &mut self.picker;
        let shared = &self.shared;
        let picks = &mut batch.picks;
        let everywhere = |picker: &mut Picker, at: GroupRef, exclude| {
            let order = |node| shared.order(node);
            let group = (at, router.group(at));
            let mut pick = |stale_too: bool| {
                let reachable =
                    |node| shared.reachable(node) && (stale_too || !shared.is_stale(node));
                picker.pick(group, rule, publisher, (reachable, order), exclude)
            };
            // A process that knows nothing of the group yet would drop it.
            pick(false).or_else(|| pick(true))
        };
        let mut add = |at: GroupRef, pick: Option<Pick>, key: Option<Arc<GroupKey>>| {
            let key = key.unwrap_or_else(|| Arc::clone(router.group(at).key()));
            picks.extend(pick.map(|pick| (pick, key)));
        };
        match &pending.scope {
            Scope::Everywhere => {
                for at in &batch.matches.groups {
                    add(*at, everywhere(picker, *at, None), None);
                }
            }
            Scope::Here {
                groups, receipt, ..
            } => {
                for key in groups {
                    let Some(at) = router.find_group_ref(key.group(), key.filter()) else {
                        continue;
                    };
                    let group = router.group(at);
                    let here = picker.pick_local((at, group), rule, publisher, None);
                    let Some(receipt) = receipt else {
                        add(at, here.map(Pick::Local), None);
                        continue;
                    };
                    // Its last member here has just left: another node has one.
                    let pick = here.map(Pick::Local);
                    let pick = pick.or_else(|| everywhere(picker, at, None));
                    let key = Arc::new(group.key().with_receipt(receipt));
                    add(at, pick, Some(key));
                }
            }
            Scope::Group { key, exclude } => {
                if let Some(at) = router.find_group_ref(key.group(), key.filter()) {
                    let own = key.has_receipt().then(|| Arc::clone(key));
                    add(at, everywhere(picker, at, *exclude), own);
                }
            }
        }
        (from, picks.len() as u32)
    }

    /// Whether a QoS 1 or 2 publish finds a link to one of its nodes without room.
    fn must_wait(&self, batch: &Batch, routed: Routed, pending: &Pending) -> bool {
        pending.conn.is_some() && pending.ack.is_some() && self.full_node(batch, routed).is_some()
    }

    fn full_node(&self, batch: &Batch, routed: Routed) -> Option<NodeIndex> {
        let nodes = part(&batch.nodes, routed.nodes);
        let picked = part(&batch.picks, routed.picks)
            .iter()
            .filter_map(|(pick, _)| match pick {
                Pick::Remote(node) => Some(*node),
                Pick::Local(_) => None,
            });
        nodes
            .iter()
            .copied()
            .chain(picked)
            .find(|node| self.links.is_full(*node))
    }

    /// Keeps a publish and all behind it until the link has room; their connection is not read.
    fn hold(
        &mut self,
        batch: &Batch,
        routed: Routed,
        pending: &mut Vec<Pending>,
        at: usize,
        fx: &mut ShardEffects,
    ) {
        let node = self.full_node(batch, routed);
        for Pending {
            message, conn, ack, ..
        } in pending.drain(at..)
        {
            let Some(conn) = conn else { continue };
            let Some(channel) = self.channels.get_mut(conn.0 as usize) else {
                continue;
            };
            channel.rare().held.push_back(HeldPublish {
                message: message.compact(),
                ack,
            });
            if channel.paused.set(Paused::WINDOW) {
                fx.pause.push(conn);
            }
            if let Some(node) = node {
                self.links.block(node, conn);
            }
        }
    }

    /// Gives a message to everybody it is for. Says whether there was anybody.
    fn dispatch(
        &mut self,
        now: Now,
        batch: &mut Batch,
        routed: Routed,
        pending: &Pending,
        fx: &mut ShardEffects,
    ) -> bool {
        let message = &pending.message;
        let mut waits = Waits::new();
        let everywhere = matches!(pending.scope, Scope::Everywhere);
        if message.retain() && everywhere {
            let forward = self.retain(now, pending, &mut waits, fx);
            if !forward {
                self.answer(pending, true, waits, fx);
                return true;
            }
        }
        let Batch {
            subscribers,
            nodes,
            picks,
            encoded,
            head,
            ..
        } = batch;
        let subscribers = part(subscribers, routed.subscribers);
        let (nodes, picks) = (part(nodes, routed.nodes), part(picks, routed.picks));
        let found = !subscribers.is_empty() || !nodes.is_empty() || !picks.is_empty();
        encoded.begin(subscribers.len() as u32);
        for subscriber in subscribers {
            if subscriber.shard == self.id {
                let Subscriber {
                    session, options, ..
                } = *subscriber;
                self.deliver(now, session, options, None, message, encoded, fx);
            } else {
                hand_over(*subscriber, None, message, fx);
            }
        }
        for (pick, key) in picks {
            match *pick {
                Pick::Local(Subscriber {
                    session,
                    options,
                    shard,
                }) if shard == self.id => {
                    self.deliver(now, session, options, Some(key), message, encoded, fx);
                }
                Pick::Local(member) => hand_over(member, Some(key), message, fx),
                Pick::Remote(_) => {}
            }
        }
        if !nodes.is_empty() || picks.iter().any(|(p, _)| matches!(p, Pick::Remote(_))) {
            self.forward(now, (nodes, picks), head, pending, &mut waits, fx);
        }
        if !found && everywhere {
            self.metrics.count(Metric::MessagesDropped);
            self.metrics.count(Metric::MessagesDroppedNoSubscribers);
        }
        self.answer(pending, found, waits, fx);
        found
    }

    fn answer(&mut self, pending: &Pending, found: bool, waits: Waits, fx: &mut ShardEffects) {
        if let (Some(conn), Some(ack)) = (pending.conn, pending.ack) {
            let reason = if found {
                Reason::Success
            } else {
                Reason::NoMatchingSubscribers
            };
            self.acknowledge(conn, ack, reason, waits, fx);
        }
    }

    /// Stores or deletes the topic's retained message. Says whether subscribers get it too.
    fn retain(
        &mut self,
        now: Now,
        pending: &Pending,
        waits: &mut Waits,
        fx: &mut ShardEffects,
    ) -> bool {
        let message = &pending.message;
        let stamp = Stamp {
            hlc: self.shared.clock().tick(now),
            site: self.shared.site(),
        };
        let stored = self
            .shared
            .retained()
            .put(now, message, stamp, &self.settings.retainer);
        if stored.is_change() {
            let wait = match (pending.conn, pending.ack) {
                (Some(conn), Some(_)) => Some(self.await_store(conn, waits)),
                _ => None,
            };
            let key = Bytes::copy_from_slice(message.topic().as_bytes());
            fx.tell(ToControl::Retained { key, stamp, wait });
        } else {
            tracing::debug!(topic = message.topic(), ?stored, "retained_not_stored");
        }
        !(message.payload().is_empty() && self.settings.retainer.stop_publish_clear_msg)
    }

    /// An acknowledgement is to wait for the store as well: whom control answers.
    pub(crate) fn await_store(&mut self, conn: Conn, waits: &mut Waits) -> (ShardId, u64) {
        let token = self.token();
        let generation = self.channels[conn.0 as usize].generation;
        self.tokens.insert(token, (conn, generation));
        waits.push(Wait::Store(token));
        (self.id, token)
    }

    /// Sends one copy to each other node that has a receiver.
    fn forward(
        &mut self,
        now: Now,
        (nodes, picks): (&[NodeIndex], &Picks),
        head: &mut Vec<u8>,
        pending: &Pending,
        waits: &mut Waits,
        fx: &mut ShardEffects,
    ) {
        let mut groups: SmallVec<[Arc<GroupKey>; 2]> = SmallVec::new();
        let mut plain_head = false;
        for node in nodes {
            groups.clear();
            groups.extend(groups_of(picks, *node).cloned());
            if !groups.is_empty() || !plain_head {
                head.clear();
                let number = self.watch(*node, &groups, &pending.message);
                forward::put_head(head, now, &pending.message, true, &groups, number);
                plain_head = groups.is_empty();
            }
            self.forward_to(now, *node, head, pending, waits, fx);
        }
        let mut done: SmallVec<[NodeIndex; 2]> = SmallVec::new();
        for (pick, _) in picks {
            let Pick::Remote(node) = *pick else { continue };
            if nodes.contains(&node) || done.contains(&node) {
                continue;
            }
            done.push(node);
            groups.clear();
            groups.extend(groups_of(picks, node).cloned());
            head.clear();
            let number = self.watch(node, &groups, &pending.message);
            forward::put_head(head, now, &pending.message, false, &groups, number);
            self.forward_to(now, node, head, pending, waits, fx);
        }
    }

    /// Remembers what is given to members of groups on another node. Its number.
    fn watch(
        &mut self,
        node: NodeIndex,
        groups: &[Arc<GroupKey>],
        message: &Message,
    ) -> Option<u64> {
        if groups.is_empty() || message.qos().as_u8() == 0 {
            return None;
        }
        let boot = self.links.boot(node)?;
        // Without a receipt of somebody else's: this shard watches over it from here on.
        let own = |key: &Arc<GroupKey>| {
            if key.has_receipt() {
                Arc::new(GroupKey::new(key.group(), key.filter()))
            } else {
                Arc::clone(key)
            }
        };
        let groups = groups.iter().map(own).collect();
        let message = message.clone().compact();
        Some(self.dispatched.keep((node, boot), message, groups))
    }

    fn forward_to(
        &mut self,
        now: Now,
        node: NodeIndex,
        head: &[u8],
        pending: &Pending,
        waits: &mut Waits,
        fx: &mut ShardEffects,
    ) {
        let message = &pending.message;
        let parts: [&[u8]; 5] = [
            head,
            message.topic().as_bytes(),
            message.properties(),
            message.payload(),
            message.clientid().as_bytes(),
        ];
        let qos = message.qos().as_u8();
        match self.links.forward(node, qos, &parts, fx) {
            Forwarded::Sent(wait) => {
                self.watch_links(now);
                self.metrics.count(Metric::MessagesForward);
                if pending.ack.is_some() && self.settings.rpc.mode == RpcMode::Sync {
                    waits.push(wait);
                }
            }
            Forwarded::Kept => self.metrics.count(Metric::MessagesForward),
            Forwarded::Dropped => {
                self.metrics.count(Metric::MessagesDropped);
                tracing::debug!(node = node.0, qos, "forward_dropped");
            }
        }
    }

    /// Deliveries from another shard.
    pub(crate) fn on_deliveries(
        &mut self,
        now: Now,
        deliveries: Vec<Delivery>,
        fx: &mut ShardEffects,
    ) {
        let mut encoded = std::mem::take(&mut self.batch.encoded);
        for Delivery { message, to } in deliveries {
            encoded.begin(to.len() as u32);
            for Target {
                session,
                options,
                group,
            } in to
            {
                let group = group.as_ref();
                self.deliver(now, session, options, group, &message, &mut encoded, fx);
            }
        }
        self.batch.encoded = encoded;
    }
}

/// Adds a delivery to the mailbox of another shard, joining it with the last one if that has
/// the same message.
fn hand_over(
    to: Subscriber,
    group: Option<&Arc<GroupKey>>,
    message: &Message,
    fx: &mut ShardEffects,
) {
    let target = Target {
        session: to.session,
        options: to.options,
        group: group.cloned(),
    };
    let at = usize::from(to.shard);
    if at >= fx.to_shard.len() {
        fx.to_shard.resize_with(at + 1, Vec::new);
    }
    let mailbox = &mut fx.to_shard[at];
    if !matches!(mailbox.last(), Some(ToShard::Deliver(_))) {
        mailbox.push(ToShard::Deliver(Vec::new()));
    }
    let Some(ToShard::Deliver(deliveries)) = mailbox.last_mut() else {
        return;
    };
    match deliveries.last_mut() {
        Some(last) if last.message.is_same(message) => last.to.push(target),
        _ => {
            let to = SmallVec::from_iter([target]);
            deliveries.push(Delivery {
                message: message.clone(),
                to,
            });
        }
    }
}

fn groups_of(picks: &Picks, node: NodeIndex) -> impl Iterator<Item = &Arc<GroupKey>> {
    picks.iter().filter_map(move |(pick, key)| match pick {
        Pick::Remote(there) if *there == node => Some(key),
        _ => None,
    })
}

/// A range of one of the batch's lists.
fn part<T>(list: &[T], (from, to): (u32, u32)) -> &[T] {
    &list[from as usize..to as usize]
}

/// Everybody: this node's subscribers and the other nodes; the groups stay in the scratch.
fn match_everywhere(router: &Router, topic: &str, batch: &mut Batch) -> Routed {
    router.match_topic(topic, &mut batch.matches);
    let subscribers = append(&mut batch.subscribers, &batch.matches.local);
    let nodes = append(&mut batch.nodes, &batch.matches.nodes);
    Routed {
        subscribers,
        nodes,
        ..Routed::default()
    }
}

/// This node's plain subscribers, if they are meant.
fn match_here(router: &Router, topic: &str, plain: bool, batch: &mut Batch) -> Routed {
    if !plain {
        return Routed::default();
    }
    router.match_topic(topic, &mut batch.matches);
    let subscribers = append(&mut batch.subscribers, &batch.matches.local);
    Routed {
        subscribers,
        ..Routed::default()
    }
}

fn append<T: Copy>(list: &mut Vec<T>, more: &[T]) -> (u32, u32) {
    let from = list.len() as u32;
    list.extend_from_slice(more);
    (from, list.len() as u32)
}
