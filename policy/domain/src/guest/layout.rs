//! Where the memory of a new virtual machine lies.
//!
//! ```text
//! 0            kernel        start page   initrd             low end           4 GiB
//! |  RAM  | at its addresses | above it | on pages | RAM ... | special |  hole  | RAM ...
//! ```
//!
//! What the kernel reads once and early (start info, memory map, command line, initrd) is RAM, right above it: Linux maps
//! only the first gigabyte before it has read the memory map. What stays (ACPI tables, rings) has pages of its own at the
//! end of low memory, that the memory map keeps out of RAM. Memory below 1 MiB is RAM all through: there is no firmware
//! and no adapter there, and kernels keep off the old hole without being told.

use alloc::vec;
use alloc::vec::Vec;
use core::fmt;
use core::ops::Range;

use xen_abi::native::PAGE_SIZE;
use xen_abi::start_info::{
    HvmMemmapTableEntry, XEN_HVM_MEMMAP_TYPE_ACPI, XEN_HVM_MEMMAP_TYPE_RAM, XEN_HVM_MEMMAP_TYPE_RESERVED,
};

/// Low memory ends here at the latest; above come the addresses of local APICs and the like.
const LOW_LIMIT: u64 = 0xf000_0000;
/// Where memory goes on that low addresses do not hold.
const HIGH_BASE: u64 = 1 << 32;
/// Pages of ACPI tables.
pub const ACPI_PAGES: u64 = 1;
/// Pages that are no RAM: ACPI tables, xenstore ring, console ring.
const SPECIAL_PAGES: u64 = ACPI_PAGES + 2;

/// The memory of a virtual machine. Addresses are guest-physical.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layout {
    /// Populated addresses below 4 GiB, in whole pages.
    pub low: Range<u64>,
    /// Populated addresses above; empty if all fits below.
    pub high: Range<u64>,
    /// Where the start info begins, with all that it points to but initrd and ACPI tables.
    pub start: u64,
    /// The initrd.
    pub initrd: Option<Range<u64>>,
    /// ACPI tables, from the RSDP on; [`ACPI_PAGES`].
    pub acpi: u64,
    /// The page of the xenstore ring.
    pub store: u64,
    /// The page of the console ring.
    pub console: u64,
}

/// What is to be placed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Needs {
    /// Addresses of the kernel.
    pub kernel: Range<u64>,
    /// Bytes of start info and what goes with it.
    pub start_bytes: u64,
    /// Bytes of the initrd, 0 for none.
    pub initrd_bytes: u64,
}

/// Kernel, initrd and tables do not fit into the memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TooLittle {
    /// Bytes needed, the kernel's own memory at run time not counted.
    pub needed: u64,
    /// Bytes of it below 4 GiB.
    pub given: u64,
}

impl fmt::Display for TooLittle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (given, needed) = (self.given / 1024, self.needed.div_ceil(1024));
        write!(
            f,
            "its memory of {given} KiB (below 4 GiB) is too little: kernel, initrd and tables end at {needed} KiB"
        )
    }
}

/// Lays out a virtual machine of `pages` pages.
pub fn plan(needs: &Needs, pages: u64) -> Result<Layout, TooLittle> {
    let bytes = pages.saturating_mul(PAGE_SIZE);
    let low_end = bytes.min(LOW_LIMIT);
    let after = |end: u64, bytes: u64| {
        let start = end.checked_next_multiple_of(PAGE_SIZE)?;
        Some(start..start.checked_add(bytes)?)
    };
    let start = after(needs.kernel.end, needs.start_bytes);
    let initrd = start.as_ref().and_then(|start| after(start.end, needs.initrd_bytes));
    let special = initrd.as_ref().and_then(|initrd| after(initrd.end, SPECIAL_PAGES * PAGE_SIZE));
    let needed = special.map_or(u64::MAX, |special| special.end);
    let (Some(start), Some(initrd), true) = (start, initrd, needed <= low_end) else {
        return Err(TooLittle { needed, given: low_end });
    };
    let acpi = low_end - SPECIAL_PAGES * PAGE_SIZE;
    let store = acpi + ACPI_PAGES * PAGE_SIZE;
    let high = HIGH_BASE..HIGH_BASE.saturating_add(bytes - low_end);
    let initrd = (!initrd.is_empty()).then_some(initrd);
    Ok(Layout { low: 0..low_end, high, start: start.start, initrd, acpi, store, console: store + PAGE_SIZE })
}

impl Layout {
    /// Populated addresses.
    pub fn memory(&self) -> impl Iterator<Item = Range<u64>> {
        [self.low.clone(), self.high.clone()].into_iter().filter(|range| !range.is_empty())
    }

