//! The hypervisor's own page tables (AMD APM volume 2, section 5.3; Intel SDM volume 3, section 4.5).
//!
//! The upper half is the same in every address space: its 256 top-level entries are filled once, here, and copied into
//! each domain's top-level table, so that what is mapped later (devices, stacks) appears everywhere. W^X: text is the
//! only executable range and nothing else maps its frames.

use super::Plan;
use super::layout::{self, DEVICE_BASE, LARGE_PAGE, PAGE, direct, page_down, page_up};
use crate::boot::info::Region;
use spin::Mutex;
use x86_64::registers::control::{Cr3, Cr3Flags};
use x86_64::structures::paging::page_table::PageTableFlags as Flags;
use x86_64::structures::paging::{PageTable, PhysFrame};
use x86_64::{PhysAddr, VirtAddr};

/// Where the hypervisor's entries begin in a top-level table, in bytes; there are as many bytes of them.
pub const UPPER_HALF: usize = PAGE as usize / 2;

/// What one top-level entry maps; the device and stack regions have one each.
const REGION_BYTES: u64 = 1 << 39;

const READ_ONLY: Flags = Flags::NO_EXECUTE;
const DATA: Flags = Flags::WRITABLE.union(Flags::NO_EXECUTE);

/// Before [`init`], there is nothing to make tables of.
static TABLES: Mutex<Tables> = Mutex::new(Tables {
    root: PhysAddr::zero(),
    pool: Region { start: 0, end: 0 },
    next_device: VirtAddr::new_truncate(DEVICE_BASE),
    next_stack: VirtAddr::new_truncate(layout::STACK_BASE),
});

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

    /// The top-level table: first the entries of the regions that grow later, so that domains' copies of them never
    /// grow stale, then all RAM but the image, then the image.
    fn fill(&mut self, ram: &[Region]) -> Result<(), MapError> {
        self.root = self.take_page()?;
        for region in [self.next_device, self.next_stack] {
            let (root, next) = (self.root, self.take_page()?);
            self.table(root)[region.p4_index()].set_addr(next, Flags::PRESENT | Flags::WRITABLE);
        }
        for run in ram {
            let frame = PhysAddr::new(run.start);
            self.map_range(direct(frame), frame, run.end - run.start, DATA)?;
        }
        let [text, rodata, data, end] = layout::image_parts();
        for (start, end, flags) in [(text, rodata, Flags::empty()), (rodata, data, READ_ONLY), (data, end, DATA)] {
            let frame = PhysAddr::new(start.as_u64() - layout::KERNEL_BASE);
            self.map_range(start, frame, end - start, flags)?;
        }
        Ok(())
    }
}

/// Makes the final tables and switches to them. What runs now, boot stack included, lies in the image.
pub(super) fn init(plan: &Plan) {
    let mut tables = TABLES.lock();
    tables.pool = plan.tables;
    if let Err(error) = tables.fill(&plan.ram) {
        crate::boot::report::fail("page tables", format_args!("{error:?}"), "report this: the table pool is too small");
    }
    load_root(tables.root);
}

/// The hypervisor's own top-level table: the upper half and an empty lower half. The upper half's entries are never
/// written again after [`init`].
pub fn hypervisor_root() -> PhysAddr {
    TABLES.lock().root
}

/// Loads a top-level table.
pub fn load_root(root: PhysAddr) {
    // SAFETY: `root` is the hypervisor's table or a domain's, whose upper half is a copy of the hypervisor's; so all
    // that Rust code refers to stays mapped as it was.
    unsafe { Cr3::write(PhysFrame::containing_address(root), Cr3Flags::empty()) }
}

/// Device registers or firmware tables in the hypervisor's address space, for good.
#[derive(Clone, Copy, Debug)]
pub struct DeviceMapping {
    /// Where the first byte asked for appears.
    pub address: VirtAddr,
    /// Bytes.
    pub bytes: u64,
}

fn map_window(start: PhysAddr, bytes: u64, flags: Flags) -> Result<DeviceMapping, MapError> {
    let end = start.as_u64().checked_add(bytes).ok_or(MapError::BadRange)?;
    if bytes == 0 {
        return Err(MapError::BadRange);
    }
    let first = page_down(start.as_u64());
    let length = page_up(end) - first;
    let mut tables = TABLES.lock();
    // Aligned alike modulo a large page, and a page apart from its neighbour.
    let base = tables.next_device.align_up(LARGE_PAGE) + first % LARGE_PAGE;
    if length > REGION_BYTES || base - VirtAddr::new(DEVICE_BASE) > REGION_BYTES - length {
        return Err(MapError::OutOfTables);
    }
    tables.next_device = base + length + PAGE;
    tables.map_range(base, PhysAddr::new(first), length, flags)?;
    Ok(DeviceMapping { address: base + (start.as_u64() - first), bytes })
}

/// Maps device registers: read-write, uncached.
pub fn map_device(start: PhysAddr, bytes: u64) -> Result<DeviceMapping, MapError> {
    map_window(start, bytes, DATA | Flags::NO_CACHE | Flags::WRITE_THROUGH)
}

/// Maps firmware tables: read-only, cached.
pub fn map_firmware(start: PhysAddr, bytes: u64) -> Result<DeviceMapping, MapError> {
    map_window(start, bytes, READ_ONLY)
}

/// Maps `pages` fresh frames as a stack that stays; answers its top. The page on either side is unmapped: an overflow is
/// a page fault (then a double fault on a stack of its own), never silent damage.
pub fn map_stack(pages: u64) -> Result<VirtAddr, MapError> {
    let mut tables = TABLES.lock();
    let base = tables.next_stack + PAGE;
    for index in 0..pages {
        let frame = tables.take_page()?;
        tables.map(base + index * PAGE, frame, DATA)?;
    }
    tables.next_stack = base + pages * PAGE;
    Ok(tables.next_stack)
}
