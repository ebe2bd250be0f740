//! `acl.conf`: rules of who may publish and subscribe, tried from top to bottom.
//!
//! The text is EMQX's: Erlang terms (see [`crate::term`]). A fault names its line, and the whole
//! file is refused: half a rule set is worse than none.

use std::net::IpAddr;

use dunlin_broker::access::{Action, Identity, Verdict};
use regex::Regex;

use crate::filter::{covers, matches, meets};
use crate::term::{self, Term, TermFault};

/// Longest regular expression compiled, bytes of its program; the default of the crate.
const REGEX_BYTES_MAX: usize = 10 * 1_024 * 1_024;

/// The rules of one file.
#[derive(Clone, Debug, Default)]
pub struct Acl {
    rules: Vec<Rule>,
    never: Vec<(u32, String)>,
}

/// A file of rules that cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {fault}")]
pub struct AclError {
    /// Counted from 1.
    pub line: u32,
    /// What is wrong there.
    pub fault: AclFault,
}

/// What is wrong with a rule, and what to write instead.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AclFault {
    /// It is no Erlang term.
    #[error("{0}")]
    Syntax(String),
    /// It is no rule.
    #[error(
        "this is no rule; write {{allow | deny, Who, publish | subscribe | all, [Topic]}}. \
         or {{allow | deny, all}}."
    )]
    NoRule,
    /// The first word is unknown.
    #[error("a rule begins with allow or deny")]
    Permission,
    /// Nobody is meant.
    #[error(
        "this says nobody; write all, {{username, \"name\"}}, {{clientid, \"id\"}}, \
         {{ipaddr, \"10.0.0.0/8\"}}, {{ipaddrs, [...]}}, {{username, {{re, \"^a\"}}}}, \
         {{'and', [...]}} or {{'or', [...]}}"
    )]
    Who,
    /// An address block that is none.
    #[error("'{0}' is no address; write \"10.0.0.1\" or \"10.0.0.0/8\"")]
    Address(String),
    /// A regular expression that is none.
    #[error("'{pattern}' is no regular expression: {error}")]
    Pattern {
        /// As written.
        pattern: String,
        /// What is wrong with it.
        error: String,
    },
    /// Nothing is meant.
    #[error(
        "this is no action; write publish, subscribe, all, or \
         {{publish, [{{qos, [0, 1]}}, {{retain, true | false | all}}]}}"
    )]
    Action,
    /// Not topics.
    #[error("topics are a list such as [\"t/#\", {{eq, \"#\"}}]")]
    Topics,
    /// A topic that is no filter.
    #[error("'{0}' is no topic filter: # stands alone at the end, + alone between slashes")]
    Filter(String),
}

#[derive(Clone, Debug)]
struct Rule {
    verdict: Verdict,
    who: Who,
    what: What,
    /// `None`: all.
    topics: Option<Vec<Topic>>,
}

#[derive(Clone, Debug)]
enum Who {
    All,
    Username(Text),
    Clientid(Text),
    Address(Vec<Net>),
    /// No client has attributes yet.
    Attribute,
    And(Vec<Self>),
    Or(Vec<Self>),
}

#[derive(Clone, Debug)]
enum Text {
    Is(String),
    Like(Regex),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Net {
    address: IpAddr,
    bits: u8,
}

#[derive(Clone, Copy, Debug)]
struct What {
    publish: bool,
    subscribe: bool,
    /// One bit for each quality of service.
    qos: u8,
    /// Only messages with this retain flag.
    retain: Option<bool>,
}

#[derive(Clone, Debug)]
struct Topic {
    pattern: String,
    /// Taken literally.
    eq: bool,
    /// Holds `${…}`.
    template: bool,
}

impl Acl {
    /// Reads the text of a file.
    pub fn parse(text: &str) -> Result<Self, AclError> {
        let fail = |line, fault| AclError { line, fault };
        let syntax =
            |(line, fault): (u32, TermFault)| fail(line, AclFault::Syntax(fault.to_string()));
        let mut acl = Self::default();
        for (line, term) in term::read(text).map_err(syntax)? {
            let rule = rule(&term).map_err(|fault| fail(line, fault))?;
            acl.note_never(line, &rule);
            acl.rules.push(rule);
        }
        Ok(acl)
    }

