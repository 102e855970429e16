//! blkif: a virtual disk over a ring (Xen public header `io/blkif.h`, 64-bit layout), both ends.
//!
//! Back end: [`BlkBack::next_request`] copies a request once and checks it against the disk's [`DiskLimits`]; only a
//! [`CheckedRequest`] comes out. What fails the check is answered at once, with a response that is initialised to the
//! last byte. The segments of indirect requests lie in pages that the front end can still write: the back end copies
//! these pages too, once, and has [`IndirectRequest::check_segments`] look at the copy.
//!
//! Front end: [`BlkFront`] gives every request an id with a generation and believes a response only if its id is in
//! flight, its operation the one asked for, and its status one that exists. It keeps each request until it is answered,
//! so that a back end that takes over from one that died can be asked again ([`BlkFront::resume`]).

use xen_abi::io::blkif::{
    BLKIF_DISCARD_SECURE, BLKIF_MAX_INDIRECT_PAGES_PER_REQUEST, BLKIF_MAX_SEGMENTS_PER_REQUEST, BLKIF_OP_DISCARD,
    BLKIF_OP_FLUSH_DISKCACHE, BLKIF_OP_INDIRECT, BLKIF_OP_READ, BLKIF_OP_WRITE, BLKIF_RSP_EOPNOTSUPP, BLKIF_RSP_ERROR,
    BLKIF_RSP_OKAY, BlkifRequest, BlkifRequestDiscard, BlkifRequestIndirect, BlkifRequestSegment, BlkifResponse,
    SECTOR_BYTES, SECTORS_PER_PAGE, SEGMENTS_PER_INDIRECT_PAGE,
};
use zerocopy::{FromBytes, FromZeros, Immutable, IntoBytes};

use crate::memory::SharedMemory;
use crate::ring::{BackRing, FrontRing, Protocol, RingError};
use crate::slots::{SlotId, Slots};

/// The blkif ring.
#[derive(Clone, Copy, Debug)]
pub enum Blkif {}

/// A request's bytes, as copied from the ring. Its operation decides which structure they are.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable)]
#[repr(C, align(8))]
pub struct RawRequest([u8; size_of::<BlkifRequest>()]);

impl Protocol for Blkif {
    type Request = RawRequest;
    type Response = BlkifResponse;
}

impl RawRequest {
    /// A request of any of the three structures.
    #[inline]
    fn of(request: &(impl IntoBytes + Immutable)) -> Self {
        let mut raw = Self::new_zeroed();
        let bytes = request.as_bytes();
        if let Some(start) = raw.0.get_mut(..bytes.len()) {
            start.copy_from_slice(bytes);
        }
        raw
    }

    /// A request of these bytes, for tests.
    #[must_use]
    pub fn from_bytes(bytes: [u8; size_of::<BlkifRequest>()]) -> Self {
        Self(bytes)
    }

    /// The bytes as the longest of the three structures.
    #[inline]
    fn whole(&self) -> &BlkifRequest {
        zerocopy::transmute_ref!(self)
    }

    /// The bytes as one of the others. They are no longer than the entry, so the default never shows.
    fn view<T: FromBytes>(&self) -> T {
        const { assert!(size_of::<T>() <= size_of::<BlkifRequest>()) };
        match T::read_from_prefix(&self.0) {
            Ok((view, _)) => view,
            Err(_) => T::new_zeroed(),
        }
    }
}

/// Which way the data goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// From the disk into the granted pages.
    Read,
    /// From the granted pages to the disk.
    Write,
}

impl Direction {
    /// `BLKIF_OP_READ` or `BLKIF_OP_WRITE`.
    #[must_use]
    pub const fn operation(self) -> u8 {
        match self {
            Direction::Read => BLKIF_OP_READ,
            Direction::Write => BLKIF_OP_WRITE,
        }
    }
}

/// Whether an export may be written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Writes, flushes and discards are refused.
    ReadOnly,
    /// All operations.
    ReadWrite,
}

