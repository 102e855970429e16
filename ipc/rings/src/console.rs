//! The console page (Xen public header `io/console.h`, `struct xencons_interface`), both ends.

use xen_abi::io::console::{XENCONS_IN_BYTES, XENCONS_OUT_BYTES};

use crate::byte_ring::{ByteConsumer, ByteProducer, ByteRingLayout};
use crate::memory::SharedMemory;
use crate::ring::RingError;

/// From the console server to the domain.
pub const INPUT: ByteRingLayout = ByteRingLayout { data: 0, size: XENCONS_IN_BYTES as u32, cons: 3072, prod: 3076 };
/// From the domain to the console server.
pub const OUTPUT: ByteRingLayout =
    ByteRingLayout { data: XENCONS_IN_BYTES, size: XENCONS_OUT_BYTES as u32, cons: 3080, prod: 3084 };

/// The domain whose console it is: writes output, reads input.
#[derive(Debug)]
pub struct ConsoleFront<M> {
    memory: M,
    input: ByteConsumer,
    output: ByteProducer,
}

impl<M: SharedMemory> ConsoleFront<M> {
    /// Attaches to the page, which the builder has zeroed.
    pub fn attach(memory: M) -> Result<Self, RingError> {
        let input = ByteConsumer::attach(&memory, INPUT)?;
        let output = ByteProducer::attach(&memory, OUTPUT)?;
        Ok(Self { memory, input, output })
    }

    /// Writes as much as fits; returns how many bytes. When not 0, send the event.
    pub fn write(&mut self, bytes: &[u8]) -> Result<usize, RingError> {
        self.output.write(&self.memory, bytes)
    }

    /// Bytes of output that fit now.
    pub fn free(&mut self) -> Result<usize, RingError> {
        self.output.free(&self.memory)
    }

    /// Reads what there is; returns how many bytes. When not 0, send the event.
    pub fn read(&mut self, into: &mut [u8]) -> Result<usize, RingError> {
        self.input.read(&self.memory, into)
    }
}

/// The console server: reads output, writes input.
#[derive(Debug)]
pub struct ConsoleBack<M> {
    memory: M,
    input: ByteProducer,
    output: ByteConsumer,
}

impl<M: SharedMemory> ConsoleBack<M> {
    /// Attaches to a domain's page.
    pub fn attach(memory: M) -> Result<Self, RingError> {
        let input = ByteProducer::attach(&memory, INPUT)?;
        let output = ByteConsumer::attach(&memory, OUTPUT)?;
        Ok(Self { memory, input, output })
    }

    /// Reads output; returns how many bytes. When not 0, send the event.
    pub fn read(&mut self, into: &mut [u8]) -> Result<usize, RingError> {
        self.output.read(&self.memory, into)
    }

    /// Writes as much input as fits; returns how many bytes. When not 0, send the event.
    pub fn write(&mut self, bytes: &[u8]) -> Result<usize, RingError> {
        self.input.write(&self.memory, bytes)
    }
}

const _: () = {
    use core::mem::offset_of;
    use xen_abi::io::console::XenconsInterface as Page;
    assert!(INPUT.data == offset_of!(Page, input) && OUTPUT.data == offset_of!(Page, output));
    assert!(INPUT.cons == offset_of!(Page, in_cons) && INPUT.prod == offset_of!(Page, in_prod));
    assert!(OUTPUT.cons == offset_of!(Page, out_cons) && OUTPUT.prod == offset_of!(Page, out_prod));
};
