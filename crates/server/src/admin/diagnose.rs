//! `cluster diagnose`: every step on the way to another node, in the order in which they can fail.
//!
//! Resolving and routing are looked at here, with the functions a dial uses; everything from the
//! dial on is the core's look at the node, which is a join that stops before it changes anything.
//! So what this finds is what a join would find. Each step has a limit, and the whole takes no
//! longer than their sum.

use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

use dunlin_cluster::{Check, Hello, NodeName, Operation, OperationError};
use serde::{Deserialize, Serialize};
use tokio::sync::{mpsc, oneshot};

use super::{Admin, AdminError};
use crate::control_thread::Request;
use crate::peer;

/// Steps of one node that may wait to be shown; there are fewer.
const STEPS_MAX: usize = 32;

/// What the core says that may wait; a look has three steps there.
const CHECKS_MAX: usize = 8;

/// One step.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DiagnosisStep {
    /// The node looked at.
    pub node: String,
    /// `resolve`, `route`, `dial`, `handshake`, `cookie`, `versions`, `cluster name`, `cluster id`,
    /// `clock`, `tls` or `admission`.
    pub step: String,
    /// Whether it went well.
    pub ok: bool,
    /// How long it took, microseconds; none for what was learned by an earlier step.
    pub took_us: Option<u64>,
    /// What was found.
    pub result: String,
}

/// How it ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Diagnosis {
    /// The node looked at.
    pub node: String,
    /// Whether every step went well.
    pub ok: bool,
    /// What is wrong and what to do, or what may be done.
    pub conclusion: String,
    /// All steps.
    pub steps: Vec<DiagnosisStep>,
}

/// Receives the steps as they are done.
pub type DiagnosisSteps = mpsc::Receiver<DiagnosisStep>;

/// Where the steps of one node go.
struct Report {
    node: NodeName,
    live: mpsc::Sender<DiagnosisStep>,
    steps: Vec<DiagnosisStep>,
    since: Instant,
}

impl Report {
    fn say(&mut self, step: &str, ok: bool, took: Option<Duration>, result: String) {
        let step = DiagnosisStep {
            node: self.node.to_string(),
            step: step.to_owned(),
            ok,
            took_us: took.map(|took| took.as_micros() as u64),
            result,
        };
        self.steps.push(step.clone());
        // Whoever watches reads at once, or has gone.
        let _ = self.live.try_send(step);
    }

    /// The time since the last step, and a new start.
    fn lap(&mut self) -> Duration {
        let took = self.since.elapsed();
        self.since = Instant::now();
        took
    }

    fn end(self, ok: bool, conclusion: String) -> Diagnosis {
        Diagnosis {
            node: self.node.to_string(),
            ok,
            conclusion,
            steps: self.steps,
        }
    }
}

impl Admin {
    /// A channel for [`Self::diagnose`].
    pub fn diagnosis_steps() -> (mpsc::Sender<DiagnosisStep>, DiagnosisSteps) {
        mpsc::channel(STEPS_MAX)
    }

    /// Who can be diagnosed without being named: the other members, sorted.
    pub async fn other_members(&self) -> Result<Vec<String>, AdminError> {
        let status = self.cluster_status().await?;
        let others = status.members.into_iter().map(|member| member.node);
        Ok(others.filter(|node| *node != status.self_node).collect())
    }

    /// Looks at a member, or at a node this one might join, step by step.
    pub async fn diagnose(
        &self,
        node: &str,
        live: mpsc::Sender<DiagnosisStep>,
    ) -> Result<Diagnosis, AdminError> {
        let node = self.complete(node)?;
        if node == self.inner.node {
            return Err(OperationError::SelfNode { node }.into());
        }
        let is_member = self.other_members().await?.contains(&node.to_string());
        let mut report = Report {
            node: node.clone(),
            live,
            steps: Vec::new(),
            since: Instant::now(),
        };
        let addresses = match peer::resolve(node.host(), node.port()).await {
            Ok(addresses) => addresses,
            Err(error) => {
                let took = Some(report.lap());
                report.say("resolve", false, took, error.to_string());
                let host = node.host();
                let cure = format!(
                    "'{host}' has no address on this machine: correct the node's name, or make the \
                     name known (DNS, /etc/hosts)"
                );
                return Ok(report.end(false, cure));
            }
        };
        let took = Some(report.lap());
        report.say("resolve", true, took, list(&addresses));
        if let Some(cure) = self.route(&mut report, &addresses) {
            return Ok(report.end(false, cure));
        }
        self.look(report, is_member).await
    }

    /// Which way the system would take; the cure if there is none.
    fn route(&self, report: &mut Report, addresses: &[SocketAddr]) -> Option<String> {
        let ways: Vec<_> = addresses.iter().map(|to| (to.ip(), source(*to))).collect();
        let way = |(to, source): &(IpAddr, std::io::Result<IpAddr>)| match source {
            Ok(from) if from == to => format!("{to} is this machine"),
            Ok(from) => format!("{to} from {from}"),
            Err(error) => format!("{to}: {error}"),
        };
        let text: Vec<_> = ways.iter().map(way).collect();
        let ok = ways.iter().any(|(_, source)| source.is_ok());
        let took = Some(report.lap());
        report.say("route", ok, took, text.join(", "));
        let own_is_loopback = is_loopback(self.inner.node.host());
        let there_is_not = addresses.iter().all(|to| !to.ip().is_loopback());
        if ok && own_is_loopback && there_is_not {
            let text = format!(
                "this node is called {}, where other hosts cannot reach it",
                self.inner.node
            );
            report.say("route back", false, None, text);
            return Some(format!(
                "give this node a name with an address other hosts reach (node.name in emqx.conf), \
                 as {} has",
                report.node
            ));
        }
        (!ok).then(|| "there is no way to that network; check the routes of this host".to_owned())
    }

