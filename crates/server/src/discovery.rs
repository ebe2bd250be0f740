//! Looking up who else there is: what the cluster core asks of the DNS, done with real packets.
//!
//! The core decides what is looked up and what the answer means. Here the question is asked exactly
//! as it is written, once, within a limit, with the name servers this host has at that moment. For
//! addresses the system's own resolver is asked where the DNS has no answer, so that `/etc/hosts`
//! counts. Nothing is kept from one look-up to the next.

use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;
use std::time::Duration;

use dunlin_cluster::{DiscoveryError, Lookup, NodeName, Record, Strategy};
use dunlin_config::settings;
use hickory_resolver::TokioResolver;
use hickory_resolver::config::{
    ConnectionConfig, NameServerConfig, ResolveHosts, ResolverConfig, ResolverOpts,
};
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::net::{DnsError, NetError};
use hickory_resolver::proto::op::ResponseCode;
use hickory_resolver::proto::rr::{Name, RData, RecordType};
use tokio::net::lookup_host;
use tokio::time::timeout;

/// Limit on one look-up, fallback included; the core gives up a little later.
const LOOK_UP_MAX: Duration = Duration::from_secs(3);

/// Limit on one question to one server, and how often it is repeated.
const QUESTION_MAX: Duration = Duration::from_secs(1);
const REPEATS: usize = 1;

/// Most hosts taken from one answer; the core takes fewer.
const HOSTS_MAX: usize = 1_000;

/// Whom to ask.
#[derive(Clone, Copy, Debug)]
pub(crate) enum NameServers {
    /// Those of `/etc/resolv.conf`.
    OfSystem,
    /// This one, and not the system's resolver after it.
    #[cfg_attr(
        not(test),
        expect(dead_code, reason = "tests bring their own name server")
    )]
    Only(SocketAddr),
}

/// What the cluster core is told of the configured strategy. A strategy that is accepted and not
/// carried out is `manual`, as the warnings about the configuration say.
pub(crate) fn strategy(configured: &settings::Strategy) -> Strategy {
    match configured {
        settings::Strategy::Static { seeds } => {
            // Checked when the configuration was read.
            let seeds = seeds.iter().filter_map(|seed| NodeName::parse(seed).ok());
            Strategy::Static {
                seeds: seeds.collect(),
            }
        }
        settings::Strategy::Dns { name, record_type } => Strategy::Dns {
            name: name.clone(),
            record: match record_type {
                settings::DnsRecordType::A => Record::A,
                settings::DnsRecordType::Aaaa => Record::Aaaa,
                settings::DnsRecordType::Srv => Record::Srv,
            },
        },
        _ => Strategy::Manual,
    }
}

/// The hosts of a look-up, each once.
pub(crate) async fn look_up(
    lookup: &Lookup,
    servers: NameServers,
) -> Result<Vec<String>, DiscoveryError> {
    let Lookup::Dns { name, record } = lookup;
    let ms = LOOK_UP_MAX.as_millis() as u64;
    let result = timeout(LOOK_UP_MAX, hosts_of(name, *record, servers)).await;
    let mut hosts = result.unwrap_or(Err(DiscoveryError::TimedOut { ms }))?;
    hosts.sort();
    hosts.dedup();
    hosts.truncate(HOSTS_MAX);
    Ok(hosts)
}

async fn hosts_of(
    name: &str,
    record: Record,
    servers: NameServers,
) -> Result<Vec<String>, DiscoveryError> {
    let error = match ask(name, record, servers).await {
        Ok(hosts) => return Ok(hosts),
        Err(error) => error,
    };
    if let (NameServers::OfSystem, Record::A | Record::Aaaa) = (servers, record) {
        let hosts = ask_system(name, record).await;
        if !hosts.is_empty() {
            return Ok(hosts);
        }
    }
    Err(error)
}

/// One question to the DNS.
async fn ask(
    name: &str,
    record: Record,
    servers: NameServers,
) -> Result<Vec<String>, DiscoveryError> {
    let unusable = |error: String| DiscoveryError::Unusable {
        name: name.to_owned(),
        error,
    };
    let mut question = Name::from_str(name).map_err(|error| unusable(error.to_string()))?;
    // Exactly this name: no search list.
    question.set_fqdn(true);
    let resolver = resolver(servers).map_err(|error| unusable(error.to_string()))?;
    let record_type = match record {
        Record::A => RecordType::A,
        Record::Aaaa => RecordType::AAAA,
        Record::Srv => RecordType::SRV,
    };
    let answer = resolver
        .lookup(question, record_type)
        .await
        .map_err(|error| failure(name, record, &error))?;
    let hosts: Vec<_> = answer
        .answers()
        .iter()
        .filter_map(|answer| host(&answer.data))
        .collect();
    if hosts.is_empty() {
        let name = name.to_owned();
        return Err(DiscoveryError::NoRecords { name, record });
    }
    Ok(hosts)
}

fn resolver(servers: NameServers) -> Result<TokioResolver, NetError> {
    let mut builder = match servers {
        NameServers::OfSystem => TokioResolver::builder_tokio()?,
        NameServers::Only(address) => {
            let mut connection = ConnectionConfig::udp();
            connection.port = address.port();
            let server = NameServerConfig::new(address.ip(), true, vec![connection]);
            let config = ResolverConfig::from_name_servers(vec![server]);
            TokioResolver::builder_with_config(config, TokioRuntimeProvider::default())
        }
    };
    set(builder.options_mut());
    builder.build()
}

fn set(options: &mut ResolverOpts) {
    options.timeout = options.timeout.min(QUESTION_MAX);
    options.attempts = REPEATS;
    options.use_hosts_file = ResolveHosts::Never;
    options.cache_size = 0;
}

/// The host in a record; targets are written without their last dot.
fn host(data: &RData) -> Option<String> {
    match data {
        RData::A(address) => Some(address.0.to_string()),
        RData::AAAA(address) => Some(address.0.to_string()),
        RData::SRV(service) => {
            let target = service.target.to_ascii();
            let target = target.trim_end_matches('.');
            // "." says that there is no such service.
            (!target.is_empty()).then(|| target.to_owned())
        }
        _ => None,
    }
}

fn failure(name: &str, record: Record, error: &NetError) -> DiscoveryError {
    let name = name.to_owned();
    let refused = |code: ResponseCode, name| DiscoveryError::Refused {
        name,
        code: code.to_string(),
    };
    match error {
        NetError::Timeout => DiscoveryError::TimedOut {
            ms: (QUESTION_MAX * (REPEATS as u32 + 1)).as_millis() as u64,
        },
        NetError::Dns(DnsError::NoRecordsFound(none)) => match none.response_code {
            ResponseCode::NXDomain => DiscoveryError::NoSuchName { name },
            ResponseCode::NoError => DiscoveryError::NoRecords { name, record },
            code => refused(code, name),
        },
        NetError::Dns(DnsError::ResponseCode(code)) => refused(*code, name),
        other => DiscoveryError::Unusable {
            name,
            error: other.to_string(),
        },
    }
}

/// What the system's resolver says, `/etc/hosts` included; nothing if it knows nothing either.
async fn ask_system(name: &str, record: Record) -> Vec<String> {
    let Ok(addresses) = lookup_host((name, 0)).await else {
        return Vec::new();
    };
    let of_kind = |ip: &IpAddr| ip.is_ipv4() == (record == Record::A);
    let ips = addresses.map(|address| address.ip()).filter(of_kind);
    ips.map(|ip| ip.to_string()).collect()
}

#[cfg(test)]
mod tests;
