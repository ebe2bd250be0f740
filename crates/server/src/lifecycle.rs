//! A node from start to stop.
//!
//! Start: log, data directory, store, control, inter-node port, shards, discovery (for seconds at
//! most), listeners, control socket, HTTP. Whatever fails names itself and what to do, everything
//! opened before is closed again, and the node has not claimed to run. Stop: no new clients,
//! clients told, everything on disk.

mod start;

use std::future::Future;
use std::path::PathBuf;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use dunlin_broker::ToShard;
use dunlin_config::Loaded;
use tokio::runtime::{Builder, LocalOptions};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::task::AbortHandle;
use tokio::time::timeout;

use crate::admin::Admin;
use crate::console::say;
use crate::control_thread::ControlDriver;
use crate::ctl::{CtlOutput, CtlRequest};
use crate::http::HttpListener;
use crate::listeners::Listeners;
use crate::log::{self, StartedIn};
use crate::shard_thread::{ShardLetter, ShardThread};
use crate::store::StoreThread;

pub use start::StartError;

/// How long clients may take to accept their DISCONNECT when the node stops. Those that do not are
/// cut off; a stop must end.
const DRAIN: Duration = Duration::from_secs(5);

/// How often it is looked whether a shard's thread has died.
const WATCH: Duration = Duration::from_secs(1);

/// How often this node tells the others its figures.
const TELL_FIGURES: Duration = Duration::from_secs(5);

/// Where the node's files are; all absolute.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Paths {
    /// The installation; relative paths of the configuration start here.
    pub root: PathBuf,
    /// `emqx.conf` and `certs/`.
    pub etc: PathBuf,
    /// Tables, `certs/`, `backup/`.
    pub data: PathBuf,
    /// Log files.
    pub log: PathBuf,
    /// Control sockets.
    pub run: PathBuf,
}

/// What the node serves that is other crates' business.
pub trait Hooks: Send + Sync + 'static {
    /// Answers HTTP on a listener until the future is dropped.
    fn serve_http(
        &self,
        admin: Admin,
        listener: HttpListener,
    ) -> Pin<Box<dyn Future<Output = ()> + Send>>;

    /// Runs a command of `emqx ctl`; the exit code.
    fn ctl(
        &self,
        admin: Admin,
        request: CtlRequest,
        output: CtlOutput,
    ) -> Pin<Box<dyn Future<Output = i32> + Send>>;

    /// The node serves (its port by listener id may be asked of `admin`).
    fn started(&self, _admin: &Admin) {}
}

/// Why a node that ran has stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ExitReason {
    /// It was asked to, and everything is on disk.
    Stopped,
    /// It was asked twice and did not wait for clients.
    Forced,
    /// One of its threads failed; the log says how.
    ThreadDied,
}

impl ExitReason {
    /// The exit code of the process.
    pub fn code(self) -> u8 {
        match self {
            Self::Stopped => 0,
            Self::Forced | Self::ThreadDied => 1,
        }
    }
}

/// Runs a node until it is stopped. Blocks the calling thread, which becomes the control thread.
#[expect(clippy::needless_pass_by_value, reason = "a node owns what it serves")]
pub fn run(
    loaded: Loaded,
    paths: Paths,
    started_in: StartedIn,
    hooks: Arc<dyn Hooks>,
) -> Result<ExitReason, StartError> {
    let log = log::prepare(&loaded.settings.log, started_in)?.install()?;
    let runtime = Builder::new_current_thread()
        .enable_all()
        .thread_name("blocking")
        .build_local(LocalOptions::default())
        .map_err(StartError::Runtime)?;
    let exit = runtime.block_on(async {
        let node = Box::pin(start::start(loaded, paths, &log, &hooks)).await?;
        Ok(node.serve(&hooks).await)
    });
    // A name look-up that hangs in a helper thread must not hold up the end.
    runtime.shutdown_background();
    log.flush();
    exit
}

