//! The start of a node, step by step.

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Instant;

use dunlin_broker::Peering;
use dunlin_broker::control::{
    API_KEYS, CONFIGURATION, Control, ControlConfig, ControlEffects, ControlError, ControlInput,
    MQTT_USERS, NodeInfo, USERS,
};
use dunlin_broker::metrics::{Gauge, Gauges};
use dunlin_broker::shared::Shared;
use dunlin_cluster::{Config, Cookie, NameError, NodeName, Quorum};
use dunlin_config::settings::{AutocleanQuorum, Settings, Strategy};
use dunlin_config::{ConfigError, Loaded};
use dunlin_storage::StoreError;
use dunlin_storage::engine::Engine;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::net::TcpListener;
use tokio::sync::Notify;

use super::{Hooks, Paths, Running, Signals, TELL_FIGURES};
use crate::access::{self, AccessError, Authentication};
use crate::admin::{Admin, Evacuating, Inner, Rebalancing, evacuate, rebalance};
use crate::alarm::{self, Actions, Alarms};
use crate::broker_settings;
use crate::configuration::{Configuration, Followers};
use crate::console::say;
use crate::control_thread::{ControlDriver, ControlLetter};
use crate::ctl::{self, CtlSocket};
use crate::discovery::{self, Services};
use crate::driver::Post;
use crate::host::Host;
use crate::http::{self, BoundHttp};
use crate::inbox::Inbox;
use crate::listener::ListenError;
use crate::listeners::{CertificatePaths, Listeners};
use crate::log::{LogError, LogHandle};
use crate::peer::{self, PeerAddress, PeerTls, PeerTlsError};
use crate::proving::Provers;
use crate::shard_thread::ShardThread;
use crate::store::StoreThread;
use crate::tls::certificate::names_of_machine;
use crate::{PRODUCT, VERSION, statsd, time};

/// Most shards: a machine with more cores than this is better used by several nodes.
const SHARDS_MAX: u16 = 256;

