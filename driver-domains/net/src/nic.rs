//! The virtio network card: the switch's uplink. Thin: whole frames in fixed buffers, no offloads.
//!
//! Virtio 1.2 section 5.1. Queue 0 receives, queue 1 sends. After a reset the device takes frames to any address
//! (section 5.1.6.5.1 lets a driver restrict that through the control queue, which is not negotiated), so vifs may
//! have MAC addresses of their own.

use crate::buffers::{Buffers, DEVICE_HEADER_BYTES};
use core::fmt;
use heapless::Deque;
use net_domain::frame::{FRAME_MAX, HEADER_BYTES, Mac};
use net_domain::pool::{Buffer, Held};
use net_domain::segment::SEGMENTS_MAX;
use runtime::device::Device;
use runtime::event::Channel;
use virtio::queue::{DeviceFault, Queue, SetupError};
use virtio::{DeviceId, DomainHal, InitError, PciTransport, Transport};

/// Descriptors of each queue.
pub const QUEUE: usize = 256;

/// Frames that may wait for room: those of one packet, as none is taken while any wait.
pub const WAITING_MAX: usize = SEGMENTS_MAX;

const RECEIVE: u16 = 0;
const TRANSMIT: u16 = 1;
/// `VIRTIO_NET_F_MAC`: the device has an address.
const FEATURE_MAC: u64 = 1 << 5;
const CONFIG_MAC: usize = 0;

/// Why the card cannot be used.
#[derive(Debug)]
pub enum NicError {
    /// The transport.
    Init(InitError),
    /// A queue.
    Queue(SetupError),
}

impl From<InitError> for NicError {
    fn from(error: InitError) -> Self {
        Self::Init(error)
    }
}

impl From<SetupError> for NicError {
    fn from(error: SetupError) -> Self {
        Self::Queue(error)
    }
}

impl fmt::Display for NicError {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Init(error) => error.fmt(out),
            Self::Queue(SetupError::TooSmall { offered, wanted }) => {
                write!(
                    out,
                    "a queue has {offered} descriptors, {wanted} are needed (QEMU: rx_queue_size, tx_queue_size)"
                )
            }
            Self::Queue(error) => write!(out, "a queue cannot be set up: {error:?}"),
        }
    }
}

/// What the card has done.
#[derive(Clone, Copy, Debug, Default)]
pub struct NicCounters {
    /// Frames received.
    pub received: u64,
    /// Frames sent.
    pub sent: u64,
    /// Frames not sent because the queue was full.
    pub send_drops: u64,
    /// Frames received of an impossible length.
    pub malformed: u64,
}

impl fmt::Display for NicCounters {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { received, sent, send_drops, malformed } = self;
        write!(out, "{received} frames received, {sent} sent, {send_drops} not sent, {malformed} malformed")
    }
}

/// The card.
pub struct Nic {
    transport: PciTransport,
    receive: Queue<DomainHal, QUEUE>,
    transmit: Queue<DomainHal, QUEUE>,
    /// Kept bound: every event makes the domain look at the queues.
    _interrupts: [Channel; 2],
    /// By token: the buffer that the device has.
    receiving: [Option<Buffer>; QUEUE],
    sending: [Option<Buffer>; QUEUE],
    mac: Option<Mac>,
    kick_transmit: bool,
    /// Frames that wait for room in the queue: a packet that becomes many frames is taken when there is room for one.
    waiting: Deque<Held, WAITING_MAX>,
    /// Frames that it had sent when it was last asked and had some to send.
    suspected: Option<u64>,
    /// What it has done.
    pub counters: NicCounters,
}

impl Nic {
    /// Opens the card and gives it buffers to receive into.
    pub fn open(device: &Device, buffers: &mut Buffers) -> Result<Self, NicError> {
        let mut transport = PciTransport::open(device)?;
        let features = transport.negotiate(FEATURE_MAC)?;
        let interrupts = [transport.queue_interrupt(RECEIVE, 0)?, transport.queue_interrupt(TRANSMIT, 1)?];
        transport.no_config_interrupt();
        let receive = Queue::new(&mut transport, RECEIVE)?;
        let mut transmit = Queue::new(&mut transport, TRANSMIT)?;
        transmit.suppress_interrupts();
        let mac = transport.read_config_space::<[u8; 6]>(CONFIG_MAC).ok().map(Mac);
        let mac = mac.filter(|mac| features & FEATURE_MAC != 0 && mac.is_station());
        transport.start()?;
        let mut nic = Self {
            transport,
            receive,
            transmit,
            _interrupts: interrupts,
            receiving: [None; QUEUE],
            sending: [None; QUEUE],
            mac,
            kick_transmit: false,
            waiting: Deque::new(),
            suspected: None,
            counters: NicCounters::default(),
        };
        nic.refill(buffers);
        Ok(nic)
    }

    /// Which device this is.
    pub fn id(&self) -> DeviceId {
        self.transport.id()
    }

