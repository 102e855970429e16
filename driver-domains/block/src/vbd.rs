//! One virtual disk: a ring of a front end, the part of a disk that it shows, and what it has in flight.

use block_domain::export::Extent;
use core::fmt;
use runtime::event::Channel;
use runtime::grant::copy::{self, Remote};
use runtime::grant::{MapError, Mapping};
use runtime::xenbus::DeviceId;
use runtime::{Access as PageAccess, GrantRef};
use virtio::dma::Chunk;
use xen_rings::blkif::{BlkBack, CheckedRequest, Direction, IndirectRequest, Outcome, Refusal, Segment, Ticket};
use xen_rings::ring::RingError;

use crate::disk::{Disk, Operation, Slot};

/// Segments of a request: `feature-max-indirect-segments`, 256 KiB.
pub const SEGMENTS_MAX: usize = 64;
const SEGMENT_BYTES: usize = 8;
/// Requests that one disk takes in one turn: so a busy one cannot keep the others waiting.
const TURN: usize = 32;
/// Refused requests that are logged, for each connection.
const COMPLAINTS_MAX: u32 = 4;

/// What the policy says of a virtual disk.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Index of the disk.
    pub disk: usize,
    /// The part of it.
    pub extent: Extent,
    /// Writes are refused.
    pub read_only: bool,
}

/// What a virtual disk has done.
#[derive(Clone, Copy, Debug, Default)]
pub struct Counters {
    reads: u64,
    writes: u64,
    flushes: u64,
    sectors_read: u64,
    sectors_written: u64,
    refused: u64,
    failed: u64,
}

impl fmt::Display for Counters {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { reads, writes, flushes, sectors_read, sectors_written, refused, failed } = self;
        let (read_kib, written_kib) = (sectors_read / 2, sectors_written / 2);
        write!(
            out,
            "{reads} reads ({read_kib} KiB), {writes} writes ({written_kib} KiB), {flushes} flushes, \
             {refused} refused, {failed} failed"
        )
    }
}

/// A request that the device has. Its pages stay mapped until the device is done with them, whatever becomes of the
/// front end meanwhile.
#[derive(Debug)]
pub struct InFlight {
    /// The connection it belongs to; it may be gone.
    pub connection: Connection,
    /// For the answer.
    pub ticket: Ticket,
    pages: Option<Mapping>,
}

impl InFlight {
    /// Pages that it keeps mapped.
    pub fn pages(&self) -> usize {
        self.pages.as_ref().map_or(0, Mapping::count)
    }
}

/// Pages that may be mapped for requests in flight, of all virtual disks together: half of what the policy lets a
/// domain map that serves disks, so that there is always room for rings and for the next to connect.
const MAPPED_MAX: usize = 2048;

/// What a turn works on.
pub struct Work<'a> {
    /// The disk.
    pub disk: &'a mut Disk,
    /// By slot: what it works on.
    pub in_flight: &'a mut [Option<InFlight>],
    /// Pages mapped for requests of all disks.
    pub mapped: &'a mut usize,
}

impl Work<'_> {
    fn has_room(&self) -> bool {
        self.disk.has_room(SEGMENTS_MAX) && *self.mapped + SEGMENTS_MAX <= MAPPED_MAX
    }

    fn begin(&mut self, slot: Slot, request: InFlight) {
        *self.mapped += request.pages();
        if let Some(place) = self.in_flight.get_mut(slot.index()) {
            *place = Some(request);
        }
    }
}

/// Names a connection: the same front end gets another number when it connects again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Connection {
    /// Which virtual disk.
    pub id: DeviceId,
    /// Number of the connection.
    pub number: u64,
}

/// What a turn came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Turn {
    /// The ring is empty; an event will tell of more.
    Empty,
    /// There may be more, for the next turn.
    More,
    /// The disk's queue is full, or enough pages are mapped: requests wait in the ring until some are done.
    NoRoom,
}

/// Why a connection ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// The front end, or the policy, wants it.
    Asked,
    /// The ring makes no sense.
    BrokenRing(RingError),
}

