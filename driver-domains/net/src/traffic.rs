//! Moves frames: uplink to vifs, vifs to uplink and each other. Each direction works in batches, with one grant copy
//! hypercall for all frames of a batch; two, if there are packets to be cut into frames: first their headers are copied and
//! checked, and then each segment's payload goes to its place behind headers that we have written.

use crate::buffers::Buffers;
use crate::nic::Nic;
use crate::vif::Vif;
use alloc::vec::Vec;
use core::ops::Range;
use net_domain::checksum;
use net_domain::frame::{self, FRAME_MAX, HEAD_BYTES};
use net_domain::layout::Layout;
use net_domain::pool::{BACKLOG_MAX, Buffer, Held};
use net_domain::segment::{self, HEADERS_MAX, SEGMENTS_MAX, Segmentation};
use net_domain::switch::{Ingress, PORTS_MAX, Switch, Targets};
use runtime::grant::copy::Remote;
use runtime::pages::PAGE;
use runtime::{DomId, GrantRef};
use virtio::copies::Copies;
use virtio::queue::DeviceFault;
use xen_rings::netif::{Checksum, Fragment, Gso, More, NetBackError, RxBuffer, TxOutcome, TxPacket};

/// Frames from the uplink in one round.
const UPLINK_BATCH: usize = 128;
/// Packets of one vif in one round: so a busy one cannot keep the others waiting.
const VIF_TURN: usize = 64;
/// Frames to one vif in one round.
const DELIVERY_TURN: usize = 128;
/// Frames that packets of all vifs may become in one round, but for those of the last.
const ROUND: usize = 256;
/// Buffers of the pool: both queues of the card, a batch, what waits for the card and what waits for vifs.
pub const POOL: u16 = 3072;
/// Of these, how many may wait for all vifs together.
const BACKLOG_BUDGET: usize = 1280;
const _: () = assert!(
    2 * crate::nic::QUEUE + ROUND + SEGMENTS_MAX + crate::nic::WAITING_MAX + BACKLOG_BUDGET < POOL as usize
        && VIF_TURN < ROUND
);

/// A packet that is being copied from a front end.
struct Incoming {
    vif: usize,
    packet: TxPacket,
    buffer: Buffer,
    /// Its copies in the batch: those of all of it, or of its headers.
    copies: Range<usize>,
    /// What is known of it beside, if it is to be cut.
    large: Option<Large>,
}

/// A packet that is to be cut into frames.
struct Large {
    /// Bytes of payload of a segment.
    segment_bytes: u16,
    /// Where its data lies, in [`Traffic::fragments`].
    fragments: Range<usize>,
    /// How it is cut and who gets it, once its headers are checked.
    cut: Option<Cut>,
}

struct Cut {
    segmentation: Segmentation,
    way: Way,
    /// In [`Traffic::payloads`].
    copies: Range<usize>,
}

/// What becomes of a large packet.
enum Way {
    /// It is cut into frames, which are in these of [`Traffic::segments`], for all of the targets.
    Frames(Targets, Range<usize>),
    /// It goes as it is to one vif that takes such packets, straight from page to page, into these of [`Traffic::taken`]: the
    /// first, the one for extra information, the others.
    Whole(usize, Range<usize>),
}

/// A frame that is being copied to a front end.
struct Outgoing {
    vif: usize,
    frame: Held,
    buffer: RxBuffer,
}

/// The switch and all that moves.
pub struct Traffic {
    /// The uplink, if there is one.
    pub nic: Option<Nic>,
    /// Who is where.
    pub switch: Switch,
    /// Connected vifs.
    pub vifs: Vec<Vif>,
    /// Index in `vifs` by port.
    by_port: [Option<usize>; PORTS_MAX],
    buffers: Buffers,
    /// Whose turn is first.
    first: usize,
    copies: Copies,
    incoming: Vec<Incoming>,
    /// Frames that `incoming` becomes, at most.
    pending: usize,
    /// Of packets to be cut: where their data lies, the copies of their payloads, and the buffers of their frames.
    fragments: Vec<Fragment>,
    payloads: Copies,
    segments: Vec<Buffer>,
    /// Buffers of front ends for packets that go there whole, and how many bytes each gets.
    taken: Vec<(RxBuffer, u16)>,
    outgoing: Vec<Outgoing>,
    /// Frames from the uplink that were for nobody here.
    pub unclaimed: u64,
}

