//! A split virtqueue (virtio 1.2 section 2.7) for safe code: buffers go in as [`Chunk`]s, come back as [`Completion`]s.
//!
//! Of what the device can write, only the used ring is read: its index, and each element once. An id counts only if
//! it heads a chain that is in flight, and lengths are cut to what was given to write. Which descriptors are free and
//! which follow which stands in a table of our own: a chain is as long as it was made, whatever became of the
//! descriptors meanwhile. Direct descriptors only (see [`crate::features`]).

use crate::dma::{Atomics, Chunk, DmaRegion};
use alloc::boxed::Box;
use core::mem::offset_of;
use core::sync::atomic::Ordering::{Acquire, Relaxed, Release, SeqCst};
use core::sync::atomic::{AtomicU16, AtomicU32, AtomicU64, fence};
use virtio_drivers::transport::Transport;
use virtio_drivers::{Hal, PAGE_SIZE};

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
    UnknownId(u32),
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
    /// The queue is in use already.
    InUse,
    /// No memory.
    Memory,
}

/// `struct virtq_desc`.
#[repr(C)]
struct Descriptor {
    address: AtomicU64,
    /// Length, flags, next.
    word: AtomicU64,
}
const FLAG_NEXT: u64 = 1 << 32;
const FLAG_WRITE: u64 = 2 << 32;
const NEXT_SHIFT: u32 = 48;

/// `struct virtq_avail`, and a used ring's element and `struct virtq_used`. The event indexes at their ends are not used.
#[repr(C)]
struct Available<const N: usize> {
    flags: AtomicU16,
    index: AtomicU16,
    ring: [AtomicU16; N],
}
#[repr(C)]
struct Element {
    id: AtomicU32,
    written: AtomicU32,
}
#[repr(C)]
struct Used<const N: usize> {
    flags: AtomicU16,
    index: AtomicU16,
    ring: [Element; N],
}
/// `VIRTQ_AVAIL_F_NO_INTERRUPT` and `VIRTQ_USED_F_NO_NOTIFY`, in the ring of whoever does not want to hear.
const QUIET: u16 = 1;

/// What driver and device share: page-aligned, the rings on a page of their own, at addresses that suit them.
#[repr(C, align(4096))]
struct Shared<const N: usize> {
    descriptors: [Descriptor; N],
    rings: Rings<N>,
}
#[repr(C, align(4096))]
struct Rings<const N: usize> {
    used: Used<N>,
    _event: AtomicU32,
    available: Available<N>,
    _other_event: AtomicU32,
}

// SAFETY: nothing but atomics and padding, all the way down.
unsafe impl<const N: usize> Atomics for Shared<N> {}

/// The books on one descriptor.
#[derive(Clone, Copy, Default)]
struct Slot {
    /// The next one of its chain, or of the free ones.
    next: u16,
    /// If it heads a chain in flight: the last one, how many there are (else 0), bytes that the device may write.
    last: u16,
    count: u16,
    writable_bytes: u32,
}

/// A chain in the making.
struct Chain {
    /// The descriptor that the next chunk gets: free, as are those that follow it.
    at: u16,
    last: u16,
    /// The last one's length, flags and next, to be written when it is known whether another one follows.
    word: u64,
    count: u16,
    writable_bytes: u32,
}

/// A virtqueue of `N` descriptors, a power of two up to 256.
pub struct Queue<H: Hal, const N: usize> {
    index: u16,
    shared: &'static Shared<N>,
    /// Where that lies.
    _region: DmaRegion<H>,
    slots: Box<[Slot; N]>,
    first_free: u16,
    free: usize,
    /// Requests shown to the device so far, and taken back: both run freely.
    available: u16,
    used: u16,
    interrupts: bool,
    broken: bool,
}

