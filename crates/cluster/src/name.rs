//! Node names `name@host`: what an operator types, what peers dial, what the port follows from.
//!
//! A name is valid by construction; nothing else in the crate parses one.

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

/// Port of a node whose short name has no trailing digits.
const BASE_PORT: u16 = 4370;

/// Modulus of the trailing digits, as EMQX computes it.
const PORT_OFFSETS: u32 = 60_000;

/// Longest accepted name, bytes: a DNS name is at most 253 long, short names stay far below 255.
pub const NAME_BYTES_MAX: usize = 512;

/// Why a text is not a node name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// There is no `@`, or nothing on one side of it.
    #[error("node name '{0}' is not of the form name@host")]
    NoHost(String),
    /// The part before `@` has characters outside `0-9A-Za-z_-`.
    #[error("Invalid node name, should be of format '^[0-9A-Za-z_-]+$': '{0}'")]
    BadShort(String),
    /// The host has a space, a control character, a quote, a slash or a second `@`.
    #[error("host of node name '{0}' is not a host name or an IP address")]
    BadHost(String),
    /// Longer than [`NAME_BYTES_MAX`].
    #[error("node name is {0} bytes long, at most {NAME_BYTES_MAX} are allowed")]
    TooLong(usize),
}

/// A valid node name, cheap to clone.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct NodeName(Arc<str>);

impl NodeName {
    /// Parses `name@host`.
    pub fn parse(text: &str) -> Result<Self, NameError> {
        if text.len() > NAME_BYTES_MAX {
            return Err(NameError::TooLong(text.len()));
        }
        let Some((short, host)) = text.split_once('@') else {
            return Err(NameError::NoHost(text.to_owned()));
        };
        if short.is_empty() || host.is_empty() {
            return Err(NameError::NoHost(text.to_owned()));
        }
        if !short
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-')
        {
            return Err(NameError::BadShort(text.to_owned()));
        }
        // Anything a resolver may take (IPv4, IPv6 with a zone, DNS) and nothing that could
        // confuse a log line or a shell.
        if !host
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b"._-:%[]".contains(&b))
        {
            return Err(NameError::BadHost(text.to_owned()));
        }
        Ok(Self(text.into()))
    }

    /// Completes a command's argument: without `@` the node is on `own`'s host.
    pub fn complete(arg: &str, own: &Self) -> Result<Self, NameError> {
        if arg.contains('@') {
            Self::parse(arg)
        } else {
            Self::parse(&format!("{arg}@{}", own.host()))
        }
    }

    /// The part before `@`.
    pub fn short(&self) -> &str {
        self.0.split_once('@').map_or("", |(short, _)| short)
    }

    /// The part after `@`.
    pub fn host(&self) -> &str {
        self.0.split_once('@').map_or("", |(_, host)| host)
    }

    /// The whole name.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether both name one node: names of hosts have no case.
    pub(crate) fn same_as(&self, other: &Self) -> bool {
        self.0.eq_ignore_ascii_case(&other.0)
    }

    /// The inter-node port: 4370 plus the trailing digits of the short name, modulo 60000.
    ///
    /// Sums above 65535 wrap, so that every name has a port.
    pub fn port(&self) -> u16 {
        let short = self.short();
        let digits = short
            .rsplit(|c: char| !c.is_ascii_digit())
            .next()
            .unwrap_or("");
        let offset = digits.bytes().fold(0_u32, |sum, digit| {
            (sum * 10 + u32::from(digit - b'0')) % PORT_OFFSETS
        });
        BASE_PORT.wrapping_add(offset as u16)
    }
}

impl fmt::Display for NodeName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for NodeName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl TryFrom<String> for NodeName {
    type Error = NameError;

    fn try_from(text: String) -> Result<Self, NameError> {
        Self::parse(&text)
    }
}

impl From<NodeName> for String {
    fn from(name: NodeName) -> Self {
        name.0.as_ref().to_owned()
    }
}

impl std::str::FromStr for NodeName {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        Self::parse(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_follow_the_trailing_digits() {
        let cases = [
            ("emqx@h", 4370),
            ("emqx1@127.0.0.1", 4371),
            ("emqx2@h", 4372),
            ("n10@h", 4380),
            ("a1b@h", 4370),
            ("emqx-core-0@h", 4370),
            ("emqx-core-12@h", 4382),
            ("n60001@h", 4371),
            ("7@h", 4377),
            ("n99999999999999999999@h", 4370_u16.wrapping_add(39_999)),
        ];
        for (name, port) in cases {
            assert_eq!(NodeName::parse(name).map(|n| n.port()), Ok(port), "{name}");
        }
    }

    #[test]
    fn bad_names_say_what_is_wrong() {
        assert!(matches!(NodeName::parse("emqx"), Err(NameError::NoHost(_))));
        assert!(matches!(NodeName::parse("@h"), Err(NameError::NoHost(_))));
        assert!(matches!(NodeName::parse("a@"), Err(NameError::NoHost(_))));
        assert!(matches!(
            NodeName::parse("a.b@h"),
            Err(NameError::BadShort(_))
        ));
        assert!(matches!(
            NodeName::parse("a@h h"),
            Err(NameError::BadHost(_))
        ));
        assert!(matches!(
            NodeName::parse("a@b@c"),
            Err(NameError::BadHost(_))
        ));
        assert!(matches!(
            NodeName::parse(&"a".repeat(600)),
            Err(NameError::TooLong(600))
        ));
    }

    #[test]
    fn short_arguments_are_completed_with_the_own_host() {
        let own = NodeName::parse("emqx@10.0.0.1").expect("valid");
        let done = NodeName::complete("emqx1", &own).expect("valid");
        assert_eq!(
            (done.as_str(), done.short(), done.host()),
            ("emqx1@10.0.0.1", "emqx1", "10.0.0.1")
        );
        let done = NodeName::complete("x@y", &own).expect("valid");
        assert_eq!(done.as_str(), "x@y");
    }
}
