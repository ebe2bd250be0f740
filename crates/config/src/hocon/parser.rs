//! Tokens -> a tree of entries, before includes, substitutions and merging.
//!
//! As in EMQX, a newline separates nothing: an entry ends at a comma, at a closing
//! brace, or where a word followed by `=`, `:` or `{` starts the next one, and
//! strings that stand side by side are joined.

use std::sync::Arc;

use super::lexer::{Kind, LexError, Mode, Token, lex, split_path};
use super::{MAX_DEPTH, MAX_VALUES};
use crate::error::{LayerKind, Place, Syntax, Warning};

/// A value that may still hold substitutions.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Expr {
    pub(crate) kind: ExprKind,
    pub(crate) place: Place,
}

#[derive(Debug, Clone, PartialEq)]
pub(crate) enum ExprKind {
    /// An optional substitution that found nothing.
    Nothing,
    Null,
    Bool(bool),
    Int(i64),
    Float(f64),
    String(String),
    List(Vec<Expr>),
    Object(Vec<Entry>),
    Var {
        path: Vec<String>,
        optional: bool,
    },
    /// Values side by side: strings are joined, lists appended, objects merged.
    Concat(Vec<Expr>),
}

#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Entry {
    Field {
        key: String,
        value: Expr,
    },
    Include {
        file: String,
        required: bool,
        place: Place,
    },
}

/// Where a text comes from.
#[derive(Debug, Clone)]
pub(crate) struct Origin {
    pub(crate) layer: LayerKind,
    pub(crate) file: Arc<str>,
}

impl Origin {
    pub(crate) fn place(&self, line: u32, column: u32) -> Place {
        Place {
            layer: self.layer,
            file: Arc::clone(&self.file),
            line,
            column,
        }
    }
}

/// A fault with its place.
pub(crate) type Fault = (Place, Syntax);

/// Reads one text; words cut by a comment go to `warnings`.
pub(crate) fn parse(
    text: &str,
    origin: &Origin,
    mode: Mode,
    warnings: &mut Vec<Warning>,
) -> Result<Vec<Entry>, Fault> {
    let place = |e: &LexError| origin.place(e.line, e.column);
    let lexed = lex(text, mode).map_err(|e| (place(&e), e.what))?;
    for (line, column, word) in lexed.cut {
        warnings.push(Warning::CutByComment {
            place: origin.place(line, column),
            word,
        });
    }
    if lexed.list.len() > MAX_VALUES {
        return Err((origin.place(1, 1), Syntax::TooLarge));
    }
    let mut parser = Parser {
        tokens: &lexed.list,
        at: 0,
        origin,
        mode,
    };
    let entries = parser.entries(None, 0)?;
    Ok(entries)
}

struct Parser<'a> {
    tokens: &'a [Token],
    at: usize,
    origin: &'a Origin,
    mode: Mode,
}

/// What follows a possible key.
struct KeyAhead {
    /// Index of the separator.
    separator: usize,
    /// Whether the key is a row of quoted and unquoted parts.
    mixed: bool,
}

