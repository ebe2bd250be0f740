//! Entries -> a tree of values: includes, substitutions, joining, merging.
//!
//! The order in which substitutions are replaced is EMQX's: the first one in the
//! document that can be replaced is, then the search starts again; a reference sees
//! only what needs no replacement itself. So `${x}` may point forwards, `p = ${p}":x"`
//! extends the earlier `p`, and `${?x}` that finds nothing leaves no trace.

use std::sync::Arc;

use super::lexer::Mode;
use super::parser::{Entry, Expr, ExprKind, Origin, parse};
use super::value::{Node, Object, Value, merge_key};
use super::{Files, MAX_DEPTH, MAX_INCLUDE_DEPTH, MAX_SUBSTITUTIONS, MAX_VALUES};
use crate::error::{ConfigError, IncludeError, Place, Syntax, Warning, join};

/// Bytes of text that weigh as much as one value when the size of the result is bounded.
const BYTES_PER_VALUE: usize = 64;

/// Parses a text and everything it includes.
pub(crate) struct Reader<'a> {
    pub(crate) files: &'a dyn Files,
    pub(crate) errors: Vec<ConfigError>,
    pub(crate) warnings: Vec<Warning>,
    /// Files being read, outermost first; an include of one of them is a cycle.
    stack: Vec<String>,
    /// Files read so far; bounds the fan-out of includes.
    count: usize,
}

impl<'a> Reader<'a> {
    pub(crate) fn new(files: &'a dyn Files) -> Self {
        Self {
            files,
            errors: Vec::new(),
            warnings: Vec::new(),
            stack: Vec::new(),
            count: 0,
        }
    }

    /// All entries of `text`; faults are collected.
    pub(crate) fn read(&mut self, text: &str, origin: &Origin) -> Vec<Entry> {
        self.read_below(text, origin, &[])
    }

    fn read_below(&mut self, text: &str, origin: &Origin, prefix: &[String]) -> Vec<Entry> {
        let entries = match parse(text, origin, Mode::Lenient, &mut self.warnings) {
            Ok(entries) => entries,
            Err((place, what)) => {
                self.errors.push(ConfigError::Syntax { place, what });
                return Vec::new();
            }
        };
        self.stack.push(origin.file.to_string());
        let entries = self.splice(entries, origin, prefix, &mut prefix.to_vec());
        self.stack.pop();
        entries
    }

    /// Replaces includes by what they include.
    fn splice(
        &mut self,
        entries: Vec<Entry>,
        origin: &Origin,
        prefix: &[String],
        path: &mut Vec<String>,
    ) -> Vec<Entry> {
        let mut out = Vec::with_capacity(entries.len());
        for entry in entries {
            match entry {
                Entry::Field { key, value } => {
                    path.push(key.clone());
                    let value = self.splice_expr(value, origin, prefix, path);
                    path.pop();
                    out.push(Entry::Field { key, value });
                }
                Entry::Include {
                    file,
                    required,
                    place,
                } => {
                    out.extend(self.include(&file, required, &place, origin, path));
                }
            }
        }
        out
    }

    fn splice_expr(
        &mut self,
        expr: Expr,
        origin: &Origin,
        prefix: &[String],
        path: &mut Vec<String>,
    ) -> Expr {
        let kind = match expr.kind {
            ExprKind::Object(entries) => {
                ExprKind::Object(self.splice(entries, origin, prefix, path))
            }
            ExprKind::List(items) => ExprKind::List(
                items
                    .into_iter()
                    .map(|e| self.splice_expr(e, origin, prefix, path))
                    .collect(),
            ),
            ExprKind::Concat(parts) => ExprKind::Concat(
                parts
                    .into_iter()
                    .map(|e| self.splice_expr(e, origin, prefix, path))
                    .collect(),
            ),
            // Paths in an included file are relative to where it is included.
            ExprKind::Var { path, optional } => ExprKind::Var {
                path: prefix.iter().cloned().chain(path).collect(),
                optional,
            },
            other => other,
        };
        Expr {
            kind,
            place: expr.place,
        }
    }

    fn include(
        &mut self,
        file: &str,
        required: bool,
        place: &Place,
        origin: &Origin,
        path: &[String],
    ) -> Vec<Entry> {
        let full = beside(&origin.file, file);
        let reason = if self.stack.contains(&full) {
            IncludeError::Cycle
        } else if self.stack.len() >= MAX_INCLUDE_DEPTH || self.count >= MAX_INCLUDE_DEPTH.pow(2) {
            IncludeError::TooDeep
        } else {
            self.count += 1;
            match self.files.read(&full) {
                Ok(text) => {
                    let file = Arc::from(full.as_str());
                    let origin = Origin {
                        layer: origin.layer,
                        file,
                    };
                    return self.read_below(&text, &origin, path);
                }
                Err(e) if e.kind() == std::io::ErrorKind::NotFound && !required => {
                    return Vec::new();
                }
                Err(e) if e.kind() == std::io::ErrorKind::NotFound => IncludeError::Missing,
                Err(e) => IncludeError::Unreadable(e.to_string()),
            }
        };
        let (file, place) = (file.to_owned(), place.clone());
        self.errors.push(ConfigError::Include {
            place,
            file,
            reason,
        });
        Vec::new()
    }
}

