//! Shared subscriptions whose members are on several nodes.

use std::collections::BTreeSet;

use anyhow::{Result, ensure};
use dunlin_tests::node::cluster;

/// Fewer than a member may have unacknowledged, and divided by two members.
const MESSAGES: usize = 40;

#[test]
fn no_message_of_a_group_is_lost_when_the_node_of_a_member_is_killed() -> Result<()> {
    let nodes = cluster(3)?;
    let mut publisher = nodes[0].connect("publisher")?;
    let mut dies = nodes[1].connect("dies")?;
    let mut lives = nodes[2].connect("lives")?;
    for member in [&mut dies, &mut lives] {
        member.subscribe("$share/g/work/#", 1)?;
    }
    for n in 0..MESSAGES {
        publisher.publish("work/x", &n.to_string(), 1, false)?;
    }
    // Neither has acknowledged anything: nobody reads them.
    nodes[1].kill9()?;
    let mut got = BTreeSet::new();
    while got.len() < MESSAGES {
        got.insert(lives.receive_payload()?);
    }
    // What was acknowledged is not given to anybody again.
    publisher.publish("work/x", "last", 1, false)?;
    ensure!(lives.receive_payload()? == "last");
    lives.ping()?;
    ensure!(lives.pending() == 0, "each came once");
    Ok(())
}