/// What a disk can do with discards.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Discard {
    /// Nothing: answered "not supported".
    None,
    /// Plain discards.
    Plain,
    /// Plain and secure ones.
    Secure,
}

/// What a back end offers for one disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DiskLimits {
    /// Size in sectors of 512 bytes.
    pub sectors: u64,
    /// May it be written?
    pub access: Access,
    /// Discards.
    pub discard: Discard,
    /// `feature-max-indirect-segments`; 0 = no indirect requests, at most 4096.
    pub indirect_segments: u16,
}

impl DiskLimits {
    /// Whether `count` sectors from `first` on lie on the disk.
    fn holds(&self, first: u64, count: u64) -> bool {
        first.checked_add(count).is_some_and(|end| end <= self.sectors)
    }
}

/// A run of sectors in one granted page: at least one, and `first + sectors <= 8`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Segment {
    gref: u32,
    // Wider than need be: the compiler packs bytes into words by many instructions.
    first: u16,
    sectors: u16,
}

impl Default for Segment {
    /// The first sector of the page of grant 0: to fill arrays with.
    fn default() -> Self {
        Self { gref: 0, first: 0, sectors: 1 }
    }
}

impl Segment {
    /// A segment of sectors `first` to `last` (inclusive) of the page granted by `gref`; `None` unless
    /// `first <= last < 8`.
    #[must_use]
    pub const fn new(gref: u32, first: u8, last: u8) -> Option<Self> {
        if first <= last && last < SECTORS_PER_PAGE {
            Some(Self { gref, first: first as u16, sectors: last as u16 - first as u16 + 1 })
        } else {
            None
        }
    }

    /// A whole page.
    #[must_use]
    pub const fn page(gref: u32) -> Self {
        Self { gref, first: 0, sectors: SECTORS_PER_PAGE as u16 }
    }

    fn checked(raw: &BlkifRequestSegment) -> Option<Self> {
        Self::new(raw.gref, raw.first_sect, raw.last_sect)
    }

    fn raw(self) -> BlkifRequestSegment {
        BlkifRequestSegment {
            gref: self.gref,
            first_sect: self.first as u8,
            last_sect: (self.first + self.sectors - 1) as u8,
            pad: 0,
        }
    }

    /// As an indirect page has it.
    #[must_use]
    pub fn encoded(self) -> [u8; size_of::<BlkifRequestSegment>()] {
        zerocopy::transmute!(self.raw())
    }

    /// Grant reference of the page.
    #[must_use]
    pub const fn gref(self) -> u32 {
        self.gref
    }

    /// Byte offset in the page.
    #[must_use]
    pub const fn offset(self) -> usize {
        self.first as usize * SECTOR_BYTES as usize
    }

    /// Sectors, 1 to 8.
    #[must_use]
    pub const fn sectors(self) -> u64 {
        self.sectors as u64
    }

    /// Bytes, 512 to 4096.
    #[must_use]
    pub const fn bytes(self) -> usize {
        self.sectors() as usize * SECTOR_BYTES as usize
    }
}

/// Why a request was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// No such operation, or not offered.
    Operation(u8),
    /// A write to a read-only disk.
    ReadOnly,
    /// Number of segments.
    Segments(u16),
    /// First or last sector of this segment.
    Segment(u16),
    /// Not within the disk.
    Range {
        /// First sector.
        sector: u64,
        /// Sectors.
        sectors: u64,
    },
    /// Fewer segment bytes than segments.
    ShortIndirect,
}

/// A refused request and the answer that it gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refused {
    /// Why.
    pub why: Refusal,
    /// The answer.
    pub response: BlkifResponse,
}

/// What an answer needs: the request's id and operation, and when its turn is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ticket {
    id: u64,
    /// In the ring.
    index: u32,
    operation: u8,
}

/// How a request ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Done.
    Done,
    /// Failed.
    Failed,
    /// Not supported.
    NotSupported,
}

impl Outcome {
    const fn status(self) -> i16 {
        match self {
            Outcome::Done => BLKIF_RSP_OKAY,
            Outcome::Failed => BLKIF_RSP_ERROR,
            Outcome::NotSupported => BLKIF_RSP_EOPNOTSUPP,
        }
    }

