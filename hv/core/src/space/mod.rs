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
use table::{Place, RadixTable, Region, TableBudget};

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
        let iommu = iommu.map(|format| RadixTable::new(env, format, &mut budget)).transpose();
        let iommu = iommu.inspect_err(|_| budget.free(cpu.root, env.frames))?;
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
        let cpu = self.cpu.prepare(env, gfn, &mut self.budget)?;
        let iommu = match &mut self.iommu {
            Some(iommu) if kind != PageKind::Device => Some(iommu.prepare(env, gfn, &mut self.budget)?),
            _ => None,
        };
        Ok(Prepared { cpu, iommu })
    }

    /// The same for a place in the grant window by the tables that are remembered for that. `None`: it is elsewhere, or
    /// occupied; nothing was done.
    #[inline(always)]
    pub fn prepare_near(&self, gfn: Gfn, memory: &impl MachineMemory) -> Option<Prepared> {
        let vacant = |place: &Place| place.entry(memory).is_none();
        let cpu = self.cpu.near(Region::Grants, gfn).filter(vacant)?;
        let iommu = match &self.iommu {
            Some(iommu) => Some(iommu.near(Region::Grants, gfn).filter(vacant)?),
            None => None,
        };
        Some(Prepared { cpu, iommu })
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
        let place = self.cpu.find(gfn, memory).ok_or(MapError::Vacant)?;
        let page = self.cpu.clear(place, memory).ok_or(MapError::Vacant)?;
        if let Some(iommu) = &mut self.iommu {
            let _device_pages_have_none = iommu.find(gfn, memory).and_then(|place| iommu.clear(place, memory));
        }
        Ok(Unmapped { domain: self.domain, gfn, page, scope: self.scope() })
    }

    /// The same for a page in the grant window by the tables that are remembered for that. `None`: it is elsewhere, or
    /// nothing is mapped there; nothing was done.
    #[inline(always)]
    pub fn unmap_near(&mut self, gfn: Gfn, memory: &impl MachineMemory) -> Option<Unmapped> {
        let cpu = self.cpu.near(Region::Grants, gfn)?;
        let (page, scope) = match &self.iommu {
            None => (self.cpu.clear(cpu, memory)?, FlushScope::Cpu),
            Some(iommu) => {
                let place = iommu.near(Region::Grants, gfn)?;
                let page = self.cpu.clear(cpu, memory)?;
                iommu.wipe(place, memory);
                (page, FlushScope::CpuAndIommu)
            }
        };
        Some(Unmapped { domain: self.domain, gfn, page, scope })
    }

    /// What is mapped at a page.
    pub fn translate(&mut self, gfn: Gfn, memory: &impl MachineMemory) -> Option<Page> {
        let place = self.cpu.find(gfn, memory)?;
        self.cpu.get(place, memory)
    }

    /// The frame of a page of the domain's own memory, if its rights include this access.
    pub fn private(&mut self, gfn: Gfn, access: Access, memory: &impl MachineMemory) -> Option<Mfn> {
        let place = self.cpu.find(gfn, memory)?;
        self.cpu.private(place, access, memory)
    }

    /// The same by the table that is remembered. `None`: it is elsewhere, or not to be used so.
    #[inline(always)]
    pub fn private_near(&self, gfn: Gfn, access: Access, memory: &impl MachineMemory) -> Option<Mfn> {
        self.cpu.private(self.cpu.near(Region::Rest, gfn)?, access, memory)
    }
}

#[cfg(test)]
mod tests;