    /// How many rules there are.
    pub fn len(&self) -> usize {
        self.rules.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.rules.is_empty()
    }

    /// Rules that can never apply here, with their lines and why: to be said aloud.
    pub fn never(&self) -> &[(u32, String)] {
        &self.never
    }

    /// The first rule's verdict; `None` if none applies.
    pub fn verdict(&self, who: &Identity<'_>, action: Action, topic: &str) -> Option<Verdict> {
        let applies = |rule: &&Rule| {
            rule.what.is(action)
                && rule.who.is(who)
                && rule.topics.as_ref().is_none_or(|topics| {
                    topics
                        .iter()
                        .any(|pattern| pattern.applies(who, rule.verdict, action, topic))
                })
        };
        self.rules.iter().find(applies).map(|rule| rule.verdict)
    }

    fn note_never(&mut self, line: u32, rule: &Rule) {
        if rule.who.needs_attributes() {
            let why = "client attributes are not supported";
            self.never.push((line, why.to_owned()));
        }
        for topic in rule.topics.iter().flatten() {
            if let Some(name) = unknown_variable(&topic.pattern) {
                self.never.push((line, format!("${{{name}}} is not known")));
            }
        }
    }
}

impl Who {
    fn is(&self, who: &Identity<'_>) -> bool {
        match self {
            Self::All => true,
            Self::Username(text) => who.username.is_some_and(|name| text.is(name)),
            Self::Clientid(text) => text.is(who.clientid),
            Self::Address(nets) => {
                let address = who.peer.ip().to_canonical();
                nets.iter().any(|net| net.holds(address))
            }
            Self::Attribute => false,
            Self::And(all) => all.iter().all(|one| one.is(who)),
            Self::Or(any) => any.iter().any(|one| one.is(who)),
        }
    }

    fn needs_attributes(&self) -> bool {
        match self {
            Self::Attribute => true,
            Self::And(of) | Self::Or(of) => of.iter().any(Self::needs_attributes),
            _ => false,
        }
    }
}

impl Text {
    fn is(&self, text: &str) -> bool {
        match self {
            Self::Is(own) => own == text,
            Self::Like(pattern) => pattern.is_match(text),
        }
    }
}

impl Net {
    fn parse(text: &str) -> Option<Self> {
        let (address, bits) = text
            .split_once('/')
            .map_or((text, None), |(a, b)| (a, Some(b)));
        let address: IpAddr = address.trim().parse().ok()?;
        let most = if address.is_ipv4() { 32 } else { 128 };
        let bits = bits.map_or(Some(most), |bits| bits.trim().parse().ok())?;
        (bits <= most).then_some(Self { address, bits })
    }