/// Why a node did not start. `Display` names the part, the reason and the cure.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// The log cannot be written.
    #[error(transparent)]
    Log(#[from] LogError),
    /// The runtime could not be made.
    #[error("the system gives no event queue: {0}; check the limit on open files (ulimit -n)")]
    Runtime(io::Error),
    /// A thread could not be started.
    #[error("the system gives no thread for {name}: {source}; check the limits of this user")]
    Thread {
        /// Which.
        name: &'static str,
        /// Why.
        source: io::Error,
    },
    /// `node.name` is none.
    #[error("node.name: {0}")]
    NodeName(#[from] NameError),
    /// A directory cannot be made or written.
    #[error("cannot use the directory `{}`: {source}; check its owner and node.data_dir",
            .path.display())]
    Directory {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The tables cannot be opened.
    #[error("{0}")]
    Store(#[from] StoreError),
    /// What the tables hold is not this node's.
    #[error("{0}")]
    Restore(#[from] ControlError),
    /// The inter-node port cannot be listened on.
    #[error(
        "port {port} is in use: cannot listen for other nodes on {address} ({source}); the port \
         follows from the node's name, so stop the program that has it (`ss -ltnp`) or give this \
         node another number (node.name = emqx2@…)"
    )]
    PeerPort {
        /// The port.
        port: u16,
        /// The address tried.
        address: SocketAddr,
        /// Why.
        source: io::Error,
    },
    /// Links to other nodes cannot be encrypted.
    #[error(transparent)]
    PeerTls(#[from] PeerTlsError),
    /// A listener cannot be opened.
    #[error(transparent)]
    Listener(#[from] ListenError),
    /// The control socket cannot be opened.
    #[error("cannot open the control socket `{}`: {source}; check the directory's owner",
            .path.display())]
    Ctl {
        /// The socket.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The configuration is invalid with what the tables hold, and without.
    #[error("{}", lines(.0))]
    Configuration(Vec<ConfigError>),
    /// The access rules cannot be used.
    #[error(transparent)]
    Access(#[from] AccessError),
    /// Signals cannot be watched.
    #[error("cannot watch signals: {0}")]
    Signals(io::Error),
    /// The file of API keys cannot be used.
    #[error("api_key.bootstrap_file `{}`: {reason}", .path.display())]
    ApiKeys {
        /// The file.
        path: PathBuf,
        /// Why.
        reason: String,
    },
}

/// The cores and what they need, before anything is open.
struct Cores {
    node: NodeName,
    control: Control,
    first: ControlEffects,
    store: Engine,
}

/// What is open to the world before the node serves.
struct Doors {
    peers: TcpListener,
    http: Vec<(BoundHttp, String)>,
    ctl: CtlSocket,
}

fn lines(errors: &[ConfigError]) -> String {
    let lines: Vec<String> = errors.iter().map(ConfigError::to_string).collect();
    lines.join("\n")
}

/// Starts a node.
pub(super) async fn start(
    loaded: Loaded,
    paths: Paths,
    log: &LogHandle,
    hooks: &Arc<dyn Hooks>,
) -> Result<Running, StartError> {
    let signals = Signals::new().map_err(StartError::Signals)?;
    raise_file_limit();
    make_dirs(&paths)?;
    let settings = loaded.settings.clone();
    let cores = open_cores(&settings, &paths, log, shard_count())?;
    let doors = Doors::open(&settings, &paths, &cores.node).await?;
    let tls = PeerTls::of(&settings, &certificate_paths(&paths, &cores.node))?;
    let mut node = assemble(loaded, &paths, log, cores, tls, signals)?;
    node.spawn_control(doors.peers);
    match node
        .open(&settings, &paths, doors.http, doors.ctl, hooks)
        .await
    {
        Ok(()) => Ok(node),
        Err(error) => {
            node.abandon().await;
            Err(error)
        }
    }
}

impl Doors {
    /// Opens them; clients of MQTT come last, when everything else stands.
    async fn open(settings: &Settings, paths: &Paths, node: &NodeName) -> Result<Self, StartError> {
        let peers = listen_for_peers(settings, node).await?;
        let http = bind_http(settings, &certificate_paths(paths, node))?;
        let ctl = CtlSocket::open(&paths.run, node.as_str()).map_err(|source| StartError::Ctl {
            path: ctl::path_of(&paths.run, node.as_str()),
            source,
        })?;
        Ok(Self { peers, http, ctl })
    }
}

/// The mailboxes, and the threads that check passwords.
fn post(shards: u16, tls: Option<Arc<PeerTls>>) -> Result<Post, StartError> {
    let shards: Arc<[_]> = (0..shards).map(|_| Arc::new(Inbox::new())).collect();
    let provers = Provers::start(shards.clone()).map_err(|source| StartError::Thread {
        name: "checking passwords",
        source,
    })?;
    Ok(Post {
        shards,
        control: Arc::new(Inbox::new()),
        provers,
        tls,
    })
}

/// Starts the threads and joins the parts to a node that serves nobody yet.
fn assemble(
    loaded: Loaded,
    paths: &Paths,
    log: &LogHandle,
    cores: Cores,
    tls: Option<Arc<PeerTls>>,
    signals: Signals,
) -> Result<Running, StartError> {
    let shared = cores.control.shared().clone();
    let (users, api_keys) = (cores.control.table(USERS), cores.control.table(API_KEYS));
    let mqtt_users = cores.control.table(MQTT_USERS);
    let post = post(shared.shards(), tls)?;
    let alarms = make_alarms(&loaded.settings, &cores.node, &post);
    let configuration = make_configuration(loaded, &cores.control, paths, (log, &alarms, &post))?;
    let loaded = configuration.loaded();
    let settings = &loaded.settings;
    let authentication = Authentication::read(settings)?;
    let access = access::access(settings, &authentication, mqtt_users.clone(), &paths.root);
    shared.set_access(access?);
    let shards = start_shards(&shared, &cores.control.peering(), &post)?;
    let store = start_store(cores.store, paths, &post, &alarms)?;
    let control = ControlDriver::new(
        cores.control,
        cores.first,
        store.handle(),
        make_services(settings, &cores.node, paths, &post),
        post.clone(),
        alarms.clone(),
    );
    let certificates = certificate_paths(paths, &cores.node);
    let listeners = Listeners::new(&settings.listeners, post.shards, certificates);
    let listeners = Arc::new(listeners);
    let inner = Inner {
        node: cores.node,
        started: Instant::now(),
        loaded,
        configuration,
        shared,
        users,
        api_keys,
        mqtt_users,
        authentication,
        control: post.control,
        listeners: listeners.clone(),
        alarms,
        log: log.clone(),
        sys_path: paths.root.display().to_string(),
        evacuating: Evacuating::new(&paths.data),
        rebalancing: Rebalancing::default(),
        serving: AtomicBool::new(false),
        stop: Notify::new(),
        gauges: Mutex::new(Gauges::default()),
    };
    let admin = Admin {
        inner: Arc::new(inner),
    };
    control.introduce(admin.clone());
    Ok(Running {
        admin,
        control,
        store,
        shards,
        listeners,
        http: Vec::new(),
        tasks: Vec::new(),
        signals,
    })
}

fn make_configuration(
    loaded: Loaded,
    control: &Control,
    paths: &Paths,
    (log, alarms, post): (&LogHandle, &Arc<Alarms>, &Post),
) -> Result<Configuration, StartError> {
    let followers = Followers {
        log: log.clone(),
        alarms: alarms.clone(),
        control: post.control.clone(),
    };
    let changes = control.table(CONFIGURATION);
    let made = Configuration::new(loaded, changes, &paths.data, followers);
    made.map_err(StartError::Configuration)
}

fn make_alarms(settings: &Settings, node: &NodeName, post: &Post) -> Arc<Alarms> {
    let limits = alarm::limits(&settings.alarm);
    let actions = Actions::new(&settings.alarm.actions);
    let alarms = Alarms::new(node.as_str(), actions, limits, post.control.clone());
    Arc::new(alarms)
}

fn make_services(settings: &Settings, node: &NodeName, paths: &Paths, post: &Post) -> Rc<Services> {
    let strategy = &settings.cluster.strategy;
    Services::new(strategy, node, &paths.root, post.control.clone())
}

fn start_store(
    store: Engine,
    paths: &Paths,
    post: &Post,
    alarms: &Arc<Alarms>,
) -> Result<StoreThread, StartError> {
    let backup = paths.data.join("backup");
    let (control, alarms) = (post.control.clone(), alarms.clone());
    let started = StoreThread::start(Box::new(store), backup, control, alarms);
    started.map_err(|source| StartError::Thread {
        name: "the store",
        source,
    })
}

impl Running {
    fn spawn_control(&mut self, peers: TcpListener) {
        let control = tokio::task::spawn_local(self.control.clone().run());
        let accepting = tokio::task::spawn_local(self.control.clone().accept_peers(peers));
        self.tasks
            .extend([control.abort_handle(), accepting.abort_handle()]);
    }

    /// Opens the node to the world and says so.
    async fn open(
        &mut self,
        settings: &Settings,
        paths: &Paths,
        bound_http: Vec<(BoundHttp, String)>,
        ctl: CtlSocket,
        hooks: &Arc<dyn Hooks>,
    ) -> Result<(), StartError> {
        // Clients should meet the cluster and not a node that is about to join it.
        self.control.ready().await;
        self.load_api_keys(settings, paths).await?;
        // Before anybody can log in, and before a join can bring the cluster's users: written
        // later, the default password would win over theirs.
        self.make_first_user(settings).await;
        self.admin.load_bootstrap_users(&paths.root).await;
        self.admin.resume_evacuation().await;
        self.admin.import_cluster_hocon().await;
        self.listeners.open_all()?;
        for (bound, bind) in bound_http {
            self.serve_http(bound, &bind, hooks)?;
        }
        let ctl = tokio::task::spawn_local(ctl.serve(self.admin.clone(), hooks.clone()));
        let background = tokio::task::spawn_local(background(self.admin.clone()));
        let evacuating = tokio::task::spawn_local(evacuate(self.admin.clone()));
        let rebalancing = tokio::task::spawn_local(rebalance(self.admin.clone()));
        let admin = self.admin.clone();
        let follow = async move { admin.inner.configuration.follow().await };
        let follow = tokio::task::spawn_local(follow);
        let tasks = [ctl, background, evacuating, rebalancing, follow];
        self.tasks.extend(tasks.map(|task| task.abort_handle()));
        if settings.statsd.enable {
            let push = statsd::push(self.admin.clone(), settings.statsd.clone());
            self.tasks
                .push(tokio::task::spawn_local(push).abort_handle());
        }
        self.admin.inner.serving.store(true, Ordering::Relaxed);
        say(&format!("{PRODUCT} {VERSION} is running now!"));
        Ok(())
    }

    fn serve_http(
        &mut self,
        bound: BoundHttp,
        bind: &str,
        hooks: &Arc<dyn Hooks>,
    ) -> Result<(), StartError> {
        let id = bound.id();
        let listener = bound.listen().map_err(StartError::Runtime)?;
        let serving = tokio::spawn(hooks.serve_http(self.admin.clone(), listener));
        self.http
            .push((format!("{id} on {bind}"), serving.abort_handle()));
        self.tasks.push(serving.abort_handle());
        say(&format!("Listener {id} on {bind} started."));
        Ok(())
    }

    async fn make_first_user(&self, settings: &Settings) {
        let name = &settings.dashboard.default_username;
        let password = settings.dashboard.default_password.expose();
        if let Err(error) = self.admin.ensure_first_user(name, password).await {
            tracing::error!(reason = %error, "first_user_not_made");
        }
    }

    async fn load_api_keys(&self, settings: &Settings, paths: &Paths) -> Result<(), StartError> {
        let file = &settings.api_key.bootstrap_file;
        if file.is_empty() {
            return Ok(());
        }
        let path = paths.root.join(file);
        let error = |reason: String| StartError::ApiKeys {
            path: path.clone(),
            reason,
        };
        let text = std::fs::read_to_string(&path).map_err(|source| error(source.to_string()))?;
        let loaded = self.admin.load_bootstrap_keys(&text).await;
        loaded.map(drop).map_err(|fault| error(fault.to_string()))
    }

    /// Takes back a start that failed on the way.
    async fn abandon(self) {
        self.end(super::ExitReason::Stopped).await;
    }
}

/// What goes on beside serving: figures for the other nodes.
async fn background(admin: Admin) {
    let started_wall_ms = time::wall_ms();
    let mut ticks = tokio::time::interval(TELL_FIGURES);
    loop {
        ticks.tick().await;
        admin.inner.alarms.expire();
        let gauges = admin.glance();
        let metrics = admin.local_metrics();
        let count = |name: &str| metrics.get(name).copied().unwrap_or(0);
        let info = NodeInfo {
            started_wall_ms,
            connections: gauges.get(Gauge::Connections),
            live_connections: gauges.get(Gauge::LiveConnections),
            subscriptions: gauges.get(Gauge::Subscriptions),
            messages_received: count("messages.received"),
            messages_sent: count("messages.sent"),
            listeners: admin.listener_ports(),
            ..node_info(&admin)
        };
        admin
            .inner
            .control
            .push(ControlLetter::Core(ControlInput::Info(info)));
    }
}

fn node_info(admin: &Admin) -> NodeInfo {
    let log = admin.log().path().map(|path| path.display().to_string());
    host_info(log.unwrap_or_default(), admin.inner.sys_path.clone())
}

fn host_info(log_path: String, sys_path: String) -> NodeInfo {
    let host = Host::read();
    NodeInfo {
        version: VERSION.to_owned(),
        load: host.load,
        max_fds: host.max_fds,
        memory_total: host.memory_total_bytes,
        memory_used: host.memory_used_bytes,
        log_path,
        sys_path,
        ..NodeInfo::default()
    }
}

/// One shard per core, or what `DUNLIN_SHARDS` says (tests, measurements).
fn shard_count() -> u16 {
    let set = std::env::var("DUNLIN_SHARDS")
        .ok()
        .and_then(|text| text.parse().ok());
    let cores = || std::thread::available_parallelism().map_or(1, |cores| cores.get() as u16);
    set.unwrap_or_else(cores).clamp(1, SHARDS_MAX)
}

/// Every connection is a file; the soft limit is usually 1024 and may be raised by anybody.
fn raise_file_limit() {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit {
        current: limit.maximum,
        ..limit
    };
    if let Err(error) = setrlimit(Resource::Nofile, raised) {
        tracing::warn!(reason = %error, limit = ?limit.current, "open_files_limit_not_raised");
    }
}

fn make_dirs(paths: &Paths) -> Result<(), StartError> {
    std::fs::create_dir_all(&paths.data).map_err(|source| StartError::Directory {
        path: paths.data.clone(),
        source,
    })
}

/// Opens the tables (which locks the data directory) and makes control of what they hold.
fn open_cores(
    settings: &Settings,
    paths: &Paths,
    log: &LogHandle,
    shards: u16,
) -> Result<Cores, StartError> {
    let node = NodeName::parse(&settings.node.name)?;
    let store = Engine::open(&paths.data)?;
    let log_path = log.path().map(|path| path.display().to_string());
    let mut info = host_info(
        log_path.unwrap_or_default(),
        paths.root.display().to_string(),
    );
    info.started_wall_ms = time::wall_ms();
    let config = ControlConfig {
        cluster: cluster_config(settings, node.clone()),
        settings: broker_settings::settings(settings),
        shards,
        info,
    };
    let seed = u64::from_le_bytes(crate::admin::random());
    let (control, first) = Control::new(time::now(), config, &store, seed)?;
    Ok(Cores {
        node,
        control,
        first,
        store,
    })
}

fn cluster_config(settings: &Settings, node: NodeName) -> Config {
    let cookie = Cookie::new(settings.node.cookie.expose());
    let mut config = Config::new(node, cookie);
    config.cluster_name.clone_from(&settings.cluster.name);
    config.singleton = settings.cluster.strategy == Strategy::Singleton;
    config.strategy = discovery::strategy(&settings.cluster.strategy, &settings.cluster.name);
    config.autoheal = settings.cluster.autoheal;
    config.autoclean_ms = Some(settings.cluster.autoclean_ms).filter(|ms| *ms > 0);
    config.autoclean_quorum = match settings.cluster.autoclean_quorum {
        AutocleanQuorum::Auto => Quorum::Auto,
        AutocleanQuorum::Majority => Quorum::Majority,
        AutocleanQuorum::None => Quorum::None,
    };
    config
}

async fn listen_for_peers(settings: &Settings, node: &NodeName) -> Result<TcpListener, StartError> {
    let port = node.port();
    let address = PeerAddress {
        node,
        listen_address: settings.rpc.listen_address,
        port,
    };
    let listening = peer::listen(address).await;
    listening.map_err(|(address, source)| StartError::PeerPort {
        port,
        address,
        source,
    })
}

fn certificate_paths(paths: &Paths, node: &NodeName) -> CertificatePaths {
    CertificatePaths {
        root: paths.root.clone(),
        etc: paths.etc.join("certs"),
        data: paths.data.join("certs"),
        names: names_of_machine(node.host()),
    }
}

fn bind_http(
    settings: &Settings,
    certificates: &CertificatePaths,
) -> Result<Vec<(BoundHttp, String)>, StartError> {
    let mut bound = Vec::new();
    if let Some(http) = &settings.dashboard.http {
        bound.push((http::bind(http, None)?, http.bind.to_string()));
    }
    if let Some(https) = &settings.dashboard.https {
        let bind = https.http.bind.to_string();
        let tls = certificates.tls(&https.ssl_options, vec![b"http/1.1".to_vec()]);
        let tls = tls.map_err(|source| ListenError::Tls {
            id: "https:dashboard".to_owned(),
            bind: bind.clone(),
            source: Box::new(source),
        })?;
        bound.push((http::bind(&https.http, Some(tls))?, bind));
    }
    Ok(bound)
}

fn start_shards(
    shared: &Arc<Shared>,
    peering: &Peering,
    post: &Post,
) -> Result<Vec<ShardThread>, StartError> {
    let mut threads = Vec::new();
    for shard in 0..shared.shards() {
        let seed = u64::from_le_bytes(crate::admin::random());
        match ShardThread::start(shard, shared.clone(), peering.clone(), post.clone(), seed) {
            Ok(thread) => threads.push(thread),
            Err(source) => {
                for thread in threads {
                    thread.stop();
                }
                return Err(StartError::Thread {
                    name: "a shard",
                    source,
                });
            }
        }
    }
    Ok(threads)
}
