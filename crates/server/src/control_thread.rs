//! What drives the node-wide core: links to peers, the store, operators' questions, its timer.
//!
//! It runs on the thread the node was started on, beside the HTTP API and the control socket. Like
//! a shard's driver, every call borrows the core, carries out what it wants done, and returns
//! before anything can wait.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::future::poll_fn;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use dunlin_broker::control::{Control, ControlEffects, ControlInput, LinkEffect, NodeInfo};
use dunlin_broker::message::Message;
use dunlin_broker::{Answer, Ask, ShardId, ToShard};
use dunlin_cluster::{
    CallError, Check, ConnId, Discover, Discovered, Hello, Lookup, NodeName, Operation,
    OperationError, Purpose, Status, TableId,
};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, oneshot};
use tokio::task::AbortHandle;
use tokio::time::Sleep;

use crate::admin::{Admin, NodeView, Progress};
use crate::alarm::Alarms;
use crate::discovery::Services;
use crate::driver::Post;
use crate::peer::{self, LinkOutput, PeerStream};
use crate::shard_thread::ShardLetter;
use crate::store::StoreHandle;
use crate::time;

/// Connections accepted from peers that are open at once: all members of the largest cluster with
/// all their data links while they are handed over, and strangers.
const ACCEPTED_MAX: usize = 1024;

/// Hosts whose refusals are remembered; more than a cluster has nodes.
const REFUSALS_MAX: usize = 256;

/// Questions of other nodes answered at once; all members asking at the same time are fewer.
const ANSWERING_MAX: usize = 128;

/// Pause after the system had no more sockets to give.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Reads of a link in a row before other tasks get their turn.
const READS_PER_WAKE: u32 = 4;

/// What the control thread is told.
pub(crate) enum ControlLetter {
    /// For the core.
    Core(ControlInput),
    /// An operator's question.
    Ask(Request),
}

/// Operators' questions and what carries their answers.
pub(crate) enum Request {
    Status(oneshot::Sender<Status>),
    Nodes(oneshot::Sender<Vec<(NodeName, bool, Option<NodeInfo>)>>),
    /// What this node sees of the cluster.
    View(oneshot::Sender<NodeView>),
    /// To another node.
    Call {
        node: NodeName,
        payload: Bytes,
        timeout_ms: u64,
        done: oneshot::Sender<Result<Bytes, CallError>>,
    },
    Operation {
        op: Operation,
        progress: Progress,
        done: oneshot::Sender<Result<(), OperationError>>,
    },
    /// An operation that looks at another node, step by step.
    Look {
        op: Operation,
        checks: mpsc::Sender<Check>,
        done: oneshot::Sender<Result<(), OperationError>>,
    },
    Put {
        table: TableId,
        key: Bytes,
        value: Option<Bytes>,
        done: oneshot::Sender<Result<(), String>>,
    },
    /// A `Put` that does nothing if the table has rows.
    PutFirst {
        table: TableId,
        key: Bytes,
        value: Bytes,
        done: oneshot::Sender<Result<(), String>>,
    },
    /// To every shard; answered when all have.
    AskAll {
        what: Ask,
        done: oneshot::Sender<Vec<Answer>>,
    },
    /// To one shard.
    AskShard {
        shard: ShardId,
        what: Ask,
        done: oneshot::Sender<Vec<Answer>>,
    },
    /// Routed by one shard.
    Publish {
        message: Message,
        done: oneshot::Sender<Vec<Answer>>,
    },
}

/// The driver of control.
pub(crate) struct ControlDriver {
    post: Post,
    store: StoreHandle,
    alarms: Arc<Alarms>,
    services: Rc<Services>,
    core: RefCell<Core>,
    letters: RefCell<Option<Waker>>,
    admin: RefCell<Option<Admin>>,
    answering: Cell<usize>,
}

struct Core {
    control: Control,
    fx: ControlEffects,
    links: BTreeMap<ConnId, Link>,
    next_accepted: u64,
    accepted: usize,
    pending: Pending,
    armed_ms: u64,
    drained: usize,
    drain_waker: Option<Waker>,
    ready_waker: Option<Waker>,
    refusals: Refusals,
}

