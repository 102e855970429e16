//! The event loop: bytes between the rings and the engine.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::vec::Vec;

use runtime::Port;
use runtime::event;
use xen_abi::io::xs_wire as abi;
use xenstore::domid::DomId;
use xenstore::engine::{Engine, Rings};
use xenstore::error::Error;
use xenstore::wire::PAYLOAD_MAX;

use crate::ring::Ring;

/// Reads from one ring before the others get their turn: a request is two, its header and its payload.
const READS_PER_TURN: usize = 16;

/// The rings of the introduced domains.
#[derive(Default)]
struct Attached {
    rings: BTreeMap<DomId, Ring>,
    by_port: BTreeMap<Port, DomId>,
}

impl Rings for Attached {
    fn attach(&mut self, domain: DomId, port: u32) -> Result<(), Error> {
        let ring = Ring::attach(runtime::DomId(domain.0), Port(port)).map_err(|error| {
            log::warn!("domain {domain} cannot be introduced: {error}");
            Error::Invalid
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
}

/// Serves for ever.
pub fn run() {
    let mut attached = Attached::default();
    let mut engine = Engine::new();
    let port = runtime::info::argument("policy-port").and_then(|text| text.parse().ok());
    match port.map(|port| attached.attach(DomId::POLICY, port)) {
        Some(Ok(())) => engine.connect(DomId::POLICY),
        Some(Err(_)) => log::error!("the policy domain's ring cannot be used; nothing to serve"),
        None => log::error!("the argument policy-port=N is missing; nothing to serve"),
    }
    log::info!("serving");
    let mut buffer = alloc::vec![0; PAYLOAD_MAX];
    let mut ready: BTreeSet<DomId> = attached.rings.keys().copied().collect();
    loop {
        if ready.is_empty() {
            ready.extend(event::wait(None).filter_map(|port| attached.by_port.get(&port).copied()));
        } else {
            ready.extend(event::pending().filter_map(|port| attached.by_port.get(&port).copied()));
        }
        let turn: Vec<DomId> = core::mem::take(&mut ready).into_iter().collect();
        for domain in turn {
            if serve(&mut engine, &mut attached, domain, &mut buffer) == Turn::More {
                ready.insert(domain);
            }
        }
        flush(&mut engine, &mut attached);
    }
}

/// What is left of a client's requests after its turn.
#[derive(PartialEq, Eq)]
enum Turn {
    More,
    Done,
}

/// Takes a bounded number of requests of `domain`.
fn serve(engine: &mut Engine, attached: &mut Attached, domain: DomId, buffer: &mut [u8]) -> Turn {
    for _ in 0..READS_PER_TURN {
        send(engine, attached, domain);
        let wanted = engine.input_wanted(domain).min(buffer.len());
        let Some(ring) = attached.rings.get_mut(&domain).filter(|_| wanted > 0) else {
            return Turn::Done;
        };
        let count = match ring.read(&mut buffer[..wanted]) {
            Ok(0) => return Turn::Done,
            Ok(count) => count,
            Err(_) => {
                cut_off(
                    engine,
                    attached,
                    domain,
                    abi::XENSTORE_ERROR_RINGIDX,
                    "impossible ring indexes",
                );
                return Turn::Done;
            }
        };
        engine.input(domain, &buffer[..count], attached);
        if engine.is_cut_off(domain) {
            cut_off(
                engine,
                attached,
                domain,
                abi::XENSTORE_ERROR_PROTO,
                "an impossible message",
            );
            return Turn::Done;
        }
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
            Err(_) => {
                cut_off(
                    engine,
                    attached,
                    domain,
                    abi::XENSTORE_ERROR_RINGIDX,
                    "impossible ring indexes",
                );
                return;
            }
        }
    }
}

/// Serves `domain` no more. It stays introduced until the policy domain releases it.
fn cut_off(engine: &mut Engine, attached: &mut Attached, domain: DomId, error: u32, why: &str) {
    log::warn!("domain {domain} is served no more: {why}");
    engine.cut_off(domain);
    if let Some(ring) = attached.rings.get_mut(&domain) {
        ring.tell_error(error);
    }
}
