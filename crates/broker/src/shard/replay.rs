//! Retained messages for new subscriptions, as fast as the client reads and no faster.
//!
//! A `#` may match fifty thousand of them: they are read from the table in pages and written until
//! the output is at its mark; the rest follows when the socket has taken that. Live messages are
//! not held back meanwhile.

use std::ops::ControlFlow;

use dunlin_cluster::Now;
use dunlin_mqtt::QoS;

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
        while let Some(room) = self.replay_room(conn) {
            let Some(channel) = self.channels.get_mut(conn.0 as usize) else {
                return;
            };
            let key = channel.session;
            let rare = channel.rare();
            let Some(mut replay) = rare.replays.pop_front() else {
                return;
            };
            let room = if replay.options.qos() == QoS::AtMostOnce {
                PAGE
            } else {
                room
            };
            let next = self.read_page(now, &replay, room, &mut page);
            for message in page.drain(..) {
                self.deliver_retained(now, key, replay.options, &message, fx);
            }
            if let Some(after) = next {
                replay.after = Some(after);
                self.channels[conn.0 as usize]
                    .rare()
                    .replays
                    .push_front(replay);
            }
        }
    }

    /// How many messages above QoS 0 may be replayed now, if there is something to replay and the
    /// client has room: its output is below the mark, and its queue, which is bounded and would
    /// drop, is empty.
    fn replay_room(&self, conn: Conn) -> Option<usize> {
        let channel = self.channels.get(conn.0 as usize)?;
        let session = self.sessions.get(channel.session)?;
        let ready = channel.is_open()
            && channel.has_replay()
            && channel.output.len() < OUTPUT_HIGH_BYTES
            && session.queue.is_empty()
            && !session.collects();
        let room = usize::from(session.window).saturating_sub(session.inflight.len());
        (ready && room > 0).then_some(room.min(PAGE))
    }

    fn read_page(
        &self,
        now: Now,
        replay: &Replay,
        room: usize,
        page: &mut Vec<Message>,
    ) -> Option<String> {
        let mut left = room;
        self.shared.retained().match_filter(
            &replay.filter,
            replay.after.as_deref(),
            now.wall_ms,
            |found| {
                page.push(found.message());
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
