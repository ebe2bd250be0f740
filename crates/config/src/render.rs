//! Reference page, `conf show` and JSON, all from the registry.

/// What is shown instead of a secret.
pub const MASK: &str = "******";
