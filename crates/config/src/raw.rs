//! What each layer said, put together: the raw tree with places, and the checked tree
//! with defaults. [`load`] is the way from texts to [`Settings`].

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::io;

use crate::change::{self, Rows};
use crate::check::{Checked, Checker, Secrets};
use crate::env::{self, EnvOverride};
use crate::error::{ConfigError, LayerKind, Place, Warning};
use crate::hocon::{Document, Files, Node, Text, Value, merge, read_with, split_path};
use crate::integrity;
use crate::nearest::nearest;
use crate::schema::{find, rename};
use crate::section::{self, listeners, root_kind, roots};
use crate::settings::Settings;

/// The text of one file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Layer {
    /// Which file it is; decides its precedence.
    pub kind: LayerKind,
    /// Its path, for messages and relative includes.
    pub path: String,
    /// Its text.
    pub text: String,
}

/// Everything a configuration is made of.
pub struct Sources<'a> {
    /// The files that exist, in any order.
    pub files: Vec<Layer>,
    /// The environment.
    pub env: Vec<(String, String)>,
    /// Value of `${EMQX_ETC_DIR}` in paths.
    pub etc_dir: String,
    /// Value of `${EMQX_LOG_DIR}` in paths.
    pub log_dir: String,
    /// Value of `${EMQX_DATA_DIR}` in paths.
    pub data_dir: String,
    /// How included files are read.
    pub include: &'a dyn Files,
}

/// A valid configuration.
#[derive(Debug, Clone)]
pub struct Loaded {
    /// What it means.
    pub settings: Settings,
    /// What was said, and where.
    pub raw: Raw,
    /// What the operator should know.
    pub warnings: Vec<Warning>,
    /// Variables that set something, sorted by name.
    pub overrides: Vec<EnvOverride>,
    /// Keys that were given and do nothing here.
    pub without_effect: Vec<(String, Place)>,
    /// What it was made of, to make another one with other changes.
    pub layers: Layers,
    /// The text of the layer `cluster.hocon`, if there was one.
    pub cluster_hocon: Option<String>,
}

/// What a node's configuration is made of, apart from the changes at run time: what was read at
/// its start, so that a change brings nothing else with it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Layers {
    files: Vec<Layer>,
    /// Texts of included files by path.
    included: BTreeMap<String, String>,
    env: Vec<(String, String)>,
    etc_dir: String,
    log_dir: String,
    data_dir: String,
}

impl Files for BTreeMap<String, String> {
    fn read(&self, path: &str) -> io::Result<String> {
        self.get(path)
            .cloned()
            .ok_or_else(|| io::ErrorKind::NotFound.into())
    }
}

/// Remembers what was included.
struct Recorded<'a> {
    files: &'a dyn Files,
    texts: RefCell<BTreeMap<String, String>>,
}

impl Files for Recorded<'_> {
    fn read(&self, path: &str) -> io::Result<String> {
        let text = self.files.read(path)?;
        self.texts
            .borrow_mut()
            .insert(path.to_owned(), text.clone());
        Ok(text)
    }
}

impl Layers {
    /// The configuration with these changes.
    pub fn load(&self, rows: &Rows) -> Result<Loaded, Vec<ConfigError>> {
        self.load_with(rows, &BTreeMap::new())
    }

    /// The same with some values on top of everything.
    pub(crate) fn load_with(
        &self,
        rows: &Rows,
        values: &BTreeMap<String, Node>,
    ) -> Result<Loaded, Vec<ConfigError>> {
        let mut files = self.files.clone();
        files.push(Layer {
            kind: LayerKind::Cluster,
            path: format!("{}/configs/cluster.hocon", self.data_dir),
            text: change::text(rows),
        });
        let sources = Sources {
            files,
            env: self.env.clone(),
            etc_dir: self.etc_dir.clone(),
            log_dir: self.log_dir.clone(),
            data_dir: self.data_dir.clone(),
            include: &self.included,
        };
        let mut loaded = load_over(&sources, values)?;
        loaded.layers = self.clone();
        Ok(loaded)
    }
}

/// The configuration as written.
#[derive(Debug, Clone)]
pub struct Raw {
    /// All layers merged, without defaults.
    pub root: Node,
    /// The same with defaults, converted.
    pub checked: Checked,
}

impl Raw {
    /// Where the value at a dotted path was written; its layer is `Default` if nowhere.
    pub fn provenance(&self, path: &str) -> Option<&Place> {
        self.checked.get(path).map(|checked| &checked.place)
    }

    /// The value at a dotted path with all defaults, as the operator would write it; the
    /// whole configuration for the empty path.
    pub fn effective(&self, path: &str, secrets: Secrets) -> Option<Value> {
        self.checked
            .get(path)
            .map(|checked| checked.to_value(secrets))
    }
}

/// Reads, merges and checks a configuration.
///
/// All faults of a stage are collected: first those of the texts, then those of single
/// values, then those of values that do not fit together.
pub fn load(sources: &Sources<'_>) -> Result<Loaded, Vec<ConfigError>> {
    let recorded = Recorded {
        files: sources.include,
        texts: RefCell::default(),
    };
    let recording = Sources {
        files: sources.files.clone(),
        env: sources.env.clone(),
        etc_dir: sources.etc_dir.clone(),
        log_dir: sources.log_dir.clone(),
        data_dir: sources.data_dir.clone(),
        include: &recorded,
    };
    let mut loaded = load_over(&recording, &BTreeMap::new())?;
    let Sources {
        mut files,
        env,
        etc_dir,
        log_dir,
        data_dir,
        ..
    } = recording;
    let cluster = files
        .iter()
        .position(|file| file.kind == LayerKind::Cluster);
    loaded.cluster_hocon = cluster.map(|at| files.remove(at).text);
    loaded.layers = Layers {
        files,
        included: recorded.texts.into_inner(),
        env,
        etc_dir,
        log_dir,
        data_dir,
    };
    Ok(loaded)
}

