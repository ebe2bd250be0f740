//! `rebalance`: give the clients of a node to others while it runs, or even out those of several.

use std::fmt::Write;

use dunlin_server::admin::{
    Admin, AdminError, Averages, DonorRow, EvacuationOptions, EvacuationRow, RebalanceOptions,
    RebalanceRow, Share,
};

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
        (
            "rebalance start",
            "Even out clients and sessions of nodes that stay; this one coordinates; options:",
        ),
        (
            "    [--nodes \"node1@host1 ...\"]",
            "Who takes part, default all running nodes",
        ),
        (
            "    [--wait-health-check Secs]",
            "Time for load balancers to notice, default 60",
        ),
        (
            "    [--conn-evict-rate CountPerSec]",
            "Clients each donor sends away in a second, default 500",
        ),
        (
            "    [--abs-conn-threshold Count]",
            "Connections donors may have more on average, default 1000",
        ),
        (
            "    [--rel-conn-threshold Fraction]",
            "Or so many times as many, above 1.0, default 1.1",
        ),
        (
            "    [--wait-takeover Secs]",
            "Time for clients to come back elsewhere, default 60",
        ),
        (
            "    [--sess-evict-rate CountPerSec]",
            "Sessions each donor gives away in a second, default 500",
        ),
        (
            "    [--abs-sess-threshold Count]",
            "Sessions without a client they may have more, default 1000",
        ),
        (
            "    [--rel-sess-threshold Fraction]",
            "Or so many times as many, above 1.0, default 1.1",
        ),
        (
            "rebalance status",
            "All evacuations and rebalances in the cluster",
        ),
        (
            "rebalance node-status [Node]",
            "Whether this node, or another, gives clients away",
        ),
        (
            "rebalance stop",
            "End what was started on this node; clients may come again",
        ),
    ],
};

/// The line between two nodes; EMQX's length.
const SEPARATOR_COLUMNS: usize = 68;

pub(super) async fn run(admin: &Admin, args: &[&str]) -> Result<Answer, AdminError> {
    let own = admin.status().node;
    match args {
        ["start", words @ ..] => match asked(words) {
            Ok(Asked::Evacuation(options)) => evacuate(admin, &own, options).await,
            Ok(Asked::Rebalance(options)) => rebalance(admin, &own, options).await,
            Err(why) => Ok(start_error(&why)),
        },
        ["stop"] => stop(admin, &own).await,
        ["status"] => {
            let text = status(&admin.evacuations().await, &admin.rebalances().await);
            Ok(Answer::done(text))
        }
        ["node-status"] => {
            let text = node_status(admin.evacuation().as_ref(), admin.donor().as_ref());
            Ok(Answer::done(text))
        }
        ["node-status", node] => {
            let (evacuation, donor) = (admin.evacuation_of(node).await?, admin.donor_of(node));
            let text = node_status(evacuation.as_ref(), donor.await?.as_ref());
            Ok(Answer::done(text))
        }
        _ => Ok(Answer::usage(&USAGE)),
    }
}

