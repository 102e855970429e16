//! The server: connections, the store, and what goes on between them. No I/O: messages in, bytes out.

use crate::connection::{Connection, Start, State};
use crate::domid::DomId;
use crate::overlay::Event;
use crate::store::Store;
use crate::watch::Target;
use alloc::collections::BTreeMap;
use alloc::vec::Vec;
use xen_abi::errno::Errno;

/// Collisions in a row after which the policy domain's next transaction has the store to itself.
const CONFLICTS_MAX: u32 = 3;

/// What the engine asks of the world.
pub trait Rings {
    /// Map the ring of `domain` and bind its event channel `port`. Gives where the ring stands.
    fn attach(&mut self, domain: DomId, port: u32) -> Result<Start, Errno>;
    /// The opposite. Must succeed or be made up for later; the domain is gone.
    fn detach(&mut self, domain: DomId);
    /// Whether so little memory is left that only the policy domain may take more.
    fn memory_is_short(&mut self) -> bool {
        false
    }
}

/// The whole state of the server.
#[derive(Debug, Default)]
pub struct Engine {
    pub(crate) store: Store,
    pub(crate) connections: BTreeMap<DomId, Connection>,
}

impl Engine {
    /// A server with an empty store and no connection, which holds at most `memory_quota` bytes for each domain but the
    /// policy domain.
    #[must_use]
    pub fn new(memory_quota: usize) -> Self {
        Engine { store: Store::new(memory_quota), connections: BTreeMap::new() }
    }

    /// The tree, for inspection.
    #[must_use]
    pub fn store(&self) -> &Store {
        &self.store
    }

    /// Whether `domain` is introduced and not released, served or cut off.
    #[must_use]
    pub fn knows(&self, domain: DomId) -> bool {
        self.connections.contains_key(&domain)
    }

    /// Starts a connection for `domain`, whose ring is attached. One that it had before is forgotten with its watches
    /// and transactions.
    pub fn connect(&mut self, domain: DomId, start: Start) {
        self.connections.insert(domain, Connection { start, ..Connection::new(domain) });
        self.fire_special(&Target::IntroduceDomain);
    }

    /// Ends the connection of `domain`, which is gone, and forgets whatever its id stood for: its nodes, what it was
    /// allowed, its watches and transactions.
    pub fn release(&mut self, domain: DomId) {
        self.connections.remove(&domain);
        let events = self.store.forget(domain);
        self.fire(&events);
        self.fire_special(&Target::ReleaseDomain);
    }

    /// Serves `domain` no more because its ring makes no sense. It stays known until it is released.
    pub fn cut_off(&mut self, domain: DomId) {
        if let Some(connection) = self.connections.get_mut(&domain) {
            connection.cut_off();
        }
    }

    /// Whether to take a request from the ring of `domain` now. Not while it has to read replies first, and not while
    /// it is [held](Engine::is_held).
    #[must_use]
    pub fn takes_requests(&self, domain: DomId) -> bool {
        let connection = self.connections.get(&domain);
        connection.is_some_and(|one| one.state == State::Active && !one.is_backed_up()) && !self.is_held(domain)
    }

    /// Whether `domain` has to wait until a transaction of the policy domain has ended, because earlier ones collided
    /// again and again with what others changed. Look again after each request of the policy domain.
    #[must_use]
    pub fn is_held(&self, domain: DomId) -> bool {
        let starves = |policy: &Connection| policy.conflicts >= CONFLICTS_MAX && !policy.transactions.is_empty();
        !domain.is_privileged() && self.connections.get(&DomId::POLICY).is_some_and(starves)
    }

    /// Whether `domain` is known but not served.
    #[must_use]
    pub fn is_cut_off(&self, domain: DomId) -> bool {
        self.connections.get(&domain).is_some_and(|connection| connection.state == State::CutOff)
    }

    /// Gets bytes ready for the ring of `domain`: events, if there is little else. Gives how many events.
    pub fn fill_with_events(&mut self, domain: DomId) -> u32 {
        self.connections.get_mut(&domain).map_or(0, Connection::fill_with_events)
    }

    /// Bytes to put into the ring of `domain`.
    #[must_use]
    pub fn output(&self, domain: DomId) -> &[u8] {
        self.connections.get(&domain).map(Connection::output).unwrap_or_default()
    }

    /// `bytes` of [`Engine::output`] are in the ring.
    pub fn output_taken(&mut self, domain: DomId, bytes: usize) {
        if let Some(connection) = self.connections.get_mut(&domain) {
            connection.output_taken(bytes);
        }
    }

    /// The domains that are known.
    #[must_use]
    pub fn domains(&self) -> Vec<DomId> {
        self.connections.keys().copied().collect()
    }

    /// Bytes held for `domain` in all that its memory quota covers.
    #[must_use]
    pub fn memory_of(&self, domain: DomId) -> usize {
        self.store.usage(domain).bytes + self.connections.get(&domain).map_or(0, Connection::held_bytes)
    }

    /// Bytes that may still be held for `domain`.
    pub(crate) fn memory_left(&self, domain: DomId) -> usize {
        if domain.is_privileged() {
            return usize::MAX;
        }
        self.store.memory_quota().saturating_sub(self.memory_of(domain))
    }

    pub(crate) fn fire(&mut self, events: &[Event]) {
        for event in events {
            for connection in self.connections.values_mut() {
                connection.watches.fire(event);
            }
        }
    }

    fn fire_special(&mut self, target: &Target) {
        for connection in self.connections.values_mut() {
            connection.watches.fire_special(target);
        }
    }
}
