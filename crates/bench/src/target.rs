//! The brokers that are measured, and how their clients reach them.

use std::net::{SocketAddr, TcpStream, ToSocketAddrs};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use rustls::pki_types::ServerName;

use crate::access::Access;
use crate::process;

/// A broker that was started has so long until it listens.
const START: Duration = Duration::from_secs(30);
/// And so long to end; Mosquitto takes minutes to free 50,000 queued messages.
const END: Duration = Duration::from_secs(3);
const START_LOOK: Duration = Duration::from_millis(20);
/// No port, scheme and path in front of it: where EMQX listens.
const SCHEMES: [(&str, u16, bool, bool); 7] = [
    ("mqtt", 1883, false, false),
    ("tcp", 1883, false, false),
    ("mqtts", 8883, true, false),
    ("ssl", 8883, true, false),
    ("tls", 8883, true, false),
    ("ws", 8083, false, true),
    ("wss", 8084, true, true),
];
const PATH: &str = "/mqtt";
/// Ctrl-C on the terminal is for us, not for the brokers we started.
const OWN_GROUP: i32 = 0;
/// The target that is the ceiling.
pub(crate) const NULL: &str = "null";

/// One broker, or a cluster of them.
#[derive(Debug)]
pub(crate) struct Target {
    pub(crate) name: String,
    /// Publishers connect to the first, subscribers to the others in turn; mostly there is one.
    endpoints: Vec<Endpoint>,
    /// A broker that this program started, and ends.
    started: Option<Started>,
}

/// One listener of a broker.
#[derive(Clone, Debug)]
pub(crate) struct Endpoint {
    pub(crate) address: SocketAddr,
    pub(crate) tls: Option<Tls>,
    /// Of a WebSocket.
    pub(crate) path: Option<Arc<str>>,
    /// Name and password of the clients.
    pub(crate) access: Arc<Access>,
    pid: Option<u32>,
}

/// What TLS needs.
#[derive(Clone, Debug)]
pub(crate) struct Tls {
    pub(crate) config: Arc<rustls::ClientConfig>,
    pub(crate) name: ServerName<'static>,
}

/// A child process that ends with its target.
#[derive(Debug)]
struct Started(Child);

impl Drop for Started {
    fn drop(&mut self) {
        let pid = rustix::process::Pid::from_child(&self.0);
        let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
        let end = Instant::now() + END;
        while let Ok(None) = self.0.try_wait() {
            if Instant::now() >= end {
                let _ = self.0.kill();
            }
            thread::sleep(START_LOOK);
        }
    }
}

impl Target {
    /// Reads `[NAME=]PLACE[+PLACE]`, a place being `[SCHEME://]HOST[:PORT][/PATH][/PID]`.
    pub(crate) fn parse(word: &str, access: &Arc<Access>) -> anyhow::Result<Self> {
        let (name, places) = match word.split_once('=') {
            Some((name, places)) => (Some(name), places),
            None => (None, word),
        };
        let endpoints = places.split('+').map(|place| endpoint(place, access));
        let mut target = Self {
            name: name.unwrap_or(places).to_owned(),
            endpoints: endpoints.collect::<anyhow::Result<_>>()?,
            started: None,
        };
        target.find_processes();
        if name.is_none()
            && let Some(pid) = target.endpoints[0].pid
            && let Ok(called) = process::name(pid)
        {
            target.name = called;
        }
        Ok(target)
    }

    /// Starts the ceiling as a process of its own, so that its cost can be told from ours.
    pub(crate) fn null(program: &[String], access: &Arc<Access>) -> anyhow::Result<Self> {
        let (first, rest) = program.split_first().context("a program has a name")?;
        let mut child = Command::new(first)
            .args(rest)
            .arg(NULL)
            .stdout(Stdio::piped())
            .stdin(Stdio::null())
            .process_group(OWN_GROUP)
            .spawn()
            .with_context(|| format!("starting {first} for the ceiling"))?;
        let stdout = child.stdout.take().context("its output is ours")?;
        let started = Started(child);
        let mut line = String::new();
        std::io::BufRead::read_line(&mut std::io::BufReader::new(stdout), &mut line)?;
        let mut endpoint = endpoint(line.trim(), access)?;
        endpoint.pid = Some(started.0.id());
        Ok(Self {
            name: NULL.to_owned(),
            endpoints: vec![endpoint],
            started: Some(started),
        })
    }

