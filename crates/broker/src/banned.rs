//! Bans: who may not connect, on any node, until when.
//!
//! A ban is a row of cluster state, so it holds everywhere as soon as it has arrived, survives
//! restarts, and wins over a concurrent lifting of it. Those that name a client identifier, a user
//! name or an address are found by their key; those with a pattern (a network, an expression) are
//! few and compiled. It keeps nobody from going on who is connected: that is what kicking is for.
//!
//! A row's key is `<kind>/<who>`, its value (postcard): version u8 = 1, by, reason, since and until
//! in seconds since 1970 (until: none is for ever).

use std::net::IpAddr;
use std::sync::Arc;

use bytes::Bytes;
use dunlin_cluster::{Merged, Now, Value};
use ipnet::IpNet;
use regex::{Regex, RegexBuilder};
use serde::{Deserialize, Serialize};

use crate::shared::Lock;

/// Most bans with a pattern: each is tried at every CONNECT.
pub const PATTERNS_MAX: usize = 1_000;

/// Longest `who`, bytes.
pub const WHO_BYTES_MAX: usize = 1_024;

/// Memory a compiled expression may take, bytes.
const EXPRESSION_BYTES_MAX: usize = 256 * 1_024;

const VERSION: u8 = 1;

/// What a ban goes by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// A client identifier.
    Clientid,
    /// A user name.
    Username,
    /// An address.
    Peerhost,
    /// Client identifiers that match an expression.
    ClientidRe,
    /// User names that match an expression.
    UsernameRe,
    /// Addresses of a network, `10.0.0.0/8`.
    PeerhostNet,
}

impl Kind {
    /// All of them.
    pub const ALL: [Self; 6] = [
        Self::Clientid,
        Self::Username,
        Self::Peerhost,
        Self::ClientidRe,
        Self::UsernameRe,
        Self::PeerhostNet,
    ];

    /// The name operators use.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Clientid => "clientid",
            Self::Username => "username",
            Self::Peerhost => "peerhost",
            Self::ClientidRe => "clientid_re",
            Self::UsernameRe => "username_re",
            Self::PeerhostNet => "peerhost_net",
        }
    }

    /// The kind of a name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.name() == name)
    }

    /// Whether bans of this kind are found by a pattern, not by their key.
    pub const fn is_pattern(self) -> bool {
        matches!(
            self,
            Self::ClientidRe | Self::UsernameRe | Self::PeerhostNet
        )
    }
}

/// Who is banned. Made by [`Subject::parse`], so it is always one that can match.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Subject {
    /// By what.
    pub kind: Kind,
    /// Whom.
    pub who: String,
}

/// Why nobody can be banned like that.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SubjectError {
    /// There is no such kind.
    #[error(
        "'{0}' is no kind of ban; use clientid, username, peerhost, clientid_re, username_re or \
         peerhost_net"
    )]
    Kind(String),
    /// Empty, or longer than [`WHO_BYTES_MAX`].
    #[error("who must be 1 to {WHO_BYTES_MAX} bytes long")]
    Length,
    /// Not an address.
    #[error("'{0}' is no IP address; write one like 192.168.0.7 or 2001:db8::1")]
    Address(String),
    /// Not a network.
    #[error("'{0}' is no network; write one like 192.168.0.0/24")]
    Network(String),
    /// Not an expression, or one that is too large.
    #[error(
        "'{0}' is no regular expression that can be used; escape its special characters with \\"
    )]
    Expression(String),
}

impl Subject {
    /// Reads what an operator writes; addresses are brought to one form.
    pub fn parse(kind: &str, who: &str) -> Result<Self, SubjectError> {
        let kind = Kind::from_name(kind).ok_or_else(|| SubjectError::Kind(kind.to_owned()))?;
        if who.is_empty() || who.len() > WHO_BYTES_MAX {
            return Err(SubjectError::Length);
        }
        let given = || who.to_owned();
        let who = match kind {
            Kind::Clientid | Kind::Username => given(),
            Kind::Peerhost => {
                let address: IpAddr = who.parse().map_err(|_| SubjectError::Address(given()))?;
                address.to_canonical().to_string()
            }
            Kind::PeerhostNet => {
                let network: IpNet = who.parse().map_err(|_| SubjectError::Network(given()))?;
                network.trunc().to_string()
            }
            Kind::ClientidRe | Kind::UsernameRe => {
                expression(who).ok_or_else(|| SubjectError::Expression(given()))?;
                given()
            }
        };
        Ok(Self { kind, who })
    }

    /// The key of its row.
    pub fn key(&self) -> Bytes {
        key(self.kind, &self.who).into()
    }

    fn of_key(key: &[u8]) -> Option<Self> {
        let (kind, who) = std::str::from_utf8(key).ok()?.split_once('/')?;
        Self::parse(kind, who).ok()
    }
}

fn key(kind: Kind, who: &str) -> Vec<u8> {
    [kind.name(), "/", who].concat().into_bytes()
}

