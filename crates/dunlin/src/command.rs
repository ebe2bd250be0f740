//! From the words on the command line to what is done.

use std::process::ExitCode;

use crate::installation::Installation;
use crate::{VERSION, boot, foreground, remote, say, start, stop, usage};

/// What was asked.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Command<'a> {
    Start,
    Restart,
    Foreground,
    Stop,
    Ping,
    Pid,
    CheckConfig {
        verbose: bool,
    },
    RootDir,
    Version,
    /// The words after `ctl`.
    Ctl(&'a [&'a str]),
    /// The words after `bench`.
    Bench(&'a [&'a str]),
    /// Usage of everything; `asked` for it, or nothing else was understood.
    Usage {
        asked: bool,
    },
    /// `emqx COMMAND help`.
    Help(&'static str),
    /// A command of the Erlang script, and why it is refused.
    Refused(String),
}

/// Reads the words. The name the program was called by, or the first word, says which of the
/// programs it is: `emqx_ctl X`, `emqx ctl X` and `dunlin emqx_ctl X` are the same.
pub(crate) fn parse<'a>(called: &str, words: &'a [&'a str]) -> Command<'a> {
    let name = called.rsplit('/').next().unwrap_or(called);
    match (name, words) {
        ("emqx_ctl", words) | (_, ["emqx_ctl", words @ ..]) => Command::Ctl(words),
        (_, ["emqx" | "dunlin", words @ ..] | words) => emqx(words),
    }
}

fn emqx<'a>(words: &'a [&'a str]) -> Command<'a> {
    let Some((&command, rest)) = words.split_first() else {
        return Command::Usage { asked: false };
    };
    if let ["help" | "--help" | "-h", ..] = rest
        && command != "ctl"
        && let Some(text) = usage::of(command)
    {
        return Command::Help(text);
    }
    match (command, rest) {
        ("start", []) => Command::Start,
        ("restart", []) => Command::Restart,
        ("console" | "foreground", []) => Command::Foreground,
        ("stop", []) => Command::Stop,
        ("ping", []) => Command::Ping,
        ("pid", []) => Command::Pid,
        ("check_config", []) => Command::CheckConfig { verbose: false },
        ("check_config", ["--verbose" | "-v"]) => Command::CheckConfig { verbose: true },
        ("root_dir", []) => Command::RootDir,
        ("version" | "versions" | "--version" | "-V", []) => Command::Version,
        ("ctl", args) => Command::Ctl(args),
        ("bench", args) => Command::Bench(args),
        // As `emqx ctl status`, where hands expect it.
        ("status", []) => Command::Ctl(words),
        ("help" | "--help" | "-h", _) => Command::Usage { asked: true },
        _ => match usage::refusal(command) {
            Some(why) => Command::Refused(why),
            None => Command::Usage { asked: false },
        },
    }
}

/// Does it; the exit code says whether it was done.
pub(crate) fn run(installation: &Installation, command: Command<'_>) -> ExitCode {
    match command {
        Command::Start => start::start(installation),
        Command::Restart => start::restart(installation),
        Command::Foreground => foreground::foreground(installation),
        Command::Stop => remote::about_one(installation, stop::stop),
        Command::Ping => remote::about_one(installation, stop::ping),
        Command::Pid => remote::about_one(installation, stop::pid),
        Command::CheckConfig { verbose } => exit(boot::check(installation, verbose)),
        Command::Ctl(args) => remote::ctl(installation, args),
        Command::Bench(args) => bench(args),
        Command::RootDir => printed(&installation.root.display().to_string()),
        Command::Version => printed(&format!("dunlin {VERSION}")),
        Command::Usage { asked } => {
            say::out(&usage::usage(&installation.program.display().to_string()));
            exit(asked)
        }
        Command::Help(text) => {
            say::out(text);
            ExitCode::SUCCESS
        }
        Command::Refused(why) => {
            say::error(&why);
            ExitCode::FAILURE
        }
    }
}

/// Measures; the node of this installation, if it runs, is a broker like any other to it.
fn bench(words: &[&str]) -> ExitCode {
    let executable = std::env::current_exe().unwrap_or_else(|_| "dunlin".into());
    let program = [executable.display().to_string(), "bench".to_owned()];
    let words: Vec<String> = words.iter().map(|&word| word.to_owned()).collect();
    dunlin_bench::run(&program, &words)
}

fn printed(line: &str) -> ExitCode {
    say::line(line);
    ExitCode::SUCCESS
}

fn exit(done: bool) -> ExitCode {
    if done {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(called: &str, words: &[&str], expected: &Command<'_>) {
        assert_eq!(&parse(called, words), expected, "{called} {words:?}");
    }

    #[test]
    fn three_names_one_program() {
        let status = ["cluster", "status"];
        check("/opt/emqx/bin/emqx_ctl", &status, &Command::Ctl(&status));
        check(
            "emqx",
            &["ctl", "cluster", "status"],
            &Command::Ctl(&status),
        );
        check(
            "dunlin",
            &["emqx_ctl", "cluster", "status"],
            &Command::Ctl(&status),
        );
        check(
            "dunlin",
            &["ctl", "cluster", "status"],
            &Command::Ctl(&status),
        );
        check("./dunlin", &["emqx", "start"], &Command::Start);
        check("./emqx", &["start"], &Command::Start);
        check("dunlin", &["--version"], &Command::Version);
        check("emqx_ctl", &[], &Command::Ctl(&[]));
        check("dunlin", &["bench", "pairs"], &Command::Bench(&["pairs"]));
    }

    #[test]
    fn usage_and_help() {
        check("emqx", &[], &Command::Usage { asked: false });
        check("emqx", &["bogus"], &Command::Usage { asked: false });
        check("emqx", &["help"], &Command::Usage { asked: true });
        check("emqx", &["start", "now"], &Command::Usage { asked: false });
        let Command::Help(text) = parse("emqx", &["stop", "help"]) else {
            panic!("every command has a help");
        };
        assert!(text.starts_with("Stop the running node"), "{text}");
        check("emqx", &["ctl", "help"], &Command::Ctl(&["help"]));
    }

    #[test]
    fn erlang_commands_are_refused() {
        let words = ["eval", "1+1"];
        assert!(matches!(parse("emqx", &words), Command::Refused(why) if why.contains("eval")));
    }

    #[test]
    fn check_config() {
        check(
            "emqx",
            &["check_config"],
            &Command::CheckConfig { verbose: false },
        );
        check(
            "emqx",
            &["check_config", "--verbose"],
            &Command::CheckConfig { verbose: true },
        );
    }
}