/// The path of `file` seen from the folder of `from`, without `.` and `..` where possible.
fn beside(from: &str, file: &str) -> String {
    if file.starts_with('/') {
        return normal(file);
    }
    match from.rsplit_once('/') {
        Some((dir, _)) => normal(&format!("{dir}/{file}")),
        None => normal(file),
    }
}

fn normal(path: &str) -> String {
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/') {
        match part {
            "." => {}
            "" if !parts.is_empty() => {}
            ".." if parts.last().is_some_and(|p| !p.is_empty() && *p != "..") => {
                parts.pop();
            }
            part => parts.push(part),
        }
    }
    parts.join("/")
}

/// Replaces all substitutions in the entries of a whole document.
pub(crate) fn substitute(entries: Vec<Entry>, errors: &mut Vec<ConfigError>) -> Vec<Entry> {
    let mut root = Expr {
        kind: ExprKind::Object(entries),
        place: Place::default_value(),
    };
    let mut waiting = Vec::new();
    find_variables(&root, &mut Vec::new(), &mut waiting);
    if waiting.len() > MAX_SUBSTITUTIONS {
        errors.push(too_large(&root, &waiting[MAX_SUBSTITUTIONS]));
        return Vec::new();
    }
    let mut weight = weigh(&root, MAX_VALUES);
    while let Some((index, found)) = next_replaceable(&root, &waiting) {
        let location = waiting.remove(index);
        if let Some(found) = &found {
            weight += weigh(found, MAX_VALUES);
            if weight > MAX_VALUES || location.len() + depth(found) > MAX_DEPTH * 2 {
                errors.push(too_large(&root, &location));
                return Vec::new();
            }
        }
        if let Some(slot) = at_mut(&mut root, &location) {
            slot.kind = found.map_or(ExprKind::Nothing, |found| found.kind);
        }
    }
    for location in waiting {
        if let Some(Expr {
            kind: ExprKind::Var { path, .. },
            place,
        }) = at(&root, &location)
        {
            let reference = path.join(".");
            errors.push(ConfigError::Unresolved {
                place: place.clone(),
                reference,
            });
        }
    }
    match root.kind {
        ExprKind::Object(entries) => entries,
        _ => Vec::new(),
    }
}

fn too_large(root: &Expr, location: &[u32]) -> ConfigError {
    let place = at(root, location).map_or_else(Place::default_value, |e| e.place.clone());
    ConfigError::Syntax {
        place,
        what: Syntax::TooLarge,
    }
}

/// The children of an expression, in order.
fn children(expr: &Expr) -> Box<dyn Iterator<Item = &Expr> + '_> {
    match &expr.kind {
        ExprKind::List(items) | ExprKind::Concat(items) => Box::new(items.iter()),
        ExprKind::Object(entries) => Box::new(entries.iter().filter_map(|entry| match entry {
            Entry::Field { value, .. } => Some(value),
            Entry::Include { .. } => None,
        })),
        _ => Box::new(std::iter::empty()),
    }
}

fn find_variables(expr: &Expr, location: &mut Vec<u32>, out: &mut Vec<Vec<u32>>) {
    // One more than allowed is enough to refuse the document.
    if out.len() > MAX_SUBSTITUTIONS {
        return;
    }
    if matches!(expr.kind, ExprKind::Var { .. }) {
        out.push(location.clone());
    }
    for (index, child) in children(expr).enumerate() {
        location.push(index as u32);
        find_variables(child, location, out);
        location.pop();
    }
}

fn at<'a>(root: &'a Expr, location: &[u32]) -> Option<&'a Expr> {
    location
        .iter()
        .try_fold(root, |expr, index| children(expr).nth(*index as usize))
}

fn at_mut<'a>(root: &'a mut Expr, location: &[u32]) -> Option<&'a mut Expr> {
    location
        .iter()
        .try_fold(root, |expr, index| match &mut expr.kind {
            ExprKind::List(items) | ExprKind::Concat(items) => items.get_mut(*index as usize),
            ExprKind::Object(entries) => entries
                .iter_mut()
                .filter_map(|entry| match entry {
                    Entry::Field { value, .. } => Some(value),
                    Entry::Include { .. } => None,
                })
                .nth(*index as usize),
            _ => None,
        })
}

