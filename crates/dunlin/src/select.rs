//! Which running node a command is meant for.
//!
//! One installation may run several nodes (the manual's single-host cluster). The rule: the
//! environment decides; a single running node needs no decision; among several a command is
//! accepted only when it can mean one node alone. Pure: what runs is found by `run_dir`.

/// The node a command goes to, or why none was chosen.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Choice {
    /// This running node.
    Node(String),
    /// This running node, with `target` in place of the name that was typed: see `first_node`.
    Instead { node: String, target: String },
    /// The node that would be meant does not run. `named` when the environment named it.
    NotRunning { name: String, named: bool },
    /// The question has one answer for the whole cluster: ask all of them, and print the answer if
    /// it is the same.
    All,
    /// Several run and nothing tells them apart.
    Ambiguous { hint: Option<String> },
}

/// What is known before choosing.
pub(crate) struct Known<'a> {
    /// Names of the nodes of this installation that run, sorted.
    pub(crate) running: &'a [String],
    /// `EMQX_NODE__NAME` (or the older `EMQX_NODE_NAME`).
    pub(crate) env_name: Option<&'a str>,
    /// What emqx.conf says, used when nothing runs.
    pub(crate) configured: &'a str,
    /// Does anything accept connections on the inter-node port of the node of this name?
    pub(crate) listens: &'a dyn Fn(&str) -> bool,
}

/// Chooses the node for `emqx ctl <args>`, or for `emqx stop` and the like with empty `args`.
pub(crate) fn choose(known: &Known<'_>, args: &[&str]) -> Choice {
    if let Some(wanted) = known.env_name {
        return match known.running.iter().find(|name| names(wanted, name)) {
            Some(name) => Choice::Node(name.clone()),
            None => Choice::NotRunning {
                name: wanted.to_owned(),
                named: true,
            },
        };
    }
    match known.running {
        [] => Choice::NotRunning {
            name: known.configured.to_owned(),
            named: false,
        },
        [only] => Choice::Node(only.clone()),
        several => among(known, several, args),
    }
}

/// Several nodes run and the environment names none.
fn among(known: &Known<'_>, running: &[String], args: &[&str]) -> Choice {
    match args {
        // The manual's last line for a cluster on one host names no node to run on. A node does not
        // join or remove itself, so of two nodes the one that is not the target is meant.
        ["cluster", verb @ ("join" | "force-leave"), target, ..] => {
            let others: Vec<&String> = running.iter().filter(|n| !names(target, n)).collect();
            match (&others[..], running) {
                ([only], _) => Choice::Node((*only).clone()),
                // Two run, and the target is neither.
                ([a, b], [_, _]) if *verb == "join" => first_node(known, [a, b], target)
                    .unwrap_or_else(|| Choice::Ambiguous {
                        hint: Some(hint([a, b], target)),
                    }),
                _ => Choice::Ambiguous { hint: None },
            }
        }
        ["cluster", "status", ..] => Choice::All,
        _ => Choice::Ambiguous { hint: None },
    }
}

/// The manual starts its first node under the default name, `emqx@127.0.0.1`, and then joins
/// `emqx1@127.0.0.1`. That text works as it stands: a name ending in 1 means the same name without
/// the 1 when that node runs here, the host is this machine's loopback, so that no other machine
/// can be meant, and nothing listens where the typed name would.
fn first_node(known: &Known<'_>, running: [&String; 2], target: &str) -> Option<Choice> {
    let (short, host) = target.split_once('@')?;
    let first = format!("{}@{host}", short.strip_suffix('1')?);
    if !is_loopback(host) || (known.listens)(target) {
        return None;
    }
    let node = match running {
        [a, b] if *a == first => b,
        [a, b] if *b == first => a,
        _ => return None,
    };
    Some(Choice::Instead {
        node: node.clone(),
        target: first,
    })
}

fn is_loopback(host: &str) -> bool {
    host == "localhost"
        || host
            .parse::<std::net::IpAddr>()
            .is_ok_and(|ip| ip.is_loopback())
}

/// Two nodes run and the target is neither: most likely a slip, and a join moves a node's data, so
/// show the command instead of guessing. The shorter name is likely the first node.
fn hint([a, b]: [&String; 2], target: &str) -> String {
    let (first, second) = if b.len() < a.len() { (b, a) } else { (a, b) };
    format!(
        "'{target}' is none of them. To join {second} to {first}: \
         EMQX_NODE__NAME='{second}' emqx ctl cluster join {first}"
    )
}

/// Does `wanted` (a full name or only its part before the `@`) name the node `name`?
fn names(wanted: &str, name: &str) -> bool {
    wanted == name
        || (!wanted.contains('@')
            && name
                .split_once('@')
                .is_some_and(|(short, _)| short == wanted))
}

