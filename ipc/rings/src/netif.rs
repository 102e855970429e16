//! netif: a virtual network interface over two rings (Xen public header `io/netif.h`), both ends. "tx" and "rx" are
//! seen from the front end.
//!
//! A packet on the tx ring is a chain of slots: the first tells the size of the whole, then come extra-info slots, then
//! fragments, each with its own size; the first fragment has what the others leave. [`TxBack::next_packet`] takes a
//! whole chain, bounded by [`XEN_NETIF_NR_SLOTS_MIN`] slots, and hands out a [`TxPacket`] whose fragments are non-empty,
//! lie each within a page and add up. Every slot gets an answer, in the order of the slots, when the caller has said how its
//! packet ended; a bad packet has failed at once.
//!
//! A network back end that dies leaves rings that its successor goes on in ([`TxBack::adopt`], [`RxBack::adopt`]). Answers leave
//! of a request all that tells where packets begin and what its id is, so what was about to be answered can be answered. What was
//! not is taken again: a frame may be sent twice or be lost, but no slot is answered twice or never.
//!
//! Rx responses come in the order of the requests: stock front ends go by position.

use xen_abi::io::netif::{
    NETIF_RSP_DROPPED, NETIF_RSP_ERROR, NETIF_RSP_NULL, NETIF_RSP_OKAY, NETRXF_CSUM_BLANK, NETRXF_DATA_VALIDATED,
    NETRXF_EXTRA_INFO, NETRXF_MORE_DATA, NETTXF_CSUM_BLANK, NETTXF_DATA_VALIDATED, NETTXF_EXTRA_INFO, NETTXF_MORE_DATA,
    NetifExtraInfo, NetifRxRequest, NetifRxResponse, NetifTxRequest, NetifTxResponse, XEN_NETIF_EXTRA_FLAG_MORE,
    XEN_NETIF_EXTRA_TYPE_GSO, XEN_NETIF_EXTRA_TYPE_MAX, XEN_NETIF_EXTRA_TYPE_NONE, XEN_NETIF_GSO_TYPE_TCPV4,
    XEN_NETIF_GSO_TYPE_TCPV6, XEN_NETIF_NR_SLOTS_MIN,
};
use zerocopy::{FromBytes, FromZeros, Immutable, IntoBytes};

use crate::memory::SharedMemory;
use crate::ring::{BackRing, FrontRing, Protocol, RingError};
use crate::slots::{SlotId, Slots};

/// Bytes of a page.
const PAGE_BYTES: u32 = 4096;
/// No status of the protocol: how a slot's packet ended is not known yet.
const UNANSWERED: i16 = i16::MIN;
/// Slots of a one-page ring, and so the most in flight.
const RING_SLOTS: usize = 256;
/// Bytes of an Ethernet header: no packet is shorter.
pub const ETHERNET_HEADER_BYTES: u16 = 14;

/// The tx ring.
#[derive(Clone, Copy, Debug)]
pub enum NetTx {}

/// A tx slot's bytes, as copied from the ring: a request or extra info, by its place in the chain.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable)]
#[repr(C)]
pub struct RawTxSlot([u8; size_of::<NetifTxRequest>()]);

impl RawTxSlot {
    /// A slot of these bytes, for tests.
    #[must_use]
    pub fn from_bytes(bytes: [u8; size_of::<NetifTxRequest>()]) -> Self {
        Self(bytes)
    }

    fn of(slot: &(impl IntoBytes + Immutable)) -> Self {
        let mut raw = Self::new_zeroed();
        for (to, from) in raw.0.iter_mut().zip(slot.as_bytes()) {
            *to = *from;
        }
        raw
    }

    /// Both structures are no longer than the slot, so the default never shows.
    fn view<T: FromBytes>(&self) -> T {
        const { assert!(size_of::<T>() <= size_of::<NetifTxRequest>()) };
        match T::read_from_prefix(&self.0) {
            Ok((view, _)) => view,
            Err(_) => T::new_zeroed(),
        }
    }
}

impl Protocol for NetTx {
    type Request = RawTxSlot;
    type Response = NetifTxResponse;
}

/// The rx ring.
#[derive(Clone, Copy, Debug)]
pub enum NetRx {}

impl Protocol for NetRx {
    type Request = NetifRxRequest;
    type Response = NetifRxResponse;
}

/// What is known of a packet's TCP or UDP checksum.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Checksum {
    /// It is in the packet and may be wrong.
    #[default]
    InPacket,
    /// It is in the packet and known good.
    Validated,
    /// It is not filled in; the data is known good.
    Blank,
}

