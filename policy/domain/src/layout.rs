//! Where the memory of a new native domain lies: image, stack, fixed pages, and the heap from what remains.
//!
//! `xen_abi::native` has the addresses. What an image has that is never written is shown where it lies in the bundle, and
//! is nobody's memory. Of the heap only the beginning is made: the domain gets the rest when it wants it, and the policy
//! domain sees to it that it is there then ([`promised`]). Page tables are not paid from a domain's memory; what it adds
//! itself later is, so a part is held back from the heap.

use alloc::vec::Vec;
use core::fmt;

use image::{Image, Rights, Segment};
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

/// A run of pages of the bundle to show.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lent {
    /// Where, and which rights.
    pub region: Region,
    /// First page of the bundle, counted from its beginning.
    pub page: u64,
}

/// The memory of a domain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layout<'a> {
    /// What to populate, the heap's beginning included: disjoint, in no particular order.
    pub regions: Vec<Region>,
    /// What to show of the bundle.
    pub lent: Vec<Lent>,
    /// What to copy into populated pages.
    pub copied: Vec<Segment<'a>>,
    /// Pages of heap at `HEAP_BASE` to begin with.
    pub heap_pages: u64,
    /// Bytes that the heap may have.
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

/// Pages of heap to begin with.
const HEAP_PAGES_FIRST: u64 = 64;

/// Pages that are left for what comes later out of the domain's memory: shared info and the frames of its grant table.
const HELD_BACK: u64 = 1 + GRANT_TABLE_FRAMES_MAX;

/// Frames that may have to be taken from the machine beside those that domains have: what domains of so many pages in all
/// have not got yet, and the page tables for it, of the CPU and of the IOMMU.
#[must_use]
pub fn promised(pages: u64) -> u64 {
    const PAGES_PER_TABLE: u64 = 512;
    pages + 2 * pages.div_ceil(PAGES_PER_TABLE)
}

/// The first page of a segment in the bundle, if it can be shown there: it is never written, and its pages are pages of
/// the bundle, with nothing else in them. (The bundle itself begins on a page.)
fn page_in(bundle: &[u8], segment: &Segment<'_>) -> Option<u64> {
    let offset = (segment.bytes.as_ptr().addr() as u64).checked_sub(bundle.as_ptr().addr() as u64)?;
    let whole = segment.bytes.len() as u64 == segment.pages * PAGE_SIZE && offset.is_multiple_of(PAGE_SIZE);
    (whole && segment.rights != Rights::ReadWrite).then_some(offset / PAGE_SIZE)
}

/// Lays out an image of the bundle in a domain of `memory_pages` pages.
pub fn plan<'a>(image: &Image<'a>, bundle: &[u8], memory_pages: u64) -> Result<Layout<'a>, TooLittle> {
    let region = |first: u64, pages, rights| Region { gfn: first / PAGE_SIZE, pages, rights };
    let whole = |segment: &Segment<'_>| region(segment.gpa, segment.pages, segment.rights);
    let shown = |segment: &Segment<'a>| Some(Lent { region: whole(segment), page: page_in(bundle, segment)? });
    let lent = image.segments.iter().filter_map(shown).collect();
    let copied: Vec<Segment<'a>> = image.segments.iter().filter(|segment| shown(segment).is_none()).copied().collect();
    let segments = copied.iter().map(whole);
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
    let heap_most = memory_pages - used - HELD_BACK;
    let heap_pages = heap_most.min(HEAP_PAGES_FIRST);
    regions.push(region(HEAP_BASE, heap_pages, Rights::ReadWrite));
    Ok(Layout { regions, lent, copied, heap_pages, heap_bytes: heap_most * PAGE_SIZE })
}

#[cfg(test)]
mod tests {
    use super::*;
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

    fn pages(regions: &[Region]) -> u64 {
        regions.iter().map(|region| region.pages).sum()
    }

    #[test]
    fn what_the_image_leaves_is_heap() {
        let small = plan(&image(&[(0, 10)]), &[], 4096).unwrap();
        let large = plan(&image(&[(0, 10)]), &[], 8192).unwrap();
        assert_eq!(large.heap_bytes, small.heap_bytes + 4096 * PAGE_SIZE);
        assert_eq!(pages(&small.regions) - small.heap_pages + small.heap_bytes / PAGE_SIZE, 4096 - HELD_BACK);
    }

    #[test]
    fn only_the_beginning_of_the_heap_is_made() {
        let (small, large) =
            (plan(&image(&[(0, 10)]), &[], 1024).unwrap(), plan(&image(&[(0, 10)]), &[], 65536).unwrap());
        assert_eq!(small.regions, large.regions);
        assert!(large.heap_pages * PAGE_SIZE < large.heap_bytes);
    }

    #[test]
    fn too_little_memory_says_how_much_is_needed() {
        let error = plan(&image(&[(0, 40)]), &[], 100).unwrap_err();
        assert_eq!(error.given, 100);
        assert!(plan(&image(&[(0, 40)]), &[], error.needed).is_ok());
        assert!(plan(&image(&[(0, 40)]), &[], error.needed - 1).is_err());
    }

    #[test]
    fn whole_pages_of_the_bundle_that_nobody_writes_are_shown_and_all_others_copied() {
        let bundle = vec![7; 16 * PAGE_SIZE as usize];
        let page = PAGE_SIZE as usize;
        let segment = |gfn, pages, bytes: core::ops::Range<usize>, rights| Segment {
            gpa: IMAGE_BASE + gfn * PAGE_SIZE,
            pages,
            bytes: &bundle[bytes],
            file_offset: 0,
            rights,
        };
        let cases = [
            (segment(0, 2, page..3 * page, Rights::ReadExecute), Some(1)),
            (segment(2, 1, 5 * page..6 * page, Rights::Read), Some(5)),
            (segment(3, 1, 6 * page..7 * page, Rights::ReadWrite), None),
            // What follows in its last page is somebody else's.
            (segment(4, 2, 7 * page..8 * page + 1, Rights::ReadExecute), None),
            (segment(6, 3, 9 * page..11 * page, Rights::Read), None),
            (segment(9, 1, 12 * page + 4..13 * page + 4, Rights::Read), None),
        ];
        let segments = cases.iter().map(|(segment, _)| *segment).collect();
        let layout = plan(&Image { entry: IMAGE_BASE, segments }, &bundle, 1024).unwrap();
        for (segment, page) in cases {
            let region = Region { gfn: segment.gpa / PAGE_SIZE, pages: segment.pages, rights: segment.rights };
            let lent = layout.lent.iter().find(|lent| lent.region == region);
            assert_eq!(lent.map(|lent| lent.page), page);
            assert_eq!(layout.regions.contains(&region), page.is_none());
            assert_eq!(layout.copied.contains(&segment), page.is_none());
        }
    }

    #[test]
    fn what_is_not_there_yet_is_promised_with_its_tables() {
        assert_eq!((promised(0), promised(1), promised(512), promised(513)), (0, 3, 514, 517));
    }

    proptest! {
        #[test]
        fn regions_never_overlap_nor_exceed_the_memory(first in 1..100_u64, second in 1..100_u64, memory in 0..100_000_u64) {
            if let Ok(layout) = plan(&image(&[(0, first), (first, second)]), &[], memory) {
                let mut regions = layout.regions;
                regions.sort_by_key(|region| region.gfn);
                for pair in regions.windows(2) {
                    prop_assert!(pair[0].gfn + pair[0].pages <= pair[1].gfn);
                }
                prop_assert!(pages(&regions) - layout.heap_pages + layout.heap_bytes / PAGE_SIZE <= memory);
            }
        }
    }
}
