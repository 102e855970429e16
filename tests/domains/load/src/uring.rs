//! Reading with many requests in flight as programs that care do it today: `io_uring` (`include/uapi/linux/io_uring.h`), with the
//! file and the memory made known to Linux once ("registered"), so that no request has to look them up or pin pages.
//!
//! One system call hands in what was asked for and waits. One task asks and waits (`SINGLE_ISSUER`), and what ends a request is
//! done when that task waits (`DEFER_TASKRUN`), both from Linux 6.1 on.

use crate::linux::{self, Failed, File};
use core::sync::atomic::AtomicU32;
use core::sync::atomic::Ordering::{Acquire, Relaxed, Release};

const SETUP_SINGLE_ISSUER: u32 = 1 << 12;
const SETUP_DEFER_TASKRUN: u32 = 1 << 13;
/// Both rings are in one mapping.
const FEATURE_SINGLE_MMAP: u32 = 1;
/// Offsets of mappings: of the rings, and of the requests.
const MAP_RINGS: u64 = 0;
const MAP_REQUESTS: u64 = 0x1000_0000;
const REGISTER_BUFFERS: u64 = 0;
const REGISTER_FILES: u64 = 2;
const ENTER_GETEVENTS: u64 = 1;
const OP_READ_FIXED: u8 = 4;
/// The file is an index of registered ones.
const FIXED_FILE: u8 = 1;

/// `struct io_sqring_offsets` and `struct io_cqring_offsets`: eight words, then an address.
#[derive(Clone, Copy, Default)]
#[repr(C)]
struct Offsets {
    head: u32,
    tail: u32,
    mask: u32,
    entries: u32,
    words: [u32; 4],
    address: u64,
}

impl Offsets {
    /// Of the requests' ring: the list of indexes.
    fn list(&self) -> usize {
        self.words[2] as usize
    }

    /// Of the other: what is done.
    fn done(&self) -> usize {
        self.words[1] as usize
    }
}

/// `struct io_uring_params`.
#[derive(Clone, Copy, Default)]
#[repr(C)]
struct Parameters {
    requests: u32,
    done: u32,
    flags: u32,
    thread: [u32; 2],
    features: u32,
    more: [u32; 4],
    request_ring: Offsets,
    done_ring: Offsets,
}

const _: () = assert!(size_of::<Parameters>() == 120);

/// `struct io_uring_sqe`.
#[derive(Clone, Copy, Default)]
#[repr(C)]
struct Request {
    operation: u8,
    flags: u8,
    priority: u16,
    file: i32,
    place: u64,
    address: u64,
    bytes: u32,
    read_flags: u32,
    data: u64,
    buffer: u16,
    more: [u16; 3],
    reserved: [u64; 2],
}

const _: () = assert!(size_of::<Request>() == 64);

/// `struct io_uring_cqe`.
#[derive(Clone, Copy)]
#[repr(C)]
struct Done {
    data: u64,
    result: i32,
    flags: u32,
}

/// A word of the rings.
fn word(rings: *mut u8, offset: u32) -> &'static AtomicU32 {
    // SAFETY: Linux has mapped the rings and told where in them the word is; they stay mapped as long as the program runs, and
    // both sides access it as a whole.
    unsafe { AtomicU32::from_ptr(rings.wrapping_add(offset as usize).cast()) }
}

/// The rings, with up to `N` reads of a registered file in flight, each into a part of its own of registered memory.
pub struct Uring<const N: usize> {
    ring: u64,
    requests: *mut Request,
    request_tail: &'static AtomicU32,
    request_mask: u32,
    done: *const Done,
    done_head: &'static AtomicU32,
    done_tail: &'static AtomicU32,
    done_mask: u32,
    memory: u64,
    bytes: u32,
    free: [bool; N],
    news: u32,
}

