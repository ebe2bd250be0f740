//! Changes at run time: what they may be, what they mean together with the files and the
//! environment of a node, and what of them is kept.
//!
//! The changes of a cluster are rows: the path of one value, and the value as JSON. A node
//! puts them between its `base.hocon` and its `emqx.conf`, where EMQX has `cluster.hocon`; so
//! what a node's own `emqx.conf` or environment says goes before them. [`plan`] checks a change
//! whole before a single row is written; [`in_force`] makes the best of rows that came from
//! other nodes and cannot be refused any more.

use std::collections::{BTreeMap, BTreeSet};

use crate::check::{Checked, Secrets, Typed};
use crate::error::{ConfigError, LayerKind, Place, join};
use crate::hocon::{self, NoFiles, Node, Object, Text, Value};
use crate::raw::{Layers, Loaded, Raw};
use crate::render::MASK;
use crate::schema::{Field, InForce, Kind, find, rename, rename_node};
use crate::section::root_kind;

/// What `cluster.hocon` begins with in EMQX.
pub const CLUSTER_HOCON_HEADER: &str = "\
    # This file is generated. Do not edit.\n\
    # The configs are results of online config changes from UI/API/CLI.\n\
    # To persist configs in this file, copy the content to etc/base.hocon.\n";

/// What tells a `cluster.hocon` written from the rows of a cluster from one of EMQX or of hands.
const MARK: &str = "# Written from the cluster's table `configuration`, which is what counts.\n";

/// Most rows.
pub const ROWS_MAX: usize = 10_000;

/// Longest value, bytes of JSON.
pub const VALUE_BYTES_MAX: usize = 64 * 1024;

/// Roots that no node lets itself be told by another.
const READ_ONLY: [&str; 3] = ["node", "cluster", "rpc"];

/// The changes of a cluster: dotted path to the value as JSON.
pub type Rows = BTreeMap<String, String>;

/// The text of `cluster.hocon`; rows that cannot be read are left out.
pub fn text(rows: &Rows) -> String {
    let place = place("cluster.hocon");
    let mut root = Node::empty(LayerKind::Cluster);
    for (path, value) in rows {
        if let Ok(json) = serde_json::from_str(value) {
            root.set_at(&hocon::split_path(path), Node::from_json(&json, &place));
        }
    }
    format!("{CLUSTER_HOCON_HEADER}{MARK}{}", hocon::write(&root))
}

/// Whether a `cluster.hocon` was written by [`text`].
pub fn is_written_from_rows(text: &str) -> bool {
    text.contains(MARK)
}

/// The rows that say what a `cluster.hocon` of EMQX says; what is never taken from a cluster is
/// left out.
pub fn rows_of(text: &str) -> Result<Rows, Vec<ConfigError>> {
    let change = Change::from_text("cluster.hocon", text, Mode::Merge)?;
    let leaves = change.leaves().into_iter();
    let leaves = leaves.filter(|(path, node)| !is_read_only(path) && node.value != Value::Null);
    Ok(leaves
        .map(|(path, node)| (path, json_text(&node)))
        .collect())
}

/// What becomes of rows that a change does not name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// They stay.
    Merge,
    /// Those of the roots it names go.
    Replace,
}

/// What an operator wants to change.
#[derive(Debug, Clone)]
pub struct Change {
    root: Node,
    mode: Mode,
}

impl Change {
    /// From configuration text; `path` is what it is called in messages.
    pub fn from_text(path: &str, text: &str, mode: Mode) -> Result<Self, Vec<ConfigError>> {
        let layer = LayerKind::Change;
        let texts = [Text { layer, path, text }];
        let document = hocon::read_with(&texts, &NoFiles, |entries| rename(entries, root_kind()));
        if !document.errors.is_empty() {
            return Err(document.errors);
        }
        let root = document.root;
        Ok(Self { root, mode })
    }

    /// From JSON that is to stand at a dotted path.
    pub fn from_json(path: &str, json: &serde_json::Value, mode: Mode) -> Self {
        let mut root = Node::empty(LayerKind::Change);
        root.set_at(
            &hocon::split_path(path),
            Node::from_json(json, &place("the request")),
        );
        rename_node(&mut root, root_kind());
        Self { root, mode }
    }

    /// That a key is as if nobody had changed it at run time.
    pub fn reset(path: &str) -> Self {
        Self::from_json(path, &serde_json::Value::Null, Mode::Merge)
    }

