//! Reading what storage held at start, and refusing what cannot be used.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use rand::RngExt;
use rand::rngs::SmallRng;

use crate::clock::Clock;
use crate::config::{Config, META_TABLE, Restored};
use crate::error::RestoreError;
use crate::identity::{BootId, ClusterId, Identity, SiteId};
use crate::input::Write;
use crate::name::NodeName;
use crate::table::merged::{MEMBERS, Merged, Row, TableId, TableSpec, Wins};

/// Format of the meta table and of stored rows.
const FORMAT: u16 = 1;

/// Most members, live and gone; far above any full mesh that makes sense.
const MEMBERS_MAX: usize = 4_096;

/// Longest row of the member table, bytes: a name and a few numbers.
const MEMBER_BYTES_MAX: usize = 1_024;

const META_FORMAT: &[u8] = b"format";
const META_SITE: &[u8] = b"site";
const META_NAME: &[u8] = b"name";
const META_CLUSTER: &[u8] = b"cluster";
const META_JOINING: &[u8] = b"joining";

/// Prefix of the keys that hold since when a member is down, followed by its site id.
const META_DOWN: &[u8] = b"down/";

/// What a node starts from.
pub(crate) struct Start {
    pub(crate) own: Identity,
    pub(crate) tables: BTreeMap<TableId, Arc<Merged>>,
    pub(crate) down_since: BTreeMap<SiteId, u64>,
    /// What is to be written before anything else.
    pub(crate) writes: Vec<Write>,
}

/// The member table's description.
pub(crate) fn members_spec() -> TableSpec {
    TableSpec {
        id: MEMBERS,
        name: "members",
        rows_max: MEMBERS_MAX,
        value_bytes_max: MEMBER_BYTES_MAX,
        keep_on_leave: false,
        // A version grows with each change of a site's membership, and so does its stamp.
        wins: Wins::Later,
    }
}

fn meta(key: &[u8], value: &[u8]) -> Write {
    Write::Put {
        table: META_TABLE.to_owned(),
        key: Bytes::copy_from_slice(key),
        value: Bytes::copy_from_slice(value),
    }
}

fn meta_delete(key: &[u8]) -> Write {
    Write::Delete {
        table: META_TABLE.to_owned(),
        key: Bytes::copy_from_slice(key),
    }
}

/// Records which cluster the node belongs to.
pub(crate) fn write_cluster(cluster: ClusterId) -> Write {
    meta(META_CLUSTER, &cluster.0)
}

/// Marks that staging tables hold part of a copy, so that the next start clears them.
pub(crate) fn write_joining() -> Write {
    meta(META_JOINING, b"1")
}

/// Takes the mark of [`write_joining`] away.
pub(crate) fn delete_joining() -> Write {
    meta_delete(META_JOINING)
}

fn down_key(site: SiteId) -> Vec<u8> {
    [META_DOWN, &site.0].concat()
}

/// Records since when a member is down.
pub(crate) fn write_down(site: SiteId, wall_ms: u64) -> Write {
    meta(&down_key(site), &wall_ms.to_be_bytes())
}

/// Forgets since when a member is down.
pub(crate) fn delete_down(site: SiteId) -> Write {
    meta_delete(&down_key(site))
}

/// Name of the storage table a joining node copies `table` into.
pub(crate) fn staging(table: &str) -> String {
    format!("staging/{table}")
}

