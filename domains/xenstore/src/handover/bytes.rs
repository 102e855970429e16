//! Plain data to and from the region: little-endian numbers and runs of bytes, bounded on the way out and checked on the
//! way in.

use alloc::vec::Vec;
use xen_rings::memory::SharedMemory;

/// A checksum against memory that was corrupted by accident, not against a forger.
#[derive(Clone, Copy, Debug)]
pub struct Sum(u64);

impl Default for Sum {
    /// Of nothing.
    fn default() -> Self {
        Sum(0x243f_6a88_85a3_08d3)
    }
}

impl Sum {
    /// Goes on with `bytes`, in words; a last word that is not whole is filled up with zeros.
    pub fn add(&mut self, bytes: &[u8]) {
        let (words, rest) = bytes.as_chunks::<8>();
        for word in words {
            self.word(u64::from_le_bytes(*word));
        }
        if !rest.is_empty() {
            let mut last = [0; 8];
            last.iter_mut().zip(rest).for_each(|(to, from)| *to = *from);
            self.word(u64::from_le_bytes(last));
        }
    }

    fn word(&mut self, word: u64) {
        self.0 = (self.0.rotate_left(5) ^ word).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    }

    /// The sum.
    pub const fn value(self) -> u32 {
        (self.0 >> 32) as u32
    }
}

/// Where encoded data goes.
pub trait Sink {
    /// Takes the next bytes.
    fn put(&mut self, bytes: &[u8]);

    /// Takes a length; what is encoded is bounded far below 4 GiB.
    fn count(&mut self, count: usize) {
        self.put(&(count as u32).to_le_bytes());
    }

    /// Takes bytes and how many.
    fn run(&mut self, bytes: &[u8]) {
        self.count(bytes.len());
        self.put(bytes);
    }
}

impl Sink for Vec<u8> {
    fn put(&mut self, bytes: &[u8]) {
        self.extend_from_slice(bytes);
    }
}

/// Bytes that are collected before they are written: a multiple of a word.
const PIECE: usize = 1024;

/// Writes to a part of the region, and counts and sums what it writes.
pub struct Writer<'a, M> {
    memory: &'a M,
    start: usize,
    at: usize,
    end: usize,
    piece: Vec<u8>,
    sum: Sum,
    fits: bool,
}

impl<'a, M: SharedMemory> Writer<'a, M> {
    /// Writes between the offsets `start` and `end`.
    pub fn new(memory: &'a M, start: usize, end: usize) -> Self {
        Writer { memory, start, at: start, end, piece: Vec::with_capacity(2 * PIECE), sum: Sum::default(), fits: true }
    }

    /// Bytes written and their sum; `None`: there was not enough room.
    pub fn finish(mut self) -> Option<(usize, u32)> {
        self.flush();
        self.fits.then_some((self.at - self.start, self.sum.value()))
    }

    fn flush(&mut self) {
        self.fits &= self.piece.len() <= self.end - self.at;
        if self.fits {
            self.memory.write(self.at, &self.piece);
            self.sum.add(&self.piece);
            self.at += self.piece.len();
        }
        self.piece.clear();
    }
}

impl<M: SharedMemory> Sink for Writer<'_, M> {
    fn put(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let (now, later) = bytes.split_at(bytes.len().min(PIECE - self.piece.len()));
            self.piece.extend_from_slice(now);
            bytes = later;
            if self.piece.len() == PIECE {
                self.flush();
            }
        }
    }
}

/// Reads a part of the region. `None` where it ends before what is asked for.
pub struct Reader<'a, M> {
    memory: &'a M,
    at: usize,
    end: usize,
}

impl<'a, M: SharedMemory> Reader<'a, M> {
    /// Reads between the offsets `start` and `end`, which lie in the memory.
    pub fn new(memory: &'a M, start: usize, end: usize) -> Self {
        Reader { memory, at: start, end }
    }

    /// Whether all has been read.
    pub fn is_done(&self) -> bool {
        self.at >= self.end
    }

    /// The next bytes.
    pub fn fill(&mut self, into: &mut [u8]) -> Option<()> {
        if into.len() > self.end.saturating_sub(self.at) {
            return None;
        }
        self.memory.read(self.at, into);
        self.at += into.len();
        Some(())
    }

    /// The next `N` bytes.
    pub fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        let mut bytes = [0; N];
        self.fill(&mut bytes)?;
        Some(bytes)
    }

    /// A byte.
    pub fn u8(&mut self) -> Option<u8> {
        self.array().map(u8::from_le_bytes)
    }

    /// A number.
    pub fn u16(&mut self) -> Option<u16> {
        self.array().map(u16::from_le_bytes)
    }

    /// A number.
    pub fn u32(&mut self) -> Option<u32> {
        self.array().map(u32::from_le_bytes)
    }

    /// A number.
    pub fn u64(&mut self) -> Option<u64> {
        self.array().map(u64::from_le_bytes)
    }

    /// So many bytes.
    pub fn bytes(&mut self, count: usize) -> Option<Vec<u8>> {
        if count > self.end.saturating_sub(self.at) {
            return None;
        }
        let mut bytes = alloc::vec![0; count];
        self.fill(&mut bytes)?;
        Some(bytes)
    }

    /// What [`Sink::run`] wrote.
    pub fn run(&mut self) -> Option<Vec<u8>> {
        let count = self.u32()?;
        self.bytes(count as usize)
    }

    /// The sum of all that is left. Reads nothing off.
    pub fn sum(&self) -> u32 {
        let (mut sum, mut piece, mut at) = (Sum::default(), [0; PIECE], self.at);
        while at < self.end {
            let count = PIECE.min(self.end - at);
            let Some(part) = piece.get_mut(..count) else { break };
            self.memory.read(at, part);
            sum.add(part);
            at += count;
        }
        sum.value()
    }
}