    /// Leaves out what no node lets itself be told.
    pub fn leave_out_read_only(&mut self) {
        for root in READ_ONLY {
            self.root.remove(root);
        }
    }

    /// The roots it names.
    pub fn roots(&self) -> Vec<String> {
        let object = self.root.as_object();
        object
            .map(|o| o.keys().cloned().collect())
            .unwrap_or_default()
    }

    fn leaves(&self) -> BTreeMap<String, Node> {
        let mut leaves = BTreeMap::new();
        collect(Some(root_kind()), &self.root, "", &mut leaves);
        leaves
    }
}

fn place(file: &str) -> Place {
    Place {
        layer: LayerKind::Change,
        file: file.into(),
        line: 0,
        column: 0,
    }
}

fn json_text(node: &Node) -> String {
    node.value.to_json().to_string()
}

/// The single values of a tree by path. A list is one value, and so is a map of values such as
/// `mqtt.mqueue_priorities`, and an object whose keys cannot stand in a path.
fn collect(
    kind: Option<&'static Kind>,
    node: &Node,
    path: &str,
    leaves: &mut BTreeMap<String, Node>,
) {
    let (Some(kind), Value::Object(fields)) = (kind, &node.value) else {
        leaves.insert(path.to_owned(), node.clone());
        return;
    };
    let is_group = match kind {
        Kind::Object(_) | Kind::Partial(_) | Kind::OneOrNamed(_) => true,
        Kind::Map(inner) => inner.fields().is_some() || matches!(inner, Kind::Map(_)),
        Kind::Words(_, inner) => inner.fields().is_some(),
        _ => false,
    };
    let in_path = |fields: &Object| !fields.keys().any(|key| key.contains('.'));
    let mut groups = vec![(path.to_owned(), fields.clone())];
    if let Kind::OneOrNamed(known) = kind {
        groups = named(known, fields)
            .into_iter()
            .map(|(name, fields)| (join(path, &name), fields))
            .collect();
    }
    if !is_group || !in_path(fields) || !groups.iter().all(|(_, fields)| in_path(fields)) {
        leaves.insert(path.to_owned(), node.clone());
        return;
    }
    for (path, fields) in &groups {
        for (key, inner) in fields {
            let child = kind.child(key).map(|(kind, _)| kind);
            collect(child, inner, &join(path, key), leaves);
        }
    }
}

/// Objects by name; what stands loose where names may stand belongs to the one named `default`.
fn named(known: &'static [Field], fields: &Object) -> BTreeMap<String, Object> {
    let mut named = BTreeMap::new();
    let mut loose = Object::new();
    for (key, node) in fields {
        match node.as_object().filter(|_| find(known, key).is_none()) {
            Some(object) => {
                named.insert(key.clone(), object.clone());
            }
            None => {
                loose.insert(key.clone(), node.clone());
            }
        }
    }
    if !loose.is_empty() {
        let default: &mut Object = named.entry("default".to_owned()).or_default();
        for (key, node) in loose {
            default.entry(key).or_insert(node);
        }
    }
    named
}

/// Puts the present secrets where only their mask is.
fn unmask(node: &mut Node, present: Option<&Node>) {
    let Some(present) = present else { return };
    match (&mut node.value, &present.value) {
        (Value::String(text), old) if text == MASK => node.value = old.clone(),
        (Value::Object(fields), Value::Object(old)) => {
            for (key, field) in fields {
                unmask(field, old.get(key));
            }
        }
        (Value::List(items), Value::List(old)) => {
            for (item, old) in items.iter_mut().zip(old) {
                unmask(item, Some(old));
            }
        }
        _ => {}
    }
}

/// Why nothing was changed.
#[derive(Debug, Clone, PartialEq)]
pub enum Refusal {
    /// It is no valid configuration, alone or with the rest.
    Invalid(Vec<ConfigError>),
    /// Keys that each node reads from its own files only.
    ReadOnly(Vec<String>),
    /// Keys that are read at start only.
    Restart(Vec<String>),
    /// A value is longer than [`VALUE_BYTES_MAX`].
    TooLong(String),
    /// There would be more rows than [`ROWS_MAX`].
    TooMany,
}

