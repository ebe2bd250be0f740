//! The data types of the wire (MQTT 5 §1.5): reading them out of a slice and appending them to a
//! buffer. Nothing here knows a packet.
//!
//! Reading never panics and never allocates; writing never breaks the framing: a string longer
//! than its length field can say is cut at a character, which only a fault of ours can cause.

use bytes::{BufMut, BytesMut};

use crate::error::DecodeError;

/// Largest value of a variable byte integer.
pub(crate) const VARINT_MAX: u32 = 268_435_455;

/// Reads a variable byte integer; `Ok(None)` if `buf` ends within it.
#[inline]
pub(crate) fn read_varint(buf: &[u8]) -> Result<Option<(u32, usize)>, DecodeError> {
    let mut value = 0u32;
    for (at, byte) in buf.iter().take(4).enumerate() {
        value |= u32::from(byte & 0x7F) << (7 * at);
        if byte & 0x80 == 0 {
            // [MQTT-1.5.5-1]: the fewest bytes that can hold the value.
            if *byte == 0 && at > 0 {
                return Err(DecodeError::VarintNotMinimal);
            }
            return Ok(Some((value, at + 1)));
        }
    }
    if buf.len() >= 4 {
        Err(DecodeError::VarintTooLong)
    } else {
        Ok(None)
    }
}

/// Checks a UTF-8 encoded string [MQTT-1.5.4-1], [MQTT-1.5.4-2].
#[inline]
pub(crate) fn check_str(bytes: &[u8], strict: bool) -> Result<&str, DecodeError> {
    let text = std::str::from_utf8(bytes).map_err(|_| DecodeError::Utf8)?;
    // Folding instead of searching: properties are short, and a search by `memchr` costs a call.
    if strict && bytes.iter().fold(0, |nul, byte| nul | u8::from(*byte == 0)) != 0 {
        return Err(DecodeError::NulCharacter);
    }
    Ok(text)
}

/// Takes fields off the front of a packet's bytes.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Reader<'a> {
    rest: &'a [u8],
    /// Whether reserved bits and U+0000 are refused; see [`crate::Limits::strict`].
    pub(crate) strict: bool,
}

impl<'a> Reader<'a> {
    pub(crate) fn new(rest: &'a [u8], strict: bool) -> Self {
        Self { rest, strict }
    }

    pub(crate) fn len(&self) -> usize {
        self.rest.len()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    #[inline]
    pub(crate) fn take(&mut self, len: usize) -> Result<&'a [u8], DecodeError> {
        let (front, rest) = self
            .rest
            .split_at_checked(len)
            .ok_or(DecodeError::Truncated)?;
        self.rest = rest;
        Ok(front)
    }

    #[inline]
    pub(crate) fn u8(&mut self) -> Result<u8, DecodeError> {
        let (first, rest) = self.rest.split_first().ok_or(DecodeError::Truncated)?;
        self.rest = rest;
        Ok(*first)
    }

    #[inline]
    pub(crate) fn u16(&mut self) -> Result<u16, DecodeError> {
        let (front, rest) = self
            .rest
            .split_first_chunk()
            .ok_or(DecodeError::Truncated)?;
        self.rest = rest;
        Ok(u16::from_be_bytes(*front))
    }

    #[inline]
    pub(crate) fn u32(&mut self) -> Result<u32, DecodeError> {
        let (front, rest) = self
            .rest
            .split_first_chunk()
            .ok_or(DecodeError::Truncated)?;
        self.rest = rest;
        Ok(u32::from_be_bytes(*front))
    }

    #[inline]
    pub(crate) fn varint(&mut self) -> Result<u32, DecodeError> {
        let (value, len) = read_varint(self.rest)?.ok_or(DecodeError::Truncated)?;
        self.rest = &self.rest[len..];
        Ok(value)
    }

    pub(crate) fn packet_id(&mut self) -> Result<std::num::NonZeroU16, DecodeError> {
        std::num::NonZeroU16::new(self.u16()?).ok_or(DecodeError::PacketIdZero)
    }

    #[inline]
    pub(crate) fn binary(&mut self) -> Result<&'a [u8], DecodeError> {
        let len = self.u16()?;
        self.take(usize::from(len))
    }

    #[inline]
    pub(crate) fn str(&mut self) -> Result<&'a str, DecodeError> {
        check_str(self.binary()?, self.strict)
    }

    /// The packet ends here.
    pub(crate) fn end(self) -> Result<(), DecodeError> {
        if self.rest.is_empty() {
            Ok(())
        } else {
            Err(DecodeError::TrailingBytes {
                count: self.rest.len(),
            })
        }
    }
}

