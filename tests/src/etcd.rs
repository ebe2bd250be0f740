//! A real etcd server, in a lab.

use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result};
use tempfile::TempDir;

use crate::lab::Host;
use crate::process::{self, Output};
use crate::{missing, until};

/// How long a server, or a pair of them, may take to be healthy.
const HEALTHY: Duration = Duration::from_secs(30);

/// Is etcd here? Says so loudly when not.
pub fn is_there(what: &str) -> bool {
    let there = missing::has("etcd") && missing::has("etcdctl");
    if !there {
        missing::not_tested(what, "etcd is missing (Debian: etcd-server, etcd-client)");
    }
    there
}

/// One server. Dropping it kills it.
#[derive(Debug)]
pub struct Etcd {
    /// Its client URL.
    pub url: String,
    host: Option<Host>,
    data: TempDir,
    args: Vec<String>,
    child: Option<Child>,
    ctl: Vec<String>,
}

/// Certificates of servers and clients, and of who signed them.
#[derive(Debug)]
pub struct Certificates {
    folder: TempDir,
}

impl Etcd {
    /// A server on the lab's own network, which all hosts reach at this address. Not started.
    pub fn at(address: Ipv4Addr) -> Result<Self> {
        let url = format!("http://{address}:2379");
        let (args, ctl) = (vec!["--log-level=error".to_owned()], Vec::new());
        Ok(Self {
            url,
            host: None,
            data: tempfile::tempdir()?,
            args,
            child: None,
            ctl,
        })
    }

    /// A cluster of servers, one on the loopback address of each host. Started.
    pub fn on_each(hosts: &[Host]) -> Result<Vec<Self>> {
        let peer = |host: &Host| format!("http://{}:2380", host.ip);
        let named = |host: &Host| format!("{}={}", host.name, peer(host));
        let all: Vec<_> = hosts.iter().map(named).collect();
        let server = |host: &Host| {
            let mut server = Self::at(Ipv4Addr::LOCALHOST)?;
            server.host = Some(host.clone());
            server.args.extend([
                format!("--name={}", host.name),
                format!("--listen-peer-urls={}", peer(host)),
                format!("--initial-advertise-peer-urls={}", peer(host)),
                format!("--initial-cluster={}", all.join(",")),
            ]);
            server.spawn()?;
            Ok(server)
        };
        let servers: Vec<Self> = hosts.iter().map(server).collect::<Result<_>>()?;
        servers.iter().try_for_each(Self::healthy)?;
        Ok(servers)
    }

    /// Has the server speak TLS, and only with clients whose certificate it knows.
    pub fn with_client_certificates(&mut self, certificates: &Certificates) {
        let file = |name: &str| certificates.path(name).display().to_string();
        self.url = self.url.replace("http://", "https://");
        self.args.extend([
            "--client-cert-auth".to_owned(),
            format!("--trusted-ca-file={}", file("ca.pem")),
            format!("--cert-file={}", file("server.pem")),
            format!("--key-file={}", file("server.key")),
        ]);
        self.ctl.extend([
            format!("--cacert={}", file("ca.pem")),
            format!("--cert={}", file("root.pem")),
            format!("--key={}", file("root.key")),
        ]);
    }

    /// Starts it with what it had.
    pub fn start(&mut self) -> Result<()> {
        self.spawn()?;
        self.healthy()
    }

    fn spawn(&mut self) -> Result<()> {
        let mut command = Command::new("etcd");
        command
            .arg(format!("--data-dir={}", self.data.path().display()))
            .arg(format!("--listen-client-urls={}", self.url))
            .arg(format!("--advertise-client-urls={}", self.url))
            .args(&self.args);
        let mut command = match &self.host {
            Some(host) => host.command_like(&command),
            None => command,
        };
        let log = std::fs::File::create(self.data.path().with_extension("log"))?;
        command.stdin(Stdio::null()).stdout(log.try_clone()?);
        self.child = Some(command.stderr(log).spawn().context("etcd")?);
        Ok(())
    }