impl Traffic {
    /// A switch without vifs.
    pub fn new(buffers: Buffers, nic: Option<Nic>) -> Self {
        Self {
            nic,
            switch: Switch::default(),
            vifs: Vec::new(),
            by_port: [None; PORTS_MAX],
            buffers,
            first: 0,
            copies: Copies::with_capacity(4 * VIF_TURN),
            incoming: Vec::with_capacity(4 * VIF_TURN),
            pending: 0,
            fragments: Vec::new(),
            payloads: Copies::default(),
            segments: Vec::new(),
            taken: Vec::new(),
            outgoing: Vec::with_capacity(4 * DELIVERY_TURN),
            unclaimed: 0,
        }
    }

    /// Connects a vif, which has a port of the switch already.
    pub fn add(&mut self, vif: Vif) -> &mut Vif {
        self.vifs.push(vif);
        self.index();
        let last = self.vifs.len() - 1;
        &mut self.vifs[last]
    }

    /// Disconnects a vif: its frames are dropped, its port is free.
    pub fn remove(&mut self, at: usize) -> Vif {
        let mut vif = self.vifs.swap_remove(at);
        vif.backlog.clear(&mut self.buffers.pool);
        self.switch.remove(vif.port);
        self.index();
        vif
    }

    fn index(&mut self) {
        self.by_port = [None; PORTS_MAX];
        for (at, vif) in self.vifs.iter().enumerate() {
            self.by_port[vif.port.index()] = Some(at);
        }
    }

    /// One round in all directions. `true`: there may be more to do at once.
    pub fn round(&mut self) -> Result<bool, DeviceFault> {
        let mut busy = self.take_from_uplink()?;
        self.take_from_vifs();
        busy |= self.deliver();
        if let Some(nic) = &mut self.nic {
            nic.flush(&mut self.buffers)?;
            nic.refill(&mut self.buffers);
        }
        self.vifs.iter_mut().for_each(Vif::publish);
        // With packets left but no room on the wire the card's interrupt goes on: `flush` has asked for it.
        let room = self.nic.as_ref().is_none_or(|nic| nic.room() != 0);
        Ok(busy || room && self.vifs.iter().any(|vif| vif.ready))
    }

    fn take_from_uplink(&mut self) -> Result<bool, DeviceFault> {
        for _ in 0..UPLINK_BATCH {
            let Some(nic) = &mut self.nic else { return Ok(false) };
            let Some(frame) = nic.next_frame(&mut self.buffers)? else {
                return Ok(false);
            };
            let mut head = [0; HEAD_BYTES];
            let filled = self.buffers.head(frame, &mut head);
            let targets = match frame::addresses(&head[..filled], frame.bytes.into()) {
                Ok(addresses) => self.switch.forward(Ingress::Uplink, addresses),
                Err(_) => Targets::default(),
            };
            self.unclaimed += u64::from(targets.is_empty());
            self.pass_on(frame, targets);
        }
        Ok(true)
    }

    /// Hands a frame to all its targets and gives up our own hold on it.
    fn pass_on(&mut self, frame: Held, targets: Targets) {
        if targets.uplink
            && let Some(nic) = &mut self.nic
        {
            nic.send(&mut self.buffers, frame);
        }
        let limit = (BACKLOG_BUDGET / self.vifs.len().max(1)).min(BACKLOG_MAX);
        for port in targets.vifs() {
            if let Some(vif) = self.by_port[port.index()].and_then(|at| self.vifs.get_mut(at)) {
                vif.backlog.push(&mut self.buffers.pool, frame, limit);
            }
        }
        self.buffers.pool.release(frame.buffer);
    }

