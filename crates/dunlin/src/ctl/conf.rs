//! `conf`: the configuration this node runs with, secrets masked.

use dunlin_config::{Raw, render};

use super::Answer;
use super::help::Usage;

pub(super) const USAGE: Usage = Usage {
    name: "conf",
    forms: &[
        (
            "conf show_keys",
            "Print all the currently used configuration keys",
        ),
        (
            "conf show [<key>]",
            "Print in-use configs (including default values) under the given key",
        ),
    ],
};

pub(super) fn run(raw: &Raw, args: &[&str]) -> Answer {
    match args {
        ["show_keys"] => Answer::done(render::root_names().join("\n") + "\n"),
        ["show"] => show(raw, ""),
        ["show", key] => show(raw, key),
        _ => Answer::usage(&USAGE),
    }
}

fn show(raw: &Raw, key: &str) -> Answer {
    match render::conf_show(raw, key) {
        Some(text) => Answer::done(format!("{}\n", text.trim_end())),
        None => Answer::failed(format!("Error: there is no configuration key '{key}'\n")),
    }
}