/// Bytes in one granted page; never empty, never across the page's end.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Fragment {
    gref: u32,
    offset: u16,
    bytes: u16,
}

impl Fragment {
    /// `None` when empty or across the page's end.
    #[must_use]
    pub const fn new(gref: u32, offset: u16, bytes: u16) -> Option<Self> {
        if bytes > 0 && offset as u32 + bytes as u32 <= PAGE_BYTES { Some(Self { gref, offset, bytes }) } else { None }
    }

    /// Grant reference of the page.
    #[must_use]
    pub const fn gref(self) -> u32 {
        self.gref
    }

    /// Offset in the page.
    #[must_use]
    pub const fn offset(self) -> u16 {
        self.offset
    }

    /// Bytes, 1 to 4096.
    #[must_use]
    pub const fn bytes(self) -> u16 {
        self.bytes
    }
}

/// Segmentation offload that a packet asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gso {
    /// Payload bytes of a segment, not 0.
    pub segment_bytes: u16,
    /// Over IPv6 rather than IPv4?
    pub ipv6: bool,
}

/// Why a packet was dropped, or a front end is not to be served any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TxFault {
    /// Shorter than an Ethernet header.
    TooShort(u16),
    /// More slots than [`XEN_NETIF_NR_SLOTS_MIN`].
    TooManySlots,
    /// A fragment across its page's end.
    CrossesPage,
    /// Fragments larger than the whole.
    FragmentTooLarge,
    /// Extra info that does not exist, or comes twice.
    BadExtra(u8),
    /// Segmentation offload that does not exist.
    BadGso(u8),
}

/// A packet of a front end, checked. [`TxBack`] has its fragments, until it takes the next, and its ids, until it is
/// answered.
#[derive(Clone, Copy, Debug)]
pub struct TxPacket {
    /// The slots: where the first is in [`TxBack`]'s list, how many, and how many of them are data.
    first_slot: u32,
    slot_count: u16,
    data_count: u16,
    fragment_count: u16,
    /// Bytes of the whole packet.
    pub bytes: u16,
    /// Its checksum.
    pub checksum: Checksum,
    /// Segmentation wanted; a back end that has not offered it must fail the packet.
    pub gso: Option<Gso>,
}

/// How a packet ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TxOutcome {
    /// Sent.
    Sent,
    /// Dropped on purpose.
    Dropped,
    /// Failed.
    Failed,
}

impl TxOutcome {
    const fn status(self) -> i16 {
        match self {
            TxOutcome::Sent => NETIF_RSP_OKAY,
            TxOutcome::Dropped => NETIF_RSP_DROPPED,
            TxOutcome::Failed => NETIF_RSP_ERROR,
        }
    }
}

/// Why the back end must close the connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NetBackError {
    /// The ring below.
    Ring(RingError),
    /// A chain that ends before it is complete: what comes later cannot be told apart.
    Incomplete,
}

impl From<RingError> for NetBackError {
    fn from(error: RingError) -> Self {
        NetBackError::Ring(error)
    }
}

impl core::fmt::Display for NetBackError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            NetBackError::Ring(error) => error.fmt(f),
            NetBackError::Incomplete => f.write_str("front end sent an incomplete packet"),
        }
    }
}

impl core::error::Error for NetBackError {}

/// The network's end of the tx ring: takes packets.
#[derive(Debug)]
pub struct TxBack<M> {
    ring: BackRing<NetTx, M>,
    broken: bool,
    /// The answers to the slots that were taken, so far as is known, in the order of the slots, at the index modulo the length:
    /// no more can wait than the ring has entries.
    answers: [NetifTxResponse; RING_SLOTS],
    /// The index in the ring of the slot that is taken next.
    next_slot: u32,
    /// Of the packet that was taken last.
    fragments: [Fragment; XEN_NETIF_NR_SLOTS_MIN],
}

impl<M: SharedMemory> TxBack<M> {
    /// Attaches to a ring of one page.
    pub fn attach(memory: M) -> Result<Self, RingError> {
        Self::over(BackRing::attach(memory)?)
    }

    /// Goes on in the ring of a back end that has died. Packets that it was about to answer count as dropped; publish that.
    pub fn adopt(memory: M) -> Result<Self, NetBackError> {
        let (ring, begun) = BackRing::adopt_begun(memory)?;
        let mut back = Self::over(ring)?;
        let first = back.next_slot;
        while back.next_slot.wrapping_sub(first) < begun {
            match back.next_packet()? {
                Some(Ok(packet)) => back.answer(&packet, TxOutcome::Dropped)?,
                Some(Err(_answered)) => {}
                None => break,
            }
        }
        Ok(back)
    }

