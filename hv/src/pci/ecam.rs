//! Configuration space, memory-mapped (PCI Express Base 5.0, 7.2.2), and walking its capability lists with a bound.

use crate::acpi::EcamInfo;
use crate::mm::MapError;
use crate::mmio::Registers;
use core::cell::Cell;
use hv_core::pci::Bdf;
use pci_types::{ConfigRegionAccess, PciAddress};
use x86_64::PhysAddr;

/// Bytes of one bus's configuration space.
const BUS_BYTES: u64 = 1 << 20;

/// Configuration space of segment 0.
pub struct Ecam {
    registers: Registers,
    /// First bus that it shows.
    pub first_bus: u8,
    /// Last bus that it shows.
    pub last_bus: u8,
}

impl Ecam {
    /// Maps what the MCFG table describes.
    pub fn map(info: &EcamInfo) -> Result<Self, MapError> {
        let buses = u64::from(info.last_bus.saturating_sub(info.first_bus)) + 1;
        // MCFG's base is that of bus 0, shown or not.
        let base = info.base.checked_add(u64::from(info.first_bus) * BUS_BYTES).ok_or(MapError::BadRange)?;
        let start = PhysAddr::try_new(base).map_err(|_| MapError::BadRange)?;
        // SAFETY: firmware says that this range is configuration space, which the chipset decodes, not memory.
        let registers = unsafe { Registers::map(start, buses * BUS_BYTES)? };
        Ok(Self { registers, first_bus: info.first_bus, last_bus: info.last_bus })
    }

    /// Offset of a register; outside the window for buses that are not shown.
    fn offset(&self, bdf: Bdf, register: u16) -> u64 {
        let function = u64::from(bdf.0).wrapping_sub(u64::from(self.first_bus) << 8);
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

// SAFETY of both impls: the trait's functions are unsafe to call, and these ask nothing of their callers: every access
// is inside the window or has no effect, and what it can do is limited to devices in quarantine or by the IOMMU.
impl ConfigRegionAccess for Ecam {
    unsafe fn read(&self, address: PciAddress, offset: u16) -> u32 {
        Ecam::read(self, from_crate(address), offset)
    }

    unsafe fn write(&self, address: PciAddress, offset: u16, value: u32) {
        Ecam::write(self, from_crate(address), offset, value);
    }
}

/// Configuration space that reads as zero after a number of reads: `pci_types` follows capability lists without a
/// bound, and a zero ends each.
pub struct Bounded<'a> {
    ecam: &'a Ecam,
    reads_left: Cell<u32>,
}

/// Reads that any sane list of capabilities takes at most: 48 of them, and what MSI-X reads beyond.
const READS_MAX: u32 = 64;

impl<'a> Bounded<'a> {
    /// A fresh budget.
    pub fn new(ecam: &'a Ecam) -> Self {
        Self { ecam, reads_left: Cell::new(READS_MAX) }
    }
}

impl ConfigRegionAccess for Bounded<'_> {
    unsafe fn read(&self, address: PciAddress, offset: u16) -> u32 {
        match self.reads_left.get().checked_sub(1) {
            Some(left) => {
                self.reads_left.set(left);
                Ecam::read(self.ecam, from_crate(address), offset)
            }
            None => 0,
        }
    }

    unsafe fn write(&self, address: PciAddress, offset: u16, value: u32) {
        Ecam::write(self.ecam, from_crate(address), offset, value);
    }
}

/// The name that `pci_types` has for a function.
pub fn to_crate(bdf: Bdf) -> PciAddress {
    PciAddress::new(0, bdf.bus(), bdf.device(), bdf.function())
}

fn from_crate(address: PciAddress) -> Bdf {
    Bdf::new(address.bus(), address.device(), address.function())
}
