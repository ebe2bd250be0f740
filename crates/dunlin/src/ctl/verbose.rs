//! `cluster status --verbose`: the cluster as all nodes see it, as tables.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;

use dunlin_api::time::rfc3339;
use dunlin_server::admin::{ClusterView, MemberView, NodeView};

use super::table::Table;

/// What stands where there is nothing to say.
const NOTHING: &str = "-";

pub(super) fn text(view: &ClusterView) -> String {
    let mut text = String::new();
    let own = view.members.iter().find(|m| m.node == view.self_node);
    if let Some(own) = own.and_then(|member| member.view.as_ref()) {
        let _ = writeln!(
            text,
            "Cluster '{}' (id {}) as all nodes see it; asked: {}",
            own.cluster_name, own.cluster_id, view.self_node
        );
    }
    section(&mut text, "Members", &members(view));
    section(&mut text, "Who sees whom", &sight(view));
    section(&mut text, "Streams of node state", &streams(view));
    section(&mut text, "Cluster-state tables", &tables(view));
    section(&mut text, "Discovery", &discovery(view));
    text.push('\n');
    text.push_str(&verdict(view));
    text
}

fn section(text: &mut String, title: &str, table: &Table) {
    let _ = write!(text, "\n{title}\n{}", table.text());
}

fn views(view: &ClusterView) -> impl Iterator<Item = &NodeView> {
    view.members.iter().filter_map(|m| m.view.as_ref())
}

/// Each member as the node that was asked sees it, and what was measured on the link to it.
fn members(view: &ClusterView) -> Table {
    let mut table = Table::new([
        "NODE",
        "STATE",
        "SINCE",
        "LINK",
        "ROUND TRIP",
        "CLOCK",
        "ALARMS",
        "VERSION",
    ]);
    let own = views(view).find(|own| own.node == view.self_node);
    for member in &view.members {
        let seen = own.and_then(|own| own.sees.iter().find(|seen| seen.node == member.node));
        let (state, since, link) = seen.map_or_else(
            || (NOTHING.to_owned(), NOTHING.to_owned(), NOTHING.to_owned()),
            |seen| {
                let since = rfc3339(seen.since_ms);
                (seen.state.clone(), since, seen.link.clone())
            },
        );
        let of_view = |cell: fn(&NodeView) -> String| {
            member
                .view
                .as_ref()
                .map_or_else(|| NOTHING.to_owned(), cell)
        };
        table.row(vec![
            member.node.clone(),
            state,
            since,
            link,
            member
                .round_trip_us
                .map_or_else(|| NOTHING.to_owned(), millis),
            member
                .clock_offset_ms
                .map_or_else(|| NOTHING.to_owned(), |ms| format!("{ms:+} ms")),
            of_view(|view| view.alarms.to_string()),
            of_view(|view| view.version.clone()),
        ]);
    }
    table
}

fn millis(us: u64) -> String {
    format!("{}.{:01} ms", us / 1000, us % 1000 / 100)
}

/// One row per node, one column per member.
fn sight(view: &ClusterView) -> Table {
    let mut names: BTreeSet<&str> = view.members.iter().map(|m| m.node.as_str()).collect();
    names.extend(views(view).flat_map(|v| v.sees.iter().map(|seen| seen.node.as_str())));
    let mut headings = vec!["SEES".to_owned()];
    headings.extend(names.iter().map(|name| (*name).to_owned()));
    let mut table = Table::with_headings(headings);
    for member in &view.members {
        let mut row = vec![member.node.clone()];
        match &member.view {
            None => {
                let why = member.silent.as_deref().unwrap_or("no answer");
                row.push(format!("no answer: {why}"));
            }
            Some(view) => row.extend(names.iter().map(|name| {
                let seen = view.sees.iter().find(|seen| seen.node == **name);
                seen.map_or("no member", |seen| match seen.link.as_str() {
                    "self" => "self",
                    "connecting" if seen.state != "stopped" => "via others",
                    _ => seen.state.as_str(),
                })
                .to_owned()
            })),
        }
        table.row(row);
    }
    table
}

