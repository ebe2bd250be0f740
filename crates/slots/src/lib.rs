//! Small records of any length, millions of them: in pages, by number.
//!
//! A name in a heap block of its own costs a pointer, a length and what the allocator rounds up:
//! 30 bytes beside a name of 25. Here a record lies in a page with others of its length and is
//! named by a `u32`, which stays the same until the record goes, so an index of records is four
//! bytes for each.
//!
//! Lengths are rounded up to 4 bytes (32 from 256 on). A free place is taken by the next record of
//! its length; a page that is free as a whole is given back. So beyond what records were removed
//! from between others, at most one page of each length is partly empty. This crate must never move
//! a record, and knows nothing of what is in it.

#![warn(missing_docs)]

mod order;

use std::fmt;

pub use order::{Iter, Order, Place};

/// Bytes of a page. A node without clients has a few of them, partly touched.
pub const PAGE_BYTES: usize = 16 * 1_024;

/// Longest record that shares a page, bytes; longer ones have a heap block of their own.
pub const SHARED_BYTES_MAX: usize = 1_024;

/// Shortest place, bytes. A page has [`PLACES_MAX`] of them.
const PLACE_BYTES_MIN: usize = 16;
const PLACES_MAX: usize = PAGE_BYTES / PLACE_BYTES_MIN;

/// Most pages: what is left of 32 bits beside the place. 64 GiB of records.
const PAGES_MAX: usize = (1 << (u32::BITS - PLACES_MAX.ilog2())) - 1;

/// Places up to this length come in steps of 4 bytes, longer ones of 32.
const FINE_BYTES_MAX: usize = 256;
const FINE_STEP: usize = 4;
const COARSE_STEP: usize = 32;

/// The class of records that have their own block: a place holds the block's number.
const OWN_BLOCK: usize = 0;
const CLASSES: usize =
    1 + FINE_BYTES_MAX / FINE_STEP + (SHARED_BYTES_MAX - FINE_BYTES_MAX) / COARSE_STEP;

/// "No place": after the last free one of a page.
const NO_PLACE: u16 = u16::MAX;
/// The block of a free place.
const NO_BLOCK: u32 = u32::MAX;
/// "Not in the list of pages with room".
const NOT_LISTED: u32 = u32::MAX;

/// What is in a page that is given back.
#[derive(Default)]
struct Page {
    data: Box<[u8]>,
    /// Where it is in its class's list of pages with room.
    listed_at: u32,
    /// The first of the free places that were in use; each names the next in its last two bytes.
    free: u16,
    /// Places never in use begin here.
    fresh: u16,
    used: u16,
    /// Bytes of a place.
    bytes: u16,
    class: u8,
}

impl Page {
    #[inline]
    fn place(&self, place: usize) -> &[u8] {
        let bytes = usize::from(self.bytes);
        &self.data[place * bytes..][..bytes]
    }

    #[inline]
    fn place_mut(&mut self, place: usize) -> &mut [u8] {
        let bytes = usize::from(self.bytes);
        &mut self.data[place * bytes..][..bytes]
    }
}

/// Records by number. See the module.
#[derive(Default)]
pub struct Slots {
    pages: Vec<Page>,
    /// Numbers of pages that are given back.
    vacant: Vec<u32>,
    /// Pages with room, by class.
    with_room: Vec<Vec<u32>>,
    blocks: Vec<Box<[u8]>>,
    free_blocks: Vec<u32>,
    len: usize,
}

impl Slots {
    /// No records; takes no memory.
    pub fn new() -> Self {
        Self::default()
    }

    /// Number of records.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Makes a record of `bytes` bytes, all zero, and returns its number, which is never
    /// `u32::MAX` or one less. [`Slots::get_mut`] may show more bytes than asked for.
    ///
    /// # Panics
    ///
    /// When there are 64 GiB of records.
    pub fn insert(&mut self, bytes: usize) -> u32 {
        if bytes <= SHARED_BYTES_MAX {
            return self.take_place(class_of(bytes));
        }
        let block = vec![0; bytes].into_boxed_slice();
        let at = if let Some(at) = self.free_blocks.pop() {
            self.blocks[at as usize] = block;
            at
        } else {
            self.blocks.push(block);
            (self.blocks.len() - 1) as u32
        };
        let id = self.take_place(OWN_BLOCK);
        self.set_block(id, at);
        id
    }

    fn take_place(&mut self, class: usize) -> u32 {
        self.len += 1;
        if self.with_room.is_empty() {
            self.with_room.resize_with(CLASSES, Vec::new);
        }
        let number = match self.with_room[class].last() {
            Some(&number) => number,
            None => self.add_page(class),
        };
        let page = &mut self.pages[number as usize];
        page.used += 1;
        let place = if page.free == NO_PLACE {
            page.fresh += 1;
            page.fresh - 1
        } else {
            let place = page.free;
            let data = page.place_mut(usize::from(place));
            let next = data.last_chunk().expect("a place is longer");
            let next = u16::from_le_bytes(*next);
            data.fill(0);
            page.free = next;
            place
        };
        if usize::from(page.used) == PAGE_BYTES / usize::from(page.bytes) {
            self.unlist(number);
        }
        number * PLACES_MAX as u32 + u32::from(place)
    }

    fn add_page(&mut self, class: usize) -> u32 {
        let number = self.vacant.pop().unwrap_or_else(|| {
            assert!(self.pages.len() < PAGES_MAX, "64 GiB of records");
            self.pages.push(Page::default());
            (self.pages.len() - 1) as u32
        });
        self.pages[number as usize] = Page {
            data: vec![0; PAGE_BYTES].into_boxed_slice(),
            listed_at: NOT_LISTED,
            free: NO_PLACE,
            fresh: 0,
            used: 0,
            bytes: place_bytes(class) as u16,
            class: class as u8,
        };
        self.list(number);
        number
    }

