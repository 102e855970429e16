//! What a domain has mapped of others' grants, by handle.
//!
//! A handle is `generation << 16 | index`; the generation changes whenever the index is reused, so that a handle of a
//! mapping that is gone fits no later one (for the next 32767 at the same index). Free entries are a linked list.

use alloc::vec::Vec;

use super::Access;
use crate::fallible;
use crate::ids::{DomId, Gfn, GrantRef, Handle, Mfn};

const INDEX_BITS: u32 = 16;
const INDEX_MASK: u32 = 0xffff;
/// Handles stay below 2^31: guests use negative ones as "none".
const GENERATION_MASK: u16 = 0x7fff;
const END: u32 = u32::MAX;

/// A mapping in force.
#[derive(Clone, Copy, Debug)]
pub(super) struct Mapping {
    pub grantor: DomId,
    /// The grantor's serial number: its id may have passed to another.
    pub serial: u32,
    pub gref: GrantRef,
    pub access: Access,
    pub gfn: Gfn,
    pub mfn: Mfn,
}

#[derive(Clone, Copy, Debug)]
enum State {
    Free { next: u32 },
    Reserved,
    Used(Mapping),
}

#[derive(Clone, Copy, Debug)]
struct Entry {
    state: State,
    generation: u16,
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

    /// Takes a free entry; `None` when the domain has mapped all it may or there is no memory.
    #[inline]
    pub fn reserve(&mut self) -> Option<Handle> {
        if self.in_use >= self.limit {
            return None;
        }
        if self.first_free == END {
            fallible::push(&mut self.entries, Entry { state: State::Free { next: END }, generation: 0 }).ok()?;
            self.first_free = self.len().wrapping_sub(1);
        }
        let index = self.first_free;
        let entry = self.entries.get_mut(index as usize)?;
        let State::Free { next } = entry.state else { return None };
        self.first_free = next;
        entry.state = State::Reserved;
        self.in_use = self.in_use.wrapping_add(1);
        Some(Handle(u32::from(entry.generation) << INDEX_BITS | index))
    }

    /// Fills a reserved entry.
    #[inline]
    pub fn fill(&mut self, handle: Handle, mapping: Mapping) {
        if let Some(entry) = self.entry(handle) {
            entry.state = State::Used(mapping);
        }
    }

    /// The mapping of a handle.
    #[inline]
    pub fn get(&self, handle: Handle) -> Option<Mapping> {
        let entry = self.entries.get((handle.0 & INDEX_MASK) as usize)?;
        match entry.state {
            State::Used(mapping) if u32::from(entry.generation) == handle.0 >> INDEX_BITS => Some(mapping),
            _ => None,
        }
    }

    /// The handle at an index, if it is used.
    pub fn handle_at(&self, index: u32) -> Option<Handle> {
        let entry = self.entries.get(index as usize)?;
        let used = matches!(entry.state, State::Used(_));
        used.then_some(Handle(u32::from(entry.generation) << INDEX_BITS | index))
    }

    /// Frees a reserved or used entry; its handle is void.
    #[inline]
    pub fn free(&mut self, handle: Handle) {
        let next = self.first_free;
        let Some(entry) = self.entry(handle) else { return };
        if matches!(entry.state, State::Free { .. }) {
            return;
        }
        *entry = Entry { state: State::Free { next }, generation: entry.generation.wrapping_add(1) & GENERATION_MASK };
        self.first_free = handle.0 & INDEX_MASK;
        self.in_use = self.in_use.wrapping_sub(1);
    }

    #[inline]
    fn entry(&mut self, handle: Handle) -> Option<&mut Entry> {
        let entry = self.entries.get_mut((handle.0 & INDEX_MASK) as usize)?;
        (u32::from(entry.generation) == handle.0 >> INDEX_BITS).then_some(entry)
    }
}