    fn over(ring: BackRing<NetTx, M>) -> Result<Self, RingError> {
        if ring.entries() as usize > RING_SLOTS {
            return Err(RingError::TooLarge);
        }
        let fragments = [Fragment::default(); XEN_NETIF_NR_SLOTS_MIN];
        let (answers, next_slot) = ([NetifTxResponse::default(); RING_SLOTS], ring.next_index());
        Ok(Self { ring, broken: false, answers, next_slot, fragments })
    }

    /// Takes the next packet. `Some(Err(..))`: it was bad and its answers are pushed; publish them.
    pub fn next_packet(&mut self) -> Result<Option<Result<TxPacket, TxFault>>, NetBackError> {
        if self.broken {
            return Err(NetBackError::Incomplete);
        }
        let Some(first) = self.ring.next_request()? else {
            return Ok(None);
        };
        let first: NetifTxRequest = first.view();
        let mut chain = Chain::new(&first, self.next_slot);
        self.note(first.id, UNANSWERED);
        if first.flags & NETTXF_EXTRA_INFO != 0 {
            self.take_extras(&mut chain)?;
        }
        let mut more = first.flags & NETTXF_MORE_DATA != 0;
        while more {
            let slot: NetifTxRequest = self.take_slot()?.view();
            more = slot.flags & NETTXF_MORE_DATA != 0;
            self.note(slot.id, UNANSWERED);
            chain.add(&slot, &mut self.fragments);
        }
        let (mut packet, result) = chain.finish(&first, &mut self.fragments);
        packet.slot_count = self.next_slot.wrapping_sub(packet.first_slot) as u16;
        match result {
            Ok(()) => Ok(Some(Ok(packet))),
            Err(fault) => {
                self.answer(&packet, TxOutcome::Failed)?;
                Ok(Some(Err(fault)))
            }
        }
    }

    /// The data of the packet that was taken last, in order.
    #[must_use]
    pub fn fragments(&self, packet: &TxPacket) -> &[Fragment] {
        self.fragments.get(..packet.fragment_count.into()).unwrap_or(&[])
    }

    fn note(&mut self, id: u16, status: i16) {
        self.answers[self.next_slot as usize % RING_SLOTS] = NetifTxResponse { id, status };
        self.next_slot = self.next_slot.wrapping_add(1);
    }

    fn take_slot(&mut self) -> Result<RawTxSlot, NetBackError> {
        match self.ring.next_request()? {
            Some(slot) => Ok(slot),
            None => {
                self.broken = true;
                Err(NetBackError::Incomplete)
            }
        }
    }

    fn take_extras(&mut self, chain: &mut Chain) -> Result<(), NetBackError> {
        loop {
            let extra: NetifExtraInfo = self.take_slot()?.view();
            // Its slot has no id; stock front ends skip NULL answers without looking at one. So the answer may leave there what
            // a successor has to know of the slot.
            self.note(u16::from_le_bytes([extra.kind, extra.flags]), NETIF_RSP_NULL);
            chain.add_extra(&extra);
            if extra.flags & XEN_NETIF_EXTRA_FLAG_MORE == 0 {
                return Ok(());
            }
        }
    }

    /// Answers all slots of a packet; [`TxBack::publish`] shows it.
    pub fn answer(&mut self, packet: &TxPacket, outcome: TxOutcome) -> Result<(), RingError> {
        if self.next_slot.wrapping_sub(packet.first_slot) > self.ring.in_flight() {
            return Err(RingError::NothingToAnswer);
        }
        for index in 0..u32::from(packet.slot_count) {
            let answer = &mut self.answers[packet.first_slot.wrapping_add(index) as usize % RING_SLOTS];
            if answer.status == UNANSWERED {
                answer.status = outcome.status();
            }
        }
        Ok(())
    }

    /// Shows the answers to all packets before the first that has none. `true`: send the event.
    #[must_use = "the peer sleeps until it gets the event that it asked for"]
    pub fn publish(&mut self) -> bool {
        while self.ring.in_flight() > 0 {
            let answer = self.answers[self.ring.answer_index() as usize % RING_SLOTS];
            if answer.status == UNANSWERED || self.ring.push(&answer).is_err() {
                break;
            }
        }
        self.ring.publish()
    }

