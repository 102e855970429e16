//! What a domain has mapped of others' grants, by handle.
//!
//! A handle is `generation << 16 | index`; the generation changes whenever the index is reused, so that a handle of a
//! mapping that is gone fits no later one (for the next 32767 at the same index). Free entries are a linked list.

use alloc::vec::Vec;

use super::active::Use;
use crate::fallible;
use crate::ids::{Gfn, Handle};

const INDEX_MASK: u32 = 0xffff;
/// Handles stay below 2^31: guests use negative ones as "none".
const GENERATION_MASK: u32 = 0x7fff_0000;
/// One generation more.
const GENERATION: u32 = INDEX_MASK + 1;
/// Ends the list of free entries; no entry has this index.
const END: u32 = INDEX_MASK;

/// A mapping: a use of a grant, and where it is mapped. Half a cache line.
#[derive(Clone, Copy, Debug)]
#[repr(align(32))]
pub(super) struct Entry {
    pub grant: Use,
    pub gfn: Gfn,
    /// The handle of a mapping. Of a free entry, the generation of its next handle, and in place of its own index the
    /// next free one: no handle is the same, as an entry is found by its index.
    tag: u32,
}

const _: () = assert!(size_of::<Entry>() == 32);

/// The mappings of a domain.
#[derive(Debug)]
pub(super) struct Tracking {
    entries: Vec<Entry>,
    first_free: u32,
    in_use: u32,
    limit: u32,
}

/// An entry, and the list of free ones.
pub(super) struct Tracked<'a> {
    pub entry: &'a mut Entry,
    first_free: &'a mut u32,
    in_use: &'a mut u32,
}

impl Tracked<'_> {
    /// Puts a mapping into a free entry, the first of the list.
    #[inline(always)]
    pub fn fill(self, grant: Use, gfn: Gfn) -> Handle {
        let tag = self.entry.tag;
        let index = core::mem::replace(self.first_free, tag & INDEX_MASK);
        *self.in_use = self.in_use.wrapping_add(1);
        let handle = tag & GENERATION_MASK | index;
        *self.entry = Entry { grant, gfn, tag: handle };
        Handle(handle)
    }

    /// Makes the handle of a mapping void.
    #[inline(always)]
    pub fn free(self) {
        let handle = self.entry.tag;
        self.entry.tag = handle.wrapping_add(GENERATION) & GENERATION_MASK | *self.first_free;
        *self.first_free = handle & INDEX_MASK;
        *self.in_use = self.in_use.wrapping_sub(1);
    }
}

impl Tracking {
    pub fn new(limit: u32) -> Self {
        Self { entries: Vec::new(), first_free: END, in_use: 0, limit: limit.min(INDEX_MASK) }
    }

    pub fn in_use(&self) -> u32 {
        self.in_use
    }

    /// Entries, used or not: the end of indices. Never more than the domain may map.
    pub fn len(&self) -> u32 {
        self.entries.len() as u32
    }

    /// Makes an entry if none is free; `false`: the domain has mapped all it may, or there is no memory.
    pub fn make_room(&mut self) -> bool {
        if self.first_free != END {
            return true;
        }
        let index = self.len();
        let made = index < self.limit
            && fallible::push(&mut self.entries, Entry { grant: Use::NONE, gfn: Gfn(0), tag: END }).is_ok();
        if made {
            self.first_free = index;
        }
        made
    }

    /// A free entry, if there is one.
    #[inline(always)]
    pub fn vacancy(&mut self) -> Option<Tracked<'_>> {
        let entry = self.entries.get_mut(self.first_free as usize)?;
        Some(Tracked { entry, first_free: &mut self.first_free, in_use: &mut self.in_use })
    }

    /// The handle at an index, if it is used.
    pub fn at(&self, index: u32) -> Option<Handle> {
        self.entries.get(index as usize).filter(|entry| entry.tag & INDEX_MASK == index).map(|entry| Handle(entry.tag))
    }

    /// The mapping of a handle.
    #[inline(always)]
    pub fn find(&mut self, handle: Handle) -> Option<Tracked<'_>> {
        let entry = self.entries.get_mut((handle.0 & INDEX_MASK) as usize).filter(|entry| entry.tag == handle.0)?;
        Some(Tracked { entry, first_free: &mut self.first_free, in_use: &mut self.in_use })
    }
}
