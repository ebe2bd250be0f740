//! What nodes ask each other: takeovers of sessions, kicks.
//!
//! Every question is bounded in time by the cluster core; a node that does not answer leaves the
//! asking client with a new session, never without an answer.

use bytes::Bytes;
use dunlin_cluster::{CallError, InCall, Input, Now, SiteId};
use serde::{Deserialize, Serialize};

use super::wills::Spent;
use super::{Control, ControlEffects};
use crate::effects::{CloseReason, ReplyTo, ShardId, TakeoverRequest, TakeoverResult, ToShard};
use crate::router::NodeIndex;
use crate::session;

/// How long a takeover may take, milliseconds; EMQX allows as much per step.
const TAKEOVER_TIMEOUT_MS: u64 = 5_000;
/// Takeovers of other nodes in work at once; more are answered "failed" and the client retries.
const IN_CALLS_MAX: usize = 100_000;

/// Questions between nodes. New kinds go to the end: the index is the wire format.
#[derive(Debug, Serialize, Deserialize)]
enum Question {
    Takeover(TakeoverRequest),
}

/// One-way letters between nodes. New kinds go to the end.
#[derive(Debug, Serialize, Deserialize)]
enum Notice {
    Kick {
        clientid: String,
    },
    /// Wills the sender has published in place of a node it cannot reach.
    WillsSpent(Vec<Spent>),
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
        id: u64,
        result: Result<Bytes, CallError>,
        fx: &mut ControlEffects,
    ) {
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
        let Ok(Question::Takeover(request)) = postcard::from_bytes(payload) else {
            tracing::error!(%from, "call_unreadable");
            return self.reply(now, call, &TakeoverResult::Failed, fx);
        };
        if self.in_calls.len() >= IN_CALLS_MAX {
            return self.reply(now, call, &TakeoverResult::Failed, fx);
        }
        let Some(shard) = self.shared.registry().local_shard(&request.clientid) else {
            return self.reply(now, call, &TakeoverResult::None, fx);
        };
        self.next_call += 1;
        let number = self.next_call;
        self.in_calls.insert(number, call);
        let reply = ReplyTo::Call(number);
        fx.to_shard
            .push((shard, ToShard::Takeover { request, reply }));
    }

    /// A shard has done what another node asked.
    pub(super) fn takeover_reply(
        &mut self,
        now: Now,
        number: u64,
        result: &TakeoverResult,
        fx: &mut ControlEffects,
    ) {
        if let Some(call) = self.in_calls.remove(&number) {
            self.reply(now, call, result, fx);
        }
    }

    fn reply(&mut self, now: Now, call: InCall, result: &TakeoverResult, fx: &mut ControlEffects) {
        let payload = session::encode_result(result);
        self.cluster(now, Input::Reply { call, payload }, fx);
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

    /// Another node tells something.
    pub(super) fn cast_in(&mut self, from: SiteId, payload: &[u8], fx: &mut ControlEffects) {
        match postcard::from_bytes(payload) {
            Ok(Notice::Kick { clientid }) => {
                if let Some(shard) = self.shared.registry().local_shard(&clientid) {
                    fx.to_shard.push((shard, kick_letter(&clientid)));
                }
            }
            Ok(Notice::WillsSpent(spent)) => self.wills_spent(spent, fx),
            Err(_) => tracing::error!(%from, "notice_unreadable"),
        }
    }
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

fn encode<T: Serialize>(value: &T) -> Bytes {
    postcard::to_stdvec(value)
        .expect("letters always encode")
        .into()
}