/// A connected virtual disk.
#[derive(Debug)]
pub struct Vbd {
    /// Its connection.
    pub connection: Connection,
    /// What it shows.
    pub plan: Plan,
    ring: BlkBack<Mapping>,
    channel: Channel,
    /// Requests may wait in the ring.
    pub ready: bool,
    /// Requests wait in the ring because the disk's queue is full.
    pub waits_for_room: bool,
    /// Answers have been written that the front end has not been shown.
    unpublished: bool,
    /// Requests that the device has.
    in_flight: usize,
    ending: Option<Ending>,
    complaints: u32,
    /// What it has done.
    pub counters: Counters,
}

impl Vbd {
    /// A virtual disk over an attached ring.
    pub fn new(connection: Connection, plan: Plan, ring: BlkBack<Mapping>, channel: Channel) -> Self {
        Self {
            connection,
            plan,
            ring,
            channel,
            ready: true, // requests may have come before the channel
            waits_for_room: false,
            unpublished: false,
            in_flight: 0,
            ending: None,
            complaints: 0,
            counters: Counters::default(),
        }
    }

    /// The event channel to its front end.
    pub fn channel(&self) -> &Channel {
        &self.channel
    }

    /// There may be requests, or room for them.
    pub fn wake(&mut self) {
        (self.ready, self.waits_for_room) = (self.ending.is_none(), false);
    }

    /// Takes no more requests.
    pub fn end(&mut self, ending: Ending) {
        (self.ready, self.waits_for_room) = (false, false);
        self.ending.get_or_insert(ending);
    }

    /// Why it ends, once nothing is in flight any more.
    pub fn ended(&self) -> Option<Ending> {
        self.ending.filter(|_| self.in_flight == 0)
    }

    /// Takes requests from the ring and gives them to the disk.
    pub fn turn(&mut self, work: &mut Work<'_>) -> Turn {
        for _ in 0..TURN {
            if !work.has_room() {
                return Turn::NoRoom;
            }
            let taken = match self.ring.next_request() {
                Ok(None) => match self.ring.final_check() {
                    Ok(true) => continue,
                    Ok(false) => return Turn::Empty,
                    Err(error) => Err(error),
                },
                Ok(Some(Ok(request))) => self.start(request, work),
                Ok(Some(Err(refusal))) => {
                    self.refused(refusal);
                    Ok(())
                }
                Err(error) => Err(error),
            };
            if let Err(error) = taken {
                self.end(Ending::BrokenRing(error));
                return Turn::Empty;
            }
        }
        Turn::More
    }

    fn start(&mut self, request: CheckedRequest, work: &mut Work<'_>) -> Result<(), RingError> {
        let disk = &mut *work.disk;
        let (ticket, begun) = match request {
            CheckedRequest::Transfer(transfer) => {
                let begun = self.transfer(disk, transfer.direction, transfer.sector, transfer.segments());
                (transfer.ticket, begun)
            }
            CheckedRequest::Indirect(request) => (request.ticket, self.indirect(disk, &request)),
            CheckedRequest::Flush(ticket) => (ticket, self.flush(disk)),
            CheckedRequest::Discard { ticket, .. } => (ticket, Err(Outcome::NotSupported)),
        };
        match begun {
            Ok((slot, pages)) => {
                self.in_flight += 1;
                work.begin(slot, InFlight { connection: self.connection, ticket, pages });
                Ok(())
            }
            Err(outcome) => {
                self.counters.failed += u64::from(outcome == Outcome::Failed);
                self.unpublished = true;
                self.ring.answer(ticket, outcome)
            }
        }
    }

    fn flush(&mut self, disk: &mut Disk) -> Result<(Slot, Option<Mapping>), Outcome> {
        if !disk.facts.flush {
            return Err(Outcome::NotSupported);
        }
        self.counters.flushes += 1;
        let slot = disk.submit(Operation::Flush, 0, &[]).map_err(|_| Outcome::Failed)?;
        Ok((slot, None))
    }

    /// Copies the segments from the front end's page, once, and goes on with the copy.
    fn indirect(&mut self, disk: &mut Disk, request: &IndirectRequest) -> Result<(Slot, Option<Mapping>), Outcome> {
        let mut copied = [0; SEGMENTS_MAX * SEGMENT_BYTES];
        let copied = copied.get_mut(..request.segments() * SEGMENT_BYTES).ok_or(Outcome::Failed)?;
        let &[page] = request.pages() else {
            return Err(Outcome::Failed);
        };
        let source = Remote { peer: self.connection.id.frontend, reference: GrantRef(page), offset: 0 };
        copy::read(source, copied).map_err(|error| self.complain(format_args!("segments of a request: {error}")))?;
        let mut segments = [Segment::default(); SEGMENTS_MAX];
        match request.check_segments(self.ring.limits(), copied, &mut segments) {
            Ok(segments) => self.transfer(disk, request.direction, request.sector, segments),
            Err(refused) => Err(self.complain(format_args!("refused: {:?}", refused.why))),
        }
    }