    async fn look(&self, mut report: Report, is_member: bool) -> Result<Diagnosis, AdminError> {
        let (checks, mut found) = mpsc::channel(CHECKS_MAX);
        let (done, result) = oneshot::channel();
        let target = report.node.clone();
        let op = Operation::Look { target };
        self.inner.send(Request::Look { op, checks, done });
        report.since = Instant::now();
        let mut last = "dial";
        while let Some(check) = found.recv().await {
            last = tell(&mut report, &check);
        }
        let result = result.await.map_err(|_| AdminError::Stopping)?;
        match result {
            Ok(()) => {
                let node = report.node.clone();
                let tls = if self.inner.loaded.settings.links_are_tls() {
                    "both ends use it"
                } else {
                    "neither end uses it"
                };
                report.say("tls", true, None, tls.to_owned());
                let conclusion = if is_member {
                    format!("{node} is a member and can be reached: nothing to do.")
                } else {
                    format!("Nothing stands against 'emqx ctl cluster join {node}'.")
                };
                Ok(report.end(true, conclusion))
            }
            Err(error) => {
                let step = step_of(&error, last);
                let took = Some(report.lap());
                report.say(step, false, took, what(&error));
                Ok(report.end(false, error.to_string()))
            }
        }
    }
}

/// Says what the core found; the step that comes next.
fn tell(report: &mut Report, check: &Check) -> &'static str {
    let took = Some(report.lap());
    match check {
        Check::Dialed => {
            let port = report.node.port();
            report.say("dial", true, took, format!("port {port} accepts"));
            "handshake"
        }
        Check::Proven {
            hello,
            same_cluster,
            own_cluster_name,
            own_wall_ms,
        } => {
            let Hello { peer, .. } = hello.as_ref();
            let text = format!("{} answers, site {}", peer.name, peer.site);
            report.say("handshake", true, took, text);
            report.say("cookie", true, None, "the same".to_owned());
            let (min, max) = hello.versions;
            report.say("versions", true, None, format!("protocol {min} to {max}"));
            let equal = hello.cluster_name == *own_cluster_name;
            if equal {
                report.say("cluster name", true, None, own_cluster_name.clone());
            }
            let id = if *same_cluster {
                format!("{}, ours", hello.cluster)
            } else {
                format!("{}, another cluster than ours", hello.cluster)
            };
            if equal {
                report.say("cluster id", true, None, id);
            }
            let offset_ms = hello.wall_ms as i64 - *own_wall_ms as i64;
            report.since = Instant::now();
            if offset_ms.unsigned_abs() <= dunlin_cluster::JOIN_SKEW_MS && equal {
                report.say("clock", true, None, format!("{offset_ms:+} ms"));
            }
            "admission"
        }
        Check::Admitted => {
            let text = "it would take this node as a member".to_owned();
            report.say("admission", true, took, text);
            "end"
        }
    }
}

/// The step an error belongs to.
fn step_of(error: &OperationError, last: &'static str) -> &'static str {
    use OperationError as E;
    match error {
        E::Unresolvable { .. } => "resolve",
        E::Refused { .. } | E::TimedOut { .. } | E::Unreachable { .. } => "dial",
        E::Tls { .. } | E::TlsMismatch { .. } => "tls",
        E::CookieMismatch { .. } => "cookie",
        E::VersionMismatch { .. } => "versions",
        E::NameMismatch { .. } | E::SelfNode { .. } => "handshake",
        E::ClusterNameMismatch { .. } => "cluster name",
        E::ClockSkew { .. } => "clock",
        E::NameTaken { .. } | E::Singleton { .. } | E::TooLarge { .. } | E::Busy { .. } => {
            "admission"
        }
        _ => last,
    }
}

/// What is wrong, without the cure, which comes last.
fn what(error: &OperationError) -> String {
    let text = error.to_string();
    text.split_once("; ")
        .map_or_else(|| text.clone(), |(what, _)| what.to_owned())
}

fn list(addresses: &[SocketAddr]) -> String {
    let ips: Vec<_> = addresses.iter().map(|to| to.ip().to_string()).collect();
    ips.join(", ")
}

/// The address this machine would send from; asking for it sends nothing.
fn source(to: SocketAddr) -> std::io::Result<IpAddr> {
    let any: SocketAddr = match to {
        SocketAddr::V4(_) => ([0, 0, 0, 0], 0).into(),
        SocketAddr::V6(_) => ([0_u16; 8], 0).into(),
    };
    let socket = UdpSocket::bind(any)?;
    socket.connect(to)?;
    Ok(socket.local_addr()?.ip())
}

fn is_loopback(host: &str) -> bool {
    host == "localhost" || host.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loopback_is_reached_from_itself() {
        let to: SocketAddr = ([127, 0, 0, 1], 4370).into();
        assert_eq!(source(to).expect("loopback is always there"), to.ip());
        assert!(is_loopback("localhost") && is_loopback("::1") && !is_loopback("10.0.0.1"));
    }

    #[test]
    fn the_cure_is_said_once_at_the_end() {
        let node = NodeName::parse("x@h").expect("a node name");
        let error = OperationError::CookieMismatch { node };
        assert_eq!(what(&error), "'x@h' has another cookie");
        assert_eq!(step_of(&error, "dial"), "cookie");
    }
}
