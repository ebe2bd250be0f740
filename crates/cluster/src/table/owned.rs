//! Node state on its way: the own changes numbered and streamed to each peer, theirs received.
//!
//! The rows themselves live in the driver. Here are a bounded log of recent own changes, how far
//! each peer has got, and how far we have got with each peer. A peer that is too far behind gets a
//! snapshot, which the driver reads out in chunks. Nothing is ever merged: one writer per row.

use std::collections::VecDeque;

use bytes::Bytes;

use crate::identity::BootId;
use crate::identity::SiteId;
use crate::input::{Effect, SnapshotId};
use crate::wire::{Message, OwnChange};

/// Most own changes kept for peers that were away: at 1,000 subscriptions a second, a minute.
const LOG_CHANGES_MAX: usize = 65_536;

/// Most bytes of keys and values kept for peers that were away.
const LOG_BYTES_MAX: usize = 16 * 1_024 * 1_024;

/// Most changes in one message.
const BATCH_CHANGES: usize = 512;

/// Most bytes of keys and values in one message, so that one never holds a link for long.
const BATCH_BYTES: usize = 256 * 1_024;

/// Changes waiting for an acknowledgement at which more are sent all the same. Below it, changes
/// are collected for one round trip, so that a burst becomes a few messages.
const EAGER_CHANGES: u64 = 256;

/// Most changes on their way to one peer.
const FLIGHT_CHANGES_MAX: u64 = 8_192;

fn weight(change: &OwnChange) -> usize {
    change.key.len() + change.value.as_ref().map_or(0, Bytes::len)
}

/// The recent changes of the own node state.
#[derive(Debug, Default)]
pub(crate) struct OwnLog {
    /// Changes `number - len + 1 ..= number`.
    changes: VecDeque<OwnChange>,
    bytes: usize,
    number: u64,
}

impl OwnLog {
    pub(crate) fn push(&mut self, change: OwnChange) {
        self.number += 1;
        self.bytes += weight(&change);
        self.changes.push_back(change);
        while self.changes.len() > LOG_CHANGES_MAX || self.bytes > LOG_BYTES_MAX {
            let Some(oldest) = self.changes.pop_front() else {
                break;
            };
            self.bytes -= weight(&oldest);
        }
    }

    /// The number of the latest change.
    pub(crate) fn number(&self) -> u64 {
        self.number
    }

    /// Whether a peer that has everything up to `number` can go on from the log.
    fn reaches(&self, number: u64) -> bool {
        number <= self.number && number + self.changes.len() as u64 >= self.number
    }

    /// The next batch after `number`.
    fn batch(&self, number: u64) -> Vec<OwnChange> {
        let first = self.changes.len() - (self.number - number) as usize;
        let mut bytes = 0;
        let within = |change: &&OwnChange| {
            let fits = bytes < BATCH_BYTES;
            bytes += weight(change);
            fits
        };
        self.changes
            .range(first..)
            .take(BATCH_CHANGES)
            .take_while(within)
            .cloned()
            .collect()
    }
}

#[derive(Debug)]
enum Out {
    /// The peer has not said what it has.
    Idle,
    /// It gets a snapshot that stands for everything up to `number`.
    Snapshot {
        want: SnapshotId,
        number: u64,
        cursor: Option<(u8, Bytes)>,
        asked: bool,
    },
    /// It gets changes as they happen.
    Following { sent: u64 },
}

/// How far one peer has got with our node state.
#[derive(Debug)]
pub(crate) struct OwnedOut {
    state: Out,
    acked: u64,
}

impl OwnedOut {
    pub(crate) fn new() -> Self {
        Self {
            state: Out::Idle,
            acked: 0,
        }
    }

    /// The connection is new: the peer will say again what it has.
    pub(crate) fn reconnected(&mut self) {
        self.state = Out::Idle;
    }

    /// The last own change the peer has for certain.
    pub(crate) fn acked(&self) -> u64 {
        self.acked
    }

    /// Whether the peer has taken all that was there when it was met.
    pub(crate) fn is_known(&self) -> bool {
        matches!(self.state, Out::Following { sent } if self.acked > 0 || sent == 0)
    }

    pub(crate) fn on_ack(&mut self, log: &OwnLog, number: u64) {
        self.acked = number.min(log.number()).max(self.acked);
    }

    /// The peer said what it has.
    pub(crate) fn on_have(
        &mut self,
        log: &OwnLog,
        number: Option<u64>,
        want: SnapshotId,
    ) -> Vec<Message> {
        let Some(number) = number.filter(|number| log.reaches(*number)) else {
            self.acked = 0;
            return vec![self.begin(log, want)];
        };
        self.acked = number;
        self.state = Out::Following { sent: number };
        Vec::new()
    }

    fn begin(&mut self, log: &OwnLog, want: SnapshotId) -> Message {
        let number = log.number();
        self.state = Out::Snapshot {
            want,
            number,
            cursor: None,
            asked: false,
        };
        Message::OwnBegin { number }
    }