fn expression(text: &str) -> Option<Regex> {
    let mut builder = RegexBuilder::new(text);
    builder.size_limit(EXPRESSION_BYTES_MAX).build().ok()
}

/// What is known of a ban.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ban {
    v: u8,
    /// Who made it.
    pub by: String,
    /// Why.
    pub reason: String,
    /// Since when, seconds since 1970.
    pub at_s: u64,
    /// Until when, seconds since 1970; none is for ever.
    pub until_s: Option<u64>,
}

impl Ban {
    /// A ban.
    pub fn new(by: String, reason: String, at_s: u64, until_s: Option<u64>) -> Self {
        Self {
            v: VERSION,
            by,
            reason,
            at_s,
            until_s,
        }
    }

    /// The stored form.
    pub fn encode(&self) -> Bytes {
        // Serialising plain data into a Vec cannot fail.
        postcard::to_stdvec(self).unwrap_or_default().into()
    }

    /// Reads the stored form.
    pub fn decode(value: &[u8]) -> Option<Self> {
        postcard::from_bytes(value)
            .ok()
            .filter(|ban: &Self| ban.v == VERSION)
    }

    /// Whether it is in force.
    pub fn is_active(&self, wall_ms: u64) -> bool {
        self.until_s
            .is_none_or(|until_s| until_s.saturating_mul(1_000) > wall_ms)
    }
}

/// Who wants to connect, or to have a will published.
#[derive(Clone, Copy, Debug)]
pub struct Suspect<'a> {
    /// The client identifier.
    pub clientid: &'a str,
    /// The user name.
    pub username: Option<&'a str>,
    /// The address.
    pub address: IpAddr,
}

#[derive(Debug)]
enum Pattern {
    Clientid(Regex),
    Username(Regex),
    Network(IpNet),
}

impl Pattern {
    fn matches(&self, suspect: &Suspect<'_>) -> bool {
        match self {
            Self::Clientid(expression) => expression.is_match(suspect.clientid),
            Self::Username(expression) => suspect
                .username
                .is_some_and(|name| expression.is_match(name)),
            Self::Network(network) => network.contains(&suspect.address.to_canonical()),
        }
    }

    fn new(subject: &Subject) -> Option<Self> {
        match subject.kind {
            Kind::ClientidRe => expression(&subject.who).map(Self::Clientid),
            Kind::UsernameRe => expression(&subject.who).map(Self::Username),
            Kind::PeerhostNet => subject.who.parse().ok().map(Self::Network),
            Kind::Clientid | Kind::Username | Kind::Peerhost => None,
        }
    }
}

/// The bans of the cluster as the shards of one node ask them.
#[derive(Debug)]
pub struct Banned {
    table: Arc<Merged>,
    patterns: Lock<Arc<Vec<(Bytes, Pattern)>>>,
}

impl Banned {
    pub(crate) fn new(table: Arc<Merged>) -> Self {
        let banned = Self {
            table,
            patterns: Lock::new(Arc::default()),
        };
        banned.compile();
        banned
    }

    /// Whether somebody is banned now.
    pub fn is_banned(&self, now: Now, suspect: &Suspect<'_>) -> bool {
        if self.table.is_empty() {
            return false;
        }
        let address = suspect.address.to_canonical().to_string();
        let named = [
            Some((Kind::Clientid, suspect.clientid)),
            suspect.username.map(|name| (Kind::Username, name)),
            Some((Kind::Peerhost, &address)),
        ];
        let named = named.into_iter().flatten();
        let mut named = named.map(|(kind, who)| key(kind, who));
        if named.any(|key| self.is_active(now, &key)) {
            return true;
        }
        let patterns = Arc::clone(&self.patterns.read());
        let mut patterns = patterns.iter();
        patterns.any(|(key, pattern)| pattern.matches(suspect) && self.is_active(now, key))
    }

    fn is_active(&self, now: Now, key: &[u8]) -> bool {
        let ban = self.table.get(key).and_then(|value| Ban::decode(&value));
        ban.is_some_and(|ban| ban.is_active(now.wall_ms))
    }

