//! The control sockets of running nodes, seen from the command line.
//!
//! `run/<node name>.sock` takes one line of JSON with the words of a command and answers with
//! lines of JSON: text for stdout, text for stderr, and the exit code last. A socket nobody listens
//! on was left over by a node that was killed; it counts as not there, and the node's next start
//! replaces it.

use std::fmt;
use std::io::{self, BufRead, BufReader, IsTerminal, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

use dunlin_server::ctl::{path_of, pid_path_of};
use serde::Deserialize;
use serde_json::json;

use crate::say;

/// Words the program itself sends; no command an operator types begins with `@`.
pub(crate) const PID: &str = "@pid";
pub(crate) const STOP: &str = "@stop";

/// How long a node may take to answer one of our own words: it answers at once or it hangs.
const ANSWER: Duration = Duration::from_secs(5);

/// Pause between two looks at a process that is ending.
const LOOK_AGAIN: Duration = Duration::from_millis(10);

/// How long `start` waits for an answer before it looks again whether the process still lives.
const READY_ANSWER: Duration = Duration::from_millis(200);

/// Longest line of an answer in bytes; a node sends listings in smaller pieces.
const LINE_BYTES_MAX: u64 = 256 * 1024 * 1024;

/// Why a node gave no answer.
#[derive(Debug)]
pub(crate) enum AskError {
    /// Its socket does not exist, or nobody listens there.
    Connect(io::Error),
    /// It accepted, and then there was silence.
    Silent,
    /// The connection ended before the answer did.
    CutOff,
    /// The answer makes no sense.
    Malformed(serde_json::Error),
    /// The answer of a word of ours was not what it should be.
    Unexpected(String),
}

impl fmt::Display for AskError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Connect(error) => write!(f, "its control socket does not answer: {error}"),
            Self::Silent => f.write_str("it runs, and does not answer in time; see its log"),
            Self::CutOff => f.write_str("it ended while it was answering; see its log"),
            Self::Malformed(error) => write!(f, "its answer is not understood: {error}"),
            Self::Unexpected(text) => write!(f, "it answered '{text}'"),
        }
    }
}

/// A line of an answer.
#[derive(Deserialize)]
#[serde(rename_all = "lowercase")]
enum Line {
    Out(String),
    Err(String),
    Exit(i32),
}

/// Names of the nodes that run, sorted.
pub(crate) fn running(run: &Path) -> Vec<String> {
    let mut names: Vec<String> = std::fs::read_dir(run)
        .into_iter()
        .flatten()
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
        .filter_map(|file| Some(file.strip_suffix(".sock")?.to_owned()))
        .filter(|name| is_running(run, name))
        .collect();
    names.sort_unstable();
    names
}

/// Does the node run? Its socket takes connections even while it is busy.
pub(crate) fn is_running(run: &Path, name: &str) -> bool {
    UnixStream::connect(path_of(run, name)).is_ok()
}

/// Does the node run, for certain?
///
/// A process that was killed may for some milliseconds still take connections, and then still hold
/// its ports and its data directory. So one that does not answer is asked again until it either
/// answers or is gone; only one that hangs is waited for in vain, and counts as running.
pub(crate) fn is_surely_running(run: &Path, name: &str) -> bool {
    let until = Instant::now() + ANSWER;
    loop {
        match pid(run, name) {
            Ok(_) => return true,
            Err(AskError::Connect(_)) if !is_ending(run, name) => return false,
            Err(_) => {}
        }
        if Instant::now() >= until {
            return true;
        }
        std::thread::sleep(LOOK_AGAIN);
    }
}

/// Whether the process that wrote the node's pid file is still there. Its number may have been
/// given to another program since, whose name tells.
fn is_ending(run: &Path, name: &str) -> bool {
    let pid = std::fs::read_to_string(pid_path_of(run, name));
    let pid = pid.ok().and_then(|text| text.trim().parse::<u32>().ok());
    let Some(pid) = pid.filter(|pid| *pid != std::process::id()) else {
        return false;
    };
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    is_our_process(&stat)
}

