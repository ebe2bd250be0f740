//! Reading the configuration of this installation, and saying what is wrong with it.

use std::fmt;
use std::fmt::Write;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use dunlin_api::time::rfc3339;
use dunlin_config::{ConfigError, Files, Layer, LayerKind, Loaded, Sources, Warning};

use crate::installation::Installation;
use crate::say;

/// A valid configuration and where the node's data are.
pub(crate) struct Boot {
    pub(crate) loaded: Loaded,
    pub(crate) data: PathBuf,
}

/// Why there is no valid configuration.
#[derive(Debug)]
pub(crate) enum BootError {
    /// `etc/emqx.conf` does not exist.
    NoConf { etc: PathBuf },
    /// A file is there and cannot be read.
    Unreadable { path: PathBuf, error: io::Error },
    /// What is written is wrong.
    Invalid(Vec<ConfigError>),
}

impl fmt::Display for BootError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoConf { etc } => write!(f, "emqx.conf is not found in {}", etc.display()),
            Self::Unreadable { path, error } => write!(f, "{}: {error}", path.display()),
            Self::Invalid(errors) => {
                let lines: Vec<String> = errors.iter().map(ConfigError::to_string).collect();
                f.write_str(&lines.join("\n"))
            }
        }
    }
}

/// The files of the system, for `include`.
struct Disk;

impl Files for Disk {
    fn read(&self, path: &str) -> io::Result<String> {
        std::fs::read_to_string(path)
    }
}

/// Reads all layers: `base.hocon` < `cluster.hocon` < `emqx.conf` < environment.
pub(crate) fn load(installation: &Installation) -> Result<Boot, BootError> {
    let env: Vec<(String, String)> = std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
        .collect();
    let mut files = Vec::new();
    add(
        &mut files,
        LayerKind::Base,
        &installation.etc.join("base.hocon"),
    )?;
    if !add(
        &mut files,
        LayerKind::Etc,
        &installation.etc.join("emqx.conf"),
    )? {
        return Err(BootError::NoConf {
            etc: installation.etc.clone(),
        });
    }
    // Where the data are decides where the runtime changes are, so that is asked first; like EMQX's
    // start script, only what the operator wrote answers it.
    let first = read(installation, files.clone(), env.clone(), "")?;
    let data = installation.root.join(&first.settings.node.data_dir);
    let configs = data.join("configs");
    let before = files.len();
    add(
        &mut files,
        LayerKind::Cluster,
        &configs.join("cluster.hocon"),
    )?;
    for name in ["cluster-override.conf", "local-override.conf"] {
        add(&mut files, LayerKind::LegacyOverride, &configs.join(name))?;
    }
    let loaded = if files.len() == before {
        first
    } else {
        read(installation, files, env, &data.display().to_string())?
    };
    Ok(Boot { loaded, data })
}

fn read(
    installation: &Installation,
    files: Vec<Layer>,
    env: Vec<(String, String)>,
    data_dir: &str,
) -> Result<Loaded, BootError> {
    dunlin_config::load(&Sources {
        files,
        env,
        etc_dir: installation.etc.display().to_string(),
        log_dir: installation.log.display().to_string(),
        data_dir: data_dir.to_owned(),
        include: &Disk,
    })
    .map_err(BootError::Invalid)
}

/// Adds a file's text if there is such a file.
fn add(files: &mut Vec<Layer>, kind: LayerKind, path: &Path) -> Result<bool, BootError> {
    match std::fs::read_to_string(path) {
        Ok(text) => {
            files.push(Layer {
                kind,
                path: path.display().to_string(),
                text,
            });
            Ok(true)
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(BootError::Unreadable {
            path: path.to_path_buf(),
            error,
        }),
    }
}

/// Prints why there is no configuration: the lines EMQX's checker prints on stdout, for scripts
/// that read them, and on stderr what a person needs: the file, the line, the cure.
pub(crate) fn report(error: &BootError) {
    if let BootError::Invalid(errors) = error {
        say::out(&emqx_lines(errors, wall_ms()));
        for error in errors {
            say::error(&error.to_string());
        }
    } else {
        say::error(&error.to_string());
    }
}

fn emqx_lines(errors: &[ConfigError], wall_ms: u64) -> String {
    let time = rfc3339(wall_ms);
    let mut text = String::new();
    if errors
        .iter()
        .any(|error| !matches!(error, ConfigError::Syntax { .. }))
    {
        let _ = writeln!(
            text,
            "{time} [error] failed_to_check_schema: emqx_conf_schema"
        );
    }
    for error in errors {
        let _ = writeln!(text, "{time} [error] {}", error.emqx_map());
    }
    text
}

/// Prints what an operator should know about an accepted configuration, and which variables are in
/// force, as EMQX does when a node starts.
pub(crate) fn announce(boot: &Boot, installation: &Installation) {
    for warning in &boot.loaded.warnings {
        match warning {
            Warning::DefaultCookie => say::out(&cookie_lines(&installation.etc)),
            Warning::UnknownEnv { .. } => say::err(&format!("[warning] {warning}\n")),
            _ => say::line(&format!("WARNING: {warning}")),
        }
    }
    for setting in &boot.loaded.overrides {
        say::line(&setting.to_string());
    }
}

fn cookie_lines(etc: &Path) -> String {
    format!(
        "WARNING: Default (insecure) Erlang cookie is in use.\n\
         WARNING: Configure node.cookie in {}/emqx.conf or override from environment variable \
         EMQX_NODE__COOKIE\n\
         WARNING: NOTE: Use the same cookie for all nodes in the cluster.\n",
        etc.display()
    )
}

/// `emqx check_config`: nothing when all is well; with `verbose` what is accepted all the same.
pub(crate) fn check(installation: &Installation, verbose: bool) -> bool {
    match load(installation) {
        Err(error) => {
            report(&error);
            false
        }
        Ok(boot) => {
            if verbose {
                announce(&boot, installation);
                for (path, place) in &boot.loaded.without_effect {
                    say::line(&format!(
                        "INFO: {path} ({place}) is accepted without effect"
                    ));
                }
                say::line("INFO: the configuration is valid");
            }
            true
        }
    }
}

fn wall_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |since| {
        u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn emqx_s_three_lines_about_the_cookie() {
        assert_eq!(
            cookie_lines(Path::new("/opt/emqx/etc")),
            "WARNING: Default (insecure) Erlang cookie is in use.\n\
             WARNING: Configure node.cookie in /opt/emqx/etc/emqx.conf or override from \
             environment variable EMQX_NODE__COOKIE\n\
             WARNING: NOTE: Use the same cookie for all nodes in the cluster.\n"
        );
    }

    #[test]
    fn a_missing_value_is_reported_in_emqx_s_words() {
        let error = ConfigError::Required {
            path: "node.cookie".to_owned(),
            example: "cookie = \"secret\"".to_owned(),
        };
        assert_eq!(
            emqx_lines(&[error], 0),
            "1970-01-01T00:00:00.000+00:00 [error] failed_to_check_schema: emqx_conf_schema\n\
             1970-01-01T00:00:00.000+00:00 [error] #{kind => validation_error,\
             path => \"node.cookie\",reason => required_field}\n"
        );
    }
}