    const fn of_status(status: i16) -> Option<Self> {
        match status {
            BLKIF_RSP_OKAY => Some(Outcome::Done),
            BLKIF_RSP_ERROR => Some(Outcome::Failed),
            BLKIF_RSP_EOPNOTSUPP => Some(Outcome::NotSupported),
            _ => None,
        }
    }
}

impl Ticket {
    /// The front end's id of the request.
    #[must_use]
    pub const fn id(self) -> u64 {
        self.id
    }

    /// The answer: every byte is set.
    #[must_use]
    pub const fn response(self, outcome: Outcome) -> BlkifResponse {
        BlkifResponse { id: self.id, operation: self.operation, pad0: 0, status: outcome.status(), pad1: 0 }
    }

    fn refuse(self, outcome: Outcome, why: Refusal) -> Refused {
        Refused { why, response: self.response(outcome) }
    }
}

/// A read or write whose segments are in the request.
#[derive(Clone, Copy, Debug)]
pub struct Transfer {
    /// For the answer.
    pub ticket: Ticket,
    /// Which way.
    pub direction: Direction,
    /// First sector; the whole run lies on the disk.
    pub sector: u64,
    count: usize,
}

/// Where the segments of a request go that has them in itself.
pub type DirectSegments = [Segment; BLKIF_MAX_SEGMENTS_PER_REQUEST];

impl Transfer {
    /// The segments, 1 to 11, in the array that the check of this request has filled.
    #[must_use]
    pub fn segments<'a>(&self, checked: &'a DirectSegments) -> &'a [Segment] {
        checked.get(..self.count).unwrap_or(&[])
    }
}

/// A read or write whose segments are still to be copied from pages of their own.
#[derive(Clone, Copy, Debug)]
pub struct IndirectRequest {
    /// For the answer.
    pub ticket: Ticket,
    /// Which way.
    pub direction: Direction,
    /// First sector; the run is not checked before its segments are.
    pub sector: u64,
    segments: u16,
    grefs: [u32; BLKIF_MAX_INDIRECT_PAGES_PER_REQUEST],
}

impl IndirectRequest {
    /// Segments, 1 to the limit.
    #[must_use]
    pub const fn segments(&self) -> usize {
        self.segments as usize
    }

    /// Grants of the pages that hold them, 512 a page, as many pages as needed.
    #[must_use]
    pub fn pages(&self) -> &[u32] {
        self.grefs.get(..self.segments().div_ceil(SEGMENTS_PER_INDIRECT_PAGE)).unwrap_or(&[])
    }

    /// Checks the segments in `copy`, the caller's private copy of the pages (one behind the other), into `into`, which
    /// must have room for all. Returns them.
    pub fn check_segments<'a>(
        &self,
        limits: &DiskLimits,
        copy: &[u8],
        into: &'a mut [Segment],
    ) -> Result<&'a [Segment], Refused> {
        let refuse = |why| self.ticket.refuse(Outcome::Failed, why);
        let into = into.get_mut(..self.segments()).ok_or(refuse(Refusal::Segments(self.segments)))?;
        let mut raws = copy.chunks_exact(size_of::<BlkifRequestSegment>());
        for (index, segment) in (0u16..).zip(into.iter_mut()) {
            let raw = raws.next().and_then(|bytes| BlkifRequestSegment::read_from_bytes(bytes).ok());
            let raw = raw.ok_or(refuse(Refusal::ShortIndirect))?;
            *segment = Segment::checked(&raw).ok_or(refuse(Refusal::Segment(index)))?;
        }
        check_range(limits, self.sector, into).map_err(refuse)?;
        Ok(into)
    }
}

/// A request that is safe to act on.
#[derive(Clone, Copy, Debug)]
pub enum CheckedRequest {
    /// Read or write.
    Transfer(Transfer),
    /// Read or write, segments to be fetched.
    Indirect(IndirectRequest),
    /// Flush the write cache.
    Flush(Ticket),
    /// Discard; the range lies on the disk.
    Discard {
        /// For the answer.
        ticket: Ticket,
        /// First sector.
        sector: u64,
        /// Sectors, at least 1.
        sectors: u64,
        /// Must be unreadable afterwards?
        secure: bool,
    },
}

