//! What nodes ask each other: takeovers of sessions, fences, kicks, and what their operators want
//! to know.
//!
//! Every question is bounded in time by the cluster core; a node that does not answer leaves the
//! asking client with a new session, never without an answer.

use std::ops::Range;

use bytes::Bytes;
use dunlin_cluster::{BootId, CallError, InCall, Input, NodeName, Now, SiteId};
use serde::{Deserialize, Serialize};

use super::wills::Spent;
use super::{Control, ControlEffects};
use crate::effects::{
    CloseReason, ReplyTo, ShardId, TakeoverRequest, TakeoverResult, TakeoverStep, ToShard,
};
use crate::router::NodeIndex;
use crate::session::{self, SessionOffer};
use crate::shard::takeover::FINISH_MAX_MS;

/// How long another node may take to answer a step of a takeover, milliseconds: a session that is
/// just moving there is handed on when it has arrived. Less than the shard waits in all.
const TAKEOVER_TIMEOUT_MS: u64 = FINISH_MAX_MS + 3_000;
/// Receipts in one notice: far below what one may carry.
const RECEIPTS_PER_NOTICE: usize = 16_384;
/// Takeovers of other nodes in work at once; more are answered "failed" and the client retries.
const IN_CALLS_MAX: usize = 100_000;

/// Questions between nodes. New kinds go to the end: the index is the wire format.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Question {
    Takeover(TakeoverRequest),
    /// Answered, with nothing, once everything sent to that node so far has arrived there.
    FenceLinks {
        towards: SiteId,
    },
    /// Of the driver, on behalf of an operator; opaque here.
    Operator(Vec<u8>),
}

/// One-way letters between nodes. New kinds go to the end.
#[derive(Debug, Serialize, Deserialize)]
enum Notice {
    Kick {
        clientid: String,
    },
    /// Wills the sender has published in place of a node it cannot reach.
    WillsSpent(Vec<Spent>),
    /// The sender is done with messages that a shard of the receiver gave to members there.
    Receipts {
        /// Which life of the receiver gave them.
        boot: BootId,
        shard: ShardId,
        numbers: Vec<u64>,
    },
    /// The sender gives a session away whose client is not connected.
    Offer(Box<SessionOffer>),
}

/// A call of another node.
#[derive(Clone, Copy, Debug)]
pub(super) struct Working {
    call: InCall,
    /// Those who were asked here and have not answered.
    left: ShardId,
}

impl Control {
    /// A shard's client has its session on another node.
    pub(super) fn takeover(
        &mut self,
        now: Now,
        asker: (ShardId, u64),
        node: NodeIndex,
        request: &TakeoverRequest,
        fx: &mut ControlEffects,
    ) {
        let Some(site) = self.shared.peer_site(node) else {
            let (shard, token) = asker;
            let result = TakeoverResult::Failed;
            fx.to_shard
                .push((shard, ToShard::TakenOver { token, result }));
            return;
        };
        self.next_call += 1;
        let id = self.next_call;
        self.takeovers.insert(id, asker);
        let payload = encode(&Question::Takeover(request.clone()));
        let timeout_ms = TAKEOVER_TIMEOUT_MS;
        self.cluster(
            now,
            Input::Call {
                id,
                to: site,
                payload,
                timeout_ms,
            },
            fx,
        );
    }

    /// A call of ours ended, one way or the other.
    pub(super) fn call_done(
        &mut self,
        now: Now,
        id: u64,
        result: Result<Bytes, CallError>,
        fx: &mut ControlEffects,
    ) {
        if let Some(driver) = self.questions.remove(&id) {
            fx.called.push((driver, result));
            return;
        }
        if self.fence_call_done(now, id, &result, fx) {
            return;
        }
        let Some((shard, token)) = self.takeovers.remove(&id) else {
            return;
        };
        let result = match result {
            Ok(payload) => session::decode_result(&payload).unwrap_or_else(|| {
                tracing::error!("takeover_answer_unreadable");
                TakeoverResult::Failed
            }),
            Err(error) => {
                tracing::warn!(%error, "takeover_failed");
                TakeoverResult::Failed
            }
        };
        fx.to_shard
            .push((shard, ToShard::TakenOver { token, result }));
    }