async fn evacuate(
    admin: &Admin,
    own: &str,
    options: EvacuationOptions,
) -> Result<Answer, AdminError> {
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

async fn rebalance(
    admin: &Admin,
    own: &str,
    options: RebalanceOptions,
) -> Result<Answer, AdminError> {
    let error = match admin.start_rebalance(own, options).await {
        Ok(()) => return Ok(Answer::done("Rebalance started\n")),
        Err(error) => error,
    };
    let why = match &error {
        AdminError::RebalanceEnabled { .. } => "already_started".to_owned(),
        AdminError::NothingToBalance => "nothing_to_balance".to_owned(),
        AdminError::RebalanceNodes { nodes } => {
            format!("invalid --nodes, unavailable nodes: {}", list(nodes))
        }
        _ => return Err(error),
    };
    Ok(start_error(&format!("{why}\n{error}")))
}

async fn stop(admin: &Admin, own: &str) -> Result<Answer, AdminError> {
    match admin.stop_evacuation(own).await {
        Ok(()) => return Ok(Answer::done("Rebalance(evacuation) stopped\n")),
        Err(AdminError::RebalanceDisabled { .. }) => {}
        Err(error) => return Err(error),
    }
    match admin.stop_rebalance(own).await {
        Ok(()) => Ok(Answer::done("Rebalance stopped\n")),
        Err(AdminError::RebalanceDisabled { .. }) => {
            let (evacuations, rebalances) = (admin.evacuations().await, admin.rebalances().await);
            Ok(Answer::failed(disabled(&evacuations, &rebalances)))
        }
        Err(error) => Err(error),
    }
}

fn start_error(why: &str) -> Answer {
    Answer::failed(format!("Rebalance start error: {why}\n"))
}

/// What a `start` asks for.
#[derive(Debug, PartialEq)]
enum Asked {
    Evacuation(EvacuationOptions),
    Rebalance(RebalanceOptions),
}

/// Options with a value that a `start` may have.
const OPTIONS: &[&str] = &[
    "--wait-health-check",
    "--redirect-to",
    "--conn-evict-rate",
    "--migrate-to",
    "--wait-takeover",
    "--sess-evict-rate",
    "--nodes",
    "--abs-conn-threshold",
    "--rel-conn-threshold",
    "--abs-sess-threshold",
    "--rel-sess-threshold",
];

/// Reads the words after `start`; what is wrong with them, with the cure.
fn asked(words: &[&str]) -> Result<Asked, String> {
    let mut given = Vec::new();
    let mut evacuation = false;
    let mut unknown = Vec::new();
    let mut words = words.iter();
    while let Some(word) = words.next() {
        if *word == "--evacuation" {
            evacuation = true;
        } else if OPTIONS.contains(word) {
            let value = words.next().filter(|value| !value.starts_with("--"));
            let value = value.ok_or_else(|| format!("{word} wants a value after it"))?;
            given.push((*word, *value));
        } else {
            unknown.push(*word);
        }
    }
    if !unknown.is_empty() {
        return Err(unknown_options("", &unknown));
    }
    if evacuation {
        evacuation_options(&given).map(Asked::Evacuation)
    } else {
        rebalance_options(&given).map(Asked::Rebalance)
    }
}

fn unknown_options(of: &str, options: &[&str]) -> String {
    let quoted: Vec<String> = options.iter().map(|option| format!("{option:?}")).collect();
    let quoted = quoted.join(",");
    format!("unknown {of}arguments: [{quoted}]\nSee `emqx ctl rebalance help`.")
}

fn evacuation_options(given: &[(&str, &str)]) -> Result<EvacuationOptions, String> {
    let mut options = EvacuationOptions::default();
    let mut unknown = Vec::new();
    for (option, value) in given {
        match *option {
            "--wait-health-check" => options.wait_health_check_s = number(option, value, 0)?,
            "--conn-evict-rate" => options.conn_evict_rate = number(option, value, 1)?,
            "--wait-takeover" => options.wait_takeover_s = number(option, value, 0)?,
            "--sess-evict-rate" => options.sess_evict_rate = number(option, value, 1)?,
            "--redirect-to" => options.redirect_to = Some((*value).to_owned()),
            "--migrate-to" => options.migrate_to = names(value),
            _ => unknown.push(*option),
        }
    }
    if unknown.is_empty() {
        Ok(options)
    } else {
        Err(unknown_options("evacuation ", &unknown))
    }
}

fn rebalance_options(given: &[(&str, &str)]) -> Result<RebalanceOptions, String> {
    let mut options = RebalanceOptions::default();
    let mut unknown = Vec::new();
    let (connections, sessions) = (&mut options.conn_threshold, &mut options.sess_threshold);
    for (option, value) in given {
        match *option {
            "--wait-health-check" => options.wait_health_check_s = number(option, value, 0)?,
            "--conn-evict-rate" => options.conn_evict_rate = number(option, value, 1)?,
            "--wait-takeover" => options.wait_takeover_s = number(option, value, 0)?,
            "--sess-evict-rate" => options.sess_evict_rate = number(option, value, 1)?,
            "--abs-conn-threshold" => connections.absolute = number(option, value, 1)?,
            "--rel-conn-threshold" => connections.relative = fraction(option, value)?,
            "--abs-sess-threshold" => sessions.absolute = number(option, value, 1)?,
            "--rel-sess-threshold" => sessions.relative = fraction(option, value)?,
            "--nodes" => {
                options.nodes = names(value);
                if options.nodes.is_empty() {
                    return Err("invalid --nodes, no nodes".to_owned());
                }
            }
            _ => unknown.push(*option),
        }
    }
    if unknown.is_empty() {
        Ok(options)
    } else {
        Err(unknown_options("rebalance ", &unknown))
    }
}

fn names(value: &str) -> Vec<String> {
    let names = value.split([' ', ',']).filter(|name| !name.is_empty());
    names.map(str::to_owned).collect()
}

fn fraction(option: &str, value: &str) -> Result<f64, String> {
    let number = value.parse::<f64>().ok();
    let number = number.filter(|number| number.is_finite() && *number > 1.0);
    number.ok_or_else(|| format!("invalid {option} value: {value:?}; a number above 1.0 is wanted"))
}

fn number(option: &str, value: &str, least: u64) -> Result<u64, String> {
    let number = value.parse::<u64>().ok().filter(|number| *number >= least);
    number.ok_or_else(|| {
        format!("invalid {option} value: {value:?}; a whole number from {least} on is wanted")
    })
}

/// EMQX's line, and where the command is to be given if another node was meant.
fn disabled(evacuations: &[EvacuationRow], rebalances: &[RebalanceRow]) -> String {
    let mut text = "Rebalance is already disabled\n".to_owned();
    for row in evacuations {
        let _ = writeln!(text, "{} is being evacuated; run this there.", row.node);
    }
    for row in rebalances {
        let _ = writeln!(
            text,
            "{} coordinates a rebalance; run this there.",
            row.node
        );
    }
    text
}

fn status(evacuations: &[EvacuationRow], rebalances: &[RebalanceRow]) -> String {
    let dashes = "-".repeat(SEPARATOR_COLUMNS);
    let mut text = String::new();
    for row in evacuations {
        let _ = writeln!(text, "{dashes}\nNode '{}': evacuation", row.node);
        text.push_str(&fields(row));
    }
    for row in rebalances {
        let _ = writeln!(text, "{dashes}\nNode '{}': rebalance coordinator", row.node);
        text.push_str(&coordinator_fields(row));
    }
    if text.is_empty() {
        text.push_str("No node is being evacuated or rebalanced.\n");
    }
    text
}

fn node_status(evacuation: Option<&EvacuationRow>, donor: Option<&DonorRow>) -> String {
    match (evacuation, donor) {
        (Some(row), _) => format!("Rebalance type: evacuation\n{}", fields(row)),
        (None, Some(row)) => format!("Rebalance type: rebalance\n{}", donor_fields(row)),
        (None, None) => "Rebalance disabled\n".to_owned(),
    }
}

fn coordinator_fields(row: &RebalanceRow) -> String {
    let (options, averages) = (&row.options, row.donor_averages);
    let rates = Share {
        connections: options.conn_evict_rate,
        sessions: options.sess_evict_rate,
    };
    let mut text = format!(
        "Rebalance state: {}\nCoordinator node: '{}'\nDonor nodes: {}\nRecipient nodes: {}\n",
        row.state,
        row.node,
        list(&row.donors),
        list(&row.recipients),
    );
    text.push_str(&rates_and_goals(rates, row.goals));
    let count = "Current average donor node connection count";
    push_average(&mut text, count, averages.connections);
    let count = "Current average donor node disconnected session count";
    push_average(&mut text, count, averages.sessions);
    text
}

fn donor_fields(row: &DonorRow) -> String {
    let (order, initial, current) = (&row.order, row.initial, row.current);
    format!(
        "\
Rebalance state: {}
Coordinator node: '{}'
{}\
Recipient nodes: {}
Channel statistics:
  current_connected: {}
  current_disconnected_sessions: {}
  current_sessions: {}
  initial_connected: {}
  initial_sessions: {}
",
        order.stage.as_str(),
        order.coordinator,
        rates_and_goals(order.rates, order.goals),
        list(&order.recipients),
        current.connected,
        current.sessions,
        current.connected + current.sessions,
        initial.connected,
        initial.connected + initial.sessions,
    )
}

fn rates_and_goals(rates: Share, goals: Averages) -> String {
    let Share {
        connections,
        sessions,
    } = rates;
    let mut text = format!(
        "Connection eviction rate: {connections} connections/second\n\
         Session eviction rate: {sessions} sessions/second\n"
    );
    push_average(&mut text, "Connection goal", goals.connections);
    push_average(&mut text, "Disconnected session goal", goals.sessions);
    text
}

/// A number as Erlang writes a float; nothing while it does not matter yet.
fn push_average(text: &mut String, name: &str, average: Option<f64>) {
    if let Some(average) = average {
        let _ = writeln!(text, "{name}: {average:?}");
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
    use dunlin_server::admin::{Load, Order, Stage, Threshold};

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
        assert_eq!(asked(&words), Ok(Asked::Evacuation(expected)));
        let defaults = Asked::Evacuation(EvacuationOptions::default());
        assert_eq!(asked(&["--evacuation"]), Ok(defaults));
        let defaults = Asked::Rebalance(RebalanceOptions::default());
        assert_eq!(asked(&[]), Ok(defaults));
    }

    #[test]
    fn options_of_a_rebalance() {
        let words = [
            "--nodes",
            "a@h, b@h",
            "--wait-health-check",
            "1",
            "--conn-evict-rate",
            "2",
            "--abs-conn-threshold",
            "3",
            "--rel-conn-threshold",
            "1.2",
            "--wait-takeover",
            "4",
            "--sess-evict-rate",
            "5",
            "--abs-sess-threshold",
            "6",
            "--rel-sess-threshold",
            "2",
        ];
        let expected = RebalanceOptions {
            wait_health_check_s: 1,
            conn_evict_rate: 2,
            conn_threshold: Threshold {
                absolute: 3,
                relative: 1.2,
            },
            wait_takeover_s: 4,
            sess_evict_rate: 5,
            sess_threshold: Threshold {
                absolute: 6,
                relative: 2.0,
            },
            nodes: vec!["a@h".to_owned(), "b@h".to_owned()],
        };
        assert_eq!(asked(&words), Ok(Asked::Rebalance(expected)));
    }

    #[test]
    fn what_is_wrong_is_said() {
        let check = |words: &[&str], why: &str| {
            let error = asked(words).expect_err("it is wrong");
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
        check(
            &["--rel-sess-threshold", "1.0"],
            "invalid --rel-sess-threshold value",
        );
        check(
            &["--abs-conn-threshold", "0"],
            "invalid --abs-conn-threshold value",
        );
        check(&["--nodes", " "], "invalid --nodes, no nodes");
        check(
            &["--migrate-to", "b@h"],
            "unknown rebalance arguments: [\"--migrate-to\"]",
        );
        check(
            &["--nodes", "b@h", "--evacuation"],
            "unknown evacuation arguments: [\"--nodes\"]",
        );
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
        assert_eq!(status(std::slice::from_ref(&row), &[]), expected);
        assert!(node_status(Some(&row), None).starts_with("Rebalance type: evacuation\nRebal"));
        assert_eq!(node_status(None, None), "Rebalance disabled\n");
        let text = "Rebalance is already disabled\na@h is being evacuated; run this there.\n";
        assert_eq!(disabled(&[row], &[]), text);
        assert_eq!(disabled(&[], &[]), "Rebalance is already disabled\n");
    }

    #[test]
    fn emqx_s_fields_of_a_coordinator() {
        let mut row = RebalanceRow {
            node: "a@h".to_owned(),
            state: "evicting_sessions".to_owned(),
            options: RebalanceOptions::default(),
            donors: vec!["a@h".to_owned()],
            recipients: vec!["b@h".to_owned(), "c@h".to_owned()],
            goals: Averages {
                connections: Some(12.5),
                sessions: Some(3.0),
            },
            donor_averages: Averages {
                connections: Some(20.0),
                sessions: Some(7.0),
            },
        };
        let expected = "\
--------------------------------------------------------------------
Node 'a@h': rebalance coordinator
Rebalance state: evicting_sessions
Coordinator node: 'a@h'
Donor nodes: ['a@h']
Recipient nodes: ['b@h','c@h']
Connection eviction rate: 500 connections/second
Session eviction rate: 500 sessions/second
Connection goal: 12.5
Disconnected session goal: 3.0
Current average donor node connection count: 20.0
Current average donor node disconnected session count: 7.0
";
        assert_eq!(status(&[], std::slice::from_ref(&row)), expected);
        (row.goals, row.donor_averages) = (Averages::default(), Averages::default());
        let text = status(&[], std::slice::from_ref(&row));
        assert!(
            text.ends_with("eviction rate: 500 sessions/second\n"),
            "{text}"
        );
        let text = "Rebalance is already disabled\na@h coordinates a rebalance; run this there.\n";
        assert_eq!(disabled(&[], &[row]), text);
    }

    #[test]
    fn emqx_s_fields_of_a_donor() {
        let row = DonorRow {
            node: "b@h".to_owned(),
            order: Order {
                coordinator: "a@h".to_owned(),
                stage: Stage::EvictingConns,
                recipients: vec!["c@h".to_owned()],
                share: Share::default(),
                rates: Share {
                    connections: 30,
                    sessions: 5,
                },
                goals: Averages {
                    connections: Some(10.0),
                    sessions: None,
                },
            },
            initial: Load {
                connected: 100,
                sessions: 3,
            },
            current: Load {
                connected: 60,
                sessions: 4,
            },
        };
        let expected = "\
Rebalance type: rebalance
Rebalance state: evicting_conns
Coordinator node: 'a@h'
Connection eviction rate: 30 connections/second
Session eviction rate: 5 sessions/second
Connection goal: 10.0
Recipient nodes: ['c@h']
Channel statistics:
  current_connected: 60
  current_disconnected_sessions: 4
  current_sessions: 64
  initial_connected: 100
  initial_sessions: 103
";
        assert_eq!(node_status(None, Some(&row)), expected);
    }
}