impl<const N: usize> Uring<N> {
    /// None in flight. Reads have `bytes`; nobody looks at what is in the memory.
    pub fn new(file: &File, bytes: usize) -> Result<Self, Failed> {
        let flags = SETUP_SINGLE_ISSUER | SETUP_DEFER_TASKRUN;
        let mut parameters = Parameters { flags, ..Parameters::default() };
        let words = (&raw mut parameters).expose_provenance() as u64;
        // SAFETY: what is read and written there is the structure.
        let ring =
            unsafe { linux::checked_call(linux::IO_URING_SETUP, [N as u64, words, 0, 0, 0, 0], "io_uring_setup")? };
        let Parameters { features, request_ring, done_ring, .. } = parameters;
        if features & FEATURE_SINGLE_MMAP == 0 {
            return Err(Failed("rings of an old Linux", 0));
        }
        let lists = request_ring.list() + parameters.requests as usize * size_of::<u32>();
        let results = done_ring.done() + parameters.done as usize * size_of::<Done>();
        let rings = linux::map(ring, MAP_RINGS, lists.max(results))?;
        let requests = linux::map(ring, MAP_REQUESTS, parameters.requests as usize * size_of::<Request>())?;
        // Each index always means the same request.
        for index in 0..parameters.requests {
            word(rings, request_ring.list() as u32 + 4 * index).store(index, Relaxed);
        }
        let mask = |offsets: &Offsets| word(rings, offsets.mask).load(Relaxed);
        let memory = linux::memory(N * bytes)?.expose_provenance() as u64;
        let this = Self {
            ring,
            requests: requests.cast(),
            request_tail: word(rings, request_ring.tail),
            request_mask: mask(&request_ring),
            done: rings.wrapping_add(done_ring.done()).cast(),
            done_head: word(rings, done_ring.head),
            done_tail: word(rings, done_ring.tail),
            done_mask: mask(&done_ring),
            memory,
            bytes: bytes as u32,
            free: [true; N],
            news: 0,
        };
        this.register(REGISTER_BUFFERS, &[memory, (N * bytes) as u64])?;
        this.register(REGISTER_FILES, &[file.number()])?;
        Ok(this)
    }

    /// Makes one thing known: an address and its length, or a file.
    fn register(&self, what: u64, thing: &[u64]) -> Result<(), Failed> {
        let address = thing.as_ptr().expose_provenance() as u64;
        // SAFETY: one structure of that kind is read (of a file's number the lower half). Registered memory lives for ever.
        unsafe {
            linux::checked_call(linux::IO_URING_REGISTER, [self.ring, what, address, 1, 0, 0], "io_uring_register")?
        };
        Ok(())
    }

    /// Asks for a read, with the next [`Uring::enter`]. `false`: `N` are in flight.
    pub fn add(&mut self, place: u64) -> bool {
        let Some(number) = self.free.iter().position(|free| *free) else { return false };
        self.free[number] = false;
        let request = Request {
            operation: OP_READ_FIXED,
            flags: FIXED_FILE,
            place,
            address: self.memory + number as u64 * u64::from(self.bytes),
            bytes: self.bytes,
            data: number as u64,
            ..Request::default()
        };
        let tail = self.request_tail.load(Relaxed);
        // SAFETY: the mask keeps it in the mapping, and Linux is done with what it was told of before: it takes requests while
        // it is entered.
        unsafe { self.requests.wrapping_add((tail & self.request_mask) as usize).write(request) };
        self.request_tail.store(tail.wrapping_add(1), Release);
        self.news += 1;
        true
    }

    /// Hands in what was asked for and waits until something is done; answers how much. Each read has to have all its bytes.
    pub fn enter(&mut self) -> Result<u64, Failed> {
        let news = core::mem::take(&mut self.news);
        let arguments = [self.ring, news.into(), 1, ENTER_GETEVENTS, 0, 0];
        // SAFETY: what requests name is a part of registered memory, which lives for ever and nobody looks into.
        let taken = unsafe { linux::checked_call(linux::IO_URING_ENTER, arguments, "io_uring_enter")? };
        if taken != u64::from(news) {
            return Err(Failed("not all requests were taken", taken as i64));
        }
        let (head, tail) = (self.done_head.load(Relaxed), self.done_tail.load(Acquire));
        for index in 0..tail.wrapping_sub(head) {
            let at = (head.wrapping_add(index) & self.done_mask) as usize;
            // SAFETY: the mask keeps it in the mapping; Linux has written it before it moved the tail, and leaves it until the
            // head has moved.
            let done = unsafe { self.done.wrapping_add(at).read() };
            if done.result != self.bytes as i32 {
                return Err(Failed("a read", done.result.into()));
            }
            self.free[done.data as usize % N] = true;
        }
        self.done_head.store(tail, Release);
        Ok(tail.wrapping_sub(head).into())
    }
}