    fn healthy(&self) -> Result<()> {
        until(HEALTHY, "etcd is healthy", || {
            Ok(self.ctl(&["endpoint", "health"])?.code == 0)
        })
        .map(drop)
    }

    /// Kills it, as a power cut would.
    pub fn kill(&mut self) -> Result<()> {
        if let Some(mut child) = self.child.take() {
            child.kill()?;
            child.wait()?;
        }
        Ok(())
    }

    /// Has it start with nothing the next time.
    pub fn forget(&mut self) -> Result<()> {
        self.kill()?;
        self.data = tempfile::tempdir()?;
        Ok(())
    }

    /// Makes these users, each `name:password`, switches authentication on, and is `root` from then
    /// on. All of them may do everything.
    pub fn protect(&mut self, users: &[&str]) -> Result<()> {
        for user in users {
            let name = user.split(':').next().unwrap_or(user);
            self.ctl(&["user", "add", user])?.ok()?;
            self.ctl(&["user", "grant-role", name, "root"])?.ok()?;
        }
        self.ctl(&["auth", "enable"])?.ok()?;
        self.ctl.push(format!("--user={}", users[0]));
        Ok(())
    }

    /// `etcdctl ARGS`.
    pub fn ctl(&self, args: &[&str]) -> Result<Output> {
        let mut command = Command::new("etcdctl");
        command.env("ETCDCTL_API", "3");
        command.arg(format!("--endpoints={}", self.url));
        command.args(&self.ctl).args(args);
        process::run(&mut match &self.host {
            Some(host) => host.command_like(&command),
            None => command,
        })
    }

    /// All keys below a directory.
    pub fn keys(&self, directory: &str) -> Result<Vec<String>> {
        let output = self.ctl(&["get", directory, "--prefix", "--keys-only"])?;
        let lines = output.ok()?.stdout;
        let keys = lines.lines().filter(|line| !line.is_empty());
        Ok(keys.map(str::to_owned).collect())
    }
}

impl Drop for Etcd {
    fn drop(&mut self) {
        let _ = self.kill();
    }
}

impl Certificates {
    /// A certificate `server` for this address, and one for each of these clients.
    pub fn new(address: Ipv4Addr, clients: &[&str]) -> Result<Self> {
        let folder = tempfile::tempdir()?;
        let made = Self { folder };
        let mut authority = rcgen::CertificateParams::new(Vec::new())?;
        authority.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let key = rcgen::KeyPair::generate()?;
        let issuer = rcgen::CertifiedIssuer::self_signed(authority, key)?;
        made.write("ca.pem", &issuer.pem())?;
        made.sign(&issuer, "server", vec![address.to_string()])?;
        for client in clients {
            made.sign(&issuer, client, Vec::new())?;
        }
        Ok(made)
    }

    fn sign(
        &self,
        issuer: &rcgen::CertifiedIssuer<'_, rcgen::KeyPair>,
        name: &str,
        addresses: Vec<String>,
    ) -> Result<()> {
        let mut params = rcgen::CertificateParams::new(addresses)?;
        params.distinguished_name = rcgen::DistinguishedName::new();
        params
            .distinguished_name
            .push(rcgen::DnType::CommonName, name);
        params.extended_key_usages = vec![
            rcgen::ExtendedKeyUsagePurpose::ClientAuth,
            rcgen::ExtendedKeyUsagePurpose::ServerAuth,
        ];
        let key = rcgen::KeyPair::generate()?;
        self.write(
            &format!("{name}.pem"),
            &params.signed_by(&key, issuer)?.pem(),
        )?;
        self.write(&format!("{name}.key"), &key.serialize_pem())
    }

    fn write(&self, name: &str, text: &str) -> Result<()> {
        Ok(std::fs::write(self.path(name), text)?)
    }

    /// Where one is.
    pub fn path(&self, name: &str) -> PathBuf {
        let folder: &Path = self.folder.path();
        folder.join(name)
    }
}
