//! The whole state as bytes and back: tree, watches with the events that wait, open transactions, unread output.
//!
//! Nothing that is read is believed: each path and list is checked for its form, each count for its end. What comes out
//! is a state that the engine can go on from, if not always one that it could have come to.

use super::bytes::{Reader, Sink};
use crate::connection::{Connection, Start, State};
use crate::domid::DomId;
use crate::engine::Engine;
use crate::overlay::{Event, Overlay, State as Change, Touched};
use crate::path::Path;
use crate::permissions::{Access, Entry, Permissions};
use crate::store::{Node, Store};
use crate::watch::{Target, Watch, Watches};
use alloc::collections::{BTreeMap, BTreeSet, VecDeque};
use alloc::rc::Rc;
use alloc::string::String;
use alloc::vec::Vec;
use xen_rings::memory::SharedMemory;
use xen_rings::store as wire;

/// No count of commits, watches or bytes comes near this.
const COUNT_LIMIT: u64 = 1 << 62;

/// Writes all of `engine`.
pub fn encode(engine: &Engine, out: &mut impl Sink) {
    out.put(&engine.store.generation().to_le_bytes());
    out.count(engine.store.len());
    for (path, node) in engine.store.iter() {
        put_path(out, path);
        put_node(out, node);
    }
    out.count(engine.connections.len());
    engine.connections.values().for_each(|connection| put_connection(out, connection));
}

/// All of `engine` as bytes: two engines of the same bytes will do the same.
#[must_use]
pub fn to_bytes(engine: &Engine) -> Vec<u8> {
    let mut bytes = Vec::new();
    encode(engine, &mut bytes);
    bytes
}

/// Reads what [`encode`] wrote; `None`: it makes no sense.
pub fn decode<M: SharedMemory>(memory_quota: usize, from: &mut Reader<'_, M>) -> Option<Engine> {
    let generation = from.u64().filter(|&count| count < COUNT_LIMIT)?;
    let nodes = nodes(from, generation)?;
    let mut connections = BTreeMap::new();
    for _ in 0..from.u32()? {
        let connection = connection(from)?;
        connections.insert(connection.domain, connection);
    }
    Some(Engine { store: Store::restore(memory_quota, generation, nodes.into_iter()), connections })
}

// --- nodes ---

fn put_path(out: &mut impl Sink, path: &Path) {
    out.run(path.as_str().as_bytes());
}

fn path<M: SharedMemory>(from: &mut Reader<'_, M>) -> Option<Path> {
    let text = from.run()?;
    match wire::Path::parse(&text).ok()? {
        name @ wire::Path::Absolute(_) => Path::resolve(name, DomId::POLICY).ok(),
        _ => None,
    }
}

/// A node without its children's names, which are those of the nodes below it.
fn put_node(out: &mut impl Sink, node: &Node) {
    out.put(&node.generation.to_le_bytes());
    out.run(&node.value);
    put_permissions(out, &node.permissions);
}

fn node<M: SharedMemory>(from: &mut Reader<'_, M>) -> Option<Node> {
    let generation = from.u64()?;
    let value = from.run()?;
    let permissions = permissions(from)?;
    Some(Node { generation, ..Node::leaf(&value, permissions) })
}

fn nodes<M: SharedMemory>(from: &mut Reader<'_, M>, generation: u64) -> Option<BTreeMap<Path, Node>> {
    let mut nodes = BTreeMap::<Path, Node>::new();
    let mut last: Option<Permissions> = None;
    for _ in 0..from.u32()? {
        let path = path(from)?;
        let mut node = node(from).filter(|node| node.generation <= generation)?;
        // Most nodes have the permissions of the one before; so they had them once in memory.
        last.iter().for_each(|last| node.permissions.share_with(last));
        last = Some(node.permissions.clone());
        if let Some(parent) = path.parent() {
            let parent = nodes.get_mut(&parent)?;
            if Rc::make_mut(&mut parent.children).insert(Rc::from(path.name())) {
                parent.children_bytes += path.name().len() + 1;
            }
        }
        nodes.insert(path, node);
    }
    nodes.contains_key(&Path::root()).then_some(nodes)
}

