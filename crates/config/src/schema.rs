//! The registry of fields: what a key is, and the check of a raw tree against it.
//!
//! A field is declared once, as data, in `section/`. Checking turns the raw tree into
//! a [`Checked`] tree with every default filled in; it collects all faults and never
//! stops at one. Conversions are EMQX's: strings are accepted for numbers and
//! booleans, `null` means "not set", words are case-sensitive.

use std::collections::BTreeMap;

use crate::error::{ConfigError, LayerKind, Place, Warning, join};
use crate::hocon::{Entry, Expr, ExprKind, Node, Object, Origin, Value, list_from_indices};
use crate::nearest::nearest;
use crate::render::MASK;
use crate::settings::{Bind, Rate};
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
    /// Whether a change takes effect without a restart.
    pub reloadable: bool,
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
        reloadable: true,
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
        self.reloadable = false;
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
    fn emqx_reason(&self) -> String {
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

/// A checked value.
#[derive(Debug, Clone)]
pub struct Checked {
    /// What it means.
    pub typed: Typed,
    /// What stands there, as the operator or the default wrote it.
    pub shown: Value,
    /// Where it was written.
    pub place: Place,
    /// Whether it must be masked.
    pub secret: bool,
}

/// What a value means.
#[derive(Debug, Clone, PartialEq)]
pub enum Typed {
    /// Nothing was given and there is no default.
    Unset,
    /// A boolean.
    Bool(bool),
    /// A whole number.
    Int(i64),
    /// A number or a fraction.
    Float(f64),
    /// Text, with variables of paths replaced.
    Text(String),
    /// Milliseconds.
    Ms(u64),
    /// Bytes.
    Bytes(u64),
    /// A rate.
    Rate(Rate),
    /// An address to listen on.
    Bind(Bind),
    /// One of the words of the kind.
    Word(&'static str),
    /// A list.
    List(Vec<CheckedItem>),
    /// An object or a map.
    Object(BTreeMap<String, Checked>),
    /// Anything.
    Raw(Value),
}

/// An element of a checked list.
pub type CheckedItem = Checked;

impl PartialEq for Checked {
    fn eq(&self, other: &Self) -> bool {
        self.typed == other.typed
    }
}

impl Checked {
    /// Whether the operator wrote it, in whatever layer.
    pub fn is_given(&self) -> bool {
        self.place.layer != LayerKind::Default
    }

    fn unset() -> Self {
        Self {
            typed: Typed::Unset,
            shown: Value::Null,
            place: Place::default_value(),
            secret: false,
        }
    }

    /// The fields of an object.
    pub const fn fields(&self) -> Option<&BTreeMap<String, Self>> {
        match &self.typed {
            Typed::Object(fields) => Some(fields),
            _ => None,
        }
    }

    /// The value at a dotted path; list elements count from 1.
    pub fn get(&self, path: &str) -> Option<&Self> {
        path.split('.')
            .filter(|s| !s.is_empty())
            .try_fold(self, |node, key| match &node.typed {
                Typed::Object(fields) => fields.get(key),
                Typed::List(items) => items.get(key.parse::<usize>().ok()?.checked_sub(1)?),
                _ => None,
            })
    }

    /// The value as it stands, with all defaults, for people and the API.
    pub fn to_value(&self, secrets: Secrets) -> Value {
        let node = |checked: &Self| Node {
            value: checked.to_value(secrets),
            place: checked.place.clone(),
        };
        match &self.typed {
            Typed::Object(fields) => Value::Object(
                fields
                    .iter()
                    .filter(|(_, checked)| checked.typed != Typed::Unset)
                    .map(|(key, checked)| (key.clone(), node(checked)))
                    .collect(),
            ),
            Typed::List(items) => Value::List(items.iter().map(node).collect()),
            Typed::Raw(value) if secrets == Secrets::Masked => mask_raw(value),
            _ if self.secret && secrets == Secrets::Masked => {
                let empty = matches!(&self.shown, Value::String(s) if s.is_empty());
                Value::String(if empty { "" } else { MASK }.to_owned())
            }
            _ => self.shown.clone(),
        }
    }
}

/// Whether secrets appear in an output.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Secrets {
    /// As `******`.
    Masked,
    /// In clear; only for files that are read back.
    Shown,
}

/// Keys whose values are secret wherever they stand.
const SECRET_KEYS: [&str; 9] = [
    "password",
    "secret",
    "cookie",
    "token",
    "api_secret",
    "bind_password",
    "secret_key",
    "private_key",
    "access_key_secret",
];

/// Whether a key of an undeclared object holds a secret.
pub(crate) fn is_secret_key(key: &str) -> bool {
    SECRET_KEYS.contains(&key)
}

fn mask_raw(value: &Value) -> Value {
    let node = |n: &Node, value: Value| Node {
        value,
        place: n.place.clone(),
    };
    match value {
        Value::Object(object) => Value::Object(
            object
                .iter()
                .map(|(key, n)| {
                    let hide = is_secret_key(key) && n.value.text().is_some_and(|t| !t.is_empty());
                    let value = if hide {
                        Value::String(MASK.to_owned())
                    } else {
                        mask_raw(&n.value)
                    };
                    (key.clone(), node(n, value))
                })
                .collect(),
        ),
        Value::List(items) => {
            Value::List(items.iter().map(|n| node(n, mask_raw(&n.value))).collect())
        }
        scalar => scalar.clone(),
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

/// The state of one check.
pub(crate) struct Checker<'a> {
    /// Value of a variable in a path, for example `EMQX_ETC_DIR`.
    pub(crate) variable: &'a dyn Fn(&str) -> Option<String>,
    pub(crate) errors: Vec<ConfigError>,
    pub(crate) warnings: Vec<Warning>,
    /// Keys that were given and do nothing.
    pub(crate) without_effect: Vec<(String, Place)>,
    /// Depth of groups that are inert: what is in them is reported once, as the group.
    inert: u32,
}

impl<'a> Checker<'a> {
    pub(crate) fn new(variable: &'a dyn Fn(&str) -> Option<String>) -> Self {
        Self {
            variable,
            errors: Vec::new(),
            warnings: Vec::new(),
            without_effect: Vec::new(),
            inert: 0,
        }
    }

    /// Checks one value against its kind.
    pub(crate) fn check(&mut self, kind: &'static Kind, node: &Node, path: &str) -> Checked {
        let place = node.place.clone();
        let secret = kind.is_secret();
        match self.convert(kind, node, path) {
            Ok(typed) => Checked {
                typed,
                shown: node.value.clone(),
                place,
                secret,
            },
            Err(error) => {
                self.errors.push(*error);
                Checked::unset()
            }
        }
    }

    fn convert(
        &mut self,
        kind: &'static Kind,
        node: &Node,
        path: &str,
    ) -> Result<Typed, Box<ConfigError>> {
        match kind {
            Kind::Object(fields) => {
                let object = object_of(node, kind, path)?;
                Ok(Typed::Object(self.fields(
                    fields,
                    object,
                    path,
                    Defaults::Filled,
                )))
            }
            Kind::Partial(fields) => {
                let object = object_of(node, kind, path)?;
                Ok(Typed::Object(self.fields(
                    fields,
                    object,
                    path,
                    Defaults::Inherited,
                )))
            }
            Kind::Map(inner) => {
                let object = object_of(node, kind, path)?;
                Ok(Typed::Object(self.map(inner, object, path)))
            }
            Kind::OneOrNamed(fields) => self.one_or_named(kind, fields, node, path),
            Kind::List(inner) | Kind::ListOrOne(inner) | Kind::CommaList(inner) => {
                self.list(kind, inner, node, path)
            }
            Kind::Words(words, inner) => {
                let text = node.value.text();
                match words.iter().find(|word| text.as_deref() == Some(**word)) {
                    Some(word) => Ok(Typed::Word(word)),
                    None => self
                        .convert(inner, node, path)
                        .map_err(|error| widen(error, kind)),
                }
            }
            Kind::Union(kinds) => kinds
                .iter()
                .find_map(|kind| self.attempt(kind, node, path))
                .ok_or_else(|| type_error(kind, node, path)),
            Kind::Raw => Ok(Typed::Raw(node.value.clone())),
            scalar => self.scalar(scalar, node, path),
        }
    }

    /// Converts without leaving errors behind when it does not fit.
    fn attempt(&mut self, kind: &'static Kind, node: &Node, path: &str) -> Option<Typed> {
        let before = self.errors.len();
        let typed = self.convert(kind, node, path).ok();
        if self.errors.len() > before {
            self.errors.truncate(before);
            return None;
        }
        typed
    }

    fn fields(
        &mut self,
        fields: &'static [Field],
        object: &Object,
        path: &str,
        defaults: Defaults,
    ) -> BTreeMap<String, Checked> {
        self.unknown_keys(fields, object, path);
        let mut out = BTreeMap::new();
        for field in fields {
            let path = join(path, field.name);
            let given = object
                .get(field.name)
                .filter(|node| node.value != Value::Null);
            let checked = match given {
                Some(node) => self.given(field, node, &path),
                None => self.missing(field, &path, defaults),
            };
            out.insert(field.name.to_owned(), checked);
        }
        out
    }

    fn given(&mut self, field: &'static Field, node: &Node, path: &str) -> Checked {
        let by_operator = node.place.layer != LayerKind::Default;
        let inert = field.effect == Effect::AcceptedWithoutEffect;
        if by_operator && let Some(instead) = field.deprecated {
            self.warnings.push(Warning::Deprecated {
                path: path.to_owned(),
                place: node.place.clone(),
                instead: instead.to_owned(),
            });
        }
        if by_operator && inert && self.inert == 0 {
            self.without_effect
                .push((path.to_owned(), node.place.clone()));
        }
        self.inert += u32::from(inert);
        let checked = self.check(&field.kind, node, path);
        self.inert -= u32::from(inert);
        checked
    }

    fn missing(&mut self, field: &'static Field, path: &str, defaults: Defaults) -> Checked {
        if defaults == Defaults::Inherited {
            return Checked::unset();
        }
        if let Some(example) = field.required {
            self.errors.push(ConfigError::Required {
                path: path.to_owned(),
                example: example.to_owned(),
            });
            return Checked::unset();
        }
        match (field.default, &field.kind) {
            (Some(text), kind) => {
                let node = default_node(text);
                self.check(kind, &node, path)
            }
            (None, kind @ (Kind::Object(_) | Kind::Map(_) | Kind::OneOrNamed(_))) => {
                self.check(kind, &Node::empty(LayerKind::Default), path)
            }
            (None, _) => Checked::unset(),
        }
    }

    fn unknown_keys(&mut self, fields: &'static [Field], object: &Object, path: &str) {
        for (key, node) in object {
            if find(fields, key).is_some() {
                continue;
            }
            let siblings = || fields.iter().filter(|f| !f.hidden).map(|f| f.name);
            self.errors.push(ConfigError::UnknownKey {
                parent: path.to_owned(),
                key: key.clone(),
                place: node.place.clone(),
                nearest: nearest(key, siblings()).map(str::to_owned),
                siblings: siblings().map(str::to_owned).collect(),
            });
        }
    }

    fn map(
        &mut self,
        kind: &'static Kind,
        object: &Object,
        path: &str,
    ) -> BTreeMap<String, Checked> {
        object
            .iter()
            .filter(|(_, node)| node.value != Value::Null)
            .map(|(key, node)| (key.clone(), self.check(kind, node, &join(path, key))))
            .collect()
    }

    /// Loose keys belong to the object named `default`.
    fn one_or_named(
        &mut self,
        kind: &'static Kind,
        fields: &'static [Field],
        node: &Node,
        path: &str,
    ) -> Result<Typed, Box<ConfigError>> {
        let object = object_of(node, kind, path)?;
        let mut named = Object::new();
        let mut loose = Object::new();
        for (key, inner) in object {
            let is_name = find(fields, key).is_none() && inner.as_object().is_some();
            let target = if is_name { &mut named } else { &mut loose };
            target.insert(key.clone(), inner.clone());
        }
        if !loose.is_empty() || named.is_empty() {
            let mut default = Node {
                value: Value::Object(loose),
                place: node.place.clone(),
            };
            if let Some(inner) = named.remove("default") {
                crate::hocon::merge(&mut default, inner, path, &mut self.errors);
            }
            named.insert("default".to_owned(), default);
        }
        let mut out = BTreeMap::new();
        for (name, inner) in named {
            let path = join(path, &name);
            let object = object_of(&inner, kind, &path)?.clone();
            let typed = Typed::Object(self.fields(fields, &object, &path, Defaults::Filled));
            let place = inner.place.clone();
            let checked = Checked {
                typed,
                shown: inner.value,
                place,
                secret: false,
            };
            out.insert(name, checked);
        }
        Ok(Typed::Object(out))
    }

    fn list(
        &mut self,
        kind: &'static Kind,
        inner: &'static Kind,
        node: &Node,
        path: &str,
    ) -> Result<Typed, Box<ConfigError>> {
        let items = match (&node.value, kind) {
            (Value::List(items), _) => items.clone(),
            (Value::Object(object), _) => {
                match (list_from_indices(object, path, &mut self.errors), kind) {
                    (Some(items), _) => items,
                    (None, Kind::ListOrOne(_)) => vec![node.clone()],
                    (None, _) => return Err(type_error(kind, node, path)),
                }
            }
            (Value::String(text), Kind::CommaList(_)) => unit::comma_list(text)
                .into_iter()
                .map(|part| Node {
                    value: Value::String(part),
                    place: node.place.clone(),
                })
                .collect(),
            (Value::Int(_), Kind::CommaList(_)) => vec![node.clone()],
            _ => return Err(type_error(kind, node, path)),
        };
        let mut out = Vec::with_capacity(items.len());
        for (index, item) in items.iter().enumerate() {
            out.push(self.check(inner, item, &join(path, &(index + 1).to_string())));
        }
        Ok(Typed::List(out))
    }

    fn scalar(
        &mut self,
        kind: &'static Kind,
        node: &Node,
        path: &str,
    ) -> Result<Typed, Box<ConfigError>> {
        let wrong = || type_error(kind, node, path);
        let text = node.value.text().ok_or_else(wrong)?;
        match kind {
            Kind::Bool => match text.as_str() {
                "true" => Ok(Typed::Bool(true)),
                "false" => Ok(Typed::Bool(false)),
                _ => Err(wrong()),
            },
            Kind::Int { min, max } => {
                let number: i64 = text.parse().map_err(|_| wrong())?;
                let fits = (*min..=*max).contains(&number);
                if fits {
                    Ok(Typed::Int(number))
                } else {
                    Err(range(node, path, *min, *max))
                }
            }
            Kind::Float { min, max } => {
                let number: f64 = text.parse().map_err(|_| wrong())?;
                let fits = (*min..=*max).contains(&number);
                let error = || range(node, path, min.ceil() as i64, max.floor() as i64);
                if fits {
                    Ok(Typed::Float(number))
                } else {
                    Err(error())
                }
            }
            Kind::String | Kind::Secret => Ok(Typed::Text(text)),
            Kind::Path => Ok(Typed::Text(self.expand(&text, path))),
            Kind::Enum(words) => word(words, &[], &text, node, path),
            Kind::Spelled { words, also } => word(words, also, &text, node, path),
            Kind::Duration => duration(node, &text, 1).map(Typed::Ms).ok_or_else(wrong),
            Kind::DurationS => duration(node, &text, 1000)
                .map(|ms| Typed::Ms(ms.div_ceil(1000) * 1000))
                .ok_or_else(wrong),
            Kind::ByteSize => unit::bytesize(&text).map(Typed::Bytes).ok_or_else(wrong),
            Kind::Percent => unit::percent(&text).map(Typed::Float).ok_or_else(wrong),
            Kind::Rate => unit::rate(&text).map(Typed::Rate).ok_or_else(wrong),
            Kind::Bind => unit::bind(&text).map(Typed::Bind).ok_or_else(wrong),
            Kind::Ip => match text.parse::<std::net::IpAddr>() {
                Ok(_) => Ok(Typed::Text(text)),
                Err(_) => Err(wrong()),
            },
            _ => match crate::section::listeners::access_rule(&text) {
                Some(_) => Ok(Typed::Text(text)),
                None => Err(wrong()),
            },
        }
    }

    /// Replaces `${VARIABLE}` or `$VARIABLE` at the start of a path.
    fn expand(&mut self, text: &str, path: &str) -> String {
        let Some(rest) = text.strip_prefix('$') else {
            return text.to_owned();
        };
        let (head, tail) = match rest.find('/') {
            Some(at) => rest.split_at(at),
            None => (rest, ""),
        };
        let name = head
            .strip_prefix('{')
            .and_then(|h| h.strip_suffix('}'))
            .unwrap_or(head);
        if let Some(value) = (self.variable)(name) {
            return format!("{value}{tail}");
        }
        let (path, variable) = (path.to_owned(), name.to_owned());
        self.warnings
            .push(Warning::UnresolvedPathVariable { path, variable });
        text.to_owned()
    }
}

fn object_of<'n>(
    node: &'n Node,
    kind: &'static Kind,
    path: &str,
) -> Result<&'n Object, Box<ConfigError>> {
    node.as_object().ok_or_else(|| type_error(kind, node, path))
}

