//! A virtqueue for safe code: buffers go in as [`Chunk`]s, come back as [`Completion`]s, and what the device writes
//! into the used ring is checked against what is really in flight.
//!
//! Around `virtio_drivers::queue::VirtQueue`, which keeps its own copy of descriptors and so needs no trust in what
//! the device may write there. It leaves to its caller that a popped id was in flight and that the same buffers are
//! shown again; this module keeps the books. Direct descriptors only (see [`crate::features`]).

use crate::dma::Chunk;
use alloc::boxed::Box;
use alloc::vec::Vec;
use core::mem::ManuallyDrop;
use core::sync::atomic::{Ordering, fence};
use virtio_drivers::Hal;
use virtio_drivers::queue::VirtQueue;
use virtio_drivers::transport::Transport;

/// Chunks that one request can have.
pub const CHUNKS_MAX: usize = 136;

/// Names a request in flight: below the queue's size, unique among those in flight.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Token(u16);

impl Token {
    /// As an index into a table with one place for each descriptor of the queue.
    pub fn index(self) -> usize {
        usize::from(self.0)
    }
}

/// A request that the device is done with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Completion {
    /// What [`Queue::push`] returned.
    pub token: Token,
    /// Bytes that the device says it wrote, at most what it was given to write.
    pub written: u32,
}

/// Why a request was not queued.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PushError {
    /// Too few free descriptors now; later there will be more.
    Full,
    /// The caller's fault: no chunk at all, or more than fit the queue.
    BadShape,
}

/// The device broke the protocol. The queue takes nothing more; the device must be reset.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DeviceFault {
    /// The used ring names a request that is not in flight.
    UnknownId(u16),
    /// The used ring changed while it was read.
    Inconsistent,
    /// An earlier fault.
    Broken,
}

/// A queue could not be set up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SetupError {
    /// The device's queue is missing or smaller than this driver needs.
    TooSmall {
        /// Descriptors that the device offers.
        offered: u32,
        /// Descriptors wanted.
        wanted: u32,
    },
    /// No memory, or the queue is in use already.
    Refused(virtio_drivers::Error),
}

/// The books on one descriptor that heads a request.
#[derive(Default)]
struct Slot {
    /// Readable chunks first, then the writable. The capacity stays, so that nothing is allocated in the long run.
    chunks: Vec<Chunk>,
    readable: usize,
    writable_bytes: u32,
    in_flight: bool,
}

/// A virtqueue of `N` descriptors.
pub struct Queue<H: Hal, const N: usize> {
    ring: VirtQueue<H, N>,
    index: u16,
    slots: Box<[Slot]>,
    free: usize,
    broken: bool,
}

impl<H: Hal, const N: usize> Queue<H, N> {
    /// Sets up queue number `index` of the device. The transport must know the queue's vector already.
    pub fn new(transport: &mut impl Transport, index: u16) -> Result<Self, SetupError> {
        let offered = transport.max_queue_size(index);
        if offered < N as u32 {
            return Err(SetupError::TooSmall { offered, wanted: N as u32 });
        }
        let ring = VirtQueue::new(transport, index, false, false).map_err(SetupError::Refused)?;
        let slots = (0..N).map(|_| Slot::default()).collect();
        Ok(Self { ring, index, slots, free: N, broken: false })
    }

    /// Free descriptors: a request takes one for each chunk.
    pub fn free(&self) -> usize {
        self.free
    }

    /// No request is in flight.
    pub fn is_idle(&self) -> bool {
        self.free == N
    }

    /// Queues a request: the device reads `readable`, then writes `writable`. [`Queue::kick`] tells it.
    pub fn push(&mut self, readable: &[Chunk], writable: &[Chunk]) -> Result<Token, PushError> {
        let count = readable.len() + writable.len();
        if count == 0 || count > CHUNKS_MAX || count > N {
            return Err(PushError::BadShape);
        }
        if self.broken || count > self.free {
            return Err(PushError::Full);
        }
        let (inputs, mut outputs) = (as_slices(readable), as_slices_mut(writable));
        // SAFETY: chunks are never empty and name memory that outlives the queue (see `dma`): nothing of this domain
        // lives there but what is copied in and out. The slices are made for the address and length in them, and
        // nobody reads or writes through them.
        let head = unsafe { self.ring.add(&inputs, &mut outputs) }.map_err(|_| PushError::Full)?;
        let Some(slot) = self.slots.get_mut(usize::from(head)) else {
            return Err(PushError::Full);
        };
        slot.chunks.clear();
        slot.chunks.extend_from_slice(readable);
        slot.chunks.extend_from_slice(writable);
        slot.readable = readable.len();
        slot.writable_bytes = writable.iter().fold(0, |sum: u32, chunk| sum.saturating_add(chunk.bytes()));
        slot.in_flight = true;
        self.free -= count;
        Ok(Token(head))
    }

