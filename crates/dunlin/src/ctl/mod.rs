//! `emqx ctl`: the control commands, run inside the node.
//!
//! The program the operator starts only carries words to the node and text back; everything here
//! runs in the node and calls `server::admin`, so that the command line can do nothing the API
//! cannot. One file per command: its usage, and what its answer looks like. Texts are EMQX's where
//! scripts read them; exit codes are honest (0 done, 1 not done), which EMQX's are not.

mod admins;
mod broker;
mod clients;
mod cluster;
mod cluster_sync;
pub(crate) mod conf;
pub(crate) mod diagnose;
mod help;
mod listeners;
mod log;
mod rebalance;
mod retainer;
mod status;
mod subscriptions;
mod table;
pub(crate) mod text;
mod topics;
mod verbose;
mod vm;

use dunlin_server::admin::{Admin, AdminError, Progress};
use help::Usage;

/// What a command has to say, and whether it did what was asked.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Answer {
    /// For stdout, as it is.
    pub(crate) text: String,
    /// Exit code 0 or 1.
    pub(crate) ok: bool,
}

impl Answer {
    fn done(text: impl Into<String>) -> Self {
        Self {
            text: text.into(),
            ok: true,
        }
    }

    fn failed(text: impl Into<String>) -> Self {
        Self {
            text: text.into(),
            ok: false,
        }
    }

    /// EMQX's one word for "done".
    fn ok() -> Self {
        Self::done("ok\n")
    }

    /// Arguments that were not understood: the command's usage.
    fn usage(usage: &Usage) -> Self {
        Self::failed(usage.block())
    }

    fn error(error: &AdminError) -> Self {
        Self::failed(format!("Error: {error}\n"))
    }
}

impl From<AdminError> for Answer {
    fn from(error: AdminError) -> Self {
        Self::error(&error)
    }
}

/// All commands, in the order of the full usage.
const USAGES: &[&Usage] = &[
    &status::USAGE,
    &broker::USAGE,
    &cluster::USAGE,
    &rebalance::USAGE,
    &clients::USAGE,
    &topics::USAGE,
    &subscriptions::USAGE,
    &vm::USAGE,
    &log::USAGE,
    &listeners::USAGE,
    &conf::USAGE,
    &cluster_sync::USAGE,
    &retainer::USAGE,
    &admins::USAGE,
];

/// Runs the command in `words`. Steps of a long one go to `progress`.
pub(crate) async fn run(admin: &Admin, words: &[&str], progress: Progress) -> Answer {
    let Some((command, args)) = words.split_first() else {
        return Answer::done(help::all(USAGES));
    };
    if args == ["help"] || args == ["--help"] {
        return help_of(command);
    }
    let answer = match *command {
        "status" => Ok(status::run(admin)),
        "broker" => broker::run(admin, args).await,
        "cluster" => cluster::run(admin, args, progress).await,
        "rebalance" => rebalance::run(admin, args).await,
        "clients" => clients::run(admin, args).await,
        "topics" => topics::run(admin, args).await,
        "subscriptions" => subscriptions::run(admin, args).await,
        "vm" => vm::run(admin, args).await,
        "log" => Ok(log::run(admin, args)),
        "listeners" => listeners::run(admin, args).await,
        "conf" => conf::run(admin, args).await,
        "cluster_sync" | "cluster_call" => cluster_sync::run(admin, args).await,
        "retainer" => retainer::run(admin, args).await,
        "admins" => admins::run(admin, args).await,
        "help" | "--help" => Ok(help_command(args)),
        _ => Ok(Answer::failed(help::all(USAGES))),
    };
    answer.unwrap_or_else(Answer::from)
}

fn help_command(args: &[&str]) -> Answer {
    match args {
        [] => Answer::done(help::all(USAGES)),
        [command, ..] => help_of(command),
    }
}

fn help_of(command: &str) -> Answer {
    match USAGES.iter().find(|usage| usage.name == command) {
        Some(usage) => Answer::done(usage.block()),
        None => Answer::failed(help::all(USAGES)),
    }
}
