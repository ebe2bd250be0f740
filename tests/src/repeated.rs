//! Tests of what chance may break: a few times in every run, often when somebody asks for it.

/// Set to a number, tests of starts repeat them as often.
const STARTS: &str = "DUNLIN_TEST_STARTS";

/// What every run can afford.
const STARTS_DEFAULT: u32 = 3;

/// How often to start.
pub fn count() -> u32 {
    let asked = std::env::var(STARTS).ok();
    asked
        .and_then(|text| text.parse().ok())
        .unwrap_or(STARTS_DEFAULT)
}

/// How much longer than usual a test may take.
pub(crate) fn patience() -> u32 {
    count().div_ceil(STARTS_DEFAULT)
}
