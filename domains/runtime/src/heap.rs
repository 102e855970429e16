//! The heap: all memory that the image and the fixed pages leave, at `native::HEAP_BASE`.
//!
//! Most of it is not there at the start: it is kept for this domain, and got from the hypervisor when it is wanted. So a
//! domain is built, and built again, for what it uses and not for what it might use.
//!
//! Its addresses are guest-physical and I/O virtual addresses too, so what lies in it can be granted and used for DMA
//! (see [`crate::pages`]). An allocation that fails ends the domain; code that serves others bounds what it allocates
//! for them.
//!
//! Below is a list of holes, which is gone through at each allocation and each release: hundreds of instructions in a heap
//! that has been in use for a while. Small blocks therefore do not go back to it but to a stack of blocks of their size, and
//! come from there again. When memory runs short, all of these go back.

use core::alloc::{GlobalAlloc, Layout};
use core::ptr::{self, NonNull};

use linked_list_allocator::Heap;

use crate::hypercall::memory;
use crate::local::Local;
use crate::pages::PAGE;

/// Small blocks are of a multiple of this many bytes, and aligned to it.
const STEP: usize = 16;
/// Sizes of small blocks: up to half a KiB.
const CLASSES: usize = 32;

/// Pages by which the heap grows, at least.
const GROWTH: usize = 16;

/// A small block that is not in use: its first word.
struct Block {
    next: Option<NonNull<Block>>,
}

struct Memory {
    heap: Heap,
    /// By size: blocks that were released.
    kept: [Option<NonNull<Block>>; CLASSES],
    /// Bytes of all of them.
    kept_bytes: usize,
    /// Pages behind the heap's end that it can have.
    spare: usize,
    /// Makes pages from this address on, zeroed; tells how many.
    populate: fn(usize, usize) -> usize,
}

// SAFETY: the kept blocks are memory of the heap below that nobody else refers to, like its holes.
unsafe impl Send for Memory {}

/// Which class a block belongs to, and its layout below; `None`: it is not small.
fn class_of(layout: Layout) -> Option<(usize, Layout)> {
    let class = layout.size().div_ceil(STEP).saturating_sub(1);
    (layout.align() <= STEP && class < CLASSES).then(|| (class, class_layout(class)))
}

fn class_layout(class: usize) -> Layout {
    const { assert!(STEP.is_power_of_two() && size_of::<Block>() <= STEP && align_of::<Block>() <= STEP) };
    Layout::from_size_align((class + 1) * STEP, STEP).unwrap_or(Layout::new::<Block>())
}

impl Memory {
    const fn empty() -> Self {
        Self { heap: Heap::empty(), kept: [None; CLASSES], kept_bytes: 0, spare: 0, populate: |_, _| 0 }
    }

    fn allocate(&mut self, layout: Layout) -> Option<NonNull<u8>> {
        let Some((class, layout)) = class_of(layout) else { return self.take_hole(layout) };
        let Some(block) = self.kept.get(class).copied().flatten() else { return self.take_hole(layout) };
        // SAFETY: what is in the list was released whole and is in no other; its first word was written then.
        self.kept[class] = unsafe { block.read() }.next;
        self.kept_bytes -= layout.size();
        Some(block.cast())
    }

    fn take_hole(&mut self, layout: Layout) -> Option<NonNull<u8>> {
        loop {
            let hole = self.heap.allocate_first_fit(layout).ok();
            if hole.is_some() || !self.grow(layout) {
                break hole;
            }
        }
        .or_else(|| {
            self.give_back();
            self.heap.allocate_first_fit(layout).ok()
        })
    }

    /// Makes room at the end for a block, or as much as there is. `false`: there is none.
    #[cold]
    fn grow(&mut self, layout: Layout) -> bool {
        let wanted = layout.size().saturating_add(layout.align()).div_ceil(PAGE);
        let wanted = wanted.max(GROWTH).min(self.spare);
        let got = if wanted == 0 { 0 } else { (self.populate)(self.heap.top().addr(), wanted).min(wanted) };
        // What could not be had now cannot be had later: nobody else gets it.
        self.spare = if got == wanted { self.spare - got } else { 0 };
        // SAFETY: these pages begin where the heap ends, are memory now, and nobody else's: `init`'s caller has said so.
        unsafe { self.heap.extend(got * PAGE) };
        got != 0
    }

    /// Returns all kept blocks to the list of holes.
    #[cold]
    fn give_back(&mut self) {
        for class in 0..CLASSES {
            while let Some(block) = self.kept[class] {
                // SAFETY: as above; the block came from the heap with this layout, and nobody has it.
                unsafe {
                    self.kept[class] = block.read().next;
                    self.heap.deallocate(block.cast(), class_layout(class));
                }
            }
        }
        self.kept_bytes = 0;
    }

    /// # Safety
    ///
    /// The block came from [`Memory::allocate`] with this layout and is not used any more.
    unsafe fn release(&mut self, block: NonNull<u8>, layout: Layout) {
        let Some((class, layout)) = class_of(layout) else {
            // SAFETY: the caller's promise; a block that is not small came from there with this layout.
            return unsafe { self.heap.deallocate(block, layout) };
        };
        let block = block.cast::<Block>();
        // SAFETY: the block is large enough for its first word, aligned for it, and nobody else's from here on.
        unsafe { block.write(Block { next: self.kept[class] }) };
        self.kept[class] = Some(block);
        self.kept_bytes += layout.size();
    }

    fn usage(&self) -> (usize, usize) {
        let free = self.heap.free() + self.spare * PAGE;
        (self.heap.used().saturating_sub(self.kept_bytes), free.saturating_add(self.kept_bytes))
    }
}

/// The allocator behind `alloc`.
pub struct DomainHeap(Local<Memory>);