    /// Takes packets from the vifs that have some, another vif first each time.
    fn take_from_vifs(&mut self) {
        self.copies.clear();
        let count = self.vifs.len();
        for step in 0..count {
            self.collect((self.first + step) % count);
        }
        self.first = if count == 0 { 0 } else { (self.first + 1) % count };
        self.copies.run();
        let mut incoming = core::mem::take(&mut self.incoming);
        if !self.fragments.is_empty() {
            // Vifs from which something has gone the longer way in this round: what comes later must not overtake it.
            let mut behind = 0u64;
            for packet in &mut incoming {
                let from = self.vifs.get(packet.vif).map_or(0, |vif| 1 << (vif.port.index() % PORTS_MAX));
                if packet.large.is_none() || !self.cut(packet, behind & from == 0) {
                    behind |= from;
                }
            }
            self.payloads.run();
        }
        // In the order in which they came.
        incoming.iter().for_each(|packet| match &packet.large {
            None => self.arrived(packet),
            Some(large) => self.arrived_large(packet, large),
        });
        incoming.clear();
        self.pending = 0;
        self.fragments.clear();
        self.payloads.clear();
        self.segments.clear();
        self.taken.clear();
        self.incoming = incoming; // keeps its capacity
    }

    /// Adds a vif's packets to the batch. A vif that stays `ready` has more.
    fn collect(&mut self, at: usize) {
        let Some(vif) = self.vifs.get_mut(at).filter(|vif| vif.ready) else {
            return;
        };
        vif.bulk = false;
        for _ in 0..VIF_TURN {
            // Without room on the wire packets stay with their senders, which slows them down instead of losing any.
            if self.pending >= ROUND || self.nic.as_ref().is_some_and(|nic| nic.room() <= self.pending) {
                return;
            }
            let packet = match vif.tx.next_packet() {
                Ok(Some(Ok(packet))) => packet,
                Ok(Some(Err(fault))) => {
                    (vif.answered, vif.counters.failed) = (true, vif.counters.failed + 1);
                    vif.complain(format_args!("bad packet: {fault:?}"));
                    continue;
                }
                Ok(None) => match vif.tx.final_check() {
                    Ok(true) => continue,
                    Ok(false) => {
                        vif.ready = false;
                        return;
                    }
                    Err(error) => {
                        vif.fail(error);
                        return;
                    }
                },
                Err(error) => {
                    vif.fail(error);
                    return;
                }
            };
            let large = packet.gso.map(|gso| gso.segment_bytes);
            match copy_in(&mut self.buffers, &mut self.copies, vif, &packet) {
                Ok((buffer, copies)) => {
                    vif.bulk |= large.is_some();
                    self.pending += large.map_or(1, |bytes| segment::segments_at_most(packet.bytes.into(), bytes));
                    let large = large.map(|segment_bytes| {
                        let start = self.fragments.len();
                        self.fragments.extend_from_slice(vif.tx.fragments(&packet));
                        Large { segment_bytes, fragments: start..self.fragments.len(), cut: None }
                    });
                    self.incoming.push(Incoming { vif: at, packet, buffer, copies, large });
                }
                Err(outcome) => answer(vif, &packet, outcome),
            }
        }
    }

    /// A packet has been copied: it is checked, answered and passed on.
    fn arrived(&mut self, incoming: &Incoming) {
        let Some(vif) = self.vifs.get_mut(incoming.vif) else {
            return;
        };
        let frame = Held { buffer: incoming.buffer, bytes: incoming.packet.bytes };
        let copied = incoming.copies.clone().try_for_each(|copy| self.copies.outcome(copy));
        if let Err(error) = copied {
            vif.counters.failed += 1;
            vif.complain(format_args!("a packet's page: {error}"));
            answer(vif, &incoming.packet, TxOutcome::Failed);
            self.buffers.pool.release(frame.buffer);
            return;
        }
        let mut head = [0; HEAD_BYTES];
        let filled = self.buffers.head(frame, &mut head);
        match vif.guard.check(&head[..filled], frame.bytes.into()) {
            Ok(addresses) => {
                vif.counters.sent += 1;
                answer(vif, &incoming.packet, TxOutcome::Sent);
                let targets = self.switch.forward(Ingress::Vif(vif.port), addresses);
                if incoming.packet.checksum == Checksum::Blank {
                    fill_checksum(&mut self.buffers, frame);
                }
                self.pass_on(frame, targets);
            }
            Err(why) => {
                vif.counters.refused(why);
                vif.complain(format_args!("frame refused: {why:?}"));
                answer(vif, &incoming.packet, TxOutcome::Dropped);
                self.buffers.pool.release(frame.buffer);
            }
        }
    }

