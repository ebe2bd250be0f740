//! `rebalance`: give the clients of a node to others while it runs.

use std::fmt::Write;

use dunlin_server::admin::{Admin, AdminError, EvacuationOptions, EvacuationRow};

use super::Answer;
use super::help::Usage;

pub(super) const USAGE: Usage = Usage {
    name: "rebalance",
    forms: &[
        (
            "rebalance start --evacuation",
            "Send all clients of this node to others, then move their sessions; options:",
        ),
        (
            "    [--wait-health-check Secs]",
            "Time for load balancers to notice, default 60",
        ),
        (
            "    [--redirect-to \"Host1:Port1 ...\"]",
            "Where MQTT 5 clients are sent, default the other nodes",
        ),
        (
            "    [--conn-evict-rate CountPerSec]",
            "Clients sent away in a second, default 500",
        ),
        (
            "    [--migrate-to \"node1@host1 ...\"]",
            "Who gets the sessions, default all other nodes",
        ),
        (
            "    [--wait-takeover Secs]",
            "Time for clients to come back elsewhere, default 60",
        ),
        (
            "    [--sess-evict-rate CountPerSec]",
            "Sessions moved in a second, default 500",
        ),
        ("rebalance status", "Who is being evacuated"),
        (
            "rebalance node-status [Node]",
            "Whether this node, or another, is",
        ),
        ("rebalance stop", "Let clients in again on this node"),
    ],
};

/// The line between two nodes; EMQX's length.
const SEPARATOR_COLUMNS: usize = 68;

pub(super) async fn run(admin: &Admin, args: &[&str]) -> Result<Answer, AdminError> {
    let own = admin.status().node;
    match args {
        ["start", options @ ..] => start(admin, &own, options).await,
        ["stop"] => match admin.stop_evacuation(&own).await {
            Ok(()) => Ok(Answer::done("Rebalance(evacuation) stopped\n")),
            Err(AdminError::RebalanceDisabled { .. }) => {
                Ok(Answer::failed(disabled(&admin.evacuations().await)))
            }
            Err(error) => Err(error),
        },
        ["status"] => Ok(Answer::done(status(&admin.evacuations().await))),
        ["node-status"] => Ok(Answer::done(node_status(admin.evacuation().as_ref()))),
        ["node-status", node] => {
            let row = admin.evacuation_of(node).await?;
            Ok(Answer::done(node_status(row.as_ref())))
        }
        _ => Ok(Answer::usage(&USAGE)),
    }
}

async fn start(admin: &Admin, own: &str, words: &[&str]) -> Result<Answer, AdminError> {
    let options = match options(words) {
        Ok(options) => options,
        Err(why) => return Ok(start_error(&why)),
    };
    match admin.start_evacuation(own, options).await {
        Ok(()) => Ok(Answer::done("Rebalance(evacuation) started\n")),
        Err(AdminError::RebalanceEnabled { .. }) => {
            Ok(Answer::failed("Rebalance is already enabled\n"))
        }
        Err(AdminError::MigrateTo { nodes }) => {
            let why = format!("invalid --migrate-to, unavailable nodes: {}", list(&nodes));
            let cure = AdminError::MigrateTo { nodes };
            Ok(start_error(&format!("{why}\n{cure}")))
        }
        Err(error) => Err(error),
    }
}

fn start_error(why: &str) -> Answer {
    Answer::failed(format!("Rebalance start error: {why}\n"))
}

/// Reads the options of `start`; what is wrong with them, with the cure.
fn options(words: &[&str]) -> Result<EvacuationOptions, String> {
    let mut options = EvacuationOptions::default();
    let mut evacuation = false;
    let mut words = words.iter();
    let mut unknown = Vec::new();
    while let Some(word) = words.next() {
        if *word == "--evacuation" {
            evacuation = true;
            continue;
        }
        let known = [
            "--wait-health-check",
            "--redirect-to",
            "--conn-evict-rate",
            "--migrate-to",
            "--wait-takeover",
            "--sess-evict-rate",
        ];
        if !known.contains(word) {
            unknown.push(format!("{word:?}"));
            continue;
        }
        let value = words.next().filter(|value| !value.starts_with("--"));
        let value = value.ok_or_else(|| format!("{word} wants a value after it"))?;
        match *word {
            "--wait-health-check" => options.wait_health_check_s = number(word, value, 0)?,
            "--conn-evict-rate" => options.conn_evict_rate = number(word, value, 1)?,
            "--wait-takeover" => options.wait_takeover_s = number(word, value, 0)?,
            "--sess-evict-rate" => options.sess_evict_rate = number(word, value, 1)?,
            "--redirect-to" => options.redirect_to = Some((*value).to_owned()),
            _ => {
                let names = value.split([' ', ',']).filter(|name| !name.is_empty());
                options.migrate_to = names.map(str::to_owned).collect();
            }
        }
    }
    if !unknown.is_empty() {
        let unknown = unknown.join(",");
        return Err(format!(
            "unknown arguments: [{unknown}]\nSee `emqx ctl rebalance help`."
        ));
    }
    if !evacuation {
        return Err(
            "this release evacuates whole nodes only; use `emqx ctl rebalance start \
                    --evacuation` on the node that is to lose its clients"
                .to_owned(),
        );
    }
    Ok(options)
}

