//! Node state between the driver and the links: feeds `table::owned` and says when it is settled.

use bytes::Bytes;

use crate::identity::SiteId;
use crate::input::{Effect, SnapshotId};
use crate::node::Cluster;
use crate::wire::Message;

impl Cluster {
    /// A message about node state, ours or the peer's.
    pub(crate) fn on_owned(&mut self, site: SiteId, message: Message) {
        let want = self.new_snapshot();
        let Some(neighbour) = self.neighbours.get_mut(&site) else {
            return;
        };
        let (incoming, outgoing) = (&mut neighbour.owned_in, &mut neighbour.owned_out);
        let out = &mut self.out;
        let answers = match message {
            Message::OwnHave { number } => outgoing.on_have(&self.own_log, number, want),
            Message::OwnAck { number } => {
                outgoing.on_ack(&self.own_log, number);
                Vec::new()
            }
            Message::OwnBegin { number } => {
                incoming.on_begin(site, number, out);
                Vec::new()
            }
            Message::OwnRows { rows } => {
                incoming.on_rows(site, rows, out);
                Vec::new()
            }
            Message::OwnEnd { number } => {
                let acked = incoming.on_end(site, number, out);
                acked
                    .map(|number| Message::OwnAck { number })
                    .into_iter()
                    .collect()
            }
            Message::OwnChanges { first, changes } => incoming
                .on_changes(site, first, changes, out)
                .into_iter()
                .collect(),
            _ => Vec::new(),
        };
        for answer in answers {
            self.send(site, &answer);
        }
    }

    /// The driver read out a chunk of the own rows.
    pub(crate) fn snapshot_rows(
        &mut self,
        want: SnapshotId,
        rows: Vec<(u8, Bytes, Bytes)>,
        done: bool,
    ) {
        // A snapshot whose peer is gone or started over is of no use.
        let found = self
            .neighbours
            .iter_mut()
            .find(|(_, n)| n.owned_out.wants(want));
        let Some((site, neighbour)) = found else {
            return;
        };
        let (site, messages) = (*site, neighbour.owned_out.chunk(rows, done));
        for message in messages {
            self.send(site, &message);
        }
    }

    /// Sends changes and asks for snapshot rows as far as the links have room.
    pub(crate) fn pump_owned(&mut self) {
        let linked: Vec<_> = self
            .neighbours
            .iter()
            .filter(|(_, n)| n.conn.is_some())
            .map(|(s, _)| *s)
            .collect();
        for site in linked {
            let want = self.new_snapshot();
            let Some(neighbour) = self.neighbours.get_mut(&site) else {
                continue;
            };
            if !neighbour.link.has_room() {
                continue;
            }
            let (messages, wanted) = neighbour.owned_out.pump(&self.own_log, want);
            self.out.extend(wanted);
            for message in messages {
                self.send(site, &message);
            }
        }
    }

    /// Says so when every live member has more of our node state than before.
    pub(crate) fn settle(&mut self) {
        let up = self.neighbours.values().filter(|n| n.up);
        let number = up
            .map(|n| n.owned_out.acked())
            .min()
            .unwrap_or_else(|| self.own_log.number());
        if number > self.settled {
            self.settled = number;
            self.out.push(Effect::Settled { number });
        }
    }
}
