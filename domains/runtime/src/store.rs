//! The xenstore client: where domains find each other.
//!
//! Requests are synchronous: the call returns when the server has answered, and other ports stay pending meanwhile.
//! Before the server runs, a request simply waits in the ring. Watch events are collected whenever the ring is read;
//! when there are any, the store's port is pending for [`crate::event::wait`], and [`next_event`] takes them.
//!
//! Paths that do not start with `/` are below the domain's home, `/local/domain/<id>`.
//! `docs/misc/xenstore.txt` of Xen has the protocol; Xen public header `io/xs_wire.h` the layout.

mod batch;
mod client;
mod queue;
mod wire;

pub use batch::Batch;
pub use wire::{Permission, Rights, WatchEvent};

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt::Display;
use core::str::FromStr;
use core::time::Duration;

use xen_abi::io::xs_wire as abi;

use crate::errno::{Errno, Result};
use crate::event;
use crate::ids::{DomId, Port};
use crate::info::start_info;
use crate::local::Local;
use crate::time::Instant;

use client::Client;

static CLIENT: Local<Option<Client>> = Local::new(None);

/// Connects by what start info says, if it names a store.
pub(crate) fn init() {
    let port = start_info().store_port;
    if port != 0 {
        attach(Port(port));
    }
}

/// Connects to the store through `port`, an event channel that this domain owns already. Only the policy domain, which
/// makes its own channel, calls this. What an earlier connection had (watches, requests) is gone.
pub fn attach(port: Port) {
    *CLIENT.borrow() = Some(Client::new(port));
    event::unmask(port);
}

/// The port of the store connection, to tell watch events in an event loop.
pub fn port() -> Option<Port> {
    CLIENT.borrow().as_ref().map(Client::port)
}

/// Bounds the time that a request may take; then it fails with `ETIMEDOUT`. Without a bound (the default) a request waits
/// as long as it takes.
pub fn set_timeout(timeout: Option<Duration>) {
    if let Some(client) = CLIENT.borrow().as_mut() {
        client.timeout = timeout;
    }
}

/// Who looks after the server while requests wait for it: the policy domain, which starts it again. A request is then
/// answered by whichever server there is, or fails when the keeper says so, and not by [`set_timeout`].
#[derive(Clone, Copy, Debug)]
pub struct Keeper {
    /// Is pending when the server may have died. Its events are not lost to [`event::wait`].
    pub port: Port,
    /// Looks after the server, for a request that waits since that moment: when to look again, or why there is no hope. It
    /// must not make requests itself.
    pub look: fn(Instant) -> Result<Instant>,
}

/// From now on requests wait for what `keeper` keeps alive.
pub fn set_keeper(keeper: Keeper) {
    if let Some(client) = CLIENT.borrow().as_mut() {
        client.keeper = Some(keeper);
    }
}

/// Takes the next watch event, without waiting. Go on until there is none.
pub fn next_event() -> Option<WatchEvent> {
    CLIENT.borrow().as_mut()?.next_event()
}

/// Waits for a watch event and takes it; `None`: the deadline passed, or there is no store.
pub fn wait_event(deadline: Option<crate::time::Instant>) -> Option<WatchEvent> {
    loop {
        if let Some(event) = next_event() {
            return Some(event);
        }
        if !event::poll(&[port()?], deadline) {
            return next_event();
        }
    }
}

/// Puts watch events back to the front of the queue: for code that waits for one of its own and meets others'.
pub fn put_back(events: Vec<WatchEvent>) {
    if events.is_empty() {
        return;
    }
    if let Some(client) = CLIENT.borrow().as_mut() {
        client.events.put_back(events);
        event::raise(client.port());
    }
}

/// Requests to the store, by themselves or inside a transaction.
#[derive(Clone, Copy, Debug, Default)]
pub struct Store {
    transaction: u32,
}

/// Attempts that [`Store::transaction`] makes before it gives up.
const TRANSACTION_ATTEMPTS: usize = 64;

impl Store {
    /// Requests outside any transaction.
    pub const fn new() -> Self {
        Self { transaction: 0 }
    }

