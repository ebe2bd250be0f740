//! What drives one shard: it feeds the core its inputs and carries out its effects.
//!
//! All tasks of a shard's thread (connections, data links, the letter loop) share one `Driver`.
//! Each call here borrows the core, hands it the input, dispatches what it wants done, and returns
//! before anything can wait; a borrow never lives across an await. Effects on other connections
//! only wake their tasks, so one wake-up carries everything that came together in the meantime.

use std::cell::{Cell, RefCell, RefMut};
use std::collections::BTreeMap;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use bytes::{Bytes, BytesMut};
use dunlin_broker::control::ControlInput;
use dunlin_broker::{
    Accepted, CloseReason, Conn, PeerConn, Shard, ShardEffects, ShardId, ToControl, ToShard,
};
use dunlin_cluster::{DialError, Hello, Now};
use tokio::io::AsyncWrite;

use crate::control_thread::ControlLetter;
use crate::inbox::Inbox;
use crate::peer::{self, PeerTls};
use crate::proving::Provers;
use crate::shard_thread::ShardLetter;
use crate::time::now;

/// Room offered to one read, in bytes: hundreds of small packets, four of 16 KiB, and it stays in
/// the second-level cache while it is worked on.
const READ_BYTES: usize = 64 * 1024;

/// Incomplete packets up to this size, in bytes, are copied out of the thread's read buffer while
/// their connection waits for the rest; larger ones keep the buffer.
const REST_COPY_BYTES: usize = 4 * 1024;

/// Slices per vectored write; the kernel takes at most 1024, and 64 small packets share a slice.
const SLICES: usize = 64;

/// Letters waiting for one mailbox at which they are posted at once instead of with the next run of
/// the letter loop: enough for one wake-up of the other thread to be worth it, few enough for that
/// thread to begin while this one still reads.
const LETTERS_HELD_MAX: usize = 64;

/// The ways from a node's threads to each other and to other nodes.
#[derive(Clone)]
pub(crate) struct Post {
    pub(crate) shards: Arc<[Arc<Inbox<ShardLetter>>]>,
    pub(crate) control: Arc<Inbox<ControlLetter>>,
    pub(crate) provers: Provers,
    /// How links to other nodes are encrypted; `None` if they are not.
    pub(crate) tls: Option<Arc<PeerTls>>,
}

/// The driver of one shard.
pub(crate) struct Driver {
    id: ShardId,
    post: Post,
    core: RefCell<Core>,
    /// The letter loop; woken when the shard's timer is due earlier than it believes, and when
    /// mailboxes it waits for are emptied.
    pub(crate) letters: RefCell<Option<Waker>>,
    congested: Cell<bool>,
}

struct Core {
    shard: Shard,
    fx: ShardEffects,
    slots: Vec<Slot>,
    peers: BTreeMap<PeerConn, PeerSlot>,
    /// The number of the last data link adopted; odd.
    next_adopted: u32,
    /// Read buffer of whoever reads next.
    spare: BytesMut,
    /// Connections that do not read while a mailbox is full, each once.
    parked: Vec<Conn>,
    /// When the letter loop will tick the shard next, in monotonic milliseconds.
    armed_ms: u64,
    /// The time of the present wake-up of a connection: what it reads and writes then happens at
    /// one time, and clocks are read once for it.
    now: Now,
    /// Letters are held that the letter loop posts when it runs next, which is behind all tasks
    /// that are ready now: what these have for another thread travels together.
    held: bool,
}

/// What the driver knows about a client connection.
#[derive(Default)]
struct Slot {
    waker: Option<Waker>,
    close: Option<CloseReason>,
    paused: bool,
    /// Bytes the connection holds are to be offered to the shard again.
    retry: bool,
    /// It waits until no mailbox is full.
    parked: bool,
}

/// What the driver knows about a data link.
#[derive(Default)]
struct PeerSlot {
    waker: Option<Waker>,
    close: bool,
}

