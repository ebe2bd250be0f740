//! Where this installation lives: `bin/`, `etc/`, `log/`, `run/` and the node's data.
//!
//! Everything is found from the path the program was called by, so an unpacked archive works
//! wherever it lies, and so that every command of one installation finds its nodes. Reads the
//! environment only through the function it is given.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

/// A chain of symbolic links longer than this is a loop.
const LINKS_MAX: usize = 40;

/// The directories of one installation, all absolute.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Installation {
    /// The directory above `bin/`; relative paths in the configuration start here.
    pub(crate) root: PathBuf,
    /// Where `emqx.conf` is.
    pub(crate) etc: PathBuf,
    /// Where log files go.
    pub(crate) log: PathBuf,
    /// Where running nodes keep their control sockets.
    pub(crate) run: PathBuf,
    /// The program as it was called, for texts.
    pub(crate) program: PathBuf,
}

impl Installation {
    /// Finds the installation of the program called as `called` (its `argv[0]`), whose file is
    /// `executable` with all links resolved.
    pub(crate) fn find(
        called: &Path,
        executable: &Path,
        cwd: &Path,
        env: impl Fn(&str) -> Option<OsString>,
    ) -> Self {
        let set = |name: &str| env(name).filter(|v| !v.is_empty()).map(|v| cwd.join(v));
        let path = env("PATH").unwrap_or_default();
        let called = locate(called, cwd, &path).unwrap_or_else(|| executable.to_path_buf());
        let root = set("DUNLIN_ROOT").unwrap_or_else(|| root_of(&called, executable));
        Self {
            etc: set("EMQX_ETC_DIR").unwrap_or_else(|| root.join("etc")),
            log: set("EMQX_LOG_DIR")
                .or_else(|| set("RUNNER_LOG_DIR"))
                .unwrap_or_else(|| root.join("log")),
            run: set("DUNLIN_RUN_DIR").unwrap_or_else(|| root.join("run")),
            program: called,
            root,
        }
    }
}

/// The absolute path behind `argv[0]`: relative to `cwd` when it has a slash, else from `PATH`.
fn locate(called: &Path, cwd: &Path, path: &OsString) -> Option<PathBuf> {
    if called.components().count() > 1 || called.is_absolute() {
        return Some(cwd.join(called)).filter(|p| p.exists());
    }
    std::env::split_paths(path)
        .map(|dir| cwd.join(dir).join(called))
        .find(|p| p.is_file())
}

/// Follows the links from `called` one by one and takes the first `bin/` that has an
/// `etc/emqx.conf` beside it, or at least an `etc/`. Resolving all links at once would be wrong in
/// one common layout: `bin/emqx` of an installation being a link into a build tree, or into
/// another version's directory.
fn root_of(called: &Path, executable: &Path) -> PathBuf {
    let chain = links(called);
    let found = |is_there: fn(&Path) -> bool| {
        chain.iter().find_map(|program| {
            let bin = program.parent()?.canonicalize().ok()?;
            let root = bin.parent()?;
            (bin.file_name()? == "bin" && is_there(root)).then(|| root.to_path_buf())
        })
    };
    let configured = found(|root| root.join("etc").join("emqx.conf").is_file());
    configured
        .or_else(|| found(|root| root.join("etc").is_dir()))
        .unwrap_or_else(|| {
            let bin = executable.parent().unwrap_or_else(|| Path::new("/"));
            bin.parent().unwrap_or(bin).to_path_buf()
        })
}

/// A path and what it links to, step by step.
fn links(path: &Path) -> Vec<PathBuf> {
    let mut chain = vec![path.to_path_buf()];
    while chain.len() < LINKS_MAX {
        let at = &chain[chain.len() - 1];
        let Ok(next) = std::fs::read_link(at) else {
            break;
        };
        let next = at
            .parent()
            .map_or_else(|| next.clone(), |dir| dir.join(&next));
        chain.push(next);
    }
    chain
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::symlink;

    struct Scratch(PathBuf);

    impl Scratch {
        fn new(name: &str) -> Self {
            let dir =
                std::env::temp_dir().join(format!("dunlin-inst-{name}-{}", std::process::id()));
            let _ = fs::remove_dir_all(&dir);
            fs::create_dir_all(dir.join("opt/bin")).expect("a temporary directory is writable");
            fs::create_dir_all(dir.join("opt/etc")).expect("a temporary directory is writable");
            fs::write(dir.join("opt/etc/emqx.conf"), "").expect("just created");
            fs::write(dir.join("opt/bin/dunlin"), "").expect("just created");
            symlink("dunlin", dir.join("opt/bin/emqx")).expect("just created");
            Self(dir.canonicalize().expect("just created"))
        }
    }

    impl Drop for Scratch {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    fn find(called: &str, cwd: &Path, env: &[(&str, &str)]) -> Installation {
        let executable = cwd.join("opt/bin/dunlin");
        Installation::find(Path::new(called), &executable, cwd, |name| {
            env.iter().find(|(n, _)| *n == name).map(|(_, v)| v.into())
        })
    }

    #[test]
    fn relative_call_and_call_from_inside_bin() {
        let dir = Scratch::new("relative");
        assert_eq!(find("opt/bin/emqx", &dir.0, &[]).root, dir.0.join("opt"));
        let inside = Installation::find(
            Path::new("./emqx"),
            &dir.0.join("opt/bin/dunlin"),
            &dir.0.join("opt/bin"),
            |_| None,
        );
        assert_eq!(inside.root, dir.0.join("opt"));
    }

    #[test]
    fn a_link_elsewhere_leads_home() {
        let dir = Scratch::new("elsewhere");
        fs::create_dir_all(dir.0.join("usr/bin")).expect("writable");
        symlink(dir.0.join("opt/bin/emqx"), dir.0.join("usr/bin/emqx_ctl")).expect("writable");
        let found = find("usr/bin/emqx_ctl", &dir.0, &[]);
        assert_eq!(found.root, dir.0.join("opt"));
        let by_path = dir.0.join("usr/bin");
        let by_path = by_path.to_str().expect("ASCII");
        assert_eq!(
            find("emqx_ctl", &dir.0, &[("PATH", by_path)]).root,
            dir.0.join("opt")
        );
    }

    #[test]
    fn an_installation_linking_into_a_build_tree_is_its_own() {
        let dir = Scratch::new("build-tree");
        fs::create_dir_all(dir.0.join("target/release")).expect("writable");
        fs::write(dir.0.join("target/release/dunlin"), "").expect("writable");
        fs::remove_file(dir.0.join("opt/bin/dunlin")).expect("was created");
        symlink(
            dir.0.join("target/release/dunlin"),
            dir.0.join("opt/bin/dunlin"),
        )
        .expect("writable");
        assert_eq!(find("opt/bin/emqx", &dir.0, &[]).root, dir.0.join("opt"));
    }

    #[test]
    fn environment_overrides() {
        let dir = Scratch::new("environment");
        let found = find(
            "opt/bin/emqx",
            &dir.0,
            &[
                ("EMQX_ETC_DIR", "/etc/emqx"),
                ("EMQX_LOG_DIR", "logs"),
                ("DUNLIN_ROOT", ""),
            ],
        );
        assert_eq!(found.etc, Path::new("/etc/emqx"));
        assert_eq!(found.log, dir.0.join("logs"));
        assert_eq!(found.run, dir.0.join("opt/run"));
    }
}
