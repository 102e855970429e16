//! The hypervisor's own page tables (AMD APM volume 2, section 5.3; Intel SDM volume 3, section 4.5).
//!
//! The upper half is the same in every address space: its 256 top-level entries are filled once, here, and copied into
//! each domain's top-level table, so that what is mapped later (devices, stacks) appears everywhere. W^X: text is the
//! only executable range and nothing else maps its frames.

use super::Plan;
use super::layout::{self, DEVICE_BASE, DIRECT_MAP_BYTES, Image, LARGE_PAGE, PAGE, direct, page_down, page_up};
use crate::boot::info::{BootInfo, Region};
use spin::{Mutex, Once};
use x86_64::registers::control::{Cr3, Cr3Flags};
use x86_64::structures::paging::page_table::PageTableFlags as Flags;
use x86_64::structures::paging::{PageTable, PhysFrame};
use x86_64::{PhysAddr, VirtAddr};

/// Top-level entries that belong to the hypervisor.
pub const UPPER_HALF: core::ops::Range<usize> = 256..512;

/// What one top-level entry maps; the device and stack regions have one each.
const REGION_BYTES: u64 = 1 << 39;

const READ_ONLY: Flags = Flags::NO_EXECUTE;
const DATA: Flags = Flags::WRITABLE.union(Flags::NO_EXECUTE);

static TABLES: Mutex<Option<Tables>> = Mutex::new(None);
static ROOT: Once<PhysAddr> = Once::new();

/// The tables and what they grow from.
struct Tables {
    root: PhysAddr,
    pool: Region,
    next_device: VirtAddr,
    next_stack: VirtAddr,
}

/// Why a mapping cannot be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MapError {
    /// The pool for page tables is used up.
    OutOfTables,
    /// The range is empty or wraps around.
    BadRange,
}

impl Tables {
    fn take_page(&mut self) -> Result<PhysAddr, MapError> {
        if self.pool.start >= self.pool.end {
            return Err(MapError::OutOfTables);
        }
        let page = PhysAddr::new(self.pool.start);
        self.pool.start += PAGE;
        // SAFETY: the page comes from the pool that was reserved for tables, the direct map shows it, and nothing
        // refers to it yet.
        unsafe { direct(page).as_mut_ptr::<[u8; PAGE as usize]>().write_bytes(0, 1) };
        Ok(page)
    }

    /// The table at `at`, which must be one of ours.
    fn table(&mut self, at: PhysAddr) -> &mut PageTable {
        // SAFETY: every address passed here is the root or was read from an entry that `map` made, so it is a page of
        // the pool, initialised, and reached only through `&mut self`. (The processor sets accessed bits in it; the
        // entries are plain words to us and a lost accessed bit is harmless.)
        unsafe { &mut *direct(at).as_mut_ptr::<PageTable>() }
    }

    /// Maps one leaf; its level is the one of a large page if the flags say so.
    fn map(&mut self, page: VirtAddr, frame: PhysAddr, flags: Flags) -> Result<(), MapError> {
        let indices = [page.p4_index(), page.p3_index(), page.p2_index(), page.p1_index()];
        let depth = if flags.contains(Flags::HUGE_PAGE) { 2 } else { 3 };
        let mut table = self.root;
        for index in &indices[..depth] {
            if self.table(table)[*index].is_unused() {
                let next = self.take_page()?;
                self.table(table)[*index].set_addr(next, Flags::PRESENT | Flags::WRITABLE);
            }
            table = self.table(table)[*index].addr();
        }
        self.table(table)[indices[depth]].set_addr(frame, flags | Flags::GLOBAL | Flags::PRESENT);
        Ok(())
    }

    /// Maps a page-aligned range, with large pages where both sides allow it.
    fn map_range(&mut self, start: VirtAddr, frame: PhysAddr, bytes: u64, flags: Flags) -> Result<(), MapError> {
        let mut done = 0;
        while done < bytes {
            let (page, at) = (start + done, frame + done);
            let large = page.is_aligned(LARGE_PAGE) && at.is_aligned(LARGE_PAGE) && bytes - done >= LARGE_PAGE;
            self.map(page, at, if large { flags | Flags::HUGE_PAGE } else { flags })?;
            done += if large { LARGE_PAGE } else { PAGE };
        }
        Ok(())
    }

    fn map_image(&mut self) -> Result<(), MapError> {
        let Image { text, rodata, data, data_end, .. } = layout::image();
        for (start, end, flags) in [(text, rodata, Flags::empty()), (rodata, data, READ_ONLY), (data, data_end, DATA)] {
            let frame = PhysAddr::new(start.as_u64() - layout::KERNEL_BASE);
            self.map_range(start, frame, end - start, flags)?;
        }
        Ok(())
    }

