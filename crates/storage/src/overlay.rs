//! What was written since the last sync, laid over what is durable.
//!
//! The engine's reads look through it, and its sync applies it. It keeps the outcome per table, not
//! the list of batches: a row written a hundred times between two syncs is stored once, and rows
//! reach the file in key order. It must never do I/O.

use std::collections::BTreeMap;
use std::ops::Bound;

use bytes::Bytes;

use crate::store::{Op, TableId};

/// One table as it will be after the next sync.
#[derive(Debug)]
pub(crate) struct View {
    /// The durable table beneath `rows`; `None` if nothing durable shows through. Differs from the
    /// view's own name after a rename. No two views share a base, and a durable table without a
    /// view is its own: renames move and clears drop, nothing copies.
    pub(crate) base: Option<TableId>,
    /// Rows put (`Some`) and deleted (`None`) over the base.
    pub(crate) rows: BTreeMap<Bytes, Option<Bytes>>,
}

impl View {
    const fn new(base: Option<TableId>) -> Self {
        Self {
            base,
            rows: BTreeMap::new(),
        }
    }

    /// The rows at or after `from`, in key order.
    pub(crate) fn rows_from(
        &self,
        from: &[u8],
    ) -> impl Iterator<Item = (&Bytes, &Option<Bytes>)> + use<'_> {
        self.rows
            .range::<[u8], _>((Bound::Included(from), Bound::Unbounded))
    }
}

/// All tables touched since the last sync.
#[derive(Debug, Default)]
pub(crate) struct Overlay {
    views: BTreeMap<TableId, View>,
    bytes: usize,
}

impl Overlay {
    /// Applies one operation over what is there.
    pub(crate) fn apply(&mut self, op: Op) {
        self.bytes += op.bytes();
        match op {
            Op::Put { table, key, value } => {
                self.view_mut(table).rows.insert(key, Some(value));
            }
            Op::Delete { table, key } => {
                self.view_mut(table).rows.insert(key, None);
            }
            Op::Clear { table } => {
                self.views.insert(table, View::new(None));
            }
            Op::Rename { from, to } if from == to => {}
            Op::Rename { from, to } => {
                let moved = self
                    .views
                    .insert(from.clone(), View::new(None))
                    .unwrap_or_else(|| View::new(Some(from)));
                self.views.insert(to, moved);
            }
        }
    }

    /// The view of a table, if it was touched.
    pub(crate) fn view(&self, table: &TableId) -> Option<&View> {
        self.views.get(table)
    }

    /// All views, in name order.
    pub(crate) fn views(&self) -> impl Iterator<Item = (&TableId, &View)> {
        self.views.iter()
    }

    /// True if a sync has nothing to apply.
    pub(crate) fn is_empty(&self) -> bool {
        self.views.is_empty()
    }

    /// An upper bound of what is held, in bytes.
    pub(crate) const fn bytes(&self) -> usize {
        self.bytes
    }

    /// Forgets everything, after it became durable.
    pub(crate) fn clear(&mut self) {
        *self = Self::default();
    }

    fn view_mut(&mut self, table: TableId) -> &mut View {
        self.views
            .entry(table)
            .or_insert_with_key(|name| View::new(Some(name.clone())))
    }
}
