//! The radix table: 512 entries of 8 bytes a level, in whichever format.

use super::format::{present, target};
use super::{Access, GFN_LIMIT, MapError, Page, format::TableFormat};
use crate::ids::{Gfn, Hpa, Mfn, PAGE_SHIFT, Slot};
use crate::{domain::Env, frames::FrameTable, frames::Purpose, machine::Machine, machine::MachineMemory};
use xen_abi::native::{GRANT_WINDOW, GRANT_WINDOW_END};

/// log2 of the entries of a table.
const LEVEL_BITS: u32 = 9;
pub(super) const ENTRIES: u64 = 1 << LEVEL_BITS;

/// The frames that a domain's page tables use, and may use.
#[derive(Debug)]
pub(super) struct TableBudget {
    slot: Slot,
    pub(super) used: u32,
    pub(super) limit: u32,
}

impl TableBudget {
    /// A budget of `limit` frames for the domain in `slot`.
    pub fn new(slot: Slot, limit: u32) -> Self {
        Self { slot, used: 0, limit }
    }

    fn allocate<M: Machine>(&mut self, env: &Env<'_, M>) -> Result<Mfn, MapError> {
        if self.used >= self.limit {
            return Err(MapError::NoMemory);
        }
        let table = env.frames.allocate(Purpose::Table(self.slot), env.machine).ok_or(MapError::NoMemory)?;
        self.used = self.used.wrapping_add(1);
        Ok(table)
    }

    pub(super) fn free(&mut self, table: Mfn, frames: &FrameTable) {
        if frames.free_unmapped(table, Purpose::Table(self.slot)).is_ok() {
            self.used = self.used.saturating_sub(1);
        }
    }
}

/// Where a page's entry is; good until the table changes.
#[derive(Clone, Copy, Debug)]
#[must_use = "nothing has changed yet"]
pub(super) struct Place(Hpa);

impl Place {
    /// The entry, if it is in use.
    #[inline(always)]
    pub fn entry(self, memory: &impl MachineMemory) -> Option<u64> {
        Some(memory.load_u64(self.0)).filter(|entry| present(*entry))
    }
}

/// The last-level table that was used last in a region: a key of the pages it is for, and where it is.
#[derive(Clone, Copy, Debug)]
struct Leaf {
    key: u64,
    table: Mfn,
}

/// No page has this key.
const NO_LEAF: Leaf = Leaf { key: u64::MAX, table: Mfn(0) };

/// Parts of a space that remember a table each, so that the walks of one do not push the other out.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Region {
    /// The grant window.
    Grants,
    /// All else, a domain's own memory above all.
    Rest,
}

impl Region {
    const fn of(gfn: Gfn) -> Self {
        const SHIFT: u32 = (GRANT_WINDOW_END - GRANT_WINDOW).trailing_zeros() - PAGE_SHIFT;
        const { assert!((GRANT_WINDOW_END - 1) >> (SHIFT + PAGE_SHIFT) == GRANT_WINDOW >> (SHIFT + PAGE_SHIFT)) }
        if gfn.0 >> SHIFT == GRANT_WINDOW >> (SHIFT + PAGE_SHIFT) { Region::Grants } else { Region::Rest }
    }
}

/// A page table tree. Tables are freed with the tree only, so what is remembered stays true.
#[derive(Debug)]
pub(super) struct RadixTable<F> {
    pub(super) format: F,
    pub(super) root: Mfn,
    grants: Leaf,
    rest: Leaf,
}

/// The entry for `gfn` in a table of this level (0: the last).
fn entry_at(table: Mfn, gfn: Gfn, level: u32) -> Hpa {
    let index = (gfn.0 >> (LEVEL_BITS.wrapping_mul(level))) & (ENTRIES - 1);
    table.at(index << 3)
}

impl<F: TableFormat> RadixTable<F> {
    /// An empty table.
    ///
    /// # Errors
    /// [`MapError::NoMemory`].
    pub fn new<M: Machine>(env: &Env<'_, M>, format: F, budget: &mut TableBudget) -> Result<Self, MapError> {
        let root = budget.allocate(env)?;
        Ok(Self { format, root, grants: NO_LEAF, rest: NO_LEAF })
    }

    /// Whether the table has a place for this page at all. What is remembered was asked about.
    fn covers(&self, gfn: Gfn) -> bool {
        gfn < GFN_LIMIT && gfn.0 >> LEVEL_BITS.wrapping_mul(self.format.levels()) == 0
    }

