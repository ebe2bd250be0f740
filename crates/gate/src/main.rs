//! Fixed work on the message path, for `cargo xtask gate` to count the instructions of.
//!
//! Counting instructions tells a change of a few per cent on a machine that does something else
//! meanwhile, where a clock cannot. What is counted is what runs inside [`measured`], and nothing
//! else; building the state before it is free. Nothing here may depend on time, chance or the
//! machine: two runs of one build count the same.

#![allow(clippy::print_stdout, reason = "a command line tool talks on stdout")]

mod codec;
mod matching;
mod shards;

use std::hint::black_box;

use anyhow::bail;

/// One piece of work: its name, and what sets it up and does it.
type Work = (&'static str, fn());

const WORK: &[Work] = &[
    ("decode-publish", codec::decode_v3),
    ("decode-publish-v5", codec::decode_v5),
    ("encode-publish", codec::encode_v3),
    ("encode-publish-v5", codec::encode_v5),
    ("match-10", matching::ten),
    ("match-10k", matching::ten_thousand),
    ("match-1m", matching::million),
    ("publish-1-qos0", shards::publish_1_qos0),
    ("publish-1-qos1", shards::publish_1_qos1),
    ("publish-1-qos2", shards::publish_1_qos2),
    ("publish-10-qos1", shards::publish_10_qos1),
    ("publish-1000-qos0", shards::publish_1000_qos0),
    ("handover-shard", shards::handover_shard),
    ("handover-node", shards::handover_node),
];

fn main() -> anyhow::Result<()> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    match words.as_slice() {
        [] => WORK.iter().for_each(|(name, _)| println!("{name}")),
        [wanted] => match WORK.iter().find(|(name, _)| name == wanted) {
            Some((_, work)) => work(),
            None => bail!("there is no work {wanted}; without an argument all are listed"),
        },
        _ => bail!("usage: dunlin-gate [WORK]"),
    }
    Ok(())
}

/// The counter starts and stops with this function; it is known to the tool by its name.
#[inline(never)]
pub(crate) fn measured<T>(work: impl FnOnce() -> T) -> T {
    black_box(work())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_work_can_be_done() {
        // The largest takes a second even without optimisation.
        for (_, work) in WORK {
            work();
        }
    }
}