    /// Another node asks.
    pub(super) fn call_in(
        &mut self,
        now: Now,
        call: InCall,
        from: SiteId,
        payload: &[u8],
        fx: &mut ControlEffects,
    ) {
        let request = match postcard::from_bytes(payload) {
            Ok(Question::Takeover(request)) => request,
            Ok(Question::FenceLinks { towards }) => return self.fence_in(now, call, towards, fx),
            Ok(Question::Operator(payload)) => return self.asked(now, call, payload, fx),
            Err(_) => {
                self.note_later(from, "call", tag(payload));
                return self.reply(now, call, &TakeoverResult::Failed, fx);
            }
        };
        if self.in_calls.len() >= IN_CALLS_MAX {
            return self.reply(now, call, &TakeoverResult::Failed, fx);
        }
        let shards = self.shards_asked(from, &request);
        if shards.is_empty() {
            return self.reply(now, call, &TakeoverResult::None, fx);
        }
        self.next_call += 1;
        let number = self.next_call;
        let left = shards.len() as ShardId;
        self.in_calls.insert(number, Working { call, left });
        let reply = ReplyTo::Call(number);
        let letter = |shard| {
            let request = request.clone();
            (shard, ToShard::Takeover { request, reply })
        };
        fx.to_shard.extend(shards.map(letter));
    }

    /// Who may have what another node wants to take over.
    fn shards_asked(&self, from: SiteId, request: &TakeoverRequest) -> Range<ShardId> {
        if request.step == TakeoverStep::Finish {
            // The session is on its way out; the client may be back already, on any shard.
            return 0..self.shared.shards();
        }
        let registry = self.shared.registry();
        if let Some(node) = self.shared.peer_index(from) {
            // The row that says so may come later than the client comes back.
            registry.remote_asks(&request.clientid, node, request.stamp);
        }
        let shard = registry.local_shard(&request.clientid);
        shard.map_or(0..0, |shard| shard..shard + 1)
    }

    /// A shard has done what another node asked.
    pub(super) fn takeover_reply(
        &mut self,
        now: Now,
        number: u64,
        result: &TakeoverResult,
        fx: &mut ControlEffects,
    ) {
        let Some(working) = self.in_calls.get_mut(&number) else {
            return;
        };
        working.left = working.left.saturating_sub(1);
        // Of several that were asked one has something.
        if working.left > 0 && matches!(result, TakeoverResult::None) {
            return;
        }
        let call = working.call;
        self.in_calls.remove(&number);
        self.reply(now, call, result, fx);
    }

    fn reply(&mut self, now: Now, call: InCall, result: &TakeoverResult, fx: &mut ControlEffects) {
        let payload = session::encode_result(result);
        self.cluster(now, Input::Reply { call, payload }, fx);
    }

    /// Carries a question of the driver to another member.
    pub(super) fn ask_node(
        &mut self,
        now: Now,
        asker: u64,
        (node, payload, timeout_ms): (&NodeName, Bytes, u64),
        fx: &mut ControlEffects,
    ) {
        let peers = self.shared.peers().into_iter();
        let site = peers.map(|(_, peer, _)| peer).find(|p| p.name == *node);
        let Some(to) = site.map(|peer| peer.site) else {
            fx.called.push((asker, Err(CallError::Unreachable)));
            return;
        };
        self.next_call += 1;
        let id = self.next_call;
        self.questions.insert(id, asker);
        let payload = encode(&Question::Operator(payload.to_vec()));
        let input = Input::Call {
            id,
            to,
            payload,
            timeout_ms,
        };
        self.cluster(now, input, fx);
    }

    /// Another node asks on behalf of an operator there.
    fn asked(&mut self, now: Now, call: InCall, payload: Vec<u8>, fx: &mut ControlEffects) {
        if self.in_calls.len() >= IN_CALLS_MAX {
            let payload = Bytes::new();
            return self.cluster(now, Input::Reply { call, payload }, fx);
        }
        self.next_call += 1;
        let working = Working { call, left: 1 };
        self.in_calls.insert(self.next_call, working);
        fx.asked.push((self.next_call, payload.into()));
    }

    /// The driver has an answer for another node; an empty one says that there is none.
    pub(super) fn answer_node(
        &mut self,
        now: Now,
        number: u64,
        payload: Bytes,
        fx: &mut ControlEffects,
    ) {
        if let Some(Working { call, .. }) = self.in_calls.remove(&number) {
            self.cluster(now, Input::Reply { call, payload }, fx);
        }
    }

    /// Kicks a client here or where it is connected.
    pub(super) fn kick(&mut self, now: Now, clientid: &str, fx: &mut ControlEffects) {
        if let Some(shard) = self.shared.registry().local_shard(clientid) {
            fx.to_shard.push((shard, kick_letter(clientid)));
        }
        let remote = self.shared.registry().remote_node(clientid);
        if let Some(site) = remote.and_then(|node| self.shared.peer_site(node)) {
            let payload = encode(&Notice::Kick {
                clientid: clientid.to_owned(),
            });
            self.cluster(now, Input::Cast { to: site, payload }, fx);
        }
    }

