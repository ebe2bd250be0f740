//! Text -> tokens with positions, exactly as EMQX's scanner cuts them.
//!
//! Newlines are only white space in this dialect. Where EMQX's scanner refuses a
//! text, `Mode::Lenient` may accept it (values that start with `/` or `_`, `1.5s`,
//! `127.0.0.1`); where EMQX accepts, both modes cut the same tokens.
//! `Mode::Strict` is for environment variables, whose raw text is the value
//! whenever EMQX refuses it.

use super::MAX_TEXT_BYTES;
use crate::error::Syntax;

/// How much beyond EMQX's scanner is accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// Only what EMQX accepts.
    Strict,
    /// Also unquoted forms that EMQX refuses.
    Lenient,
}

/// A token's kind and content.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Kind {
    /// One of `{ } [ ] , : =`.
    Punct(char),
    Null,
    Bool(bool),
    /// Value and text: as a key, the text counts.
    Int(i64, String),
    Float(f64, String),
    /// `extra` marks a word that only lenient mode knows.
    Word {
        text: String,
        extra: bool,
    },
    Quoted(String),
    Var {
        path: Vec<String>,
        optional: bool,
    },
    /// `required("file")`.
    Required(String),
}

/// A token with its position.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Token {
    pub(crate) kind: Kind,
    pub(crate) line: u32,
    pub(crate) column: u32,
    /// Whether white space or a comment stands before it.
    pub(crate) spaced: bool,
}

impl Token {
    pub(crate) fn shown(&self) -> String {
        match &self.kind {
            Kind::Punct(c) => format!("`{c}`"),
            Kind::Null => "`null`".to_owned(),
            Kind::Bool(b) => format!("`{b}`"),
            Kind::Int(_, text) | Kind::Float(_, text) | Kind::Word { text, .. } => {
                format!("`{text}`")
            }
            Kind::Quoted(_) => "a quoted string".to_owned(),
            Kind::Var { path, .. } => format!("`${{{}}}`", path.join(".")),
            Kind::Required(_) => "`required(...)`".to_owned(),
        }
    }
}

/// A fault at a position.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct LexError {
    pub(crate) line: u32,
    pub(crate) column: u32,
    pub(crate) what: Syntax,
}

/// All tokens of a text.
#[derive(Debug, Default)]
pub(crate) struct Tokens {
    pub(crate) list: Vec<Token>,
    /// Words with a comment directly behind them.
    pub(crate) cut: Vec<(u32, u32, String)>,
    /// Whether there was any comment.
    pub(crate) comments: bool,
}

/// Cuts `text` into tokens.
pub(crate) fn lex(text: &str, mode: Mode) -> Result<Tokens, LexError> {
    if text.len() > MAX_TEXT_BYTES {
        return Err(LexError {
            line: 1,
            column: 1,
            what: Syntax::TooLarge,
        });
    }
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let mut lexer = Lexer {
        rest: text,
        line: 1,
        column: 1,
        mode,
        out: Tokens::default(),
    };
    lexer.run()?;
    Ok(lexer.out)
}

struct Lexer<'a> {
    rest: &'a str,
    line: u32,
    column: u32,
    mode: Mode,
    out: Tokens,
}

const fn is_newline(c: char) -> bool {
    matches!(c, '\n' | '\r' | '\u{2028}' | '\u{2029}')
}

const fn is_space(c: char) -> bool {
    matches!(c, '\t' | '\u{b}' | '\u{c}' | ' ' | '\u{a0}') || is_newline(c)
}

const fn in_word(c: char) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '@' | '%' | '-' | '|')
}

