//! A seed becomes a world and a script: every option is drawn (swarm testing: each run has its own
//! mix, so that rare combinations are not averaged away), then what operators, clients and bad luck
//! do, each with its time.
//!
//! The script is data. It can be printed, and cut down while a failure stays.

use dunlin_mqtt::Version;
use rand::rngs::SmallRng;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};

use crate::client::Profile;
use crate::network::Conditions;

/// Most nodes of a run.
pub const NODES_MAX: usize = 7;
/// When the first faults may come, milliseconds: the cluster is formed and clients are there.
const FAULTS_FROM_MS: u64 = 5_000;
/// How long a split lasts where sides do not merge by themselves, milliseconds.
const SPLIT_MS: u64 = 13_000;
/// Makes whether clocks are set independent of a seed's other options.
const CLOCK_SEED: u64 = 0xc10c_0000_0000_0001;
/// Makes whether clients are given away independent of them.
const EVICT_SEED: u64 = 0xe71c_0000_0000_0001;
/// How far a wall clock is set at most, milliseconds: ten hours.
const CLOCK_MS: i64 = 36_000_000;
/// How long before a connection hangs clients come to the nodes at its ends, milliseconds.
const HANG_VISIT_MS: u64 = 1_500;
/// How soon after it hangs something is sent over it, and sessions move, milliseconds.
const HANG_MOVES_MS: u64 = 2_500;
/// Topics of what is sent then; they are filters as well.
const HANG_TOPICS: [&str; 3] = ["a/0", "a/1", "c"];
/// Topics of ordinary messages.
const TOPICS: [&str; 6] = ["a/0", "a/1", "a/2", "b/x/0", "b/x/1", "c"];
/// Topics whose messages are retained.
const RETAINED_TOPICS: [&str; 4] = ["r/0", "r/1", "r/2", "r/3"];
/// Topics of shared subscriptions.
const SHARED_TOPICS: [&str; 2] = ["s/0", "s/1"];
/// Filters of ordinary subscribers.
const FILTERS: [&str; 11] = [
    "a/0", "a/1", "a/2", "a/+", "b/#", "b/x/0", "b/+/1", "c", "r/+", "r/0", "s/0",
];
/// Filters of members of groups.
const SHARED_FILTERS: [&str; 3] = ["$share/g1/s/+", "$share/g2/s/0", "$share/g2/s/1"];

/// Filters of those who wait for wills; no two match one topic.
const WILL_FILTERS: [&str; 2] = ["w/+", "wr/+"];
/// When nodes die with their clients at the earliest, milliseconds: everybody knows all wills then.
const BLACKOUT_FROM_MS: u64 = 8_500;
/// How long before the end of a script the last one does: its wills come before the end.
const BLACKOUT_UNTIL_MS: u64 = 8_000;
/// How long a script with one is at least, milliseconds.
const BLACKOUT_SCRIPT_MS: u64 = 19_000;
/// How long before it clients come to the node, milliseconds.
const BLACKOUT_VISIT_MS: u64 = 3_000;

/// What may happen besides ordinary work.
#[derive(Clone, Copy, Debug, Default)]
pub struct Faults {
    /// Processes are killed and started again.
    pub kill: bool,
    /// Machines lose power.
    pub power: bool,
    /// Links between machines are cut, one way or both, for long or for a moment.
    pub cut: bool,
    /// Connections between nodes are reset.
    pub reset: bool,
    /// Client connections are reset, or their machines vanish.
    pub client: bool,
    /// Nodes leave, join and are removed.
    pub membership: bool,
    /// Name look-ups fail for a while.
    pub dns: bool,
    /// Wall clocks are set by hours, and set right later.
    pub clock: bool,
    /// Processes stop for a while, as under `SIGSTOP` or while a machine is moved.
    pub pause: bool,
    /// Several operators join, leave and remove nodes at one time.
    pub storm: bool,
    /// Answers of discovery leave nodes out, name some that never were, or do not come.
    pub lies: bool,
    /// Nodes send clients away and give their sessions to others.
    pub evict: bool,
    /// Disks fail to sync for a while.
    pub disk: bool,
    /// A node dies and takes its clients with it, while nothing else is wrong with nodes.
    pub blackout: bool,
    /// One connection between two nodes hangs, while all others are well.
    pub hang: bool,
}

