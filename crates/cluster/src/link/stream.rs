//! The two halves of a numbered, resumable stream of frames.
//!
//! ```text
//!   Sender                          Receiver
//!     | -- Open{next}, stream id ------> |   first on every connection
//!     | <- Attach{has} ----------------- |
//!     | -- Data{has+1}.. --------------> |   unacknowledged frames again, then new ones
//!     | <- Ack{has} -------------------- |
//! ```
//! The receiver delivers every number exactly once and in order, over any number of connections.
//! A sender that lost its frames starts another stream id, and the receiver counts from there.

use std::collections::VecDeque;

use bytes::{Bytes, BytesMut};

use super::frame::{self, Frame, FrameError, FrameKind};

/// Most unacknowledged frames of a sender.
///
/// At 100,000 messages a second this bridges more than half a second of silence.
pub const WINDOW_FRAMES: usize = 65_536;

/// Most unacknowledged bytes of a sender: bounds what an unreachable peer costs in memory.
pub const WINDOW_BYTES: usize = 32 * 1_024 * 1_024;

/// Unacknowledged frames a receiver lets pass before an acknowledgement is due at once.
pub const ACK_EVERY: u64 = 256;

/// The sender has [`WINDOW_FRAMES`] or [`WINDOW_BYTES`] unacknowledged; nothing was queued.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the window of the link is full")]
pub struct WindowFull;

