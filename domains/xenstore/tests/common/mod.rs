//! A server under test, driven by whole messages as clients would send them.
#![allow(dead_code, reason = "each test file uses its own part")]

use std::collections::BTreeMap;
use xen_abi::errno::Errno;
use xen_abi::io::xs_wire::{self as wire, XsdSockmsg};
use xen_rings::store::message::{HEAD_BYTES, parse_head};
use xenstore::connection::Start;
use xenstore::domid::DomId;
use xenstore::engine::{Engine, Rings};

/// The requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Op {
    Control = wire::XS_CONTROL,
    Directory = wire::XS_DIRECTORY,
    Read = wire::XS_READ,
    GetPerms = wire::XS_GET_PERMS,
    Watch = wire::XS_WATCH,
    Unwatch = wire::XS_UNWATCH,
    TransactionStart = wire::XS_TRANSACTION_START,
    TransactionEnd = wire::XS_TRANSACTION_END,
    Introduce = wire::XS_INTRODUCE,
    Release = wire::XS_RELEASE,
    GetDomainPath = wire::XS_GET_DOMAIN_PATH,
    Write = wire::XS_WRITE,
    MakeDirectory = wire::XS_MKDIR,
    Remove = wire::XS_RM,
    SetPerms = wire::XS_SET_PERMS,
    WatchEvent = wire::XS_WATCH_EVENT,
    Error = wire::XS_ERROR,
    IsDomainIntroduced = wire::XS_IS_DOMAIN_INTRODUCED,
    Resume = wire::XS_RESUME,
    SetTarget = wire::XS_SET_TARGET,
    ResetWatches = wire::XS_RESET_WATCHES,
    DirectoryPart = wire::XS_DIRECTORY_PART,
}

/// Rings that always attach, and memory without end.
pub struct NoRings;

impl Rings for NoRings {
    fn attach(&mut self, _domain: DomId, port: u32) -> Result<Start, Errno> {
        Ok(Start { port, ..Start::default() })
    }

    fn detach(&mut self, _domain: DomId) {}
}

/// As [`NoRings`], with hardly any memory left.
pub struct ShortMemory;

impl Rings for ShortMemory {
    fn attach(&mut self, _domain: DomId, port: u32) -> Result<Start, Errno> {
        Ok(Start { port, ..Start::default() })
    }

    fn detach(&mut self, _domain: DomId) {}

    fn memory_is_short(&mut self) -> bool {
        true
    }
}

/// A message as received.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    pub op: u32,
    pub request: u32,
    pub payload: Vec<u8>,
}

#[derive(Default)]
pub struct Server {
    pub engine: Engine,
    /// Events that came along with replies, by client.
    events: BTreeMap<u16, Vec<Message>>,
    /// Whether the server is short of memory.
    pub short_of_memory: bool,
}

pub type Reply = Result<Vec<u8>, String>;

impl Server {
    /// A server that knows the policy domain and the domains 1 to `domains`, each with a home of its own.
    pub fn with_domains(domains: u16) -> Self {
        Self::with_quota(domains, xenstore::quota::MEMORY)
    }

    /// The same with another memory quota.
    pub fn with_quota(domains: u16, memory_quota: usize) -> Self {
        let mut server = Server { engine: Engine::new(memory_quota), ..Server::default() };
        server.engine.connect(DomId::POLICY, Start::default());
        for domain in 1..=domains {
            server.introduce(domain);
        }
        server
    }

    pub fn introduce(&mut self, domain: u16) {
        self.ok(0, Op::Introduce, &format!("{domain}\x000\x007\0"));
        let home = format!("/local/domain/{domain}");
        self.ok(0, Op::MakeDirectory, &format!("{home}\0"));
        self.ok(0, Op::SetPerms, &format!("{home}\0n{domain}\0"));
    }

    pub fn send(&mut self, client: u16, op: Op, transaction: u32, payload: &[u8]) {
        let kind = op as u32;
        let head = XsdSockmsg { kind, req_id: 99, tx_id: transaction, len: payload.len() as u32 };
        let message = xen_rings::store::Message { head, payload };
        match self.short_of_memory {
            true => self.engine.request(DomId(client), &message, &mut ShortMemory),
            false => self.engine.request(DomId(client), &message, &mut NoRings),
        }
    }