/// How a write went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Written {
    /// Nothing was waiting.
    Nothing,
    /// The stream took everything.
    All,
    /// The stream is full. `some`: it took part.
    Stalled { some: bool },
}

impl Driver {
    pub(crate) fn new(id: ShardId, shard: Shard, post: Post) -> Rc<Self> {
        let fx = ShardEffects::new(post.shards.len() as u16);
        Rc::new(Self {
            id,
            post,
            core: RefCell::new(Core {
                shard,
                fx,
                slots: Vec::new(),
                peers: BTreeMap::new(),
                next_adopted: 1,
                spare: BytesMut::new(),
                parked: Vec::new(),
                armed_ms: u64::MAX,
                now: now(),
                held: false,
            }),
            letters: RefCell::new(None),
            congested: Cell::new(false),
        })
    }

    pub(crate) fn id(&self) -> ShardId {
        self.id
    }

    pub(crate) fn post(&self) -> &Post {
        &self.post
    }

    // --- clients ---

    /// A client connected.
    pub(crate) fn accept(self: &Rc<Self>, info: Accepted) -> Conn {
        let mut core = self.core.borrow_mut();
        let conn = core.shard.accept(now(), info);
        let index = conn.0 as usize;
        if index >= core.slots.len() {
            core.slots.resize_with(index + 1, Slot::default);
        }
        core.slots[index] = Slot::default();
        self.rearm(&mut core);
        conn
    }

    /// A connection was woken: notes the time, and whom to wake next.
    pub(crate) fn attach(&self, conn: Conn, waker: &Waker) {
        let mut core = self.core.borrow_mut();
        core.now = now();
        match &mut core.slot(conn).waker {
            Some(known) => known.clone_from(waker),
            none => *none = Some(waker.clone()),
        }
    }

    /// Why the shard wants the connection closed, if it does.
    pub(crate) fn close_wanted(&self, conn: Conn) -> Option<CloseReason> {
        self.core.borrow_mut().slot(conn).close
    }

    /// Whether the connection may read now. If not, it is woken when it may.
    pub(crate) fn may_read(&self, conn: Conn) -> bool {
        let mut core = self.core.borrow_mut();
        if core.slot(conn).paused {
            return false;
        }
        if self.congested.get() {
            if !std::mem::replace(&mut core.slot(conn).parked, true) {
                core.parked.push(conn);
            }
            return false;
        }
        true
    }

    /// Whether bytes held back are to be offered again; says so once.
    pub(crate) fn take_retry(&self, conn: Conn) -> bool {
        std::mem::take(&mut self.core.borrow_mut().slot(conn).retry)
    }

    /// A buffer to read into that begins with the incomplete packet `rest`.
    pub(crate) fn lend_buffer(&self, rest: &mut BytesMut) -> BytesMut {
        let mut buf = if rest.len() > REST_COPY_BYTES {
            std::mem::take(rest)
        } else {
            let mut spare = std::mem::take(&mut self.core.borrow_mut().spare);
            spare.clear();
            spare.reserve(READ_BYTES);
            spare.extend_from_slice(rest);
            *rest = BytesMut::new();
            spare
        };
        buf.reserve(READ_BYTES - REST_COPY_BYTES);
        buf
    }

    /// Takes a lent buffer back; bytes still in it go to `rest`.
    pub(crate) fn return_buffer(&self, mut buf: BytesMut, rest: &mut BytesMut) {
        if buf.len() > REST_COPY_BYTES {
            *rest = buf;
            return;
        }
        *rest = BytesMut::new();
        rest.extend_from_slice(&buf);
        buf.clear();
        self.core.borrow_mut().spare = buf;
    }

    /// Bytes of a client; complete packets are taken out of `buf`.
    pub(crate) fn receive(self: &Rc<Self>, conn: Conn, buf: &mut BytesMut) {
        let mut guard = self.core.borrow_mut();
        let core = &mut *guard;
        core.shard.receive(core.now, conn, buf, &mut core.fx);
        self.dispatch(guard, Some(conn));
    }

