//! Retained messages for new subscriptions, as fast as the client reads and no faster.
//!
//! A `#` may match fifty thousand of them: they are read from the table in pages and written until
//! the output is at its mark; the rest follows when the socket has taken that. Live messages are not
//! held back meanwhile.

use std::ops::ControlFlow;

use dunlin_cluster::Now;

use crate::channel::subscribe::Replay;
use crate::effects::{Conn, ShardEffects};
use crate::message::Message;
use crate::shard::{OUTPUT_HIGH_BYTES, Shard};

/// Retained messages taken from the table under one lock.
const PAGE: usize = 256;

impl Shard {
    /// Goes on with a connection's replays until its output is full or nothing is left.
    pub(crate) fn replay(&mut self, now: Now, conn: Conn, fx: &mut ShardEffects) {
        let mut page: Vec<Message> = Vec::new();
        while self.may_replay(conn) {
            let Some(channel) = self.channels.get_mut(conn.0 as usize) else { return };
            let key = channel.session;
            let rare = channel.rare();
            let Some(mut replay) = rare.replays.pop_front() else { return };
            let next = self.read_page(now, &replay, &mut page);
            for message in page.drain(..) {
                self.deliver_retained(now, key, replay.options, &message, fx);
            }
            if let Some(after) = next {
                replay.after = Some(after);
                self.channels[conn.0 as usize].rare().replays.push_front(replay);
            }
        }
    }

    /// Whether there is something to replay and the client has room for it: its output is below
    /// the mark and its queue, which is bounded and would drop, is empty.
    fn may_replay(&self, conn: Conn) -> bool {
        let Some(channel) = self.channels.get(conn.0 as usize) else { return false };
        channel.is_open()
            && channel.has_replay()
            && channel.output.len() < OUTPUT_HIGH_BYTES
            && self.sessions.get(channel.session).is_some_and(|session| {
                session.queue.is_empty() && !session.inflight.is_full(session.window)
            })
    }

    fn read_page(&self, now: Now, replay: &Replay, page: &mut Vec<Message>) -> Option<String> {
        let mut left = PAGE;
        self.shared.retained().match_filter(
            &replay.filter,
            replay.after.as_deref(),
            now.wall_ms,
            |found| {
                page.push(found.message(now));
                left -= 1;
                if left == 0 {
                    ControlFlow::Break(())
                } else {
                    ControlFlow::Continue(())
                }
            },
        )
    }
}
