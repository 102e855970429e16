//! Request/response rings (Xen public header `io/ring.h`), both ends.
//!
//! The front end produces requests and consumes responses, the back end the other way round; both use the same
//! entries. Indexes run freely through all of `u32`. Each end keeps its own indexes privately and believes nothing that
//! it has written to the page before; of the peer it reads one producer index and one event index. A producer index
//! that cannot be is a [`RingError::Overrun`]: the ring is dead from then on, as nothing in it means anything any more.
//!
//! **A back end may die at any instruction, and its successor goes on in the same ring** ([`BackRing::adopt`]): it takes every
//! request that has no answer again. For that, all requests that have none must be in the entries from `rsp_prod` on at any
//! moment, so answers are given in the order of the requests, and an answer that is being written when the back end dies
//! must be known: before it overwrites an entry the back end notes that it is going to, in the part of the header that is
//! its own. Where the request itself is needed again, what the answer overwrites is noted there too ([`BackRing::answer`]).
//! The front end can write all of this. What it gets by that is its own requests, done otherwise.
//!
//! Sleeping without losing an event: consume until nothing is left, call `final_check`, and sleep only if it returns
//! `false`.

use core::marker::PhantomData;

use xen_abi::io::ring::{SRING_ENTRIES_OFFSET, SringHeader, ring_entries};
use zerocopy::{FromBytes, FromZeros, Immutable, IntoBytes};

use crate::memory::SharedMemory;

const REQ_PROD: usize = 0;
const REQ_EVENT: usize = 4;
const RSP_PROD: usize = 8;
const RSP_EVENT: usize = 12;
/// The back end's own (`pvt`): one past the last entry that it has begun to write an answer to.
const ANSWERING: usize = 16;
/// The back end's own (in the padding): what an answer overwrites.
const KEPT: usize = 24;

/// What travels over a ring: plain bytes of fixed size.
pub trait Protocol {
    /// From front to back.
    type Request: FromBytes + IntoBytes + Immutable + Copy;
    /// From back to front.
    type Response: FromBytes + IntoBytes + Immutable + Copy;
    /// Bytes of an entry: of the larger of the two.
    const ENTRY_BYTES: usize = if size_of::<Self::Request>() > size_of::<Self::Response>() {
        size_of::<Self::Request>()
    } else {
        size_of::<Self::Response>()
    };
}

/// Why a ring does not work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RingError {
    /// The memory holds no entry. Caller's fault.
    TooSmall,
    /// The memory holds more entries than this protocol's end keeps books on. Caller's fault.
    TooLarge,
    /// All entries are in use. Nobody's fault: wait for responses.
    Full,
    /// A response without an open request. Caller's fault.
    NothingToAnswer,
    /// The peer's producer index is impossible. The ring stays dead.
    Overrun {
        /// The index it wrote.
        producer: u32,
        /// Our consumer index.
        consumer: u32,
        /// How far ahead it may have been.
        allowed: u32,
    },
}

impl core::fmt::Display for RingError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            RingError::TooSmall => f.write_str("ring memory is too small"),
            RingError::TooLarge => f.write_str("ring memory is too large"),
            RingError::Full => f.write_str("ring is full"),
            RingError::NothingToAnswer => f.write_str("response without a request"),
            RingError::Overrun { producer, consumer, allowed } => write!(
                f,
                "peer moved its index to {producer:#x}, {} ahead of {consumer:#x} where at most {allowed} can be",
                producer.wrapping_sub(*consumer)
            ),
        }
    }
}

impl core::error::Error for RingError {}

/// How many entries `memory` holds for a protocol.
fn entries_of<P: Protocol>(memory: &impl SharedMemory) -> Result<u32, RingError> {
    match ring_entries(memory.bytes(), P::ENTRY_BYTES) {
        0 => Err(RingError::TooSmall),
        entries => Ok(entries),
    }
}

/// Offset of the entry of an index. `entries` is a power of two.
fn entry_offset<P: Protocol>(index: u32, entries: u32) -> usize {
    SRING_ENTRIES_OFFSET + (index & (entries - 1)) as usize * P::ENTRY_BYTES
}

/// Whether the step from `old` to `new` passes the event index that the peer has asked for.
fn passes(event: u32, old: u32, new: u32) -> bool {
    new.wrapping_sub(event) < new.wrapping_sub(old)
}

/// How far the peer is ahead, if that is possible.
fn ahead(producer: u32, consumer: u32, allowed: u32) -> Result<u32, RingError> {
    match producer.wrapping_sub(consumer) {
        count if count <= allowed => Ok(count),
        _ => Err(RingError::Overrun { producer, consumer, allowed }),
    }
}

/// The end that makes requests. It owns the pages: it initialises them and grants them.
#[derive(Debug)]
pub struct FrontRing<P: Protocol, M> {
    memory: M,
    entries: u32,
    req_prod_private: u32,
    req_prod_published: u32,
    rsp_cons: u32,
    dead: Option<RingError>,
    protocol: PhantomData<fn() -> P>,
}

