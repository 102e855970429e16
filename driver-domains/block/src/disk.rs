//! The virtio disk: requests of any shape in flight up to the queue's size, no copies, no allocation per request.
//!
//! Virtio 1.2 section 5.2. A request is a header that the device reads, the data where it lies, and a status byte that
//! the device writes. Headers and status bytes live in a DMA region, one slot for each request that can be in flight,
//! found by the request's token.

use alloc::vec::Vec;
use block_domain::export::Extent;
use block_domain::gpt;
use core::fmt;
use core::sync::atomic::AtomicU64;
use core::sync::atomic::Ordering::Relaxed;
use core::time::Duration;
use gpt_disk_types::BlockSize;
use runtime::Port;
use runtime::device::Device;
use runtime::event::{self, Channel};
use runtime::pages::PAGE;
use runtime::time::now;
use virtio::dma::{Chunk, DmaRegion};
use virtio::queue::{CHUNKS_MAX, DeviceFault, PushError, Queue, SetupError, Token};
use virtio::{DeviceId, DomainHal, InitError, PciTransport, Transport};
use xen_abi::io::blkif::SECTOR_BYTES;

/// Descriptors of the queue.
pub const QUEUE: usize = 256;

const REQUEST_QUEUE: u16 = 0;

/// Feature bits and configuration offsets, virtio 1.2 sections 5.2.3 and 5.2.4.
mod features {
    pub const SIZE_MAX: u64 = 1 << 1;
    pub const SEG_MAX: u64 = 1 << 2;
    pub const READ_ONLY: u64 = 1 << 5;
    pub const BLOCK_SIZE: u64 = 1 << 6;
    pub const FLUSH: u64 = 1 << 9;
    pub const DISCARD: u64 = 1 << 13;
}
mod config {
    pub const CAPACITY: usize = 0;
    pub const SIZE_MAX: usize = 8;
    pub const SEG_MAX: usize = 12;
    pub const BLOCK_SIZE: usize = 20;
    pub const DISCARD_SECTORS_MAX: usize = 36;
    pub const DISCARD_ALIGNMENT: usize = 44;
}

const STATUS_OK: u8 = 0;
/// Not a status of the specification: the device has written none.
const STATUS_NONE: u8 = 0xff;
/// `struct virtio_blk_req` without the data: type and reserved word, sector; then the status byte, which the device
/// writes, and nothing; `struct virtio_blk_discard_write_zeroes`, which is the data of a discard: sector, 32 bits of number of
/// sectors and as many of flags; and nothing.
type Slot = [AtomicU64; 8];
const HEADER_BYTES: usize = 16;
const RANGE_OFFSET: usize = 32;
const RANGE_BYTES: usize = 16;
const BOUNCE_PAGES: usize = 16;
/// How long a request at start-up may take.
const PATIENCE: Duration = Duration::from_secs(30);

/// What to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    /// Disk to memory.
    Read,
    /// Memory to disk.
    Write,
    /// What was written and reported done becomes durable.
    Flush,
    /// What is there is not needed any more.
    Discard,
}

impl Operation {
    /// `VIRTIO_BLK_T_*`.
    fn number(self) -> u32 {
        match self {
            Self::Read => 0,
            Self::Write => 1,
            Self::Flush => 4,
            Self::Discard => 11,
        }
    }
}

/// What the disk is.
#[derive(Clone, Copy, Debug)]
pub struct Facts {
    /// 512-byte sectors.
    pub sectors: u64,
    /// The device refuses writes.
    pub read_only: bool,
    /// The device has a write cache that can be flushed.
    pub flush: bool,
    /// What the device can discard.
    pub discard: Option<Discards>,
    /// Bytes of a logical block: requests are multiples of it.
    pub block_size: BlockSize,
    /// Bytes of a chunk at most.
    pub chunk_bytes_max: u32,
    /// Chunks of data in a request at most.
    pub chunks_max: usize,
}

/// How a device discards.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Discards {
    /// Sectors in a request at most.
    pub sectors_max: u32,
    /// Bytes of what it can discard, at least.
    pub granularity: u64,
}

impl Facts {
    /// Whether a part of the disk consists of whole blocks.
    pub fn takes(&self, part: &Extent) -> bool {
        // A power of two, at least 1.
        let mask = self.block_size.to_u64() / SECTOR_BYTES - 1;
        (part.first | part.count) & mask == 0
    }
}

/// Why the disk cannot be used.
#[derive(Debug)]
pub enum DiskError {
    /// The transport.
    Init(InitError),
    /// The queue.
    Queue(SetupError),
    /// The configuration cannot be read or makes no sense.
    Config,
    /// Out of memory.
    Memory,
}

impl From<InitError> for DiskError {
    fn from(error: InitError) -> Self {
        Self::Init(error)
    }
}

impl From<SetupError> for DiskError {
    fn from(error: SetupError) -> Self {
        Self::Queue(error)
    }
}