/// What happens to fields nobody gave.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Defaults {
    Filled,
    Inherited,
}

/// The node of a default; defaults are checked by a test, so a bad one is shown as text.
pub(crate) fn default_node(text: &str) -> Node {
    let place = Place::default_value();
    let origin = Origin {
        layer: place.layer,
        file: place.file.clone(),
    };
    crate::hocon::parse_value(text, &origin).unwrap_or_else(|| Node {
        value: Value::String(text.to_owned()),
        place,
    })
}

fn duration(node: &Node, text: &str, bare_ms: u64) -> Option<u64> {
    match &node.value {
        Value::Int(n) => u64::try_from(*n).ok()?.checked_mul(bare_ms),
        _ => match text.parse::<u64>() {
            Ok(n) => n.checked_mul(bare_ms),
            Err(_) => unit::duration_ms(text),
        },
    }
}

fn word(
    words: &'static [&'static str],
    also: &'static [(&'static str, &'static str)],
    text: &str,
    node: &Node,
    path: &str,
) -> Result<Typed, Box<ConfigError>> {
    let spelled = also
        .iter()
        .find(|(other, _)| *other == text)
        .map(|(_, word)| *word);
    let found = spelled.or_else(|| words.iter().copied().find(|word| *word == text));
    found.map(Typed::Word).ok_or_else(|| {
        Box::new(ConfigError::Enum {
            path: path.to_owned(),
            place: node.place.clone(),
            value: node.value.clone(),
            allowed: words.iter().map(|w| (*w).to_owned()).collect(),
            nearest: nearest(text, words.iter().copied()).map(str::to_owned),
        })
    })
}

