//! A connection to the store: requests with their answers, over [`Exchange`], which moves the messages.

use alloc::collections::VecDeque;
use alloc::vec::Vec;
use core::sync::atomic::Ordering::Relaxed;
use core::time::Duration;

use xen_abi::native::STORE_RING;
use xen_rings::store::{ReplyError, StoreClient, WireError, page, reply};

use super::Keeper;
use super::batch::{Batch, Request};
use super::queue::EventQueue;
use super::wire::{self, WatchEvent};
use crate::errno::{Errno, Result};
use crate::event::{self, Channel};
use crate::ids::Port;
use crate::pages::PAGE;
use crate::shared::Shared;
use crate::time::{Instant, now};

/// Bytes of unsent requests at which no more are taken.
const OUTBOX_MAX: usize = 16 * 1024;

/// A connection to the store.
pub struct Client {
    /// `None`: the server broke the ring; nothing more can be had from it.
    exchange: Option<Exchange>,
    channel: Channel,
    /// The time that a request may take.
    pub timeout: Option<Duration>,
    /// Looks after the server while requests wait.
    pub keeper: Option<Keeper>,
    /// Watch events that wait, and the watches.
    pub events: EventQueue,
}

/// How long a request waits before the keeper looks for the first time, unless it is called.
const PATIENCE: Duration = Duration::from_millis(100);

/// A request's wait for its answer.
struct Wait {
    since: Instant,
    /// When to give up or, with a keeper, to have it look.
    until: Option<Instant>,
    /// An event of the keeper's was spent here.
    called: bool,
}

impl Wait {
    fn new(client: &Client) -> Self {
        let since = now();
        let timeout = if client.keeper.is_some() { Some(PATIENCE) } else { client.timeout };
        Wait { since, until: timeout.map(|timeout| since + timeout), called: false }
    }

    /// Waits until the server may have done something.
    fn on(&mut self, client: &Client) -> Result<()> {
        let Some(keeper) = client.keeper else {
            return if event::poll(&[client.port()], self.until) { Ok(()) } else { Err(Errno::ETIMEDOUT) };
        };
        let came = event::poll_for(&[client.port(), keeper.port], self.until);
        if came != Some(client.port()) {
            self.called |= came.is_some();
            self.until = Some((keeper.look)(self.since)?);
        }
        Ok(())
    }

    /// It is over: what came for others meanwhile is theirs again.
    fn end(&self, client: &Client) {
        if let Some(keeper) = client.keeper.filter(|_| self.called) {
            event::raise(keeper.port);
        }
        if !client.events.is_empty() {
            event::raise(client.port()); // the event loop's wake-up may have been spent here
        }
    }
}

impl Client {
    pub fn new(port: Port) -> Self {
        // SAFETY: the ring page is mapped read-write for the life of the domain and accessed through this type only.
        let page = unsafe { Shared::new(STORE_RING as *mut u8, PAGE) };
        Self {
            exchange: Exchange::new(page).ok(),
            channel: Channel::adopt(port),
            timeout: None,
            keeper: None,
            events: EventQueue::default(),
        }
    }

    pub fn port(&self) -> Port {
        self.channel.port()
    }

    /// Sends a request and waits for its answer.
    pub fn request(&mut self, kind: u32, transaction: u32, parts: &[&[u8]]) -> Result<Vec<u8>> {
        self.exchange.as_mut().ok_or(Errno::EIO)?.ask(kind, transaction, parts)?;
        let mut wait = Wait::new(self);
        let answer = self.wait_for_answer(&mut wait);
        wait.end(self);
        answer
    }

    /// Sends all requests of a batch, as fast as they are taken, and waits for all answers. The first error, once all are
    /// answered: what came behind it has been done all the same.
    pub fn run(&mut self, batch: &Batch, transaction: u32) -> Result<()> {
        let exchange = self.exchange.as_mut().ok_or(Errno::EIO)?;
        for request in &batch.requests {
            exchange.ask_beside(request, transaction)?;
        }
        let mut wait = Wait::new(self);
        let answered = self.wait_for_batch(&mut wait);
        wait.end(self);
        answered?;
        self.exchange.as_mut().and_then(|exchange| exchange.batch_error.take()).map_or(Ok(()), Err)
    }

    fn wait_for_batch(&mut self, wait: &mut Wait) -> Result<()> {
        loop {
            self.pump()?;
            if self.exchange.as_ref().ok_or(Errno::EIO)?.batch.is_empty() {
                return Ok(());
            }
            wait.on(self)?;
        }
    }

