//! `authentication`: the chain of authenticators. What an authenticator takes is
//! declared by the crate that runs it; here it is kept as written.

use crate::check::Typed;
use crate::hocon::{Node, Value};
use crate::schema::{Field, Kind, optional};
use crate::view::View;

/// A chain of authenticators; one may stand without the list.
pub(crate) const CHAIN: Kind = Kind::ListOrOne(&Kind::Raw);

pub(crate) const ROOT: Field = optional(
    "authentication",
    CHAIN,
    "Authenticators, asked in order. An empty list lets everybody in. \
     `{mechanism = password_based, backend = built_in_database}` is there; one that is not lets \
     nobody in.",
)
.fixed();

/// The authenticators as JSON, with variables in paths replaced.
pub(crate) fn build(v: View<'_>, variable: &dyn Fn(&str) -> Option<String>) -> Vec<Json> {
    chain(v, "authentication", variable)
}

type Json = serde_json::Value;

/// The undeclared objects of a list, with variables in paths replaced.
pub(crate) fn chain(
    v: View<'_>,
    key: &str,
    variable: &dyn Fn(&str) -> Option<String>,
) -> Vec<Json> {
    v.list(key)
        .iter()
        .filter_map(|item| match &item.typed {
            Typed::Raw(value) => Some(expand(value, variable).to_json()),
            _ => None,
        })
        .collect()
}

/// Replaces `${EMQX_…}` at the start of strings; other `${…}` are templates of clients.
fn expand(value: &Value, variable: &dyn Fn(&str) -> Option<String>) -> Value {
    let node = |n: &Node| Node {
        value: expand(&n.value, variable),
        place: n.place.clone(),
    };
    match value {
        Value::String(text) => {
            let end = text
                .starts_with("${EMQX_")
                .then(|| text.find('}'))
                .flatten();
            let known = end.and_then(|end| Some((variable(&text[2..end])?, &text[end + 1..])));
            match known {
                Some((head, tail)) => Value::String(head + tail),
                None => value.clone(),
            }
        }
        Value::List(items) => Value::List(items.iter().map(node).collect()),
        Value::Object(object) => {
            Value::Object(object.iter().map(|(k, n)| (k.clone(), node(n))).collect())
        }
        scalar => scalar.clone(),
    }
}
