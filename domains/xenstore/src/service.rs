//! The server: bytes between the rings and the engine, in turn, and each step noted for a successor before anybody can
//! see it.
//!
//! A request is looked at, carried out, noted, taken off its ring, and then its reply goes out. A server that dies before
//! the note has done nothing that outlives it, and its successor finds the request in the ring; one that dies after it
//! leaves the reply to its successor. How much of a reply is out, the ring itself says.

use crate::connection::{Start, State};
use crate::domid::DomId;
use crate::engine::{Engine, Rings};
use crate::handover::{Action, Found, Handover, Record, Unusable};
use crate::ring::{Next, Ring};
use alloc::collections::{BTreeMap, BTreeSet};
use alloc::vec::Vec;
use core::fmt;
use xen_abi::errno::Errno;
use xen_abi::io::xs_wire::{XENSTORE_ERROR_COMM, XENSTORE_ERROR_PROTO, XENSTORE_ERROR_RINGIDX};
use xen_rings::memory::SharedMemory;
use xen_rings::store::message::{HEAD_BYTES, MESSAGE_BYTES_MAX, parse_head};
use xen_rings::store::{Message, WireError};

/// Requests of one client before the others get their turn.
const REQUESTS_PER_TURN: usize = 8;
/// Servers that may die of the same request. It is not begun once more.
const ATTEMPTS: u32 = 3;

/// What the service needs of the machine.
pub trait World {
    /// A client's ring page.
    type Page: SharedMemory;
    /// Maps the ring of `domain` and binds its event channel `port`. `None`: it cannot be done, and was reported.
    fn attach(&mut self, domain: DomId, port: u32) -> Option<Self::Page>;
    /// The opposite, as far as it does not follow from dropping the page.
    fn detach(&mut self, domain: DomId);
    /// Wakes `domain`.
    fn notify(&mut self, domain: DomId);
    /// Whether so little memory is left that only the policy domain may take more.
    fn memory_is_short(&self) -> bool;
    /// Says something to the administrator.
    fn say(&mut self, what: fmt::Arguments<'_>);
}

/// The rings of the introduced domains.
struct Attached<W: World> {
    world: W,
    rings: BTreeMap<DomId, Ring<W::Page>>,
    /// What a request found out about the world.
    memory_was_short: bool,
    attached: Option<Start>,
}

impl<W: World> Rings for Attached<W> {
    fn attach(&mut self, domain: DomId, port: u32) -> Result<Start, Errno> {
        let page = self.world.attach(domain, port).ok_or(Errno::EINVAL)?;
        let ring = Ring::attach(page).map_err(|error| {
            self.world.say(format_args!("domain {domain} cannot be introduced: {error}"));
            self.world.detach(domain);
            Errno::EINVAL
        })?;
        let (input, output) = ring.positions();
        self.rings.insert(domain, ring);
        let start = Start { port, input, output };
        self.attached = Some(start);
        Ok(start)
    }

    fn detach(&mut self, domain: DomId) {
        self.rings.remove(&domain);
        self.world.detach(domain);
    }

    fn memory_is_short(&mut self) -> bool {
        self.memory_was_short = self.world.memory_is_short();
        self.memory_was_short
    }
}

/// The server with all that it has.
pub struct Service<W: World, M> {
    engine: Engine,
    attached: Attached<W>,
    /// What is handed over, if anything is.
    handover: Option<Handover<M>>,
    /// Who has something to do.
    ready: BTreeSet<DomId>,
    /// Who waits for the policy domain.
    held: BTreeSet<DomId>,
    /// The request that is looked at.
    request: Vec<u8>,
}

/// Why there is no service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoService {
    /// The policy domain's ring cannot be used.
    NoPolicy,
    /// What a predecessor left makes no sense.
    Unusable(Unusable),
}

impl fmt::Display for NoService {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            NoService::NoPolicy => f.write_str("the policy domain's ring cannot be used"),
            NoService::Unusable(why) => write!(f, "what was handed over cannot be used: {why}"),
        }
    }
}