impl fmt::Display for DiskError {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Init(error) => error.fmt(out),
            Self::Queue(SetupError::TooSmall { offered, wanted }) => {
                write!(out, "the queue has {offered} descriptors, {wanted} are needed (QEMU: queue-size)")
            }
            Self::Queue(error) => write!(out, "the queue cannot be set up: {error:?}"),
            Self::Config => out.write_str("the device's configuration makes no sense"),
            Self::Memory => out.write_str("out of memory"),
        }
    }
}

/// How a request ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Done.
    Done,
    /// The device reports an error (an I/O error, a full host disk), with its status byte.
    Failed(u8),
}

/// A disk.
pub struct Disk {
    transport: PciTransport,
    queue: Queue<DomainHal, QUEUE>,
    interrupt: Channel,
    /// By token, and where they lie.
    slots: &'static [Slot; QUEUE],
    region: DmaRegion<DomainHal>,
    bounce: DmaRegion<DomainHal>,
    /// By token: what is left of a discard.
    rests: Vec<Option<Extent>>,
    kick: bool,
    /// What it is.
    pub facts: Facts,
    /// How long it took to find its registers and to reset it.
    pub reset_took: Duration,
}

impl Disk {
    /// Opens a device that `virtio::find` found.
    pub fn open(device: &Device) -> Result<Self, DiskError> {
        let begun = now();
        let mut transport = PciTransport::open(device)?;
        let reset_took = now().since(begun);
        let wanted = features::SIZE_MAX
            | features::SEG_MAX
            | features::READ_ONLY
            | features::BLOCK_SIZE
            | features::FLUSH
            | features::DISCARD;
        let agreed = transport.negotiate(wanted)?;
        let interrupt = transport.queue_interrupt(REQUEST_QUEUE, 0)?;
        transport.no_config_interrupt();
        let queue = Queue::new(&mut transport, REQUEST_QUEUE)?;
        let facts = read_facts(&transport, agreed)?;
        transport.start()?;
        let region = DmaRegion::allocate(size_of::<[Slot; QUEUE]>().div_ceil(PAGE)).ok_or(DiskError::Memory)?;
        Ok(Self {
            transport,
            queue,
            interrupt,
            slots: region.view(0).map_err(|_| DiskError::Memory)?,
            region,
            bounce: DmaRegion::allocate(BOUNCE_PAGES).ok_or(DiskError::Memory)?,
            rests: alloc::vec![None; QUEUE],
            kick: false,
            facts,
            reset_took,
        })
    }

    /// Which device this is.
    pub fn id(&self) -> DeviceId {
        self.transport.id()
    }

    /// The port of its interrupt.
    pub fn port(&self) -> Port {
        self.interrupt.port()
    }

    /// Whether requests with `chunks` chunks of data in all, `requests` of them, can be queued now.
    pub fn has_room(&self, requests: usize, chunks: usize) -> bool {
        self.queue.free() >= chunks + 2 * requests
    }

    /// Queues a request. [`Disk::flush`] tells the device.
    pub fn submit(&mut self, operation: Operation, sector: u64, data: &[Chunk]) -> Result<Token, PushError> {
        let index = self.queue.next_token().ok_or(PushError::Full)?.index();
        let [kind, position, status, ..] = self.slots.get(index).ok_or(PushError::Full)?;
        kind.store(operation.number().into(), Relaxed);
        position.store(sector, Relaxed);
        status.store(STATUS_NONE.into(), Relaxed);
        let at = index * size_of::<Slot>();
        let header = self.region.chunk(at, HEADER_BYTES).map_err(|_| PushError::BadShape)?;
        let status = self.region.chunk(at + HEADER_BYTES, 1).map_err(|_| PushError::BadShape)?;
        let token = match operation {
            Operation::Read => self.queue.push(&[&[header]], &[data, &[status]]),
            Operation::Write | Operation::Flush | Operation::Discard => {
                self.queue.push(&[&[header], data], &[&[status]])
            }
        }?;
        self.kick = true;
        Ok(token)
    }

    /// Queues a discard of as much of `extent` as the device takes at once; [`Disk::rest_of_discard`] is the rest.
    pub fn discard(&mut self, extent: Extent) -> Result<Token, PushError> {
        let most = self.facts.discard.map_or(0, |discards| discards.sectors_max);
        let (piece, rest) = extent.split(most.into());
        let index = self.queue.next_token().ok_or(PushError::Full)?.index();
        let [.., sector, count, _, _] = self.slots.get(index).ok_or(PushError::Full)?;
        sector.store(piece.first, Relaxed);
        count.store(piece.count, Relaxed); // below 2^32; no flags
        let at = index * size_of::<Slot>() + RANGE_OFFSET;
        let range = self.region.chunk(at, RANGE_BYTES).map_err(|_| PushError::BadShape)?;
        let token = self.submit(Operation::Discard, 0, &[range])?;
        if let Some(place) = self.rests.get_mut(token.index()) {
            *place = rest;
        }
        Ok(token)
    }

    /// What a discard that is done has left to discard.
    pub fn rest_of_discard(&mut self, token: Token) -> Option<Extent> {
        self.rests.get_mut(token.index())?.take()
    }

