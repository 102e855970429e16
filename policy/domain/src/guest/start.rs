//! The start info of a virtual machine, and what goes with it: memory map, list of modules, command line.

use alloc::vec::Vec;

use xen_abi::start_info::{HvmMemmapTableEntry, HvmModlistEntry, HvmStartInfo, XEN_HVM_START_MAGIC_VALUE};
use zerocopy::IntoBytes;

use super::layout::Layout;

/// Entries of a memory map at most.
const MAP_ENTRIES_MAX: usize = 4;
const MAP: usize = size_of::<HvmStartInfo>();
const MODULES: usize = MAP + MAP_ENTRIES_MAX * size_of::<HvmMemmapTableEntry>();
const COMMAND_LINE: usize = MODULES + size_of::<HvmModlistEntry>();

/// Bytes that [`block`] makes.
pub fn block_bytes(command_line: &str) -> u64 {
    (COMMAND_LINE + command_line.len() + 1) as u64
}

/// The bytes that belong at `layout.start`.
pub fn block(layout: &Layout, command_line: &str) -> Vec<u8> {
    let address = |offset: usize| layout.start + offset as u64;
    let map = layout.memory_map();
    let initrd = layout.initrd.as_ref();
    let start = HvmStartInfo {
        magic: XEN_HVM_START_MAGIC_VALUE,
        version: 1,
        flags: 0,
        nr_modules: initrd.is_some().into(),
        modlist_paddr: if initrd.is_some() { address(MODULES) } else { 0 },
        cmdline_paddr: address(COMMAND_LINE),
        rsdp_paddr: layout.acpi,
        memmap_paddr: address(MAP),
        memmap_entries: map.len() as u32,
        reserved: 0,
    };
    let module = initrd.map_or_else(HvmModlistEntry::default, |initrd| HvmModlistEntry {
        paddr: initrd.start,
        size: initrd.end - initrd.start,
        ..HvmModlistEntry::default()
    });
    let mut block = Vec::from(start.as_bytes());
    map.iter().for_each(|entry| block.extend(entry.as_bytes()));
    block.resize(MODULES, 0);
    block.extend(module.as_bytes());
    block.extend(command_line.as_bytes());
    block.push(0);
    block
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::guest::layout::{Needs, plan};
    use zerocopy::FromBytes;

    fn layout(initrd_bytes: u64, pages: u64) -> Layout {
        let start_bytes = block_bytes("console=hvc0");
        plan(&Needs { kernel: 0x100_0000..0x300_0000, start_bytes, initrd_bytes }, pages).unwrap()
    }

    #[test]
    fn all_that_the_start_info_points_to_is_there() {
        for (initrd, pages) in [(12345, 65536), (0, 65536), (1, 1 << 21)] {
            let layout = layout(initrd, pages);
            let block = block(&layout, "console=hvc0");
            assert_eq!(block.len() as u64, block_bytes("console=hvc0"));
            let at = |address: u64| &block[(address - layout.start) as usize..];
            let (start, _) = HvmStartInfo::read_from_prefix(&block).unwrap();
            assert_eq!((start.magic, start.version, start.flags), (0x336e_c578, 1, 0));
            assert_eq!(start.rsdp_paddr, layout.acpi);
            assert!(at(start.cmdline_paddr).starts_with(b"console=hvc0\0"));
            let map = layout.memory_map();
            assert_eq!(start.memmap_entries as usize, map.len());
            assert!(at(start.memmap_paddr).starts_with(map.as_slice().as_bytes()));
            match &layout.initrd {
                None => assert_eq!((start.nr_modules, start.modlist_paddr), (0, 0)),
                Some(initrd) => {
                    let (module, _) = HvmModlistEntry::read_from_prefix(at(start.modlist_paddr)).unwrap();
                    assert_eq!(start.nr_modules, 1);
                    assert_eq!((module.paddr, module.paddr + module.size), (initrd.start, initrd.end));
                    assert_eq!((module.cmdline_paddr, module.reserved), (0, 0));
                }
            }
        }
    }

    #[test]
    fn the_longest_memory_map_has_its_room() {
        assert!(layout(1, 1 << 21).memory_map().len() <= MAP_ENTRIES_MAX);
    }
}
