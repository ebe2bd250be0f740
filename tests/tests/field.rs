//! Hosts with a node each, joined, whose network can be cut in any shape; and load on them that
//! remembers what it was promised.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, ensure};
use dunlin_tests::http::Api;
use dunlin_tests::{Client, Host, Installation, Lab, Node, lab, until};
use serde_json::Value;

/// How long the nodes of a field may take to see each other once nothing is in the way.
pub(crate) const WHOLE: Duration = Duration::from_secs(5);

/// How long a silent member may look alive.
pub(crate) const SEEN_DEAD: Duration = Duration::from_secs(6);

/// What is dropped from a full queue is no fault of the network's.
const UNBOUNDED: &str = "mqtt.max_mqueue_len = infinity";

/// Between two messages of a publisher.
const REST: Duration = Duration::from_millis(2);

/// An operator of every field, for the REST API.
const USER: (&str, &str) = ("watcher", "watcher-1234");

/// Hosts and their nodes.
pub(crate) struct Field {
    pub(crate) hosts: Vec<Host>,
    pub(crate) nodes: Vec<Node>,
}

impl Field {
    /// `count` nodes in one cluster, with this below their names in `emqx.conf`; `None` where the
    /// machine has no firewalls.
    pub(crate) fn joined(lab: &Lab, count: usize, conf: &str) -> Result<Option<Self>> {
        if !lab::has_firewalls("a network that loses packets") {
            return Ok(None);
        }
        let hosts: Vec<Host> = (1..=count)
            .map(|n| lab.host(&format!("s{n}")))
            .collect::<Result<_>>()?;
        let names: Vec<_> = hosts
            .iter()
            .map(|host| (format!("{}.emqx.io", host.name), host.ip))
            .collect();
        let known: Vec<_> = names
            .iter()
            .map(|(name, ip)| (name.as_str(), *ip))
            .collect();
        let mut nodes = Vec::new();
        for host in &hosts {
            host.knows(&known)?;
            let installation: Arc<Installation> = Installation::new()?;
            let name = format!("emqx@{}.emqx.io", host.name);
            installation.write_conf(&format!(
                "node {{ name = \"{name}\", cookie = \"emqxsecretcookie\", data_dir = \"data\" }}\n\
                 dashboard.listeners.http.bind = 18083\n{UNBOUNDED}\n{conf}\n"
            ))?;
            let node = Node::on(host, &installation, &name);
            node.start()?;
            nodes.push(node);
        }
        let field = Self { hosts, nodes };
        for node in &field.nodes[1..] {
            node.join(&field.nodes[0])?;
        }
        field.whole(WHOLE)?;
        let (user, password) = USER;
        field.nodes[0]
            .ctl(&["admins", "add", user, password])?
            .ok()?;
        Ok(Some(field))
    }

    /// All packets between these two are lost, both ways.
    pub(crate) fn cut(&self, a: usize, b: usize) -> Result<()> {
        self.cut_one_way(a, b)?;
        self.cut_one_way(b, a)
    }

    /// All packets from one to the other are lost.
    pub(crate) fn cut_one_way(&self, from: usize, to: usize) -> Result<()> {
        self.hosts[to].lose_packets_from(&self.hosts[from])
    }

    /// Every node of `left` is cut off from every node of `right`.
    pub(crate) fn split(&self, left: &[usize], right: &[usize]) -> Result<()> {
        for (a, b) in left.iter().flat_map(|a| right.iter().map(|b| (*a, *b))) {
            self.cut(a, b)?;
        }
        Ok(())
    }

    /// Nothing is lost any more.
    pub(crate) fn open(&self) -> Result<()> {
        self.hosts.iter().try_for_each(Host::open_ports)
    }

    /// Waits until every node shows all as running; returns how long the last one took.
    pub(crate) fn whole(&self, limit: Duration) -> Result<Duration> {
        let all: Vec<_> = (0..self.nodes.len()).collect();
        self.all_see(&all, &[], limit)
    }

