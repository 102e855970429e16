//! The free list: a stack of frame numbers, linked through the frame table's own entries.

use core::sync::atomic::{AtomicU32, Ordering};

use spin::mutex::TicketMutex;

use super::entry::{Entry, NEXT_MAX, State};

struct Head {
    first: u32,
    count: u64,
}

/// The stack. Its lock is a leaf: nothing is locked while it is held.
pub(super) struct FreeList(TicketMutex<Head>);

impl FreeList {
    pub const fn new() -> Self {
        Self(TicketMutex::new(Head { first: NEXT_MAX, count: 0 }))
    }

    pub fn count(&self) -> u64 {
        self.0.lock().count
    }

    /// Takes the first frame; its entry is in limbo then.
    pub fn pop(&self, entries: &[AtomicU32]) -> Option<u32> {
        let mut head = self.0.lock();
        let frame = head.first;
        let word = entries.get(frame as usize)?;
        let entry = Entry(word.load(Ordering::Relaxed));
        if !entry.is(State::Free) {
            return None;
        }
        head.first = entry.next();
        head.count = head.count.wrapping_sub(1);
        word.store(Entry::LIMBO.0, Ordering::Relaxed);
        Some(frame)
    }

    /// Adds a frame whose entry is in limbo. Anything else is refused: no frame can be on the list twice.
    pub fn push(&self, entries: &[AtomicU32], frame: u32) {
        let Some(word) = entries.get(frame as usize) else {
            return;
        };
        let mut head = self.0.lock();
        if !Entry(word.load(Ordering::Relaxed)).is(State::Limbo) {
            return;
        }
        word.store(Entry::free(head.first).0, Ordering::Release);
        head.first = frame;
        head.count = head.count.wrapping_add(1);
    }
}