    /// Tells another node what is done of what it gave to members of groups here.
    pub(super) fn send_receipts(
        &mut self,
        now: Now,
        to: SiteId,
        (boot, shard): (BootId, ShardId),
        numbers: &[u64],
        fx: &mut ControlEffects,
    ) {
        for numbers in numbers.chunks(RECEIPTS_PER_NOTICE) {
            let numbers = numbers.to_vec();
            let payload = encode(&Notice::Receipts {
                boot,
                shard,
                numbers,
            });
            self.cluster(now, Input::Cast { to, payload }, fx);
        }
    }

    /// Another node is done with something.
    fn receipts(
        &mut self,
        from: SiteId,
        (boot, shard): (BootId, ShardId),
        numbers: Vec<u64>,
        fx: &mut ControlEffects,
    ) {
        let identity = self.cluster.identity();
        let current = identity.read().expect("no writer panics").boot == boot;
        // Numbers of an earlier life, or of more shards than there are, mean nothing here.
        if let Some(node) = self.shared.peer_index(from)
            && current
            && shard < self.shared.shards()
        {
            fx.to_shard
                .push((shard, ToShard::Receipts { node, numbers }));
        }
    }

    /// A shard gives a session away.
    pub(super) fn offer(
        &mut self,
        now: Now,
        node: NodeIndex,
        offer: Box<SessionOffer>,
        fx: &mut ControlEffects,
    ) {
        if let Some(to) = self.shared.peer_site(node) {
            let payload = encode(&Notice::Offer(offer));
            self.cluster(now, Input::Cast { to, payload }, fx);
        }
    }

    /// Another node gives a session away: one shard takes it, if it may still be had.
    fn offered(&mut self, from: SiteId, offer: Box<SessionOffer>, fx: &mut ControlEffects) {
        if let Some(from) = self.shared.peer_index(from) {
            let shard = offer.shard_of(self.shared.shards());
            fx.to_shard.push((shard, ToShard::Adopt { from, offer }));
        }
    }

    /// Another node tells something.
    pub(super) fn cast_in(&mut self, from: SiteId, payload: &[u8], fx: &mut ControlEffects) {
        match postcard::from_bytes(payload) {
            Ok(Notice::Kick { clientid }) => {
                if let Some(shard) = self.shared.registry().local_shard(&clientid) {
                    fx.to_shard.push((shard, kick_letter(&clientid)));
                }
            }
            Ok(Notice::WillsSpent(spent)) => self.wills_spent(spent, fx),
            Ok(Notice::Receipts {
                boot,
                shard,
                numbers,
            }) => self.receipts(from, (boot, shard), numbers, fx),
            Ok(Notice::Offer(offer)) => self.offered(from, offer, fx),
            Err(_) => self.note_later(from, "notice", tag(payload)),
        }
    }
}

/// Which kind of question or notice it is, for the log.
fn tag(payload: &[u8]) -> u32 {
    postcard::take_from_bytes(payload).map_or(u32::MAX, |(tag, _)| tag)
}

/// Tells which wills were published.
pub(super) fn wills_notice(spent: &[Spent]) -> Bytes {
    encode(&Notice::WillsSpent(spent.to_vec()))
}

fn kick_letter(clientid: &str) -> ToShard {
    let reason = CloseReason::Kicked;
    ToShard::Kick {
        clientid: clientid.to_owned(),
        reason,
        older_than: None,
    }
}

pub(super) fn encode<T: Serialize>(value: &T) -> Bytes {
    postcard::to_stdvec(value)
        .expect("letters always encode")
        .into()
}

#[cfg(test)]
pub(crate) mod fixture {
    //! Samples for the fixtures of the wire.
    use super::*;

    pub(crate) fn takeover_bytes(request: &TakeoverRequest) -> Bytes {
        encode(&Question::Takeover(request.clone()))
    }

    pub(crate) fn takeover_of(bytes: &[u8]) -> Option<TakeoverRequest> {
        match postcard::from_bytes(bytes).ok()? {
            Question::Takeover(request) => Some(request),
            Question::FenceLinks { .. } | Question::Operator(_) => None,
        }
    }

    pub(crate) fn notice_bytes() -> Vec<(&'static str, Bytes)> {
        let clientid = "client".to_owned();
        let spent = Spent::sample();
        let receipts = Notice::Receipts {
            boot: BootId(300),
            shard: 3,
            numbers: vec![1, 1_000],
        };
        vec![
            ("notice-kick", encode(&Notice::Kick { clientid })),
            ("notice-receipts", encode(&receipts)),
            (
                "notice-offer",
                encode(&Notice::Offer(Box::new(SessionOffer::sample()))),
            ),
            (
                "notice-wills-spent",
                encode(&Notice::WillsSpent(vec![spent])),
            ),
        ]
    }

    pub(crate) fn is_notice(bytes: &[u8]) -> bool {
        postcard::from_bytes::<Notice>(bytes).is_ok()
    }
}