#[cfg_attr(target_os = "none", global_allocator)]
pub(crate) static HEAP: DomainHeap = DomainHeap(Local::new(Memory::empty()));

impl DomainHeap {
    /// Gives the heap its memory. Once, before the first allocation.
    ///
    /// # Safety
    ///
    /// The first `pages` pages of `[base, base + bytes)` are readable, writable and zeroed, the others vacant, and nothing else
    /// uses any of them, for ever.
    pub(crate) unsafe fn init(&self, base: u64, pages: u32, bytes: u64) {
        let mut memory = self.0.borrow();
        let now = (pages as usize * PAGE).min(bytes as usize);
        memory.spare = (bytes as usize - now) / PAGE;
        memory.populate = |from, count| memory::populate((from / PAGE) as u64, count as u64) as usize;
        // SAFETY: the caller's promise is the allocator's demand.
        unsafe { memory.heap.init(base as *mut u8, now) }
    }

    /// Bytes in use and bytes free.
    pub fn usage(&self) -> (usize, usize) {
        self.0.borrow().usage()
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
        self.0.borrow().allocate(layout).map_or(ptr::null_mut(), NonNull::as_ptr)
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        if let Some(pointer) = NonNull::new(pointer) {
            // SAFETY: the caller promises that the block came from `alloc` with this layout and is not used any more.
            unsafe { self.0.borrow().release(pointer, layout) }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec::Vec;
    use proptest::prelude::*;

    const BYTES: usize = 64 * 1024;

    fn memory() -> Memory {
        let room = Vec::leak(alloc::vec![0u128; BYTES / 16]);
        let mut memory = Memory::empty();
        // SAFETY: leaked, and nobody else's.
        unsafe { memory.heap.init(room.as_mut_ptr().cast(), BYTES) };
        memory
    }

    /// One of which two pages are there, and as many more as `populate` gives, of 64.
    fn growing(populate: fn(usize, usize) -> usize) -> Memory {
        let room = Vec::leak(alloc::vec![0u128; 66 * PAGE / 16]);
        let mut memory = Memory { spare: 64, populate, ..Memory::empty() };
        // SAFETY: leaked, and nobody else's.
        unsafe { memory.heap.init(room.as_mut_ptr().cast(), 2 * PAGE) };
        memory
    }

    #[test]
    fn a_heap_grows_to_its_bound_and_no_further() {
        let mut memory = growing(|_, wanted| wanted);
        let all = memory.usage().1;
        assert_eq!(all, 66 * PAGE);
        let mut blocks = 0;
        while memory.allocate(layout(3 * PAGE, 8)).is_some() {
            blocks += 1;
            assert_eq!(memory.usage().0 + memory.usage().1, all);
        }
        assert_eq!((blocks, memory.spare), (22, 0));
    }

    #[test]
    fn a_block_larger_than_a_step_of_growth_is_found_room_for() {
        let mut memory = growing(|_, wanted| wanted);
        assert!(memory.allocate(layout(40 * PAGE, PAGE)).is_some());
        assert!(memory.allocate(layout(40 * PAGE, PAGE)).is_none(), "it would need more than there is");
        assert!(memory.allocate(layout(PAGE, 8)).is_some());
    }

    #[test]
    fn what_cannot_be_had_is_not_asked_for_again() {
        let mut memory = growing(|_, wanted| wanted.min(5));
        assert!(memory.allocate(layout(8 * PAGE, 8)).is_none());
        assert!(memory.allocate(layout(6 * PAGE, 8)).is_some());
        assert_eq!((memory.spare, memory.heap.size()), (0, 7 * PAGE));
    }

    fn layout(size: usize, align: usize) -> Layout {
        Layout::from_size_align(size, align).unwrap()
    }

    #[test]
    fn what_small_blocks_have_taken_is_there_for_a_large_one() {
        let mut memory = memory();
        let mut blocks = Vec::new();
        while let Some(block) = memory.allocate(layout(40, 8)) {
            blocks.push(block);
        }
        assert!(blocks.len() > BYTES / 64 && memory.allocate(layout(4096, 4096)).is_none());
        for block in blocks {
            // SAFETY: allocated so, and not used.
            unsafe { memory.release(block, layout(40, 8)) };
        }
        assert_eq!(memory.usage().0, 0);
        assert!(memory.allocate(layout(BYTES / 2, 4096)).is_some());
    }

    proptest! {
        /// No two blocks overlap, each is aligned, and all of it comes back.
        #[test]
        fn blocks_are_apart(script in prop::collection::vec((0..900_usize, 0..7_u32, any::<bool>()), 1..300)) {
            let mut memory = memory();
            let mut blocks: Vec<(NonNull<u8>, Layout)> = Vec::new();
            for (number, align, release) in script {
                if release && !blocks.is_empty() {
                    let (block, layout) = blocks.swap_remove(number % blocks.len());
                    // SAFETY: allocated so, and not used any more.
                    unsafe { memory.release(block, layout) };
                    continue;
                }
                let layout = layout(number + 1, 1 << align);
                let Some(block) = memory.allocate(layout) else { continue };
                let (start, end) = (block.addr().get(), block.addr().get() + layout.size());
                prop_assert!(start.is_multiple_of(layout.align()));
                for (other, layout) in &blocks {
                    prop_assert!(end <= other.addr().get() || other.addr().get() + layout.size() <= start);
                }
                blocks.push((block, layout));
            }
            for (block, layout) in blocks {
                // SAFETY: as above.
                unsafe { memory.release(block, layout) };
            }
            prop_assert_eq!(memory.usage().0, 0);
            memory.give_back();
            prop_assert!(memory.allocate(layout(BYTES / 2, 16)).is_some());
        }
    }
}