impl Lexer<'_> {
    fn error(&self, what: Syntax) -> LexError {
        LexError {
            line: self.line,
            column: self.column,
            what,
        }
    }

    /// Steps over `bytes` bytes, which end at a character boundary.
    fn advance(&mut self, bytes: usize) {
        let (taken, rest) = self.rest.split_at(bytes);
        for c in taken.chars() {
            if c == '\n' {
                self.line += 1;
                self.column = 1;
            } else {
                self.column += 1;
            }
        }
        self.rest = rest;
    }

    fn push(&mut self, kind: Kind, bytes: usize, spaced: bool) {
        let (line, column) = (self.line, self.column);
        self.advance(bytes);
        self.out.list.push(Token {
            kind,
            line,
            column,
            spaced,
        });
    }

    fn run(&mut self) -> Result<(), LexError> {
        loop {
            let spaced = self.skip_blanks();
            let Some(c) = self.rest.chars().next() else {
                return Ok(());
            };
            match c {
                '{' | '}' | '[' | ']' | ',' | ':' | '=' => self.push(Kind::Punct(c), 1, spaced),
                '"' if self.rest.starts_with("\"\"\"") => self.triple(spaced)?,
                '"' => self.quoted(spaced)?,
                '$' => self.variable(spaced)?,
                _ => self.bare(c, spaced)?,
            }
        }
    }

    /// Skips white space and comments; whether there were any.
    fn skip_blanks(&mut self) -> bool {
        let mut skipped = self.out.list.is_empty();
        loop {
            let blanks = self.rest.len() - self.rest.trim_start_matches(is_space).len();
            if blanks > 0 {
                skipped = true;
                self.advance(blanks);
            } else if self.rest.starts_with('#') || self.rest.starts_with("//") {
                skipped = true;
                self.out.comments = true;
                let end = self.rest.find(is_newline).unwrap_or(self.rest.len());
                self.advance(end);
            } else {
                return skipped;
            }
        }
    }

    fn quoted(&mut self, spaced: bool) -> Result<(), LexError> {
        let (content, bytes) =
            scan_quoted(self.rest).ok_or_else(|| self.error(Syntax::UnterminatedString))?;
        let text = unescape(content);
        self.push(Kind::Quoted(text), bytes, spaced);
        Ok(())
    }

    fn triple(&mut self, spaced: bool) -> Result<(), LexError> {
        let body = &self.rest[3..];
        let end =
            find_triple_end(body).ok_or_else(|| self.error(Syntax::UnterminatedTripleQuote))?;
        let content = &body[..end];
        let text = indented(content).unwrap_or_else(|| unescape(content));
        self.push(Kind::Quoted(text), end + 6, spaced);
        Ok(())
    }

    fn variable(&mut self, spaced: bool) -> Result<(), LexError> {
        let bad = || self.error(Syntax::BadSubstitution);
        let inner = self.rest.strip_prefix("${").ok_or_else(bad)?;
        let end = inner.find(['}', '\n', '"']).ok_or_else(bad)?;
        if !inner[end..].starts_with('}') {
            return Err(bad());
        }
        let (optional, name) = match inner[..end].strip_prefix('?') {
            Some(name) => (true, name),
            None => (false, &inner[..end]),
        };
        let name = if self.mode == Mode::Lenient {
            name.trim()
        } else {
            name
        };
        if !name.starts_with(|c: char| c.is_ascii_alphabetic()) || !name.chars().all(in_word) {
            return Err(bad());
        }
        let path = split_path(name);
        self.push(Kind::Var { path, optional }, end + 3, spaced);
        Ok(())
    }

    /// A word or a number.
    fn bare(&mut self, first: char, spaced: bool) -> Result<(), LexError> {
        let signed = first == '-' || first == '+';
        let second = self.rest[first.len_utf8()..].chars().next();
        let numeric = first.is_ascii_digit()
            || ((signed || first == '.') && second.is_some_and(|c| c.is_ascii_digit()))
            || (signed && second == Some('.'));
        let lenient_start = self.mode == Mode::Lenient
            && (matches!(first, '_' | '.' | '/' | '-') || first.is_alphanumeric());
        if !(numeric || first.is_ascii_alphabetic() || lenient_start) {
            return Err(self.error(Syntax::IllegalCharacter(first)));
        }
        let plain = self.run_length(Mode::Strict, numeric);
        let bytes = match self.mode {
            Mode::Strict => plain,
            Mode::Lenient => self.run_length(Mode::Lenient, numeric),
        };
        let text = self.rest[..bytes].to_owned();
        if text.ends_with('+') && self.rest[bytes..].starts_with('=') {
            return Err(self.error(Syntax::PlusEquals));
        }
        let extra = bytes != plain || lenient_start && !first.is_ascii_alphanumeric();
        let kind = if numeric {
            self.number(&text)?
        } else {
            word(text, extra)
        };
        self.note_cut(&kind, bytes)?;
        if let Kind::Word { text, .. } = &kind
            && text == "required"
            && self.rest[bytes..].starts_with('(')
        {
            return self.required(spaced);
        }
        self.push(kind, bytes, spaced);
        Ok(())
    }

    /// Bytes of the word or number at the start of the rest.
    fn run_length(&self, mode: Mode, numeric: bool) -> usize {
        let mut chars = self.rest.char_indices().peekable();
        while let Some((at, c)) = chars.next() {
            let slash = c == '/' && chars.peek().is_none_or(|(_, next)| *next != '/');
            let more = in_word(c)
                || (at == 0 && numeric)
                || (mode == Mode::Lenient && (slash || c == '+' || is_letter(c)));
            if !more {
                return at;
            }
        }
        self.rest.len()
    }

    fn number(&self, text: &str) -> Result<Kind, LexError> {
        if is_integer(text) {
            let digits = text.strip_prefix('+').unwrap_or(text);
            // Numbers beyond 64 bits keep their size but not their last digits.
            return Ok(match (digits.parse(), digits.parse()) {
                (Ok(int), _) => Kind::Int(int, text.to_owned()),
                (_, Ok(float)) => Kind::Float(float, text.to_owned()),
                _ => word(text.to_owned(), true),
            });
        }
        if is_float(text, self.mode)
            && let Ok(float) = text.parse::<f64>()
            && float.is_finite()
        {
            return Ok(Kind::Float(float, text.to_owned()));
        }
        if is_sized(text) {
            return Ok(word(text.to_owned(), false));
        }
        match self.mode {
            Mode::Lenient => Ok(word(text.to_owned(), true)),
            Mode::Strict => {
                let odd = text.chars().find(|c| !c.is_ascii_digit()).unwrap_or('0');
                Err(self.error(Syntax::IllegalCharacter(odd)))
            }
        }
    }

    /// Remembers a word that a comment cuts short; refuses it where EMQX does.
    fn note_cut(&mut self, kind: &Kind, bytes: usize) -> Result<(), LexError> {
        let rest = &self.rest[bytes..];
        if !(rest.starts_with('#') || rest.starts_with("//")) {
            return Ok(());
        }
        match kind {
            Kind::Word { extra: true, .. } => Err(self.error(Syntax::IllegalCharacter('#'))),
            Kind::Word { text, .. } => {
                self.out.cut.push((self.line, self.column, text.clone()));
                Ok(())
            }
            _ => Ok(()),
        }
    }

    /// `required("file")`.
    fn required(&mut self, spaced: bool) -> Result<(), LexError> {
        let open = "required(".len();
        let inner = &self.rest[open..];
        let blanks = inner.len() - inner.trim_start().len();
        let found = scan_quoted(&inner[blanks..]).and_then(|(content, bytes)| {
            let tail = &inner[blanks + bytes..];
            let close = tail.len() - tail.trim_start().len();
            tail[close..]
                .starts_with(')')
                .then(|| (unescape(content), blanks + bytes + close + 1))
        });
        let (file, bytes) = found.ok_or_else(|| self.error(Syntax::BadInclude))?;
        self.push(Kind::Required(file), open + bytes, spaced);
        Ok(())
    }
}

