//! Looking up who else there is: what the cluster core asks, asked of real services.
//!
//! The core decides what is looked up and what the answer means; one file per service asks it.

mod dns;

use std::time::Duration;

use dunlin_cluster::{DiscoveryError, Lookup, NodeName, Record, Strategy};
use dunlin_config::settings;
use tokio::time::timeout;

pub(crate) use dns::NameServers;

/// Limit on one look-up, whatever it falls back to; the core gives up a little later.
const LOOK_UP_MAX: Duration = Duration::from_secs(3);

/// Most nodes taken from one answer; the core takes fewer.
const FOUND_MAX: usize = 1_000;

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
        settings::Strategy::Dns { name, record_type } => Strategy::LookUp(Lookup::Dns {
            name: name.clone(),
            record: match record_type {
                settings::DnsRecordType::A => Record::A,
                settings::DnsRecordType::Aaaa => Record::Aaaa,
                settings::DnsRecordType::Srv => Record::Srv,
            },
        }),
        _ => Strategy::Manual,
    }
}

/// What a look-up finds, each once.
pub(crate) async fn look_up(
    lookup: &Lookup,
    servers: NameServers,
) -> Result<Vec<String>, DiscoveryError> {
    let of = lookup.service();
    let asked = async {
        match lookup {
            Lookup::Dns { name, record } => dns::look_up(name, *record, servers).await,
            Lookup::Etcd { .. } => Err(DiscoveryError::NotBuilt { of }),
        }
    };
    let ms = LOOK_UP_MAX.as_millis() as u64;
    let result = timeout(LOOK_UP_MAX, asked).await;
    let mut found = result.unwrap_or(Err(DiscoveryError::TimedOut { of, ms }))?;
    found.sort();
    found.dedup();
    found.truncate(FOUND_MAX);
    Ok(found)
}

#[cfg(test)]
mod tests;
