//! The ceiling: a forwarder with a broker's system calls and copies and none of its logic.
//!
//! One thread waits for all sockets, reads what is there, copies each PUBLISH to the connections
//! that want its topic, answers acknowledgements, and writes once per connection and wake-up.
//!
//! What it leaves out, so that nobody takes it for a broker: authentication and authorization;
//! sessions, inflight windows and queues (packet ids of receivers are a counter, nothing is kept
//! until it is acknowledged, nothing is sent again, `QoS` 2 is answered but not deduplicated); the
//! granted `QoS` (a message goes on as it was published); wills; keepalive; validation; properties
//! of MQTT 5 (they go on as they came, and all clients have to speak the same version); limits
//! other than [`UNWRITTEN_BYTES_MAX`]; clusters. There is no table of filters: the
//! receivers of a topic are found once by trying every filter, then remembered until somebody
//! subscribes or leaves, which costs one hash look-up per message.

use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;

use dunlin_mqtt::Version;
use mio::net::TcpListener;
use mio::{Events, Interest, Poll, Token};
use rustls::ServerConfig;

use crate::link::Link;
use crate::stream::Stream;
use crate::wire::{
    CONNACK, CONNECT, DISCONNECT, Frame, Malformed, NO_PROPERTIES, PINGREQ, PINGRESP, PUBACK,
    PUBCOMP, PUBREC, PUBREL, SUBACK, SUBSCRIBE, UNSUBACK, UNSUBSCRIBE, acknowledge,
    behind_properties, put_remaining_len,
};

/// Unwritten bytes of one connection; a receiver that is further behind is dropped.
const UNWRITTEN_BYTES_MAX: usize = 256 * 1024 * 1024;
/// Topics whose receivers are remembered; beyond, all are forgotten and found again.
const TOPICS_MAX: usize = 100_000;
const EVENTS_MAX: usize = 1_024;
const ACCEPT: Token = Token(usize::MAX);
const STOP: Token = Token(usize::MAX - 1);

/// The forwarder.
pub(crate) struct Null {
    poll: Poll,
    listener: TcpListener,
    /// Without it, connections are plain.
    tls: Option<Arc<ServerConfig>>,
    peers: Vec<Option<Peer>>,
    free: Vec<usize>,
    routes: HashMap<Box<[u8]>, Rc<Route>>,
    retained: HashMap<Box<[u8]>, Box<[u8]>>,
    /// Connections with something to write after this wake-up.
    dirty: Vec<usize>,
    turn: usize,
}

struct Peer {
    link: Link,
    version: Version,
    filters: Vec<Box<[u8]>>,
    packet_id: u16,
    dirty: bool,
}

/// Who wants a topic.
#[derive(Default)]
struct Route {
    all: Vec<usize>,
    /// Each shared group by its members.
    groups: Vec<Vec<usize>>,
}

/// Why a connection ends.
enum End {
    Closed,
    Malformed,
    Io,
}

impl From<io::Error> for End {
    fn from(_: io::Error) -> Self {
        Self::Io
    }
}

impl From<Malformed> for End {
    fn from(_: Malformed) -> Self {
        Self::Malformed
    }
}

impl Null {
    pub(crate) fn bind(address: SocketAddr, tls: Option<Arc<ServerConfig>>) -> io::Result<Self> {
        let poll = Poll::new()?;
        let mut listener = TcpListener::bind(address)?;
        poll.registry()
            .register(&mut listener, ACCEPT, Interest::READABLE)?;
        Ok(Self {
            poll,
            listener,
            tls,
            peers: Vec::new(),
            free: Vec::new(),
            routes: HashMap::new(),
            retained: HashMap::new(),
            dirty: Vec::new(),
            turn: 0,
        })
    }

    pub(crate) fn address(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// Ends [`Null::run`] when woken.
    #[cfg(test)]
    pub(crate) fn stop(&self) -> io::Result<mio::Waker> {
        mio::Waker::new(self.poll.registry(), STOP)
    }

    /// Forwards until its process ends, or a test stops it.
    pub(crate) fn run(mut self) -> io::Result<()> {
        let mut events = Events::with_capacity(EVENTS_MAX);
        let mut buffer = Vec::new();
        loop {
            match self.poll.poll(&mut events, None) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                other => other?,
            }
            for event in &events {
                match event.token() {
                    STOP => return Ok(()),
                    ACCEPT => self.accept()?,
                    Token(index) => {
                        if event.is_readable() && self.read(index, &mut buffer).is_err() {
                            self.close(index);
                        }
                        if event.is_writable() {
                            self.touch(index);
                        }
                    }
                }
            }
            self.write();
        }
    }