    /// Slots taken and not answered.
    #[must_use]
    pub fn in_flight(&self) -> u32 {
        self.ring.in_flight()
    }

    /// Before sleeping: `true` = there is more.
    pub fn final_check(&mut self) -> Result<bool, RingError> {
        self.ring.final_check()
    }
}

/// A packet that is being put together. The first fault decides; the chain is taken to its end all the same.
struct Chain {
    packet: TxPacket,
    /// Bytes that the fragments so far leave for the first, whose place is kept.
    left: u16,
    fault: Option<TxFault>,
}

impl Chain {
    fn new(first: &NetifTxRequest, first_slot: u32) -> Self {
        let packet = TxPacket {
            first_slot,
            slot_count: 1,
            data_count: 1,
            fragment_count: 1,
            bytes: first.size,
            checksum: checksum_of(first.flags & NETTXF_CSUM_BLANK, first.flags & NETTXF_DATA_VALIDATED),
            gso: None,
        };
        Self { packet, left: first.size, fault: None }
    }

    fn blame(&mut self, fault: TxFault) {
        self.fault.get_or_insert(fault);
    }

    /// Takes a further slot; an empty fragment is left out.
    fn add(&mut self, slot: &NetifTxRequest, fragments: &mut [Fragment; XEN_NETIF_NR_SLOTS_MIN]) {
        self.packet.data_count = self.packet.data_count.saturating_add(1);
        if usize::from(self.packet.data_count) > XEN_NETIF_NR_SLOTS_MIN {
            self.blame(TxFault::TooManySlots);
        }
        match self.left.checked_sub(slot.size) {
            Some(left) => self.left = left,
            None => self.blame(TxFault::FragmentTooLarge),
        }
        if slot.size == 0 {
            return;
        }
        let place = fragments.get_mut(usize::from(self.packet.fragment_count));
        match (Fragment::new(slot.gref, slot.offset, slot.size), place) {
            (Some(fragment), Some(place)) => {
                *place = fragment;
                self.packet.fragment_count += 1;
            }
            (None, _) => self.blame(TxFault::CrossesPage),
            (_, None) => self.blame(TxFault::TooManySlots),
        }
    }

    fn add_extra(&mut self, extra: &NetifExtraInfo) {
        match extra.kind {
            XEN_NETIF_EXTRA_TYPE_GSO if self.packet.gso.is_some() => self.blame(TxFault::BadExtra(extra.kind)),
            XEN_NETIF_EXTRA_TYPE_GSO => match gso_of(extra) {
                Ok(gso) => self.packet.gso = Some(gso),
                Err(fault) => self.blame(fault),
            },
            kind if kind > XEN_NETIF_EXTRA_TYPE_NONE && kind < XEN_NETIF_EXTRA_TYPE_MAX => {}
            kind => self.blame(TxFault::BadExtra(kind)),
        }
    }

    /// Puts the first fragment into its place, or closes the gap when there is nothing in it.
    fn finish(
        mut self,
        first: &NetifTxRequest,
        fragments: &mut [Fragment; XEN_NETIF_NR_SLOTS_MIN],
    ) -> (TxPacket, Result<(), TxFault>) {
        if first.size < ETHERNET_HEADER_BYTES {
            self.blame(TxFault::TooShort(first.size));
        }
        if self.left == 0 {
            fragments.copy_within(1.., 0);
            self.packet.fragment_count -= 1;
        } else {
            match Fragment::new(first.gref, first.offset, self.left) {
                Some(fragment) => fragments[0] = fragment,
                None => self.blame(TxFault::CrossesPage),
            }
        }
        (self.packet, self.fault.map_or(Ok(()), Err))
    }
}

fn checksum_of(blank: u16, validated: u16) -> Checksum {
    match (blank, validated) {
        (0, 0) => Checksum::InPacket,
        (0, _) => Checksum::Validated,
        _ => Checksum::Blank,
    }
}

/// The union's GSO variant: segment size, then type (low byte) and pad, then features.
fn gso_of(extra: &NetifExtraInfo) -> Result<Gso, TxFault> {
    let [segment_bytes, kind, _features] = extra.u;
    let kind = kind.to_le_bytes()[0];
    let ipv6 = match kind {
        XEN_NETIF_GSO_TYPE_TCPV4 => false,
        XEN_NETIF_GSO_TYPE_TCPV6 => true,
        _ => return Err(TxFault::BadGso(kind)),
    };
    if segment_bytes == 0 { Err(TxFault::BadGso(kind)) } else { Ok(Gso { segment_bytes, ipv6 }) }
}