impl<W: World, M: SharedMemory> Service<W, M> {
    /// Starts from nothing, with the policy domain's ring at its `policy_port`; or goes on where a predecessor was, by what
    /// it left in `handover`.
    pub fn start(world: W, memory_quota: usize, policy_port: u32, handover: Option<M>) -> Result<Self, NoService> {
        let opened = handover.map(|memory| Handover::open(memory, memory_quota)).transpose();
        let (handover, found) = opened.map_err(NoService::Unusable)?.unzip();
        let attached = Attached { world, rings: BTreeMap::new(), memory_was_short: false, attached: None };
        let (ready, held) = (BTreeSet::new(), BTreeSet::new());
        let request = Vec::with_capacity(MESSAGE_BYTES_MAX);
        let engine = Engine::new(memory_quota);
        let mut service = Service { engine, attached, handover, ready, held, request };
        match found {
            Some(Found::State(engine)) => {
                service.engine = engine;
                service.take_up();
            }
            Some(Found::Nothing) | None => {
                let start = service.attached.attach(DomId::POLICY, policy_port).map_err(|_| NoService::NoPolicy)?;
                service.engine.connect(DomId::POLICY, start);
                service.take_snapshot();
            }
        }
        service.ready = service.attached.rings.keys().copied().collect();
        Ok(service)
    }

    /// Attaches all rings that the predecessor had.
    fn take_up(&mut self) {
        for domain in self.engine.domains() {
            let Some(connection) = self.engine.connections.get_mut(&domain) else { continue };
            if connection.state == State::CutOff {
                continue;
            }
            let Start { port, input, .. } = connection.start;
            let resumed = self.attached.world.attach(domain, port).map(|page| {
                let ring = Ring::resume(page, input)?;
                let (_, output) = ring.positions();
                Ok((ring, connection.output_taken_up_to(output)))
            });
            match resumed {
                Some(Ok((ring, true))) => _ = self.attached.rings.insert(domain, ring),
                Some(Ok((mut ring, false))) => {
                    ring.tell_error(XENSTORE_ERROR_RINGIDX);
                    self.attached.rings.insert(domain, ring);
                    self.cut_off(domain, format_args!("its ring was changed while nobody served it"));
                }
                Some(Err(error)) => self.cut_off(domain, format_args!("{}", WireError::Ring(error))),
                // It is gone, or about to go.
                None => self.cut_off(domain, format_args!("its ring is not there any more")),
            }
        }
    }

    /// The engine, for inspection.
    pub fn engine(&self) -> &Engine {
        &self.engine
    }

    /// The world.
    pub fn world(&mut self) -> &mut W {
        &mut self.attached.world
    }

    /// Whether a successor could go on from here.
    pub fn hands_over(&self) -> bool {
        self.handover.is_some()
    }

    /// Whether some client has something to do already: then do not wait for events.
    pub fn is_busy(&self) -> bool {
        !self.ready.is_empty()
    }

    /// The ring of `domain` may have changed.
    pub fn is_ready(&mut self, domain: DomId) {
        self.ready.insert(domain);
    }

    /// Gives everybody who is ready a turn.
    pub fn turn(&mut self) {
        for domain in core::mem::take(&mut self.ready) {
            match self.serve(domain) {
                Turn::More => _ = self.ready.insert(domain),
                Turn::Held => _ = self.held.insert(domain),
                Turn::Done => {}
            }
            if domain == DomId::POLICY {
                self.ready.append(&mut self.held);
            }
        }
        self.flush();
    }

    /// Takes a bounded number of requests of `domain`.
    fn serve(&mut self, domain: DomId) -> Turn {
        for _ in 0..REQUESTS_PER_TURN {
            self.send(domain);
            if self.engine.is_held(domain) {
                return Turn::Held;
            }
            if !self.engine.takes_requests(domain) || !self.next_request(domain) {
                return Turn::Done;
            }
        }
        Turn::More
    }

