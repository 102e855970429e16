//! One request: taken apart, carried out, answered.

use crate::connection::Connection;
use crate::domid::DomId;
use crate::engine::{Engine, Rings};
use crate::error::Error;
use crate::overlay::{Event, Overlay, Write};
use crate::path::Path;
use crate::permissions::{Access, Permissions};
use crate::quota;
use crate::store::Node;
use crate::watch::{Target, Watch};
use crate::wire::{Header, Op, PAYLOAD_MAX, exactly, leading, parse_number};
use alloc::format;
use alloc::rc::Rc;
use alloc::vec::Vec;

const OK: &[u8] = b"OK\0";

/// A request's place: who sent it and the transaction it belongs to.
#[derive(Clone, Copy)]
struct Context {
    client: DomId,
    transaction: u32,
}

type Reply = Result<Vec<u8>, Error>;

impl Engine {
    /// Carries out one request of `client` and queues the reply, then the events.
    pub(crate) fn request(&mut self, client: DomId, header: Header, payload: &[u8], rings: &mut impl Rings) {
        let context = Context {
            client,
            transaction: header.transaction,
        };
        let mut events = Vec::new();
        let reply = match Op::from_number(header.op) {
            Some(op) => self.carry_out(op, context, payload, rings, &mut events),
            None => Err(Error::NotImplemented),
        };
        if let Some(connection) = self.connections.get_mut(&client) {
            let (op, body) = match &reply {
                Ok(body) => (header.op, body.as_slice()),
                Err(error) => (Op::Error as u32, error.wire_name().as_bytes()),
            };
            let mut body = body.to_vec();
            if reply.is_err() {
                body.push(0);
            }
            connection.send(op, header.request, header.transaction, &body);
        }
        self.fire(&events);
    }

    fn carry_out(
        &mut self,
        op: Op,
        context: Context,
        payload: &[u8],
        rings: &mut impl Rings,
        events: &mut Vec<Event>,
    ) -> Reply {
        match op {
            Op::Directory => self.directory(context, payload),
            Op::DirectoryPart => self.directory_part(context, payload),
            Op::Read => self.read(context, payload),
            Op::GetPerms => self.get_permissions(context, payload),
            Op::Write => self.write(context, payload, events),
            Op::MakeDirectory => self.make_directory(context, payload, events),
            Op::Remove => self.remove(context, payload, events),
            Op::SetPerms => self.set_permissions(context, payload, events),
            Op::Watch => self.watch(context.client, payload),
            Op::Unwatch => self.unwatch(context.client, payload),
            Op::ResetWatches => self.reset_watches(context.client),
            Op::TransactionStart => self.start_transaction(context),
            Op::TransactionEnd => self.end_transaction(context, payload, events),
            Op::GetDomainPath => domain_path(payload),
            Op::IsDomainIntroduced => Ok(if self.knows(domain_argument(payload)?) {
                b"T\0".to_vec()
            } else {
                b"F\0".to_vec()
            }),
            Op::Introduce => self.introduce(context.client, payload, rings),
            Op::Release => self.release_request(context.client, payload, rings),
            Op::Control => self.control(context.client, payload),
            Op::Resume | Op::SetTarget | Op::WatchEvent | Op::Error => Err(Error::NotImplemented),
        }
    }

    // --- nodes ---

    fn read(&mut self, context: Context, payload: &[u8]) -> Reply {
        let path = path_argument(payload, context.client)?;
        Ok(self.readable(context, &path)?.value.to_vec())
    }

    fn directory(&mut self, context: Context, payload: &[u8]) -> Reply {
        let path = path_argument(payload, context.client)?;
        let node = self.readable(context, &path)?;
        if node.children_bytes > PAYLOAD_MAX {
            return Err(Error::TooBig);
        }
        Ok(child_names(&node))
    }

    /// Children from a byte offset in their list, with the node's generation before and an empty name at the end.
    fn directory_part(&mut self, context: Context, payload: &[u8]) -> Reply {
        let [path, offset] = exactly(payload)?;
        let path = Path::parse(path, context.client)?;
        let offset = usize::try_from(parse_number(offset)?).map_err(|_| Error::Invalid)?;
        let node = self.readable(context, &path)?;
        let mut reply = format!("{}\0", node.generation).into_bytes();
        let names = child_names(&node);
        let mut rest = names.get(offset..).ok_or(Error::Invalid)?;
        while let Some(end) = rest.iter().position(|&byte| byte == 0) {
            if reply.len() + end + 1 > PAYLOAD_MAX {
                return Ok(reply);
            }
            reply.extend_from_slice(&rest[..=end]);
            rest = &rest[end + 1..];
        }
        if reply.len() < PAYLOAD_MAX {
            reply.push(0);
        }
        Ok(reply)
    }

