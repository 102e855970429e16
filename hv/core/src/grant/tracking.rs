//! What a domain has mapped of others' grants, by handle.
//!
//! A handle is `generation << 16 | index`; the generation changes whenever the index is reused, so that a handle of a
//! mapping that is gone fits no later one (for the next 32767 at the same index). Free entries are a linked list.

use alloc::vec::Vec;

use super::{Status, active::Use, status::Why};
use crate::fallible;
use crate::ids::{Gfn, Handle};

const INDEX_BITS: u32 = 16;
const INDEX_MASK: u32 = 0xffff;
/// Handles stay below 2^31: guests use negative ones as "none".
const GENERATION_MASK: u16 = 0x7fff;
const END: u32 = u32::MAX;

/// A mapping: a use of a grant, and where it is mapped. Half a cache line.
#[derive(Clone, Copy, Debug)]
#[repr(align(32))]
struct Entry {
    /// `None`: free.
    grant: Option<Use>,
    gfn: Gfn,
    /// The next free entry, while this one is free.
    next: u32,
    generation: u16,
}

const _: () = assert!(size_of::<Entry>() == 32);

impl Entry {
    const FREE: Entry = Entry { grant: None, gfn: Gfn(0), next: END, generation: 0 };

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

    /// Whether one more can be added; not when the domain has mapped all it may or there is no memory.
    pub fn has_room<E: Why>(&mut self) -> bool {
        self.in_use < self.limit && ((self.first_free as usize) < self.entries.len() || E::EXACT && self.grow())
    }

    #[cold]
    #[inline(never)]
    fn grow(&mut self) -> bool {
        let grown = fallible::push(&mut self.entries, Entry::FREE).is_ok();
        if grown {
            self.first_free = self.len().wrapping_sub(1);
        }
        grown
    }

    /// Adds a mapping, after [`Self::has_room`] said so.
    #[inline(always)]
    pub fn fill(&mut self, grant: Use, gfn: Gfn) -> Handle {
        let index = self.first_free;
        let Some(entry) = self.entries.get_mut(index as usize) else { return Handle(END) };
        debug_assert!(entry.grant.is_none(), "not a free entry");
        self.first_free = entry.next;
        self.in_use = self.in_use.wrapping_add(1);
        (entry.grant, entry.gfn) = (Some(grant), gfn);
        entry.handle(index)
    }

    /// The handle at an index, if it is used.
    pub fn at(&self, index: u32) -> Option<Handle> {
        self.entries.get(index as usize).filter(|entry| entry.grant.is_some()).map(|entry| entry.handle(index))
    }

    /// Takes out the mapping of a handle, which is void then, once `end` has ended what is mapped there.
    ///
    /// # Errors
    /// [`Status::BadHandle`], and those of `end`; the mapping stays.
    #[inline(always)]
    pub fn take<T, E: Why>(&mut self, handle: Handle, end: impl FnOnce(Gfn) -> Result<T, E>) -> Result<(Use, T), E> {
        let index = handle.0 & INDEX_MASK;
        let Some(entry) = self.entries.get_mut(index as usize) else { return Err(Status::BadHandle.into()) };
        // Field by field, past results with a status and options: in those it would be copied in uneven pieces.
        let Some(Use { grantor, serial, gref, access, mfn }) = entry.grant else {
            return Err(Status::BadHandle.into());
        };
        if entry.generation != (handle.0 >> INDEX_BITS) as u16 {
            return Err(Status::BadHandle.into());
        }
        let ended = end(entry.gfn)?;
        entry.generation = entry.generation.wrapping_add(1) & GENERATION_MASK;
        (entry.grant, entry.next) = (None, self.first_free);
        self.first_free = index;
        self.in_use = self.in_use.wrapping_sub(1);
        Ok((Use { grantor, serial, gref, access, mfn }, ended))
    }
}
