//! Links: every byte between nodes goes through a handshake and then through numbered frames.
//!
//! `handshake` proves the cookie and exchanges identities, `frame` is the unit on the wire,
//! `stream` numbers, acknowledges and resumes. A link outlives its TCP connections; it ends with
//! either node's boot, or when its sender gives up and starts a new stream.

pub mod frame;
pub mod handshake;
pub mod stream;

#[cfg(test)]
mod tests;

pub use handshake::{Handshake, HandshakeError, Hello, Purpose, is_plain_handshake, plain_refusal};
pub use stream::{LinkError, Receiver, Sender, WindowFull};