/// Reads `/proc/<pid>/stat`: `pid (name) state ...`. A zombie holds nothing any more.
fn is_our_process(stat: &str) -> bool {
    let own = std::fs::read_to_string("/proc/self/comm").unwrap_or_default();
    let Some((head, tail)) = stat.rsplit_once(") ") else {
        return false;
    };
    let name = head.split_once('(').map(|(_, name)| name);
    name == Some(own.trim_end()) && !tail.starts_with(['Z', 'X'])
}

/// Does the node serve?
pub(crate) fn is_ready(run: &Path, name: &str) -> bool {
    collect(run, name, &["status"], READY_ANSWER).is_ok_and(|answer| answer.exit == 0)
}

/// The node's process id.
pub(crate) fn pid(run: &Path, name: &str) -> Result<u32, AskError> {
    let answer = collect(run, name, &[PID], ANSWER)?;
    let text = answer.out.trim();
    text.parse()
        .map_err(|_| AskError::Unexpected(text.to_owned()))
}

/// Asks the node to stop; it has heard it when this returns.
pub(crate) fn stop(run: &Path, name: &str) -> Result<(), AskError> {
    collect(run, name, &[STOP], ANSWER).map(drop)
}

/// Runs a command in the node and prints what it says while it says it. The answer is whether the
/// command did what it was asked to.
pub(crate) fn ask(run: &Path, name: &str, args: &[&str]) -> Result<bool, AskError> {
    let mut exit = None;
    // However long it takes: a person sees it working, and can interrupt it.
    exchange(run, name, args, None, |line| match line {
        Line::Out(text) => say::out(&text),
        Line::Err(text) => say::err(&text),
        Line::Exit(code) => exit = Some(code),
    })?;
    exit.map(|code| code == 0).ok_or(AskError::CutOff)
}

/// What a command prints, if it does what it was asked to.
pub(crate) fn answer_of(run: &Path, name: &str, args: &[&str]) -> Result<String, AskError> {
    let answer = collect(run, name, args, ANSWER)?;
    if answer.exit == 0 {
        Ok(answer.out)
    } else {
        Err(AskError::Unexpected(answer.out))
    }
}

struct Collected {
    out: String,
    exit: i32,
}

fn collect(
    run: &Path,
    name: &str,
    args: &[&str],
    timeout: Duration,
) -> Result<Collected, AskError> {
    let (mut out, mut exit) = (String::new(), None);
    exchange(run, name, args, Some(timeout), |line| match line {
        Line::Out(text) => out.push_str(&text),
        Line::Err(_) => {}
        Line::Exit(code) => exit = Some(code),
    })?;
    exit.map(|exit| Collected { out, exit })
        .ok_or(AskError::CutOff)
}

fn exchange(
    run: &Path,
    name: &str,
    args: &[&str],
    timeout: Option<Duration>,
    mut each: impl FnMut(Line),
) -> Result<(), AskError> {
    let mut stream = UnixStream::connect(path_of(run, name)).map_err(AskError::Connect)?;
    stream
        .set_read_timeout(timeout)
        .map_err(AskError::Connect)?;
    let mut request = json!({ "args": args });
    if io::stderr().is_terminal() {
        // Somebody watches: steps of a long command are worth telling.
        request["columns"] = columns().into();
    }
    writeln!(stream, "{request}").map_err(|error| cause(&error))?;
    let mut lines = BufReader::new(stream);
    let mut text = Vec::new();
    loop {
        text.clear();
        let read = (&mut lines)
            .take(LINE_BYTES_MAX)
            .read_until(b'\n', &mut text);
        if read.map_err(|error| cause(&error))? == 0 {
            return Ok(());
        }
        each(serde_json::from_slice(&text).map_err(AskError::Malformed)?);
    }
}

fn cause(error: &io::Error) -> AskError {
    match error.kind() {
        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => AskError::Silent,
        _ => AskError::CutOff,
    }
}

