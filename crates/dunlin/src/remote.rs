//! Commands for a running node: which one, and what it answers.

use std::net::{TcpStream, ToSocketAddrs};
use std::process::ExitCode;
use std::time::Duration;

use dunlin_cluster::NodeName;

use crate::installation::Installation;
use crate::select::{self, Choice, Known};
use crate::{boot, ctl, say, socket, stop};

/// How long to try whether anything listens on a port of this machine. Loopback answers at once.
const PROBE: Duration = Duration::from_millis(200);

/// The name used when nothing names a node and the configuration cannot be read.
const DEFAULT_NAME: &str = "emqx@127.0.0.1";

/// A command about one node (`stop`, `ping`, `pid`).
pub(crate) fn about_one(
    installation: &Installation,
    run: impl Fn(&Installation, &str) -> ExitCode,
) -> ExitCode {
    let running = socket::running(&installation.run);
    match choose(installation, &running, &[]) {
        Choice::Node(name) | Choice::Instead { node: name, .. } => run(installation, &name),
        other => refuse(installation, &running, &other),
    }
}

/// `emqx ctl ARGS`.
pub(crate) fn ctl(installation: &Installation, args: &[&str]) -> ExitCode {
    let running = socket::running(&installation.run);
    match choose(installation, &running, args) {
        Choice::Node(name) => ask(installation, &name, args),
        Choice::Instead { node, target } => {
            let [command, verb, named, rest @ ..] = args else {
                return refuse(installation, &running, &Choice::Ambiguous { hint: None });
            };
            say::err(&format!(
                "INFO: no node {named} runs here; taking it as the first node, {target}\n"
            ));
            let args = [&[*command, verb, target.as_str()], rest].concat();
            ask(installation, &node, &args)
        }
        Choice::All => ask_all(installation, &running, args),
        other => refuse(installation, &running, &other),
    }
}

fn choose(installation: &Installation, running: &[String], args: &[&str]) -> Choice {
    let env = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
    // The older name wins when both are set, as in EMQX.
    let env_name = env("EMQX_NODE_NAME").or_else(|| env("EMQX_NODE__NAME"));
    let configured = if running.is_empty() && env_name.is_none() {
        boot::load(installation).map_or_else(
            |_| DEFAULT_NAME.to_owned(),
            |boot| boot.loaded.settings.node.name,
        )
    } else {
        DEFAULT_NAME.to_owned()
    };
    select::choose(
        &Known {
            running,
            env_name: env_name.as_deref(),
            configured: &configured,
            listens: &listens,
        },
        args,
    )
}

/// Does anything listen where the node of this name would?
fn listens(name: &str) -> bool {
    let Ok(name) = NodeName::parse(name) else {
        return false;
    };
    let Ok(addresses) = (name.host(), name.port()).to_socket_addrs() else {
        return false;
    };
    addresses
        .into_iter()
        .any(|address| TcpStream::connect_timeout(&address, PROBE).is_ok())
}

fn ask(installation: &Installation, name: &str, args: &[&str]) -> ExitCode {
    let words = ctl::conf::with_text(args);
    let args: Vec<&str> = words.iter().map(String::as_str).collect();
    match socket::ask(&installation.run, name, &args) {
        Ok(done) if done => ExitCode::SUCCESS,
        Ok(_) => ExitCode::FAILURE,
        Err(error) => stop::not_responding(name, &error),
    }
}

/// Asks every running node, and prints the answer if all give the same one.
fn ask_all(installation: &Installation, running: &[String], args: &[&str]) -> ExitCode {
    let answers: Option<Vec<String>> = running
        .iter()
        .map(|name| socket::answer_of(&installation.run, name, args).ok())
        .collect();
    match answers.as_deref() {
        Some([first, rest @ ..]) if rest.iter().all(|answer| answer == first) => {
            say::out(first);
            ExitCode::SUCCESS
        }
        _ => refuse(installation, running, &Choice::Ambiguous { hint: None }),
    }
}

fn refuse(installation: &Installation, running: &[String], choice: &Choice) -> ExitCode {
    match choice {
        Choice::NotRunning { name, named: true } => {
            say::error(&format!("Node {name} is not running?"));
        }
        Choice::NotRunning { name, named: false } => {
            let root = installation.root.display();
            say::err(&format!(
                "Node '{name}' not responding to pings.\nNo node of {root} is running; start it \
                 with 'emqx start'.\n"
            ));
        }
        Choice::Ambiguous { hint } => {
            let root = installation.root.display().to_string();
            for line in select::ambiguous_lines(&root, running, hint.as_deref()) {
                say::error(&line);
            }
        }
        Choice::Node(_) | Choice::Instead { .. } | Choice::All => {}
    }
    ExitCode::FAILURE
}
