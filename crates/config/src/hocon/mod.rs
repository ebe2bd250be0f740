//! EMQX's dialect of HOCON, with the place of every value.
//!
//! What EMQX's parser accepts is read as it reads it (the vectors in `tests/` hold us
//! to that); some of what it refuses is accepted too. Never panics, never recurses
//! without bound, never grows without bound, whatever the text.

mod lexer;
mod parser;
mod resolve;
mod value;
mod write;

use std::io;
use std::sync::Arc;

pub use lexer::Mode;
pub(crate) use lexer::{Kind, lex, split_path};
pub(crate) use parser::{Entry, Expr, ExprKind, Origin};
pub use value::{Node, Object, Value};
pub(crate) use value::{list_from_indices, merge};
pub use write::{write, write_value};

use crate::error::{ConfigError, LayerKind, Place, Warning};

/// Deepest nesting of objects and lists; real files stay below ten.
pub const MAX_DEPTH: usize = 64;
/// Longest text in bytes; EMQX's largest known files are below one.
pub const MAX_TEXT_BYTES: usize = 16 << 20;
/// Most values of a document once substitutions are replaced.
pub const MAX_VALUES: usize = 1 << 20;
/// Most substitutions of a document; each may scan all of it.
pub const MAX_SUBSTITUTIONS: usize = 512;
/// Longest chain of includes.
pub const MAX_INCLUDE_DEPTH: usize = 16;

/// How included files are read; the only thing the crate asks of its surroundings.
pub trait Files {
    /// The text of the file at `path`; `NotFound` when there is none.
    fn read(&self, path: &str) -> io::Result<String>;
}

/// There are no files: every include is missing.
#[derive(Debug, Clone, Copy)]
pub struct NoFiles;

impl Files for NoFiles {
    fn read(&self, _path: &str) -> io::Result<String> {
        Err(io::ErrorKind::NotFound.into())
    }
}

/// One text of a document.
#[derive(Debug, Clone, Copy)]
pub struct Text<'a> {
    /// Its layer, kept in every place.
    pub layer: LayerKind,
    /// Its path, for messages and for relative includes.
    pub path: &'a str,
    /// The text itself.
    pub text: &'a str,
}

/// What became of a document.
#[derive(Debug)]
pub struct Document {
    /// The root object.
    pub root: Node,
    /// Everything wrong; the root is incomplete if this is not empty.
    pub errors: Vec<ConfigError>,
    /// Words cut by comments.
    pub warnings: Vec<Warning>,
}

/// Reads texts as one document: later texts go on top of earlier ones, and
/// substitutions see all of them.
pub fn read(texts: &[Text<'_>], files: &dyn Files) -> Document {
    read_with(texts, files, |_| {})
}

/// As [`read`]; `adjust` sees the entries before they are merged.
pub(crate) fn read_with(
    texts: &[Text<'_>],
    files: &dyn Files,
    adjust: impl FnOnce(&mut Vec<Entry>),
) -> Document {
    let mut reader = resolve::Reader::new(files);
    let mut entries = Vec::new();
    for text in texts {
        let origin = Origin {
            layer: text.layer,
            file: Arc::from(text.path),
        };
        entries.extend(reader.read(text.text, &origin));
    }
    let resolve::Reader {
        mut errors,
        warnings,
        ..
    } = reader;
    let mut entries = resolve::substitute(entries, &mut errors);
    adjust(&mut entries);
    let mut object = Object::new();
    resolve::fold(entries, &mut object, "", &mut errors);
    let root = Node {
        value: Value::Object(object),
        place: Place::default_value(),
    };
    Document {
        root,
        errors,
        warnings,
    }
}

/// Reads one text that includes nothing.
pub fn parse(text: &str) -> Result<Node, Vec<ConfigError>> {
    let text = Text {
        layer: LayerKind::Etc,
        path: "text",
        text,
    };
    let document = read(&[text], &NoFiles);
    if document.errors.is_empty() {
        Ok(document.root)
    } else {
        Err(document.errors)
    }
}

/// Reads the right-hand side of an entry as EMQX reads the value of a variable;
/// `None` where EMQX refuses it and takes the raw text instead.
pub(crate) fn parse_value(text: &str, origin: &Origin) -> Option<Node> {
    let text = format!("value={text}");
    let entries = parser::parse(&text, origin, Mode::Strict, &mut Vec::new()).ok()?;
    let mut errors = Vec::new();
    let entries = resolve::substitute(entries, &mut errors);
    let mut object = Object::new();
    resolve::fold(entries, &mut object, "", &mut errors);
    if !errors.is_empty() {
        return None;
    }
    let mut node = object.remove("value")?;
    node.place = origin.place(0, 0);
    Some(node)
}
