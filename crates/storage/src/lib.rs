//! Durable tables behind a small trait.
//!
//! A [`Store`] holds named, ordered tables of opaque bytes. Changes arrive in [`Batch`]es, which
//! are visible at once and become durable together at the next [`Store::sync`] (group commit). Two
//! implementations exist: [`engine::Engine`] on one file, and [`memory::Memory`], its twin for
//! tests and the simulator, which forgets unsynced writes when told to crash. [`snapshot`] copies
//! all tables to and from a portable byte stream.
//!
//! This crate must never know what a row means: no MQTT, no clustering. It must never tear a batch.
//! Only `engine` touches files.

#![warn(missing_docs)]

pub mod engine;
pub mod memory;
mod overlay;
pub mod snapshot;
mod store;

pub use store::{
    BATCH_BYTES_MAX, Batch, KEY_BYTES_MAX, Op, Store, StoreError, TABLE_NAME_BYTES_MAX, TableId,
    VALUE_BYTES_MAX,
};