/// How far every node has got with the changes of every other.
fn streams(view: &ClusterView) -> Table {
    let mut table = Table::new(["FROM", "TO", "HAS", "OF", "BEHIND", "ON THE WAY"]);
    for to in views(view) {
        for seen in to.sees.iter().filter(|seen| seen.link != "self") {
            let from = views(view).find(|from| from.node == seen.node);
            let on_way = from.and_then(|from| from.sees.iter().find(|s| s.node == to.node));
            let behind = match (seen.has, from) {
                // Both were read a moment apart: the later reading may be ahead.
                (Some(has), Some(from)) => from.own_number.saturating_sub(has).to_string(),
                (None, _) => "everything".to_owned(),
                (Some(_), None) => "unknown".to_owned(),
            };
            table.row(vec![
                seen.node.clone(),
                to.node.clone(),
                number(seen.has),
                number(from.map(|from| from.own_number)),
                behind,
                on_way.map_or_else(
                    || NOTHING.to_owned(),
                    |s| format!("{} frames, {} bytes", s.unacked_frames, s.unacked_bytes),
                ),
            ]);
        }
    }
    table
}

fn number(number: Option<u64>) -> String {
    number.map_or_else(|| NOTHING.to_owned(), |number| number.to_string())
}

/// Digests of a table by node.
fn digests(view: &ClusterView) -> BTreeMap<&str, Vec<(&str, u64, &str)>> {
    let mut tables: BTreeMap<&str, Vec<_>> = BTreeMap::new();
    for node in views(view) {
        for table in &node.tables {
            let of_node = (node.node.as_str(), table.rows, table.digest.as_str());
            tables.entry(&table.name).or_default().push(of_node);
        }
    }
    tables
}

fn tables(view: &ClusterView) -> Table {
    let mut table = Table::new(["TABLE", "NODE", "ROWS", "DIGEST", ""]);
    for (name, nodes) in digests(view) {
        let equal = nodes.iter().all(|(_, _, digest)| *digest == nodes[0].2);
        if equal {
            let of = if nodes.len() == 1 { "this node" } else { "all" };
            table.row(cells([
                name,
                of,
                &nodes[0].1.to_string(),
                nodes[0].2,
                "equal",
            ]));
            continue;
        }
        for (node, rows, digest) in nodes {
            table.row(cells([name, node, &rows.to_string(), digest, "differs"]));
        }
    }
    table
}

fn cells<const N: usize>(cells: [&str; N]) -> Vec<String> {
    cells.map(str::to_owned).to_vec()
}

fn discovery(view: &ClusterView) -> Table {
    let mut table = Table::new(["NODE", "STRATEGY", "STATE", "LAST ERROR"]);
    for node in views(view) {
        let discovery = &node.discovery;
        let error = discovery.error.as_deref().unwrap_or(NOTHING);
        table.row(cells([
            &node.node,
            &discovery.strategy,
            &discovery.state,
            error,
        ]));
    }
    table
}

/// The last lines: whether all is well, or what to look at.
fn verdict(view: &ClusterView) -> String {
    let mut findings = Vec::new();
    let silent = |member: &&MemberView| member.view.is_none();
    for member in view.members.iter().filter(silent) {
        let node = &member.node;
        findings.push(format!(
            "{node} gives no answer; run 'emqx ctl cluster diagnose {node}'"
        ));
    }
    for from in views(view) {
        let unseen = |seen: &&dunlin_server::admin::SeenRow| seen.link == "connecting";
        for to in from.sees.iter().filter(unseen) {
            if views(view).any(|node| node.node == to.node) {
                findings.push(format!(
                    "{} has no link to {}; run 'emqx ctl cluster diagnose {}' on {}",
                    from.node, to.node, to.node, from.node
                ));
            }
        }
    }
    for (name, nodes) in digests(view) {
        if nodes.iter().any(|(_, _, digest)| *digest != nodes[0].2) {
            findings.push(format!(
                "the table '{name}' differs; nodes compare every few seconds, so look again"
            ));
        }
    }
    for member in &view.members {
        let ms = member.clock_offset_ms.unwrap_or(0);
        if ms.unsigned_abs() > CLOCK_NOTABLE_MS {
            findings.push(format!(
                "the clock of {} is {ms:+} ms off; synchronise the clocks (NTP)",
                member.node
            ));
        }
    }
    if findings.is_empty() {
        return "All nodes answer, see each other and hold the same.\n".to_owned();
    }
    findings.iter().fold(String::new(), |mut text, finding| {
        let _ = writeln!(text, "! {finding}");
        text
    })
}

