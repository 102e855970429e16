//! Multiboot2 boot information: specification 2.0, section 3.6.

use super::info::{BootInfo, read};
use x86_64::PhysAddr;

const TAG_END: u32 = 0;
const TAG_COMMAND_LINE: u32 = 1;
const TAG_MODULE: u32 = 3;
const TAG_MEMORY_MAP: u32 = 6;
const TAG_ACPI_OLD: u32 = 14;
const TAG_ACPI_NEW: u32 = 15;
/// Bytes of a memory map entry at least.
const ENTRY_BYTES: u64 = 24;

/// Copies the tags that matter.
pub fn read_info(base: u64) -> Option<BootInfo> {
    let mut info = BootInfo { protocol: "Multiboot2", ..BootInfo::default() };
    let end = base + u64::from(read::<u32>(base)?);
    let mut tag = base + 8;
    while tag + 8 <= end {
        let [kind, bytes]: [u32; 2] = read(tag)?;
        let bytes = u64::from(bytes);
        match kind {
            TAG_END => break,
            TAG_COMMAND_LINE => info.set_command_line(tag + 8),
            TAG_MODULE if info.bundle.is_none() => {
                let [start, end] = read::<[u32; 2]>(tag + 8)?.map(u64::from);
                info.bundle = Some(start..end.max(start));
            }
            TAG_MEMORY_MAP => {
                let size = read::<u32>(tag + 8)?.max(ENTRY_BYTES as u32);
                for entry in (tag + 16..=tag + bytes.saturating_sub(ENTRY_BYTES)).step_by(size as usize) {
                    info.add_memory(entry)?;
                }
            }
            // The tag holds a copy of the root pointer.
            TAG_ACPI_OLD if info.rsdp.is_none() => info.rsdp = Some(PhysAddr::new(tag + 8)),
            TAG_ACPI_NEW => info.rsdp = Some(PhysAddr::new(tag + 8)),
            _ => {}
        }
        tag += bytes.max(8).next_multiple_of(8);
    }
    Some(info)
}