/// The lines an operator sees when nothing tells several running nodes apart.
pub(crate) fn ambiguous_lines(root: &str, running: &[String], hint: Option<&str>) -> Vec<String> {
    let mut lines = vec![
        format!("More than one EMQX node found running (root dir: {root})"),
        format!("Running nodes: {} ", running.join(" ")),
        "Make sure environment variable EMQX_NODE__NAME is set to indicate for which node this \
         command is intended."
            .to_owned(),
    ];
    lines.extend(hint.map(str::to_owned));
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(running: &[&str], env_name: Option<&str>, args: &[&str]) -> Choice {
        let running: Vec<String> = running.iter().map(|&s| s.to_owned()).collect();
        let listens = |name: &str| running.iter().any(|n| n == name) || name == "used1@127.0.0.1";
        let configured = "emqx@127.0.0.1";
        choose(
            &Known {
                running: &running,
                env_name,
                configured,
                listens: &listens,
            },
            args,
        )
    }

    fn joined_as(running: &[&str], target: &str) -> Choice {
        check(running, None, &["cluster", "join", target])
    }

    fn node(name: &str) -> Choice {
        Choice::Node(name.to_owned())
    }

    const TWO: &[&str] = &["emqx1@127.0.0.1", "emqx2@127.0.0.1"];
    const JOIN1: &[&str] = &["cluster", "join", "emqx1@127.0.0.1"];

    #[test]
    fn one_running_node_needs_no_name() {
        assert_eq!(check(&["a@h"], None, &["status"]), node("a@h"));
        assert_eq!(
            check(&["a@h"], None, &["cluster", "join", "b@h"]),
            node("a@h")
        );
    }

    #[test]
    fn the_environment_decides_and_may_leave_the_host_out() {
        assert_eq!(
            check(TWO, Some("emqx2@127.0.0.1"), JOIN1),
            node("emqx2@127.0.0.1")
        );
        assert_eq!(
            check(TWO, Some("emqx2"), &["stop"]),
            node("emqx2@127.0.0.1")
        );
        let absent = Choice::NotRunning {
            name: "x@h".to_owned(),
            named: true,
        };
        assert_eq!(check(&["a@h"], Some("x@h"), &[]), absent);
    }

    #[test]
    fn nothing_runs() {
        let absent = Choice::NotRunning {
            name: "emqx@127.0.0.1".to_owned(),
            named: false,
        };
        assert_eq!(check(&[], None, &[]), absent);
    }

    #[test]
    fn the_manuals_last_line_goes_to_the_node_that_is_not_the_target() {
        assert_eq!(check(TWO, None, JOIN1), node("emqx2@127.0.0.1"));
        assert_eq!(
            check(TWO, None, &["cluster", "join", "emqx1"]),
            node("emqx2@127.0.0.1")
        );
        assert_eq!(
            check(TWO, None, &["cluster", "force-leave", "emqx2@127.0.0.1"]),
            node("emqx1@127.0.0.1")
        );
    }

    #[test]
    fn the_manuals_last_line_works_with_the_default_first_name() {
        let taken = Choice::Instead {
            node: "emqx2@127.0.0.1".to_owned(),
            target: "emqx@127.0.0.1".to_owned(),
        };
        assert_eq!(
            joined_as(&["emqx2@127.0.0.1", "emqx@127.0.0.1"], "emqx1@127.0.0.1"),
            taken
        );
    }

    #[test]
    fn any_other_stranger_is_refused_with_the_command_to_type() {
        for (running, target) in [
            (["emqx2@127.0.0.1", "emqx@127.0.0.1"], "emqx7@127.0.0.1"),
            (["emqx2@10.0.0.1", "emqx@10.0.0.1"], "emqx1@10.0.0.1"),
            (["used2@127.0.0.1", "used@127.0.0.1"], "used1@127.0.0.1"),
        ] {
            let Choice::Ambiguous { hint: Some(hint) } = joined_as(&running, target) else {
                panic!("{target} must not be taken for a node of {running:?}");
            };
            let end = format!(
                "EMQX_NODE__NAME='{}' emqx ctl cluster join {}",
                running[0], running[1]
            );
            assert!(hint.ends_with(&end), "{hint}");
        }
    }

    #[test]
    fn three_nodes_need_a_name() {
        let three = &["a@h", "b@h", "c@h"];
        let none = Choice::Ambiguous { hint: None };
        assert_eq!(check(three, None, &["cluster", "join", "a@h"]), none);
        assert_eq!(check(three, None, &["stop"]), none);
        assert_eq!(check(TWO, None, &["clients", "list"]), none);
    }

    #[test]
    fn cluster_status_is_asked_of_all() {
        assert_eq!(
            check(TWO, None, &["cluster", "status", "--json"]),
            Choice::All
        );
    }

    #[test]
    fn the_three_lines() {
        let running = ["emqx1@127.0.0.1".to_owned(), "emqx2@127.0.0.1".to_owned()];
        let lines = ambiguous_lines("/opt/emqx", &running, None);
        assert_eq!(
            lines[0],
            "More than one EMQX node found running (root dir: /opt/emqx)"
        );
        assert_eq!(lines[1], "Running nodes: emqx1@127.0.0.1 emqx2@127.0.0.1 ");
        assert!(lines[2].starts_with("Make sure environment variable EMQX_NODE__NAME is set"));
        assert_eq!(lines.len(), 3);
    }
}
