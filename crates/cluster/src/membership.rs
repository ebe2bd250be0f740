//! The member table: who belongs to the cluster.
//!
//! One row per site, live or gone, in the merged table [`crate::MEMBERS`]; gone rows stay, so that
//! a removed site that returns is told. Liveness is not membership and is never stored here.

use std::collections::BTreeMap;

use bytes::Bytes;
use rand::RngExt;
use serde::{Deserialize, Serialize};

use crate::identity::SiteId;
use crate::input::{Effect, Write};
use crate::link::Hello;
use crate::name::NodeName;
use crate::node::Cluster;
use crate::peer::Neighbour;
use crate::restore;
use crate::table::merged::{MEMBERS, Merged};

/// Whether a site belongs to the cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Membership {
    /// It does.
    Member,
    /// It left or was removed.
    Gone,
}

/// One row of the member table.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Member {
    /// The node's name, which is also its address.
    pub name: NodeName,
    /// Whether it belongs to the cluster.
    pub state: Membership,
    /// How often this site's membership changed; a rejoin is a later version than the removal.
    pub version: u64,
}

impl Member {
    /// The stored and replicated form.
    pub fn encode(&self) -> Bytes {
        // Serialising plain data into a Vec cannot fail.
        postcard::to_stdvec(self).unwrap_or_default().into()
    }

    /// Reads the stored form.
    pub fn decode(value: &[u8]) -> Option<Self> {
        postcard::from_bytes(value).ok()
    }
}

/// All rows of a member table, by site. A row that cannot be read is no member.
pub(crate) fn members_of(table: &Merged) -> BTreeMap<SiteId, Member> {
    let read = table.read();
    let rows = read.range(&[]);
    rows.filter_map(|(key, value)| Some((SiteId(key.try_into().ok()?), Member::decode(&value)?)))
        .collect()
}

/// The key of a site's row.
pub(crate) fn member_key(site: SiteId) -> Bytes {
    Bytes::copy_from_slice(&site.0)
}

impl Cluster {
    /// All rows of the member table, by site.
    pub(crate) fn members(&self) -> BTreeMap<SiteId, Member> {
        members_of(&self.table(MEMBERS))
    }

    /// One site's row.
    pub(crate) fn member(&self, site: SiteId) -> Option<Member> {
        Member::decode(&self.table(MEMBERS).get(&site.0)?)
    }

    pub(crate) fn is_member(&self, site: SiteId) -> bool {
        self.member(site)
            .is_some_and(|member| member.state == Membership::Member)
    }

    /// The live member of a name, this node included.
    pub(crate) fn member_named(&self, name: &NodeName) -> Option<SiteId> {
        let found = |(site, member): (SiteId, Member)| {
            (member.state == Membership::Member && member.name == *name).then_some(site)
        };
        self.members().into_iter().find_map(found)
    }

    /// Whether there is any member but this node.
    pub(crate) fn has_others(&self) -> bool {
        !self.neighbours.is_empty()
    }

    /// Whether this node does what one live member has to do for all: alone, or the lowest site of
    /// those that live.
    pub fn is_speaker(&self) -> bool {
        let mut alive = self.neighbours.iter().filter(|(_, n)| n.alive);
        alive.all(|(site, _)| self.own.site < *site)
    }

    /// Makes sure that the own row exists; a gone one stays, it has consequences.
    pub(crate) fn write_own_member(&mut self) {
        if self.member(self.own.site).is_none() {
            let own = Member {
                name: self.own.name.clone(),
                state: Membership::Member,
                version: 1,
            };
            self.put(MEMBERS, member_key(self.own.site), Some(own.encode()));
        }
    }

    /// Writes that a site is no member any more.
    pub(crate) fn write_gone(&mut self, site: SiteId) {
        let Some(member) = self.member(site) else {
            return;
        };
        let gone = Member {
            state: Membership::Gone,
            version: member.version + 1,
            ..member
        };
        tracing::warn!(node = %gone.name, "member_gone");
        self.put(MEMBERS, member_key(site), Some(gone.encode()));
    }

