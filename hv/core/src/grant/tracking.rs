//! What a domain has mapped of others' grants, by handle.
//!
//! A handle is `generation << 16 | index`; the generation changes whenever the index is reused, so that a handle of a
//! mapping that is gone fits no later one (for the next 32767 at the same index). Free entries are a linked list.

use alloc::vec::Vec;

use super::Access;
use super::active::Use;
use crate::fallible;
use crate::ids::{DomId, Gfn, GrantRef, Handle, Mfn};

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

/// Half a cache line: what a [`Mapping`] is, more tightly.
#[derive(Clone, Copy, Debug)]
#[repr(align(32))]
struct Entry {
    gfn: Gfn,
    mfn: u32,
    serial: u32,
    gref: GrantRef,
    /// The next free entry, while this one is free.
    next: u32,
    grantor: DomId,
    generation: u16,
    /// `None`: free.
    access: Option<Access>,
}

impl Entry {
    const FREE: Entry = Entry {
        gfn: Gfn(0),
        mfn: 0,
        serial: 0,
        gref: GrantRef(0),
        next: END,
        grantor: DomId(0),
        generation: 0,
        access: None,
    };

    #[inline(always)]
    fn handle(&self, index: u32) -> Handle {
        Handle(u32::from(self.generation) << INDEX_BITS | index)
    }

    #[inline(always)]
    fn mapping(&self) -> Option<Mapping> {
        let Self { gfn, serial, gref, grantor, .. } = *self;
        Some(Mapping { grant: Use { grantor, serial, gref, access: self.access?, mfn: Mfn(self.mfn.into()) }, gfn })
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
    #[inline(always)]
    pub fn next_handle(&mut self) -> Option<Handle> {
        if self.in_use >= self.limit {
            return None;
        }
        match self.entries.get(self.first_free as usize) {
            Some(entry) => Some(entry.handle(self.first_free)),
            None => self.grow(),
        }
    }

    #[inline(never)]
    fn grow(&mut self) -> Option<Handle> {
        fallible::push(&mut self.entries, Entry::FREE).ok()?;
        self.first_free = self.len().wrapping_sub(1);
        Some(Handle(self.first_free))
    }

    /// Adds a mapping, under the handle that [`Self::next_handle`] gave.
    #[inline(always)]
    pub fn fill(&mut self, handle: Handle, mapping: Mapping) {
        let Mapping { grant: Use { grantor, serial, gref, access, mfn }, gfn } = mapping;
        let Some(entry) = self.entries.get_mut((handle.0 & INDEX_MASK) as usize) else { return };
        debug_assert!(entry.access.is_none() && handle.0 & INDEX_MASK == self.first_free, "not the next handle");
        self.first_free = entry.next;
        self.in_use = self.in_use.wrapping_add(1);
        let (generation, mfn) = (entry.generation, mfn.0 as u32);
        *entry = Entry { gfn, mfn, serial, gref, next: END, grantor, generation, access: Some(access) };
    }

    /// The mapping of a handle.
    #[inline(always)]
    pub fn get(&mut self, handle: Handle) -> Option<Mapping> {
        self.entry(handle)?.mapping()
    }

    /// The mapping at an index, if it is used.
    pub fn at(&self, index: u32) -> Option<(Handle, Mapping)> {
        let entry = self.entries.get(index as usize)?;
        Some((entry.handle(index), entry.mapping()?))
    }

    /// Frees a used entry; its handle is void.
    #[inline(always)]
    pub fn free(&mut self, handle: Handle) {
        let next = self.first_free;
        if let Some(entry) = self.entry(handle)
            && entry.access.take().is_some()
        {
            entry.generation = entry.generation.wrapping_add(1) & GENERATION_MASK;
            entry.next = next;
            self.first_free = handle.0 & INDEX_MASK;
            self.in_use = self.in_use.wrapping_sub(1);
        }
    }

    #[inline(always)]
    fn entry(&mut self, handle: Handle) -> Option<&mut Entry> {
        let entry = self.entries.get_mut((handle.0 & INDEX_MASK) as usize)?;
        (u32::from(entry.generation) == handle.0 >> INDEX_BITS).then_some(entry)
    }
}