/// An empty page of a front end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use = "the front end's buffer has to be answered"]
pub struct RxBuffer {
    id: u16,
    gref: u32,
}

impl RxBuffer {
    /// Grant reference of the page.
    #[must_use]
    pub const fn gref(&self) -> u32 {
        self.gref
    }
}

/// The network's end of the rx ring: delivers packets into the front end's pages. Answer buffers in the order in which
/// they were taken.
#[derive(Debug)]
pub struct RxBack<M> {
    ring: BackRing<NetRx, M>,
}

impl<M: SharedMemory> RxBack<M> {
    /// Attaches to a ring.
    pub fn attach(memory: M) -> Result<Self, RingError> {
        Ok(Self { ring: BackRing::attach(memory)? })
    }

    /// Goes on in the ring of a back end that has died. Buffers that it was about to answer go back empty; publish that.
    pub fn adopt(memory: M) -> Result<Self, RingError> {
        let (ring, begun) = BackRing::adopt_begun(memory)?;
        let mut back = Self { ring };
        for _ in 0..begun {
            if let Some(buffer) = back.next_buffer()? {
                back.fail(buffer, TxOutcome::Failed)?;
            }
        }
        Ok(back)
    }

    /// Buffers that wait.
    pub fn available(&mut self) -> Result<u32, RingError> {
        self.ring.unconsumed()
    }

    /// Takes the next buffer.
    pub fn next_buffer(&mut self) -> Result<Option<RxBuffer>, RingError> {
        Ok(self.ring.next_request()?.map(|request| RxBuffer { id: request.id, gref: request.gref }))
    }

    /// Says that the buffer holds `bytes` bytes from `offset` on. `more`: the packet goes on in the next buffer.
    /// A range that does not lie in the page is answered as failed.
    pub fn deliver(
        &mut self,
        buffer: RxBuffer,
        offset: u16,
        bytes: u16,
        checksum: Checksum,
        more: More,
    ) -> Result<(), RingError> {
        if u32::from(offset) + u32::from(bytes) > PAGE_BYTES {
            return self.fail(buffer, TxOutcome::Failed);
        }
        let checksum = match checksum {
            Checksum::InPacket => 0,
            Checksum::Validated => NETRXF_DATA_VALIDATED,
            Checksum::Blank => NETRXF_CSUM_BLANK | NETRXF_DATA_VALIDATED,
        };
        let more = match more {
            More::Last => 0,
            More::Follows => NETRXF_MORE_DATA,
        };
        self.ring.push(&NetifRxResponse { id: buffer.id, offset, flags: checksum | more, status: bytes as i16 })
    }

    /// Says that a packet begins with `bytes` bytes at the start of `buffer`, and is larger than a frame: how it is to be cut is
    /// said in the place of `extra`, which holds no data. Its checksum is blank. Only for a front end that has asked for it.
    pub fn deliver_large(
        &mut self,
        buffer: RxBuffer,
        bytes: u16,
        extra: RxBuffer,
        gso: Gso,
        more: More,
    ) -> Result<(), RingError> {
        if u32::from(bytes) > PAGE_BYTES {
            self.fail(buffer, TxOutcome::Failed)?;
            return self.fail(extra, TxOutcome::Failed);
        }
        let more = if more == More::Follows { NETRXF_MORE_DATA } else { 0 };
        let flags = NETRXF_EXTRA_INFO | NETRXF_CSUM_BLANK | NETRXF_DATA_VALIDATED | more;
        self.ring.push(&NetifRxResponse { id: buffer.id, offset: 0, flags, status: bytes as i16 })?;
        let kind = if gso.ipv6 { XEN_NETIF_GSO_TYPE_TCPV6 } else { XEN_NETIF_GSO_TYPE_TCPV4 };
        let u = [gso.segment_bytes, kind.into(), 0];
        let info = NetifExtraInfo { kind: XEN_NETIF_EXTRA_TYPE_GSO, flags: 0, u };
        const { assert!(size_of::<NetifExtraInfo>() == size_of::<NetifRxResponse>()) };
        self.ring.push(&NetifRxResponse::read_from_bytes(info.as_bytes()).unwrap_or_default())
    }

    /// Gives a buffer back without a packet.
    pub fn fail(&mut self, buffer: RxBuffer, outcome: TxOutcome) -> Result<(), RingError> {
        self.ring.push(&NetifRxResponse { id: buffer.id, offset: 0, flags: 0, status: outcome.status() })
    }