    /// The card's own address, if it has one.
    pub fn mac(&self) -> Option<Mac> {
        self.mac
    }

    /// Gives the device buffers to receive into.
    pub fn refill(&mut self, buffers: &mut Buffers) {
        let mut added = false;
        while self.receive.free() != 0 {
            let Some(buffer) = buffers.pool.take() else { break };
            let token =
                buffers.device_chunk(buffer, FRAME_MAX).and_then(|chunk| self.receive.push(&[], &[&[chunk]]).ok());
            match token.and_then(|token| self.receiving.get_mut(token.index())) {
                Some(slot) => *slot = Some(buffer),
                None => {
                    buffers.pool.release(buffer);
                    break;
                }
            }
            added = true;
        }
        if added {
            self.receive.kick(&mut self.transport);
        }
    }

    /// The next received frame; the caller becomes its holder. `None`: no more, an interrupt will tell.
    pub fn next_frame(&mut self, buffers: &mut Buffers) -> Result<Option<Held>, DeviceFault> {
        loop {
            let Some(done) = self.receive.pop()? else {
                if self.receive.request_interrupts() {
                    continue;
                }
                return Ok(None);
            };
            self.receive.suppress_interrupts();
            let Some(buffer) = self.receiving.get_mut(done.token.index()).and_then(Option::take) else {
                continue;
            };
            let bytes = (done.written as usize).saturating_sub(DEVICE_HEADER_BYTES);
            if (HEADER_BYTES..=FRAME_MAX).contains(&bytes) {
                self.counters.received += 1;
                return Ok(Some(Held { buffer, bytes: bytes as u16 }));
            }
            self.counters.malformed += 1;
            buffers.pool.release(buffer);
        }
    }

    /// Queues a frame to be sent, which gains a holder until it is. [`Nic::flush`] tells the device.
    pub fn send(&mut self, buffers: &mut Buffers, frame: Held) {
        if self.transmit.free() != 0 && self.waiting.is_empty() {
            self.push(buffers, frame);
        } else if !buffers.pool.hold(frame.buffer)
            || self.waiting.push_back(frame).is_err_and(|frame| {
                buffers.pool.release(frame.buffer);
                true
            })
        {
            self.counters.send_drops += 1;
        }
    }

    fn push(&mut self, buffers: &mut Buffers, frame: Held) {
        let chunk = buffers.sendable(frame);
        let token = chunk.and_then(|chunk| self.transmit.push(&[&[chunk]], &[]).ok());
        match token.and_then(|token| self.sending.get_mut(token.index())) {
            Some(slot) if buffers.pool.hold(frame.buffer) => {
                *slot = Some(frame.buffer);
                self.kick_transmit = true;
                self.counters.sent += 1;
            }
            _ => self.counters.send_drops += 1,
        }
    }

    /// Tells the device of queued frames and takes back the buffers of sent ones, for as long as that makes room for frames
    /// that wait.
    pub fn flush(&mut self, buffers: &mut Buffers) -> Result<(), DeviceFault> {
        loop {
            if core::mem::take(&mut self.kick_transmit) {
                self.transmit.kick(&mut self.transport);
            }
            self.reclaim(buffers)?;
            while self.transmit.free() != 0
                && let Some(frame) = self.waiting.pop_front()
            {
                self.push(buffers, frame);
                buffers.pool.release(frame.buffer);
            }
            if self.kick_transmit {
                continue;
            }
            // Interrupts are wanted only when there is no room: then someone waits for it.
            if self.transmit.free() != 0 {
                self.transmit.suppress_interrupts();
            } else if self.transmit.request_interrupts() {
                continue;
            }
            return Ok(());
        }
    }

    fn reclaim(&mut self, buffers: &mut Buffers) -> Result<(), DeviceFault> {
        while let Some(done) = self.transmit.pop()? {
            if let Some(buffer) = self.sending.get_mut(done.token.index()).and_then(Option::take) {
                buffers.pool.release(buffer);
            }
        }
        Ok(())
    }

    /// The device has given up.
    pub fn needs_reset(&self) -> bool {
        self.transport.needs_reset()
    }

    /// Whether it has frames to send.
    pub fn is_busy(&self) -> bool {
        !self.transmit.is_idle()
    }

    /// Whether it has frames to send, and has sent none since it was last asked, when it had some too. Call it after
    /// [`Nic::flush`], as sent frames are taken back lazily.
    pub fn is_stuck(&mut self) -> bool {
        let in_flight = QUEUE.saturating_sub(self.transmit.free()) as u64;
        let working = self.is_busy().then_some(self.counters.sent.saturating_sub(in_flight));
        let stuck = working.is_some() && working == self.suspected;
        self.suspected = working;
        stuck
    }

    /// Room for frames to send.
    pub fn room(&self) -> usize {
        if self.waiting.is_empty() { self.transmit.free() } else { 0 }
    }
}
