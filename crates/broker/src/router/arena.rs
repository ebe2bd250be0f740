//! A vector with reusable places, addressed by `u32`.
//!
//! A million subscribers are a million small records: a box each would cost a pointer, an allocator
//! header and a cache miss. It must never hand out an index twice while the first is in use, and it
//! gives its memory back when the last record goes.

use std::ops::{Index, IndexMut};

/// Records of one kind; a freed place holds the default value until it is used again.
#[derive(Debug)]
pub(super) struct Arena<T> {
    items: Vec<T>,
    free: Vec<u32>,
}

impl<T> Default for Arena<T> {
    fn default() -> Self {
        Self {
            items: Vec::new(),
            free: Vec::new(),
        }
    }
}

impl<T: Default> Arena<T> {
    /// Stores a record and returns its index.
    pub(super) fn insert(&mut self, item: T) -> u32 {
        if let Some(index) = self.free.pop() {
            self.items[index as usize] = item;
            return index;
        }
        let index = u32::try_from(self.items.len()).expect("memory ends before 2^32 records do");
        self.items.push(item);
        index
    }

    /// Takes a record out; its index may be handed out again.
    pub(super) fn remove(&mut self, index: u32) -> T {
        let item = std::mem::take(&mut self.items[index as usize]);
        self.free.push(index);
        if self.len() == 0 {
            *self = Self::default();
        }
        item
    }

    /// Records in use.
    pub(super) fn len(&self) -> usize {
        self.items.len() - self.free.len()
    }

    /// One more than the highest index ever in use since the arena was last empty.
    pub(super) fn end(&self) -> u32 {
        self.items.len() as u32
    }
}

impl<T> Index<u32> for Arena<T> {
    type Output = T;

    fn index(&self, index: u32) -> &T {
        &self.items[index as usize]
    }
}

impl<T> IndexMut<u32> for Arena<T> {
    fn index_mut(&mut self, index: u32) -> &mut T {
        &mut self.items[index as usize]
    }
}
