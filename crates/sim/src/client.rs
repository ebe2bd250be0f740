//! A client that follows the specification, MQTT 3.1, 3.1.1 or 5.
//!
//! It connects, subscribes, publishes, acknowledges, comes back after a lost connection, sends
//! again what was not acknowledged, and writes down in the oracle what it was promised and what
//! it got. Whatever a node sends is decoded strictly: bytes that no server may send are a fault.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::num::NonZeroU16;

use bytes::{Bytes, BytesMut};
use dunlin_mqtt::{
    Ack, AckKind, Connack, Connect, Disconnect, Limits, Packet, Publish, QoS, Reason, Suback,
    Subscribe, SubscriptionOptions, TopicFilter, TopicName, Unsubscribe, Version, Will, decode,
};
use rand::rngs::SmallRng;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};

use crate::oracle::{Delivered, MessageId, Oracle, Promise, Published};
use crate::violation::Violation;
use crate::wills::{Answer, Connecting, Left, Parting, WillGot, WillId};
use crate::workload::Options;

/// Unacknowledged publishes a client has at once.
const INFLIGHT_MAX: usize = 8;
/// Publishes a client keeps while it is not connected.
const BACKLOG_MAX: usize = 32;
/// How long a client waits for CONNACK and PINGRESP, milliseconds.
const ANSWER_MS: u64 = 6_000;
/// Session expiry asked for by persistent MQTT 5 clients, seconds; longer than any run.
const EXPIRY_S: u32 = 3_600;
/// How many of the CONNECTs bring a will, and how many where a node takes its clients with it.
const WILLS: f64 = 0.35;
const WILLS_OF_THE_DOOMED: f64 = 0.8;
/// Topics of wills.
const WILL_TOPICS: [&str; 2] = ["w/0", "w/1"];
/// Topics of wills that are retained.
const KEPT_WILL_TOPICS: [&str; 2] = ["wr/0", "wr/1"];
/// Makes what wills are like independent of everything else.
const WILL_SEED: u64 = 0x0111_5eed_0000_0001;

/// The kind of client it is.
#[derive(Clone, Debug)]
pub struct Profile {
    /// Client identifier.
    pub clientid: String,
    /// Protocol version.
    pub version: Version,
    /// Whether its session outlives the connection.
    pub persistent: bool,
    /// Keepalive; 0 none.
    pub keepalive_s: u16,
    /// Receive Maximum (MQTT 5).
    pub receive_maximum: u16,
    /// How long it takes to acknowledge.
    pub ack_delay_ms: u64,
}

/// What a client wants done.
#[derive(Debug)]
pub enum Act {
    /// Open connection number `attempt` to a host.
    Dial(u64, usize),
    /// Write.
    Send(u64, Bytes),
    /// Close in order.
    Close(u64),
    /// Wake it at a time.
    Wake(u64, Alarm),
    /// Put a line into the trace.
    Say(String),
}

/// What a client wants to be woken for.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Alarm {
    /// Try to connect.
    Connect,
    /// CONNACK or PINGRESP should be there by now.
    Answer {
        /// The connection.
        attempt: u64,
        /// Value of the counter of answers when it was asked.
        answers: u64,
    },
    /// Send PINGREQ.
    Ping(u64),
    /// Acknowledge.
    Acknowledge(u64, u16, Step),
}

