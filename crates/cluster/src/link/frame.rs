//! The unit on every link after the handshake: a checked, length-prefixed frame.
//!
//! ```text
//!  0        4      5            13         17
//!  +--------+------+------------+----------+---------...
//!  | len    | kind | number     | crc32    | payload
//!  | u32 be | u8   | u64 be     | u32 be   | len - 13 bytes
//!  +--------+------+------------+----------+---------...
//! ```
//! `len` counts what follows it; the checksum covers kind, number and payload.

use bytes::{Buf, BufMut, Bytes, BytesMut};

/// Bytes of a frame before its payload.
pub const FRAME_HEAD_BYTES: usize = 17;

/// Longest payload, bytes: the longest MQTT packet is 256 MB, but one frame may not hold a link for
/// longer than a moment; the default packet limit is 1 MB and the highest configurable one fits.
pub const FRAME_PAYLOAD_MAX: usize = 256 * 1_024 * 1_024 + 128 * 1_024;

/// What a frame is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FrameKind {
    /// First frame of a sender on a connection: names its stream; number: the next to come.
    Open = 0,
    /// The receiver's answer; number: the last one it has.
    Attach = 1,
    /// Acknowledges everything up to its number.
    Ack = 2,
    /// A numbered payload; number 0 marks a datagram, which is never repeated.
    Data = 3,
}

impl FrameKind {
    fn from_u8(kind: u8) -> Option<Self> {
        Some(match kind {
            0 => Self::Open,
            1 => Self::Attach,
            2 => Self::Ack,
            3 => Self::Data,
            _ => return None,
        })
    }
}

/// One decoded frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    /// What it is for.
    pub kind: FrameKind,
    /// See [`FrameKind`].
    pub number: u64,
    /// The payload.
    pub payload: Bytes,
}

/// Why bytes are not a frame; the connection they came on is useless.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// The length is below the head or above the limit.
    #[error("frame length {0} is out of range")]
    Length(u32),
    /// The kind is not known.
    #[error("frame kind {0} is not known")]
    Kind(u8),
    /// The checksum does not match.
    #[error("frame checksum does not match")]
    Checksum,
}

/// Encodes one frame whose payload is the concatenation of `parts`.
pub fn encode(kind: FrameKind, number: u64, parts: &[&[u8]]) -> Bytes {
    let payload_bytes: usize = parts.iter().map(|part| part.len()).sum();
    let mut out = BytesMut::with_capacity(FRAME_HEAD_BYTES + payload_bytes);
    out.put_u32((FRAME_HEAD_BYTES - 4 + payload_bytes) as u32);
    out.put_u8(kind as u8);
    out.put_u64(number);
    out.put_u32(checksum(kind as u8, number, parts));
    for part in parts {
        out.put_slice(part);
    }
    out.freeze()
}

/// Takes one frame off `buf`; `None` when it is not complete yet.
pub fn decode(buf: &mut BytesMut) -> Result<Option<Frame>, FrameError> {
    let Some(len) = buf.first_chunk().map(|len| u32::from_be_bytes(*len)) else {
        return Ok(None);
    };
    let rest = len as usize;
    let head = FRAME_HEAD_BYTES - 4;
    if !(head..=head + FRAME_PAYLOAD_MAX).contains(&rest) {
        return Err(FrameError::Length(len));
    }
    // The kind is checked before the rest has arrived, so that garbage is not waited for.
    if let Some(kind) = buf
        .get(4)
        .copied()
        .filter(|kind| FrameKind::from_u8(*kind).is_none())
    {
        return Err(FrameError::Kind(kind));
    }
    if buf.len() < 4 + rest {
        return Ok(None);
    }
    let mut head = buf.split_to(FRAME_HEAD_BYTES);
    head.advance(4);
    let kind_byte = head.get_u8();
    let kind = FrameKind::from_u8(kind_byte).ok_or(FrameError::Kind(kind_byte))?;
    let number = head.get_u64();
    let crc = head.get_u32();
    let payload = buf.split_to(rest + 4 - FRAME_HEAD_BYTES).freeze();
    if crc != checksum(kind_byte, number, &[&payload]) {
        return Err(FrameError::Checksum);
    }
    Ok(Some(Frame {
        kind,
        number,
        payload,
    }))
}

fn checksum(kind: u8, number: u64, parts: &[&[u8]]) -> u32 {
    let mut crc = crc32fast::Hasher::new();
    crc.update(&[kind]);
    crc.update(&number.to_be_bytes());
    for part in parts {
        crc.update(part);
    }
    crc.finalize()
}
