//! Starts a node of a configuration text in a thread of the test and stops it.

use std::future::Future;
use std::io;
use std::net::TcpListener;
use std::path::Path;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use dunlin_config::{Files, Layer, LayerKind, Loaded, Sources};
use dunlin_server::admin::Admin;
use dunlin_server::ctl::{CtlOutput, CtlRequest};
use dunlin_server::http::HttpListener;
use dunlin_server::log::StartedIn;
use dunlin_server::{ExitReason, Hooks, Paths, StartError};
use tempfile::TempDir;
use tokio::sync::oneshot;
use tokio::time::timeout;

/// Limit on everything a test waits for.
pub(crate) const DEADLINE: Duration = Duration::from_secs(20);

pub(crate) type Exit = Result<ExitReason, StartError>;

/// A node that runs.
pub(crate) struct Node {
    pub(crate) admin: Admin,
    pub(crate) dir: Arc<TempDir>,
    pub(crate) name: String,
    thread: JoinHandle<Exit>,
}

struct NoFiles;

impl Files for NoFiles {
    fn read(&self, _: &str) -> io::Result<String> {
        Err(io::ErrorKind::NotFound.into())
    }
}

struct TestHooks {
    started: Mutex<Option<oneshot::Sender<Admin>>>,
}

impl Hooks for TestHooks {
    fn serve_http(
        &self,
        _: Admin,
        mut listener: HttpListener,
    ) -> Pin<Box<dyn Future<Output = ()> + Send>> {
        Box::pin(async move {
            loop {
                listener.accept().await;
            }
        })
    }

    fn ctl(
        &self,
        admin: Admin,
        request: CtlRequest,
        output: CtlOutput,
    ) -> Pin<Box<dyn Future<Output = i32> + Send>> {
        Box::pin(async move {
            output
                .out(format!("{} {:?}\n", admin.status().node, request.args))
                .await;
            output.err("and a word aside\n").await;
            7
        })
    }

    fn started(&self, admin: &Admin) {
        let sender = self.started.lock().expect("no panic while locked").take();
        let _ = sender.expect("a node starts once").send(admin.clone());
    }
}

/// A name whose inter-node port is free.
pub(crate) fn free_name() -> String {
    let port = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let port = port.local_addr().expect("bound").port();
    format!("n{}@127.0.0.1", port - 4370)
}

pub(crate) fn load(dir: &Path, name: &str, text: &str) -> Loaded {
    let text = format!(
        "node {{ name = \"{name}\", cookie = \"a cookie of the tests\", data_dir = data }}\n\
         dashboard.listeners.http.bind = 0\n\
         authorization.sources = []\n\
         listeners.tcp.default.bind = \"127.0.0.1:0\"\n\
         listeners.ssl.default.enable = false\n\
         listeners.ws.default.enable = false\n\
         listeners.wss.default.enable = false\n\
         {text}\n"
    );
    let layer = Layer {
        kind: LayerKind::Etc,
        path: "emqx.conf".to_owned(),
        text,
    };
    let sources = Sources {
        files: vec![layer],
        env: Vec::new(),
        etc_dir: dir.join("etc").display().to_string(),
        log_dir: dir.join("log").display().to_string(),
        data_dir: dir.join("data").display().to_string(),
        include: &NoFiles,
    };
    dunlin_config::load(&sources).unwrap_or_else(|errors| panic!("{errors:?}"))
}

impl Node {
    /// Starts a node in a directory of its own.
    pub(crate) async fn start(text: &str) -> Self {
        let dir = Arc::new(tempfile::tempdir().expect("a temporary directory"));
        Self::start_in(dir, &free_name(), text)
            .await
            .unwrap_or_else(|exit| panic!("{exit:?}"))
    }

    /// Starts a node, or says why it did not start.
    pub(crate) async fn start_in(dir: Arc<TempDir>, name: &str, text: &str) -> Result<Self, Exit> {
        let loaded = load(dir.path(), name, text);
        let path = |part: &str| dir.path().join(part);
        let paths = Paths {
            root: dir.path().to_owned(),
            etc: path("etc"),
            data: path("data"),
            log: path("log"),
            run: path("run"),
        };
        let (sender, started) = oneshot::channel();
        let hooks = Arc::new(TestHooks {
            started: Mutex::new(Some(sender)),
        });
        let thread = std::thread::spawn(move || {
            dunlin_server::run(loaded, paths, StartedIn::Foreground, hooks)
        });
        match timeout(DEADLINE, started)
            .await
            .expect("a node starts or fails in time")
        {
            Ok(admin) => Ok(Self {
                admin,
                dir,
                name: name.to_owned(),
                thread,
            }),
            Err(_) => Err(thread.join().expect("a node does not panic")),
        }
    }

    pub(crate) fn port(&self, id: &str) -> u16 {
        self.admin
            .listener_port(id)
            .expect("the listener is configured")
    }

    /// Stops it and says how it ended.
    pub(crate) async fn stop(self) -> Exit {
        self.admin.stop();
        let joined = tokio::task::spawn_blocking(|| self.thread.join());
        let joined = timeout(DEADLINE, joined)
            .await
            .expect("a node stops in time");
        joined
            .expect("the helper thread only waits")
            .expect("a node does not panic")
    }
}

/// Waits until `check` has a value.
pub(crate) async fn eventually<T, F: Future<Output = Option<T>>>(
    mut check: impl FnMut() -> F,
) -> T {
    let wait = async {
        loop {
            if let Some(value) = check().await {
                return value;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(DEADLINE, wait).await.expect("it happens in time")
}
