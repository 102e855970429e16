//! The machine as `hv-core` sees it: memory by machine address through the direct map, and the flushing of stale
//! translations.
//!
//! Domains write the same memory at the same time, on other CPUs and by DMA. Therefore it is never behind a Rust
//! reference: runs of bytes are moved by instructions that the compiler cannot see into, words by atomics.

use crate::mm::layout::DIRECT_MAP;
use core::sync::atomic::{AtomicU8, AtomicU16, AtomicU32, AtomicU64, Ordering};
use hv_core::ids::{DomId, Gfn, Hpa, Mfn, PAGE_BYTES};
use hv_core::machine::{FlushScope, Machine, MachineMemory};
use x86_64::VirtAddr;

/// This machine.
pub struct Bare;

/// Where the direct map shows a byte of RAM.
pub fn at<T>(address: Hpa) -> *mut T {
    core::ptr::with_exposed_provenance_mut(DIRECT_MAP.wrapping_add(address.0) as usize)
}

/// Copies `bytes` upwards, by words and then by bytes.
///
/// # Safety
/// Both runs are mapped, `to` writable; if `to` is Rust memory, it belongs to the caller.
#[inline(always)]
unsafe fn copy(from: *const u8, to: *mut u8, bytes: usize) {
    // SAFETY: the caller's promise; exactly `bytes` bytes are read and written. The direction flag is clear.
    unsafe {
        core::arch::asm!(
            "rep movsq",
            "mov ecx, {rest:e}",
            "rep movsb",
            rest = in(reg) bytes % 8,
            inout("rcx") bytes / 8 => _, inout("rsi") from => _, inout("rdi") to => _,
            options(nostack, preserves_flags),
        );
    }
}

/// Accesses to words, each by one atomic operation.
macro_rules! atomics {
    ($($name:ident($($argument:ident: $type:ty),*) -> $result:ty = $atomic:ident::$operation:ident($($order:ident),*);)*) => {
        $(
            fn $name(&self, address: Hpa, $($argument: $type),*) -> $result {
                // SAFETY: callers name aligned words in frames that the frame table owns; those are RAM, which the
                // direct map shows read-write and no Rust object lives in. Every access to such words is atomic.
                let word: &$atomic = unsafe { $atomic::from_ptr(at(address)) };
                word.$operation($($argument,)* $(Ordering::$order),*)
            }
        )*
    };
}

impl MachineMemory for Bare {
    fn read(&self, from: Hpa, into: &mut [u8]) {
        // SAFETY: the run lies in one frame of RAM; `into` is the caller's.
        unsafe { copy(at(from), into.as_mut_ptr(), into.len()) }
    }

    fn write(&self, to: Hpa, bytes: &[u8]) {
        // SAFETY: the run lies in one frame of RAM that holds no Rust object.
        unsafe { copy(bytes.as_ptr(), at(to), bytes.len()) }
    }

    fn copy(&self, from: Hpa, to: Hpa, bytes: usize) {
        // SAFETY: both runs lie in frames of RAM that hold no Rust object.
        unsafe { copy(at(from), at(to), bytes) }
    }

    fn zero(&self, frame: Mfn) {
        // SAFETY: a frame of RAM that holds no Rust object. The direction flag is clear.
        unsafe {
            core::arch::asm!(
                "rep stosq",
                inout("rcx") PAGE_BYTES / 8 => _, inout("rdi") at::<u8>(frame.base()) => _, in("rax") 0,
                options(nostack, preserves_flags),
            );
        }
    }

    atomics! {
        load_u32() -> u32 = AtomicU32::load(Acquire);
        load_u64() -> u64 = AtomicU64::load(Acquire);
        store_u8(value: u8) -> () = AtomicU8::store(Release);
        store_u64(value: u64) -> () = AtomicU64::store(Release);
        fetch_or_u64(bits: u64) -> u64 = AtomicU64::fetch_or(AcqRel);
        fetch_and_u64(bits: u64) -> u64 = AtomicU64::fetch_and(AcqRel);
        fetch_and_u16(bits: u16) -> u16 = AtomicU16::fetch_and(AcqRel);
        compare_exchange_u32(current: u32, new: u32) -> Result<u32, u32> = AtomicU32::compare_exchange(AcqRel, Acquire);
    }

    fn write_back(&self, address: Hpa) {
        // SAFETY: flushes the cache line of a mapped word; its contents stay.
        unsafe {
            core::arch::asm!("clflush [{}]", "mfence", in(reg) at::<u8>(address), options(nostack, preserves_flags));
        }
    }
}

impl Machine for Bare {
    #[inline(always)] // in the way of each unmapping; the IOMMU's part is apart
    fn flush_pages(&self, domain: DomId, pages: impl ExactSizeIterator<Item = Gfn>, scope: FlushScope) {
        let several = pages.len() > 1;
        let mut last = None;
        for page in pages {
            // One CPU and no address space tags: what is not in the loaded space is in no TLB, and for another space's
            // address this does nothing.
            x86_64::instructions::tlb::flush(VirtAddr::new_truncate(page.base().0));
            last = Some(page);
        }
        crate::vm::nested_changed(domain);
        if scope == FlushScope::CpuAndIommu {
            // Several are cheaper with all others of the domain than one by one.
            crate::iommu::flush(domain, if several { None } else { last });
        }
    }

    fn flush_all(&self, domain: DomId, scope: FlushScope) {
        x86_64::instructions::tlb::flush_all();
        crate::vm::nested_changed(domain);
        if scope == FlushScope::CpuAndIommu {
            crate::iommu::flush(domain, None);
        }
    }
}
