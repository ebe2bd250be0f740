//! `conf cluster_sync`: whether all nodes hold the same changes of the configuration.
//!
//! EMQX keeps a log of transactions that a node can lag behind, and commands to push it on. Here
//! changes are rows that nodes compare all the time, so there is something to look at, and nothing
//! to repair.

use std::fmt::Write;

use dunlin_server::admin::{Admin, AdminError, ClusterView};
use serde_json::json;

use super::Answer;
use super::help::Usage;

pub(super) const USAGE: Usage = Usage {
    name: "conf cluster_sync",
    forms: &[
        (
            "conf cluster_sync status",
            "Show whether all nodes hold the same changes of the configuration",
        ),
        (
            "conf cluster_sync inspect",
            "The changes each node holds, in JSON",
        ),
        (
            "conf cluster_sync skip|fast_forward|fix",
            "Nothing is ever left to do here: nodes bring each other up to date",
        ),
    ],
};

/// EMQX's line above and below the answer.
const RULE: &str = "-----------------------------------------------\n";

pub(super) async fn run(admin: &Admin, args: &[&str]) -> Result<Answer, AdminError> {
    Ok(match args {
        ["status"] => Answer::done(status(&nodes(&admin.cluster_view().await?))),
        ["inspect"] => {
            let nodes = nodes(&admin.cluster_view().await?);
            let row = |node: &Node| match &node.held {
                Some((rows, digest)) => json!({"node": node.name, "rows": rows, "digest": digest}),
                None => json!({"node": node.name, "rows": null, "digest": null}),
            };
            let rows: Vec<_> = nodes.iter().map(row).collect();
            Answer::done(format!("{:#}\n", json!(rows)))
        }
        ["skip" | "fast_forward" | "fix", ..] => Answer::done(
            "Nothing to do: nodes compare their changes of the configuration every few seconds and \
             bring each other up to date.\n",
        ),
        _ => Answer::usage(&USAGE),
    })
}

/// A member and the changes it holds, as (rows, digest); none if it does not answer.
struct Node {
    name: String,
    held: Option<(u64, String)>,
}

fn nodes(view: &ClusterView) -> Vec<Node> {
    let node = |member: &dunlin_server::admin::MemberView| {
        let tables = member.view.as_ref().map(|view| &view.tables);
        let table = tables.and_then(|tables| tables.iter().find(|t| t.name == "configuration"));
        Node {
            name: member.node.clone(),
            held: table.map(|table| (table.rows, table.digest.clone())),
        }
    };
    view.members.iter().map(node).collect()
}

fn status(nodes: &[Node]) -> String {
    let held: Vec<&(u64, String)> = nodes.iter().filter_map(|node| node.held.as_ref()).collect();
    let mut text = RULE.to_owned();
    match held.split_first() {
        Some(((rows, digest), rest)) if rest.iter().all(|(_, other)| other == digest) => {
            let _ = writeln!(
                text,
                "All configuration synchronized(rows={rows}, digest={digest}) successfully"
            );
        }
        _ => {
            text.push_str("Inconsistent configuration, which the nodes are bringing together:\n");
            for node in nodes {
                if let Some((rows, digest)) = &node.held {
                    let _ = writeln!(text, "{}: rows={rows}, digest={digest}", node.name);
                }
            }
        }
    }
    let silent = nodes.iter().filter(|node| node.held.is_none());
    let silent: Vec<&str> = silent.map(|node| node.name.as_str()).collect();
    if !silent.is_empty() {
        let _ = writeln!(text, "Found stopped nodes: [{}]", silent.join(","));
    }
    text + RULE
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(name: &str, digest: Option<&str>) -> Node {
        Node {
            name: name.to_owned(),
            held: digest.map(|digest| (3, digest.to_owned())),
        }
    }

    #[test]
    fn equal_and_unequal_and_silent() {
        let equal = status(&[node("a@h", Some("aa")), node("b@h", Some("aa"))]);
        assert_eq!(
            equal,
            format!("{RULE}All configuration synchronized(rows=3, digest=aa) successfully\n{RULE}")
        );
        let nodes = [
            node("a@h", Some("aa")),
            node("b@h", Some("bb")),
            node("c@h", None),
        ];
        let unequal = status(&nodes);
        for line in [
            "a@h: rows=3, digest=aa\n",
            "b@h: rows=3, digest=bb\n",
            "Found stopped nodes: [c@h]\n",
        ] {
            assert!(unequal.contains(line), "{unequal}");
        }
    }
}
