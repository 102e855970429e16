//! A virtual disk: many requests in flight, data straight into granted pages.
//!
//! ```text
//! let mut opening = Opening::new(None);
//! let mut disk = loop { /* wait for events */ if let Ok(disk) = opening.step()? { break disk } };
//! let buffer = disk.buffer(16)?;
//! let request = disk.submit(Direction::Read, sector, &buffer, 0..16)?;
//! disk.kick();
//! /* wait for disk.port() */
//! while let Some(completion) = disk.next_completion()? { ... }
//! ```

use alloc::vec::Vec;
use core::fmt;
use core::ops::Range;

use runtime::event::Channel;
use runtime::grant::{GrantError, GrantedPages};
use runtime::hypercall::sched;
use runtime::store::WatchEvent;
use runtime::xenbus::{Frontend, State};
use runtime::{Access, Errno, Port};
use xen_abi::io::blkif::{
    BLKIF_MAX_SEGMENTS_PER_REQUEST, SECTOR_BYTES, SEGMENTS_PER_INDIRECT_PAGE, VDISK_READONLY, XEN_IO_PROTO_ABI_X86_64,
};
use xen_rings::blkif::{BlkFront, BlkFrontError, Segment};
pub use xen_rings::blkif::{Completion, Direction, Outcome, RequestId};

use crate::opening::Steps;
pub use crate::opening::Waiting;

/// Requests in flight at most: the entries of a one-page ring.
pub const IN_FLIGHT_MAX: usize = 32;

/// Why a disk cannot be used, or not any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DiskError {
    /// xenstore or the event channel.
    System(Errno),
    /// Pages could not be granted.
    Grant(GrantError),
    /// The back end broke the protocol, or a request cannot be made.
    Ring(BlkFrontError),
    /// The back end's description of the disk makes no sense.
    Nonsense,
}

impl From<Errno> for DiskError {
    fn from(error: Errno) -> Self {
        DiskError::System(error)
    }
}

impl From<GrantError> for DiskError {
    fn from(error: GrantError) -> Self {
        DiskError::Grant(error)
    }
}

impl From<BlkFrontError> for DiskError {
    fn from(error: BlkFrontError) -> Self {
        DiskError::Ring(error)
    }
}

impl fmt::Display for DiskError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            DiskError::System(error) => write!(f, "the connection to its back end: {error}"),
            DiskError::Grant(error) => write!(f, "pages for it cannot be granted: {error}"),
            DiskError::Ring(error) => error.fmt(f),
            DiskError::Nonsense => f.write_str("its back end describes it with impossible numbers"),
        }
    }
}

impl core::error::Error for DiskError {}

/// What the disk is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Facts {
    /// Sectors of 512 bytes.
    pub sectors: u64,
    /// Writes are refused.
    pub read_only: bool,
    /// A flush makes writes durable; without, they are durable when done.
    pub flush: bool,
    /// Pages of one request at most.
    pub pages_max: usize,
}

/// A disk that is being opened.
#[derive(Debug)]
pub struct Opening(Steps<Link>);

/// The shared parts of a connection.
#[derive(Debug)]
struct Link {
    front: BlkFront<GrantedPages, IN_FLIGHT_MAX>,
    ring_reference: u32,
    channel: Channel,
}

impl Opening {
    /// Of virtual device `index`, or of the first that there is.
    #[must_use]
    pub fn new(index: Option<u32>) -> Self {
        Opening(Steps::new("vbd", index))
    }

    /// Goes on without waiting: call it when the xenstore port has news, and now and then.
    pub fn step(&mut self) -> Result<Result<Disk, Waiting>, DiskError> {
        let opened = self.0.step(Link::new, |link, publish| {
            publish(
                State::Initialised,
                &[
                    ("ring-ref", &link.ring_reference),
                    ("event-channel", &link.channel.port()),
                    ("protocol", &XEN_IO_PROTO_ABI_X86_64),
                ],
            )
        })?;
        match opened {
            Ok((device, link)) => Disk::new(device, link).map(Ok),
            Err(waiting) => Ok(Err(waiting)),
        }
    }
}

impl Link {
    fn new(device: &Frontend) -> Result<Self, DiskError> {
        let page = GrantedPages::allocate(1, device.backend(), Access::ReadWrite)?;
        let ring_reference = page.reference(0).0;
        let front = BlkFront::new(page).map_err(BlkFrontError::from)?;
        Ok(Link { front, ring_reference, channel: Channel::listen(device.backend())? })
    }
}

/// An open disk.
#[derive(Debug)]
pub struct Disk {
    device: Frontend,
    link: Link,
    facts: Facts,
    /// Pages of segments for indirect requests, one for each request in flight.
    segment_pages: Vec<GrantedPages>,
    free_segment_pages: Vec<usize>,
    /// By [`RequestId::slot`]: the page of segments that the request uses.
    segment_page_of: [Option<usize>; IN_FLIGHT_MAX],
}

impl Disk {
    fn new(device: Frontend, link: Link) -> Result<Self, DiskError> {
        let sectors: u64 = device.backend_value("sectors")?;
        let info: u32 = device.backend_value("info").unwrap_or(0);
        let offered: usize = device.backend_value("feature-max-indirect-segments").unwrap_or(0);
        if sectors == 0 || sectors.checked_mul(SECTOR_BYTES).is_none() {
            return Err(DiskError::Nonsense);
        }
        let facts = Facts {
            sectors,
            read_only: info & VDISK_READONLY != 0,
            flush: device.backend_value("feature-flush-cache").unwrap_or(0u32) == 1,
            pages_max: offered.clamp(BLKIF_MAX_SEGMENTS_PER_REQUEST, SEGMENTS_PER_INDIRECT_PAGE),
        };
        let segment_pages = (0..if offered > BLKIF_MAX_SEGMENTS_PER_REQUEST { IN_FLIGHT_MAX } else { 0 })
            .map(|_| GrantedPages::allocate(1, device.backend(), Access::ReadOnly))
            .collect::<Result<Vec<_>, _>>()?;
        let free_segment_pages = (0..segment_pages.len()).collect();
        let segment_page_of = [None; IN_FLIGHT_MAX];
        Ok(Disk { device, link, facts, segment_pages, free_segment_pages, segment_page_of })
    }

