//! One request: taken apart, carried out, answered.

use crate::connection::Connection;
use crate::domid::DomId;
use crate::engine::{Engine, Rings};
use crate::overlay::{Event, Overlay, Write};
use crate::path::Path;
use crate::permissions::{Access, Permissions, covers};
use crate::store::{Node, charged_bytes};
use crate::watch::{Target, Watch};
use alloc::format;
use alloc::rc::Rc;
use alloc::vec::Vec;
use xen_abi::errno::Errno;
use xen_abi::io::xs_wire::{XENSTORE_PAYLOAD_MAX, XS_ERROR};
use xen_rings::store as wire;
use xen_rings::store::request::End;
use xen_rings::store::strings::parse_decimal;
use xen_rings::store::{Message, Request, RequestError, Strings};

const OK: &[u8] = b"OK\0";

/// A request's place: who sent it and the transaction it belongs to.
#[derive(Clone, Copy)]
struct Context {
    client: DomId,
    transaction: u32,
}

type Reply = Result<Vec<u8>, Errno>;

impl Engine {
    /// Carries out one request of `client` and queues the reply, then the events.
    pub fn request(&mut self, client: DomId, message: &Message<'_>, rings: &mut impl Rings) {
        let head = message.head;
        if self.is_cut_off(client) {
            return;
        }
        let context = Context { client, transaction: head.tx_id };
        let mut events = Vec::new();
        let reply = Request::parse(message)
            .map_err(RequestError::errno)
            .and_then(|request| self.carry_out(context, request, rings, &mut events));
        if let Some(connection) = self.connections.get_mut(&client) {
            match reply {
                Ok(body) => connection.send(head.kind, head.req_id, head.tx_id, &body),
                Err(error) => {
                    let name = format!("{}\0", error.name());
                    connection.send(XS_ERROR, head.req_id, head.tx_id, name.as_bytes());
                }
            }
        }
        self.fire(&events);
    }

    fn carry_out(
        &mut self,
        context: Context,
        request: Request<'_>,
        rings: &mut impl Rings,
        events: &mut Vec<Event>,
    ) -> Reply {
        let client = context.client;
        if !client.is_privileged() && takes_memory(context, &request) && rings.memory_is_short() {
            return Err(Errno::ENOMEM);
        }
        let resolve = |name| Path::resolve(name, client);
        match request {
            Request::Directory(name) => self.directory(context, &resolve(name)?),
            Request::DirectoryPart(name, offset) => self.directory_part(context, &resolve(name)?, offset),
            Request::Read(name) => self.read(context, &resolve(name)?),
            Request::GetPerms(name) => self.get_permissions(context, &resolve(name)?),
            Request::Write(name, value) => self.write(context, &resolve(name)?, value, events),
            Request::Mkdir(name) => self.make_directory(context, &resolve(name)?, events),
            Request::Rm(name) => self.remove(context, &resolve(name)?, events),
            Request::SetPerms(name, list) => self.set_permissions(context, &resolve(name)?, list, events),
            Request::Watch(name, token) => self.watch(client, name, token),
            Request::Unwatch(name, token) => self.unwatch(client, name, token),
            Request::ResetWatches => self.reset_watches(client),
            Request::TransactionStart => self.start_transaction(context),
            Request::TransactionEnd(end) => self.end_transaction(context, end, events),
            Request::GetDomainPath(domain) => Ok(format!("{}\0", Path::home(DomId(domain))).into_bytes()),
            Request::IsDomainIntroduced(domain) => {
                Ok(if self.knows(DomId(domain)) { b"T\0".to_vec() } else { b"F\0".to_vec() })
            }
            Request::Introduce { domid, gfn: _, port } => self.introduce(client, DomId(domid), port, rings),
            Request::Release(domain) => self.release_request(client, DomId(domain), rings),
            Request::Control(words) => self.control(client, words, rings),
            Request::Resume(_) | Request::SetTarget(..) => Err(Errno::ENOSYS),
        }
    }

