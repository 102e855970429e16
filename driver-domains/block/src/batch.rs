//! Requests on their way from a ring to the disk: lists that are filled, worked through and emptied in each turn, and
//! keep their memory.

use alloc::collections::VecDeque;
use alloc::vec::Vec;
use block_domain::export::Extent;
use block_domain::runs::for_each_run;
use core::ops::Range;
use runtime::grant::GrantError;
use runtime::grant::copy::Remote;
use runtime::grant::places::Place;
use runtime::pages::PAGE;
use virtio::DomainHal;
use virtio::copies::{BadCopy, Copies};
use virtio::dma::{Chunk, DmaRegion};
use xen_abi::native::PAGE_SIZE;
use xen_rings::blkif::{IndirectRequest, Segment, Ticket};

use crate::disk::Operation;
use crate::vbd::{SEGMENTS_MAX, TURN};

/// Bytes of a segment in an indirect page.
const SEGMENT_BYTES: usize = 8;
/// Bytes of an indirect request's segments at most; they cross no page of ours.
const COPY_BYTES: usize = SEGMENTS_MAX * SEGMENT_BYTES;
const _: () = assert!(PAGE.is_multiple_of(COPY_BYTES));

/// A request that needs its pages mapped, then can go to the disk.
#[derive(Debug)]
pub struct Staged {
    /// For the answer.
    pub ticket: Ticket,
    /// What to do.
    pub operation: Operation,
    /// Where on the disk.
    pub extent: Extent,
    /// Where its pages go.
    pub place: Place,
    /// Its data, see [`Batch::data`].
    pub chunks: Range<usize>,
}

/// Private copies of an indirect request's segments, before and after the check.
#[derive(Debug)]
pub struct Scratch {
    copy: [u8; COPY_BYTES],
    /// Room for the checked ones.
    pub segments: [Segment; SEGMENTS_MAX],
}

/// The lists.
pub struct Batch {
    staged: VecDeque<Staged>,
    chunks: Vec<Chunk>,
    indirect: Vec<IndirectRequest>,
    indirect_segments: usize,
    copies: Copies,
    /// Where the segments of indirect requests are copied.
    copied: DmaRegion<DomainHal>,
}

impl Batch {
    /// Empty lists. `None`: out of memory.
    pub fn new() -> Option<Self> {
        Some(Self {
            staged: VecDeque::with_capacity(TURN),
            chunks: Vec::with_capacity(TURN * SEGMENTS_MAX),
            indirect: Vec::with_capacity(TURN),
            indirect_segments: 0,
            copies: Copies::with_capacity(TURN),
            copied: DmaRegion::allocate((TURN * COPY_BYTES).div_ceil(PAGE))?,
        })
    }

    /// Empties the lists.
    pub fn clear(&mut self) {
        self.chunks.clear();
        self.indirect.clear();
        self.indirect_segments = 0;
        self.copies.clear();
    }

    /// Requests in it, and the chunks of data that they have, or may have.
    pub fn size(&self) -> (usize, usize) {
        (self.staged.len() + self.indirect.len(), self.chunks.len() + self.indirect_segments)
    }

    /// Indirect requests in it, and their segments: they have no places yet.
    pub fn indirect(&self) -> (usize, usize) {
        (self.indirect.len(), self.indirect_segments)
    }

    /// Notes an indirect request, whose segments are in a page of the front end.
    pub fn fetch_later(&mut self, request: &IndirectRequest, source: Remote) -> Result<(), BadCopy> {
        let bytes = request.segments() * SEGMENT_BYTES;
        if bytes > COPY_BYTES {
            return Err(BadCopy);
        }
        self.copies.from_peer(source, &mut self.copied, self.indirect.len() * COPY_BYTES, bytes as u16)?;
        self.indirect.push(*request);
        self.indirect_segments += request.segments();
        Ok(())
    }

    /// Copies the segments of all indirect requests.
    pub fn fetch(&mut self) {
        self.copies.run();
    }

    /// An indirect request whose segments were copied, or were not.
    pub fn fetched(&self, index: usize) -> Option<(IndirectRequest, Result<(), GrantError>)> {
        Some((*self.indirect.get(index)?, self.copies.outcome(index)))
    }

    /// A private copy of an indirect request's segments, and room for the checked ones.
    pub fn segments<'a>(&self, index: usize, scratch: &'a mut Scratch) -> Option<(&'a [u8], &'a mut [Segment])> {
        let bytes = self.indirect.get(index)?.segments() * SEGMENT_BYTES;
        let copy = scratch.copy.get_mut(..bytes)?;
        self.copied.read(index * COPY_BYTES, copy).ok()?;
        Some((copy, &mut scratch.segments))
    }

    /// Lists a request's data as the device sees it when its pages are mapped one behind the other at `address`: what is
    /// whole becomes one chunk. `None`: that makes more than `chunks_max` chunks.
    pub fn list(
        &mut self,
        address: u64,
        segments: &[Segment],
        bytes_max: u32,
        chunks_max: usize,
    ) -> Option<Range<usize>> {
        let start = self.chunks.len();
        let pieces = segments.iter().zip(0..);
        let pieces = pieces
            .map(|(segment, page)| (address + page * PAGE_SIZE + segment.offset() as u64, segment.bytes() as u32));
        for_each_run(pieces, bytes_max, |address, bytes| {
            self.chunks.push(Chunk::granted(address, bytes)?);
            Some(())
        })?;
        let end = self.chunks.len();
        if end - start <= chunks_max {
            return Some(start..end);
        }
        self.chunks.truncate(start);
        None
    }

    /// Adds a request whose pages are about to be mapped.
    pub fn stage(&mut self, staged: Staged) {
        self.staged.push_back(staged);
    }

    /// Takes the oldest of these.
    pub fn next(&mut self) -> Option<Staged> {
        self.staged.pop_front()
    }

    /// The data of a request.
    pub fn data(&self, chunks: &Range<usize>) -> &[Chunk] {
        self.chunks.get(chunks.clone()).unwrap_or_default()
    }
}

impl Scratch {
    /// Room for one request's segments.
    pub fn new() -> Self {
        Self { copy: [0; COPY_BYTES], segments: [Segment::default(); SEGMENTS_MAX] }
    }
}