    /// Maps all RAM but the image.
    fn map_ram(&mut self, info: &BootInfo) -> Result<(), MapError> {
        let hole = layout::image();
        for region in &info.regions {
            let (start, end) = (page_up(region.start), page_down(region.end.min(DIRECT_MAP_BYTES)));
            for (from, to) in [(start, end.min(hole.start)), (start.max(hole.end), end)] {
                let frame = PhysAddr::new(from);
                self.map_range(direct(frame), frame, to.saturating_sub(from), DATA)?;
            }
        }
        Ok(())
    }

    /// The top-level table, with the entries of the regions that grow later: domains' copies of them never grow stale.
    fn fill(&mut self, info: &BootInfo) -> Result<(), MapError> {
        self.root = self.take_page()?;
        for region in [DEVICE_BASE, layout::STACK_BASE] {
            let (root, next) = (self.root, self.take_page()?);
            self.table(root)[VirtAddr::new(region).p4_index()].set_addr(next, Flags::PRESENT | Flags::WRITABLE);
        }
        self.map_ram(info)?;
        self.map_image()
    }
}

/// Makes the final tables and switches to them. What runs now, boot stack included, lies in the image.
pub(super) fn init(plan: &Plan, info: &BootInfo) {
    let mut tables = Tables {
        root: PhysAddr::zero(),
        pool: plan.tables,
        next_device: VirtAddr::new(DEVICE_BASE),
        next_stack: VirtAddr::new(layout::STACK_BASE),
    };
    if let Err(error) = tables.fill(info) {
        crate::boot::report::fail("page tables", format_args!("{error:?}"), "report this: the table pool is too small");
    }
    ROOT.call_once(|| tables.root);
    load_root(tables.root);
    *TABLES.lock() = Some(tables);
}

/// The hypervisor's own top-level table: the upper half and an empty lower half.
pub fn hypervisor_root() -> PhysAddr {
    ROOT.get().copied().unwrap_or(PhysAddr::zero())
}

/// Loads a top-level table.
pub fn load_root(root: PhysAddr) {
    // SAFETY: `root` is the hypervisor's table or a domain's, whose upper half is a copy of the hypervisor's; so all
    // that Rust code refers to stays mapped as it was.
    unsafe { Cr3::write(PhysFrame::containing_address(root), Cr3Flags::empty()) }
}

/// Maps device registers or firmware tables, for good. Answers where the first byte appears.
fn map_window(start: PhysAddr, bytes: u64, flags: Flags) -> Result<VirtAddr, MapError> {
    let end = start.as_u64().checked_add(bytes).ok_or(MapError::BadRange)?;
    if bytes == 0 {
        return Err(MapError::BadRange);
    }
    let first = page_down(start.as_u64());
    let length = page_up(end) - first;
    let mut guard = TABLES.lock();
    let tables = guard.as_mut().ok_or(MapError::OutOfTables)?;
    // Aligned alike modulo a large page, and a page apart from its neighbour.
    let base = tables.next_device.align_up(LARGE_PAGE) + first % LARGE_PAGE;
    if length > REGION_BYTES || base - VirtAddr::new(DEVICE_BASE) > REGION_BYTES - length {
        return Err(MapError::OutOfTables);
    }
    tables.next_device = base + length + PAGE;
    tables.map_range(base, PhysAddr::new(first), length, flags)?;
    Ok(base + (start.as_u64() - first))
}

/// Maps device registers: read-write, uncached.
pub fn map_device(start: PhysAddr, bytes: u64) -> Result<VirtAddr, MapError> {
    map_window(start, bytes, DATA | Flags::NO_CACHE | Flags::WRITE_THROUGH)
}

/// Maps firmware tables: read-only, cached.
pub fn map_firmware(start: PhysAddr, bytes: u64) -> Result<VirtAddr, MapError> {
    map_window(start, bytes, READ_ONLY)
}

/// Maps `pages` fresh frames as a stack that stays; answers its top. The page on either side is unmapped: an overflow is
/// a page fault (then a double fault on a stack of its own), never silent damage.
pub fn map_stack(pages: u64) -> Result<VirtAddr, MapError> {
    let mut guard = TABLES.lock();
    let tables = guard.as_mut().ok_or(MapError::OutOfTables)?;
    let base = tables.next_stack + PAGE;
    for index in 0..pages {
        let frame = tables.take_page()?;
        tables.map(base + index * PAGE, frame, DATA)?;
    }
    tables.next_stack = base + pages * PAGE;
    Ok(tables.next_stack)
}

/// The hypervisor's top-level entry `index`, for a domain's top-level table. Answers 0 outside the upper half.
pub fn upper_half_entry(index: usize) -> u64 {
    if !UPPER_HALF.contains(&index) {
        return 0;
    }
    let entry = direct(hypervisor_root()).as_ptr::<u64>().wrapping_add(index);
    // SAFETY: the root table is a page of the pool, shown by the direct map; `index` is below 512. The upper half's
    // entries are never written again after `init`.
    unsafe { entry.read_volatile() }
}