    // --- nodes ---

    fn read(&mut self, context: Context, path: &Path) -> Reply {
        Ok(self.readable(context, path)?.value.to_vec())
    }

    fn directory(&mut self, context: Context, path: &Path) -> Reply {
        let node = self.readable(context, path)?;
        if node.children_bytes > XENSTORE_PAYLOAD_MAX {
            return Err(Errno::E2BIG);
        }
        Ok(child_names(&node))
    }

    /// Children from a byte offset in their list, with the node's generation before and an empty name at the end.
    fn directory_part(&mut self, context: Context, path: &Path, offset: u64) -> Reply {
        let offset = usize::try_from(offset).map_err(|_| Errno::EINVAL)?;
        let node = self.readable(context, path)?;
        let mut reply = format!("{}\0", node.generation).into_bytes();
        let names = child_names(&node);
        let mut rest = names.get(offset..).ok_or(Errno::EINVAL)?;
        while let Some(end) = rest.iter().position(|&byte| byte == 0) {
            if reply.len() + end + 1 > XENSTORE_PAYLOAD_MAX {
                return Ok(reply);
            }
            reply.extend_from_slice(&rest[..=end]);
            rest = &rest[end + 1..];
        }
        if reply.len() < XENSTORE_PAYLOAD_MAX {
            reply.push(0);
        }
        Ok(reply)
    }

    fn get_permissions(&mut self, context: Context, path: &Path) -> Reply {
        let mut reply = Vec::new();
        self.readable(context, path)?.permissions.encode(&mut reply);
        if reply.len() > XENSTORE_PAYLOAD_MAX { Err(Errno::E2BIG) } else { Ok(reply) }
    }

    fn write(&mut self, context: Context, path: &Path, value: &[u8], events: &mut Vec<Event>) -> Reply {
        self.change(context, events, |view| {
            let Some(node) = view.accessible(path, Access::Write)? else {
                return view.create(path, value);
            };
            let event = changed(path, &node, &node.permissions);
            let node = Node { value: Rc::from(value), ..Node::clone(&node) };
            view.apply(alloc::vec![Write { path: path.clone(), node: Some(node) }], [event])
        })
    }

    fn make_directory(&mut self, context: Context, path: &Path, events: &mut Vec<Event>) -> Reply {
        self.change(context, events, |view| match view.accessible(path, Access::Write)? {
            Some(_) => Ok(()),
            None => view.create(path, b""),
        })
    }

    fn remove(&mut self, context: Context, path: &Path, events: &mut Vec<Event>) -> Reply {
        self.change(context, events, |view| view.remove(path))
    }

    fn set_permissions(&mut self, context: Context, path: &Path, list: Strings<'_>, events: &mut Vec<Event>) -> Reply {
        let permissions = Permissions::parse(list)?;
        self.change(context, events, |view| {
            let node = view.accessible(path, Access::Write)?.ok_or(Errno::ENOENT)?;
            if !context.client.is_privileged() {
                if node.permissions.owner() != context.client {
                    return Err(Errno::EACCES);
                }
                if permissions.owner() != context.client {
                    return Err(Errno::EPERM);
                }
            }
            let event = changed(path, &node, &permissions);
            let node = Node { permissions: permissions.clone(), ..Node::clone(&node) };
            view.apply(alloc::vec![Write { path: path.clone(), node: Some(node) }], [event])
        })
    }

    /// The node at `path` if `context` may read it.
    fn readable(&mut self, context: Context, path: &Path) -> Result<Rc<Node>, Errno> {
        let memory_left = self.memory_left(context.client);
        let mut single = Overlay::single_request();
        let connection = self.connections.get_mut(&context.client).ok_or(Errno::ENOENT)?;
        let overlay = overlay_of(connection, context.transaction, &mut single)?;
        overlay.may_grow_by(memory_left);
        let mut view = View { store: &self.store, overlay, client: context.client };
        view.accessible(path, Access::Read)?.ok_or(Errno::ENOENT)
    }

