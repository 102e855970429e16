//! Physical memory at boot: what of it is RAM, what is taken, and where the hypervisor's heap lies.
//!
//! The heap is one contiguous run of RAM below 4 GiB (the early tables show no more). What neither the image, the bundle
//! nor the heap takes becomes the frames that domains are made of.

use super::layout::{self, EARLY_LIMIT, LARGE_PAGE, PAGE, page_down, page_up};
use crate::boot::info::{BootInfo, REGIONS_MAX, Region};
use heapless::Vec;

/// Memory below this is left alone: firmware data, boot loader structures, start-up code of more CPUs.
const LOW_MEMORY: u64 = 0x10_0000;
/// Heap for page tables beyond what the direct map needs: devices, stacks. And for the stacks.
const TABLE_SPARE: u64 = 128 * PAGE;
/// Heap that the domains' own structures need at least.
const HEAP_BASE_BYTES: u64 = 12 << 20;
/// The heap's share of RAM beyond that.
const HEAP_SHARE: u64 = 64;
/// Bytes of a frame's entry in the frame table, which lies in the heap.
const FRAME_ENTRY: u64 = 4;

type Runs = Vec<Region, REGIONS_MAX>;

/// Physical memory as it was divided up.
pub struct Plan {
    /// RAM in whole pages, but the image: what the direct map shows.
    pub ram: Runs,
    /// RAM that may become frames.
    pub usable: Runs,
    /// Bytes of RAM in all.
    pub ram_bytes: u64,
    /// One past the highest RAM address.
    pub ram_end: u64,
    /// The hypervisor's heap.
    pub heap: Region,
}

impl Plan {
    /// Divides memory up. `Err`: no free run of RAM below 4 GiB holds the heap, which has that many bytes.
    pub fn new(info: &BootInfo) -> Result<Self, u64> {
        let mut ram = Runs::new();
        let (mut ram_bytes, mut ram_end) = (0, 0);
        for region in &info.regions {
            ram_bytes += region.end - region.start;
            ram_end = ram_end.max(region.end);
            add(&mut ram, page_up(region.start)..page_down(region.end));
        }
        reserve(&mut ram, &layout::image());
        let mut usable = ram.clone();
        reserve(&mut usable, &(0..LOW_MEMORY));
        if let Some(run) = &info.bundle {
            reserve(&mut usable, &(page_down(run.start)..page_up(run.end)));
        }
        let tables = TABLE_SPARE + (ram_bytes / LARGE_PAGE / 512 + 2 * REGIONS_MAX as u64) * PAGE;
        let wanted = page_up(HEAP_BASE_BYTES + ram_bytes / HEAP_SHARE + ram_end / PAGE * FRAME_ENTRY + tables);
        let holds_heap = |run: &&Region| run.end.min(EARLY_LIMIT).saturating_sub(run.start) >= wanted;
        let start = usable.iter().find(holds_heap).ok_or(wanted)?.start;
        let heap = start..start + wanted;
        reserve(&mut usable, &heap);
        Ok(Self { ram, usable, ram_bytes, ram_end, heap })
    }
}

/// Adds a run. An empty one is none; one that does not fit in the list is given up.
fn add(usable: &mut Runs, run: Region) {
    if !run.is_empty() {
        let _ = usable.push(run);
    }
}

/// Takes a range out of the usable runs. It may overlap any number of them.
fn reserve(usable: &mut Runs, range: &Region) {
    for run in core::mem::take(usable) {
        add(usable, run.start..run.end.min(range.start));
        add(usable, run.start.max(range.end)..run.end);
    }
}