    /// Tells the device of what was queued, unless it has said that it looks by itself.
    pub fn kick(&mut self, transport: &mut impl Transport) {
        // The index was stored before; the device's flag must be read after it (store-load order).
        fence(Ordering::SeqCst);
        if self.ring.should_notify() {
            transport.notify(self.index);
        }
    }

    /// The next finished request.
    pub fn pop(&mut self) -> Result<Option<Completion>, DeviceFault> {
        if self.broken {
            return Err(DeviceFault::Broken);
        }
        let Some(head) = self.ring.peek_used() else {
            return Ok(None);
        };
        let Some(slot) = self.slots.get_mut(usize::from(head)).filter(|slot| slot.in_flight) else {
            self.broken = true;
            return Err(DeviceFault::UnknownId(head));
        };
        let (readable, writable) = slot.chunks.split_at(slot.readable);
        let inputs = as_slices(readable);
        // Slices of references have nothing to drop, and `pop_used` borrows them for as long as they live.
        let mut outputs = ManuallyDrop::new(as_slices_mut(writable));
        // SAFETY: these are the chunks that `add` got with this token, as the slot is in flight.
        let written = unsafe { self.ring.pop_used(head, &inputs, &mut outputs) }.map_err(|_| {
            self.broken = true;
            DeviceFault::Inconsistent
        })?;
        slot.in_flight = false;
        self.free += slot.chunks.len();
        Ok(Some(Completion { token: Token(head), written: written.min(slot.writable_bytes) }))
    }

    /// Asks the device for no more interrupts on this queue; a hint that it may miss.
    pub fn suppress_interrupts(&mut self) {
        self.ring.set_dev_notify(false);
    }

    /// Asks for interrupts again. `true`: something finished meanwhile and may never be announced: pop again.
    #[must_use]
    pub fn request_interrupts(&mut self) -> bool {
        self.ring.set_dev_notify(true);
        // The flag must be out before the used index is read (store-load order), or a wake-up could be lost.
        fence(Ordering::SeqCst);
        self.ring.can_pop()
    }
}

type Slices<'a> = heapless::Vec<&'a [u8], CHUNKS_MAX>;
type SlicesMut<'a> = heapless::Vec<&'a mut [u8], CHUNKS_MAX>;

/// The chunks in the shape that `VirtQueue` takes: for address and length only.
fn as_slices<'a>(chunks: &[Chunk]) -> Slices<'a> {
    let mut slices = Slices::new();
    for chunk in chunks.iter().take(CHUNKS_MAX) {
        let base = core::ptr::with_exposed_provenance::<u8>(chunk.address() as usize);
        // SAFETY: not null, not empty, inside memory that chunks may name (see `dma`). Devices and other domains may
        // write there at any time, therefore the slice must not be read: `VirtQueue` takes address and length from it.
        let slice = unsafe { core::slice::from_raw_parts(base, chunk.bytes() as usize) };
        let _ = slices.push(slice);
    }
    slices
}

/// As [`as_slices`], for chunks that the device writes.
fn as_slices_mut<'a>(chunks: &[Chunk]) -> SlicesMut<'a> {
    let mut slices = SlicesMut::new();
    for chunk in chunks.iter().take(CHUNKS_MAX) {
        let base = core::ptr::with_exposed_provenance_mut::<u8>(chunk.address() as usize);
        // SAFETY: as in `as_slices`; nothing else of this domain refers to the memory.
        let slice = unsafe { core::slice::from_raw_parts_mut(base, chunk.bytes() as usize) };
        let _ = slices.push(slice);
    }
    slices
}

#[cfg(test)]
pub(crate) mod fake;

#[cfg(test)]
mod tests {
    use super::fake::{FakeDevice, HeapHal};
    use super::*;
    use crate::dma::DmaRegion;
    use proptest::prelude::*;

    const N: usize = 8;

    fn set_up() -> (Queue<HeapHal, N>, FakeDevice, DmaRegion<HeapHal>) {
        let mut device = FakeDevice::new(N as u32);
        let queue = Queue::new(&mut device, 0).unwrap();
        (queue, device, DmaRegion::allocate(1).unwrap())
    }

