//! `etc/ssl_dist.conf`: the options of TLS between nodes, in the form that EMQX reads.
//!
//! It is one Erlang term, a list of `{server, [...]}` and `{client, [...]}`. Only the terms that
//! occur there are understood: lists, tuples, atoms, strings, numbers and comments. Options that
//! mean nothing here are returned by name, so that whoever reads the file can say so.

/// Deepest nesting; the file needs four.
const DEPTH_MAX: usize = 16;

/// What the file says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SslDist {
    /// As the accepting side.
    pub server: SslDistSide,
    /// As the dialing side.
    pub client: SslDistSide,
    /// Options without effect, as `server.depth`.
    pub ignored: Vec<String>,
}

/// One side of a connection.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SslDistSide {
    /// PEM file with the authorities of the other nodes.
    pub cacertfile: Option<String>,
    /// PEM file with the certificate.
    pub certfile: Option<String>,
    /// PEM file with its key.
    pub keyfile: Option<String>,
    /// Whether the other node is verified; `None` if nothing is said.
    pub verify: Option<bool>,
}

/// Why the file cannot be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SslDistError {
    /// It is not the term it should be.
    Syntax {
        /// The line, from 1.
        line: usize,
        /// What was expected there.
        expected: &'static str,
    },
    /// An option has a value of the wrong kind.
    Value {
        /// The option, as `server.verify`.
        option: String,
        /// What it may be.
        expected: &'static str,
    },
}

impl std::fmt::Display for SslDistError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Syntax { line, expected } => write!(f, "line {line}: {expected} expected"),
            Self::Value { option, expected } => write!(f, "{option} must be {expected}"),
        }
    }
}

impl std::error::Error for SslDistError {}

impl SslDist {
    /// Reads the text of the file.
    pub fn parse(text: &str) -> Result<Self, SslDistError> {
        let mut reader = Reader { text, line: 1 };
        let term = reader.term(0)?;
        reader.expect('.', "a full stop at the end")?;
        let mut dist = Self::default();
        for side in reader.list(term, "a list of {server, [...]} and {client, [...]}")? {
            let (name, options) = reader.pair(side)?;
            let mut unknown = Vec::new();
            match name.as_str() {
                "server" => dist.server = reader.side(&name, options, &mut unknown)?,
                "client" => dist.client = reader.side(&name, options, &mut unknown)?,
                _ => unknown.push(name),
            }
            dist.ignored.append(&mut unknown);
        }
        Ok(dist)
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Term {
    Atom(String),
    Text(String),
    Number,
    List(Vec<Self>),
    Tuple(Vec<Self>),
}

struct Reader<'a> {
    text: &'a str,
    line: usize,
}

impl Reader<'_> {
    fn fault<T>(&self, expected: &'static str) -> Result<T, SslDistError> {
        let line = self.line;
        Err(SslDistError::Syntax { line, expected })
    }

    fn take(&mut self, count: usize) -> String {
        let (taken, rest) = self.text.split_at(count);
        self.line += taken.matches('\n').count();
        self.text = rest;
        taken.to_owned()
    }

    fn skip_blanks(&mut self) {
        loop {
            let blank = self.text.len() - self.text.trim_start().len();
            self.take(blank);
            if !self.text.starts_with('%') {
                return;
            }
            self.take(self.text.find('\n').unwrap_or(self.text.len()));
        }
    }

    fn expect(&mut self, wanted: char, expected: &'static str) -> Result<(), SslDistError> {
        self.skip_blanks();
        if !self.text.starts_with(wanted) {
            return self.fault(expected);
        }
        self.take(wanted.len_utf8());
        Ok(())
    }

    fn term(&mut self, depth: usize) -> Result<Term, SslDistError> {
        self.skip_blanks();
        if depth > DEPTH_MAX {
            return self.fault("less nesting");
        }
        match self.text.chars().next() {
            Some('[') => self.terms(']', depth).map(Term::List),
            Some('{') => self.terms('}', depth).map(Term::Tuple),
            Some('"') => self.quoted('"').map(Term::Text),
            Some('\'') => self.quoted('\'').map(Term::Atom),
            Some(first) if first.is_ascii_digit() || first == '-' => {
                let end = |c: char| !(c.is_ascii_digit() || matches!(c, '-' | '#' | '_'));
                self.take(self.text.find(end).unwrap_or(self.text.len()));
                Ok(Term::Number)
            }
            Some(first) if first.is_ascii_lowercase() => {
                let end = |c: char| !(c.is_ascii_alphanumeric() || matches!(c, '_' | '@'));
                let length = self.text.find(end).unwrap_or(self.text.len());
                Ok(Term::Atom(self.take(length)))
            }
            _ => self.fault("a term"),
        }
    }