/// What was said last about hosts whose connections TLS refuses: they try again every second, and
/// what lasts is said once.
#[derive(Default)]
struct Refusals(BTreeMap<IpAddr, String>);

impl Refusals {
    fn note(&mut self, from: IpAddr, result: Result<(), String>) {
        let Err(reason) = result else {
            self.0.remove(&from);
            return;
        };
        if self.0.get(&from) == Some(&reason) {
            return;
        }
        tracing::warn!(%from, reason, "peer_tls_refused");
        if self.0.len() >= REFUSALS_MAX {
            self.0.clear();
        }
        self.0.insert(from, reason);
    }
}

/// A connection of the control plane.
#[derive(Default)]
struct Link {
    output: LinkOutput,
    waker: Option<Waker>,
    dialing: Option<AbortHandle>,
    close: bool,
    hand_off: Option<(Hello, Bytes)>,
}

/// Who waits for what.
#[derive(Default)]
struct Pending {
    next: u64,
    operations: BTreeMap<u64, (Progress, oneshot::Sender<Result<(), OperationError>>)>,
    looks: BTreeMap<u64, mpsc::Sender<Check>>,
    durable: BTreeMap<u64, oneshot::Sender<Result<(), String>>>,
    calls: BTreeMap<u64, oneshot::Sender<Result<Bytes, CallError>>>,
    asks: BTreeMap<u64, AskPending>,
}

struct AskPending {
    wanted: usize,
    answers: Vec<Answer>,
    done: oneshot::Sender<Vec<Answer>>,
}

/// How a link's connection goes on.
enum LinkNext {
    Closed,
    HandOff(Hello, Bytes),
    Lost,
}

impl ControlDriver {
    /// A driver that has carried out the first effects.
    pub(crate) fn new(
        control: Control,
        first: ControlEffects,
        store: StoreHandle,
        services: Rc<Services>,
        post: Post,
        alarms: Arc<Alarms>,
    ) -> Rc<Self> {
        let driver = Rc::new(Self {
            post,
            store,
            alarms,
            services,
            core: RefCell::new(Core {
                control,
                fx: first,
                links: BTreeMap::new(),
                next_accepted: 1,
                accepted: 0,
                pending: Pending::default(),
                armed_ms: u64::MAX,
                drained: 0,
                drain_waker: None,
                ready_waker: None,
                refusals: Refusals::default(),
            }),
            letters: RefCell::new(None),
            admin: RefCell::new(None),
            answering: Cell::new(0),
        });
        driver.dispatch();
        driver
    }

    /// Reads letters and keeps time until the task is dropped.
    pub(crate) async fn run(self: Rc<Self>) {
        let mut timer = Box::pin(tokio::time::sleep(Duration::ZERO));
        let mut letters = Vec::new();
        poll_fn(|cx| self.poll(cx, &mut letters, timer.as_mut())).await;
    }

