//! Lines for the person who starts or stops the node, as EMQX prints them on standard output.

use std::io::Write as _;

/// Prints a line. A console that is closed is no reason to stop a broker.
pub(crate) fn say(line: &str) {
    let mut stdout = std::io::stdout().lock();
    let _ = writeln!(stdout, "{line}").and_then(|()| stdout.flush());
}
