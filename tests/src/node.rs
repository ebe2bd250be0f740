//! A node of the product, started and stopped as an operator does it, or killed.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::fmt::Write;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use rustix::process::Signal;

use crate::client::Client;
use crate::http::Api;
use crate::installation::Installation;
use crate::lab::Host;
use crate::ports::Ports;
use crate::process::{self, Output};
use crate::until::until_eq;

/// How long members may take to see each other after a start or a join.
pub const TOGETHER: Duration = Duration::from_secs(5);

/// The lines of a log shown when a test fails.
const LOG_LINES_SHOWN: usize = 40;

/// One node. Dropping it kills its process.
#[derive(Debug)]
pub struct Node {
    /// `name@host`.
    pub name: String,
    /// Where it is installed; several nodes may share one installation.
    pub installation: Arc<Installation>,
    env: BTreeMap<String, String>,
    host: Option<Host>,
    ip: IpAddr,
    listeners: Listeners,
    pid: Cell<Option<u32>>,
    /// Held for as long as the node may use them.
    ports: Option<Ports>,
}

/// Ports a node serves clients on.
#[derive(Clone, Copy, Debug)]
struct Listeners {
    tcp: u16,
    ssl: u16,
    ws: u16,
    wss: u16,
    http: u16,
}

/// What a node listens on when nobody says otherwise.
const DEFAULTS: Listeners = Listeners {
    tcp: 1883,
    ssl: 8883,
    ws: 8083,
    wss: 8084,
    http: 18083,
};

impl Node {
    /// A node on ports of its own, in an installation of its own. Not started.
    pub fn new() -> Result<Self> {
        Self::in_installation(&Installation::new()?)
    }

    /// A node on ports of its own, in an installation that other nodes may share. Not started.
    pub fn in_installation(installation: &Arc<Installation>) -> Result<Self> {
        let ports = Ports::take()?;
        let number = ports.node_number();
        let mut node = Self::named(installation, &format!("emqx{number}@127.0.0.1"));
        node.listeners = Listeners {
            tcp: ports.port(1),
            ssl: ports.port(2),
            ws: ports.port(3),
            wss: ports.port(4),
            http: ports.port(5),
        };
        let binds = [
            ("LISTENERS__TCP__DEFAULT", node.listeners.tcp),
            ("LISTENERS__SSL__DEFAULT", node.listeners.ssl),
            ("LISTENERS__WS__DEFAULT", node.listeners.ws),
            ("LISTENERS__WSS__DEFAULT", node.listeners.wss),
            ("DASHBOARD__LISTENERS__HTTP", node.listeners.http),
        ];
        for (listener, port) in binds {
            node.env.insert(
                format!("EMQX_{listener}__BIND"),
                format!("127.0.0.1:{port}"),
            );
        }
        node.env
            .insert("EMQX_NODE__DATA_DIR".to_owned(), format!("./data{number}"));
        node.ports = Some(ports);
        Ok(node)
    }

    /// A node on the well-known ports; its name comes from the environment. For labs.
    pub fn named(installation: &Arc<Installation>, name: &str) -> Self {
        let mut node = Self::configured(installation, name, None);
        node.env
            .insert("EMQX_NODE__NAME".to_owned(), name.to_owned());
        node
    }

    /// A node of a host of a lab, whose name is in its `emqx.conf`.
    pub fn on(host: &Host, installation: &Arc<Installation>, name: &str) -> Self {
        Self::configured(installation, name, Some(host.clone()))
    }

    fn configured(installation: &Arc<Installation>, name: &str, host: Option<Host>) -> Self {
        let ip = host
            .as_ref()
            .map_or(IpAddr::V4(Ipv4Addr::LOCALHOST), |host| host.ip.into());
        Self {
            name: name.to_owned(),
            installation: Arc::clone(installation),
            env: BTreeMap::new(),
            host,
            ip,
            listeners: DEFAULTS,
            pid: Cell::new(None),
            ports: None,
        }
    }

    /// Sets a variable for every command about this node.
    #[must_use]
    pub fn set(mut self, name: &str, value: &str) -> Self {
        self.env.insert(name.to_owned(), value.to_owned());
        self
    }

    /// The variables of this node's commands.
    pub fn env(&self) -> Vec<(&str, &str)> {
        self.env
            .iter()
            .map(|(name, value)| (name.as_str(), value.as_str()))
            .collect()
    }

    /// The node's own data directory.
    pub fn data_dir(&self) -> std::path::PathBuf {
        let relative = self
            .env
            .get("EMQX_NODE__DATA_DIR")
            .map_or("data", String::as_str);
        self.installation.root().join(relative)
    }

    /// MQTT over TCP.
    pub fn tcp(&self) -> SocketAddr {
        SocketAddr::new(self.ip, self.listeners.tcp)
    }

    /// MQTT over TLS.
    pub fn ssl(&self) -> SocketAddr {
        SocketAddr::new(self.ip, self.listeners.ssl)
    }

    /// MQTT over WebSocket.
    pub fn ws(&self) -> SocketAddr {
        SocketAddr::new(self.ip, self.listeners.ws)
    }

    /// MQTT over WebSocket over TLS.
    pub fn wss(&self) -> SocketAddr {
        SocketAddr::new(self.ip, self.listeners.wss)
    }

    /// The dashboard's port.
    pub fn http(&self) -> SocketAddr {
        SocketAddr::new(self.ip, self.listeners.http)
    }

    /// The REST API, not logged in.
    pub fn api(&self) -> Api {
        Api::new(self.http())
    }

