//! Physical memory at boot: what of it is RAM, what is taken, and where the frame table lies.
//!
//! The frame table is one contiguous run of RAM below 4 GiB (the early tables show no more). What neither the image, the
//! bundle nor the frame table takes becomes the frames that domains, and all else of the hypervisor's, are made of.

use super::layout::{self, EARLY_LIMIT, PAGE, page_down, page_up};
use crate::boot::info::{BootInfo, REGIONS_MAX, Region};
use heapless::Vec;

/// Memory below this is left alone: firmware data, boot loader structures, start-up code of more CPUs.
const LOW_MEMORY: u64 = 0x10_0000;
/// Bytes of a frame's entry in the frame table.
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
    /// Where the frame table lies, which has an entry for each frame up to the end of RAM.
    pub frame_table: Region,
}

impl Plan {
    /// Divides memory up. `Err`: no free run of RAM below 4 GiB holds the frame table, which has that many bytes.
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
        let wanted = page_up(ram_end.div_ceil(PAGE) * FRAME_ENTRY);
        let holds_it = |run: &&Region| run.end.min(EARLY_LIMIT).saturating_sub(run.start) >= wanted;
        let start = usable.iter().find(holds_it).ok_or(wanted)?.start;
        let frame_table = start..start + wanted;
        reserve(&mut usable, &frame_table);
        Ok(Self { ram, usable, ram_bytes, frame_table })
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
