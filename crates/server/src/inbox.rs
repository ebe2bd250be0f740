//! Mailboxes between threads: many writers, one reader, one wake-up per batch.
//!
//! A channel per pair of threads would cost a wake-up and an atomic per letter; here a writer
//! appends its whole batch under one short lock and wakes the reader only if it had nothing to do.
//! A mailbox never refuses a letter, because a lost letter between cores would be a lost message;
//! it says when it is [full](Inbox::is_full) instead, and writers then stop taking in work from
//! clients until it is not. This module must never wait.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

/// Letters waiting at which writers stop reading from clients. With the largest batches in use
/// (hundreds of deliveries per letter) this is several milliseconds of work for the reader; beyond
/// that more queueing only costs memory.
pub(crate) const LETTERS_FULL: usize = 4096;

/// One thread's mailbox.
pub(crate) struct Inbox<T> {
    slot: Mutex<Slot<T>>,
    waiting: AtomicUsize,
    closed: AtomicBool,
}

struct Slot<T> {
    letters: Vec<T>,
    reader: Option<Waker>,
    /// Woken once when the reader has emptied a full box.
    writers: Vec<Waker>,
}

impl<T> Inbox<T> {
    pub(crate) fn new() -> Self {
        Self {
            slot: Mutex::new(Slot {
                letters: Vec::new(),
                reader: None,
                writers: Vec::new(),
            }),
            waiting: AtomicUsize::new(0),
            closed: AtomicBool::new(false),
        }
    }

    /// Puts one letter in. After [`close`](Self::close) it is dropped.
    pub(crate) fn push(&self, letter: T) {
        self.with_letters(|letters| letters.push(letter));
    }

    /// Puts in what an iterator gives, in order, as one batch.
    pub(crate) fn extend(&self, batch: impl IntoIterator<Item = T>) {
        self.with_letters(|letters| letters.extend(batch));
    }

    /// Whether writers should stop taking in work. Cheap: one atomic read.
    pub(crate) fn is_full(&self) -> bool {
        self.waiting.load(Ordering::Relaxed) >= LETTERS_FULL
    }

    /// Wakes `waker` when the box is not full any more; false if it is not full now.
    pub(crate) fn wake_when_emptied(&self, waker: &Waker) -> bool {
        let mut slot = self.lock();
        if slot.letters.len() < LETTERS_FULL {
            return false;
        }
        if !slot.writers.iter().any(|known| known.will_wake(waker)) {
            slot.writers.push(waker.clone());
        }
        true
    }

    /// Moves all waiting letters into `into` (which must be empty: the buffers are swapped).
    /// Pending when there are none; the reader is then woken by the next letter.
    pub(crate) fn poll_take(&self, cx: &mut Context<'_>, into: &mut Vec<T>) -> Poll<()> {
        debug_assert!(into.is_empty(), "letters would be taken out of order");
        let writers = {
            let mut slot = self.lock();
            if slot.letters.is_empty() {
                match &mut slot.reader {
                    Some(reader) => reader.clone_from(cx.waker()),
                    none => *none = Some(cx.waker().clone()),
                }
                return Poll::Pending;
            }
            std::mem::swap(&mut slot.letters, into);
            self.waiting.store(0, Ordering::Relaxed);
            std::mem::take(&mut slot.writers)
        };
        writers.into_iter().for_each(Waker::wake);
        Poll::Ready(())
    }

    /// The reader is gone: letters that wait are dropped, as are all that follow.
    pub(crate) fn close(&self) {
        self.closed.store(true, Ordering::Relaxed);
        let mut slot = self.lock();
        slot.letters = Vec::new();
        self.waiting.store(0, Ordering::Relaxed);
    }

    fn with_letters(&self, put: impl FnOnce(&mut Vec<T>)) {
        let reader = {
            let mut slot = self.lock();
            if self.closed.load(Ordering::Relaxed) {
                return;
            }
            put(&mut slot.letters);
            self.waiting.store(slot.letters.len(), Ordering::Relaxed);
            slot.reader.take()
        };
        if let Some(reader) = reader {
            reader.wake();
        }
    }

    fn lock(&self) -> MutexGuard<'_, Slot<T>> {
        // Nothing in a locked section can panic half-way; a poisoned box is whole.
        self.slot.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::future::poll_fn;
    use std::sync::Arc;

    #[tokio::test]
    async fn letters_of_many_threads_arrive_once_and_in_each_writers_order() {
        const EACH: u32 = 10_000;
        let inbox = Arc::new(Inbox::new());
        let writers: Vec<_> = (0..4u32)
            .map(|writer| {
                let inbox = inbox.clone();
                std::thread::spawn(move || {
                    for number in 0..EACH {
                        inbox.push((writer, number));
                    }
                })
            })
            .collect();
        let mut next = [0; 4];
        let mut letters = Vec::new();
        while next.iter().sum::<u32>() < 4 * EACH {
            poll_fn(|cx| inbox.poll_take(cx, &mut letters)).await;
            for (writer, number) in letters.drain(..) {
                assert_eq!(next[writer as usize], number);
                next[writer as usize] += 1;
            }
        }
        for writer in writers {
            writer.join().expect("a writer only pushes");
        }
    }

    #[tokio::test]
    async fn a_full_slotwakes_its_writers_when_emptied() {
        let inbox = Arc::new(Inbox::new());
        inbox.extend(0..LETTERS_FULL);
        assert!(inbox.is_full());
        let emptied = tokio::spawn({
            let inbox = inbox.clone();
            poll_fn(move |cx| {
                if inbox.wake_when_emptied(cx.waker()) {
                    Poll::Pending
                } else {
                    Poll::Ready(())
                }
            })
        });
        tokio::task::yield_now().await;
        let mut letters = Vec::new();
        poll_fn(|cx| inbox.poll_take(cx, &mut letters)).await;
        assert_eq!(letters.len(), LETTERS_FULL);
        assert!(!inbox.is_full());
        emptied.await.expect("the writer only waits");
    }

    #[test]
    fn a_closed_slotkeeps_nothing() {
        let inbox = Inbox::new();
        inbox.push(1);
        inbox.close();
        inbox.push(2);
        let mut letters: Vec<i32> = Vec::new();
        let mut cx = Context::from_waker(Waker::noop());
        assert!(inbox.poll_take(&mut cx, &mut letters).is_pending());
    }
}
