//! Watches, and the events that wait for their connection to read.
//!
//! Events are coalesced: one that is waiting already is not queued again. When too many wait, further events of a watch
//! fold into one that names the watched node itself, as the event does that every new watch fires at once. A client that
//! never reads thus costs a bounded amount, and one that reads late still learns where to look.

use crate::domid::DomId;
use crate::overlay::Event;
use crate::path::Path;
use crate::quota;
use alloc::boxed::Box;
use alloc::collections::{BTreeMap, BTreeSet, VecDeque};
use alloc::vec::Vec;
use xen_abi::errno::Errno;
use xen_rings::store as wire;
use xen_rings::store::path::{INTRODUCE_DOMAIN, RELEASE_DOMAIN};

/// What a watch is on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// A node and all below it.
    Node {
        /// The node.
        path: Path,
        /// Events name nodes relative to the client's home, as the client did.
        relative: bool,
    },
    /// Domains being introduced.
    IntroduceDomain,
    /// Domains being released.
    ReleaseDomain,
}

impl Target {
    /// What a client of `domain` wants to watch. The special names are for privileged clients.
    pub fn resolve(name: wire::Path<'_>, domain: DomId) -> Result<Self, Errno> {
        let special = match name {
            wire::Path::Special(INTRODUCE_DOMAIN) => Target::IntroduceDomain,
            wire::Path::Special(RELEASE_DOMAIN) => Target::ReleaseDomain,
            _ => {
                let relative = matches!(name, wire::Path::Relative(_));
                return Ok(Target::Node { path: Path::resolve(name, domain)?, relative });
            }
        };
        if domain.is_privileged() { Ok(special) } else { Err(Errno::EACCES) }
    }

    /// Whether `event` concerns it.
    #[must_use]
    pub fn matches(&self, event: &Event) -> bool {
        match self {
            Target::Node { path, .. } if event.exact => *path == event.path,
            Target::Node { path, .. } => event.path.is_at_or_under(path),
            Target::IntroduceDomain | Target::ReleaseDomain => false,
        }
    }

    fn name(&self, domain: DomId) -> &str {
        match self {
            Target::Node { path, relative: true } => path.relative_to_home(domain),
            Target::Node { path, relative: false } => path.as_str(),
            Target::IntroduceDomain => INTRODUCE_DOMAIN,
            Target::ReleaseDomain => RELEASE_DOMAIN,
        }
    }
}

/// One registered watch.
#[derive(Clone, Debug)]
pub struct Watch {
    /// What it is on.
    pub target: Target,
    /// What the client wants to find in its events.
    pub token: Box<[u8]>,
}

/// Bytes of bookkeeping that a watch counts for.
const WATCH_OVERHEAD: usize = 224;

impl Watch {
    /// Bytes that it counts for in the memory quota of `domain`.
    #[must_use]
    pub fn charged_bytes(&self, domain: DomId) -> usize {
        WATCH_OVERHEAD + self.target.name(domain).len() + self.token.len()
    }
}

/// An event that waits: for which watch, and which node if not the watched one itself.
pub(crate) type Waiting = (u64, Option<Path>);

/// The watches of one connection and their waiting events.
#[derive(Debug)]
pub struct Watches {
    domain: DomId,
    pub(crate) watches: BTreeMap<u64, Watch>,
    pub(crate) next: u64,
    bytes: usize,
    pub(crate) queue: VecDeque<Waiting>,
    queued: BTreeSet<Waiting>,
    queued_bytes: usize,
}

impl Watches {
    /// None yet, for a connection of `domain`.
    #[must_use]
    pub fn new(domain: DomId) -> Self {
        Watches {
            domain,
            watches: BTreeMap::new(),
            next: 0,
            bytes: 0,
            queue: VecDeque::new(),
            queued: BTreeSet::new(),
            queued_bytes: 0,
        }
    }

    /// These watches and waiting events; `next` is the number of the next watch.
    pub(crate) fn restore(domain: DomId, watches: BTreeMap<u64, Watch>, next: u64, queue: VecDeque<Waiting>) -> Self {
        Watches {
            bytes: watches.values().map(|watch| watch.charged_bytes(domain)).sum(),
            queued: queue.iter().cloned().collect(),
            queued_bytes: queue.iter().map(path_bytes).sum(),
            watches,
            next,
            queue,
            ..Watches::new(domain)
        }
    }

