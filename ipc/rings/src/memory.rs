//! Access to memory that somebody else writes at the same time.
//!
//! Nothing in this crate holds a reference to shared memory. It goes through [`SharedMemory`], one access at a time,
//! and works on private copies. The domain runtime implements the trait over granted pages; [`CellMemory`] implements
//! it over plain memory for tests and models.

use core::cell::Cell;

/// One or several shared pages, seen as one run of bytes.
///
/// Implementations must be sound whatever the other side does meanwhile. Offsets come from this crate and lie within
/// [`SharedMemory::bytes`]; an implementation may panic on others, as that would be a bug here. `load_u32` and
/// `store_u32` get offsets that are multiples of 4.
pub trait SharedMemory {
    /// Bytes. The same at every call.
    fn bytes(&self) -> usize;
    /// Reads a word, once, with acquire ordering: later accesses stay behind it.
    fn load_u32(&self, offset: usize) -> u32;
    /// Writes a word, once, with release ordering: earlier accesses stay before it.
    fn store_u32(&self, offset: usize, value: u32);
    /// Reads a word of 8 bytes, once. `offset` is a multiple of 8.
    fn load_u64(&self, offset: usize) -> u64 {
        let mut word = [0; 8];
        self.read(offset, &mut word);
        u64::from_le_bytes(word)
    }
    /// Writes a word of 8 bytes, once. `offset` is a multiple of 8.
    fn store_u64(&self, offset: usize, value: u64) {
        self.write(offset, &value.to_le_bytes());
    }
    /// Copies out, reading each byte exactly once.
    fn read(&self, offset: usize, into: &mut [u8]);
    /// Copies in.
    fn write(&self, offset: usize, from: &[u8]);
    /// A full barrier: no earlier store passes a later load.
    fn fence(&self);
    /// No earlier store is made after a later one, as this processor sees it: whoever goes on in this memory when we have died
    /// between two instructions finds the one without the other, and never the other without the one.
    fn keep_order(&self) {
        core::sync::atomic::compiler_fence(core::sync::atomic::Ordering::SeqCst);
    }
}

impl<M: SharedMemory + ?Sized> SharedMemory for &M {
    fn bytes(&self) -> usize {
        (**self).bytes()
    }
    fn load_u32(&self, offset: usize) -> u32 {
        (**self).load_u32(offset)
    }
    fn store_u32(&self, offset: usize, value: u32) {
        (**self).store_u32(offset, value);
    }
    fn read(&self, offset: usize, into: &mut [u8]) {
        (**self).read(offset, into);
    }
    fn write(&self, offset: usize, from: &[u8]) {
        (**self).write(offset, from);
    }
    fn fence(&self) {
        (**self).fence();
    }
}

/// Plain memory of one thread, for tests: both ends of a ring can hold it at once. Panics on offsets out of range, so a
/// test that runs through shows that none was used.
#[derive(Clone, Copy, Debug)]
pub struct CellMemory<'a>(pub &'a [Cell<u8>]);

impl<'a> CellMemory<'a> {
    /// Memory that `bytes` lends.
    #[must_use]
    pub fn new(bytes: &'a mut [u8]) -> Self {
        Self(Cell::from_mut(bytes).as_slice_of_cells())
    }
}

impl SharedMemory for CellMemory<'_> {
    fn bytes(&self) -> usize {
        self.0.len()
    }
    fn load_u32(&self, offset: usize) -> u32 {
        assert_eq!(offset % 4, 0, "word access must be aligned");
        let mut word = [0; 4];
        self.read(offset, &mut word);
        u32::from_le_bytes(word)
    }
    fn store_u32(&self, offset: usize, value: u32) {
        assert_eq!(offset % 4, 0, "word access must be aligned");
        self.write(offset, &value.to_le_bytes());
    }
    fn read(&self, offset: usize, into: &mut [u8]) {
        let cells = &self.0[offset..][..into.len()];
        for (to, from) in into.iter_mut().zip(cells) {
            *to = from.get();
        }
    }
    fn write(&self, offset: usize, from: &[u8]) {
        for (to, from) in self.0[offset..][..from.len()].iter().zip(from) {
            to.set(*from);
        }
    }
    fn fence(&self) {}
}
