//! `emqx stop`, `ping`, `pid`: what is asked of a running node from outside.

use std::process::ExitCode;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use crate::installation::Installation;
use crate::{say, seconds_from_env, socket};

/// How long a node may take to stop, in seconds, unless `EMQX_WAIT_FOR_STOP` says.
const WAIT_S: u64 = 120;

/// How often an operator who waits is told so.
const REMIND: Duration = Duration::from_secs(10);

const POLL_FIRST: Duration = Duration::from_millis(2);
const POLL_MAX: Duration = Duration::from_millis(100);

/// `emqx stop`, for a node that runs.
pub(crate) fn stop(installation: &Installation, name: &str) -> ExitCode {
    if stop_node(installation, name) {
        say::line("ok");
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

/// Asks the node to stop and waits until its process is gone. Says why when it is not.
pub(crate) fn stop_node(installation: &Installation, name: &str) -> bool {
    let pid = match socket::pid(&installation.run, name) {
        Ok(pid) => pid,
        Err(error) => {
            say::error(&error.to_string());
            return false;
        }
    };
    // A node too busy to read its socket still obeys the signal.
    if socket::stop(&installation.run, name).is_err() {
        terminate(pid);
    }
    let allowed = Duration::from_secs(seconds_from_env("EMQX_WAIT_FOR_STOP", WAIT_S));
    let asked = Instant::now();
    let (mut pause, mut reminded) = (POLL_FIRST, asked);
    while lives(pid) {
        if asked.elapsed() > allowed {
            say::error(&format!(
                "Stop failed, dangling after {} seconds",
                allowed.as_secs()
            ));
            say::error(&format!("{pid} is still around"));
            return false;
        }
        if reminded.elapsed() > REMIND {
            reminded = Instant::now();
            say::line("Dunlin is shutting down, please wait...");
        }
        std::thread::sleep(pause);
        pause = (pause * 3 / 2).min(POLL_MAX);
    }
    true
}

/// `emqx ping`.
pub(crate) fn ping(installation: &Installation, name: &str) -> ExitCode {
    match socket::pid(&installation.run, name) {
        Ok(_) => {
            say::line("pong");
            ExitCode::SUCCESS
        }
        Err(error) => not_responding(name, &error),
    }
}

/// `emqx pid`.
pub(crate) fn pid(installation: &Installation, name: &str) -> ExitCode {
    match socket::pid(&installation.run, name) {
        Ok(pid) => {
            say::line(&pid.to_string());
            ExitCode::SUCCESS
        }
        Err(error) => not_responding(name, &error),
    }
}

/// EMQX's line, and then why.
pub(crate) fn not_responding(name: &str, why: &impl std::fmt::Display) -> ExitCode {
    say::err(&format!("Node '{name}' not responding to pings.\n{why}\n"));
    ExitCode::FAILURE
}

/// SIGTERM, which a node takes as a request to stop gracefully.
pub(crate) fn terminate(pid: u32) {
    if let Some(pid) = i32::try_from(pid).ok().and_then(Pid::from_raw) {
        // It may just have ended, which is what is wanted.
        let _ = kill_process(pid, Signal::TERM);
    }
}

/// Does the process run? A zombie does not: in a container whose first process collects no
/// children, an ended node stays one for ever. But the first thread may be one while others are
/// still ending, and with them the sockets that the next start wants.
fn lives(pid: u32) -> bool {
    let Ok(stat) = std::fs::read_to_string(format!("/proc/{pid}/stat")) else {
        return false;
    };
    // The state follows the name, which is in parentheses and may hold anything.
    let state = stat
        .rsplit(')')
        .next()
        .and_then(|rest| rest.trim_start().chars().next());
    let threads = std::fs::read_dir(format!("/proc/{pid}/task")).map_or(0, Iterator::count);
    threads > 1 || !matches!(state, Some('Z' | 'X'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_lives_until_it_has_ended_even_if_nobody_collects_it() {
        let mut child = std::process::Command::new("cat")
            .stdin(std::process::Stdio::piped())
            .spawn()
            .expect("cat exists");
        assert!(lives(child.id()));
        drop(child.stdin.take());
        // Not collected yet: it becomes a zombie, which counts as ended.
        while lives(child.id()) {
            std::thread::yield_now();
        }
        child.wait().expect("it has ended");
        assert!(!lives(child.id()));
    }
}