    #[test]
    fn a_request_comes_back_with_what_the_device_wrote() {
        let (mut queue, mut device, mut region) = set_up();
        region.write(0, b"ping").unwrap();
        let out = [region.chunk(0, 4).unwrap()];
        let back = [region.chunk(64, 4).unwrap(), region.chunk(128, 2).unwrap()];
        let token = queue.push(&out, &back).unwrap();
        queue.kick(&mut device);
        assert_eq!(device.kicks, 1);
        assert_eq!(queue.free(), N - 3);
        assert_eq!(queue.pop(), Ok(None));
        device.use_next(6);
        assert_eq!(queue.pop(), Ok(Some(Completion { token, written: 6 })));
        assert!(queue.is_idle());
    }

    #[test]
    fn a_length_beyond_the_buffers_is_cut() {
        let (mut queue, mut device, region) = set_up();
        queue.push(&[], &[region.chunk(0, 16).unwrap()]).unwrap();
        device.use_next(u32::MAX);
        assert_eq!(queue.pop().unwrap().unwrap().written, 16);
    }

    #[test]
    fn an_id_that_is_not_in_flight_breaks_the_queue_and_nothing_else() {
        for id in [3, N as u32, 0xffff, 0x1_0007] {
            let (mut queue, mut device, region) = set_up();
            queue.push(&[region.chunk(0, 16).unwrap()], &[]).unwrap();
            device.use_id(id, 0);
            assert_eq!(queue.pop(), Err(DeviceFault::UnknownId(id as u16)));
            assert_eq!(queue.pop(), Err(DeviceFault::Broken));
            assert_eq!(queue.push(&[region.chunk(0, 16).unwrap()], &[]), Err(PushError::Full));
        }
    }

    #[test]
    fn an_id_used_twice_is_a_fault() {
        let (mut queue, mut device, region) = set_up();
        let token = queue.push(&[region.chunk(0, 16).unwrap()], &[]).unwrap();
        device.use_id(u32::from(token.0), 0);
        device.use_id(u32::from(token.0), 0);
        assert!(queue.pop().unwrap().is_some());
        assert_eq!(queue.pop(), Err(DeviceFault::UnknownId(token.0)));
    }

    #[test]
    fn a_full_queue_says_so_and_recovers() {
        let (mut queue, mut device, region) = set_up();
        let chunk = [region.chunk(0, 16).unwrap()];
        for _ in 0..N {
            queue.push(&chunk, &[]).unwrap();
        }
        assert_eq!(queue.push(&chunk, &[]), Err(PushError::Full));
        device.use_next(0);
        queue.pop().unwrap().unwrap();
        queue.push(&chunk, &[]).unwrap();
    }

    #[test]
    fn a_request_without_chunks_or_with_too_many_is_refused() {
        let (mut queue, _, region) = set_up();
        assert_eq!(queue.push(&[], &[]), Err(PushError::BadShape));
        assert_eq!(queue.push(&[region.chunk(0, 1).unwrap(); N + 1], &[]), Err(PushError::BadShape));
    }

    #[test]
    fn asking_for_interrupts_again_tells_of_what_came_meanwhile() {
        let (mut queue, mut device, region) = set_up();
        queue.suppress_interrupts();
        assert!(!queue.request_interrupts());
        queue.push(&[region.chunk(0, 16).unwrap()], &[]).unwrap();
        queue.suppress_interrupts();
        assert!(device.interrupts_suppressed());
        device.use_next(0);
        assert!(queue.request_interrupts());
        assert!(!device.interrupts_suppressed());
    }

    #[test]
    fn a_device_with_a_short_queue_is_refused() {
        let mut device = FakeDevice::new(4);
        let error = Queue::<HeapHal, N>::new(&mut device, 0).err();
        assert_eq!(error, Some(SetupError::TooSmall { offered: 4, wanted: 8 }));
    }

    proptest! {
        /// Whatever the device writes into the used ring, each request completes at most once and no descriptor is lost.
        #[test]
        fn a_device_that_writes_anything_into_the_used_ring_is_survived(
            steps in proptest::collection::vec((0usize..4, 1usize..4, 0u32..10, any::<u32>()), 1..200)
        ) {
            let (mut queue, mut device, region) = set_up();
            let mut in_flight = [0usize; N];
            for (step, count, id, length) in steps {
                match step {
                    0 | 1 => {
                        let chunks = [region.chunk(0, 16).unwrap(); 4];
                        if let Ok(token) = queue.push(&chunks[..count], &[]) {
                            prop_assert_eq!(in_flight[token.index()], 0);
                            in_flight[token.index()] = count;
                        }
                    }
                    2 => device.use_id(id, length),
                    _ => {
                        if let Ok(Some(done)) = queue.pop() {
                            prop_assert_ne!(in_flight[done.token.index()], 0);
                            in_flight[done.token.index()] = 0;
                        }
                    }
                }
                prop_assert_eq!(queue.free(), N - in_flight.iter().sum::<usize>());
            }
        }
    }
}
