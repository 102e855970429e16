//! The frame table: who owns each machine frame, what it is for, and who else holds on to it.
//!
//! Four bytes a frame, so that a 2 GiB machine spends 2 MiB. Each entry is one atomic word (state, owner, count), and a
//! free frame's entry links to the next free one, so neither allocating nor freeing ever searches. Entries change by
//! compare-exchange: the table needs no lock but the one around the head of the free list, which is a leaf.
//!
//! A frame of a domain is *pinned* for each use that outlives the owner's own mapping: a grant mapping, a copy in
//! progress. It goes back to the free list when its owner has let go of it *and* the last pin is gone. Letting go
//! takes a [`Flushed`] token, which exists only after the translation caches forgot the page (see `space::unmapped`).
//! Contents are zeroed when a frame is handed out: there is one such place.

mod entry;
mod free_list;

use core::ops::Range;
use core::sync::atomic::{AtomicU32, AtomicU64, Ordering};

pub use entry::State;
use entry::{Entry, NEXT_MAX};
use free_list::FreeList;

use crate::{fallible, ids::Mfn, ids::Slot, machine::MachineMemory, space::Flushed, space::PageKind};

/// Why a frame could not be pinned or released.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum FrameError {
    /// Not a frame of this owner in this state. On a domain's input: the domain's fault.
    NotOwned,
    /// 65535 pins already.
    TooManyPins,
    /// No pin to drop. Always a bug of the hypervisor.
    NotPinned,
}

/// What a frame is allocated for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Purpose {
    /// Memory of a domain.
    Private(Slot),
    /// A page that the hypervisor shares with one domain: shared info, grant table.
    Shared(Slot),
    /// A page table, CPU or IOMMU, that a domain pays for.
    Table(Slot),
    /// The hypervisor's own.
    Hypervisor,
}

impl Purpose {
    /// The entry of a frame that was just allocated.
    fn entry(self) -> Entry {
        match self {
            Purpose::Private(slot) => Entry::new(State::Private, slot, 0),
            Purpose::Shared(slot) => Entry::new(State::Shared, slot, 0),
            Purpose::Table(slot) => Entry::new(State::Table, slot, 0),
            Purpose::Hypervisor => Entry::new(State::Hypervisor, Slot(0), 0),
        }
    }
}

/// The frames of the machine.
pub struct FrameTable {
    entries: &'static [AtomicU32],
    free: FreeList,
    total: AtomicU64,
    hypervisor: AtomicU64,
}

impl FrameTable {
    /// A table over storage that the boot code set aside, one word a frame, from frame 0. All frames begin reserved.
    pub fn new(entries: &'static [AtomicU32]) -> Self {
        for entry in entries {
            entry.store(Entry::RESERVED.0, Ordering::Relaxed);
        }
        Self { entries, free: FreeList::new(), total: AtomicU64::new(0), hypervisor: AtomicU64::new(0) }
    }

    /// Puts usable memory on the free list, at boot. Frames beyond the table's end and those that are not reserved
    /// (overlapping ranges of a bad memory map) are left alone.
    pub fn add_free(&self, frames: Range<Mfn>) {
        self.add(frames, Entry::LIMBO);
    }

    /// Marks memory as the hypervisor's own, at boot, before [`Self::add_free`] could give it away.
    pub fn add_hypervisor(&self, frames: Range<Mfn>) {
        let added = self.add(frames, Purpose::Hypervisor.entry());
        self.hypervisor.fetch_add(added, Ordering::Relaxed);
    }

    /// Makes `entry` of reserved frames, the last one first; tells how many.
    fn add(&self, frames: Range<Mfn>, entry: Entry) -> u64 {
        let end = frames.end.0.min(self.entries.len() as u64).min(NEXT_MAX.into());
        let changed = |mfn: &u64| self.replace(Mfn(*mfn), Entry::RESERVED, entry).is_ok();
        let added = (frames.start.0..end).rev().filter(changed).count() as u64;
        self.total.fetch_add(added, Ordering::Relaxed);
        added
    }

    /// Usable frames at boot, the hypervisor's included.
    pub fn total(&self) -> u64 {
        self.total.load(Ordering::Relaxed)
    }

    /// Frames on the free list.
    pub fn free(&self) -> u64 {
        self.free.count()
    }

    /// Frames the hypervisor uses for itself, page tables and shared pages of domains not counted.
    pub fn hypervisor(&self) -> u64 {
        self.hypervisor.load(Ordering::Relaxed)
    }

    /// Takes a frame off the free list, zeroed. `None`: the machine's memory is used up.
    #[must_use = "the frame would be lost"]
    pub fn allocate(&self, purpose: Purpose, memory: &impl MachineMemory) -> Option<Mfn> {
        fallible::check().ok()?;
        let mfn = Mfn(u64::from(self.free.pop(self.entries)?));
        memory.zero(mfn);
        if purpose == Purpose::Hypervisor {
            self.hypervisor.fetch_add(1, Ordering::Relaxed);
        }
        self.replace(mfn, Entry::LIMBO, purpose.entry()).ok()?;
        Some(mfn)
    }

