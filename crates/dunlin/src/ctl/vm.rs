//! `vm`: load and memory. Only the rows that mean something without an Erlang virtual machine.

use std::fmt::Write;

use dunlin_server::admin::{Admin, AdminError, NodeRow};

use super::Answer;
use super::help::Usage;

pub(super) const USAGE: Usage = Usage {
    name: "vm",
    forms: &[
        ("vm all", "Show info of this process and its host"),
        ("vm load", "Show load of the host"),
        ("vm memory", "Show memory of this process and its host"),
        ("vm process", "Show threads of this process"),
        ("vm ports", "Show limit on open files"),
    ],
};

pub(super) async fn run(admin: &Admin, args: &[&str]) -> Result<Answer, AdminError> {
    let part = match args {
        [] | ["all"] => "",
        [part @ ("load" | "memory" | "process" | "ports")] => part,
        _ => return Ok(Answer::usage(&USAGE)),
    };
    let row = admin.node(&admin.status().node).await?;
    Ok(Answer::done(rows(&row, part)))
}

fn rows(row: &NodeRow, part: &str) -> String {
    let mut text = String::new();
    let mut write = |of: &str, name: &str, value: String| {
        if part.is_empty() || part == of {
            let _ = writeln!(text, "{name:<24}: {value}");
        }
    };
    for (minutes, load) in [1, 5, 15].iter().zip(row.load) {
        write("load", &format!("cpu/load{minutes}"), format!("{load:.2}"));
    }
    write(
        "memory",
        "memory/total",
        row.memory_process_bytes.to_string(),
    );
    write(
        "memory",
        "memory/host_total",
        row.memory_total_bytes.to_string(),
    );
    write(
        "memory",
        "memory/host_used",
        row.memory_used_bytes.to_string(),
    );
    write("process", "process/threads", row.threads.to_string());
    write("ports", "ports/limit", row.max_fds.to_string());
    text
}
