//! PINGREQ and PINGRESP: two bytes each, without body in every version.

use bytes::{BufMut, BytesMut};

use super::PacketType;

pub(crate) fn encode_pingreq(out: &mut BytesMut) {
    out.put_slice(&[PacketType::Pingreq.first_byte(), 0]);
}

pub(crate) fn encode_pingresp(out: &mut BytesMut) {
    out.put_slice(&[PacketType::Pingresp.first_byte(), 0]);
}