    /// Runs `action` on the transaction of `context`, or on one for this request alone that is then committed.
    fn change(
        &mut self,
        context: Context,
        events: &mut Vec<Event>,
        action: impl FnOnce(&mut View<'_>) -> Result<(), Errno>,
    ) -> Reply {
        let client = context.client;
        let memory_left = self.memory_left(client);
        let mut single = Overlay::single_request();
        let connection = self.connections.get_mut(&client).ok_or(Errno::ENOENT)?;
        let overlay = overlay_of(connection, context.transaction, &mut single)?;
        overlay.may_grow_by(memory_left);
        action(&mut View { store: &self.store, overlay, client })?;
        if context.transaction == 0 {
            events.extend(self.store.commit(single, client)?);
        }
        Ok(OK.to_vec())
    }

    // --- transactions ---

    fn start_transaction(&mut self, context: Context) -> Reply {
        if context.transaction != 0 {
            return Err(Errno::EBUSY);
        }
        let id = self.connection(context.client)?.start_transaction()?;
        Ok(format!("{id}\0").into_bytes())
    }

    fn end_transaction(&mut self, context: Context, end: End, events: &mut Vec<Event>) -> Reply {
        let connection = self.connection(context.client)?;
        let overlay = connection.transactions.remove(&context.transaction).ok_or(Errno::ENOENT)?;
        if end == End::Commit {
            let committed = self.store.commit(overlay, context.client);
            let connection = self.connection(context.client)?;
            connection.conflicts = match committed {
                Err(Errno::EAGAIN) => connection.conflicts.saturating_add(1),
                _ => 0,
            };
            events.extend(committed?);
        }
        Ok(OK.to_vec())
    }

    // --- watches ---

    fn watch(&mut self, client: DomId, name: wire::Path<'_>, token: &[u8]) -> Reply {
        let target = Target::resolve(name, client)?;
        // Leaves room for the node's name in an event.
        if name.text().len() + token.len() + 2 > XENSTORE_PAYLOAD_MAX {
            return Err(Errno::E2BIG);
        }
        let watch = Watch { target, token: token.into() };
        if watch.charged_bytes(client) > self.memory_left(client) {
            return Err(Errno::ENOMEM);
        }
        self.connection(client)?.watches.add(watch)?;
        Ok(OK.to_vec())
    }

    fn unwatch(&mut self, client: DomId, name: wire::Path<'_>, token: &[u8]) -> Reply {
        let target = Target::resolve(name, client)?;
        self.connection(client)?.watches.remove(&target, token)?;
        Ok(OK.to_vec())
    }

    fn reset_watches(&mut self, client: DomId) -> Reply {
        let connection = self.connection(client)?;
        connection.watches.clear();
        connection.transactions.clear();
        Ok(OK.to_vec())
    }

    // --- domains ---

    fn introduce(&mut self, client: DomId, domain: DomId, port: u32, rings: &mut impl Rings) -> Reply {
        only_privileged(client)?;
        if domain.is_privileged() {
            return Err(Errno::EINVAL);
        }
        // One that was introduced before has a successor of its id now, whose the nodes are.
        if self.knows(domain) {
            rings.detach(domain);
        }
        let start = rings.attach(domain, port)?;
        self.connect(domain, start);
        Ok(OK.to_vec())
    }

    fn release_request(&mut self, client: DomId, domain: DomId, rings: &mut impl Rings) -> Reply {
        only_privileged(client)?;
        if domain.is_privileged() {
            return Err(Errno::EINVAL);
        }
        if !self.knows(domain) {
            return Err(Errno::ENOENT);
        }
        rings.detach(domain);
        self.release(domain);
        Ok(OK.to_vec())
    }

    fn control(&mut self, client: DomId, mut words: Strings<'_>, rings: &mut impl Rings) -> Reply {
        only_privileged(client)?;
        match words.next() {
            Some(b"help") => Ok(b"help\nmemory\ndisconnect DOMAIN\n\0".to_vec()),
            Some(b"memory") => Ok(self.memory_report().into_bytes()),
            Some(b"disconnect") => self.disconnect(words.next().and_then(parse_decimal), rings),
            _ => Err(Errno::EINVAL),
        }
    }

    /// A domain is dead and another of its id will be introduced: its ring is not touched any more, its nodes stay.
    fn disconnect(&mut self, domain: Option<u64>, rings: &mut impl Rings) -> Reply {
        let domain = domain.and_then(|number| u16::try_from(number).ok()).map(DomId).ok_or(Errno::EINVAL)?;
        if domain.is_privileged() {
            return Err(Errno::EINVAL);
        }
        if !self.knows(domain) {
            return Err(Errno::ENOENT);
        }
        rings.detach(domain);
        self.cut_off(domain);
        Ok(OK.to_vec())
    }

    fn memory_report(&self) -> alloc::string::String {
        let mut report = format!("nodes {}\n", self.store.len());
        for (domain, connection) in &self.connections {
            let line = format!(
                "domain {domain} nodes {} bytes {} watches {} events {} transactions {}\n",
                self.store.usage(*domain).nodes,
                self.memory_of(*domain),
                connection.watches.count(),
                connection.watches.waiting(),
                connection.transactions.len(),
            );
            if report.len() + line.len() < XENSTORE_PAYLOAD_MAX {
                report.push_str(&line);
            }
        }
        report.push('\0');
        report
    }

    fn connection(&mut self, client: DomId) -> Result<&mut Connection, Errno> {
        self.connections.get_mut(&client).ok_or(Errno::ENOENT)
    }
}

/// The store as one request sees it.
struct View<'a> {
    store: &'a crate::store::Store,
    overlay: &'a mut Overlay,
    client: DomId,
}

