//! `emqx.conf` -> [`Settings`].
//!
//! Two levels: *raw* is what each layer said (`base.hocon`, `cluster.hocon`,
//! `emqx.conf`, the environment), with file and line on every value; *settings* is
//! what that means, typed and validated. Every key is declared once, in
//! [`section`]; defaults, validation, error texts, environment names, the reference
//! page and `conf show` all come from that declaration.
//!
//! The crate is pure: it opens no file, reads no environment and knows no clock.
//! Texts, variables and included files come in as values through [`Sources`].
#![warn(missing_docs)]

pub mod change;
pub mod check;
pub mod env;
pub mod error;
mod guard;
pub mod hocon;
mod integrity;
pub mod nearest;
pub mod raw;
pub mod render;
pub mod schema;
pub mod section;
pub mod settings;
pub mod ssl_dist;
pub mod unit;
mod view;
pub mod words;

pub use check::Secrets;
pub use env::EnvOverride;
pub use error::{ConfigError, LayerKind, Place, Warning};
pub use hocon::Files;
pub use raw::{Layer, Layers, Loaded, Raw, Sources, load};
pub use settings::Settings;