impl Parser<'_> {
    fn peek(&self) -> Option<&Kind> {
        self.tokens.get(self.at).map(|t| &t.kind)
    }

    fn place_of(&self, index: usize) -> Place {
        match self.tokens.get(index).or_else(|| self.tokens.last()) {
            Some(token) => self.origin.place(token.line, token.column),
            None => self.origin.place(1, 1),
        }
    }

    fn fault<T>(&self, index: usize, what: Syntax) -> Result<T, Fault> {
        Err((self.place_of(index), what))
    }

    fn is_punct(&self, c: char) -> bool {
        self.peek() == Some(&Kind::Punct(c))
    }

    /// Entries up to `}` (when `opened` is the index of its `{`) or the end.
    fn entries(&mut self, opened: Option<usize>, depth: usize) -> Result<Vec<Entry>, Fault> {
        if depth > MAX_DEPTH {
            return self.fault(self.at, Syntax::TooDeep);
        }
        let mut entries = Vec::new();
        let mut after_comma = true;
        loop {
            match (self.peek(), opened) {
                (None, None) => return Ok(entries),
                (None, Some(open)) => return self.fault(open, Syntax::Unclosed('{')),
                (Some(Kind::Punct('}')), Some(_)) => {
                    self.at += 1;
                    return Ok(entries);
                }
                (Some(Kind::Punct(c @ ('}' | ']'))), _) => {
                    return self.fault(self.at, Syntax::Unopened(*c));
                }
                (Some(Kind::Punct(',')), _) if after_comma => {
                    return self.fault(
                        self.at,
                        Syntax::Unexpected {
                            found: "`,`".to_owned(),
                        },
                    );
                }
                (Some(Kind::Punct(',')), _) => {
                    self.at += 1;
                    after_comma = true;
                }
                (Some(Kind::Punct('{')), None) => {
                    let open = self.at;
                    self.at += 1;
                    entries.extend(self.entries(Some(open), depth + 1)?);
                    after_comma = false;
                }
                _ => {
                    self.entry(&mut entries, depth)?;
                    after_comma = false;
                }
            }
        }
    }

    fn entry(&mut self, entries: &mut Vec<Entry>, depth: usize) -> Result<(), Fault> {
        if self.include_ahead(self.at) {
            let place = self.place_of(self.at);
            let (file, required) = match self.tokens.get(self.at + 1).map(|t| &t.kind) {
                Some(Kind::Quoted(file)) => (file.clone(), false),
                Some(Kind::Required(file)) => (file.clone(), true),
                _ => return self.fault(self.at, Syntax::BadInclude),
            };
            self.at += 2;
            entries.push(Entry::Include {
                file,
                required,
                place,
            });
            return Ok(());
        }
        let Some(ahead) = self.key_ahead(self.at) else {
            let token = &self.tokens[self.at];
            let what = match &token.kind {
                Kind::Word { text, .. } | Kind::Quoted(text) => {
                    Syntax::MissingSeparator { key: text.clone() }
                }
                _ => Syntax::Unexpected {
                    found: token.shown(),
                },
            };
            return self.fault(self.at, what);
        };
        let start = self.at;
        let path = self.key_path(start, ahead.separator)?;
        self.at = ahead.separator;
        if !self.is_punct('{') {
            self.at += 1;
        }
        if depth + path.len() > MAX_DEPTH {
            return self.fault(start, Syntax::TooDeep);
        }
        let Some(value) = self.value(false, depth + path.len())? else {
            return self.fault(
                start,
                Syntax::MissingValue {
                    key: path.join("."),
                },
            );
        };
        entries.push(nest(path, value, &self.place_of(start)));
        Ok(())
    }

    fn include_ahead(&self, index: usize) -> bool {
        let kind = |i: usize| self.tokens.get(i).map(|t| &t.kind);
        matches!(kind(index), Some(Kind::Word { text, .. }) if text == "include")
            && matches!(kind(index + 1), Some(Kind::Quoted(_) | Kind::Required(_)))
            && !matches!(kind(index + 2), Some(Kind::Punct('=' | ':' | '{')))
    }

    /// Whether the token at `index` starts a key.
    fn key_ahead(&self, index: usize) -> Option<KeyAhead> {
        let mut end = index;
        while let Some(token) = self.tokens.get(end) {
            let part = match &token.kind {
                Kind::Word { .. } | Kind::Quoted(_) => true,
                Kind::Int(..) | Kind::Float(..) | Kind::Bool(_) | Kind::Null => {
                    self.mode == Mode::Lenient
                }
                _ => false,
            };
            if !part || (end > index && token.spaced) {
                break;
            }
            end += 1;
        }
        let separated = matches!(
            self.tokens.get(end).map(|t| &t.kind),
            Some(Kind::Punct('=' | ':' | '{'))
        ) && !self.address_ahead(index);
        let mixed = end > index + 1;
        let known = end > index && (!mixed || self.mode == Mode::Lenient);
        (separated && known).then_some(KeyAhead {
            separator: end,
            mixed,
        })
    }

    /// The parts of the key in the tokens `start..end`; quoted parts are not split.
    fn key_path(&self, start: usize, end: usize) -> Result<Vec<String>, Fault> {
        let mut path = Vec::new();
        for token in &self.tokens[start..end] {
            match &token.kind {
                Kind::Quoted(text) => path.push(text.clone()),
                Kind::Word { text, .. } | Kind::Int(_, text) | Kind::Float(_, text) => {
                    path.extend(split_path(text));
                }
                Kind::Bool(b) => path.push(b.to_string()),
                _ => path.push("null".to_owned()),
            }
        }
        if path.is_empty() {
            return self.fault(start, Syntax::EmptyKey);
        }
        Ok(path)
    }

    /// One value, which may be several side by side; `None` when there is none.
    fn value(&mut self, in_list: bool, depth: usize) -> Result<Option<Expr>, Fault> {
        let mut parts: Vec<Expr> = Vec::new();
        let start = self.at;
        while let Some(token) = self.tokens.get(self.at) {
            if self.ends_value(in_list, &parts)? {
                break;
            }
            let place = self.place_of(self.at);
            let kind = match &token.kind {
                Kind::Punct('{') => self.object(depth)?,
                Kind::Punct('[') => self.list(depth)?,
                Kind::Punct(_) => break,
                Kind::Quoted(text) => self.took(ExprKind::String(text.clone())),
                Kind::Word { text, extra } => {
                    // EMQX cuts such a word into several elements or refuses it.
                    if *extra && in_list {
                        let found = token.shown();
                        return self.fault(self.at, Syntax::Adjacent { found });
                    }
                    let text = self.with_port(text);
                    self.took(ExprKind::String(text))
                }
                Kind::Var { path, optional } => self.took(ExprKind::Var {
                    path: path.clone(),
                    optional: *optional,
                }),
                literal => {
                    let kind = literal_expr(literal);
                    if !parts.is_empty() {
                        let found = token.shown();
                        return self.fault(self.at, Syntax::Adjacent { found });
                    }
                    self.at += 1;
                    self.end_of_literal(in_list)?;
                    return Ok(Some(Expr { kind, place }));
                }
            };
            parts.push(Expr { kind, place });
        }
        let place = self.place_of(start);
        Ok(match parts.len() {
            0 => None,
            1 => parts.pop(),
            _ => Some(Expr {
                kind: ExprKind::Concat(parts),
                place,
            }),
        })
    }

    fn took(&mut self, kind: ExprKind) -> ExprKind {
        self.at += 1;
        kind
    }

    /// Whether the next token belongs to the next entry or element.
    fn ends_value(&self, in_list: bool, parts: &[Expr]) -> Result<bool, Fault> {
        let token = &self.tokens[self.at];
        if !in_list && self.include_ahead(self.at) {
            return Ok(true);
        }
        if let Some(ahead) = self.key_ahead(self.at) {
            let text_before = matches!(
                parts.last().map(|p| &p.kind),
                Some(ExprKind::String(_) | ExprKind::Var { .. })
            );
            // EMQX would join the first part of such a key to the string before it.
            if ahead.mixed && text_before {
                let found = token.shown();
                return self.fault(self.at, Syntax::Adjacent { found });
            }
            if in_list {
                let found = self.tokens[ahead.separator].shown();
                return self.fault(ahead.separator, Syntax::Unexpected { found });
            }
            return Ok(true);
        }
        // An object on a new line is the next element, not a part of this one.
        let new_line = self.at > 0 && self.tokens[self.at - 1].line != token.line;
        let after_object =
            matches!(parts.last().map(|p| &p.kind), Some(ExprKind::Object(_))) && new_line;
        Ok(after_object && token.kind == Kind::Punct('{'))
    }

    /// After a number or a boolean an entry must end.
    fn end_of_literal(&self, in_list: bool) -> Result<(), Fault> {
        let Some(token) = self.tokens.get(self.at) else {
            return Ok(());
        };
        let ends = match &token.kind {
            Kind::Punct(',' | '}' | ']') => true,
            _ => in_list || self.include_ahead(self.at) || self.key_ahead(self.at).is_some(),
        };
        if ends {
            return Ok(());
        }
        let found = token.shown();
        self.fault(self.at, Syntax::Adjacent { found })
    }

    /// Whether `127.0.0.1:1883` stands at `index`, which EMQX would refuse.
    fn address_ahead(&self, index: usize) -> bool {
        let tight = |i: usize| self.tokens.get(i).filter(|t| !t.spaced).map(|t| &t.kind);
        let host = match self.tokens.get(index).map(|t| &t.kind) {
            Some(Kind::Word { text, extra: true }) => text.parse::<std::net::Ipv4Addr>().is_ok(),
            _ => false,
        };
        host && tight(index + 1) == Some(&Kind::Punct(':'))
            && matches!(tight(index + 2), Some(Kind::Int(..)))
    }

    /// An address with the port behind it, if there is one.
    fn with_port(&mut self, text: &str) -> String {
        if self.address_ahead(self.at)
            && let Some(Kind::Int(_, port)) = self.tokens.get(self.at + 2).map(|t| &t.kind)
        {
            self.at += 2;
            return format!("{text}:{port}");
        }
        text.to_owned()
    }

    fn object(&mut self, depth: usize) -> Result<ExprKind, Fault> {
        let open = self.at;
        self.at += 1;
        Ok(ExprKind::Object(self.entries(Some(open), depth + 1)?))
    }

    fn list(&mut self, depth: usize) -> Result<ExprKind, Fault> {
        let open = self.at;
        if depth > MAX_DEPTH {
            return self.fault(open, Syntax::TooDeep);
        }
        self.at += 1;
        let mut items = Vec::new();
        let mut after_comma = true;
        loop {
            match self.peek() {
                None => return self.fault(open, Syntax::Unclosed('[')),
                Some(Kind::Punct(']')) => {
                    self.at += 1;
                    return Ok(ExprKind::List(items));
                }
                Some(Kind::Punct(',')) if !after_comma => {
                    self.at += 1;
                    after_comma = true;
                }
                Some(_) => {
                    let Some(item) = self.value(true, depth + 1)? else {
                        let found = self.tokens[self.at].shown();
                        return self.fault(self.at, Syntax::Unexpected { found });
                    };
                    items.push(item);
                    after_comma = false;
                }
            }
        }
    }
}

fn literal_expr(kind: &Kind) -> ExprKind {
    match kind {
        Kind::Bool(b) => ExprKind::Bool(*b),
        Kind::Int(i, _) => ExprKind::Int(*i),
        Kind::Float(f, _) => ExprKind::Float(*f),
        Kind::Required(file) => ExprKind::String(file.clone()),
        _ => ExprKind::Null,
    }
}

/// `a.b.c = v` is `a { b { c = v } }`.
fn nest(path: Vec<String>, value: Expr, place: &Place) -> Entry {
    let mut keys = path.into_iter().rev();
    let last = keys.next().unwrap_or_default();
    let mut entry = Entry::Field { key: last, value };
    for key in keys {
        let value = Expr {
            kind: ExprKind::Object(vec![entry]),
            place: place.clone(),
        };
        entry = Entry::Field { key, value };
    }
    entry
}
