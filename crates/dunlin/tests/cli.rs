//! The command line against real nodes: an installation in a temporary directory, the built
//! program in its `bin/`, and the manual's commands.

use std::ffi::OsStr;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::atomic::{AtomicU32, Ordering};

use tempfile::TempDir;

/// Numbers for node names, from which their ports follow; other tests run at the same time. A
/// second node is `<n>2`, and the manual's slip `<n>1`, so that they must stay small.
static NUMBER: AtomicU32 = AtomicU32::new(0);

fn number() -> u32 {
    100 + (std::process::id() * 7 + NUMBER.fetch_add(1, Ordering::Relaxed)) % 2_000
}

/// An installation without listeners but those between nodes.
struct Installation {
    root: TempDir,
    /// The name in its emqx.conf.
    first: String,
    /// Another node that may be started beside it.
    second: String,
    number: u32,
}

impl Installation {
    fn new() -> Self {
        Self::with("")
    }

    /// With `more` in its emqx.conf.
    fn with(more: &str) -> Self {
        let root = tempfile::tempdir().expect("a temporary directory");
        let number = number();
        let (first, second) = (
            format!("t{number}@127.0.0.1"),
            format!("t{number}2@127.0.0.1"),
        );
        for part in ["bin", "etc"] {
            std::fs::create_dir(root.path().join(part)).expect("just made");
        }
        let conf = format!(
            "node {{ name = \"{first}\", cookie = emqxsecretcookie, data_dir = data }}\n\
             listeners.tcp.default.enable = false\nlisteners.ssl.default.enable = false\n\
             listeners.ws.default.enable = false\nlisteners.wss.default.enable = false\n\
             dashboard.listeners.http.bind = 0\n{more}\n"
        );
        std::fs::write(root.path().join("etc/emqx.conf"), conf).expect("just made");
        std::fs::write(root.path().join("etc/acl.conf"), "{allow, all}.\n").expect("just made");
        let program = root.path().join("bin/dunlin");
        symlink(env!("CARGO_BIN_EXE_dunlin"), &program).expect("just made");
        for name in ["emqx", "emqx_ctl"] {
            symlink("dunlin", root.path().join("bin").join(name)).expect("just made");
        }
        Self {
            root,
            first,
            second,
            number,
        }
    }

    fn path(&self, part: &str) -> PathBuf {
        self.root.path().join(part)
    }

    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(self.path("bin").join(program));
        command.current_dir("/").env("DUNLIN_SHARDS", "1");
        for name in [
            "EMQX_NODE__NAME",
            "EMQX_NODE_NAME",
            "EMQX_ETC_DIR",
            "DUNLIN_ROOT",
        ] {
            command.env_remove(name);
        }
        command
    }

    fn run(&self, program: &str, args: &[&str]) -> Said {
        Said::of(self.command(program).args(args))
    }

    /// With `EMQX_NODE__NAME`, and the second node's own data.
    fn run_as(&self, name: &str, program: &str, args: &[&str]) -> Said {
        let mut command = self.command(program);
        command.args(args).env("EMQX_NODE__NAME", name);
        if name == self.second {
            command.env("EMQX_NODE__DATA_DIR", "./data2");
        }
        Said::of(&mut command)
    }

    fn start_both(&self) {
        self.run("emqx", &["start"]).is_done();
        self.run_as(&self.second, "emqx", &["start"]).is_done();
    }
}

impl Drop for Installation {
    fn drop(&mut self) {
        for name in [&self.first, &self.second] {
            let _ = self
                .command("emqx")
                .arg("stop")
                .env("EMQX_NODE__NAME", name)
                .output();
        }
    }
}

/// What a command printed, and its exit code.
#[derive(Debug)]
struct Said {
    out: String,
    err: String,
    code: Option<i32>,
}

impl Said {
    fn of(command: &mut Command) -> Self {
        let Output {
            stdout,
            stderr,
            status,
        } = command.output().expect("the program starts");
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("text");
        Self {
            out: text(stdout),
            err: text(stderr),
            code: status.code(),
        }
    }

    #[track_caller]
    fn is_done(&self) -> &Self {
        assert_eq!(self.code, Some(0), "{self:?}");
        self
    }

    #[track_caller]
    fn is_refused(&self) -> &Self {
        assert_eq!(self.code, Some(1), "{self:?}");
        self
    }

    #[track_caller]
    fn prints(&self, out: &str) -> &Self {
        assert_eq!(self.out, out, "{self:?}");
        self
    }
}

fn version() -> &'static str {
    env!("CARGO_PKG_VERSION")
}

