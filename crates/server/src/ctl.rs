//! The control socket: how `emqx ctl` and the rest of the command line reach a running node.
//!
//! A Unix socket `run/<node name>.sock` that only its owner can open. One line of JSON comes in
//! (`{"args": ["cluster", "status"], "columns": 80}`), lines of JSON go out: `{"out": "text"}` and
//! `{"err": "text"}` as the command has something to say, `{"exit": 0}` last. What commands mean is
//! the `dunlin` crate's business.

use std::fs;
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{Semaphore, mpsc};
use tokio::time::timeout;

use crate::admin::Admin;
use crate::lifecycle::Hooks;

/// Longest request line, in bytes; a whole configuration file may be given as an argument.
const REQUEST_BYTES_MAX: u64 = 1024 * 1024;

/// How long a client may take to send its request.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(5);

/// Commands at once. The command line runs one; scripts run a few.
const COMMANDS_MAX: usize = 32;

/// Lines waiting for a slow terminal.
const LINES_MAX: usize = 64;

/// Longest path of a Unix socket, in bytes, without its terminating zero.
const SOCKET_PATH_BYTES_MAX: usize = 107;

/// A command.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct CtlRequest {
    /// The words after `emqx ctl`.
    pub args: Vec<String>,
    /// Width of the terminal, if there is one.
    #[serde(default)]
    pub columns: Option<u16>,
}

/// A line of the answer.
#[derive(Debug, Serialize)]
#[serde(rename_all = "lowercase")]
enum Line {
    Out(String),
    Err(String),
    Exit(i32),
}

/// Where a command says what it has to say. Text goes out as it is, without added newlines.
#[derive(Clone)]
pub struct CtlOutput(mpsc::Sender<Line>);

impl CtlOutput {
    /// For standard output.
    pub async fn out(&self, text: impl Into<String>) {
        // Whoever asked has gone; the command goes on.
        let _ = self.0.send(Line::Out(text.into())).await;
    }

    /// For standard error.
    pub async fn err(&self, text: impl Into<String>) {
        let _ = self.0.send(Line::Err(text.into())).await;
    }
}

/// The socket; removed when dropped.
pub(crate) struct CtlSocket {
    listener: UnixListener,
    path: PathBuf,
    pid_path: PathBuf,
}

impl CtlSocket {
    /// Opens the socket of a node. A file left over by a node that was killed is replaced: that no
    /// other node runs is known from the lock on the data directory.
    pub(crate) fn open(run: &Path, node: &str) -> io::Result<Self> {
        let path = path_of(run, node);
        if path.as_os_str().len() > SOCKET_PATH_BYTES_MAX {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                format!("the path is longer than {SOCKET_PATH_BYTES_MAX} bytes"),
            ));
        }
        if !run.is_dir() {
            fs::DirBuilder::new()
                .recursive(true)
                .mode(0o700)
                .create(run)?;
        }
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        // In a directory that others may enter, the socket must not be open to them for a moment;
        // the mask is per process and other threads run, so it is made under a private name.
        let listener = bind_private(run, &path)?;
        let pid_path = pid_path_of(run, node);
        fs::write(&pid_path, format!("{}\n", std::process::id()))?;
        Ok(Self {
            listener,
            path,
            pid_path,
        })
    }

    /// Answers commands until dropped.
    pub(crate) async fn serve(self, admin: Admin, hooks: Arc<dyn Hooks>) {
        let turns = Arc::new(Semaphore::new(COMMANDS_MAX));
        loop {
            let turn = turns.clone().acquire_owned().await.expect("never closed");
            match self.listener.accept().await {
                Ok((stream, _)) => {
                    let (admin, hooks) = (admin.clone(), hooks.clone());
                    tokio::spawn(async move {
                        if let Err(error) = answer(stream, admin, hooks).await {
                            tracing::debug!(reason = %error, "control_connection_failed");
                        }
                        drop(turn);
                    });
                }
                Err(error) => {
                    tracing::error!(reason = %error, "control_accept_failed");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            }
        }
    }
}

impl Drop for CtlSocket {
    fn drop(&mut self) {
        // Gone already, or the next start replaces it.
        let _ = fs::remove_file(&self.path);
        let _ = fs::remove_file(&self.pid_path);
    }
}

/// The path of a node's control socket.
pub fn path_of(run: &Path, node: &str) -> PathBuf {
    run.join(format!("{node}.sock"))
}

/// The path of the file with a node's process id: what a start looks at when the node was killed
/// and its process may still be ending.
pub fn pid_path_of(run: &Path, node: &str) -> PathBuf {
    run.join(format!("{node}.pid"))
}

fn bind_private(run: &Path, path: &Path) -> io::Result<UnixListener> {
    let private = run.join(format!(".{}", std::process::id()));
    let _ = fs::remove_dir_all(&private);
    fs::DirBuilder::new().mode(0o700).create(&private)?;
    let inside = private.join("s");
    let bound = std::os::unix::net::UnixListener::bind(&inside).and_then(|listener| {
        fs::set_permissions(&inside, fs::Permissions::from_mode(0o600))?;
        fs::rename(&inside, path)?;
        listener.set_nonblocking(true)?;
        UnixListener::from_std(listener)
    });
    let removed = fs::remove_dir_all(&private);
    let listener = bound?;
    removed?;
    Ok(listener)
}

async fn answer(stream: UnixStream, admin: Admin, hooks: Arc<dyn Hooks>) -> io::Result<()> {
    let (read, mut write) = stream.into_split();
    let mut line = String::new();
    let mut reader = BufReader::new(read.take(REQUEST_BYTES_MAX));
    timeout(REQUEST_TIMEOUT, reader.read_line(&mut line)).await??;
    let (sender, mut lines) = mpsc::channel(LINES_MAX);
    match serde_json::from_str::<CtlRequest>(&line) {
        Ok(request) => {
            let output = CtlOutput(sender.clone());
            let command = hooks.ctl(admin, request, output);
            tokio::spawn(async move {
                let code = command.await;
                let _ = sender.send(Line::Exit(code)).await;
            });
        }
        Err(error) => {
            let text = format!("the request is not understood: {error}\n");
            let _ = sender.send(Line::Err(text)).await;
            let _ = sender.send(Line::Exit(1)).await;
            drop(sender);
        }
    }
    while let Some(line) = lines.recv().await {
        let mut json = serde_json::to_vec(&line)?;
        json.push(b'\n');
        write.write_all(&json).await?;
    }
    write.shutdown().await
}
