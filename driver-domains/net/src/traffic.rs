//! Moves frames: uplink to vifs, vifs to uplink and each other. Each direction works in batches, with one grant copy
//! hypercall for all frames of a batch.

use crate::buffers::Buffers;
use crate::nic::Nic;
use crate::vif::Vif;
use alloc::vec::Vec;
use net_domain::checksum;
use net_domain::frame::{self, FRAME_MAX, HEAD_BYTES};
use net_domain::pool::{BACKLOG_MAX, Buffer, Held};
use net_domain::switch::{Ingress, PORTS_MAX, Switch, Targets};
use runtime::GrantRef;
use runtime::grant::copy::Remote;
use virtio::copies::Copies;
use virtio::queue::DeviceFault;
use xen_rings::netif::{Checksum, More, NetBackError, RxBuffer, TxOutcome, TxPacket};

/// Frames from the uplink in one round.
const UPLINK_BATCH: usize = 128;
/// Packets of one vif in one round: so a busy one cannot keep the others waiting.
const VIF_TURN: usize = 64;
/// Frames to one vif in one round.
const DELIVERY_TURN: usize = 128;
/// Buffers of the pool: both queues of the card, a batch, and what waits for vifs.
pub const POOL: u16 = 2048;
/// Of these, how many may wait for all vifs together.
const BACKLOG_BUDGET: usize = 1280;
const _: () = assert!(2 * crate::nic::QUEUE + VIF_TURN + BACKLOG_BUDGET < POOL as usize);

/// A packet that is being copied from a front end.
struct Incoming {
    vif: usize,
    packet: TxPacket,
    buffer: Buffer,
    /// Its copies in the batch.
    copies: core::ops::Range<usize>,
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
        incoming.iter().for_each(|packet| self.arrived(packet));
        incoming.clear();
        self.incoming = incoming; // keeps its capacity
    }

    /// Adds a vif's packets to the batch. A vif that stays `ready` has more.
    fn collect(&mut self, at: usize) {
        let Some(vif) = self.vifs.get_mut(at).filter(|vif| vif.ready) else {
            return;
        };
        for _ in 0..VIF_TURN {
            // Without room on the wire packets stay with their senders, which slows them down instead of losing any.
            if self.nic.as_ref().is_some_and(|nic| nic.room() <= self.incoming.len()) {
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
            match copy_in(&mut self.buffers, &mut self.copies, vif, &packet) {
                Ok((buffer, copies)) => self.incoming.push(Incoming { vif: at, packet, buffer, copies }),
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

/// Adds the copies of a packet's fragments to the batch, one behind the other in a buffer.
fn copy_in(
    buffers: &mut Buffers,
    copies: &mut Copies,
    vif: &mut Vif,
    packet: &TxPacket,
) -> Result<(Buffer, core::ops::Range<usize>), TxOutcome> {
    if packet.gso.is_some() || usize::from(packet.bytes) > FRAME_MAX {
        vif.counters.misshapen += 1;
        vif.complain(format_args!("a packet of {} bytes", packet.bytes));
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
        if buffers.fill(copies, place, buffer, offset, fragment.bytes()).is_err() {
            buffers.pool.release(buffer);
            vif.counters.failed += 1;
            return Err(TxOutcome::Failed);
        }
        offset += usize::from(fragment.bytes());
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