/// Checks the bytes of the request of this index in the ring. The segments of a [`Transfer`] go into `segments`.
#[inline]
pub fn check_request(
    raw: &RawRequest,
    index: u32,
    limits: &DiskLimits,
    segments: &mut DirectSegments,
) -> Result<CheckedRequest, Refused> {
    let request = raw.whole();
    match request.operation {
        BLKIF_OP_READ => check_transfer(request, index, Direction::Read, limits, segments),
        BLKIF_OP_WRITE => check_transfer(request, index, Direction::Write, limits, segments),
        BLKIF_OP_FLUSH_DISKCACHE => check_flush(request, index, limits),
        BLKIF_OP_DISCARD => check_discard(&raw.view(), index, limits),
        BLKIF_OP_INDIRECT => check_indirect(&raw.view(), index, limits),
        operation => {
            let ticket = Ticket { id: request.id, index, operation };
            Err(ticket.refuse(Outcome::NotSupported, Refusal::Operation(operation)))
        }
    }
}

fn check_access(limits: &DiskLimits, direction: Direction) -> Result<(), Refusal> {
    match (limits.access, direction) {
        (Access::ReadOnly, Direction::Write) => Err(Refusal::ReadOnly),
        _ => Ok(()),
    }
}

fn check_range(limits: &DiskLimits, sector: u64, segments: &[Segment]) -> Result<(), Refusal> {
    let sectors = segments.iter().map(|segment| segment.sectors()).sum();
    if limits.holds(sector, sectors) { Ok(()) } else { Err(Refusal::Range { sector, sectors }) }
}

#[inline]
fn check_transfer(
    request: &BlkifRequest,
    index: u32,
    direction: Direction,
    limits: &DiskLimits,
    segments: &mut DirectSegments,
) -> Result<CheckedRequest, Refused> {
    let ticket = Ticket { id: request.id, index, operation: request.operation };
    let refuse = |why| ticket.refuse(Outcome::Failed, why);
    check_access(limits, direction).map_err(refuse)?;
    let count = request.nr_segments as usize;
    let raws = request.seg.get(..count).filter(|raws| !raws.is_empty());
    let raws = raws.ok_or(refuse(Refusal::Segments(request.nr_segments.into())))?;
    for (index, (segment, raw)) in (0u16..).zip(segments.iter_mut().zip(raws)) {
        *segment = Segment::checked(raw).ok_or(refuse(Refusal::Segment(index)))?;
    }
    let transfer = Transfer { ticket, direction, sector: request.sector_number, count };
    check_range(limits, transfer.sector, transfer.segments(segments)).map_err(refuse)?;
    Ok(CheckedRequest::Transfer(transfer))
}

fn check_flush(request: &BlkifRequest, index: u32, limits: &DiskLimits) -> Result<CheckedRequest, Refused> {
    let ticket = Ticket { id: request.id, index, operation: request.operation };
    check_access(limits, Direction::Write).map_err(|why| ticket.refuse(Outcome::Failed, why))?;
    match request.nr_segments {
        0 => Ok(CheckedRequest::Flush(ticket)),
        count => Err(ticket.refuse(Outcome::Failed, Refusal::Segments(count.into()))),
    }
}

fn check_discard(request: &BlkifRequestDiscard, index: u32, limits: &DiskLimits) -> Result<CheckedRequest, Refused> {
    let ticket = Ticket { id: request.id, index, operation: request.operation };
    let secure = match (limits.discard, request.flag & BLKIF_DISCARD_SECURE != 0) {
        (Discard::None, _) | (Discard::Plain, true) => {
            return Err(ticket.refuse(Outcome::NotSupported, Refusal::Operation(request.operation)));
        }
        (_, secure) => secure,
    };
    let (sector, sectors) = (request.sector_number, request.nr_sectors);
    check_access(limits, Direction::Write).map_err(|why| ticket.refuse(Outcome::Failed, why))?;
    if sectors == 0 || !limits.holds(sector, sectors) {
        return Err(ticket.refuse(Outcome::Failed, Refusal::Range { sector, sectors }));
    }
    Ok(CheckedRequest::Discard { ticket, sector, sectors, secure })
}

