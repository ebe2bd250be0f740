//! The brokers that are measured.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::Context;

use crate::process;

/// One broker, or a cluster of them.
#[derive(Clone, Debug)]
pub(crate) struct Target {
    pub(crate) name: String,
    /// Publishers connect to the first, subscribers to the last; mostly they are the same.
    endpoints: Vec<Endpoint>,
}

#[derive(Clone, Copy, Debug)]
struct Endpoint {
    address: SocketAddr,
    pid: Option<u32>,
}

impl Target {
    /// Reads `NAME=IP:PORT[/PID][+IP:PORT[/PID]]`.
    pub(crate) fn parse(word: &str) -> anyhow::Result<Self> {
        let (name, places) = word
            .split_once('=')
            .context("--target NAME=IP:PORT[/PID][+IP:PORT[/PID]]")?;
        let endpoints = places.split('+').map(endpoint);
        Ok(Self {
            name: name.to_owned(),
            endpoints: endpoints.collect::<anyhow::Result<_>>()?,
        })
    }

    #[cfg(test)]
    pub(crate) fn at(address: SocketAddr) -> Self {
        let pid = Some(std::process::id());
        Self {
            name: "null".to_owned(),
            endpoints: vec![Endpoint { address, pid }],
        }
    }

    /// Gives a process id to a target of one address.
    pub(crate) fn set_pid(&mut self, pid: u32) {
        if let [endpoint] = self.endpoints.as_mut_slice() {
            endpoint.pid = Some(pid);
        }
    }

    pub(crate) fn for_publishers(&self) -> SocketAddr {
        self.endpoints[0].address
    }

    pub(crate) fn for_subscribers(&self) -> SocketAddr {
        self.endpoints[self.endpoints.len() - 1].address
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
        pids.map(|pids| pids.into_iter().map(of).sum()).transpose()
    }
}

fn endpoint(place: &str) -> anyhow::Result<Endpoint> {
    let (address, pid) = match place.split_once('/') {
        Some((address, pid)) => (address, Some(pid.parse().context("PID is a number")?)),
        None => (place, None),
    };
    let address = address
        .parse()
        .with_context(|| format!("{address} is not IP:PORT"))?;
    Ok(Endpoint { address, pid })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_target_has_one_place_or_two() {
        let target = Target::parse("a=127.0.0.1:1883").expect("one place");
        assert!(!target.is_cluster());
        assert_eq!(target.for_publishers(), target.for_subscribers());
        assert!(target.cpu().expect("no process asked").is_none());

        let target = Target::parse("a=127.0.0.1:1883/7+127.0.0.1:1882/8").expect("two places");
        assert!(target.is_cluster());
        assert_eq!(target.for_publishers().port(), 1883);
        assert_eq!(target.for_subscribers().port(), 1882);
        for wrong in ["127.0.0.1:1883", "a=localhost:1883", "a=127.0.0.1:1883/x"] {
            Target::parse(wrong).expect_err(wrong);
        }
    }
}