    /// Waits until every node shows all as running and knows all tables as equal; returns how long
    /// that took.
    pub(crate) fn equal(&self, limit: Duration) -> Result<Duration> {
        let start = Instant::now();
        self.whole(limit)?;
        for node in &self.nodes {
            let what = format!("equal tables, as {} sees them", node.name);
            let left = limit.saturating_sub(start.elapsed());
            until(left, &what, || self.tables_are_equal(node))?;
        }
        Ok(start.elapsed())
    }

    fn tables_are_equal(&self, seen_by: &Node) -> Result<bool> {
        let args = ["cluster", "status", "--verbose", "--json"];
        let shown: Value = serde_json::from_str(&seen_by.ctl(&args)?.ok()?.stdout)?;
        let members = shown["members"].as_array().context("members")?;
        let tables: Vec<_> = members.iter().map(|m| &m["view"]["tables"]).collect();
        ensure!(tables.len() == self.nodes.len(), "{shown:#}");
        let first = tables.first().context("a member")?;
        ensure!(first.as_array().is_some_and(|t| !t.is_empty()), "{shown:#}");
        Ok(tables.iter().all(|table| table == first))
    }

    /// Waits until these nodes all show these as running and those as stopped.
    pub(crate) fn all_see(
        &self,
        running: &[usize],
        stopped: &[usize],
        limit: Duration,
    ) -> Result<Duration> {
        let start = Instant::now();
        let of = |nodes: &[usize]| nodes.iter().map(|n| &self.nodes[*n]).collect::<Vec<_>>();
        for node in of(running) {
            node.sees(&of(running), &of(stopped), limit)?;
        }
        Ok(start.elapsed())
    }

    /// The REST API of a node, logged in.
    pub(crate) fn api(&self, node: usize) -> Result<Api> {
        self.nodes[node].api().login(USER.0, USER.1)
    }

    pub(crate) fn none_restarted(&self) -> Result<()> {
        for node in &self.nodes {
            ensure!(node.lives(), "{} died:\n{}", node.name, node.log_tail());
        }
        Ok(())
    }
}

/// A publisher and a subscriber of everything on each node; each publishes at QoS 1, one message at
/// a time, with a little rest, so that a small machine has time for the rest.
pub(crate) struct Load {
    stop: Arc<AtomicBool>,
    publishers: Vec<JoinHandle<Result<Publisher>>>,
    subscribers: Vec<JoinHandle<Result<Vec<Vec<usize>>>>>,
}

/// A client, and when each of its messages was acknowledged.
type Publisher = (Client, Vec<Instant>);

/// What became of a load.
pub(crate) struct Delivered {
    /// By publisher: when each of its messages was acknowledged.
    pub(crate) acked: Vec<Vec<Instant>>,
    /// By subscriber, by publisher: how often each message arrived.
    arrived: Vec<Vec<Vec<usize>>>,
}

impl Load {
    pub(crate) fn start(nodes: &[Node]) -> Result<Self> {
        let count = nodes.len();
        let stop = Arc::new(AtomicBool::new(false));
        let mut subscribers = Vec::new();
        for (number, node) in nodes.iter().enumerate() {
            let mut client = node.connect(&format!("load-sub-{number}"))?;
            client.subscribe("load/#", 1)?;
            subscribers.push(thread::spawn(move || subscribe(client, count)));
        }
        let publishers = nodes.iter().enumerate().map(|(number, node)| {
            let (address, stop) = (node.tcp(), Arc::clone(&stop));
            thread::spawn(move || publish(address, number, &stop))
        });
        Ok(Self {
            publishers: publishers.collect(),
            stop,
            subscribers,
        })
    }

    /// Ends the load, once everybody can reach everybody.
    pub(crate) fn end(self) -> Result<Delivered> {
        self.stop.store(true, Ordering::Relaxed);
        let mut acked = Vec::new();
        for (number, publisher) in self.publishers.into_iter().enumerate() {
            let joined = publisher
                .join()
                .map_err(|_| anyhow!("a publisher panicked"))?;
            let (mut client, times) = joined.with_context(|| format!("publisher {number}"))?;
            client.publish(&topic(number), "end", 1, false)?;
            acked.push(times);
        }
        let mut arrived = Vec::new();
        for (number, subscriber) in self.subscribers.into_iter().enumerate() {
            let joined = subscriber
                .join()
                .map_err(|_| anyhow!("a subscriber panicked"))?;
            arrived.push(joined.with_context(|| format!("subscriber {number}"))?);
        }
        Ok(Delivered { acked, arrived })
    }
}

