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
//!
//! **A back end that dies is not the end of the disk.** Requests without an answer are kept, and those that are made
//! meanwhile too; when the policy domain has another back end in place, the disk connects to it, grants it what the old one
//! had, and asks for all of them again, in order. What its user does for that is to hand it the watch events that
//! concern it ([`Disk::hear`]), or to wait by [`Disk::wait`], which does so itself. It ends only when the policy gives
//! the back end up ([`DiskError::Gone`]).

use alloc::boxed::Box;
use alloc::rc::{Rc, Weak};
use alloc::vec::Vec;
use core::fmt;
use core::ops::Range;
use core::sync::atomic::Ordering;

use runtime::event::{self, Channel};
use runtime::grant::{GrantError, GrantedPages};
use runtime::hypercall::sched;
use runtime::store::{self, WatchEvent};
use runtime::time::Instant;
use runtime::xenbus::{Frontend, Peer, State};
use runtime::{Access, DomId, Errno, Port};
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
    /// The back end's domain is gone, and the policy does not start it again.
    Gone,
    /// Another back end took over, and shows another disk.
    Changed,
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
            DiskError::Gone => f.write_str("its domain is gone and is not started again"),
            DiskError::Changed => f.write_str("its domain came back with another disk"),
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
    /// Who has the other end.
    peer: DomId,
}

impl Opening {
    /// Of virtual device `index`, or of the first that there is.
    #[must_use]
    pub fn new(index: Option<u32>) -> Self {
        Opening(Steps::new("vbd", index))
    }

    /// Goes on without waiting: call it when the xenstore port has news, and now and then.
    pub fn step(&mut self) -> Result<Result<Disk, Waiting>, DiskError> {
        match connect(&mut self.0)? {
            Ok((device, link, facts)) => Disk::new(device, link, facts).map(Ok),
            Err(waiting) => Ok(Err(waiting)),
        }
    }
}

/// The next steps to a connection.
fn connect(steps: &mut Steps<Link>) -> Result<Result<(Frontend, Link, Facts), Waiting>, DiskError> {
    loop {
        let is_gone = |error: &DiskError| *error == DiskError::System(Errno::ESRCH);
        let connected = steps.step(Link::new, is_gone, |link, publish| {
            publish(
                State::Initialised,
                &[
                    ("ring-ref", &link.ring_reference),
                    ("event-channel", &link.channel.port()),
                    ("protocol", &XEN_IO_PROTO_ABI_X86_64),
                ],
            )
        })?;
        let (device, link) = match connected {
            Ok(connected) => connected,
            Err(waiting) => return Ok(Err(waiting)),
        };
        let facts = Facts::read(&device);
        if device.peer() == Peer::There {
            return Ok(Ok((device, link, facts?)));
        }
        // It died before all was read: what was read says nothing.
        *steps = Steps::again("vbd", device);
    }
}

impl Link {
    fn new(device: &Frontend) -> Result<Self, DiskError> {
        let page = GrantedPages::allocate(1, device.backend(), Access::ReadWrite)?;
        let ring_reference = page.reference(0).0;
        let front = BlkFront::new(page).map_err(BlkFrontError::from)?;
        Ok(Link { front, ring_reference, channel: Channel::listen(device.backend())?, peer: device.backend() })
    }
}

/// Whether there is a back end.
#[derive(Debug)]
enum Connection {
    /// It serves.
    Up(Frontend),
    /// It is lost, and its successor is waited for.
    Down(Box<Steps<Link>>),
}

/// How often in a row a back end may break the protocol before it is given up: between two times a request must be done.
const BREAKS_MAX: u32 = 8;

/// An open disk.
#[derive(Debug)]
pub struct Disk {
    connection: Connection,
    link: Link,
    facts: Facts,
    /// Pages of segments for indirect requests, one for each request in flight.
    segment_pages: Vec<GrantedPages>,
    free_segment_pages: Vec<usize>,
    /// By [`RequestId::slot`]: the page of segments that the request uses.
    segment_page_of: [Option<usize>; IN_FLIGHT_MAX],
    /// What [`Disk::buffer`] gave out: granted anew to the next back end.
    buffers: Vec<Weak<GrantedPages>>,
    /// How often the protocol was broken since a request was last done.
    breaks: u32,
    /// How often another back end has taken over.
    reconnections: u32,
}