    fn list(&mut self, number: u32) {
        let page = &mut self.pages[number as usize];
        let list = &mut self.with_room[usize::from(page.class)];
        page.listed_at = list.len() as u32;
        list.push(number);
    }

    fn unlist(&mut self, number: u32) {
        let page = &mut self.pages[number as usize];
        let at = std::mem::replace(&mut page.listed_at, NOT_LISTED);
        let list = &mut self.with_room[usize::from(page.class)];
        list.swap_remove(at as usize);
        if let Some(&moved) = list.get(at as usize) {
            self.pages[moved as usize].listed_at = at;
        }
    }

    /// Takes a record out; its number may be given to another one.
    pub fn remove(&mut self, id: u32) {
        let (number, place) = split(id);
        let class = usize::from(self.pages[number].class);
        if class == OWN_BLOCK {
            let at = self.block_of(id);
            self.blocks[at] = Box::default();
            self.free_blocks.push(at as u32);
            self.set_block(id, NO_BLOCK);
        }
        self.len -= 1;
        if self.len == 0 {
            *self = Self::default();
            return;
        }
        let page = &mut self.pages[number];
        page.used -= 1;
        let next = page.free.to_le_bytes();
        let end = page.place_mut(place).last_chunk_mut();
        *end.expect("a place is longer") = next;
        page.free = place as u16;
        let (is_empty, is_listed) = (page.used == 0, page.listed_at != NOT_LISTED);
        if !is_listed {
            self.list(number as u32);
        }
        // The last one with room stays, or a record that comes and goes would make a page each
        // time.
        if is_empty && self.with_room[class].len() > 1 {
            self.unlist(number as u32);
            self.pages[number] = Page::default();
            self.vacant.push(number as u32);
        }
    }

    /// The bytes of a record, and zeros up to the length of its place.
    // Several times for each message; as a call it costs more than what it does.
    #[allow(clippy::inline_always)]
    #[inline(always)]
    pub fn get(&self, id: u32) -> &[u8] {
        let (number, place) = split(id);
        let page = &self.pages[number];
        if usize::from(page.class) == OWN_BLOCK {
            return self.own_block(id);
        }
        page.place(place)
    }

    #[cold]
    fn own_block(&self, id: u32) -> &[u8] {
        &self.blocks[self.block_of(id)]
    }

    /// As [`Slots::get`], to write into.
    #[inline]
    pub fn get_mut(&mut self, id: u32) -> &mut [u8] {
        let (number, place) = split(id);
        if usize::from(self.pages[number].class) == OWN_BLOCK {
            let at = self.block_of(id);
            return &mut self.blocks[at];
        }
        self.pages[number].place_mut(place)
    }

    fn set_block(&mut self, id: u32, block: u32) {
        let (number, place) = split(id);
        let start = self.pages[number].place_mut(place).first_chunk_mut();
        *start.expect("a place is longer") = block.to_le_bytes();
    }

    fn block_of(&self, id: u32) -> usize {
        let (number, place) = split(id);
        let start = self.pages[number].place(place).first_chunk();
        u32::from_le_bytes(*start.expect("a place is longer")) as usize
    }

    /// As [`Slots::get`] for a number that may be out of date: `None` if no record ever had it, or
    /// its page is given back. Else it may show another record, or all but the last two bytes of
    /// what a former one has left.
    pub fn find(&self, id: u32) -> Option<&[u8]> {
        let (number, place) = split(id);
        let page = self.pages.get(number)?;
        let was_used = place < usize::from(page.fresh);
        let is_free =
            || usize::from(page.class) == OWN_BLOCK && self.block_of(id) == NO_BLOCK as usize;
        (was_used && !is_free()).then(|| self.get(id))
    }

    /// Numbers that [`Slots::find`] shows something for, all records among them.
    pub fn ids(&self) -> impl Iterator<Item = u32> {
        let pages = self.pages.iter().enumerate();
        pages.flat_map(|(number, page)| {
            let first = number as u32 * PLACES_MAX as u32;
            first..first + u32::from(page.fresh)
        })
    }
}

impl fmt::Debug for Slots {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let pages = self.pages.len() - self.vacant.len();
        f.debug_struct("Slots")
            .field("len", &self.len)
            .field("pages", &pages)
            .finish_non_exhaustive()
    }
}

#[inline]
fn split(id: u32) -> (usize, usize) {
    let id = id as usize;
    (id / PLACES_MAX, id % PLACES_MAX)
}

fn class_of(bytes: usize) -> usize {
    let bytes = bytes.max(PLACE_BYTES_MIN);
    if bytes <= FINE_BYTES_MAX {
        bytes.div_ceil(FINE_STEP)
    } else {
        FINE_BYTES_MAX / FINE_STEP + (bytes - FINE_BYTES_MAX).div_ceil(COARSE_STEP)
    }
}

/// Bytes of a place of a class.
fn place_bytes(class: usize) -> usize {
    const FINE: usize = FINE_BYTES_MAX / FINE_STEP;
    match class {
        OWN_BLOCK => PLACE_BYTES_MIN,
        1..=FINE => class * FINE_STEP,
        _ => FINE_BYTES_MAX + (class - FINE) * COARSE_STEP,
    }
}

#[cfg(test)]
mod tests;
