//! A client's ring page and the channel that goes with it.

use runtime::event::Channel;
use runtime::grant::{GrantError, Mapping};
use runtime::{Access, DomId, Errno, GrantRef, Port};
use xen_abi::io::xs_wire::XENSTORE_SERVER_FEATURE_ERROR;
use xen_abi::native::GRANT_REF_XENSTORE;
use xen_rings::ring::RingError;
use xen_rings::store::{Message, StoreServer, WireError};

/// Why a ring could not be attached.
#[derive(Clone, Copy, Debug)]
pub enum AttachError {
    /// Its page cannot be mapped.
    Page(GrantError),
    /// Its event channel cannot be bound.
    Channel(Errno),
    /// What is in its page makes no sense.
    Content(RingError),
}

impl core::fmt::Display for AttachError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            AttachError::Page(error) => write!(f, "its ring page cannot be mapped: {error}"),
            AttachError::Channel(error) => write!(f, "its event channel cannot be bound: {error}"),
            AttachError::Content(error) => write!(f, "its ring page makes no sense: {error}"),
        }
    }
}

/// The server's end of a ring.
pub struct Ring {
    server: StoreServer<Mapping>,
    channel: Channel,
    moved: bool,
}

impl Ring {
    /// Maps the ring page of `domain`, which it grants by the reference that is reserved for it, and binds `port`.
    pub fn attach(domain: DomId, port: Port) -> Result<Self, AttachError> {
        let page =
            Mapping::page_of(domain, GrantRef(GRANT_REF_XENSTORE), Access::ReadWrite).map_err(AttachError::Page)?;
        let mut server = StoreServer::attach(page).map_err(AttachError::Content)?;
        server.set_features(XENSTORE_SERVER_FEATURE_ERROR);
        let channel = Channel::connect(domain, port).map_err(AttachError::Channel)?;
        Ok(Ring { server, channel, moved: false })
    }

    /// The local port of its channel.
    pub fn port(&self) -> Port {
        self.channel.port()
    }

    /// The next whole request, if it has arrived. After an error the client is not to be served any more.
    pub fn next_message(&mut self) -> Result<Option<Message<'_>>, WireError> {
        // Also a part of a message makes room that the client may wait for.
        self.moved = true;
        self.server.next_message()
    }

    /// Puts as many of `bytes` into the ring as there is room for; gives how many.
    pub fn write(&mut self, bytes: &[u8]) -> Result<usize, RingError> {
        let count = self.server.write(bytes)?;
        self.moved |= count > 0;
        Ok(count)
    }

    /// Wakes the client if anything moved since the last time.
    pub fn notify(&mut self) {
        if core::mem::take(&mut self.moved) {
            self.channel.notify();
        }
    }

    /// Tells the client why it is not served any more (`XENSTORE_ERROR_*`).
    pub fn tell_error(&mut self, error: u32) {
        self.server.set_error(error);
        self.moved = true;
        self.notify();
    }
}