    /// Where a page's entry is, if its table is the one that this region remembers; so the page is in the region.
    #[inline(always)]
    pub fn near(&self, region: Region, gfn: Gfn) -> Option<Place> {
        let leaf = if region == Region::Grants { &self.grants } else { &self.rest };
        (leaf.key == gfn.0 >> LEVEL_BITS).then(|| Place(entry_at(leaf.table, gfn, 0)))
    }

    /// The last-level table for a page, from memory or by a walk that remembers it.
    fn leaf(&mut self, gfn: Gfn, memory: &impl MachineMemory) -> Option<Mfn> {
        let leaf = if Region::of(gfn) == Region::Grants { &self.grants } else { &self.rest };
        if leaf.key == gfn.0 >> LEVEL_BITS { Some(leaf.table) } else { self.walk(gfn, memory) }
    }

    #[cold]
    fn walk(&mut self, gfn: Gfn, memory: &impl MachineMemory) -> Option<Mfn> {
        if !self.covers(gfn) {
            return None;
        }
        let mut table = self.root;
        for level in (1..self.format.levels()).rev() {
            let entry = memory.load_u64(entry_at(table, gfn, level));
            if !present(entry) {
                return None;
            }
            table = target(entry);
        }
        let leaf = if Region::of(gfn) == Region::Grants { &mut self.grants } else { &mut self.rest };
        *leaf = Leaf { key: gfn.0 >> LEVEL_BITS, table };
        Some(table)
    }

    /// Makes the tables on the way to a vacant page. On failure some may have been made: they are empty, belong to the
    /// tree, and go with it.
    ///
    /// # Errors
    /// [`MapError`] but `Vacant`.
    pub fn prepare<M: Machine>(
        &mut self,
        env: &Env<'_, M>,
        gfn: Gfn,
        budget: &mut TableBudget,
    ) -> Result<Place, MapError> {
        let table = match self.leaf(gfn, env.machine) {
            Some(table) => table,
            None => self.grow(env, gfn, budget)?,
        };
        let place = Place(entry_at(table, gfn, 0));
        if place.entry(env.machine).is_some() { Err(MapError::Occupied) } else { Ok(place) }
    }

    #[cold]
    fn grow<M: Machine>(&mut self, env: &Env<'_, M>, gfn: Gfn, budget: &mut TableBudget) -> Result<Mfn, MapError> {
        if !self.covers(gfn) {
            return Err(MapError::BadAddress);
        }
        let mut table = self.root;
        for level in (1..self.format.levels()).rev() {
            let at = entry_at(table, gfn, level);
            let entry = env.machine.load_u64(at);
            table = if present(entry) {
                target(entry)
            } else {
                let next = budget.allocate(env)?;
                self.store(at, self.format.table(next), env.machine);
                next
            };
        }
        Ok(table)
    }

    /// Maps a page at a vacant place.
    pub fn set(&mut self, place: Place, page: Page, memory: &impl MachineMemory) {
        self.store(place.0, self.format.leaf(page), memory);
    }

    /// Where the entry of a page is, by whichever table.
    pub fn find(&mut self, gfn: Gfn, memory: &impl MachineMemory) -> Option<Place> {
        Some(Place(entry_at(self.leaf(gfn, memory)?, gfn, 0)))
    }

    /// Unmaps a page and tells what was there.
    #[inline(always)]
    pub fn clear(&self, place: Place, memory: &impl MachineMemory) -> Option<Page> {
        let entry = place.entry(memory)?;
        self.wipe(place, memory);
        Some(self.format.page(entry))
    }

    /// Unmaps a page, if there is one.
    #[inline(always)]
    pub fn wipe(&self, place: Place, memory: &impl MachineMemory) {
        self.store(place.0, 0, memory);
    }

    /// What is mapped at a place.
    pub fn get(&self, place: Place, memory: &impl MachineMemory) -> Option<Page> {
        Some(self.format.page(place.entry(memory)?))
    }

    /// The frame of a page of the domain's own memory, if its rights include this access.
    #[inline(always)]
    pub fn private(&self, place: Place, access: Access, memory: &impl MachineMemory) -> Option<Mfn> {
        let entry = memory.load_u64(place.0);
        // A frame of RAM, which has a number of 28 bits.
        self.format.is_private(entry, access).then_some(Mfn(u64::from((entry >> PAGE_SHIFT) as u32)))
    }

    pub(super) fn store(&self, at: Hpa, entry: u64, memory: &impl MachineMemory) {
        memory.store_u64(at, entry);
        if self.format.write_back() {
            memory.write_back(at);
        }
    }
}