    /// Shows all answers. `true`: send the event.
    #[must_use = "the peer sleeps until it gets the event that it asked for"]
    pub fn publish(&mut self) -> bool {
        self.ring.publish()
    }

    /// Before sleeping: `true` = there is a buffer.
    pub fn final_check(&mut self) -> Result<bool, RingError> {
        self.ring.final_check()
    }
}

/// Whether a packet goes on in the next slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum More {
    /// This was its last slot.
    Last,
    /// It goes on.
    Follows,
}

/// Why a front end gave up on its back end, or could not go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NetFrontError {
    /// The ring below.
    Ring(RingError),
    /// No slots left: wait for completions.
    Busy,
    /// No fragments, too many, or more than 65535 bytes. Caller's fault.
    Fragments,
    /// The back end answered an id that is not in flight, or not the next.
    UnknownId(u16),
    /// The back end answered with a status that does not exist.
    BadStatus(i16),
    /// The back end used a feature that was not asked for.
    Unexpected(u16),
    /// The back end delivered outside the page.
    OutsidePage,
    /// The back end chained more slots than allowed.
    TooManySlots,
}

impl From<RingError> for NetFrontError {
    fn from(error: RingError) -> Self {
        NetFrontError::Ring(error)
    }
}

impl core::fmt::Display for NetFrontError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            NetFrontError::Ring(error) => error.fmt(f),
            NetFrontError::Busy => f.write_str("no slot is free now"),
            NetFrontError::Fragments => f.write_str("a packet cannot be made of these fragments"),
            NetFrontError::UnknownId(id) => write!(f, "back end answered slot {id:#x}, which is not the one in flight"),
            NetFrontError::BadStatus(status) => write!(f, "back end answered with status {status}"),
            NetFrontError::Unexpected(flags) => write!(f, "back end answered with flags {flags:#x}"),
            NetFrontError::OutsidePage => f.write_str("back end delivered outside the page"),
            NetFrontError::TooManySlots => f.write_str("back end chained too many slots"),
        }
    }
}

impl core::error::Error for NetFrontError {}

/// Which bits of a slot's generation fit into an id, above the 8 bits of its index.
const GENERATION_MASK: u32 = 0xff;

/// A slot of a packet that the back end is done with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TxCompletion {
    /// The grant that the fragment was sent with.
    pub gref: u32,
    /// How it ended.
    pub outcome: TxOutcome,
}

/// The interface's end of the tx ring: sends packets. After an error that is the back end's fault every call fails.
#[derive(Debug)]
pub struct TxFront<M> {
    ring: FrontRing<NetTx, M>,
    sent: Slots<u32, RING_SLOTS>,
    broken: Option<NetFrontError>,
}

impl<M: SharedMemory> TxFront<M> {
    /// Initialises the ring in `memory`.
    pub fn new(memory: M) -> Result<Self, RingError> {
        Ok(Self { ring: FrontRing::new(memory)?, sent: Slots::new(), broken: None })
    }

    /// Slots that are free: a packet takes one for each fragment.
    #[must_use]
    pub fn free(&self) -> usize {
        self.sent.free().min(self.ring.free() as usize)
    }

    /// Queues a packet of 1 to 18 fragments; all or nothing. Each fragment ends in a [`TxCompletion`] of its own.
    pub fn send(&mut self, fragments: &[Fragment], checksum: Checksum) -> Result<(), NetFrontError> {
        self.broken.map_or(Ok(()), Err)?;
        let total: u32 = fragments.iter().map(|fragment| u32::from(fragment.bytes)).sum();
        let total = u16::try_from(total).map_err(|_| NetFrontError::Fragments)?;
        if fragments.is_empty() || fragments.len() > XEN_NETIF_NR_SLOTS_MIN {
            return Err(NetFrontError::Fragments);
        }
        if fragments.len() > self.free() {
            return Err(NetFrontError::Busy);
        }
        let checksum = match checksum {
            Checksum::InPacket => 0,
            Checksum::Validated => NETTXF_DATA_VALIDATED,
            Checksum::Blank => NETTXF_CSUM_BLANK | NETTXF_DATA_VALIDATED,
        };
        for (index, fragment) in fragments.iter().enumerate() {
            let slot = self.sent.insert(fragment.gref).ok_or(NetFrontError::Busy)?;
            let (size, first) = if index == 0 { (total, checksum) } else { (fragment.bytes, 0) };
            let more = if index + 1 < fragments.len() { NETTXF_MORE_DATA } else { 0 };
            self.ring.push(&RawTxSlot::of(&NetifTxRequest {
                gref: fragment.gref,
                offset: fragment.offset,
                flags: first | more,
                id: slot_wire_id(slot),
                size,
            }))?;
        }
        Ok(())
    }