    fn get_permissions(&mut self, context: Context, payload: &[u8]) -> Reply {
        let path = path_argument(payload, context.client)?;
        let mut reply = Vec::new();
        self.readable(context, &path)?.permissions.encode(&mut reply);
        if reply.len() > PAYLOAD_MAX {
            Err(Error::TooBig)
        } else {
            Ok(reply)
        }
    }

    fn write(&mut self, context: Context, payload: &[u8], events: &mut Vec<Event>) -> Reply {
        let (path, value) = leading(payload)?;
        let path = Path::parse(path, context.client)?;
        self.change(context, events, |view| {
            let Some(node) = view.accessible(&path, Access::Write)? else {
                return view.create(&path, value);
            };
            let event = changed(&path, &node, &node.permissions);
            let node = Node {
                value: Rc::from(value),
                ..Node::clone(&node)
            };
            view.apply(
                alloc::vec![Write {
                    path: path.clone(),
                    node: Some(node)
                }],
                [event],
            )
        })
    }

    fn make_directory(&mut self, context: Context, payload: &[u8], events: &mut Vec<Event>) -> Reply {
        let path = path_argument(payload, context.client)?;
        self.change(context, events, |view| match view.accessible(&path, Access::Write)? {
            Some(_) => Ok(()),
            None => view.create(&path, b""),
        })
    }

    fn remove(&mut self, context: Context, payload: &[u8], events: &mut Vec<Event>) -> Reply {
        let path = path_argument(payload, context.client)?;
        self.change(context, events, |view| view.remove(&path))
    }

    fn set_permissions(&mut self, context: Context, payload: &[u8], events: &mut Vec<Event>) -> Reply {
        let (path, list) = leading(payload)?;
        let path = Path::parse(path, context.client)?;
        let permissions = Permissions::parse(list)?;
        self.change(context, events, |view| {
            let node = view.accessible(&path, Access::Write)?.ok_or(Error::NotFound)?;
            if !context.client.is_privileged() {
                if node.permissions.owner() != context.client {
                    return Err(Error::Access);
                }
                if permissions.owner() != context.client {
                    return Err(Error::NotPermitted);
                }
            }
            let event = changed(&path, &node, &permissions);
            let node = Node {
                permissions: permissions.clone(),
                ..Node::clone(&node)
            };
            view.apply(
                alloc::vec![Write {
                    path: path.clone(),
                    node: Some(node)
                }],
                [event],
            )
        })
    }

    /// The node at `path` if `context` may read it.
    fn readable(&mut self, context: Context, path: &Path) -> Result<Rc<Node>, Error> {
        let mut single = Overlay::single_request();
        let connection = self.connections.get_mut(&context.client).ok_or(Error::NotFound)?;
        let overlay = overlay_of(connection, context.transaction, &mut single)?;
        let mut view = View {
            store: &self.store,
            overlay,
            client: context.client,
        };
        view.accessible(path, Access::Read)?.ok_or(Error::NotFound)
    }

