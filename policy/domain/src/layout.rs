//! Where the memory of a new native domain lies: image, stack, fixed pages, and the heap from what remains.
//!
//! `xen_abi::native` has the addresses. A domain pays with its memory for its page tables too, so a part is held back
//! from the heap.

use alloc::vec::Vec;
use core::fmt;

use xen_abi::native::{
    CONSOLE_RING, HEAP_BASE, IMAGE_BASE, IMAGE_LIMIT, PAGE_SIZE, STACK_PAGES, STACK_TOP, START_INFO, STORE_RING,
};
use xen_abi::platform::{RIGHTS_EXECUTE, RIGHTS_READ, RIGHTS_WRITE};

/// What a domain may do with pages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rights {
    /// Read.
    Read,
    /// Read and write.
    Write,
    /// Read and execute.
    Execute,
}

impl Rights {
    /// `RIGHTS_*` of `platform_op`.
    pub fn bits(self) -> u32 {
        match self {
            Rights::Read => RIGHTS_READ,
            Rights::Write => RIGHTS_WRITE,
            Rights::Execute => RIGHTS_EXECUTE,
        }
    }
}

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

impl Region {
    fn end(&self) -> u64 {
        self.gfn.saturating_add(self.pages)
    }
}

/// The memory of a domain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layout {
    /// All of it but the heap: disjoint, in no particular order.
    pub regions: Vec<Region>,
    /// Bytes of heap at `HEAP_BASE`.
    pub heap_bytes: u64,
}

/// Why an image cannot be laid out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LayoutError {
    /// A segment is outside of what images may use.
    Outside(Region),
    /// Two segments share a page.
    Overlap(u64),
    /// Image, stack and tables leave no memory for a heap.
    TooLittle {
        /// Pages needed without any heap.
        needed: u64,
        /// Pages that the policy gives.
        given: u64,
    },
}

impl fmt::Display for LayoutError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            LayoutError::Outside(region) => {
                write!(
                    f,
                    "the image has a segment at {:#x}, outside of {IMAGE_BASE:#x}-{IMAGE_LIMIT:#x}",
                    region.gfn * PAGE_SIZE
                )
            }
            LayoutError::Overlap(gfn) => {
                write!(f, "two segments of the image share the page at {:#x}", gfn * PAGE_SIZE)
            }
            LayoutError::TooLittle { needed, given } => {
                let kib = |pages: &u64| pages * PAGE_SIZE / 1024;
                write!(
                    f,
                    "its memory of {} KiB is too little: image, stack and tables need {} KiB",
                    kib(given),
                    kib(needed)
                )
            }
        }
    }
}

/// Whether a domain's memory is in an IOMMU's tables too.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dma {
    /// It drives devices.
    Mapped,
    /// It drives none.
    None,
}

/// The smallest useful heap, in pages.
const HEAP_PAGES_MIN: u64 = 16;

/// Pages of page tables and other things that the hypervisor takes from the domain's memory: four levels for each of a
/// dozen address ranges, leaf tables for the memory, shared info, grant table frames, room to map grants.
fn held_back(memory_pages: u64, dma: Dma) -> u64 {
    let tables = 48 + memory_pages / 256;
    match dma {
        Dma::Mapped => 2 * tables + 32,
        Dma::None => tables + 32,
    }
}

/// Lays out an image with these segments in a domain of `memory_pages` pages.
pub fn plan(segments: &[Region], memory_pages: u64, dma: Dma) -> Result<Layout, LayoutError> {
    let mut image: Vec<Region> = segments.iter().copied().filter(|segment| segment.pages != 0).collect();
    image.sort_by_key(|segment| segment.gfn);
    for segment in &image {
        if segment.gfn < IMAGE_BASE / PAGE_SIZE || segment.end() > IMAGE_LIMIT / PAGE_SIZE {
            return Err(LayoutError::Outside(*segment));
        }
    }
    for (lower, upper) in image.iter().zip(image.iter().skip(1)) {
        if lower.end() > upper.gfn {
            return Err(LayoutError::Overlap(upper.gfn));
        }
    }
    let page = |address: u64, rights| Region {
        gfn: address / PAGE_SIZE,
        pages: 1,
        rights,
    };
    let mut regions = image;
    regions.push(page(START_INFO, Rights::Read));
    regions.push(page(CONSOLE_RING, Rights::Write));
    regions.push(page(STORE_RING, Rights::Write));
    regions.push(Region {
        gfn: STACK_TOP / PAGE_SIZE - STACK_PAGES,
        pages: STACK_PAGES,
        rights: Rights::Write,
    });

    let used: u64 = regions.iter().map(|region| region.pages).sum();
    let needed = used + held_back(memory_pages, dma) + HEAP_PAGES_MIN;
    if needed > memory_pages {
        return Err(LayoutError::TooLittle {
            needed,
            given: memory_pages,
        });
    }
    let heap_pages = memory_pages - needed + HEAP_PAGES_MIN;
    regions.push(Region {
        gfn: HEAP_BASE / PAGE_SIZE,
        pages: heap_pages,
        rights: Rights::Write,
    });
    Ok(Layout {
        regions,
        heap_bytes: heap_pages * PAGE_SIZE,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const IMAGE: u64 = IMAGE_BASE / PAGE_SIZE;

    fn region(gfn: u64, pages: u64) -> Region {
        Region {
            gfn,
            pages,
            rights: Rights::Read,
        }
    }

    #[test]
    fn what_the_image_leaves_is_heap() {
        let small = plan(&[region(IMAGE, 10)], 4096, Dma::None).unwrap();
        let large = plan(&[region(IMAGE, 10)], 8192, Dma::None).unwrap();
        assert!(large.heap_bytes > small.heap_bytes + 4000 * PAGE_SIZE);
        let total: u64 = small.regions.iter().map(|region| region.pages).sum();
        assert!(total < 4096 && total > 3900, "{total}");
    }

    #[test]
    fn images_stay_where_images_belong() {
        let outside = |segment| assert_eq!(plan(&[segment], 4096, Dma::None), Err(LayoutError::Outside(segment)));
        outside(region(0, 1));
        outside(region(IMAGE - 1, 2));
        outside(region(IMAGE_LIMIT / PAGE_SIZE - 1, 2));
        outside(region(IMAGE, u64::MAX));
        let twice = [region(IMAGE + 1, 4), region(IMAGE, 2)];
        assert_eq!(plan(&twice, 4096, Dma::None), Err(LayoutError::Overlap(IMAGE + 1)));
    }

    #[test]
    fn too_little_memory_says_how_much_is_needed() {
        let Err(LayoutError::TooLittle { needed, given: 100 }) = plan(&[region(IMAGE, 40)], 100, Dma::None) else {
            panic!()
        };
        assert!(plan(&[region(IMAGE, 40)], needed, Dma::None).is_ok());
    }

    proptest! {
        #[test]
        fn regions_never_overlap_nor_exceed_the_memory(
            segments in prop::collection::vec((0..0x8000_u64, 0..64_u64), 0..5),
            memory in 0..100_000_u64,
        ) {
            let segments: Vec<Region> = segments.iter().map(|&(at, pages)| region(IMAGE + at, pages)).collect();
            if let Ok(layout) = plan(&segments, memory, Dma::Mapped) {
                let mut regions = layout.regions;
                regions.sort_by_key(|region| region.gfn);
                for pair in regions.windows(2) {
                    prop_assert!(pair[0].end() <= pair[1].gfn);
                }
                prop_assert!(regions.iter().map(|region| region.pages).sum::<u64>() <= memory);
            }
        }
    }
}