    fn accept(&mut self) -> io::Result<()> {
        loop {
            let stream = match self.listener.accept() {
                Ok((stream, _)) => stream,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                // A client that has gone again is its own affair.
                Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => continue,
                Err(error) => return Err(error),
            };
            stream.set_nodelay(true)?;
            let index = self.free.pop().unwrap_or(self.peers.len());
            let stream = Stream::serve(stream.into(), self.tls.as_ref())?;
            let peer = Peer {
                link: Link::adopt(stream, self.poll.registry(), Token(index))?,
                version: Version::V3_1_1,
                filters: Vec::new(),
                packet_id: 0,
                dirty: false,
            };
            if index == self.peers.len() {
                self.peers.push(Some(peer));
            } else {
                self.peers[index] = Some(peer);
            }
        }
    }

    fn read(&mut self, index: usize, buffer: &mut Vec<u8>) -> Result<(), End> {
        loop {
            let Some(Some(peer)) = self.peers.get_mut(index) else {
                return Ok(());
            };
            let filled = peer.link.fill(buffer)?;
            let mut at = 0;
            while let Some(frame) = Frame::first(&buffer[at..filled.len])? {
                self.packet(index, frame)?;
                at += frame.bytes.len();
            }
            if filled.closed {
                return Err(End::Closed);
            }
            if let Some(Some(peer)) = self.peers.get_mut(index) {
                peer.link.keep(&buffer[at..filled.len]);
            }
            if !filled.more {
                return Ok(());
            }
        }
    }

    fn packet(&mut self, index: usize, frame: Frame<'_>) -> Result<(), End> {
        if frame.is_publish() {
            return self.publish(index, frame);
        }
        match frame.kind() {
            CONNECT => self.connect(index, frame),
            SUBSCRIBE => return self.subscribe(index, frame),
            UNSUBSCRIBE => return self.unsubscribe(index, frame),
            PUBREC => self.acknowledge(index, PUBREL, frame.packet_id()?),
            PUBREL => self.acknowledge(index, PUBCOMP, frame.packet_id()?),
            PINGREQ => self.answer(index, &[PINGRESP, 0]),
            DISCONNECT => return Err(End::Closed),
            _ => {}
        }
        Ok(())
    }

    fn version(&self, index: usize) -> Version {
        let peer = self.peers.get(index).and_then(Option::as_ref);
        peer.map_or(Version::V3_1_1, |peer| peer.version)
    }

    fn connect(&mut self, index: usize, frame: Frame<'_>) {
        // Behind the name of the protocol.
        let is_v5 = frame.body().get(6) == Some(&5);
        if let (true, Some(Some(peer))) = (is_v5, self.peers.get_mut(index)) {
            peer.version = Version::V5;
        }
        if is_v5 {
            self.answer(index, &[CONNACK, 3, 0, 0, NO_PROPERTIES]);
        } else {
            self.answer(index, &[CONNACK, 2, 0, 0]);
        }
    }

    fn answer(&mut self, index: usize, bytes: &[u8]) {
        if let Some(Some(peer)) = self.peers.get_mut(index) {
            peer.link.out.extend_from_slice(bytes);
        }
        self.touch(index);
    }

    fn acknowledge(&mut self, index: usize, kind: u8, packet_id: u16) {
        if let Some(Some(peer)) = self.peers.get_mut(index) {
            acknowledge(kind, packet_id, &mut peer.link.out);
        }
        self.touch(index);
    }

    fn touch(&mut self, index: usize) {
        if let Some(Some(peer)) = self.peers.get_mut(index)
            && !peer.dirty
        {
            peer.dirty = true;
            self.dirty.push(index);
        }
    }

