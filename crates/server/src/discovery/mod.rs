//! Looking up who else there is: what the cluster core asks, asked of real services.
//!
//! The core decides what is looked up and what the answer means; one file per service asks it.

mod dns;
#[cfg(feature = "etcd")]
mod etcd;
#[cfg(feature = "k8s")]
mod k8s;
mod mcast;

use std::net::SocketAddr;
use std::path::Path;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use dunlin_broker::control::ControlInput;
use dunlin_cluster::{
    Discovered, DiscoveryError, K8sAddress, K8sService, Lookup, NodeName, Record, Strategy,
};
use dunlin_config::settings;
use tokio::time::timeout;

use crate::control_thread::ControlLetter;
use crate::inbox::Inbox;

pub(crate) use dns::NameServers;

/// Limit on one look-up, whatever it falls back to; the core gives up a little later.
const LOOK_UP_MAX: Duration = Duration::from_secs(3);

/// Most nodes taken from one answer; the core takes fewer.
const FOUND_MAX: usize = 1_000;

/// Limit on taking this node's entries away when it stops.
const STOP_MAX: Duration = Duration::from_secs(1);

/// Where what happens unasked is reported.
type Report = Rc<dyn Fn(Discovered)>;

/// What the cluster core is told of the configured strategy. A strategy that is accepted and not
/// carried out is `manual`, as the warnings about the configuration say.
pub(crate) fn strategy(configured: &settings::Strategy, cluster_name: &str) -> Strategy {
    match configured {
        settings::Strategy::Static { seeds } => {
            // Checked when the configuration was read.
            let seeds = seeds.iter().filter_map(|seed| NodeName::parse(seed).ok());
            Strategy::Static {
                seeds: seeds.collect(),
            }
        }
        settings::Strategy::Dns { name, record_type } => Strategy::LookUp(Lookup::Dns {
            name: name.clone(),
            record: match record_type {
                settings::DnsRecordType::A => Record::A,
                settings::DnsRecordType::Aaaa => Record::Aaaa,
                settings::DnsRecordType::Srv => Record::Srv,
            },
        }),
        settings::Strategy::Etcd { prefix, .. } => {
            Strategy::LookUp(Lookup::etcd(prefix, cluster_name))
        }
        settings::Strategy::K8s {
            apiserver,
            service_name,
            address_type,
            namespace,
            suffix,
            app_name,
        } => Strategy::LookUp(Lookup::K8s {
            service: K8sService {
                apiserver: apiserver.clone(),
                namespace: namespace.clone(),
                service_name: service_name.clone(),
                address_type: match address_type {
                    settings::K8sAddressType::Ip => K8sAddress::Ip,
                    settings::K8sAddressType::Dns => K8sAddress::Dns,
                    settings::K8sAddressType::Hostname => K8sAddress::Hostname,
                },
                suffix: suffix.clone(),
            },
            short: app_name.clone(),
        }),
        settings::Strategy::Mcast { .. } => Strategy::Multicast,
        _ => Strategy::Manual,
    }
}

/// The services that are asked, as they are configured.
pub(crate) struct Services {
    names: NameServers,
    #[cfg(feature = "etcd")]
    etcd: Option<Rc<etcd::Etcd>>,
    #[cfg(feature = "k8s")]
    k8s: k8s::Kubernetes,
    mcast: Option<Rc<mcast::Mcast>>,
}

impl Services {
    /// `root` is where relative paths begin; what happens unasked goes to `control`.
    pub(crate) fn new(
        configured: &settings::Strategy,
        node: &NodeName,
        root: &Path,
        control: Arc<Inbox<ControlLetter>>,
    ) -> Rc<Self> {
        let report: Report = Rc::new(move |discovered| {
            control.push(ControlLetter::Core(ControlInput::Discovered(discovered)));
        });
        Rc::new(Self {
            names: NameServers::OfSystem,
            #[cfg(feature = "etcd")]
            etcd: etcd(configured, node, root, &report),
            #[cfg(feature = "k8s")]
            k8s: k8s::Kubernetes::new(report.clone()),
            mcast: mcast(configured, &report),
        })
    }

