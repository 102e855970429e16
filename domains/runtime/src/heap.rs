//! The heap: all memory that the image and the fixed pages leave, at `native::HEAP_BASE`.
//!
//! Its addresses are guest-physical and I/O virtual addresses too, so what lies in it can be granted and used for DMA
//! (see [`crate::pages`]). An allocation that fails ends the domain; code that serves others bounds what it allocates
//! for them.

use core::alloc::{GlobalAlloc, Layout};
use core::ptr::{self, NonNull};

use linked_list_allocator::Heap;

use crate::local::Local;

/// The allocator behind `alloc`.
pub struct DomainHeap(Local<Heap>);

#[cfg_attr(target_os = "none", global_allocator)]
pub(crate) static HEAP: DomainHeap = DomainHeap(Local::new(Heap::empty()));

impl DomainHeap {
    /// Gives the heap its memory. Once, before the first allocation.
    ///
    /// # Safety
    ///
    /// `[base, base + bytes)` is readable, writable, zeroed and used by nothing else, for ever.
    pub(crate) unsafe fn init(&self, base: u64, bytes: u64) {
        // SAFETY: the caller's promise is the allocator's demand.
        unsafe { self.0.borrow().init(base as *mut u8, bytes as usize) }
    }

    /// Bytes in use and bytes free.
    pub fn usage(&self) -> (usize, usize) {
        let heap = self.0.borrow();
        (heap.used(), heap.free())
    }
}

/// Bytes of heap in use and free.
pub fn usage() -> (usize, usize) {
    HEAP.usage()
}

// SAFETY: the inner allocator upholds the contract (distinct, aligned, large enough blocks); the borrow makes the
// calls exclusive, and nothing in them allocates.
unsafe impl GlobalAlloc for DomainHeap {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        self.0.borrow().allocate_first_fit(layout).map_or(ptr::null_mut(), NonNull::as_ptr)
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        if let Some(pointer) = NonNull::new(pointer) {
            // SAFETY: the caller promises that the block came from `alloc` with this layout and is not used any more.
            unsafe { self.0.borrow().deallocate(pointer, layout) }
        }
    }
}