    /// All bans, expired ones too, in order of kind and subject.
    pub fn all(&self) -> Vec<(Subject, Ban)> {
        let read = self.table.read();
        let ban =
            |(key, value): (&[u8], Value<'_>)| Some((Subject::of_key(key)?, Ban::decode(&value)?));
        read.range(&[]).filter_map(ban).collect()
    }

    /// One ban.
    pub fn get(&self, subject: &Subject) -> Option<Ban> {
        Ban::decode(&self.table.get(&subject.key())?)
    }

    /// Keys of at most `max` bans that are over.
    pub(crate) fn expired(&self, now: Now, max: usize) -> Vec<Bytes> {
        let read = self.table.read();
        let over =
            |value: &Value<'_>| Ban::decode(value).is_some_and(|b| !b.is_active(now.wall_ms));
        let expired = read.range(&[]).filter(|(_, value)| over(value));
        let keys = expired.map(|(key, _)| Bytes::copy_from_slice(key));
        keys.take(max).collect()
    }

    /// A row changed: patterns are compiled anew if it is one of them.
    pub(crate) fn changed(&self, key: &[u8]) {
        let kind = key.split(|byte| *byte == b'/').next().unwrap_or_default();
        let kind = std::str::from_utf8(kind).ok().and_then(Kind::from_name);
        if kind.is_some_and(Kind::is_pattern) {
            self.compile();
        }
    }

    /// All rows may have changed.
    pub(crate) fn compile(&self) {
        let mut patterns = Vec::new();
        let read = self.table.read();
        for (key, _) in read.range(&[]) {
            let Some(subject) = Subject::of_key(key).filter(|s| s.kind.is_pattern()) else {
                continue;
            };
            if patterns.len() >= PATTERNS_MAX {
                tracing::error!(
                    max = PATTERNS_MAX,
                    "too_many_ban_patterns: lift some of them"
                );
                break;
            }
            if let Some(pattern) = Pattern::new(&subject) {
                patterns.push((subject.key(), pattern));
            }
        }
        drop(read);
        *self.patterns.write() = Arc::new(patterns);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::{BANNED, TABLES};
    use dunlin_cluster::{Hlc, SiteId, Stamp};

    fn at(wall_ms: u64) -> Now {
        Now {
            mono_ms: 0,
            wall_ms,
        }
    }

    fn banned(subjects: &[(&str, &str)], until_s: Option<u64>) -> Banned {
        let spec = TABLES.iter().find(|spec| spec.id == BANNED).expect("there");
        let table = Arc::new(Merged::new(*spec));
        for (at, (kind, who)) in subjects.iter().enumerate() {
            let subject = Subject::parse(kind, who).expect("valid");
            let stamp = Stamp {
                hlc: Hlc(at as u64 + 1),
                site: SiteId([1; 16]),
            };
            let ban = Ban::new("test".into(), String::new(), 0, until_s);
            table.put(&subject.key(), Some(ban.encode()), stamp);
        }
        Banned::new(table)
    }

    fn suspect<'a>(clientid: &'a str, username: Option<&'a str>, address: &str) -> Suspect<'a> {
        Suspect {
            clientid,
            username,
            address: address.parse().expect("an address"),
        }
    }

    #[test]
    fn every_kind_bans_whom_it_names_and_nobody_else() {
        let good = suspect("good", Some("alice"), "10.1.2.3");
        let cases = [
            (("clientid", "bad"), suspect("bad", None, "10.1.2.3")),
            (
                ("username", "eve"),
                suspect("good", Some("eve"), "10.1.2.3"),
            ),
            (("peerhost", "10.9.9.9"), suspect("good", None, "10.9.9.9")),
            (
                ("peerhost", "10.9.9.9"),
                suspect("good", None, "::ffff:10.9.9.9"),
            ),
            (("clientid_re", "^b.d$"), suspect("bed", None, "10.1.2.3")),
            (
                ("username_re", "e.e"),
                suspect("good", Some("beye"), "10.1.2.3"),
            ),
            (
                ("peerhost_net", "10.9.0.0/16"),
                suspect("good", None, "10.9.255.1"),
            ),
        ];
        for (ban, bad) in cases {
            let banned = banned(&[ban], None);
            assert!(banned.is_banned(at(5), &bad), "{ban:?}");
            assert!(!banned.is_banned(at(5), &good), "{ban:?}");
        }
    }

    #[test]
    fn a_ban_ends_at_its_time() {
        let banned = banned(&[("clientid", "bad"), ("clientid_re", "b")], Some(10));
        let bad = suspect("bad", None, "10.1.2.3");
        assert!(banned.is_banned(at(9_999), &bad));
        assert!(!banned.is_banned(at(10_000), &bad));
        assert_eq!(banned.expired(at(9_999), 10), Vec::<Bytes>::new());
        assert_eq!(banned.expired(at(10_000), 1).len(), 1);
        assert_eq!(banned.expired(at(10_000), 10).len(), 2);
    }

    #[test]
    fn what_can_never_match_is_refused() {
        use SubjectError as E;
        let given = |text: &str| text.to_owned();
        for (kind, who, error) in [
            ("mood", "bad", E::Kind(given("mood"))),
            ("clientid", "", E::Length),
            ("peerhost", "10.1", E::Address(given("10.1"))),
            (
                "peerhost_net",
                "10.0.0.0/99",
                E::Network(given("10.0.0.0/99")),
            ),
            ("clientid_re", "(", E::Expression(given("("))),
        ] {
            assert_eq!(Subject::parse(kind, who), Err(error));
        }
        let same = Subject::parse("peerhost", "::ffff:10.1.2.3").expect("valid");
        assert_eq!(same.who, "10.1.2.3");
        let network = Subject::parse("peerhost_net", "10.1.2.3/8").expect("valid");
        assert_eq!(network.who, "10.0.0.0/8");
    }
}
