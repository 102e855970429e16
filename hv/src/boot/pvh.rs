//! The PVH boot protocol's information: Xen public `arch-x86/hvm/start_info.h`, `hvm_start_info`.

use super::info::{BootInfo, read_u32, read_u64};
use x86_64::PhysAddr;

/// `hvm_start_info.magic`.
pub const MAGIC: u32 = 0x336e_c578;

const NR_MODULES: u64 = 12;
const MODLIST: u64 = 16;
const COMMAND_LINE: u64 = 24;
const RSDP: u64 = 32;
const MEMMAP: u64 = 40;
const MEMMAP_ENTRIES: u64 = 48;
/// Bytes of `hvm_memmap_table_entry`.
const MEMMAP_ENTRY: u64 = 24;
const TYPE_RAM: u32 = 1;

/// Copies `hvm_start_info` (version 1: with a memory map).
pub fn read(base: u64) -> Option<BootInfo> {
    let mut info = BootInfo { protocol: "PVH", ..BootInfo::default() };
    if read_u32(base + NR_MODULES)? > 0 {
        let list = read_u64(base + MODLIST)?;
        info.bundle = Some((PhysAddr::try_new(read_u64(list)?).ok()?, read_u64(list.checked_add(8)?)?));
    }
    let command_line = read_u64(base + COMMAND_LINE)?;
    if command_line != 0 {
        info.set_command_line(command_line);
    }
    info.rsdp = Some(read_u64(base + RSDP)?).filter(|at| *at != 0).and_then(|at| PhysAddr::try_new(at).ok());
    let table = read_u64(base + MEMMAP)?;
    for index in 0..u64::from(read_u32(base + MEMMAP_ENTRIES)?.min(256)) {
        let entry = table.checked_add(index * MEMMAP_ENTRY)?;
        if read_u32(entry.checked_add(16)?)? == TYPE_RAM {
            info.add_ram(read_u64(entry)?, read_u64(entry.checked_add(8)?)?);
        }
    }
    Some(info)
}
