//! Whole nodes that even out their clients and sessions, with clients that go where they may.

use std::collections::BTreeMap;
use std::sync::Arc;

use dunlin_mqtt::{Connect, Packet, QoS, Reason, Version};

use super::net::{C, Net, persistent};
use crate::effects::{Answer, Ask, CloseReason, Evict};
use crate::evacuation::{Load, Share};
use crate::rebalance::{
    Donor, Heard, NothingToBalance, Order, Rebalance, RebalanceOptions, SILENCE_MAX_MS, Step,
    Threshold,
};
use crate::redirect::Redirect;
use crate::settings::Settings;

/// Nodes, what each of them is in a rebalance, and the rebalance, which node 0 coordinates.
struct Table {
    net: Net,
    clients: BTreeMap<String, C>,
    donors: Vec<Option<Donor>>,
    rebalance: Option<Rebalance>,
    heard: BTreeMap<String, Heard>,
    /// Whoever neither hears nor says anything.
    dead: Vec<usize>,
}

fn name(node: usize) -> String {
    format!("n{node}")
}

fn options(threshold: Threshold) -> RebalanceOptions {
    RebalanceOptions {
        wait_health_check_s: 1,
        conn_evict_rate: 4,
        conn_threshold: threshold,
        wait_takeover_s: 1,
        sess_evict_rate: 3,
        sess_threshold: threshold,
        nodes: Vec::new(),
    }
}

const NARROW: Threshold = Threshold {
    absolute: 2,
    relative: 1.1,
};

impl Table {
    /// So many clients on each node, with sessions that stay.
    fn new(counts: &[usize]) -> Self {
        let mut table = Self {
            net: Net::with(counts.len(), 1, Settings::default()),
            clients: BTreeMap::new(),
            donors: vec![None; counts.len()],
            rebalance: None,
            heard: BTreeMap::new(),
            dead: Vec::new(),
        };
        for (node, count) in counts.iter().enumerate() {
            for n in 0..*count {
                let id = format!("{node}-{n}");
                let (c, _) = table.net.persistent_at(node, 0, Version::V5, &id);
                table.clients.insert(id, c);
            }
        }
        table
    }

    fn try_start(&mut self, options: RebalanceOptions) -> Result<(), NothingToBalance> {
        let nodes = 0..self.donors.len();
        let loads = nodes.map(|node| (name(node), self.load(node))).collect();
        let now_ms = self.net.now.mono_ms;
        let rebalance = Rebalance::start(name(0), options, &loads, now_ms)?;
        self.rebalance = Some(rebalance);
        self.look();
        Ok(())
    }

    fn start(&mut self) {
        self.try_start(options(NARROW)).expect("it is uneven");
    }

    fn evict(&mut self, node: usize, share: Share, to: &[usize]) -> Load {
        let wanted = Evict {
            connections: share.connections as usize,
            sessions: share.sessions as usize,
            to: to.iter().map(|to| self.net.index(*to, node)).collect(),
        };
        let Answer::Evicted(left) = self.net.ask(node, 0, Ask::Evict(wanted)) else {
            panic!("another answer");
        };
        Load {
            connected: left.connected as u64,
            sessions: (left.disconnected - left.offered) as u64,
        }
    }

    fn load(&mut self, node: usize) -> Load {
        self.evict(node, Share::default(), &[])
    }

    fn connected(&mut self) -> Vec<u64> {
        let nodes = 0..self.donors.len();
        nodes.map(|node| self.load(node).connected).collect()
    }

    fn refuse(&mut self, node: usize, redirect: Option<&str>) {
        let redirect = redirect.map(|to| Arc::new(Redirect::everyone(to.to_owned())));
        self.net.ask(node, 0, Ask::Refuse(redirect));
    }

    fn release(&mut self, node: usize) {
        self.donors[node] = None;
        self.refuse(node, None);
    }

