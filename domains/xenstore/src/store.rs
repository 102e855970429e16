//! The tree: nodes by path, a generation on each, and what each domain owns.
//!
//! The tree is a flat ordered map, so that no operation recurses. It changes only by [`Store::commit`], which takes a
//! finished [`Overlay`] and either applies all of it or none.

use crate::domid::DomId;
use crate::overlay::{Delta, Event, Overlay};
use crate::path::Path;
use crate::permissions::{Access, Permissions};
use crate::quota;
use alloc::collections::{BTreeMap, BTreeSet};
use alloc::rc::Rc;
use alloc::vec::Vec;
use xen_abi::errno::Errno;

/// One node.
#[derive(Clone, Debug)]
pub struct Node {
    /// Its value: any bytes.
    pub value: Rc<[u8]>,
    /// Who may do what.
    pub permissions: Permissions,
    /// Names of its children.
    pub children: Rc<BTreeSet<Rc<str>>>,
    /// Bytes of the children's names, each with its NUL.
    pub children_bytes: usize,
    /// When it or its list of children changed last, in commits.
    pub generation: u64,
}

/// Bytes that an entry of a permissions list counts for.
const PERMISSION_BYTES: usize = 4;

impl Node {
    /// A node without children.
    #[must_use]
    pub fn leaf(value: &[u8], permissions: Permissions) -> Self {
        Node { value: Rc::from(value), permissions, children: Rc::default(), children_bytes: 0, generation: 0 }
    }

    /// Bytes that it counts for in [`quota::NODE_BYTES`].
    #[must_use]
    pub fn size(&self) -> usize {
        self.value.len() + self.permissions.count() * PERMISSION_BYTES + self.children_bytes
    }

    /// The same node with the child `name` added.
    #[must_use]
    pub fn with_child(&self, name: &str) -> Self {
        let mut node = self.clone();
        if Rc::make_mut(&mut node.children).insert(Rc::from(name)) {
            node.children_bytes += name.len() + 1;
        }
        node
    }

    /// The same node with the child `name` removed.
    #[must_use]
    pub fn without_child(&self, name: &str) -> Self {
        let mut node = self.clone();
        if Rc::make_mut(&mut node.children).remove(name) {
            node.children_bytes -= name.len() + 1;
        }
        node
    }
}

/// What a domain has in the store.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Nodes that it owns.
    pub nodes: usize,
    /// Bytes of those nodes, as [`charged_bytes`] counts.
    pub bytes: usize,
}

/// The tree of nodes.
#[derive(Debug)]
pub struct Store {
    nodes: BTreeMap<Path, Rc<Node>>,
    usage: BTreeMap<DomId, Usage>,
    generation: u64,
    memory_quota: usize,
}

impl Default for Store {
    fn default() -> Self {
        Self::new(quota::MEMORY)
    }
}

impl Store {
    /// A store of just the root, which is the policy domain's and nobody else's to read. No other domain's nodes may
    /// take more than `memory_quota` bytes.
    #[must_use]
    pub fn new(memory_quota: usize) -> Self {
        let mut store = Store { nodes: BTreeMap::new(), usage: BTreeMap::new(), generation: 0, memory_quota };
        store.put(Path::root(), Rc::new(Node::leaf(b"", Permissions::new(DomId::POLICY, Access::None))));
        store
    }

    /// A store of these nodes, the root among them, after so many commits.
    pub(crate) fn restore(memory_quota: usize, generation: u64, nodes: impl Iterator<Item = (Path, Node)>) -> Self {
        let mut store = Store { nodes: BTreeMap::new(), usage: BTreeMap::new(), generation, memory_quota };
        nodes.for_each(|(path, node)| store.put(path, Rc::new(node)));
        store
    }

    /// Commits so far.
    pub(crate) fn generation(&self) -> u64 {
        self.generation
    }

    /// Bytes that may be held for each domain but the policy domain.
    #[must_use]
    pub fn memory_quota(&self) -> usize {
        self.memory_quota
    }

    /// The node at `path`.
    #[must_use]
    pub fn get(&self, path: &Path) -> Option<&Rc<Node>> {
        self.nodes.get(path)
    }

    /// What `domain` owns.
    #[must_use]
    pub fn usage(&self, domain: DomId) -> Usage {
        self.usage.get(&domain).copied().unwrap_or_default()
    }

    /// Nodes in the tree.
    #[must_use]
    pub fn len(&self) -> usize {
        self.nodes.len()
    }

