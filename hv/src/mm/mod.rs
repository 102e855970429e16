//! Memory of the hypervisor: its own address space, physical memory at boot, its heap, stacks and device mappings.

mod early;
mod heap;
pub mod layout;
mod paging;
pub mod user;

pub use early::Plan;
pub use hv_core::space::MapError;
use paging::map_heap_page;
pub use paging::{UPPER_HALF, hypervisor_root, load_root, map_device, map_stack};

use crate::boot::info::{BootInfo, Region};
use core::sync::atomic::AtomicU32;
use hv_core::{frames::FrameTable, ids::Hpa};
use layout::EARLY_LIMIT;
use spin::Once;
use x86_64::PhysAddr;

static FRAMES: Once<FrameTable> = Once::new();

/// Who owns which machine frame. Only from when [`init`] has made it.
#[inline(always)]
pub fn frames() -> &'static FrameTable {
    debug_assert!(FRAMES.is_completed());
    // SAFETY: `init` makes it before anything else here and before there is a heap, a stack of a CPU or a domain, and
    // nothing asks earlier. (To look each time costs each use of a grant three instructions.)
    unsafe { FRAMES.get_unchecked() }
}

/// Lays out physical memory, makes the frame table and the final page tables, and lets the heap grow. `Err`: that many
/// bytes of free RAM are missing.
pub fn init(info: &BootInfo) -> Result<Plan, u64> {
    let plan = Plan::new(info)?;
    let frames = FRAMES.call_once(|| FrameTable::new(frame_entries(&plan.frame_table)));
    let range = |run: &Region| Hpa(run.start).mfn()..Hpa(run.end).mfn();
    for run in [&layout::image(), &plan.frame_table] {
        frames.add_hypervisor(range(run));
    }
    // The page tables are made of what the early ones show.
    for run in &plan.usable {
        frames.add_free(range(&(run.start..run.end.min(EARLY_LIMIT))));
    }
    paging::init(&plan);
    for run in &plan.usable {
        frames.add_free(range(&(run.start.max(EARLY_LIMIT)..run.end)));
    }
    heap::set_limit(plan.ram_bytes);
    Ok(plan)
}

/// The frame table's entries.
fn frame_entries(run: &Region) -> &'static [AtomicU32] {
    let entries = layout::direct(PhysAddr::new(run.start)).as_mut_ptr::<AtomicU32>();
    let count = (run.end - run.start) as usize / size_of::<AtomicU32>();
    // SAFETY: the early tables and the final ones show the run read-write at this address; it was reserved for this and
    // nothing else uses it. Zeros are an `AtomicU32`.
    unsafe {
        entries.write_bytes(0, count);
        core::slice::from_raw_parts(entries, count)
    }
}
