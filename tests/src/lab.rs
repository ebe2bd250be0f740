//! A network, mounts and processes of a test's own, with any number of hosts in it.
//!
//! The test runs itself again inside new namespaces (as root, or as any user where the system lets
//! users make namespaces). There it may use the well-known ports and add hosts: namespaces on one
//! bridge, each with its own address, `/etc/hosts` and firewall. When the test ends, the kernel
//! removes all of it, processes included; the machine's own network is never touched.

use std::cell::Cell;
use std::ffi::OsStr;
use std::fmt::Write;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use crate::process::Output;
use crate::until::until;
use crate::{missing, process, repeated};

/// Set inside; its value is a directory that the outer process removes.
const INSIDE: &str = "DUNLIN_TEST_LAB";
/// A whole test inside must end within this time.
const LIMIT: Duration = Duration::from_secs(170);
/// First three bytes of the hosts' addresses. No need to be unique: the network is private.
const NETWORK: [u8; 3] = [10, 77, 0];
/// The last byte of the address of the test itself, which is on no host.
const TESTER: u8 = 254;

const NAMESPACES: &[&str] = &[
    "--net",
    "--mount",
    "--pid",
    "--fork",
    "--mount-proc",
    "--kill-child",
];

/// Runs the rest of the calling test function in a lab.
#[macro_export]
macro_rules! in_lab {
    ($body:expr) => {{
        fn here() {}
        $crate::lab::run(std::any::type_name_of_val(&here), $body)
    }};
}

/// What `in_lab!` calls: `here` is the path of a function inside the test function.
pub fn run(here: &str, body: impl FnOnce(&Lab) -> Result<()>) -> Result<()> {
    if let Some(folder) = std::env::var_os(INSIDE) {
        return body(&Lab::enter(Path::new(&folder))?);
    }
    // "binary::module::test::here" is the test "module::test".
    let test = here
        .trim_end_matches("::here")
        .split_once("::")
        .map_or(here, |(_, test)| test);
    let Some(flags) = namespaces() else {
        missing::not_tested(
            test,
            "neither root nor user namespaces, or iproute2 is missing",
        );
        return Ok(());
    };
    let folder = tempfile::Builder::new().prefix("dunlin-lab-").tempdir()?;
    let mut command = Command::new("unshare");
    command.args(flags).arg("--").arg(std::env::current_exe()?);
    command.args([test, "--exact", "--include-ignored", "--nocapture"]);
    command.arg("--test-threads=1");
    command
        .env(INSIDE, folder.path())
        .env("TMPDIR", folder.path());
    let output = process::run_within(&mut command, LIMIT * repeated::patience())?;
    ensure!(
        output.code == 0 && output.stdout.contains("1 passed"),
        "inside the lab:\n{}\n{}",
        output.stdout,
        output.stderr
    );
    pass_on(&output);
    Ok(())
}

/// The flags of `unshare` that work here.
fn namespaces() -> Option<Vec<&'static str>> {
    let as_user: Vec<&str> = [&["--user", "--map-root-user"], NAMESPACES].concat();
    [NAMESPACES.to_vec(), as_user].into_iter().find(|flags| {
        let probe = Command::new("unshare")
            .args(flags)
            .args(["ip", "link"])
            .output();
        probe.is_ok_and(|output| output.status.success())
    })
}

/// Lines about what was not tested, and rows of figures, must not end with the captured output of
/// the inner run.
fn pass_on(output: &Output) {
    let lines = output.stderr.lines();
    for line in lines.filter(|line| line.starts_with("NOT TESTED")) {
        eprintln!("{line}");
    }
    let rows = output.stderr.lines();
    for line in rows.filter(|line| line.starts_with("| ")) {
        eprintln!("{line}");
    }
}

/// The inside of a lab.
#[derive(Debug)]
pub struct Lab {
    folder: PathBuf,
    hosts: Cell<u8>,
}

