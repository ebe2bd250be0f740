//! Numbers in an order that their owner knows: an index of records at 4 to 8 bytes each.
//!
//! Runs of at most [`RUN_MAX`] numbers in a list. Finding is two binary searches; entering moves
//! half a run. Numbers entered in order fill their runs to the end, which is how a table is read
//! from disk.

use std::cmp::Ordering;

/// Most numbers of a run: 2 KiB to move at worst.
const RUN_MAX: usize = 512;

/// Two neighbours that together have no more than this become one.
const MERGED_MAX: usize = RUN_MAX / 2;

/// Where a number is, or would be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    run: usize,
    at: usize,
}

/// The numbers. See the module.
#[derive(Debug, Default)]
pub struct Order {
    /// None is empty.
    runs: Vec<Vec<u32>>,
    len: usize,
}

impl Order {
    /// No numbers; takes no memory.
    pub fn new() -> Self {
        Self::default()
    }

    /// How many numbers there are.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Looks for what `order` calls equal, given how each number stands to it: where it is, or
    /// where it would have to be entered.
    #[inline]
    pub fn find(&self, mut order: impl FnMut(u32) -> Ordering) -> Result<Place, Place> {
        let behind = self.runs.partition_point(|run| order(run[0]).is_le());
        let Some(run) = behind.checked_sub(1) else {
            return Err(self.start());
        };
        match self.runs[run].binary_search_by(|&id| order(id)) {
            Ok(at) => Ok(Place { run, at }),
            Err(at) => Err(Place { run, at }),
        }
    }

    /// The number at a place that [`Order::find`] has found.
    #[inline]
    pub fn at(&self, place: Place) -> u32 {
        self.runs[place.run][place.at]
    }

    /// Puts another number where an equal one is.
    pub fn set(&mut self, place: Place, id: u32) {
        self.runs[place.run][place.at] = id;
    }

    /// Enters a number where [`Order::find`] has said.
    pub fn insert(&mut self, place: Place, id: u32) {
        let Place { mut run, mut at } = place;
        self.len += 1;
        if self.runs.is_empty() {
            self.runs.push(Vec::new());
        }
        if self.runs[run].len() == RUN_MAX {
            let half = if at == RUN_MAX { at } else { RUN_MAX / 2 };
            let upper = self.runs[run].split_off(half);
            if upper.is_empty() && self.runs.get(run + 1).is_some_and(|r| r.len() < RUN_MAX) {
                self.runs[run + 1].insert(0, id);
                return;
            }
            self.runs.insert(run + 1, upper);
            if at >= half {
                (run, at) = (run + 1, at - half);
            }
        }
        self.runs[run].insert(at, id);
    }

    /// Takes out the number at a place.
    pub fn remove(&mut self, place: Place) -> u32 {
        let Place { run, at } = place;
        let id = self.runs[run].remove(at);
        self.len -= 1;
        if self.runs[run].is_empty() {
            self.runs.remove(run);
        }
        let neighbours = [run.checked_sub(1), Some(run)];
        for left in neighbours.into_iter().flatten() {
            if let Some([one, other]) = self.runs.get(left..left + 2)
                && one.len() + other.len() <= MERGED_MAX
            {
                let other = self.runs.remove(left + 1);
                self.runs[left].extend(other);
                break;
            }
        }
        if self.len == 0 {
            *self = Self::default();
        }
        id
    }

    /// The first number.
    pub fn first(&self) -> Option<u32> {
        Some(*self.runs.first()?.first()?)
    }

    /// The numbers from a place on.
    pub fn iter_from(&self, place: Place) -> Iter<'_> {
        let mut rest = self.runs.get(place.run..).unwrap_or_default().iter();
        let run = rest.next().map_or(&[][..], |run| &run[place.at..]);
        Iter {
            run: run.iter(),
            rest,
        }
    }

    /// The place of the first number.
    pub fn start(&self) -> Place {
        Place { run: 0, at: 0 }
    }

    /// All numbers.
    pub fn iter(&self) -> Iter<'_> {
        self.iter_from(self.start())
    }
}

/// Numbers in order.
#[derive(Clone, Debug)]
pub struct Iter<'a> {
    run: std::slice::Iter<'a, u32>,
    rest: std::slice::Iter<'a, Vec<u32>>,
}

impl Iterator for Iter<'_> {
    type Item = u32;

    #[inline]
    fn next(&mut self) -> Option<u32> {
        loop {
            if let Some(&id) = self.run.next() {
                return Some(id);
            }
            self.run = self.rest.next()?.iter();
        }
    }
}

impl<'a> IntoIterator for &'a Order {
    type Item = u32;
    type IntoIter = Iter<'a>;

    fn into_iter(self) -> Iter<'a> {
        self.iter()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn an_order_is_a_sorted_set(
            numbers in prop::collection::vec((0..3_000_u32, 0..5_u8), 0..6_000),
            ascending in any::<bool>(),
        ) {
            let mut order = Order::new();
            let mut model = BTreeSet::new();
            if ascending {
                for id in 5_000..7_000 {
                    let end = order.find(|other| other.cmp(&id)).expect_err("it is new");
                    order.insert(end, id);
                    model.insert(id);
                }
                prop_assert!(order.runs.len() == 4, "they are filled to the end");
            }
            for (id, what) in numbers {
                match order.find(|other| other.cmp(&id)) {
                    Ok(place) if what == 0 => {
                        prop_assert_eq!(order.remove(place), id);
                        prop_assert!(model.remove(&id));
                    }
                    Ok(place) => {
                        prop_assert_eq!(order.at(place), id);
                        order.set(place, id);
                        prop_assert!(model.contains(&id));
                    }
                    Err(_) if what == 1 => prop_assert!(!model.contains(&id)),
                    Err(place) => {
                        order.insert(place, id);
                        prop_assert!(model.insert(id));
                    }
                }
                prop_assert_eq!(order.len(), model.len());
                prop_assert_eq!(order.first(), model.first().copied());
            }
            prop_assert!(order.iter().eq(model.iter().copied()));
            for from in [0, 1_500, 2_999, 6_000, 9_000] {
                let (Ok(place) | Err(place)) = order.find(|other| other.cmp(&from));
                prop_assert!(order.iter_from(place).eq(model.range(from..).copied()));
            }
            let neighbours = order.runs.windows(2);
            let mut sparse = neighbours.filter(|two| two[0].len() + two[1].len() <= MERGED_MAX);
            prop_assert!(sparse.next().is_none() && order.runs.iter().all(|run| !run.is_empty()));
            while let Some(first) = order.first() {
                let place = order.find(|other| other.cmp(&first)).expect("it is there");
                order.remove(place);
            }
            prop_assert!(order.is_empty() && order.runs.is_empty());
        }
    }
}
