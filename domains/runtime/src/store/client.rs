//! The client's end of the xenstore ring, and the queue of watch events.

use alloc::collections::VecDeque;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use core::time::Duration;

use xen_abi::io::xs_wire as abi;
use xen_abi::native::STORE_RING;

use super::wire::{self, Inbox, WatchEvent};
use crate::errno::{Errno, Result};
use crate::event::{self, Channel};
use crate::ids::Port;
use crate::pages::PAGE;
use crate::shared::Shared;
use crate::time::now;

/// `struct xenstore_domain_interface`.
mod ring {
    pub const BYTES: u32 = 1024;
    pub const REQUESTS: usize = 0;
    pub const RESPONSES: usize = 1024;
    pub const REQ_CONS: usize = 2048;
    pub const REQ_PROD: usize = 2052;
    pub const RSP_CONS: usize = 2056;
    pub const RSP_PROD: usize = 2060;
}

/// Watch events that may wait. Beyond, the events of a watch become one, on the watched node itself.
const EVENTS_MAX: usize = 512;
/// Bytes of unsent requests at which no more are taken.
const OUTBOX_MAX: usize = 16 * 1024;

/// A connection to the store.
pub struct Client {
    ring: Shared<'static>,
    channel: Channel,
    /// The time that a request may take.
    pub timeout: Option<Duration>,
    next_id: u32,
    /// Bytes of requests that the ring had no room for yet.
    outbox: VecDeque<u8>,
    inbox: Inbox,
    /// The answer to the request that is waited for.
    answer: Option<(abi::XsdSockmsg, Vec<u8>)>,
    events: VecDeque<WatchEvent>,
    watches: Vec<WatchEvent>,
    /// The server sent what cannot be understood; nothing more can be had from it.
    garbled: bool,
}

impl Client {
    pub fn new(port: Port) -> Self {
        // SAFETY: the ring page is mapped read-write for the life of the domain and accessed through this type only.
        let ring = unsafe { Shared::new(STORE_RING as *mut u8, PAGE) };
        Self {
            ring,
            channel: Channel::adopt(port),
            timeout: None,
            next_id: 1,
            outbox: VecDeque::new(),
            inbox: Inbox::default(),
            answer: None,
            events: VecDeque::new(),
            watches: Vec::new(),
            garbled: false,
        }
    }

    pub fn port(&self) -> Port {
        self.channel.port()
    }

    /// Sends a request and waits for its answer.
    pub fn request(&mut self, kind: u32, transaction: u32, parts: &[&[u8]]) -> Result<Vec<u8>> {
        if self.garbled {
            return Err(Errno::EIO);
        }
        if self.outbox.len() > OUTBOX_MAX {
            return Err(Errno::ETIMEDOUT);
        }
        let id = self.next_id;
        self.next_id = self.next_id.wrapping_add(1).max(1);
        self.answer = None;
        self.outbox
            .extend(wire::request(kind, id, transaction, parts).ok_or(Errno::E2BIG)?);
        let result = self.wait_for(id);
        if !self.events.is_empty() {
            event::raise(self.port()); // the event loop's wake-up may have been spent here
        }
        let (head, payload) = result?;
        match head.kind {
            abi::XS_ERROR => {
                let name = payload.strip_suffix(b"\0").unwrap_or(&payload);
                Err(core::str::from_utf8(name)
                    .ok()
                    .and_then(Errno::from_name)
                    .unwrap_or(Errno::EINVAL))
            }
            answered if answered == kind => Ok(payload),
            _ => Err(Errno::EBADMSG),
        }
    }

    fn wait_for(&mut self, id: u32) -> Result<(abi::XsdSockmsg, Vec<u8>)> {
        let deadline = self.timeout.map(|timeout| now() + timeout);
        loop {
            self.pump();
            // An answer to an earlier request, which timed out, is not ours.
            if let Some(answer) = self.answer.take_if(|(head, _)| head.req_id == id) {
                return Ok(answer);
            }
            if self.garbled {
                return Err(Errno::EIO);
            }
            if !event::poll(&[self.port()], deadline) {
                return Err(Errno::ETIMEDOUT);
            }
        }
    }

    pub fn next_event(&mut self) -> Option<WatchEvent> {
        if self.events.is_empty() {
            self.pump();
        }
        self.events.pop_front()
    }

    pub fn put_back(&mut self, events: Vec<WatchEvent>) {
        for event in events.into_iter().rev() {
            self.events.push_front(event);
        }
    }

    /// Moves bytes in both directions, as many as there are.
    fn pump(&mut self) {
        loop {
            let moved = self.send() | self.receive();
            if moved == 0 {
                return;
            }
            self.channel.notify();
        }
    }

    fn send(&mut self) -> u32 {
        let producer = self.ring.u32_at(ring::REQ_PROD);
        let at = producer.load(Relaxed);
        let used = at.wrapping_sub(self.ring.u32_at(ring::REQ_CONS).load(Acquire));
        let count = ring::BYTES.saturating_sub(used).min(self.outbox.len() as u32);
        for (i, byte) in self.outbox.drain(..count as usize).enumerate() {
            let place = at.wrapping_add(i as u32) % ring::BYTES;
            self.ring.u8_at(ring::REQUESTS + place as usize).store(byte, Relaxed);
        }
        if count != 0 {
            producer.store(at.wrapping_add(count), Release);
        }
        count
    }

    fn receive(&mut self) -> u32 {
        let consumer = self.ring.u32_at(ring::RSP_CONS);
        let mut at = consumer.load(Relaxed);
        let filled = self.ring.u32_at(ring::RSP_PROD).load(Acquire).wrapping_sub(at);
        if self.garbled || filled > ring::BYTES {
            self.garbled = true;
            return 0;
        }
        let mut left = filled;
        while left != 0 {
            let Ok(wanted) = self.inbox.wanted() else {
                self.garbled = true;
                break;
            };
            let place = at % ring::BYTES;
            let mut piece = [0u8; 256];
            let count = wanted
                .min(left as usize)
                .min(piece.len())
                .min((ring::BYTES - place) as usize);
            self.ring.read(ring::RESPONSES + place as usize, &mut piece[..count]);
            at = at.wrapping_add(count as u32);
            left -= count as u32;
            if let Some((head, payload)) = self.inbox.push(&piece[..count]) {
                self.deliver(head, payload);
            }
        }
        consumer.store(at, Release);
        filled
    }

    fn deliver(&mut self, head: abi::XsdSockmsg, payload: Vec<u8>) {
        if head.kind == abi::XS_WATCH_EVENT {
            if let Some(event) = WatchEvent::parse(&payload) {
                self.queue(event);
            }
        } else {
            self.answer = Some((head, payload));
        }
    }

    /// Adds an event, unless the same one waits already: what it says is "look there", and that was said.
    fn queue(&mut self, event: WatchEvent) {
        if self.events.contains(&event) {
            return;
        }
        if self.events.len() >= EVENTS_MAX {
            let Some(watch) = self.watches.iter().find(|watch| watch.token == event.token) else {
                return;
            };
            self.events.retain(|queued| queued.token != event.token);
            self.events.push_back(watch.clone());
        } else {
            self.events.push_back(event);
        }
    }

    pub fn watch_added(&mut self, path: &str, token: &str) {
        self.watches.push(WatchEvent {
            path: path.to_string(),
            token: String::from(token),
        });
    }

    pub fn watch_removed(&mut self, path: &str, token: &str) {
        self.watches.retain(|watch| watch.path != path || watch.token != token);
        if self.watches.iter().all(|watch| watch.token != token) {
            self.events.retain(|event| event.token != token);
        }
    }
}
