//! What this machine cannot test is said aloud, never passed over.

use std::io::Write as _;

/// Names a file that collects the lines, for runners that hide the output of tests that pass.
const LOG: &str = "DUNLIN_NOT_TESTED_LOG";
/// Set to anything, it makes a missing tool a failure: for machines that must test everything.
const STRICT: &str = "DUNLIN_TEST_EVERYTHING";

/// Says that `what` was not tested, and why.
pub fn not_tested(what: &str, why: &str) {
    let line = format!("NOT TESTED: {what}: {why}\n");
    // Past the capture of the test harness: this line is for whoever reads the run.
    let _ = std::io::stderr().lock().write_all(line.as_bytes());
    if let Some(path) = std::env::var_os(LOG)
        && let Ok(mut log) = std::fs::File::options()
            .create(true)
            .append(true)
            .open(path)
    {
        let _ = log.write_all(line.as_bytes());
    }
    assert!(
        std::env::var_os(STRICT).is_none(),
        "{line}({STRICT} is set)"
    );
}

/// Is there a program of this name on the path?
pub fn has(program: &str) -> bool {
    std::env::var_os("PATH").is_some_and(|path| {
        std::env::split_paths(&path).any(|folder| folder.join(program).is_file())
    })
}