    fn request(&self, kind: u32, parts: &[&[u8]]) -> Result<Vec<u8>> {
        let mut client = CLIENT.borrow();
        let client = client.as_mut().ok_or(Errno::ENOTCONN)?;
        client.request(kind, self.transaction, parts)
    }

    /// Makes many requests at once. An error is that of the first that failed; the others were made.
    pub fn run(&self, batch: &Batch) -> Result<()> {
        CLIENT.borrow().as_mut().ok_or(Errno::ENOTCONN)?.run(batch, self.transaction)
    }

    /// A node's value.
    pub fn read(&self, path: &str) -> Result<Vec<u8>> {
        self.request(abi::XS_READ, &[path.as_bytes(), b"\0"])
    }

    /// A node's value as text. `EILSEQ`: it is not UTF-8.
    pub fn read_text(&self, path: &str) -> Result<String> {
        String::from_utf8(self.read(path)?).map_err(|_| Errno::EILSEQ)
    }

    /// A node's value as a number or whatever parses from text. `EINVAL`: it does not parse.
    pub fn read_parsed<T: FromStr>(&self, path: &str) -> Result<T> {
        self.read_text(path)?.trim().parse().map_err(|_| Errno::EINVAL)
    }

    /// Whether there is such a node (that we may read).
    pub fn exists(&self, path: &str) -> bool {
        self.read(path).is_ok()
    }

    /// The names of a node's children.
    pub fn list(&self, path: &str) -> Result<Vec<String>> {
        match self.request(abi::XS_DIRECTORY, &[path.as_bytes(), b"\0"]) {
            Ok(names) => Ok(wire::strings(&names)),
            Err(Errno::E2BIG) => self.list_in_parts(path),
            Err(error) => Err(error),
        }
    }

