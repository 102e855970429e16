//! The machine as `hv-core` sees it: memory by machine address through the direct map, and the flushing of stale
//! translations.
//!
//! Domains write the same memory at the same time, on other CPUs and by DMA. Therefore it is never behind a Rust
//! reference: runs of bytes are moved by instructions that the compiler cannot see into, words by atomics.

use crate::mm::direct;
use core::sync::atomic::{AtomicU8, AtomicU16, AtomicU32, AtomicU64, Ordering};
use hv_core::ids::{DomId, Gfn, Hpa, Mfn, PAGE_BYTES};
use hv_core::machine::{FlushScope, Machine, MachineMemory};
use x86_64::{PhysAddr, VirtAddr};

/// This machine.
#[derive(Clone, Copy, Debug)]
pub struct Bare;

fn at(address: Hpa) -> VirtAddr {
    direct(PhysAddr::new_truncate(address.0))
}

/// Copies `bytes` upwards. Plain moves: for the short runs that are usual here they beat string instructions, whose
/// start-up costs more than such a run, on hardware, and whose every step does, in emulation.
///
/// # Safety
/// Both runs are mapped, `to` writable; if `to` is Rust memory, it belongs to the caller.
unsafe fn copy(from: *const u8, to: *mut u8, bytes: usize) {
    // SAFETY: the caller's promise; exactly `bytes` bytes are read and written.
    unsafe {
        core::arch::asm!(
            "2: sub {left}, 32",
            "jb 3f",
            "mov {a}, [{from}]", "mov {b}, [{from} + 8]", "mov {c}, [{from} + 16]", "mov {d}, [{from} + 24]",
            "mov [{to}], {a}", "mov [{to} + 8], {b}", "mov [{to} + 16], {c}", "mov [{to} + 24], {d}",
            "add {from}, 32", "add {to}, 32",
            "jmp 2b",
            "3: add {left}, 32",
            "4: sub {left}, 4",
            "jb 5f",
            "mov {a:e}, [{from}]", "mov [{to}], {a:e}",
            "add {from}, 4", "add {to}, 4",
            "jmp 4b",
            "5: add {left}, 4",
            "jz 7f",
            "6: movzx {a:e}, byte ptr [{from}]", "mov [{to}], {a:l}",
            "inc {from}", "inc {to}",
            "dec {left}",
            "jnz 6b",
            "7:",
            left = inout(reg) bytes => _, from = inout(reg) from => _, to = inout(reg) to => _,
            a = out(reg) _, b = out(reg) _, c = out(reg) _, d = out(reg) _,
            options(nostack),
        );
    }
}

/// Accesses to words, each by one atomic operation.
macro_rules! atomics {
    ($($name:ident($($argument:ident: $type:ty),*) -> $result:ty = $atomic:ident::$operation:ident($($order:ident),*);)*) => {
        $(
            #[inline]
            fn $name(&self, address: Hpa, $($argument: $type),*) -> $result {
                // SAFETY: callers name aligned words in frames that the frame table owns; those are RAM, which the
                // direct map shows read-write and no Rust object lives in. Every access to such words is atomic.
                let word: &$atomic = unsafe { $atomic::from_ptr(at(address).as_mut_ptr()) };
                word.$operation($($argument,)* $(Ordering::$order),*)
            }
        )*
    };
}

impl MachineMemory for Bare {
    #[inline]
    fn read(&self, from: Hpa, into: &mut [u8]) {
        // SAFETY: the run lies in one frame of RAM; `into` is the caller's.
        unsafe { copy(at(from).as_ptr(), into.as_mut_ptr(), into.len()) }
    }

    #[inline]
    fn write(&self, to: Hpa, bytes: &[u8]) {
        // SAFETY: the run lies in one frame of RAM that holds no Rust object.
        unsafe { copy(bytes.as_ptr(), at(to).as_mut_ptr(), bytes.len()) }
    }

    #[inline]
    fn copy(&self, from: Hpa, to: Hpa, bytes: usize) {
        // SAFETY: both runs lie in frames of RAM that hold no Rust object.
        unsafe { copy(at(from).as_ptr(), at(to).as_mut_ptr(), bytes) }
    }

    fn zero(&self, frame: Mfn) {
        // SAFETY: a frame of RAM that holds no Rust object but, through this call, plain words.
        let words: &[AtomicU64; PAGE_BYTES as usize / 8] = unsafe { &*at(frame.base()).as_ptr() };
        // The inner loop has a fixed length, so it becomes eight stores.
        for line in words.as_chunks::<8>().0 {
            for word in line {
                word.store(0, Ordering::Release);
            }
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
            core::arch::asm!("clflush [{}]", "mfence", in(reg) at(address).as_u64(), options(nostack, preserves_flags));
        }
    }
}

impl Machine for Bare {
    fn flush_page(&self, domain: DomId, page: Gfn, scope: FlushScope) {
        // One CPU and no address space tags: what is not in the loaded space is in no TLB, and for another space's
        // address this does nothing.
        if let Ok(address) = VirtAddr::try_new(page.base().0) {
            x86_64::instructions::tlb::flush(address);
        }
        if scope == FlushScope::CpuAndIommu {
            crate::iommu::flush(domain, Some(page));
        }
    }

    fn flush_all(&self, domain: DomId, scope: FlushScope) {
        x86_64::instructions::tlb::flush_all();
        if scope == FlushScope::CpuAndIommu {
            crate::iommu::flush(domain, None);
        }
    }
}
