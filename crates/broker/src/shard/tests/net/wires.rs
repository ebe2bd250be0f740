//! The data connections between the nodes of a [`Net`]: dialed, proven, carried, cut.

use bytes::BytesMut;
use dunlin_cluster::Handshake;

use super::{Net, cookie, name};
use crate::effects::PeerConn;

/// A data connection between two shards.
pub(super) struct Wire {
    pub(super) dialer: (usize, usize, PeerConn),
    pub(super) acceptor: (usize, usize, PeerConn),
    pub(super) handshake: Option<Box<Handshake>>,
    pub(super) to_dialer: BytesMut,
    pub(super) to_acceptor: BytesMut,
    /// Came in pieces, and is not a whole frame yet.
    unread: BytesMut,
    pub(super) open: bool,
}

impl Net {
    pub(super) fn make_dials(&mut self) {
        for (node, shard, conn, port) in std::mem::take(&mut self.held_dials) {
            self.dial(node, shard, conn, port);
        }
    }

    /// The connections that were dialed stand.
    pub(in super::super) fn release_dials(&mut self) {
        self.hold_dials = false;
        self.make_dials();
        self.run();
    }

    fn dial(&mut self, node: usize, shard: usize, conn: PeerConn, port: u16) {
        let other = (0..self.nodes.len()).find(|at| name(*at as u8).port() == port);
        let other = other.expect("somebody listens there");
        self.dials += 1;
        if self.cut {
            let error = dunlin_cluster::DialError::Refused(None);
            self.on_shard(node, shard, |s, now, fx| {
                s.peer_dial_failed(now, conn, &error, fx);
            });
            return;
        }
        let identity = self.nodes[other]
            .identity
            .read()
            .expect("not poisoned")
            .clone();
        let handshake = Handshake::accept(&identity, &cookie(), [7; 32], self.now);
        let accepted = PeerConn(self.next_accepted);
        self.next_accepted += 2;
        let acceptor_shard = shard % self.nodes[other].shards.len();
        self.wires.push(Wire {
            dialer: (node, shard, conn),
            acceptor: (other, acceptor_shard, accepted),
            handshake: Some(Box::new(handshake)),
            to_dialer: BytesMut::new(),
            to_acceptor: BytesMut::new(),
            unread: BytesMut::new(),
            open: !self.held_ways.contains(&(node, other)),
        });
        self.on_shard(node, shard, |s, now, fx| s.peer_connected(now, conn, fx));
    }

    /// What is written to a connection that does not stand is lost.
    pub(super) fn take_peer_output(&mut self, node: usize, shard: usize, conn: PeerConn) {
        let mut out = Vec::new();
        self.nodes[node].shards[shard].peer_output(conn, &mut out);
        let end = (node, shard, conn);
        for wire in &mut self.wires {
            let buf = if wire.dialer == end {
                &mut wire.to_acceptor
            } else if wire.acceptor == end {
                &mut wire.to_dialer
            } else {
                continue;
            };
            for bytes in &out {
                buf.extend_from_slice(bytes);
            }
        }
    }

    pub(super) fn close_wire(&mut self, node: usize, shard: usize, conn: PeerConn) {
        let end = (node, shard, conn);
        let Some(at) = self
            .wires
            .iter()
            .position(|w| w.dialer == end || w.acceptor == end)
        else {
            return;
        };
        let wire = self.wires.remove(at);
        let (node, shard, conn) = if wire.dialer == end {
            wire.acceptor
        } else {
            wire.dialer
        };
        self.on_shard(node, shard, |s, now, fx| s.peer_closed(now, conn, fx));
    }