impl Facts {
    /// Reads what the back end says of the disk.
    fn read(device: &Frontend) -> Result<Self, DiskError> {
        let sectors: u64 = device.backend_value("sectors")?;
        let info: u32 = device.backend_value("info").unwrap_or(0);
        let offered: usize = device.backend_value("feature-max-indirect-segments").unwrap_or(0);
        if sectors == 0 || sectors.checked_mul(SECTOR_BYTES).is_none() {
            return Err(DiskError::Nonsense);
        }
        Ok(Facts {
            sectors,
            read_only: info & VDISK_READONLY != 0,
            flush: device.backend_value("feature-flush-cache").unwrap_or(0u32) == 1,
            pages_max: offered.clamp(BLKIF_MAX_SEGMENTS_PER_REQUEST, SEGMENTS_PER_INDIRECT_PAGE),
        })
    }
}

impl Disk {
    fn new(device: Frontend, link: Link, facts: Facts) -> Result<Self, DiskError> {
        let count = if facts.pages_max > BLKIF_MAX_SEGMENTS_PER_REQUEST { IN_FLIGHT_MAX } else { 0 };
        let segment_pages = (0..count)
            .map(|_| GrantedPages::allocate(1, device.backend(), Access::ReadOnly))
            .collect::<Result<Vec<_>, _>>()?;
        let free_segment_pages = (0..segment_pages.len()).collect();
        Ok(Disk {
            connection: Connection::Up(device),
            link,
            facts,
            segment_pages,
            free_segment_pages,
            segment_page_of: [None; IN_FLIGHT_MAX],
            buffers: Vec::new(),
            breaks: 0,
            reconnections: 0,
        })
    }

    /// What the disk is.
    #[must_use]
    pub fn facts(&self) -> Facts {
        self.facts
    }

    /// The port that has news when requests are done. Another one after each reconnection.
    #[must_use]
    pub fn port(&self) -> Port {
        self.link.channel.port()
    }

    /// `pages` zeroed pages that requests of this disk can read into and write from.
    pub fn buffer(&mut self, pages: usize) -> Result<Rc<GrantedPages>, DiskError> {
        let buffer = Rc::new(GrantedPages::allocate(pages, self.link.peer, Access::ReadWrite)?);
        self.buffers.retain(|other| other.strong_count() > 0);
        self.buffers.push(Rc::downgrade(&buffer));
        Ok(buffer)
    }

    /// How often another back end has taken over.
    #[must_use]
    pub fn reconnections(&self) -> u32 {
        self.reconnections
    }

    /// Requests that can be submitted now.
    #[must_use]
    pub fn free(&self) -> usize {
        self.link.front.free()
    }

    /// Asks for whole pages, from `sector` on, into or from pages `range` of `buffer`, which must come from
    /// [`Disk::buffer`] and live until the completion; at most [`Facts::pages_max`] of them. Seen by the back end after
    /// [`Disk::kick`].
    #[inline]
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
            // One store each: the page is the back end's to read once the request is published, and not before.
            memory.u64_at(index * 8).store(u64::from_le_bytes(segment.encoded()), Ordering::Relaxed);
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

    /// Takes the next finished request. `None`: there is none, and [`Disk::port`] will tell of the next. A back end that
    /// breaks the protocol is left and connected to again; an error means that this came to nothing, and is final: close
    /// the disk.
    #[inline]
    pub fn next_completion(&mut self) -> Result<Option<Completion>, DiskError> {
        match self.next_answer() {
            Ok(completion) => Ok(completion),
            Err(error) => self.broken(error).map(|()| None),
        }
    }

    #[inline]
    fn next_answer(&mut self) -> Result<Option<Completion>, BlkFrontError> {
        loop {
            if let Some(completion) = self.link.front.next_completion()? {
                let page = self.segment_page_of.get_mut(completion.request.slot()).and_then(Option::take);
                self.free_segment_pages.extend(page);
                self.breaks = 0;
                return Ok(Some(completion));
            }
            if !self.link.front.final_check()? {
                return Ok(None);
            }
        }
    }

