//! DMA memory of a native domain: its own heap, where an address means the same to the CPU and to the device.
//!
//! The hypervisor keeps a driver domain's memory in its devices' I/O page tables (see `xen_abi::native`), so nothing
//! has to be mapped, translated or bounced, and the IOMMU confines the device to exactly what the domain may reach.

use core::ptr::NonNull;
use runtime::pages::Pages;
use virtio_drivers::{BufferDirection, Hal, PhysAddr};

/// The identity between pointers and device addresses.
#[derive(Debug)]
pub struct DomainHal;

// SAFETY: `Pages` are zeroed, page-aligned, contiguous in the only address space there is, and owned by the caller
// from here on, as they are leaked. The heap does not start at 0, so a device address is never 0 but for failure.
unsafe impl Hal for DomainHal {
    fn dma_alloc(pages: usize, _: BufferDirection) -> (PhysAddr, NonNull<u8>) {
        let Some(pages) = Pages::new(pages) else {
            return (0, NonNull::dangling());
        };
        let address = core::mem::ManuallyDrop::new(pages).address();
        let base = core::ptr::with_exposed_provenance_mut(address as usize);
        (address, NonNull::new(base).unwrap_or(NonNull::dangling()))
    }

    /// Never given back: a device that was told of the pages may use them until it is reset. What drivers allocate,
    /// they keep for the life of the domain.
    // SAFETY: nothing is done, so nothing is asked of the caller.
    unsafe fn dma_dealloc(_: PhysAddr, _: NonNull<u8>, _: usize) -> i32 {
        0
    }

    /// Only the crate's own PCI transport asks, which is not used here.
    // SAFETY: the answer is dangling whatever the caller promises, and dereferenced by nobody.
    unsafe fn mmio_phys_to_virt(_: PhysAddr, _: usize) -> NonNull<u8> {
        NonNull::dangling()
    }

    // SAFETY: the buffer is not accessed here; that it stays valid until `unshare` is the caller's promise to the device.
    unsafe fn share(buffer: NonNull<[u8]>, _: BufferDirection) -> PhysAddr {
        buffer.cast::<u8>().as_ptr().expose_provenance() as PhysAddr
    }

    // SAFETY: nothing was mapped or copied by `share`, so nothing is done.
    unsafe fn unshare(_: PhysAddr, _: NonNull<[u8]>, _: BufferDirection) {}
}
