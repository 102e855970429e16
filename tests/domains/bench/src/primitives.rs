//! The primitives, each warm, the loop around the call included.

use crate::link::{self, Mode, Peer};
use crate::samples::{Report, measure};
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use runtime::event::{self, Channel};
use runtime::grant::Mapping;
use runtime::hypercall::{event_channel, grant_table, platform, sched, version};
use runtime::pages::{PAGE, Pages};
use runtime::{Access, DomId};
use xen_abi::grant_table as gt;
use xen_abi::native::{GRANT_WINDOW_END, PAGE_SIZE};
use xen_abi::xen::DOMID_SELF;

/// Samples of each.
const SAMPLES: usize = 100;
/// Calls in one sample.
const CALLS: u64 = 100;
/// Pages of a batch.
const BATCH: usize = 16;

/// Measures them all.
pub fn all() -> Result<Vec<Report>, String> {
    let peer = link::accept()?;
    link::settle();
    event::mask_all_but(&[peer.channel.port()]);
    let mut reports = Vec::from([null_hypercall(), event_to_self()?]);
    {
        let page = Mapping::page_of(peer.domain, peer.references[0], Access::ReadWrite).map_err(|e| e.to_string())?;
        reports.extend(round_trips(&peer, &page));
    }
    reports.push(maps(&peer, "grant_map_unmap_1", 1));
    reports.push(maps(&peer, "grant_map_unmap_16_each", BATCH));
    reports.extend(copies(&peer)?);
    reports.extend(machine()?);
    Ok(reports)
}

/// What booting cost, and what the hypervisor keeps for itself.
fn machine() -> Result<[Report; 2], String> {
    let machine = platform::machine_info().map_err(|error| error.to_string())?;
    Ok([
        Report::of("boot_to_policy_domain", machine.policy_tsc.wrapping_sub(machine.boot_tsc)),
        Report::of("hypervisor_memory_bytes", machine.frames_hypervisor * PAGE_SIZE),
    ])
}

fn null_hypercall() -> Report {
    measure("null_hypercall", SAMPLES, CALLS, || {
        for _ in 0..CALLS {
            core::hint::black_box(version::version().is_ok());
        }
    })
}

fn event_to_self() -> Result<Report, String> {
    let near = Channel::listen(DomId::SELF).map_err(|error| error.to_string())?;
    let far = Channel::connect(DomId::SELF, near.port()).map_err(|error| error.to_string())?;
    event::mask(far.port());
    Ok(measure("event_send_self_masked", SAMPLES, CALLS, || {
        for _ in 0..CALLS {
            core::hint::black_box(event_channel::send(near.port()).is_ok());
        }
    }))
}

/// Waits for the peer.
fn hear(peer: &Peer) {
    while !event::take(peer.channel.port()) {
        sched::block();
    }
}

fn round_trips(peer: &Peer, page: &Mapping) -> [Report; 3] {
    let (port, page) = (peer.channel.port(), page.page(0));
    let ping_pong = measure("event_ping_pong", SAMPLES, CALLS, || {
        for _ in 0..CALLS {
            core::hint::black_box(event_channel::send(port).is_ok());
            hear(peer);
        }
    });
    Mode::EchoAtOnce.tell(page);
    peer.channel.notify();
    hear(peer);
    let at_once = measure("notify_and_wait_round_trip", SAMPLES, CALLS, || {
        for _ in 0..CALLS {
            core::hint::black_box(sched::send_and_block(port).is_ok());
            while !event::take(port) {
                sched::block();
            }
        }
    });
    Mode::GiveWay.tell(page);
    peer.channel.notify();
    hear(peer);
    sched::give_way();
    let yielding = measure("yield_round_trip", SAMPLES, CALLS, || {
        for _ in 0..CALLS {
            sched::give_way();
        }
    });
    Mode::Echo.tell(page);
    sched::give_way();
    [ping_pong, at_once, yielding]
}

fn maps(peer: &Peer, name: &'static str, pages: usize) -> Report {
    let place = GRANT_WINDOW_END - 2 * BATCH as u64 * PAGE_SIZE;
    let addresses = (place..).step_by(PAGE);
    let mut mapping: [gt::GnttabMapGrantRef; BATCH] = Default::default();
    let mut unmapping: [gt::GnttabUnmapGrantRef; BATCH] = Default::default();
    for ((map, unmap), (reference, address)) in
        mapping.iter_mut().zip(&mut unmapping).zip(peer.references.iter().skip(1).zip(addresses))
    {
        *map = gt::GnttabMapGrantRef {
            host_addr: address,
            flags: gt::GNTMAP_HOST_MAP,
            gref: reference.0,
            dom: peer.domain.0,
            ..Default::default()
        };
        unmap.host_addr = address;
    }
    let (mapping, unmapping) = (&mut mapping[..pages], &mut unmapping[..pages]);
    let mut good = true;
    let report = measure(name, SAMPLES, 20 * pages as u64, || {
        let (mut calls, mut statuses) = (true, gt::GNTST_OKAY);
        for _ in 0..20 {
            // SAFETY: the addresses are at the end of the grant window, which the runtime hands out from the start.
            calls &= unsafe { grant_table::map(mapping) }.is_ok();
            for (unmap, map) in unmapping.iter_mut().zip(mapping.iter()) {
                unmap.handle = map.handle;
            }
            // SAFETY: what is mapped there was mapped just now, and no reference covers it.
            calls &= unsafe { grant_table::unmap(unmapping) }.is_ok();
            unmapping.iter().for_each(|unmap| statuses |= unmap.status);
        }
        good &= calls && statuses == gt::GNTST_OKAY;
    });
    assert!(good, "a page was not mapped or not unmapped");
    report
}

fn copies(peer: &Peer) -> Result<[Report; 2], String> {
    let own = Pages::new(1).ok_or("no page")?;
    let copies = |name, bytes| {
        let source =
            gt::GnttabCopyPtr { target: u64::from(peer.references[1].0), domid: peer.domain.0, ..Default::default() };
        let dest = gt::GnttabCopyPtr { target: own.gfn(0), domid: DOMID_SELF, ..Default::default() };
        let mut copy =
            [gt::GnttabCopy { source, dest, len: bytes, flags: gt::GNTCOPY_SOURCE_GREF, ..Default::default() }];
        let mut good = true;
        let report = measure(name, SAMPLES, CALLS, || {
            let (mut calls, mut statuses) = (true, gt::GNTST_OKAY);
            for _ in 0..CALLS {
                // SAFETY: the destination is a page of ours that nothing else uses.
                calls &= unsafe { grant_table::copy(&mut copy) }.is_ok();
                statuses |= copy[0].status;
            }
            good &= calls && statuses == gt::GNTST_OKAY;
        });
        assert!(good, "a copy failed");
        report
    };
    Ok([copies("grant_copy_4096", PAGE as u16), copies("grant_copy_64", 64)])
}
