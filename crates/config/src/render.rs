//! Reference page, `conf show` and JSON, all from the registry.

use std::fmt::Write as _;

use crate::check::Secrets;
use crate::hocon::{Node, Value, write, write_value};
use crate::raw::Raw;
use crate::schema::{Effect, Field, InForce, Kind};
use crate::section::roots;

/// What is shown instead of a secret.
pub const MASK: &str = "******";

/// The effective configuration below a dotted path as configuration text, secrets masked;
/// the whole of it for the empty path, `None` if there is no such path.
pub fn conf_show(raw: &Raw, path: &str) -> Option<String> {
    let value = raw.effective(path, Secrets::Masked)?;
    let place = raw.provenance(path)?.clone();
    Some(match path.rsplit('.').next() {
        Some(key) if !path.is_empty() => {
            let mut root = Node::empty(place.layer);
            root.set(key, value, &place);
            write(&root)
        }
        _ => write(&Node { value, place }),
    })
}

/// The effective configuration below a dotted path as JSON, secrets masked.
pub fn json(raw: &Raw, path: &str) -> Option<serde_json::Value> {
    Some(raw.effective(path, Secrets::Masked)?.to_json())
}

/// A value as configuration text.
pub fn value_text(value: &Value) -> String {
    write_value(value)
}

/// The names of all roots, for `conf show_keys`.
pub fn root_names() -> Vec<&'static str> {
    roots().iter().map(|field| field.name).collect()
}

/// The reference page: every documented key, in Markdown.
pub fn reference() -> String {
    let mut out = String::from(
        "# Configuration reference\n\n\
         Written by `cargo xtask reference` from the registry of keys; do not edit.\n\n\
         Every key can be set in `etc/emqx.conf`, or by the variable in the last column. Keys \
         marked *no effect* are accepted so that a configuration of EMQX loads, and do nothing \
         here yet.\n\n\
         What can change at run time is changed in the whole cluster with `emqx ctl conf load` or \
         `PUT /api/v5/configs/ROOT`: *at once*, or for *new connections*, those that clients make \
         from then on. What needs a *restart* is refused there; change it in `emqx.conf` of the \
         nodes. A node's own `emqx.conf` and variables go before changes at run time.\n",
    );
    for root in roots().iter().filter(|root| !root.hidden) {
        let _ = write!(out, "\n## {}\n\n{}", root.name, root.doc);
        without_effect(&mut out, root.effect, root);
        if root.in_force == InForce::AfterRestart {
            out.push_str(" Read at start only.");
        }
        out.push('\n');
        table(&mut out, root);
    }
    out
}

fn table(out: &mut String, root: &Field) {
    let mut rows = Vec::new();
    rows_of(&root.kind, root.name, root.effect, &mut rows);
    if rows.is_empty() {
        return;
    }
    out.push_str(
        "\n| key | value | default | meaning | change at run time | variable |\n\
         |---|---|---|---|---|---|\n",
    );
    for row in rows {
        let _ = writeln!(out, "{row}");
    }
}

fn rows_of(kind: &Kind, path: &str, effect: Effect, rows: &mut Vec<String>) {
    match kind {
        Kind::Object(fields) | Kind::Partial(fields) => {
            for field in fields.iter().filter(|field| !field.hidden) {
                field_rows(field, path, effect, rows);
            }
        }
        // A zone's keys are those of the roots of the same names.
        Kind::Map(inner) if path != "zones" => {
            rows_of(inner, &format!("{path}.NAME"), effect, rows);
        }
        Kind::Words(_, inner) => rows_of(inner, path, effect, rows),
        Kind::OneOrNamed(fields) => rows_of(&Kind::Object(fields), path, effect, rows),
        Kind::List(inner) | Kind::ListOrOne(inner) => {
            rows_of(inner, &format!("{path}.N"), effect, rows);
        }
        _ => {}
    }
}

fn field_rows(field: &'static Field, path: &str, above: Effect, rows: &mut Vec<String>) {
    let path = format!("{path}.{}", field.name);
    let inert =
        above == Effect::AcceptedWithoutEffect || field.effect == Effect::AcceptedWithoutEffect;
    let effect = if inert {
        Effect::AcceptedWithoutEffect
    } else {
        Effect::Acts
    };
    if field.kind.fields().is_none() {
        rows.push(row(field, &path, effect));
    }
    rows_of(&field.kind, &path, effect, rows);
}

fn row(field: &Field, path: &str, effect: Effect) -> String {
    let mut meaning = field.doc.to_owned();
    if !field.since.is_empty() {
        let _ = write!(meaning, " Since EMQX {}.", field.since);
    }
    if !field.aliases.is_empty() {
        let _ = write!(meaning, " Also `{}`.", field.aliases.join("`, `"));
    }
    if let Some(instead) = field.deprecated {
        let _ = write!(meaning, " Deprecated: {instead}.");
    }
    without_effect(&mut meaning, effect, field);
    let default = match (field.default, field.required) {
        (Some(text), _) => format!("`{text}`"),
        (None, Some(_)) => "required".to_owned(),
        (None, None) => String::new(),
    };
    let unit = match field.kind.unit() {
        "" => String::new(),
        unit => format!(" ({unit})"),
    };
    let variable = env_name(path);
    let change = match (effect, crate::change::in_force_when(path)) {
        (Effect::AcceptedWithoutEffect, _) => "",
        (Effect::Acts, InForce::AtOnce) => "at once",
        (Effect::Acts, InForce::NewConnections) => "new connections",
        (Effect::Acts, InForce::AfterRestart) => "restart",
    };
    let cells = [
        format!("`{path}`"),
        field.kind.expected() + &unit,
        default,
        meaning,
        change.to_owned(),
        format!("`{variable}`"),
    ];
    format!(
        "| {} |",
        cells.map(|cell| cell.replace('|', "\\|")).join(" | ")
    )
}

fn without_effect(out: &mut String, effect: Effect, field: &Field) {
    match (effect, field.leaves_open) {
        (Effect::Acts, _) => {}
        (Effect::AcceptedWithoutEffect, None) => out.push_str(" *No effect.*"),
        (Effect::AcceptedWithoutEffect, Some(leaves_open)) => {
            let _ = write!(out, " *No effect: {leaves_open}.*");
        }
    }
}

/// The variable that sets a path.
pub fn env_name(path: &str) -> String {
    format!(
        "{}{}",
        crate::env::PREFIX,
        path.to_uppercase().replace('.', "__")
    )
}
