//! `conf`: the configuration in force, secrets masked, and its changes at run time.

use dunlin_config::change::{Change, Mode};
use dunlin_config::{ConfigError, Layers, render};
use dunlin_server::admin::{Admin, AdminError};

use super::help::Usage;
use super::{Answer, cluster_sync};

pub(super) const USAGE: Usage = Usage {
    name: "conf",
    forms: &[
        (
            "conf reload",
            "Reload etc/emqx.conf on this node, as far as it can change while the node runs",
        ),
        (
            "conf show_keys",
            "Print all the currently used configuration keys",
        ),
        (
            "conf show [<key>] [--json]",
            "Print in-use configs (including default values) under the given key",
        ),
        (
            "conf load --replace|--merge <path>",
            "Load a HOCON format config file in the whole cluster; --merge keeps other changes",
        ),
    ],
};

/// Says that what follows it is not a word but the text of a file.
pub(crate) const TEXT: &str = "@text";

pub(super) async fn run(admin: &Admin, args: &[&str]) -> Result<Answer, AdminError> {
    Ok(match args {
        ["show_keys"] => Answer::done(render::root_names().join("\n") + "\n"),
        ["show"] => show(admin, ""),
        ["show", "--json"] => show_json(admin, ""),
        ["show", key] => show(admin, key),
        ["show", key, "--json"] | ["show", "--json", key] => show_json(admin, key),
        ["load", rest @ ..] => load(admin, rest).await,
        ["cluster_sync" | "cluster_call", rest @ ..] => {
            return cluster_sync::run(admin, rest).await;
        }
        _ => Answer::usage(&USAGE),
    })
}

fn show(admin: &Admin, key: &str) -> Answer {
    match render::conf_show(&admin.loaded().raw, key) {
        Some(text) => Answer::done(format!("{}\n", text.trim_end())),
        None => unknown(key),
    }
}

fn show_json(admin: &Admin, key: &str) -> Answer {
    match render::json(&admin.loaded().raw, key) {
        Some(json) => Answer::done(format!("{json:#}\n")),
        None => unknown(key),
    }
}

fn unknown(key: &str) -> Answer {
    Answer::failed(format!("Error: there is no configuration key '{key}'\n"))
}

/// The words of `conf load` with the text of its file: it is read where the command is given, with
/// the rights of who gives it.
pub(crate) fn with_text(args: &[&str]) -> Vec<String> {
    let mut words: Vec<String> = args.iter().map(|&word| word.to_owned()).collect();
    if let ["conf", "load", .., path] = args
        && !path.starts_with("--")
        && let Ok(text) = std::fs::read_to_string(path)
    {
        words.extend([TEXT.to_owned(), text]);
    }
    words
}

async fn load(admin: &Admin, args: &[&str]) -> Answer {
    let (mode, rest) = match args {
        ["--replace", rest @ ..] => (Mode::Replace, rest),
        ["--merge", rest @ ..] | rest => (Mode::Merge, rest),
    };
    match rest {
        [path, TEXT, text] if text.trim().is_empty() => {
            Answer::failed(format!("load {path} is empty\n"))
        }
        [path, TEXT, text] => match Change::from_text(path, text, mode) {
            Ok(change) => load_change(admin, &change).await,
            Err(errors) => Answer::failed(format!("load {path} failed\n{}", lines(&errors))),
        },
        [path] if !path.starts_with("--") => Answer::failed(format!("{path} file is not found\n")),
        _ => Answer::usage(&USAGE),
    }
}

async fn load_change(admin: &Admin, change: &Change) -> Answer {
    match admin.configure(change).await {
        Ok(configured) => {
            let loaded = change.roots().into_iter();
            let loaded = loaded.map(|root| format!("load {root} on cluster ok\n"));
            let warnings = configured.warnings().into_iter();
            let warnings = warnings.map(|warning| format!("WARNING: {warning}\n"));
            Answer::done(loaded.chain(warnings).collect::<String>())
        }
        Err(error) => refused(&error),
    }
}

fn refused(error: &AdminError) -> Answer {
    Answer::failed(match error {
        AdminError::ConfigInvalid { errors } => {
            let line = |error: &ConfigError| {
                let path = error.path();
                let root = path.split('.').next().unwrap_or_default();
                format!("{root}: {error}\n")
            };
            let lines: String = errors.iter().map(line).collect();
            format!("load schema check failed\n{lines}")
        }
        AdminError::ConfigReadOnly { keys } => {
            format!(
                "load config failed\nCannot update read-only key '{}'.\n{CURE}",
                read_only(keys)
            )
        }
        AdminError::ConfigNeedsRestart { keys } => format!(
            "load config failed\nCannot update key '{}' while the nodes run.\n{CURE}",
            keys.join(",")
        ),
        other => format!("load config failed\n{other}\n"),
    })
}

/// EMQX advises a reload of `emqx.conf` here, which would not help.
const CURE: &str =
    "Change it in etc/emqx.conf of each node and restart it there ('emqx restart').\n";

/// The keys as EMQX names them: `node` and `rpc` as a whole, those of `cluster` one by one.
fn read_only(keys: &[String]) -> String {
    let mut names: Vec<&str> = Vec::new();
    for key in keys {
        let root = key.split('.').next().unwrap_or_default();
        let name = if root == "cluster" { key } else { root };
        if !names.contains(&name) {
            names.push(name);
        }
    }
    names.join(",")
}

fn lines(errors: &[ConfigError]) -> String {
    let lines: Vec<String> = errors.iter().map(ConfigError::to_string).collect();
    lines.join("\n") + "\n"
}

/// `conf reload`: what this node's own files say now.
pub(crate) fn reload(admin: &Admin, layers: &Layers) -> Answer {
    match admin.reload_configuration(layers) {
        Ok(keys) if keys.is_empty() => {
            Answer::done("Nothing has changed in the files of this node.\n")
        }
        Ok(keys) => {
            let mut roots: Vec<&str> = Vec::new();
            for key in &keys {
                roots.extend(key.split('.').next());
            }
            roots.dedup();
            let node = &admin.loaded().settings.node.name;
            let line = |root: &&str| format!("load {root} on {node} ok\n");
            Answer::done(roots.iter().map(line).collect::<String>())
        }
        Err(AdminError::ConfigNeedsRestart { keys }) => Answer::failed(format!(
            "reload config failed\nCannot update key '{}' while the node runs; nothing was \
             changed.\nRun 'emqx restart' to take it up.\n",
            keys.join(",")
        )),
        Err(error) => refused(&error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn read_only_keys_are_named_as_emqx_names_them() {
        let keys = ["node.name", "node.cookie", "rpc.mode", "cluster.name"].map(str::to_owned);
        assert_eq!(read_only(&keys), "node,rpc,cluster.name");
        let answer = refused(&AdminError::ConfigReadOnly { keys: keys.into() });
        assert!(!answer.ok);
        let first = "load config failed\nCannot update read-only key 'node,rpc,cluster.name'.\n";
        assert!(answer.text.starts_with(first), "{}", answer.text);
    }

    #[test]
    fn a_file_that_is_not_there_is_left_to_the_node_to_say() {
        let words = ["conf", "load", "--merge", "/no/such/file"];
        assert_eq!(with_text(&words), words);
        assert_eq!(with_text(&["conf", "show"]), ["conf", "show"]);
    }
}