    /// The headers of a large packet have been copied: they are checked, and its payload is added to the batch. Where
    /// anything is wrong, `cut` stays empty. `true`: it goes, if `may_go_whole`, to its receiver as it is.
    fn cut(&mut self, incoming: &mut Incoming, may_go_whole: bool) -> bool {
        let Some((segmentation, targets)) = self.check_large(incoming) else { return false };
        let first_copy = self.payloads.len();
        let whole = if may_go_whole { self.pass_whole(incoming, &segmentation, targets) } else { None };
        let is_whole = whole.is_some();
        let way = whole.or_else(|| self.cut_into_frames(incoming, &segmentation, targets));
        if let (Some(way), Some(large)) = (way, &mut incoming.large) {
            large.cut = Some(Cut { segmentation, way, copies: first_copy..self.payloads.len() });
        }
        is_whole
    }

    /// Checks the headers of a large packet, and finds out who gets it.
    fn check_large(&mut self, incoming: &Incoming) -> Option<(Segmentation, Targets)> {
        let (vif, large) = self.vifs.get_mut(incoming.vif).zip(incoming.large.as_ref())?;
        let bytes = usize::from(incoming.packet.bytes);
        let mut head = [0; HEADERS_MAX];
        let head = &mut head[..bytes.min(HEADERS_MAX)];
        let copied = incoming.copies.clone().try_for_each(|copy| self.copies.outcome(copy));
        if let Err(error) = copied {
            vif.complain(format_args!("a packet's page: {error}"));
            return None;
        }
        if !self.buffers.read(incoming.buffer, head) {
            return None;
        }
        let addresses = match vif.guard.check(head, bytes.min(FRAME_MAX)) {
            Ok(addresses) => addresses,
            Err(why) => {
                vif.counters.refused(why);
                vif.complain(format_args!("frame refused: {why:?}"));
                return None;
            }
        };
        match Segmentation::new(head, bytes, large.segment_bytes) {
            Ok(segmentation) => Some((segmentation, self.switch.forward(Ingress::Vif(vif.port), addresses))),
            Err(why) => {
                vif.complain(format_args!("a packet cannot be cut: {why:?}"));
                None
            }
        }
    }

    /// Adds the copies of a large packet that goes as it is to a vif that takes it, has buffers for all of it, and nothing that
    /// waits. The headers come from our copy, which was checked.
    fn pass_whole(&mut self, incoming: &Incoming, segmentation: &Segmentation, targets: Targets) -> Option<Way> {
        let mut receivers = targets.vifs();
        let (receiver, None, false) = (receivers.next()?, receivers.next(), targets.uplink) else { return None };
        let at = self.by_port[receiver.index()]?;
        let peer = self.vifs.get(incoming.vif)?.id.frontend;
        let vif =
            self.vifs.get_mut(at).filter(|vif| vif.takes_large && vif.backlog.is_empty() && vif.broken.is_none())?;
        let fragments = incoming.large.as_ref().and_then(|large| self.fragments.get(large.fragments.clone()));
        let head = segmentation.header_bytes();
        let source = || Source { peer, fragments: fragments.unwrap_or_default(), skip: head };
        let mut pieces = source();
        let pieces = core::iter::from_fn(|| pieces.next(PAGE).map(|(_, bytes)| bytes));
        let layout = Layout::new(head as u16, incoming.packet.bytes, pieces);
        if (vif.rx.available().ok()? as usize) < layout.places().len() {
            return None;
        }
        let (first, first_copy) = (self.taken.len(), self.payloads.len());
        for &held in layout.places() {
            let Ok(Some(buffer)) = vif.rx.next_buffer() else { break };
            self.taken.push((buffer, held));
        }
        let taken = self.taken.get(first..).unwrap_or_default();
        let mut source = source();
        let mut good = taken.len() == layout.places().len();
        for (place, &(buffer, held)) in taken.iter().enumerate() {
            let to = |offset| Remote { peer: vif.id.frontend, reference: GrantRef(buffer.gref()), offset };
            let mut offset = 0;
            if place == 0 {
                good &= self.buffers.deliver_head(&mut self.payloads, incoming.buffer, head as u16, to(0)).is_ok();
                offset = head;
            }
            while good && offset < usize::from(held) {
                let Some((from, bytes)) = source.next(usize::from(held) - offset) else {
                    good = false;
                    break;
                };
                good &= self.payloads.between(from, to(offset), bytes).is_ok();
                offset += usize::from(bytes);
            }
        }
        if !good {
            // The ring is not what it said, or a copy cannot be expressed: what was taken is given back.
            for (buffer, _) in self.taken.drain(first..) {
                vif.delivered = true;
                if let Err(error) = vif.rx.fail(buffer, TxOutcome::Failed) {
                    vif.fail(error);
                }
            }
            self.payloads.truncate(first_copy);
            return None;
        }
        Some(Way::Whole(at, first..self.taken.len()))
    }