fn put_permissions(out: &mut impl Sink, permissions: &Permissions) {
    out.count(permissions.count());
    for entry in permissions.entries() {
        let access = match entry.access {
            Access::None => 0,
            Access::Read => 1,
            Access::Write => 2,
            Access::Both => 3,
        };
        let [low, high] = entry.domain.0.to_le_bytes();
        out.put(&[low, high, access]);
    }
}

fn permissions<M: SharedMemory>(from: &mut Reader<'_, M>) -> Option<Permissions> {
    let count = from.u32()?;
    let mut entry = || -> Option<Entry> {
        let domain = DomId(from.u16()?);
        let access = match from.u8()? {
            0 => Access::None,
            1 => Access::Read,
            2 => Access::Write,
            3 => Access::Both,
            _ => return None,
        };
        Some(Entry { domain, access })
    };
    let first = entry()?;
    let others = (1..count).map(|_| entry()).collect::<Option<Vec<_>>>()?;
    Some(Permissions::from_entries(first, others))
}

// --- connections ---

fn put_connection(out: &mut impl Sink, connection: &Connection) {
    out.put(&connection.domain.0.to_le_bytes());
    out.put(&[u8::from(connection.state == State::CutOff)]);
    for number in [connection.start.port, connection.start.input, connection.start.output] {
        out.put(&number.to_le_bytes());
    }
    out.put(&connection.conflicts.to_le_bytes());
    out.put(&connection.next_transaction.to_le_bytes());
    out.put(&connection.taken_in_all.to_le_bytes());
    out.run(&connection.partial);
    out.run(connection.output());
    out.count(connection.messages.len());
    connection.messages.iter().for_each(|end| out.put(&end.to_le_bytes()));
    put_watches(out, &connection.watches);
    out.count(connection.transactions.len());
    for (id, overlay) in &connection.transactions {
        out.put(&id.to_le_bytes());
        put_overlay(out, overlay);
    }
}

fn connection<M: SharedMemory>(from: &mut Reader<'_, M>) -> Option<Connection> {
    let domain = DomId(from.u16()?);
    let state = match from.u8()? {
        0 => State::Active,
        1 => State::CutOff,
        _ => return None,
    };
    let start = Start { port: from.u32()?, input: from.u32()?, output: from.u32()? };
    let (conflicts, next_transaction) = (from.u32()?, from.u32()?);
    let taken_in_all = from.u64().filter(|&bytes| bytes < COUNT_LIMIT)?;
    let (partial, output) = (from.run()?, from.run()?);
    let messages = (0..from.u32()?).map(|_| from.u64()).collect::<Option<Vec<_>>>()?;
    let mut connection = Connection {
        state,
        start,
        conflicts,
        next_transaction,
        taken_in_all,
        partial,
        output,
        messages,
        watches: watches(from, domain)?,
        ..Connection::new(domain)
    };
    for _ in 0..from.u32()? {
        let id = from.u32()?;
        connection.transactions.insert(id, overlay(from)?);
    }
    Some(connection)
}

fn put_watches(out: &mut impl Sink, watches: &Watches) {
    out.put(&watches.next.to_le_bytes());
    out.count(watches.watches.len());
    for (id, watch) in &watches.watches {
        out.put(&id.to_le_bytes());
        match &watch.target {
            Target::Node { path, relative } => {
                out.put(&[u8::from(*relative)]);
                put_path(out, path);
            }
            Target::IntroduceDomain => out.put(&[2]),
            Target::ReleaseDomain => out.put(&[3]),
        }
        out.run(&watch.token);
    }
    out.count(watches.queue.len());
    for (id, path) in &watches.queue {
        out.put(&id.to_le_bytes());
        put_option(out, path.as_ref(), put_path);
    }
}

