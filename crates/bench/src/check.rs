//! What must hold of every run: nothing lost, nothing twice, nothing out of order.
//!
//! It is always on: a broker that is fast because it drops has to be seen.

use std::collections::BTreeSet;

/// Gaps remembered per stream, to tell a late message from a second one. More are counted as lost
/// at once; no scenario has as many under way.
const GAPS_MAX: usize = 100_000;

/// What went wrong, in messages.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Faults {
    pub(crate) lost: u64,
    pub(crate) duplicated: u64,
    pub(crate) reordered: u64,
}

impl Faults {
    pub(crate) fn add(&mut self, other: Self) {
        self.lost += other.lost;
        self.duplicated += other.duplicated;
        self.reordered += other.reordered;
    }
}

/// The messages of one publisher as one receiver, or one group of receivers, sees them.
#[derive(Debug, Default)]
pub(crate) struct Stream {
    next: u64,
    missing: BTreeSet<u64>,
    faults: Faults,
}

impl Stream {
    pub(crate) fn see(&mut self, sequence: u64) {
        if sequence == self.next {
            self.next += 1;
        } else {
            self.see_unexpected(sequence);
        }
    }

    #[cold]
    fn see_unexpected(&mut self, sequence: u64) {
        if sequence > self.next {
            let room = (GAPS_MAX - self.missing.len()) as u64;
            let remembered = (self.next + room).min(sequence);
            self.missing.extend(self.next..remembered);
            self.faults.lost += sequence - remembered;
            self.next = sequence + 1;
        } else if self.missing.remove(&sequence) {
            self.faults.reordered += 1;
        } else {
            self.faults.duplicated += 1;
        }
    }

    /// Messages 0..`sent` had to arrive.
    pub(crate) fn faults(&self, sent: u64) -> Faults {
        let mut faults = self.faults;
        faults.lost += self.missing.len() as u64 + sent.saturating_sub(self.next);
        faults
    }
}

/// Who has to get which message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Spread {
    /// Publisher n to subscriber n.
    Pairs,
    /// Every publisher to every subscriber.
    All,
    /// Every message to one of the subscribers.
    Shared,
}

/// All streams of a run.
#[derive(Debug)]
pub(crate) struct Checker {
    spread: Spread,
    publishers: usize,
    streams: Vec<Stream>,
    /// Per member and publisher, the number after the last one seen; order within a shared group
    /// holds for each member by itself only.
    members: Vec<u64>,
    /// Messages at receivers that had no claim to them.
    stray: u64,
    reordered: u64,
}

impl Checker {
    pub(crate) fn new(spread: Spread, publishers: usize, subscribers: usize) -> Self {
        let streams = match spread {
            Spread::Pairs | Spread::Shared => publishers,
            Spread::All => publishers * subscribers,
        };
        let members = if spread == Spread::Shared {
            publishers * subscribers
        } else {
            0
        };
        Self {
            spread,
            publishers,
            streams: std::iter::repeat_with(Stream::default)
                .take(streams)
                .collect(),
            members: vec![0; members],
            stray: 0,
            reordered: 0,
        }
    }

    /// `subscriber` received a message. Answers whether the publisher exists.
    pub(crate) fn see(&mut self, subscriber: usize, publisher: usize, sequence: u64) -> bool {
        if publisher >= self.publishers {
            self.stray += 1;
            return false;
        }
        match self.spread {
            Spread::Pairs if publisher != subscriber => self.stray += 1,
            Spread::Pairs => self.streams[publisher].see(sequence),
            Spread::All => self.streams[subscriber * self.publishers + publisher].see(sequence),
            Spread::Shared => {
                let next = &mut self.members[subscriber * self.publishers + publisher];
                if sequence < *next {
                    self.reordered += 1;
                }
                *next = sequence + 1;
                self.streams[publisher].see(sequence);
            }
        }
        true
    }

    /// The verdict when publisher n sent `sent[n]` messages.
    pub(crate) fn faults(&self, sent: &[u64]) -> Faults {
        let mut faults = Faults::default();
        for (index, stream) in self.streams.iter().enumerate() {
            faults.add(stream.faults(sent[index % self.publishers]));
        }
        if self.spread == Spread::Shared {
            // Members are read in turn: across them, late is not out of order.
            faults.reordered = self.reordered;
        }
        faults.duplicated += self.stray;
        faults
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(seen: &[u64], sent: u64, expected: (u64, u64, u64)) {
        let mut checker = Checker::new(Spread::Pairs, 1, 1);
        for &sequence in seen {
            checker.see(0, 0, sequence);
        }
        let faults = checker.faults(&[sent]);
        let found = (faults.lost, faults.duplicated, faults.reordered);
        assert_eq!(found, expected, "{seen:?} of {sent}");
    }

    #[test]
    fn loss_duplicates_and_order_are_told_apart() {
        check(&[0, 1, 2], 3, (0, 0, 0));
        check(&[], 3, (3, 0, 0));
        check(&[0, 2], 4, (2, 0, 0));
        check(&[0, 0, 1], 2, (0, 1, 0));
        check(&[0, 2, 1], 3, (0, 0, 1));
        check(&[2, 2, 0, 1, 1], 3, (0, 2, 2));
    }

    #[test]
    fn a_huge_gap_is_lost_and_takes_no_memory() {
        let gap = 10 * GAPS_MAX as u64;
        check(&[gap], gap + 1, (gap, 0, 0));
    }

    #[test]
    fn every_subscriber_needs_every_message() {
        let mut checker = Checker::new(Spread::All, 2, 2);
        assert!(checker.see(0, 0, 0));
        assert!(checker.see(0, 1, 0));
        assert!(checker.see(1, 0, 0));
        assert_eq!(checker.faults(&[1, 1]).lost, 1);
    }

    #[test]
    fn a_group_needs_each_message_once_and_each_member_in_order() {
        let mut checker = Checker::new(Spread::Shared, 1, 2);
        for (member, sequence) in [(1, 1), (0, 0), (0, 2), (1, 3)] {
            checker.see(member, 0, sequence);
        }
        assert_eq!(checker.faults(&[4]), Faults::default());
        checker.see(0, 0, 1);
        let faults = checker.faults(&[5]);
        let found = (faults.lost, faults.duplicated, faults.reordered);
        assert_eq!(found, (1, 1, 1));
    }

    #[test]
    fn a_message_at_the_wrong_receiver_is_one_too_many() {
        let mut checker = Checker::new(Spread::Pairs, 2, 2);
        checker.see(0, 1, 0);
        assert!(!checker.see(0, 9, 0));
        assert_eq!(checker.faults(&[0, 0]).duplicated, 2);
    }
}
