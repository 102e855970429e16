//! The event loop, and what the service needs of the machine: rings by grants, wake-ups by events, memory.

use alloc::collections::BTreeMap;
use alloc::vec::Vec;
use core::fmt;

use runtime::event::{self, Channel};
use runtime::grant::Mapping;
use runtime::info::argument;
use runtime::shared::Shared;
use runtime::{Access, GrantRef, Port, heap};
use xen_abi::native::GRANT_REF_XENSTORE;
use xen_abi::policy_table::DOMAINS_MAX;
use xenstore::domid::DomId;
use xenstore::quota;
use xenstore::service::{Service, World};

/// The event channels of the introduced domains, and the memory for all.
struct Machine {
    channels: BTreeMap<DomId, Channel>,
    by_port: BTreeMap<Port, DomId>,
    /// Bytes of heap to keep free.
    reserve: usize,
}

impl World for Machine {
    type Page = Mapping;

    fn attach(&mut self, domain: DomId, port: u32) -> Option<Mapping> {
        let peer = runtime::DomId(domain.0);
        let page = Mapping::page_of(peer, GrantRef(GRANT_REF_XENSTORE), Access::ReadWrite).inspect_err(|error| {
            log::warn!("domain {domain} cannot be served: its ring page cannot be mapped: {error}")
        });
        let channel = Channel::connect(peer, Port(port)).inspect_err(|error| {
            log::warn!("domain {domain} cannot be served: its event channel cannot be bound: {error}");
        });
        let (page, channel) = (page.ok()?, channel.ok()?);
        self.by_port.insert(channel.port(), domain);
        self.channels.insert(domain, channel);
        Some(page)
    }

    fn detach(&mut self, domain: DomId) {
        if let Some(channel) = self.channels.remove(&domain) {
            self.by_port.remove(&channel.port());
        }
    }

    fn notify(&mut self, domain: DomId) {
        self.channels.get(&domain).into_iter().for_each(Channel::notify);
    }

    fn memory_is_short(&self) -> bool {
        let (_, free) = heap::usage();
        free < self.reserve
    }

    fn say(&mut self, what: fmt::Arguments<'_>) {
        log::warn!("{what}");
    }
}

/// Serves for ever. Returns when that cannot be, which ends the domain.
pub fn run() {
    let (used, free) = heap::usage();
    let heap_bytes = used + free;
    let machine = Machine { channels: BTreeMap::new(), by_port: BTreeMap::new(), reserve: quota::reserve(heap_bytes) };
    let Some(policy_port) = argument("policy-port").and_then(|text| text.parse().ok()) else {
        return log::error!("the argument policy-port=N is missing; nothing to serve");
    };
    let handover = match argument("handover").map(map_handover) {
        None => None,
        Some(Some(memory)) => Some(memory),
        Some(None) => return log::error!("what is to be handed over to the next cannot be mapped"),
    };
    let quota = memory_quota(heap_bytes, handover.as_ref().map(|memory| memory.memory().len()));
    let mut service = match Service::start(machine, quota, policy_port, handover) {
        Ok(service) => service,
        Err(why) => return log::error!("{why}; nothing to serve"),
    };
    let clients = service.world().channels.len();
    log::info!("serving{}", if clients > 1 { ", as the one before did" } else { "" });
    loop {
        let pending = if service.is_busy() { event::pending() } else { event::wait(None) };
        for port in pending {
            if let Some(&domain) = service.world().by_port.get(&port) {
                service.is_ready(domain);
            }
        }
        service.turn();
    }
}

/// Maps the memory that outlives this domain, which is the policy domain's: `REFERENCE,REFERENCE+PAGES` names the pages
/// that list the references of all of them.
fn map_handover(text: &str) -> Option<Mapping> {
    let (lists, pages) = text.split_once('+')?;
    let lists = lists.split(',').map(|text| text.parse().map(GrantRef)).collect::<Result<Vec<_>, _>>().ok()?;
    let pages = pages.parse::<usize>().ok()?;
    let policy = runtime::DomId::POLICY;
    let directory = Mapping::new(policy, &lists, Access::ReadOnly)
        .inspect_err(|error| log::error!("the list of grants: {error}"))
        .ok()?;
    let references = references(directory.memory(), pages)?;
    Mapping::new(policy, &references, Access::ReadWrite).inspect_err(|error| log::error!("{error}")).ok()
}

fn references(directory: Shared<'_>, count: usize) -> Option<Vec<GrantRef>> {
    let mut bytes = alloc::vec![0; count.checked_mul(4).filter(|&bytes| bytes <= directory.len())?];
    directory.read(0, &mut bytes);
    let (words, _) = bytes.as_chunks::<4>();
    Some(words.iter().map(|word| GrantRef(u32::from_le_bytes(*word))).collect())
}

/// What each domain may have of a heap of `heap_bytes`, by the number of domains that the policy describes; and so that
/// all of it can be handed over.
fn memory_quota(heap_bytes: usize, handover_bytes: Option<usize>) -> usize {
    let told = argument("clients").and_then(|text| text.parse().ok());
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
    handover_bytes.map_or(quota, |bytes| quota.min(quota::memory_handed_over(bytes, clients)))
}
