//! The hypervisor's heap: bookkeeping of domains and devices. It has no memory at first and takes frames as it needs
//! them, never more than [`set_limit`] allows: so what it takes is what is used, and domains, whose share in it the policy's
//! quotas bound anyway, cannot make it grow without end. When there is no more, an allocation fails, and who asked is told.

use super::{layout::HEAP_BASE, layout::PAGE, map_heap_page};
use core::alloc::{GlobalAlloc, Layout};
use core::ptr::{NonNull, null_mut, with_exposed_provenance_mut};
use linked_list_allocator::Heap;
use spin::Mutex;

/// What the heap may grow to, on any machine.
const LIMIT_BYTES: u64 = 12 << 20;
/// And beyond that, in parts of RAM.
const LIMIT_SHARE: u64 = 64;

struct Growing {
    heap: Heap,
    /// Pages that it has, and may have.
    pages: u64,
    limit: u64,
}

struct Locked(Mutex<Growing>);

#[global_allocator]
static HEAP: Locked = Locked(Mutex::new(Growing { heap: Heap::empty(), pages: 0, limit: 0 }));

impl Growing {
    /// Makes room for a block. The heap gets all pages that were there to take, even if they are too few.
    #[cold]
    fn grow(&mut self, layout: Layout) {
        // The block is aligned within, and what is left on both sides holds the allocator's own words.
        let bytes = layout.size().saturating_add(layout.align()).saturating_add(4 * size_of::<usize>());
        let wanted = (bytes as u64).div_ceil(PAGE);
        if wanted > self.limit - self.pages {
            return;
        }
        let end = HEAP_BASE + self.pages * PAGE;
        let mapped = (0..wanted).take_while(|page| map_heap_page(end + page * PAGE).is_ok()).count();
        // SAFETY: so many pages behind the heap's last were mapped just now, read-write, for good and for nothing else.
        match (mapped * PAGE as usize, self.pages) {
            (0, _) => (),
            (bytes, 0) => unsafe { self.heap.init(with_exposed_provenance_mut(HEAP_BASE as usize), bytes) },
            (bytes, _) => unsafe { self.heap.extend(bytes) },
        }
        self.pages += mapped as u64;
    }
}

// SAFETY: `Heap` hands out disjoint blocks of its region that satisfy the layout; the lock makes that hold for any
// number of CPUs. What it calls to grow allocates nothing here.
unsafe impl GlobalAlloc for Locked {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let mut growing = self.0.lock();
        let block = growing.heap.allocate_first_fit(layout).or_else(|()| {
            growing.grow(layout);
            growing.heap.allocate_first_fit(layout)
        });
        block.map_or(null_mut(), NonNull::as_ptr)
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        if let Some(pointer) = NonNull::new(pointer) {
            // SAFETY: the caller promises that `pointer` came from `alloc` with this layout.
            unsafe { self.0.lock().heap.deallocate(pointer, layout) }
        }
    }
}

/// Bounds the heap, by how much RAM there is.
pub fn set_limit(ram_bytes: u64) {
    HEAP.0.lock().limit = (LIMIT_BYTES + ram_bytes / LIMIT_SHARE) / PAGE;
}
