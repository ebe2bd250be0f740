//! A short string without an allocation.
//!
//! Most filters and client identifiers fit into 22 bytes, so the commonest record of the router
//! needs no heap block and comparing it touches no second cache line.

use std::cmp::Ordering;
use std::fmt;

/// Longest string kept in place: what is left of 24 bytes beside a tag and a length.
const INLINE_BYTES_MAX: usize = 22;

/// An immutable string of 24 bytes in place; longer ones are boxed.
#[derive(Clone)]
pub(crate) struct Name(Repr);

#[derive(Clone)]
enum Repr {
    Short {
        len: u8,
        bytes: [u8; INLINE_BYTES_MAX],
    },
    Long(Box<[u8]>),
}

impl Name {
    /// Copies a string.
    pub(crate) fn new(text: &str) -> Self {
        let from = text.as_bytes();
        if from.len() > INLINE_BYTES_MAX {
            return Self(Repr::Long(from.into()));
        }
        let mut bytes = [0; INLINE_BYTES_MAX];
        bytes[..from.len()].copy_from_slice(from);
        Self(Repr::Short {
            len: from.len() as u8,
            bytes,
        })
    }

    /// The bytes of the string.
    #[inline]
    pub(crate) fn as_bytes(&self) -> &[u8] {
        match &self.0 {
            Repr::Short { len, bytes } => &bytes[..usize::from(*len)],
            Repr::Long(bytes) => bytes,
        }
    }

    /// The string; checks UTF-8 again, so not for the hot path.
    pub(crate) fn as_str(&self) -> &str {
        std::str::from_utf8(self.as_bytes()).expect("a name is made from a str")
    }
}

impl Default for Name {
    fn default() -> Self {
        Self(Repr::Short {
            len: 0,
            bytes: [0; INLINE_BYTES_MAX],
        })
    }
}

impl fmt::Debug for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.as_str().fmt(f)
    }
}

impl PartialEq for Name {
    fn eq(&self, other: &Self) -> bool {
        self.as_bytes() == other.as_bytes()
    }
}

impl Eq for Name {}

impl PartialOrd for Name {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Name {
    fn cmp(&self, other: &Self) -> Ordering {
        self.as_bytes().cmp(other.as_bytes())
    }
}

impl std::borrow::Borrow<[u8]> for Name {
    fn borrow(&self) -> &[u8] {
        self.as_bytes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_its_string_at_every_length() {
        for len in 0..60 {
            let text = "é".repeat(len / 2) + &"x".repeat(len % 2);
            assert_eq!(Name::new(&text).as_str(), text);
        }
        assert_eq!(size_of::<Name>(), 24);
        assert!(Name::new("a") < Name::new(&"a".repeat(30)));
    }
}