    /// Runs `action` on the transaction of `context`, or on one for this request alone that is then committed.
    fn change(
        &mut self,
        context: Context,
        events: &mut Vec<Event>,
        action: impl FnOnce(&mut View<'_>) -> Result<(), Error>,
    ) -> Reply {
        let client = context.client;
        if !client.is_privileged() && self.memory_of(client) > quota::MEMORY {
            return Err(Error::NoMemory);
        }
        let mut single = Overlay::single_request();
        let connection = self.connections.get_mut(&client).ok_or(Error::NotFound)?;
        let overlay = overlay_of(connection, context.transaction, &mut single)?;
        action(&mut View {
            store: &self.store,
            overlay,
            client,
        })?;
        if context.transaction == 0 {
            events.extend(self.store.commit(single, client)?);
        }
        Ok(OK.to_vec())
    }

    // --- transactions ---

    fn start_transaction(&mut self, context: Context) -> Reply {
        if context.transaction != 0 {
            return Err(Error::Busy);
        }
        let id = self.connection(context.client)?.start_transaction()?;
        Ok(format!("{id}\0").into_bytes())
    }

    fn end_transaction(&mut self, context: Context, payload: &[u8], events: &mut Vec<Event>) -> Reply {
        let commit = match payload {
            b"T\0" => true,
            b"F\0" => false,
            _ => return Err(Error::Invalid),
        };
        let transactions = &mut self.connection(context.client)?.transactions;
        let overlay = transactions.remove(&context.transaction).ok_or(Error::NotFound)?;
        if commit {
            events.extend(self.store.commit(overlay, context.client)?);
        }
        Ok(OK.to_vec())
    }

    // --- watches ---

    fn watch(&mut self, client: DomId, payload: &[u8]) -> Reply {
        let [name, token] = exactly(payload)?;
        let target = Target::parse(name, client)?;
        // Leaves room for the node's name in an event.
        if name.len() + token.len() + 2 > PAYLOAD_MAX {
            return Err(Error::TooBig);
        }
        if !client.is_privileged() && self.memory_of(client) > quota::MEMORY {
            return Err(Error::NoMemory);
        }
        self.connection(client)?.watches.add(Watch {
            target,
            token: token.into(),
        })?;
        Ok(OK.to_vec())
    }

    fn unwatch(&mut self, client: DomId, payload: &[u8]) -> Reply {
        let [name, token] = exactly(payload)?;
        let target = Target::parse(name, client)?;
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

    fn introduce(&mut self, client: DomId, payload: &[u8], rings: &mut impl Rings) -> Reply {
        only_privileged(client)?;
        let [domain, _frame, port] = exactly(payload)?;
        let domain = domain_number(domain)?;
        let port = u32::try_from(parse_number(port)?).map_err(|_| Error::Invalid)?;
        if domain.is_privileged() {
            return Err(Error::Invalid);
        }
        if self.knows(domain) {
            return Err(Error::Exists);
        }
        rings.attach(domain, port)?;
        self.connect(domain);
        Ok(OK.to_vec())
    }

    fn release_request(&mut self, client: DomId, payload: &[u8], rings: &mut impl Rings) -> Reply {
        only_privileged(client)?;
        let domain = domain_argument(payload)?;
        if domain.is_privileged() {
            return Err(Error::Invalid);
        }
        if !self.knows(domain) {
            return Err(Error::NotFound);
        }
        rings.detach(domain);
        self.release(domain);
        Ok(OK.to_vec())
    }

    fn control(&self, client: DomId, payload: &[u8]) -> Reply {
        only_privileged(client)?;
        match leading(payload)?.0 {
            b"help" => Ok(b"help\nmemory\n\0".to_vec()),
            b"memory" => Ok(self.memory_report().into_bytes()),
            _ => Err(Error::Invalid),
        }
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
            if report.len() + line.len() < PAYLOAD_MAX {
                report.push_str(&line);
            }
        }
        report.push('\0');
        report
    }

    fn connection(&mut self, client: DomId) -> Result<&mut Connection, Error> {
        self.connections.get_mut(&client).ok_or(Error::NotFound)
    }
}

/// The store as one request sees it.
struct View<'a> {
    store: &'a crate::store::Store,
    overlay: &'a mut Overlay,
    client: DomId,
}

