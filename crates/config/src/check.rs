//! The check of a raw tree against the registry.
//!
//! Checking turns the raw tree into a [`Checked`] tree with every default filled in; it
//! collects all faults and never stops at one. Conversions are EMQX's: strings are
//! accepted for numbers and booleans, `null` means "not set", words are case-sensitive.

use std::collections::BTreeMap;

use crate::error::{ConfigError, LayerKind, Place, Warning, join};
use crate::guard;
use crate::hocon::{Node, Object, Origin, Value, list_from_indices};
use crate::nearest::nearest;
use crate::render::MASK;
use crate::schema::{Effect, Field, Kind, find};
use crate::settings::{Bind, Rate};
use crate::unit;

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

    pub(crate) fn unset() -> Self {
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

    pub(crate) const fn fields_mut(&mut self) -> Option<&mut BTreeMap<String, Self>> {
        match &mut self.typed {
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
        if by_operator && let Some(leaves_open) = field.leaves_open {
            let default = field
                .default
                .map(|text| self.check(&field.kind, &default_node(text), path));
            if guard::is_asked_for(&checked, default.as_ref()) {
                self.warnings.push(Warning::WithoutEffect {
                    path: path.to_owned(),
                    place: node.place.clone(),
                    leaves_open,
                });
            }
        }
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
            if let Some(mut inner) = named.remove("default") {
                // What stands in a higher layer wins, whichever of the two forms it has there.
                if let Value::Object(fields) = &mut inner.value {
                    fields.retain(|key, node| {
                        let loose = default.as_object().and_then(|loose| loose.get(key));
                        loose.is_none_or(|loose| loose.place.layer <= node.place.layer)
                    });
                }
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
