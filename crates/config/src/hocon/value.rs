//! Values of a configuration, each with the place it was written.
//!
//! Objects are ordered by key: nothing in this dialect depends on the order of
//! different keys once a document is read, and an ordered map keeps every output
//! the same on every run.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use super::lexer::split_path;
use crate::error::{ConfigError, LayerKind, Place, join};

/// An object: key -> value with place.
pub type Object = BTreeMap<String, Node>;

/// A value and where it came from.
#[derive(Debug, Clone, PartialEq)]
pub struct Node {
    /// The value.
    pub value: Value,
    /// Where it was written.
    pub place: Place,
}

/// A value of the configuration language; words such as `15s` are still strings here.
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    /// `null`: removes what a lower layer said.
    Null,
    /// `true` or `false`; `on` and `off` are strings.
    Bool(bool),
    /// A whole number.
    Int(i64),
    /// Any other number.
    Float(f64),
    /// Text.
    String(String),
    /// `[…]`.
    List(Vec<Node>),
    /// `{…}`.
    Object(Object),
}

impl Value {
    /// The name of the type, for messages.
    pub const fn type_name(&self) -> &'static str {
        match self {
            Self::Null => "null",
            Self::Bool(_) => "a boolean",
            Self::Int(_) => "a whole number",
            Self::Float(_) => "a number",
            Self::String(_) => "a string",
            Self::List(_) => "a list",
            Self::Object(_) => "an object",
        }
    }

    /// How the value appears in a message to a person.
    pub fn shown(&self) -> String {
        match self {
            Self::String(text) => format!("{text:?}"),
            Self::List(_) => "[...]".to_owned(),
            Self::Object(_) => "{...}".to_owned(),
            scalar => scalar.text().unwrap_or_default(),
        }
    }

    /// How Erlang prints the value; for the error lines EMQX's users know.
    pub fn erlang(&self) -> String {
        match self {
            Self::String(text) => format!("<<{text:?}>>"),
            Self::List(items) => {
                let items: Vec<_> = items.iter().map(|n| n.value.erlang()).collect();
                format!("[{}]", items.join(","))
            }
            Self::Object(object) => {
                let fields: Vec<_> = object
                    .iter()
                    .map(|(key, node)| format!("<<{key:?}>> => {}", node.value.erlang()))
                    .collect();
                format!("#{{{}}}", fields.join(","))
            }
            scalar => scalar.text().unwrap_or_default(),
        }
    }

    /// The text of a scalar, as if it had been written as a string.
    pub fn text(&self) -> Option<String> {
        match self {
            Self::Null => Some("null".to_owned()),
            Self::Bool(b) => Some(b.to_string()),
            Self::Int(i) => Some(i.to_string()),
            Self::Float(f) => Some(float_text(*f)),
            Self::String(s) => Some(s.clone()),
            Self::List(_) | Self::Object(_) => None,
        }
    }

    /// The value as JSON; places are lost.
    pub fn to_json(&self) -> serde_json::Value {
        use serde_json::Value as Json;
        match self {
            Self::Null => Json::Null,
            Self::Bool(b) => Json::Bool(*b),
            Self::Int(i) => Json::from(*i),
            Self::Float(f) => Json::from(*f),
            Self::String(s) => Json::String(s.clone()),
            Self::List(items) => items.iter().map(|n| n.value.to_json()).collect(),
            Self::Object(object) => object
                .iter()
                .map(|(k, n)| (k.clone(), n.value.to_json()))
                .collect(),
        }
    }

    /// A value from JSON, every part of it with the place `place`.
    pub fn from_json(json: &serde_json::Value, place: &Place) -> Self {
        use serde_json::Value as Json;
        match json {
            Json::Null => Self::Null,
            Json::Bool(b) => Self::Bool(*b),
            Json::Number(n) => n
                .as_i64()
                .map_or_else(|| Self::Float(n.as_f64().unwrap_or(f64::MAX)), Self::Int),
            Json::String(s) => Self::String(s.clone()),
            Json::Array(items) => {
                Self::List(items.iter().map(|v| Node::from_json(v, place)).collect())
            }
            Json::Object(fields) => Self::Object(
                fields
                    .iter()
                    .map(|(k, v)| (k.clone(), Node::from_json(v, place)))
                    .collect(),
            ),
        }
    }
}

/// Shortest text that reads back as the same number and is not a whole number.
pub(crate) fn float_text(f: f64) -> String {
    let mut text = String::new();
    let _ = write!(text, "{f}");
    if !text.contains(['.', 'e', 'E', 'n', 'i']) {
        text.push_str(".0");
    }
    text
}

impl Node {
    /// A node from JSON, every part of it with the place `place`.
    pub fn from_json(json: &serde_json::Value, place: &Place) -> Self {
        Self {
            value: Value::from_json(json, place),
            place: place.clone(),
        }
    }

    /// An empty object of a layer.
    pub fn empty(layer: LayerKind) -> Self {
        let mut place = Place::default_value();
        place.layer = layer;
        Self {
            value: Value::Object(Object::new()),
            place,
        }
    }