    /// A node that we take for a member has shown that it is of another cluster: it left while we
    /// could not hear it. Its hello must be later than its membership, as an older one may still be
    /// on its way when a node has just joined us; proven over a connection that began after we knew
    /// of the membership (`since_ms`, monotonic) it is, whatever the clocks show.
    pub(crate) fn note_other_cluster(&mut self, hello: &Hello, since_ms: u64) {
        let site = hello.peer.site;
        if !self.is_member(site) {
            return;
        }
        if let Some(neighbour) = self.neighbours.get_mut(&site)
            && neighbour.member_ms < since_ms
        {
            neighbour.elsewhere = true;
            self.write_gone(site);
        }
    }

    /// Makes the neighbours follow the member table.
    pub(crate) fn refresh_members(&mut self) {
        if !std::mem::take(&mut self.members_changed) || self.operations.is_swapping() {
            return;
        }
        let members = self.members();
        let own = members.get(&self.own.site);
        if own.is_some_and(|own| own.state == Membership::Gone) {
            self.expelled();
        }
        for (site, member) in &members {
            if *site == self.own.site || member.state == Membership::Gone {
                continue;
            }
            let stream = self.rng.random();
            let now = self.now;
            // Others may have told of its life before they told of its membership.
            let alive = self.failure.is_alive(*site);
            let fresh = || Neighbour {
                alive,
                ..Neighbour::new(member.name.clone(), stream, now)
            };
            let neighbour = self.neighbours.entry(*site).or_insert_with(fresh);
            neighbour.name = member.name.clone();
            if neighbour.version != member.version {
                neighbour.version = member.version;
                neighbour.member_ms = now.mono_ms;
            }
        }
        let is_member = |site: &SiteId| {
            members
                .get(site)
                .is_some_and(|member| member.state == Membership::Member)
        };
        let gone: Vec<_> = self
            .neighbours
            .keys()
            .copied()
            .filter(|s| !is_member(s))
            .collect();
        for site in gone {
            self.tell_removed(site);
            self.remove_neighbour(site);
        }
        if self.has_others() && self.operations.standing.is_none() {
            self.discovery.switch_on_again();
        }
        self.dial_members();
    }

    /// Tells the driver of a site that is no member any more, unless it left by itself: then it
    /// wrote that itself. One whose name another site has taken was only replaced.
    pub(crate) fn tell_removed(&mut self, site: SiteId) {
        let Some(row) = self.table(MEMBERS).row(&site.0) else {
            return;
        };
        let member = row.value.as_ref().and_then(|value| Member::decode(value));
        let Some(Member { name, .. }) = member else {
            return;
        };
        if row.stamp.site == site || self.member_named(&name).is_some() {
            return;
        }
        let by = self.member(row.stamp.site).map(|member| member.name);
        self.out.push(Effect::Removed { site, name, by });
    }

    /// Forgets a site that is no member any more. It gets what was already queued for it, which
    /// tells it so, and an acknowledgement of what it said.
    pub(crate) fn remove_neighbour(&mut self, site: SiteId) {
        self.spread_deltas();
        let Some(mut neighbour) = self.neighbours.remove(&site) else {
            return;
        };
        if let Some(conn) = neighbour.conn {
            neighbour.link.flush(conn, &mut self.out);
            self.close(conn);
        }
        if let Some(conn) = neighbour.dialing {
            self.close(conn);
        }
        self.failure.declare_down(self.now.mono_ms, site);
        self.fail_calls_to(site);
        self.forget_down(site);
        let left = neighbour.elsewhere || self.has_left(site);
        self.out.push(Effect::Gone { site, left });
        tracing::info!(node = %neighbour.name, "neighbour_removed");
    }

    /// Whether a site has said itself that it is no member any more.
    fn has_left(&self, site: SiteId) -> bool {
        let Some(row) = self.table(MEMBERS).row(&site.0) else {
            return false;
        };
        let member = row.value.as_ref().and_then(|value| Member::decode(value));
        let gone = member.is_some_and(|member| member.state == Membership::Gone);
        gone && row.stamp.site == site
    }

    /// Forgets since when a member is down.
    pub(crate) fn forget_down(&mut self, site: SiteId) {
        if self.down_since.remove(&site).is_some() {
            let forget: Write = restore::delete_down(site);
            self.writes.push(forget);
        }
    }
}