#[test]
fn start_to_stop() {
    let here = Installation::new();
    let name = &here.first;
    let started = here.run("emqx", &["start"]);
    let success = format!("Dunlin {} is started successfully!\n", version());
    assert!(started.is_done().out.ends_with(&success), "{started:?}");
    assert!(
        started
            .out
            .starts_with("WARNING: Default (insecure) Erlang cookie is in use.\n")
    );
    here.run("emqx", &["ping"]).is_done().prints("pong\n");
    let pid: u32 = here
        .run("emqx", &["pid"])
        .is_done()
        .out
        .trim()
        .parse()
        .expect("a pid");
    assert!(Path::new(&format!("/proc/{pid}")).exists());
    let status = format!("Node '{name}' {} is started\n", version());
    here.run("emqx_ctl", &["status"]).is_done().prints(&status);
    here.run("emqx", &["ctl", "status"])
        .is_done()
        .prints(&status);
    let again = here.run("emqx", &["start"]);
    let line = format!("Node {name} is already running!\n");
    assert!(again.is_refused().out.ends_with(&line), "{again:?}");
    here.run("emqx", &["stop"]).is_done().prints("ok\n");
    let ping = here.run("emqx", &["ping"]);
    assert!(
        ping.is_refused()
            .err
            .starts_with(&format!("Node '{name}' not responding to pings."))
    );
    let stop = here.run_as(name, "emqx", &["stop"]);
    assert_eq!(
        stop.is_refused().err,
        format!("ERROR: Node {name} is not running?\n")
    );
    // Data are where the configuration says, under the installation, not under the caller.
    assert!(here.path("data").is_dir());
    here.run("emqx", &["restart"]).is_done();
    here.run("emqx", &["ping"]).is_done();
}

#[test]
fn the_manual_s_join_needs_no_name_when_only_one_node_can_be_meant() {
    let here = Installation::new();
    here.start_both();
    let (first, second) = (&here.first, &here.second);
    let joined = here.run("emqx_ctl", &["cluster", "join", first]);
    let both = format!("Cluster status: [{{running_nodes,['{second}','{first}']}}]\n");
    joined
        .is_done()
        .prints(&format!("Join the cluster successfully.\n{both}"));
    // Both say the same, so that it does not matter which one is asked.
    here.run("emqx_ctl", &["cluster", "status"])
        .is_done()
        .prints(&both);
    let json = here.run("emqx_ctl", &["cluster", "status", "--json"]);
    let json: serde_json::Value = serde_json::from_str(&json.is_done().out).expect("JSON");
    assert_eq!(json["running_nodes"], serde_json::json!([second, first]));
    assert_eq!(json["stopped_nodes"], serde_json::json!([]));
    let again = here.run("emqx_ctl", &["cluster", "join", first]);
    let line = format!("Failed to join the cluster: {{already_in_cluster,'{first}'}}\n");
    assert!(again.is_refused().out.starts_with(&line), "{again:?}");
    let own = here.run_as(first, "emqx_ctl", &["cluster", "join", first]);
    own.is_done().prints("Ignore.\n");
    here.run_as(second, "emqx", &["stop"]).is_done();
    let status = here.run("emqx_ctl", &["cluster", "status"]);
    status.is_done().prints(&format!(
        "Cluster status: [{{running_nodes,['{first}']}},{{stopped_nodes,['{second}']}}]\n"
    ));
    let removed = here.run("emqx_ctl", &["cluster", "force-leave", second]);
    removed.is_done().prints(&format!(
        "Remove the node from cluster successfully.\n\
         Cluster status: [{{running_nodes,['{first}']}}]\n"
    ));
    let alone = here.run("emqx_ctl", &["cluster", "leave"]);
    let line = "Failed to leave the cluster: node_not_in_cluster\n";
    assert!(alone.is_refused().out.starts_with(line), "{alone:?}");
}

#[test]
fn the_manual_s_join_of_a_first_node_that_has_the_unnumbered_name() {
    let here = Installation::new();
    here.start_both();
    let slip = format!("t{}1@127.0.0.1", here.number);
    let joined = here.run("emqx_ctl", &["cluster", "join", &slip]);
    assert!(
        joined
            .is_done()
            .out
            .starts_with("Join the cluster successfully.\n"),
        "{joined:?}"
    );
    assert!(
        joined
            .err
            .starts_with(&format!("INFO: no node {slip} runs here")),
        "{joined:?}"
    );
    let left = here.run_as(&here.second, "emqx_ctl", &["cluster", "leave"]);
    left.is_done().prints(&format!(
        "Leave the cluster successfully.\nCluster status: [{{running_nodes,['{}']}}]\n",
        here.second
    ));
}

#[test]
fn several_nodes_and_nothing_that_tells_them_apart() {
    let here = Installation::new();
    here.start_both();
    let refused = here.run("emqx_ctl", &["clients", "list"]);
    assert_eq!(
        refused.is_refused().err,
        format!(
            "ERROR: More than one EMQX node found running (root dir: {})\n\
             ERROR: Running nodes: {} {} \n\
             ERROR: Make sure environment variable EMQX_NODE__NAME is set to indicate for which \
             node this command is intended.\n",
            here.root.path().display(),
            here.second,
            here.first
        )
    );
    here.run_as(&here.second, "emqx_ctl", &["clients", "list"])
        .is_done()
        .prints("No clients.\n");
    // Not in one cluster: their answers differ, so that one has to be named.
    here.run("emqx_ctl", &["cluster", "status"]).is_refused();
}