    /// The object, if it is one.
    pub const fn as_object(&self) -> Option<&Object> {
        match &self.value {
            Value::Object(object) => Some(object),
            _ => None,
        }
    }

    /// The value at a dotted path; list elements count from 1.
    pub fn get(&self, path: &str) -> Option<&Self> {
        self.at(&split_path(path))
    }

    /// The value below some keys; list elements count from 1.
    pub fn at(&self, path: &[String]) -> Option<&Self> {
        path.iter().try_fold(self, |node, key| match &node.value {
            Value::Object(object) => object.get(key),
            Value::List(items) => items.get(key.parse::<usize>().ok()?.checked_sub(1)?),
            _ => None,
        })
    }

    /// Writes `value` at a dotted path, making objects on the way.
    pub fn set(&mut self, path: &str, value: Value, place: &Place) {
        self.set_at(
            &split_path(path),
            Self {
                value,
                place: place.clone(),
            },
        );
    }

    /// Writes `node` below some keys, making objects on the way.
    pub fn set_at(&mut self, path: &[String], node: Self) {
        let Some((key, rest)) = path.split_first() else {
            *self = node;
            return;
        };
        if !matches!(self.value, Value::Object(_)) {
            self.value = Value::Object(Object::new());
        }
        let Value::Object(object) = &mut self.value else {
            return;
        };
        let place = node.place.clone();
        object
            .entry(key.clone())
            .or_insert_with(|| Self {
                value: Value::Null,
                place,
            })
            .set_at(rest, node);
    }

    /// Removes what is at a dotted path; whether there was something.
    pub fn remove(&mut self, path: &str) -> bool {
        self.remove_at(&split_path(path))
    }

    /// Removes what is below some keys; whether there was something.
    pub fn remove_at(&mut self, path: &[String]) -> bool {
        let (Some((key, rest)), Value::Object(object)) = (path.split_first(), &mut self.value)
        else {
            return false;
        };
        match object.get_mut(key) {
            Some(inner) if !rest.is_empty() => inner.remove_at(rest),
            _ => object.remove(key).is_some(),
        }
    }
}

/// The index if `object` is a patch for a list: all keys are whole numbers.
fn indices(object: &Object) -> Option<Vec<i64>> {
    if object.is_empty() {
        return None;
    }
    object.keys().map(|key| key.parse::<i64>().ok()).collect()
}

/// Puts `over` on top of `base`, as a later entry of the same key does.
///
/// Objects merge key by key, an object whose keys are all numbers patches a list
/// below it, everything else replaces. Impossible list indices go to `errors`.
pub(crate) fn merge(base: &mut Node, over: Node, path: &str, errors: &mut Vec<ConfigError>) {
    let Value::Object(top) = over.value else {
        *base = over;
        return;
    };
    match &mut base.value {
        Value::Object(bottom) => {
            for (key, node) in top {
                merge_key(bottom, key, node, path, errors);
            }
            base.place = over.place;
        }
        Value::List(items) if indices(&top).is_some() => patch(items, top, path, errors),
        _ => {
            *base = Node {
                value: Value::Object(top),
                place: over.place,
            }
        }
    }
}

/// Puts one key into an object, merging with what is there.
pub(crate) fn merge_key(
    object: &mut Object,
    key: String,
    node: Node,
    path: &str,
    errors: &mut Vec<ConfigError>,
) {
    match object.get_mut(&key) {
        Some(base) => merge(base, node, &join(path, &key), errors),
        None => {
            object.insert(key, node);
        }
    }
}

fn patch(items: &mut Vec<Node>, top: Object, path: &str, errors: &mut Vec<ConfigError>) {
    let mut patches: Vec<(i64, Node)> = top
        .into_iter()
        .filter_map(|(key, node)| Some((key.parse().ok()?, node)))
        .collect();
    patches.sort_by_key(|(index, _)| *index);
    for (index, node) in patches {
        let max = items.len() + 1;
        let slot = usize::try_from(index).ok().and_then(|i| i.checked_sub(1));
        match slot {
            Some(slot) if slot < items.len() => {
                merge(
                    &mut items[slot],
                    node,
                    &join(path, &index.to_string()),
                    errors,
                );
            }
            Some(slot) if slot == items.len() => items.push(node),
            _ => errors.push(ConfigError::ArrayIndex {
                path: path.to_owned(),
                place: node.place,
                index,
                max,
            }),
        }
    }
}

/// A list from an object whose keys are 1, 2, 3 …: how a list looks when it was only
/// ever set element by element.
pub(crate) fn list_from_indices(
    object: &Object,
    path: &str,
    errors: &mut Vec<ConfigError>,
) -> Option<Vec<Node>> {
    if object.is_empty() {
        return Some(Vec::new());
    }
    indices(object)?;
    let mut items = Vec::new();
    patch(&mut items, object.clone(), path, errors);
    Some(items)
}