impl<P: Protocol, M: SharedMemory> FrontRing<P, M> {
    /// Initialises the ring in `memory` (all of its pages). Zero the pages before granting them.
    pub fn new(memory: M) -> Result<Self, RingError> {
        let entries = entries_of::<P>(&memory)?;
        let head = SringHeader { req_event: 1, rsp_event: 1, ..SringHeader::default() };
        memory.write(0, head.as_bytes());
        Ok(Self {
            memory,
            entries,
            req_prod_private: 0,
            req_prod_published: 0,
            rsp_cons: 0,
            dead: None,
            protocol: PhantomData,
        })
    }

    /// Entries of the ring.
    #[must_use]
    pub fn entries(&self) -> u32 {
        self.entries
    }

    /// Requests that fit now.
    #[must_use]
    pub fn free(&self) -> u32 {
        self.entries - self.req_prod_private.wrapping_sub(self.rsp_cons)
    }

    /// Requests without a response so far, published or not.
    #[must_use]
    pub fn in_flight(&self) -> u32 {
        self.req_prod_private.wrapping_sub(self.rsp_cons)
    }

    /// Writes a request into the next entry; the peer does not see it before [`FrontRing::publish`].
    pub fn push(&mut self, request: &P::Request) -> Result<(), RingError> {
        if let Some(error) = self.dead {
            return Err(error);
        }
        if self.free() == 0 {
            return Err(RingError::Full);
        }
        self.memory.write(entry_offset::<P>(self.req_prod_private, self.entries), request.as_bytes());
        self.req_prod_private = self.req_prod_private.wrapping_add(1);
        Ok(())
    }

    /// Shows all pushed requests to the peer. `true`: it wants an event.
    #[must_use = "the peer sleeps until it gets the event that it asked for"]
    pub fn publish(&mut self) -> bool {
        let (old, new) = (self.req_prod_published, self.req_prod_private);
        self.memory.store_u32(REQ_PROD, new);
        self.req_prod_published = new;
        self.memory.fence();
        passes(self.memory.load_u32(REQ_EVENT), old, new)
    }

    /// Takes the next response.
    pub fn next_response(&mut self) -> Result<Option<P::Response>, RingError> {
        if self.unconsumed()? == 0 {
            return Ok(None);
        }
        let mut response = P::Response::new_zeroed();
        self.memory.read(entry_offset::<P>(self.rsp_cons, self.entries), response.as_mut_bytes());
        self.rsp_cons = self.rsp_cons.wrapping_add(1);
        Ok(Some(response))
    }

    /// Responses that wait.
    pub fn unconsumed(&mut self) -> Result<u32, RingError> {
        if let Some(error) = self.dead {
            return Err(error);
        }
        let allowed = self.req_prod_published.wrapping_sub(self.rsp_cons);
        let count = ahead(self.memory.load_u32(RSP_PROD), self.rsp_cons, allowed);
        self.dead = count.err();
        count
    }

    /// Asks for an event with the next response. `true`: there is one already, do not sleep.
    pub fn final_check(&mut self) -> Result<bool, RingError> {
        if self.unconsumed()? > 0 {
            return Ok(true);
        }
        self.memory.store_u32(RSP_EVENT, self.rsp_cons.wrapping_add(1));
        self.memory.fence();
        Ok(self.unconsumed()? > 0)
    }
}

/// The end that serves requests. It maps the front end's pages.
#[derive(Debug)]
pub struct BackRing<P: Protocol, M> {
    memory: M,
    entries: u32,
    req_cons: u32,
    rsp_prod_private: u32,
    rsp_prod_published: u32,
    dead: Option<RingError>,
    protocol: PhantomData<fn() -> P>,
}

impl<P: Protocol, M: SharedMemory> BackRing<P, M> {
    /// Attaches to a ring that the front end has initialised, behind the last response in it.
    pub fn attach(memory: M) -> Result<Self, RingError> {
        let ring = Self::behind_the_last_response(memory)?;
        ring.memory.store_u32(ANSWERING, ring.rsp_prod_private);
        Ok(ring)
    }

    /// Attaches to a ring in the place of a back end that has died, for a protocol whose answers are given by
    /// [`BackRing::answer`]: all requests without an answer are there to be taken, as they were.
    pub fn adopt(memory: M) -> Result<Self, RingError> {
        let (ring, begun) = Self::adopt_begun(memory)?;
        if begun > 0 {
            let mut kept = P::Response::new_zeroed();
            ring.memory.read(KEPT, kept.as_mut_bytes());
            ring.memory.write(entry_offset::<P>(ring.rsp_prod_private, ring.entries), kept.as_bytes());
        }
        Ok(ring)
    }