    /// Bytes waiting for a client.
    pub(crate) fn waiting_bytes(&self, conn: Conn) -> usize {
        self.core
            .borrow_mut()
            .shard
            .output(conn)
            .map_or(0, |output| output.len())
    }

    /// Writes what waits for a client.
    pub(crate) fn write<S: AsyncWrite + Unpin>(
        self: &Rc<Self>,
        conn: Conn,
        stream: &mut S,
        cx: &mut Context<'_>,
    ) -> io::Result<Written> {
        let mut guard = self.core.borrow_mut();
        let core = &mut *guard;
        let Some(output) = core.shard.output(conn).filter(|output| !output.is_empty()) else {
            return Ok(Written::Nothing);
        };
        let mut some = false;
        while !output.is_empty() {
            let written = if let Some(whole) = output.whole() {
                Pin::new(&mut *stream).poll_write(cx, whole)
            } else {
                let mut slices = [IoSlice::new(&[]); SLICES];
                let count = output.slices(&mut slices);
                Pin::new(&mut *stream).poll_write_vectored(cx, &slices[..count])
            };
            match written {
                Poll::Ready(Ok(0)) => return Err(io::ErrorKind::WriteZero.into()),
                Poll::Ready(Ok(bytes)) => output.wrote(bytes),
                Poll::Ready(Err(error)) => return Err(error),
                Poll::Pending => return Ok(Written::Stalled { some }),
            }
            some = true;
        }
        core.shard.writable_drained(core.now, conn, &mut core.fx);
        self.dispatch(guard, Some(conn));
        Ok(Written::All)
    }

    /// A client's connection ended; its number may be used again.
    pub(crate) fn closed(self: &Rc<Self>, conn: Conn, why: CloseReason) {
        let mut guard = self.core.borrow_mut();
        let core = &mut *guard;
        *core.slot(conn) = Slot::default();
        core.shard.closed(now(), conn, why, &mut core.fx);
        self.dispatch(guard, None);
    }

    /// Wakes every client's task, so that it looks at its listener.
    pub(crate) fn wake_all(&self) {
        for slot in &self.core.borrow().slots {
            if let Some(waker) = &slot.waker {
                waker.wake_by_ref();
            }
        }
    }

    // --- letters and time ---

    /// Letters from other threads.
    pub(crate) fn letters(self: &Rc<Self>, letters: impl Iterator<Item = ToShard>) {
        let mut guard = self.core.borrow_mut();
        let core = &mut *guard;
        let now = now();
        for letter in letters {
            core.shard.message(now, letter, &mut core.fx);
        }
        self.dispatch(guard, None);
    }

    /// Lets the shard do what is due; returns when to do so next, in monotonic milliseconds.
    pub(crate) fn tick(self: &Rc<Self>) -> u64 {
        let mut guard = self.core.borrow_mut();
        let core = &mut *guard;
        let now = now();
        if core.shard.next_tick() <= now.mono_ms {
            core.shard.tick(now, &mut core.fx);
            self.dispatch(guard, None);
            guard = self.core.borrow_mut();
        }
        guard.armed_ms = guard.shard.next_tick();
        guard.armed_ms
    }

    /// Lets parked connections read on once no mailbox is full.
    pub(crate) fn relieve(&self, waker: &Waker) {
        if !self.congested.get() {
            return;
        }
        let boxes = self
            .post
            .shards
            .iter()
            .map(|inbox| inbox.wake_when_emptied(waker));
        let full = boxes.fold(self.post.control.wake_when_emptied(waker), |any, full| {
            any | full
        });
        if !full {
            self.congested.set(false);
            self.core.borrow_mut().unpark();
        }
    }

    // --- data links ---