/// Everything a seed decides before the first event.
#[derive(Clone, Debug)]
pub struct Options {
    /// The seed.
    pub seed: u64,
    /// Nodes.
    pub nodes: usize,
    /// Shards of each node.
    pub shards: u16,
    /// Clients.
    pub clients: Vec<Profile>,
    /// Members of groups among them, the last ones.
    pub group_members: usize,
    /// The network.
    pub conditions: Conditions,
    /// Time of a group commit, milliseconds.
    pub commit_ms: u64,
    /// What each node's wall clock is off, milliseconds.
    pub skew_ms: Vec<i64>,
    /// What goes wrong.
    pub faults: Faults,
    /// `cluster.autoheal`: whether the sides of a split merge by themselves.
    pub autoheal: bool,
    /// Whether nodes find each other by themselves; else operators join them.
    pub discovery: bool,
    /// Whether nodes join at the same moment.
    pub join_at_once: bool,
    /// Longest queue of a session.
    pub mqueue_len_max: u32,
    /// Length of the script, milliseconds.
    pub script_ms: u64,
    /// Operations in it.
    pub operations: usize,
}

/// One thing that happens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Op {
    /// A client connects, leaving its present connection behind without a word.
    Connect {
        /// Which.
        client: usize,
        /// To which host.
        host: usize,
        /// With a clean start.
        clean: bool,
    },
    /// It says DISCONNECT.
    Disconnect(usize),
    /// Its connection is reset.
    ResetClient(usize),
    /// Its machine vanishes; it does not come back by itself.
    Vanish(usize),
    /// It subscribes.
    Subscribe {
        /// Which.
        client: usize,
        /// The filter, `$share/` allowed.
        filter: &'static str,
        /// The quality of service asked for.
        qos: u8,
    },
    /// It unsubscribes.
    Unsubscribe {
        /// Which.
        client: usize,
        /// The filter.
        filter: &'static str,
    },
    /// It publishes.
    Publish {
        /// Which.
        client: usize,
        /// The topic.
        topic: &'static str,
        /// 0, 1 or 2.
        qos: u8,
        /// Whether it is to be retained.
        retain: bool,
        /// Whether it deletes what is retained.
        empty: bool,
    },
    /// The process of a host dies.
    Kill(usize),
    /// The power of a host goes.
    PowerOff(usize),
    /// A host's process dies, and the machines of the clients on it vanish with it.
    Blackout {
        /// Which host.
        host: usize,
        /// Whether it is its power that goes.
        power: bool,
    },
    /// The process of a host is started, if it does not run.
    Start(usize),
    /// One direction between two hosts is cut.
    Cut(usize, usize),
    /// It is healed.
    Heal(usize, usize),
    /// All connections between two hosts are reset.
    ResetPeers(usize, usize),
    /// One connection between two hosts carries nothing.
    Hang {
        /// One host.
        a: usize,
        /// The other one.
        b: usize,
        /// Whether it is one for messages.
        data: bool,
        /// Which of those, by number, beginning again past the last.
        pick: usize,
    },
    /// Those between two hosts carry again.
    Unhang(usize, usize),
    /// An operator joins a node to another one's cluster.
    Join {
        /// Which.
        host: usize,
        /// Whose cluster.
        target: usize,
    },
    /// An operator makes a node leave.
    Leave(usize),
    /// An operator removes a member.
    ForceLeave {
        /// On which node.
        host: usize,
        /// Whom.
        target: usize,
    },
    /// A host's wall clock is set.
    SetClock {
        /// Which.
        host: usize,
        /// How far it is ahead afterwards, milliseconds.
        ahead_ms: i64,
    },
    /// A process stops without ending.
    Pause(usize),
    /// It goes on.
    Resume(usize),
    /// What a host is told of other nodes is wrong, or right again.
    Lie {
        /// Which host.
        host: usize,
        /// Whether it is wrong.
        lies: bool,
    },
    /// A node gives some of its clients and sessions away.
    Evict {
        /// Which.
        host: usize,
        /// Clients of each shard it disconnects, at most.
        connections: usize,
    },
    /// What a host writes cannot be made durable, or can be again.
    Disk {
        /// Which host.
        host: usize,
        /// Whether its disk fails.
        fails: bool,
    },
    /// An operator merges the sides of a split.
    ClusterHeal(usize),
    /// Look-ups of a host fail, or work again.
    Dns {
        /// On which host.
        host: usize,
        /// Whether they fail.
        fails: bool,
    },
}