    pub(super) fn carry_wire(&mut self, at: usize) -> bool {
        let wire = &mut self.wires[at];
        if !wire.open || self.cut {
            return false;
        }
        let (node, shard, conn) = wire.acceptor;
        let mut moved = false;
        if !wire.to_acceptor.is_empty() {
            moved = true;
            if let Some(handshake) = &mut wire.handshake {
                let proven = handshake
                    .receive(&mut wire.to_acceptor)
                    .expect("same cookie");
                let answer = handshake.take_output();
                wire.to_dialer.extend(answer.into_iter().flatten());
                if let Some(hello) = proven {
                    wire.handshake = None;
                    if self.disowned {
                        let (dialer, mut bytes) =
                            (wire.dialer, std::mem::take(&mut wire.to_dialer));
                        self.on_shard(dialer.0, dialer.1, |s, now, fx| {
                            s.peer_received(now, dialer.2, &mut bytes, fx);
                        });
                        self.close_wire(node, shard, conn);
                        return true;
                    }
                    self.on_shard(node, shard, |s, now, fx| {
                        s.peer_accepted(now, conn, &hello, fx);
                    });
                }
            } else {
                let mut bytes = std::mem::take(&mut wire.to_acceptor);
                self.on_shard(node, shard, |s, now, fx| {
                    s.peer_received(now, conn, &mut bytes, fx);
                });
            }
        }
        let Some(wire) = self.wires.get_mut(at) else {
            return true;
        };
        let (node, shard, conn) = wire.dialer;
        if !wire.to_dialer.is_empty() {
            moved = true;
            let mut bytes = std::mem::take(&mut wire.to_dialer);
            self.on_shard(node, shard, |s, now, fx| {
                s.peer_received(now, conn, &mut bytes, fx);
            });
            if let Some(wire) = self.wires.get_mut(at) {
                bytes.extend_from_slice(&wire.to_dialer);
                wire.to_dialer = bytes;
                moved = true;
            }
        }
        moved
            && self
                .wires
                .get(at)
                .is_some_and(|w| !w.to_dialer.is_empty() || !w.to_acceptor.is_empty())
    }

    /// Carries what dialers have written, and no answer.
    pub(in super::super) fn carry_to_acceptors(&mut self) {
        for at in 0..self.wires.len() {
            let wire = &mut self.wires[at];
            let (node, shard, conn) = wire.acceptor;
            let mut bytes = std::mem::take(&mut wire.to_acceptor);
            self.on_shard(node, shard, |s, now, fx| {
                s.peer_received(now, conn, &mut bytes, fx);
            });
        }
        self.wires
            .iter_mut()
            .for_each(|wire| wire.to_dialer.clear());
    }

    /// The data connections one node dials to another stop carrying, or carry again.
    pub(in super::super) fn hold_wires(&mut self, from: usize, to: usize, hold: bool) {
        if hold {
            self.held_ways.insert((from, to));
        } else {
            self.held_ways.remove(&(from, to));
        }
        self.hang_wires(from, to, hold);
    }

    /// The same of those only that one node has dialed to another so far.
    pub(in super::super) fn hang_wires(&mut self, from: usize, to: usize, hang: bool) {
        for wire in &mut self.wires {
            if (wire.dialer.0, wire.acceptor.0) == (from, to) {
                wire.open = !hang;
            }
        }
        self.run();
    }

    /// Carries so many bytes of what one node has written to another, and the answers.
    pub(in super::super) fn carry_some(&mut self, from: usize, to: usize, bytes: usize) {
        let ends = |wire: &Wire| (wire.dialer.0, wire.acceptor.0) == (from, to);
        let at = self.wires.iter().position(ends).expect("they are linked");
        let wire = &mut self.wires[at];
        let some = wire.to_acceptor.len().min(bytes);
        let some = wire.to_acceptor.split_to(some);
        wire.unread.extend_from_slice(&some);
        let mut unread = std::mem::take(&mut wire.unread);
        let (node, shard, conn) = wire.acceptor;
        self.on_shard(node, shard, |s, now, fx| {
            s.peer_received(now, conn, &mut unread, fx);
        });
        let wire = &mut self.wires[at];
        wire.unread = unread;
        let mut answer = std::mem::take(&mut wire.to_dialer);
        let (node, shard, conn) = wire.dialer;
        self.on_shard(node, shard, |s, now, fx| {
            s.peer_received(now, conn, &mut answer, fx);
        });
    }

    /// All data connections break.
    pub(in super::super) fn cut_links(&mut self) {
        self.cut = true;
        for wire in std::mem::take(&mut self.wires) {
            let (node, shard, conn) = wire.dialer;
            self.on_shard(node, shard, |s, now, fx| s.peer_closed(now, conn, fx));
            let (node, shard, conn) = wire.acceptor;
            if wire.handshake.is_none() {
                self.on_shard(node, shard, |s, now, fx| s.peer_closed(now, conn, fx));
            }
        }
    }
}
