//! Running a command to its end, within a time limit.

use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use rustix::process::{Pid, Signal, kill_process};

use crate::until;

/// No command of the product may take this long in a test.
const LIMIT: Duration = Duration::from_mins(1);

/// What a command printed and how it ended.
#[derive(Clone, Debug)]
pub struct Output {
    /// The command, for messages.
    pub command: String,
    /// Standard output.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
    /// Exit code; -1 when a signal ended it.
    pub code: i32,
}

impl Output {
    /// Requires exit code 0.
    pub fn ok(self) -> Result<Self> {
        self.exit(0)
    }

    /// Requires this exit code.
    pub fn exit(self, code: i32) -> Result<Self> {
        ensure!(self.code == code, "exit code {code} expected: {self}");
        Ok(self)
    }

    /// Requires exactly this on standard output.
    pub fn prints(self, expected: &str) -> Result<Self> {
        ensure!(
            self.stdout == expected,
            "stdout expected:\n{expected:?}\n{self}"
        );
        Ok(self)
    }

    /// Requires that standard output or error has this text.
    pub fn says(self, text: &str) -> Result<Self> {
        ensure!(
            self.stdout.contains(text) || self.stderr.contains(text),
            "{text:?} expected somewhere in: {self}"
        );
        Ok(self)
    }
}

impl std::fmt::Display for Output {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "$ {}\nexit code {}\nstdout: {:?}\nstderr: {:?}",
            self.command, self.code, self.stdout, self.stderr
        )
    }
}

/// Runs a command to its end.
pub fn run(command: &mut Command) -> Result<Output> {
    run_within(command, LIMIT)
}

/// Runs a command that must end, and close its output, within `limit`.
pub fn run_within(command: &mut Command, limit: Duration) -> Result<Output> {
    let shown = shown(command);
    let child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("cannot run {shown}"))?;
    let pid = child.id();
    let (done, ended) = mpsc::channel();
    thread::spawn(move || done.send(child.wait_with_output()));
    let Ok(output) = ended.recv_timeout(limit) else {
        signal(pid, Signal::KILL);
        bail!("{shown}: no end within {limit:?}, or a process it left holds its output open");
    };
    let output = output.with_context(|| format!("waiting for {shown}"))?;
    Ok(Output {
        command: shown,
        stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        code: output.status.code().unwrap_or(-1),
    })
}

/// The words of a command.
fn shown(command: &Command) -> String {
    let mut words = vec![command.get_program().to_string_lossy().into_owned()];
    words.extend(
        command
            .get_args()
            .map(|word| word.to_string_lossy().into_owned()),
    );
    words.join(" ")
}

/// Sends a signal; a process that is gone already is fine.
pub fn signal(pid: u32, signal: Signal) {
    if let Some(pid) = i32::try_from(pid).ok().and_then(Pid::from_raw) {
        let _ = kill_process(pid, signal);
    }
}

/// Does the process run? One that has ended and was not collected by its parent does not; one of
/// whose threads some still have to end, does: they hold its sockets.
pub fn lives(pid: u32) -> bool {
    let Ok(stat) = std::fs::read_to_string(format!("/proc/{pid}/stat")) else {
        return false;
    };
    let state = stat
        .rsplit(')')
        .next()
        .and_then(|rest| rest.trim_start().chars().next());
    let threads = std::fs::read_dir(format!("/proc/{pid}/task")).map_or(0, Iterator::count);
    threads > 1 || !matches!(state, Some('Z' | 'X') | None)
}

/// Kills and waits until the process is gone.
pub fn kill9(pid: u32) -> Result<()> {
    signal(pid, Signal::KILL);
    until(Duration::from_secs(5), "a killed process is gone", || {
        Ok(!lives(pid))
    })
    .map(drop)
}
