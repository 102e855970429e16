//! One virtual disk: a ring of a front end, the part of a disk that it shows, and what it has in flight.
//!
//! A turn takes a batch of requests and does each step for all of them: one hypercall copies the segments of indirect
//! requests, one maps all pages, and only what was mapped goes to the disk. Each request fails by itself.

use block_domain::export::Extent;
use core::fmt;
use runtime::event::Channel;
use runtime::grant::Mapping;
use runtime::grant::copy::Remote;
use runtime::grant::places::{Place, Places};
use runtime::xenbus::DeviceId;
use runtime::{Access as PageAccess, GrantRef};
use virtio::queue::Token;
use xen_rings::blkif::{
    BlkBack, CheckedRequest, DirectSegments, Direction, IndirectRequest, Outcome, Refusal, Segment, Ticket,
};
use xen_rings::ring::RingError;

use crate::batch::{Batch, Scratch, Staged};
use crate::disk::{Disk, Operation};

/// Segments of a request: `feature-max-indirect-segments`, 256 KiB.
pub const SEGMENTS_MAX: usize = 64;
/// Requests that one disk takes in one turn: so a busy one cannot keep the others waiting.
pub const TURN: usize = 32;
/// Requests under way from which it is worth it to let them gather ([`crate::service`] does).
pub const GATHER_FROM: usize = 4;
/// Pages that they have at most, on average, for it to be worth it: what is larger costs more by itself.
pub const GATHER_PAGES: usize = 8;
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
    discards: u64,
    sectors_read: u64,
    sectors_written: u64,
    refused: u64,
    failed: u64,
}

impl Counters {
    fn count(&mut self, operation: Operation, sectors: u64) {
        let (requests, moved) = match operation {
            Operation::Write => (&mut self.writes, &mut self.sectors_written),
            _ => (&mut self.reads, &mut self.sectors_read),
        };
        (*requests, *moved) = (*requests + 1, *moved + sectors);
    }
}

impl fmt::Display for Counters {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { reads, writes, flushes, discards, sectors_read, sectors_written, refused, failed } = self;
        let (read_kib, written_kib) = (sectors_read / 2, sectors_written / 2);
        write!(
            out,
            "{reads} reads ({read_kib} KiB), {writes} writes ({written_kib} KiB), {flushes} flushes, \
             {discards} discards, {refused} refused, {failed} failed"
        )
    }
}

/// A request that the device has. Its pages stay mapped until the device is done with them, whatever becomes of the
/// front end meanwhile.
#[derive(Debug)]
pub struct InFlight {
    /// Number of the connection that it belongs to; it may be gone.
    pub connection: u64,
    /// For the answer.
    pub ticket: Ticket,
    /// Where its pages are mapped.
    pub place: Option<Place>,
}

/// Pages that may be mapped for requests in flight, of all virtual disks together: half of what the policy lets a
/// domain map that serves disks, so that there is always room for rings and for the next to connect.
const MAPPED_MAX: usize = 2048;

/// What a turn works on.
pub struct Work<'a> {
    /// The disk.
    pub disk: &'a mut Disk,
    /// By token: what it works on.
    pub in_flight: &'a mut [Option<InFlight>],
    /// Where pages are mapped for requests of all disks.
    pub places: &'a mut Places,
    /// Pages mapped, or about to be, for requests of all disks.
    pub mapped: &'a mut usize,
    /// Requests between the ring and the disk.
    pub batch: &'a mut Batch,
}

