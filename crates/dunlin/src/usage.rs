//! Usage texts of `emqx` itself.

/// What `emqx`, `emqx help` and an unknown command print.
pub(crate) fn usage(program: &str) -> String {
    format!(
        "\
Usage: {program} COMMAND [help]

Commonly used COMMANDs:
  start:      Start in the background, and wait until the node is ready
  console:    Start in the foreground (same as foreground)
  foreground: Start in the foreground, log to standard output
  stop:       Stop the running node
  restart:    Stop, then start in the background
  ctl:        Administration commands, execute '{program} ctl help' for more details

More:
  Install Info:     root_dir | version
  Runtime Status:   status | pid | ping
  Validate Config:  check_config [--verbose]
  Measure Brokers:  bench

Execute '{program} COMMAND help' for more information
"
    )
}

/// What `emqx COMMAND help` prints; `None` for a command that is unknown.
pub(crate) fn of(command: &str) -> Option<&'static str> {
    Some(match command {
        "start" => {
            "Start the node in the background and wait until it is ready \
             (EMQX_WAIT_FOR_START seconds at most, default 120).\n"
        }
        "console" | "foreground" => {
            "Start the node in the foreground; it stops on Ctrl+C or SIGTERM.\n"
        }
        "stop" => {
            "Stop the running node and wait until it is gone \
             (EMQX_WAIT_FOR_STOP seconds at most, default 120).\n"
        }
        "restart" => "Stop the node if it runs, then start it in the background.\n",
        "ctl" => "Run an administration command in the running node; see 'ctl help'.\n",
        "ping" => "Print 'pong' if the node runs and answers.\n",
        "pid" => "Print the process id of the running node.\n",
        "status" => "Print whether the node is started, like 'ctl status'.\n",
        "check_config" => {
            "Check base.hocon, cluster.hocon, emqx.conf and the EMQX_ variables together. \
             Prints nothing when all is well; with --verbose it lists warnings and the keys \
             that are accepted without effect.\n"
        }
        "bench" => return Some(dunlin_bench::USAGE),
        "root_dir" => "Print the directory this installation lies in.\n",
        "version" | "versions" => "Print the version.\n",
        _ => return None,
    })
}

/// Commands of the Erlang script that have no meaning for this program. They are refused by name,
/// so that a script that uses one fails with the reason and not with "unknown command".
const ERLANG_ONLY: &[&str] = &[
    "attach",
    "console_clean",
    "downgrade",
    "ertspath",
    "escript",
    "eval",
    "eval-ex",
    "eval-erl",
    "install",
    "remote_console",
    "rpc",
    "rpcterms",
    "unpack",
    "uninstall",
    "undump",
    "upgrade",
];

/// Why a command of the Erlang script is refused; `None` if it is not one of them.
pub(crate) fn refusal(command: &str) -> Option<String> {
    ERLANG_ONLY.contains(&command).then(|| {
        format!(
            "'{command}' needs an Erlang virtual machine, which this program does not have. \
             To administrate a node use 'emqx ctl' or the REST API."
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_command_of_the_usage_has_its_own_help() {
        let text = usage("emqx");
        let named = [
            "start",
            "console",
            "foreground",
            "stop",
            "restart",
            "ctl",
            "root_dir",
        ];
        for command in
            named
                .iter()
                .chain(&["version", "status", "pid", "ping", "check_config", "bench"])
        {
            assert!(text.contains(command), "{command} is missing in the usage");
            assert!(of(command).is_some(), "{command} has no help");
        }
        assert_eq!(of("bogus"), None);
    }

    #[test]
    fn erlang_commands_are_refused_by_name() {
        assert!(refusal("eval").is_some_and(|text| text.starts_with("'eval' needs")));
        assert_eq!(refusal("start"), None);
    }
}
