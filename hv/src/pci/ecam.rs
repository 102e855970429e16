//! Configuration space, memory-mapped (PCI Express Base 5.0, 7.2.2), and walks over its lists of capabilities.

use super::{Bdf, Command, Registers};
use acpi::mcfg::McfgEntry;
use core::ops::RangeInclusive;
use hv_core::{ids::Hpa, space::MapError};
use pci_types::StatusRegister;

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
        // SAFETY: firmware says that this range is configuration space, which the chipset decodes, not memory.
        let registers = unsafe { Registers::map(Hpa(start), bytes)? };
        Ok(Self { registers, buses: entry.bus_number_start..=entry.bus_number_end })
    }

    /// Configuration space of one function; outside the window for buses that are not shown.
    pub fn function(&self, bdf: Bdf) -> Config {
        let number = u64::from(bdf.0).wrapping_sub(u64::from(*self.buses.start()) << 8);
        Config { registers: self.registers, start: number.saturating_mul(4096) }
    }
}

/// Configuration space of one function.
#[derive(Clone, Copy, Debug)]
pub struct Config {
    registers: Registers,
    start: u64,
}

impl Config {
    fn offset(&self, register: u16) -> u64 {
        self.start.saturating_add(u64::from(register & 0xffc))
    }

    /// Reads an aligned double word; all ones where nothing answers.
    pub fn read(&self, register: u16) -> u32 {
        self.registers.read32(self.offset(register))
    }

    /// Writes an aligned double word.
    pub fn write(&self, register: u16, value: u32) {
        self.registers.write32(self.offset(register), value);
    }

    /// Replaces the bits of `mask` by those of `value`.
    pub fn change(&self, register: u16, mask: u32, value: u32) {
        let current = self.read(register);
        self.write(register, current & !mask | value & mask);
    }

    /// Sets the command register. Writing zeros to status, its upper half, changes nothing there.
    pub fn command(&self, command: Command) {
        self.write(4, command.bits().into());
    }

    /// Follows a list of capabilities, with a bound should it lead in a circle: offset and first double word of each.
    fn list(&self, first: u16, lowest: u16, next: fn(u32) -> u16) -> impl Iterator<Item = (u16, u32)> {
        /// As many as fit, 8 bytes each at least.
        const MOST: usize = 4096 / 8;
        let entry = move |at| (at >= lowest).then(|| (at, self.read(at)));
        core::iter::successors(entry(first), move |(_, head)| entry(next(*head))).take(MOST)
    }

    /// Offset and first double word of each capability (PCI Local Bus 3.0, 6.7). The id is the lowest byte.
    pub fn capabilities(&self) -> impl Iterator<Item = (u16, u32)> {
        let listed = StatusRegister::new((self.read(4) >> 16) as u16).has_capability_list();
        let first = if listed { self.read(0x34) as u16 & 0xfc } else { 0 };
        self.list(first, 0x40, |head| (head >> 8) as u16 & 0xfc)
    }

    /// The offset of an extended capability (PCI Express Base 5.0, 7.6).
    pub fn extended_capability(&self, id: u16) -> Option<u16> {
        let mut all = self.list(0x100, 0x100, |head| (head >> 20) as u16 & 0xffc);
        all.find(|(_, head)| *head as u16 == id).map(|(at, _)| at)
    }
}