/// One line of a script.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    /// When, milliseconds.
    pub at: u64,
    /// What.
    pub op: Op,
}

/// How far the wall clocks of nodes are off, milliseconds.
fn skews(nodes: usize, rng: &mut SmallRng) -> Vec<i64> {
    let skewed = rng.random_bool(0.3);
    let skew = |_| {
        if skewed {
            rng.random_range(-5_000..=5_000)
        } else {
            0
        }
    };
    (0..nodes).map(skew).collect()
}

/// Whether nodes give clients away. The oracle knows where a session is by where its client was:
/// nothing may be lost with a node while sessions move without theirs.
fn evicts(seed: u64, faults: Faults) -> bool {
    let Faults {
        kill,
        power,
        cut,
        membership,
        pause,
        storm,
        disk,
        ..
    } = faults;
    let parts = kill || power || cut || membership || pause || storm || disk;
    !parts && SmallRng::seed_from_u64(seed ^ EVICT_SEED).random_bool(0.7)
}

/// Whether disks fail, and whether sides of a split merge by themselves.
fn newest(seed: u64, calm: bool, nodes: usize) -> (bool, bool) {
    let mut rng = SmallRng::seed_from_u64(seed ^ NEWEST);
    let disk = !calm && rng.random_bool(0.15);
    let autoheal = calm || nodes == 1 || !rng.random_bool(0.12);
    (disk, autoheal)
}

/// Whether single connections between nodes hang.
fn hangs(seed: u64) -> bool {
    SmallRng::seed_from_u64(seed ^ HANGS).random_bool(0.2)
}

/// The clients, and how many of them are of a shared group.
fn crowd(rng: &mut SmallRng) -> (Vec<Profile>, usize) {
    let ordinary = rng.random_range(2..=5);
    let group_members = if rng.random_bool(0.5) {
        rng.random_range(2..=4)
    } else {
        0
    };
    let clients = (0..ordinary + group_members).map(|n| profile(n, rng));
    (clients.collect(), group_members)
}

impl Options {
    /// What a seed stands for.
    pub fn draw(seed: u64) -> Self {
        let mut rng = SmallRng::seed_from_u64(seed);
        // What was added later is drawn apart, so that seeds without it stay the same histories.
        let mut more = SmallRng::seed_from_u64(seed ^ LATER);
        let nodes = *[1, 2, 2, 3, 3, 3, 4, 5]
            .choose(&mut rng)
            .expect("not empty");
        let nodes = if more.random_bool(0.04) {
            NODES_MAX
        } else {
            nodes
        };
        let calm = rng.random_bool(0.2);
        let mut rare = |p: f64| !calm && more.random_bool(p);
        let (pause, storm) = (rare(0.15), rare(0.08));
        let (discovery, lies) = (rare(0.15), rare(0.5));
        let (disk, autoheal) = newest(seed, calm, nodes);
        let mut chance = |p: f64| !calm && rng.random_bool(p);
        let mut faults = Faults {
            kill: chance(0.4),
            power: chance(0.2),
            cut: chance(0.5),
            reset: chance(0.3),
            client: chance(0.5),
            membership: chance(0.25),
            dns: chance(0.15),
            // Of a generator of its own, so that the other options of a seed stay what they were.
            clock: !calm && SmallRng::seed_from_u64(seed ^ CLOCK_SEED).random_bool(0.15),
            pause,
            storm,
            lies: discovery && lies,
            evict: false,
            disk,
            blackout: false,
            hang: !calm && nodes > 1 && hangs(seed),
        };
        faults.evict = autoheal && evicts(seed, faults);
        let (clients, group_members) = crowd(&mut rng);
        let skew_ms = skews(nodes, &mut rng);
        let delay_min_ms = rng.random_range(0..=3);
        let mut options = Self {
            seed,
            nodes,
            shards: rng.random_range(1..=3),
            clients,
            group_members,
            conditions: Conditions {
                delay_min_ms,
                delay_max_ms: delay_min_ms + *[0, 2, 10, 40].choose(&mut rng).expect("not empty"),
                give_up_ms: rng.random_range(4_000..=15_000),
                split: *[0.0, 0.02, 0.3].choose(&mut rng).expect("not empty"),
            },
            commit_ms: rng.random_range(1..=30),
            skew_ms,
            faults,
            autoheal,
            discovery,
            join_at_once: rng.random_bool(0.3),
            mqueue_len_max: *[20, 1_000].choose(&mut rng).expect("not empty"),
            script_ms: rng.random_range(12_000..=30_000),
            operations: rng.random_range(60..=200),
        };
        if nodes > 1 && SmallRng::seed_from_u64(seed ^ WILLS).random_bool(0.15) {
            options.black_out();
        }
        options
    }

