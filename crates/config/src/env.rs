//! `EMQX_A__B__C=value` -> `a.b.c = value`, as EMQX reads it, with a warning wherever
//! that is not what it looks like.
//!
//! Values are configuration text: `abc#123` is `abc`, `pa ss` is `pass`, `0123` is 123.
//! Where EMQX's parser refuses a value, the raw text is the value.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use crate::check::is_secret_key;
use crate::error::{ConfigError, LayerKind, Warning};
use crate::hocon::{Kind as Token, Mode, Node, Object, Origin, Value, lex, merge, parse_value};
use crate::render::MASK;
use crate::schema::{Kind, find, rename_node};
use crate::section::{root_kind, roots};

/// What every variable of ours starts with.
pub const PREFIX: &str = "EMQX_";

/// Older names of variables; where both are set, the older one wins, as in EMQX.
const LEGACY: [(&str, &str); 2] = [
    ("EMQX_NODE_NAME", "EMQX_NODE__NAME"),
    ("EMQX_NODE_COOKIE", "EMQX_NODE__COOKIE"),
];

/// One variable that set something.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EnvOverride {
    /// Its name.
    pub variable: String,
    /// The path it sets.
    pub path: String,
    /// The value as shown to people: secrets masked, lists `[...]`, objects `{...}`.
    pub shown: String,
}

impl fmt::Display for EnvOverride {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} [{}]: {}", self.variable, self.path, self.shown)
    }
}

/// What the environment says.
#[derive(Debug, Default)]
pub(crate) struct Overlay {
    pub(crate) overrides: Vec<EnvOverride>,
    pub(crate) warnings: Vec<Warning>,
}

/// Applies the variables to `root`, sorted by name.
pub(crate) fn apply(
    env: &[(String, String)],
    root: &mut Node,
    errors: &mut Vec<ConfigError>,
) -> Overlay {
    let mut overlay = Overlay::default();
    let mut unknown = Vec::new();
    for (variable, text) in &normalised(env) {
        let parts = path_of(variable);
        let Some(root_key) = parts.first() else {
            continue;
        };
        if find(roots(), root_key).is_none() {
            continue;
        }
        let Some((path, kind)) = resolve(&parts) else {
            unknown.push(variable.clone());
            continue;
        };
        let secret = kind.is_secret() || path.last().is_some_and(|key| is_secret_key(key));
        let origin = Origin {
            layer: LayerKind::Env,
            file: Arc::from(variable.as_str()),
        };
        let parsed = parse_value(text, &origin);
        if let Some(node) = &parsed
            && let Some(warning) = changed(variable, text, node, kind, secret)
        {
            overlay.warnings.push(warning);
        }
        let mut node = parsed.unwrap_or_else(|| Node {
            value: Value::String(text.clone()),
            place: origin.place(0, 0),
        });
        rename_node(&mut node, kind);
        overlay.overrides.push(EnvOverride {
            variable: variable.clone(),
            path: path.join("."),
            shown: if secret {
                MASK.to_owned()
            } else {
                shown(&node.value)
            },
        });
        merge(root, nested(&path, node), "", errors);
    }
    if !unknown.is_empty() {
        overlay
            .warnings
            .push(Warning::UnknownEnv { variables: unknown });
    }
    overlay
}

/// Our variables by name, with older names replaced.
fn normalised(env: &[(String, String)]) -> BTreeMap<String, String> {
    let mut vars: BTreeMap<String, String> = env
        .iter()
        .filter(|(name, _)| name.starts_with(PREFIX))
        .cloned()
        .collect();
    for (old, new) in LEGACY {
        if let Some(value) = vars.remove(old).filter(|value| !value.is_empty()) {
            vars.insert(new.to_owned(), value);
        }
    }
    // Of the two, `EMQX_LOG__TO` is the one an operator sets; the other comes with packages.
    let handler = vars.remove("EMQX_LOG__TO");
    let default_handler = vars.remove("EMQX_DEFAULT_LOG_HANDLER");
    let (console, file) = match handler.or(default_handler).as_deref() {
        Some("console") => ("true", "false"),
        Some("file") => ("false", "true"),
        Some("both") => ("true", "true"),
        _ => return vars,
    };
    for (name, value) in [
        ("EMQX_LOG__CONSOLE__ENABLE", console),
        ("EMQX_LOG__FILE__ENABLE", file),
    ] {
        vars.entry(name.to_owned())
            .or_insert_with(|| value.to_owned());
    }
    vars
}

/// The parts of the path a variable names; empty parts are dropped.
fn path_of(variable: &str) -> Vec<String> {
    variable[PREFIX.len()..]
        .to_lowercase()
        .split("__")
        .filter(|part| !part.is_empty())
        .map(str::to_owned)
        .collect()
}

/// The path with current names of keys, and the kind at its end; `None` if no field is there.
fn resolve(parts: &[String]) -> Option<(Vec<String>, &'static Kind)> {
    let mut kind = root_kind();
    let mut path = Vec::with_capacity(parts.len());
    for part in parts {
        let (next, field) = kind.child(part)?;
        path.push(field.map_or_else(|| part.clone(), |field| field.name.to_owned()));
        kind = next;
    }
    Some((path, kind))
}

fn nested(path: &[String], node: Node) -> Node {
    path.iter().rev().fold(node, |inner, key| {
        let place = inner.place.clone();
        Node {
            value: Value::Object(Object::from([(key.clone(), inner)])),
            place,
        }
    })
}

fn shown(value: &Value) -> String {
    match value {
        Value::List(_) | Value::Object(_) => value.shown(),
        scalar => scalar.text().unwrap_or_default(),
    }
}

/// A warning if the value is not what its text looks like.
fn changed(
    variable: &str,
    text: &str,
    node: &Node,
    kind: &'static Kind,
    secret: bool,
) -> Option<Warning> {
    let trimmed = text.trim();
    let lexed = lex(trimmed, Mode::Strict).ok()?;
    let quoted = matches!(
        lexed.list.first().map(|t| &t.kind),
        Some(Token::Quoted(_)) if lexed.list.len() == 1
    );
    let read = match &node.value {
        Value::String(read) if !quoted => read.clone(),
        // A number stays the number it is where a number is wanted.
        Value::Float(_) if !matches!(kind, Kind::String | Kind::Secret | Kind::Path) => {
            return None;
        }
        Value::Int(_) | Value::Float(_) => shown(&node.value),
        _ => return None,
    };
    if read == trimmed {
        return None;
    }
    let mask = |text: String| if secret { MASK.to_owned() } else { text };
    let cure = if secret {
        format!("{variable}='\"...\"'")
    } else {
        format!("{variable}='{trimmed:?}'")
    };
    Some(Warning::EnvValueChanged {
        variable: variable.to_owned(),
        given: mask(format!("{trimmed:?}")),
        read: mask(format!("{read:?}")),
        cure,
    })
}
