//! Memory that someone else writes at the same time: granted pages, mapped grants, rings, shared info.
//!
//! Nothing here hands out a reference into such memory. Bytes are copied in or out by volatile accesses of fixed width,
//! single words are atomics. What was copied in may be any bytes: check the copy, use the copy, never read twice.

use core::marker::PhantomData;
use core::sync::atomic::{AtomicU8, AtomicU16, AtomicU32, AtomicU64};

use crate::arch;

/// A run of bytes, page-aligned at its start, that others may change at any time.
///
/// The lifetime is that of whatever keeps the memory mapped. Offsets outside the run panic: they are computed by
/// our own code, never taken unchecked from the other side.
#[derive(Clone, Copy, Debug)]
pub struct Shared<'a> {
    base: *mut u8,
    bytes: usize,
    _memory: PhantomData<&'a AtomicU8>,
}

// SAFETY: all accesses are atomic or volatile on memory that is shared by nature; the pointer is as good on any thread.
unsafe impl Send for Shared<'_> {}
// SAFETY: as above.
unsafe impl Sync for Shared<'_> {}

impl<'a> Shared<'a> {
    /// Names the shared bytes at `base`.
    ///
    /// # Safety
    ///
    /// For all of `'a` the bytes are mapped with the access that will be used, and no Rust reference to ordinary
    /// (non-atomic) data covers any of them. `base` is aligned to 8.
    pub const unsafe fn new(base: *mut u8, bytes: usize) -> Self {
        Self { base, bytes, _memory: PhantomData }
    }

    /// Bytes in the run.
    pub fn len(self) -> usize {
        self.bytes
    }

    /// Whether the run has no bytes.
    pub fn is_empty(self) -> bool {
        self.bytes == 0
    }

    /// Its address: virtual, guest-physical and I/O virtual.
    pub fn address(self) -> u64 {
        self.base as u64
    }

    /// The part `[offset, offset + bytes)`; `offset` is a multiple of 8.
    #[inline]
    #[track_caller]
    pub fn part(self, offset: usize, bytes: usize) -> Shared<'a> {
        self.check(offset, bytes);
        assert!(offset.is_multiple_of(8), "a part starts at a multiple of 8");
        Shared { base: self.base.wrapping_add(offset), bytes, _memory: PhantomData }
    }

    /// Copies `destination.len()` bytes out of the run, from `offset` on, each byte read once.
    #[inline(always)]
    #[track_caller]
    pub fn read(self, offset: usize, destination: &mut [u8]) {
        self.check(offset, destination.len());
        let source = self.base.wrapping_add(offset).cast_const();
        // SAFETY: `check` keeps every access inside the run, which is mapped; the destination is borrowed exclusively.
        unsafe { arch::copy_once(source, destination.as_mut_ptr(), destination.len()) }
    }

    /// Copies `source` into the run at `offset`, each byte written once.
    #[inline(always)]
    #[track_caller]
    pub fn write(self, offset: usize, source: &[u8]) {
        self.check(offset, source.len());
        let destination = self.base.wrapping_add(offset);
        // SAFETY: as in `read`; no Rust reference covers the destination.
        unsafe { arch::copy_once(source.as_ptr(), destination, source.len()) }
    }

    /// Sets every byte to zero.
    pub fn clear(self) {
        let zeros = [0u8; 256];
        let mut offset = 0;
        while offset < self.bytes {
            let n = zeros.len().min(self.bytes - offset);
            self.write(offset, &zeros[..n]);
            offset += n;
        }
    }

    #[inline(always)]
    #[track_caller]
    fn check(self, offset: usize, bytes: usize) {
        if offset > self.bytes || bytes > self.bytes - offset {
            outside(self.bytes, offset, bytes);
        }
    }
}

/// By value, so that nothing is put into memory for it where all is well.
#[cold]
#[inline(never)]
#[track_caller]
fn outside(all: usize, offset: usize, bytes: usize) -> ! {
    panic!("shared memory of {all} bytes accessed at {offset}, {bytes} bytes")
}

macro_rules! atomic_access {
    ($($name:ident $atomic:ident $word:ty;)*) => {
        impl<'a> Shared<'a> {
            $(
                #[doc = concat!("The aligned `", stringify!($word), "` at `offset`, as an atomic.")]
                #[inline(always)] // a few instructions where the offset is known, which it nearly always is
                #[track_caller]
                pub fn $name(self, offset: usize) -> &'a $atomic {
                    self.check(offset, size_of::<$word>());
                    assert!(offset.is_multiple_of(size_of::<$word>()), "word at an odd offset");
                    // SAFETY: inside the run (checked), aligned (the run by construction, the offset checked), mapped
                    // for 'a, and an atomic is sound on memory that others write.
                    unsafe { $atomic::from_ptr(self.base.wrapping_add(offset).cast()) }
                }
            )*
        }
    };
}

atomic_access! {
    u8_at AtomicU8 u8;
    u16_at AtomicU16 u16;
    u32_at AtomicU32 u32;
    u64_at AtomicU64 u64;
}

#[cfg(test)]
mod tests {
    use super::*;
    use core::sync::atomic::Ordering::Relaxed;

    #[repr(align(8))]
    struct Aligned([u8; 32]);

    fn on_memory(test: impl FnOnce(Shared<'_>)) {
        let mut memory = Aligned(core::array::from_fn(|i| i as u8));
        // SAFETY: `memory` outlives the call and is not touched otherwise during it.
        test(unsafe { Shared::new(memory.0.as_mut_ptr(), 32) });
    }

    #[test]
    fn unaligned_copies_move_exactly_the_bytes_named() {
        for offset in 0..16 {
            for length in 0..=16 {
                on_memory(|shared| {
                    let mut copy = [0xaau8; 17];
                    shared.read(offset, &mut copy[..length]);
                    assert!((0..length).all(|i| copy[i] as usize == offset + i) && copy[length] == 0xaa);
                    shared.write(offset, &[0x55; 16][..length]);
                    let mut all = [0; 32];
                    shared.read(0, &mut all);
                    for (i, byte) in all.iter().enumerate() {
                        let inside = (offset..offset + length).contains(&i);
                        assert_eq!(*byte, if inside { 0x55 } else { i as u8 });
                    }
                });
            }
        }
    }

    #[test]
    fn words_are_seen_by_their_offset() {
        on_memory(|shared| {
            assert_eq!(shared.u16_at(2).load(Relaxed), 0x0302);
            shared.u32_at(4).store(0, Relaxed);
            assert_eq!(shared.part(8, 8).u64_at(0).load(Relaxed).to_le_bytes()[0], 8);
        });
    }

    #[test]
    #[should_panic(expected = "accessed at 30")]
    fn reads_over_the_end_panic() {
        on_memory(|shared| shared.read(30, &mut [0; 3]));
    }
}