    /// Adds the copies of a large packet that is cut into frames.
    fn cut_into_frames(&mut self, incoming: &Incoming, segmentation: &Segmentation, targets: Targets) -> Option<Way> {
        let (vif, large) = self.vifs.get_mut(incoming.vif).zip(incoming.large.as_ref())?;
        let first_buffer = self.segments.len();
        // The first segment is where the headers are.
        self.segments.push(incoming.buffer);
        for _ in 1..segmentation.count() {
            let Some(buffer) = self.buffers.pool.take() else {
                vif.counters.starved += 1;
                self.segments.drain(first_buffer + 1..).for_each(|buffer| self.buffers.pool.release(buffer));
                self.segments.truncate(first_buffer);
                return None;
            };
            self.segments.push(buffer);
        }
        let fragments = self.fragments.get(large.fragments.clone()).unwrap_or_default();
        let mut source = Source { peer: vif.id.frontend, fragments, skip: segmentation.header_bytes() };
        for (segment, &buffer) in self.segments[first_buffer..].iter().enumerate() {
            let (mut offset, mut left) = (segmentation.header_bytes(), segmentation.payload(segment).len());
            while left != 0
                && let Some((from, bytes)) = source.next(left)
            {
                if self.buffers.fill(&mut self.payloads, from, buffer, offset, bytes).is_err() {
                    break; // something is missing
                }
                (offset, left) = (offset + usize::from(bytes), left - usize::from(bytes));
            }
            if left != 0 {
                self.segments.drain(first_buffer + 1..).for_each(|buffer| self.buffers.pool.release(buffer));
                self.segments.truncate(first_buffer);
                return None;
            }
        }
        Some(Way::Frames(targets, first_buffer..self.segments.len()))
    }

    /// A large packet has been copied, or is refused: it is answered, and it or its frames are passed on.
    fn arrived_large(&mut self, incoming: &Incoming, large: &Large) {
        let Some(vif) = self.vifs.get_mut(incoming.vif) else { return };
        let copied = match &large.cut {
            Some(cut) => cut.copies.clone().try_for_each(|copy| {
                self.payloads.outcome(copy).map_err(|error| vif.complain(format_args!("a packet's page: {error}")))
            }),
            None => Err(()),
        };
        let segments = large.cut.as_ref().map_or(0, |cut| cut.segmentation.count());
        match copied {
            Ok(()) => vif.counters.sent += segments as u64,
            Err(()) => vif.counters.failed += 1,
        }
        answer(vif, &incoming.packet, if copied.is_ok() { TxOutcome::Sent } else { TxOutcome::Failed });
        match large.cut.as_ref().map(|cut| (&cut.segmentation, &cut.way)) {
            None => self.buffers.pool.release(incoming.buffer),
            Some((_, Way::Whole(receiver, taken))) => {
                self.buffers.pool.release(incoming.buffer);
                self.answer_whole(*receiver, taken.clone(), large.segment_bytes, segments, copied);
            }
            Some((segmentation, Way::Frames(targets, buffers))) => {
                for (segment, number) in buffers.clone().enumerate() {
                    let Some(&buffer) = self.segments.get(number) else { return };
                    if copied.is_ok() {
                        self.send_segment(segmentation, segment, buffer, *targets);
                    } else {
                        self.buffers.pool.release(buffer);
                    }
                }
            }
        }
    }

    /// Writes the headers of a segment, whose payload is in its place, and passes it on.
    fn send_segment(&mut self, segmentation: &Segmentation, segment: usize, buffer: Buffer, targets: Targets) {
        let (head, payload) = (segmentation.header_bytes(), segmentation.payload(segment).len());
        let sum = self.buffers.sum(buffer, head, payload);
        self.buffers.patch(buffer, 0, segmentation.headers(segment, sum).bytes());
        self.pass_on(Held { buffer, bytes: (head + payload) as u16 }, targets);
    }

