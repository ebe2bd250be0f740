//! How far this node is in step with the others: streams of node state, digests of tables. For
//! operators to read; nothing here decides anything.

use crate::identity::SiteId;
use crate::name::NodeName;
use crate::node::Cluster;

/// The streams between this node and one other member.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StreamStatus {
    /// The member.
    pub site: SiteId,
    /// Its name.
    pub name: NodeName,
    /// The last change of its node state that has arrived here; none before its snapshot has.
    pub has: Option<u64>,
    /// The last change of our node state that it has for certain.
    pub acked: u64,
    /// Frames on the way to it.
    pub unacked_frames: usize,
    /// Their bytes.
    pub unacked_bytes: usize,
}

/// A cluster-state table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TableStatus {
    /// Its name.
    pub name: &'static str,
    /// Rows, without tombstones.
    pub rows: usize,
    /// Equal digests are equal tables, tombstones included.
    pub digest: u64,
}

impl Cluster {
    /// The streams to and from every other member, in the order of their sites.
    pub fn streams(&self) -> Vec<StreamStatus> {
        let row = |(site, neighbour): (&SiteId, &crate::peer::Neighbour)| StreamStatus {
            site: *site,
            name: neighbour.name.clone(),
            has: neighbour.owned_in.has(),
            acked: neighbour.owned_out.acked(),
            unacked_frames: neighbour.link.sender.unacked(),
            unacked_bytes: neighbour.link.sender.unacked_bytes(),
        };
        self.neighbours.iter().map(row).collect()
    }

    /// The cluster-state tables, in the order of their ids.
    pub fn table_statuses(&self) -> Vec<TableStatus> {
        let row = |table: &std::sync::Arc<crate::table::merged::Merged>| TableStatus {
            name: table.spec().name,
            rows: table.len(),
            digest: fold(&table.digests()),
        };
        self.tables.values().map(row).collect()
    }
}

/// One number of many; every bucket has a say (FNV-1a over words).
fn fold(buckets: &[u64]) -> u64 {
    let step = |folded: u64, bucket: &u64| (folded ^ bucket).wrapping_mul(0x0100_0000_01b3);
    buckets.iter().fold(0xcbf2_9ce4_8422_2325, step)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_bucket_and_its_place_count() {
        assert_ne!(fold(&[1, 2]), fold(&[2, 1]));
        assert_ne!(fold(&[0, 0]), fold(&[0]));
        assert_eq!(fold(&[7, 9]), fold(&[7, 9]));
    }
}
