//! Scenario tests of a shard.