    /// A list longer than a message: asked for piece by piece, from the start again when it changes meanwhile.
    fn list_in_parts(&self, path: &str) -> Result<Vec<String>> {
        'restart: for _ in 0..TRANSACTION_ATTEMPTS {
            let (mut names, mut generation) = (Vec::new(), None);
            loop {
                let offset = format!("{}\0", names.len());
                let answer = self.request(abi::XS_DIRECTORY_PART, &[path.as_bytes(), b"\0", offset.as_bytes()])?;
                let (part_generation, part, last) = wire::directory_part(&answer).ok_or(Errno::EBADMSG)?;
                if *generation.get_or_insert_with(|| part_generation.to_vec()) != part_generation {
                    continue 'restart;
                }
                names.extend_from_slice(part);
                if last {
                    return Ok(wire::strings(&names));
                }
                if part.is_empty() {
                    return Err(Errno::EBADMSG);
                }
            }
        }
        Err(Errno::EAGAIN)
    }

    /// Sets a node's value; makes the node and its parents where they are missing.
    pub fn write(&self, path: &str, value: impl AsRef<[u8]>) -> Result<()> {
        self.request(abi::XS_WRITE, &[path.as_bytes(), b"\0", value.as_ref()]).map(drop)
    }

    /// Sets a node to the text of a value.
    pub fn write_display(&self, path: &str, value: impl Display) -> Result<()> {
        self.write(path, format!("{value}"))
    }

    /// Makes an empty node, if it does not exist.
    pub fn mkdir(&self, path: &str) -> Result<()> {
        self.request(abi::XS_MKDIR, &[path.as_bytes(), b"\0"]).map(drop)
    }

    /// Removes a node and all below it. A node that is not there is no error.
    pub fn remove(&self, path: &str) -> Result<()> {
        match self.request(abi::XS_RM, &[path.as_bytes(), b"\0"]) {
            Ok(_) | Err(Errno::ENOENT) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// A node's permissions: the owner first, with what all others may do.
    pub fn permissions(&self, path: &str) -> Result<Vec<Permission>> {
        let answer = self.request(abi::XS_GET_PERMS, &[path.as_bytes(), b"\0"])?;
        wire::strings(&answer).iter().map(|text| Permission::parse(text).ok_or(Errno::EBADMSG)).collect()
    }

    /// Sets a node's permissions: the owner first, with what all others may do, then single domains.
    pub fn set_permissions(&self, path: &str, permissions: &[Permission]) -> Result<()> {
        let list: String = permissions.iter().map(|permission| format!("{permission}\0")).collect();
        self.request(abi::XS_SET_PERMS, &[path.as_bytes(), b"\0", list.as_bytes()]).map(drop)
    }

    /// Asks for an event, with `token`, whenever the node or one below it changes; one comes at once.
    pub fn watch(&self, path: &str, token: &str) -> Result<()> {
        self.request(abi::XS_WATCH, &[path.as_bytes(), b"\0", token.as_bytes(), b"\0"])?;
        if let Some(client) = CLIENT.borrow().as_mut() {
            client.events.watch_added(WatchEvent::new(path, token));
        }
        Ok(())
    }

    /// Ends a watch; its events that wait are dropped.
    pub fn unwatch(&self, path: &str, token: &str) -> Result<()> {
        let result = self.request(abi::XS_UNWATCH, &[path.as_bytes(), b"\0", token.as_bytes(), b"\0"]);
        if let Some(client) = CLIENT.borrow().as_mut() {
            client.events.watch_removed(&WatchEvent::new(path, token));
        }
        result.map(drop)
    }

    /// The home of a domain.
    pub fn domain_path(&self, domain: DomId) -> Result<String> {
        let mut answer = self.request(abi::XS_GET_DOMAIN_PATH, &[format!("{domain}\0").as_bytes()])?;
        answer.pop_if(|last| *last == 0);
        String::from_utf8(answer).map_err(|_| Errno::EILSEQ)
    }

    /// Tells the store of a new domain, its ring page and the port that is for the store to bind. Policy domain only.
    pub fn introduce(&self, domain: DomId, gfn: u64, port: Port) -> Result<()> {
        self.request(abi::XS_INTRODUCE, &[format!("{domain}\0{gfn}\0{port}\0").as_bytes()]).map(drop)
    }

    /// Tells the store that a domain is gone. Policy domain only.
    pub fn release(&self, domain: DomId) -> Result<()> {
        self.request(abi::XS_RELEASE, &[format!("{domain}\0").as_bytes()]).map(drop)
    }

    /// Tells the store that a domain is dead and that another of its id will be introduced: its ring is touched no more, its
    /// watches are gone, its nodes stay. Policy domain only.
    pub fn disconnect(&self, domain: DomId) -> Result<()> {
        self.request(abi::XS_CONTROL, &[format!("disconnect\0{domain}\0").as_bytes()]).map(drop)
    }

    /// Whether a domain is connected to the store.
    pub fn is_introduced(&self, domain: DomId) -> Result<bool> {
        let answer = self.request(abi::XS_IS_DOMAIN_INTRODUCED, &[format!("{domain}\0").as_bytes()])?;
        Ok(answer.first() == Some(&b'T'))
    }

    /// Does `work` in a transaction: all of it takes effect at once, or none. When others' changes collide with it, it is
    /// done again; when `work` fails, it is undone and its error returned.
    pub fn transaction<T>(&self, work: impl Fn(&Store) -> Result<T>) -> Result<T> {
        for _ in 0..TRANSACTION_ATTEMPTS {
            let answer = self.request(abi::XS_TRANSACTION_START, &[b"\0"])?;
            let store = Store { transaction: wire::number(&answer).ok_or(Errno::EBADMSG)? };
            match work(&store) {
                Ok(value) => match store.request(abi::XS_TRANSACTION_END, &[b"T\0"]) {
                    Ok(_) => return Ok(value),
                    Err(Errno::EAGAIN) => {}
                    Err(error) => return Err(error),
                },
                Err(error) => {
                    let _ = store.request(abi::XS_TRANSACTION_END, &[b"F\0"]);
                    if error != Errno::EAGAIN {
                        return Err(error);
                    }
                }
            }
        }
        Err(Errno::EAGAIN)
    }
}
