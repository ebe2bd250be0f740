//! The hosts of a DNS name.
//!
//! The question is asked exactly as it is written, once, within a limit, with the name servers this
//! host has at that moment. For addresses the system's own resolver is asked where the DNS has no
//! answer, so that `/etc/hosts` counts. Nothing is kept from one look-up to the next.

use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;
use std::time::Duration;

use dunlin_cluster::{DiscoveryError, Record, Service};
use hickory_resolver::TokioResolver;
use hickory_resolver::config::{
    ConnectionConfig, NameServerConfig, ResolveHosts, ResolverConfig, ResolverOpts,
};
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::net::{DnsError, NetError};
use hickory_resolver::proto::op::ResponseCode;
use hickory_resolver::proto::rr::{Name, RData, RecordType};
use tokio::net::lookup_host;

/// Limit on one question to one server, and how often it is repeated.
const QUESTION_MAX: Duration = Duration::from_secs(1);
const REPEATS: usize = 1;

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

/// The hosts of these records, in no order.
pub(super) async fn look_up(
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
            of: Service::Dns,
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
