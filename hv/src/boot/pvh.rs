//! The PVH boot protocol's information: Xen public `arch-x86/hvm/start_info.h`, `hvm_start_info`.

use super::info::{BootInfo, read};
use x86_64::PhysAddr;

/// `hvm_start_info.magic`.
pub const MAGIC: u32 = 0x336e_c578;

/// Bytes of `hvm_memmap_table_entry`.
const MEMMAP_ENTRY: u64 = 24;

/// Copies `hvm_start_info` (version 1: with a memory map).
pub fn read_info(base: u64) -> Option<BootInfo> {
    let mut info = BootInfo { protocol: "PVH", ..BootInfo::default() };
    // `nr_modules` is the upper half of the second word, `memmap_entries` the lower half of the last.
    let [_, modules, list, command_line, rsdp, table, entries]: [u64; 7] = read(base)?;
    if modules >> 32 > 0 {
        let [start, bytes]: [u64; 2] = read(list)?;
        info.bundle = Some(start..start.saturating_add(bytes));
    }
    if command_line != 0 {
        info.set_command_line(command_line);
    }
    info.rsdp = Some(rsdp).filter(|at| *at != 0).and_then(|at| PhysAddr::try_new(at).ok());
    for index in 0..u64::from(entries as u32).min(256) {
        info.add_memory(table.checked_add(index * MEMMAP_ENTRY)?)?;
    }
    Some(info)
}
