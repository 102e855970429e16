//! Byte rings: the two halves of a console or xenstore page. One end writes bytes, the other reads them; indexes run
//! freely and a byte's place is index modulo ring size (a power of two).
//!
//! Each end keeps its own index privately. The peer's index is checked at every use: one that cannot be kills the half.

use crate::memory::SharedMemory;
use crate::ring::RingError;

/// Where a byte ring lies in its page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ByteRingLayout {
    /// Offset of the bytes.
    pub data: usize,
    /// How many; a power of two.
    pub size: u32,
    /// Offset of the consumer index.
    pub cons: usize,
    /// Offset of the producer index.
    pub prod: usize,
}

impl ByteRingLayout {
    /// Bytes of memory that the ring needs.
    fn end(&self) -> usize {
        let data = self.data + self.size as usize;
        data.max(self.cons + 4).max(self.prod + 4)
    }

    /// The at most two runs of `count` bytes from `index` on: (offset, bytes) each.
    fn runs(&self, index: u32, count: usize) -> [(usize, usize); 2] {
        let start = (index & (self.size - 1)) as usize;
        let first = count.min(self.size as usize - start);
        [(self.data + start, first), (self.data, count - first)]
    }
}

/// Bytes in the ring, if the two indexes can be.
fn filled(prod: u32, cons: u32, size: u32) -> Result<usize, RingError> {
    match prod.wrapping_sub(cons) {
        count if count <= size => Ok(count as usize),
        _ => Err(RingError::Overrun { producer: prod, consumer: cons, allowed: size }),
    }
}

/// The end that writes.
#[derive(Clone, Copy, Debug)]
pub struct ByteProducer {
    layout: ByteRingLayout,
    prod: u32,
    dead: Option<RingError>,
}

impl ByteProducer {
    /// Goes on where the producer index in the page stands.
    pub fn attach(memory: &impl SharedMemory, layout: ByteRingLayout) -> Result<Self, RingError> {
        if memory.bytes() < layout.end() {
            return Err(RingError::TooSmall);
        }
        let prod = memory.load_u32(layout.prod);
        filled(prod, memory.load_u32(layout.cons), layout.size)?;
        Ok(Self { layout, prod, dead: None })
    }

    /// The producer index: bytes written since the ring began.
    pub fn position(&self) -> u32 {
        self.prod
    }

    /// Bytes that fit now.
    pub fn free(&mut self, memory: &impl SharedMemory) -> Result<usize, RingError> {
        if let Some(error) = self.dead {
            return Err(error);
        }
        let count = filled(self.prod, memory.load_u32(self.layout.cons), self.layout.size);
        self.dead = count.err();
        Ok(self.layout.size as usize - count?)
    }

    /// Writes as many bytes as fit and returns how many. When not 0, send the event.
    pub fn write(&mut self, memory: &impl SharedMemory, bytes: &[u8]) -> Result<usize, RingError> {
        let count = self.free(memory)?.min(bytes.len());
        let mut rest = bytes;
        for (offset, length) in self.layout.runs(self.prod, count) {
            let (run, after) = rest.split_at(length);
            memory.write(offset, run);
            rest = after;
        }
        self.prod = self.prod.wrapping_add(count as u32);
        memory.store_u32(self.layout.prod, self.prod);
        memory.fence();
        Ok(count)
    }
}

/// The end that reads.
#[derive(Clone, Copy, Debug)]
pub struct ByteConsumer {
    layout: ByteRingLayout,
    cons: u32,
    dead: Option<RingError>,
}

impl ByteConsumer {
    /// Goes on where the consumer index in the page stands.
    pub fn attach(memory: &impl SharedMemory, layout: ByteRingLayout) -> Result<Self, RingError> {
        if memory.bytes() < layout.end() {
            return Err(RingError::TooSmall);
        }
        let cons = memory.load_u32(layout.cons);
        Self::resume(memory, layout, cons)
    }

    /// Goes on at the consumer index `cons`, whatever the page says: for an end that has kept it elsewhere.
    pub fn resume(memory: &impl SharedMemory, layout: ByteRingLayout, cons: u32) -> Result<Self, RingError> {
        if memory.bytes() < layout.end() {
            return Err(RingError::TooSmall);
        }
        filled(memory.load_u32(layout.prod), cons, layout.size)?;
        Ok(Self { layout, cons, dead: None })
    }

    /// The consumer index: bytes taken since the ring began.
    pub fn position(&self) -> u32 {
        self.cons
    }

    /// Bytes that wait.
    pub fn waiting(&mut self, memory: &impl SharedMemory) -> Result<usize, RingError> {
        if let Some(error) = self.dead {
            return Err(error);
        }
        let count = filled(memory.load_u32(self.layout.prod), self.cons, self.layout.size);
        self.dead = count.err();
        count
    }

    /// Copies out at most `into.len()` bytes and returns how many. They stay in the ring.
    pub fn peek(&mut self, memory: &impl SharedMemory, into: &mut [u8]) -> Result<usize, RingError> {
        let count = self.waiting(memory)?.min(into.len());
        let mut rest = into;
        for (offset, length) in self.layout.runs(self.cons, count) {
            let (run, after) = rest.split_at_mut(length);
            memory.read(offset, run);
            rest = after;
        }
        Ok(count)
    }

    /// Takes `count` bytes off, of those that were waiting. When not 0, send the event: there is space again.
    pub fn take(&mut self, memory: &impl SharedMemory, count: usize) {
        self.cons = self.cons.wrapping_add(count as u32);
        memory.store_u32(self.layout.cons, self.cons);
        memory.fence();
    }

    /// Reads at most `into.len()` bytes and returns how many. When not 0, send the event: there is space again.
    pub fn read(&mut self, memory: &impl SharedMemory, into: &mut [u8]) -> Result<usize, RingError> {
        let count = self.peek(memory, into)?;
        self.take(memory, count);
        Ok(count)
    }
}
