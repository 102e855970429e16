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
enum State {
    Seen,
    Written(Rc<Node>),
    Removed,
}

#[derive(Debug)]
struct Touched {
    /// The generation that the store's node had, or that there was none.
    base: Option<u64>,
    state: State,
}

/// See the module.
#[derive(Debug)]
pub struct Overlay {
    recording: Recording,
    touched: BTreeMap<Path, Touched>,
    events: Vec<Event>,
    bytes: usize,
}

/// Bytes of bookkeeping that a touched node counts for.
const TOUCHED_OVERHEAD: usize = 64;

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

    fn new(recording: Recording) -> Self {
        Overlay { recording, touched: BTreeMap::new(), events: Vec::new(), bytes: 0 }
    }

    /// Bytes that it holds.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.bytes
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

    /// By how much each owner's number of nodes would grow or shrink.
    #[must_use]
    pub fn node_deltas(&self, store: &Store) -> BTreeMap<DomId, isize> {
        let mut deltas = BTreeMap::new();
        for (path, touched) in &self.touched {
            let now = match &touched.state {
                State::Seen => continue,
                State::Written(node) => Some(node),
                State::Removed => None,
            };
            count(&mut deltas, store.get(path), -1);
            count(&mut deltas, now, 1);
        }
        deltas
    }

    /// The node at `path` as the transaction sees it.
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
            self.room_for(1, client)?;
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
        if self.recording == Recording::Transaction {
            self.room_for(fresh, client)?;
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
            if !self.events.contains(&event) {
                self.bytes += TOUCHED_OVERHEAD + event.path.as_str().len();
                self.events.push(event);
            }
        }
        Ok(())
    }

    fn check_quotas(&self, store: &Store, client: DomId, writes: &[Write]) -> Result<(), Errno> {
        if client.is_privileged() {
            return Ok(());
        }
        let mut deltas = self.node_deltas(store);
        let mut bytes = self.bytes;
        for Write { path, node } in writes {
            let before = match self.touched.get(path).map(|touched| &touched.state) {
                None | Some(State::Seen) => store.get(path),
                Some(State::Written(node)) => Some(node),
                Some(State::Removed) => None,
            };
            if let Some(before) = before {
                *deltas.entry(before.permissions.owner()).or_default() -= 1;
            }
            let Some(node) = node else { continue };
            *deltas.entry(node.permissions.owner()).or_default() += 1;
            let grows = before.is_none_or(|before| node.size() > before.size());
            if grows && node.size() > quota::NODE_BYTES || node.permissions.count() > quota::PERMISSIONS_PER_NODE {
                return Err(Errno::ENOSPC);
            }
            bytes += charged_bytes(path, node);
        }
        for (owner, delta) in deltas.into_iter().filter(|(owner, delta)| *delta > 0 && !owner.is_privileged()) {
            if store.usage(owner).nodes + delta.unsigned_abs() > quota::NODES {
                return Err(Errno::ENOSPC);
            }
        }
        if store.usage(client).bytes + bytes > quota::MEMORY {
            return Err(Errno::ENOMEM);
        }
        Ok(())
    }

    fn room_for(&self, fresh: usize, client: DomId) -> Result<(), Errno> {
        if !client.is_privileged() && self.touched.len() + fresh > quota::NODES_PER_TRANSACTION {
            return Err(Errno::ENOSPC);
        }
        Ok(())
    }

    fn note(&mut self, path: Path, in_store: Option<&Rc<Node>>, state: State) {
        let cost = |state: &State| match state {
            State::Written(node) => charged_bytes(&path, node),
            State::Seen | State::Removed => TOUCHED_OVERHEAD + path.as_str().len(),
        };
        self.bytes += cost(&state);
        if let Some(touched) = self.touched.get_mut(&path) {
            self.bytes = self.bytes.saturating_sub(cost(&touched.state));
            touched.state = state;
        } else {
            let base = in_store.map(|node| node.generation);
            self.touched.insert(path, Touched { base, state });
        }
    }
}

fn count(deltas: &mut BTreeMap<DomId, isize>, node: Option<&Rc<Node>>, by: isize) {
    if let Some(node) = node {
        *deltas.entry(node.permissions.owner()).or_default() += by;
    }
}
