//! What the boot loader told, copied out of low memory before anything reuses it.

use super::{multiboot2, pvh};
use crate::mm::layout;
use heapless::{String, Vec};
use x86_64::PhysAddr;

/// Regions of the firmware's memory map at most; more are ignored (RAM in them is not used).
pub const REGIONS_MAX: usize = 64;
/// Command line bytes at most.
pub const COMMAND_LINE_MAX: usize = 512;
/// The early tables show physical memory up to here; what the boot loader hands over must lie below.
const EARLY_LIMIT: u64 = 4 << 30;

/// A run of RAM.
#[derive(Clone, Copy, Debug)]
pub struct Region {
    /// First byte.
    pub start: u64,
    /// One past the last byte.
    pub end: u64,
}

/// The boot loader's information.
#[derive(Default)]
pub struct BootInfo {
    /// "PVH" or "Multiboot2".
    pub protocol: &'static str,
    /// RAM for general use, as the firmware's memory map says.
    pub regions: Vec<Region, REGIONS_MAX>,
    /// The hypervisor's command line.
    pub command_line: String<COMMAND_LINE_MAX>,
    /// The bundle: physical address and bytes.
    pub bundle: Option<(PhysAddr, u64)>,
    /// Where the boot loader's own structures lie that are still needed: physical address and bytes.
    pub loader: Option<(PhysAddr, u64)>,
    /// ACPI's root pointer, when the loader knows it.
    pub rsdp: Option<PhysAddr>,
}

impl BootInfo {
    /// Reads what the loader left at `address`. `None`: neither protocol's magic is there.
    pub fn read(eax: u32, address: u32) -> Option<Self> {
        if read_u32(u64::from(address)) == Some(pvh::MAGIC) {
            pvh::read(u64::from(address))
        } else if eax == super::entry::MULTIBOOT2_MAGIC {
            multiboot2::read(u64::from(address))
        } else {
            None
        }
    }

    /// Adds RAM from the firmware's memory map.
    pub(super) fn add_ram(&mut self, start: u64, bytes: u64) {
        let end = start.saturating_add(bytes).min(layout::DIRECT_MAP_BYTES);
        if start < end {
            // A map with more regions than we keep costs RAM, not safety.
            let _ = self.regions.push(Region { start, end });
        }
    }

    /// Copies the NUL-terminated command line at `address`.
    pub(super) fn set_command_line(&mut self, address: u64) {
        let text = (address..).map_while(read::<1>).map(|[byte]| byte).take_while(|byte| matches!(byte, 0x20..=0x7e));
        self.command_line = text.take(COMMAND_LINE_MAX).map(char::from).collect();
    }

    /// The value of `name` or `name=value` on the command line.
    pub fn option(&self, name: &str) -> Option<&str> {
        self.command_line.split_ascii_whitespace().find_map(|word| {
            let (key, value) = word.split_once('=').unwrap_or((word, ""));
            (key == name).then_some(value)
        })
    }
}

/// Reads bytes of physical memory during boot.
fn read<const BYTES: usize>(address: u64) -> Option<[u8; BYTES]> {
    if address > EARLY_LIMIT - BYTES as u64 {
        return None;
    }
    let pointer = layout::direct(PhysAddr::new(address)).as_ptr::<[u8; BYTES]>();
    // SAFETY: the early tables map all physical addresses below EARLY_LIMIT in the direct map, readable; bytes need no
    // alignment; no Rust object lies there whose reference this could break, as it only reads.
    Some(unsafe { pointer.read_volatile() })
}

/// Reads four bytes, little-endian.
pub(super) fn read_u32(address: u64) -> Option<u32> {
    read(address).map(u32::from_le_bytes)
}

/// Reads eight bytes, little-endian.
pub(super) fn read_u64(address: u64) -> Option<u64> {
    read(address).map(u64::from_le_bytes)
}
