//! What differs between two configurations, and whether it can take effect at once.

use std::collections::BTreeSet;

use crate::raw::Raw;
use crate::schema::{Checked, Kind, Typed};
use crate::section::root_kind;

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