    /// The back end broke the protocol. It lets go of what it has when it sees that we are done with it.
    #[cold]
    fn broken(&mut self, error: BlkFrontError) -> Result<(), DiskError> {
        self.breaks += 1;
        let Connection::Up(device) = &mut self.connection else { return Err(error.into()) };
        if self.breaks > BREAKS_MAX {
            return Err(error.into());
        }
        log::warn!("disk: {error}; connecting again");
        device.close()?;
        self.lose()
    }

    /// Leaves the back end and begins to look for the next.
    fn lose(&mut self) -> Result<(), DiskError> {
        self.link.front.suspend();
        let nothing = Connection::Down(Box::new(Steps::new("vbd", None)));
        let down = match core::mem::replace(&mut self.connection, nothing) {
            Connection::Up(device) => Box::new(Steps::again("vbd", device)),
            Connection::Down(steps) => steps,
        };
        self.connection = Connection::Down(down);
        self.look_for_backend()
    }

    fn look_for_backend(&mut self) -> Result<(), DiskError> {
        let Connection::Down(steps) = &mut self.connection else { return Ok(()) };
        match connect(steps)? {
            Ok((device, link, facts)) => self.resume(device, link, facts),
            Err(Waiting::GivenUp) => Err(DiskError::Gone),
            Err(Waiting::NoDevice | Waiting::Backend) => Ok(()),
        }
    }

    /// Goes on with another back end. The old one has been taken apart, or has let go of everything.
    fn resume(&mut self, device: Frontend, link: Link, facts: Facts) -> Result<(), DiskError> {
        if facts != self.facts {
            return Err(DiskError::Changed);
        }
        self.segment_pages.iter().try_for_each(|page| page.regrant(link.peer))?;
        self.buffers.iter().filter_map(Weak::upgrade).try_for_each(|buffer| buffer.regrant(link.peer))?;
        let Link { front, ring_reference, channel, peer } = link;
        self.link.front.resume(front).map_err(BlkFrontError::from)?;
        (self.link.ring_reference, self.link.channel, self.link.peer) = (ring_reference, channel, peer);
        self.connection = Connection::Up(device);
        self.reconnections += 1;
        self.kick();
        Ok(())
    }

    /// Whether a watch event is about this disk: then [`Disk::hear`] it.
    #[must_use]
    pub fn concerns(&self, event: &WatchEvent) -> bool {
        match &self.connection {
            Connection::Up(device) => device.concerns(event),
            Connection::Down(steps) => steps.concerns(event),
        }
    }

    /// Looks after the connection: to be called when a watch event [concerns](Disk::concerns) the disk. An error is final:
    /// close the disk.
    pub fn hear(&mut self) -> Result<(), DiskError> {
        let Connection::Up(device) = &self.connection else { return self.look_for_backend() };
        match device.peer() {
            Peer::There => Ok(()),
            Peer::Lost | Peer::Replaced => self.lose(),
            Peer::GivenUp => Err(DiskError::Gone),
        }
    }

    /// Sleeps until there may be finished requests, or another back end; `false`: the deadline passed. Watch events that concern the disk are
    /// heard meanwhile, others left for [`store::next_event`]. An error is final: close the disk.
    pub fn wait(&mut self, deadline: Option<Instant>) -> Result<bool, DiskError> {
        let mut others = Vec::new();
        let woken = self.wait_beside(&mut others, deadline);
        store::put_back(others);
        woken
    }

    fn wait_beside(&mut self, others: &mut Vec<WatchEvent>, deadline: Option<Instant>) -> Result<bool, DiskError> {
        let before = self.reconnections;
        loop {
            while let Some(event) = store::next_event() {
                if self.concerns(&event) {
                    self.hear()?;
                } else {
                    others.push(event);
                }
            }
            if self.reconnections != before {
                return Ok(true);
            }
            let own = self.port();
            match event::poll_for(&[own, store::port().unwrap_or(own)], deadline) {
                Some(port) if port == own => return Ok(true),
                Some(_) => {}
                None => return Ok(false),
            }
        }
    }

    /// Ends the connection. Requests in flight are lost; pages that the back end still has mapped are held back.
    pub fn close(self) {
        if let Connection::Up(mut device) = self.connection {
            // A store that does not answer is no reason to keep the pages.
            let _ = device.close();
        }
    }
}
