//! Mosquitto's command line clients: an MQTT implementation independent of ours.

use std::collections::VecDeque;
use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};

use crate::missing;
use crate::process::{self, Output};

/// Nothing awaited may take longer.
const LIMIT: Duration = Duration::from_secs(10);
/// Marks the lines that are messages.
const MARK: &str = "MSG ";
/// Retain flag, QoS, topic, payload.
const FORMAT: &str = "MSG %r %q %t %p";

/// Whether the clients are installed; says so loudly when not.
pub fn is_there(what: &str) -> bool {
    let there = missing::has("mosquitto_sub") && missing::has("mosquitto_pub");
    if !there {
        missing::not_tested(what, "mosquitto_sub is missing (Debian: mosquitto-clients)");
    }
    there
}

fn client(program: &str, address: SocketAddr) -> Command {
    // Without a terminal its output would be kept until there is a lot of it.
    let mut command = Command::new("stdbuf");
    command.args(["-oL", program]);
    command.args([
        "-h",
        &address.ip().to_string(),
        "-p",
        &address.port().to_string(),
    ]);
    command
}

/// `mosquitto_pub ARGS`, to its end.
pub fn publish(address: SocketAddr, args: &[&str]) -> Result<Output> {
    process::run(client("mosquitto_pub", address).args(args))?.ok()
}

/// `mosquitto_sub ARGS` that ends with DISCONNECT once it is subscribed. (Asked by a signal to end,
/// it now and then waits for a lock that it holds itself.)
pub fn subscribe_and_leave(address: SocketAddr, args: &[&str]) -> Result<Output> {
    process::run(client("mosquitto_sub", address).arg("-E").args(args))?.ok()
}

/// A running `mosquitto_sub`.
#[derive(Debug)]
pub struct Subscriber {
    child: Child,
    lines: Receiver<String>,
    messages: VecDeque<String>,
    /// Everything it printed so far, for messages of failures.
    seen: Vec<String>,
}

impl Subscriber {
    /// Starts it and returns when the broker has acknowledged the subscription.
    pub fn start(address: SocketAddr, args: &[&str]) -> Result<Self> {
        let mut subscriber = Self::start_unawaited(address, args)?;
        subscriber.line_with("Subscribed (mid: ")?;
        Ok(subscriber)
    }

    /// Starts it.
    pub fn start_unawaited(address: SocketAddr, args: &[&str]) -> Result<Self> {
        let mut command = client("mosquitto_sub", address);
        let command = command.args(["-d", "-F", FORMAT]).args(args);
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .context("cannot run mosquitto_sub")?;
        let (sender, lines) = mpsc::channel();
        let out = child.stdout.take().context("stdout is piped")?;
        let err = child.stderr.take().context("stderr is piped")?;
        forward(out, sender.clone());
        forward(err, sender);
        Ok(Self {
            child,
            lines,
            messages: VecDeque::new(),
            seen: Vec::new(),
        })
    }

    /// Waits for a line that contains `text` and returns it. Messages that come before it are kept.
    pub fn line_with(&mut self, text: &str) -> Result<String> {
        loop {
            let line = self.line(text)?;
            if line.contains(text) {
                return Ok(line);
            }
            self.keep(&line);
        }
    }

    /// The next message, as `retain qos topic payload`.
    pub fn message(&mut self) -> Result<String> {
        while self.messages.is_empty() {
            let line = self.line("a message")?;
            self.keep(&line);
        }
        self.messages.pop_front().context("the queue is not empty")
    }

    fn line(&mut self, awaited: &str) -> Result<String> {
        match self.lines.recv_timeout(LIMIT) {
            Ok(line) => {
                self.seen.push(line.clone());
                Ok(line)
            }
            Err(RecvTimeoutError::Timeout) => {
                bail!(
                    "mosquitto_sub: no {awaited:?} within {LIMIT:?}: {:#?}",
                    self.seen
                )
            }
            Err(RecvTimeoutError::Disconnected) => {
                bail!("mosquitto_sub ended before {awaited:?}: {:#?}", self.seen)
            }
        }
    }

    fn keep(&mut self, line: &str) {
        self.messages
            .extend(line.strip_prefix(MARK).map(str::to_owned));
    }

    /// Requires that the next message is this one.
    pub fn expect(&mut self, message: &str) -> Result<()> {
        let found = self.message()?;
        ensure!(
            found == message,
            "message {message:?} expected, got {found:?}"
        );
        Ok(())
    }

    /// Kills it: the broker sees a broken connection.
    pub fn kill9(mut self) -> Result<()> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }
}

impl Drop for Subscriber {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn forward(from: impl std::io::Read + Send + 'static, to: mpsc::Sender<String>) {
    thread::spawn(move || {
        for line in BufReader::new(from).split(b'\n').map_while(Result::ok) {
            if to
                .send(String::from_utf8_lossy(&line).into_owned())
                .is_err()
            {
                return;
            }
        }
    });
}
