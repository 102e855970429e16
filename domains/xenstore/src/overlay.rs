//! What a transaction has seen and wants changed, laid over the store.
//!
//! Reads see the store through the overlay. Each node that is looked at is noted with the generation it had (or that it
//! was absent), which [`crate::store::Store::commit`] compares: a transaction takes effect only if nothing that it saw
//! has changed. A request outside a transaction is an overlay of its own that is committed at once.

use crate::domid::DomId;
use crate::path::Path;
use crate::permissions::Permissions;
use crate::quota;
use crate::store::{Node, Store, charged_bytes};
use alloc::collections::BTreeMap;
use alloc::rc::Rc;
use alloc::vec::Vec;
use xen_abi::errno::Errno;

/// A change that watchers are told of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// The node that changed.
    pub path: Path,
    /// Only watches on this very node fire, not those above it: it went away with one of its ancestors.
    pub exact: bool,
    /// A watcher must be able to read by one of these: the permissions before and after.
    pub readable_by: [Option<Permissions>; 2],
}

impl Event {
    /// The event of a removal.
    #[must_use]
    pub fn removed(path: Path, before: Permissions, exact: bool) -> Self {
        Event { path, exact, readable_by: [Some(before), None] }
    }

    /// Whether `domain` may know.
    #[must_use]
    pub fn visible_to(&self, domain: DomId) -> bool {
        self.readable_by.iter().flatten().any(|permissions| permissions.access_of(domain).reads())
    }
}

/// One node's change.
#[derive(Debug)]
pub struct Write {
    /// Where.
    pub path: Path,
    /// What it becomes; `None` removes it.
    pub node: Option<Node>,
}

/// Whether an overlay notes what is read through it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Recording {
    /// A transaction: every node seen is noted and counted.
    Transaction,
    /// A single request: nothing can change between its reads and its commit.
    SingleRequest,
}

#[derive(Debug)]
pub(crate) enum State {
    Seen,
    Written(Rc<Node>),
    Removed,
}

#[derive(Debug)]
pub(crate) struct Touched {
    /// The generation that the store's node had, or that there was none.
    pub(crate) base: Option<u64>,
    pub(crate) state: State,
}

/// See the module.
#[derive(Debug)]
pub struct Overlay {
    recording: Recording,
    pub(crate) touched: BTreeMap<Path, Touched>,
    pub(crate) events: Vec<Event>,
    bytes: usize,
    bytes_max: usize,
}

/// Bytes of bookkeeping that a touched node counts for, besides its path and what it becomes.
const TOUCHED_OVERHEAD: usize = 128;
/// Bytes that an event counts for, besides the path.
const EVENT_OVERHEAD: usize = 224;

/// By how much what a domain owns would grow or shrink.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Delta {
    /// Nodes.
    pub nodes: isize,
    /// Bytes of them, as [`charged_bytes`] counts.
    pub bytes: isize,
}

impl Overlay {
    /// For a transaction.
    #[must_use]
    pub fn transaction() -> Self {
        Self::new(Recording::Transaction)
    }

    /// For one request outside a transaction.
    #[must_use]
    pub fn single_request() -> Self {
        Self::new(Recording::SingleRequest)
    }

    /// A transaction that has touched and changed this already.
    pub(crate) fn restore(touched: BTreeMap<Path, Touched>, events: Vec<Event>) -> Self {
        let bytes = touched.iter().map(|(path, touched)| held_bytes(path, &touched.state)).sum::<usize>()
            + events.iter().map(event_bytes).sum::<usize>();
        Overlay { touched, events, bytes, ..Self::transaction() }
    }

    fn new(recording: Recording) -> Self {
        Overlay { recording, touched: BTreeMap::new(), events: Vec::new(), bytes: 0, bytes_max: usize::MAX }
    }

    /// Bytes that it holds.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// The client's memory quota lets it grow by `bytes` from here.
    pub fn may_grow_by(&mut self, bytes: usize) {
        self.bytes_max = self.bytes.saturating_add(bytes);
    }

    /// By how much it may still grow.
    #[must_use]
    pub fn memory_left(&self) -> usize {
        self.bytes_max.saturating_sub(self.bytes)
    }

    /// Each node noted, with the generation that it had.
    pub fn seen(&self) -> impl Iterator<Item = (&Path, Option<u64>)> {
        self.touched.iter().map(|(path, touched)| (path, touched.base))
    }

    /// The changes, and the events for them.
    pub fn into_parts(self) -> (impl Iterator<Item = (Path, Option<Rc<Node>>)>, Vec<Event>) {
        let writes = self.touched.into_iter().filter_map(|(path, touched)| match touched.state {
            State::Seen => None,
            State::Written(node) => Some((path, Some(node))),
            State::Removed => Some((path, None)),
        });
        (writes, self.events)
    }

    /// By how much what each owner has would grow or shrink.
    #[must_use]
    pub fn deltas(&self, store: &Store) -> BTreeMap<DomId, Delta> {
        let mut deltas = BTreeMap::new();
        for (path, touched) in &self.touched {
            let now = match &touched.state {
                State::Seen => continue,
                State::Written(node) => Some(node),
                State::Removed => None,
            };
            count(&mut deltas, path, store.get(path).map(|node| &**node), -1);
            count(&mut deltas, path, now.map(|node| &**node), 1);
        }
        deltas
    }