    /// Bytes that the watches count for in the memory quota.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Registered watches.
    #[must_use]
    pub fn count(&self) -> usize {
        self.watches.len()
    }

    /// Events that wait.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.queue.len()
    }

    /// Registers a watch and fires it once, as the protocol wants.
    pub fn add(&mut self, watch: Watch) -> Result<(), Errno> {
        if self.find(&watch.target, &watch.token).is_some() {
            return Err(Errno::EEXIST);
        }
        if !self.domain.is_privileged() && self.watches.len() >= quota::WATCHES {
            return Err(Errno::E2BIG);
        }
        let id = self.next;
        self.next += 1;
        self.bytes += watch.charged_bytes(self.domain);
        self.watches.insert(id, watch);
        self.queue_event((id, None));
        Ok(())
    }

    /// Removes a watch and the events that wait for it.
    pub fn remove(&mut self, target: &Target, token: &[u8]) -> Result<(), Errno> {
        let id = self.find(target, token).ok_or(Errno::ENOENT)?;
        if let Some(watch) = self.watches.remove(&id) {
            self.bytes = self.bytes.saturating_sub(watch.charged_bytes(self.domain));
        }
        self.queue.retain(|(watch, _)| *watch != id);
        self.queued.retain(|(watch, _)| *watch != id);
        self.queued_bytes = self.queue.iter().map(path_bytes).sum();
        Ok(())
    }

    /// Removes all watches and events.
    pub fn clear(&mut self) {
        *self = Watches { next: self.next, ..Watches::new(self.domain) };
    }

    /// Queues `event` for each watch that it concerns, if the client may know of it.
    pub fn fire(&mut self, event: &Event) {
        if self.watches.is_empty() || !event.visible_to(self.domain) {
            return;
        }
        let hit: Vec<Waiting> = self
            .watches
            .iter()
            .filter(|(_, watch)| watch.target.matches(event))
            .map(|(&id, watch)| match &watch.target {
                Target::Node { path, .. } if *path == event.path => (id, None),
                _ => (id, Some(event.path.clone())),
            })
            .collect();
        for waiting in hit {
            self.queue_event(waiting);
        }
    }

    /// Queues an event for each watch on `target`, which is one of the special names.
    pub fn fire_special(&mut self, target: &Target) {
        let hit: Vec<u64> =
            self.watches.iter().filter(|(_, watch)| watch.target == *target).map(|(&id, _)| id).collect();
        for id in hit {
            self.queue_event((id, None));
        }
    }

    /// Takes the oldest event and writes its payload, node and token, to `out`. Gives whether there was one.
    pub fn next_event(&mut self, longest: usize, out: &mut Vec<u8>) -> bool {
        let Some(waiting) = self.queue.pop_front() else {
            return false;
        };
        self.queued.remove(&waiting);
        self.queued_bytes = self.queued_bytes.saturating_sub(path_bytes(&waiting));
        let (id, path) = waiting;
        let Some(watch) = self.watches.get(&id) else {
            return false;
        };
        let watched = watch.target.name(self.domain);
        let changed = match (&path, &watch.target) {
            (Some(path), Target::Node { relative: true, .. }) => path.relative_to_home(self.domain),
            (Some(path), _) => path.as_str(),
            (None, _) => watched,
        };
        // A node too deep for one message beside this token is told of as the watched node, which was checked to fit.
        let fits = changed.len() + watch.token.len() + 2 <= longest;
        out.extend_from_slice(if fits { changed } else { watched }.as_bytes());
        out.push(0);
        out.extend_from_slice(&watch.token);
        out.push(0);
        true
    }

    fn find(&self, target: &Target, token: &[u8]) -> Option<u64> {
        self.watches.iter().find(|(_, watch)| watch.target == *target && *watch.token == *token).map(|(&id, _)| id)
    }

    fn queue_event(&mut self, waiting: Waiting) {
        let bytes = path_bytes(&waiting);
        let full = self.queue.len() >= quota::EVENTS_WAITING || self.queued_bytes + bytes > quota::EVENT_BYTES_WAITING;
        let waiting = if full { (waiting.0, None) } else { waiting };
        if self.queued.insert(waiting.clone()) {
            self.queued_bytes += path_bytes(&waiting);
            self.queue.push_back(waiting);
        }
    }
}

fn path_bytes(waiting: &Waiting) -> usize {
    waiting.1.as_ref().map_or(0, |path| path.as_str().len())
}