    /// What the disk is.
    #[must_use]
    pub fn facts(&self) -> Facts {
        self.facts
    }

    /// The port that has news when requests are done.
    #[must_use]
    pub fn port(&self) -> Port {
        self.link.channel.port()
    }

    /// `pages` zeroed pages that requests of this disk can read into and write from.
    pub fn buffer(&self, pages: usize) -> Result<GrantedPages, DiskError> {
        Ok(GrantedPages::allocate(pages, self.device.backend(), Access::ReadWrite)?)
    }

    /// Requests that can be submitted now.
    #[must_use]
    pub fn free(&self) -> usize {
        self.link.front.free()
    }

    /// Asks for whole pages, from `sector` on, into or from pages `range` of `buffer`, which must come from
    /// [`Disk::buffer`] and live until the completion; at most [`Facts::pages_max`] of them. Seen by the back end after
    /// [`Disk::kick`].
    pub fn submit(
        &mut self,
        direction: Direction,
        sector: u64,
        buffer: &GrantedPages,
        range: Range<usize>,
    ) -> Result<RequestId, DiskError> {
        let references = buffer.references().get(range).unwrap_or_default();
        self.submit_all(direction, sector, references.iter().map(|reference| Segment::page(reference.0)))
    }

    /// Asks for any sectors: each segment is a run of them in a page granted to the back end.
    pub fn submit_segments(
        &mut self,
        direction: Direction,
        sector: u64,
        segments: &[Segment],
    ) -> Result<RequestId, DiskError> {
        self.submit_all(direction, sector, segments.iter().copied())
    }

    fn submit_all(
        &mut self,
        direction: Direction,
        sector: u64,
        segments: impl ExactSizeIterator<Item = Segment>,
    ) -> Result<RequestId, DiskError> {
        let count = segments.len();
        if count > BLKIF_MAX_SEGMENTS_PER_REQUEST {
            return self.submit_indirect(direction, sector, segments);
        }
        let mut direct = [Segment::default(); BLKIF_MAX_SEGMENTS_PER_REQUEST];
        for (to, from) in direct.iter_mut().zip(segments) {
            *to = from;
        }
        Ok(self.link.front.transfer(direction, sector, direct.get(..count).unwrap_or_default())?)
    }

    /// Writes the segments into a page of their own.
    fn submit_indirect(
        &mut self,
        direction: Direction,
        sector: u64,
        segments: impl ExactSizeIterator<Item = Segment>,
    ) -> Result<RequestId, DiskError> {
        let count = segments.len();
        if count > SEGMENTS_PER_INDIRECT_PAGE {
            return Err(BlkFrontError::Segments(count).into());
        }
        let page = *self.free_segment_pages.last().ok_or(BlkFrontError::Segments(count))?;
        let granted = self.segment_pages.get(page).ok_or(BlkFrontError::Busy)?;
        let memory = granted.memory();
        for (index, segment) in segments.enumerate() {
            let encoded = segment.encoded();
            memory.write(index * encoded.len(), &encoded);
        }
        let request = self.link.front.indirect(direction, sector, count as u16, &[granted.reference(0).0])?;
        self.free_segment_pages.pop();
        if let Some(place) = self.segment_page_of.get_mut(request.slot()) {
            *place = Some(page);
        }
        Ok(request)
    }

    /// Asks for all that was written and reported done to become durable.
    pub fn flush(&mut self) -> Result<RequestId, DiskError> {
        Ok(self.link.front.flush()?)
    }

    /// Shows the back end what was submitted.
    pub fn kick(&mut self) {
        if self.link.front.publish() {
            self.link.channel.notify();
        }
    }

    /// The same, then sleeps until any port that is not masked has news, all in one hypercall. For a domain that has
    /// nothing else to do, after [`Disk::next_completion`] found nothing; may return early.
    pub fn kick_and_block(&mut self) {
        if !self.link.front.publish() {
            sched::block();
        } else if sched::send_and_block(self.link.channel.port()).is_err() {
            // A back end that is gone: its closing is announced by other means.
            sched::block();
        }
    }

    /// Takes the next finished request. `None`: there is none, and [`Disk::port`] will tell of the next. An error is the
    /// back end's fault and final: close the disk.
    pub fn next_completion(&mut self) -> Result<Option<Completion>, DiskError> {
        loop {
            if let Some(completion) = self.link.front.next_completion()? {
                let page = self.segment_page_of.get_mut(completion.request.slot()).and_then(Option::take);
                self.free_segment_pages.extend(page);
                return Ok(Some(completion));
            }
            if !self.link.front.final_check()? {
                return Ok(None);
            }
        }
    }

    /// Whether a watch event is about this disk; if so, look at [`Disk::is_gone`].
    #[must_use]
    pub fn concerns(&self, event: &WatchEvent) -> bool {
        self.device.concerns(event)
    }

    /// Whether the back end is going or gone: [`Disk::close`].
    #[must_use]
    pub fn is_gone(&self) -> bool {
        self.device.backend_gone()
    }

    /// Ends the connection. Requests in flight are lost; pages that the back end still has mapped are held back.
    pub fn close(mut self) {
        // A store that does not answer is no reason to keep the pages.
        let _ = self.device.close();
    }
}
