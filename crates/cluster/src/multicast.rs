//! The datagrams of discovery by multicast: who is there, proven by the cookie.
//!
//! ```text
//!   0        4         5      6               6+c        7+c           7+c+n    39+c+n
//!   +--------+---------+------+---------------+----------+-------------+--------+
//!   | "dnlm" | version | kind | c u8, cluster | n u8     | node's name | proof  |
//!   |        | 1       |      | .name         |          |             | 32     |
//!   +--------+---------+------+---------------+----------+-------------+--------+
//! ```
//! Kinds: 1 asks who is there, 2 answers. The proof is an HMAC-SHA256 with the cookie over all
//! before it. A datagram can be recorded and sent again; all that comes of it is that the node it
//! names is dialed, and must prove itself then.

use bytes::Bytes;
use ring::hmac;

use crate::identity::{Cookie, Identity};
use crate::name::NodeName;

const MAGIC: &[u8; 4] = b"dnlm";
const VERSION: u8 = 1;
const PROOF_BYTES: usize = 32;

/// Whether a datagram wants an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Ask = 1,
    Answer = 2,
}

/// A datagram of a node that knows the cookie.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Datagram {
    pub(crate) kind: Kind,
    pub(crate) cluster_name: String,
    pub(crate) node: NodeName,
}

/// Why a datagram is not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Refused {
    #[error("it is none of this protocol; give each use of multicast its own cluster.mcast.addr")]
    Foreign,
    #[error("it has another release's version; upgrade the older node")]
    Version,
    #[error("its node has another cookie; set the same node.cookie on all nodes of the cluster")]
    Cookie,
    #[error("it is damaged")]
    Malformed,
}

impl Datagram {
    /// What this node sends; nothing if its cluster's name is longer than a datagram can say.
    pub(crate) fn of(kind: Kind, own: &Identity, cookie: &Cookie) -> Option<Bytes> {
        let mut bytes = [MAGIC.as_slice(), &[VERSION, kind as u8]].concat();
        for text in [own.cluster_name.as_str(), own.name.as_str()] {
            bytes.push(u8::try_from(text.len()).ok()?);
            bytes.extend_from_slice(text.as_bytes());
        }
        let proof = hmac::sign(&key(cookie), &bytes);
        bytes.extend_from_slice(proof.as_ref());
        Some(bytes.into())
    }

    pub(crate) fn read(bytes: &[u8], cookie: &Cookie) -> Result<Self, Refused> {
        let rest = bytes.strip_prefix(MAGIC).ok_or(Refused::Foreign)?;
        if rest.first() != Some(&VERSION) {
            return Err(Refused::Version);
        }
        let Some(at) = bytes.len().checked_sub(PROOF_BYTES) else {
            return Err(Refused::Malformed);
        };
        let (said, proof) = bytes.split_at(at);
        hmac::verify(&key(cookie), said, proof).map_err(|_| Refused::Cookie)?;
        let said = said.get(MAGIC.len() + 1..);
        said.and_then(Self::parse).ok_or(Refused::Malformed)
    }

    /// What follows the version.
    fn parse(said: &[u8]) -> Option<Self> {
        let (kind, rest) = said.split_first()?;
        let kind = match kind {
            1 => Kind::Ask,
            2 => Kind::Answer,
            _ => return None,
        };
        let (cluster_name, rest) = text(rest)?;
        let (node, rest) = text(rest)?;
        rest.is_empty().then_some(())?;
        Some(Self {
            kind,
            cluster_name: cluster_name.to_owned(),
            node: NodeName::parse(node).ok()?,
        })
    }
}

fn text(bytes: &[u8]) -> Option<(&str, &[u8])> {
    let (length, rest) = bytes.split_first()?;
    let (text, rest) = rest.split_at_checked(usize::from(*length))?;
    Some((std::str::from_utf8(text).ok()?, rest))
}

fn key(cookie: &Cookie) -> hmac::Key {
    hmac::Key::new(hmac::HMAC_SHA256, cookie.secret())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::{BootId, ClusterId, SiteId};

    fn identity(cluster_name: &str) -> Identity {
        Identity {
            name: NodeName::parse("emqx@10.0.0.1").expect("valid"),
            site: SiteId([1; 16]),
            boot: BootId(7),
            cluster: ClusterId([2; 16]),
            cluster_name: cluster_name.to_owned(),
            listen_port: 4370,
        }
    }

    #[test]
    fn what_is_written_is_read() {
        let (own, cookie) = (identity("emqxcl"), Cookie::new("secret"));
        for kind in [Kind::Ask, Kind::Answer] {
            let bytes = Datagram::of(kind, &own, &cookie).expect("short names");
            let read = Datagram::read(&bytes, &cookie).expect("it is ours");
            assert_eq!((read.kind, read.node), (kind, own.name.clone()));
            assert_eq!(read.cluster_name, "emqxcl");
        }
        assert_eq!(
            Datagram::of(Kind::Ask, &identity(&"x".repeat(300)), &cookie),
            None
        );
    }

    #[test]
    fn nothing_else_is_taken_and_nothing_panics() {
        let cookie = Cookie::new("secret");
        let bytes = Datagram::of(Kind::Ask, &identity("c"), &cookie).expect("short names");
        let read = |bytes: &[u8]| Datagram::read(bytes, &cookie);
        assert_eq!(
            Datagram::read(&bytes, &Cookie::new("other")),
            Err(Refused::Cookie)
        );
        assert_eq!(read(b"M-SEARCH * HTTP/1.1"), Err(Refused::Foreign));
        for length in 0..bytes.len() {
            assert!(read(&bytes[..length]).is_err(), "{length} bytes");
        }
        for at in 0..bytes.len() {
            let mut damaged = bytes.to_vec();
            damaged[at] ^= 1;
            assert!(read(&damaged).is_err(), "byte {at}");
        }
    }

    proptest::proptest! {
        #[test]
        fn any_bytes_of_a_node_that_knows_the_cookie_are_read_or_refused(
            mut said: Vec<u8>
        ) {
            let cookie = Cookie::new("secret");
            said.splice(0..0, MAGIC.iter().copied().chain([VERSION]));
            let proof = hmac::sign(&key(&cookie), &said);
            said.extend_from_slice(proof.as_ref());
            let _ = Datagram::read(&said, &cookie);
        }
    }
}