    /// A data link that was dialed stands.
    pub(crate) fn peer_connected(self: &Rc<Self>, conn: PeerConn) {
        self.with(|core| core.shard.peer_connected(now(), conn, &mut core.fx));
    }

    /// A data link could not be dialed.
    pub(crate) fn peer_dial_failed(self: &Rc<Self>, conn: PeerConn, error: &DialError) {
        self.with(|core| {
            core.shard
                .peer_dial_failed(now(), conn, error, &mut core.fx);
        });
    }

    /// Another node's shard dialed here. Connections it asks for itself have even numbers.
    pub(crate) fn peer_accepted(self: &Rc<Self>, hello: &Hello) -> PeerConn {
        self.with(|core| {
            core.next_adopted = core.next_adopted.wrapping_add(2);
            let conn = PeerConn(core.next_adopted);
            core.peers.insert(conn, PeerSlot::default());
            core.shard.peer_accepted(now(), conn, hello, &mut core.fx);
            conn
        })
    }

    /// Bytes on a data link; complete frames are taken out of `buf`.
    pub(crate) fn peer_received(self: &Rc<Self>, conn: PeerConn, buf: &mut BytesMut) {
        self.with(|core| core.shard.peer_received(now(), conn, buf, &mut core.fx));
    }

    /// A data link ended.
    pub(crate) fn peer_closed(self: &Rc<Self>, conn: PeerConn) {
        self.with(|core| {
            core.peers.remove(&conn);
            core.shard.peer_closed(now(), conn, &mut core.fx);
        });
    }

    /// Moves what waits for a data link to `out`.
    pub(crate) fn peer_output(&self, conn: PeerConn, out: &mut Vec<Bytes>) {
        self.core.borrow_mut().shard.peer_output(conn, out);
    }

    /// Remembers whom to wake for a data link; false if the shard wants it closed.
    pub(crate) fn peer_attach(&self, conn: PeerConn, waker: &Waker) -> bool {
        let mut core = self.core.borrow_mut();
        let slot = core.peers.entry(conn).or_default();
        slot.waker = Some(waker.clone());
        !slot.close
    }

    /// Forgets a data link the shard has forgotten already.
    pub(crate) fn peer_forget(&self, conn: PeerConn) {
        self.core.borrow_mut().peers.remove(&conn);
    }

    /// Whether data links may read now; they too fill mailboxes. If not, they are woken when they
    /// may.
    pub(crate) fn peer_may_read(&self) -> bool {
        !self.congested.get()
    }

    fn with<T>(self: &Rc<Self>, call: impl FnOnce(&mut Core) -> T) -> T {
        let mut core = self.core.borrow_mut();
        let result = call(&mut core);
        self.dispatch(core, None);
        result
    }

    // --- effects ---

    /// Carries out what the shard wants done. `current` is the connection whose task is running: it
    /// looks at its own slot afterwards and is not woken.
    fn dispatch(self: &Rc<Self>, mut guard: RefMut<'_, Core>, current: Option<Conn>) {
        let core = &mut *guard;
        let mut fx = std::mem::take(&mut core.fx);
        core.clients(&mut fx, current);
        for (token, proof) in fx.prove.drain(..) {
            self.post.provers.check(self.id, token, proof);
        }
        self.hold_letters(core, &mut fx);
        core.peers(&mut fx);
        self.rearm(core);
        let dials = std::mem::take(&mut fx.peer_dial);
        core.fx = fx;
        drop(guard);
        for (conn, host, port) in dials {
            tokio::task::spawn_local(peer::dial_data_link(self.clone(), conn, host, port));
        }
        if self.congested.get() {
            self.wake_letters();
        }
    }

    /// Leaves letters to the letter loop, or posts them if they are many.
    fn hold_letters(&self, core: &mut Core, fx: &mut ShardEffects) {
        let most = fx.to_shard.iter().map(|letters| weight(letters)).max();
        let most = most.unwrap_or(0).max(fx.to_control.len());
        if most >= LETTERS_HELD_MAX {
            self.post_letters(fx);
        } else if most > 0 && !core.held {
            core.held = true;
            self.wake_letters();
        }
    }