impl<H: Hal, const N: usize> Queue<H, N> {
    /// Sets up queue number `index` of the device. The transport must know the queue's vector already.
    pub fn new(transport: &mut impl Transport, index: u16) -> Result<Self, SetupError> {
        const { assert!(N.is_power_of_two() && N <= 256) };
        if transport.queue_used(index) {
            return Err(SetupError::InUse);
        }
        let offered = transport.max_queue_size(index);
        if offered < N as u32 {
            return Err(SetupError::TooSmall { offered, wanted: N as u32 });
        }
        let region = DmaRegion::allocate(size_of::<Shared<N>>() / PAGE_SIZE).ok_or(SetupError::Memory)?;
        let shared: &'static Shared<N> = region.view(0).map_err(|_| SetupError::Memory)?;
        let at = |offset: usize| region.address() + offset as u64;
        transport.queue_set(
            index,
            N as u32,
            at(0),
            at(offset_of!(Shared<N>, rings) + offset_of!(Rings<N>, available)),
            at(offset_of!(Shared<N>, rings) + offset_of!(Rings<N>, used)),
        );
        let slots = core::array::from_fn(|number| Slot { next: number as u16 + 1, ..Slot::default() });
        Ok(Self {
            index,
            shared,
            _region: region,
            slots: Box::new(slots),
            first_free: 0,
            free: N,
            available: 0,
            used: 0,
            interrupts: true,
            broken: false,
        })
    }

    /// Free descriptors: a request takes one for each chunk.
    pub fn free(&self) -> usize {
        self.free
    }

    /// No request is in flight.
    pub fn is_idle(&self) -> bool {
        self.free == N
    }

    /// Requests that the device still works on, if it says the truth.
    pub fn unfinished(&self) -> usize {
        self.available.wrapping_sub(self.shared.rings.used.index.load(Acquire)).into()
    }

    /// What [`Queue::push`] will return next, if it succeeds.
    pub fn next_token(&self) -> Option<Token> {
        (self.free != 0).then_some(Token(self.first_free))
    }

    /// Queues a request: the device reads `readable`, then writes `writable`. [`Queue::kick`] tells it.
    /// Both are given in parts, so that nobody has to put them together.
    pub fn push(&mut self, readable: &[&[Chunk]], writable: &[&[Chunk]]) -> Result<Token, PushError> {
        if self.broken {
            return Err(PushError::Full);
        }
        let head = self.first_free;
        let mut chain = Chain { at: head, last: head, word: 0, count: 0, writable_bytes: 0 };
        for chunk in readable.iter().copied().flatten() {
            self.add(&mut chain, chunk, 0)?;
        }
        for chunk in writable.iter().copied().flatten() {
            self.add(&mut chain, chunk, FLAG_WRITE)?;
            chain.writable_bytes = chain.writable_bytes.saturating_add(chunk.bytes());
        }
        if chain.count == 0 {
            return Err(PushError::BadShape);
        }
        self.descriptor(chain.last).word.store(chain.word, Relaxed);
        let Chain { at, last, count, writable_bytes, .. } = chain;
        let slot = self.slot(head);
        (slot.last, slot.count, slot.writable_bytes) = (last, count, writable_bytes);
        self.first_free = at;
        self.free -= usize::from(count);
        self.show(head);
        Ok(Token(head))
    }

    /// Adds a chunk to a chain. Nothing is in the books yet, so on an error the descriptors are as free as before.
    #[inline]
    fn add(&mut self, chain: &mut Chain, chunk: &Chunk, flag: u64) -> Result<(), PushError> {
        let count = usize::from(chain.count);
        if count == CHUNKS_MAX || count == N {
            return Err(PushError::BadShape);
        }
        if count == self.free {
            return Err(PushError::Full);
        }
        let at = chain.at;
        if count != 0 {
            let word = chain.word | FLAG_NEXT | u64::from(at) << NEXT_SHIFT;
            self.descriptor(chain.last).word.store(word, Relaxed);
        }
        self.descriptor(at).address.store(chunk.address(), Relaxed);
        (chain.last, chain.word) = (at, u64::from(chunk.bytes()) | flag);
        chain.at = self.slot(at).next;
        chain.count += 1;
        Ok(())
    }