    /// Makes it a run in which a node dies with its clients. What the others do for the dead is
    /// promised only while they are well, and has to have the time.
    fn black_out(&mut self) {
        self.faults = Faults {
            blackout: true,
            client: self.faults.client,
            ..Faults::default()
        };
        (self.autoheal, self.discovery) = (true, false);
        self.mqueue_len_max = 1_000;
        self.script_ms = self.script_ms.max(BLACKOUT_SCRIPT_MS);
    }

    /// Whether the nodes' wall clocks differ, or will.
    pub fn is_skewed(&self) -> bool {
        self.faults.clock || self.skew_ms.iter().any(|skew| *skew != self.skew_ms[0])
    }

    /// The ordinary clients' number; the others are members of groups.
    pub fn ordinary(&self) -> usize {
        self.clients.len() - self.group_members
    }

    /// The script of these options, in order of time.
    pub fn script(&self) -> Vec<Step> {
        let rng = SmallRng::seed_from_u64(self.seed ^ 0x5eed_5c41_97b2_0001);
        let mut writer = Writer {
            options: self,
            rng,
            steps: Vec::new(),
        };
        writer.beginnings();
        for _ in 0..self.operations {
            writer.work();
        }
        writer.faults();
        writer.rng = SmallRng::seed_from_u64(self.seed ^ LATER);
        writer.later_faults();
        writer.rng = SmallRng::seed_from_u64(self.seed ^ EVICT_SEED);
        writer.evictions();
        writer.rng = SmallRng::seed_from_u64(self.seed ^ NEWEST);
        writer.newest_faults();
        writer.rng = SmallRng::seed_from_u64(self.seed ^ WILLS ^ 1);
        writer.watchers();
        writer.deaths();
        writer.rng = SmallRng::seed_from_u64(self.seed ^ HANGS ^ 1);
        writer.hangs();
        let mut steps = writer.steps;
        steps.sort_by_key(|step| step.at);
        steps
    }
}

fn profile(n: usize, rng: &mut SmallRng) -> Profile {
    let version = *[Version::V3_1_1, Version::V5, Version::V5, Version::V3_1]
        .choose(rng)
        .expect("not empty");
    Profile {
        clientid: format!("c{n}"),
        version,
        // CONNACK of MQTT 3.1 does not say whether a session was present.
        persistent: version != Version::V3_1 && rng.random_bool(0.6),
        keepalive_s: *[0, 5, 10, 60].choose(rng).expect("not empty"),
        receive_maximum: *[2, 5, 100].choose(rng).expect("not empty"),
        ack_delay_ms: *[0, 0, 5, 50, 400].choose(rng).expect("not empty"),
    }
}

/// What tells the generator of later additions from the first one.
const LATER: u64 = 0x1a7e_5c41_97b2_0002;
/// The same for what was added after those.
const NEWEST: u64 = 0x4e3e_5c41_97b2_0003;
/// The same for subscribers of wills, and what makes wills due.
const WILLS: u64 = 0x0111_5c41_97b2_0004;
/// The same for connections that hang.
const HANGS: u64 = 0x4a46_5c41_97b2_0005;

