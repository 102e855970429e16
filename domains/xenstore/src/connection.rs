//! What the server keeps for one introduced domain.

use crate::domid::DomId;
use crate::overlay::Overlay;
use crate::quota;
use crate::watch::Watches;
use alloc::collections::BTreeMap;
use alloc::vec::Vec;
use xen_abi::errno::Errno;
use xen_abi::io::xs_wire::{XENSTORE_PAYLOAD_MAX, XS_WATCH_EVENT};
use xen_rings::store::message::encode_head;

/// Whether a connection is served.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// Requests are read and answered.
    Active,
    /// It broke the protocol. The domain stays known until it is released, but nothing more is read from it or sent.
    CutOff,
}

/// One domain's connection.
#[derive(Debug)]
pub struct Connection {
    /// The domain.
    pub domain: DomId,
    /// Whether it is served.
    pub state: State,
    /// Its watches and waiting events.
    pub watches: Watches,
    /// Its open transactions.
    pub transactions: BTreeMap<u32, Overlay>,
    /// Transactions that failed with `EAGAIN` since the last that did not.
    pub conflicts: u32,
    /// Where its ring is.
    pub start: Start,
    /// The first part of a request that has not come whole.
    pub partial: Vec<u8>,
    pub(crate) next_transaction: u32,
    pub(crate) output: Vec<u8>,
    pub(crate) sent: usize,
    /// End of each message in `output`, as a count of bytes since the connection began.
    pub(crate) messages: Vec<u64>,
    pub(crate) taken_in_all: u64,
}

/// A ring's place and, as the ring counts bytes, how far its requests have been taken and where its replies began.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Start {
    /// The domain's event channel port.
    pub port: u32,
    /// Requests: taken up to here, all of it accounted for.
    pub input: u32,
    /// Replies: the first byte of this connection.
    pub output: u32,
}

impl Connection {
    /// A fresh connection of `domain`.
    #[must_use]
    pub fn new(domain: DomId) -> Self {
        Connection {
            domain,
            state: State::Active,
            watches: Watches::new(domain),
            transactions: BTreeMap::new(),
            conflicts: 0,
            start: Start::default(),
            partial: Vec::new(),
            next_transaction: 1,
            output: Vec::new(),
            sent: 0,
            messages: Vec::new(),
            taken_in_all: 0,
        }
    }

    /// Drops all that it holds and serves it no more.
    pub fn cut_off(&mut self) {
        *self = Connection { state: State::CutOff, ..Connection::new(self.domain) };
    }

    /// Bytes held on its behalf, besides the nodes that it owns.
    #[must_use]
    pub fn held_bytes(&self) -> usize {
        self.watches.bytes() + self.transactions.values().map(Overlay::bytes).sum::<usize>()
    }

    /// Whether it leaves so much unread that its requests have to wait.
    #[must_use]
    pub fn is_backed_up(&self) -> bool {
        self.messages.len() >= quota::OUTSTANDING || self.output.len() - self.sent >= quota::OUTSTANDING_BYTES
    }

    /// Opens a transaction and gives its id.
    pub fn start_transaction(&mut self) -> Result<u32, Errno> {
        if !self.domain.is_privileged() && self.transactions.len() >= quota::TRANSACTIONS {
            return Err(Errno::ENOSPC);
        }
        while self.next_transaction == 0 || self.transactions.contains_key(&self.next_transaction) {
            self.next_transaction = self.next_transaction.wrapping_add(1);
        }
        let id = self.next_transaction;
        self.next_transaction = id.wrapping_add(1);
        self.transactions.insert(id, Overlay::transaction());
        Ok(id)
    }

    /// Queues a message for the client. No payload is longer than the protocol allows: each is checked where it is made.
    pub fn send(&mut self, kind: u32, request: u32, transaction: u32, payload: &[u8]) {
        let payload = payload.get(..XENSTORE_PAYLOAD_MAX).unwrap_or(payload);
        if let Some(head) = encode_head(kind, request, transaction, payload.len()) {
            self.output.extend_from_slice(&head);
            self.output.extend_from_slice(payload);
            self.messages.push(self.taken_in_all + (self.output.len() - self.sent) as u64);
        }
    }

    /// Bytes for the client.
    #[must_use]
    pub fn output(&self) -> &[u8] {
        self.output.get(self.sent..).unwrap_or_default()
    }

    /// The place, as the ring counts, of the first byte of [`Connection::output`].
    #[must_use]
    pub fn output_position(&self) -> u32 {
        self.start.output.wrapping_add(self.taken_in_all as u32)
    }

    /// The client has been given `bytes` from the front of [`Connection::output`].
    pub fn output_taken(&mut self, bytes: usize) {
        let bytes = bytes.min(self.output.len() - self.sent);
        self.sent += bytes;
        self.taken_in_all += bytes as u64;
        self.messages.retain(|&end| end > self.taken_in_all);
        if self.sent == self.output.len() {
            self.output.clear();
            self.sent = 0;
        }
    }

    /// The client has been given all up to `position`; `false`: that cannot be.
    #[must_use]
    pub fn output_taken_up_to(&mut self, position: u32) -> bool {
        let bytes = position.wrapping_sub(self.output_position()) as usize;
        let fits = bytes <= self.output().len();
        if fits {
            self.output_taken(bytes);
        }
        fits
    }

    /// Puts events that wait into the output when little else is to send; how many.
    pub fn fill_with_events(&mut self) -> u32 {
        const ENOUGH: usize = 1024;
        if self.watches.waiting() == 0 || self.state != State::Active {
            return 0;
        }
        let (mut payload, mut count) = (Vec::new(), 0);
        while self.output.len() - self.sent < ENOUGH && self.messages.len() < quota::OUTSTANDING {
            payload.clear();
            if !self.watches.next_event(XENSTORE_PAYLOAD_MAX, &mut payload) {
                break;
            }
            self.send(XS_WATCH_EVENT, 0, 0, &payload);
            count += 1;
        }
        count
    }
}
