//! Who was split off from whom, where sides do not merge by themselves.
//!
//! What is kept is only what must be so: two processes between which there was no way, not even
//! through a third, for longer than anybody is suspected.

use std::collections::{BTreeMap, BTreeSet};

use crate::oracle::Life;

/// After so long without any way between them both have given each other up, milliseconds.
const SPLIT_OFF_MS: u64 = 11_000;

/// How long two members need a way between them to have met for sure, milliseconds.
pub const MEET_MS: u64 = 3_000;

/// Two processes that must be held apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sides {
    /// One.
    pub a: Life,
    /// The other.
    pub b: Life,
    /// When the way between them went.
    pub since: u64,
    /// When one went that had been there for long enough to meet: a shorter one may have been gone
    /// before they did.
    pub unmet_since: u64,
}

/// Two processes without a way between them.
#[derive(Clone, Copy, Debug)]
struct Gap {
    since: u64,
    unmet_since: u64,
    lives: [Life; 2],
}

/// Ways that are cut, and whom that split.
#[derive(Debug, Default)]
pub struct Splits {
    hosts: usize,
    /// Directions.
    cut: BTreeSet<(usize, usize)>,
    /// Pairs without a way between them, the lower first.
    separated: BTreeMap<(usize, usize), Gap>,
    /// When the last gap of a pair ended, and since when they had not met then.
    passed: BTreeMap<(usize, usize), (u64, u64)>,
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
                    let passed = self.passed.get(&(a, b));
                    let passed = passed.filter(|(to, _)| now < to + MEET_MS);
                    let gap = Gap {
                        since: now,
                        unmet_since: passed.map_or(now, |(_, unmet_since)| *unmet_since),
                        lives,
                    };
                    self.separated.entry((a, b)).or_insert(gap);
                } else if let Some(gap) = self.separated.remove(&(a, b)) {
                    self.passed.insert((a, b), (now, gap.unmet_since));
                    if now >= gap.since + SPLIT_OFF_MS && gap.lives == lives {
                        let [a, b] = lives;
                        self.sides.push(Sides {
                            a,
                            b,
                            since: gap.since,
                            unmet_since: gap.unmet_since,
                        });
                    }
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