/// Which acknowledgement is due.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Step {
    /// PUBACK.
    Puback,
    /// PUBREC.
    Pubrec,
    /// PUBCOMP.
    Pubcomp,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Off,
    Dialing,
    Asked { at: u64 },
    Up,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Out {
    pid: NonZeroU16,
    id: MessageId,
    released: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Asked {
    Subscribe { filter: String, at: u64 },
    Unsubscribe,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Wanted {
    qos: u8,
    granted: bool,
}

/// One simulated client.
#[derive(Debug)]
pub struct Client {
    /// Its number.
    pub index: usize,
    /// What kind it is.
    pub profile: Profile,
    state: State,
    wants_connection: bool,
    clean_next: bool,
    /// Whether the present session ends with the connection.
    ephemeral: bool,
    attempt: u64,
    host: usize,
    unread: BytesMut,
    answers: u64,
    session: u32,
    wanted: BTreeMap<String, Wanted>,
    ever_asked: BTreeSet<String>,
    /// Given up before SUBACK: nobody knows whether, and for what, they have held.
    doubtful: BTreeSet<String>,
    asked: BTreeMap<u16, Asked>,
    out: Vec<Out>,
    backlog: VecDeque<MessageId>,
    /// Incoming `QoS` 2 whose PUBREL has not come.
    incoming: BTreeSet<u16>,
    /// Incoming messages that are not acknowledged completely.
    unacked: BTreeSet<u16>,
    last_pid: u16,
    taken_over: u32,
    /// How many unacknowledged publishes the node takes.
    window: usize,
    /// Decides about its wills.
    wills: SmallRng,
    will_chance: f64,
    /// Whether it tells what it gets and sends.
    pub chatty: bool,
}

impl Client {
    /// A client that is not connected.
    pub fn new(index: usize, profile: Profile, options: &Options) -> Self {
        let seed = options.seed ^ WILL_SEED ^ ((index as u64) << 32);
        Self {
            index,
            profile,
            state: State::Off,
            wants_connection: false,
            clean_next: false,
            ephemeral: false,
            attempt: 0,
            host: 0,
            unread: BytesMut::new(),
            answers: 0,
            session: 0,
            wanted: BTreeMap::new(),
            ever_asked: BTreeSet::new(),
            doubtful: BTreeSet::new(),
            asked: BTreeMap::new(),
            out: Vec::new(),
            backlog: VecDeque::new(),
            incoming: BTreeSet::new(),
            unacked: BTreeSet::new(),
            last_pid: 0,
            taken_over: 0,
            window: INFLIGHT_MAX,
            wills: SmallRng::seed_from_u64(seed),
            will_chance: if options.faults.blackout {
                WILLS_OF_THE_DOOMED
            } else {
                WILLS
            },
            chatty: false,
        }
    }

    /// Whether CONNACK said yes and the connection stands.
    pub fn is_up(&self) -> bool {
        self.state == State::Up
    }

    /// Whether it is connected and nothing it asked for is unanswered.
    pub fn is_idle(&self) -> bool {
        self.is_up()
            && self.out.is_empty()
            && self.backlog.is_empty()
            && self.asked.is_empty()
            && self.unacked.is_empty()
    }

    /// The connection it uses and the host it leads to.
    pub fn connection(&self) -> Option<(u64, usize)> {
        (self.state != State::Off).then_some((self.attempt, self.host))
    }

    /// Filters it has asked for.
    pub fn filters(&self) -> impl Iterator<Item = &str> {
        self.wanted.keys().map(String::as_str)
    }

    /// Filters it gave up before SUBACK.
    pub fn doubtful(&self) -> impl Iterator<Item = &str> {
        self.doubtful.iter().map(String::as_str)
    }

    /// Filters it has ever asked for, whatever the answer was or became.
    pub fn ever_asked(&self) -> impl Iterator<Item = &str> {
        self.ever_asked.iter().map(String::as_str)
    }

    /// Times a node told it that another connection took its session.
    pub fn taken_over(&self) -> u32 {
        self.taken_over
    }

    fn send(&self, packet: &Packet, acts: &mut Vec<Act>) {
        let mut bytes = BytesMut::new();
        packet.encode(self.profile.version, &mut bytes);
        if self.chatty {
            acts.push(Act::Say(format!(
                "c{} sends {}",
                self.index,
                summary(packet)
            )));
        }
        acts.push(Act::Send(self.attempt, bytes.freeze()));
    }

    fn pid(&mut self) -> NonZeroU16 {
        loop {
            self.last_pid = self.last_pid.checked_add(1).unwrap_or(1);
            let Some(pid) = NonZeroU16::new(self.last_pid) else {
                continue;
            };
            let used = self.out.iter().any(|out| out.pid == pid);
            if !used && !self.asked.contains_key(&pid.get()) {
                return pid;
            }
        }
    }

    // What the workload asks for.

    /// Connects to a host, leaving a present connection behind without a word.
    pub fn connect(
        &mut self,
        now: u64,
        (host, clean): (usize, bool),
        oracle: &mut Oracle,
        acts: &mut Vec<Act>,
    ) {
        if self.state != State::Off {
            self.lost(now, Parting::Vanished, oracle);
        }
        self.wants_connection = true;
        // A clean start that was begun may have reached the node: it is begun until it is done.
        self.clean_next |= clean;
        self.dial(host, acts);
    }

    fn dial(&mut self, host: usize, acts: &mut Vec<Act>) {
        self.attempt += 1;
        self.host = host;
        self.state = State::Dialing;
        acts.push(Act::Dial(self.attempt, host));
    }

    /// Says DISCONNECT and stays away until told to connect.
    pub fn disconnect(&mut self, now: u64, oracle: &mut Oracle, acts: &mut Vec<Act>) {
        self.wants_connection = false;
        let mut how = Parting::Closed;
        if self.state == State::Up {
            // Only MQTT 5 can say goodbye and have its will published.
            let with_will = self.profile.version.is_v5() && self.wills.random_bool(0.3);
            let reason = if with_will {
                Reason::DisconnectWithWill
            } else {
                how = Parting::Clean;
                Reason::Success
            };
            self.send(&Packet::Disconnect(Disconnect::new(reason)), acts);
        }
        if self.state != State::Off {
            acts.push(Act::Close(self.attempt));
        }
        self.lost(now, how, oracle);
    }

    /// Its machine vanishes, and stays away until it is told to connect.
    pub fn vanished(&mut self, now: u64, oracle: &mut Oracle) {
        self.wants_connection = false;
        if self.state != State::Off {
            self.lost(now, Parting::Vanished, oracle);
        }
    }

    /// Asks for a subscription.
    pub fn subscribe(
        &mut self,
        now: u64,
        (filter, qos): (&str, u8),
        oracle: &mut Oracle,
        acts: &mut Vec<Act>,
    ) {
        // A second subscription of the same filter replaces the first with all its options, also
        // one whose SUBACK is still to come.
        self.forget_asked(filter);
        let (bare, group) = split_filter(filter);
        oracle.unsubscribing(self.index, bare, group, now);
        self.wanted.insert(
            filter.to_owned(),
            Wanted {
                qos,
                granted: false,
            },
        );
        if self.state == State::Up {
            self.ask_for(now, filter, acts);
        }
    }

    /// No SUBACK for a filter is waited for any more. Whether one was.
    fn forget_asked(&mut self, filter: &str) -> bool {
        let before = self.asked.len();
        self.asked.retain(
            |_, asked| !matches!(asked, Asked::Subscribe { filter: of, .. } if of == filter),
        );
        self.asked.len() < before
    }

    fn ask_for(&mut self, now: u64, filter: &str, acts: &mut Vec<Act>) {
        let Some(wanted) = self.wanted.get(filter).copied() else {
            return;
        };
        self.ever_asked.insert(filter.to_owned());
        let pid = self.pid();
        self.asked.insert(
            pid.get(),
            Asked::Subscribe {
                filter: filter.to_owned(),
                at: now,
            },
        );
        let options = SubscriptionOptions::with_qos(grade(wanted.qos));
        let subscribe = Subscribe {
            packet_id: pid,
            properties: dunlin_mqtt::Properties::new(),
            filters: vec![(TopicFilter::new(filter), options)],
        };
        self.send(&Packet::Subscribe(subscribe), acts);
    }

    /// Gives a subscription up.
    pub fn unsubscribe(
        &mut self,
        now: u64,
        filter: &str,
        oracle: &mut Oracle,
        acts: &mut Vec<Act>,
    ) {
        if self.state != State::Up || self.wanted.remove(filter).is_none() {
            return;
        }
        // A SUBSCRIBE under way for it does not count any more.
        if self.forget_asked(filter) {
            self.doubtful.insert(filter.to_owned());
        }
        let (bare, group) = split_filter(filter);
        oracle.unsubscribing(self.index, bare, group, now);
        let pid = self.pid();
        self.asked.insert(pid.get(), Asked::Unsubscribe);
        let unsubscribe = Unsubscribe {
            packet_id: pid,
            properties: dunlin_mqtt::Properties::new(),
            filters: vec![TopicFilter::new(filter)],
        };
        self.send(&Packet::Unsubscribe(unsubscribe), acts);
    }

    /// Publishes, or keeps the message until it can.
    pub fn publish(
        &mut self,
        now: u64,
        message: Published,
        oracle: &mut Oracle,
        acts: &mut Vec<Act>,
    ) {
        let qos = message.qos;
        let id = oracle.publish(self.index, message);
        if qos == 0 {
            if self.state == State::Up {
                self.send_publish(now, id, None, oracle, acts);
            }
            return;
        }
        if self.backlog.len() < BACKLOG_MAX {
            self.backlog.push_back(id);
        }
        self.pump(now, oracle, acts);
    }

    fn pump(&mut self, now: u64, oracle: &mut Oracle, acts: &mut Vec<Act>) {
        while self.state == State::Up && self.out.len() < self.window {
            let Some(id) = self.backlog.pop_front() else {
                return;
            };
            let pid = self.pid();
            self.out.push(Out {
                pid,
                id,
                released: false,
            });
            self.send_publish(now, id, Some((pid, false)), oracle, acts);
        }
    }

    fn send_publish(
        &self,
        now: u64,
        id: MessageId,
        pid: Option<(NonZeroU16, bool)>,
        oracle: &mut Oracle,
        acts: &mut Vec<Act>,
    ) {
        let Some(message) = oracle.message(id) else {
            return;
        };
        let payload = if message.empty {
            String::new()
        } else {
            id.payload()
        };
        let (topic, qos) = (message.topic.as_str(), grade(message.qos));
        let mut publish = Publish::new(topic, payload.as_bytes(), qos, message.retain);
        if let Some((pid, dup)) = pid {
            publish = publish.with_packet_id(pid);
            if dup {
                publish = publish.with_dup();
            }
        }
        self.send(&Packet::Publish(publish), acts);
        oracle.sent(id, now, self.host, self.attempt);
    }

    // What the network tells.

    /// The dialed connection stands: CONNECT.
    pub fn connected(&mut self, now: u64, attempt: u64, oracle: &mut Oracle, acts: &mut Vec<Act>) {
        if attempt != self.attempt || self.state != State::Dialing {
            return;
        }
        self.state = State::Asked { at: now };
        oracle.asked(self.index, self.host);
        let will = self.leave_will(now, oracle);
        if self.clean_next {
            oracle.session_over(self.index, now);
        }
        // Before MQTT 5 a clean session is one that does not outlive its connection.
        let clean_v3 = self.clean_next && !self.profile.version.is_v5();
        self.ephemeral = clean_v3 || !self.profile.persistent;
        let profile = &self.profile;
        let mut connect = Connect::new(profile.version, &profile.clientid);
        connect.clean_start = self.clean_next || !profile.persistent;
        connect.keepalive = profile.keepalive_s;
        connect.will = will;
        if profile.version.is_v5() {
            connect
                .properties
                .set_receive_maximum(profile.receive_maximum);
            if profile.persistent {
                connect.properties.set_session_expiry_interval(EXPIRY_S);
            }
        }
        self.send(&Packet::Connect(Box::new(connect)), acts);
        let alarm = Alarm::Answer {
            attempt,
            answers: self.answers,
        };
        acts.push(Act::Wake(now + ANSWER_MS, alarm));
    }

    fn connection_id(&self) -> WillId {
        WillId {
            client: self.index,
            attempt: self.attempt,
        }
    }

    /// Decides about the will of a CONNECT.
    fn leave_will(&mut self, now: u64, oracle: &mut Oracle) -> Option<Box<Will>> {
        let clean_v3 = self.clean_next && !self.profile.version.is_v5();
        let rng = &mut self.wills;
        let retain = rng.random_bool(0.3);
        let topics = if retain {
            KEPT_WILL_TOPICS
        } else {
            WILL_TOPICS
        };
        let topic = *topics.choose(rng).expect("not empty");
        let delays_s = if self.profile.version.is_v5() {
            &[0, 0, 1, 2, 4][..]
        } else {
            &[0][..]
        };
        let delay_s: u32 = *delays_s.choose(rng).expect("not empty");
        let qos = rng.random_range(0..=2);
        let leaves = rng.random_bool(self.will_chance);
        // A session that ends with its connection does not wait [MQTT-3.1.3-9].
        let lasts = self.profile.persistent && !clean_v3;
        let left = Left {
            topic,
            qos,
            retain,
            delay_ms: if lasts { u64::from(delay_s) * 1_000 } else { 0 },
        };
        let id = self.connection_id();
        let connecting = Connecting {
            at: now,
            on: oracle.life(self.host),
            clean: self.clean_next || !self.profile.persistent,
            answered: None,
            end: None,
        };
        let wills = &mut oracle.wills;
        wills.connecting(id, connecting, leaves.then_some(left));
        let mut properties = dunlin_mqtt::Properties::new();
        if delay_s > 0 {
            properties.set_will_delay_interval(delay_s);
        }
        let will = Will {
            topic: TopicName::new(topic).expect("a valid topic"),
            payload: id.payload().into(),
            qos: grade(qos),
            retain,
            properties,
        };
        leaves.then(|| Box::new(will))
    }

    /// A connection ended or could not be made.
    pub fn closed(
        &mut self,
        now: u64,
        attempt: u64,
        oracle: &mut Oracle,
        rng: &mut SmallRng,
        acts: &mut Vec<Act>,
    ) {
        if attempt != self.attempt || self.state == State::Off {
            return;
        }
        self.lost(now, Parting::Closed, oracle);
        if self.wants_connection {
            acts.push(Act::Wake(now + rng.random_range(20..1_000), Alarm::Connect));
        }
    }

    /// The connection is gone; without persistence the session too.
    fn lost(&mut self, now: u64, how: Parting, oracle: &mut Oracle) {
        if self.state != State::Off {
            oracle.wills.ended(self.connection_id(), now, how);
        }
        if self.ephemeral {
            oracle.session_over(self.index, now);
            self.forget_session();
        }
        self.lose();
    }

    fn forget_session(&mut self) {
        self.out.clear();
        self.incoming.clear();
        self.wanted
            .values_mut()
            .for_each(|wanted| wanted.granted = false);
    }

    fn lose(&mut self) {
        self.state = State::Off;
        self.unread.clear();
        self.asked.clear();
        self.unacked.clear();
    }

    /// Bytes from a node.
    pub fn received(
        &mut self,
        now: u64,
        (attempt, bytes): (u64, &[u8]),
        oracle: &mut Oracle,
        acts: &mut Vec<Act>,
    ) {
        if attempt != self.attempt || self.state == State::Off {
            return;
        }
        self.unread.extend_from_slice(bytes);
        let limits = Limits {
            strict: true,
            ..Limits::default()
        };
        while self.state != State::Off {
            match decode(&mut self.unread, self.profile.version, &limits) {
                Ok(Some(packet)) => self.packet(now, packet, oracle, acts),
                Ok(None) => return,
                Err(error) => {
                    oracle.fault(self.fault(&format!("bytes that are no MQTT: {error}")));
                    return;
                }
            }
        }
    }

    fn fault(&self, what: &str) -> Violation {
        let Profile {
            clientid, version, ..
        } = &self.profile;
        Violation::new("protocol", format!("{clientid} ({version:?}) got {what}"))
    }

    fn packet(&mut self, now: u64, packet: Packet, oracle: &mut Oracle, acts: &mut Vec<Act>) {
        self.answers += 1;
        if self.chatty {
            acts.push(Act::Say(format!(
                "c{} gets {}",
                self.index,
                summary(&packet)
            )));
        }
        match packet {
            Packet::Connack(connack) => self.connack(now, &connack, oracle, acts),
            _ if self.state != State::Up => {
                oracle.fault(self.fault(&format!("{:?} before CONNACK", packet.packet_type())));
            }
            Packet::Publish(publish) => self.delivered(now, &publish, oracle, acts),
            Packet::Ack(ack) => self.acknowledged(now, &ack, oracle, acts),
            Packet::Suback(suback) => self.suback(now, &suback, oracle),
            Packet::Unsuback(unsuback) => {
                self.asked.remove(&unsuback.packet_id.get());
            }
            Packet::Pingresp => {}
            Packet::Disconnect(disconnect) => {
                if disconnect.reason == Reason::SessionTakenOver {
                    self.taken_over += 1;
                }
                let accused = matches!(
                    disconnect.reason,
                    Reason::ProtocolError
                        | Reason::MalformedPacket
                        | Reason::ReceiveMaximumExceeded
                );
                if accused && !oracle.is_split(self.index) {
                    oracle.fault(self.fault(&format!("DISCONNECT {:?}", disconnect.reason)));
                }
            }
            other => oracle.fault(self.fault(&format!("{:?}", other.packet_type()))),
        }
    }

    fn connack(&mut self, now: u64, connack: &Connack, oracle: &mut Oracle, acts: &mut Vec<Act>) {
        let State::Asked { at } = self.state else {
            oracle.fault(self.fault("a second CONNACK"));
            return;
        };
        if connack.reason.is_error() {
            return;
        }
        let clean = self.clean_next || !self.profile.persistent;
        if clean && connack.session_present {
            oracle.fault(self.fault("session present after a clean start"));
        }
        self.state = State::Up;
        self.clean_next = false;
        let window = connack
            .properties
            .receive_maximum()
            .map_or(INFLIGHT_MAX, usize::from);
        self.window = window.min(INFLIGHT_MAX);
        let present = connack.session_present;
        self.session = oracle.connected(self.index, self.host, (at, now), present);
        let answer = Answer {
            at: now,
            present,
            session: self.session,
        };
        oracle.wills.answered(self.connection_id(), answer);
        if !present {
            self.forget_session();
        }
        if self.profile.keepalive_s > 0 {
            let period = u64::from(self.profile.keepalive_s) * 1_000 / 2;
            acts.push(Act::Wake(now + period, Alarm::Ping(self.attempt)));
        }
        let missing = self.wanted.iter().filter(|(_, wanted)| !wanted.granted);
        let missing: Vec<String> = missing.map(|(filter, _)| filter.clone()).collect();
        for filter in missing {
            self.ask_for(now, &filter, acts);
        }
        self.send_again(now, oracle, acts);
        self.pump(now, oracle, acts);
    }

    /// [MQTT-4.4.0-1]: what was not acknowledged is sent again, in order.
    fn send_again(&self, now: u64, oracle: &mut Oracle, acts: &mut Vec<Act>) {
        for out in &self.out {
            if out.released {
                let pubrel = Ack::new(AckKind::Pubrel, out.pid, Reason::Success);
                self.send(&Packet::Ack(pubrel), acts);
            } else {
                self.send_publish(now, out.id, Some((out.pid, true)), oracle, acts);
            }
        }
    }

    fn suback(&mut self, now: u64, suback: &Suback, oracle: &mut Oracle) {
        let Some(Asked::Subscribe { filter, at }) = self.asked.remove(&suback.packet_id.get())
        else {
            return;
        };
        let Some(&[reason]) = suback.reasons.first_chunk() else {
            return;
        };
        let Some(wanted) = self.wanted.get_mut(&filter) else {
            return;
        };
        if reason.is_error() {
            let what = format!("SUBACK {reason:?} for {filter}");
            oracle.fault(self.fault(&what));
            return;
        }
        wanted.granted = true;
        let (bare, group) = split_filter(&filter);
        oracle.subscribed(Promise {
            client: self.index,
            session: self.session,
            filter: bare.to_owned(),
            group: group.map(str::to_owned),
            qos: reason.as_u8(),
            sent_at: at,
            acked_at: now,
            ended_at: None,
        });
    }

    fn acknowledged(&mut self, now: u64, ack: &Ack, oracle: &mut Oracle, acts: &mut Vec<Act>) {
        if ack.kind == AckKind::Pubrel {
            self.incoming.remove(&ack.packet_id.get());
            self.acknowledge_later(now, ack.packet_id.get(), Step::Pubcomp, acts);
            return;
        }
        let of = |out: &Out| out.pid == ack.packet_id;
        let Some(at) = self.out.iter().position(of) else {
            // A resend may be answered twice, as far as PUBREC and PUBCOMP are concerned.
            if ack.kind == AckKind::Puback {
                oracle.fault(self.fault("PUBACK for nothing"));
            }
            return;
        };
        let id = self.out[at].id;
        let yes = !ack.reason.is_error();
        if yes && ack.kind != AckKind::Pubcomp {
            oracle.acked(id, now);
        }
        if ack.kind == AckKind::Pubrec && yes {
            self.out[at].released = true;
            let pubrel = Ack::new(AckKind::Pubrel, ack.packet_id, Reason::Success);
            self.send(&Packet::Ack(pubrel), acts);
        } else {
            self.out.remove(at);
            self.pump(now, oracle, acts);
        }
    }

    fn delivered(&mut self, now: u64, publish: &Publish, oracle: &mut Oracle, acts: &mut Vec<Act>) {
        let pid = publish.packet_id.map_or(0, NonZeroU16::get);
        let known = publish.qos == QoS::ExactlyOnce && !self.incoming.insert(pid);
        if publish.qos != QoS::AtMostOnce {
            self.unacked.insert(pid);
            let max = usize::from(self.profile.receive_maximum);
            if self.profile.version.is_v5() && self.unacked.len() > max {
                let what = format!("{} messages at once, {max} allowed", self.unacked.len());
                oracle.fault(Violation::new(
                    "bounds",
                    format!("client {}: {what}", self.index),
                ));
            }
            let qos2 = publish.qos == QoS::ExactlyOnce;
            let step = if qos2 { Step::Pubrec } else { Step::Puback };
            self.acknowledge_later(now, pid, step, acts);
        }
        if known || publish.payload().is_empty() {
            return;
        }
        if let Some(will) = WillId::parse(publish.payload()) {
            oracle.wills.deliver(WillGot {
                will,
                client: self.index,
                attempt: self.attempt,
                retain: publish.retain,
                at: now,
            });
            return;
        }
        let Some(message) = MessageId::parse(publish.payload()) else {
            oracle.fault(self.fault("a payload nobody published"));
            return;
        };
        let delivery = Delivered {
            client: self.index,
            session: self.session,
            attempt: self.attempt,
            message,
            qos: publish.qos.as_u8(),
            retain: publish.retain,
            at: now,
            copies: 0,
            newest_before: None,
        };
        oracle.deliver(delivery, publish.topic());
    }

    fn acknowledge_later(&mut self, now: u64, pid: u16, step: Step, acts: &mut Vec<Act>) {
        if self.profile.ack_delay_ms == 0 {
            self.acknowledge(pid, step, acts);
        } else {
            let at = now + self.profile.ack_delay_ms;
            acts.push(Act::Wake(at, Alarm::Acknowledge(self.attempt, pid, step)));
        }
    }

    fn acknowledge(&mut self, pid: u16, step: Step, acts: &mut Vec<Act>) {
        let Some(packet_id) = NonZeroU16::new(pid) else {
            return;
        };
        let kind = match step {
            Step::Puback => AckKind::Puback,
            Step::Pubrec => AckKind::Pubrec,
            Step::Pubcomp => AckKind::Pubcomp,
        };
        if step != Step::Pubrec {
            self.unacked.remove(&pid);
        }
        self.send(
            &Packet::Ack(Ack::new(kind, packet_id, Reason::Success)),
            acts,
        );
    }

    /// A time it asked for has come.
    pub fn wake(
        &mut self,
        now: u64,
        alarm: &Alarm,
        (hosts, oracle): (usize, &mut Oracle),
        rng: &mut SmallRng,
        acts: &mut Vec<Act>,
    ) {
        match *alarm {
            Alarm::Connect => {
                if self.wants_connection && self.state == State::Off {
                    let stay = rng.random_bool(0.5);
                    let host = if stay {
                        self.host
                    } else {
                        rng.random_range(0..hosts)
                    };
                    self.dial(host, acts);
                }
            }
            Alarm::Answer { attempt, answers } => {
                if attempt == self.attempt && self.state != State::Off && answers == self.answers {
                    acts.push(Act::Close(attempt));
                    self.closed(now, attempt, oracle, rng, acts);
                }
            }
            Alarm::Ping(attempt) => self.ping(now, attempt, acts),
            Alarm::Acknowledge(attempt, pid, step) => {
                if attempt == self.attempt && self.state == State::Up {
                    self.acknowledge(pid, step, acts);
                }
            }
        }
    }

    fn ping(&mut self, now: u64, attempt: u64, acts: &mut Vec<Act>) {
        if attempt != self.attempt || self.state != State::Up {
            return;
        }
        self.send(&Packet::Pingreq, acts);
        let period = u64::from(self.profile.keepalive_s) * 1_000 / 2;
        acts.push(Act::Wake(now + period, Alarm::Ping(attempt)));
        let alarm = Alarm::Answer {
            attempt,
            answers: self.answers,
        };
        acts.push(Act::Wake(now + ANSWER_MS, alarm));
    }
}

/// A packet in a few words.
fn summary(packet: &Packet) -> String {
    match packet {
        Packet::Publish(p) => {
            let payload = String::from_utf8_lossy(p.payload());
            let (id, qos) = (p.packet_id.map_or(0, NonZeroU16::get), p.qos.as_u8());
            let dup = if p.dup { " dup" } else { "" };
            let retain = if p.retain { " retain" } else { "" };
            format!(
                "PUBLISH {payload} on {} QoS {qos} id {id}{dup}{retain}",
                p.topic()
            )
        }
        Packet::Ack(ack) => format!("{:?} id {} {:?}", ack.kind, ack.packet_id, ack.reason),
        Packet::Connack(c) => format!("CONNACK {:?} present {}", c.reason, c.session_present),
        Packet::Disconnect(d) => format!("DISCONNECT {:?}", d.reason),
        Packet::Subscribe(s) => {
            let filters = s.filters.iter().filter_map(|(f, _)| f.as_ref().ok());
            let filters: Vec<&str> = filters.map(TopicFilter::as_str).collect();
            format!("SUBSCRIBE {filters:?} id {}", s.packet_id)
        }
        Packet::Suback(s) => format!("SUBACK id {} {:?}", s.packet_id, s.reasons),
        other => format!("{:?}", other.packet_type()),
    }
}

/// The quality of service of a number.
pub fn grade(qos: u8) -> QoS {
    QoS::from_u8(qos).expect("workloads use 0, 1 and 2")
}

/// `$share/group/filter` to filter and group.
pub fn split_filter(filter: &str) -> (&str, Option<&str>) {
    match filter
        .strip_prefix("$share/")
        .and_then(|rest| rest.split_once('/'))
    {
        Some((group, bare)) => (bare, Some(group)),
        None => (filter, None),
    }
}