    /// Never: there is always the root.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.nodes.is_empty()
    }

    /// All nodes, in the order of their paths.
    pub fn iter(&self) -> impl Iterator<Item = (&Path, &Rc<Node>)> {
        self.nodes.iter()
    }

    /// Applies `overlay`, which `client` filled, and gives the events that its watchers are owed.
    ///
    /// Fails with [`Errno::EAGAIN`] when something that the overlay saw has changed since, and with [`Errno::ENOSPC`]
    /// or [`Errno::ENOMEM`] when others used up an owner's quota meanwhile; then nothing has changed.
    pub fn commit(&mut self, overlay: Overlay, client: DomId) -> Result<Vec<Event>, Errno> {
        let generation_of = |path: &Path| self.nodes.get(path).map(|node| node.generation);
        if overlay.seen().any(|(path, generation)| generation_of(path) != generation) {
            return Err(Errno::EAGAIN);
        }
        if !client.is_privileged() {
            self.check_owners(&overlay.deltas(self))?;
        }
        self.generation += 1;
        let (writes, events) = overlay.into_parts();
        for (path, node) in writes {
            match node {
                Some(node) => {
                    let mut node = Rc::unwrap_or_clone(node);
                    node.generation = self.generation;
                    self.put(path, Rc::new(node));
                }
                None => self.remove(&path),
            }
        }
        Ok(events)
    }

    /// Removes the home of `domain` and every node that it owns, with all below, and every permission it was given: what
    /// a later domain of the same id must not inherit. Gives the events that watchers are owed.
    pub fn forget(&mut self, domain: DomId) -> Vec<Event> {
        let mut events = Vec::new();
        self.generation += 1;
        let owned = self.paths_where(|node| node.permissions.owner() == domain);
        for path in core::iter::once(Path::home(domain)).chain(owned) {
            // An ancestor's removal may have taken it along, and the root always stays.
            if path.is_root() || !self.nodes.contains_key(&path) {
                continue;
            }
            self.remove_subtree(&path, &mut events);
        }
        for path in self.paths_where(|node| node.permissions.without(domain).is_some()) {
            let Some(node) = self.nodes.get(&path) else { continue };
            let Some(permissions) = node.permissions.without(domain) else {
                continue;
            };
            let changed = Node { permissions, generation: self.generation, ..Node::clone(node) };
            self.put(path, Rc::new(changed));
        }
        events
    }

    fn paths_where(&self, wanted: impl Fn(&Node) -> bool) -> Vec<Path> {
        self.nodes.iter().filter(|(_, node)| wanted(node)).map(|(path, _)| path.clone()).collect()
    }

    fn remove_subtree(&mut self, top: &Path, events: &mut Vec<Event>) {
        let mut doomed = alloc::vec![top.clone()];
        let mut exact = false;
        while let Some(path) = doomed.pop() {
            if let Some(node) = self.nodes.get(&path) {
                doomed.extend(node.children.iter().map(|name| path.child(name)));
                events.push(Event::removed(path.clone(), node.permissions.clone(), exact));
            }
            exact = true;
            self.remove(&path);
        }
        let Some(parent_path) = top.parent() else { return };
        if let Some(parent) = self.nodes.get(&parent_path) {
            let changed = Node { generation: self.generation, ..parent.without_child(top.name()) };
            self.put(parent_path, Rc::new(changed));
        }
    }

    /// Whether every owner's quota allows that what it has changes by `deltas`. It always may have less.
    pub fn check_owners(&self, deltas: &BTreeMap<DomId, Delta>) -> Result<(), Errno> {
        let exceeds = |used: usize, delta: isize, quota| delta > 0 && used + delta.unsigned_abs() > quota;
        for (&owner, delta) in deltas.iter().filter(|(owner, _)| !owner.is_privileged()) {
            let usage = self.usage(owner);
            if exceeds(usage.nodes, delta.nodes, quota::NODES) {
                return Err(Errno::ENOSPC);
            }
            if exceeds(usage.bytes, delta.bytes, self.memory_quota) {
                return Err(Errno::ENOMEM);
            }
        }
        Ok(())
    }

    fn put(&mut self, path: Path, node: Rc<Node>) {
        self.remove(&path);
        let usage = self.usage.entry(node.permissions.owner()).or_default();
        usage.nodes += 1;
        usage.bytes += charged_bytes(&path, &node);
        self.nodes.insert(path, node);
    }

    fn remove(&mut self, path: &Path) {
        let Some(node) = self.nodes.remove(path) else { return };
        let owner = node.permissions.owner();
        if let Some(usage) = self.usage.get_mut(&owner) {
            usage.nodes = usage.nodes.saturating_sub(1);
            usage.bytes = usage.bytes.saturating_sub(charged_bytes(path, &node));
            if usage.nodes == 0 {
                self.usage.remove(&owner);
            }
        }
    }
}

/// Bytes of bookkeeping that a node counts for besides its content: its places in the map and on the heap.
const NODE_OVERHEAD: usize = 288;
/// The same for a node's set of children, if it has any.
const CHILDREN_OVERHEAD: usize = 160;
/// The same for each child.
const CHILD_OVERHEAD: usize = 80;

/// Bytes that `node` at `path` counts for in the memory quota: no less than what it takes on the heap.
#[must_use]
pub fn charged_bytes(path: &Path, node: &Node) -> usize {
    let children = match node.children.len() {
        0 => 0,
        count => CHILDREN_OVERHEAD + count * CHILD_OVERHEAD,
    };
    NODE_OVERHEAD + path.as_str().len() + node.size() + children
}
