//! Keys that would guard something and do nothing here.
//!
//! An operator who configures authentication must not believe that it works because the node
//! started. Such a key is accepted, so that a configuration of EMQX loads, and said aloud; one
//! that is switched off or repeats its default asks for nothing and must not cry wolf.

use serde_json::Value as Json;

use crate::check::{Checked, Typed};

/// Whether a value asks for more than its default gives.
pub(crate) fn is_asked_for(given: &Checked, default: Option<&Checked>) -> bool {
    match &given.typed {
        // Of the wrong type: that is an error of its own.
        Typed::Unset => false,
        Typed::List(items) => {
            let backends = backends(items);
            !backends.is_empty() && backends != default.map(default_backends).unwrap_or_default()
        }
        typed => default.is_none_or(|default| *typed != default.typed),
    }
}

fn default_backends(default: &Checked) -> Vec<Json> {
    match &default.typed {
        Typed::List(items) => backends(items),
        _ => Vec::new(),
    }
}

/// The enabled elements of a list, without the key that enables them.
fn backends(items: &[Checked]) -> Vec<Json> {
    let enabled = |item: &Checked| {
        let mut json = item.shown.to_json();
        let enable = json
            .as_object_mut()
            .and_then(|object| object.remove("enable"));
        let off = enable.is_some_and(|enable| enable == false || enable == "false");
        (!off).then_some(json)
    };
    items.iter().filter_map(enabled).collect()
}
