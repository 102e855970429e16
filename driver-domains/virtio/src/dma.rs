//! Memory that a device may read and write, as values that safe code can hand around.
//!
//! A device reaches whatever its domain's I/O page table maps, so handing it a wrong address is as bad as a wild
//! pointer. Only two kinds of memory can become a [`Chunk`]: a [`DmaRegion`], pages that are taken from the heap for
//! ever and touched only by copying, and the grant window, where other domains' pages are mapped and where nothing
//! of this domain's own lives.

use core::marker::PhantomData;
use core::ptr::NonNull;
use core::sync::atomic::AtomicU64;
use virtio_drivers::{BufferDirection, Hal, PAGE_SIZE};
use xen_abi::native::{GRANT_WINDOW, GRANT_WINDOW_END};

/// A run of bytes that a device may be told to read or write. Not empty.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Chunk {
    address: u64,
    bytes: u32,
}

impl Chunk {
    /// Memory inside the grant window. `None` when it is empty or leaves the window.
    ///
    /// Whether something is mapped there is the caller's business: the IOMMU stops the device where nothing is.
    pub fn granted(address: u64, bytes: u32) -> Option<Self> {
        let end = address.checked_add(u64::from(bytes))?;
        let inside = address >= GRANT_WINDOW && end <= GRANT_WINDOW_END && bytes != 0;
        inside.then_some(Self { address, bytes })
    }

    /// Address, the same for the domain and for its device.
    pub fn address(&self) -> u64 {
        self.address
    }

    /// Bytes.
    pub fn bytes(&self) -> u32 {
        self.bytes
    }
}

/// The offset or length lies outside a [`DmaRegion`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OutsideRegion;

/// Structures that can be shared with a device.
///
/// # Safety
///
/// They consist of atomic integers, and arrays and structures of these, and nothing else.
pub unsafe trait Atomics {}

// SAFETY: one.
unsafe impl Atomics for AtomicU64 {}
// SAFETY: nothing but what the element is made of.
unsafe impl<T: Atomics, const N: usize> Atomics for [T; N] {}

/// Pages of this domain's memory that are set aside for a device until the domain ends.
///
/// They are never given back: a device that was told of them may use them at any time.
#[derive(Debug)]
pub struct DmaRegion<H: Hal> {
    base: NonNull<u8>,
    iova: u64,
    bytes: usize,
    hal: PhantomData<H>,
}

impl<H: Hal> DmaRegion<H> {
    /// Takes `pages` zeroed, contiguous pages. `None`: out of memory.
    pub fn allocate(pages: usize) -> Option<Self> {
        let bytes = pages.checked_mul(PAGE_SIZE).filter(|&bytes| bytes != 0)?;
        let (iova, base) = H::dma_alloc(pages, BufferDirection::Both);
        (iova != 0).then_some(Self { base, iova, bytes, hal: PhantomData })
    }

    /// Bytes of the region.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Where the region starts, for the device and for grant copies.
    pub fn address(&self) -> u64 {
        self.iova
    }

    /// A part of the region for a device.
    pub fn chunk(&self, offset: usize, bytes: usize) -> Result<Chunk, OutsideRegion> {
        self.check(offset, bytes)?;
        let bytes = u32::try_from(bytes).ok().filter(|&bytes| bytes != 0).ok_or(OutsideRegion)?;
        Ok(Chunk { address: self.iova + offset as u64, bytes })
    }

    /// Copies out of the region.
    pub fn read(&self, offset: usize, into: &mut [u8]) -> Result<(), OutsideRegion> {
        self.check(offset, into.len())?;
        // SAFETY: the range lies inside the region, which is valid for reads for as long as the domain lives; `into`
        // is ordinary memory and cannot overlap it, because no reference into the region is ever made.
        unsafe { core::ptr::copy_nonoverlapping(self.base.as_ptr().add(offset), into.as_mut_ptr(), into.len()) };
        Ok(())
    }

