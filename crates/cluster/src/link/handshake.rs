//! The first exchange on every connection between nodes: who are you, and do you know the cookie?
//!
//! ```text
//!   dialer                                    acceptor
//!     | -- Hello(versions, nonce, identity) --> |
//!     | <- Hello(versions, nonce, identity) --- |
//!     | -- Proof(HMAC, "dialer") -------------> |
//!     | <- Proof(HMAC, "acceptor") ------------ |
//! ```
//! A proof covers the role and both hellos byte for byte, so nothing in them can be altered or
//! reflected. The dialer proves first: a stranger who dials learns nothing it could guess the
//! cookie from. Whoever finds a fault says which in an `Error` message before it closes, so both
//! sides log the same reason. The cookie never travels.

use bytes::{Buf, BufMut, Bytes, BytesMut};
use ring::hmac;
use serde::{Deserialize, Serialize};

use crate::clock::Now;
use crate::identity::{ClusterId, Cookie, Identity, Peer};
use crate::name::NodeName;

/// Oldest and newest protocol version this release speaks.
pub const VERSIONS: (u16, u16) = (1, 1);

/// First bytes of every handshake message.
const MAGIC: [u8; 4] = *b"dnln";

/// How a record of TLS begins: its kind, then the version.
const TLS_HANDSHAKE: u8 = 0x16;
const TLS_ALERT: u8 = 0x15;
const TLS_MAJOR: u8 = 3;

/// Bytes of a message before its body: magic, kind, length.
const HEAD_BYTES: usize = 9;

/// Longest body, bytes: names are bounded far below it, and nothing is proven yet.
const BODY_BYTES_MAX: usize = 4_096;

/// Bytes of a body before its postcard part: two versions and the nonce.
const HELLO_HEAD_BYTES: usize = 36;

/// Longest `cluster.name`, bytes; longer ones are cut for the handshake's bound, not compared.
const CLUSTER_NAME_BYTES_MAX: usize = 1_024;

/// What a connection is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Purpose {
    /// Membership, tables, calls.
    Control,
    /// Forwarded messages, one way, from the dialer to the acceptor.
    Data {
        /// Which of the data links of this node.
        index: u16,
    },
}

/// What a node says about itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hello {
    /// Who it is.
    pub peer: Peer,
    /// Its cluster.
    pub cluster: ClusterId,
    /// Its `cluster.name`.
    pub cluster_name: String,
    /// What the connection is for, as the dialer says.
    pub purpose: Purpose,
    /// Its wall clock.
    pub wall_ms: u64,
    /// Oldest and newest protocol version it speaks.
    pub versions: (u16, u16),
    /// The port it listens on for peers.
    pub listen_port: u16,
}

/// The part of a hello that versions may change; what comes before it is fixed for ever.
#[derive(Serialize, Deserialize)]
struct HelloBody {
    peer: Peer,
    cluster: ClusterId,
    cluster_name: String,
    purpose: Purpose,
    wall_ms: u64,
    listen_port: u16,
}