    /// All that waits for `client`, read to the end.
    pub fn receive(&mut self, client: u16) -> Vec<Message> {
        let mut messages = self.events.remove(&client).unwrap_or_default();
        messages.extend(self.read_ring(client));
        messages
    }

    fn read_ring(&mut self, client: u16) -> Vec<Message> {
        let mut bytes = Vec::new();
        loop {
            self.engine.fill_with_events(DomId(client));
            let more = self.engine.output(DomId(client)).to_vec();
            if more.is_empty() {
                break;
            }
            self.engine.output_taken(DomId(client), more.len());
            bytes.extend(more);
        }
        let mut messages = Vec::new();
        let mut rest = &bytes[..];
        while !rest.is_empty() {
            let head = parse_head(rest).unwrap().unwrap();
            let end = HEAD_BYTES + head.len as usize;
            let payload = rest[HEAD_BYTES..end].to_vec();
            messages.push(Message { op: head.kind, request: head.req_id, payload });
            rest = &rest[end..];
        }
        messages
    }

    pub fn call_in(&mut self, client: u16, transaction: u32, op: Op, payload: &[u8]) -> Reply {
        let is_event = |message: &Message| message.op == Op::WatchEvent as u32;
        let before = self.receive(client);
        assert!(before.iter().all(is_event), "unread replies: {before:?}");
        self.send(client, op, transaction, payload);
        let (events, replies): (Vec<_>, Vec<_>) = self.read_ring(client).into_iter().partition(is_event);
        self.events.entry(client).or_default().extend(before.into_iter().chain(events));
        let mut replies = replies.into_iter();
        let reply = replies.next().expect("a reply");
        assert_eq!(reply.request, 99);
        assert_eq!(replies.next(), None, "one reply");
        if reply.op == Op::Error as u32 {
            let name = reply.payload.strip_suffix(b"\0").expect("terminated");
            return Err(String::from_utf8(name.to_vec()).unwrap());
        }
        assert_eq!(reply.op, op as u32);
        Ok(reply.payload)
    }

    pub fn call(&mut self, client: u16, op: Op, payload: &str) -> Reply {
        self.call_in(client, 0, op, payload.as_bytes())
    }

    #[track_caller]
    pub fn ok(&mut self, client: u16, op: Op, payload: &str) -> String {
        String::from_utf8(self.call(client, op, payload).expect("success")).unwrap()
    }

    #[track_caller]
    pub fn fails(&mut self, client: u16, op: Op, payload: &str, error: &str) {
        assert_eq!(self.call(client, op, payload), Err(error.into()), "domain {client} {op:?} {payload:?}");
    }

    pub fn start(&mut self, client: u16) -> u32 {
        self.ok(client, Op::TransactionStart, "\0").trim_end_matches('\0').parse().unwrap()
    }

    pub fn end(&mut self, client: u16, transaction: u32, commit: &str) -> Reply {
        self.call_in(client, transaction, Op::TransactionEnd, format!("{commit}\0").as_bytes())
    }

    /// The events that wait for `client`, as (node, token).
    pub fn events(&mut self, client: u16) -> Vec<(String, String)> {
        let message = |message: Message| {
            assert_eq!(message.op, Op::WatchEvent as u32);
            let text = String::from_utf8(message.payload).unwrap();
            let mut parts = text.strip_suffix('\0').unwrap().split('\0').map(String::from);
            (parts.next().unwrap(), parts.next().unwrap())
        };
        self.receive(client).into_iter().map(message).collect()
    }

    /// Every node has its parent, every parent lists exactly its children, and the counts of what each domain owns are right.
    pub fn check_invariants(&self) {
        let store = self.engine.store();
        let mut owned = BTreeMap::new();
        for (path, node) in store.iter() {
            *owned.entry(node.permissions.owner()).or_insert(0) += 1;
            if let Some(parent) = path.parent() {
                let parent = store.get(&parent).unwrap_or_else(|| panic!("{path} has no parent"));
                assert!(parent.children.contains(path.name()), "{path} is not listed");
            }
            for name in node.children.iter() {
                assert!(store.get(&path.child(name)).is_some(), "{path} lists {name}, which is missing");
            }
            assert_eq!(node.children_bytes, node.children.iter().map(|name| name.len() + 1).sum::<usize>());
        }
        for (domain, nodes) in owned {
            assert_eq!(store.usage(domain).nodes, nodes, "nodes of domain {domain}");
        }
    }
}