#[test]
fn a_join_that_fails_says_why() {
    let here = Installation::new();
    here.run("emqx", &["start"]).is_done();
    let nobody = format!("t{}9@127.0.0.1", here.number);
    let refused = here.run("emqx_ctl", &["cluster", "join", &nobody]);
    let lines: Vec<&str> = refused.is_refused().out.lines().collect();
    assert_eq!(
        lines[0],
        format!("Failed to join the cluster: {{node_down,'{nobody}'}}")
    );
    assert!(lines[1].contains("does not listen at"), "{refused:?}");
    here.run("emqx_ctl", &["cluster", "bogus"]).is_refused();
}

#[test]
fn a_socket_left_by_a_killed_node_is_no_node() {
    let here = Installation::new();
    here.run("emqx", &["start"]).is_done();
    let pid = here.run("emqx", &["pid"]).out;
    let killed = Command::new("kill")
        .args([OsStr::new("-9"), OsStr::new(pid.trim())])
        .status();
    assert!(killed.expect("kill exists").success());
    while here.run("emqx", &["ping"]).code == Some(0) {}
    assert!(
        here.path("run")
            .join(format!("{}.sock", here.first))
            .exists()
    );
    here.run("emqx", &["start"]).is_done();
    here.run("emqx", &["ping"]).is_done().prints("pong\n");
}

#[test]
fn a_wrong_configuration_starts_nothing_and_names_the_key() {
    let here = Installation::with("cluster.autohea1 = true");
    for command in [&["start"][..], &["foreground"], &["check_config"]] {
        let refused = here.run("emqx", command);
        refused.is_refused();
        assert!(
            refused
                .out
                .contains("failed_to_check_schema: emqx_conf_schema"),
            "{refused:?}"
        );
        assert!(
            refused.out.contains("unknown => \"autohea1\""),
            "{refused:?}"
        );
        assert!(
            refused.err.contains("cluster.autohea1: unknown key"),
            "{refused:?}"
        );
        assert!(
            refused.err.contains("did you mean `autoheal`?"),
            "{refused:?}"
        );
    }
    assert!(!here.path("data").exists(), "nothing was started");
    std::fs::remove_file(here.path("etc/emqx.conf")).expect("it was there");
    let missing = here.run("emqx", &["start"]);
    let etc = here.path("etc");
    assert_eq!(
        missing.is_refused().err,
        format!("ERROR: emqx.conf is not found in {}\n", etc.display())
    );
}

#[test]
fn check_config_is_silent_unless_asked() {
    let here = Installation::new();
    here.run("emqx", &["check_config"]).is_done().prints("");
    let verbose = here.run("emqx", &["check_config", "--verbose"]);
    assert!(
        verbose
            .is_done()
            .out
            .ends_with("INFO: the configuration is valid\n"),
        "{verbose:?}"
    );
}

#[test]
fn variables_in_force_are_shown_at_the_start_and_secrets_are_not() {
    let here = Installation::new();
    let mut command = here.command("emqx");
    command
        .arg("start")
        .env("EMQX_NODE__COOKIE", "of-this-test")
        .env("EMQX_NODE__NAM", "x");
    let started = Said::of(&mut command);
    assert!(
        started
            .is_done()
            .out
            .contains("EMQX_NODE__COOKIE [node.cookie]: ******\n")
    );
    assert!(!started.out.contains("Default (insecure)"), "{started:?}");
    assert!(
        started
            .err
            .contains("[warning] unknown_env_vars: [\"EMQX_NODE__NAM\"]")
    );
}

#[test]
fn a_port_in_use_is_named() {
    let here = Installation::new();
    here.run("emqx", &["start"]).is_done();
    let other = Installation::new();
    // The same name in another installation: the same port.
    let refused = other.run_as(&here.first, "emqx", &["start"]);
    assert!(
        refused.is_refused().err.contains("is in use"),
        "{refused:?}"
    );
    assert!(refused.err.contains("did not start"), "{refused:?}");
}

#[test]
fn usage_version_and_refusals() {
    let here = Installation::new();
    here.run("dunlin", &["--version"])
        .is_done()
        .prints(&format!("dunlin {}\n", version()));
    let root = here.root.path().canonicalize().expect("it exists");
    here.run("emqx", &["root_dir"])
        .is_done()
        .prints(&format!("{}\n", root.display()));
    assert!(
        here.run("emqx", &[])
            .is_refused()
            .out
            .starts_with("Usage: ")
    );
    assert!(
        here.run("emqx", &["help"])
            .is_done()
            .out
            .starts_with("Usage: ")
    );
    here.run("emqx", &["bogus"]).is_refused();
    here.run("emqx", &["eval", "1+1."]).is_refused();
    here.run("dunlin", &["emqx", "root_dir"]).is_done();
}