    fn terms(&mut self, closing: char, depth: usize) -> Result<Vec<Term>, SslDistError> {
        self.take(1);
        let mut terms = Vec::new();
        self.skip_blanks();
        if self.text.starts_with(closing) {
            self.take(1);
            return Ok(terms);
        }
        loop {
            terms.push(self.term(depth + 1)?);
            self.skip_blanks();
            let next = self.text.chars().next();
            match next {
                Some(',') => self.take(1),
                Some(c) if c == closing => {
                    self.take(1);
                    return Ok(terms);
                }
                _ if closing == ']' => return self.fault("a comma or `]`"),
                _ => return self.fault("a comma or `}`"),
            };
        }
    }

    fn quoted(&mut self, quote: char) -> Result<String, SslDistError> {
        let mut text = String::new();
        let mut escaped = false;
        for (at, c) in self.text.char_indices().skip(1) {
            match c {
                _ if escaped => {
                    text.push(c);
                    escaped = false;
                }
                '\\' => escaped = true,
                c if c == quote => {
                    self.take(at + c.len_utf8());
                    return Ok(text);
                }
                c => text.push(c),
            }
        }
        self.fault("a closing quote")
    }

    fn list(&self, term: Term, expected: &'static str) -> Result<Vec<Term>, SslDistError> {
        match term {
            Term::List(terms) => Ok(terms),
            _ => self.fault(expected),
        }
    }

    fn pair(&self, term: Term) -> Result<(String, Term), SslDistError> {
        if let Term::Tuple(parts) = term
            && let Ok([Term::Atom(name), value]) = <[Term; 2]>::try_from(parts)
        {
            return Ok((name, value));
        }
        self.fault("{name, value}")
    }

    fn side(
        &self,
        side: &str,
        options: Term,
        unknown: &mut Vec<String>,
    ) -> Result<SslDistSide, SslDistError> {
        let mut read = SslDistSide::default();
        for option in self.list(options, "a list of {option, value}")? {
            let (name, value) = self.pair(option)?;
            let option = format!("{side}.{name}");
            let slot = match name.as_str() {
                "cacertfile" => &mut read.cacertfile,
                "certfile" => &mut read.certfile,
                "keyfile" => &mut read.keyfile,
                "verify" => {
                    read.verify = Some(verify(option, &value)?);
                    continue;
                }
                _ => {
                    unknown.push(option);
                    continue;
                }
            };
            let Term::Text(path) = value else {
                let expected = "a path in double quotes";
                return Err(SslDistError::Value { option, expected });
            };
            *slot = Some(path).filter(|path| !path.is_empty());
        }
        Ok(read)
    }
}

fn verify(option: String, value: &Term) -> Result<bool, SslDistError> {
    match value {
        Term::Atom(word) if word == "verify_peer" => Ok(true),
        Term::Atom(word) if word == "verify_none" => Ok(false),
        _ => {
            let expected = "verify_peer or verify_none";
            Err(SslDistError::Value { option, expected })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_sides_are_read_and_what_means_nothing_is_named() {
        let text = "%% for nodes\n[{server, [{certfile, \"etc/certs/cert.pem\"},\n  \
                    {keyfile, \"etc/certs/key.pem\"}, {cacertfile, \"ca \\\"x\\\".pem\"}, % why\n  \
                    {secure_renegotiate, true}, {depth, 2}, {verify, verify_none}]},\n \
                    {client, [{'verify', verify_peer}]}\n].\n";
        let dist = SslDist::parse(text).expect("a good file");
        assert_eq!(
            dist.server,
            SslDistSide {
                cacertfile: Some("ca \"x\".pem".to_owned()),
                certfile: Some("etc/certs/cert.pem".to_owned()),
                keyfile: Some("etc/certs/key.pem".to_owned()),
                verify: Some(false),
            }
        );
        assert_eq!(dist.client.verify, Some(true));
        assert_eq!(dist.ignored, ["server.secure_renegotiate", "server.depth"]);
        assert_eq!(SslDist::parse("[].").expect("empty"), SslDist::default());
    }

    #[test]
    fn faults_name_the_line_or_the_option() {
        for (text, shown) in [
            ("", "line 1: a term expected"),
            ("[{server, []}]", "line 1: a full stop at the end expected"),
            (
                "[\n{server, [\n{certfile \"x\"}]}].",
                "line 3: a comma or `}` expected",
            ),
            (
                "[{server, [{certfile, \"x]}].",
                "line 1: a closing quote expected",
            ),
            (
                "{server, []}.",
                "line 1: a list of {server, [...]} and {client, [...]} expected",
            ),
            ("[{server}].", "line 1: {name, value} expected"),
            (
                "[{server, [{certfile, x}]}].",
                "server.certfile must be a path in double quotes",
            ),
            (
                "[{client, [{verify, 1}]}].",
                "client.verify must be verify_peer or verify_none",
            ),
        ] {
            let error = SslDist::parse(text).expect_err(text);
            assert_eq!(error.to_string(), shown, "{text}");
        }
        let deep = "[".repeat(100_000);
        assert!(SslDist::parse(&deep).is_err());
    }
}
