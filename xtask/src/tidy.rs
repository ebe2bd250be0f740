//! The repository's own lints: what rustc and clippy cannot see.
//!
//! Each rule names the file, the line and what to do. A rule that is wrong is changed here, not
//! worked around.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};

/// A function longer than this is split; the ratchet lets nothing new cross the line.
const FUNCTION_LINES_MAX: usize = 70;
/// A file longer than this is more than one concept.
const FILE_LINES_MAX: usize = 1_200;
/// rustfmt's width; strings and tables that it leaves alone are held to it too.
const LINE_COLUMNS_MAX: usize = 100;

/// Which crate may use which: edges point only downwards (ARCHITECTURE.md has the picture).
const EDGES: &[(&str, &[&str])] = &[
    ("mqtt", &[]),
    ("slots", &[]),
    ("cluster", &["slots"]),
    ("storage", &[]),
    ("config", &[]),
    ("broker", &["mqtt", "cluster", "slots", "storage"]),
    ("auth", &["broker"]),
    (
        "server",
        &["broker", "auth", "mqtt", "cluster", "storage", "config"],
    ),
    ("api", &["server", "config"]),
    (
        "dunlin",
        &[
            "mqtt", "cluster", "storage", "config", "broker", "auth", "server", "api", "bench",
        ],
    ),
    ("sim", &["broker", "mqtt", "cluster", "storage"]),
    ("bench", &["mqtt"]),
    ("gate", &["broker", "mqtt", "cluster"]),
];
/// Crates without clock, socket, file or thread; tokio is not even a dependency of theirs.
const PURE: &[&str] = &["mqtt", "slots", "cluster", "config", "broker", "auth"];
const BANNED_FILES: &[&str] = &["utils.rs", "util.rs", "common.rs", "types.rs", "helpers.rs"];
const BANNED_SUFFIXES: &[&str] = &["Manager", "Helper", "Util", "Utils", "Impl", "Base"];

/// Checks the whole repository and reports every finding at once.
pub(crate) fn check(root: &Path) -> anyhow::Result<()> {
    let mut findings = Vec::new();
    edges(root, &mut findings)?;
    for file in rust_files(root)? {
        let text =
            fs::read_to_string(&file).with_context(|| format!("reading {}", file.display()))?;
        let name = file
            .strip_prefix(root)
            .unwrap_or(&file)
            .display()
            .to_string();
        source(&name, &text, &mut findings);
    }
    for file in markdown_files(root)? {
        let text =
            fs::read_to_string(&file).with_context(|| format!("reading {}", file.display()))?;
        let name = file
            .strip_prefix(root)
            .unwrap_or(&file)
            .display()
            .to_string();
        markdown(&name, &text, &mut findings);
    }
    crate::reference::check(root, &mut findings);
    if findings.is_empty() {
        return Ok(());
    }
    for finding in &findings {
        eprintln!("{finding}");
    }
    bail!("{} findings", findings.len())
}

/// Every `dunlin-*` dependency of every crate must be an allowed edge; pure crates stay off tokio.
fn edges(root: &Path, findings: &mut Vec<String>) -> anyhow::Result<()> {
    let allowed: BTreeMap<&str, &[&str]> = EDGES.iter().copied().collect();
    for entry in fs::read_dir(root.join("crates"))? {
        let folder = entry?.path();
        let name = folder
            .file_name()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned();
        let manifest = fs::read_to_string(folder.join("Cargo.toml"))?;
        let Some(targets) = allowed.get(name.as_str()) else {
            findings.push(format!(
                "crates/{name}: not in xtask's table of crate edges; add it"
            ));
            continue;
        };
        for dependency in dependencies(&manifest) {
            match dependency.strip_prefix("dunlin-") {
                Some(other) if !targets.contains(&other) => findings.push(format!(
                    "crates/{name}/Cargo.toml: {name} must not depend on {other}; \
                     move the code to where both may see it"
                )),
                None if PURE.contains(&name.as_str()) && dependency.starts_with("tokio") => {
                    findings.push(format!(
                        "crates/{name}/Cargo.toml: a pure core has no tokio"
                    ));
                }
                _ => {}
            }
        }
    }
    Ok(())
}

/// Names in `[dependencies]`; dev-dependencies may reach anywhere below them.
fn dependencies(manifest: &str) -> Vec<String> {
    let mut inside = false;
    let mut names = Vec::new();
    for line in manifest.lines().map(str::trim) {
        if line.starts_with('[') {
            inside = line == "[dependencies]";
        } else if inside && !line.is_empty() && !line.starts_with('#') {
            let name = line.split(['.', '=', ' ']).next().unwrap_or_default();
            names.push(name.trim_matches('"').to_owned());
        }
    }
    names
}