    /// What can be sent or asked now that the link has room.
    pub(crate) fn pump(
        &mut self,
        log: &OwnLog,
        want: SnapshotId,
    ) -> (Vec<Message>, Option<Effect>) {
        let mut messages = Vec::new();
        if matches!(self.state, Out::Following { sent } if !log.reaches(sent)) {
            messages.push(self.begin(log, want));
        }
        match &mut self.state {
            Out::Idle | Out::Snapshot { asked: true, .. } => (messages, None),
            Out::Snapshot {
                want,
                cursor,
                asked,
                ..
            } => {
                *asked = true;
                let (want, cursor) = (*want, cursor.clone());
                (messages, Some(Effect::SnapshotWanted { want, cursor }))
            }
            Out::Following { sent } => loop {
                let (flight, waiting) = (*sent - self.acked.min(*sent), log.number() - *sent);
                let eager = flight == 0 || waiting >= EAGER_CHANGES;
                if waiting == 0 || !eager || flight >= FLIGHT_CHANGES_MAX {
                    return (messages, None);
                }
                let changes = log.batch(*sent);
                let first = *sent + 1;
                *sent += changes.len() as u64;
                messages.push(Message::OwnChanges { first, changes });
            },
        }
    }

    /// The snapshot being read for this peer.
    pub(crate) fn wants(&self, asked_for: SnapshotId) -> bool {
        matches!(&self.state, Out::Snapshot { want, asked: true, .. } if *want == asked_for)
    }

    /// A chunk of the snapshot came from the driver.
    pub(crate) fn chunk(&mut self, rows: Vec<(u8, Bytes, Bytes)>, done: bool) -> Vec<Message> {
        let Out::Snapshot {
            number,
            cursor,
            asked,
            ..
        } = &mut self.state
        else {
            return Vec::new();
        };
        *asked = false;
        if let Some((table, key, _)) = rows.last() {
            *cursor = Some((*table, key.clone()));
        }
        let mut messages = Vec::new();
        let (mut batch, mut bytes) = (Vec::new(), 0);
        for (table, key, value) in rows {
            let change = OwnChange {
                table,
                key,
                value: Some(value),
            };
            bytes += weight(&change);
            batch.push(change);
            if bytes >= BATCH_BYTES {
                bytes = 0;
                messages.push(Message::OwnRows {
                    rows: std::mem::take(&mut batch),
                });
            }
        }
        if !batch.is_empty() {
            messages.push(Message::OwnRows { rows: batch });
        }
        if done {
            let number = *number;
            messages.push(Message::OwnEnd { number });
            self.state = Out::Following { sent: number };
        }
        messages
    }
}

/// How far we have got with one peer's node state.
#[derive(Debug, Default)]
pub(crate) struct OwnedIn {
    boot: Option<BootId>,
    /// The last change of an unbroken sequence after a whole snapshot.
    have: Option<u64>,
    /// The number the snapshot under way stands for.
    snapshot: Option<u64>,
}

impl OwnedIn {
    /// A connection to this boot stands; returns what to tell the peer we have.
    pub(crate) fn connected(&mut self, boot: BootId) -> Option<u64> {
        if self.boot != Some(boot) || self.snapshot.is_some() {
            // A snapshot cut short has replaced some rows only, so it must come again whole.
            *self = Self {
                boot: Some(boot),
                have: None,
                snapshot: None,
            };
        }
        self.have
    }

    /// The last change that has arrived, once the snapshot before it has.
    pub(crate) fn has(&self) -> Option<u64> {
        self.have.filter(|_| self.snapshot.is_none())
    }

    /// Whether we have taken all that was there when the peer was met.
    pub(crate) fn is_known(&self) -> bool {
        self.have.is_some() && self.snapshot.is_none()
    }

    pub(crate) fn on_begin(&mut self, site: SiteId, number: u64, out: &mut Vec<Effect>) {
        let Some(boot) = self.boot else {
            return;
        };
        self.snapshot = Some(number);
        out.push(Effect::OwnedBegin { site, boot });
    }

    pub(crate) fn on_rows(&mut self, site: SiteId, rows: Vec<OwnChange>, out: &mut Vec<Effect>) {
        if self.snapshot.is_some() {
            out.extend(rows.into_iter().map(|row| owned_row(site, row)));
        }
    }

    /// Returns what to acknowledge.
    pub(crate) fn on_end(
        &mut self,
        site: SiteId,
        number: u64,
        out: &mut Vec<Effect>,
    ) -> Option<u64> {
        self.snapshot.take_if(|snapshot| *snapshot == number)?;
        self.have = Some(number);
        out.push(Effect::OwnedEnd { site });
        Some(number)
    }

    /// Takes changes; returns the message to answer with: an acknowledgement, or what we have when
    /// changes are missing.
    pub(crate) fn on_changes(
        &mut self,
        site: SiteId,
        first: u64,
        changes: Vec<OwnChange>,
        out: &mut Vec<Effect>,
    ) -> Option<Message> {
        if self.snapshot.is_some() {
            return None;
        }
        let Some(have) = self.have.filter(|have| first <= have + 1) else {
            return Some(Message::OwnHave { number: self.have });
        };
        let fresh = changes.into_iter().skip((have + 1 - first) as usize);
        let before = out.len();
        out.extend(fresh.map(|change| owned_row(site, change)));
        let number = have + (out.len() - before) as u64;
        self.have = Some(number);
        Some(Message::OwnAck { number })
    }
}

fn owned_row(site: SiteId, change: OwnChange) -> Effect {
    let OwnChange { table, key, value } = change;
    Effect::OwnedRow {
        site,
        table,
        key,
        value,
    }
}
