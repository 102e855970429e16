//! The event loop: bytes between the rings and the engine.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::vec::Vec;

use runtime::Port;
use runtime::event;
use runtime::heap;
use xen_abi::errno::Errno;
use xen_abi::io::xs_wire::{XENSTORE_ERROR_PROTO, XENSTORE_ERROR_RINGIDX};
use xen_abi::policy_table::DOMAINS_MAX;
use xen_rings::store::{Message, WireError};
use xenstore::domid::DomId;
use xenstore::engine::{Engine, Rings};
use xenstore::quota;

use crate::ring::Ring;

/// Requests of one client before the others get their turn.
const REQUESTS_PER_TURN: usize = 8;

/// The rings of the introduced domains, and the memory for all of them.
struct Attached {
    rings: BTreeMap<DomId, Ring>,
    by_port: BTreeMap<Port, DomId>,
    /// Bytes of heap to keep free.
    reserve: usize,
}

impl Rings for Attached {
    fn attach(&mut self, domain: DomId, port: u32) -> Result<(), Errno> {
        let ring = Ring::attach(runtime::DomId(domain.0), Port(port)).map_err(|error| {
            log::warn!("domain {domain} cannot be introduced: {error}");
            Errno::EINVAL
        })?;
        self.by_port.insert(ring.port(), domain);
        self.rings.insert(domain, ring);
        Ok(())
    }

    fn detach(&mut self, domain: DomId) {
        if let Some(ring) = self.rings.remove(&domain) {
            self.by_port.remove(&ring.port());
        }
    }

    fn memory_is_short(&self) -> bool {
        let (_, free) = heap::usage();
        free < self.reserve
    }
}

/// Serves for ever.
pub fn run() {
    let (used, free) = heap::usage();
    let heap_bytes = used + free;
    let mut attached =
        Attached { rings: BTreeMap::new(), by_port: BTreeMap::new(), reserve: quota::reserve(heap_bytes) };
    let mut engine = Engine::new(memory_quota(heap_bytes));
    let port = runtime::info::argument("policy-port").and_then(|text| text.parse().ok());
    match port.map(|port| attached.attach(DomId::POLICY, port)) {
        Some(Ok(())) => engine.connect(DomId::POLICY),
        Some(Err(_)) => log::error!("the policy domain's ring cannot be used; nothing to serve"),
        None => log::error!("the argument policy-port=N is missing; nothing to serve"),
    }
    log::info!("serving");
    let mut held: BTreeSet<DomId> = BTreeSet::new();
    let mut ready: BTreeSet<DomId> = attached.rings.keys().copied().collect();
    loop {
        if ready.is_empty() {
            ready.extend(event::wait(None).filter_map(|port| attached.by_port.get(&port).copied()));
        } else {
            ready.extend(event::pending().filter_map(|port| attached.by_port.get(&port).copied()));
        }
        let turn: Vec<DomId> = core::mem::take(&mut ready).into_iter().collect();
        for domain in turn {
            match serve(&mut engine, &mut attached, domain) {
                Turn::More => _ = ready.insert(domain),
                Turn::Held => _ = held.insert(domain),
                Turn::Done => {}
            }
            if domain == DomId::POLICY {
                ready.append(&mut held);
            }
        }
        flush(&mut engine, &mut attached);
    }
}

/// What each domain may have of a heap of `heap_bytes`, by the number of domains that the policy describes.
fn memory_quota(heap_bytes: usize) -> usize {
    let told = runtime::info::argument("clients").and_then(|text| text.parse().ok());
    let clients = told.unwrap_or(DOMAINS_MAX as usize);
    let quota = quota::memory_of_each(heap_bytes, clients);
    let needed = quota::heap_for(quota, clients);
    if needed > heap_bytes {
        log::warn!(
            "{clients} domains may use {} KiB each, of a heap of {} KiB: give this domain {} KiB more memory",
            quota / 1024,
            heap_bytes / 1024,
            (needed - heap_bytes) / 1024
        );
    }
    quota
}

/// What is left of a client's requests after its turn.
#[derive(PartialEq, Eq)]
enum Turn {
    More,
    /// It has to wait for the policy domain.
    Held,
    Done,
}

/// Takes a bounded number of requests of `domain`.
fn serve(engine: &mut Engine, attached: &mut Attached, domain: DomId) -> Turn {
    for _ in 0..REQUESTS_PER_TURN {
        send(engine, attached, domain);
        if engine.is_held(domain) {
            return Turn::Held;
        }
        let Some(ring) = attached.rings.get_mut(&domain).filter(|_| engine.takes_requests(domain)) else {
            return Turn::Done;
        };
        // A copy of the request, as carrying it out may attach and detach rings.
        let (head, payload) = match ring.next_message() {
            Ok(Some(message)) => (message.head, message.payload.to_vec()),
            Ok(None) => return Turn::Done,
            Err(error) => {
                cut_off(engine, attached, domain, error);
                return Turn::Done;
            }
        };
        engine.request(domain, &Message { head, payload: &payload }, attached);
    }
    Turn::More
}

/// Gives every client what waits for it and fits.
fn flush(engine: &mut Engine, attached: &mut Attached) {
    for domain in engine.domains() {
        send(engine, attached, domain);
        if let Some(ring) = attached.rings.get_mut(&domain) {
            ring.notify();
        }
    }
}

fn send(engine: &mut Engine, attached: &mut Attached, domain: DomId) {
    loop {
        let Some(ring) = attached.rings.get_mut(&domain) else {
            return;
        };
        let bytes = engine.output(domain);
        if bytes.is_empty() {
            return;
        }
        match ring.write(bytes) {
            Ok(0) => return,
            Ok(count) => engine.output_taken(domain, count),
            Err(error) => return cut_off(engine, attached, domain, WireError::Ring(error)),
        }
    }
}

/// Serves `domain` no more. It stays introduced until the policy domain releases it.
fn cut_off(engine: &mut Engine, attached: &mut Attached, domain: DomId, why: WireError) {
    log::warn!("domain {domain} is served no more: {why}");
    engine.cut_off(domain);
    if let Some(ring) = attached.rings.get_mut(&domain) {
        ring.tell_error(match why {
            WireError::Ring(_) => XENSTORE_ERROR_RINGIDX,
            WireError::TooLong(_) => XENSTORE_ERROR_PROTO,
        });
    }
}
