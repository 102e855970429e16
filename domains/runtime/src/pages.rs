//! Whole pages: the unit of granting and of DMA.
//!
//! A page's address is its guest-physical address and, in a driver domain, its I/O virtual address. [`Pages`] are
//! owned and private; to share them, hand them to [`crate::grant::GrantedPages`], which gives them back only when
//! nobody maps them any more.

use alloc::alloc::{alloc_zeroed, dealloc};
use core::alloc::Layout;
use core::ptr::NonNull;

use xen_abi::native::PAGE_SIZE;

use crate::shared::Shared;

/// Bytes in a page, as a length.
pub const PAGE: usize = PAGE_SIZE as usize;

/// Contiguous pages of the heap, owned.
#[derive(Debug)]
pub struct Pages {
    base: NonNull<u8>,
    count: usize,
}

// SAFETY: the memory is owned like a Box's.
unsafe impl Send for Pages {}
// SAFETY: as above: shared access only reads.
unsafe impl Sync for Pages {}

impl Pages {
    /// `count` zeroed pages, or `None` when the heap has no such run. `count` is at least 1.
    pub fn new(count: usize) -> Option<Self> {
        let layout = Self::layout(count)?;
        // SAFETY: the layout's size is not zero (`layout` refuses that).
        let base = NonNull::new(unsafe { alloc_zeroed(layout) })?;
        Some(Self { base, count })
    }

    fn layout(count: usize) -> Option<Layout> {
        let bytes = count.checked_mul(PAGE).filter(|&bytes| bytes != 0)?;
        Layout::from_size_align(bytes, PAGE).ok()
    }

    /// Number of pages.
    pub fn count(&self) -> usize {
        self.count
    }

    /// Bytes in all pages.
    pub fn bytes(&self) -> usize {
        self.count * PAGE
    }

    /// The address: virtual, guest-physical and, in a driver domain, I/O virtual.
    pub fn address(&self) -> u64 {
        self.base.as_ptr() as u64
    }

    /// The guest frame number of page `index`.
    pub fn gfn(&self, index: usize) -> u64 {
        assert!(index < self.count);
        self.address() / PAGE_SIZE + index as u64
    }

    /// The bytes.
    pub fn as_slice(&self) -> &[u8] {
        // SAFETY: owned, initialised (zeroed at birth), and nobody else writes pages that are not granted.
        unsafe { core::slice::from_raw_parts(self.base.as_ptr(), self.bytes()) }
    }

    /// The bytes.
    pub fn as_mut_slice(&mut self) -> &mut [u8] {
        // SAFETY: as in `as_slice`, and borrowed exclusively.
        unsafe { core::slice::from_raw_parts_mut(self.base.as_ptr(), self.bytes()) }
    }

    /// The bytes as memory that others may write: for pages that a device or a peer is given access to.
    ///
    /// Takes the pages mutably so that no slice of them lives on beside it.
    pub fn as_shared(&mut self) -> Shared<'_> {
        // SAFETY: mapped and readable and writable as long as `self` lives; the exclusive borrow rules references out.
        unsafe { Shared::new(self.base.as_ptr(), self.bytes()) }
    }

    /// As [`Pages::as_shared`], for owners that hand out no slice ever.
    pub(crate) fn shared_view(&self) -> Shared<'_> {
        // SAFETY: as above; only `GrantedPages` calls this, and it never calls `as_slice` while the grant stands.
        unsafe { Shared::new(self.base.as_ptr(), self.bytes()) }
    }
}

impl Drop for Pages {
    fn drop(&mut self) {
        if let Some(layout) = Self::layout(self.count) {
            // SAFETY: allocated with this layout by `new`, owned, and dropped once.
            unsafe { dealloc(self.base.as_ptr(), layout) }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_are_aligned_zeroed_and_contiguous() {
        let mut pages = Pages::new(3).unwrap();
        assert!(pages.address().is_multiple_of(PAGE_SIZE));
        assert!(pages.as_slice().iter().all(|&byte| byte == 0) && pages.bytes() == 3 * PAGE);
        pages.as_mut_slice()[PAGE] = 1;
        assert_eq!(pages.gfn(2), pages.gfn(0) + 2);
    }

    #[test]
    fn nothing_and_too_much_are_refused() {
        assert!(Pages::new(0).is_none() && Pages::new(usize::MAX / 2).is_none());
    }
}
