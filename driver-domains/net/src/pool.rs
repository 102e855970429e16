//! Frame buffers and who holds them: a fixed set, counted references, no allocation while frames flow.
//!
//! A flooded frame is held by several queues at once. [`Backlog`] is the bounded queue before one vif that does not
//! take its frames fast enough: what does not fit is dropped and counted, so that a vif that never reads costs a
//! fixed number of buffers (advisories XSA-392, XSA-424).

use alloc::vec::Vec;
use heapless::Deque;

/// Names a buffer of the pool.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Buffer(u16);

impl Buffer {
    /// As an index below the pool's size.
    pub fn index(self) -> usize {
        usize::from(self.0)
    }
}

/// The free list and the reference counts.
#[derive(Debug)]
pub struct Pool {
    holders: Vec<u8>,
    free: Vec<u16>,
}

impl Pool {
    /// A pool of `count` buffers, all free.
    pub fn new(count: u16) -> Self {
        Self { holders: alloc::vec![0; usize::from(count)], free: (0..count).rev().collect() }
    }

    /// A free buffer, held once.
    pub fn take(&mut self) -> Option<Buffer> {
        let number = self.free.pop()?;
        *self.holders.get_mut(usize::from(number))? = 1;
        Some(Buffer(number))
    }

    /// One more holder. `false`: not held at all, or by too many; the count is unchanged.
    #[must_use]
    pub fn hold(&mut self, buffer: Buffer) -> bool {
        match self.holders.get_mut(buffer.index()) {
            Some(count) if *count != 0 && *count != u8::MAX => {
                *count += 1;
                true
            }
            _ => false,
        }
    }

    /// One holder less; the last one frees the buffer.
    pub fn release(&mut self, buffer: Buffer) {
        match self.holders.get_mut(buffer.index()) {
            Some(count @ 1) => {
                *count = 0;
                self.free.push(buffer.0);
            }
            Some(count) => *count = count.saturating_sub(1),
            None => {}
        }
    }

    /// Free buffers.
    pub fn available(&self) -> usize {
        self.free.len()
    }
}

/// Frames that wait for a vif.
pub const BACKLOG_MAX: usize = 512;

/// A frame in a buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Held {
    /// Where it is.
    pub buffer: Buffer,
    /// Its bytes.
    pub bytes: u16,
}

/// The queue of one vif.
#[derive(Debug, Default)]
pub struct Backlog {
    frames: Deque<Held, BACKLOG_MAX>,
    dropped: u64,
}

impl Backlog {
    /// Queues a frame, which gains a holder, if fewer than `limit` (at most [`BACKLOG_MAX`]) wait; else counts a drop.
    pub fn push(&mut self, pool: &mut Pool, frame: Held, limit: usize) {
        if self.frames.len() >= limit.min(BACKLOG_MAX) || !pool.hold(frame.buffer) {
            self.dropped = self.dropped.saturating_add(1);
        } else if self.frames.push_back(frame).is_err() {
            pool.release(frame.buffer);
            self.dropped = self.dropped.saturating_add(1);
        }
    }

    /// The oldest frame; the caller becomes its holder.
    #[must_use]
    pub fn pop(&mut self) -> Option<Held> {
        self.frames.pop_front()
    }

    /// Gives all frames up.
    pub fn clear(&mut self, pool: &mut Pool) {
        while let Some(frame) = self.frames.pop_front() {
            pool.release(frame.buffer);
        }
    }

    /// Nothing waits.
    pub fn is_empty(&self) -> bool {
        self.frames.is_empty()
    }

    /// Frames dropped so far because the queue was full.
    pub fn dropped(&self) -> u64 {
        self.dropped
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_buffer_is_free_again_after_its_last_holder() {
        let mut pool = Pool::new(1);
        let buffer = pool.take().unwrap();
        assert_eq!(pool.take(), None);
        assert!(pool.hold(buffer));
        pool.release(buffer);
        assert_eq!(pool.available(), 0);
        pool.release(buffer);
        assert_eq!(pool.take(), Some(buffer));
    }

    #[test]
    fn releasing_a_free_buffer_changes_nothing() {
        let mut pool = Pool::new(2);
        let buffer = pool.take().unwrap();
        pool.release(buffer);
        pool.release(buffer);
        assert_eq!(pool.available(), 2);
        assert!(!pool.hold(buffer));
    }

    #[test]
    fn a_vif_that_never_reads_costs_a_fixed_number_of_buffers() {
        let (mut pool, mut backlog) = (Pool::new(1000), Backlog::default());
        for _ in 0..1000 {
            if let Some(buffer) = pool.take() {
                backlog.push(&mut pool, Held { buffer, bytes: 60 }, BACKLOG_MAX);
                pool.release(buffer);
            }
        }
        assert_eq!(pool.available(), 1000 - BACKLOG_MAX);
        assert_eq!(backlog.dropped(), 1000 - BACKLOG_MAX as u64);
        backlog.clear(&mut pool);
        assert_eq!(pool.available(), 1000);
    }

    proptest! {
        #[test]
        fn flooding_to_several_backlogs_loses_no_buffer(
            steps in proptest::collection::vec((0usize..4, any::<bool>()), 0..300)
        ) {
            let mut pool = Pool::new(40);
            let mut queues: [Backlog; 3] = Default::default();
            for (target, take) in steps {
                if take {
                    let Some(buffer) = pool.take() else { continue };
                    for (number, queue) in queues.iter_mut().enumerate() {
                        if target == 3 || target == number {
                            queue.push(&mut pool, Held { buffer, bytes: 1 }, 10);
                        }
                    }
                    pool.release(buffer);
                } else if let Some(held) = queues.get_mut(target).and_then(Backlog::pop) {
                    pool.release(held.buffer);
                }
            }
            for queue in &mut queues {
                queue.clear(&mut pool);
            }
            prop_assert_eq!(pool.available(), 40);
        }
    }
}