fn range(node: &Node, path: &str, min: i64, max: i64) -> Box<ConfigError> {
    Box::new(ConfigError::Range {
        path: path.to_owned(),
        place: node.place.clone(),
        value: node.value.clone(),
        min,
        max,
    })
}

fn type_error(kind: &Kind, node: &Node, path: &str) -> Box<ConfigError> {
    let value = if kind.is_secret() {
        Value::String(MASK.to_owned())
    } else {
        node.value.clone()
    };
    Box::new(ConfigError::Type {
        path: path.to_owned(),
        place: node.place.clone(),
        expected: kind.expected(),
        reason: kind.emqx_reason(),
        value,
    })
}

/// Names the words too when the other kind does not fit.
fn widen(error: Box<ConfigError>, kind: &Kind) -> Box<ConfigError> {
    match *error {
        ConfigError::Type {
            path,
            place,
            reason,
            value,
            ..
        } => Box::new(ConfigError::Type {
            path,
            place,
            expected: kind.expected(),
            reason,
            value,
        }),
        _ => error,
    }
}

/// Typed access to a checked object, for the builders of `section/`.
///
/// A missing or differently typed value is a fault of the registry, not of the
/// operator; the tests build settings from every field, so it cannot stay unseen.
#[derive(Clone, Copy)]
pub(crate) struct View<'a> {
    object: &'a BTreeMap<String, Checked>,
    /// Where unset values are inherited from.
    under: Option<&'a BTreeMap<String, Checked>>,
}

