//! Where the memory of a new native domain lies: image, stack, fixed pages, and the heap from what remains.
//!
//! `xen_abi::native` has the addresses. Page tables are not paid from a domain's memory; what it adds itself later is, so
//! a part is held back from the heap.

use alloc::vec::Vec;
use core::fmt;

use image::{Image, Rights};
use xen_abi::native::{
    CONSOLE_RING, GRANT_TABLE_FRAMES_MAX, HEAP_BASE, PAGE_SIZE, STACK_PAGES, STACK_TOP, START_INFO, STORE_RING,
};

/// A run of pages to populate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Region {
    /// First guest frame number.
    pub gfn: u64,
    /// Pages.
    pub pages: u64,
    /// Rights of all of them.
    pub rights: Rights,
}

/// The memory of a domain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layout {
    /// All of it, heap included: disjoint, in no particular order.
    pub regions: Vec<Region>,
    /// Bytes of heap at `HEAP_BASE`.
    pub heap_bytes: u64,
}

/// Image, stack and fixed pages leave no memory for a heap.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TooLittle {
    /// Pages needed.
    pub needed: u64,
    /// Pages that the policy gives.
    pub given: u64,
}

impl fmt::Display for TooLittle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kib = |pages: u64| pages.saturating_mul(PAGE_SIZE / 1024);
        let (given, needed) = (kib(self.given), kib(self.needed));
        write!(f, "its memory of {given} KiB is too little: image, stack and tables need {needed} KiB")
    }
}

/// The smallest useful heap, in pages.
const HEAP_PAGES_MIN: u64 = 16;

/// Pages that are left for what comes later out of the domain's memory: shared info and the frames of its grant table.
const HELD_BACK: u64 = 1 + GRANT_TABLE_FRAMES_MAX;

/// Lays out an image in a domain of `memory_pages` pages.
pub fn plan(image: &Image<'_>, memory_pages: u64) -> Result<Layout, TooLittle> {
    let region = |first: u64, pages, rights| Region { gfn: first / PAGE_SIZE, pages, rights };
    let segments = image.segments.iter().map(|segment| region(segment.gpa, segment.pages, segment.rights));
    let fixed = [
        region(START_INFO, 1, Rights::Read),
        region(CONSOLE_RING, 1, Rights::ReadWrite),
        region(STORE_RING, 1, Rights::ReadWrite),
        region(STACK_TOP - STACK_PAGES * PAGE_SIZE, STACK_PAGES, Rights::ReadWrite),
    ];
    let mut regions: Vec<Region> = segments.chain(fixed).collect();
    let used: u64 = regions.iter().map(|region| region.pages).sum();
    let needed = used + HELD_BACK + HEAP_PAGES_MIN;
    if needed > memory_pages {
        return Err(TooLittle { needed, given: memory_pages });
    }
    let heap_pages = memory_pages - used - HELD_BACK;
    regions.push(region(HEAP_BASE, heap_pages, Rights::ReadWrite));
    Ok(Layout { regions, heap_bytes: heap_pages * PAGE_SIZE })
}

#[cfg(test)]
mod tests {
    use super::*;
    use image::Segment;
    use proptest::prelude::*;
    use xen_abi::native::IMAGE_BASE;

    /// An image with segments of these page numbers and counts.
    fn image(segments: &[(u64, u64)]) -> Image<'static> {
        let segment = |&(page, pages): &(u64, u64)| Segment {
            gpa: IMAGE_BASE + page * PAGE_SIZE,
            pages,
            bytes: &[],
            file_offset: 0,
            rights: Rights::ReadExecute,
        };
        Image { entry: IMAGE_BASE, segments: segments.iter().map(segment).collect() }
    }

    #[test]
    fn what_the_image_leaves_is_heap() {
        let small = plan(&image(&[(0, 10)]), 4096).unwrap();
        let large = plan(&image(&[(0, 10)]), 8192).unwrap();
        assert_eq!(large.heap_bytes, small.heap_bytes + 4096 * PAGE_SIZE);
        let total: u64 = small.regions.iter().map(|region| region.pages).sum();
        assert_eq!(total, 4096 - HELD_BACK);
    }

    #[test]
    fn too_little_memory_says_how_much_is_needed() {
        let error = plan(&image(&[(0, 40)]), 100).unwrap_err();
        assert_eq!(error.given, 100);
        assert!(plan(&image(&[(0, 40)]), error.needed).is_ok());
        assert!(plan(&image(&[(0, 40)]), error.needed - 1).is_err());
    }

    proptest! {
        #[test]
        fn regions_never_overlap_nor_exceed_the_memory(first in 1..100_u64, second in 1..100_u64, memory in 0..100_000_u64) {
            if let Ok(layout) = plan(&image(&[(0, first), (first, second)]), memory) {
                let mut regions = layout.regions;
                regions.sort_by_key(|region| region.gfn);
                for pair in regions.windows(2) {
                    prop_assert!(pair[0].gfn + pair[0].pages <= pair[1].gfn);
                }
                prop_assert!(regions.iter().map(|region| region.pages).sum::<u64>() <= memory);
            }
        }
    }
}
