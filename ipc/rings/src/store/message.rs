//! Messages: a head (`struct xsd_sockmsg`) and at most 4096 bytes.

use xen_abi::io::xs_wire::{XENSTORE_PAYLOAD_MAX, XsdSockmsg};
use zerocopy::{FromBytes, IntoBytes};

use crate::ring::RingError;

/// Bytes of a message's head.
pub const HEAD_BYTES: usize = size_of::<XsdSockmsg>();
/// Bytes of the longest message.
pub const MESSAGE_BYTES_MAX: usize = HEAD_BYTES + XENSTORE_PAYLOAD_MAX;

/// Why a connection cannot go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WireError {
    /// The ring below.
    Ring(RingError),
    /// A message that says it is longer than allowed: where the next begins is unknown.
    TooLong(u32),
}

impl From<RingError> for WireError {
    fn from(error: RingError) -> Self {
        WireError::Ring(error)
    }
}

impl core::fmt::Display for WireError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            WireError::Ring(error) => error.fmt(f),
            WireError::TooLong(len) => write!(f, "a message of {len} bytes, more than {XENSTORE_PAYLOAD_MAX}"),
        }
    }
}

impl core::error::Error for WireError {}

/// A whole message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Message<'a> {
    /// Its head; `len` is the payload's length.
    pub head: XsdSockmsg,
    /// What follows.
    pub payload: &'a [u8],
}

/// Reads the head of a message from its bytes. `Ok(None)`: too few.
pub fn parse_head(bytes: &[u8]) -> Result<Option<XsdSockmsg>, WireError> {
    let Ok((head, _)) = XsdSockmsg::read_from_prefix(bytes) else {
        return Ok(None);
    };
    if head.len as usize > XENSTORE_PAYLOAD_MAX { Err(WireError::TooLong(head.len)) } else { Ok(Some(head)) }
}

/// The bytes of a message's head; `None` when the payload is too long.
#[must_use]
pub fn encode_head(kind: u32, req_id: u32, tx_id: u32, payload_bytes: usize) -> Option<[u8; HEAD_BYTES]> {
    if payload_bytes > XENSTORE_PAYLOAD_MAX {
        return None;
    }
    let head = XsdSockmsg { kind, req_id, tx_id, len: payload_bytes as u32 };
    let mut bytes = [0; HEAD_BYTES];
    bytes.copy_from_slice(head.as_bytes());
    Some(bytes)
}

/// Puts messages together from a stream of bytes. Holds one message; 4 KiB.
#[derive(Debug)]
pub struct MessageReader {
    buffer: [u8; MESSAGE_BYTES_MAX],
    filled: usize,
    /// The message in the buffer has been handed out.
    taken: bool,
}

impl Default for MessageReader {
    fn default() -> Self {
        Self::new()
    }
}

impl MessageReader {
    /// Empty.
    #[must_use]
    pub fn new() -> Self {
        Self { buffer: [0; MESSAGE_BYTES_MAX], filled: 0, taken: false }
    }

    /// Reads from `source` (which fills a part of its argument and returns how much) until a message is whole or the
    /// source is dry. The message is valid until the next call. A message that is too long stays: there is no way back.
    pub fn poll<E: Into<WireError>>(
        &mut self,
        mut source: impl FnMut(&mut [u8]) -> Result<usize, E>,
    ) -> Result<Option<Message<'_>>, WireError> {
        if self.taken {
            self.filled = 0;
            self.taken = false;
        }
        self.fill(&mut source)?;
        match parse_head(&self.buffer[..self.filled])? {
            Some(head) if self.filled == HEAD_BYTES + head.len as usize => {
                self.taken = true;
                Ok(Some(Message { head, payload: &self.buffer[HEAD_BYTES..self.filled] }))
            }
            _ => Ok(None),
        }
    }

    /// Reads until the message is whole or the source is dry, and never beyond the message.
    fn fill<E: Into<WireError>>(
        &mut self,
        source: &mut impl FnMut(&mut [u8]) -> Result<usize, E>,
    ) -> Result<(), WireError> {
        loop {
            let wanted = match parse_head(&self.buffer[..self.filled])? {
                None => HEAD_BYTES,
                Some(head) => HEAD_BYTES + head.len as usize,
            };
            if self.filled == wanted {
                return Ok(());
            }
            let space = &mut self.buffer[self.filled..wanted];
            let room = space.len();
            match source(space).map_err(Into::into)?.min(room) {
                0 => return Ok(()),
                count => self.filled += count,
            }
        }
    }
}
