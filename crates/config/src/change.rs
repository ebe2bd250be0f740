//! Changes at runtime: the new text of `cluster.hocon`, what differs between two
//! configurations, and whether it can take effect at once.

use std::collections::BTreeSet;

use crate::check::{Checked, Typed};
use crate::error::{ConfigError, LayerKind, Place};
use crate::hocon::{self, Node, Value};
use crate::raw::Raw;
use crate::render::MASK;
use crate::schema::{Kind, rename_node};
use crate::section::root_kind;

/// What `cluster.hocon` begins with.
pub const CLUSTER_HOCON_HEADER: &str = "\
    # This file is generated. Do not edit.\n\
    # The configs are results of online config changes from UI/API/CLI.\n\
    # To persist configs in this file, copy the content to etc/base.hocon.\n";

/// One change to make.
#[derive(Debug, Clone, PartialEq)]
pub struct Edit {
    /// Keys from the root down; they may contain dots.
    pub path: Vec<String>,
    /// The new value; `None` takes the key out of the file.
    pub value: Option<serde_json::Value>,
}

/// The new text of `cluster.hocon` after some changes.
///
/// A value of `******` keeps the secret that `current` has there, so that what was shown
/// can be sent back. Nothing is checked: load the configuration with the new text, and
/// keep the old one if that fails.
pub fn edit(text: &str, edits: &[Edit], current: &Raw) -> Result<String, Vec<ConfigError>> {
    let mut root = hocon::parse(text)?;
    let place = Place {
        layer: LayerKind::Cluster,
        ..Place::default_value()
    };
    for edit in edits {
        let Some(json) = &edit.value else {
            root.remove_at(&edit.path);
            continue;
        };
        let mut node = Node::from_json(json, &place);
        if let Some(kind) = kind_at(&edit.path) {
            rename_node(&mut node, kind);
        }
        unmask(&mut node, current.root.at(&edit.path));
        root.set_at(&edit.path, node);
    }
    Ok(format!("{CLUSTER_HOCON_HEADER}{}", hocon::write(&root)))
}

fn kind_at(path: &[String]) -> Option<&'static Kind> {
    path.iter().try_fold(root_kind(), |kind, key| {
        kind.child(key).map(|(kind, _)| kind)
    })
}

/// Puts the present secrets where only their mask is.
fn unmask(node: &mut Node, present: Option<&Node>) {
    let Some(present) = present else { return };
    match (&mut node.value, &present.value) {
        (Value::String(text), old) if text == MASK => node.value = old.clone(),
        (Value::Object(fields), Value::Object(old)) => {
            for (key, field) in fields {
                unmask(field, old.get(key));
            }
        }
        (Value::List(items), Value::List(old)) => {
            for (item, old) in items.iter_mut().zip(old) {
                unmask(item, Some(old));
            }
        }
        _ => {}
    }
}

/// One value that differs.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Change {
    /// Its path.
    pub path: String,
    /// Whether it takes effect without a restart.
    pub reloadable: bool,
}

/// Everything that differs, sorted by path; a list counts as one value.
pub fn diff(before: &Raw, after: &Raw) -> Vec<Change> {
    let mut changes = Vec::new();
    compare(&before.checked, &after.checked, "", &mut changes);
    changes
}

fn compare(before: &Checked, after: &Checked, path: &str, out: &mut Vec<Change>) {
    let (Typed::Object(old), Typed::Object(new)) = (&before.typed, &after.typed) else {
        if before.typed != after.typed {
            out.push(Change {
                path: path.to_owned(),
                reloadable: is_reloadable(path),
            });
        }
        return;
    };
    let keys: BTreeSet<&String> = old.keys().chain(new.keys()).collect();
    for key in keys {
        let path = crate::error::join(path, key);
        match (old.get(key), new.get(key)) {
            (Some(before), Some(after)) => compare(before, after, &path, out),
            _ => out.push(Change {
                reloadable: is_reloadable(&path),
                path,
            }),
        }
    }
}

/// Whether every field on the way to `path` can change at runtime.
pub fn is_reloadable(path: &str) -> bool {
    let mut kind: &'static Kind = root_kind();
    for key in path.split('.') {
        let Some((next, field)) = kind.child(key) else {
            return true;
        };
        if field.is_some_and(|field| !field.reloadable) {
            return false;
        }
        kind = next;
    }
    true
}