/// How many bytes `value` takes as a variable byte integer.
#[inline]
pub(crate) fn varint_len(value: u32) -> usize {
    match value {
        0..=0x7F => 1,
        0x80..=0x3FFF => 2,
        0x4000..=0x1F_FFFF => 3,
        _ => 4,
    }
}

/// `value` as a variable byte integer: the bytes and how many of them count.
#[inline]
pub(crate) fn varint_bytes(value: u32) -> ([u8; 4], usize) {
    debug_assert!(
        value <= VARINT_MAX,
        "a packet of ours is larger than MQTT allows"
    );
    let len = varint_len(value);
    let mut bytes = [0; 4];
    let mut rest = value;
    for byte in &mut bytes[..len] {
        *byte = (rest & 0x7F) as u8 | 0x80;
        rest >>= 7;
    }
    bytes[len - 1] &= 0x7F;
    (bytes, len)
}

#[inline]
pub(crate) fn put_varint(out: &mut BytesMut, value: u32) {
    let (bytes, len) = varint_bytes(value);
    out.put_slice(&bytes[..len]);
}

/// The part of `bytes` a two-byte length can announce.
#[inline]
pub(crate) fn fit(bytes: &[u8]) -> &[u8] {
    debug_assert!(
        bytes.len() <= 65_535,
        "a field of ours is longer than MQTT allows"
    );
    &bytes[..bytes.len().min(65_535)]
}

/// As [`fit`], ending at a character.
#[inline]
pub(crate) fn fit_str(text: &str) -> &[u8] {
    debug_assert!(
        text.len() <= 65_535,
        "a string of ours is longer than MQTT allows"
    );
    if text.len() <= 65_535 {
        return text.as_bytes();
    }
    &text.as_bytes()[..text.floor_char_boundary(65_535)]
}

pub(crate) fn put_binary(out: &mut BytesMut, bytes: &[u8]) {
    let bytes = fit(bytes);
    out.put_u16(bytes.len() as u16);
    out.put_slice(bytes);
}

pub(crate) fn put_str(out: &mut BytesMut, text: &str) {
    let bytes = fit_str(text);
    out.put_u16(bytes.len() as u16);
    out.put_slice(bytes);
}

/// Appends `body` behind its length as a variable byte integer.
///
/// One byte is kept for the length; a body of 128 bytes or more is moved up, which the rare
/// packets can afford and which spares computing every length twice.
pub(crate) fn put_sized(out: &mut BytesMut, body: impl FnOnce(&mut BytesMut)) {
    let at = out.len();
    out.put_u8(0);
    body(out);
    let body_at = at + 1;
    let len = out.len() - body_at;
    let (bytes, count) = varint_bytes(len as u32);
    if count > 1 {
        out.put_bytes(0, count - 1);
        out.copy_within(body_at..body_at + len, at + count);
    }
    out[at..at + count].copy_from_slice(&bytes[..count]);
}

/// Appends a packet: its first byte, its length and what `body` writes.
pub(crate) fn put_packet(out: &mut BytesMut, first: u8, body: impl FnOnce(&mut BytesMut)) {
    out.put_u8(first);
    put_sized(out, body);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn varints_at_their_borders() {
        for (value, bytes) in [
            (0u32, &[0x00][..]),
            (127, &[0x7F]),
            (128, &[0x80, 0x01]),
            (16_383, &[0xFF, 0x7F]),
            (16_384, &[0x80, 0x80, 0x01]),
            (2_097_151, &[0xFF, 0xFF, 0x7F]),
            (2_097_152, &[0x80, 0x80, 0x80, 0x01]),
            (VARINT_MAX, &[0xFF, 0xFF, 0xFF, 0x7F]),
        ] {
            let mut out = BytesMut::new();
            put_varint(&mut out, value);
            assert_eq!(&out[..], bytes);
            assert_eq!(read_varint(bytes), Ok(Some((value, bytes.len()))));
            assert_eq!(read_varint(&bytes[..bytes.len() - 1]), Ok(None));
        }
        assert_eq!(
            read_varint(&[0x80, 0x00]),
            Err(DecodeError::VarintNotMinimal)
        );
        assert_eq!(read_varint(&[0xFF; 4]), Err(DecodeError::VarintTooLong));
    }

    #[test]
    fn a_long_body_moves_up() {
        for len in [0usize, 1, 127, 128, 16_383, 16_384, 70_000] {
            let mut out = BytesMut::from(&b"before"[..]);
            put_packet(&mut out, 0x30, |out| out.put_bytes(7, len));
            let (value, count) = read_varint(&out[7..]).expect("minimal").expect("complete");
            assert_eq!(value as usize, len);
            assert!(out[7 + count..].iter().all(|b| *b == 7));
            assert_eq!(out.len(), 7 + count + len);
        }
    }
}
