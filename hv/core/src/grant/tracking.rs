//! What a domain has mapped of others' grants, by handle.
//!
//! A handle is `generation << 16 | index`; the generation changes whenever the index is reused, so that a handle of a
//! mapping that is gone fits no later one (for the next 32767 at the same index). Free entries are a linked list.

use alloc::vec::Vec;

use super::active::Use;
use crate::fallible;
use crate::ids::{Gfn, Handle};

const INDEX_BITS: u32 = 16;
const INDEX_MASK: u32 = 0xffff;
/// Handles stay below 2^31: guests use negative ones as "none".
const GENERATION_MASK: u16 = 0x7fff;
const END: u32 = u32::MAX;

/// A mapping in force: a use of a grant, and where it is mapped.
#[derive(Clone, Copy, Debug)]
pub(super) struct Mapping {
    pub grant: Use,
    pub gfn: Gfn,
}

#[derive(Clone, Copy, Debug)]
enum State {
    Free { next: u32 },
    Used(Mapping),
}

#[derive(Clone, Copy, Debug)]
struct Entry {
    state: State,
    generation: u16,
}

impl Entry {
    #[inline]
    fn handle(&self, index: u32) -> Handle {
        Handle(u32::from(self.generation) << INDEX_BITS | index)
    }
}

/// The mappings of a domain.
#[derive(Debug)]
pub(super) struct Tracking {
    entries: Vec<Entry>,
    first_free: u32,
    in_use: u32,
    limit: u32,
}

impl Tracking {
    pub fn new(limit: u32) -> Self {
        Self { entries: Vec::new(), first_free: END, in_use: 0, limit: limit.min(INDEX_MASK) }
    }

    pub fn in_use(&self) -> u32 {
        self.in_use
    }

    /// Entries, used or not: the end of indices.
    pub fn len(&self) -> u32 {
        self.entries.len() as u32
    }

    /// The handle that the next mapping will have; `None` when the domain has mapped all it may or there is no memory.
    #[inline]
    pub fn next_handle(&mut self) -> Option<Handle> {
        if self.in_use >= self.limit {
            return None;
        }
        if self.first_free == END {
            fallible::push(&mut self.entries, Entry { state: State::Free { next: END }, generation: 0 }).ok()?;
            self.first_free = self.len().wrapping_sub(1);
        }
        let entry = self.entries.get(self.first_free as usize)?;
        Some(entry.handle(self.first_free))
    }

    /// Adds a mapping, under the handle that [`Self::next_handle`] gave.
    #[inline]
    pub fn fill(&mut self, handle: Handle, mapping: Mapping) {
        if let Some(entry) = self.entry(handle)
            && let State::Free { next } = entry.state
        {
            entry.state = State::Used(mapping);
            self.first_free = next;
            self.in_use = self.in_use.wrapping_add(1);
        }
    }

    /// The mapping of a handle.
    #[inline]
    pub fn get(&self, handle: Handle) -> Option<Mapping> {
        self.at(handle.0 & INDEX_MASK).filter(|(found, _)| *found == handle).map(|(_, mapping)| mapping)
    }

    /// The mapping at an index, if it is used.
    #[inline]
    pub fn at(&self, index: u32) -> Option<(Handle, Mapping)> {
        let entry = self.entries.get(index as usize)?;
        let State::Used(mapping) = entry.state else { return None };
        Some((entry.handle(index), mapping))
    }

    /// Frees a used entry; its handle is void.
    #[inline]
    pub fn free(&mut self, handle: Handle) {
        let next = self.first_free;
        if let Some(entry) = self.entry(handle)
            && let State::Used(_) = entry.state
        {
            let generation = entry.generation.wrapping_add(1) & GENERATION_MASK;
            *entry = Entry { state: State::Free { next }, generation };
            self.first_free = handle.0 & INDEX_MASK;
            self.in_use = self.in_use.wrapping_sub(1);
        }
    }

    #[inline]
    fn entry(&mut self, handle: Handle) -> Option<&mut Entry> {
        let entry = self.entries.get_mut((handle.0 & INDEX_MASK) as usize)?;
        (u32::from(entry.generation) == handle.0 >> INDEX_BITS).then_some(entry)
    }
}