/// Why a handshake failed; both sides learn it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub enum HandshakeError {
    /// The cookies differ.
    #[error("cookie mismatch; set the same node.cookie on both nodes")]
    CookieMismatch,
    /// No protocol version in common.
    #[error(
        "protocol {}-{} here, {}-{} there; upgrade the older node",
        ours.0, ours.1, theirs.0, theirs.1
    )]
    VersionMismatch {
        /// The reporting side's range.
        ours: (u16, u16),
        /// The other side's range.
        theirs: (u16, u16),
    },
    /// The dialer expected another node.
    #[error("'{found}' answered instead of '{expected}'; use the name the node itself has")]
    NameMismatch {
        /// Who was dialed.
        expected: NodeName,
        /// Who answered.
        found: NodeName,
    },
    /// A node reached itself.
    #[error("the node reached itself")]
    SameNode,
    /// Not the bytes of a handshake.
    #[error("not a node of this product, or a damaged message")]
    Malformed,
    /// One side speaks TLS, the other does not.
    #[error(
        "{} speaks TLS and {} does not; set the same cluster.proto_dist on both",
        if *tls_here { "this node" } else { "the other node" },
        if *tls_here { "the other one" } else { "this one" }
    )]
    TlsMismatch {
        /// Whether it is the reporting side that speaks it.
        tls_here: bool,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Hello = 1,
    Proof = 2,
    Error = 3,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Role {
    Dialer,
    Acceptor,
}

impl Role {
    fn tag(self) -> &'static [u8] {
        match self {
            Self::Dialer => b"dunlin dialer 1",
            Self::Acceptor => b"dunlin acceptor 1",
        }
    }

    fn other(self) -> Self {
        match self {
            Self::Dialer => Self::Acceptor,
            Self::Acceptor => Self::Dialer,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    AwaitHello,
    AwaitProof,
    Done,
    Failed,
}

/// The handshake of one connection, at either end.
#[derive(Debug)]
pub struct Handshake {
    role: Role,
    state: State,
    own: Identity,
    purpose: Purpose,
    expected: Option<NodeName>,
    cookie: Cookie,
    nonce: [u8; 32],
    wall_ms: u64,
    own_hello: Bytes,
    peer_hello: Option<(Bytes, Hello)>,
    output: BytesMut,
}

impl Handshake {
    /// The dialing end; its hello is ready to be taken at once.
    pub fn dial(
        identity: &Identity,
        cookie: &Cookie,
        purpose: Purpose,
        nonce: [u8; 32],
        now: Now,
        expected: Option<NodeName>,
    ) -> Self {
        let mut shake = Self::new(Role::Dialer, identity, cookie, nonce, now);
        shake.purpose = purpose;
        shake.expected = expected;
        shake.say_hello();
        shake
    }

    /// The accepting end; it answers the dialer's hello.
    pub fn accept(identity: &Identity, cookie: &Cookie, nonce: [u8; 32], now: Now) -> Self {
        Self::new(Role::Acceptor, identity, cookie, nonce, now)
    }

    fn new(role: Role, own: &Identity, cookie: &Cookie, nonce: [u8; 32], now: Now) -> Self {
        Self {
            role,
            state: State::AwaitHello,
            own: own.clone(),
            purpose: Purpose::Control,
            expected: None,
            cookie: cookie.clone(),
            nonce,
            wall_ms: now.wall_ms,
            own_hello: Bytes::new(),
            peer_hello: None,
            output: BytesMut::new(),
        }
    }

    /// What is to be written now.
    pub fn take_output(&mut self) -> Option<Bytes> {
        (!self.output.is_empty()).then(|| self.output.split().freeze())
    }

    /// Takes messages off `buf`; gives the peer's hello once it is proven. What is left in `buf`
    /// then belongs to the link. After an error, write the output and close.
    pub fn receive(&mut self, buf: &mut BytesMut) -> Result<Option<Hello>, HandshakeError> {
        while matches!(self.state, State::AwaitHello | State::AwaitProof) {
            let message = match take_message(buf) {
                Ok(Some(message)) => message,
                Ok(None) => return Ok(None),
                Err(error @ HandshakeError::TlsMismatch { .. }) => {
                    let error = self.report(error);
                    return self.fail(error);
                }
                Err(error) => return self.fail(error),
            };
            if let Err(error) = self.message(message) {
                return self.fail(error);
            }
        }
        match (&self.peer_hello, self.state) {
            (Some((_, hello)), State::Done) => Ok(Some(hello.clone())),
            _ => Err(HandshakeError::Malformed),
        }
    }

    fn fail<T>(&mut self, error: HandshakeError) -> Result<T, HandshakeError> {
        self.state = State::Failed;
        Err(error)
    }

    fn message(&mut self, (kind, body): (Kind, Bytes)) -> Result<(), HandshakeError> {
        match (kind, self.state) {
            // The peer's own reason is passed on; an error is not answered by an error.
            (Kind::Error, _) => {
                let said = postcard::from_bytes(&body).unwrap_or(HandshakeError::Malformed);
                Err(from_their_side(said))
            }
            (Kind::Hello, State::AwaitHello) => {
                self.hello(body).map_err(|error| self.report(error))
            }
            (Kind::Proof, State::AwaitProof) => {
                self.proof(&body).map_err(|error| self.report(error))
            }
            _ => Err(self.report(HandshakeError::Malformed)),
        }
    }

    fn report(&mut self, error: HandshakeError) -> HandshakeError {
        self.put(Kind::Error, &encode_error(&error));
        error
    }

    fn hello(&mut self, body: Bytes) -> Result<(), HandshakeError> {
        let hello = decode_hello(&body)?;
        let (min, max) = hello.versions;
        if min > VERSIONS.1 || max < VERSIONS.0 {
            return Err(HandshakeError::VersionMismatch {
                ours: VERSIONS,
                theirs: hello.versions,
            });
        }
        if hello.peer.site == self.own.site {
            return Err(HandshakeError::SameNode);
        }
        match self.role {
            Role::Acceptor => {
                self.purpose = hello.purpose;
                self.peer_hello = Some((body, hello));
                self.say_hello();
            }
            Role::Dialer => {
                if let Some(expected) = self.expected.clone().filter(|n| *n != hello.peer.name) {
                    let found = hello.peer.name;
                    return Err(HandshakeError::NameMismatch { expected, found });
                }
                if hello.purpose != self.purpose {
                    return Err(HandshakeError::Malformed);
                }
                self.peer_hello = Some((body, hello));
                self.say_proof();
            }
        }
        self.state = State::AwaitProof;
        Ok(())
    }

    fn proof(&mut self, body: &[u8]) -> Result<(), HandshakeError> {
        let (key, signed) = self.signed(self.role.other());
        if hmac::verify(&key, &signed, body).is_err() {
            return Err(HandshakeError::CookieMismatch);
        }
        if self.role == Role::Acceptor {
            self.say_proof();
        }
        self.state = State::Done;
        Ok(())
    }

    /// The key and the bytes `role`'s proof covers: its tag and both hellos, the dialer's first,
    /// each with its length, so that no two conversations sign the same bytes.
    fn signed(&self, role: Role) -> (hmac::Key, Vec<u8>) {
        let theirs = self
            .peer_hello
            .as_ref()
            .map(|(body, _)| body.clone())
            .unwrap_or_default();
        let (dialer, acceptor) = match self.role {
            Role::Dialer => (&self.own_hello, &theirs),
            Role::Acceptor => (&theirs, &self.own_hello),
        };
        let mut signed = role.tag().to_vec();
        for hello in [dialer, acceptor] {
            signed.put_u32(hello.len() as u32);
            signed.put_slice(hello);
        }
        (
            hmac::Key::new(hmac::HMAC_SHA256, self.cookie.secret()),
            signed,
        )
    }

    fn say_proof(&mut self) {
        let (key, signed) = self.signed(self.role);
        let tag = hmac::sign(&key, &signed);
        self.put(Kind::Proof, tag.as_ref());
    }

    fn say_hello(&mut self) {
        let mut cluster_name = self.own.cluster_name.clone();
        while cluster_name.len() > CLUSTER_NAME_BYTES_MAX {
            cluster_name.pop();
        }
        let body = HelloBody {
            peer: self.own.peer(),
            cluster: self.own.cluster,
            cluster_name,
            purpose: self.purpose,
            wall_ms: self.wall_ms,
            listen_port: self.own.listen_port,
        };
        let mut out = Vec::with_capacity(256);
        out.put_u16(VERSIONS.0);
        out.put_u16(VERSIONS.1);
        out.put_slice(&self.nonce);
        out.extend(postcard::to_stdvec(&body).unwrap_or_default());
        self.put(Kind::Hello, &out);
        self.own_hello = out.into();
    }

    fn put(&mut self, kind: Kind, body: &[u8]) {
        put(&mut self.output, kind, body);
    }
}

/// Turns the other side's report round, so that `ours` is ours.
fn from_their_side(said: HandshakeError) -> HandshakeError {
    match said {
        HandshakeError::VersionMismatch { ours, theirs } => HandshakeError::VersionMismatch {
            ours: theirs,
            theirs: ours,
        },
        HandshakeError::TlsMismatch { tls_here } => HandshakeError::TlsMismatch {
            tls_here: !tls_here,
        },
        other => other,
    }
}

/// Whether a connection that begins with these bytes speaks without TLS.
pub fn is_plain_handshake(begin: &[u8]) -> bool {
    let known = begin.len().min(MAGIC.len());
    begin[..known] == MAGIC[..known]
}

/// What a node that speaks TLS only says to one that does not.
pub fn plain_refusal() -> Bytes {
    let error = HandshakeError::TlsMismatch { tls_here: true };
    let mut output = BytesMut::new();
    put(&mut output, Kind::Error, &encode_error(&error));
    output.freeze()
}

fn encode_error(error: &HandshakeError) -> Vec<u8> {
    postcard::to_stdvec(error).unwrap_or_default()
}

fn put(output: &mut BytesMut, kind: Kind, body: &[u8]) {
    output.put_slice(&MAGIC);
    output.put_u8(kind as u8);
    output.put_u32(body.len() as u32);
    output.put_slice(body);
}

fn take_message(buf: &mut BytesMut) -> Result<Option<(Kind, Bytes)>, HandshakeError> {
    if let [TLS_HANDSHAKE | TLS_ALERT, TLS_MAJOR, ..] = buf[..] {
        return Err(HandshakeError::TlsMismatch { tls_here: false });
    }
    // A stranger (a browser, a port scan) is recognised by its first bytes, not waited for.
    let known = buf.len().min(MAGIC.len());
    if buf[..known] != MAGIC[..known] {
        return Err(HandshakeError::Malformed);
    }
    if buf.len() < HEAD_BYTES {
        return Ok(None);
    }
    let mut head = &buf[MAGIC.len()..HEAD_BYTES];
    let kind = match head.get_u8() {
        1 => Kind::Hello,
        2 => Kind::Proof,
        3 => Kind::Error,
        _ => return Err(HandshakeError::Malformed),
    };
    let len = head.get_u32() as usize;
    if len > BODY_BYTES_MAX {
        return Err(HandshakeError::Malformed);
    }
    if buf.len() < HEAD_BYTES + len {
        return Ok(None);
    }
    buf.advance(HEAD_BYTES);
    Ok(Some((kind, buf.split_to(len).freeze())))
}

fn decode_hello(body: &Bytes) -> Result<Hello, HandshakeError> {
    if body.len() < HELLO_HEAD_BYTES {
        return Err(HandshakeError::Malformed);
    }
    let mut head = &body[..4];
    let versions = (head.get_u16(), head.get_u16());
    // A version we do not speak may have another body: the range alone decides then.
    if versions.0 > VERSIONS.1 || versions.1 < VERSIONS.0 {
        return Err(HandshakeError::VersionMismatch {
            ours: VERSIONS,
            theirs: versions,
        });
    }
    let body: HelloBody =
        postcard::from_bytes(&body[HELLO_HEAD_BYTES..]).map_err(|_| HandshakeError::Malformed)?;
    Ok(Hello {
        peer: body.peer,
        cluster: body.cluster,
        cluster_name: body.cluster_name,
        purpose: body.purpose,
        wall_ms: body.wall_ms,
        versions,
        listen_port: body.listen_port,
    })
}