impl View<'_> {
    fn get(&mut self, path: &Path) -> Result<Option<Rc<Node>>, Errno> {
        self.overlay.get(self.store, path, self.client)
    }

    fn apply(&mut self, writes: Vec<Write>, events: impl IntoIterator<Item = Event>) -> Result<(), Errno> {
        self.overlay.write(self.store, self.client, writes, events)
    }

    /// The node at `path`, or `None` when there is none and the client may know that.
    ///
    /// A client that may not do `wanted` to the nearest node above is refused alike whether the node exists or not.
    fn accessible(&mut self, path: &Path, wanted: Access) -> Result<Option<Rc<Node>>, Errno> {
        if let Some(node) = self.get(path)? {
            let allowed = covers(node.permissions.access_of(self.client), wanted);
            return if allowed { Ok(Some(node)) } else { Err(Errno::EACCES) };
        }
        let (_, above) = self.nearest_above(path)?;
        if covers(above.permissions.access_of(self.client), wanted) { Ok(None) } else { Err(Errno::EACCES) }
    }

    /// The nearest existing node above `path`.
    fn nearest_above(&mut self, path: &Path) -> Result<(Path, Rc<Node>), Errno> {
        let mut path = path.clone();
        while let Some(parent) = path.parent() {
            if let Some(node) = self.get(&parent)? {
                return Ok((parent, node));
            }
            path = parent;
        }
        Err(Errno::ENOENT)
    }

    /// Makes the missing node at `path` and those missing above it. The client may write the nearest existing one.
    fn create(&mut self, path: &Path, value: &[u8]) -> Result<(), Errno> {
        let (above, top) = self.nearest_above(path)?;
        let permissions = top.permissions.inherited_by(self.client);
        let mut writes = Vec::new();
        let mut node = Node::leaf(value, permissions.clone());
        let mut at = path.clone();
        let mut bytes = 0;
        while let Some(parent) = at.parent() {
            // The paths of a deep chain are long together: not even for the time of this request beyond the quota.
            bytes += charged_bytes(&at, &node);
            if bytes > self.overlay.memory_left() {
                return Err(Errno::ENOMEM);
            }
            let name = at.name();
            if parent == above {
                writes.push(Write { path: parent, node: Some(top.with_child(name)) });
                writes.push(Write { path: at, node: Some(node) });
                break;
            }
            let holder = Node::leaf(b"", permissions.clone()).with_child(name);
            writes.push(Write { path: at.clone(), node: Some(core::mem::replace(&mut node, holder)) });
            at = parent;
        }
        let event = Event { path: path.clone(), exact: false, readable_by: [None, Some(permissions)] };
        self.apply(writes, [event])
    }

    /// Removes the node at `path` with all below it. Fine when it is missing but its parent is not.
    ///
    /// What the policy domain owns only it can remove: a setting of a link lies in a directory that is an end's own.
    fn remove(&mut self, path: &Path) -> Result<(), Errno> {
        let parent_path = path.parent().ok_or(Errno::EINVAL)?;
        let Some(node) = self.accessible(path, Access::Write)? else {
            return self.get(&parent_path)?.map(|_| ()).ok_or(Errno::ENOENT);
        };
        self.check_removable(&node)?;
        let mut events = alloc::vec![Event::removed(path.clone(), node.permissions.clone(), false)];
        let mut writes = Vec::new();
        if let Some(parent) = self.get(&parent_path)? {
            writes.push(Write { path: parent_path, node: Some(parent.without_child(path.name())) });
        }
        let mut to_visit = alloc::vec![(path.clone(), node)];
        let mut bytes = 0;
        while let Some((path, node)) = to_visit.pop() {
            // What one domain owns is never too much at once, but many may have made nodes here.
            bytes += charged_bytes(&path, &node);
            if bytes > self.store.memory_quota() && !self.client.is_privileged() {
                return Err(Errno::ENOSPC);
            }
            for name in node.children.iter() {
                let child = path.child(name);
                if let Some(node) = self.get(&child)? {
                    self.check_removable(&node)?;
                    events.push(Event::removed(child.clone(), node.permissions.clone(), true));
                    to_visit.push((child, node));
                }
            }
            writes.push(Write { path, node: None });
        }
        self.apply(writes, events)
    }

    fn check_removable(&self, node: &Node) -> Result<(), Errno> {
        let protected = node.permissions.owner().is_privileged() && !self.client.is_privileged();
        if protected { Err(Errno::EACCES) } else { Ok(()) }
    }
}