    /// Shows all queued packets. `true`: send the event.
    #[must_use = "the peer sleeps until it gets the event that it asked for"]
    pub fn publish(&mut self) -> bool {
        self.ring.publish()
    }

    /// Takes the next completion.
    pub fn next_completion(&mut self) -> Result<Option<TxCompletion>, NetFrontError> {
        self.broken.map_or(Ok(()), Err)?;
        let Some(response) = self.ring.next_response()? else {
            return Ok(None);
        };
        let completion = self.accept(&response);
        self.broken = completion.err();
        completion.map(Some)
    }

    fn accept(&mut self, response: &NetifTxResponse) -> Result<TxCompletion, NetFrontError> {
        let outcome = match response.status {
            NETIF_RSP_OKAY => TxOutcome::Sent,
            NETIF_RSP_DROPPED => TxOutcome::Dropped,
            NETIF_RSP_ERROR => TxOutcome::Failed,
            status => return Err(NetFrontError::BadStatus(status)),
        };
        let slot = SlotId { index: response.id & 0xff, generation: u32::from(response.id >> 8) };
        let gref = self.sent.remove(slot, GENERATION_MASK).ok_or(NetFrontError::UnknownId(response.id))?;
        Ok(TxCompletion { gref, outcome })
    }

    /// Before sleeping: `true` = there is more.
    pub fn final_check(&mut self) -> Result<bool, NetFrontError> {
        self.broken.map_or(Ok(()), Err)?;
        Ok(self.ring.final_check()?)
    }
}

fn slot_wire_id(slot: SlotId) -> u16 {
    (slot.index & 0xff) | ((slot.generation & GENERATION_MASK) as u16) << 8
}

/// A buffer that the back end has filled or given back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RxPiece {
    /// The grant that the buffer was posted with.
    pub gref: u32,
    /// Where its data is, or that there is none.
    pub data: Option<RxData>,
}

/// Data in a buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RxData {
    /// Offset in the page.
    pub offset: u16,
    /// Bytes; lies within the page.
    pub bytes: u16,
    /// The checksum.
    pub checksum: Checksum,
    /// Whether the packet goes on in the next piece.
    pub more: More,
}

/// The interface's end of the rx ring: posts empty pages and gets packets. After an error that is the back end's fault
/// every call fails.
#[derive(Debug)]
pub struct RxFront<M> {
    ring: FrontRing<NetRx, M>,
    /// Grants of the posted buffers, by position on the ring.
    posted: [u32; RING_SLOTS],
    post_index: u32,
    take_index: u32,
    /// Pieces of the packet so far that have data.
    chained: usize,
    /// Whether packets may be larger than a frame.
    takes: Takes,
    /// The next piece has extra information of the packet, and how the packet goes on behind it.
    extra: Option<(Checksum, More)>,
    broken: Option<NetFrontError>,
}

/// What packets an interface takes: what it has told its back end.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Takes {
    /// Frames.
    #[default]
    Frames,
    /// Packets of TCP over IPv4 that are larger too: it has `feature-gso-tcpv4`, and so takes blank checksums.
    Large,
}

impl<M: SharedMemory> RxFront<M> {
    /// Initialises the ring in `memory`.
    pub fn new(memory: M) -> Result<Self, RingError> {
        Ok(Self {
            ring: FrontRing::new(memory)?,
            posted: [0; RING_SLOTS],
            post_index: 0,
            take_index: 0,
            chained: 0,
            takes: Takes::Frames,
            extra: None,
            broken: None,
        })
    }

    /// Says what it takes. A larger packet has an empty piece where it says how it is to be cut.
    #[must_use]
    pub fn taking(mut self, takes: Takes) -> Self {
        self.takes = takes;
        self
    }

    /// Buffers that can be posted now.
    #[must_use]
    pub fn free(&self) -> usize {
        (self.ring.free() as usize).min(RING_SLOTS - self.posted_count())
    }

    /// Buffers that the back end has.
    #[must_use]
    pub fn posted_count(&self) -> usize {
        self.post_index.wrapping_sub(self.take_index) as usize
    }