/// The answer to an indirect request names the operation inside.
fn check_indirect(request: &BlkifRequestIndirect, index: u32, limits: &DiskLimits) -> Result<CheckedRequest, Refused> {
    let ticket = Ticket { id: request.id, index, operation: request.indirect_op };
    let refuse = |why| ticket.refuse(Outcome::Failed, why);
    let direction = match request.indirect_op {
        _ if limits.indirect_segments == 0 => {
            return Err(ticket.refuse(Outcome::NotSupported, Refusal::Operation(request.operation)));
        }
        BLKIF_OP_READ => Direction::Read,
        BLKIF_OP_WRITE => Direction::Write,
        operation => return Err(ticket.refuse(Outcome::NotSupported, Refusal::Operation(operation))),
    };
    check_access(limits, direction).map_err(refuse)?;
    let most =
        usize::from(limits.indirect_segments).min(BLKIF_MAX_INDIRECT_PAGES_PER_REQUEST * SEGMENTS_PER_INDIRECT_PAGE);
    if request.nr_segments == 0 || usize::from(request.nr_segments) > most {
        return Err(refuse(Refusal::Segments(request.nr_segments)));
    }
    Ok(CheckedRequest::Indirect(IndirectRequest {
        ticket,
        direction,
        sector: request.sector_number,
        segments: request.nr_segments,
        grefs: request.indirect_grefs,
    }))
}

/// Entries of a ring at most: of four pages.
const ENTRIES_MAX: usize = 128;

/// The disk's end. Answers go into the ring in the order of the requests; one that comes before its turn is held until then.
/// So a successor finds all that was not answered ([`BlkBack::adopt`]).
#[derive(Debug)]
pub struct BlkBack<M> {
    ring: BackRing<Blkif, M>,
    limits: DiskLimits,
    /// Answers that wait for their turn, by index modulo the length, and which there are, a bit each.
    held: [BlkifResponse; ENTRIES_MAX],
    is_held: u128,
}

impl<M: SharedMemory> BlkBack<M> {
    /// Attaches to a ring.
    pub fn attach(memory: M, limits: DiskLimits) -> Result<Self, RingError> {
        Self::over(BackRing::attach(memory)?, limits)
    }

    /// Goes on in the ring of a back end that has died: all requests that it has not answered come again, in order.
    pub fn adopt(memory: M, limits: DiskLimits) -> Result<Self, RingError> {
        Self::over(BackRing::adopt(memory)?, limits)
    }

    fn over(ring: BackRing<Blkif, M>, limits: DiskLimits) -> Result<Self, RingError> {
        if ring.entries() as usize > ENTRIES_MAX {
            return Err(RingError::TooLarge);
        }
        Ok(Self { ring, limits, held: [BlkifResponse::default(); ENTRIES_MAX], is_held: 0 })
    }

    /// The limits it checks by.
    #[must_use]
    pub fn limits(&self) -> &DiskLimits {
        &self.limits
    }

    /// Takes and checks the next request, with the segments of a [`Transfer`] in `segments`. `Some(Err(..))`: it was
    /// refused and answered; publish it.
    #[inline]
    pub fn next_request(
        &mut self,
        segments: &mut DirectSegments,
    ) -> Result<Option<Result<CheckedRequest, Refusal>>, RingError> {
        let index = self.ring.next_index();
        let Some(raw) = self.ring.next_request()? else {
            return Ok(None);
        };
        match check_request(&raw, index, &self.limits, segments) {
            Ok(request) => Ok(Some(Ok(request))),
            Err(refused) => {
                self.answer_in_turn(index, refused.response)?;
                Ok(Some(Err(refused.why)))
            }
        }
    }

