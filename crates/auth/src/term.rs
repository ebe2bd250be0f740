//! Erlang terms as text, as far as operators write them into `acl.conf`.
//!
//! `{allow, {username, "u"}, publish, ["t/#"]}.`: tuples, lists, atoms, strings, binaries and whole
//! numbers, `%` comments, a full stop after each term. Everything else is a fault with its place.

/// How deep terms may nest; rules need five levels.
const DEPTH_MAX: usize = 32;

/// One term.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Term {
    Atom(String),
    Text(String),
    Number(i64),
    List(Vec<Self>),
    Tuple(Vec<Self>),
}

/// What is wrong with the text.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum TermFault {
    #[error("the file ends inside a rule: a rule ends with a full stop")]
    End,
    #[error("'{0}' does not belong here; a comma, a quote or a bracket is missing before it")]
    Unexpected(char),
    #[error("a rule must end with a full stop before the next one begins")]
    NoStop,
    #[error("'{0}' is a variable of Erlang; write names in lower case or in quotes")]
    Variable(String),
    #[error("a string is not closed")]
    OpenString,
    #[error("'{0}' is no number this file can hold")]
    Number(String),
    #[error("brackets are nested more than {DEPTH_MAX} deep")]
    Depth,
}

struct Reader<'a> {
    rest: std::str::Chars<'a>,
    line: u32,
}

/// All terms of a text with the lines they begin on, or the first fault with its line.
pub(crate) fn read(text: &str) -> Result<Vec<(u32, Term)>, (u32, TermFault)> {
    let mut reader = Reader {
        rest: text.strip_prefix('\u{feff}').unwrap_or(text).chars(),
        line: 1,
    };
    let mut terms = Vec::new();
    loop {
        reader.blank();
        if reader.peek().is_none() {
            return Ok(terms);
        }
        let line = reader.line;
        let term = reader.term(0).and_then(|term| {
            reader.stop()?;
            Ok(term)
        });
        match term {
            Ok(term) => terms.push((line, term)),
            Err(fault) => return Err((reader.line, fault)),
        }
    }
}

