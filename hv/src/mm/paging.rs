//! The hypervisor's own page tables (AMD APM volume 2, section 5.3; Intel SDM volume 3, section 4.5).
//!
//! The upper half is the same in every address space: its 256 top-level entries are filled once, here, and copied into
//! each domain's top-level table, so that what is mapped later (devices, stacks, heap) appears everywhere. W^X: text is the
//! only executable range and nothing else maps its frames.

use super::layout::{self, DEVICE_BASE, LARGE_PAGE, PAGE, direct, page_down, page_up};
use super::{Plan, frames};
use crate::{boot::info::Region, boot::report::fail, machine::Bare};
use hv_core::{frames::Purpose, ids::Hpa, space::MapError};
use spin::{Mutex, MutexGuard, Once};
use x86_64::registers::control::{Cr3, Cr3Flags};
use x86_64::structures::paging::{PageTable, PhysFrame};
use x86_64::{PhysAddr, VirtAddr, structures::paging::page_table::PageTableFlags as Flags};

/// Where the hypervisor's entries begin in a top-level table, in bytes; there are as many bytes of them.
pub const UPPER_HALF: usize = PAGE as usize / 2;

/// What one top-level entry maps; the device, stack and heap regions have one each.
const REGION_BYTES: u64 = 1 << 39;

const READ_ONLY: Flags = Flags::NO_EXECUTE;
const DATA: Flags = Flags::WRITABLE.union(Flags::NO_EXECUTE);

static TABLES: Once<Mutex<Tables>> = Once::new();

/// The tables, and where the regions that grow have come to.
struct Tables {
    root: PhysAddr,
    next_device: VirtAddr,
    next_stack: VirtAddr,
}

/// A zeroed frame that stays, for a table, a stack or the heap.
fn take_page() -> Result<PhysAddr, MapError> {
    let page = frames().allocate(Purpose::Hypervisor, &Bare).ok_or(MapError::NoMemory)?;
    Ok(PhysAddr::new(page.base().0))
}

impl Tables {
    /// The table at `at`, which must be one of ours.
    fn table(&mut self, at: PhysAddr) -> &mut PageTable {
        // SAFETY: every address passed here is the root or was read from an entry that `map` made, so it is from
        // `take_page`, a table, and reached only through `&mut self`. (The processor sets accessed bits in it; the
        // entries are plain words to us and a lost accessed bit is harmless.)
        unsafe { &mut *direct(at).as_mut_ptr::<PageTable>() }
    }

    /// Maps one leaf; its level is the one of a large page if the flags say so.
    fn map(&mut self, page: VirtAddr, frame: PhysAddr, flags: Flags) -> Result<(), MapError> {
        let indices = [page.p4_index(), page.p3_index(), page.p2_index(), page.p1_index()];
        let depth = if flags.contains(Flags::HUGE_PAGE) { 2 } else { 3 };
        let mut table = self.root;
        for index in &indices[..depth] {
            let entry = &mut self.table(table)[*index];
            if entry.is_unused() {
                entry.set_addr(take_page()?, Flags::PRESENT | Flags::WRITABLE);
            }
            table = entry.addr();
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

    /// Makes the top-level table: first the entries of the regions that grow later, so that domains' copies of them
    /// never grow stale, then all RAM but the image, then the image.
    fn new(ram: &[Region]) -> Result<Self, MapError> {
        let (next_device, next_stack) = (VirtAddr::new(DEVICE_BASE), VirtAddr::new(layout::STACK_BASE));
        let mut tables = Self { root: take_page()?, next_device, next_stack };
        for region in [next_device, next_stack, VirtAddr::new(layout::HEAP_BASE)] {
            let entry = &mut tables.table(tables.root)[region.p4_index()];
            entry.set_addr(take_page()?, Flags::PRESENT | Flags::WRITABLE);
        }
        for run in ram {
            let frame = PhysAddr::new(run.start);
            tables.map_range(direct(frame), frame, run.end - run.start, DATA)?;
        }
        let [text, rodata, data, end] = layout::image_parts();
        for (start, end, flags) in [(text, rodata, Flags::empty()), (rodata, data, READ_ONLY), (data, end, DATA)] {
            let frame = PhysAddr::new(start.as_u64() - layout::KERNEL_BASE);
            tables.map_range(start, frame, end - start, flags)?;
        }
        Ok(tables)
    }
}

/// Makes the final tables and switches to them. What runs now, boot stack included, lies in the image.
pub(super) fn init(plan: &Plan) {
    let tables = Tables::new(&plan.ram)
        .unwrap_or_else(|why| fail("page tables", format_args!("{why:?}"), "give the machine more memory (-m 512M)"));
    load_root(tables.root);
    TABLES.call_once(|| Mutex::new(tables));
}

fn tables() -> Result<MutexGuard<'static, Tables>, MapError> {
    TABLES.get().map(Mutex::lock).ok_or(MapError::NoMemory)
}

/// The hypervisor's own top-level table: the upper half and an empty lower half. The upper half's entries are never
/// written again after [`init`].
pub fn hypervisor_root() -> PhysAddr {
    tables().map_or(PhysAddr::zero(), |tables| tables.root)
}

/// Loads a top-level table.
pub fn load_root(root: PhysAddr) {
    // SAFETY: `root` is the hypervisor's table or a domain's, whose upper half is a copy of the hypervisor's; so all
    // that Rust code refers to stays mapped as it was.
    unsafe { Cr3::write(PhysFrame::containing_address(root), Cr3Flags::empty()) }
}

/// Maps device registers for good, read-write, uncached. Answers where the first byte appears.
pub fn map_device(start: Hpa, bytes: u64) -> Result<VirtAddr, MapError> {
    let end = start.0.checked_add(bytes).filter(|end| *end > start.0).ok_or(MapError::BadAddress)?;
    let first = page_down(start.0);
    let frame = PhysAddr::try_new(first).map_err(|_| MapError::BadAddress)?;
    let length = page_up(end) - first;
    let mut tables = tables()?;
    // Aligned alike modulo a large page, and a page apart from its neighbour.
    let base = tables.next_device.align_up(LARGE_PAGE) + first % LARGE_PAGE;
    if length > REGION_BYTES || base - VirtAddr::new(DEVICE_BASE) > REGION_BYTES - length {
        return Err(MapError::NoMemory);
    }
    tables.next_device = base + length + PAGE;
    tables.map_range(base, frame, length, DATA | Flags::NO_CACHE | Flags::WRITE_THROUGH)?;
    Ok(base + (start.0 - first))
}

/// Maps `pages` fresh frames as a stack that stays; answers its top. The page on either side is unmapped: an overflow is
/// a page fault (then a double fault on a stack of its own), never silent damage.
pub fn map_stack(pages: u64) -> Result<VirtAddr, MapError> {
    let mut tables = tables()?;
    let base = tables.next_stack + PAGE;
    for index in 0..pages {
        tables.map(base + index * PAGE, take_page()?, DATA)?;
    }
    tables.next_stack = base + pages * PAGE;
    Ok(tables.next_stack)
}

/// Maps a fresh frame of the heap, for good. No processor remembers that nothing was mapped there.
pub fn map_heap_page(page: u64) -> Result<(), MapError> {
    tables()?.map(VirtAddr::new(page), take_page()?, DATA)
}