    /// A program of this node's installation, with this node's variables.
    pub fn command(&self, program: &str) -> Command {
        let mut command = self.installation.command(program);
        command.envs(&self.env);
        match &self.host {
            Some(host) => host.command_like(&command),
            None => command,
        }
    }

    /// `emqx ARGS`.
    pub fn emqx(&self, args: &[&str]) -> Result<Output> {
        process::run(self.command("emqx").args(args))
    }

    /// `emqx_ctl ARGS`.
    pub fn ctl(&self, args: &[&str]) -> Result<Output> {
        process::run(self.command("emqx_ctl").args(args))
    }

    /// `emqx_ctl ARGS` in the background, to be killed in the middle.
    pub fn ctl_in_background(&self, args: &[&str]) -> Result<Child> {
        let mut command = self.command("emqx_ctl");
        let command = command.args(args).stdin(Stdio::null());
        Ok(command
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()?)
    }

    /// `emqx start`, which must succeed.
    pub fn start(&self) -> Result<Output> {
        let output = self
            .emqx(&["start"])?
            .ok()
            .with_context(|| self.log_tail())?;
        self.pid.set(Some(self.ask_pid()?));
        Ok(output)
    }

    /// Takes over a node whose `emqx start` was run in another way.
    pub fn adopt(&self) -> Result<()> {
        self.pid.set(Some(self.ask_pid()?));
        Ok(())
    }

    /// A started node on ports of its own.
    pub fn started() -> Result<Self> {
        let node = Self::new()?;
        node.start()?;
        Ok(node)
    }

    fn ask_pid(&self) -> Result<u32> {
        let output = self.emqx(&["pid"])?.ok()?;
        output
            .stdout
            .trim()
            .parse()
            .with_context(|| format!("a process id: {output}"))
    }

    /// The host of a lab that it runs on.
    pub fn host(&self) -> Option<&Host> {
        self.host.as_ref()
    }

    /// The process id; the node must have been started here.
    pub fn pid(&self) -> Result<u32> {
        self.pid.get().context("the node was not started")
    }

    /// `emqx stop`, which must succeed.
    pub fn stop(&self) -> Result<Output> {
        let output = self.emqx(&["stop"])?.ok()?;
        self.pid.set(None);
        Ok(output)
    }

    /// SIGKILL, as a power cut would; returns when the process is gone.
    pub fn kill9(&self) -> Result<()> {
        process::kill9(self.pid()?)?;
        self.pid.set(None);
        Ok(())
    }

    /// Any signal.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        process::signal(self.pid()?, signal);
        Ok(())
    }

    /// Is the process there?
    pub fn lives(&self) -> bool {
        self.pid.get().is_some_and(process::lives)
    }

    /// The status line, without its newline.
    pub fn status(&self) -> Result<String> {
        let output = self.ctl(&["cluster", "status"])?.ok()?;
        Ok(output.stdout.trim_end_matches('\n').to_owned())
    }

    /// Waits until the status line shows exactly these members.
    pub fn sees(&self, running: &[&Self], stopped: &[&Self], limit: Duration) -> Result<Duration> {
        let expected = status_line(&names(running), &names(stopped));
        until_eq(
            limit,
            &format!("cluster status on {}", self.name),
            &expected,
            || self.status(),
        )
        .with_context(|| self.log_tail())
    }

    /// `cluster join`, which must succeed.
    pub fn join(&self, target: &Self) -> Result<Output> {
        self.ctl(&["cluster", "join", &target.name])?.ok()
    }

    /// A raw client with a clean session.
    pub fn connect(&self, clientid: &str) -> Result<Client> {
        Client::connect(self.tcp(), clientid, true)
    }

    /// The last lines of its log files.
    pub fn log_tail(&self) -> String {
        let mut text = String::new();
        let folder = self.installation.root().join("log");
        for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
            let Ok(log) = std::fs::read_to_string(entry.path()) else {
                continue;
            };
            let lines: Vec<&str> = log.lines().collect();
            let from = lines.len().saturating_sub(LOG_LINES_SHOWN);
            let _ = writeln!(text, "--- {}", entry.path().display());
            text.push_str(&lines[from..].join("\n"));
            text.push('\n');
        }
        text
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        if let Some(pid) = self.pid.get() {
            process::signal(pid, Signal::KILL);
        }
    }
}

/// Names of nodes, sorted as the status line sorts them.
fn names(nodes: &[&Node]) -> Vec<String> {
    let mut names: Vec<String> = nodes.iter().map(|node| node.name.clone()).collect();
    names.sort();
    names
}

/// The status line of the manual.
pub fn status_line<T: AsRef<str>>(running: &[T], stopped: &[T]) -> String {
    let quoted = |names: &[T]| {
        names
            .iter()
            .map(|name| format!("'{}'", name.as_ref()))
            .collect::<Vec<_>>()
            .join(",")
    };
    let mut line = format!("Cluster status: [{{running_nodes,[{}]}}", quoted(running));
    if !stopped.is_empty() {
        let _ = write!(line, ",{{stopped_nodes,[{}]}}", quoted(stopped));
    }
    line.push(']');
    line
}

/// `count` started nodes in installations of their own, joined to the first.
pub fn cluster(count: usize) -> Result<Vec<Node>> {
    let nodes: Vec<Node> = (0..count).map(|_| Node::started()).collect::<Result<_>>()?;
    for node in &nodes[1..] {
        node.join(&nodes[0])?;
    }
    together(&nodes)?;
    Ok(nodes)
}

/// Waits until all of them see all of them.
pub fn together(nodes: &[Node]) -> Result<()> {
    let all: Vec<&Node> = nodes.iter().collect();
    for node in nodes {
        node.sees(&all, &[], TOGETHER)?;
    }
    Ok(())
}