fn watches<M: SharedMemory>(from: &mut Reader<'_, M>, domain: DomId) -> Option<Watches> {
    let next = from.u64().filter(|&count| count < COUNT_LIMIT)?;
    let mut watches = BTreeMap::new();
    for _ in 0..from.u32()? {
        let id = from.u64().filter(|id| *id < next)?;
        let target = match from.u8()? {
            relative @ (0 | 1) => Target::Node { path: path(from)?, relative: relative == 1 },
            2 => Target::IntroduceDomain,
            3 => Target::ReleaseDomain,
            _ => return None,
        };
        watches.insert(id, Watch { target, token: from.run()?.into_boxed_slice() });
    }
    let mut queue = VecDeque::new();
    for _ in 0..from.u32()? {
        let id = from.u64().filter(|id| watches.contains_key(id))?;
        queue.push_back((id, option(from, path)?));
    }
    Some(Watches::restore(domain, watches, next, queue))
}

// --- transactions ---

fn put_overlay(out: &mut impl Sink, overlay: &Overlay) {
    out.count(overlay.touched.len());
    for (path, touched) in &overlay.touched {
        put_path(out, path);
        put_option(out, touched.base.as_ref(), |out, base| out.put(&base.to_le_bytes()));
        match &touched.state {
            Change::Seen => out.put(&[0]),
            Change::Removed => out.put(&[1]),
            Change::Written(node) => {
                out.put(&[2]);
                put_node(out, node);
                out.count(node.children.len());
                node.children.iter().for_each(|name| out.run(name.as_bytes()));
            }
        }
    }
    out.count(overlay.events.len());
    for event in &overlay.events {
        put_path(out, &event.path);
        out.put(&[u8::from(event.exact)]);
        event.readable_by.iter().for_each(|list| put_option(out, list.as_ref(), put_permissions));
    }
}

fn overlay<M: SharedMemory>(from: &mut Reader<'_, M>) -> Option<Overlay> {
    let mut touched = BTreeMap::new();
    for _ in 0..from.u32()? {
        let path = path(from)?;
        let base = option(from, |from| from.u64())?;
        let state = match from.u8()? {
            0 => Change::Seen,
            1 => Change::Removed,
            2 => Change::Written(Rc::new(node_with_children(from)?)),
            _ => return None,
        };
        touched.insert(path, Touched { base, state });
    }
    let mut events = Vec::new();
    for _ in 0..from.u32()? {
        let (path, exact) = (path(from)?, from.u8()? != 0);
        events.push(Event { path, exact, readable_by: [option(from, permissions)?, option(from, permissions)?] });
    }
    Some(Overlay::restore(touched, events))
}

fn node_with_children<M: SharedMemory>(from: &mut Reader<'_, M>) -> Option<Node> {
    let mut node = node(from)?;
    let mut children = BTreeSet::<Rc<str>>::new();
    for _ in 0..from.u32()? {
        let name = String::from_utf8(from.run()?).ok()?;
        // A legal name without a slash: else a path that is made of it would not be one.
        let legal = matches!(wire::Path::parse(name.as_bytes()), Ok(wire::Path::Relative(_) | wire::Path::Special(_)));
        if !legal || name.contains('/') {
            return None;
        }
        children.insert(Rc::from(name));
    }
    node.children_bytes = children.iter().map(|name| name.len() + 1).sum();
    node.children = Rc::new(children);
    Some(node)
}

fn put_option<S: Sink, T>(out: &mut S, value: Option<&T>, put: impl Fn(&mut S, &T)) {
    out.put(&[u8::from(value.is_some())]);
    value.iter().for_each(|value| put(out, value));
}

/// The outer `None`: it makes no sense.
fn option<M, T>(from: &mut Reader<'_, M>, read: impl Fn(&mut Reader<'_, M>) -> Option<T>) -> Option<Option<T>>
where
    M: SharedMemory,
{
    match from.u8()? {
        0 => Some(None),
        1 => read(from).map(Some),
        _ => None,
    }
}