fn number(option: &str, value: &str, least: u64) -> Result<u64, String> {
    let number = value.parse::<u64>().ok().filter(|number| *number >= least);
    number.ok_or_else(|| {
        format!("invalid {option} value: {value:?}; a whole number from {least} on is wanted")
    })
}

/// EMQX's line, and where the command is to be given if another node was meant.
fn disabled(rows: &[EvacuationRow]) -> String {
    let elsewhere = rows.iter().fold(String::new(), |mut text, row| {
        let _ = writeln!(text, "{} is being evacuated; run this there.", row.node);
        text
    });
    format!("Rebalance is already disabled\n{elsewhere}")
}

fn status(rows: &[EvacuationRow]) -> String {
    let mut text = String::new();
    for row in rows {
        let dashes = "-".repeat(SEPARATOR_COLUMNS);
        let _ = writeln!(text, "{dashes}\nNode '{}': evacuation", row.node);
        text.push_str(&fields(row));
    }
    if text.is_empty() {
        text.push_str("No node is being evacuated.\n");
    }
    text
}

fn node_status(row: Option<&EvacuationRow>) -> String {
    match row {
        Some(row) => format!("Rebalance type: evacuation\n{}", fields(row)),
        None => "Rebalance disabled\n".to_owned(),
    }
}

fn fields(row: &EvacuationRow) -> String {
    let EvacuationRow {
        state,
        options,
        initial,
        current,
        ..
    } = row;
    let EvacuationOptions {
        conn_evict_rate,
        sess_evict_rate,
        migrate_to,
        ..
    } = options;
    format!(
        "\
Rebalance state: {state}
Connection eviction rate: {conn_evict_rate} connections/second
Session eviction rate: {sess_evict_rate} sessions/second
Connection goal: 0
Session goal: 0
Session recipient nodes: {}
Channel statistics:
  current_connected: {}
  current_sessions: {}
  initial_connected: {}
  initial_sessions: {}
",
        list(migrate_to),
        current.connected,
        current.sessions,
        initial.connected,
        initial.sessions,
    )
}

/// Node names as an Erlang list of atoms.
fn list(nodes: &[String]) -> String {
    let quoted: Vec<String> = nodes.iter().map(|node| format!("'{node}'")).collect();
    format!("[{}]", quoted.join(","))
}

#[cfg(test)]
mod tests {
    use super::*;
    use dunlin_server::admin::Load;

    #[test]
    fn options_of_a_start() {
        let words = [
            "--evacuation",
            "--wait-health-check",
            "0",
            "--redirect-to",
            "b:1883 c:1883",
            "--conn-evict-rate",
            "30",
            "--migrate-to",
            "b@h, c@h",
            "--wait-takeover",
            "200",
            "--sess-evict-rate",
            "5",
        ];
        let expected = EvacuationOptions {
            wait_health_check_s: 0,
            redirect_to: Some("b:1883 c:1883".to_owned()),
            conn_evict_rate: 30,
            migrate_to: vec!["b@h".to_owned(), "c@h".to_owned()],
            wait_takeover_s: 200,
            sess_evict_rate: 5,
        };
        assert_eq!(options(&words), Ok(expected));
        assert_eq!(options(&["--evacuation"]), Ok(EvacuationOptions::default()));
    }

    #[test]
    fn what_is_wrong_is_said() {
        let check = |words: &[&str], why: &str| {
            let error = options(words).expect_err("it is wrong");
            assert!(error.starts_with(why), "{error}");
        };
        check(
            &["--evacuation", "--foo", "bar"],
            "unknown arguments: [\"--foo\",\"bar\"]",
        );
        check(
            &["--conn-evict-rate", "0"],
            "invalid --conn-evict-rate value",
        );
        check(&["--migrate-to"], "--migrate-to wants a value");
        check(&[], "this release evacuates whole nodes only");
    }

    #[test]
    fn emqx_s_fields() {
        let row = EvacuationRow {
            node: "a@h".to_owned(),
            state: "evicting_conns".to_owned(),
            options: EvacuationOptions {
                migrate_to: vec!["b@h".to_owned(), "c@h".to_owned()],
                ..EvacuationOptions::default()
            },
            initial: Load {
                connected: 100,
                sessions: 3,
            },
            current: Load {
                connected: 10,
                sessions: 4,
            },
        };
        let expected = "\
--------------------------------------------------------------------
Node 'a@h': evacuation
Rebalance state: evicting_conns
Connection eviction rate: 500 connections/second
Session eviction rate: 500 sessions/second
Connection goal: 0
Session goal: 0
Session recipient nodes: ['b@h','c@h']
Channel statistics:
  current_connected: 10
  current_sessions: 4
  initial_connected: 100
  initial_sessions: 3
";
        assert_eq!(status(std::slice::from_ref(&row)), expected);
        assert!(node_status(Some(&row)).starts_with("Rebalance type: evacuation\nRebalance st"));
        assert_eq!(node_status(None), "Rebalance disabled\n");
        let text = "Rebalance is already disabled\na@h is being evacuated; run this there.\n";
        assert_eq!(disabled(&[row]), text);
        assert_eq!(disabled(&[]), "Rebalance is already disabled\n");
    }
}
