//! For tests on the host: DMA memory from the ordinary heap, and a device that is made to use what the test says.

use alloc::alloc::{alloc_zeroed, dealloc};
use core::alloc::Layout;
use core::ptr::NonNull;
use std::collections::VecDeque;
use virtio_drivers::transport::{DeviceStatus, DeviceType, InterruptStatus, Transport};
use virtio_drivers::{BufferDirection, Error, Hal, PAGE_SIZE, PhysAddr};
use zerocopy::{FromBytes, Immutable, IntoBytes};

/// Device addresses are pointers, as in a native domain.
pub(crate) struct HeapHal;

fn layout(pages: usize) -> Layout {
    Layout::from_size_align(pages * PAGE_SIZE, PAGE_SIZE).unwrap()
}

// SAFETY: page-aligned, zeroed, exclusive memory from the global allocator.
unsafe impl Hal for HeapHal {
    fn dma_alloc(pages: usize, _: BufferDirection) -> (PhysAddr, NonNull<u8>) {
        // SAFETY: the layout is not empty.
        let base = NonNull::new(unsafe { alloc_zeroed(layout(pages)) }).unwrap();
        (base.as_ptr().expose_provenance() as u64, base)
    }

    unsafe fn dma_dealloc(_: PhysAddr, base: NonNull<u8>, pages: usize) -> i32 {
        // SAFETY: from `dma_alloc` with the same number of pages, as the caller promises.
        unsafe { dealloc(base.as_ptr(), layout(pages)) };
        0
    }

    unsafe fn mmio_phys_to_virt(_: PhysAddr, _: usize) -> NonNull<u8> {
        unreachable!("no MMIO in these tests")
    }

    unsafe fn share(buffer: NonNull<[u8]>, _: BufferDirection) -> PhysAddr {
        buffer.cast::<u8>().as_ptr().expose_provenance() as u64
    }

    unsafe fn unshare(_: PhysAddr, _: NonNull<[u8]>, _: BufferDirection) {}
}

/// One queue, its rings reached by address as a device would.
pub(crate) struct FakeDevice {
    size: u32,
    descriptors: u64,
    driver_area: u64,
    device_area: u64,
    seen: u16,
    used: u16,
    pending: VecDeque<u16>,
    pub(crate) kicks: usize,
}

impl FakeDevice {
    pub(crate) fn new(size: u32) -> Self {
        Self {
            size,
            descriptors: 0,
            driver_area: 0,
            device_area: 0,
            seen: 0,
            used: 0,
            pending: VecDeque::new(),
            kicks: 0,
        }
    }

    fn word(&self, address: u64) -> *mut u16 {
        core::ptr::with_exposed_provenance_mut(address as usize)
    }

    /// Takes what has become available.
    fn look(&mut self) {
        // SAFETY: the available ring that the driver set up: flags, index, ring.
        let index = unsafe { self.word(self.driver_area + 2).read_volatile() };
        while self.seen != index {
            let slot = u64::from(self.seen) % u64::from(self.size);
            // SAFETY: inside the available ring.
            self.pending.push_back(unsafe { self.word(self.driver_area + 4 + 2 * slot).read_volatile() });
            self.seen = self.seen.wrapping_add(1);
        }
    }

    /// The chain of the oldest request that is available: address, bytes, whether to be written.
    pub(crate) fn next_chain(&mut self) -> Vec<(u64, u32, bool)> {
        self.look();
        let mut next = self.pending.front().copied();
        let mut chain = Vec::new();
        while let Some(number) = next {
            let base = self.descriptors + 16 * u64::from(number);
            let word = core::ptr::with_exposed_provenance::<u64>(base as usize);
            // SAFETY: inside the descriptor table that the driver set up.
            let (address, rest) = unsafe { (word.read_volatile(), word.add(1).read_volatile()) };
            chain.push((address, rest as u32, rest >> 32 & 2 != 0));
            next = (rest >> 32 & 1 != 0).then_some((rest >> 48) as u16);
        }
        chain
    }

    /// Uses the oldest request that is available.
    pub(crate) fn use_next(&mut self, length: u32) {
        self.look();
        let id = self.pending.pop_front().expect("nothing available");
        self.use_id(id.into(), length);
    }

    /// Writes a used element, true or not.
    pub(crate) fn use_id(&mut self, id: u32, length: u32) {
        let slot = u64::from(self.used) % u64::from(self.size);
        let element = core::ptr::with_exposed_provenance_mut::<u32>((self.device_area + 4 + 8 * slot) as usize);
        self.used = self.used.wrapping_add(1);
        // SAFETY: inside the used ring: flags, index, elements of id and length.
        unsafe {
            element.write_volatile(id);
            element.add(1).write_volatile(length);
            self.word(self.device_area + 2).write_volatile(self.used);
        }
    }

    pub(crate) fn interrupts_suppressed(&self) -> bool {
        // SAFETY: the available ring's flags.
        unsafe { self.word(self.driver_area).read_volatile() & 1 != 0 }
    }
}

impl Transport for FakeDevice {
    fn device_type(&self) -> DeviceType {
        DeviceType::Block
    }
    fn read_device_features(&mut self) -> u64 {
        0
    }
    fn write_driver_features(&mut self, _: u64) {}
    fn max_queue_size(&mut self, _: u16) -> u32 {
        self.size
    }
    fn notify(&mut self, _: u16) {
        self.kicks += 1;
    }
    fn get_status(&self) -> DeviceStatus {
        DeviceStatus::empty()
    }
    fn set_status(&mut self, _: DeviceStatus) {}
    fn set_guest_page_size(&mut self, _: u32) {}
    fn requires_legacy_layout(&self) -> bool {
        false
    }
    fn queue_set(&mut self, _: u16, _: u32, descriptors: PhysAddr, driver_area: PhysAddr, device_area: PhysAddr) {
        self.descriptors = descriptors;
        (self.driver_area, self.device_area) = (driver_area, device_area);
    }
    fn queue_unset(&mut self, _: u16) {}
    fn queue_used(&mut self, _: u16) -> bool {
        self.driver_area != 0
    }
    fn ack_interrupt(&mut self) -> InterruptStatus {
        InterruptStatus::empty()
    }
    fn read_config_generation(&self) -> u32 {
        0
    }
    fn read_config_space<T: FromBytes + IntoBytes>(&self, _: usize) -> Result<T, Error> {
        Err(Error::ConfigSpaceMissing)
    }
    fn write_config_space<T: IntoBytes + Immutable>(&mut self, _: usize, _: T) -> Result<(), Error> {
        Err(Error::ConfigSpaceMissing)
    }
}
