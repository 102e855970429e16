//! The hypervisor's own page tables (AMD APM volume 2, section 5.3; Intel SDM volume 3, section 4.5).
//!
//! The upper half is the same in every address space: its 256 top-level entries are filled once, here, and copied into
//! each domain's top-level table, so that what is mapped later (devices, stacks) appears everywhere. W^X: text is the
//! only executable range and nothing else maps its frames.

use super::layout::{self, DEVICE_BASE, DIRECT_MAP_BYTES, LARGE_PAGE, PAGE, direct, page_down, page_up};
use super::{Plan, Usable};
use crate::boot::info::BootInfo;
use spin::{Mutex, Once};
use x86_64::registers::control::{Cr3, Cr3Flags};
use x86_64::structures::paging::page_table::PageTableFlags as Flags;
use x86_64::structures::paging::{PageTable, PhysFrame};
use x86_64::{PhysAddr, VirtAddr};

/// Top-level entries that belong to the hypervisor.
pub const UPPER_HALF: core::ops::Range<usize> = 256..512;

/// What one top-level entry maps; the device and stack regions have one each.
const REGION_BYTES: u64 = 1 << 39;

static TABLES: Mutex<Option<Tables>> = Mutex::new(None);
static ROOT: Once<PhysAddr> = Once::new();

/// The tables and what they grow from.
struct Tables {
    root: PhysAddr,
    pool: Usable,
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

/// Leaf sizes.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Leaf {
    Small,
    Large,
}