fn topic(publisher: usize) -> String {
    format!("load/{publisher}")
}

fn publish(address: SocketAddr, number: usize, stop: &AtomicBool) -> Result<Publisher> {
    let mut client = Client::connect(address, &format!("load-pub-{number}"), true)?;
    let mut acked = Vec::new();
    while !stop.load(Ordering::Relaxed) {
        client.publish(&topic(number), &acked.len().to_string(), 1, false)?;
        acked.push(Instant::now());
        thread::park_timeout(REST);
    }
    Ok((client, acked))
}

/// Counts what arrives until every publisher has said that it ends.
fn subscribe(mut client: Client, publishers: usize) -> Result<Vec<Vec<usize>>> {
    let mut arrived = vec![Vec::new(); publishers];
    let mut ended = BTreeSet::new();
    while ended.len() < publishers {
        let message = client.receive()?;
        let publisher: usize = message.topic.trim_start_matches("load/").parse()?;
        if message.payload == "end" {
            ended.insert(publisher);
            continue;
        }
        let number: usize = message.payload.parse()?;
        let counts: &mut Vec<usize> = &mut arrived[publisher];
        if counts.len() <= number {
            counts.resize(number + 1, 0);
        }
        counts[number] += 1;
    }
    client.ping()?;
    Ok(arrived)
}

impl Delivered {
    /// Acknowledged messages of this publisher that this subscriber never got, of those that were
    /// acknowledged at a time for which `when` holds.
    pub(crate) fn missing(
        &self,
        publisher: usize,
        subscriber: usize,
        when: impl Fn(Instant) -> bool,
    ) -> Vec<usize> {
        let arrived = &self.arrived[subscriber][publisher];
        let acked = self.acked[publisher].iter().enumerate();
        let missing = acked.filter(|(n, at)| when(**at) && arrived.get(*n).is_none_or(|c| *c == 0));
        missing.map(|(number, _)| number).collect()
    }

    /// Nothing acknowledged is missing between these two, at times for which `when` holds.
    pub(crate) fn complete(
        &self,
        (publisher, subscriber): (usize, usize),
        when: impl Fn(Instant) -> bool,
    ) -> Result<()> {
        let missing = self.missing(publisher, subscriber, when);
        ensure!(
            missing.is_empty(),
            "of {} messages acknowledged to publisher {publisher}, subscriber {subscriber} lacks \
             {}: {:?}",
            self.acked[publisher].len(),
            missing.len(),
            &missing[..missing.len().min(20)]
        );
        Ok(())
    }

    /// The longest time a publisher waited between two acknowledgements.
    pub(crate) fn longest_pause(&self, publisher: usize) -> Duration {
        let acked = &self.acked[publisher];
        let pauses = acked.windows(2).map(|pair| pair[1] - pair[0]);
        pauses.max().unwrap_or_default()
    }
}

/// Asks a node's API all the time, from a thread of its own; returns the slowest answer.
pub(crate) struct Watch {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<Result<Duration>>,
}

impl Watch {
    pub(crate) fn start(api: Api) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let seen = Arc::clone(&stop);
        let paths = [
            "/api/v5/nodes",
            "/api/v5/cluster",
            "/api/v5/clients",
            "/api/v5/subscriptions",
            "/api/v5/topics",
            "/api/v5/stats",
            "/api/v5/metrics",
        ];
        let thread = thread::spawn(move || {
            let mut slowest = Duration::ZERO;
            for path in paths.iter().cycle() {
                if seen.load(Ordering::Relaxed) {
                    break;
                }
                let start = Instant::now();
                api.get(path)?.status(200)?;
                slowest = slowest.max(start.elapsed());
                thread::park_timeout(Duration::from_millis(20));
            }
            Ok(slowest)
        });
        Self { stop, thread }
    }

    pub(crate) fn slowest(self) -> Result<Duration> {
        self.stop.store(true, Ordering::Relaxed);
        self.thread
            .join()
            .map_err(|_| anyhow!("the watcher panicked"))?
    }
}