impl Lab {
    fn enter(folder: &Path) -> Result<Self> {
        // Names of network namespaces live in /run/netns; this one is the lab's own.
        ip("mount", &["-t", "tmpfs", "tmpfs", "/run"])?;
        std::fs::create_dir("/run/netns")?;
        // Nobody answers there: a name that is in no hosts file is unknown at once.
        let resolv = folder.join("resolv.conf");
        std::fs::write(
            &resolv,
            "nameserver 127.0.0.1\noptions timeout:1 attempts:1\n",
        )?;
        let _ = Command::new("mount")
            .arg("--bind")
            .arg(&resolv)
            .arg("/etc/resolv.conf")
            .output();
        ip("ip", &["link", "set", "lo", "up"])?;
        Ok(Self {
            folder: folder.to_path_buf(),
            hosts: Cell::new(0),
        })
    }

    /// Starts a name server that all hosts of the lab ask, with the records that these options of
    /// dnsmasq describe. It ends with the lab. Says so loudly when dnsmasq is missing.
    pub fn name_server(&self, what: &str, records: &[String]) -> Result<bool> {
        if !missing::has("dnsmasq") {
            missing::not_tested(what, "dnsmasq is missing (Debian: dnsmasq-base)");
            return Ok(false);
        }
        let address = address(TESTER);
        let mut server = Command::new("dnsmasq");
        server.args([
            "--keep-in-foreground",
            "--conf-file=/dev/null",
            "--pid-file=",
        ]);
        server.args([
            "--no-resolv",
            "--no-hosts",
            "--bind-interfaces",
            "--user=root",
        ]);
        server
            .arg(format!("--listen-address={address}"))
            .args(records);
        server.spawn().context("dnsmasq")?;
        // In place: this very file is mounted.
        let resolv = self.folder.join("resolv.conf");
        let text = format!("nameserver {address}\noptions timeout:1 attempts:1\n");
        std::fs::write(&resolv, text).context("writing resolv.conf")?;
        until(Duration::from_secs(5), "the name server listens", || {
            Ok(std::net::TcpStream::connect((address, 53)).is_ok())
        })?;
        Ok(true)
    }

    /// The address of the test itself, for servers that all hosts are to reach.
    pub fn address(&self) -> Ipv4Addr {
        address(TESTER)
    }

    /// Gives the test a second address, which all these hosts reach.
    pub fn add_own_ip(&self, address: Ipv4Addr, hosts: &[Host]) -> Result<()> {
        ip(
            "ip",
            &["addr", "add", &format!("{address}/32"), "dev", "br0"],
        )?;
        let via = self.address().to_string();
        for host in hosts {
            host.ip(&["route", "add", &address.to_string(), "via", &via])?;
        }
        Ok(())
    }

    /// Adds a host that knows these names, and is itself the last address handed out.
    pub fn host(&self, name: &str) -> Result<Host> {
        if self.hosts.get() == 0 {
            ip("ip", &["link", "add", "br0", "type", "bridge"])?;
            ip(
                "ip",
                &[
                    "addr",
                    "add",
                    &format!("{}/24", address(TESTER)),
                    "dev",
                    "br0",
                ],
            )?;
            ip("ip", &["link", "set", "br0", "up"])?;
        }
        let number = self.hosts.get() + 1;
        self.hosts.set(number);
        let host = Host {
            name: name.to_owned(),
            ip: address(number),
            hosts_file: self.folder.join(format!("hosts.{name}")),
        };
        let cable = format!("v-{name}");
        let peer = ["peer", "name", "eth0", "netns", name];
        ip("ip", &["netns", "add", name])?;
        ip(
            "ip",
            &[&["link", "add", &cable, "type", "veth"][..], &peer].concat(),
        )?;
        ip("ip", &["link", "set", &cable, "master", "br0", "up"])?;
        host.ip(&["addr", "add", &format!("{}/24", host.ip), "dev", "eth0"])?;
        host.ip(&["link", "set", "eth0", "up"])?;
        host.ip(&["link", "set", "lo", "up"])?;
        host.knows(&[])?;
        Ok(host)
    }
}

fn address(number: u8) -> Ipv4Addr {
    let [a, b, c] = NETWORK;
    Ipv4Addr::new(a, b, c, number)
}

