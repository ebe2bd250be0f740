//! What operators and bad luck do in a world, line by line of its script, and how it all ends.

use dunlin_broker::node::NodeInput;
use dunlin_cluster::{Operation, OperationError};
use rand::Rng;

use super::{EVICTED_SESSIONS, Event, JOIN_PAUSE_MS, JOIN_TRIES, Operated, World};
use crate::network::{End, Place};
use crate::oracle::{Cause, Published};
use crate::violation::Violation;
use crate::workload::Op;

impl World {
    /// Does what a line of the script says.
    pub fn operate(&mut self, op: &Op) {
        self.carry_out(op);
        self.arm();
    }

    fn carry_out(&mut self, op: &Op) {
        self.trace.say(self.now, || format!("-- {op:?}"));
        match *op {
            Op::Connect {
                client,
                host,
                clean,
            } => self.connect(client, host, clean),
            Op::Disconnect(client) => self.disconnect(client),
            Op::ResetClient(client) => self.reset_client(client),
            Op::Vanish(client) => self.vanish(client),
            Op::Subscribe {
                client,
                filter,
                qos,
            } => {
                let (about, acts) = ((filter, qos), &mut self.acts);
                self.clients[client].subscribe(self.now, about, &mut self.oracle, acts);
                self.act(client);
            }
            Op::Unsubscribe { client, filter } => {
                let acts = &mut self.acts;
                self.clients[client].unsubscribe(self.now, filter, &mut self.oracle, acts);
                self.act(client);
            }
            Op::Publish {
                client,
                topic,
                qos,
                retain,
                empty,
            } => {
                let topic = topic.to_owned();
                let (sends, acked_at) = (Vec::new(), None);
                let message = Published {
                    topic,
                    qos,
                    retain,
                    empty,
                    sends,
                    acked_at,
                };
                let acts = &mut self.acts;
                self.clients[client].publish(self.now, message, &mut self.oracle, acts);
                self.act(client);
            }
            Op::Kill(_)
            | Op::PowerOff(_)
            | Op::Blackout { .. }
            | Op::Start(_)
            | Op::Cut(..)
            | Op::Heal(..)
            | Op::ResetPeers(..)
            | Op::Hang { .. }
            | Op::Unhang(..)
            | Op::Join { .. }
            | Op::Leave(_)
            | Op::ForceLeave { .. }
            | Op::SetClock { .. }
            | Op::Pause(_)
            | Op::Resume(_)
            | Op::Lie { .. }
            | Op::Evict { .. }
            | Op::Disk { .. }
            | Op::ClusterHeal(_)
            | Op::Dns { .. } => self.operate_host(op),
        }
    }

    /// Does what concerns hosts and what is between them.
    fn operate_host(&mut self, op: &Op) {
        match *op {
            Op::Kill(host) => self.stop(host, false),
            Op::PowerOff(host) => self.stop(host, true),
            Op::Blackout { host, power } => self.blackout(host, power),
            Op::Start(host) => self.start(host),
            Op::Cut(a, b) => {
                self.network.cut(Place::Host(a), Place::Host(b));
                self.oracle.cut(self.now, a, b);
            }
            Op::Heal(a, b) => {
                self.network.heal(Place::Host(a), Place::Host(b));
                self.oracle.uncut(self.now, a, b);
            }
            Op::ResetPeers(a, b) => self.reset_peers(a, b),
            Op::Hang { a, b, data, pick } => self.hang((a, b), data, pick),
            Op::Unhang(a, b) => {
                self.network.resume(Place::Host(a), Place::Host(b));
                self.oracle.unhung(self.now, a, b);
            }
            Op::Join { host, target } => {
                let target = self.hosts[target].name.clone();
                self.operation(host, Operation::Join { target });
            }
            Op::Leave(host) => self.operation(host, Operation::Leave),
            Op::ForceLeave { host, target } => {
                let node = self.hosts[target].name.clone();
                self.operation(host, Operation::ForceLeave { node });
            }
            Op::SetClock { host, ahead_ms } => {
                self.hosts[host].skew_ms = ahead_ms;
                self.schedule(host);
            }
            Op::Pause(host) => self.pause(host),
            Op::Resume(host) => self.resume(host),
            Op::Lie { host, lies } => self.hosts[host].lied_to = lies,
            Op::Evict { host, connections } => {
                let sessions = EVICTED_SESSIONS;
                let input = NodeInput::Evict {
                    connections,
                    sessions,
                };
                self.tell(host, input);
            }
            Op::Disk { host, fails } => {
                self.hosts[host].disk.fail(fails);
                self.oracle.disk(self.now, host, fails);
            }
            Op::ClusterHeal(host) => self.operation(host, Operation::Heal),
            Op::Dns { host, fails } => {
                self.hosts[host].dns_fails = fails;
                if fails {
                    self.oracle.disturb(self.now, Cause::Dns, host, None);
                } else {
                    self.oracle.calm_again(self.now, Cause::Dns, host, None);
                }
            }
            Op::Connect { .. }
            | Op::Disconnect(_)
            | Op::ResetClient(_)
            | Op::Vanish(_)
            | Op::Subscribe { .. }
            | Op::Unsubscribe { .. }
            | Op::Publish { .. } => {}
        }
    }