    /// Copies `count` blocks out of the region, and hands each to `act`.
    #[inline(always)]
    pub fn read_blocks<const N: usize>(
        &self,
        offset: usize,
        count: usize,
        mut act: impl FnMut(&[u8; N]),
    ) -> Result<(), OutsideRegion> {
        self.check(offset, count.checked_mul(N).ok_or(OutsideRegion)?)?;
        for number in 0..count {
            let mut block = [0; N];
            // SAFETY: as in `read`; all blocks lie in the range that was checked.
            unsafe {
                let from = self.base.as_ptr().add(offset + number * N);
                core::ptr::copy_nonoverlapping(from, block.as_mut_ptr(), N);
            }
            act(&block);
        }
        Ok(())
    }

    /// Copies into the region.
    pub fn write(&mut self, offset: usize, from: &[u8]) -> Result<(), OutsideRegion> {
        self.check(offset, from.len())?;
        // SAFETY: as in `read`, with the directions swapped.
        unsafe { core::ptr::copy_nonoverlapping(from.as_ptr(), self.base.as_ptr().add(offset), from.len()) };
        Ok(())
    }

    /// A structure in the region that the device writes meanwhile.
    pub fn view<T: Atomics>(&self, offset: usize) -> Result<&'static T, OutsideRegion> {
        self.check(offset, size_of::<T>())?;
        let place = self.base.as_ptr().wrapping_add(offset).cast::<T>();
        if !place.is_aligned() {
            return Err(OutsideRegion);
        }
        // SAFETY: inside the region (checked), which is never given back; aligned (checked); initialised, as all bytes
        // are; and atomics are sound on memory that others write.
        Ok(unsafe { &*place })
    }

    fn check(&self, offset: usize, bytes: usize) -> Result<(), OutsideRegion> {
        match offset.checked_add(bytes) {
            Some(end) if end <= self.bytes => Ok(()),
            _ => Err(OutsideRegion),
        }
    }
}

// SAFETY: the region is plain memory that is reached through this value alone.
unsafe impl<H: Hal> Send for DmaRegion<H> {}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::queue::fake::HeapHal;

    #[test]
    fn a_chunk_must_lie_in_the_grant_window() {
        assert!(Chunk::granted(GRANT_WINDOW, 4096).is_some());
        assert!(Chunk::granted(GRANT_WINDOW_END - 4096, 4096).is_some());
        assert_eq!(Chunk::granted(GRANT_WINDOW - 1, 4096), None);
        assert_eq!(Chunk::granted(GRANT_WINDOW_END - 4095, 4096), None);
        assert_eq!(Chunk::granted(u64::MAX, 1), None);
        assert_eq!(Chunk::granted(GRANT_WINDOW, 0), None);
    }

    #[test]
    fn a_region_is_read_and_written_inside_its_bounds_only() {
        let mut region = DmaRegion::<HeapHal>::allocate(1).unwrap();
        region.write(4092, b"last").unwrap();
        assert_eq!(region.write(4093, b"last"), Err(OutsideRegion));
        let mut back = [0; 4];
        region.read(4092, &mut back).unwrap();
        assert_eq!(&back, b"last");
        assert_eq!(region.read(usize::MAX, &mut back), Err(OutsideRegion));
        let mut blocks = std::vec::Vec::new();
        region.read_blocks::<2>(4090, 3, |block| blocks.push(*block)).unwrap();
        assert_eq!(blocks, [[0, 0], *b"la", *b"st"]);
        assert_eq!(region.read_blocks::<2>(4091, 3, |_| panic!("it leaves the region")), Err(OutsideRegion));
        assert_eq!(region.read_blocks::<2>(0, usize::MAX, |_| panic!("it leaves the region")), Err(OutsideRegion));
        assert_eq!(region.chunk(0, 0), Err(OutsideRegion));
        assert_eq!(region.chunk(4095, 2), Err(OutsideRegion));
        assert_eq!(region.chunk(4095, 1).unwrap().bytes(), 1);
    }
}