    fn publish(&mut self, index: usize, frame: Frame<'_>) -> Result<(), End> {
        let view = frame.publish(self.version(index))?;
        let id_at = view.packet_id.map(|_| frame.body_at + 2 + view.topic.len());
        if frame.kind() & 1 == 1 {
            self.retain(view.topic, view.payload.is_empty(), frame.bytes);
        }
        let route = self.route(view.topic);
        for &receiver in &route.all {
            self.forward(receiver, frame.bytes, id_at);
        }
        for group in &route.groups {
            self.turn = self.turn.wrapping_add(1);
            self.forward(group[self.turn % group.len()], frame.bytes, id_at);
        }
        if let Some(packet_id) = view.packet_id {
            let is_qos1 = frame.kind() & 0b110 == 0b010;
            let kind = if is_qos1 { PUBACK } else { PUBREC };
            self.acknowledge(index, kind, packet_id);
        }
        Ok(())
    }

    fn retain(&mut self, topic: &[u8], is_empty: bool, packet: &[u8]) {
        if is_empty {
            self.retained.remove(topic);
        } else {
            self.retained.insert(topic.into(), packet.into());
        }
    }

    fn forward(&mut self, receiver: usize, packet: &[u8], id_at: Option<usize>) {
        let Some(Some(peer)) = self.peers.get_mut(receiver) else {
            return;
        };
        let out = &mut peer.link.out;
        let start = out.len();
        out.extend_from_slice(packet);
        // A message on its way is not a retained one.
        out[start] &= !1;
        if let Some(at) = id_at {
            peer.packet_id = peer.packet_id % u16::MAX + 1;
            out[start + at..start + at + 2].copy_from_slice(&peer.packet_id.to_be_bytes());
        }
        if !peer.dirty {
            peer.dirty = true;
            self.dirty.push(receiver);
        }
    }

    fn route(&mut self, topic: &[u8]) -> Rc<Route> {
        if let Some(route) = self.routes.get(topic) {
            return route.clone();
        }
        if self.routes.len() >= TOPICS_MAX {
            self.routes.clear();
        }
        let route = Rc::new(self.find(topic));
        self.routes.insert(topic.into(), route.clone());
        route
    }

    fn find(&self, topic: &[u8]) -> Route {
        let mut all = Vec::new();
        let mut groups: HashMap<&[u8], Vec<usize>> = HashMap::new();
        for (index, peer) in self.peers.iter().enumerate() {
            for filter in peer.iter().flat_map(|peer| &peer.filters) {
                match shared(filter) {
                    Some((group, filter)) if matches(filter, topic) => {
                        groups.entry(group).or_default().push(index);
                    }
                    None if matches(filter, topic) => all.push(index),
                    _ => {}
                }
            }
        }
        // One message per receiver, however many of its filters match.
        all.dedup();
        let groups = groups.into_values().collect();
        Route { all, groups }
    }

    fn subscribe(&mut self, index: usize, frame: Frame<'_>) -> Result<(), End> {
        self.routes.clear();
        let version = self.version(index);
        let filters = filters(frame.body(), version, 1)?;
        let codes = filters.iter().map(|(_, options)| options & 3).collect();
        let mut out = Vec::new();
        granted(SUBACK, frame.packet_id()?, version, codes, &mut out);
        for (filter, _) in &filters {
            for (topic, packet) in &self.retained {
                if matches(filter, topic) {
                    out.extend_from_slice(packet);
                }
            }
        }
        if let Some(Some(peer)) = self.peers.get_mut(index) {
            peer.filters
                .extend(filters.iter().map(|&(filter, _)| Box::from(filter)));
        }
        self.answer(index, &out);
        Ok(())
    }

    fn unsubscribe(&mut self, index: usize, frame: Frame<'_>) -> Result<(), End> {
        self.routes.clear();
        let version = self.version(index);
        let filters = filters(frame.body(), version, 0)?;
        let mut out = Vec::new();
        // Before MQTT 5 it has no codes.
        let codes = if version == Version::V5 {
            vec![0; filters.len()]
        } else {
            Vec::new()
        };
        granted(UNSUBACK, frame.packet_id()?, version, codes, &mut out);
        if let Some(Some(peer)) = self.peers.get_mut(index) {
            peer.filters
                .retain(|filter| filters.iter().all(|(gone, _)| **filter != **gone));
        }
        self.answer(index, &out);
        Ok(())
    }

