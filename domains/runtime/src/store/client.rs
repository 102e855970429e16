//! The client's end of the xenstore ring, and the queue of watch events.

use alloc::collections::VecDeque;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::sync::atomic::Ordering::Relaxed;
use core::time::Duration;

use xen_abi::native::STORE_RING;

use xen_rings::store::{ReplyError, StoreClient, WireError, page, reply};

use super::wire::{self, WatchEvent};
use crate::errno::{Errno, Result};
use crate::event::{self, Channel};
use crate::ids::Port;
use crate::pages::PAGE;
use crate::shared::Shared;
use crate::time::now;

/// Watch events that may wait. Beyond, the events of a watch become one, on the watched node itself.
const EVENTS_MAX: usize = 512;
/// Bytes of unsent requests at which no more are taken.
const OUTBOX_MAX: usize = 16 * 1024;

/// A connection to the store.
pub struct Client {
    /// `None`: the server broke the ring; nothing more can be had from it.
    ring: Option<StoreClient<Shared<'static>>>,
    page: Shared<'static>,
    channel: Channel,
    /// The time that a request may take.
    pub timeout: Option<Duration>,
    next_id: u32,
    /// Bytes of requests that the ring had no room for yet.
    outbox: VecDeque<u8>,
    /// The request that is waited for: its type and id.
    asked: (u32, u32),
    /// The answer to it.
    answer: Option<Result<Vec<u8>>>,
    events: VecDeque<WatchEvent>,
    watches: Vec<WatchEvent>,
}

impl Client {
    pub fn new(port: Port) -> Self {
        // SAFETY: the ring page is mapped read-write for the life of the domain and accessed through this type only.
        let page = unsafe { Shared::new(STORE_RING as *mut u8, PAGE) };
        Self {
            ring: StoreClient::attach(page).ok(),
            page,
            channel: Channel::adopt(port),
            timeout: None,
            next_id: 1,
            outbox: VecDeque::new(),
            asked: (0, 0),
            answer: None,
            events: VecDeque::new(),
            watches: Vec::new(),
        }
    }

    pub fn port(&self) -> Port {
        self.channel.port()
    }

    /// Sends a request and waits for its answer.
    pub fn request(&mut self, kind: u32, transaction: u32, parts: &[&[u8]]) -> Result<Vec<u8>> {
        if self.outbox.len() > OUTBOX_MAX {
            return Err(Errno::ETIMEDOUT);
        }
        let id = self.next_id;
        self.next_id = self.next_id.wrapping_add(1).max(1);
        self.outbox
            .extend(wire::request(kind, id, transaction, parts).ok_or(Errno::E2BIG)?);
        self.asked = (kind, id);
        self.answer = None;
        let answer = self.wait_for_answer();
        if !self.events.is_empty() {
            event::raise(self.port()); // the event loop's wake-up may have been spent here
        }
        answer
    }

    fn wait_for_answer(&mut self) -> Result<Vec<u8>> {
        let deadline = self.timeout.map(|timeout| now() + timeout);
        loop {
            self.pump()?;
            if let Some(answer) = self.answer.take() {
                return answer;
            }
            if !event::poll(&[self.port()], deadline) {
                return Err(Errno::ETIMEDOUT);
            }
        }
    }

    pub fn next_event(&mut self) -> Option<WatchEvent> {
        if self.events.is_empty() {
            let _ = self.pump(); // a broken ring has no events
        }
        self.events.pop_front()
    }

    pub fn put_back(&mut self, events: Vec<WatchEvent>) {
        for event in events.into_iter().rev() {
            self.events.push_front(event);
        }
    }

    /// Moves what there is in both directions. `EIO`: the server broke the ring.
    fn pump(&mut self) -> Result<()> {
        let moved = self.send().and_then(|sent| Ok(sent | self.receive()?));
        match moved {
            Ok(true) => self.channel.notify(),
            Ok(false) => {}
            Err(error) => {
                log::error!("xenstore: {error}");
                self.ring = None;
            }
        }
        if self.ring.is_some() { Ok(()) } else { Err(Errno::EIO) }
    }

    /// Sends of the outbox what fits; whether anything did.
    fn send(&mut self) -> core::result::Result<bool, WireError> {
        let Some(ring) = &mut self.ring else { return Ok(false) };
        let mut sent = 0;
        while !self.outbox.is_empty() {
            let (piece, _) = self.outbox.as_slices();
            let count = ring.write(piece)?;
            if count == 0 {
                break;
            }
            self.outbox.drain(..count);
            sent += count;
        }
        Ok(sent != 0)
    }

    /// Takes the messages that have arrived; whether the server must be told that there is room.
    fn receive(&mut self) -> core::result::Result<bool, WireError> {
        let Some(mut ring) = self.ring.take() else {
            return Ok(false);
        };
        // Ours: nobody else writes it, or only itself has the harm.
        let consumed = self.page.u32_at(page::RESPONSES.cons);
        let before = consumed.load(Relaxed);
        while let Some(message) = ring.next_message()? {
            if message.is_watch_event() {
                WatchEvent::parse(message.payload)
                    .into_iter()
                    .for_each(|event| self.queue(event));
            } else if message.head.req_id == self.asked.1 {
                // An answer to an earlier request, which timed out, has another id and is dropped.
                let checked = reply::check_reply(&message, self.asked.0, self.asked.1);
                self.answer = Some(checked.map(<[u8]>::to_vec).map_err(|error| match error {
                    ReplyError::Refused(errno) => errno,
                    ReplyError::Mismatch | ReplyError::Payload => Errno::EBADMSG,
                }));
            }
        }
        self.ring = Some(ring);
        Ok(consumed.load(Relaxed) != before)
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
