//! Fences across nodes: when has everything that all members had sent to one node arrived there?
//!
//! A session that moves asks for one after all routes lead to its new node: what was sent by the
//! old routes is still on data links then. Only a link's sender knows what of it has arrived, so
//! every member asks its own shards and answers when they have.
//!
//! Many sessions may move between two nodes at one time, so questions about a node that come while
//! one is being asked wait for the next round: there is one round for each node at most. Must never
//! hold anybody for ever: a member that does not answer is left out after [`FENCE_MS`].

use std::collections::BTreeMap;

use bytes::Bytes;
use dunlin_cluster::{CallError, InCall, Input, Now, SiteId};

use super::calls::{Question, encode};
use super::{Control, ControlEffects};
use crate::effects::{ShardId, ToShard};
use crate::router::NodeIndex;
use crate::shard::takeover::FINISH_MAX_MS;

/// How long a member may take to answer, milliseconds: as long as a session that moves waits.
const FENCE_MS: u64 = FINISH_MAX_MS;

/// Questions of other nodes in work at once: each node has one for each other node.
const IN_FENCES_MAX: usize = 100_000;

/// Who asked this node's shards.
#[derive(Clone, Copy, Debug)]
enum Asker {
    /// A round of this node.
    Own(SiteId),
    /// Another node.
    Peer(InCall),
}

/// A question to this node's shards.
#[derive(Debug)]
struct Asked {
    asker: Asker,
    shards_left: ShardId,
}

/// The questions about one node.
#[derive(Debug, Default)]
struct Round {
    /// Answered with this round.
    running: Vec<(ShardId, u64)>,
    /// Answered with the next one.
    next: Vec<(ShardId, u64)>,
    /// Answers that are missing: members, and this node's shards as one.
    left: usize,
}

/// All fences of a node, its own and those it was asked for.
#[derive(Debug, Default)]
pub(super) struct Fences {
    rounds: BTreeMap<SiteId, Round>,
    /// Calls of ours, with the node they are about.
    calls: BTreeMap<u64, SiteId>,
    asked: BTreeMap<u64, Asked>,
}

impl Control {
    /// A shard asks about a node.
    pub(super) fn fence_links(
        &mut self,
        now: Now,
        asker: (ShardId, u64),
        towards: NodeIndex,
        fx: &mut ControlEffects,
    ) {
        let Some(site) = self.shared.peer_site(towards) else {
            return links_fenced(&[asker], fx);
        };
        let round = self.fences.rounds.entry(site).or_default();
        round.next.push(asker);
        if round.running.is_empty() {
            self.start_round(now, site, fx);
        }
    }

    fn start_round(&mut self, now: Now, site: SiteId, fx: &mut ControlEffects) {
        let peers = self.shared.peers().into_iter();
        let members: Vec<SiteId> = peers
            .filter(|(_, peer, reachable)| *reachable && peer.site != site)
            .map(|(_, peer, _)| peer.site)
            .collect();
        let Some(round) = self.fences.rounds.get_mut(&site) else {
            return;
        };
        round.running = std::mem::take(&mut round.next);
        round.left = members.len() + 1;
        self.ask_shards(now, Asker::Own(site), site, fx);
        for to in members {
            self.next_call += 1;
            let id = self.next_call;
            self.fences.calls.insert(id, site);
            let payload = encode(&Question::FenceLinks { towards: site });
            let timeout_ms = FENCE_MS;
            self.cluster(
                now,
                Input::Call {
                    id,
                    to,
                    payload,
                    timeout_ms,
                },
                fx,
            );
        }
    }

    /// Another node asks.
    pub(super) fn fence_in(
        &mut self,
        now: Now,
        call: InCall,
        towards: SiteId,
        fx: &mut ControlEffects,
    ) {
        self.ask_shards(now, Asker::Peer(call), towards, fx);
    }

    fn ask_shards(&mut self, now: Now, asker: Asker, towards: SiteId, fx: &mut ControlEffects) {
        let node = self.shared.peer_index(towards);
        let full = self.fences.asked.len() >= IN_FENCES_MAX;
        let Some(node) = node.filter(|_| !full) else {
            // Nothing is on the way to a node that is none of ours.
            return self.fence_over(now, asker, fx);
        };
        self.next_call += 1;
        let number = self.next_call;
        let shards_left = self.shared.shards();
        self.fences
            .asked
            .insert(number, Asked { asker, shards_left });
        self.all_shards(fx, || ToShard::FenceLink { node, number });
    }

    /// A shard of this node has answered.
    pub(super) fn link_fenced(&mut self, now: Now, number: u64, fx: &mut ControlEffects) {
        let Some(asked) = self.fences.asked.get_mut(&number) else {
            return;
        };
        asked.shards_left = asked.shards_left.saturating_sub(1);
        if asked.shards_left == 0
            && let Some(asked) = self.fences.asked.remove(&number)
        {
            self.fence_over(now, asked.asker, fx);
        }
    }

    /// All shards of this node have answered.
    fn fence_over(&mut self, now: Now, asker: Asker, fx: &mut ControlEffects) {
        match asker {
            Asker::Own(site) => self.round_answer(now, site, fx),
            Asker::Peer(call) => {
                let payload = Bytes::new();
                self.cluster(now, Input::Reply { call, payload }, fx);
            }
        }
    }

    /// Another member has answered, or will not. False if the call was about something else.
    pub(super) fn fence_call_done(
        &mut self,
        now: Now,
        id: u64,
        result: &Result<Bytes, CallError>,
        fx: &mut ControlEffects,
    ) -> bool {
        let Some(site) = self.fences.calls.remove(&id) else {
            return false;
        };
        if let Err(error) = result {
            tracing::warn!(%error, towards = %site, "fence_unanswered");
        }
        self.round_answer(now, site, fx);
        true
    }

    fn round_answer(&mut self, now: Now, site: SiteId, fx: &mut ControlEffects) {
        let Some(round) = self.fences.rounds.get_mut(&site) else {
            return;
        };
        round.left = round.left.saturating_sub(1);
        if round.left > 0 {
            return;
        }
        links_fenced(&std::mem::take(&mut round.running), fx);
        if round.next.is_empty() {
            self.fences.rounds.remove(&site);
        } else {
            self.start_round(now, site, fx);
        }
    }
}

fn links_fenced(askers: &[(ShardId, u64)], fx: &mut ControlEffects) {
    let letter = |(shard, token): &(ShardId, u64)| (*shard, ToShard::LinksFenced { token: *token });
    fx.to_shard.extend(askers.iter().map(letter));
}