    /// Answers a request; [`BlkBack::publish`] says whether to tell the front end.
    #[inline]
    pub fn answer(&mut self, ticket: Ticket, outcome: Outcome) -> Result<(), RingError> {
        self.answer_in_turn(ticket.index, ticket.response(outcome))
    }

    #[inline]
    fn answer_in_turn(&mut self, index: u32, response: BlkifResponse) -> Result<(), RingError> {
        let before = index.wrapping_sub(self.ring.answer_index());
        if before != 0 {
            if before >= self.ring.in_flight() {
                return Err(RingError::NothingToAnswer);
            }
            let place = index as usize % ENTRIES_MAX;
            self.held[place] = response;
            self.is_held |= 1 << place;
            return Ok(());
        }
        self.ring.answer(&response)?;
        if self.is_held != 0 { self.answer_held() } else { Ok(()) }
    }

    /// Gives the answers whose turn it is now.
    fn answer_held(&mut self) -> Result<(), RingError> {
        loop {
            let place = self.ring.answer_index() as usize % ENTRIES_MAX;
            if self.is_held & 1 << place == 0 {
                return Ok(());
            }
            self.is_held &= !(1 << place);
            self.ring.answer(&self.held[place])?;
        }
    }

    /// Shows all answers whose turn it was. `true`: send the event.
    #[must_use = "the peer sleeps until it gets the event that it asked for"]
    pub fn publish(&mut self) -> bool {
        self.ring.publish()
    }

    /// Requests taken and not answered, or whose answer is held.
    #[must_use]
    pub fn in_flight(&self) -> u32 {
        self.ring.in_flight()
    }

    /// Before sleeping: `true` = there is more.
    pub fn final_check(&mut self) -> Result<bool, RingError> {
        self.ring.final_check()
    }
}

/// Why a front end gave up on its back end, or could not submit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BlkFrontError {
    /// The ring below.
    Ring(RingError),
    /// All ids are in use: wait for completions.
    Busy,
    /// No segments, or more than fit. Caller's fault.
    Segments(usize),
    /// The back end answered an id that is not in flight.
    UnknownId(u64),
    /// The back end answered with another operation.
    WrongOperation {
        /// Asked for.
        sent: u8,
        /// Answered.
        answered: u8,
    },
    /// The back end answered with a status that does not exist.
    BadStatus(i16),
}

impl From<RingError> for BlkFrontError {
    fn from(error: RingError) -> Self {
        BlkFrontError::Ring(error)
    }
}

impl core::fmt::Display for BlkFrontError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            BlkFrontError::Ring(error) => error.fmt(f),
            BlkFrontError::Busy => f.write_str("no request can be added now"),
            BlkFrontError::Segments(count) => write!(f, "a request cannot have {count} segments"),
            BlkFrontError::UnknownId(id) => write!(f, "back end answered request {id:#x}, which is not in flight"),
            BlkFrontError::WrongOperation { sent, answered } => {
                write!(f, "back end answered operation {sent} with {answered}")
            }
            BlkFrontError::BadStatus(status) => write!(f, "back end answered with status {status}"),
        }
    }
}

impl core::error::Error for BlkFrontError {}

/// A request in flight: compare with [`Completion::request`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct RequestId(u64);

impl RequestId {
    /// A small number, below `N`, that no other request in flight has.
    #[must_use]
    pub const fn slot(self) -> usize {
        (self.0 & 0xffff) as usize
    }
}

/// A finished request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Completion {
    /// Which.
    pub request: RequestId,
    /// How it ended.
    pub outcome: Outcome,
}

/// The client's end, with at most `N` requests in flight. After an error that is the back end's fault every call
/// fails: the connection has to be closed.
#[derive(Debug)]
pub struct BlkFront<M, const N: usize = 32> {
    ring: FrontRing<Blkif, M>,
    sent: Slots<u8, N>,
    /// By slot: the request there, as it went into the ring, and its place in the order of all requests.
    journal: [(u64, RawRequest); N],
    submitted: u64,
    broken: Option<BlkFrontError>,
    /// The back end is gone or not believed: nothing is shown to it, nothing taken from it.
    suspended: bool,
}