    /// Starts a broker and waits until it listens.
    pub(crate) fn start(&mut self, command: &str) -> anyhow::Result<()> {
        let address = self.endpoints[0].address;
        ensure!(
            TcpStream::connect(address).is_err(),
            "--start '{command}': somebody listens on {address} already; stop it, or leave \
             --start out to measure it"
        );
        let child = Command::new("sh")
            .args(["-c", &format!("exec {command}")])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .process_group(OWN_GROUP)
            .spawn()
            .context("sh")?;
        let started = self.started.insert(Started(child));
        let begin = Instant::now();
        while TcpStream::connect(address).is_err() {
            if let Some(status) = started.0.try_wait()? {
                bail!("--start '{command}' ended by itself ({status}); try it by hand");
            }
            ensure!(
                begin.elapsed() < START,
                "--start '{command}' does not listen on {address} after {START:?}"
            );
            thread::sleep(START_LOOK);
        }
        let pid = started.0.id();
        self.find_processes();
        self.endpoints[0].pid.get_or_insert(pid);
        Ok(())
    }

    fn find_processes(&mut self) {
        for endpoint in &mut self.endpoints {
            endpoint.pid = endpoint
                .pid
                .or_else(|| process::listening(endpoint.address));
        }
    }

    #[cfg(test)]
    pub(crate) fn at(address: SocketAddr, access: Access) -> Self {
        let access = Arc::new(access);
        let mut endpoint = endpoint(&address.to_string(), &access).expect("an address");
        endpoint.pid = Some(std::process::id());
        Self {
            name: NULL.to_owned(),
            endpoints: vec![endpoint],
            started: None,
        }
    }

    /// Gives a process id to a target of one address.
    pub(crate) fn set_pid(&mut self, pid: u32) {
        if let [endpoint] = self.endpoints.as_mut_slice() {
            endpoint.pid = Some(pid);
        }
    }

    pub(crate) fn for_publishers(&self) -> &Endpoint {
        &self.endpoints[0]
    }

    pub(crate) fn for_subscribers(&self) -> &Endpoint {
        &self.endpoints[self.endpoints.len() - 1]
    }

    /// The place of one of many subscribers.
    pub(crate) fn for_subscriber(&self, index: usize) -> &Endpoint {
        match self.endpoints.as_slice() {
            [only] => only,
            [_, others @ ..] => &others[index % others.len()],
            [] => unreachable!("a target has an address"),
        }
    }

    pub(crate) fn is_cluster(&self) -> bool {
        self.endpoints.len() > 1
    }

    /// Processor time of all processes together, if all are known.
    pub(crate) fn cpu(&self) -> anyhow::Result<Option<Duration>> {
        self.sum(process::cpu)
    }

    /// Resident memory of all processes together, bytes, if all are known.
    pub(crate) fn resident_bytes(&self) -> anyhow::Result<Option<u64>> {
        self.sum(process::resident_bytes)
    }

    fn sum<T: std::iter::Sum>(
        &self,
        of: impl Fn(u32) -> anyhow::Result<T>,
    ) -> anyhow::Result<Option<T>> {
        let pids: Option<Vec<u32>> = self.endpoints.iter().map(|endpoint| endpoint.pid).collect();
        pids.map(|mut pids| {
            // Two listeners of one process are not two processes.
            pids.sort_unstable();
            pids.dedup();
            pids.into_iter().map(of).sum()
        })
        .transpose()
    }
}

impl Endpoint {
    /// Resident memory, bytes, if the process is known.
    pub(crate) fn resident_bytes(&self) -> anyhow::Result<Option<u64>> {
        self.pid.map(process::resident_bytes).transpose()
    }
}