    /// Says to a receiver what is in its buffers.
    fn answer_whole(
        &mut self,
        receiver: usize,
        taken: Range<usize>,
        segment_bytes: u16,
        segments: usize,
        copied: Result<(), ()>,
    ) {
        let Some(vif) = self.vifs.get_mut(receiver) else { return };
        let Some(taken) = self.taken.get(taken) else { return };
        let gso = Gso { segment_bytes, ipv6: false };
        let told = match (copied, taken) {
            (Ok(()), &[(first, bytes), (extra, _), ref rest @ ..]) => {
                let more = |left: usize| if left == 0 { More::Last } else { More::Follows };
                let first = vif.rx.deliver_large(first, bytes, extra, gso, more(rest.len()));
                vif.counters.received += segments as u64;
                rest.iter().enumerate().fold(first, |told, (number, &(buffer, bytes))| {
                    told?;
                    vif.rx.deliver(buffer, 0, bytes, Checksum::InPacket, more(rest.len() - number - 1))
                })
            }
            _ => taken.iter().try_for_each(|&(buffer, _)| vif.rx.fail(buffer, TxOutcome::Failed)),
        };
        vif.delivered = true;
        if let Err(error) = told {
            vif.fail(error);
        }
    }

    /// Copies frames that wait into the front ends' pages.
    fn deliver(&mut self) -> bool {
        self.copies.clear();
        let mut busy = false;
        for at in 0..self.vifs.len() {
            busy |= self.collect_deliveries(at);
        }
        self.copies.run();
        let mut outgoing = core::mem::take(&mut self.outgoing);
        for (copy, delivery) in outgoing.drain(..).enumerate() {
            if let Some(vif) = self.vifs.get_mut(delivery.vif) {
                let result = match self.copies.outcome(copy) {
                    Ok(()) => {
                        vif.counters.received += 1;
                        vif.rx.deliver(delivery.buffer, 0, delivery.frame.bytes, Checksum::InPacket, More::Last)
                    }
                    Err(error) => {
                        vif.complain(format_args!("a receive page: {error}"));
                        vif.counters.failed += 1;
                        vif.rx.fail(delivery.buffer, TxOutcome::Failed)
                    }
                };
                vif.delivered = true;
                if let Err(error) = result {
                    vif.fail(error);
                }
            }
            self.buffers.pool.release(delivery.frame.buffer);
        }
        self.outgoing = outgoing;
        busy
    }

    /// Adds frames for a vif to the batch: as many as it has buffers for. `true`: there may be more.
    fn collect_deliveries(&mut self, at: usize) -> bool {
        let Some(vif) = self.vifs.get_mut(at).filter(|vif| vif.broken.is_none()) else {
            return false;
        };
        for _ in 0..DELIVERY_TURN {
            if vif.backlog.is_empty() {
                return false;
            }
            let buffer = match vif.rx.next_buffer() {
                Ok(Some(buffer)) => buffer,
                Ok(None) => match vif.rx.final_check() {
                    Ok(true) => continue,
                    Ok(false) => return false, // an event tells when there are buffers
                    Err(error) => {
                        vif.fail(error);
                        return false;
                    }
                },
                Err(error) => {
                    vif.fail(error);
                    return false;
                }
            };
            let Some(frame) = vif.backlog.pop() else { return false };
            let place = Remote { peer: vif.id.frontend, reference: GrantRef(buffer.gref()), offset: 0 };
            if self.buffers.deliver(&mut self.copies, frame, place).is_ok() {
                self.outgoing.push(Outgoing { vif: at, frame, buffer });
            }
        }
        true
    }

    /// Whether the card has given up.
    pub fn card_failed(&self) -> bool {
        self.nic.as_ref().is_some_and(Nic::needs_reset)
    }

    /// Whether the card has frames to send.
    pub fn card_is_busy(&self) -> bool {
        self.nic.as_ref().is_some_and(Nic::is_busy)
    }