    /// Numbers of descriptors are below `N`, but for the last free one's next, which is never used.
    fn descriptor(&self, number: u16) -> &'static Descriptor {
        &self.shared.descriptors[usize::from(number) & (N - 1)]
    }

    fn slot(&mut self, number: u16) -> &mut Slot {
        &mut self.slots[usize::from(number) & (N - 1)]
    }

    /// Puts a chain into the available ring.
    fn show(&mut self, head: u16) {
        let available = &self.shared.rings.available;
        available.ring[usize::from(self.available) & (N - 1)].store(head, Relaxed);
        self.available = self.available.wrapping_add(1);
        // The device reads what is before the index only after it.
        available.index.store(self.available, Release);
    }

    /// Tells the device of what was queued, unless it has said that it looks by itself.
    pub fn kick(&mut self, transport: &mut impl Transport) {
        // The index was stored before; the device's flag must be read after it (store-load order).
        fence(SeqCst);
        if self.shared.rings.used.flags.load(Acquire) & QUIET == 0 {
            transport.notify(self.index);
        }
    }

    /// The next finished request.
    pub fn pop(&mut self) -> Result<Option<Completion>, DeviceFault> {
        if self.broken {
            return Err(DeviceFault::Broken);
        }
        if !self.can_pop() {
            return Ok(None);
        }
        // Id and length, each once.
        let element = &self.shared.rings.used.ring[usize::from(self.used) & (N - 1)];
        let (id, written) = (element.id.load(Relaxed), element.written.load(Relaxed));
        let Some(slot) = self.slots.get_mut(id as usize).filter(|slot| slot.count != 0) else {
            self.broken = true;
            return Err(DeviceFault::UnknownId(id));
        };
        self.free += usize::from(core::mem::take(&mut slot.count));
        let (last, written) = (slot.last, written.min(slot.writable_bytes));
        self.slot(last).next = core::mem::replace(&mut self.first_free, id as u16);
        self.used = self.used.wrapping_add(1);
        Ok(Some(Completion { token: Token(id as u16), written }))
    }

    fn can_pop(&self) -> bool {
        self.shared.rings.used.index.load(Acquire) != self.used
    }

    /// Asks the device for no more interrupts on this queue; a hint that it may miss.
    pub fn suppress_interrupts(&mut self) {
        if core::mem::replace(&mut self.interrupts, false) {
            self.shared.rings.available.flags.store(QUIET, Relaxed);
        }
    }

    /// Asks for interrupts again. `true`: something finished meanwhile and may never be announced: pop again.
    #[must_use]
    pub fn request_interrupts(&mut self) -> bool {
        if !core::mem::replace(&mut self.interrupts, true) {
            self.shared.rings.available.flags.store(0, Relaxed);
            // The flag must be out before the used index is read (store-load order), or a wake-up could be lost.
            fence(SeqCst);
        }
        self.can_pop()
    }
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
        let token = queue.push(&[&out], &[&back]).unwrap();
        queue.kick(&mut device);
        assert_eq!(device.kicks, 1);
        assert_eq!(queue.free(), N - 3);
        assert_eq!(queue.pop(), Ok(None));
        assert_eq!(queue.unfinished(), 1);
        device.use_next(6);
        assert_eq!(queue.unfinished(), 0);
        assert_eq!(queue.pop(), Ok(Some(Completion { token, written: 6 })));
        assert!(queue.is_idle());
    }

    #[test]
    fn a_length_beyond_the_buffers_is_cut() {
        let (mut queue, mut device, region) = set_up();
        queue.push(&[], &[&[region.chunk(0, 16).unwrap()]]).unwrap();
        device.use_next(u32::MAX);
        assert_eq!(queue.pop().unwrap().unwrap().written, 16);
    }

    #[test]
    fn an_id_that_is_not_in_flight_breaks_the_queue_and_nothing_else() {
        for id in [3, N as u32, 0xffff, 0x1_0007] {
            let (mut queue, mut device, region) = set_up();
            queue.push(&[&[region.chunk(0, 16).unwrap()]], &[]).unwrap();
            device.use_id(id, 0);
            assert_eq!(queue.pop(), Err(DeviceFault::UnknownId(id)));
            assert_eq!(queue.pop(), Err(DeviceFault::Broken));
            assert_eq!(queue.push(&[&[region.chunk(0, 16).unwrap()]], &[]), Err(PushError::Full));
        }
    }

    #[test]
    fn an_id_used_twice_is_a_fault() {
        let (mut queue, mut device, region) = set_up();
        let token = queue.push(&[&[region.chunk(0, 16).unwrap()]], &[]).unwrap();
        device.use_id(u32::from(token.0), 0);
        device.use_id(u32::from(token.0), 0);
        assert!(queue.pop().unwrap().is_some());
        assert_eq!(queue.pop(), Err(DeviceFault::UnknownId(token.0.into())));
    }

    #[test]
    fn a_full_queue_says_so_and_recovers() {
        let (mut queue, mut device, region) = set_up();
        let chunk = [region.chunk(0, 16).unwrap()];
        for _ in 0..N {
            queue.push(&[&chunk], &[]).unwrap();
        }
        assert_eq!(queue.push(&[&chunk], &[]), Err(PushError::Full));
        device.use_next(0);
        queue.pop().unwrap().unwrap();
        queue.push(&[&chunk], &[]).unwrap();
    }

    #[test]
    fn a_request_without_chunks_or_with_too_many_is_refused() {
        let (mut queue, _, region) = set_up();
        assert_eq!(queue.push(&[], &[&[]]), Err(PushError::BadShape));
        assert_eq!(queue.push(&[&[region.chunk(0, 1).unwrap(); N + 1]], &[]), Err(PushError::BadShape));
    }

    #[test]
    fn asking_for_interrupts_again_tells_of_what_came_meanwhile() {
        let (mut queue, mut device, region) = set_up();
        queue.suppress_interrupts();
        assert!(!queue.request_interrupts());
        queue.push(&[&[region.chunk(0, 16).unwrap()]], &[]).unwrap();
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

    #[test]
    fn a_chain_that_did_not_fit_leaves_the_queue_as_it_was() {
        let (mut queue, mut device, region) = set_up();
        let chunk = [region.chunk(0, 16).unwrap()];
        for _ in 0..N - 2 {
            queue.push(&[&chunk], &[]).unwrap();
        }
        assert_eq!(queue.push(&[&[chunk[0]; 3]], &[]), Err(PushError::Full));
        let token = queue.next_token().unwrap();
        assert_eq!(queue.push(&[&chunk], &[&chunk]), Ok(token));
        for _ in 0..N - 1 {
            device.use_next(0);
            queue.pop().unwrap().unwrap();
        }
        assert!(queue.is_idle());
    }

    #[test]
    fn the_device_sees_a_chain_as_it_was_queued() {
        let (mut queue, mut device, region) = set_up();
        let (first, second) = (region.chunk(64, 16).unwrap(), region.chunk(512, 8).unwrap());
        for _ in 0..3 {
            queue.push(&[&[first]], &[&[second], &[first]]).unwrap();
            let seen = device.next_chain();
            let expected = [(first.address(), 16, false), (second.address(), 8, true), (first.address(), 16, true)];
            assert_eq!(seen, expected);
            device.use_next(24);
            assert_eq!(queue.pop().unwrap().unwrap().written, 24);
        }
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
                        if let Ok(token) = queue.push(&[&chunks[..count]], &[]) {
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
