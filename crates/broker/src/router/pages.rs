//! Own filters in key order, though the table has no order.
//!
//! A snapshot for another node reads them a thousand at a time. Each page read from the table costs
//! a scan of it, so a large page is read at once and kept, sorted, while small ones are served from
//! it. Filters that become own meanwhile are entered; those that are own no more are left out when
//! served. An order kept at all times would cost every SUBSCRIBE a microsecond for something that
//! happens when nodes meet.

use std::sync::{Mutex, PoisonError};

use super::name::Name;

/// Filters in a page: 400 KB, and at a million filters 30 ms to read it.
pub(super) const PAGE_FILTERS: usize = 16_384;

/// Pages kept, for so many nodes at different places in their snapshots.
const PAGES_MAX: usize = 4;

/// The own filters behind `after`, up to and with `upto`, in order.
#[derive(Debug)]
struct Page {
    after: Option<Name>,
    /// `None`: to the end.
    upto: Option<Name>,
    names: Vec<Name>,
}

impl Page {
    /// Whether what comes next after the cursor is in this page.
    fn continues(&self, cursor: Option<&[u8]>) -> bool {
        let after = self.after.as_ref().map(Name::as_bytes);
        after <= cursor && (cursor.is_none() || !self.ends_before(cursor))
    }

    fn ends_before(&self, cursor: Option<&[u8]>) -> bool {
        let upto = self.upto.as_ref().map(Name::as_bytes);
        upto.is_some_and(|upto| cursor.is_some_and(|cursor| upto <= cursor))
    }

    fn first_behind(&self, cursor: Option<&[u8]>) -> usize {
        let Some(cursor) = cursor else { return 0 };
        self.names.partition_point(|name| name.as_bytes() <= cursor)
    }
}

/// The pages kept.
#[derive(Debug, Default)]
pub(super) struct Pages(Mutex<Vec<Page>>);

impl Pages {
    /// A filter has become own.
    pub(super) fn note(&mut self, filter: &str) {
        let pages = self.0.get_mut().unwrap_or_else(PoisonError::into_inner);
        for page in pages {
            let name = filter.as_bytes();
            let inside = page
                .after
                .as_ref()
                .is_none_or(|after| after.as_bytes() < name)
                && page
                    .upto
                    .as_ref()
                    .is_none_or(|upto| name <= upto.as_bytes());
            let at = page.first_behind(Some(name));
            let known = at > 0 && page.names[at - 1].as_bytes() == name;
            if inside && !known {
                page.names.insert(at, Name::new(filter));
            }
        }
    }

    /// The first `limit` filters behind the cursor that are still `own`. `read` gives the first
    /// [`PAGE_FILTERS`] own filters behind a cursor, in order.
    pub(super) fn rows(
        &self,
        after: Option<&str>,
        limit: usize,
        own: impl Fn(&Name) -> bool,
        read: impl Fn(Option<&[u8]>) -> Vec<Name>,
    ) -> Vec<String> {
        let mut pages = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut rows: Vec<String> = Vec::new();
        let mut cursor = after.map(Name::new);
        while rows.len() < limit {
            let place = cursor.as_ref().map(Name::as_bytes);
            let at = pages.iter().position(|page| page.continues(place));
            let at = at.unwrap_or_else(|| keep(&mut pages, cursor.clone(), &read));
            let page = &pages[at];
            let names = page.names[page.first_behind(place)..]
                .iter()
                .filter(|name| own(name));
            rows.extend(
                names
                    .take(limit - rows.len())
                    .map(|name| name.as_str().to_owned()),
            );
            if rows.len() == limit {
                break;
            }
            cursor.clone_from(&page.upto);
            if cursor.is_none() {
                // All have been served to this caller; the next one is probably far away.
                pages.remove(at);
                break;
            }
        }
        rows
    }
}

/// Reads a page and keeps it, in the place of the oldest if need be; returns where it is.
fn keep(
    pages: &mut Vec<Page>,
    after: Option<Name>,
    read: &impl Fn(Option<&[u8]>) -> Vec<Name>,
) -> usize {
    let names = read(after.as_ref().map(Name::as_bytes));
    let more = names.len() >= PAGE_FILTERS;
    let upto = if more { names.last().cloned() } else { None };
    // A reader that goes on behind a page has no more use for it.
    pages.retain(|page| page.upto.is_none() || page.upto != after);
    if pages.len() >= PAGES_MAX {
        pages.remove(0);
    }
    pages.push(Page { after, upto, names });
    pages.len() - 1
}
