//! `authorization`: sources of rules in their order, and what holds when none has a verdict.
//!
//! Every verdict is computed: the rules of a file cost less than a look into a cache, so there is
//! none, and a changed rule holds at once.

use dunlin_broker::access::{Action, Authorizer, Identity, Verdict};
use serde_json::Value;

use crate::acl::Acl;

/// A configured source of type `file`; its text is the caller's to read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileSource {
    /// Where its rules are.
    pub path: String,
}

/// What `authorization.sources` asks for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sources {
    /// Files, in order.
    pub files: Vec<FileSource>,
    /// Types that this release does not have, with their places in the list.
    pub unsupported: Vec<(usize, String)>,
}

/// A source that is described wrongly.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SourceError {
    /// It has no type.
    #[error(
        "authorization.sources.{index} has no type; write {{type = file, path = \"etc/acl.conf\"}}"
    )]
    NoType {
        /// Counted from 1.
        index: usize,
    },
    /// A file without a path.
    #[error("authorization.sources.{index} is a file without path; add path = \"etc/acl.conf\"")]
    NoPath {
        /// Counted from 1.
        index: usize,
    },
    /// Two of a type.
    #[error("authorization.sources.{index} is a second source of type {kind}; one is allowed")]
    Twice {
        /// Counted from 1.
        index: usize,
        /// The type.
        kind: String,
    },
}

impl Sources {
    /// Reads the configured list; sources that are off are left out.
    pub fn parse(configured: &[Value]) -> Result<Self, SourceError> {
        let mut sources = Self::default();
        let mut kinds = Vec::new();
        for (at, source) in configured.iter().enumerate() {
            let index = at + 1;
            let kind = source["type"].as_str();
            let kind = kind.ok_or(SourceError::NoType { index })?.to_owned();
            if kinds.contains(&kind) {
                return Err(SourceError::Twice { index, kind });
            }
            kinds.push(kind.clone());
            if is_off(&source["enable"]) {
                continue;
            }
            if kind == "file" {
                let path = source["path"].as_str().filter(|path| !path.is_empty());
                let path = path.ok_or(SourceError::NoPath { index })?.to_owned();
                sources.files.push(FileSource { path });
            } else {
                sources.unsupported.push((index, kind));
            }
        }
        Ok(sources)
    }
}

/// Whether `enable` says no; a configuration may write it as text.
pub(crate) fn is_off(enable: &Value) -> bool {
    *enable == Value::Bool(false) || enable.as_str() == Some("false")
}

/// The rules in force.
#[derive(Debug)]
pub struct Authorization {
    sources: Vec<Acl>,
    no_match: Verdict,
}

impl Authorization {
    /// Rules by source, in order, and what holds when none applies.
    pub fn new(sources: Vec<Acl>, no_match: Verdict) -> Self {
        Self { sources, no_match }
    }
}

impl Authorizer for Authorization {
    fn authorize(&self, who: &Identity<'_>, action: Action, topic: &str) -> Verdict {
        let verdicts = self.sources.iter();
        let mut verdicts = verdicts.filter_map(|acl| acl.verdict(who, action, topic));
        verdicts.next().unwrap_or(self.no_match)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn sources_are_read_in_order_and_those_that_are_off_left_out() {
        let configured = [
            json!({"type": "file", "path": "a", "enable": true}),
            json!({"type": "mysql", "server": "db"}),
            json!({"type": "http", "enable": "false"}),
        ];
        let sources = Sources::parse(&configured).expect("sound");
        assert_eq!(sources.files[0].path, "a");
        assert_eq!(sources.unsupported, [(2, "mysql".to_owned())]);
        let off = [json!({"type": "file", "enable": false})];
        assert_eq!(Sources::parse(&off), Ok(Sources::default()));
    }

    #[test]
    fn what_is_wrong_with_a_source_is_told() {
        let file = json!({"type": "file", "path": "a"});
        for (configured, says) in [
            (vec![json!({})], "no type"),
            (vec![json!({"type": "file"})], "without path"),
            (vec![file.clone(), file], "second source"),
        ] {
            let error = Sources::parse(&configured).expect_err("unsound");
            assert!(error.to_string().contains(says), "{error}");
        }
    }

    #[test]
    fn the_first_source_with_a_verdict_decides_then_no_match() {
        let acl = |text| Acl::parse(text).expect("rules");
        let who = Identity {
            clientid: "c",
            username: None,
            peer: ([10, 0, 0, 1], 1).into(),
            listener: "tcp:default",
            cert: None,
        };
        let first = acl(r#"{deny, all, subscribe, ["a"]}."#);
        let second = acl(r#"{allow, all, subscribe, ["a", "b"]}."#);
        let rules = Authorization::new(vec![first, second], Verdict::Deny);
        let of = |topic| rules.authorize(&who, Action::Subscribe { qos: 0 }, topic);
        assert_eq!(of("a"), Verdict::Deny);
        assert_eq!(of("b"), Verdict::Allow);
        assert_eq!(of("c"), Verdict::Deny, "no_match");
    }
}
