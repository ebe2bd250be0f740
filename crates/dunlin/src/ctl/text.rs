//! How answers look: the shapes that scripts written for EMQX parse.
//!
//! Only formatting; nothing here asks the node anything.

use std::fmt::Write;

/// The width names are padded to, and cut at, in `broker stats` and `broker metrics`.
const COUNTER_COLUMNS: usize = 30;

/// A node name as an Erlang atom, which is how EMQX prints it.
pub(crate) fn atom(name: &str) -> String {
    format!("'{}'", name.replace('\\', "\\\\").replace('\'', "\\'"))
}

fn atoms(names: &[String]) -> String {
    names
        .iter()
        .map(|name| atom(name))
        .collect::<Vec<_>>()
        .join(",")
}

/// The status line of the manual; stopped members follow inside the list when there are any.
pub(crate) fn cluster_status(running: &[String], stopped: &[String]) -> String {
    let mut text = format!("Cluster status: [{{running_nodes,[{}]}}", atoms(running));
    if !stopped.is_empty() {
        let _ = write!(text, ",{{stopped_nodes,[{}]}}", atoms(stopped));
    }
    text.push_str("]\n");
    text
}

/// Follows the status line while a split is kept open; empty otherwise.
pub(crate) fn held_apart(held: &[String]) -> String {
    if held.is_empty() {
        return String::new();
    }
    format!(
        "Held apart since a split, because cluster.autoheal is false: [{}]\n\
         They can be reached; run 'emqx ctl cluster heal' on any node to merge the sides.\n",
        atoms(held)
    )
}

/// `cluster status --json`, in the layout of EMQX 5.8: blanks before the colon, an empty array
/// over three lines. `held_apart` is there only when somebody is.
pub(crate) fn cluster_status_json(
    running: &[String],
    stopped: &[String],
    held_apart: &[String],
) -> String {
    let array = |names: &[String]| {
        let items: Vec<String> = names
            .iter()
            .map(|name| serde_json::Value::from(name.as_str()).to_string())
            .collect();
        format!("[\n    {}\n  ]", items.join(",\n    "))
    };
    let held = if held_apart.is_empty() {
        String::new()
    } else {
        format!("  \"held_apart\" : {},\n", array(held_apart))
    };
    format!(
        "{{\n{held}  \"stopped_nodes\" : {},\n  \"running_nodes\" : {}\n}}\n",
        array(stopped),
        array(running)
    )
}

/// One row of `broker stats` or `broker metrics`.
pub(crate) fn counter(name: &str, value: u64) -> String {
    let name: String = name.chars().take(COUNTER_COLUMNS).collect();
    format!("{name:<COUNTER_COLUMNS$}: {value}\n")
}

/// Time since start, leading zero units dropped: `1 minutes, 22 seconds`.
pub(crate) fn uptime(ms: u64) -> String {
    let seconds = ms / 1000;
    let units = [
        (seconds / 86_400, "days"),
        (seconds / 3600 % 24, "hours"),
        (seconds / 60 % 60, "minutes"),
        (seconds % 60, "seconds"),
    ];
    let first = units
        .iter()
        .position(|(n, _)| *n > 0)
        .unwrap_or(units.len() - 1);
    units[first..]
        .iter()
        .map(|(n, unit)| format!("{n} {unit}"))
        .collect::<Vec<_>>()
        .join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(names: &[&str]) -> Vec<String> {
        names.iter().map(|&n| n.to_owned()).collect()
    }

    #[test]
    fn the_status_line_of_the_manual() {
        assert_eq!(
            cluster_status(&names(&["emqx@s1.emqx.io", "emqx@s2.emqx.io"]), &[]),
            "Cluster status: [{running_nodes,['emqx@s1.emqx.io','emqx@s2.emqx.io']}]\n"
        );
    }

    #[test]
    fn stopped_members_follow_inside_the_list() {
        assert_eq!(
            cluster_status(&names(&["a@h"]), &names(&["b@h", "c@h"])),
            "Cluster status: [{running_nodes,['a@h']},{stopped_nodes,['b@h','c@h']}]\n"
        );
    }

    #[test]
    fn json_status_byte_for_byte() {
        assert_eq!(
            cluster_status_json(&names(&["emqx1@127.0.0.1", "emqx2@127.0.0.1"]), &[], &[]),
            "{\n  \"stopped_nodes\" : [\n    \n  ],\n  \"running_nodes\" : [\n    \
             \"emqx1@127.0.0.1\",\n    \"emqx2@127.0.0.1\"\n  ]\n}\n"
        );
    }

    #[test]
    fn counters_are_padded_and_cut() {
        assert_eq!(
            counter("channels.count", 0),
            "channels.count                : 0\n"
        );
        assert_eq!(
            counter("authentication.success.anonymous", 7),
            "authentication.success.anonymo: 7\n"
        );
    }

    #[test]
    fn uptime_drops_leading_zero_units() {
        assert_eq!(uptime(82_000), "1 minutes, 22 seconds");
        assert_eq!(uptime(999), "0 seconds");
        assert_eq!(uptime(93_784_000), "1 days, 2 hours, 3 minutes, 4 seconds");
        assert_eq!(uptime(3_600_000), "1 hours, 0 minutes, 0 seconds");
    }
}