/// Loads with `values` at their dotted paths, on top of everything else.
fn load_over(
    sources: &Sources<'_>,
    values: &BTreeMap<String, Node>,
) -> Result<Loaded, Vec<ConfigError>> {
    let (mut root, mut warnings, overrides) = merged(sources)?;
    unknown_roots(&mut root, &mut warnings);
    for (path, node) in values {
        root.set_at(&split_path(path), node.clone());
    }
    let variable = |name: &str| match name {
        "EMQX_ETC_DIR" => Some(sources.etc_dir.clone()),
        "EMQX_LOG_DIR" => Some(sources.log_dir.clone()),
        "EMQX_DATA_DIR" => Some(sources.data_dir.clone()),
        _ => sources
            .env
            .iter()
            .find(|(key, _)| key == name)
            .map(|(_, value)| value.clone()),
    };
    let mut checker = Checker::new(&variable);
    let mut checked = checker.check(root_kind(), &root, "");
    if !checker.errors.is_empty() {
        return Err(checker.errors);
    }
    warnings.append(&mut checker.warnings);
    warnings.extend(section::settle(&mut checked));
    let settings = section::build(&checked, &variable);
    let errors = integrity::check(&settings, &checked);
    if !errors.is_empty() {
        return Err(errors);
    }
    warnings.extend(integrity::warnings(&settings, &checked));
    let without_effect = checker.without_effect;
    Ok(Loaded {
        settings,
        raw: Raw { root, checked },
        warnings,
        overrides,
        without_effect,
        layers: Layers::default(),
        cluster_hocon: None,
    })
}

type Merged = (Node, Vec<Warning>, Vec<EnvOverride>);

/// All layers on top of each other.
fn merged(sources: &Sources<'_>) -> Result<Merged, Vec<ConfigError>> {
    let files = document(sources, |kind| kind < LayerKind::Env);
    let legacy = document(sources, |kind| kind > LayerKind::Env);
    let mut errors = files.errors;
    errors.extend(legacy.errors);
    if !errors.is_empty() {
        return Err(errors);
    }
    let mut root = files.root;
    let mut warnings = files.warnings;
    warnings.extend(legacy.warnings);
    let mut overlay = env::apply(&sources.env, &mut root, &mut errors);
    warnings.append(&mut overlay.warnings);
    merge(&mut root, legacy.root, "", &mut errors);
    built_in_listeners(&mut root, &mut errors);
    if errors.is_empty() {
        Ok((root, warnings, overlay.overrides))
    } else {
        Err(errors)
    }
}

fn document(sources: &Sources<'_>, wanted: impl Fn(LayerKind) -> bool) -> Document {
    let mut layers: Vec<&Layer> = sources.files.iter().filter(|l| wanted(l.kind)).collect();
    layers.sort_by_key(|layer| layer.kind);
    let texts: Vec<Text<'_>> = layers
        .into_iter()
        .map(|l| Text {
            layer: l.kind,
            path: &l.path,
            text: &l.text,
        })
        .collect();
    read_with(&texts, sources.include, |entries| {
        rename(entries, root_kind());
    })
}

/// Puts the default listeners under what the operator said about them.
fn built_in_listeners(root: &mut Node, errors: &mut Vec<ConfigError>) {
    let text = Text {
        layer: LayerKind::Default,
        path: "default",
        text: listeners::BUILT_IN,
    };
    let built_in = crate::hocon::read(&[text], &crate::hocon::NoFiles).root;
    for kind in ["tcp", "ssl", "ws", "wss"] {
        let path = format!("listeners.{kind}.default");
        let Some(mut node) = built_in.get(&path).cloned() else {
            continue;
        };
        match root.get(&path).cloned() {
            Some(Node {
                value: Value::Null, ..
            })
            | None => {}
            Some(mut given) => {
                if let Value::Object(fields) = &mut given.value {
                    fields.retain(|_, field| field.value != Value::Null);
                }
                merge(&mut node, given, &path, errors);
            }
        }
        let fits = |path: &str| {
            root.get(path)
                .is_none_or(|n| matches!(n.value, Value::Object(_) | Value::Null))
        };
        // A wrong type above is reported by the check; it must not be painted over.
        if fits("listeners") && fits(&format!("listeners.{kind}")) {
            let place = node.place.clone();
            root.set(&path, node.value, &place);
        }
    }
}

/// Unknown roots are dropped, as EMQX does, but not in silence.
fn unknown_roots(root: &mut Node, warnings: &mut Vec<Warning>) {
    let Value::Object(object) = &mut root.value else {
        return;
    };
    let unknown: Vec<String> = object
        .keys()
        .filter(|key| find(roots(), key).is_none())
        .cloned()
        .collect();
    for key in unknown {
        let Some(node) = object.remove(&key) else {
            continue;
        };
        let near = nearest(&key, roots().iter().filter(|f| !f.hidden).map(|f| f.name));
        warnings.push(Warning::UnknownRoot {
            place: node.place,
            nearest: near.map(str::to_owned),
            key,
        });
    }
}
