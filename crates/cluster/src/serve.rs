//! Connections between different clusters, and the target's side of a join.
//!
//! Only join messages pass here: a node of another cluster gets the cluster state because it is
//! about to become a member, and nothing of its own is ever taken. From a welcome until the joiner
//! is gone this node stays in its cluster, so that the joiner finds the cluster it copied.

use crate::connect::Flow;
use crate::input::ConnId;
use crate::join::send_stranger;
use crate::link::Hello;
use crate::node::Cluster;
use crate::peer::{Conn, Got, Serve, Stage};
use crate::restore::members_spec;
use crate::sync::{Scan, scan, wire_row};
use crate::table::merged::MEMBERS;
use crate::wire::{Message, Refusal};

/// Most rows in one message of the copy.
const COPY_ROWS: usize = 512;

impl Cluster {
    /// Whether a joiner is being served.
    pub(crate) fn is_serving(&self) -> bool {
        let welcomed = |conn: &Conn| matches!(&conn.stage, Stage::Stranger(s) if s.welcomed);
        self.conns.values().any(welcomed)
    }

    pub(crate) fn stranger_frame(&mut self, conn: &mut Conn) -> Flow {
        if self.operations.is_behind(conn.id) {
            return Flow::Wait;
        }
        let Stage::Stranger(stranger) = &mut conn.stage else {
            return Flow::Close;
        };
        let payload = match stranger.link.receive(&mut conn.buf) {
            Ok(Got::Nothing) => return Flow::Wait,
            Ok(Got::Answer) => return Flow::Again,
            Ok(Got::Payload(payload)) => payload,
            Err(error) => {
                tracing::warn!(%error, "stranger_link_broken");
                return Flow::Close;
            }
        };
        match Message::decode(&payload) {
            Some(Message::JoinAsk { singleton }) if !conn.is_dialed() => {
                self.join_asked(conn, singleton)
            }
            Some(Message::MeetAsk { standing }) if !conn.is_dialed() => {
                self.meet_asked(conn, standing);
                Flow::Again
            }
            Some(Message::MeetIs { standing }) if self.candidate(conn.id).is_some() => {
                self.met(conn, standing);
                Flow::Close
            }
            Some(Message::JoinMay { singleton }) if !conn.is_dialed() => {
                self.may_join(conn, singleton)
            }
            Some(Message::Invite) if !conn.is_dialed() => self.invited(conn),
            Some(message) if self.errands.contains_key(&conn.id) => {
                self.errand_message(conn, message)
            }
            Some(message) if conn.is_dialed() => self.join_message(conn, message),
            _ => {
                tracing::warn!("stranger_message_out_of_place");
                Flow::Close
            }
        }
    }

    /// A node of another cluster asks to become a member.
    fn join_asked(&mut self, conn: &mut Conn, singleton: bool) -> Flow {
        let Stage::Stranger(stranger) = &conn.stage else {
            return Flow::Close;
        };
        let hello = stranger.hello.clone();
        if let Some(why) = self.refusal(&hello, singleton) {
            tracing::info!(node = %hello.peer.name, ?why, "join_refused");
            send_stranger(conn, &Message::JoinRefused { why });
            return Flow::Again;
        }
        tracing::info!(node = %hello.peer.name, "join_welcomed");
        send_stranger(conn, &Message::JoinWelcome);
        if let Stage::Stranger(stranger) = &mut conn.stage {
            stranger.welcomed = true;
            let tables = self.tables.keys().copied().collect();
            stranger.serve = Some(Serve {
                tables,
                after: None,
            });
        }
        Flow::Again
    }

    fn refusal(&mut self, hello: &Hello, singleton: bool) -> Option<Refusal> {
        let lasting = self.lasting_refusal(hello, singleton);
        if lasting.is_some() {
            return lasting;
        }
        let own_change = self.operations.standing.is_some() || self.operations.is_swapping();
        (own_change || !self.yields_to(hello.peer.site)).then_some(Refusal::Busy)
    }

    /// What stands against a joiner and will not go away by itself.
    pub(crate) fn lasting_refusal(&self, hello: &Hello, singleton: bool) -> Option<Refusal> {
        if hello.cluster_name != self.own.cluster_name {
            return Some(Refusal::ClusterName(self.own.cluster_name.clone()));
        }
        if self.config.singleton || singleton {
            return Some(Refusal::Singleton);
        }
        let joiner = hello.peer.site;
        let holder = self
            .member_named(&hello.peer.name)
            .filter(|site| *site != joiner);
        if let Some(holder) = holder {
            // A holder that does not run is an earlier installation the joiner took the place of.
            let runs = self.neighbours.get(&holder).is_none_or(|n| n.alive);
            if runs {
                return Some(Refusal::NameTaken(holder));
            }
        }
        let full = self.table(MEMBERS).len() >= members_spec().rows_max;
        full.then_some(Refusal::Full)
    }

    /// Copies the cluster state to joiners as far as their links have room.
    pub(crate) fn pump_strangers(&mut self) {
        let served: Vec<ConnId> = self
            .conns
            .values()
            .filter(|c| matches!(&c.stage, Stage::Stranger(s) if s.serve.is_some()))
            .map(|c| c.id)
            .collect();
        for id in served {
            let Some(mut conn) = self.conns.remove(&id) else {
                continue;
            };
            while let Stage::Stranger(stranger) = &mut conn.stage
                && stranger.link.has_room()
                && let Some(serve) = stranger.serve.take()
            {
                let (message, rest) = self.serve(serve);
                stranger.serve = rest;
                send_stranger(&mut conn, &message);
            }
            self.conns.insert(id, conn);
        }
    }

    /// The next part of the copy, and where it goes on.
    fn serve(&self, mut serve: Serve) -> (Message, Option<Serve>) {
        let Some(id) = serve.tables.front().copied() else {
            return (Message::JoinEnd, None);
        };
        let table = self.table(id);
        let pick = |key: &[u8], row: crate::table::merged::RowRef<'_>| Some(wire_row(key, row));
        let Scan { found: rows, until } =
            scan(&table, (serve.after.as_ref(), None), COPY_ROWS, pick);
        if until.is_none() {
            serve.tables.pop_front();
        }
        serve.after = until;
        (Message::JoinRows { table: id, rows }, Some(serve))
    }
}