impl Reader<'_> {
    fn peek(&self) -> Option<char> {
        self.rest.clone().next()
    }

    fn next(&mut self) -> Result<char, TermFault> {
        let c = self.rest.next().ok_or(TermFault::End)?;
        if c == '\n' {
            self.line += 1;
        }
        Ok(c)
    }

    /// Skips space and comments.
    fn blank(&mut self) {
        while let Some(c) = self.peek() {
            if c == '%' {
                while self.peek().is_some_and(|c| c != '\n') {
                    self.rest.next();
                }
            } else if c.is_whitespace() {
                _ = self.next();
            } else {
                return;
            }
        }
    }

    /// The full stop, which has space, a comment or the end behind it.
    fn stop(&mut self) -> Result<(), TermFault> {
        self.blank();
        match self.peek() {
            None => return Err(TermFault::End),
            Some('.') => _ = self.rest.next(),
            Some(_) => return Err(TermFault::NoStop),
        }
        match self.peek() {
            Some(c) if !c.is_whitespace() && c != '%' => Err(TermFault::Unexpected(c)),
            _ => Ok(()),
        }
    }

    fn term(&mut self, depth: usize) -> Result<Term, TermFault> {
        if depth > DEPTH_MAX {
            return Err(TermFault::Depth);
        }
        self.blank();
        let c = self.peek().ok_or(TermFault::End)?;
        match c {
            '{' => Ok(Term::Tuple(self.items('}', depth)?)),
            '[' => Ok(Term::List(self.items(']', depth)?)),
            '"' => self.texts(),
            '<' => self.binary(),
            '\'' => Ok(Term::Atom(self.quoted('\'')?)),
            '-' | '+' | '0'..='9' => self.number(),
            c if c.is_lowercase() => Ok(Term::Atom(self.word())),
            c if c.is_uppercase() || c == '_' => Err(TermFault::Variable(self.word())),
            c => Err(TermFault::Unexpected(c)),
        }
    }

    /// What is between brackets, commas between.
    fn items(&mut self, close: char, depth: usize) -> Result<Vec<Term>, TermFault> {
        self.next()?;
        let mut items = Vec::new();
        self.blank();
        if self.peek() == Some(close) {
            self.next()?;
            return Ok(items);
        }
        loop {
            items.push(self.term(depth + 1)?);
            self.blank();
            match self.peek().ok_or(TermFault::End)? {
                ',' => _ = self.next()?,
                c if c == close => {
                    self.next()?;
                    return Ok(items);
                }
                c => return Err(TermFault::Unexpected(c)),
            }
        }
    }

    /// A string; adjacent ones are one, as in Erlang.
    fn texts(&mut self) -> Result<Term, TermFault> {
        let mut text = String::new();
        while self.peek() == Some('"') {
            text.push_str(&self.quoted('"')?);
            self.blank();
        }
        Ok(Term::Text(text))
    }

    /// `<<"text">>`, `<<"text"/utf8>>`.
    fn binary(&mut self) -> Result<Term, TermFault> {
        self.expect("<<")?;
        self.blank();
        let Term::Text(text) = self.texts()? else {
            return Ok(Term::Text(String::new()));
        };
        if self.peek() == Some('/') {
            self.expect("/utf8")?;
            self.blank();
        }
        self.expect(">>")?;
        Ok(Term::Text(text))
    }

    fn expect(&mut self, text: &str) -> Result<(), TermFault> {
        for wanted in text.chars() {
            let c = self.peek().ok_or(TermFault::End)?;
            if c != wanted {
                return Err(TermFault::Unexpected(c));
            }
            self.next()?;
        }
        Ok(())
    }

    fn quoted(&mut self, quote: char) -> Result<String, TermFault> {
        self.next()?;
        let mut text = String::new();
        loop {
            match self.next().map_err(|_| TermFault::OpenString)? {
                '\\' => text.push(self.escape()?),
                c if c == quote => return Ok(text),
                c => text.push(c),
            }
        }
    }

    fn escape(&mut self) -> Result<char, TermFault> {
        let c = self.next().map_err(|_| TermFault::OpenString)?;
        Ok(match c {
            'n' => '\n',
            't' => '\t',
            'r' => '\r',
            's' => ' ',
            'x' => return self.hex(),
            c => c,
        })
    }

    /// `\xHH`, `\x{H…}`.
    fn hex(&mut self) -> Result<char, TermFault> {
        let braced = self.peek() == Some('{');
        if braced {
            self.next()?;
        }
        let mut digits = String::new();
        while let Some(c) = self.peek().filter(char::is_ascii_hexdigit) {
            if !braced && digits.len() == 2 || digits.len() == 6 {
                break;
            }
            digits.push(c);
            self.next()?;
        }
        if braced {
            self.expect("}")?;
        }
        let code = u32::from_str_radix(&digits, 16).ok();
        code.and_then(char::from_u32)
            .ok_or(TermFault::Number(digits))
    }

    fn word(&mut self) -> String {
        let mut word = String::new();
        while let Some(c) = self.peek() {
            if !c.is_alphanumeric() && c != '_' && c != '@' {
                break;
            }
            word.push(c);
            self.rest.next();
        }
        word
    }

    fn number(&mut self) -> Result<Term, TermFault> {
        let mut digits = String::new();
        while let Some(c) = self.peek() {
            let sign = digits.is_empty() && (c == '-' || c == '+');
            if !sign && !c.is_ascii_digit() {
                break;
            }
            digits.push(c);
            self.rest.next();
        }
        let number = digits.parse().map(Term::Number);
        number.map_err(|_| TermFault::Number(digits))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn atom(name: &str) -> Term {
        Term::Atom(name.to_owned())
    }

    fn text(text: &str) -> Term {
        Term::Text(text.to_owned())
    }

    #[track_caller]
    fn check(source: &str, expected: &[(u32, Term)]) {
        assert_eq!(read(source).as_deref(), Ok(expected));
    }

    #[track_caller]
    fn fails(source: &str, line: u32, fault: TermFault) {
        assert_eq!(read(source), Err((line, fault)));
    }

    #[test]
    fn terms_as_operators_write_them() {
        check("", &[]);
        check("%% only a comment", &[]);
        check(
            "{allow, all}.\n\n  {deny,'or',[\"a\" \"b\",<<\"c\"/utf8>>, 1]}. % why\n",
            &[
                (1, Term::Tuple(vec![atom("allow"), atom("all")])),
                (
                    3,
                    Term::Tuple(vec![
                        atom("deny"),
                        atom("or"),
                        Term::List(vec![text("ab"), text("c"), Term::Number(1)]),
                    ]),
                ),
            ],
        );
        check(
            "{}. []. -7.",
            &[
                (1, Term::Tuple(Vec::new())),
                (1, Term::List(Vec::new())),
                (1, Term::Number(-7)),
            ],
        );
    }

    #[test]
    fn escapes() {
        check(
            r#"["a\"b\\c\n\t\x41\x{e9}", 'it\'s']."#,
            &[(
                1,
                Term::List(vec![text("a\"b\\c\n\tA\u{e9}"), atom("it's")]),
            )],
        );
    }

    #[test]
    fn faults_have_their_line() {
        fails("{allow, all}", 1, TermFault::End);
        fails("{allow, all}.\n{deny", 2, TermFault::End);
        fails("{allow, all}\n{deny, all}.", 2, TermFault::NoStop);
        fails("{allow, All}.", 1, TermFault::Variable("All".to_owned()));
        fails("{allow; all}.", 1, TermFault::Unexpected(';'));
        fails("{allow, \"x}.\n", 2, TermFault::OpenString);
        fails(
            "99999999999999999999.",
            1,
            TermFault::Number("99999999999999999999".to_owned()),
        );
        let deep = "[".repeat(100_000);
        fails(&deep, 1, TermFault::Depth);
    }

    #[test]
    fn no_text_panics() {
        let pieces = [
            "{",
            "}",
            "[",
            "]",
            ",",
            ".",
            "\"",
            "'",
            "<<",
            ">>",
            "a",
            "A",
            "1",
            "%",
            "\\",
            "\n",
            "\u{1f600}",
        ];
        let mut seed = 1_u64;
        for _ in 0..20_000 {
            let mut source = String::new();
            for _ in 0..12 {
                seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                source.push_str(pieces[(seed >> 33) as usize % pieces.len()]);
            }
            _ = read(&source);
        }
    }
}
