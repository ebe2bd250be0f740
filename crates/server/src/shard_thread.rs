//! One shard's operating system thread: a single-threaded runtime, the shard, its sockets.

use std::collections::BTreeMap;
use std::future::poll_fn;
use std::io;
use std::net::TcpListener;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::thread::{self, JoinHandle};

use bytes::Bytes;
use dunlin_broker::shared::Shared;
use dunlin_broker::{Peering, Shard, ShardId, ToShard};
use dunlin_cluster::Hello;
use tokio::runtime::{Builder, LocalOptions};
use tokio::sync::oneshot;
use tokio::task::AbortHandle;
use tokio::time::Sleep;

use crate::driver::{Driver, Post};
use crate::inbox::Inbox;
use crate::listener::{Listener, accept_clients};
use crate::peer::{self, Detached};
use crate::time;

/// Batches of letters worked off before connections get their turn.
const BATCHES_PER_WAKE: u32 = 4;

/// Tasks polled between two looks at the sockets. The runtime's own 61 would serve a busy
/// publisher six times more often than the kernel is asked for others; larger batches make each
/// write carry more.
const TASKS_PER_LOOK: u32 = 61;

/// What a shard's thread is told.
pub(crate) enum ShardLetter {
    /// For the core.
    Core(ToShard),
    /// Serve a listener's clients on this socket.
    Listen {
        listener: Arc<Listener>,
        socket: TcpListener,
    },
    /// Close a listener's socket here, and end its clients if it was told to stop; answered when
    /// the socket is closed.
    Unlisten {
        id: String,
        done: oneshot::Sender<()>,
    },
    /// Another node's shard dialed this node and proved itself.
    Adopt {
        stream: Detached,
        hello: Box<Hello>,
        unread: Bytes,
    },
    /// End at once.
    Stop,
}

/// A shard's thread.
pub(crate) struct ShardThread {
    pub(crate) inbox: Arc<Inbox<ShardLetter>>,
    handle: JoinHandle<()>,
}

impl ShardThread {
    /// Starts the thread of shard `id`.
    pub(crate) fn start(
        id: ShardId,
        shared: Arc<Shared>,
        peering: Peering,
        post: Post,
        seed: u64,
    ) -> io::Result<Self> {
        let inbox = post.shards[usize::from(id)].clone();
        let runtime = move || {
            Builder::new_current_thread()
                .enable_io()
                .enable_time()
                .event_interval(TASKS_PER_LOOK)
                .build_local(LocalOptions::default())
        };
        let handle =
            thread::Builder::new()
                .name(format!("shard-{id}"))
                .spawn(move || match runtime() {
                    Ok(runtime) => runtime.block_on(async move {
                        let mut shard = Shard::new(id, shared, seed);
                        shard.set_peering(peering);
                        let driver = Driver::new(id, shard, post);
                        Letters::new(driver).run().await;
                    }),
                    Err(error) => tracing::error!(shard = id, reason = %error, "shard_not_started"),
                })?;
        Ok(Self { inbox, handle })
    }

    /// Ends the thread and waits for it; false if it had panicked.
    pub(crate) fn stop(self) -> bool {
        self.inbox.push(ShardLetter::Stop);
        self.handle.join().is_ok()
    }

    /// Whether the thread has ended.
    pub(crate) fn is_finished(&self) -> bool {
        self.handle.is_finished()
    }
}

/// The task that reads the shard's letters and keeps its time.
struct Letters {
    driver: Rc<Driver>,
    waiting: Vec<ShardLetter>,
    listeners: BTreeMap<String, AbortHandle>,
    timer: Pin<Box<Sleep>>,
}

impl Letters {
    fn new(driver: Rc<Driver>) -> Self {
        let timer = Box::pin(tokio::time::sleep(std::time::Duration::ZERO));
        Self {
            driver,
            waiting: Vec::new(),
            listeners: BTreeMap::new(),
            timer,
        }
    }

    async fn run(mut self) {
        poll_fn(|cx| self.poll(cx)).await;
        let inbox = &self.driver.post().shards[usize::from(self.driver.id())];
        inbox.close();
        for accepting in self.listeners.values() {
            accepting.abort();
        }
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        *self.driver.letters.borrow_mut() = Some(cx.waker().clone());
        let inbox = self.driver.post().shards[usize::from(self.driver.id())].clone();
        let mut batches = 0;
        while inbox.poll_take(cx, &mut self.waiting).is_ready() {
            if self.take_batch().is_break() {
                self.driver.post_held();
                return Poll::Ready(());
            }
            batches += 1;
            if batches == BATCHES_PER_WAKE {
                cx.waker().wake_by_ref();
                break;
            }
        }
        self.keep_time(cx);
        self.driver.post_held();
        self.driver.relieve(cx.waker());
        Poll::Pending
    }

    /// Works off what was taken out of the mailbox.
    fn take_batch(&mut self) -> std::ops::ControlFlow<()> {
        let mut core = Vec::new();
        for letter in std::mem::take(&mut self.waiting) {
            match letter {
                ShardLetter::Core(letter) => core.push(letter),
                ShardLetter::Stop => return std::ops::ControlFlow::Break(()),
                shell => self.shell(shell),
            }
        }
        self.driver.letters(core.into_iter());
        std::ops::ControlFlow::Continue(())
    }

    /// A letter that is not for the core. These are rare, and their order against letters for the
    /// core does not matter.
    fn shell(&mut self, letter: ShardLetter) {
        match letter {
            ShardLetter::Listen { listener, socket } => {
                let id = listener.id.clone();
                let accepting = accept_clients(self.driver.clone(), listener, socket);
                let task = tokio::task::spawn_local(accepting);
                self.listeners.insert(id, task.abort_handle());
            }
            ShardLetter::Unlisten { id, done } => {
                if let Some(accepting) = self.listeners.remove(&id) {
                    accepting.abort();
                }
                // Connections of a listener that was told to stop find out when they are woken.
                self.driver.wake_all();
                // The aborted task drops its socket when the runtime next runs it.
                tokio::task::spawn_local(async move {
                    tokio::task::yield_now().await;
                    let _ = done.send(());
                });
            }
            ShardLetter::Adopt {
                stream,
                hello,
                unread,
            } => {
                peer::adopt_data_link(&self.driver, stream, &hello, unread);
            }
            ShardLetter::Core(_) | ShardLetter::Stop => {}
        }
    }

    /// Ticks the shard when it is due and sets the timer for the next time.
    fn keep_time(&mut self, cx: &mut Context<'_>) {
        loop {
            let next_ms = self.driver.tick();
            if next_ms <= time::now().mono_ms {
                // Due again at once; let others run first.
                cx.waker().wake_by_ref();
                return;
            }
            self.timer.as_mut().reset(time::instant(next_ms).into());
            if self.timer.as_mut().poll(cx).is_pending() {
                return;
            }
        }
    }
}