/// The first substitution that can be replaced, with its replacement.
fn next_replaceable(root: &Expr, waiting: &[Vec<u32>]) -> Option<(usize, Option<Expr>)> {
    waiting.iter().enumerate().find_map(|(index, location)| {
        let ExprKind::Var { path, optional } = &at(root, location)?.kind else {
            return None;
        };
        let mut found = Vec::new();
        look_up(root, path, &mut found);
        match found.len() {
            0 if *optional => Some((index, None)),
            0 => None,
            1 => Some((index, Some(found[0].clone()))),
            _ => {
                let place = found[0].place.clone();
                let parts = found.into_iter().cloned().collect();
                Some((
                    index,
                    Some(Expr {
                        kind: ExprKind::Concat(parts),
                        place,
                    }),
                ))
            }
        }
    })
}

/// Everything that makes up the value at `path`: one value, or several objects to merge.
fn look_up<'a>(expr: &'a Expr, path: &[String], found: &mut Vec<&'a Expr>) {
    let Some((key, rest)) = path.split_first() else {
        return;
    };
    match &expr.kind {
        ExprKind::Concat(parts) => {
            for part in parts {
                look_up(part, path, found);
            }
        }
        ExprKind::Object(entries) => {
            for entry in entries {
                let Entry::Field { key: name, value } = entry else {
                    continue;
                };
                if name != key {
                    continue;
                }
                if !rest.is_empty() {
                    look_up(value, rest, found);
                } else if is_resolved(value) {
                    let merges = is_object(value) && found.last().is_some_and(|f| is_object(f));
                    if !merges {
                        found.clear();
                    }
                    found.push(value);
                }
            }
        }
        _ => {}
    }
}

fn is_resolved(expr: &Expr) -> bool {
    !matches!(expr.kind, ExprKind::Var { .. }) && children(expr).all(is_resolved)
}

fn is_object(expr: &Expr) -> bool {
    match &expr.kind {
        ExprKind::Object(_) => true,
        ExprKind::Concat(parts) => parts.first().is_some_and(is_object),
        _ => false,
    }
}

fn weigh(expr: &Expr, max: usize) -> usize {
    let own = match &expr.kind {
        ExprKind::String(text) => 1 + text.len() / BYTES_PER_VALUE,
        _ => 1,
    };
    children(expr).fold(own, |sum, child| {
        if sum > max {
            sum
        } else {
            sum + weigh(child, max)
        }
    })
}

fn depth(expr: &Expr) -> usize {
    1 + children(expr).map(depth).max().unwrap_or(0)
}

/// Joins and merges entries into an object on top of `object`.
pub(crate) fn fold(
    entries: Vec<Entry>,
    object: &mut Object,
    path: &str,
    errors: &mut Vec<ConfigError>,
) {
    for entry in entries {
        let Entry::Field { key, value } = entry else {
            continue;
        };
        if let Some(node) = evaluate(value, &join(path, &key), errors) {
            merge_key(object, key, node, path, errors);
        }
    }
}

/// The value of an expression; `None` when nothing is left of it.
fn evaluate(expr: Expr, path: &str, errors: &mut Vec<ConfigError>) -> Option<Node> {
    let place = expr.place;
    let value = match expr.kind {
        ExprKind::Nothing | ExprKind::Var { .. } => return None,
        ExprKind::Null => Value::Null,
        ExprKind::Bool(b) => Value::Bool(b),
        ExprKind::Int(i) => Value::Int(i),
        ExprKind::Float(f) => Value::Float(f),
        ExprKind::String(s) => Value::String(s),
        ExprKind::List(items) => Value::List(
            items
                .into_iter()
                .filter_map(|e| evaluate(e, path, errors))
                .collect(),
        ),
        ExprKind::Object(entries) => {
            let mut object = Object::new();
            fold(entries, &mut object, path, errors);
            Value::Object(object)
        }
        ExprKind::Concat(parts) => return concat(parts, place, path, errors),
    };
    Some(Node { value, place })
}

fn concat(
    parts: Vec<Expr>,
    place: Place,
    path: &str,
    errors: &mut Vec<ConfigError>,
) -> Option<Node> {
    let mut nodes = parts.into_iter().filter_map(|e| evaluate(e, path, errors));
    let mut joined = nodes.next()?.value;
    let rest: Vec<Node> = nodes.collect();
    for node in rest {
        match (&mut joined, node.value) {
            (Value::Object(object), Value::Object(top)) => {
                for (key, node) in top {
                    merge_key(object, key, node, path, errors);
                }
            }
            (Value::List(items), Value::List(more)) => items.extend(more),
            (Value::List(_) | Value::Object(_), _) | (_, Value::List(_) | Value::Object(_)) => {
                errors.push(ConfigError::Syntax {
                    place: node.place,
                    what: Syntax::CannotConcat,
                });
                return None;
            }
            (scalar, more) => {
                let text = scalar.text().unwrap_or_default() + &more.text().unwrap_or_default();
                *scalar = Value::String(text);
            }
        }
    }
    Some(Node {
        value: joined,
        place,
    })
}