    /// What a node does with an order.
    fn obey(&mut self, node: usize, order: Order) -> Load {
        let (share, stage) = (order.share, order.stage);
        let to: Vec<usize> = order.recipients.iter().map(|to| index(to)).collect();
        let now_ms = self.net.now.mono_ms;
        Donor::obey(&mut self.donors[node], order, now_ms).expect("there is one coordinator");
        let donor = self.donors[node].as_ref().expect("it obeys");
        if donor.refuses() {
            let reference = donor.order().recipients.join(" ");
            self.refuse(node, Some(&reference));
        }
        let left = self.evict(node, share, &to);
        assert!(
            share == Share::default() || self.donors[node].as_ref().is_some_and(Donor::refuses),
            "{stage:?}"
        );
        left
    }

    /// The coordinator looks, and everybody does what he is told.
    fn look(&mut self) {
        let now_ms = self.net.now.mono_ms;
        for node in 0..self.donors.len() {
            if self.donors[node]
                .as_ref()
                .is_some_and(|donor| donor.is_abandoned(now_ms))
            {
                self.release(node);
            }
        }
        let Some(rebalance) = self.rebalance.as_mut() else {
            return;
        };
        let heard = std::mem::take(&mut self.heard);
        let Step::Orders(mut orders) = rebalance.step(now_ms, &heard) else {
            self.stop();
            return;
        };
        for node in 0..self.donors.len() {
            if self.dead.contains(&node) {
                continue;
            }
            let left = match orders.remove(&name(node)) {
                Some(order) => self.obey(node, order),
                None => self.load(node),
            };
            self.heard.insert(name(node), Heard::Load(left));
        }
    }

    fn stop(&mut self) {
        self.rebalance = None;
        for node in 0..self.donors.len() {
            if !self.dead.contains(&node) {
                self.release(node);
            }
        }
    }

    /// Whoever was sent away comes again, where it was told.
    fn come_back(&mut self) {
        for (id, c) in &mut self.clients {
            if self.net.is_open(*c) {
                continue;
            }
            self.net.check_closed(*c, CloseReason::Evicted);
            let packets = self.net.take(*c);
            let Some(Packet::Disconnect(last)) = packets.last() else {
                panic!("{id}: {packets:?}");
            };
            assert_eq!(last.reason, Reason::UseAnotherServer);
            let reference = last.properties.server_reference().expect("where to go");
            let to: Vec<&str> = reference.split(' ').collect();
            let node = index(to[id.len() % to.len()]);
            let (again, present) = self.net.persistent_at(node, 0, Version::V5, id);
            assert!(present, "{id} has its session");
            *c = again;
        }
    }

    fn seconds(&mut self, seconds: u64, come_back: bool) {
        for _ in 0..seconds {
            self.net.pass(1_000);
            if come_back {
                self.come_back();
            }
            self.look();
        }
    }
}

fn index(name: &str) -> usize {
    name[1..].parse().expect("a number")
}

fn tries(net: &mut Net, node: usize) -> Reason {
    let c = net.accept_at(node, 0, Version::V5);
    net.send(c, Packet::Connect(Box::new(Connect::new(Version::V5, "x"))));
    let reason = net.connack(c).reason;
    net.drop_client(c);
    reason
}

#[test]
fn clients_are_evened_out_with_their_sessions() {
    for (counts, expected) in [
        (&[20, 0][..], &[10, 10][..]),
        (&[0, 20], &[10, 10]),
        (&[30, 0, 0], &[10, 10, 10]),
        (&[12, 12, 0], &[8, 8, 8]),
    ] {
        let mut table = Table::new(counts);
        table.start();
        table.seconds(20, true);
        assert!(table.rebalance.is_none(), "{counts:?}: it is over");
        let now = table.connected();
        let near = now.iter().zip(expected).all(|(n, e)| n.abs_diff(*e) <= 2);
        assert!(near, "{counts:?}: {now:?}");
        for node in 0..counts.len() {
            assert_eq!(tries(&mut table.net, node), Reason::Success);
        }
    }
}

#[test]
fn donors_refuse_from_the_time_they_send_clients_away() {
    let mut table = Table::new(&[20, 0]);
    table.start();
    assert!(table.donors[0].is_some(), "load balancers are told");
    assert_eq!(tries(&mut table.net, 0), Reason::Success);
    table.seconds(1, true);
    assert_eq!(tries(&mut table.net, 0), Reason::UseAnotherServer);
    assert_eq!(tries(&mut table.net, 1), Reason::Success);
    assert_eq!(table.connected(), [16, 0]);
}