    /// Holds on to a private frame of the domain in `owner`, so that it outlives its mapping there.
    ///
    /// # Errors
    /// [`FrameError::NotOwned`], [`FrameError::TooManyPins`].
    pub fn pin(&self, mfn: Mfn, owner: Slot) -> Result<(), FrameError> {
        let pinned = self.change(mfn, |entry| entry.can_be_pinned(owner).then_some(Entry(entry.0.wrapping_add(1))));
        pinned.map(drop).map_err(|entry| match entry.is_private_to(owner) {
            true => FrameError::TooManyPins,
            false => FrameError::NotOwned,
        })
    }

    /// The same unless another CPU changes the entry at this moment. `None`: nothing changed.
    #[inline(always)]
    pub fn pin_at_once(&self, mfn: Mfn, owner: Slot) -> Option<()> {
        let word = self.entries.get(mfn.0 as usize)?;
        let entry = Entry(word.load(Ordering::Relaxed));
        if !entry.can_be_pinned(owner) {
            return None;
        }
        let pinned = entry.0.wrapping_add(1);
        word.compare_exchange(entry.0, pinned, Ordering::AcqRel, Ordering::Relaxed).ok().map(drop)
    }

    /// Drops a pin. The last one frees a frame whose owner let go of it before.
    ///
    /// # Errors
    /// [`FrameError::NotPinned`].
    #[inline(always)]
    pub fn unpin(&self, mfn: Mfn) -> Result<(), FrameError> {
        // By far the most frequent: its owner has it still, and no other CPU changes the entry at this moment.
        if let Some(word) = self.entries.get(mfn.0 as usize) {
            let entry = Entry(word.load(Ordering::Relaxed));
            let unpinned = entry.0.wrapping_sub(1);
            if entry.is(State::Private)
                && entry.pins() != 0
                && word.compare_exchange(entry.0, unpinned, Ordering::AcqRel, Ordering::Relaxed).is_ok()
            {
                return Ok(());
            }
        }
        self.unpin_exactly(mfn)
    }

    /// Only private and leaving frames have pins; a free one's entry is a link.
    #[cold]
    fn unpin_exactly(&self, mfn: Mfn) -> Result<(), FrameError> {
        let unpinned = self.change_or_free(mfn, |entry| match entry.pins() {
            1 if entry.is(State::Leaving) => Some(Entry::LIMBO),
            1.. if entry.is(State::Leaving) || entry.is(State::Private) => Some(Entry(entry.0.wrapping_sub(1))),
            _ => None,
        });
        unpinned.map_err(|_| FrameError::NotPinned)
    }

    /// The owner lets go of a private frame, whose translations are flushed. It is free now if nothing pins it, and at
    /// the last unpin otherwise.
    ///
    /// # Errors
    /// [`FrameError::NotOwned`]: the token is about a page that is not private memory of the domain in `owner`.
    pub fn release(&self, flushed: Flushed, owner: Slot) -> Result<(), FrameError> {
        let page = flushed.into_page();
        if page.kind != PageKind::Private {
            return Err(FrameError::NotOwned);
        }
        self.change_or_free(page.mfn, |entry| match entry.pins() {
            _ if !entry.is_private_to(owner) => None,
            0 => Some(Entry::LIMBO),
            pins => Some(Entry::new(State::Leaving, owner, pins)),
        })
    }

    /// Frees a frame that `allocate` gave for this purpose (not the hypervisor's own) and that no domain can reach any more: a page table that was
    /// unlinked and flushed, a shared page that was unmapped and flushed, a private frame that was never mapped.
    ///
    /// # Errors
    /// [`FrameError::NotOwned`]: it is something else; nothing changed.
    pub fn free_unmapped(&self, mfn: Mfn, purpose: Purpose) -> Result<(), FrameError> {
        self.replace(mfn, purpose.entry(), Entry::LIMBO)
    }

    fn replace(&self, mfn: Mfn, old: Entry, new: Entry) -> Result<(), FrameError> {
        self.change_or_free(mfn, |entry| (entry == old).then_some(new))
    }

    /// Changes an entry, and puts a frame that is in limbo then on the free list.
    fn change_or_free(&self, mfn: Mfn, to: impl Fn(Entry) -> Option<Entry>) -> Result<(), FrameError> {
        if self.change(mfn, to).map_err(|_| FrameError::NotOwned)? == Entry::LIMBO {
            self.free.push(self.entries, mfn.0 as u32);
        }
        Ok(())
    }

    /// Changes an entry in one step, if `to` knows what to; tells what it is now. The error is what it was. The loop
    /// ends: it repeats only when another CPU changed this very entry, which needs locks that this CPU holds.
    #[inline(always)]
    fn change(&self, mfn: Mfn, to: impl Fn(Entry) -> Option<Entry>) -> Result<Entry, Entry> {
        let word = self.entries.get(mfn.0 as usize).ok_or(Entry::RESERVED)?;
        let mut current = word.load(Ordering::Relaxed);
        loop {
            let new = to(Entry(current)).ok_or(Entry(current))?;
            match word.compare_exchange_weak(current, new.0, Ordering::AcqRel, Ordering::Relaxed) {
                Ok(_) => return Ok(new),
                Err(found) => current = found,
            }
        }
    }
}

#[cfg(test)]
mod tests;