impl View<'_> {
    fn get(&mut self, path: &Path) -> Result<Option<Rc<Node>>, Error> {
        self.overlay.get(self.store, path, self.client)
    }

    fn apply(&mut self, writes: Vec<Write>, events: impl IntoIterator<Item = Event>) -> Result<(), Error> {
        self.overlay.write(self.store, self.client, writes, events)
    }

    /// The node at `path`, or `None` when there is none and the client may know that.
    ///
    /// A client that may not do `wanted` to the nearest node above is refused alike whether the node exists or not.
    fn accessible(&mut self, path: &Path, wanted: Access) -> Result<Option<Rc<Node>>, Error> {
        if let Some(node) = self.get(path)? {
            let allowed = node.permissions.access_of(self.client).covers(wanted);
            return if allowed { Ok(Some(node)) } else { Err(Error::Access) };
        }
        let (_, above) = self.nearest_above(path)?;
        if above.permissions.access_of(self.client).covers(wanted) {
            Ok(None)
        } else {
            Err(Error::Access)
        }
    }

    /// The nearest existing node above `path`.
    fn nearest_above(&mut self, path: &Path) -> Result<(Path, Rc<Node>), Error> {
        let mut path = path.clone();
        while let Some(parent) = path.parent() {
            if let Some(node) = self.get(&parent)? {
                return Ok((parent, node));
            }
            path = parent;
        }
        Err(Error::NotFound)
    }

    /// Makes the missing node at `path` and those missing above it. The client may write the nearest existing one.
    fn create(&mut self, path: &Path, value: &[u8]) -> Result<(), Error> {
        let (above, top) = self.nearest_above(path)?;
        let permissions = top.permissions.inherited_by(self.client);
        let mut writes = Vec::new();
        let mut node = Node::leaf(value, permissions.clone());
        let mut at = path.clone();
        while let Some(parent) = at.parent() {
            let name = at.name();
            if parent == above {
                writes.push(Write {
                    path: parent,
                    node: Some(top.with_child(name)),
                });
                writes.push(Write {
                    path: at,
                    node: Some(node),
                });
                break;
            }
            let holder = Node::leaf(b"", permissions.clone()).with_child(name);
            writes.push(Write {
                path: at.clone(),
                node: Some(core::mem::replace(&mut node, holder)),
            });
            at = parent;
        }
        let event = Event {
            path: path.clone(),
            exact: false,
            readable_by: [None, Some(permissions)],
        };
        self.apply(writes, [event])
    }

    /// Removes the node at `path` with all below it. Fine when it is missing but its parent is not.
    fn remove(&mut self, path: &Path) -> Result<(), Error> {
        let parent_path = path.parent().ok_or(Error::Invalid)?;
        let Some(node) = self.accessible(path, Access::Write)? else {
            return self.get(&parent_path)?.map(|_| ()).ok_or(Error::NotFound);
        };
        let mut events = alloc::vec![Event::removed(path.clone(), node.permissions.clone(), false)];
        let mut writes = Vec::new();
        if let Some(parent) = self.get(&parent_path)? {
            writes.push(Write {
                path: parent_path,
                node: Some(parent.without_child(path.name())),
            });
        }
        let mut to_visit = alloc::vec![(path.clone(), node)];
        while let Some((path, node)) = to_visit.pop() {
            for name in node.children.iter() {
                let child = path.child(name);
                if let Some(node) = self.get(&child)? {
                    events.push(Event::removed(child.clone(), node.permissions.clone(), true));
                    to_visit.push((child, node));
                }
            }
            writes.push(Write { path, node: None });
        }
        self.apply(writes, events)
    }
}

fn overlay_of<'a>(
    connection: &'a mut Connection,
    transaction: u32,
    single: &'a mut Overlay,
) -> Result<&'a mut Overlay, Error> {
    match transaction {
        0 => Ok(single),
        id => connection.transactions.get_mut(&id).ok_or(Error::NotFound),
    }
}

fn changed(path: &Path, before: &Node, after: &Permissions) -> Event {
    Event {
        path: path.clone(),
        exact: false,
        readable_by: [Some(before.permissions.clone()), Some(after.clone())],
    }
}

fn child_names(node: &Node) -> Vec<u8> {
    let mut names = Vec::with_capacity(node.children_bytes);
    for name in node.children.iter() {
        names.extend_from_slice(name.as_bytes());
        names.push(0);
    }
    names
}

fn only_privileged(client: DomId) -> Result<(), Error> {
    if client.is_privileged() {
        Ok(())
    } else {
        Err(Error::Access)
    }
}

fn path_argument(payload: &[u8], client: DomId) -> Result<Path, Error> {
    let [path] = exactly(payload)?;
    Path::parse(path, client)
}

fn domain_argument(payload: &[u8]) -> Result<DomId, Error> {
    let [domain] = exactly(payload)?;
    domain_number(domain)
}

fn domain_number(text: &[u8]) -> Result<DomId, Error> {
    let id = parse_number(text)?;
    u16::try_from(id).map(DomId).map_err(|_| Error::Invalid)
}

fn domain_path(payload: &[u8]) -> Reply {
    Ok(format!("{}\0", Path::home(domain_argument(payload)?)).into_bytes())
}