/// A node whose parts all run.
pub(crate) struct Running {
    admin: Admin,
    control: Rc<ControlDriver>,
    store: StoreThread,
    shards: Vec<ShardThread>,
    listeners: Arc<Listeners>,
    http: Vec<(String, AbortHandle)>,
    tasks: Vec<AbortHandle>,
    signals: Signals,
}

/// The signals a node minds.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
    /// Taken and ignored: a closed terminal is no reason to stop.
    _hangup: Signal,
}

impl Signals {
    fn new() -> std::io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            _hangup: signal(SignalKind::hangup())?,
        })
    }

    async fn asked_to_stop(&mut self) -> &'static str {
        tokio::select! {
            _ = self.terminate.recv() => "SIGTERM",
            _ = self.interrupt.recv() => "SIGINT",
        }
    }
}

impl Running {
    /// Serves until asked to stop, then stops.
    async fn serve(mut self, hooks: &Arc<dyn Hooks>) -> ExitReason {
        hooks.started(&self.admin);
        let reason = tokio::select! {
            signal = self.signals.asked_to_stop() => signal,
            () = self.admin.inner.stop.notified() => "stop command",
            () = died(&self.shards) => {
                tracing::error!("shard_thread_died");
                return self.end(ExitReason::ThreadDied).await;
            }
        };
        let time = crate::time::Rfc3339::millis(crate::time::wall_ms());
        say(&format!("{time} {reason} received, shutting down now."));
        let mut signals = self.signals;
        self.signals = match Signals::new() {
            Ok(signals) => signals,
            Err(_) => return ExitReason::Forced,
        };
        tokio::select! {
            exit = self.stop() => exit,
            // The second time, nobody is waited for; what clients were promised is on disk.
            _ = signals.asked_to_stop() => ExitReason::Forced,
        }
    }

    /// Stops gracefully.
    async fn stop(self) -> ExitReason {
        self.admin
            .inner
            .serving
            .store(false, std::sync::atomic::Ordering::Relaxed);
        for (id, serving) in &self.http {
            serving.abort();
            say(&format!("Stop listener {id} successfully."));
        }
        let listeners = self.listeners.stop_accepting().await;
        let redirect = Arc::new(self.admin.redirect(&[]).await);
        for shard in &self.shards {
            let redirect = redirect.clone();
            shard
                .inbox
                .push(ShardLetter::Core(ToShard::Drain { redirect }));
        }
        let drained = async {
            self.control.drained(self.shards.len()).await;
            for listener in &listeners {
                listener.emptied().await;
            }
        };
        if timeout(DRAIN, drained).await.is_err() {
            let waited_ms = DRAIN.as_millis() as u64;
            tracing::warn!(waited_ms, "clients_cut_off");
        }
        self.end(ExitReason::Stopped).await
    }

    /// Ends all threads and tasks; what is to be stored is on disk afterwards.
    async fn end(self, exit: ExitReason) -> ExitReason {
        let Self {
            shards,
            store,
            tasks,
            control,
            ..
        } = self;
        let ended = tokio::task::spawn_blocking(move || {
            let sound = shards
                .into_iter()
                .map(ShardThread::stop)
                .fold(true, |all, one| all & one);
            (sound, store)
        });
        let Ok((sound, store)) = ended.await else {
            return ExitReason::ThreadDied;
        };
        control.finish();
        control.withdraw().await;
        tasks.iter().for_each(AbortHandle::abort);
        let stopped = tokio::task::spawn_blocking(move || store.stop()).await;
        if sound && stopped.is_ok() {
            exit
        } else {
            ExitReason::ThreadDied
        }
    }
}

/// Waits until a shard's thread has ended, which none does by itself.
async fn died(shards: &[ShardThread]) {
    loop {
        tokio::time::sleep(WATCH).await;
        if shards.iter().any(ShardThread::is_finished) {
            return;
        }
    }
}