/// Runs a program that must succeed.
fn ip<S: AsRef<OsStr>>(program: &str, args: &[S]) -> Result<Output> {
    process::run(Command::new(program).args(args))?.ok()
}

/// Whether hosts can have firewalls; says so loudly when not.
pub fn has_firewalls(what: &str) -> bool {
    let there = missing::has("nft");
    if !there {
        missing::not_tested(what, "nft is missing (Debian: nftables)");
    }
    there
}

/// One host of a lab.
#[derive(Clone, Debug)]
pub struct Host {
    /// Its name, also that of its namespace.
    pub name: String,
    /// Its address.
    pub ip: Ipv4Addr,
    hosts_file: PathBuf,
}

impl Host {
    /// Says what is in this host's `/etc/hosts`.
    pub fn knows(&self, names: &[(&str, Ipv4Addr)]) -> Result<()> {
        let mut text = "127.0.0.1 localhost\n".to_owned();
        for (name, ip) in names {
            let _ = writeln!(text, "{ip} {name}");
        }
        // In place: commands that run already have this very file mounted.
        std::fs::write(&self.hosts_file, text).context("writing a hosts file")
    }

    /// The same command, run on this host.
    pub fn command_like(&self, command: &Command) -> Command {
        let mut on_host = Command::new("ip");
        // `ip netns exec` gives each command mounts of its own.
        let script = "mount --bind \"$0\" /etc/hosts && exec \"$@\"";
        on_host
            .args(["netns", "exec", &self.name, "sh", "-c", script])
            .arg(&self.hosts_file);
        on_host.arg(command.get_program()).args(command.get_args());
        if let Some(folder) = command.get_current_dir() {
            on_host.current_dir(folder);
        }
        for (name, value) in command.get_envs() {
            match value {
                Some(value) => on_host.env(name, value),
                None => on_host.env_remove(name),
            };
        }
        on_host
    }

    fn ip(&self, args: &[&str]) -> Result<Output> {
        ip("ip", &[&["-n", &self.name], args].concat())
    }

    /// Gives it a way to all addresses, as hosts usually have; multicast needs one.
    pub fn route_everywhere(&self) -> Result<()> {
        self.ip(&["route", "add", "default", "dev", "eth0"])
            .map(drop)
    }

    /// Drops packets that come in for this TCP port, as a firewall does.
    pub fn drop_port(&self, port: u16) -> Result<()> {
        self.drop_incoming(&["tcp", "dport", &port.to_string()])
    }

    /// Loses all packets that come in from another host: silence, no error. Call it on both ends.
    pub fn lose_packets_from(&self, other: &Self) -> Result<()> {
        self.drop_incoming(&["ip", "saddr", &other.ip.to_string()])
    }

    fn drop_incoming(&self, matching: &[&str]) -> Result<()> {
        self.nft(&["add", "table", "inet", "t"])?;
        let hook = "{ type filter hook input priority 0 ; }";
        self.nft(&["add", "chain", "inet", "t", "in", hook])?;
        let rule = ["add", "rule", "inet", "t", "in"];
        self.nft(&[&rule[..], matching, &["drop"]].concat())
    }

    /// Takes all firewall rules away.
    pub fn open_ports(&self) -> Result<()> {
        self.nft(&["flush", "ruleset"])
    }

    fn nft(&self, args: &[&str]) -> Result<()> {
        let args = [&["netns", "exec", &self.name, "nft"], args].concat();
        ip("ip", &args).map(drop)
    }

    /// Makes another host unreachable from this one: the system reports it at once.
    pub fn no_route_to(&self, other: &Self) -> Result<()> {
        self.ip(&["route", "add", "unreachable", &format!("{}/32", other.ip)])
            .map(drop)
    }

    /// Undoes [`Host::no_route_to`].
    pub fn route_to(&self, other: &Self) -> Result<()> {
        self.ip(&["route", "del", "unreachable", &format!("{}/32", other.ip)])
            .map(drop)
    }
}