    fn holds(self, address: IpAddr) -> bool {
        match (self.address, address) {
            (IpAddr::V4(own), IpAddr::V4(other)) => {
                let mask = u32::MAX.checked_shl(32 - u32::from(self.bits)).unwrap_or(0);
                own.to_bits() & mask == other.to_bits() & mask
            }
            (IpAddr::V6(own), IpAddr::V6(other)) => {
                let mask = u128::MAX
                    .checked_shl(128 - u32::from(self.bits))
                    .unwrap_or(0);
                own.to_bits() & mask == other.to_bits() & mask
            }
            _ => false,
        }
    }
}

impl What {
    fn is(self, action: Action) -> bool {
        match action {
            Action::Publish { qos, retain } => {
                self.publish
                    && self.qos & (1 << qos) != 0
                    && self.retain.is_none_or(|wanted| wanted == retain)
            }
            Action::Subscribe { qos } => self.subscribe && self.qos & (1 << qos) != 0,
        }
    }
}

impl Topic {
    fn applies(&self, who: &Identity<'_>, verdict: Verdict, action: Action, topic: &str) -> bool {
        let rendered;
        let pattern = if self.template {
            match render(&self.pattern, who) {
                Some(text) => {
                    rendered = text;
                    rendered.as_str()
                }
                None => return false,
            }
        } else {
            self.pattern.as_str()
        };
        if self.eq {
            return pattern == topic;
        }
        match (action, verdict) {
            (Action::Publish { .. }, _) => matches(pattern, topic),
            (Action::Subscribe { .. }, Verdict::Allow) => covers(pattern, topic),
            (Action::Subscribe { .. }, Verdict::Deny) => meets(pattern, topic),
        }
    }
}

/// Fills in what is known of the client. `None` if something is not known, or would be a wildcard:
/// a client that calls itself `#` must not get everybody's topics.
fn render(pattern: &str, who: &Identity<'_>) -> Option<String> {
    let mut out = String::with_capacity(pattern.len() + 16);
    let mut rest = pattern;
    while let Some(at) = rest.find("${") {
        out.push_str(&rest[..at]);
        let end = rest[at..].find('}')? + at;
        let value = variable(&rest[at + 2..end], who)?;
        if value.contains(['+', '#', '/']) {
            return None;
        }
        out.push_str(value);
        rest = &rest[end + 1..];
    }
    out.push_str(rest);
    Some(out)
}

fn variable<'a>(name: &str, who: &Identity<'a>) -> Option<&'a str> {
    match name {
        "clientid" => Some(who.clientid),
        "username" => who.username,
        "cert_common_name" => who.cert.map(|cert| cert.cn.as_str()),
        "cert_subject" => who.cert.map(|cert| cert.dn.as_str()),
        _ => None,
    }
}

fn unknown_variable(pattern: &str) -> Option<&str> {
    const KNOWN: [&str; 4] = ["clientid", "username", "cert_common_name", "cert_subject"];
    let names = pattern.split("${").skip(1);
    let mut names = names.map(|rest| rest.split('}').next().unwrap_or(rest));
    names.find(|name| !KNOWN.contains(name))
}

fn rule(term: &Term) -> Result<Rule, AclFault> {
    let Term::Tuple(parts) = term else {
        return Err(AclFault::NoRule);
    };
    let verdict = match parts.first() {
        Some(Term::Atom(word)) if word == "allow" => Verdict::Allow,
        Some(Term::Atom(word)) if word == "deny" => Verdict::Deny,
        Some(_) => return Err(AclFault::Permission),
        None => return Err(AclFault::NoRule),
    };
    match &parts[1..] {
        [Term::Atom(all)] if all == "all" => Ok(Rule {
            verdict,
            who: Who::All,
            what: EVERYTHING,
            topics: None,
        }),
        [whom, action, topics] => Ok(Rule {
            verdict,
            who: who(whom)?,
            what: what(action)?,
            topics: Some(self::topics(topics)?),
        }),
        _ => Err(AclFault::NoRule),
    }
}

const EVERYTHING: What = What {
    publish: true,
    subscribe: true,
    qos: 0b111,
    retain: None,
};

fn who(term: &Term) -> Result<Who, AclFault> {
    let parts = match term {
        Term::Atom(word) if word == "all" => return Ok(Who::All),
        Term::Tuple(parts) => parts.as_slice(),
        _ => return Err(AclFault::Who),
    };
    let all = |of: &[Term]| of.iter().map(who).collect::<Result<Vec<_>, _>>();
    match parts {
        [Term::Atom(kind), value] => match (kind.as_str(), value) {
            ("username" | "user", value) => Ok(Who::Username(text(value)?)),
            ("clientid" | "client", value) => Ok(Who::Clientid(text(value)?)),
            ("ipaddr", value) => Ok(Who::Address(vec![net(value)?])),
            ("ipaddrs", Term::List(of)) => {
                let nets = of.iter().map(net).collect::<Result<_, _>>()?;
                Ok(Who::Address(nets))
            }
            ("and", Term::List(of)) => Ok(Who::And(all(of)?)),
            ("or", Term::List(of)) => Ok(Who::Or(all(of)?)),
            _ => Err(AclFault::Who),
        },
        [Term::Atom(kind), Term::Text(_), value] if kind == "client_attr" => {
            text(value)?;
            Ok(Who::Attribute)
        }
        _ => Err(AclFault::Who),
    }
}

