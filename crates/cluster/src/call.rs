//! Calls and casts between members: opaque payloads over the control links.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;

use crate::error::CallError;
use crate::identity::SiteId;
use crate::input::{Effect, InCall, PAYLOAD_BYTES_MAX};
use crate::node::Cluster;
use crate::wire::Message;

/// Most calls waiting for their answers; more are refused at once.
const CALLS_MAX: usize = 65_536;

#[derive(Debug)]
struct OutCall {
    id: u64,
    to: SiteId,
    deadline_ms: u64,
}

/// Our calls that wait for an answer.
#[derive(Debug)]
pub(crate) struct Calls {
    last: u64,
    waiting: BTreeMap<u64, OutCall>,
    /// (deadline, number) of those waiting.
    deadlines: BTreeSet<(u64, u64)>,
}

impl Calls {
    /// Numbers start at random, so that an answer to an earlier life's call matches none.
    pub(crate) fn new(start: u64) -> Self {
        Self {
            last: start >> 1,
            waiting: BTreeMap::new(),
            deadlines: BTreeSet::new(),
        }
    }

    pub(crate) fn next_tick(&self) -> u64 {
        self.deadlines
            .first()
            .map_or(u64::MAX, |(deadline, _)| *deadline)
    }

    fn add(&mut self, call: OutCall) -> u64 {
        self.last += 1;
        self.deadlines.insert((call.deadline_ms, self.last));
        self.waiting.insert(self.last, call);
        self.last
    }

    fn take(&mut self, number: u64) -> Option<OutCall> {
        let call = self.waiting.remove(&number)?;
        self.deadlines.remove(&(call.deadline_ms, number));
        Some(call)
    }
}

impl Cluster {
    pub(crate) fn call(&mut self, id: u64, to: SiteId, payload: Bytes, timeout_ms: u64) {
        let refused = |error| Effect::CallDone {
            id,
            result: Err(error),
        };
        if payload.len() > PAYLOAD_BYTES_MAX || self.calls.waiting.len() >= CALLS_MAX {
            self.out.push(refused(CallError::TooLarge));
            return;
        }
        let own = to == self.own.site;
        if !own && !self.neighbours.get(&to).is_some_and(|n| n.up) {
            self.out.push(refused(CallError::Unreachable));
            return;
        }
        let deadline_ms = self.now.mono_ms.saturating_add(timeout_ms);
        let number = self.calls.add(OutCall {
            id,
            to,
            deadline_ms,
        });
        if own {
            let call = InCall { from: to, number };
            self.out.push(Effect::CallIn {
                call,
                from: to,
                payload,
            });
        } else if !self.send(to, &Message::Call { number, payload }) {
            self.call_done(number, to, Err(CallError::TooLarge));
        }
    }

    /// An answer came, or never will; one that nobody waits for is late and dropped.
    pub(crate) fn call_done(
        &mut self,
        number: u64,
        from: SiteId,
        result: Result<Bytes, CallError>,
    ) {
        if self
            .calls
            .waiting
            .get(&number)
            .is_some_and(|call| call.to == from)
            && let Some(call) = self.calls.take(number)
        {
            self.out.push(Effect::CallDone {
                id: call.id,
                result,
            });
        }
    }

    pub(crate) fn reply(&mut self, call: InCall, payload: Bytes) {
        if call.from == self.own.site {
            self.call_done(call.number, call.from, Ok(payload));
        } else if payload.len() <= PAYLOAD_BYTES_MAX {
            self.send(
                call.from,
                &Message::Reply {
                    number: call.number,
                    payload,
                },
            );
        }
    }

    pub(crate) fn cast(&mut self, to: SiteId, payload: Bytes) {
        if to == self.own.site {
            self.out.push(Effect::CastIn { from: to, payload });
        } else if payload.len() <= PAYLOAD_BYTES_MAX
            && self.neighbours.get(&to).is_some_and(|n| n.up)
        {
            self.send(to, &Message::Cast { payload });
        }
    }

    /// Ends all calls to a site that went down.
    pub(crate) fn fail_calls_to(&mut self, site: SiteId) {
        let waiting = self.calls.waiting.iter();
        let numbers: Vec<_> = waiting
            .filter(|(_, c)| c.to == site)
            .map(|(n, _)| *n)
            .collect();
        for number in numbers {
            self.call_done(number, site, Err(CallError::Unreachable));
        }
    }

    pub(crate) fn calls_tick(&mut self) {
        while let Some((deadline, number)) = self.calls.deadlines.first().copied()
            && deadline <= self.now.mono_ms
            && let Some(call) = self.calls.take(number)
        {
            self.out.push(Effect::CallDone {
                id: call.id,
                result: Err(CallError::TimedOut),
            });
        }
    }
}