impl<'a> View<'a> {
    pub(crate) fn of(checked: &'a Checked) -> Self {
        let object = checked.fields().expect("a view is made of an object only");
        Self {
            object,
            under: None,
        }
    }

    /// The object `key`.
    pub(crate) fn view(self, key: &str) -> Self {
        Self::of(self.get(key))
    }

    /// This object with what it does not set taken from `under`.
    pub(crate) const fn over(self, under: Self) -> Self {
        Self {
            object: self.object,
            under: Some(under.object),
        }
    }

    pub(crate) fn get(self, key: &str) -> &'a Checked {
        let own = self.object.get(key).filter(|c| c.typed != Typed::Unset);
        own.or_else(|| self.under?.get(key))
            .or_else(|| self.object.get(key))
            .unwrap_or_else(|| panic!("the registry declares no field `{key}` here"))
    }

    fn wrong(key: &str) -> ! {
        panic!("the registry declares `{key}` with another kind")
    }

    pub(crate) fn bool(self, key: &str) -> bool {
        match self.get(key).typed {
            Typed::Bool(b) => b,
            _ => Self::wrong(key),
        }
    }

    pub(crate) fn opt_bool(self, key: &str) -> Option<bool> {
        match self.get(key).typed {
            Typed::Bool(b) => Some(b),
            _ => None,
        }
    }

    /// A number within the range its field allows, which fits the asked type.
    pub(crate) fn int<T: TryFrom<i64>>(self, key: &str) -> T {
        self.opt_int(key).unwrap_or_else(|| Self::wrong(key))
    }

    /// A number; `None` for a word such as `infinity`, or nothing.
    pub(crate) fn opt_int<T: TryFrom<i64>>(self, key: &str) -> Option<T> {
        match self.get(key).typed {
            Typed::Int(n) => T::try_from(n).ok(),
            _ => None,
        }
    }

    pub(crate) fn float(self, key: &str) -> f64 {
        match self.get(key).typed {
            Typed::Float(f) => f,
            Typed::Int(n) => n as f64,
            _ => Self::wrong(key),
        }
    }

    pub(crate) fn text(self, key: &str) -> String {
        self.opt_text(key).unwrap_or_default()
    }

    pub(crate) fn opt_text(self, key: &str) -> Option<String> {
        match &self.get(key).typed {
            Typed::Text(text) => Some(text.clone()),
            _ => None,
        }
    }

    pub(crate) fn ms(self, key: &str) -> u64 {
        self.opt_ms(key).unwrap_or_else(|| Self::wrong(key))
    }

    /// Milliseconds; `None` for a word such as `infinity`, or nothing.
    pub(crate) fn opt_ms(self, key: &str) -> Option<u64> {
        match self.get(key).typed {
            Typed::Ms(ms) => Some(ms),
            _ => None,
        }
    }

    pub(crate) fn bytes(self, key: &str) -> u64 {
        self.opt_bytes(key).unwrap_or_else(|| Self::wrong(key))
    }

    pub(crate) fn opt_bytes(self, key: &str) -> Option<u64> {
        match self.get(key).typed {
            Typed::Bytes(bytes) => Some(bytes),
            _ => None,
        }
    }

    pub(crate) fn opt_rate(self, key: &str) -> Option<Rate> {
        match self.get(key).typed {
            Typed::Rate(rate) => Some(rate),
            _ => None,
        }
    }

    pub(crate) fn bind(self, key: &str) -> Bind {
        match self.get(key).typed {
            Typed::Bind(bind) => bind,
            _ => Self::wrong(key),
        }
    }

    /// The variant of a word; `parse` is that of the enum whose words the field lists.
    pub(crate) fn word<T>(self, key: &str, parse: fn(&str) -> Option<T>) -> T {
        self.opt_word(key, parse)
            .unwrap_or_else(|| Self::wrong(key))
    }

    pub(crate) fn opt_word<T>(self, key: &str, parse: fn(&str) -> Option<T>) -> Option<T> {
        match self.get(key).typed {
            Typed::Word(word) => parse(word),
            _ => None,
        }
    }

    pub(crate) fn list(self, key: &str) -> &'a [Checked] {
        match &self.get(key).typed {
            Typed::List(items) => items,
            _ => &[],
        }
    }

    pub(crate) fn texts(self, key: &str) -> Vec<String> {
        self.list(key)
            .iter()
            .filter_map(|item| match &item.typed {
                Typed::Text(text) => Some(text.clone()),
                Typed::Word(word) => Some((*word).to_owned()),
                _ => None,
            })
            .collect()
    }

    pub(crate) fn entries(self, key: &str) -> impl Iterator<Item = (&'a String, &'a Checked)> {
        self.get(key).fields().into_iter().flatten()
    }

    /// The undeclared elements of a list, as JSON.
    pub(crate) fn raws(self, key: &str) -> Vec<serde_json::Value> {
        self.list(key)
            .iter()
            .filter_map(|item| match &item.typed {
                Typed::Raw(value) => Some(value.to_json()),
                _ => None,
            })
            .collect()
    }
}
