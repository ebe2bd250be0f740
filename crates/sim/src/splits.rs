//! Who was split off from whom, where sides do not merge by themselves.
//!
//! What is kept is only what must be so: two processes between which there was no way, not even
//! through a third, for longer than anybody is suspected.

use std::collections::{BTreeMap, BTreeSet};

use crate::oracle::Life;

/// After so long without any way between them both have given each other up, milliseconds.
const SPLIT_OFF_MS: u64 = 11_000;

/// Two processes that must be held apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sides {
    /// One.
    pub a: Life,
    /// The other.
    pub b: Life,
    /// When the way between them went.
    pub since: u64,
}

/// Ways that are cut, and whom that split.
#[derive(Debug, Default)]
pub struct Splits {
    hosts: usize,
    /// Directions.
    cut: BTreeSet<(usize, usize)>,
    /// Pairs without a way between them, the lower first, and since when.
    separated: BTreeMap<(usize, usize), (u64, [Life; 2])>,
    sides: Vec<Sides>,
}

impl Splits {
    /// Nothing is cut between so many hosts.
    pub fn new(hosts: usize) -> Self {
        Self {
            hosts,
            ..Self::default()
        }
    }

    /// One direction is cut or free again; `life` tells the present life of a host.
    pub fn change(
        &mut self,
        now: u64,
        (a, b, cut): (usize, usize, bool),
        life: impl Fn(usize) -> Life,
    ) {
        if cut {
            self.cut.insert((a, b));
        } else {
            self.cut.remove(&(a, b));
        }
        let groups = self.groups();
        for a in 0..self.hosts {
            for b in a + 1..self.hosts {
                let lives = [life(a), life(b)];
                if groups[a] != groups[b] {
                    self.separated.entry((a, b)).or_insert((now, lives));
                } else if let Some((since, then)) = self.separated.remove(&(a, b))
                    && now >= since + SPLIT_OFF_MS
                    && then == lives
                {
                    let [a, b] = lives;
                    self.sides.push(Sides { a, b, since });
                }
            }
        }
    }

    /// Everything is free again.
    pub fn free(&mut self, now: u64, life: impl Fn(usize) -> Life) {
        while let Some((a, b)) = self.cut.first().copied() {
            self.change(now, (a, b, false), &life);
        }
    }

    /// The number of each host's group: those between which there is a way.
    fn groups(&self) -> Vec<usize> {
        let mut group: Vec<usize> = (0..self.hosts).collect();
        for a in 0..self.hosts {
            for b in a + 1..self.hosts {
                let cut = self.cut.contains(&(a, b)) && self.cut.contains(&(b, a));
                if !cut && group[a] != group[b] {
                    let (from, to) = (group[b], group[a]);
                    group
                        .iter_mut()
                        .filter(|g| **g == from)
                        .for_each(|g| *g = to);
                }
            }
        }
        group
    }

    /// An operator merged them.
    pub fn merged(&mut self) {
        self.sides.clear();
    }

    /// Who must be held apart.
    pub fn sides(&self) -> &[Sides] {
        &self.sides
    }
}