    /// Takes one request of `domain`, or a part of one; `false`: there was none.
    fn next_request(&mut self, domain: DomId) -> bool {
        let Some((connection, ring)) =
            self.engine.connections.get_mut(&domain).zip(self.attached.rings.get_mut(&domain))
        else {
            return false;
        };
        let taken = connection.partial.len();
        self.request.clear();
        self.request.extend_from_slice(&connection.partial);
        let next = ring.look(&mut self.request);
        let new = self.request.len() - taken;
        match next {
            Ok(Next::Nothing) => return false,
            Ok(Next::Part) => {
                connection.partial.extend_from_slice(self.request.get(taken..).unwrap_or_default());
                connection.start.input = connection.start.input.wrapping_add(new as u32);
                self.note(domain, Action::Part, taken);
            }
            Ok(Next::Whole) => {
                let place = connection.start.input;
                if self.handover.as_mut().is_some_and(|handover| handover.begin(domain, place) > ATTEMPTS) {
                    self.tell_error(domain, XENSTORE_ERROR_COMM);
                    self.cut_off(domain, format_args!("{ATTEMPTS} servers have died of its request"));
                    return false;
                }
                connection.partial.clear();
                connection.start.input = place.wrapping_add(new as u32);
                let action = self.carry_out(domain);
                self.note(domain, action, taken);
            }
            Err(error) => {
                self.tell_error(
                    domain,
                    match error {
                        WireError::Ring(_) => XENSTORE_ERROR_RINGIDX,
                        WireError::TooLong(_) => XENSTORE_ERROR_PROTO,
                    },
                );
                self.cut_off(domain, format_args!("{error}"));
                return false;
            }
        }
        if let Some(ring) = self.attached.rings.get_mut(&domain) {
            ring.take(new);
        }
        true
    }

    /// Carries out the request that was looked at.
    fn carry_out(&mut self, domain: DomId) -> Action {
        (self.attached.memory_was_short, self.attached.attached) = (false, None);
        if let Ok(Some(head)) = parse_head(&self.request) {
            let payload = self.request.get(HEAD_BYTES..).unwrap_or_default();
            self.engine.request(domain, &Message { head, payload }, &mut self.attached);
        }
        Action::Request { memory_was_short: self.attached.memory_was_short, attached: self.attached.attached }
    }

    /// Hands over that `domain` has had `action` done, for which the bytes from `taken` on were read.
    fn note(&mut self, domain: DomId, action: Action, taken: usize) {
        let Some(handover) = &mut self.handover else { return };
        let Some(connection) = self.engine.connections.get(&domain) else { return };
        let (input, output) = (connection.start.input, connection.output_position());
        let bytes = self.request.get(taken..).unwrap_or_default();
        if !handover.note(&Record { domain, action, input, output, bytes }, &self.engine) {
            self.no_more_handover();
        }
    }

    fn take_snapshot(&mut self) {
        if let Some(handover) = &mut self.handover
            && !handover.take_snapshot(&self.engine)
        {
            self.no_more_handover();
        }
    }

    fn no_more_handover(&mut self) {
        self.handover = None;
        self.world()
            .say(format_args!("there is too little room for what is handed over: no other can take over any more"));
    }

    /// Gives every client what waits for it and fits.
    fn flush(&mut self) {
        for domain in self.engine.domains() {
            self.send(domain);
            if self.attached.rings.get_mut(&domain).is_some_and(Ring::has_moved) {
                self.attached.world.notify(domain);
            }
        }
    }

    fn send(&mut self, domain: DomId) {
        loop {
            let events = self.engine.fill_with_events(domain);
            if events != 0 {
                self.request.clear();
                self.note(domain, Action::Events(events), 0);
            }
            let Some(ring) = self.attached.rings.get_mut(&domain) else { return };
            let bytes = self.engine.output(domain);
            if bytes.is_empty() {
                return;
            }
            match ring.write(bytes) {
                Ok(0) => return,
                Ok(count) => self.engine.output_taken(domain, count),
                Err(error) => {
                    self.tell_error(domain, XENSTORE_ERROR_RINGIDX);
                    return self.cut_off(domain, format_args!("{error}"));
                }
            }
        }
    }

    fn tell_error(&mut self, domain: DomId, error: u32) {
        if let Some(ring) = self.attached.rings.get_mut(&domain) {
            ring.tell_error(error);
        }
    }

    /// Serves `domain` no more. It stays introduced until the policy domain releases it.
    fn cut_off(&mut self, domain: DomId, why: fmt::Arguments<'_>) {
        self.attached.world.say(format_args!("domain {domain} is served no more: {why}"));
        // The record is of the connection as it was.
        let Some(connection) = self.engine.connections.get(&domain) else { return };
        let (input, output) = (connection.start.input, connection.output_position());
        self.engine.cut_off(domain);
        if let Some(handover) = &mut self.handover {
            let record = Record { domain, action: Action::CutOff, input, output, bytes: &[] };
            if !handover.note(&record, &self.engine) {
                self.no_more_handover();
            }
        }
    }
}

/// What is left of a client's requests after its turn.
#[derive(PartialEq, Eq)]
enum Turn {
    More,
    /// It has to wait for the policy domain.
    Held,
    Done,
}