impl Tables {
    fn take_page(&mut self) -> Result<PhysAddr, MapError> {
        if self.pool.start >= self.pool.end {
            return Err(MapError::OutOfTables);
        }
        let page = self.pool.start_address();
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

    /// Maps one leaf.
    fn map(&mut self, page: VirtAddr, frame: PhysAddr, leaf: Leaf, flags: Flags) -> Result<(), MapError> {
        let indices = [page.p4_index(), page.p3_index(), page.p2_index(), page.p1_index()];
        let depth = if leaf == Leaf::Large { 2 } else { 3 };
        let mut table = self.root;
        for index in &indices[..depth] {
            if self.table(table)[*index].is_unused() {
                let next = self.take_page()?;
                self.table(table)[*index].set_addr(next, Flags::PRESENT | Flags::WRITABLE);
            }
            table = self.table(table)[*index].addr();
        }
        let extra = if leaf == Leaf::Large { Flags::HUGE_PAGE } else { Flags::empty() };
        self.table(table)[indices[depth]].set_addr(frame, flags | extra | Flags::PRESENT);
        Ok(())
    }

    /// Maps a page-aligned range, with large pages where both sides allow it.
    fn map_range(&mut self, start: VirtAddr, frame: PhysAddr, bytes: u64, flags: Flags) -> Result<(), MapError> {
        let mut done = 0;
        while done < bytes {
            let (page, at) = (start + done, frame + done);
            let large = page.is_aligned(LARGE_PAGE) && at.is_aligned(LARGE_PAGE) && bytes - done >= LARGE_PAGE;
            let leaf = if large { Leaf::Large } else { Leaf::Small };
            self.map(page, at, leaf, flags)?;
            done += if large { LARGE_PAGE } else { PAGE };
        }
        Ok(())
    }

    fn map_image(&mut self) -> Result<(), MapError> {
        let image = layout::image();
        let data = Flags::WRITABLE | Flags::NO_EXECUTE;
        for ((start, end), flags) in
            [(image.text, Flags::empty()), (image.rodata, Flags::NO_EXECUTE), (image.data, data)]
        {
            let frame = PhysAddr::new(start.as_u64() - layout::KERNEL_BASE);
            self.map_range(start, frame, end - start, flags | Flags::GLOBAL)?;
        }
        Ok(())
    }

    /// Maps all RAM but the image.
    fn map_ram(&mut self, info: &BootInfo) -> Result<(), MapError> {
        let image = layout::image();
        let (hole, hole_end) = (image.start.as_u64(), image.end.as_u64());
        let flags = Flags::WRITABLE | Flags::NO_EXECUTE | Flags::GLOBAL;
        for region in info.regions.iter().filter(|region| region.ram) {
            let (start, end) = (page_up(region.start), page_down(region.end.min(DIRECT_MAP_BYTES)));
            for (from, to) in [(start, end.min(hole)), (start.max(hole_end), end)] {
                if from < to {
                    self.map_range(direct(PhysAddr::new(from)), PhysAddr::new(from), to - from, flags)?;
                }
            }
        }
        Ok(())
    }
}

/// Makes the final tables and switches to them. The boot stack stays reachable through the direct map's image hole
/// until the caller has moved to a [`super::Stack`], so the boot part is mapped too, read-write, until then.
pub(super) fn init(machine: &mut Plan, info: &BootInfo) {
    let mut tables = Tables {
        root: PhysAddr::zero(),
        pool: machine.take_tables(),
        next_device: VirtAddr::new(DEVICE_BASE),
        next_stack: VirtAddr::new(layout::STACK_BASE),
    };
    let made = (|| {
        tables.root = tables.take_page()?;
        // The regions that grow later get their top-level entries now: domains' copies of them never grow stale.
        for region in [DEVICE_BASE, layout::STACK_BASE] {
            let (root, next) = (tables.root, tables.take_page()?);
            tables.table(root)[VirtAddr::new(region).p4_index()].set_addr(next, Flags::PRESENT | Flags::WRITABLE);
        }
        tables.map_ram(info)?;
        tables.map_image()?;
        let boot = layout::image();
        let boot_bytes = boot.text.0.as_u64() - layout::KERNEL_BASE - boot.start.as_u64();
        tables.map_range(direct(boot.start), boot.start, boot_bytes, Flags::WRITABLE | Flags::NO_EXECUTE)
    })();
    if let Err(error) = made {
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
    let mut guard = TABLES.lock();
    let tables = guard.as_mut().ok_or(MapError::OutOfTables)?;
    // Aligned alike modulo a large page, and a page apart from its neighbour.
    let base = tables.next_device.align_up(LARGE_PAGE) + first % LARGE_PAGE;
    if length > REGION_BYTES || base - VirtAddr::new(DEVICE_BASE) > REGION_BYTES - length {
        return Err(MapError::OutOfTables);
    }
    tables.next_device = base + length + PAGE;
    tables.map_range(base, PhysAddr::new(first), length, flags | Flags::NO_EXECUTE | Flags::GLOBAL)?;
    Ok(DeviceMapping { address: base + (start.as_u64() - first), bytes })
}

/// Maps device registers: read-write, uncached.
pub fn map_device(start: PhysAddr, bytes: u64) -> Result<DeviceMapping, MapError> {
    map_window(start, bytes, Flags::WRITABLE | Flags::NO_CACHE | Flags::WRITE_THROUGH)
}

/// Maps firmware tables: read-only, cached.
pub fn map_firmware(start: PhysAddr, bytes: u64) -> Result<DeviceMapping, MapError> {
    map_window(start, bytes, Flags::empty())
}

/// Maps `pages` fresh frames as a stack with an unmapped page on either side; answers its top.
pub(super) fn map_stack(pages: u64) -> Result<VirtAddr, MapError> {
    let mut guard = TABLES.lock();
    let tables = guard.as_mut().ok_or(MapError::OutOfTables)?;
    let base = tables.next_stack + PAGE;
    for index in 0..pages {
        let frame = tables.take_page()?;
        let flags = Flags::WRITABLE | Flags::NO_EXECUTE | Flags::GLOBAL;
        tables.map(base + index * PAGE, frame, Leaf::Small, flags)?;
    }
    tables.next_stack = base + pages * PAGE;
    Ok(tables.next_stack)
}

/// Drops the boot part of the image, once nothing runs on its stack any more.
pub fn unmap_boot() {
    let image = layout::image();
    let mut at = image.start;
    let end = PhysAddr::new(image.text.0.as_u64() - layout::KERNEL_BASE);
    let mut guard = TABLES.lock();
    let Some(tables) = guard.as_mut() else { return };
    while at < end {
        let page = direct(at);
        let root = tables.root;
        let pdpt = tables.table(root)[page.p4_index()].addr();
        let pd = tables.table(pdpt)[page.p3_index()].addr();
        let pt = tables.table(pd)[page.p2_index()].addr();
        tables.table(pt)[page.p1_index()].set_unused();
        x86_64::instructions::tlb::flush(page);
        at += PAGE;
    }
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