/// Difference of two clocks that is worth a word, milliseconds: below it, later writes still win
/// as people would expect.
const CLOCK_NOTABLE_MS: u64 = 1_000;

#[cfg(test)]
mod tests {
    use dunlin_server::admin::{DiscoveryRow, SeenRow, TableRow};

    use super::*;

    fn seen(node: &str, state: &str, link: &str, has: Option<u64>) -> SeenRow {
        SeenRow {
            node: node.to_owned(),
            state: state.to_owned(),
            link: link.to_owned(),
            has,
            ..SeenRow::default()
        }
    }

    fn member(node: &str, digest: &str, sees: Vec<SeenRow>) -> MemberView {
        let table = TableRow {
            name: "retained".to_owned(),
            rows: 3,
            digest: digest.to_owned(),
        };
        let view = NodeView {
            node: node.to_owned(),
            version: "0.1.0".to_owned(),
            cluster_name: "emqxcl".to_owned(),
            cluster_id: "c1".to_owned(),
            own_number: 10,
            sees,
            tables: vec![table],
            discovery: DiscoveryRow {
                strategy: "manual".to_owned(),
                state: "unconfigured".to_owned(),
                error: None,
            },
            ..NodeView::default()
        };
        MemberView {
            node: node.to_owned(),
            round_trip_us: Some(350),
            clock_offset_ms: Some(-2),
            silent: None,
            view: Some(view),
        }
    }

    fn pair(digest_b: &str, link: &str) -> ClusterView {
        let a = vec![
            seen("a@h", "running", "self", None),
            seen("b@h", "running", link, Some(10)),
        ];
        let b = vec![
            seen("a@h", "running", "connected", Some(7)),
            seen("b@h", "running", "self", None),
        ];
        ClusterView {
            self_node: "a@h".to_owned(),
            members: vec![member("a@h", "aa", a), member("b@h", digest_b, b)],
        }
    }

    #[test]
    fn a_sound_cluster_says_so() {
        let text = text(&pair("aa", "connected"));
        assert!(text.starts_with("Cluster 'emqxcl' (id c1)"), "{text}");
        assert!(text.contains("  a@h   b@h  7    10  3       "), "{text}");
        assert!(text.contains("0.3 ms      -2 ms"), "{text}");
        assert!(
            text.contains("retained  all   3     aa      equal"),
            "{text}"
        );
        assert!(text.ends_with("All nodes answer, see each other and hold the same.\n"));
    }

    #[test]
    fn what_is_wrong_is_named_with_the_next_command() {
        let mut view = pair("bb", "connecting");
        let text_of = text(&view);
        let expected = "a@h has no link to b@h; run 'emqx ctl cluster diagnose b@h' on a@h";
        assert!(text_of.contains(expected), "{text_of}");
        assert!(text_of.contains("via others"), "{text_of}");
        assert!(
            text_of.contains("the table 'retained' differs"),
            "{text_of}"
        );
        view.members[1].view = None;
        view.members[1].silent = Some("it is not reachable".to_owned());
        let text = text(&view);
        assert!(text.contains("no answer: it is not reachable"), "{text}");
        assert!(text.contains("b@h gives no answer; run"), "{text}");
    }
}
