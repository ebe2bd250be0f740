//! The executable: `emqx`, `emqx_ctl` and `dunlin` are this one program under three names.
//!
//! Most of it is a thin remote control. It finds the installation it belongs to, then the running
//! node that is meant, carries words to it and prints what comes back. Only `foreground` becomes a
//! node. It must never do to a node what the REST API cannot.

mod boot;
mod command;
mod ctl;
mod foreground;
mod installation;
mod remote;
mod say;
mod select;
mod socket;
mod start;
mod stop;
mod usage;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use installation::Installation;

/// The release.
pub(crate) const VERSION: &str = env!("CARGO_PKG_VERSION");

/// The system's allocator returns memory late and contends between threads; a broker is mostly
/// small allocations on many threads.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let mut words = std::env::args_os()
        .map(|word| word.to_string_lossy().into_owned())
        .collect::<Vec<_>>();
    let called = if words.is_empty() {
        String::new()
    } else {
        words.remove(0)
    };
    let cwd = std::env::current_dir().unwrap_or_else(|_| PathBuf::from("/"));
    let executable = std::env::current_exe().unwrap_or_else(|_| cwd.join(&called));
    let env = |name: &str| std::env::var_os(name);
    let installation = Installation::find(Path::new(&called), &executable, &cwd, env);
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    command::run(&installation, command::parse(&called, &words))
}

/// A number of seconds from the environment.
pub(crate) fn seconds_from_env(name: &str, default: u64) -> u64 {
    std::env::var(name)
        .ok()
        .and_then(|text| text.trim().parse().ok())
        .unwrap_or(default)
}
