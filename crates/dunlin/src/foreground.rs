//! `emqx foreground`: this process becomes a node.

use std::future::Future;
use std::pin::{Pin, pin};
use std::process::ExitCode;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use axum::Router;
use dunlin_api::Config;
use dunlin_server::admin::{Admin, Progress};
use dunlin_server::ctl::{CtlOutput, CtlRequest};
use dunlin_server::http::HttpListener;
use dunlin_server::log::StartedIn;
use dunlin_server::{Hooks, Paths};

use crate::ctl::{self, Answer};
use crate::installation::Installation;
use crate::start::DETACHED;
use crate::{boot, say, socket};

/// Runs the node until it is stopped.
pub(crate) fn foreground(installation: &Installation) -> ExitCode {
    let started_in = if std::env::var_os(DETACHED).is_some() {
        // A session of its own: closing the terminal, or Ctrl+C in it, is not meant for the node.
        // It fails only for a process that leads one already.
        let _ = rustix::process::setsid();
        StartedIn::Background
    } else {
        StartedIn::Foreground
    };
    let boot = match boot::load(installation) {
        Ok(boot) => boot,
        Err(error) => {
            boot::report(&error);
            return ExitCode::FAILURE;
        }
    };
    let name = &boot.loaded.settings.node.name;
    if socket::is_surely_running(&installation.run, name) {
        say::line(&format!("Node {name} is already running!"));
        return ExitCode::FAILURE;
    }
    if started_in == StartedIn::Foreground {
        // In the background, whoever started it has said all this.
        boot::announce(&boot, installation);
    }
    let paths = Paths {
        root: installation.root.clone(),
        etc: installation.etc.clone(),
        data: boot.data,
        log: installation.log.clone(),
        run: installation.run.clone(),
    };
    let faces = Arc::new(Faces {
        installation: installation.clone(),
        router: OnceLock::new(),
    });
    match dunlin_server::run(boot.loaded, paths, started_in, faces) {
        Ok(reason) => ExitCode::from(reason.code()),
        Err(error) => {
            say::error(&error.to_string());
            ExitCode::FAILURE
        }
    }
}

/// What the node serves besides MQTT.
struct Faces {
    installation: Installation,
    /// One for all HTTP listeners, so that a login through one holds on the other.
    router: OnceLock<Router>,
}

impl Hooks for Faces {
    fn serve_http(
        &self,
        admin: Admin,
        listener: HttpListener,
    ) -> Pin<Box<dyn Future<Output = ()> + Send>> {
        let router = self.router.get_or_init(|| {
            let loaded = admin.loaded();
            let settings = &loaded.settings;
            let config = Config {
                token_lifetime: Duration::from_millis(settings.dashboard.token_expired_time_ms),
                prometheus_needs_key: settings.prometheus.enable_basic_auth,
            };
            dunlin_api::router(admin.clone(), config)
        });
        Box::pin(dunlin_api::serve(listener, router.clone()))
    }

    fn ctl(
        &self,
        admin: Admin,
        request: CtlRequest,
        output: CtlOutput,
    ) -> Pin<Box<dyn Future<Output = i32> + Send>> {
        Box::pin(answer(self.installation.clone(), admin, request, output))
    }
}

/// Runs a command and says its steps, if somebody watches, and its answer.
async fn answer(
    installation: Installation,
    admin: Admin,
    request: CtlRequest,
    output: CtlOutput,
) -> i32 {
    let words: Vec<&str> = request.args.iter().map(String::as_str).collect();
    if let ["cluster", "diagnose", rest @ ..] = words.as_slice() {
        // It says each step while it is done, on standard output: the steps are the answer.
        return i32::from(!ctl::diagnose::run(&admin, rest, &output).await);
    }
    let (progress, mut steps) = Progress::channel();
    let mut command = pin!(run(&installation, &admin, &words, progress));
    let answer = loop {
        tokio::select! {
            biased;
            Some(step) = steps.recv() => {
                if request.columns.is_some() {
                    output.err(format!("{step}\n")).await;
                }
            }
            answer = &mut command => break answer,
        }
    };
    output.out(answer.text).await;
    i32::from(!answer.ok)
}

async fn run(
    installation: &Installation,
    admin: &Admin,
    words: &[&str],
    progress: Progress,
) -> Answer {
    match words {
        // Only who reads the files of the installation can read them again.
        ["conf", "reload"] => match boot::load(installation) {
            Ok(boot) => ctl::conf::reload(admin, &boot.loaded.layers),
            Err(error) => Answer {
                text: format!("load etc/emqx.conf failed\n{error}\n"),
                ok: false,
            },
        },
        [socket::PID] => Answer {
            text: format!("{}\n", std::process::id()),
            ok: true,
        },
        [socket::STOP] => {
            admin.stop();
            Answer {
                text: "ok\n".to_owned(),
                ok: true,
            }
        }
        _ => ctl::run(admin, words, progress).await,
    }
}