    /// What a look-up finds, each once.
    pub(crate) async fn look_up(&self, lookup: &Lookup) -> Result<Vec<String>, DiscoveryError> {
        let of = lookup.service();
        let ms = LOOK_UP_MAX.as_millis() as u64;
        let result = timeout(LOOK_UP_MAX, self.ask(lookup)).await;
        let mut found = result.unwrap_or(Err(DiscoveryError::TimedOut { of, ms }))?;
        found.sort();
        found.dedup();
        found.truncate(FOUND_MAX);
        Ok(found)
    }

    async fn ask(&self, lookup: &Lookup) -> Result<Vec<String>, DiscoveryError> {
        match lookup {
            Lookup::Dns { name, record } => dns::look_up(name, *record, self.names).await,
            #[cfg(feature = "etcd")]
            Lookup::Etcd { directory } if let Some(etcd) = &self.etcd => {
                etcd.look_up(directory).await
            }
            #[cfg(feature = "k8s")]
            Lookup::K8s { service, .. } => Ok(self.k8s.look_up(service).await?),
            Lookup::Etcd { .. } => Err(DiscoveryError::NotBuilt {
                of: lookup.service(),
            }),
            #[cfg(not(feature = "k8s"))]
            Lookup::K8s { .. } => Err(DiscoveryError::NotBuilt {
                of: lookup.service(),
            }),
        }
    }

    /// Keeps this node's own entry where the look-up finds it, and reports who appears; `None`:
    /// no longer.
    pub(crate) fn follow(&self, lookup: Option<Lookup>) {
        #[cfg(feature = "etcd")]
        if let Some(etcd) = &self.etcd {
            etcd.follow(match &lookup {
                Some(Lookup::Etcd { directory }) => Some(directory.clone()),
                _ => None,
            });
        }
        #[cfg(feature = "k8s")]
        self.k8s.follow(match &lookup {
            Some(Lookup::K8s { service, .. }) => Some(service),
            _ => None,
        });
        // Nothing to keep in the DNS, and it tells nothing unasked.
        drop(lookup);
    }

    /// Sends a datagram to a node, or to the group.
    pub(crate) fn send(&self, to: Option<SocketAddr>, datagram: Bytes) {
        if let Some(mcast) = &self.mcast {
            tokio::task::spawn_local(mcast.clone().send(to, datagram));
        }
    }

    /// Takes this node's own entry away, as the node stops: others need not wait for its end.
    pub(crate) async fn stop(&self) {
        #[cfg(feature = "etcd")]
        if let Some(etcd) = &self.etcd {
            let _ = timeout(STOP_MAX, Box::pin(etcd.clone().stop())).await;
        }
    }
}

#[cfg(feature = "etcd")]
fn etcd(
    configured: &settings::Strategy,
    node: &NodeName,
    root: &Path,
    report: &Report,
) -> Option<Rc<etcd::Etcd>> {
    let settings::Strategy::Etcd {
        servers,
        node_ttl_ms,
        user,
        ssl,
        ..
    } = configured
    else {
        return None;
    };
    let access = etcd::Access {
        servers: servers.clone(),
        ttl: Duration::from_millis(*node_ttl_ms),
        user: user.clone(),
        ssl: ssl.clone(),
        root: root.to_owned(),
    };
    Some(etcd::Etcd::new(access, node.clone(), report.clone()))
}

fn mcast(configured: &settings::Strategy, report: &Report) -> Option<Rc<mcast::Mcast>> {
    let settings::Strategy::Mcast {
        addr,
        ports,
        iface,
        ttl,
        loopback,
        sndbuf,
        recbuf,
        buffer,
    } = configured
    else {
        return None;
    };
    let group = mcast::Group {
        addr: *addr,
        ports: ports.clone(),
        iface: *iface,
        ttl: *ttl,
        loopback: *loopback,
        sndbuf: *sndbuf,
        recbuf: *recbuf,
        buffer: *buffer,
    };
    Some(mcast::Mcast::open(group, report.clone()))
}

#[cfg(test)]
mod tests;
