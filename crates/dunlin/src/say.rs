//! What the command line prints.
//!
//! Results and `WARNING:`/`INFO:` lines go to stdout, `ERROR:` lines to stderr, as the script this
//! replaces does. A reader that went away (`emqx ctl clients list | head`) is not an error: what
//! cannot be written is dropped, and nothing here ever panics.

use std::io::{IsTerminal, Write};

/// Writes text to stdout as it is, without adding a newline.
pub(crate) fn out(text: &str) {
    let mut stdout = std::io::stdout().lock();
    let _ = stdout
        .write_all(text.as_bytes())
        .and_then(|()| stdout.flush());
}

/// Writes one line to stdout.
pub(crate) fn line(text: &str) {
    out(&format!("{text}\n"));
}

/// Writes text to stderr as it is.
pub(crate) fn err(text: &str) {
    let mut stderr = std::io::stderr().lock();
    let _ = stderr
        .write_all(text.as_bytes())
        .and_then(|()| stderr.flush());
}

/// Writes `ERROR: ` and a line to stderr; red where a person reads it.
pub(crate) fn error(text: &str) {
    if std::io::stderr().is_terminal() && std::env::var_os("TERM").is_some_and(|t| t != "dumb") {
        err(&format!("\x1b[31mERROR: {text}\x1b[0m\n"));
    } else {
        err(&format!("ERROR: {text}\n"));
    }
}