    fn wait_for_answer(&mut self, wait: &mut Wait) -> Result<Vec<u8>> {
        loop {
            if let Some(answer) = self.pump()? {
                return answer;
            }
            wait.on(self)?;
        }
    }

    pub fn next_event(&mut self) -> Option<WatchEvent> {
        if self.events.is_empty() {
            let _ = self.pump(); // a broken ring has no events
        }
        self.events.pop()
    }

    /// Moves what there is in both directions; the answer, if it came. `EIO`: the server broke the ring.
    fn pump(&mut self) -> Result<Option<Result<Vec<u8>>>> {
        let exchange = self.exchange.as_mut().ok_or(Errno::EIO)?;
        match exchange.pump(&mut self.events) {
            Ok(moved) => {
                if moved {
                    self.channel.notify();
                }
                Ok(exchange.answer.take())
            }
            Err(error) => {
                log::error!("xenstore: {error}");
                self.exchange = None;
                Err(Errno::EIO)
            }
        }
    }
}

/// The messages over the ring page. At most one request is waited for; answers to earlier ones, which timed out, are
/// dropped by their id.
struct Exchange {
    ring: StoreClient<Shared<'static>>,
    page: Shared<'static>,
    next_id: u32,
    /// Bytes of requests that the ring had no room for yet.
    outbox: VecDeque<u8>,
    /// The request that is waited for: its type and id.
    asked: (u32, u32),
    /// The answer to it.
    answer: Option<Result<Vec<u8>>>,
    /// Requests of a batch that wait for their answers: type, id, and the error that is none.
    batch: VecDeque<(u32, u32, Option<Errno>)>,
    /// The first error that one of them had.
    batch_error: Option<Errno>,
}

impl Exchange {
    fn new(page: Shared<'static>) -> core::result::Result<Self, WireError> {
        let ring = StoreClient::attach(page)?;
        let (outbox, batch) = (VecDeque::new(), VecDeque::new());
        Ok(Self { ring, page, next_id: 1, outbox, asked: (0, 0), answer: None, batch, batch_error: None })
    }

    /// Puts a request of a batch into the outbox.
    fn ask_beside(&mut self, request: &Request, transaction: u32) -> Result<()> {
        if self.batch.is_empty() {
            self.batch_error = None;
        }
        let id = self.next_id;
        let message = wire::request(request.kind, id, transaction, &[&request.payload]).ok_or(Errno::E2BIG)?;
        self.next_id = id.wrapping_add(1).max(1);
        self.outbox.extend(message);
        self.batch.push_back((request.kind, id, request.tolerated));
        Ok(())
    }

    /// Puts a request into the outbox; its answer is the one that counts from now on.
    fn ask(&mut self, kind: u32, transaction: u32, parts: &[&[u8]]) -> Result<()> {
        if self.outbox.len() > OUTBOX_MAX {
            return Err(Errno::ETIMEDOUT);
        }
        let id = self.next_id;
        let request = wire::request(kind, id, transaction, parts).ok_or(Errno::E2BIG)?;
        self.next_id = id.wrapping_add(1).max(1);
        self.outbox.extend(request);
        self.asked = (kind, id);
        self.answer = None;
        Ok(())
    }

    /// Moves what there is in both directions; whether the server must be told.
    fn pump(&mut self, events: &mut EventQueue) -> core::result::Result<bool, WireError> {
        let sent = self.send()?;
        Ok(self.receive(events)? | sent)
    }

    fn send(&mut self) -> core::result::Result<bool, WireError> {
        let mut sent = 0;
        while !self.outbox.is_empty() {
            let (piece, _) = self.outbox.as_slices();
            let count = self.ring.write(piece)?;
            if count == 0 {
                break;
            }
            self.outbox.drain(..count);
            sent += count;
        }
        Ok(sent != 0)
    }

    fn receive(&mut self, events: &mut EventQueue) -> core::result::Result<bool, WireError> {
        // Our own index: it tells whether room was made, also by a part of a message.
        let consumed = self.page.u32_at(page::RESPONSES.cons);
        let before = consumed.load(Relaxed);
        while let Some(message) = self.ring.next_message()? {
            if message.is_watch_event() {
                WatchEvent::parse(message.payload).into_iter().for_each(|event| events.push(event));
            } else if let Some(&(kind, id, tolerated)) = self.batch.front()
                && message.head.req_id == id
            {
                let error = reply::check_reply(&message, kind, id).err().map(errno_of);
                self.batch.pop_front();
                self.batch_error = self.batch_error.or(error.filter(|_| error != tolerated));
            } else if message.head.req_id == self.asked.1 {
                let checked = reply::check_reply(&message, self.asked.0, self.asked.1);
                self.answer = Some(checked.map(<[u8]>::to_vec).map_err(errno_of));
            }
        }
        Ok(consumed.load(Relaxed) != before)
    }
}

