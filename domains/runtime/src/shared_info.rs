//! The shared info page: event bits and time, written by the hypervisor while we read (`struct shared_info`).

use core::sync::atomic::Ordering::SeqCst;
use core::sync::atomic::{AtomicU64, Ordering};

use xen_abi::native::{PAGE_SIZE, SHARED_INFO};

use crate::event::bits::{EventBits, WORDS};
use crate::hypercall::memory;
use crate::pages::PAGE;
use crate::shared::Shared;

/// Offsets in `struct shared_info`; the first vCPU's `struct vcpu_info` is at its start.
mod offset {
    pub const UPCALL_PENDING: usize = 0;
    pub const UPCALL_MASK: usize = 1;
    pub const SELECTOR: usize = 8;
    pub const TIME: usize = 32;
    pub const TIME_BYTES: usize = 32;
    pub const PENDING: usize = 2048;
    pub const MASK: usize = 2560;
}

/// Puts the page at its place, masks all ports and allows wake-ups. Once, at the start.
pub(crate) fn init() {
    // SAFETY: the address map reserves this page for shared info; nothing is mapped or referred to there yet.
    unsafe { memory::add_shared_info(SHARED_INFO / PAGE_SIZE) }
        .expect("the hypervisor gives every domain its shared info");
    bits().mask_all();
    page().u8_at(offset::UPCALL_MASK).store(0, Ordering::Relaxed);
}

#[inline]
fn page() -> Shared<'static> {
    // SAFETY: mapped by `init` before anything else runs, for ever; accessed through this type only.
    unsafe { Shared::new(SHARED_INFO as *mut u8, PAGE) }
}

#[inline]
fn words(offset: usize) -> &'static [AtomicU64; WORDS] {
    let first = page().part(offset, WORDS * 8).u64_at(0) as *const AtomicU64;
    // SAFETY: `part` checked that 64 words from here lie in the page, which stays mapped; atomics are sound on memory
    // that the hypervisor writes.
    unsafe { &*first.cast() }
}

/// The event bits.
#[inline]
pub(crate) fn bits() -> EventBits<'static> {
    EventBits { pending: words(offset::PENDING), mask: words(offset::MASK), selector: page().u64_at(offset::SELECTOR) }
}

/// Clears the flag by which the hypervisor says that something became pending. Before looking at the bits.
#[inline]
pub(crate) fn clear_upcall_pending() {
    page().u8_at(offset::UPCALL_PENDING).store(0, SeqCst);
}

/// `struct vcpu_time_info` of the vCPU.
pub(crate) fn time_page() -> Shared<'static> {
    page().part(offset::TIME, offset::TIME_BYTES)
}
