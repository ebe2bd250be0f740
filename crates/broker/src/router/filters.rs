//! The filters of the router: each one record of its links and its name, by number.
//!
//! ```text
//! local u32 | remote u32 | length u8            | name      names below 255 bytes
//! local u32 | remote u32 | 255 | length u32     | name      longer ones
//! ```
//!
//! Links and name lie together, so that a topic is found with one look at memory far away. A record
//! without links is none: it is about to get some, or it was removed.

use dunlin_slots::Slots;

use super::table::Links;

const LENGTH_AT: usize = 8;
const SHORT_NAME_AT: usize = 9;
const LONG_NAME_AT: usize = 13;
/// Says that the length is in the four bytes behind.
const LONG: u8 = u8::MAX;

/// The filters. See the module.
#[derive(Debug, Default)]
pub(super) struct Filters(Slots);

impl Filters {
    /// Enters a filter that has no links yet.
    pub(super) fn insert(&mut self, name: &str) -> u32 {
        let name = name.as_bytes();
        let (at, length) = match u8::try_from(name.len()) {
            Ok(length) if length < LONG => (SHORT_NAME_AT, length),
            _ => (LONG_NAME_AT, LONG),
        };
        let id = self.0.insert(at + name.len());
        let record = self.0.get_mut(id);
        record[LENGTH_AT] = length;
        if length == LONG {
            let length = u32::try_from(name.len()).expect("a filter has fewer than 4 GiB");
            record[SHORT_NAME_AT..LONG_NAME_AT].copy_from_slice(&length.to_le_bytes());
        }
        record[at..at + name.len()].copy_from_slice(name);
        id
    }

    /// Takes a filter out, whose links are gone.
    pub(super) fn remove(&mut self, id: u32) {
        debug_assert!(self.links(id).is_vacant(), "nothing is left that links to");
        self.0.remove(id);
    }

    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    #[inline]
    pub(super) fn name(&self, id: u32) -> &[u8] {
        name_of(self.0.get(id))
    }

    #[inline]
    pub(super) fn links(&self, id: u32) -> Links {
        links_of(self.0.get(id))
    }

    #[inline]
    pub(super) fn links_and_name(&self, id: u32) -> (Links, &[u8]) {
        let record = self.0.get(id);
        (links_of(record), name_of(record))
    }

    #[inline]
    pub(super) fn set_links(&mut self, id: u32, links: Links) {
        let record = self.0.get_mut(id);
        record[..4].copy_from_slice(&links.local.to_le_bytes());
        record[4..LENGTH_AT].copy_from_slice(&links.remote.to_le_bytes());
    }

    /// Links and name of a number that may be out of date, if it is that of a filter.
    pub(super) fn get(&self, id: u32) -> Option<(Links, &[u8])> {
        let record = self.0.find(id)?;
        let links = links_of(record);
        (!links.is_vacant()).then(|| (links, name_of(record)))
    }

    /// Numbers for [`Filters::get`], those of all filters among them.
    pub(super) fn ids(&self) -> impl Iterator<Item = u32> {
        self.0.ids()
    }
}

#[inline]
fn u32_at(record: &[u8], at: usize) -> u32 {
    let bytes = record[at..].first_chunk();
    u32::from_le_bytes(*bytes.expect("a record is longer"))
}

#[inline]
fn links_of(record: &[u8]) -> Links {
    Links {
        local: u32_at(record, 0),
        remote: u32_at(record, 4),
    }
}

#[inline]
fn name_of(record: &[u8]) -> &[u8] {
    match record[LENGTH_AT] {
        LONG => &record[LONG_NAME_AT..][..u32_at(record, SHORT_NAME_AT) as usize],
        length => &record[SHORT_NAME_AT..][..usize::from(length)],
    }
}

/// A name as text; checks UTF-8 again, so not for the hot path.
pub(super) fn text(name: &[u8]) -> &str {
    std::str::from_utf8(name).expect("a name is made from a str")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_its_string_at_every_length() {
        let mut filters = Filters::default();
        let lengths = || (0..1_200).chain([65_535, 70_000]);
        let name = |length: usize| "é".repeat(length / 2) + &"x".repeat(length % 2);
        let links = |length: usize| Links {
            local: length as u32 + 1,
            remote: u32::MAX,
        };
        let ids: Vec<u32> = lengths()
            .map(|length| filters.insert(&name(length)))
            .collect();
        for (id, length) in ids.iter().zip(lengths()) {
            assert_eq!(filters.get(*id), None, "it has no links");
            filters.set_links(*id, links(length));
        }
        for (id, length) in ids.iter().zip(lengths()) {
            let found = filters.get(*id).map(|(links, name)| (links, text(name)));
            assert_eq!(found, Some((links(length), &*name(length))));
            assert_eq!(filters.name(*id), name(length).as_bytes());
            filters.set_links(*id, Links::default());
            filters.remove(*id);
            assert_eq!(filters.get(*id), None, "it is gone");
        }
        assert_eq!((filters.len(), filters.ids().count()), (0, 0));
    }
}