fn wire_id(id: SlotId) -> u64 {
    u64::from(id.generation) << 32 | u64::from(id.index)
}

impl<M: SharedMemory, const N: usize> BlkFront<M, N> {
    /// Initialises the ring in `memory`.
    pub fn new(memory: M) -> Result<Self, RingError> {
        let journal = [(0, RawRequest::new_zeroed()); N];
        let ring = FrontRing::new(memory)?;
        Ok(Self { ring, sent: Slots::new(), journal, submitted: 0, broken: None, suspended: false })
    }

    /// The back end is gone, or has broken the protocol: what it wrote last is not looked at, and requests are only noted
    /// until [`BlkFront::resume`].
    pub fn suspend(&mut self) {
        (self.suspended, self.broken) = (true, None);
    }

    /// Goes on over the ring of `fresh`, on which nothing was submitted yet: what has no answer is in it again, byte for
    /// byte and in the order in which it was submitted, for [`BlkFront::publish`] to show. Grant references must mean
    /// the same to the new back end, and the old one must be unable to do any of it any more. Answers that the old ring
    /// still holds are lost, and asked for again.
    pub fn resume(&mut self, fresh: Self) -> Result<(), RingError> {
        let mut slots: [usize; N] = core::array::from_fn(|slot| slot);
        slots.sort_unstable_by_key(|&slot| self.journal.get(slot).map(|(order, _)| *order));
        let mut ring = fresh.ring;
        for (_, request) in
            slots.iter().filter(|&&slot| self.sent.is_used(slot)).filter_map(|&slot| self.journal.get(slot))
        {
            ring.push(request)?;
        }
        (self.ring, self.broken, self.suspended) = (ring, None, false);
        Ok(())
    }

    /// Requests that can be submitted now.
    #[must_use]
    pub fn free(&self) -> usize {
        self.sent.free().min(self.ring.free() as usize)
    }

    /// Requests in flight.
    #[must_use]
    pub fn in_flight(&self) -> usize {
        self.sent.used()
    }

    /// Reads or writes with 1 to 11 segments.
    pub fn transfer(
        &mut self,
        direction: Direction,
        sector: u64,
        segments: &[Segment],
    ) -> Result<RequestId, BlkFrontError> {
        if segments.is_empty() || segments.len() > BLKIF_MAX_SEGMENTS_PER_REQUEST {
            return Err(BlkFrontError::Segments(segments.len()));
        }
        let mut seg = [BlkifRequestSegment::default(); BLKIF_MAX_SEGMENTS_PER_REQUEST];
        for (to, from) in seg.iter_mut().zip(segments) {
            *to = from.raw();
        }
        let operation = direction.operation();
        self.submit(operation, |id| {
            RawRequest::of(&BlkifRequest {
                operation,
                nr_segments: segments.len() as u8,
                id,
                sector_number: sector,
                seg,
                ..BlkifRequest::default()
            })
        })
    }

    /// Reads or writes with `segments` segments, which the caller has written into pages by [`encode_segments`]
    /// and granted read-only as `pages`.
    pub fn indirect(
        &mut self,
        direction: Direction,
        sector: u64,
        segments: u16,
        pages: &[u32],
    ) -> Result<RequestId, BlkFrontError> {
        let needed = usize::from(segments).div_ceil(SEGMENTS_PER_INDIRECT_PAGE);
        if segments == 0 || needed > BLKIF_MAX_INDIRECT_PAGES_PER_REQUEST || pages.len() != needed {
            return Err(BlkFrontError::Segments(segments.into()));
        }
        let mut indirect_grefs = [0; BLKIF_MAX_INDIRECT_PAGES_PER_REQUEST];
        for (to, from) in indirect_grefs.iter_mut().zip(pages) {
            *to = *from;
        }
        self.submit(direction.operation(), |id| {
            RawRequest::of(&BlkifRequestIndirect {
                operation: BLKIF_OP_INDIRECT,
                indirect_op: direction.operation(),
                nr_segments: segments,
                id,
                sector_number: sector,
                indirect_grefs,
                ..BlkifRequestIndirect::default()
            })
        })
    }