    /// Maps the pages and gives their addresses to the disk.
    fn transfer(
        &mut self,
        disk: &mut Disk,
        direction: Direction,
        sector: u64,
        segments: &[Segment],
    ) -> Result<(Slot, Option<Mapping>), Outcome> {
        let sectors = segments.iter().map(|segment| segment.sectors()).sum();
        let place = self.plan.extent.part(sector, sectors);
        let place = place.map_err(|_| self.complain(format_args!("request past the end")))?;
        let per_block = disk.facts.block_size.to_u64() / 512;
        if !place.first.is_multiple_of(per_block) || !sectors.is_multiple_of(per_block) {
            return Err(self.complain(format_args!("request of parts of the disk's blocks")));
        }
        let (operation, access) = match direction {
            Direction::Read => (Operation::Read, PageAccess::ReadWrite),
            Direction::Write => (Operation::Write, PageAccess::ReadOnly),
        };
        let references: heapless::Vec<GrantRef, SEGMENTS_MAX> =
            segments.iter().map(|segment| GrantRef(segment.gref())).collect();
        let pages = Mapping::new(self.connection.id.frontend, &references, access)
            .map_err(|error: MapError| self.complain(format_args!("data of a request: {error}")))?;
        let chunks = chunks(&pages, segments, disk.facts.chunk_bytes_max).ok_or(Outcome::Failed)?;
        if chunks.len() > disk.facts.chunks_max {
            return Err(Outcome::Failed);
        }
        let slot = disk.submit(operation, place.first, &chunks).map_err(|_| Outcome::Failed)?;
        match direction {
            Direction::Read => {
                (self.counters.reads, self.counters.sectors_read) =
                    (self.counters.reads + 1, self.counters.sectors_read + sectors)
            }
            Direction::Write => {
                (self.counters.writes, self.counters.sectors_written) =
                    (self.counters.writes + 1, self.counters.sectors_written + sectors)
            }
        }
        Ok((slot, Some(pages)))
    }

    /// A request of this connection is done, and its pages are unmapped.
    pub fn finished(&mut self, ticket: Ticket, outcome: Outcome) {
        self.in_flight = self.in_flight.saturating_sub(1);
        self.counters.failed += u64::from(outcome != Outcome::Done);
        self.unpublished = true;
        if let Err(error) = self.ring.answer(ticket, outcome) {
            self.end(Ending::BrokenRing(error));
        }
    }

    /// Shows the front end its answers.
    pub fn publish(&mut self) {
        if core::mem::take(&mut self.unpublished) && self.ring.publish() {
            self.channel.notify();
        }
    }

    fn refused(&mut self, refusal: Refusal) {
        self.unpublished = true;
        self.complain(format_args!("refused: {refusal:?}"));
    }

    /// Logs what the front end does wrong, the first few times, and says how the request ends.
    fn complain(&mut self, what: fmt::Arguments<'_>) -> Outcome {
        self.counters.refused += 1;
        if self.complaints < COMPLAINTS_MAX {
            self.complaints += 1;
            log::warn!("vbd {}: {what}", self.connection.id);
        }
        Outcome::Failed
    }
}

/// The data of a request as the device sees it: pages that are mapped side by side become one chunk.
fn chunks(pages: &Mapping, segments: &[Segment], bytes_max: u32) -> Option<heapless::Vec<Chunk, SEGMENTS_MAX>> {
    let mut chunks = heapless::Vec::<Chunk, SEGMENTS_MAX>::new();
    for (index, segment) in segments.iter().enumerate() {
        let address = pages.address() + (index * runtime::pages::PAGE + segment.offset()) as u64;
        let chunk = Chunk::granted(address, segment.bytes() as u32)?;
        match chunks.last_mut() {
            Some(last) => match last.join(&chunk, bytes_max) {
                Some(joined) => *last = joined,
                None => chunks.push(chunk).ok()?,
            },
            None => chunks.push(chunk).ok()?,
        }
    }
    Some(chunks)
}