    fn write(&mut self) {
        while let Some(index) = self.dirty.pop() {
            let Some(Some(peer)) = self.peers.get_mut(index) else {
                continue;
            };
            peer.dirty = false;
            let failed = peer.link.flush().is_err();
            if failed || peer.link.unwritten_bytes() > UNWRITTEN_BYTES_MAX {
                self.close(index);
            }
        }
    }

    fn close(&mut self, index: usize) {
        if let Some(mut peer) = self.peers.get_mut(index).and_then(Option::take) {
            // An unsent CONNACK or PUBACK is still owed to a client that said good-bye.
            let _ = peer.link.flush();
            let _ = peer.link.deregister(self.poll.registry());
            if !peer.filters.is_empty() {
                self.routes.clear();
            }
            self.free.push(index);
        }
    }
}

/// Filters of a SUBSCRIBE (`options_bytes` 1) or an UNSUBSCRIBE (0), with their options.
fn filters(
    body: &[u8],
    version: Version,
    options_bytes: usize,
) -> Result<Vec<(&[u8], u8)>, Malformed> {
    let mut rest = behind_properties(body.get(2..).ok_or(Malformed)?, version)?;
    let mut filters = Vec::new();
    while !rest.is_empty() {
        let (len, after) = rest.split_first_chunk().ok_or(Malformed)?;
        let len = u16::from_be_bytes(*len) as usize;
        let (filter, after) = after.split_at_checked(len).ok_or(Malformed)?;
        let (options, after) = after.split_at_checked(options_bytes).ok_or(Malformed)?;
        filters.push((filter, options.first().copied().unwrap_or_default()));
        rest = after;
    }
    Ok(filters)
}

/// Appends a SUBACK or an UNSUBACK.
fn granted(kind: u8, packet_id: u16, version: Version, codes: Vec<u8>, out: &mut Vec<u8>) {
    let is_v5 = version == Version::V5;
    out.push(kind);
    put_remaining_len(2 + usize::from(is_v5) + codes.len(), out);
    out.extend_from_slice(&packet_id.to_be_bytes());
    if is_v5 {
        out.push(NO_PROPERTIES);
    }
    out.extend(codes);
}

/// Group and filter of a shared subscription.
fn shared(filter: &[u8]) -> Option<(&[u8], &[u8])> {
    let rest = filter.strip_prefix(b"$share/")?;
    let slash = rest.iter().position(|&byte| byte == b'/')?;
    Some((&rest[..slash], &rest[slash + 1..]))
}

fn matches(filter: &[u8], topic: &[u8]) -> bool {
    let mut levels = topic.split(|&byte| byte == b'/');
    for wanted in filter.split(|&byte| byte == b'/') {
        if wanted == b"#" {
            return true;
        }
        match levels.next() {
            Some(level) if wanted == b"+" || wanted == level => {}
            _ => return false,
        }
    }
    levels.next().is_none()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn filters_match_as_mqtt_says() {
        for (filter, topic, expected) in [
            ("a/b", "a/b", true),
            ("a/b", "a/c", false),
            ("a", "a/b", false),
            ("a/b", "a", false),
            ("a/+", "a/b", true),
            ("a/+", "a/b/c", false),
            ("a/#", "a/b/c", true),
            ("#", "a", true),
        ] {
            let found = matches(filter.as_bytes(), topic.as_bytes());
            assert_eq!(found, expected, "{filter} {topic}");
        }
        assert_eq!(shared(b"$share/g/a/b"), Some((&b"g"[..], &b"a/b"[..])));
        assert_eq!(shared(b"a/b"), None);
    }

    #[test]
    fn filters_are_read_with_their_options() {
        let body = b"\x00\x01\x00\x01a\x02\x00\x03b/c\x00";
        let found = filters(body, Version::V3_1_1, 1).expect("well formed");
        assert_eq!(found, [(&b"a"[..], 2), (&b"b/c"[..], 0)]);
        filters(b"\x00\x01\x00\x09a", Version::V3_1_1, 0)
            .expect_err("a filter longer than its packet");
    }
}