/// Width of the terminal; 80 where it does not say.
fn columns() -> u16 {
    rustix::termios::tcgetwinsize(io::stderr())
        .map(|size| size.ws_col)
        .ok()
        .filter(|columns| *columns > 0)
        .unwrap_or(80)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::net::UnixListener;
    use std::path::PathBuf;

    struct Run(PathBuf);

    impl Run {
        fn new(name: &str) -> Self {
            let path = std::env::temp_dir().join(format!("dunlin-{name}-{}", std::process::id()));
            let _ = std::fs::remove_dir_all(&path);
            std::fs::create_dir_all(&path).expect("a temporary directory is writable");
            Self(path)
        }
    }

    impl Drop for Run {
        fn drop(&mut self) {
            let _ = std::fs::remove_dir_all(&self.0);
        }
    }

    #[test]
    fn a_socket_nobody_listens_on_is_no_node() {
        let run = Run::new("stale");
        let live = UnixListener::bind(path_of(&run.0, "b@h")).expect("a short path");
        drop(UnixListener::bind(path_of(&run.0, "a@h")).expect("a short path"));
        std::fs::write(run.0.join("notes.txt"), "").expect("writable");
        assert_eq!(running(&run.0), ["b@h"]);
        drop(live);
        assert!(running(&run.0).is_empty());
        assert!(running(Path::new("/no/such/directory")).is_empty());
    }

    #[test]
    fn a_killed_node_is_waited_for_and_a_stranger_is_not() {
        let run = Run::new("ending");
        assert!(!is_surely_running(&run.0, "a@h"), "there is nothing");
        // A pid file whose number another program has.
        let mut sleeper = std::process::Command::new("sleep")
            .arg("60")
            .spawn()
            .expect("sleep");
        let file = pid_path_of(&run.0, "a@h");
        std::fs::write(&file, format!("{}\n", sleeper.id())).expect("writable");
        assert!(!is_surely_running(&run.0, "a@h"), "another program");
        sleeper.kill().expect("it runs");
        sleeper.wait().expect("it was ours");
        // Takes connections for a moment and answers none, like a process that is being killed.
        let listener = UnixListener::bind(path_of(&run.0, "a@h")).expect("a short path");
        let dying = std::thread::spawn(move || {
            for _ in 0..3 {
                drop(listener.accept().expect("a client"));
            }
        });
        assert!(!is_surely_running(&run.0, "a@h"), "it was dying");
        dying.join().expect("no panic");
    }

    #[test]
    fn processes_are_known_by_name_and_zombies_hold_nothing() {
        let comm = std::fs::read_to_string("/proc/self/comm").expect("Linux");
        let comm = comm.trim_end();
        assert!(is_our_process(&format!("7 ({comm}) S 1 7 7")));
        assert!(!is_our_process(&format!("7 ({comm}) Z 1 7 7")));
        assert!(!is_our_process("7 (some (other) thing) S 1 7 7"));
        assert!(!is_our_process(""));
    }

    #[test]
    fn an_answer_is_complete_only_with_its_exit_code() {
        let run = Run::new("answers");
        let listener = UnixListener::bind(path_of(&run.0, "a@h")).expect("a short path");
        let node = std::thread::spawn(move || {
            for answer in [
                "{\"out\":\"one\"}\n{\"err\":\"x\"}\n{\"exit\":0}\n",
                "{\"out\":\"\"}\n",
            ] {
                let (stream, _) = listener.accept().expect("a client");
                let mut request = String::new();
                let mut reader = BufReader::new(&stream);
                reader.read_line(&mut request).expect("a line");
                assert!(request.contains("\"args\":[\"status\"]"), "{request}");
                (&stream)
                    .write_all(answer.as_bytes())
                    .expect("the client reads");
            }
        });
        assert_eq!(
            answer_of(&run.0, "a@h", &["status"]).expect("complete"),
            "one"
        );
        let cut = answer_of(&run.0, "a@h", &["status"]);
        assert!(matches!(cut, Err(AskError::CutOff)), "{cut:?}");
        node.join().expect("no panic");
    }
}