#[test]
fn what_is_within_the_thresholds_stays() {
    let wide = Threshold {
        absolute: 20,
        relative: 1.1,
    };
    let mut table = Table::new(&[20, 0]);
    assert_eq!(table.try_start(options(wide)), Err(NothingToBalance));
    let mut table = Table::new(&[8, 8]);
    assert_eq!(table.try_start(options(NARROW)), Err(NothingToBalance));
}

#[test]
fn a_threshold_ends_the_eviction() {
    let some = Threshold {
        absolute: 10,
        relative: 1.1,
    };
    let mut table = Table::new(&[20, 0]);
    table.try_start(options(some)).expect("it is uneven");
    table.seconds(20, true);
    assert!(table.rebalance.is_none());
    assert_eq!(table.connected(), [12, 8]);
}

#[test]
fn sessions_without_clients_are_evened_out_and_lose_nothing() {
    let mut table = Table::new(&[12, 0, 0]);
    let publisher = table.net.client_at_shard(2, 0, Version::V5, "publisher");
    let offline: Vec<(String, C)> = std::mem::take(&mut table.clients).into_iter().collect();
    for (_, c) in &offline {
        table.net.subscribe(*c, "t", QoS::ExactlyOnce);
        table.net.drop_client(*c);
    }
    // Who is a donor is decided by connections.
    for n in 0..4 {
        let id = format!("here-{n}");
        let (c, _) = table.net.persistent_at(0, 0, Version::V5, &id);
        table.clients.insert(id, c);
    }
    table.net.publish_acked(publisher, "t", "before", 2);
    table.start();
    table.seconds(5, true);
    table.net.publish_acked(publisher, "t", "while", 1);
    table.seconds(15, true);
    assert!(table.rebalance.is_none());
    let sessions: Vec<u64> = (0..3).map(|node| table.load(node).sessions).collect();
    assert_eq!(sessions.iter().sum::<u64>(), 12);
    assert_eq!(sessions, [4, 4, 4]);
    for (id, _) in offline {
        let at = table.net.accept_at(1, 0, Version::V5);
        assert!(table.net.connect(at, persistent(Version::V5, &id)), "{id}");
        table.net.pass(100);
        assert_eq!(table.net.payloads(at), ["before", "while"], "{id}");
    }
}

#[test]
fn clients_that_do_not_come_back_are_not_replaced_by_others() {
    let mut table = Table::new(&[20, 0]);
    table.start();
    table.seconds(6, false);
    assert_eq!(table.connected(), [10, 0]);
}

#[test]
fn a_stop_lets_clients_in_at_once() {
    let mut table = Table::new(&[20, 0]);
    table.start();
    table.seconds(2, true);
    table.stop();
    assert_eq!(tries(&mut table.net, 0), Reason::Success);
    table.come_back();
    let before = table.connected();
    table.seconds(5, true);
    assert_eq!(table.connected(), before);
}

#[test]
fn donors_stop_by_themselves_when_their_coordinator_is_dead() {
    // The coordinator has the fewest clients.
    let mut table = Table::new(&[0, 10, 10]);
    table.start();
    table.seconds(2, true);
    assert_eq!(tries(&mut table.net, 1), Reason::UseAnotherServer);
    // It is dead: no look, no order, no farewell.
    table.rebalance = None;
    table.dead.push(0);
    let before = table.connected();
    table.seconds(SILENCE_MAX_MS / 1_000, false);
    assert!(table.donors[1].is_some() && table.donors[2].is_some());
    table.seconds(1, false);
    for node in 1..3 {
        assert_eq!(tries(&mut table.net, node), Reason::Success);
    }
    assert_eq!(table.connected(), before);
}

#[test]
fn a_dead_participant_ends_it() {
    for dead in [1, 2] {
        let mut table = Table::new(&[10, 10, 0]);
        table.start();
        table.seconds(2, true);
        assert!(table.rebalance.is_some());
        table.dead.push(dead);
        table.seconds(SILENCE_MAX_MS / 1_000 + 2, false);
        assert!(table.rebalance.is_none(), "without {dead}");
        assert_eq!(tries(&mut table.net, 0), Reason::Success);
    }
}