fn source(name: &str, text: &str, findings: &mut Vec<String>) {
    let lines: Vec<&str> = text.lines().collect();
    let base = name.rsplit('/').next().unwrap_or(name);
    if BANNED_FILES.contains(&base) {
        findings.push(format!(
            "{name}: a drawer, not a concept; name it for what it holds"
        ));
    }
    if lines.len() > FILE_LINES_MAX {
        findings.push(format!(
            "{name}: {} lines; split it by concept",
            lines.len()
        ));
    }
    let is_tidy = name.ends_with("xtask/src/tidy.rs");
    for (index, line) in lines.iter().enumerate() {
        let place = format!("{name}:{}", index + 1);
        if line.chars().count() > LINE_COLUMNS_MAX {
            findings.push(format!("{place}: longer than {LINE_COLUMNS_MAX} columns"));
        }
        if is_tidy {
            continue;
        }
        for word in ["TODO", "FIXME", "XXX", "todo!(", "unimplemented!("] {
            if line.contains(word) {
                findings.push(format!(
                    "{place}: {word}; finish it or put it in docs/roadmap.md"
                ));
            }
        }
        if line.contains("../shared") {
            findings.push(format!("{place}: the project must stand alone"));
        }
        banned_type(&place, line, findings);
    }
    long_functions(name, &lines, findings);
}

fn banned_type(place: &str, line: &str, findings: &mut Vec<String>) {
    let declared = line
        .trim_start()
        .trim_start_matches("pub ")
        .trim_start_matches("pub(crate) ");
    for keyword in ["struct ", "enum ", "trait "] {
        let Some(rest) = declared.strip_prefix(keyword) else {
            continue;
        };
        let type_name: String = rest.chars().take_while(|c| c.is_alphanumeric()).collect();
        if BANNED_SUFFIXES
            .iter()
            .any(|suffix| type_name.ends_with(suffix))
        {
            findings.push(format!(
                "{place}: {type_name} says nothing; use the field's noun"
            ));
        }
    }
}

/// rustfmt puts a function's closing brace at the column of its `fn`, which makes lengths cheap.
fn long_functions(name: &str, lines: &[&str], findings: &mut Vec<String>) {
    for (start, line) in lines.iter().enumerate() {
        let trimmed = line.trim_start();
        let indent = line.len() - trimmed.len();
        let words = trimmed
            .trim_start_matches("pub(crate) ")
            .trim_start_matches("pub(super) ");
        let words = words
            .trim_start_matches("pub ")
            .trim_start_matches("async ");
        let words = words.trim_start_matches("const ");
        if !words.starts_with("fn ") || trimmed.ends_with(';') {
            continue;
        }
        let length = lines[start..]
            .iter()
            .position(|line| ends_function(line, indent))
            .map_or(0, |end| end + 1);
        if length > FUNCTION_LINES_MAX {
            findings.push(format!(
                "{name}:{}: function of {length} lines; split it",
                start + 1
            ));
        }
    }
}

/// A line at the margin that ends a body, or a signature without one.
fn ends_function(line: &str, indent: usize) -> bool {
    let at_margin = line.len() - line.trim_start().len() == indent;
    at_margin && (line.ends_with('}') || line.ends_with(';'))
}

fn markdown(name: &str, text: &str, findings: &mut Vec<String>) {
    let mut fenced = false;
    let mut titles = 0;
    for line in text.lines() {
        if line.trim_start().starts_with("```") {
            fenced = !fenced;
        } else if !fenced && line.starts_with("# ") {
            titles += 1;
        }
    }
    if titles != 1 {
        findings.push(format!(
            "{name}: {titles} titles; a page has one `# ` heading"
        ));
    }
    if text.contains("../shared") {
        findings.push(format!("{name}: the project must stand alone"));
    }
}

fn rust_files(root: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for folder in ["crates", "xtask", "tests", "fuzz"] {
        walk(&root.join(folder), "rs", &mut files)?;
    }
    Ok(files)
}

fn markdown_files(root: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    walk(&root.join("docs"), "md", &mut files)?;
    for entry in fs::read_dir(root)? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "md") {
            files.push(path);
        }
    }
    Ok(files)
}

fn walk(folder: &Path, extension: &str, files: &mut Vec<PathBuf>) -> anyhow::Result<()> {
    if !folder.is_dir() {
        return Ok(());
    }
    let mut entries: Vec<PathBuf> = fs::read_dir(folder)?
        .map(|entry| entry.map(|e| e.path()))
        .collect::<Result<_, _>>()?;
    entries.sort();
    for path in entries {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        if path.is_dir() && name != "target" && !name.starts_with('.') {
            walk(&path, extension, files)?;
        } else if path.extension().is_some_and(|found| found == extension) {
            files.push(path);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `cargo test` runs the repository's lints too, so that nobody has to remember them.
    #[test]
    fn repository_is_tidy() {
        check(&crate::root()).expect("findings are printed above");
    }

    #[test]
    fn finds_what_it_is_for() {
        let mut findings = Vec::new();
        let long = format!("fn f() {{\n{}}}\n", "    g();\n".repeat(80));
        source("crates/x/src/utils.rs", &long, &mut findings);
        source(
            "crates/x/src/a.rs",
            "pub struct LinkManager;\n// TODO later\n",
            &mut findings,
        );
        let text = findings.join("\n");
        for expected in ["a drawer", "function of 82 lines", "LinkManager", "TODO"] {
            assert!(text.contains(expected), "{expected} not in {text}");
        }
    }

    #[test]
    fn reads_dependency_names() {
        let manifest = "[dependencies]\nbytes.workspace = true\ndunlin-mqtt = { path = \"x\" }\n\n\
                        [dev-dependencies]\ntokio = \"1\"\n";
        assert_eq!(dependencies(manifest), ["bytes", "dunlin-mqtt"]);
    }
}
