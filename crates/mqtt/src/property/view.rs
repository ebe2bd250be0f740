//! The properties of a PUBLISH, read in place: checked in one pass when the packet is decoded,
//! then looked up by scanning. Most messages have none, and few have more than three.

use std::borrow::Cow;

use super::{PUBLISH, PropertyId, Seen, ValueRef, check_one, read_one, skip_one};
use crate::error::DecodeError;
use crate::wire::Reader;

/// Checks the property block of a PUBLISH; says whether it has a topic alias.
pub(crate) fn check_publish(raw: &[u8], strict: bool) -> Result<bool, DecodeError> {
    let mut reader = Reader::new(raw, strict);
    let mut seen = Seen::default();
    while !reader.is_empty() {
        check_one(&mut reader, PUBLISH, &mut seen)?;
    }
    Ok(seen.has(PropertyId::TopicAlias))
}

/// A typed view of the properties of a PUBLISH.
#[derive(Debug, Clone, Copy)]
pub struct PublishProperties<'a> {
    raw: &'a [u8],
}

impl<'a> PublishProperties<'a> {
    /// A view of a raw block: one [`crate::Publish::raw_properties`] gave. In a block that was
    /// never checked, the view ends at the first byte that makes no sense.
    #[inline]
    pub const fn new(raw: &'a [u8]) -> Self {
        Self { raw }
    }

    /// Whether there is none.
    #[inline]
    pub const fn is_empty(&self) -> bool {
        self.raw.is_empty()
    }

    /// The encoded block.
    pub const fn raw(&self) -> &'a [u8] {
        self.raw
    }

    /// All properties, in order.
    pub fn iter(&self) -> PublishPropertyIter<'a> {
        PublishPropertyIter {
            reader: Reader::new(self.raw, false),
        }
    }

    fn find(&self, id: PropertyId) -> Option<ValueRef<'a>> {
        let mut reader = Reader::new(self.raw, false);
        while !reader.is_empty() {
            let mut here = reader;
            if skip_one(&mut reader).ok()? == id {
                return read_one(&mut here).ok().map(|(_, value)| value);
            }
        }
        None
    }

    /// 0: the payload is bytes, 1: it is UTF-8.
    pub fn payload_format_indicator(&self) -> Option<u8> {
        match self.find(PropertyId::PayloadFormatIndicator) {
            Some(ValueRef::Byte(n)) => Some(n),
            _ => None,
        }
    }

    /// How long the message stays wanted, in seconds.
    pub fn message_expiry_interval(&self) -> Option<u32> {
        match self.find(PropertyId::MessageExpiryInterval) {
            Some(ValueRef::U32(n)) => Some(n),
            _ => None,
        }
    }

    /// The number that stands for the topic, 1..=65,535.
    pub fn topic_alias(&self) -> Option<u16> {
        match self.find(PropertyId::TopicAlias) {
            Some(ValueRef::U16(n)) => Some(n),
            _ => None,
        }
    }

    /// Where an answer is expected.
    pub fn response_topic(&self) -> Option<&'a str> {
        match self.find(PropertyId::ResponseTopic) {
            Some(ValueRef::Str(text)) => Some(text),
            _ => None,
        }
    }

    /// What lets the requester recognise the answer.
    pub fn correlation_data(&self) -> Option<&'a [u8]> {
        match self.find(PropertyId::CorrelationData) {
            Some(ValueRef::Binary(bytes)) => Some(bytes),
            _ => None,
        }
    }

    /// What the payload is.
    pub fn content_type(&self) -> Option<&'a str> {
        match self.find(PropertyId::ContentType) {
            Some(ValueRef::Str(text)) => Some(text),
            _ => None,
        }
    }

    /// The identifiers of the subscriptions that matched; only servers send them
    /// [MQTT-3.3.4-6], which is for the receiver of the packet to hold against its sender.
    pub fn subscription_ids(&self) -> impl Iterator<Item = u32> + use<'a> {
        self.iter().filter_map(|(_, value)| match value {
            ValueRef::Varint(n) => Some(n),
            _ => None,
        })
    }

    /// The user properties in order: name and value.
    pub fn user_properties(&self) -> impl Iterator<Item = (&'a str, &'a str)> + use<'a> {
        self.iter().filter_map(|(_, value)| match value {
            ValueRef::Pair(name, value) => Some((name, value)),
            _ => None,
        })
    }

    /// The properties that go on to subscribers unchanged, encoded as
    /// [`crate::Outgoing::forwarded`] wants them. Borrowed when nothing has to be left out.
    pub fn forwardable(&self) -> Cow<'a, [u8]> {
        let mut reader = Reader::new(self.raw, false);
        while !reader.is_empty() {
            if !skip_one(&mut reader).is_ok_and(PropertyId::is_forwarded) {
                return Cow::Owned(self.filtered());
            }
        }
        Cow::Borrowed(self.raw)
    }

    fn filtered(&self) -> Vec<u8> {
        let mut kept = Vec::with_capacity(self.raw.len());
        let mut reader = Reader::new(self.raw, false);
        while !reader.is_empty() {
            let at = self.raw.len() - reader.len();
            let Ok(id) = skip_one(&mut reader) else { break };
            if id.is_forwarded() {
                kept.extend_from_slice(&self.raw[at..self.raw.len() - reader.len()]);
            }
        }
        kept
    }
}

impl<'a> IntoIterator for &PublishProperties<'a> {
    type Item = (PropertyId, ValueRef<'a>);
    type IntoIter = PublishPropertyIter<'a>;

    fn into_iter(self) -> PublishPropertyIter<'a> {
        self.iter()
    }
}

/// The properties of a PUBLISH, one after the other.
#[derive(Debug, Clone)]
pub struct PublishPropertyIter<'a> {
    reader: Reader<'a>,
}

impl<'a> Iterator for PublishPropertyIter<'a> {
    type Item = (PropertyId, ValueRef<'a>);

    fn next(&mut self) -> Option<Self::Item> {
        if self.reader.is_empty() {
            return None;
        }
        if let Ok(found) = read_one(&mut self.reader) {
            return Some(found);
        }
        self.reader = Reader::new(&[], false);
        None
    }
}
