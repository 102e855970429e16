//! Starting up: everything is made, then xenstore runs, then everything is described there, then all run.

use alloc::format;
use core::time::Duration;

use policy::table::Label;
use runtime::errno::Result;
use runtime::event::Channel;
use runtime::grant::{grant_own_console_ring, grant_own_store_ring};
use runtime::hypercall::event_channel::{self, VIRQ_DOM_EXC};
use runtime::{DomId, Port, console, println, store};
use xen_abi::policy_table::{FLAG_CONSOLE, FLAG_STORE};

use crate::rescue;
use crate::system::System;
use crate::watch;

/// What xenstore may take for one request. It is on the same machine: this is for a xenstore that fails.
const STORE_TIMEOUT: Duration = Duration::from_secs(10);

/// The policy domain's life.
pub fn run() {
    let mut system = match System::new() {
        Ok(system) => system,
        Err(why) => {
            log::error!("{why}; nothing can be started");
            return;
        }
    };
    let deaths = Channel::virq(VIRQ_DOM_EXC);
    if let Err(error) = &deaths {
        log::error!("deaths of domains will go unnoticed: {error}");
    }
    let deaths = deaths.ok();
    start_all(&mut system, deaths.as_ref().map(Channel::port));
    watch::serve(system, deaths);
}

fn start_all(system: &mut System, deaths: Option<Port>) {
    system.create_all();
    let (store, console) = (system.table.flagged(FLAG_STORE), system.table.flagged(FLAG_CONSOLE));

    // Xenstore first: all others are described there before they run.
    let own_port = store.and_then(|_| own_store_ring(system));
    if let Some(store) = store {
        let own_port = own_port.map(|port| format!("policy-port={port} ")).unwrap_or_default();
        // All but this domain and xenstore itself share its memory.
        let clients = system.table.labels().count().saturating_sub(2);
        let arguments = format!("{own_port}clients={clients}");
        match memory_of_xenstore(system, store, clients).zip(deaths) {
            Some((memory, deaths)) => {
                let arguments = format!("{arguments} {}", memory.argument());
                system.build(store, &arguments);
                system.start(store);
                rescue::keep(system, store, arguments, memory, deaths);
            }
            None => {
                system.build(store, &arguments);
                system.start(store);
            }
        }
    }
    let others: alloc::vec::Vec<Label> =
        system.table.labels().skip(1).map(|(label, _)| label).filter(|label| Some(*label) != store).collect();
    for &label in &others {
        system.build(label, "");
    }
    own_console_ring(system);
    system.wire_all();
    // The console runs before all others, so that they are heard.
    let first = console.into_iter().filter(|console| Some(*console) != store);
    let rest = others.iter().copied().filter(|label| Some(*label) != console);
    for label in first.chain(rest).collect::<alloc::vec::Vec<_>>() {
        system.start(label);
        system.introduce(label);
    }
    system.watch_links();
}

/// The memory by which one xenstore hands over to the next, if the policy wants a next one.
fn memory_of_xenstore(system: &System, store: Label, clients: usize) -> Option<rescue::Memory> {
    let member = system.member(store).filter(|member| member.record.may_come_again())?;
    let pages = policy_domain::handover::pages(clients);
    rescue::Memory::new(member.id?, clients)
        .inspect_err(|error| {
            log::error!(
                "xenstore will not be started again: {} KiB for what it hands over are not there ({error}); give this \
                 domain more memory",
                pages * 4
            );
        })
        .ok()
}

/// Connects this domain to xenstore, as it would connect any other domain.
fn own_store_ring(system: &mut System) -> Option<u32> {
    let server = system.store()?;
    let port = attach(server, grant_own_store_ring).map_err(|error| log::error!("own xenstore ring: {error}")).ok()?;
    store::attach(port);
    store::set_timeout(Some(STORE_TIMEOUT));
    if let Some(own) = system.member_mut(Label::POLICY) {
        own.ports.store = Some(port.0);
    }
    Some(port.0)
}

/// Connects this domain to the console, if there is going to be one. Until here its output goes to the hypervisor.
pub fn own_console_ring(system: &mut System) {
    let Some(server) = system.console() else { return };
    match attach(server, grant_own_console_ring) {
        Ok(port) => {
            console::attach(port);
            if let Some(own) = system.member_mut(Label::POLICY) {
                own.ports.console = Some(port.0);
            }
        }
        Err(error) => println!("own console ring: {error}"),
    }
}

fn attach(
    server: DomId,
    grant: fn(DomId) -> core::result::Result<(), runtime::grant::GrantError>,
) -> Result<runtime::Port> {
    grant(server).map_err(|_| runtime::Errno::ENOSPC)?;
    event_channel::alloc_unbound(DomId::SELF, server)
}