/// `"text"` or `{re, "pattern"}`.
fn text(term: &Term) -> Result<Text, AclFault> {
    match term {
        Term::Text(text) => Ok(Text::Is(text.clone())),
        Term::Tuple(parts) => match parts.as_slice() {
            [Term::Atom(re), Term::Text(pattern)] if re == "re" => {
                let mut builder = regex::RegexBuilder::new(pattern);
                let compiled = builder.size_limit(REGEX_BYTES_MAX).build();
                compiled.map(Text::Like).map_err(|error| AclFault::Pattern {
                    pattern: pattern.clone(),
                    error: error.to_string(),
                })
            }
            _ => Err(AclFault::Who),
        },
        _ => Err(AclFault::Who),
    }
}

fn net(term: &Term) -> Result<Net, AclFault> {
    let Term::Text(text) = term else {
        return Err(AclFault::Who);
    };
    Net::parse(text).ok_or_else(|| AclFault::Address(text.clone()))
}

fn what(term: &Term) -> Result<What, AclFault> {
    match term {
        Term::Atom(word) => action(word),
        Term::Tuple(parts) => match parts.as_slice() {
            [Term::Atom(word), Term::List(options)] => {
                let mut what = action(word)?;
                for option in options {
                    narrow(&mut what, option)?;
                }
                Ok(what)
            }
            _ => Err(AclFault::Action),
        },
        _ => Err(AclFault::Action),
    }
}

fn action(word: &str) -> Result<What, AclFault> {
    let (publish, subscribe) = match word {
        "publish" | "pub" => (true, false),
        "subscribe" | "sub" => (false, true),
        "all" | "pubsub" => (true, true),
        _ => return Err(AclFault::Action),
    };
    Ok(What {
        publish,
        subscribe,
        ..EVERYTHING
    })
}

/// `{qos, 1}`, `{qos, [0, 1]}`, `{retain, true}`.
fn narrow(what: &mut What, option: &Term) -> Result<(), AclFault> {
    let Term::Tuple(parts) = option else {
        return Err(AclFault::Action);
    };
    match parts.as_slice() {
        [Term::Atom(name), value] if name == "qos" => {
            let one = std::slice::from_ref(value);
            let values = match value {
                Term::List(values) => values.as_slice(),
                _ => one,
            };
            what.qos = 0;
            for value in values {
                match value {
                    Term::Number(qos @ 0..=2) => what.qos |= 1 << qos,
                    _ => return Err(AclFault::Action),
                }
            }
            Ok(())
        }
        [Term::Atom(name), Term::Atom(value)] if name == "retain" => {
            what.retain = match value.as_str() {
                "true" => Some(true),
                "false" => Some(false),
                "all" => None,
                _ => return Err(AclFault::Action),
            };
            Ok(())
        }
        _ => Err(AclFault::Action),
    }
}

fn topics(term: &Term) -> Result<Vec<Topic>, AclFault> {
    let Term::List(topics) = term else {
        return Err(AclFault::Topics);
    };
    let topic = |term: &Term| {
        let (pattern, eq) = match term {
            Term::Text(pattern) => (pattern, false),
            Term::Tuple(parts) => match parts.as_slice() {
                [Term::Atom(word), Term::Text(pattern)] if word == "eq" => (pattern, true),
                _ => return Err(AclFault::Topics),
            },
            _ => return Err(AclFault::Topics),
        };
        if !eq && !is_filter(pattern) {
            return Err(AclFault::Filter(pattern.clone()));
        }
        Ok(Topic {
            pattern: pattern.clone(),
            eq,
            template: pattern.contains("${"),
        })
    };
    topics.iter().map(topic).collect()
}

fn is_filter(pattern: &str) -> bool {
    let last = pattern.split('/').count() - 1;
    !pattern.is_empty()
        && pattern
            .split('/')
            .enumerate()
            .all(|(at, level)| match level {
                "#" => at == last,
                "+" => true,
                level => !level.contains(['+', '#']),
            })
}

#[cfg(test)]
mod tests;