    /// A process stops: what reaches it waits, and so does its time.
    fn pause(&mut self, host: usize) {
        let machine = &mut self.hosts[host];
        if machine.process.is_some() && machine.waiting.is_none() {
            machine.waiting = Some(Vec::new());
            self.oracle.disturb(self.now, Cause::Paused, host, None);
        }
    }

    fn resume(&mut self, host: usize) {
        let Some(waiting) = self.hosts[host].waiting.take() else {
            return;
        };
        self.oracle.calm_again(self.now, Cause::Paused, host, None);
        for input in waiting {
            self.tell(host, input);
        }
    }

    /// A client connects; what it had vanishes, is reset or is closed.
    fn connect(&mut self, client: usize, host: usize, clean: bool) {
        if let Some((attempt, _)) = self.clients[client].connection() {
            let end = End::Client { client, attempt };
            match self.rng.random_range(0..3) {
                0 => self.network.close(self.now, end, &mut self.rng),
                _ => self.network.vanish(end),
            }
        }
        let acts = &mut self.acts;
        self.clients[client].connect(self.now, (host, clean), &mut self.oracle, acts);
        self.act(client);
    }

    fn disconnect(&mut self, client: usize) {
        let acts = &mut self.acts;
        self.clients[client].disconnect(self.now, &mut self.oracle, acts);
        self.act(client);
    }

    /// A client's machine is gone, and does not come back by itself.
    fn vanish(&mut self, client: usize) {
        if let Some((attempt, _)) = self.clients[client].connection() {
            self.network.vanish(End::Client { client, attempt });
        }
        self.clients[client].vanished(self.now, &mut self.oracle);
    }

    /// A node dies together with the clients on it.
    fn blackout(&mut self, host: usize, power: bool) {
        for client in 0..self.clients.len() {
            let connection = self.clients[client].connection();
            if connection.is_some_and(|(_, on)| on == host) {
                self.vanish(client);
            }
        }
        self.stop(host, power);
    }

    fn reset_client(&mut self, client: usize) {
        let Some((attempt, _)) = self.clients[client].connection() else {
            return;
        };
        let end = End::Client { client, attempt };
        if let Some(arrival) = self.network.reset(self.now, end, &mut self.rng) {
            self.arrival(arrival);
        }
    }

    /// All connections between two hosts are reset; nobody may lose anything by it.
    fn reset_peers(&mut self, a: usize, b: usize) {
        self.oracle.disturb(self.now, Cause::Reset, a, Some(b));
        self.oracle.calm_again(self.now, Cause::Reset, a, Some(b));
        for end in self.network.ends_between(Place::Host(a), Place::Host(b)) {
            if let Some(arrival) = self.network.reset(self.now, end, &mut self.rng) {
                self.arrival(arrival);
            }
        }
    }

    /// One connection between two hosts hangs, of those for messages from the first to the second,
    /// or of the others.
    fn hang(&mut self, (a, b): (usize, usize), data: bool, pick: usize) {
        let Some(node) = self.hosts[a].node() else {
            return;
        };
        let (from, to) = (Place::Host(a), Place::Host(b));
        let mut ends = if data {
            self.network.ends_dialed(from, to)
        } else {
            self.network.ends_between(from, to)
        };
        ends.retain(|end| match end {
            End::Node { socket, .. } => node.is_data_link(*socket) == data,
            End::Client { .. } => false,
        });
        if let Some(end) = pick.checked_rem(ends.len()).map(|at| ends[at]) {
            self.trace.say(self.now, || format!("{end:?} hangs"));
            self.network.hang(end);
            let cause = if data { Cause::DataHung } else { Cause::Hung };
            self.oracle.disturb(self.now, cause, a, Some(b));
        }
    }

