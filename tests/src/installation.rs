//! An installation in a directory of its own, as an operator unpacks it.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::SystemTime;

use anyhow::{Context, Result, ensure};
use tempfile::TempDir;

use crate::process::{self, Output};

/// Set to anything, it keeps the directories of tests for a look at their logs.
const KEEP: &str = "DUNLIN_TEST_KEEP";

/// `bin/`, `etc/`, and room for `data/`, `log/` and `run/`; removed when dropped.
#[derive(Debug)]
pub struct Installation {
    root: TempDir,
}

impl Installation {
    /// Lays out an installation with the configuration users get.
    pub fn new() -> Result<Arc<Self>> {
        let binary = binary()?;
        let mut root = tempfile::Builder::new().prefix("dunlin-").tempdir()?;
        let at = root.path();
        for folder in ["bin", "etc", "data", "log", "run"] {
            fs::create_dir(at.join(folder))?;
        }
        // Not a symbolic link: a program that finds no configuration here follows links to where
        // there is one.
        let program = at.join("bin/dunlin");
        fs::hard_link(&binary, &program).or_else(|_| fs::copy(&binary, &program).map(drop))?;
        symlink("dunlin", at.join("bin/emqx"))?;
        symlink("dunlin", at.join("bin/emqx_ctl"))?;
        let shipped = Path::new(env!("CARGO_MANIFEST_DIR")).join("../etc");
        for entry in fs::read_dir(&shipped).with_context(|| format!("{}", shipped.display()))? {
            let from = entry?.path();
            if let (true, Some(name)) = (from.is_file(), from.file_name()) {
                fs::copy(&from, at.join("etc").join(name))?;
            }
        }
        if std::env::var_os(KEEP).is_some() {
            root.disable_cleanup(true);
            eprintln!("kept: {}", root.path().display());
        }
        Ok(Arc::new(Self { root }))
    }

    /// The directory it lies in.
    pub fn root(&self) -> &Path {
        self.root.path()
    }

    /// Appends to `etc/emqx.conf`.
    pub fn configure(&self, text: &str) -> Result<()> {
        let path = self.root().join("etc/emqx.conf");
        let mut conf = fs::read_to_string(&path)?;
        conf.push('\n');
        conf.push_str(text);
        fs::write(&path, conf)?;
        Ok(())
    }

    /// Replaces `etc/emqx.conf`.
    pub fn write_conf(&self, text: &str) -> Result<()> {
        fs::write(self.root().join("etc/emqx.conf"), text)?;
        Ok(())
    }

    /// A program of `bin/`, run in the installation's directory, without variables of ours.
    pub fn command(&self, program: &str) -> Command {
        let mut command = Command::new(self.root().join("bin").join(program));
        self.prepare(&mut command);
        command
    }

    /// A line of a manual, typed in the installation's directory.
    pub fn shell(&self, line: &str) -> Result<Output> {
        let mut command = Command::new("sh");
        command.args(["-c", line]);
        self.prepare(&mut command);
        process::run(&mut command)
    }

    fn prepare(&self, command: &mut Command) {
        command.current_dir(self.root()).env("TERM", "dumb");
        for (name, _) in std::env::vars_os() {
            let text = name.to_string_lossy();
            if text.starts_with("EMQX_") || text.starts_with("DUNLIN_") {
                command.env_remove(&name);
            }
        }
    }

    /// Runs a program of `bin/` to its end.
    pub fn run(&self, program: &str, args: &[&str], env: &[(&str, &str)]) -> Result<Output> {
        process::run(self.command(program).args(args).envs(env.iter().copied()))
    }
}

/// The program under test: `DUNLIN_BIN`, or the installation of `make test`, or the newest build.
pub fn binary() -> Result<PathBuf> {
    if let Some(path) = std::env::var_os("DUNLIN_BIN") {
        return Ok(PathBuf::from(path).canonicalize()?);
    }
    if let Some(path) = std::env::var_os("DUNLIN_INSTALLATION") {
        return Ok(PathBuf::from(path).join("bin/dunlin").canonicalize()?);
    }
    let target = target_dir()?;
    let newest = ["release", "debug"]
        .iter()
        .map(|profile| target.join(profile).join("dunlin"))
        .filter_map(|path| Some((built(&path)?, path)))
        .max();
    let (_, path) = newest.with_context(|| {
        format!(
            "no dunlin in {}: run `cargo build -p dunlin` first",
            target.display()
        )
    })?;
    ensure!(path.is_absolute(), "{} is absolute", path.display());
    Ok(path)
}

fn built(path: &Path) -> Option<SystemTime> {
    fs::metadata(path).ok()?.modified().ok()
}

/// Where cargo builds: above the `<profile>/deps` this test was built into.
pub fn target_dir() -> Result<PathBuf> {
    let own = std::env::current_exe()?;
    own.ancestors()
        .nth(3)
        .map(Path::to_path_buf)
        .context("a test lies in target/<profile>/deps")
}
