//! What the boot loader told, copied out of low memory before anything reuses it.

use super::{multiboot2, pvh};
use crate::mm::layout;
use heapless::{String, Vec};
use x86_64::PhysAddr;
use zerocopy::FromBytes;

/// Regions of the firmware's memory map at most; more are ignored (RAM in them is not used).
pub const REGIONS_MAX: usize = 64;
/// Command line bytes at most.
pub const COMMAND_LINE_MAX: usize = 512;

/// Type of RAM in the firmware's memory map.
const TYPE_RAM: u32 = 1;

/// A run of physical memory.
pub type Region = core::ops::Range<u64>;

/// The boot loader's information.
#[derive(Default)]
pub struct BootInfo {
    /// "PVH" or "Multiboot2".
    pub protocol: &'static str,
    /// RAM for general use, as the firmware's memory map says.
    pub regions: Vec<Region, REGIONS_MAX>,
    /// The hypervisor's command line.
    pub command_line: String<COMMAND_LINE_MAX>,
    /// The bundle.
    pub bundle: Option<Region>,
    /// ACPI's root pointer, when the loader knows it.
    pub rsdp: Option<PhysAddr>,
}

impl BootInfo {
    /// Reads what the loader left at `address`. `None`: neither protocol's magic is there.
    pub fn read(eax: u32, address: u32) -> Option<Self> {
        let address = u64::from(address);
        match read(address)? {
            pvh::MAGIC => pvh::read_info(address),
            _ if eax == super::entry::MULTIBOOT2_MAGIC => multiboot2::read_info(address),
            _ => None,
        }
    }

    /// Adds what the memory map's entry at `entry` describes, if that is RAM. Both protocols hand on the firmware's
    /// entries: first byte and bytes (64 bits each), type (32 bits).
    pub(super) fn add_memory(&mut self, entry: u64) -> Option<()> {
        let [start, bytes, kind]: [u64; 3] = read(entry)?;
        let end = start.saturating_add(bytes).min(layout::DIRECT_MAP_BYTES);
        if kind as u32 == TYPE_RAM && start < end {
            // A map with more regions than we keep costs RAM, not safety.
            let _ = self.regions.push(start..end);
        }
        Some(())
    }

    /// Copies the NUL-terminated command line at `address`.
    pub(super) fn set_command_line(&mut self, address: u64) {
        let text = (address..).map_while(read::<u8>).take_while(|byte| matches!(byte, 0x20..=0x7e));
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

/// Reads physical memory during boot.
pub(super) fn read<T: FromBytes>(address: u64) -> Option<T> {
    if address > layout::EARLY_LIMIT - size_of::<T>() as u64 {
        return None;
    }
    let pointer = layout::direct(PhysAddr::new(address)).as_ptr::<T>();
    // SAFETY: the early tables map all physical addresses below EARLY_LIMIT in the direct map, readable; any bytes are a
    // value of `T`; no Rust object lies there whose reference this could break, as it only reads.
    Some(unsafe { pointer.read_unaligned() })
}
