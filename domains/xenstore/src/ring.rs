//! The server's end of a domain's ring page (`struct xenstore_domain_interface`, Xen public header `io/xs_wire.h`).
//!
//! Our own two indexes are kept here and only published in the page; the client's two are read once per step and must
//! lie within a ring's length of ours.

use core::sync::atomic::Ordering::{Acquire, Relaxed, Release};

use runtime::event::Channel;
use runtime::grant::{GrantError, Mapping};
use runtime::shared::Shared;
use runtime::{Access, DomId, Errno, GrantRef, Port};
use xen_abi::io::xs_wire as abi;
use xen_abi::native::GRANT_REF_XENSTORE;

const BYTES: u32 = abi::XENSTORE_RING_SIZE as u32;

/// Offsets in the page.
mod offset {
    pub const REQUESTS: usize = 0;
    pub const RESPONSES: usize = 1024;
    pub const REQ_CONS: usize = 2048;
    pub const REQ_PROD: usize = 2052;
    pub const RSP_CONS: usize = 2056;
    pub const RSP_PROD: usize = 2060;
    pub const SERVER_FEATURES: usize = 2064;
    pub const ERROR: usize = 2072;
}

/// The client's indexes are impossible.
#[derive(Clone, Copy, Debug)]
pub struct BadIndexes;

/// A mapped ring and the channel that goes with it.
pub struct Ring {
    page: Mapping,
    channel: Channel,
    request_consumer: u32,
    response_producer: u32,
    moved: bool,
}

/// Why a ring could not be attached.
#[derive(Clone, Copy, Debug)]
pub enum AttachError {
    /// Its page cannot be mapped.
    Page(GrantError),
    /// Its event channel cannot be bound.
    Channel(Errno),
}

impl core::fmt::Display for AttachError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            AttachError::Page(error) => write!(f, "its ring page cannot be mapped: {error}"),
            AttachError::Channel(error) => write!(f, "its event channel cannot be bound: {error}"),
        }
    }
}

impl Ring {
    /// Maps the ring page of `domain`, which it grants by the reference that is reserved for it, and binds `port`.
    pub fn attach(domain: DomId, port: Port) -> Result<Self, AttachError> {
        let page =
            Mapping::page_of(domain, GrantRef(GRANT_REF_XENSTORE), Access::ReadWrite).map_err(AttachError::Page)?;
        let channel = Channel::connect(domain, port).map_err(AttachError::Channel)?;
        let memory = page.memory();
        let request_consumer = memory.u32_at(offset::REQ_CONS).load(Relaxed);
        let response_producer = memory.u32_at(offset::RSP_PROD).load(Relaxed);
        memory
            .u32_at(offset::SERVER_FEATURES)
            .store(abi::XENSTORE_SERVER_FEATURE_ERROR, Relaxed);
        Ok(Ring {
            page,
            channel,
            request_consumer,
            response_producer,
            moved: false,
        })
    }

    /// The local port of its channel.
    pub fn port(&self) -> Port {
        self.channel.port()
    }

    fn memory(&self) -> Shared<'_> {
        self.page.memory()
    }

    /// Takes up to `buffer.len()` bytes of requests; gives how many.
    pub fn read(&mut self, buffer: &mut [u8]) -> Result<usize, BadIndexes> {
        let filled = self
            .memory()
            .u32_at(offset::REQ_PROD)
            .load(Acquire)
            .wrapping_sub(self.request_consumer);
        if filled > BYTES {
            return Err(BadIndexes);
        }
        let start = self.request_consumer % BYTES;
        let count = filled.min(BYTES - start).min(buffer.len() as u32);
        self.memory()
            .read(offset::REQUESTS + start as usize, &mut buffer[..count as usize]);
        if count > 0 {
            self.request_consumer = self.request_consumer.wrapping_add(count);
            self.memory()
                .u32_at(offset::REQ_CONS)
                .store(self.request_consumer, Release);
            self.moved = true;
        }
        Ok(count as usize)
    }

    /// Puts as many of `bytes` into the ring as there is room for; gives how many.
    pub fn write(&mut self, bytes: &[u8]) -> Result<usize, BadIndexes> {
        let mut written = 0;
        // Twice at most: up to the ring's end and from its start.
        for _ in 0..2 {
            let used = self
                .response_producer
                .wrapping_sub(self.memory().u32_at(offset::RSP_CONS).load(Acquire));
            if used > BYTES {
                return Err(BadIndexes);
            }
            let start = self.response_producer % BYTES;
            let rest = bytes.get(written..).unwrap_or_default();
            let count = (BYTES - used)
                .min(BYTES - start)
                .min(u32::try_from(rest.len()).unwrap_or(BYTES)) as usize;
            if count == 0 {
                break;
            }
            self.memory().write(offset::RESPONSES + start as usize, &rest[..count]);
            self.response_producer = self.response_producer.wrapping_add(count as u32);
            self.memory()
                .u32_at(offset::RSP_PROD)
                .store(self.response_producer, Release);
            self.moved = true;
            written += count;
        }
        Ok(written)
    }

    /// Wakes the client if anything moved since the last time.
    pub fn notify(&mut self) {
        if core::mem::take(&mut self.moved) {
            self.channel.notify();
        }
    }

    /// Tells the client why it is not served any more (`XENSTORE_ERROR_*`).
    pub fn tell_error(&mut self, error: u32) {
        self.memory().u32_at(offset::ERROR).store(error, Relaxed);
        self.moved = true;
        self.notify();
    }
}