/// Whether a request leaves the server holding more than before. What gives memory back is never refused for want of it.
fn takes_memory(context: Context, request: &Request<'_>) -> bool {
    match request {
        Request::Write(..) | Request::Mkdir(_) | Request::SetPerms(..) | Request::Watch(..) => true,
        Request::TransactionStart => true,
        // A transaction notes what it sees and what it removes.
        Request::Directory(_) | Request::DirectoryPart(..) | Request::Read(_) | Request::GetPerms(_) => {
            context.transaction != 0
        }
        Request::Rm(_) => context.transaction != 0,
        _ => false,
    }
}

fn overlay_of<'a>(
    connection: &'a mut Connection,
    transaction: u32,
    single: &'a mut Overlay,
) -> Result<&'a mut Overlay, Errno> {
    match transaction {
        0 => Ok(single),
        id => connection.transactions.get_mut(&id).ok_or(Errno::ENOENT),
    }
}

fn changed(path: &Path, before: &Node, after: &Permissions) -> Event {
    Event { path: path.clone(), exact: false, readable_by: [Some(before.permissions.clone()), Some(after.clone())] }
}

fn child_names(node: &Node) -> Vec<u8> {
    let mut names = Vec::with_capacity(node.children_bytes);
    for name in node.children.iter() {
        names.extend_from_slice(name.as_bytes());
        names.push(0);
    }
    names
}

fn only_privileged(client: DomId) -> Result<(), Errno> {
    if client.is_privileged() { Ok(()) } else { Err(Errno::EACCES) }
}