    /// Accepts peers until the task is dropped.
    pub(crate) async fn accept_peers(self: Rc<Self>, listener: TcpListener) {
        loop {
            match listener.accept().await {
                Ok((stream, from)) => {
                    if self.core.borrow().accepted < ACCEPTED_MAX
                        && peer::set_options(&stream).is_ok()
                    {
                        self.core.borrow_mut().accepted += 1;
                        tokio::task::spawn_local(self.clone().welcome(stream, from));
                    }
                }
                Err(error) => {
                    tracing::error!(reason = %error, "peer_accept_failed");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }

    /// Takes this node out of what others find it by.
    pub(crate) async fn withdraw(&self) {
        self.services.stop().await;
    }

    /// Works off what is in the mailbox now: the last letters of shards that have ended.
    pub(crate) fn finish(self: &Rc<Self>) {
        let mut letters = Vec::new();
        let mut cx = Context::from_waker(Waker::noop());
        while self
            .post
            .control
            .poll_take(&mut cx, &mut letters)
            .is_ready()
        {
            self.take(&mut letters);
        }
    }

    /// Waits until all shards have said that their clients are gone.
    pub(crate) async fn drained(&self, shards: usize) {
        poll_fn(|cx| {
            let mut core = self.core.borrow_mut();
            if core.drained >= shards {
                return Poll::Ready(());
            }
            core.drain_waker = Some(cx.waker().clone());
            Poll::Pending
        })
        .await;
    }

    /// Waits until this node has looked for others long enough to serve.
    pub(crate) async fn ready(&self) {
        poll_fn(|cx| {
            let mut core = self.core.borrow_mut();
            if core.control.is_ready() {
                return Poll::Ready(());
            }
            core.ready_waker = Some(cx.waker().clone());
            Poll::Pending
        })
        .await;
    }

    fn poll(
        self: &Rc<Self>,
        cx: &mut Context<'_>,
        letters: &mut Vec<ControlLetter>,
        mut timer: Pin<&mut Sleep>,
    ) -> Poll<()> {
        *self.letters.borrow_mut() = Some(cx.waker().clone());
        if self.post.control.poll_take(cx, letters).is_ready() {
            self.take(letters);
            // More may have come meanwhile; links get their turn first.
            cx.waker().wake_by_ref();
        }
        loop {
            let next_ms = self.tick();
            timer.as_mut().reset(time::instant(next_ms).into());
            if timer.as_mut().poll(cx).is_pending() {
                return Poll::Pending;
            }
        }
    }

    /// Works off a batch of letters; what they lead to is carried out once for all of them.
    fn take(self: &Rc<Self>, letters: &mut Vec<ControlLetter>) {
        for letter in letters.drain(..) {
            match letter {
                ControlLetter::Core(input) => {
                    let core = &mut *self.core.borrow_mut();
                    core.control.handle(time::now(), input, &mut core.fx);
                }
                ControlLetter::Ask(request) => self.request(request),
            }
        }
        self.dispatch();
    }

    fn tick(self: &Rc<Self>) -> u64 {
        let now = time::now();
        if self.core.borrow().control.next_tick() <= now.mono_ms {
            self.input(ControlInput::Tick);
        }
        let mut core = self.core.borrow_mut();
        // A core that wants to tick at once is let do so a millisecond later, after other tasks.
        core.armed_ms = core.control.next_tick().max(now.mono_ms + 1);
        core.armed_ms
    }

    fn input(self: &Rc<Self>, input: ControlInput) {
        let mut guard = self.core.borrow_mut();
        let core = &mut *guard;
        core.control.handle(time::now(), input, &mut core.fx);
        drop(guard);
        self.dispatch();
    }

    // --- operators ---

    fn request(self: &Rc<Self>, request: Request) {
        let mut core = self.core.borrow_mut();
        match request {
            Request::Status(done) => _ = done.send(core.control.status()),
            Request::Nodes(done) => _ = done.send(core.control.nodes()),
            Request::View(done) => _ = done.send(NodeView::of(&core.control)),
            Request::Call {
                node,
                payload,
                timeout_ms,
                done,
            } => {
                drop(core);
                self.call(node, payload, timeout_ms, done);
            }
            Request::Operation { op, progress, done } => {
                let id = core.pending.number();
                core.pending.operations.insert(id, (progress, done));
                drop(core);
                self.input(ControlInput::Operation { id, op });
            }
            Request::Look { op, checks, done } => {
                drop(core);
                self.look(op, checks, done);
            }
            Request::Put {
                table,
                key,
                value,
                done,
            } => {
                let id = core.pending.number();
                core.pending.durable.insert(id, done);
                drop(core);
                self.input(ControlInput::Put {
                    table,
                    key,
                    value,
                    done: Some(id),
                });
            }
            Request::PutFirst {
                table,
                key,
                value,
                done,
            } => {
                drop(core);
                self.put_first(table, key, value, done);
            }
            Request::AskAll { what, done } => {
                let ask = core.pending.ask(self.post.shards.len(), done);
                for inbox in self.post.shards.iter() {
                    let what = what.clone();
                    inbox.push(ShardLetter::Core(ToShard::Ask { ask, what }));
                }
            }
            Request::AskShard { shard, what, done } => {
                let ask = core.pending.ask(1, done);
                let inbox = &self.post.shards[usize::from(shard)];
                inbox.push(ShardLetter::Core(ToShard::Ask { ask, what }));
            }
            Request::Publish { message, done } => {
                let ask = Some(core.pending.ask(1, done));
                self.post.shards[0].push(ShardLetter::Core(ToShard::Publish { message, ask }));
            }
        }
    }

    fn call(
        self: &Rc<Self>,
        node: NodeName,
        payload: Bytes,
        timeout_ms: u64,
        done: oneshot::Sender<Result<Bytes, CallError>>,
    ) {
        let id = {
            let mut core = self.core.borrow_mut();
            let id = core.pending.number();
            core.pending.calls.insert(id, done);
            id
        };
        self.input(ControlInput::Call {
            id,
            node,
            payload,
            timeout_ms,
        });
    }

    fn look(
        self: &Rc<Self>,
        op: Operation,
        checks: mpsc::Sender<Check>,
        done: oneshot::Sender<Result<(), OperationError>>,
    ) {
        let id = {
            let mut core = self.core.borrow_mut();
            let id = core.pending.number();
            let progress = Progress::ignored();
            core.pending.operations.insert(id, (progress, done));
            core.pending.looks.insert(id, checks);
            id
        };
        self.input(ControlInput::Operation { id, op });
    }

    fn put_first(
        self: &Rc<Self>,
        table: TableId,
        key: Bytes,
        value: Bytes,
        done: oneshot::Sender<Result<(), String>>,
    ) {
        let first = self.core.borrow().control.table(table).is_empty();
        if first {
            let value = Some(value);
            self.request(Request::Put {
                table,
                key,
                value,
                done,
            });
        } else {
            let _ = done.send(Ok(()));
        }
    }

    // --- links ---

    /// Serves a connection that somebody made.
    async fn welcome(self: Rc<Self>, tcp: TcpStream, from: SocketAddr) {
        let stream = match &self.post.tls {
            None => Ok(PeerStream::Plain(tcp)),
            Some(tls) => tls.accept(tcp).await,
        };
        let result = stream.as_ref().map(|_| ()).map_err(ToString::to_string);
        self.core.borrow_mut().refusals.note(from.ip(), result);
        if let Ok(stream) = stream {
            let conn = {
                let mut core = self.core.borrow_mut();
                let conn = ConnId(core.next_accepted);
                core.next_accepted += 2;
                core.links.insert(conn, Link::default());
                conn
            };
            let from = from.to_string();
            self.input(ControlInput::Accepted { conn, from });
            self.clone().serve_link(conn, stream).await;
        }
        self.core.borrow_mut().accepted -= 1;
    }

    async fn dial(self: Rc<Self>, conn: ConnId, host: String, port: u16) {
        let dialed = peer::dial(&host, port, self.post.tls.as_deref()).await;
        match dialed {
            Ok(stream) => {
                if let Some(link) = self.core.borrow_mut().links.get_mut(&conn) {
                    link.dialing = None;
                }
                self.input(ControlInput::Connected { conn });
                self.serve_link(conn, stream).await;
            }
            Err(error) => {
                self.core.borrow_mut().links.remove(&conn);
                self.input(ControlInput::DialFailed { conn, error });
            }
        }
    }

    async fn serve_link(self: Rc<Self>, conn: ConnId, mut stream: PeerStream) {
        let mut buf = BytesMut::new();
        let next = poll_fn(|cx| self.poll_link(cx, conn, &mut stream, &mut buf)).await;
        self.core.borrow_mut().links.remove(&conn);
        match next {
            LinkNext::Closed => {}
            LinkNext::Lost => self.input(ControlInput::Closed { conn }),
            LinkNext::HandOff(hello, unread) => self.hand_off(stream, hello, unread),
        }
    }

    fn poll_link(
        self: &Rc<Self>,
        cx: &mut Context<'_>,
        conn: ConnId,
        stream: &mut PeerStream,
        buf: &mut BytesMut,
    ) -> Poll<LinkNext> {
        for _ in 0..READS_PER_WAKE {
            match self.core.borrow_mut().links.get_mut(&conn) {
                None => return Poll::Ready(LinkNext::Closed),
                Some(link) => {
                    if let Poll::Ready(next) = link.poll_write(stream, cx) {
                        return Poll::Ready(next);
                    }
                    if link.is_ending() {
                        return Poll::Pending;
                    }
                }
            }
            match stream.poll_read(cx, buf) {
                Poll::Ready(Ok(count)) if count > 0 => {
                    let bytes = buf.split().freeze();
                    self.input(ControlInput::Received { conn, bytes });
                }
                Poll::Ready(_) => return Poll::Ready(LinkNext::Lost),
                Poll::Pending => {
                    *buf = BytesMut::new();
                    return Poll::Pending;
                }
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    /// Moves a proven data link's socket to its shard.
    fn hand_off(&self, stream: PeerStream, hello: Hello, unread: Bytes) {
        let index = match hello.purpose {
            Purpose::Data { index } => usize::from(index),
            Purpose::Control => 0,
        };
        let shard = &self.post.shards[index % self.post.shards.len()];
        match stream.detach() {
            Ok(stream) => {
                shard.push(ShardLetter::Adopt {
                    stream,
                    hello: Box::new(hello),
                    unread,
                });
            }
            Err(error) => tracing::warn!(reason = %error, "data_link_not_handed_over"),
        }
    }

    async fn look_up(self: Rc<Self>, token: u64, lookup: Lookup) {
        let result = self.services.look_up(&lookup).await;
        let answer = Discovered::Answer { token, result };
        self.input(ControlInput::Discovered(answer));
    }

    fn discover(self: &Rc<Self>, discover: Discover) {
        match discover {
            Discover::LookUp { token, lookup } => {
                tokio::task::spawn_local(self.clone().look_up(token, lookup));
            }
            Discover::Follow { lookup } => self.services.follow(lookup),
            Discover::Send { to, datagram } => self.services.send(to, datagram),
        }
    }

    // --- effects ---

    fn dispatch(self: &Rc<Self>) {
        let mut core = self.core.borrow_mut();
        let mut fx = std::mem::take(&mut core.fx);
        let mut dials = Vec::new();
        for effect in fx.links.drain(..) {
            if let LinkEffect::Dial(conn, host, port) = effect {
                core.links.insert(conn, Link::default());
                dials.push((conn, host, port));
            } else {
                core.link_effect(effect);
            }
        }
        self.store.persist(fx.persist.drain(..));
        fx.archive
            .drain(..)
            .for_each(|token| self.store.archive(token));
        for (shard, letter) in fx.to_shard.drain(..) {
            self.post.shards[usize::from(shard)].push(ShardLetter::Core(letter));
        }
        let discover: Vec<_> = fx.discover.drain(..).collect();
        let asked: Vec<_> = fx.asked.drain(..).collect();
        fx.alarms
            .drain(..)
            .for_each(|change| self.alarms.apply(change));
        if std::mem::take(&mut fx.configured)
            && let Some(admin) = &*self.admin.borrow()
        {
            admin.inner.configuration.changed();
        }
        core.answer(&mut fx);
        self.rearm(&mut core);
        core.fx = fx;
        drop(core);
        for (call, question) in asked {
            self.answer_node(call, question);
        }
        for what in discover {
            self.discover(what);
        }
        for (conn, host, port) in dials {
            let task = tokio::task::spawn_local(self.clone().dial(conn, host, port));
            if let Some(link) = self.core.borrow_mut().links.get_mut(&conn) {
                link.dialing = Some(task.abort_handle());
            }
        }
    }

    /// Another node asks on behalf of an operator there: answered like an operator here.
    fn answer_node(self: &Rc<Self>, call: u64, question: Bytes) {
        let admin = self.admin.borrow().clone();
        let working = self.answering.get();
        let (Some(admin), true) = (admin, working < ANSWERING_MAX) else {
            let payload = Bytes::new();
            return self.input(ControlInput::Answer { call, payload });
        };
        self.answering.set(working + 1);
        let driver = self.clone();
        tokio::task::spawn_local(async move {
            let payload = admin.answer(&question).await;
            driver.answering.set(driver.answering.get() - 1);
            driver.input(ControlInput::Answer { call, payload });
        });
    }

    /// Questions of other nodes are answered from here on.
    pub(crate) fn introduce(&self, admin: Admin) {
        *self.admin.borrow_mut() = Some(admin);
    }

    fn rearm(&self, core: &mut Core) {
        let next = core.control.next_tick();
        if next < core.armed_ms {
            core.armed_ms = next;
            if let Some(waker) = &*self.letters.borrow() {
                waker.wake_by_ref();
            }
        }
    }
}

impl Link {
    /// Whether it ends once everything is written; nothing more is read then.
    fn is_ending(&self) -> bool {
        self.close || self.hand_off.is_some()
    }

    /// Writes what waits; ready if the connection ends or goes elsewhere.
    fn poll_write(&mut self, stream: &mut PeerStream, cx: &mut Context<'_>) -> Poll<LinkNext> {
        self.waker = Some(cx.waker().clone());
        let Poll::Ready(written) = self.output.poll_write(stream, cx) else {
            return Poll::Pending;
        };
        match (written, self.hand_off.take()) {
            // Failed or not: the shard that gets it finds out.
            (_, Some((hello, unread))) => Poll::Ready(LinkNext::HandOff(hello, unread)),
            (_, None) if self.close => Poll::Ready(LinkNext::Closed),
            (Err(_), None) => Poll::Ready(LinkNext::Lost),
            (Ok(()), None) => Poll::Pending,
        }
    }
}

impl Core {
    fn link_effect(&mut self, effect: LinkEffect) {
        let (conn, bytes, close, hand_off) = match effect {
            LinkEffect::Send(conn, bytes) => (conn, Some(bytes), false, None),
            LinkEffect::Close(conn) => (conn, None, true, None),
            LinkEffect::HandOff(conn, hello, unread) => (conn, None, false, Some((hello, unread))),
            LinkEffect::Dial(..) => return,
        };
        let Some(link) = self.links.get_mut(&conn) else {
            return;
        };
        if let Some(bytes) = bytes {
            link.output.push(bytes);
        }
        if hand_off.is_some() {
            link.hand_off = hand_off;
        }
        link.close |= close;
        if let (true, Some(dialing)) = (close, link.dialing.take()) {
            dialing.abort();
            self.links.remove(&conn);
        } else if let Some(waker) = &link.waker {
            waker.wake_by_ref();
        }
    }

    fn answer(&mut self, fx: &mut ControlEffects) {
        for (id, step) in fx.progress.drain(..) {
            if let Some((progress, _)) = self.pending.operations.get(&id) {
                progress.step(step.to_string());
            }
        }
        for (id, check) in fx.checked.drain(..) {
            if let Some(checks) = self.pending.looks.get(&id) {
                // There is room for all checks of a look.
                let _ = checks.try_send(check);
            }
        }
        for (id, result) in fx.done.drain(..) {
            self.pending.looks.remove(&id);
            if let Some((_, done)) = self.pending.operations.remove(&id) {
                let _ = done.send(result);
            }
        }
        for (id, result) in fx.durable.drain(..) {
            if let Some(done) = self.pending.durable.remove(&id) {
                let _ = done.send(result);
            }
        }
        for (id, result) in fx.called.drain(..) {
            if let Some(done) = self.pending.calls.remove(&id) {
                let _ = done.send(result);
            }
        }
        for (_, ask, answer) in fx.answers.drain(..) {
            self.pending.answered(ask, answer);
        }
        self.drained += fx.drained.drain(..).count();
        if let Some(waker) = self.drain_waker.take() {
            waker.wake();
        }
        if self.control.is_ready()
            && let Some(waker) = self.ready_waker.take()
        {
            waker.wake();
        }
        fx.clients.clear();
    }
}

impl Pending {
    fn number(&mut self) -> u64 {
        self.next += 1;
        self.next
    }

    fn ask(&mut self, wanted: usize, done: oneshot::Sender<Vec<Answer>>) -> u64 {
        // Questions whose asker has given up would stay if their shard died.
        self.asks.retain(|_, ask| !ask.done.is_closed());
        let number = self.number();
        self.asks.insert(
            number,
            AskPending {
                wanted,
                answers: Vec::new(),
                done,
            },
        );
        number
    }

    fn answered(&mut self, number: u64, answer: Answer) {
        let Some(ask) = self.asks.get_mut(&number) else {
            return;
        };
        ask.answers.push(answer);
        if ask.answers.len() == ask.wanted
            && let Some(ask) = self.asks.remove(&number)
        {
            let _ = ask.done.send(ask.answers);
        }
    }
}