impl Work<'_> {
    /// For one more request, whatever it is.
    fn has_room(&self) -> bool {
        let (requests, chunks) = self.batch.size();
        let (placeless, pages) = self.batch.indirect();
        self.disk.has_room(requests + 1, chunks + SEGMENTS_MAX)
            && *self.mapped + pages + SEGMENTS_MAX <= MAPPED_MAX
            && self.places.free() > placeless
    }

    fn begin(&mut self, token: Token, request: InFlight) {
        if let Some(place) = self.in_flight.get_mut(token.index()) {
            *place = Some(request);
        }
    }

    fn unmap_later(&mut self, place: Place) {
        *self.mapped = self.mapped.saturating_sub(place.pages());
        self.places.unmap_later(place);
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
    /// Requests may wait in the ring until more have come, or the device has finished something.
    gathers: bool,
    /// Answers have been written that the front end has not been shown.
    unpublished: bool,
    /// Requests that the device has.
    in_flight: usize,
    /// Requests that are done since the last look.
    done: usize,
    /// Requests that the device has, or had when some were last taken, are large: they do not gather.
    large: bool,
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
            gathers: false,
            unpublished: false,
            in_flight: 0,
            done: 0,
            large: false,
            ending: None,
            complaints: 0,
            counters: Counters::default(),
        }
    }

    /// Whether it has this number.
    pub fn is(&self, connection: u64) -> bool {
        self.connection.number == connection
    }

    /// The event channel to its front end.
    pub fn channel(&self) -> &Channel {
        &self.channel
    }

    /// There may be requests, or room for them.
    pub fn wake(&mut self) {
        (self.ready, self.waits_for_room, self.gathers) = (self.ending.is_none(), false, false);
    }

    /// There may be requests, and the device has some already. If nobody has looked at them yet, that can wait; `true`: it does.
    pub fn may_gather(&mut self) -> bool {
        self.gathers |= !self.ready;
        self.gathers
    }

    /// Requests that the device has.
    pub fn in_flight(&self) -> usize {
        self.in_flight
    }

    /// A look at the ring and the device ends; `true`: there will be another soon, before anybody tells of more requests, or of
    /// any that are done.
    #[inline]
    pub fn end_look(&mut self) -> bool {
        self.gathers |= self.goes_on(0);
        self.done = 0;
        self.gathers
    }

    /// Whether so much was under way, and some of it is done, that more will soon be asked for. `taken`: requests that the device
    /// does not have yet.
    #[inline]
    fn goes_on(&self, taken: usize) -> bool {
        self.done > 0 && self.done + self.in_flight + taken >= GATHER_FROM && !self.large && self.ending.is_none()
    }

    /// Whether requests wait for more, or will.
    pub fn gathers(&self) -> bool {
        self.gathers
    }

    /// Takes no more requests.
    pub fn end(&mut self, ending: Ending) {
        (self.ready, self.waits_for_room, self.gathers) = (false, false, false);
        self.ending.get_or_insert(ending);
    }

    /// Why it ends, once nothing is in flight any more.
    pub fn ended(&self) -> Option<Ending> {
        self.ending.filter(|_| self.in_flight == 0)
    }

    /// Takes requests from the ring and gives them to the disk.
    pub fn turn(&mut self, work: &mut Work<'_>) -> Turn {
        work.batch.clear();
        work.places.clear();
        let turn = self.take(work);
        self.fetch_segments(work);
        work.places.map();
        while let Some(staged) = work.batch.next() {
            let ticket = staged.ticket;
            if let Err(outcome) = self.submit(staged, work) {
                self.answer(ticket, outcome);
            }
        }
        work.places.unmap(); // of those that could not go on
        self.large = *work.mapped >= self.in_flight * GATHER_PAGES;
        turn
    }

    /// Fills the batch from the ring.
    fn take(&mut self, work: &mut Work<'_>) -> Turn {
        let mut segments = DirectSegments::default();
        for taken in 0..TURN {
            if !work.has_room() {
                return if taken == 0 { Turn::NoRoom } else { Turn::More };
            }
            match self.ring.next_request(&mut segments) {
                // No event for the next: there will be another look.
                Ok(None) if self.goes_on(taken) => {
                    self.gathers = true;
                    return Turn::Empty;
                }
                Ok(None) => match self.ring.final_check() {
                    Ok(true) => {}
                    Ok(false) => return Turn::Empty,
                    Err(error) => return self.broken(error),
                },
                Ok(Some(Ok(request))) => self.prepare(&request, &segments, work),
                Ok(Some(Err(refusal))) => self.refused(refusal),
                Err(error) => return self.broken(error),
            }
        }
        Turn::More
    }

    fn broken(&mut self, error: RingError) -> Turn {
        self.end(Ending::BrokenRing(error));
        Turn::Empty
    }

    fn prepare(&mut self, request: &CheckedRequest, segments: &DirectSegments, work: &mut Work<'_>) {
        let (ticket, prepared) = match request {
            CheckedRequest::Transfer(transfer) => {
                let staged =
                    self.stage(transfer.ticket, transfer.direction, transfer.sector, transfer.segments(segments), work);
                (transfer.ticket, staged)
            }
            CheckedRequest::Indirect(request) => (request.ticket, self.prepare_indirect(request, work)),
            CheckedRequest::Flush(ticket) => (*ticket, self.flush(*ticket, work)),
            CheckedRequest::Discard { ticket, sector, sectors, .. } => {
                (*ticket, self.discard(*ticket, *sector, *sectors, work))
            }
        };
        if let Err(outcome) = prepared {
            self.answer(ticket, outcome);
        }
    }

    #[cold]
    fn flush(&mut self, ticket: Ticket, work: &mut Work<'_>) -> Result<(), Outcome> {
        if !work.disk.facts.flush {
            return Err(Outcome::NotSupported);
        }
        self.counters.flushes += 1;
        let token = work.disk.submit(Operation::Flush, 0, &[]).map_err(|_| Outcome::Failed)?;
        self.in_flight += 1;
        work.begin(token, InFlight { connection: self.connection.number, ticket, place: None });
        Ok(())
    }

    /// Gives a discard to the disk. Its ring's limits allow it only where the disk can and this one may be written.
    #[cold]
    fn discard(&mut self, ticket: Ticket, sector: u64, sectors: u64, work: &mut Work<'_>) -> Result<(), Outcome> {
        if work.disk.facts.discard.is_none() || self.plan.read_only {
            return Err(Outcome::NotSupported);
        }
        let extent = self.plan.extent.part(sector, sectors);
        let extent = extent.map_err(|_| self.complain(format_args!("discard past the end")))?;
        if extent.count == 0 || !work.disk.facts.takes(&extent) {
            return Err(self.complain(format_args!("discard of parts of the disk's blocks")));
        }
        self.counters.discards += 1;
        let token = work.disk.discard(extent).map_err(|_| Outcome::Failed)?;
        self.in_flight += 1;
        work.begin(token, InFlight { connection: self.connection.number, ticket, place: None });
        Ok(())
    }

    /// Notes an indirect request: its segments are copied with those of others.
    fn prepare_indirect(&mut self, request: &IndirectRequest, work: &mut Work<'_>) -> Result<(), Outcome> {
        let &[page] = request.pages() else {
            return Err(Outcome::Failed);
        };
        let source = Remote { peer: self.connection.id.frontend, reference: GrantRef(page), offset: 0 };
        work.batch.fetch_later(request, source).map_err(|_| Outcome::Failed)
    }

    /// Copies the segments of indirect requests from the front end's pages, once, and goes on with the copies.
    fn fetch_segments(&mut self, work: &mut Work<'_>) {
        if work.batch.indirect().0 == 0 {
            return;
        }
        work.batch.fetch();
        let mut scratch = Scratch::new();
        for index in 0..work.batch.indirect().0 {
            let Some((request, fetched)) = work.batch.fetched(index) else { continue };
            let staged = match fetched {
                Ok(()) => self.stage_indirect(index, &request, &mut scratch, work),
                Err(error) => Err(self.complain(format_args!("segments of a request: {error}"))),
            };
            if let Err(outcome) = staged {
                self.answer(request.ticket, outcome);
            }
        }
    }

    fn stage_indirect(
        &mut self,
        index: usize,
        request: &IndirectRequest,
        scratch: &mut Scratch,
        work: &mut Work<'_>,
    ) -> Result<(), Outcome> {
        let (copy, segments) = work.batch.segments(index, scratch).ok_or(Outcome::Failed)?;
        match request.check_segments(self.ring.limits(), copy, segments) {
            Ok(segments) => self.stage(request.ticket, request.direction, request.sector, segments, work),
            Err(refused) => Err(self.complain(format_args!("refused: {:?}", refused.why))),
        }
    }

    /// Finds the request's place on the disk and, for its pages, in memory; they are mapped with those of others.
    fn stage(
        &mut self,
        ticket: Ticket,
        direction: Direction,
        sector: u64,
        segments: &[Segment],
        work: &mut Work<'_>,
    ) -> Result<(), Outcome> {
        let sectors = segments.iter().map(|segment| segment.sectors()).sum();
        let extent = self.plan.extent.part(sector, sectors);
        let extent = extent.map_err(|_| self.complain(format_args!("request past the end")))?;
        if !work.disk.facts.takes(&extent) {
            return Err(self.complain(format_args!("request of parts of the disk's blocks")));
        }
        let (operation, access) = match direction {
            Direction::Read => (Operation::Read, PageAccess::ReadWrite),
            Direction::Write => (Operation::Write, PageAccess::ReadOnly),
        };
        let mut place = work.places.take(segments.len()).ok_or(Outcome::Failed)?;
        let (address, facts) = (work.places.address(&place), &work.disk.facts);
        let chunks = work.batch.list(address, segments, facts.chunk_bytes_max, facts.chunks_max);
        let references = segments.iter().map(|segment| GrantRef(segment.gref()));
        let peer = self.connection.id.frontend;
        match chunks {
            Some(chunks) if work.places.map_later(&mut place, peer, references, access) => {
                *work.mapped += place.pages();
                work.batch.stage(Staged { ticket, operation, extent, place, chunks });
                Ok(())
            }
            _ => {
                work.places.unmap_later(place); // nothing is mapped there
                Err(Outcome::Failed)
            }
        }
    }

    /// Gives a request whose pages have been mapped to the disk.
    fn submit(&mut self, staged: Staged, work: &mut Work<'_>) -> Result<(), Outcome> {
        let begun = match work.places.mapped(&staged.place) {
            Ok(()) => {
                let data = work.batch.data(&staged.chunks);
                work.disk.submit(staged.operation, staged.extent.first, data).map_err(|_| Outcome::Failed)
            }
            Err(error) => Err(self.complain(format_args!("data of a request: {error}"))),
        };
        match begun {
            Ok(token) => {
                self.counters.count(staged.operation, staged.extent.count);
                self.in_flight += 1;
                let (connection, ticket) = (self.connection.number, staged.ticket);
                work.begin(token, InFlight { connection, ticket, place: Some(staged.place) });
                Ok(())
            }
            Err(outcome) => {
                work.unmap_later(staged.place);
                Err(outcome)
            }
        }
    }

    /// Answers a request that did not get to the disk.
    fn answer(&mut self, ticket: Ticket, outcome: Outcome) {
        self.counters.failed += u64::from(outcome == Outcome::Failed);
        self.unpublished = true;
        if let Err(error) = self.ring.answer(ticket, outcome) {
            self.end(Ending::BrokenRing(error));
        }
    }

    /// A request of this connection is done, and its pages are unmapped.
    pub fn finished(&mut self, ticket: Ticket, outcome: Outcome) {
        self.in_flight = self.in_flight.saturating_sub(1);
        self.done += 1;
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