/// A change that is valid, and what comes of it.
#[derive(Debug)]
pub struct Plan {
    /// Rows to write; `None` deletes.
    pub writes: BTreeMap<String, Option<String>>,
    /// The configuration of this node afterwards.
    pub loaded: Loaded,
    /// Keys that this node's own files or environment set to something else, which goes before
    /// the change here, and where.
    pub overruled: Vec<(String, Place)>,
    /// Keys that are accepted and do nothing in this release.
    pub without_effect: Vec<String>,
}

/// Checks a change as a whole: what is to be written, or why nothing is.
///
/// What a change names and is so already is left alone, so what was shown can be sent back whole.
pub fn plan(layers: &Layers, rows: &Rows, change: &Change) -> Result<Plan, Refusal> {
    let current = in_force(layers, rows).map_err(Refusal::Invalid)?.loaded;
    let mut change = change.clone();
    let present = current.raw.effective("", Secrets::Shown);
    let present = present.map(|value| Node {
        value,
        place: Place::default_value(),
    });
    unmask(&mut change.root, present.as_ref());
    let mut leaves = change.leaves();
    let reset: BTreeSet<String> = leaves
        .iter()
        .filter(|(_, node)| node.value == Value::Null)
        .map(|(path, _)| path.clone())
        .collect();
    leaves.retain(|_, node| node.value != Value::Null);
    let roots = change.roots();
    let goes = |key: &String| {
        let replaced = change.mode == Mode::Replace && roots.iter().any(|root| holds(root, key));
        reset.iter().any(|path| holds(path, key)) || (replaced && !leaves.contains_key(key))
    };
    let gone: Vec<String> = rows.keys().filter(|key| goes(key)).cloned().collect();
    let mut after = rows.clone();
    after.retain(|key, _| !gone.contains(key));
    let without_gone = in_force(layers, &after).map_err(Refusal::Invalid)?.loaded;
    let wanted = layers
        .load_with(&after, &leaves)
        .map_err(Refusal::Invalid)?;
    let is_so = |path: &str, now: &Loaded| {
        let (wanted, now) = (wanted.raw.checked.get(path), now.raw.checked.get(path));
        matches!((wanted, now), (Some(wanted), Some(now)) if same(wanted, now))
    };
    let new = leaves.keys().filter(|path| !is_so(path, &current));
    allowed(&new.chain(&gone).collect::<Vec<_>>())?;
    leaves.retain(|path, _| !is_so(path, &without_gone));
    for (path, node) in &leaves {
        let value = json_text(node);
        if value.len() > VALUE_BYTES_MAX {
            return Err(Refusal::TooLong(path.clone()));
        }
        // A value and something inside it cannot both be.
        after.retain(|key, _| !holds(path, key) && !holds(key, path));
        after.insert(path.clone(), value);
    }
    if after.len() > ROWS_MAX {
        return Err(Refusal::TooMany);
    }
    let loaded = layers.load(&after).map_err(Refusal::Invalid)?;
    Ok(Plan {
        writes: writes(rows, &after),
        overruled: overruled(&leaves, &wanted.raw, &loaded.raw),
        without_effect: without_effect(&leaves, &loaded),
        loaded,
    })
}

/// Whether `key` is `path` or inside it.
fn holds(path: &str, key: &str) -> bool {
    key.strip_prefix(path)
        .is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
}

fn is_read_only(path: &str) -> bool {
    READ_ONLY.iter().any(|root| holds(root, path))
}

fn allowed(keys: &[&String]) -> Result<(), Refusal> {
    let those = |of: fn(&str) -> bool| -> Vec<String> {
        let those = keys.iter().filter(|key| of(key));
        those.map(|key| (*key).clone()).collect()
    };
    let read_only = those(is_read_only);
    if !read_only.is_empty() {
        return Err(Refusal::ReadOnly(read_only));
    }
    let restart = those(|key| in_force_when(key) == InForce::AfterRestart);
    if restart.is_empty() {
        Ok(())
    } else {
        Err(Refusal::Restart(restart))
    }
}

fn writes(before: &Rows, after: &Rows) -> BTreeMap<String, Option<String>> {
    let gone = before.keys().filter(|key| !after.contains_key(*key));
    let gone = gone.map(|key| (key.clone(), None));
    let new = after
        .iter()
        .filter(|(key, value)| before.get(*key) != Some(value));
    gone.chain(new.map(|(key, value)| (key.clone(), Some(value.clone()))))
        .collect()
}