fn is_letter(c: char) -> bool {
    !c.is_ascii() && c.is_alphanumeric()
}

fn word(text: String, extra: bool) -> Kind {
    match text.as_str() {
        "true" => Kind::Bool(true),
        "false" => Kind::Bool(false),
        "null" => Kind::Null,
        _ => Kind::Word { text, extra },
    }
}

/// The parts of a dotted path; empty parts are dropped, as EMQX does.
pub(crate) fn split_path(text: &str) -> Vec<String> {
    text.split('.')
        .filter(|part| !part.is_empty())
        .map(str::to_owned)
        .collect()
}

/// Content and length of the quoted string at the start of `text`.
///
/// When no unescaped quote closes the string on its line, an escaped one does:
/// `"C:\dir\"` is a string with a backslash at its end.
fn scan_quoted(text: &str) -> Option<(&str, usize)> {
    let body = text.strip_prefix('"')?;
    let mut escaped = false;
    let mut fallback = None;
    for (at, c) in body.char_indices() {
        match c {
            '"' if !escaped => return Some((&body[..at], at + 2)),
            '"' => fallback = Some(at),
            c if is_newline(c) => break,
            _ => {}
        }
        escaped = c == '\\' && !escaped;
    }
    fallback.map(|at| (&body[..at], at + 2))
}