    /// The node at `path` as the transaction sees it. Fails when a transaction has no room to note that it was seen.
    pub fn get(&mut self, store: &Store, path: &Path, client: DomId) -> Result<Option<Rc<Node>>, Errno> {
        if let Some(touched) = self.touched.get(path) {
            return Ok(match &touched.state {
                State::Seen => store.get(path).cloned(),
                State::Written(node) => Some(node.clone()),
                State::Removed => None,
            });
        }
        let node = store.get(path).cloned();
        if self.recording == Recording::Transaction {
            self.room_for(1, seen_bytes(path), client)?;
            self.note(path.clone(), node.as_ref(), State::Seen);
        }
        Ok(node)
    }

    /// Makes all of `writes` or, when a quota of `client` stands against it, none. Each is of another node.
    pub fn write(
        &mut self,
        store: &Store,
        client: DomId,
        writes: Vec<Write>,
        events: impl IntoIterator<Item = Event>,
    ) -> Result<(), Errno> {
        let fresh = writes.iter().filter(|write| !self.touched.contains_key(&write.path)).count();
        let events: Vec<Event> = events.into_iter().filter(|event| !self.events.contains(event)).collect();
        if self.recording == Recording::Transaction {
            let of_writes = writes.iter().map(|write| self.growth_by(write)).sum::<usize>();
            self.room_for(fresh, of_writes + events.iter().map(event_bytes).sum::<usize>(), client)?;
        }
        self.check_quotas(store, client, &writes)?;
        for Write { path, node } in writes {
            let state = match node {
                Some(node) => State::Written(Rc::new(node)),
                None => State::Removed,
            };
            self.note(path.clone(), store.get(&path), state);
        }
        for event in events {
            self.bytes += event_bytes(&event);
            self.events.push(event);
        }
        Ok(())
    }

    fn check_quotas(&self, store: &Store, client: DomId, writes: &[Write]) -> Result<(), Errno> {
        if client.is_privileged() {
            return Ok(());
        }
        let mut deltas = self.deltas(store);
        for Write { path, node } in writes {
            let before = match self.touched.get(path).map(|touched| &touched.state) {
                None | Some(State::Seen) => store.get(path),
                Some(State::Written(node)) => Some(node),
                Some(State::Removed) => None,
            };
            count(&mut deltas, path, before.map(|node| &**node), -1);
            count(&mut deltas, path, node.as_ref(), 1);
            let Some(node) = node else { continue };
            let grows = before.is_none_or(|before| node.size() > before.size());
            if grows && node.size() > quota::NODE_BYTES || node.permissions.count() > quota::PERMISSIONS_PER_NODE {
                return Err(Errno::ENOSPC);
            }
        }
        let own = deltas.get(&client).copied().unwrap_or_default();
        if self.recording == Recording::SingleRequest && own.bytes > 0 && own.bytes.unsigned_abs() > self.bytes_max {
            return Err(Errno::ENOMEM);
        }
        store.check_owners(&deltas)
    }

    fn room_for(&self, nodes: usize, bytes: usize, client: DomId) -> Result<(), Errno> {
        if client.is_privileged() {
            return Ok(());
        }
        if self.touched.len() + nodes > quota::NODES_PER_TRANSACTION {
            return Err(Errno::ENOSPC);
        }
        if self.bytes + bytes > self.bytes_max {
            return Err(Errno::ENOMEM);
        }
        Ok(())
    }

    /// Bytes that it holds more once it has `write`.
    fn growth_by(&self, write: &Write) -> usize {
        let becomes = write.node.as_ref().map_or(0, |node| charged_bytes(&write.path, node));
        let held = self.touched.get(&write.path).map_or(0, |touched| held_bytes(&write.path, &touched.state));
        (seen_bytes(&write.path) + becomes).saturating_sub(held)
    }

    fn note(&mut self, path: Path, in_store: Option<&Rc<Node>>, state: State) {
        self.bytes += held_bytes(&path, &state);
        if let Some(touched) = self.touched.get_mut(&path) {
            self.bytes = self.bytes.saturating_sub(held_bytes(&path, &touched.state));
            touched.state = state;
        } else {
            let base = in_store.map(|node| node.generation);
            self.touched.insert(path, Touched { base, state });
        }
    }
}

fn seen_bytes(path: &Path) -> usize {
    TOUCHED_OVERHEAD + path.as_str().len()
}

fn held_bytes(path: &Path, state: &State) -> usize {
    match state {
        State::Written(node) => seen_bytes(path) + charged_bytes(path, node),
        State::Seen | State::Removed => seen_bytes(path),
    }
}

fn event_bytes(event: &Event) -> usize {
    EVENT_OVERHEAD + event.path.as_str().len()
}

/// Counts `node` once more (`times` is 1) or less (-1) for its owner.
fn count(deltas: &mut BTreeMap<DomId, Delta>, path: &Path, node: Option<&Node>, times: isize) {
    if let Some(node) = node {
        let delta = deltas.entry(node.permissions.owner()).or_default();
        delta.nodes += times;
        delta.bytes += times * charged_bytes(path, node).cast_signed();
    }
}