pub(crate) fn read(
    config: &Config,
    restored: Restored,
    clock: &Clock,
    rng: &mut SmallRng,
) -> Result<Start, RestoreError> {
    let found: BTreeMap<Bytes, Bytes> = restored.meta.into_iter().collect();
    check(config, &found)?;
    let site = fixed(&found, META_SITE)?.map_or_else(|| SiteId(rng.random()), SiteId);
    let cluster = fixed(&found, META_CLUSTER)?.map_or_else(|| ClusterId(rng.random()), ClusterId);
    let own = Identity {
        name: config.name.clone(),
        site,
        boot: BootId(rng.random()),
        cluster,
        cluster_name: config.cluster_name.clone(),
        listen_port: config.listen_port,
    };
    let tables = read_tables(config, restored.rows, clock)?;
    let mut writes = Vec::new();
    if found.is_empty() {
        writes.push(meta(META_FORMAT, &FORMAT.to_be_bytes()));
        writes.push(meta(META_SITE, &site.0));
        writes.push(meta(META_NAME, config.name.as_str().as_bytes()));
        writes.push(write_cluster(cluster));
    }
    if found.contains_key(META_JOINING) {
        // The node stopped in the middle of a join, before its swap: the old state stands.
        tracing::warn!("unfinished_join_discarded");
        let names = tables.values().map(|table| staging(table.spec().name));
        writes.extend(names.map(|table| Write::Clear { table }));
        writes.push(delete_joining());
    }
    Ok(Start {
        own,
        tables,
        down_since: read_down(&found),
        writes,
    })
}

fn check(config: &Config, found: &BTreeMap<Bytes, Bytes>) -> Result<(), RestoreError> {
    if found.is_empty() {
        return Ok(());
    }
    let format = fixed(found, META_FORMAT)?.map_or(0, u16::from_be_bytes);
    if format > FORMAT {
        return Err(RestoreError::Format {
            found: format,
            known: FORMAT,
        });
    }
    let name = found
        .get(META_NAME)
        .and_then(|name| std::str::from_utf8(name).ok());
    let name = name
        .and_then(|name| NodeName::parse(name).ok())
        .ok_or_else(|| damaged(META_TABLE))?;
    if name != config.name {
        let cure = format!(
            "set node.name = \"{name}\" again, or move the data directory away to start '{}' \
             as a new node",
            config.name
        );
        return Err(RestoreError::OtherName {
            found: name,
            configured: config.name.clone(),
            cure,
        });
    }
    Ok(())
}

fn damaged(table: &str) -> RestoreError {
    RestoreError::Damaged {
        table: table.to_owned(),
    }
}

fn fixed<const N: usize>(
    found: &BTreeMap<Bytes, Bytes>,
    key: &[u8],
) -> Result<Option<[u8; N]>, RestoreError> {
    let Some(value) = found.get(key) else {
        // All of them are written in one batch, so one alone cannot be missing.
        return if found.is_empty() {
            Ok(None)
        } else {
            Err(damaged(META_TABLE))
        };
    };
    value
        .as_ref()
        .try_into()
        .map(Some)
        .map_err(|_| damaged(META_TABLE))
}

fn read_down(found: &BTreeMap<Bytes, Bytes>) -> BTreeMap<SiteId, u64> {
    let entry = |(key, value): (&Bytes, &Bytes)| {
        let site = key.strip_prefix(META_DOWN)?.try_into().ok()?;
        Some((
            SiteId(site),
            u64::from_be_bytes(value.as_ref().try_into().ok()?),
        ))
    };
    found.iter().filter_map(entry).collect()
}

fn read_tables(
    config: &Config,
    rows: Vec<(TableId, Bytes, Bytes)>,
    clock: &Clock,
) -> Result<BTreeMap<TableId, Arc<Merged>>, RestoreError> {
    let specs = std::iter::once(members_spec()).chain(config.tables.iter().copied());
    let tables: BTreeMap<_, _> = specs
        .map(|spec| (spec.id, Arc::new(Merged::new(spec))))
        .collect();
    for (id, key, stored) in rows {
        // A table this release does not have was made by another one; its rows stay on disk.
        let Some(table) = tables.get(&id) else {
            continue;
        };
        let row = Row::decode(&stored).ok_or_else(|| damaged(table.spec().name))?;
        clock.restore(row.stamp.hlc);
        table.restore(&key, &row);
    }
    Ok(tables)
}