    /// Flushes the disk's write cache.
    pub fn flush(&mut self) -> Result<RequestId, BlkFrontError> {
        let operation = BLKIF_OP_FLUSH_DISKCACHE;
        self.submit(operation, |id| RawRequest::of(&BlkifRequest { operation, id, ..BlkifRequest::default() }))
    }

    /// Discards sectors.
    pub fn discard(&mut self, sector: u64, sectors: u64) -> Result<RequestId, BlkFrontError> {
        let operation = BLKIF_OP_DISCARD;
        self.submit(operation, |id| {
            RawRequest::of(&BlkifRequestDiscard {
                operation,
                id,
                sector_number: sector,
                nr_sectors: sectors,
                ..BlkifRequestDiscard::default()
            })
        })
    }

    fn submit(&mut self, operation: u8, request: impl FnOnce(u64) -> RawRequest) -> Result<RequestId, BlkFrontError> {
        self.check_alive()?;
        if self.ring.free() == 0 {
            return Err(BlkFrontError::Busy);
        }
        let slot = self.sent.insert(operation).ok_or(BlkFrontError::Busy)?;
        let id = wire_id(slot);
        let request = request(id);
        if let Err(error) = self.ring.push(&request) {
            self.sent.remove(slot, u32::MAX);
            return Err(error.into());
        }
        if let Some(entry) = self.journal.get_mut(usize::from(slot.index)) {
            *entry = (self.submitted, request);
            self.submitted += 1;
        }
        Ok(RequestId(id))
    }

    /// Shows all submitted requests. `true`: send the event.
    #[must_use = "the peer sleeps until it gets the event that it asked for"]
    pub fn publish(&mut self) -> bool {
        !self.suspended && self.ring.publish()
    }

    /// Takes the next completion.
    pub fn next_completion(&mut self) -> Result<Option<Completion>, BlkFrontError> {
        self.check_alive()?;
        if self.suspended {
            return Ok(None);
        }
        let Some(response) = self.ring.next_response()? else {
            return Ok(None);
        };
        let completion = self.accept(&response);
        self.broken = completion.err();
        completion.map(Some)
    }

    fn accept(&mut self, response: &BlkifResponse) -> Result<Completion, BlkFrontError> {
        let unknown = BlkFrontError::UnknownId(response.id);
        let index = u16::try_from(response.id & 0xffff_ffff).map_err(|_| unknown)?;
        let slot = SlotId { index, generation: (response.id >> 32) as u32 };
        let sent = *self.sent.get(slot, u32::MAX).ok_or(unknown)?;
        if sent != response.operation {
            return Err(BlkFrontError::WrongOperation { sent, answered: response.operation });
        }
        let outcome = Outcome::of_status(response.status).ok_or(BlkFrontError::BadStatus(response.status))?;
        self.sent.remove(slot, u32::MAX).ok_or(unknown)?;
        Ok(Completion { request: RequestId(response.id), outcome })
    }

    /// Before sleeping: `true` = there is more.
    pub fn final_check(&mut self) -> Result<bool, BlkFrontError> {
        self.check_alive()?;
        Ok(!self.suspended && self.ring.final_check()?)
    }

    fn check_alive(&self) -> Result<(), BlkFrontError> {
        self.broken.map_or(Ok(()), Err)
    }
}

/// Writes `segments` as an indirect page has them into `page`; returns the bytes used, `None` when they do not fit.
pub fn encode_segments(segments: &[Segment], page: &mut [u8]) -> Option<usize> {
    let bytes = segments.len() * size_of::<BlkifRequestSegment>();
    let page = page.get_mut(..bytes)?;
    for (to, segment) in page.chunks_exact_mut(size_of::<BlkifRequestSegment>()).zip(segments) {
        to.copy_from_slice(&segment.encoded());
    }
    Some(bytes)
}