    /// The same for a protocol whose answers are pushed and then published. Tells how many of the requests, from the first on,
    /// may have been overwritten in the bytes that an answer has.
    pub fn adopt_begun(memory: M) -> Result<(Self, u32), RingError> {
        let mut ring = Self::behind_the_last_response(memory)?;
        let waiting = ring.unconsumed()?;
        let begun = ring.memory.load_u32(ANSWERING).wrapping_sub(ring.rsp_prod_private);
        Ok((ring, if begun <= waiting { begun } else { 0 }))
    }

    fn behind_the_last_response(memory: M) -> Result<Self, RingError> {
        let entries = entries_of::<P>(&memory)?;
        let start = memory.load_u32(RSP_PROD);
        ahead(memory.load_u32(REQ_PROD), start, entries)?;
        Ok(Self {
            memory,
            entries,
            req_cons: start,
            rsp_prod_private: start,
            rsp_prod_published: start,
            dead: None,
            protocol: PhantomData,
        })
    }

    /// Entries of the ring.
    #[must_use]
    pub fn entries(&self) -> u32 {
        self.entries
    }

    /// Requests taken and not answered yet.
    #[must_use]
    pub fn in_flight(&self) -> u32 {
        self.req_cons.wrapping_sub(self.rsp_prod_private)
    }

    /// The index of the request that is taken next.
    #[must_use]
    pub fn next_index(&self) -> u32 {
        self.req_cons
    }

    /// The index of the request that is answered next.
    #[must_use]
    pub fn answer_index(&self) -> u32 {
        self.rsp_prod_private
    }

    /// Requests that wait.
    pub fn unconsumed(&mut self) -> Result<u32, RingError> {
        if let Some(error) = self.dead {
            return Err(error);
        }
        let allowed = self.entries - self.in_flight();
        let count = ahead(self.memory.load_u32(REQ_PROD), self.req_cons, allowed);
        self.dead = count.err();
        count
    }

    /// Takes the next request: a private copy, read once.
    pub fn next_request(&mut self) -> Result<Option<P::Request>, RingError> {
        if self.unconsumed()? == 0 {
            return Ok(None);
        }
        let mut request = P::Request::new_zeroed();
        self.memory.read(entry_offset::<P>(self.req_cons, self.entries), request.as_mut_bytes());
        self.req_cons = self.req_cons.wrapping_add(1);
        Ok(Some(request))
    }

    /// Writes a response into the next entry; the peer does not see it before [`BackRing::publish`].
    pub fn push(&mut self, response: &P::Response) -> Result<(), RingError> {
        if self.in_flight() == 0 {
            return Err(RingError::NothingToAnswer);
        }
        let next = self.rsp_prod_private.wrapping_add(1);
        self.memory.store_u32(ANSWERING, next);
        self.memory.keep_order();
        self.memory.write(entry_offset::<P>(self.rsp_prod_private, self.entries), response.as_bytes());
        self.rsp_prod_private = next;
        Ok(())
    }

    /// Writes a response into the next entry and shows it, in such a way that the request can be restored until it is shown.
    #[inline]
    pub fn answer(&mut self, response: &P::Response) -> Result<(), RingError> {
        const { assert!(size_of::<P::Response>() % 8 == 0 && P::ENTRY_BYTES % 8 == 0) };
        const { assert!(KEPT + size_of::<P::Response>() <= SRING_ENTRIES_OFFSET) };
        if self.in_flight() == 0 {
            return Err(RingError::NothingToAnswer);
        }
        let (words, _) = response.as_bytes().as_chunks();
        let at = entry_offset::<P>(self.rsp_prod_private, self.entries);
        for offset in (0..words.len()).map(|index| 8 * index) {
            self.memory.store_u64(KEPT + offset, self.memory.load_u64(at + offset));
        }
        let next = self.rsp_prod_private.wrapping_add(1);
        self.memory.store_u32(ANSWERING, next);
        self.memory.keep_order();
        for (index, word) in words.iter().enumerate() {
            self.memory.store_u64(at + 8 * index, u64::from_le_bytes(*word));
        }
        self.rsp_prod_private = next;
        self.memory.store_u32(RSP_PROD, next);
        Ok(())
    }

    /// Shows all pushed responses to the peer. `true`: it wants an event.
    #[must_use = "the peer sleeps until it gets the event that it asked for"]
    pub fn publish(&mut self) -> bool {
        let (old, new) = (self.rsp_prod_published, self.rsp_prod_private);
        self.memory.store_u32(RSP_PROD, new);
        self.rsp_prod_published = new;
        self.memory.fence();
        passes(self.memory.load_u32(RSP_EVENT), old, new)
    }

    /// Asks for an event with the next request. `true`: there is one already, do not sleep.
    pub fn final_check(&mut self) -> Result<bool, RingError> {
        if self.unconsumed()? > 0 {
            return Ok(true);
        }
        self.memory.store_u32(REQ_EVENT, self.req_cons.wrapping_add(1));
        self.memory.fence();
        Ok(self.unconsumed()? > 0)
    }
}