    /// Posts an empty page, granted writable.
    pub fn post(&mut self, gref: u32) -> Result<(), NetFrontError> {
        self.broken.map_or(Ok(()), Err)?;
        if self.free() == 0 {
            return Err(NetFrontError::Busy);
        }
        self.ring.push(&NetifRxRequest { id: self.post_index as u16, pad: 0, gref })?;
        self.posted[self.post_index as usize % RING_SLOTS] = gref;
        self.post_index = self.post_index.wrapping_add(1);
        Ok(())
    }

    /// Shows all posted buffers. `true`: send the event.
    #[must_use = "the peer sleeps until it gets the event that it asked for"]
    pub fn publish(&mut self) -> bool {
        self.ring.publish()
    }

    /// Takes the next buffer back.
    pub fn next_piece(&mut self) -> Result<Option<RxPiece>, NetFrontError> {
        self.broken.map_or(Ok(()), Err)?;
        let Some(response) = self.ring.next_response()? else {
            return Ok(None);
        };
        let piece = self.accept(&response);
        self.broken = piece.err();
        piece.map(Some)
    }

    fn accept(&mut self, response: &NetifRxResponse) -> Result<RxPiece, NetFrontError> {
        // Extra information has no id.
        let id_is_wrong = self.extra.is_none() && response.id != self.take_index as u16;
        if self.posted_count() == 0 || id_is_wrong {
            return Err(NetFrontError::UnknownId(response.id));
        }
        let gref = self.posted[self.take_index as usize % RING_SLOTS];
        let data = match self.extra.take() {
            Some((checksum, more)) => Some(self.accept_extra(response, checksum, more)?),
            None => self.accept_data(response)?,
        };
        self.take_index = self.take_index.wrapping_add(1);
        Ok(RxPiece { gref, data })
    }

    fn accept_data(&mut self, response: &NetifRxResponse) -> Result<Option<RxData>, NetFrontError> {
        let bytes = match response.status {
            NETIF_RSP_ERROR | NETIF_RSP_DROPPED => {
                self.chained = 0;
                return Ok(None);
            }
            status => u16::try_from(status).map_err(|_| NetFrontError::BadStatus(status))?,
        };
        let flags = response.flags;
        // Extra information changes how the next slot is read; it comes with the first piece of what we have asked for, only.
        let extra = if self.takes == Takes::Large && self.chained == 0 { NETRXF_EXTRA_INFO } else { 0 };
        if flags & !(NETRXF_DATA_VALIDATED | NETRXF_CSUM_BLANK | NETRXF_MORE_DATA | extra) != 0 {
            return Err(NetFrontError::Unexpected(flags & (NETRXF_EXTRA_INFO | !NETRXF_MORE_DATA)));
        }
        if u32::from(response.offset) + u32::from(bytes) > PAGE_BYTES {
            return Err(NetFrontError::OutsidePage);
        }
        let mut more = if flags & NETRXF_MORE_DATA != 0 { More::Follows } else { More::Last };
        let checksum = checksum_of(flags & NETRXF_CSUM_BLANK, flags & NETRXF_DATA_VALIDATED);
        if flags & NETRXF_EXTRA_INFO != 0 {
            self.extra = Some((checksum, more));
            more = More::Follows;
        }
        self.chained = match more {
            More::Last => 0,
            More::Follows if self.chained + 1 >= XEN_NETIF_NR_SLOTS_MIN => return Err(NetFrontError::TooManySlots),
            More::Follows => self.chained + 1,
        };
        Ok(Some(RxData { offset: response.offset, bytes, checksum, more }))
    }

    /// Only how the packet is to be cut is expected, which a receiver need not know.
    fn accept_extra(
        &mut self,
        response: &NetifRxResponse,
        checksum: Checksum,
        more: More,
    ) -> Result<RxData, NetFrontError> {
        let extra: NetifExtraInfo = RawTxSlot::of(response).view();
        let good = extra.kind == XEN_NETIF_EXTRA_TYPE_GSO && extra.flags == 0;
        if !good || gso_of(&extra).map_or(true, |gso| gso.ipv6) {
            return Err(NetFrontError::Unexpected(NETRXF_EXTRA_INFO));
        }
        if more == More::Last {
            self.chained = 0;
        }
        Ok(RxData { offset: 0, bytes: 0, checksum, more })
    }

    /// Before sleeping: `true` = there is more.
    pub fn final_check(&mut self) -> Result<bool, NetFrontError> {
        self.broken.map_or(Ok(()), Err)?;
        Ok(self.ring.final_check()?)
    }
}