fn errno_of(error: ReplyError) -> Errno {
    match error {
        ReplyError::Refused(errno) => errno,
        ReplyError::Mismatch | ReplyError::Payload => Errno::EBADMSG,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pages::Pages;
    use alloc::boxed::Box;
    use alloc::vec;
    use xen_abi::io::xs_wire as abi;
    use xen_rings::store::StoreServer;

    /// Both ends of a ring; the page is never given back.
    fn both() -> (Exchange, StoreServer<Shared<'static>>, EventQueue) {
        let page = Box::leak(Box::new(Pages::new(1).unwrap())).as_shared();
        (Exchange::new(page).unwrap(), StoreServer::attach(page).unwrap(), EventQueue::default())
    }

    fn reply(server: &mut StoreServer<Shared<'static>>, kind: u32, id: u32, payload: &[u8]) {
        let message = wire::request(kind, id, 0, &[payload]).unwrap();
        assert_eq!(server.write(&message).unwrap(), message.len());
    }

    #[test]
    fn an_answer_comes_back_with_the_events_that_came_before_it() {
        let (mut client, mut server, mut events) = both();
        client.ask(abi::XS_READ, 7, &[b"name", b"\0"]).unwrap();
        assert!(client.pump(&mut events).unwrap());
        let request = server.next_message().unwrap().unwrap();
        assert_eq!((request.head.kind, request.head.tx_id, request.payload), (abi::XS_READ, 7, &b"name\0"[..]));
        reply(&mut server, abi::XS_WATCH_EVENT, 0, b"a\0t\0");
        reply(&mut server, abi::XS_READ, 1, b"web");
        assert!(client.pump(&mut events).unwrap());
        assert_eq!(client.answer.take(), Some(Ok(b"web".to_vec())));
        assert_eq!(events.pop().unwrap().path, "a");
        assert!(!client.pump(&mut events).unwrap(), "nothing moved: nobody is told");
    }

    #[test]
    fn errors_come_back_as_such() {
        let (mut client, mut server, mut events) = both();
        for (payload, error) in [(&b"ENOENT\0"[..], Errno::ENOENT), (b"EWHAT\0", Errno::EINVAL)] {
            client.ask(abi::XS_READ, 0, &[b"x\0"]).unwrap();
            reply(&mut server, abi::XS_ERROR, client.asked.1, payload);
            client.pump(&mut events).unwrap();
            assert_eq!(client.answer.take(), Some(Err(error)));
        }
    }

    #[test]
    fn a_late_answer_is_not_taken_for_the_next_one() {
        let (mut client, mut server, mut events) = both();
        client.ask(abi::XS_READ, 0, &[b"slow\0"]).unwrap();
        client.ask(abi::XS_READ, 0, &[b"next\0"]).unwrap();
        reply(&mut server, abi::XS_READ, 1, b"late");
        client.pump(&mut events).unwrap();
        assert_eq!(client.answer, None);
        reply(&mut server, abi::XS_READ, 2, b"right");
        client.pump(&mut events).unwrap();
        assert_eq!(client.answer.take(), Some(Ok(b"right".to_vec())));
    }

    #[test]
    fn a_request_longer_than_the_ring_goes_in_pieces() {
        let (mut client, mut server, mut events) = both();
        let value = vec![b'v'; 4000];
        client.ask(abi::XS_WRITE, 0, &[b"long\0", &value]).unwrap();
        for _ in 0..10 {
            client.pump(&mut events).unwrap();
            if let Some(message) = server.next_message().unwrap() {
                assert_eq!(message.payload.len(), 4005);
                return;
            }
        }
        panic!("the request never arrived");
    }

    #[test]
    fn a_server_that_breaks_the_ring_is_an_error_and_no_harm() {
        let (mut client, _, mut events) = both();
        client.page.u32_at(page::RESPONSES.prod).store(5000, Relaxed);
        assert!(client.pump(&mut events).is_err());
        let (mut client, mut server, mut events) = both();
        server.write(&[0xff; 16]).unwrap();
        assert!(client.pump(&mut events).is_err(), "a message of 4 GiB");
    }

    #[test]
    fn requests_that_nobody_takes_are_bounded() {
        let (mut client, _, _) = both();
        let asked = (0..100).take_while(|_| client.ask(abi::XS_WRITE, 0, &[b"x\0", &[0; 1000]]).is_ok()).count();
        assert!((10..20).contains(&asked));
    }
}
