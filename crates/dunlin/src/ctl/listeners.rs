//! `listeners`: what this node listens on.

use std::fmt::Write;

use dunlin_server::admin::{Admin, AdminError, ListenerRow};

use super::Answer;
use super::help::Usage;

pub(super) const USAGE: Usage = Usage {
    name: "listeners",
    forms: &[
        ("listeners", "List listeners"),
        ("listeners stop    <Identifier>", "Stop a listener"),
        ("listeners start   <Identifier>", "Start a listener"),
        ("listeners restart <Identifier>", "Restart a listener"),
    ],
};

pub(super) async fn run(admin: &Admin, args: &[&str]) -> Result<Answer, AdminError> {
    let (verb, done, id, result) = match args {
        [] => {
            return Ok(Answer::done(
                admin.listeners().iter().map(block).collect::<String>(),
            ));
        }
        ["stop", id] => ("stop", "Stop", id, admin.stop_listener(id).await),
        ["start", id] => ("start", "Started", id, admin.start_listener(id).await),
        ["restart", id] => ("restart", "Restarted", id, admin.restart_listener(id).await),
        _ => return Ok(Answer::usage(&USAGE)),
    };
    Ok(match result {
        Ok(()) => Answer::done(format!("{done} {id} listener successfully.\n")),
        Err(AdminError::ListenerNotFound { .. }) => Answer::failed(format!(
            "Invalid listener: \"{id}\"\nSee `emqx ctl listeners` for those there are.\n"
        )),
        Err(error) => Answer::failed(format!("Failed to {verb} {id} listener: {error}\n")),
    })
}

fn block(row: &ListenerRow) -> String {
    let max = row
        .max_connections
        .map_or_else(|| "infinity".to_owned(), |max| max.to_string());
    let ended: Vec<String> = row
        .shutdown_count
        .iter()
        .map(|(reason, n)| format!("{{{reason},{n}}}"))
        .collect();
    let mut text = format!("{}\n", row.id);
    let rows: [(&str, &dyn std::fmt::Display); 8] = [
        ("listen_on", &row.bind),
        ("acceptors", &row.acceptors),
        ("proxy_protocol", &row.proxy_protocol),
        // Spelled so by EMQX, and so by the scripts that read it.
        ("enbale", &row.enable),
        ("running", &row.running),
        ("current_conn", &row.current_connections),
        ("max_conns", &max),
        ("shutdown_count", &format!("[{}]", ended.join(","))),
    ];
    for (key, value) in rows {
        let _ = writeln!(text, "  {key:<16}: {value}");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    #[test]
    fn emqx_s_block() {
        let row = ListenerRow {
            id: "tcp:default".to_owned(),
            kind: "tcp".to_owned(),
            name: "default".to_owned(),
            bind: "127.0.0.1:1883".to_owned(),
            acceptors: 16,
            proxy_protocol: false,
            enable: true,
            running: true,
            current_connections: 0,
            max_connections: None,
            shutdown_count: BTreeMap::from([("keepalive_timeout".to_owned(), 2)]),
        };
        let expected = "\
tcp:default
  listen_on       : 127.0.0.1:1883
  acceptors       : 16
  proxy_protocol  : false
  enbale          : true
  running         : true
  current_conn    : 0
  max_conns       : infinity
  shutdown_count  : [{keepalive_timeout,2}]
";
        assert_eq!(block(&row), expected);
    }
}
