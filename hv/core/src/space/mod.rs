//! Address spaces: what a domain, and its devices, can reach at each guest address.
//!
//! [`AddressSpace`] is a CPU table and, for a driver domain, an IOMMU table with the same pages at the same addresses.
//! Both are the one radix table of `table.rs` in two formats. Mapping is two-phase: first the page tables on the way
//! are made (may fail, harmless), then the entries are written (cannot fail). Unmapping gives an [`Unmapped`] token
//! that must be flushed before the frame behind it can be let go (`unmapped.rs`).

mod format;
pub(crate) mod guest;
mod table;
mod teardown;
mod unmapped;

pub use format::VtdFormat;
pub use guest::Fault;
pub use teardown::{Progress, Teardown};
pub use unmapped::{Flushed, FlushedRun, RUN_MAX, Unmapped, UnmappedRun};

use crate::ids::{DomId, Gfn, Mfn, Slot};
use crate::machine::{FlushScope, Machine, MachineMemory};
use crate::{domain::Env, frames::FrameTable};
use format::NativeFormat;
use table::{Place, RadixTable, TableBudget};

/// What a mapping allows. Write and execute exclude each other in native domains.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Rights {
    /// Data that may be read.
    Read,
    /// Data that may be read and written.
    ReadWrite,
    /// Code.
    ReadExecute,
    /// A guest's memory, whose own page tables tell code from data.
    All,
}

impl Rights {
    /// Whether writing is allowed.
    pub const fn writable(self) -> bool {
        matches!(self, Rights::ReadWrite | Rights::All)
    }
}

/// What a page is wanted for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Access {
    /// Reading only.
    Read,
    /// Reading and writing.
    Write,
}

/// Which last-level tables an operation may need.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Tables {
    /// Those of the CPU that were used lately. The operation fails, and does nothing, if it needs others.
    Remembered,
    /// Any, found by a walk; the IOMMU's too.
    All,
}

/// Whose page a mapping shows, and so what unmapping has to do.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum PageKind {
    /// The domain's own memory: released with the mapping.
    Private = 0,
    /// Another domain's, by grant: the mapping holds a pin.
    Foreign = 1,
    /// Registers of a device: uncached, no frame of the table.
    Device = 2,
    /// The hypervisor's and shared with this domain: shared info, grant table.
    Shared = 3,
    /// The hypervisor's, lent to read: the boot bundle.
    Lent = 4,
}

/// A mapped page.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Page {
    /// The frame.
    pub mfn: Mfn,
    /// What the owner of the space may do with it.
    pub rights: Rights,
    /// Whose it is.
    pub kind: PageKind,
}

/// Why a page could not be mapped or unmapped.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum MapError {
    /// Something is mapped there.
    Occupied,
    /// Nothing is mapped there.
    Vacant,
    /// Not an address of a domain.
    BadAddress,
    /// No frame for a page table: the machine's memory or the domain's share of page tables is used up.
    NoMemory,
}

impl From<MapError> for crate::error::Errno {
    fn from(error: MapError) -> Self {
        use crate::error::Errno;
        match error {
            MapError::Occupied => Errno::EEXIST,
            MapError::Vacant => Errno::ENOENT,
            MapError::BadAddress => Errno::EINVAL,
            MapError::NoMemory => Errno::ENOMEM,
        }
    }
}

/// First frame number that no domain can have mapped (`native::ADDRESS_LIMIT`).
pub const GFN_LIMIT: Gfn = Gfn(xen_abi::native::ADDRESS_LIMIT >> 12);

/// A vacant page whose page tables are made.
#[derive(Debug)]
#[must_use = "nothing is mapped yet"]
pub struct Prepared {
    cpu: Place,
    iommu: Option<Place>,
}

/// What a domain and its devices can reach.
pub struct AddressSpace {
    domain: DomId,
    cpu: RadixTable<NativeFormat>,
    iommu: Option<RadixTable<VtdFormat>>,
    budget: TableBudget,
}

