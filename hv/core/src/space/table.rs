//! The radix table: 512 entries of 8 bytes a level, in whichever format.

use super::format::{present, target};
use super::{Access, GFN_LIMIT, MapError, Page, Tables, format::TableFormat};
use crate::domain::Env;
use crate::frames::{FrameTable, Purpose};
use crate::ids::{Gfn, Hpa, Mfn, Slot};
use crate::machine::{Machine, MachineMemory};

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
#[must_use = "nothing is mapped yet"]
pub(super) struct Place(Hpa);

/// A last-level table that was used lately: a key of the pages it is for, and where it is.
#[derive(Clone, Copy, Debug)]
struct Leaf {
    key: u64,
    table: Mfn,
}

/// No page has this key.
const NO_LEAF: Leaf = Leaf { key: u64::MAX, table: Mfn(0) };
/// One for a domain's own memory, one for the grant window: the walks of one do not push the other out.
const LEAVES: usize = 2;
const LEAF_SHIFT: u32 = (xen_abi::native::GRANT_WINDOW >> 12).trailing_zeros();

/// A page table tree. Tables are freed with the tree only, so what `leaves` remembers stays true.
#[derive(Debug)]
pub(super) struct RadixTable<F> {
    pub(super) format: F,
    pub(super) root: Mfn,
    leaves: [Leaf; LEAVES],
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
        Ok(Self { format, root, leaves: [NO_LEAF; LEAVES] })
    }

    /// Whether the table has a place for this page at all. What is remembered was asked about.
    fn covers(&self, gfn: Gfn) -> bool {
        gfn < GFN_LIMIT && gfn.0 >> LEVEL_BITS.wrapping_mul(self.format.levels()) == 0
    }

    /// The last-level table for a page, from memory or by a walk that remembers it.
    #[inline(always)]
    fn leaf(&mut self, tables: Tables, gfn: Gfn, memory: &impl MachineMemory) -> Option<Mfn> {
        let key = gfn.0 >> LEVEL_BITS;
        let remembered = self.leaves.get((gfn.0 >> LEAF_SHIFT) as usize % LEAVES);
        match remembered.filter(|leaf| leaf.key == key) {
            Some(leaf) => Some(leaf.table),
            None if tables == Tables::All => self.walk(gfn, memory),
            None => None,
        }
    }

    #[cold]
    #[inline(never)]
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
        if let Some(leaf) = self.leaves.get_mut((gfn.0 >> LEAF_SHIFT) as usize % LEAVES) {
            *leaf = Leaf { key: gfn.0 >> LEVEL_BITS, table };
        }
        Some(table)
    }

    /// Makes the tables on the way to a vacant page. On failure some may have been made: they are empty, belong to the
    /// tree, and go with it.
    ///
    /// # Errors
    /// [`MapError`] but `Vacant`.
    #[inline(always)]
    pub fn prepare<M: Machine>(
        &mut self,
        tables: Tables,
        env: &Env<'_, M>,
        gfn: Gfn,
        budget: &mut TableBudget,
    ) -> Result<Place, MapError> {
        let table = match self.leaf(tables, gfn, env.machine) {
            Some(table) => table,
            None if tables == Tables::Remembered => return Err(MapError::NoMemory),
            None => self.grow(&env.copied(), gfn, budget)?,
        };
        let at = entry_at(table, gfn, 0);
        if present(env.machine.load_u64(at)) {
            return Err(MapError::Occupied);
        }
        Ok(Place(at))
    }

    #[cold]
    #[inline(never)]
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

    /// Maps a page at a place that [`Self::prepare`] gave.
    pub fn set(&mut self, place: Place, page: Page, memory: &impl MachineMemory) {
        self.store(place.0, self.format.leaf(page), memory);
    }

    /// Unmaps a page and tells what was there.
    #[inline(always)]
    pub fn clear(&mut self, tables: Tables, gfn: Gfn, memory: &impl MachineMemory) -> Option<Page> {
        let (at, page) = self.find(tables, gfn, memory)?;
        self.store(at, 0, memory);
        Some(page)
    }

    /// What is mapped at a page.
    pub fn get(&mut self, gfn: Gfn, memory: &impl MachineMemory) -> Option<Page> {
        self.find(Tables::All, gfn, memory).map(|(_, page)| page)
    }

    /// The frame of a page of the domain's own memory, if its rights include this access.
    #[inline(always)]
    pub fn private(&mut self, tables: Tables, gfn: Gfn, access: Access, memory: &impl MachineMemory) -> Option<Mfn> {
        let entry = memory.load_u64(entry_at(self.leaf(tables, gfn, memory)?, gfn, 0));
        self.format.is_private(entry, access).then_some(target(entry))
    }

    #[inline(always)]
    fn find(&mut self, tables: Tables, gfn: Gfn, memory: &impl MachineMemory) -> Option<(Hpa, Page)> {
        let at = entry_at(self.leaf(tables, gfn, memory)?, gfn, 0);
        let entry = memory.load_u64(at);
        present(entry).then(|| (at, self.format.page(entry)))
    }

    pub(super) fn store(&self, at: Hpa, entry: u64, memory: &impl MachineMemory) {
        memory.store_u64(at, entry);
        if self.format.write_back() {
            memory.write_back(at);
        }
    }
}