    /// What the kernel is told of it.
    pub fn memory_map(&self) -> Vec<HvmMemmapTableEntry> {
        let entry = |range: Range<u64>, kind| HvmMemmapTableEntry {
            addr: range.start,
            size: range.end - range.start,
            kind,
            reserved: 0,
        };
        let mut map = vec![
            entry(0..self.acpi, XEN_HVM_MEMMAP_TYPE_RAM),
            entry(self.acpi..self.store, XEN_HVM_MEMMAP_TYPE_ACPI),
            entry(self.store..self.console + PAGE_SIZE, XEN_HVM_MEMMAP_TYPE_RESERVED),
        ];
        map.extend(self.memory().skip(1).map(|high| entry(high, XEN_HVM_MEMMAP_TYPE_RAM)));
        map
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const MIB: u64 = 1 << 20;

    fn needs(initrd_bytes: u64) -> Needs {
        Needs { kernel: 16 * MIB..62 * MIB + 5, start_bytes: 300, initrd_bytes }
    }

    fn pages(bytes: u64) -> u64 {
        bytes / PAGE_SIZE
    }

    #[test]
    fn a_small_machine_is_one_piece_with_its_tables_at_the_end() {
        let layout = plan(&needs(3 * MIB + 1), pages(256 * MIB)).unwrap();
        assert_eq!((layout.low.clone(), layout.memory().count()), (0..256 * MIB, 1));
        assert_eq!(layout.start, 62 * MIB + PAGE_SIZE);
        assert_eq!(layout.initrd, Some(62 * MIB + 2 * PAGE_SIZE..65 * MIB + 2 * PAGE_SIZE + 1));
        assert_eq!(layout.acpi, 256 * MIB - 3 * PAGE_SIZE);
        let kinds: Vec<u32> = layout.memory_map().iter().map(|entry| entry.kind).collect();
        assert_eq!(
            kinds,
            [XEN_HVM_MEMMAP_TYPE_RAM, XEN_HVM_MEMMAP_TYPE_ACPI, XEN_HVM_MEMMAP_TYPE_RESERVED],
            "a ring in RAM would be given away by the kernel"
        );
        assert_eq!(plan(&needs(0), pages(256 * MIB)).unwrap().initrd, None);
    }

    #[test]
    fn a_large_machine_has_a_hole_below_4_gib() {
        let layout = plan(&needs(MIB), pages(6 << 30)).unwrap();
        assert_eq!(layout.low, 0..0xf000_0000);
        assert_eq!(layout.high, 1 << 32..(1 << 32) + (6 << 30) - 0xf000_0000);
        assert_eq!(layout.console + PAGE_SIZE, 0xf000_0000);
        let last = *layout.memory_map().last().unwrap();
        assert_eq!((last.addr, last.size, last.kind), (1 << 32, (6 << 30) - 0xf000_0000, XEN_HVM_MEMMAP_TYPE_RAM));
    }

    #[test]
    fn too_little_memory_says_how_much_is_needed() {
        let error = plan(&needs(20 * MIB), pages(64 * MIB)).unwrap_err();
        assert!(plan(&needs(20 * MIB), pages(error.needed)).is_ok());
        assert!(plan(&needs(20 * MIB), pages(error.needed) - 1).is_err());
        assert!(plan(&needs(u64::MAX), pages(8 << 30)).is_err());
    }

    proptest! {
        #[test]
        fn nothing_overlaps_and_the_map_covers_the_memory(
            kernel in 0..(5_u64 << 30), size in 1..(1_u64 << 30), initrd in 0..(1_u64 << 32), given in 0..(1_u64 << 21),
        ) {
            let needs = Needs { kernel: kernel..kernel + size, start_bytes: 3000, initrd_bytes: initrd };
            if let Ok(layout) = plan(&needs, given) {
                let total: u64 = layout.memory().map(|range| range.end - range.start).sum();
                prop_assert_eq!(total, given * PAGE_SIZE, "memory is neither lost nor invented");
                let page = |start: u64, pages: u64| start..start + pages * PAGE_SIZE;
                let mut parts = vec![
                    needs.kernel,
                    layout.start..layout.start + 3000,
                    page(layout.acpi, ACPI_PAGES),
                    page(layout.store, 1),
                    page(layout.console, 1),
                ];
                parts.extend(layout.initrd.clone());
                parts.sort_by_key(|part| part.start);
                prop_assert!(parts.windows(2).all(|pair| pair[0].end <= pair[1].start), "{parts:x?}");
                prop_assert!(parts.iter().all(|part| layout.memory().any(|m| m.start <= part.start && part.end <= m.end)));
                let mapped: u64 = layout.memory_map().iter().map(|entry| entry.size).sum();
                prop_assert_eq!(mapped, given * PAGE_SIZE);
                let map = layout.memory_map();
                prop_assert!(map.windows(2).all(|pair| pair[0].addr + pair[0].size <= pair[1].addr));
            }
        }
    }
}
