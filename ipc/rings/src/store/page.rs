//! The connection page (`struct xenstore_domain_interface`), both ends.

use xen_abi::io::xs_wire::{XENSTORE_RING_SIZE, XenstoreDomainInterface};

use crate::byte_ring::{ByteConsumer, ByteProducer, ByteRingLayout};
use crate::memory::SharedMemory;
use crate::ring::RingError;

use super::message::{Message, MessageReader, WireError};

/// From the client to the server.
pub const REQUESTS: ByteRingLayout =
    ByteRingLayout { data: 0, size: XENSTORE_RING_SIZE as u32, cons: 2048, prod: 2052 };
/// From the server to the client.
pub const RESPONSES: ByteRingLayout =
    ByteRingLayout { data: XENSTORE_RING_SIZE, size: XENSTORE_RING_SIZE as u32, cons: 2056, prod: 2060 };
/// Offset of `server_features`.
const SERVER_FEATURES: usize = 2064;
/// Offset of `error`.
const ERROR: usize = 2072;

const _: () = {
    use XenstoreDomainInterface as Page;
    use core::mem::offset_of;
    assert!(REQUESTS.data == offset_of!(Page, req) && RESPONSES.data == offset_of!(Page, rsp));
    assert!(REQUESTS.cons == offset_of!(Page, req_cons) && REQUESTS.prod == offset_of!(Page, req_prod));
    assert!(RESPONSES.cons == offset_of!(Page, rsp_cons) && RESPONSES.prod == offset_of!(Page, rsp_prod));
    assert!(SERVER_FEATURES == offset_of!(Page, server_features) && ERROR == offset_of!(Page, error));
};

/// The client's end. A message may take several calls, as the ring is smaller than the longest message: write until
/// all is written, sending the event after each call that wrote something.
#[derive(Debug)]
pub struct StoreClient<M> {
    memory: M,
    requests: ByteProducer,
    responses: ByteConsumer,
    reader: MessageReader,
}

impl<M: SharedMemory> StoreClient<M> {
    /// Attaches to the page, which the builder has zeroed.
    pub fn attach(memory: M) -> Result<Self, RingError> {
        let requests = ByteProducer::attach(&memory, REQUESTS)?;
        let responses = ByteConsumer::attach(&memory, RESPONSES)?;
        Ok(Self { memory, requests, responses, reader: MessageReader::new() })
    }

    /// Writes as many bytes of a message as fit; returns how many. When not 0, send the event.
    pub fn write(&mut self, bytes: &[u8]) -> Result<usize, RingError> {
        self.requests.write(&self.memory, bytes)
    }

    /// The next whole reply or watch event, if it has arrived. It is valid until the next call. Send the event after a
    /// call, as it may have made space.
    pub fn next_message(&mut self) -> Result<Option<Message<'_>>, WireError> {
        let (memory, responses) = (&self.memory, &mut self.responses);
        self.reader.poll(|into| responses.read(memory, into))
    }
}

/// The server's end, bytes only. For a server that must know how far it has come: nothing is taken off before it says so.
#[derive(Debug)]
pub struct ServerEnd<M> {
    memory: M,
    requests: ByteConsumer,
    responses: ByteProducer,
}

impl<M: SharedMemory> ServerEnd<M> {
    /// Attaches to a client's page, and goes on where its indices stand.
    pub fn attach(memory: M) -> Result<Self, RingError> {
        let requests = ByteConsumer::attach(&memory, REQUESTS)?;
        let responses = ByteProducer::attach(&memory, RESPONSES)?;
        Ok(Self { memory, requests, responses })
    }

    /// Attaches to the page of a client that another server had, which took requests up to `taken`. How far that server's
    /// replies went is told by the page.
    pub fn resume(memory: M, taken: u32) -> Result<Self, RingError> {
        let requests = ByteConsumer::resume(&memory, REQUESTS, taken)?;
        let responses = ByteProducer::attach(&memory, RESPONSES)?;
        memory.store_u32(REQUESTS.cons, taken);
        Ok(Self { memory, requests, responses })
    }

    /// Bytes taken and bytes written since the rings began.
    pub fn positions(&self) -> (u32, u32) {
        (self.requests.position(), self.responses.position())
    }

    /// Bytes of requests that wait.
    pub fn waiting(&mut self) -> Result<usize, RingError> {
        self.requests.waiting(&self.memory)
    }

    /// Copies out the first of them, as many as fit, and returns how many. They stay.
    pub fn peek(&mut self, into: &mut [u8]) -> Result<usize, RingError> {
        self.requests.peek(&self.memory, into)
    }

    /// Takes off `count` bytes that were waiting. Send the event: there is space again.
    pub fn take(&mut self, count: usize) {
        self.requests.take(&self.memory, count);
    }

    /// Writes as many bytes of replies as fit; returns how many. When not 0, send the event.
    pub fn write(&mut self, bytes: &[u8]) -> Result<usize, RingError> {
        self.responses.write(&self.memory, bytes)
    }

    /// Tells the client why it is not served any more: `XENSTORE_ERROR_*`.
    pub fn set_error(&mut self, error: u32) {
        self.memory.store_u32(ERROR, error);
    }

    /// Tells the client what the server can do: `XENSTORE_SERVER_FEATURE_*`.
    pub fn set_features(&mut self, features: u32) {
        self.memory.store_u32(SERVER_FEATURES, features);
    }
}

/// The server's end, message by message. A message that was taken is gone from the ring.
#[derive(Debug)]
pub struct StoreServer<M> {
    end: ServerEnd<M>,
    reader: MessageReader,
}

impl<M: SharedMemory> StoreServer<M> {
    /// Attaches to a client's page.
    pub fn attach(memory: M) -> Result<Self, RingError> {
        Ok(Self { end: ServerEnd::attach(memory)?, reader: MessageReader::new() })
    }

    /// The next whole request, if it has arrived. It is valid until the next call. Send the event after a call, as it
    /// may have made space. After an error the client is not to be served any more.
    pub fn next_message(&mut self) -> Result<Option<Message<'_>>, WireError> {
        let ServerEnd { memory, requests, .. } = &mut self.end;
        self.reader.poll(|into| requests.read(memory, into))
    }

    /// Writes as many bytes of replies as fit; returns how many. When not 0, send the event.
    pub fn write(&mut self, bytes: &[u8]) -> Result<usize, RingError> {
        self.end.write(bytes)
    }

    /// Tells the client why it is not served any more: `XENSTORE_ERROR_*`.
    pub fn set_error(&mut self, error: u32) {
        self.end.set_error(error);
    }
}
