//! The registry of fields: what a key is.
//!
//! A field is declared once, as data, in `section/`; validation, error texts, the names
//! of variables and the reference page all read that declaration. Nothing here looks at
//! a value.

use crate::hocon::{Entry, Expr, ExprKind, Node, Value};
use crate::unit;

/// What kind of value a field takes.
#[derive(Debug, Clone, Copy)]
pub enum Kind {
    /// `true` or `false`.
    Bool,
    /// A whole number.
    Int {
        /// Lowest allowed.
        min: i64,
        /// Highest allowed.
        max: i64,
    },
    /// Any number.
    Float {
        /// Lowest allowed.
        min: f64,
        /// Highest allowed.
        max: f64,
    },
    /// Text.
    String,
    /// Text that is never shown.
    Secret,
    /// A file path; `${EMQX_ETC_DIR}` and the like at its start are replaced.
    Path,
    /// One of some words.
    Enum(&'static [&'static str]),
    /// One of some words, with other spellings of them.
    Spelled {
        /// The words.
        words: &'static [&'static str],
        /// Other spelling -> word.
        also: &'static [(&'static str, &'static str)],
    },
    /// A duration; a bare number is milliseconds.
    Duration,
    /// A duration in whole seconds, rounded up; a bare number is seconds.
    DurationS,
    /// A size in bytes.
    ByteSize,
    /// A fraction such as `80%`.
    Percent,
    /// So many per interval, such as `1000/s`.
    Rate,
    /// A port, or an address and a port.
    Bind,
    /// An IP address.
    Ip,
    /// `allow all`, `deny 10.0.0.0/8`.
    AccessRule,
    /// One of some words, or another kind.
    Words(&'static [&'static str], &'static Self),
    /// A list.
    List(&'static Self),
    /// A list; one element may stand alone.
    ListOrOne(&'static Self),
    /// A list, or a string with commas.
    CommaList(&'static Self),
    /// An object with known keys.
    Object(&'static [Field]),
    /// An object with known keys that has no defaults of its own: it inherits.
    Partial(&'static [Field]),
    /// Name -> value.
    Map(&'static Self),
    /// Either one object, which is then named `default`, or name -> object.
    OneOrNamed(&'static [Field]),
    /// The first kind that fits.
    Union(&'static [Self]),
    /// Anything; what it means is decided elsewhere.
    Raw,
}

/// Whether a key does something here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Effect {
    /// It does.
    Acts,
    /// It is accepted so that an EMQX configuration loads.
    AcceptedWithoutEffect,
}

/// When a change at run time is in force.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum InForce {
    /// At once, for everybody.
    AtOnce,
    /// At once, for whoever connects from then on.
    NewConnections,
    /// After a restart of the node.
    AfterRestart,
}

/// One key of the configuration.
#[derive(Debug, Clone, Copy)]
pub struct Field {
    /// Its name.
    pub name: &'static str,
    /// Other names, of older versions.
    pub aliases: &'static [&'static str],
    /// What it takes.
    pub kind: Kind,
    /// Its default as configuration text.
    pub default: Option<&'static str>,
    /// An example for a field that must be given.
    pub required: Option<&'static str>,
    /// What it is, in one or two sentences.
    pub doc: &'static str,
    /// EMQX version that introduced it; empty = 5.0.
    pub since: &'static str,
    /// What to do instead, if it is deprecated.
    pub deprecated: Option<&'static str>,
    /// Whether it does something here.
    pub effect: Effect,
    /// What its doing nothing leaves open, if it would guard something: said at every start of
    /// a configuration that asks for the guard.
    pub leaves_open: Option<&'static str>,
    /// When a change at run time is in force; of all fields on the way to a key the latest counts.
    pub in_force: InForce,
    /// Whether the reference page leaves it out.
    pub hidden: bool,
}

/// A field with a default.
pub(crate) const fn field(
    name: &'static str,
    kind: Kind,
    default: &'static str,
    doc: &'static str,
) -> Field {
    let mut field = optional(name, kind, doc);
    field.default = Some(default);
    field
}

/// A field that may be unset.
pub(crate) const fn optional(name: &'static str, kind: Kind, doc: &'static str) -> Field {
    Field {
        name,
        aliases: &[],
        kind,
        default: None,
        required: None,
        doc,
        since: "",
        deprecated: None,
        effect: Effect::Acts,
        leaves_open: None,
        in_force: InForce::AtOnce,
        hidden: false,
    }
}

/// A group of fields.
pub(crate) const fn group(
    name: &'static str,
    fields: &'static [Field],
    doc: &'static str,
) -> Field {
    optional(name, Kind::Object(fields), doc)
}

/// A root or group that is only accepted, whatever it holds.
pub(crate) const fn open(name: &'static str, doc: &'static str) -> Field {
    optional(name, Kind::Raw, doc).inert()
}

impl Field {
    pub(crate) const fn inert(mut self) -> Self {
        self.effect = Effect::AcceptedWithoutEffect;
        self
    }

    /// Accepted only, although it would guard something.
    pub(crate) const fn unguarded(self, leaves_open: &'static str) -> Self {
        let mut field = self.inert();
        field.leaves_open = Some(leaves_open);
        field
    }

    pub(crate) const fn hidden(mut self) -> Self {
        self.hidden = true;
        self
    }

    pub(crate) const fn alias(mut self, aliases: &'static [&'static str]) -> Self {
        self.aliases = aliases;
        self
    }

    pub(crate) const fn since(mut self, version: &'static str) -> Self {
        self.since = version;
        self
    }

    pub(crate) const fn deprecated(mut self, instead: &'static str) -> Self {
        self.deprecated = Some(instead);
        self
    }

    /// Only read at start.
    pub(crate) const fn fixed(mut self) -> Self {
        self.in_force = InForce::AfterRestart;
        self
    }

    /// Read when a client connects.
    pub(crate) const fn at_connect(mut self) -> Self {
        self.in_force = InForce::NewConnections;
        self
    }

    pub(crate) const fn required(mut self, example: &'static str) -> Self {
        self.required = Some(example);
        self
    }

    /// Whether `key` is the field's name or one of its older names.
    pub fn answers_to(&self, key: &str) -> bool {
        self.name == key || self.aliases.contains(&key)
    }
}

/// The field of that name or alias.
pub(crate) fn find(fields: &'static [Field], key: &str) -> Option<&'static Field> {
    fields.iter().find(|f| f.answers_to(key))
}

impl Kind {
    /// The fields of the object this kind describes, if it does.
    pub const fn fields(&self) -> Option<&'static [Field]> {
        match self {
            Self::Object(fields) | Self::Partial(fields) | Self::OneOrNamed(fields) => Some(fields),
            Self::Words(_, inner) => inner.fields(),
            _ => None,
        }
    }

    /// The kind of what is found under `key`, and the field if there is one.
    pub(crate) fn child(
        &'static self,
        key: &str,
    ) -> Option<(&'static Self, Option<&'static Field>)> {
        match self {
            Self::Object(fields) | Self::Partial(fields) => {
                find(fields, key).map(|field| (&field.kind, Some(field)))
            }
            Self::OneOrNamed(fields) => match find(fields, key) {
                Some(field) => Some((&field.kind, Some(field))),
                None => Some((self, None)),
            },
            Self::Map(kind) => Some((*kind, None)),
            Self::Words(_, inner) => inner.child(key),
            Self::List(kind) | Self::ListOrOne(kind) | Self::CommaList(kind) => {
                key.parse::<u32>().ok().map(|_| (*kind, None))
            }
            Self::Union(kinds) => kinds.iter().find_map(|kind| kind.child(key)),
            Self::Raw => Some((&Self::Raw, None)),
            _ => None,
        }
    }

    /// What the kind accepts, for messages and the reference page.
    pub fn expected(&self) -> String {
        match self {
            Self::Bool => "true or false".to_owned(),
            Self::Int { min, max } => match (*min, *max) {
                (i64::MIN, i64::MAX) => "a whole number".to_owned(),
                (min, i64::MAX) => format!("a whole number from {min}"),
                (min, max) => format!("a whole number from {min} to {max}"),
            },
            Self::Float { .. } => "a number".to_owned(),
            Self::String => "a string".to_owned(),
            Self::Secret => "a string (secret)".to_owned(),
            Self::Path => "a file path".to_owned(),
            Self::Enum(words) | Self::Spelled { words, .. } => {
                format!("one of {}", words.join(", "))
            }
            Self::Duration => "a duration such as 15s, 1h30m or 100ms".to_owned(),
            Self::DurationS => "a duration in seconds such as 15s or 1h30m".to_owned(),
            Self::ByteSize => "a size such as 64KB or 1MB".to_owned(),
            Self::Percent => "a percentage such as 80%".to_owned(),
            Self::Rate => "a rate such as 1000/s or 10MB/10s".to_owned(),
            Self::Bind => "a port or ip:port, such as 1883 or \"0.0.0.0:1883\"".to_owned(),
            Self::Ip => "an IP address".to_owned(),
            Self::AccessRule => "`allow` or `deny` and `all` or an address block".to_owned(),
            Self::Words(words, inner) => format!("{} or {}", words.join(", "), inner.expected()),
            Self::List(kind) | Self::ListOrOne(kind) => format!("a list of {}", kind.expected()),
            Self::CommaList(kind) => {
                format!("a list or a string with commas of {}", kind.expected())
            }
            Self::Object(_) | Self::Partial(_) => "an object".to_owned(),
            Self::Map(kind) => format!("names with {}", kind.expected()),
            Self::OneOrNamed(_) => "an object, or names with objects".to_owned(),
            Self::Union(kinds) => kinds
                .iter()
                .map(Self::expected)
                .collect::<Vec<_>>()
                .join(" or "),
            Self::Raw => "any value".to_owned(),
        }
    }

    /// The unit of the value, if it has one.
    pub const fn unit(&self) -> &'static str {
        match self {
            Self::Duration => "ms if bare",
            Self::DurationS => "s if bare",
            Self::ByteSize => "bytes if bare",
            Self::Words(_, inner) => inner.unit(),
            _ => "",
        }
    }

    /// The reason EMQX prints for a value that does not fit.
    pub(crate) fn emqx_reason(&self) -> String {
        match self {
            Self::Duration | Self::DurationS => unit::NOT_A_DURATION.to_owned(),
            Self::ByteSize => unit::NOT_A_BYTESIZE.to_owned(),
            Self::Words(_, inner) => inner.emqx_reason(),
            other => format!("Expected {}", other.expected()),
        }
    }

    /// Whether the value is never shown.
    pub const fn is_secret(&self) -> bool {
        matches!(self, Self::Secret)
    }
}

/// Renames older names of keys to the current ones, layer by layer before merging, so
/// that precedence holds between a name and its alias.
pub(crate) fn rename(entries: &mut [Entry], kind: &'static Kind) {
    for entry in entries {
        let Entry::Field { key, value } = entry else {
            continue;
        };
        let Some((kind, field)) = kind.child(key) else {
            continue;
        };
        if let Some(field) = field
            && field.name != key
        {
            *key = field.name.to_owned();
        }
        rename_in(value, kind);
    }
}

fn rename_in(expr: &mut Expr, kind: &'static Kind) {
    match &mut expr.kind {
        ExprKind::Object(entries) => rename(entries, kind),
        ExprKind::Concat(parts) => parts.iter_mut().for_each(|part| rename_in(part, kind)),
        ExprKind::List(items) => {
            if let Kind::List(kind) | Kind::ListOrOne(kind) | Kind::CommaList(kind) = kind {
                for item in items {
                    rename_in(item, kind);
                }
            }
        }
        _ => {}
    }
}

/// As [`rename`], for a value that came in whole (a variable, a request).
pub(crate) fn rename_node(node: &mut Node, kind: &'static Kind) {
    match &mut node.value {
        Value::Object(object) => {
            for (key, mut inner) in std::mem::take(object) {
                let child = kind.child(&key);
                if let Some((kind, _)) = child {
                    rename_node(&mut inner, kind);
                }
                let name = child
                    .and_then(|(_, field)| field)
                    .map(|field| field.name.to_owned());
                object.insert(name.unwrap_or(key), inner);
            }
        }
        Value::List(items) => {
            if let Kind::List(kind) | Kind::ListOrOne(kind) | Kind::CommaList(kind) = kind {
                for item in items {
                    rename_node(item, kind);
                }
            }
        }
        _ => {}
    }
}
