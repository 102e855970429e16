//! The hypervisor's heap: bookkeeping of domains, frames and devices. Domains cannot make it grow without bound: what
//! they cause is limited by the policy's quotas.

use super::{Plan, layout};
use core::alloc::{GlobalAlloc, Layout};
use core::ptr::{NonNull, null_mut};
use linked_list_allocator::Heap;
use spin::Mutex;
use x86_64::PhysAddr;

struct Locked(Mutex<Heap>);

#[global_allocator]
static HEAP: Locked = Locked(Mutex::new(Heap::empty()));

// SAFETY: `Heap` hands out disjoint blocks of its region that satisfy the layout; the lock makes that hold for any
// number of CPUs.
unsafe impl GlobalAlloc for Locked {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        self.0.lock().allocate_first_fit(layout).map_or(null_mut(), NonNull::as_ptr)
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        if let Some(pointer) = NonNull::new(pointer) {
            // SAFETY: the caller promises that `pointer` came from `alloc` with this layout.
            unsafe { self.0.lock().deallocate(pointer, layout) }
        }
    }
}

/// Gives the heap its memory.
pub fn init(plan: &Plan) {
    let start = layout::direct(PhysAddr::new(plan.heap.start)).as_mut_ptr::<u8>();
    // SAFETY: the direct map shows the heap's run read-write; the run was reserved for it and nothing else uses it.
    unsafe { HEAP.0.lock().init(start, (plan.heap.end - plan.heap.start) as usize) }
}