    /// Tells the device of what was submitted.
    pub fn flush(&mut self) {
        if core::mem::take(&mut self.kick) {
            self.queue.kick(&mut self.transport);
        }
    }

    /// The next finished request. `None`: no more, an interrupt will tell.
    pub fn next_done(&mut self) -> Result<Option<(Token, Outcome)>, DeviceFault> {
        loop {
            if let Some(done) = self.queue.pop()? {
                self.queue.suppress_interrupts();
                let status = self.slots.get(done.token.index()).map_or(STATUS_NONE, |slot| slot[2].load(Relaxed) as u8);
                let outcome = if status == STATUS_OK { Outcome::Done } else { Outcome::Failed(status) };
                return Ok(Some((done.token, outcome)));
            }
            if !self.queue.request_interrupts() {
                return Ok(None);
            }
        }
    }

    /// Requests that the device still works on, if it says the truth.
    pub fn unfinished(&self) -> usize {
        self.queue.unfinished()
    }

    /// What is finished can wait: no interrupts until [`Disk::next_done`] has found no more.
    pub fn suppress_interrupts(&mut self) {
        self.queue.suppress_interrupts();
    }

    /// Whether requests are in flight.
    pub fn is_busy(&self) -> bool {
        !self.queue.is_idle()
    }

    /// The device has given up.
    pub fn needs_reset(&self) -> bool {
        self.transport.needs_reset()
    }

    /// Reads sectors and waits for them. Only before anything else is in flight.
    fn read_now(&mut self, sector: u64, into: &mut [u8]) -> Result<(), ReadFailed> {
        let chunk = self.bounce.chunk(0, into.len()).map_err(|_| ReadFailed)?;
        self.submit(Operation::Read, sector, &[chunk]).map_err(|_| ReadFailed)?;
        self.flush();
        let deadline = now() + PATIENCE;
        loop {
            match self.next_done().map_err(|_| ReadFailed)? {
                Some((_, Outcome::Done)) => return self.bounce.read(0, into).map_err(|_| ReadFailed),
                Some((_, Outcome::Failed(_))) => return Err(ReadFailed),
                None if !event::poll(&[self.port()], Some(deadline)) => return Err(ReadFailed),
                None => {}
            }
        }
    }
}

fn read_facts(transport: &PciTransport, agreed: u64) -> Result<Facts, DiskError> {
    let word = |offset| transport.read_config_space::<u32>(offset).map_err(|_| DiskError::Config);
    let optional = |feature, offset| {
        if agreed & feature != 0 { word(offset).map(Some) } else { Ok(None) }
    };
    let sectors = transport.read_consistent(|| transport.read_config_space::<u64>(config::CAPACITY));
    let block_bytes = optional(features::BLOCK_SIZE, config::BLOCK_SIZE)?.unwrap_or(SECTOR_BYTES as u32);
    let sensible = block_bytes.is_power_of_two() && (512..=65536).contains(&block_bytes);
    let per_block = if sensible { block_bytes / SECTOR_BYTES as u32 } else { 1 };
    let discard = match optional(features::DISCARD, config::DISCARD_SECTORS_MAX)? {
        Some(sectors_max) if sectors_max >= per_block => {
            let alignment = u64::from(word(config::DISCARD_ALIGNMENT)?) * SECTOR_BYTES;
            Some(Discards {
                // Pieces of whole blocks, as the whole is.
                sectors_max: sectors_max - sectors_max % per_block,
                granularity: alignment.max(block_bytes.into()),
            })
        }
        _ => None,
    };
    let chunks_max = optional(features::SEG_MAX, config::SEG_MAX)?.map_or(CHUNKS_MAX, |max| max as usize);
    Ok(Facts {
        sectors: sectors.map_err(|_| DiskError::Config)?,
        read_only: agreed & features::READ_ONLY != 0,
        flush: agreed & features::FLUSH != 0,
        discard,
        block_size: BlockSize::new(block_bytes).filter(|_| sensible).ok_or(DiskError::Config)?,
        chunk_bytes_max: optional(features::SIZE_MAX, config::SIZE_MAX)?.filter(|&max| max >= 4096).unwrap_or(u32::MAX),
        chunks_max: chunks_max.clamp(1, CHUNKS_MAX - 2),
    })
}

/// Sectors could not be read at start-up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReadFailed;

impl gpt::Blocks for Disk {
    type Error = ReadFailed;

    fn block_size(&self) -> BlockSize {
        self.facts.block_size
    }

    fn count(&self) -> u64 {
        self.facts.sectors / (self.facts.block_size.to_u64() / SECTOR_BYTES)
    }

    fn read(&mut self, first: u64, into: &mut [u8]) -> Result<(), ReadFailed> {
        let per_block = self.facts.block_size.to_u64() / SECTOR_BYTES;
        let sector = first.checked_mul(per_block).ok_or(ReadFailed)?;
        self.read_now(sector, into)
    }
}
