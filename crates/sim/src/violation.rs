//! A broken promise, found.

use std::fmt;

/// Which invariant does not hold, and how that shows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// Name of the invariant, as in [`crate::invariant::ALL`].
    pub invariant: &'static str,
    /// What was seen, for people.
    pub seen: String,
}

impl Violation {
    /// A violation of an invariant.
    pub fn new(invariant: &'static str, seen: String) -> Self {
        Self { invariant, seen }
    }
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.invariant, self.seen)
    }
}