/// Draws the steps of one script.
struct Writer<'a> {
    options: &'a Options,
    rng: SmallRng,
    steps: Vec<Step>,
}

/// Writes one kind of fault into the script, at a time.
type Fault<'a> = fn(&mut Writer<'a>, u64);

impl Writer<'_> {
    fn at(&mut self, at: u64, op: Op) {
        self.steps.push(Step { at, op });
    }

    fn host(&mut self) -> usize {
        self.rng.random_range(0..self.options.nodes)
    }

    fn client(&mut self) -> usize {
        self.rng.random_range(0..self.options.clients.len())
    }

    fn one<T: Copy>(&mut self, of: &[T]) -> T {
        *of.choose(&mut self.rng).expect("not empty")
    }

    /// Nodes start and join, clients connect and subscribe.
    fn beginnings(&mut self) {
        for host in 0..self.options.nodes {
            let at = self.rng.random_range(0..200);
            self.at(at, Op::Start(host));
            if host > 0 && !self.options.discovery {
                let later = if self.options.join_at_once {
                    0
                } else {
                    600 * host as u64
                };
                self.at(300 + later, Op::Join { host, target: 0 });
            }
        }
        for client in 0..self.options.clients.len() {
            let host = self.host();
            let at = self.rng.random_range(400..3_500);
            self.at(
                at,
                Op::Connect {
                    client,
                    host,
                    clean: false,
                },
            );
            for _ in 0..self.rng.random_range(1..=2) {
                let (filter, qos) = self.subscription(client);
                self.at(
                    at + 1,
                    Op::Subscribe {
                        client,
                        filter,
                        qos,
                    },
                );
            }
        }
    }

    /// Members of groups have shared subscriptions only, so that who got a message for which
    /// subscription is never in doubt.
    fn subscription(&mut self, client: usize) -> (&'static str, u8) {
        let shared = client >= self.options.ordinary();
        let filter = if shared {
            self.one(&SHARED_FILTERS)
        } else {
            self.one(&FILTERS)
        };
        (filter, self.rng.random_range(0..=2))
    }

    fn work(&mut self) {
        let at = self.rng.random_range(2_000..self.options.script_ms);
        let client = self.client();
        let op = match self.rng.random_range(0..100) {
            0..70 => self.publish(client),
            70..82 => {
                let (filter, qos) = self.subscription(client);
                Op::Subscribe {
                    client,
                    filter,
                    qos,
                }
            }
            82..86 => {
                let (filter, _) = self.subscription(client);
                Op::Unsubscribe { client, filter }
            }
            86..94 => {
                let host = self.host();
                Op::Connect {
                    client,
                    host,
                    clean: self.rng.random_bool(0.15),
                }
            }
            94..97 => {
                let host = self.host();
                let back = at + self.rng.random_range(100..3_000);
                self.at(
                    back,
                    Op::Connect {
                        client,
                        host,
                        clean: false,
                    },
                );
                Op::Disconnect(client)
            }
            _ => self.burst(at, client),
        };
        self.at(at, op);
    }

    fn publish(&mut self, client: usize) -> Op {
        let qos = self.rng.random_range(0..=2);
        match self.rng.random_range(0..10) {
            0..6 => {
                let topic = self.one(&TOPICS);
                Op::Publish {
                    client,
                    topic,
                    qos,
                    retain: false,
                    empty: false,
                }
            }
            6..8 => {
                let topic = self.one(&SHARED_TOPICS);
                Op::Publish {
                    client,
                    topic,
                    qos,
                    retain: false,
                    empty: false,
                }
            }
            _ => {
                let topic = self.one(&RETAINED_TOPICS);
                let empty = self.rng.random_bool(0.25);
                Op::Publish {
                    client,
                    topic,
                    qos,
                    retain: true,
                    empty,
                }
            }
        }
    }

    /// Several messages at once to one topic: windows fill, queues grow, order shows.
    fn burst(&mut self, at: u64, client: usize) -> Op {
        let op = self.publish(client);
        for _ in 0..self.rng.random_range(4..20) {
            self.at(at, op.clone());
        }
        op
    }

    fn faults(&mut self) {
        let faults = self.options.faults;
        let nodes = self.options.nodes;
        if self.options.script_ms < FAULTS_FROM_MS + 3_000 {
            return;
        }
        let kinds: [(bool, Fault<'_>); 8] = [
            (faults.kill, Self::kill),
            (faults.power, Self::power),
            (faults.cut && nodes > 1, Self::cut),
            (faults.reset && nodes > 1, Self::reset_peers),
            (faults.client, Self::client_fault),
            (faults.membership && nodes > 1, Self::membership),
            (faults.dns && nodes > 1, Self::dns),
            (faults.clock, Self::clock),
        ];
        for (_, fault) in kinds.into_iter().filter(|(on, _)| *on) {
            for _ in 0..self.rng.random_range(1..=3) {
                let at = self
                    .rng
                    .random_range(FAULTS_FROM_MS..self.options.script_ms);
                fault(self, at);
            }
        }
    }

    /// Those drawn apart; see [`Options::draw`].
    fn later_faults(&mut self) {
        let faults = self.options.faults;
        let nodes = self.options.nodes;
        if self.options.script_ms < FAULTS_FROM_MS + 3_000 {
            return;
        }
        let kinds: [(bool, Fault<'_>); 3] = [
            (faults.pause, Self::pause),
            (faults.storm && nodes > 1, Self::storm),
            (faults.lies && nodes > 1, Self::lie),
        ];
        for (_, fault) in kinds.into_iter().filter(|(on, _)| *on) {
            for _ in 0..self.rng.random_range(1..=3) {
                let until = self.options.script_ms;
                let at = self.rng.random_range(FAULTS_FROM_MS..until);
                fault(self, at);
            }
        }
    }

    /// With and without clients, and sometimes so that nodes give the same sessions to each other.
    fn evictions(&mut self) {
        let options = self.options;
        if !options.faults.evict || options.nodes < 2 {
            return;
        }
        for _ in 0..self.rng.random_range(2..=8) {
            let at = self.rng.random_range(FAULTS_FROM_MS..options.script_ms);
            let host = self.host();
            let connections = self.one(&[0, 0, 1, 3]);
            let evict = Op::Evict { host, connections };
            self.at(at, evict.clone());
            let again = at + self.one(&[0, 10, 500, 2_000]);
            self.at(again, evict);
        }
    }

    /// What was added last, drawn apart as well.
    fn newest_faults(&mut self) {
        let options = self.options;
        let (from, until) = (FAULTS_FROM_MS, options.script_ms);
        for _ in 0..self.rng.random_range(1..=2) {
            let at = self.rng.random_range(from..until);
            if !options.autoheal {
                self.split(at);
            }
            if options.faults.disk {
                self.disk(at);
            }
        }
    }

    /// One connection hangs, and sessions move meanwhile from a node it leads to.
    fn hangs(&mut self) {
        let options = self.options;
        if !options.faults.hang {
            return;
        }
        for _ in 0..self.rng.random_range(2..=4) {
            let at = self.rng.random_range(FAULTS_FROM_MS..options.script_ms);
            let (a, b) = self.pair();
            // Where sessions are given away the oracle does not know who has one when nodes part.
            let data = options.faults.evict || self.rng.random_bool(0.7);
            let pick = self.rng.random_range(0..64);
            self.at(at, Op::Hang { a, b, data, pick });
            let long = self.rng.random_range(2_000..=10_000);
            self.at(at + long, Op::Unhang(a, b));
            self.moves_meanwhile(at, (a, b));
        }
    }

    /// A client of the second node hears one of the first, and moves when something has hung.
    fn moves_meanwhile(&mut self, at: u64, (a, b): (usize, usize)) {
        let clients = self.options.clients.len();
        let to = self.rng.random_range(0..self.options.ordinary());
        let from = (to + self.rng.random_range(1..clients)) % clients;
        let topic = self.one(&HANG_TOPICS);
        let clean = false;
        for (client, host) in [(from, a), (to, b)] {
            let before = at - HANG_VISIT_MS;
            self.at(
                before,
                Op::Connect {
                    client,
                    host,
                    clean,
                },
            );
        }
        let (client, filter, qos) = (to, topic, self.rng.random_range(1..=2));
        let before = at - HANG_VISIT_MS / 2;
        self.at(
            before,
            Op::Subscribe {
                client,
                filter,
                qos,
            },
        );
        for _ in 0..self.rng.random_range(3..=8) {
            let op = Op::Publish {
                client: from,
                topic,
                qos: self.rng.random_range(1..=2),
                retain: false,
                empty: false,
            };
            let at = at + self.rng.random_range(0..HANG_MOVES_MS);
            self.at(at, op);
        }
        let host = self.host();
        let moves = at + self.rng.random_range(0..HANG_MOVES_MS);
        self.at(
            moves,
            Op::Connect {
                client,
                host,
                clean,
            },
        );
    }

    /// Who subscribes to wills.
    fn watchers(&mut self) {
        for client in 0..self.options.clients.len() {
            for filter in WILL_FILTERS {
                if self.rng.random_bool(0.6) {
                    let at = self.rng.random_range(400..4_000);
                    let qos = self.one(&[0, 1, 1, 2, 2]);
                    self.at(
                        at,
                        Op::Subscribe {
                            client,
                            filter,
                            qos,
                        },
                    );
                }
            }
        }
    }

    /// Clients vanish, alone or with their node.
    fn deaths(&mut self) {
        let Options {
            faults, script_ms, ..
        } = *self.options;
        if faults.client {
            for _ in 0..self.rng.random_range(1..=3) {
                let at = self.rng.random_range(FAULTS_FROM_MS..script_ms);
                let client = self.client();
                self.at(at, Op::Vanish(client));
            }
        }
        let late = script_ms.checked_sub(BLACKOUT_UNTIL_MS);
        let Some(until) = late.filter(|until| *until > BLACKOUT_FROM_MS) else {
            return;
        };
        if faults.blackout {
            let at = self.rng.random_range(BLACKOUT_FROM_MS..until);
            let host = self.host();
            let power = self.rng.random_bool(0.2);
            for _ in 0..3 {
                let client = self.client();
                let visit = Op::Connect {
                    client,
                    host,
                    clean: false,
                };
                self.at(at - BLACKOUT_VISIT_MS, visit);
            }
            self.at(at, Op::Blackout { host, power });
            let back = at + self.one(&[50, 1_000, 3_000, 8_000]);
            self.at(back, Op::Start(host));
        }
    }

    /// One side against the other, for so long that both give each other up.
    fn split(&mut self, at: u64) {
        let side: Vec<bool> = (0..self.options.nodes)
            .map(|_| self.rng.random_bool(0.5))
            .collect();
        let pairs = (0..side.len()).flat_map(|a| (0..side.len()).map(move |b| (a, b)));
        let across: Vec<_> = pairs.filter(|&(a, b)| side[a] != side[b]).collect();
        self.cut_for(at, SPLIT_MS, &across);
    }

    fn disk(&mut self, at: u64) {
        let host = self.host();
        let long = self.one(&[300, 3_000, 9_000]);
        self.at(at, Op::Disk { host, fails: true });
        self.at(at + long, Op::Disk { host, fails: false });
        if self.rng.random_bool(0.3) {
            let dies = at + self.rng.random_range(0..=long);
            self.at(dies, Op::Kill(host));
            self.at(at + long + 1_000, Op::Start(host));
        }
    }

    fn pause(&mut self, at: u64) {
        let host = self.host();
        let long = self.one(&[50, 900, 1_400, 3_000, 8_000]);
        self.at(at, Op::Pause(host));
        self.at(at + long, Op::Resume(host));
    }

    /// Operators who do not know of each other, within a moment.
    fn storm(&mut self, at: u64) {
        let within = self.one(&[0, 5, 100, 2_000]);
        for _ in 0..self.rng.random_range(3..=8) {
            let (a, b) = self.pair();
            let at = at + self.rng.random_range(0..=within);
            match self.rng.random_range(0..5) {
                0 => self.at(at, Op::Leave(a)),
                1 => self.at(at, Op::ForceLeave { host: a, target: b }),
                2 => {
                    self.at(at, Op::ForceLeave { host: a, target: b });
                    self.at(at, Op::ForceLeave { host: b, target: a });
                }
                _ => self.at(at, Op::Join { host: a, target: b }),
            }
        }
    }

    /// From the beginning, when it matters most, or later.
    fn lie(&mut self, at: u64) {
        let host = self.host();
        let at = if self.rng.random_bool(0.5) { 0 } else { at };
        let long = self.one(&[3_000, 9_000, 30_000]);
        self.at(at, Op::Lie { host, lies: true });
        self.at(at + long, Op::Lie { host, lies: false });
    }

    fn kill(&mut self, at: u64) {
        let host = self.host();
        self.at(at, Op::Kill(host));
        let back = at + self.one(&[1, 50, 500, 4_000, 12_000]);
        self.at(back, Op::Start(host));
    }

    fn power(&mut self, at: u64) {
        let host = self.host();
        self.at(at, Op::PowerOff(host));
        let back = at + self.one(&[500, 3_000, 10_000]);
        self.at(back, Op::Start(host));
    }

    fn pair(&mut self) -> (usize, usize) {
        let a = self.host();
        let b = (a + self.rng.random_range(1..self.options.nodes)) % self.options.nodes;
        (a, b)
    }

    fn cut(&mut self, at: u64) {
        let long = self.one(&[200, 1_000, 4_000, 10_000]);
        match self.rng.random_range(0..4) {
            0 => {
                let (a, b) = self.pair();
                self.cut_for(at, long, &[(a, b)]);
            }
            1 => {
                let (a, b) = self.pair();
                self.cut_for(at, long, &[(a, b), (b, a)]);
            }
            2 => {
                // One side against the other.
                let side: Vec<bool> = (0..self.options.nodes)
                    .map(|_| self.rng.random_bool(0.5))
                    .collect();
                let pairs = (0..side.len()).flat_map(|a| (0..side.len()).map(move |b| (a, b)));
                let across: Vec<_> = pairs.filter(|&(a, b)| side[a] != side[b]).collect();
                self.cut_for(at, long, &across);
            }
            _ => {
                // Flapping.
                let (a, b) = self.pair();
                let period = self.one(&[100, 700, 2_500]);
                for turn in 0..5 {
                    self.cut_for(at + turn * 2 * period, period, &[(a, b), (b, a)]);
                }
            }
        }
    }

    fn cut_for(&mut self, at: u64, long: u64, pairs: &[(usize, usize)]) {
        for &(a, b) in pairs {
            self.at(at, Op::Cut(a, b));
            self.at(at + long, Op::Heal(a, b));
        }
    }

    fn reset_peers(&mut self, at: u64) {
        let (a, b) = self.pair();
        self.at(at, Op::ResetPeers(a, b));
    }

    fn client_fault(&mut self, at: u64) {
        let client = self.client();
        self.at(at, Op::ResetClient(client));
    }

    fn membership(&mut self, at: u64) {
        let (a, b) = self.pair();
        match self.rng.random_range(0..4) {
            0 => self.at(at, Op::Leave(a)),
            1 => self.at(at, Op::ForceLeave { host: a, target: b }),
            2 => self.at(at, Op::Join { host: a, target: b }),
            _ => {
                self.at(at, Op::Leave(a));
                let back = at + self.one(&[10, 1_000, 3_000]);
                self.at(back, Op::Join { host: a, target: b });
            }
        }
    }

    fn clock(&mut self, at: u64) {
        let host = self.host();
        let ahead_ms = self.rng.random_range(-CLOCK_MS..=CLOCK_MS);
        self.at(at, Op::SetClock { host, ahead_ms });
        let back = at + self.one(&[1, 1_000, 8_000]);
        let ahead_ms = self.options.skew_ms[host];
        self.at(back, Op::SetClock { host, ahead_ms });
    }

    fn dns(&mut self, at: u64) {
        let host = self.host();
        self.at(at, Op::Dns { host, fails: true });
        let back = at + self.one(&[1_000, 6_000]);
        self.at(back, Op::Dns { host, fails: false });
    }
}