fn endpoint(place: &str, access: &Arc<Access>) -> anyhow::Result<Endpoint> {
    let (scheme, rest) = place.split_once("://").unwrap_or(("mqtt", place));
    let known = SCHEMES.iter().find(|(name, ..)| *name == scheme);
    let &(_, port, is_tls, is_socket) = known.with_context(|| {
        let names: Vec<&str> = SCHEMES.iter().map(|(name, ..)| *name).collect();
        format!("{place}: the scheme is one of {}", names.join(", "))
    })?;
    let (host, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    let (path, pid) = match path.rsplit_once('/') {
        Some((path, last))
            if last.bytes().all(|byte| byte.is_ascii_digit()) && !last.is_empty() =>
        {
            (path, Some(last.parse().context("PID is a number")?))
        }
        _ => (path, None),
    };
    ensure!(
        is_socket || path.is_empty(),
        "{place}: only ws and wss have a path"
    );
    let has_port = host
        .rsplit_once(':')
        .is_some_and(|(_, port)| port.parse::<u16>().is_ok());
    let host_port = if has_port {
        host.to_owned()
    } else {
        format!("{host}:{port}")
    };
    let address = host_port
        .to_socket_addrs()
        .with_context(|| format!("{place} is not [NAME=][SCHEME://]HOST[:PORT]"))?
        .next()
        .with_context(|| format!("{host_port} has no address"))?;
    let tls = if is_tls {
        let name = host_port.rsplit_once(':').map_or(host, |(name, _)| name);
        let name = ServerName::try_from(name.trim_matches(['[', ']']).to_owned())
            .with_context(|| format!("{name} cannot be in a certificate"))?;
        let config = access.tls()?;
        Some(Tls { config, name })
    } else {
        None
    };
    let path = if path.is_empty() { PATH } else { path };
    Ok(Endpoint {
        address,
        tls,
        path: is_socket.then(|| path.into()),
        access: access.clone(),
        pid,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(word: &str) -> anyhow::Result<Target> {
        let access = Access {
            insecure: true,
            ..Access::default()
        };
        Target::parse(word, &Arc::new(access))
    }

    #[test]
    fn a_target_has_one_place_or_two() {
        let target = parse("a=127.0.0.1:1").expect("one place");
        assert!(!target.is_cluster());
        assert!(target.cpu().expect("no process asked").is_none());

        let target = parse("a=127.0.0.1:3/7+127.0.0.1:2/8").expect("two places");
        assert!(target.is_cluster());
        assert_eq!(target.for_publishers().address.port(), 3);
        assert_eq!(target.for_subscribers().address.port(), 2);
    }

    #[test]
    fn a_place_says_how_it_is_reached() {
        for (word, port, is_tls, path) in [
            ("127.0.0.1", 1883, false, None),
            ("mqtt://127.0.0.1:9", 9, false, None),
            ("mqtts://localhost", 8883, true, None),
            ("ws://127.0.0.1:9", 9, false, Some("/mqtt")),
            ("wss://127.0.0.1/a/b", 8084, true, Some("/a/b")),
            ("ws://127.0.0.1:9/a/77", 9, false, Some("/a")),
        ] {
            let target = parse(word).unwrap_or_else(|error| panic!("{word}: {error:#}"));
            let endpoint = target.for_publishers();
            assert_eq!(endpoint.address.port(), port, "{word}");
            assert_eq!(endpoint.tls.is_some(), is_tls, "{word}");
            assert_eq!(endpoint.path.as_deref(), path, "{word}");
        }
        for wrong in ["a=localhost:x", "http://127.0.0.1", "127.0.0.1:9/x"] {
            parse(wrong).expect_err(wrong);
        }
    }

    #[test]
    fn tls_wants_to_know_whom_to_trust() {
        let error = Target::parse("mqtts://127.0.0.1", &Arc::default()).expect_err("no trust");
        assert!(format!("{error:#}").contains("--cacert"), "{error:#}");
    }
}