impl AddressSpace {
    /// An empty space with one page table, or two: `iommu` gives the second one's format to domains that drive
    /// devices. `tables_max` bounds the frames that page tables may use.
    ///
    /// # Errors
    /// [`MapError::NoMemory`].
    pub fn new<M: Machine>(
        env: &Env<'_, M>,
        domain: DomId,
        slot: Slot,
        tables_max: u32,
        iommu: Option<VtdFormat>,
    ) -> Result<Self, MapError> {
        let mut budget = TableBudget::new(slot, tables_max);
        let cpu = RadixTable::new(env, NativeFormat, &mut budget)?;
        let iommu = match iommu.map(|format| RadixTable::new(env, format, &mut budget)).transpose() {
            Ok(iommu) => iommu,
            Err(error) => {
                budget.free(cpu.root, env.frames);
                return Err(error);
            }
        };
        Ok(Self { domain, cpu, iommu, budget })
    }

    /// Gives back the root tables of a space that nothing was ever mapped in, or that was taken down.
    pub(crate) fn discard_empty(mut self, frames: &FrameTable) {
        self.budget.free(self.cpu.root, frames);
        if let Some(iommu) = self.iommu {
            self.budget.free(iommu.root, frames);
        }
    }

    /// The CPU table's root, for CR3 (or nCR3).
    pub fn cpu_root(&self) -> Mfn {
        self.cpu.root
    }

    /// The IOMMU table's root, for the context entry; `None` when the domain cannot have devices.
    pub fn iommu_root(&self) -> Option<Mfn> {
        self.iommu.as_ref().map(|iommu| iommu.root)
    }

    /// Frames that the page tables use.
    pub fn tables(&self) -> u32 {
        self.budget.used
    }

    /// Lets page tables use `more` frames: for the registers of devices that the domain may have.
    pub fn allow_tables(&mut self, more: u32) {
        self.budget.limit = self.budget.limit.saturating_add(more);
    }

    /// Which caches an unmapping has to flush.
    pub fn scope(&self) -> FlushScope {
        if self.iommu.is_some() { FlushScope::CpuAndIommu } else { FlushScope::Cpu }
    }

    /// First phase of a mapping: makes the page tables on the way to a vacant page. Harmless if nothing follows.
    /// Device registers are mapped for the CPU only.
    ///
    /// # Errors
    /// [`MapError`]; nothing is mapped then.
    pub fn prepare<M: Machine>(&mut self, env: &Env<'_, M>, gfn: Gfn, kind: PageKind) -> Result<Prepared, MapError> {
        self.prepare_by(Tables::All, env, gfn, kind)
    }

    /// The same by these tables.
    ///
    /// # Errors
    /// As above, if `tables` are all.
    #[inline(always)]
    pub fn prepare_by<M: Machine>(
        &mut self,
        tables: Tables,
        env: &Env<'_, M>,
        gfn: Gfn,
        kind: PageKind,
    ) -> Result<Prepared, MapError> {
        if tables == Tables::Remembered && self.iommu.is_some() {
            return Err(MapError::NoMemory);
        }
        let cpu = self.cpu.prepare(tables, env, gfn, &mut self.budget)?;
        if tables == Tables::Remembered {
            return Ok(Prepared { cpu, iommu: None });
        }
        let iommu = if self.iommu.is_some() { self.prepare_iommu(&env.copied(), gfn, kind)? } else { None };
        Ok(Prepared { cpu, iommu })
    }

    #[inline(never)]
    fn prepare_iommu<M: Machine>(
        &mut self,
        env: &Env<'_, M>,
        gfn: Gfn,
        kind: PageKind,
    ) -> Result<Option<Place>, MapError> {
        match &mut self.iommu {
            Some(iommu) if kind != PageKind::Device => iommu.prepare(Tables::All, env, gfn, &mut self.budget).map(Some),
            _ => Ok(None),
        }
    }

