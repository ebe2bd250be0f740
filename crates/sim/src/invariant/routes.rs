//! No route leads to a node that is no member. Once things are settled, what a node knows of
//! another one's routes is what that one has.

use std::collections::{BTreeMap, BTreeSet};

use dunlin_broker::node::Node;
use dunlin_cluster::SiteId;

use crate::violation::Violation;
use crate::world::World;

/// A filter and, if it is shared, its group.
type Routed = (String, Option<String>);

pub(super) fn audit(world: &World) -> Result<(), Violation> {
    for host in &world.hosts {
        let Some(node) = host.node() else { continue };
        let members: BTreeSet<SiteId> = node.status().members.iter().map(|m| m.site).collect();
        for (owner, routes) in routes_of(node) {
            let is_member = match owner {
                Owner::Own => true,
                Owner::Site(site) => members.contains(&site),
                Owner::Nobody => false,
            };
            if !is_member {
                let seen = format!(
                    "node {} has routes to {owner:?}, which is no member: {routes:?}",
                    host.index
                );
                return Err(Violation::new("routes", seen));
            }
        }
    }
    Ok(())
}

/// Whose route it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Owner {
    Own,
    Site(SiteId),
    /// A number of the router that stands for no site.
    Nobody,
}

fn routes_of(node: &Node) -> BTreeMap<Owner, BTreeSet<Routed>> {
    let mut routes = Vec::new();
    node.shared().router().read().for_each_route(|route| {
        let routed = (route.filter.to_owned(), route.group.map(str::to_owned));
        routes.push((route.node, routed));
    });
    let mut by_site: BTreeMap<_, BTreeSet<Routed>> = BTreeMap::new();
    for (index, routed) in routes {
        let owner = match index {
            None => Owner::Own,
            Some(index) => node
                .shared()
                .peer_site(index)
                .map_or(Owner::Nobody, Owner::Site),
        };
        by_site.entry(owner).or_default().insert(routed);
    }
    by_site
}

pub(super) fn settled(world: &World) -> Result<(), Violation> {
    let nodes: Vec<(usize, &Node)> = world
        .hosts
        .iter()
        .filter_map(|host| Some((host.index, host.node()?)))
        .collect();
    let routes: Vec<_> = nodes.iter().map(|(_, node)| routes_of(node)).collect();
    for (at, (a, node)) in nodes.iter().enumerate() {
        for (other, (b, owner)) in nodes.iter().enumerate() {
            let site = owner.shared().site();
            let member = node
                .status()
                .members
                .iter()
                .any(|member| member.site == site);
            if at == other || !member {
                continue;
            }
            let own = routes[other].get(&Owner::Own).cloned().unwrap_or_default();
            let known = routes[at]
                .get(&Owner::Site(site))
                .cloned()
                .unwrap_or_default();
            if own != known {
                let missing: Vec<_> = own.difference(&known).collect();
                let ghosts: Vec<_> = known.difference(&own).collect();
                let seen =
                    format!("node {a} misses {missing:?} of node {b} and has ghosts {ghosts:?}");
                return Err(Violation::new("routes", seen));
            }
        }
    }
    Ok(())
}