/// Offset of the closing `"""`; an escaped quote does not close.
fn find_triple_end(body: &str) -> Option<usize> {
    let mut escaped = false;
    for (at, c) in body.char_indices() {
        if c == '"' && !escaped && body[at..].starts_with("\"\"\"") {
            return Some(at);
        }
        escaped = c == '\\' && !escaped;
    }
    body.find("\"\"\"")
}

/// The known escapes; any other backslash stays, `\u00e9` too.
fn unescape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        let plain = match (c, chars.peek()) {
            ('\\', Some('\\')) => Some('\\'),
            ('\\', Some('"')) => Some('"'),
            ('\\', Some('n')) => Some('\n'),
            ('\\', Some('t')) => Some('\t'),
            ('\\', Some('r')) => Some('\r'),
            ('\\', Some('b')) => Some('\u{8}'),
            ('\\', Some('f')) => Some('\u{c}'),
            _ => None,
        };
        if let Some(plain) = plain {
            chars.next();
            out.push(plain);
        } else {
            out.push(c);
        }
    }
    out
}

/// `"""~` … `~"""`: the common indentation is removed, nothing is an escape.
fn indented(content: &str) -> Option<String> {
    let body = content.strip_prefix('~')?;
    let body = body
        .strip_prefix("\r\n")
        .or_else(|| body.strip_prefix('\n'))?;
    let body = body.strip_suffix('~').unwrap_or(body);
    let mut lines: Vec<&str> = body.split('\n').collect();
    if let Some(last) = lines.last_mut()
        && last.trim().is_empty()
    {
        *last = "";
    }
    let blanks = |line: &&str| line.len() - line.trim_start_matches([' ', '\t']).len();
    let indent = lines
        .iter()
        .filter(|line| !line.trim().is_empty())
        .map(blanks)
        .min()
        .unwrap_or(0);
    let cut: Vec<&str> = lines
        .iter()
        .map(|line| line.get(indent.min(blanks(line))..).unwrap_or(""))
        .collect();
    Some(cut.join("\n"))
}

fn is_integer(text: &str) -> bool {
    let digits = text.strip_prefix(['+', '-']).unwrap_or(text);
    !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit())
}

/// `1.5`, `.5`, `1.5e3`; lenient mode also has `1e3`.
fn is_float(text: &str, mode: Mode) -> bool {
    let unsigned = text.strip_prefix(['+', '-']).unwrap_or(text);
    let (mantissa, exponent) = match unsigned.split_once(['e', 'E']) {
        Some((mantissa, exponent)) => (mantissa, Some(exponent)),
        None => (unsigned, None),
    };
    let digits = |s: &str| s.bytes().all(|b| b.is_ascii_digit());
    let mantissa_ok = match mantissa.split_once('.') {
        Some((whole, part)) => digits(whole) && digits(part) && !part.is_empty(),
        None => mode == Mode::Lenient && !mantissa.is_empty() && digits(mantissa),
    };
    mantissa_ok && exponent.is_none_or(is_integer)
}

/// `10MB`, `1h30m`, `80%`, `1hour`: sizes, durations and percentages in a row, then a word.
fn is_sized(text: &str) -> bool {
    const UNITS: [&str; 12] = [
        "ms", "MS", "kb", "KB", "mb", "MB", "gb", "GB", "%", "d", "h", "m",
    ];
    const SHORT: [&str; 5] = ["D", "H", "M", "s", "S"];
    let mut rest = text;
    loop {
        let digits = rest.len() - rest.trim_start_matches(|c: char| c.is_ascii_digit()).len();
        if digits == 0 {
            let word = rest.starts_with(|c: char| c.is_ascii_alphabetic());
            return rest.len() < text.len() && (rest.is_empty() || word);
        }
        let tail = &rest[digits..];
        let unit = UNITS
            .iter()
            .chain(&SHORT)
            .find(|unit| tail.starts_with(**unit));
        let Some(unit) = unit else { return false };
        rest = &tail[unit.len()..];
    }
}
