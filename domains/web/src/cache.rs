//! Which parts of the disk are in memory: the bookkeeping of a cache of equal chunks, and of who reads in sequence.

use alloc::collections::BTreeMap;
use alloc::vec::Vec;

/// What the cache knows of a chunk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lookup {
    /// It is in this slot.
    Ready(usize),
    /// It is on its way.
    Loading,
    /// It is neither.
    Absent,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Free,
    Loading,
    Ready,
}

#[derive(Clone, Copy, Debug)]
struct Slot {
    chunk: u64,
    state: State,
    used: u64,
}

/// Slots for chunks, the one used longest ago given up first.
#[derive(Debug)]
pub struct Cache {
    slots: Vec<Slot>,
    by_chunk: BTreeMap<u64, usize>,
    clock: u64,
}

impl Cache {
    /// With so many slots.
    #[must_use]
    pub fn new(slots: usize) -> Self {
        let free = Slot { chunk: 0, state: State::Free, used: 0 };
        Cache { slots: alloc::vec![free; slots], by_chunk: BTreeMap::new(), clock: 0 }
    }

    /// Slots.
    #[must_use]
    pub fn slots(&self) -> usize {
        self.slots.len()
    }

    /// What is known of `chunk`; one that is ready counts as used now.
    pub fn look_up(&mut self, chunk: u64) -> Lookup {
        let Some(&index) = self.by_chunk.get(&chunk) else {
            return Lookup::Absent;
        };
        match self.slots.get_mut(index) {
            Some(slot) if slot.state == State::Ready => {
                self.clock += 1;
                slot.used = self.clock;
                Lookup::Ready(index)
            }
            _ => Lookup::Loading,
        }
    }

    /// Gives a slot to `chunk`, which is absent, and marks it as being loaded. `None`: all slots are being loaded.
    #[must_use = "a claimed slot must be loaded"]
    pub fn claim(&mut self, chunk: u64) -> Option<usize> {
        let candidates = self.slots.iter().enumerate().filter(|(_, slot)| slot.state != State::Loading);
        let index = candidates.min_by_key(|(_, slot)| slot.used)?.0;
        let slot = self.slots.get_mut(index)?;
        if slot.state == State::Ready {
            self.by_chunk.remove(&slot.chunk);
        }
        self.clock += 1;
        *slot = Slot { chunk, state: State::Loading, used: self.clock };
        self.by_chunk.insert(chunk, index);
        Some(index)
    }

    /// A claimed slot has its content.
    pub fn loaded(&mut self, index: usize) {
        if let Some(slot) = self.slots.get_mut(index) {
            slot.state = State::Ready;
        }
    }

    /// A claimed slot could not be loaded; its chunk is absent again.
    pub fn failed(&mut self, index: usize) {
        if let Some(slot) = self.slots.get_mut(index) {
            self.by_chunk.remove(&slot.chunk);
            *slot = Slot { chunk: 0, state: State::Free, used: 0 };
        }
    }
}

/// Readers in sequence that are told apart.
const STREAMS: usize = 64;

/// Where reads ended lately, to recognise those that go on from there.
#[derive(Debug)]
pub struct Streams {
    /// End of a stream's last read, and when it was.
    ends: [(u64, u64); STREAMS],
    clock: u64,
}

impl Default for Streams {
    fn default() -> Self {
        Streams { ends: [(u64::MAX, 0); STREAMS], clock: 0 }
    }
}

/// How a read relates to earlier ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pattern {
    /// It goes on where one ended.
    Sequential,
    /// It does not.
    Random,
}

impl Streams {
    /// Notes a read of `[start, end)`.
    pub fn note(&mut self, start: u64, end: u64) -> Pattern {
        self.clock += 1;
        let continued = self.ends.iter_mut().find(|(last, _)| *last == start);
        let (place, pattern) = match continued {
            Some(place) => (Some(place), Pattern::Sequential),
            None => (self.ends.iter_mut().min_by_key(|(_, when)| *when), Pattern::Random),
        };
        if let Some(place) = place {
            *place = (end, self.clock);
        }
        pattern
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_chunk_used_longest_ago_goes_first() {
        let mut cache = Cache::new(2);
        for chunk in [10, 11] {
            let slot = cache.claim(chunk).unwrap();
            assert_eq!(cache.look_up(chunk), Lookup::Loading);
            cache.loaded(slot);
        }
        assert!(matches!(cache.look_up(10), Lookup::Ready(_)));
        let slot = cache.claim(12).unwrap();
        assert_eq!(cache.look_up(11), Lookup::Absent);
        assert!(matches!(cache.look_up(10), Lookup::Ready(_)));
        cache.failed(slot);
        assert_eq!(cache.look_up(12), Lookup::Absent);
    }

    #[test]
    fn what_is_being_loaded_is_not_given_up() {
        let mut cache = Cache::new(2);
        let (first, second) = (cache.claim(1).unwrap(), cache.claim(2).unwrap());
        assert_ne!(first, second);
        assert_eq!(cache.claim(3), None);
        cache.loaded(second);
        assert_eq!(cache.claim(3), Some(second));
    }

    #[test]
    fn many_interleaved_streams_are_recognised() {
        let mut streams = Streams::default();
        let base = |stream: u64| stream * 1_000_000;
        for step in 0..10 {
            for stream in 0..32 {
                let start = base(stream) + step * 100;
                let expected = if step == 0 { Pattern::Random } else { Pattern::Sequential };
                assert_eq!(streams.note(start, start + 100), expected);
            }
        }
    }

    proptest! {
        #[test]
        fn a_ready_slot_holds_the_chunk_that_was_loaded_last(
            chunks in proptest::collection::vec((0u64..12, 0u8..4), 0..200)
        ) {
            let mut cache = Cache::new(4);
            let mut content = [None; 4];
            let mut loading = Vec::new();
            for (chunk, action) in chunks {
                match cache.look_up(chunk) {
                    Lookup::Ready(slot) => prop_assert_eq!(content[slot], Some(chunk)),
                    Lookup::Loading => prop_assert!(loading.iter().any(|&(_, one)| one == chunk)),
                    Lookup::Absent => if let Some(slot) = cache.claim(chunk) {
                        content[slot] = None;
                        loading.push((slot, chunk));
                    }
                }
                if action == 0 && let Some((slot, chunk)) = loading.pop() {
                    content[slot] = Some(chunk);
                    cache.loaded(slot);
                }
                if action == 1 && !loading.is_empty() {
                    cache.failed(loading.remove(0).0);
                }
            }
        }
    }
}