    /// Whether the card has sent nothing since the last time, though it has frames to send since then.
    pub fn card_is_stuck(&mut self) -> Result<bool, DeviceFault> {
        let Some(nic) = &mut self.nic else { return Ok(false) };
        nic.flush(&mut self.buffers)?;
        Ok(nic.is_stuck())
    }

    /// Prints what was done so far.
    pub fn print_counters(&self) {
        if let Some(nic) = &self.nic {
            log::info!("uplink {}: {}, {} for nobody here", nic.id(), nic.counters, self.unclaimed);
        }
        for vif in &self.vifs {
            log::info!("vif {}: {vif}", vif.id);
        }
        let (used, free) = runtime::heap::usage();
        log::info!(
            "{} buffers free; heap: {} KiB used, {} KiB free",
            self.buffers.pool.available(),
            used / 1024,
            free / 1024
        );
    }
}

/// Data of a packet, taken piece by piece.
struct Source<'a> {
    peer: DomId,
    fragments: &'a [Fragment],
    /// Bytes of the first fragments that have been taken.
    skip: usize,
}

impl Source<'_> {
    /// The next piece, of `most` bytes at most: where it lies, and how many they are.
    fn next(&mut self, most: usize) -> Option<(Remote, u16)> {
        loop {
            let fragment = self.fragments.first()?;
            let Some(left) = usize::from(fragment.bytes()).checked_sub(self.skip).filter(|&left| left != 0) else {
                self.skip -= usize::from(fragment.bytes());
                self.fragments = self.fragments.get(1..)?;
                continue;
            };
            let bytes = left.min(most);
            let offset = usize::from(fragment.offset()) + self.skip;
            self.skip += bytes;
            return Some((Remote { peer: self.peer, reference: GrantRef(fragment.gref()), offset }, bytes as u16));
        }
    }
}

/// Adds the copies of a packet's fragments to the batch, one behind the other in a buffer; of one that is to be cut, its
/// headers.
fn copy_in(
    buffers: &mut Buffers,
    copies: &mut Copies,
    vif: &mut Vif,
    packet: &TxPacket,
) -> Result<(Buffer, Range<usize>), TxOutcome> {
    let bytes = usize::from(packet.bytes);
    let wanted = match packet.gso {
        // Not offered over IPv6.
        Some(gso) if !gso.ipv6 && segment::segments_at_most(bytes, gso.segment_bytes) <= SEGMENTS_MAX + 1 => {
            bytes.min(HEADERS_MAX)
        }
        None if bytes <= FRAME_MAX => bytes,
        _ => 0,
    };
    if wanted == 0 {
        vif.counters.misshapen += 1;
        vif.complain(format_args!("a packet of {bytes} bytes, {:?}", packet.gso));
        return Err(TxOutcome::Failed);
    }
    let Some(buffer) = buffers.pool.take() else {
        vif.counters.starved += 1;
        return Err(TxOutcome::Dropped);
    };
    let (start, mut offset) = (copies.len(), 0);
    for fragment in vif.tx.fragments(packet) {
        let place =
            Remote { peer: vif.id.frontend, reference: GrantRef(fragment.gref()), offset: fragment.offset().into() };
        let bytes = usize::from(fragment.bytes()).min(wanted - offset);
        if buffers.fill(copies, place, buffer, offset, bytes as u16).is_err() {
            buffers.pool.release(buffer);
            vif.counters.failed += 1;
            return Err(TxOutcome::Failed);
        }
        offset += bytes;
        if offset == wanted {
            break;
        }
    }
    Ok((buffer, start..copies.len()))
}

fn answer(vif: &mut Vif, packet: &TxPacket, outcome: TxOutcome) {
    vif.answered = true;
    if let Err(error) = vif.tx.answer(packet, outcome) {
        vif.fail(NetBackError::Ring(error));
    }
}

/// Completes a TCP or UDP checksum that the front end left blank.
fn fill_checksum(buffers: &mut Buffers, frame: Held) {
    let mut copy = [0; FRAME_MAX];
    let Some(copy) = copy.get_mut(..usize::from(frame.bytes)) else {
        return;
    };
    if buffers.read(frame.buffer, copy)
        && let Ok(sum) = checksum::transport(copy)
    {
        buffers.patch(frame.buffer, sum.offset, &sum.value);
    }
}
