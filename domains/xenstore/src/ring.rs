//! A client's ring: whole requests out of it, without taking anything off before it is accounted for.

use alloc::vec::Vec;
use xen_abi::io::xs_wire::XENSTORE_SERVER_FEATURE_ERROR;
use xen_rings::memory::SharedMemory;
use xen_rings::ring::RingError;
use xen_rings::store::message::{HEAD_BYTES, parse_head};
use xen_rings::store::{ServerEnd, WireError};

/// What is in a ring.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// Nothing.
    Nothing,
    /// A part of a request. Take it: who writes to a ring that is not empty need not send an event.
    Part,
    /// What completes a request.
    Whole,
}

/// The server's end of a ring.
#[derive(Debug)]
pub struct Ring<P> {
    end: ServerEnd<P>,
    moved: bool,
}

impl<P: SharedMemory> Ring<P> {
    /// The ring in `page`, as it stands.
    pub fn attach(page: P) -> Result<Self, RingError> {
        ServerEnd::attach(page).map(Self::new)
    }

    /// The ring in `page`, of which a predecessor has taken requests up to `input`. It may have died before it told.
    pub fn resume(page: P, input: u32) -> Result<Self, RingError> {
        ServerEnd::resume(page, input).map(|end| Ring { moved: true, ..Self::new(end) })
    }

    fn new(mut end: ServerEnd<P>) -> Self {
        end.set_features(XENSTORE_SERVER_FEATURE_ERROR);
        Ring { end, moved: false }
    }

    /// How far requests have been taken off, and replies written.
    pub fn positions(&self) -> (u32, u32) {
        self.end.positions()
    }

    /// Copies to `request`, which begins with what was taken of the request before, the bytes that follow in the ring. They
    /// stay there. After an error the client is not to be served any more.
    pub fn look(&mut self, request: &mut Vec<u8>) -> Result<Next, WireError> {
        let (taken, waiting) = (request.len(), self.end.waiting()?);
        if waiting == 0 {
            return Ok(Next::Nothing);
        }
        self.peek(request, waiting.min(HEAD_BYTES.saturating_sub(taken)))?;
        let Some(head) = parse_head(request)? else { return Ok(Next::Part) };
        let missing = (HEAD_BYTES + head.len as usize).saturating_sub(taken);
        request.truncate(taken);
        self.peek(request, missing.min(waiting))?;
        Ok(if missing <= waiting { Next::Whole } else { Next::Part })
    }

    fn peek(&mut self, request: &mut Vec<u8>, count: usize) -> Result<(), RingError> {
        let start = request.len();
        request.resize(start + count, 0);
        self.end.peek(request.get_mut(start..).unwrap_or_default())?;
        Ok(())
    }

    /// Takes off `count` of the bytes that [`Ring::look`] has shown.
    pub fn take(&mut self, count: usize) {
        self.end.take(count);
        self.moved = true;
    }

    /// Puts as many of `bytes` into the ring as there is room for; gives how many.
    pub fn write(&mut self, bytes: &[u8]) -> Result<usize, RingError> {
        let count = self.end.write(bytes)?;
        self.moved |= count > 0;
        Ok(count)
    }

    /// Whether anything moved since the last time: then the client is to be woken.
    pub fn has_moved(&mut self) -> bool {
        core::mem::take(&mut self.moved)
    }

    /// Tells the client why it is not served any more (`XENSTORE_ERROR_*`).
    pub fn tell_error(&mut self, error: u32) {
        self.end.set_error(error);
        self.moved = true;
    }
}
