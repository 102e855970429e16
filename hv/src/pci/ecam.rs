//! Configuration space, memory-mapped (PCI Express Base 5.0, 7.2.2), and walking its capability lists with a bound.

use crate::mm::MapError;
use crate::mmio::Registers;
use acpi::mcfg::McfgEntry;
use core::cell::Cell;
use core::ops::RangeInclusive;
use hv_core::pci::Bdf;
use pci_types::{ConfigRegionAccess, PciAddress};
use x86_64::PhysAddr;

/// Bytes of one bus's configuration space.
const BUS_BYTES: u64 = 1 << 20;

/// Configuration space of segment 0.
pub struct Ecam {
    registers: Registers,
    /// Buses that it shows.
    pub buses: RangeInclusive<u8>,
}

/// First byte and bytes of what the MCFG table describes. Its base is that of bus 0, shown or not.
pub fn extent(entry: &McfgEntry) -> (u64, u64) {
    let buses = u64::from(entry.bus_number_end.saturating_sub(entry.bus_number_start)) + 1;
    ({ entry.base_address }.saturating_add(u64::from(entry.bus_number_start) * BUS_BYTES), buses * BUS_BYTES)
}

impl Ecam {
    /// Maps what the MCFG table describes.
    pub fn map(entry: &McfgEntry) -> Result<Self, MapError> {
        let (start, bytes) = extent(entry);
        let start = PhysAddr::try_new(start).map_err(|_| MapError::BadRange)?;
        // SAFETY: firmware says that this range is configuration space, which the chipset decodes, not memory.
        let registers = unsafe { Registers::map(start, bytes)? };
        Ok(Self { registers, buses: entry.bus_number_start..=entry.bus_number_end })
    }

    /// Offset of a register; outside the window for buses that are not shown.
    fn offset(&self, bdf: Bdf, register: u16) -> u64 {
        let function = u64::from(bdf.0).wrapping_sub(u64::from(*self.buses.start()) << 8);
        function.saturating_mul(4096).saturating_add(u64::from(register & 0xffc))
    }

    /// Reads an aligned double word; all ones where nothing answers.
    pub fn read(&self, bdf: Bdf, register: u16) -> u32 {
        self.registers.read32(self.offset(bdf, register))
    }

    /// Writes an aligned double word.
    pub fn write(&self, bdf: Bdf, register: u16, value: u32) {
        self.registers.write32(self.offset(bdf, register), value);
    }

    /// Replaces the bits of `mask` by those of `value`.
    pub fn change(&self, bdf: Bdf, register: u16, mask: u32, value: u32) {
        let current = self.read(bdf, register);
        self.write(bdf, register, current & !mask | value & mask);
    }

    /// For `pci_types`, a few reads' worth.
    pub fn bounded(&self) -> Bounded<'_> {
        Bounded { ecam: self, reads_left: Cell::new(READS_MAX) }
    }

    /// The offset of an extended capability (PCI Express Base 5.0, 7.6).
    pub fn extended_capability(&self, bdf: Bdf, id: u16) -> Option<u16> {
        const FIRST: u16 = 0x100;
        /// As many as fit behind [`FIRST`], each 8 bytes at least.
        const MOST: usize = (4096 - 0x100) / 8;
        let mut at = FIRST;
        for _ in 0..MOST {
            let head = self.read(bdf, at);
            if at < FIRST || head == 0 || head == !0 {
                return None;
            }
            if head as u16 == id {
                return Some(at);
            }
            at = (head >> 20) as u16 & 0xffc;
        }
        None
    }
}

/// Reads that any sane list of capabilities takes at most: 48 of them, and what MSI-X and the header take beyond.
const READS_MAX: u32 = 64;

/// Configuration space that reads as zero after [`READS_MAX`] reads: `pci_types` follows capability lists without a
/// bound, and a zero ends each.
pub struct Bounded<'a> {
    ecam: &'a Ecam,
    reads_left: Cell<u32>,
}

// SAFETY of the functions, which are unsafe to call by the trait's definition: these ask nothing of their callers.
// Every access is inside the window or has no effect, and what it can do is limited to a device in quarantine or
// behind the IOMMU.
impl ConfigRegionAccess for Bounded<'_> {
    unsafe fn read(&self, address: PciAddress, offset: u16) -> u32 {
        let Some(left) = self.reads_left.get().checked_sub(1) else { return 0 };
        self.reads_left.set(left);
        self.ecam.read(from_crate(address), offset)
    }

    unsafe fn write(&self, address: PciAddress, offset: u16, value: u32) {
        self.ecam.write(from_crate(address), offset, value);
    }
}

/// The name that `pci_types` has for a function.
pub fn to_crate(bdf: Bdf) -> PciAddress {
    PciAddress::new(0, bdf.bus(), bdf.device(), bdf.function())
}

fn from_crate(address: PciAddress) -> Bdf {
    Bdf::new(address.bus(), address.device(), address.function())
}
