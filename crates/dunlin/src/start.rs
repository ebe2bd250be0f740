//! `emqx start`, `restart`: a node in the background.
//!
//! The program starts itself again as `foreground`, in a session of its own, and waits until that
//! node says it is ready. Nothing is forked: a forked copy of a process with threads is not safe to
//! go on with, a fresh one is.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use crate::boot::{self, Boot};
use crate::installation::Installation;
use crate::{VERSION, say, seconds_from_env, socket, stop};

/// Set for the copy in the background, so that it leaves the terminal alone.
pub(crate) const DETACHED: &str = "DUNLIN_DETACHED";

/// How long a node may take to become ready, in seconds, unless `EMQX_WAIT_FOR_START` says.
const WAIT_S: u64 = 120;

/// Time between two questions whether the node is ready: a small node is ready within a few
/// milliseconds, one with a long history needs not be asked that often.
const POLL_FIRST: Duration = Duration::from_millis(5);
const POLL_MAX: Duration = Duration::from_millis(200);

/// Limit on open files below which a broker is not of much use.
const OPEN_FILES_MIN: u64 = 1024;

/// Size in bytes at which `console.log` is put aside at a start. Only what the process itself
/// prints goes there, so that it is usually empty.
const CONSOLE_LOG_BYTES_MAX: u64 = 10 * 1024 * 1024;

/// Of what a failed node printed, at most so many bytes are shown.
const SHOWN_BYTES_MAX: u64 = 16 * 1024;

/// `emqx start`.
pub(crate) fn start(installation: &Installation) -> ExitCode {
    let boot = match boot::load(installation) {
        Ok(boot) => boot,
        Err(error) => {
            boot::report(&error);
            return ExitCode::FAILURE;
        }
    };
    warn_about_open_files();
    boot::announce(&boot, installation);
    let name = &boot.loaded.settings.node.name;
    if socket::is_surely_running(&installation.run, name) {
        say::line(&format!("Node {name} is already running!"));
        return ExitCode::FAILURE;
    }
    match launch(installation) {
        Ok(launched) => wait(launched, installation, &boot),
        Err(error) => {
            say::error(&error.to_string());
            ExitCode::FAILURE
        }
    }
}

/// `emqx restart`: stop what runs, then start.
pub(crate) fn restart(installation: &Installation) -> ExitCode {
    let boot = match boot::load(installation) {
        Ok(boot) => boot,
        // A node that cannot come up again is not stopped.
        Err(error) => {
            boot::report(&error);
            return ExitCode::FAILURE;
        }
    };
    let name = &boot.loaded.settings.node.name;
    if socket::is_running(&installation.run, name) && !stop::stop_node(installation, name) {
        return ExitCode::FAILURE;
    }
    start(installation)
}

/// A node that was launched and what it prints.
struct Launched {
    child: Child,
    console: PathBuf,
    /// Where in `console` this start begins.
    from: u64,
}

/// Why no process was launched.
#[derive(Debug)]
struct LaunchError {
    path: PathBuf,
    error: io::Error,
}

impl std::fmt::Display for LaunchError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "{}: {}; check that this user may write there",
            self.path.display(),
            self.error
        )
    }
}

fn launch(installation: &Installation) -> Result<Launched, LaunchError> {
    let at = |path: &Path| {
        let path = path.to_path_buf();
        move |error| LaunchError { path, error }
    };
    std::fs::create_dir_all(&installation.log).map_err(at(&installation.log))?;
    let console = installation.log.join("console.log");
    let log = open_console(&console).map_err(at(&console))?;
    let from = log.metadata().map_or(0, |file| file.len());
    let errors = log.try_clone().map_err(at(&console))?;
    let program = std::env::current_exe().map_err(at(&installation.program))?;
    let child = Command::new(&program)
        .args(["emqx", "foreground"])
        .env("DUNLIN_ROOT", &installation.root)
        .env("EMQX_ETC_DIR", &installation.etc)
        .env("EMQX_LOG_DIR", &installation.log)
        .env("DUNLIN_RUN_DIR", &installation.run)
        .env(DETACHED, "1")
        .current_dir(&installation.root)
        .stdin(Stdio::null())
        .stdout(log)
        .stderr(errors)
        .spawn()
        .map_err(at(&program))?;
    Ok(Launched {
        child,
        console,
        from,
    })
}

fn open_console(path: &Path) -> io::Result<File> {
    if std::fs::metadata(path).is_ok_and(|file| file.len() > CONSOLE_LOG_BYTES_MAX) {
        std::fs::rename(path, path.with_extension("log.1"))?;
    }
    File::options().create(true).append(true).open(path)
}

fn wait(mut launched: Launched, installation: &Installation, boot: &Boot) -> ExitCode {
    let name = &boot.loaded.settings.node.name;
    let allowed = Duration::from_secs(seconds_from_env("EMQX_WAIT_FOR_START", WAIT_S));
    let started = Instant::now();
    let mut pause = POLL_FIRST;
    loop {
        if socket::is_ready(&installation.run, name) {
            say::line(&format!("Dunlin {VERSION} is started successfully!"));
            return ExitCode::SUCCESS;
        }
        if let Ok(Some(status)) = launched.child.try_wait() {
            report_end(&launched, name, status);
            return ExitCode::FAILURE;
        }
        if started.elapsed() > allowed {
            return report_timeout(&launched, installation, name, allowed);
        }
        std::thread::sleep(pause);
        pause = (pause * 3 / 2).min(POLL_MAX);
    }
}

/// The process ended before it was ready: what it said last is why.
fn report_end(launched: &Launched, name: &str, status: ExitStatus) {
    let said = printed(&launched.console, launched.from).unwrap_or_default();
    if said.trim().is_empty() {
        say::error(&format!("node '{name}' ended while starting ({status})"));
    } else {
        say::err(&said);
        if !said.ends_with('\n') {
            say::err("\n");
        }
    }
    say::error(&format!(
        "Dunlin {VERSION} using node name '{name}' did not start."
    ));
    say::err(&format!(
        "Find more information in {}\n",
        launched.console.display()
    ));
}

/// The node neither became ready nor ended. It is stopped: a start that failed leaves nothing.
fn report_timeout(
    launched: &Launched,
    installation: &Installation,
    name: &str,
    allowed: Duration,
) -> ExitCode {
    say::error(&format!(
        "Dunlin {VERSION} using node name '{name}' was not ready after {} seconds.",
        allowed.as_secs()
    ));
    let (line, code) = if socket::is_running(&installation.run, name) {
        (
            format!("{name} node is started, but failed to complete the boot sequence in time."),
            3,
        )
    } else {
        (
            format!("{name} seems to be running, but not responding to pings."),
            2,
        )
    };
    say::err(&format!(
        "{line}\nFind more information in {}\n",
        launched.console.display()
    ));
    stop::terminate(launched.child.id());
    ExitCode::from(code)
}

fn printed(path: &Path, from: u64) -> io::Result<String> {
    let mut file = File::open(path)?;
    file.seek(SeekFrom::Start(from))?;
    let mut bytes = Vec::new();
    file.take(SHOWN_BYTES_MAX).read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

fn warn_about_open_files() {
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile).current;
    if let Some(limit) = limit.filter(|limit| *limit < OPEN_FILES_MIN) {
        say::line(&format!(
            "WARNING: ulimit -n is {limit}; {OPEN_FILES_MIN} is the recommended minimum."
        ));
    }
}
