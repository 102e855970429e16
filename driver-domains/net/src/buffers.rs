//! The memory behind the frame pool: one DMA region, two buffers to a page.
//!
//! A buffer begins with the device's header (`struct virtio_net_hdr`, 12 bytes, all zero without offloads), so placed
//! that the frame behind it is aligned and that neither crosses a page.

use net_domain::checksum::{BLOCK, Sum};
use net_domain::frame::{FRAME_MAX, HEAD_BYTES};
use net_domain::pool::{Buffer, Held, Pool};
use runtime::grant::copy::Remote;
use runtime::pages::PAGE;
use virtio::DomainHal;
use virtio::copies::{BadCopy, Copies};
use virtio::dma::{Chunk, DmaRegion};

/// Bytes of `struct virtio_net_hdr` as of virtio 1.0.
pub const DEVICE_HEADER_BYTES: usize = 12;

const BUFFER_BYTES: usize = PAGE / 2;
const FRAME_OFFSET: usize = 16;
const DEVICE_OFFSET: usize = FRAME_OFFSET - DEVICE_HEADER_BYTES;
const _: () = assert!(FRAME_OFFSET + FRAME_MAX <= BUFFER_BYTES);

/// Frame buffers.
pub struct Buffers {
    /// Who holds them.
    pub pool: Pool,
    region: DmaRegion<DomainHal>,
}

impl Buffers {
    /// `count` buffers. `None`: out of memory.
    pub fn new(count: u16) -> Option<Self> {
        let pages = usize::from(count).div_ceil(PAGE / BUFFER_BYTES);
        Some(Self { pool: Pool::new(count), region: DmaRegion::allocate(pages)? })
    }

    fn start(buffer: Buffer) -> usize {
        buffer.index() * BUFFER_BYTES
    }

    /// Header and a frame of up to `bytes` bytes, for the device.
    pub fn device_chunk(&self, buffer: Buffer, bytes: usize) -> Option<Chunk> {
        self.region.chunk(Self::start(buffer) + DEVICE_OFFSET, DEVICE_HEADER_BYTES + bytes.min(FRAME_MAX)).ok()
    }

    /// A held frame with a clean header, for the device to send.
    pub fn sendable(&mut self, frame: Held) -> Option<Chunk> {
        self.region.write(Self::start(frame.buffer) + DEVICE_OFFSET, &[0; DEVICE_HEADER_BYTES]).ok()?;
        self.device_chunk(frame.buffer, frame.bytes.into())
    }

    /// A private copy of a frame's first bytes; returns how many there are.
    pub fn head(&self, frame: Held, head: &mut [u8; HEAD_BYTES]) -> usize {
        let bytes = usize::from(frame.bytes).min(HEAD_BYTES);
        let filled = head.get_mut(..bytes).is_some_and(|head| self.read(frame.buffer, head));
        if filled { bytes } else { 0 }
    }

    /// A private copy of a frame from its start.
    pub fn read(&self, buffer: Buffer, into: &mut [u8]) -> bool {
        into.len() <= FRAME_MAX && self.region.read(Self::start(buffer) + FRAME_OFFSET, into).is_ok()
    }

    /// Changes bytes of a frame.
    pub fn patch(&mut self, buffer: Buffer, offset: usize, bytes: &[u8]) {
        if offset + bytes.len() <= FRAME_MAX {
            let _ = self.region.write(Self::start(buffer) + FRAME_OFFSET + offset, bytes);
        }
    }

    /// Adds a copy of a front end's bytes to `offset` of the frame.
    pub fn fill(
        &mut self,
        copies: &mut Copies,
        from: Remote,
        buffer: Buffer,
        offset: usize,
        bytes: u16,
    ) -> Result<(), BadCopy> {
        if offset + usize::from(bytes) > FRAME_MAX {
            return Err(BadCopy);
        }
        copies.from_peer(from, &mut self.region, Self::start(buffer) + FRAME_OFFSET + offset, bytes)
    }

    /// The sum of bytes of a frame, as checksums are made of.
    pub fn sum(&self, buffer: Buffer, offset: usize, bytes: usize) -> u64 {
        if offset + bytes > FRAME_MAX {
            return 0;
        }
        let (start, mut sum) = (Self::start(buffer) + FRAME_OFFSET + offset, Sum::default());
        let (blocks, rest) = (bytes / BLOCK, bytes % BLOCK);
        let mut last = [0; BLOCK];
        let added = self.region.read_blocks(start, blocks, |block| sum.add(block));
        if let Some(last) = last.get_mut(..rest)
            && added.is_ok()
            && self.region.read(start + bytes - rest, last).is_ok()
        {
            sum.add_last(last);
        }
        sum.finish()
    }

    /// Adds a copy of the first bytes of a buffer to the start of a front end's page.
    pub fn deliver_head(&self, copies: &mut Copies, buffer: Buffer, bytes: u16, to: Remote) -> Result<(), BadCopy> {
        copies.to_peer(&self.region, Self::start(buffer) + FRAME_OFFSET, bytes, to)
    }

    /// Adds a copy of a whole frame into a front end's page.
    pub fn deliver(&self, copies: &mut Copies, frame: Held, to: Remote) -> Result<(), BadCopy> {
        copies.to_peer(&self.region, Self::start(frame.buffer) + FRAME_OFFSET, frame.bytes, to)
    }
}
