//! Threads that check stretched passwords, so that no thread which serves clients does.
//!
//! One pool for the node. A check takes tens of milliseconds of a core on purpose; a storm of
//! connections must not take the machine from those who are in. The queue is bounded by what the
//! shards let wait. Must never know a password longer than its check.

use std::io;
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use dunlin_broker::access::{Authentication, Proof};
use dunlin_broker::{ShardId, ToShard};

use crate::inbox::Inbox;
use crate::shard_thread::ShardLetter;

/// Share of the cores that may check passwords at once: one in this many, at least one.
const CORES_PER_THREAD: usize = 2;
/// Checks that wait for a thread. Each shard lets 2,000 clients wait; beyond this many they are
/// told that the server is unavailable.
const QUEUE_MAX: usize = 16_384;

struct Check {
    shard: ShardId,
    token: u64,
    proof: Proof,
}

/// Where shards send checks. The threads end with the last handle.
#[derive(Clone)]
pub(crate) struct Provers {
    queue: SyncSender<Check>,
    shards: Arc<[Arc<Inbox<ShardLetter>>]>,
}

impl Provers {
    /// Starts the threads.
    pub(crate) fn start(shards: Arc<[Arc<Inbox<ShardLetter>>]>) -> io::Result<Self> {
        let cores = thread::available_parallelism().map_or(1, usize::from);
        let (queue, checks) = sync_channel(QUEUE_MAX);
        let checks = Arc::new(Mutex::new(checks));
        for n in 0..(cores / CORES_PER_THREAD).max(1) {
            let (checks, shards) = (checks.clone(), shards.clone());
            thread::Builder::new()
                .name(format!("prover-{n}"))
                .spawn(move || work(&checks, &shards))?;
        }
        Ok(Self { queue, shards })
    }

    /// Has a check made; the shard hears the answer.
    pub(crate) fn check(&self, shard: ShardId, token: u64, proof: Proof) {
        let check = Check {
            shard,
            token,
            proof,
        };
        if let Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) =
            self.queue.try_send(check)
        {
            tracing::warn!(waiting = QUEUE_MAX, "authentication_overloaded");
            answer(&self.shards, shard, token, Authentication::Unavailable);
        }
    }
}

fn work(checks: &Mutex<Receiver<Check>>, shards: &[Arc<Inbox<ShardLetter>>]) {
    loop {
        // The lock is held while waiting: whoever has it takes the next check, the others queue.
        let next = checks.lock().unwrap_or_else(PoisonError::into_inner).recv();
        let Ok(Check {
            shard,
            token,
            proof,
        }) = next
        else {
            return;
        };
        answer(shards, shard, token, proof.run());
    }
}

fn answer(shards: &[Arc<Inbox<ShardLetter>>], shard: ShardId, token: u64, answer: Authentication) {
    let letter = ToShard::Proven { token, answer };
    shards[usize::from(shard)].push(ShardLetter::Core(letter));
}
