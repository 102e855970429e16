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
use entry::{Entry, NEXT_MAX, PINS_MAX};
use free_list::FreeList;

use crate::fallible::injection;
use crate::ids::{Mfn, Slot};
use crate::machine::MachineMemory;
use crate::space::{Flushed, PageKind};

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

/// What an unpin did.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Unpinned {
    /// The frame still belongs to its owner, or has other pins.
    Kept,
    /// The owner had gone: this was the last pin, and the frame is free.
    Freed,
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
        for mfn in (frames.start.0..frames.end.0.min(self.end())).rev() {
            if mfn < u64::from(NEXT_MAX)
                && self.change(Mfn(mfn), |e| (e == Entry::RESERVED).then_some(Entry::LIMBO)).is_some()
            {
                self.total.fetch_add(1, Ordering::Relaxed);
                self.free.push(self.entries, mfn as u32);
            }
        }
    }

    /// Marks memory as the hypervisor's own, at boot, before [`Self::add_free`] could give it away.
    pub fn add_hypervisor(&self, frames: Range<Mfn>) {
        for mfn in frames.start.0..frames.end.0.min(self.end()) {
            let own = Entry::new(State::Hypervisor, Slot(0), 0);
            if self.change(Mfn(mfn), |e| (e == Entry::RESERVED).then_some(own)).is_some() {
                self.total.fetch_add(1, Ordering::Relaxed);
                self.hypervisor.fetch_add(1, Ordering::Relaxed);
            }
        }
    }

    fn end(&self) -> u64 {
        self.entries.len() as u64
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
        injection::check().ok()?;
        let mfn = Mfn(u64::from(self.free.pop(self.entries)?));
        memory.zero(mfn);
        let (state, slot) = match purpose {
            Purpose::Private(slot) => (State::Private, slot),
            Purpose::Shared(slot) => (State::Shared, slot),
            Purpose::Table(slot) => (State::Table, slot),
            Purpose::Hypervisor => (State::Hypervisor, Slot(0)),
        };
        if state == State::Hypervisor {
            self.hypervisor.fetch_add(1, Ordering::Relaxed);
        }
        self.change(mfn, |_| Some(Entry::new(state, slot, 0)))?;
        Some(mfn)
    }

    /// The state of a frame; [`State::Reserved`] outside the table.
    pub fn state(&self, mfn: Mfn) -> State {
        self.get(mfn).map_or(State::Reserved, |entry| entry.state())
    }

    /// The pins on a frame.
    pub fn pins(&self, mfn: Mfn) -> u32 {
        self.get(mfn).map_or(0, |entry| entry.pins())
    }

    /// Whether the frame is private memory of the domain in `slot`.
    #[inline]
    pub fn is_private_to(&self, mfn: Mfn, slot: Slot) -> bool {
        self.get(mfn).is_some_and(|entry| entry.is_private_to(slot))
    }

    /// Holds on to a private frame of the domain in `owner`, so that it outlives its mapping there.
    ///
    /// # Errors
    /// [`FrameError::NotOwned`], [`FrameError::TooManyPins`].
    #[inline]
    pub fn pin(&self, mfn: Mfn, owner: Slot) -> Result<(), FrameError> {
        self.transition(mfn, |entry| {
            if !entry.is_private_to(owner) {
                return Err(FrameError::NotOwned);
            }
            if entry.pins() >= PINS_MAX {
                return Err(FrameError::TooManyPins);
            }
            Ok(entry.one_pin_more())
        })
        .map(drop)
    }

    /// Drops a pin. The last one frees a frame whose owner let go of it before.
    ///
    /// # Errors
    /// [`FrameError::NotPinned`].
    #[inline]
    pub fn unpin(&self, mfn: Mfn) -> Result<Unpinned, FrameError> {
        // Only private and leaving frames have pins; a free one's entry is a link.
        let new = self.transition(mfn, |entry| match (entry.state(), entry.pins()) {
            (State::Private | State::Leaving, 0) => Err(FrameError::NotPinned),
            (State::Leaving, 1) => Ok(Entry::LIMBO),
            (State::Private | State::Leaving, _) => Ok(entry.one_pin_less()),
            _ => Err(FrameError::NotPinned),
        })?;
        Ok(self.free_if_limbo(mfn, new))
    }

    /// The owner lets go of a private frame, whose translations are flushed. It is free now if nothing pins it, and at
    /// the last unpin otherwise.
    ///
    /// # Errors
    /// [`FrameError::NotOwned`]: the token is about a page that is not private memory of the domain in `owner`.
    pub fn release(&self, flushed: Flushed, owner: Slot) -> Result<Unpinned, FrameError> {
        let page = flushed.into_page();
        if page.kind != PageKind::Private {
            return Err(FrameError::NotOwned);
        }
        let new = self.transition(page.mfn, |entry| match (entry.state(), entry.slot() == owner, entry.pins()) {
            (State::Private, true, 0) => Ok(Entry::LIMBO),
            (State::Private, true, pins) => Ok(Entry::new(State::Leaving, owner, pins)),
            _ => Err(FrameError::NotOwned),
        })?;
        Ok(self.free_if_limbo(page.mfn, new))
    }

    /// Frees a frame that `allocate` gave for this purpose and that no domain can reach any more: a page table that was
    /// unlinked and flushed, a shared page that was unmapped and flushed, a private frame that was never mapped.
    ///
    /// # Errors
    /// [`FrameError::NotOwned`]: it is something else; nothing changed.
    pub(crate) fn free_unmapped(&self, mfn: Mfn, purpose: Purpose) -> Result<(), FrameError> {
        let expected = match purpose {
            Purpose::Private(slot) => Entry::new(State::Private, slot, 0),
            Purpose::Shared(slot) => Entry::new(State::Shared, slot, 0),
            Purpose::Table(slot) => Entry::new(State::Table, slot, 0),
            Purpose::Hypervisor => Entry::new(State::Hypervisor, Slot(0), 0),
        };
        let check = |entry| {
            if entry == expected { Ok(Entry::LIMBO) } else { Err(FrameError::NotOwned) }
        };
        let new = self.transition(mfn, check)?;
        if purpose == Purpose::Hypervisor {
            self.hypervisor.fetch_sub(1, Ordering::Relaxed);
        }
        self.free_if_limbo(mfn, new);
        Ok(())
    }

    fn free_if_limbo(&self, mfn: Mfn, entry: Entry) -> Unpinned {
        if entry != Entry::LIMBO {
            return Unpinned::Kept;
        }
        self.free.push(self.entries, mfn.0 as u32);
        Unpinned::Freed
    }

    #[inline]
    fn get(&self, mfn: Mfn) -> Option<Entry> {
        let entry = self.entries.get(usize::try_from(mfn.0).ok()?)?;
        Some(Entry(entry.load(Ordering::Relaxed)))
    }

    fn change(&self, mfn: Mfn, to: impl Fn(Entry) -> Option<Entry>) -> Option<Entry> {
        self.transition(mfn, |entry| to(entry).ok_or(FrameError::NotOwned)).ok()
    }

    /// Changes an entry in one step and returns the new one. The loop ends: it repeats only when another CPU changed
    /// this very entry, which needs locks that this CPU holds.
    #[inline]
    fn transition(&self, mfn: Mfn, to: impl Fn(Entry) -> Result<Entry, FrameError>) -> Result<Entry, FrameError> {
        let index = usize::try_from(mfn.0).map_err(|_| FrameError::NotOwned)?;
        let word = self.entries.get(index).ok_or(FrameError::NotOwned)?;
        let mut current = word.load(Ordering::Relaxed);
        loop {
            let new = to(Entry(current))?;
            match word.compare_exchange_weak(current, new.0, Ordering::AcqRel, Ordering::Relaxed) {
                Ok(_) => return Ok(new),
                Err(found) => current = found,
            }
        }
    }
}

#[cfg(test)]
mod tests;