fn overruled(leaves: &BTreeMap<String, Node>, wanted: &Raw, is: &Raw) -> Vec<(String, Place)> {
    let mut overruled = Vec::new();
    for path in leaves.keys() {
        let (Some(wanted), Some(is)) = (wanted.checked.get(path), is.checked.get(path)) else {
            continue;
        };
        if !same(wanted, is) {
            overruled.push((path.clone(), is.place.clone()));
        }
    }
    overruled
}

fn without_effect(leaves: &BTreeMap<String, Node>, loaded: &Loaded) -> Vec<String> {
    let inert = |path: &&String| {
        let mut inert = loaded.without_effect.iter();
        inert.any(|(key, _)| holds(key, path) || holds(path, key))
    };
    leaves.keys().filter(inert).cloned().collect()
}

/// What a node does with the rows there are.
#[derive(Debug)]
pub struct Applied {
    /// The configuration.
    pub loaded: Loaded,
    /// Rows that cannot be followed here, and why.
    pub refused: Vec<(String, String)>,
}

/// The configuration of a node with these rows. Rows that make it invalid are passed over: they
/// may be of a later release, or not fit what this node's own files say. Fails only if the
/// configuration is invalid without any row.
pub fn in_force(layers: &Layers, rows: &Rows) -> Result<Applied, Vec<ConfigError>> {
    let mut refused = Vec::new();
    let mut taken = rows.clone();
    taken.retain(|key, value| {
        let fault = serde_json::from_str::<serde_json::Value>(value).err();
        refused.extend(fault.iter().map(|fault| (key.clone(), fault.to_string())));
        fault.is_none()
    });
    loop {
        let errors = match layers.load(&taken) {
            Ok(loaded) => return Ok(Applied { loaded, refused }),
            Err(errors) if taken.is_empty() => return Err(errors),
            Err(errors) => errors,
        };
        let about = |key: &str| {
            errors.iter().find(|error| {
                let path = error.path();
                !path.is_empty() && (holds(&path, key) || holds(key, &path))
            })
        };
        let mut named = Vec::new();
        for key in taken.keys() {
            named.extend(about(key).map(|error| (key.clone(), error.to_string())));
        }
        if named.is_empty() {
            let reason = errors.first().map(ToString::to_string).unwrap_or_default();
            named.extend(taken.keys().map(|key| (key.clone(), reason.clone())));
        }
        for (key, _) in &named {
            taken.remove(key);
        }
        refused.append(&mut named);
    }
}

/// One value that differs.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Difference {
    /// Its path.
    pub path: String,
    /// When it is in force.
    pub in_force: InForce,
}

/// Everything that differs, sorted by path; a list counts as one value.
pub fn diff(before: &Raw, after: &Raw) -> Vec<Difference> {
    let mut differences = Vec::new();
    compare(&before.checked, &after.checked, "", &mut differences);
    differences
}

fn compare(before: &Checked, after: &Checked, path: &str, out: &mut Vec<Difference>) {
    let differs = |path: String| Difference {
        in_force: in_force_when(&path),
        path,
    };
    let (Typed::Object(old), Typed::Object(new)) = (&before.typed, &after.typed) else {
        if !same(before, after) {
            out.push(differs(path.to_owned()));
        }
        return;
    };
    let keys: BTreeSet<&String> = old.keys().chain(new.keys()).collect();
    for key in keys {
        let path = join(path, key);
        match (old.get(key), new.get(key)) {
            (Some(before), Some(after)) => compare(before, after, &path, out),
            _ => out.push(differs(path)),
        }
    }
}

/// Whether two values mean the same; what is only kept as written knows where it was written, and
/// that does not count.
fn same(a: &Checked, b: &Checked) -> bool {
    let json = |checked: &Checked| checked.to_value(Secrets::Shown).to_json();
    a.typed == b.typed || json(a) == json(b)
}

/// When a change of a key is in force: the latest of all fields on the way to it.
pub fn in_force_when(path: &str) -> InForce {
    let mut kind: &'static Kind = root_kind();
    let mut when = InForce::AtOnce;
    for key in path.split('.') {
        let Some((next, field)) = kind.child(key) else {
            break;
        };
        when = when.max(field.map_or(InForce::AtOnce, |field| field.in_force));
        kind = next;
    }
    when
}