    /// Posts the letters that are held.
    pub(crate) fn post_held(&self) {
        let mut core = self.core.borrow_mut();
        if std::mem::take(&mut core.held) {
            self.post_letters(&mut core.fx);
        }
    }

    fn post_letters(&self, fx: &mut ShardEffects) {
        for (shard, letters) in fx.to_shard.iter_mut().enumerate() {
            if letters.is_empty() {
                continue;
            }
            let inbox = &self.post.shards[shard];
            inbox.extend(letters.drain(..).map(ShardLetter::Core));
            self.congested.set(self.congested.get() || inbox.is_full());
        }
        if !fx.to_control.is_empty() {
            let letter = |letter: ToControl| ControlLetter::Core(ControlInput::Shard(letter));
            self.post
                .control
                .extend(fx.to_control.drain(..).map(letter));
            self.congested
                .set(self.congested.get() || self.post.control.is_full());
        }
    }

    /// Has the letter loop look at the clock again if the shard wants to tick earlier.
    fn rearm(&self, core: &mut Core) {
        let next = core.shard.next_tick();
        if next < core.armed_ms {
            core.armed_ms = next;
            self.wake_letters();
        }
    }

    fn wake_letters(&self) {
        if let Some(waker) = &*self.letters.borrow() {
            waker.wake_by_ref();
        }
    }
}

/// How much a mailbox gets: a letter of deliveries counts as many as it carries.
fn weight(letters: &[ToShard]) -> usize {
    match letters.last() {
        Some(ToShard::Deliver(deliveries)) => letters.len() - 1 + deliveries.len(),
        _ => letters.len(),
    }
}

impl Core {
    fn slot(&mut self, conn: Conn) -> &mut Slot {
        &mut self.slots[conn.0 as usize]
    }

    /// Has everybody read on.
    fn unpark(&mut self) {
        for conn in std::mem::take(&mut self.parked) {
            let slot = self.slot(conn);
            slot.parked = false;
            if let Some(waker) = &slot.waker {
                waker.wake_by_ref();
            }
        }
        // Data links are few and all of them may have been held up.
        for waker in self.peers.values().filter_map(|slot| slot.waker.as_ref()) {
            waker.wake_by_ref();
        }
    }

    /// Effects on client connections.
    fn clients(&mut self, fx: &mut ShardEffects, current: Option<Conn>) {
        let wake = |slot: &Slot, conn: Conn| {
            if let (Some(waker), false) = (&slot.waker, Some(conn) == current) {
                waker.wake_by_ref();
            }
        };
        for conn in fx.wake.drain(..) {
            wake(&self.slots[conn.0 as usize], conn);
        }
        for (conn, reason) in fx.close.drain(..) {
            let slot = &mut self.slots[conn.0 as usize];
            slot.close.get_or_insert(reason);
            wake(slot, conn);
        }
        for conn in fx.pause.drain(..) {
            self.slots[conn.0 as usize].paused = true;
        }
        for conn in fx.resume.drain(..) {
            let slot = &mut self.slots[conn.0 as usize];
            slot.paused = false;
            slot.retry = true;
            wake(slot, conn);
        }
    }

    /// Effects on data links.
    fn peers(&mut self, fx: &mut ShardEffects) {
        for conn in fx.peer_wake.drain(..) {
            if let Some(waker) = self.peers.get(&conn).and_then(|slot| slot.waker.as_ref()) {
                waker.wake_by_ref();
            }
        }
        for conn in fx.peer_close.drain(..) {
            let slot = self.peers.entry(conn).or_default();
            slot.close = true;
            if let Some(waker) = &slot.waker {
                waker.wake_by_ref();
            }
        }
        for (conn, _, _) in &fx.peer_dial {
            self.peers.insert(*conn, PeerSlot::default());
        }
    }
}