    fn operation(&mut self, host: usize, op: Operation) {
        if self.hosts[host].process.is_none() {
            return;
        }
        let id = self.operations.len() as u64 + 1;
        let at = self.now;
        let tries = 1;
        let on = self.oracle.life(host);
        self.operations.insert(
            id,
            Operated {
                host,
                op: op.clone(),
                at,
                done: None,
                on,
                tries,
            },
        );
        for moved in self.concerned(host, &op) {
            self.oracle
                .disturb(self.now, Cause::Operation(id), moved, None);
            self.oracle.moved(self.now, moved);
            if moved != host {
                self.oracle.exile(self.now, moved);
            }
        }
        self.tell(host, NodeInput::Operation { id, op });
    }

    /// Whose clients may notice an operation: the nodes that change their cluster.
    fn concerned(&self, host: usize, op: &Operation) -> Vec<usize> {
        match op {
            Operation::Join { .. } | Operation::Leave => vec![host],
            Operation::EnableDiscovery | Operation::Heal | Operation::Look { .. } => Vec::new(),
            Operation::ForceLeave { node } | Operation::Invite { node, .. } => self
                .hosts
                .iter()
                .filter(|h| h.name == *node)
                .map(|h| h.index)
                .collect(),
        }
    }

    pub(super) fn done(&mut self, host: usize, id: u64, result: Result<(), OperationError>) {
        let ok = u64::from(result.is_ok());
        self.trace.event("done", self.now, &[host as u64, id, ok]);
        self.trace.say(self.now, || match &result {
            Ok(()) => format!("n{host} operation {id} done"),
            Err(error) => format!("n{host} operation {id} failed: {error}"),
        });
        let Some(operated) = self.operations.get_mut(&id) else {
            return;
        };
        if operated.done.is_some() {
            let seen = format!("operation {id} on node {host} ended twice");
            self.faults.push(Violation::new("membership", seen));
        }
        let busy = matches!(result, Err(OperationError::Busy { .. }));
        operated.done = Some((self.now, result));
        let again = busy && operated.tries < JOIN_TRIES;
        let op = operated.op.clone();
        if again && matches!(op, Operation::Join { .. }) {
            let pause = self.rng.random_range(JOIN_PAUSE_MS / 2..JOIN_PAUSE_MS);
            self.push(self.now + pause, Event::Retry(id));
        } else {
            for moved in self.concerned(host, &op) {
                self.oracle
                    .calm_again(self.now, Cause::Operation(id), moved, None);
                self.oracle.moved(self.now, moved);
            }
        }
    }

    pub(super) fn retry(&mut self, id: u64) {
        let Some(operated) = self.operations.get_mut(&id) else {
            return;
        };
        let (host, op) = (operated.host, operated.op.clone());
        if self.hosts[host].process.is_none() {
            return;
        }
        operated.tries += 1;
        operated.done = None;
        for moved in self.concerned(host, &op) {
            self.oracle
                .disturb(self.now, Cause::Operation(id), moved, None);
        }
        self.tell(host, NodeInput::Operation { id, op });
    }

    // The end of the faults.

    /// Heals everything: links, look-ups, machines, processes; brings every client back.
    pub fn heal(&mut self) {
        self.trace.say(self.now, || "== faults end".to_owned());
        self.healed = true;
        self.network.heal_all();
        self.oracle.all_healed(self.now);
        for host in 0..self.hosts.len() {
            self.hosts[host].dns_fails = false;
            self.hosts[host].skew_ms = self.options.skew_ms[host];
            self.hosts[host].lied_to = false;
            self.hosts[host].disk.fail(false);
            self.oracle.disk(self.now, host, false);
            self.resume(host);
            self.start(host);
        }
        self.reset_half_open();
        for client in 0..self.clients.len() {
            if self.clients[client].connection().is_none() {
                let host = self.rng.random_range(0..self.hosts.len());
                self.connect(client, host, false);
            }
        }
    }

    /// Operators merge the sides of a split: on one node, or on each where there may be several
    /// clusters.
    pub fn merge(&mut self) {
        let faults = self.options.faults;
        let several = faults.membership || faults.storm || self.options.discovery;
        let hosts = if several {
            0..self.hosts.len()
        } else {
            let one = self.rng.random_range(0..self.hosts.len());
            one..one + 1
        };
        for host in hosts {
            self.operate(&Op::ClusterHeal(host));
        }
        self.oracle.merged(self.now);
    }

    /// Clients that never send anything do not notice that their node is gone.
    fn reset_half_open(&mut self) {
        for client in 0..self.clients.len() {
            let Some((attempt, _)) = self.clients[client].connection() else {
                continue;
            };
            let end = End::Client { client, attempt };
            if self.network.is_half_open(end) {
                self.reset_client(client);
            }
        }
    }
}