    /// Second phase: makes the page reachable. Nothing may have been mapped since [`Self::prepare`].
    #[inline(always)]
    pub fn commit(&mut self, prepared: Prepared, page: Page, memory: &impl MachineMemory) {
        if let Some(place) = prepared.iommu
            && let Some(iommu) = &mut self.iommu
        {
            iommu.set(place, page, memory);
        }
        self.cpu.set(prepared.cpu, page, memory);
    }

    /// Both phases.
    ///
    /// # Errors
    /// [`MapError`]; nothing is mapped then.
    pub fn map<M: Machine>(&mut self, env: &Env<'_, M>, gfn: Gfn, page: Page) -> Result<(), MapError> {
        let prepared = self.prepare(env, gfn, page.kind)?;
        self.commit(prepared, page, env.machine);
        Ok(())
    }

    /// Ends a mapping. The token must be flushed.
    ///
    /// # Errors
    /// [`MapError::Vacant`].
    pub fn unmap(&mut self, gfn: Gfn, memory: &impl MachineMemory) -> Result<Unmapped, MapError> {
        self.unmap_by(Tables::All, gfn, memory)
    }

    /// The same by these tables.
    ///
    /// # Errors
    /// As above, if `tables` are all.
    #[inline(always)]
    pub fn unmap_by(&mut self, tables: Tables, gfn: Gfn, memory: &impl MachineMemory) -> Result<Unmapped, MapError> {
        if tables == Tables::Remembered && self.iommu.is_some() {
            return Err(MapError::Vacant);
        }
        let page = self.cpu.clear(tables, gfn, memory).ok_or(MapError::Vacant)?;
        let scope = if tables == Tables::Remembered { FlushScope::Cpu } else { self.scope() };
        if scope == FlushScope::CpuAndIommu {
            self.clear_iommu(gfn, memory);
        }
        Ok(Unmapped { domain: self.domain, gfn, page, scope })
    }

    /// Ends a mapping as part of a run of pages that are flushed together.
    ///
    /// # Errors
    /// [`MapError::Vacant`]; [`MapError::BadAddress`]: the run is another domain's. [`MapError::NoMemory`]: it is full.
    #[inline(always)]
    pub fn unmap_in(&mut self, run: &mut UnmappedRun, gfn: Gfn, memory: &impl MachineMemory) -> Result<(), MapError> {
        if run.domain != self.domain {
            return Err(MapError::BadAddress);
        }
        run.pages.push(gfn).map_err(|_| MapError::NoMemory)?;
        self.cpu.clear(Tables::All, gfn, memory).ok_or(MapError::Vacant)?;
        if self.iommu.is_some() {
            run.scope = FlushScope::CpuAndIommu;
            self.clear_iommu(gfn, memory);
        }
        Ok(())
    }

    #[inline(never)]
    fn clear_iommu(&mut self, gfn: Gfn, memory: &impl MachineMemory) {
        let _device_pages_have_none = self.iommu.as_mut().and_then(|iommu| iommu.clear(Tables::All, gfn, memory));
    }

    /// What is mapped at a page.
    pub fn translate(&mut self, gfn: Gfn, memory: &impl MachineMemory) -> Option<Page> {
        self.cpu.get(gfn, memory)
    }

    /// The frame of a page of the domain's own memory, if its rights include this access.
    pub fn private(&mut self, gfn: Gfn, access: Access, memory: &impl MachineMemory) -> Option<Mfn> {
        self.private_by(Tables::All, gfn, access, memory)
    }

    /// The same by these tables.
    #[inline(always)]
    pub fn private_by(&mut self, tables: Tables, gfn: Gfn, access: Access, memory: &impl MachineMemory) -> Option<Mfn> {
        self.cpu.private(tables, gfn, access, memory)
    }
}

#[cfg(test)]
mod tests;