/// Why a link's connection is useless; both ends dial again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LinkError {
    /// The bytes are no frames.
    #[error(transparent)]
    Frame(#[from] FrameError),
    /// A frame came that has no place here, such as data before the stream was opened.
    #[error("frame out of place")]
    Unexpected,
    /// Frames are missing.
    #[error("frame {got} came instead of {expected}")]
    Gap {
        /// The next number of the stream.
        expected: u64,
        /// What came.
        got: u64,
    },
    /// The peer acknowledged or asked for what was never sent or is gone.
    #[error("the peer has {has}, which is outside {from}..={to}")]
    Range {
        /// What it says it has.
        has: u64,
        /// The last number acknowledged.
        from: u64,
        /// The last number given out.
        to: u64,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Attachment {
    /// No connection.
    Detached,
    /// Connected, the peer has not said yet what it has.
    Opening,
    /// Frames flow.
    Attached,
}

/// The outgoing half.
#[derive(Debug)]
pub struct Sender {
    stream: u64,
    state: Attachment,
    /// Encoded frames `acked + 1 ..`, oldest first.
    window: VecDeque<Bytes>,
    window_bytes: usize,
    acked: u64,
    /// Frames of the window that were taken for this connection already.
    taken: usize,
    /// `Open` and datagrams, which are not in the window.
    loose: VecDeque<Bytes>,
}

/// Most datagrams waiting for their connection's next write; more are dropped, as datagrams may be.
const DATAGRAMS_MAX: usize = 256;

impl Sender {
    /// A new stream; `stream` must differ from every stream of the same two boots before.
    pub fn new(stream: u64) -> Self {
        Self {
            stream,
            state: Attachment::Detached,
            window: VecDeque::new(),
            window_bytes: 0,
            acked: 0,
            taken: 0,
            loose: VecDeque::new(),
        }
    }

    /// A connection stands and its handshake is done: `Open` is queued, frames wait for `Attach`.
    pub fn connected(&mut self) {
        self.detach();
        self.state = Attachment::Opening;
        let stream = self.stream.to_be_bytes();
        self.loose
            .push_back(frame::encode(FrameKind::Open, self.acked + 1, &[&stream]));
    }

    /// The peer said what it has: everything after it is sent, again if need be.
    pub fn attach(&mut self, peer_has: u64) -> Result<(), LinkError> {
        if self.state == Attachment::Detached {
            return Err(LinkError::Unexpected);
        }
        self.acked(peer_has)?;
        self.state = Attachment::Attached;
        self.taken = 0;
        Ok(())
    }

    /// The connection is gone; frames are kept for the next one.
    pub fn detach(&mut self) {
        self.state = Attachment::Detached;
        self.taken = 0;
        self.loose.clear();
    }

    /// The peer has everything up to `number`.
    pub fn acked(&mut self, number: u64) -> Result<(), LinkError> {
        if number < self.acked || number > self.last() {
            return Err(LinkError::Range {
                has: number,
                from: self.acked,
                to: self.last(),
            });
        }
        let count = (number - self.acked) as usize;
        let bytes: usize = self.window.drain(..count).map(|frame| frame.len()).sum();
        self.window_bytes -= bytes;
        self.taken = self.taken.saturating_sub(count);
        self.acked = number;
        Ok(())
    }

    /// Queues one frame and returns its number.
    pub fn send(&mut self, parts: &[&[u8]]) -> Result<u64, WindowFull> {
        if self.window.len() >= WINDOW_FRAMES || self.window_bytes >= WINDOW_BYTES {
            return Err(WindowFull);
        }
        let number = self.last() + 1;
        let frame = frame::encode(FrameKind::Data, number, parts);
        self.window_bytes += frame.len();
        self.window.push_back(frame);
        Ok(number)
    }

    /// Queues a payload that is sent at most once, and only over the present connection.
    pub fn datagram(&mut self, parts: &[&[u8]]) {
        if self.state != Attachment::Detached && self.loose.len() < DATAGRAMS_MAX {
            self.loose
                .push_back(frame::encode(FrameKind::Data, 0, parts));
        }
    }

    /// Feeds what the peer sent back on this link's connection (`Attach`, `Ack`).
    pub fn receive(&mut self, buf: &mut BytesMut) -> Result<(), LinkError> {
        while let Some(frame) = frame::decode(buf)? {
            self.frame(&frame)?;
        }
        Ok(())
    }

    pub(crate) fn frame(&mut self, frame: &Frame) -> Result<(), LinkError> {
        match (frame.kind, self.state) {
            (FrameKind::Attach, _) => self.attach(frame.number),
            (FrameKind::Ack, Attachment::Attached) => self.acked(frame.number),
            _ => Err(LinkError::Unexpected),
        }
    }

    /// Moves what is to be written now to `out`.
    pub fn take_output(&mut self, out: &mut Vec<Bytes>) {
        out.extend(self.loose.drain(..));
        if self.state == Attachment::Attached {
            out.extend(self.window.range(self.taken..).cloned());
            self.taken = self.window.len();
        }
    }

    /// Whether [`Self::take_output`] would give anything.
    pub fn has_output(&self) -> bool {
        let frames = self.state == Attachment::Attached && self.taken < self.window.len();
        frames || !self.loose.is_empty()
    }

    /// Whether the peer has attached on the present connection.
    pub fn is_attached(&self) -> bool {
        self.state == Attachment::Attached
    }

    /// Number of frames not acknowledged.
    pub fn unacked(&self) -> usize {
        self.window.len()
    }

    /// Bytes not acknowledged.
    pub fn unacked_bytes(&self) -> usize {
        self.window_bytes
    }

    /// The last number the peer acknowledged.
    pub fn acked_number(&self) -> u64 {
        self.acked
    }

    /// The last number given out.
    pub fn last(&self) -> u64 {
        self.acked + self.window.len() as u64
    }
}

/// The incoming half.
#[derive(Debug, Default)]
pub struct Receiver {
    stream: Option<u64>,
    has: u64,
    /// What the peer was told last on this connection.
    told: u64,
    /// Whether the stream was opened on this connection, and the answer is still to be sent.
    open: bool,
    attach_due: bool,
}

impl Receiver {
    /// A receiver that has nothing.
    pub fn new() -> Self {
        Self::default()
    }

    /// A new connection stands: nothing is accepted before the sender opened its stream on it.
    pub fn connected(&mut self) {
        self.open = false;
        self.attach_due = false;
    }

    /// Takes all complete frames off `buf` and gives each new payload once, in order, with its
    /// number (0 for datagrams).
    pub fn receive(
        &mut self,
        buf: &mut BytesMut,
        mut deliver: impl FnMut(u64, Bytes),
    ) -> Result<(), LinkError> {
        while let Some(frame) = frame::decode(buf)? {
            if let Some((number, payload)) = self.frame(frame)? {
                deliver(number, payload);
            }
        }
        Ok(())
    }

    pub(crate) fn frame(&mut self, frame: Frame) -> Result<Option<(u64, Bytes)>, LinkError> {
        match frame.kind {
            FrameKind::Open => self.opened(&frame).map(|()| None),
            FrameKind::Data if !self.open => Err(LinkError::Unexpected),
            FrameKind::Data if frame.number == 0 => Ok(Some((0, frame.payload))),
            FrameKind::Data if frame.number <= self.has => Ok(None),
            FrameKind::Data if frame.number > self.has + 1 => Err(LinkError::Gap {
                expected: self.has + 1,
                got: frame.number,
            }),
            FrameKind::Data => {
                self.has = frame.number;
                Ok(Some((frame.number, frame.payload)))
            }
            FrameKind::Attach | FrameKind::Ack => Err(LinkError::Unexpected),
        }
    }

    fn opened(&mut self, frame: &Frame) -> Result<(), LinkError> {
        let stream: &[u8; 8] = frame
            .payload
            .as_ref()
            .try_into()
            .map_err(|_| LinkError::Unexpected)?;
        let stream = u64::from_be_bytes(*stream);
        let first = frame.number;
        if first == 0 || self.open {
            return Err(LinkError::Unexpected);
        }
        if self.stream != Some(stream) {
            self.stream = Some(stream);
            self.has = first - 1;
        } else if first > self.has + 1 {
            return Err(LinkError::Gap {
                expected: self.has + 1,
                got: first,
            });
        }
        self.open = true;
        self.attach_due = true;
        Ok(())
    }

    /// The last number delivered.
    pub fn has(&self) -> u64 {
        self.has
    }

    /// Whether enough came since the last acknowledgement that one should go out at once, not with
    /// the driver's next turn.
    pub fn ack_due(&self) -> bool {
        self.has.saturating_sub(self.told) >= ACK_EVERY
    }

    /// The next output has an acknowledgement even if nothing came: proof of life on an idle link.
    pub fn heartbeat(&mut self) {
        self.told = u64::MAX;
    }

    /// Moves the answers that are due to `out`: the attach, or one acknowledgement of everything.
    pub fn take_output(&mut self, out: &mut Vec<Bytes>) {
        if !self.open {
            return;
        }
        if self.attach_due {
            out.push(frame::encode(FrameKind::Attach, self.has, &[]));
        } else if self.has != self.told {
            out.push(frame::encode(FrameKind::Ack, self.has, &[]));
        }
        self.attach_due = false;
        self.told = self.has;
    }
}
