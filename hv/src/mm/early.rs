//! Physical memory at boot: what of it is RAM, what is taken, and where the hypervisor's own pool lies.
//!
//! The pool is one contiguous run of RAM below 4 GiB (the early tables show no more). Its first part feeds the
//! hypervisor's page tables, the rest is the heap. What neither the image, the bundle nor the pool takes becomes the
//! frames that domains are made of.

use super::layout::{self, LARGE_PAGE, PAGE, page_down, page_up};
use crate::boot::info::{BootInfo, REGIONS_MAX};
use core::fmt;
use heapless::Vec;
use x86_64::PhysAddr;

/// Memory below this is left alone: firmware data, boot loader structures, start-up code of more CPUs.
const LOW_MEMORY: u64 = 0x10_0000;
/// Physical addresses that the pool must lie below.
const POOL_LIMIT: u64 = 4 << 30;
/// Page tables beyond what the direct map needs: devices, stacks.
const TABLE_SPARE: u64 = 128 * PAGE;
/// Heap that the domains' own structures need at least.
const HEAP_BASE_BYTES: u64 = 12 << 20;
/// The heap's share of RAM beyond that.
const HEAP_SHARE: u64 = 64;
/// Bytes of a frame's entry in the frame table, which lies in the heap.
const FRAME_ENTRY: u64 = 4;

/// A run of RAM that may become frames, page aligned.
#[derive(Clone, Copy, Debug)]
pub struct Usable {
    /// First byte.
    pub start: u64,
    /// One past the last byte.
    pub end: u64,
}

/// Why memory cannot be laid out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    /// No free run of RAM below 4 GiB holds the pool.
    TooLittleMemory {
        /// Bytes wanted.
        wanted: u64,
    },
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        let Failure::TooLittleMemory { wanted } = self;
        write!(f, "no {} MiB of free contiguous RAM between 1 MiB and 4 GiB", wanted >> 20)
    }
}

/// Physical memory as it was divided up.
pub struct Plan {
    /// RAM that may become frames.
    pub usable: Vec<Usable, REGIONS_MAX>,
    /// Bytes of RAM in all.
    pub ram_bytes: u64,
    /// One past the highest RAM address.
    pub ram_end: u64,
    tables: Usable,
    heap: Usable,
    pool: Usable,
}

impl Plan {
    /// Divides memory up.
    pub fn new(info: &BootInfo) -> Result<Self, Failure> {
        let mut usable = Vec::new();
        let (mut ram_bytes, mut ram_end) = (0, 0);
        for region in info.regions.iter().filter(|region| region.ram) {
            let (start, end) = (page_up(region.start.max(LOW_MEMORY)), page_down(region.end));
            ram_bytes += region.end - region.start;
            ram_end = ram_end.max(region.end);
            if start < end {
                add(&mut usable, Usable { start, end });
            }
        }
        let image = layout::image();
        reserve(&mut usable, image.start.as_u64(), image.end.as_u64());
        for (start, bytes) in info.bundle.into_iter().chain(info.loader) {
            reserve(&mut usable, page_down(start.as_u64()), page_up(start.as_u64().saturating_add(bytes)));
        }
        let table_bytes = TABLE_SPARE + (ram_bytes / LARGE_PAGE / 512 + 2 * REGIONS_MAX as u64) * PAGE;
        let heap_bytes = page_up(HEAP_BASE_BYTES + ram_bytes / HEAP_SHARE + ram_end / PAGE * FRAME_ENTRY);
        let wanted = table_bytes + heap_bytes;
        let pool = usable
            .iter()
            .map(|run| Usable { start: run.start, end: run.end.min(POOL_LIMIT) })
            .find(|run| run.end.saturating_sub(run.start) >= wanted)
            .ok_or(Failure::TooLittleMemory { wanted })?;
        reserve(&mut usable, pool.start, pool.start + wanted);
        let tables = Usable { start: pool.start, end: pool.start + table_bytes };
        let pool = Usable { start: pool.start, end: pool.start + wanted };
        let heap = Usable { start: tables.end, end: pool.end };
        Ok(Self { usable, ram_bytes, ram_end, tables, heap, pool })
    }

    /// Takes the memory for the hypervisor's page tables; it is given once.
    pub(super) fn take_tables(&mut self) -> Usable {
        let tables = self.tables;
        self.tables.start = self.tables.end;
        tables
    }

    /// The hypervisor's own memory: the image and the pool.
    pub fn own(&self) -> [Usable; 2] {
        let image = layout::image();
        [Usable { start: image.start.as_u64(), end: image.end.as_u64() }, self.pool]
    }

    /// The heap's memory.
    pub(super) fn heap(&self) -> Usable {
        self.heap
    }
}

/// Adds a run; one that does not fit in the list is given up.
fn add(usable: &mut Vec<Usable, REGIONS_MAX>, run: Usable) {
    let _ = usable.push(run);
}

/// Takes `start..end` out of the usable runs. Ranges may overlap any number of runs.
fn reserve(usable: &mut Vec<Usable, REGIONS_MAX>, start: u64, end: u64) {
    let before = core::mem::take(usable);
    for run in before {
        if end <= run.start || run.end <= start {
            add(usable, run);
            continue;
        }
        if run.start < start {
            add(usable, Usable { start: run.start, end: start });
        }
        if end < run.end {
            add(usable, Usable { start: end, end: run.end });
        }
    }
}

/// The part of `usable` as physical addresses.
impl Usable {
    /// First byte.
    pub fn start_address(&self) -> PhysAddr {
        PhysAddr::new(self.start)
    }
}
