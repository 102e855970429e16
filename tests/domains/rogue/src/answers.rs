//! What the hypervisor tells: whole structures, nothing of its own memory in the gaps, and nothing done when it cannot tell.

use crate::child::{DIES, FRIEND, LABELS, SLEEPS, VICTIM, complete, empty, finish, gfn, running};
use crate::raw;
use core::time::Duration;
use runtime::hypercall::{event_channel, platform};
use runtime::time::sleep;
use runtime::verdict::equal;
use runtime::{Access, DomId, Errno, GrantRef, verdict};
use xen_abi::event_channel as ev;
use xen_abi::native::{STACK_TOP, START_INFO};
use xen_abi::platform as abi;
use xen_abi::xen::HYPERVISOR_EVENT_CHANNEL_OP;
use zerocopy::{FromBytes, IntoBytes};

/// What is in a structure before the call.
const RUBBLE: u8 = 0xaa;

/// All of it.
pub fn all() {
    domains();
    other_facts();
    sizes_and_pointers();
    commands_of_others();
}

/// A structure full of rubble.
fn rubble<T: FromBytes + IntoBytes>() -> T {
    let mut structure = T::new_zeroed();
    structure.as_mut_bytes().fill(RUBBLE);
    structure
}

fn info(id: DomId) -> Option<abi::DomainInfo> {
    let mut info: abi::DomainInfo = rubble();
    info.domid = u32::from(id.0);
    raw::platform(abi::DOMAIN_INFO, &mut info).ok()?;
    Some(info)
}

fn domains() {
    let id = complete(VICTIM, DIES);
    match info(id) {
        Some(info) => {
            equal(
                "c5-info-of-a-new-domain",
                (info.domid, info.label, info.state),
                (id.0.into(), VICTIM, abi::STATE_BUILDING),
            );
            equal("c5-info-reason-is-none", info.reason, 0);
            equal("c5-info-counts", (info.pages, info.cpu_ns, info.hypercalls, info.events_sent), (2, 0, 0, 0));
            equal("c5-info-counts", (info.grants_mapped, info.ports, info.devices), (0, 0, 0));
            verdict!("c5-info-tables", (1..64).contains(&info.table_pages), "{}", info.table_pages);
            verdict!("c5-info-why-is-empty", info.why == [0; 128], "{:x?}", info.why);
        }
        None => verdict::fail("c5-info-of-a-new-domain", "none"),
    }
    // It dies at its first instruction; its text is there, and NUL behind it, as long as it is there itself.
    equal("c5-unpause", platform::unpause(id), Ok(()));
    let mut seen = false;
    for _ in 0..2000 {
        match info(id).filter(|info| info.domid == u32::from(id.0)) {
            Some(info) if info.state == abi::STATE_DYING => {
                let end = info.why.iter().position(|&byte| byte == 0).unwrap_or(info.why.len());
                let (text, padding) = info.why.split_at(end);
                verdict!("c5-info-why-is-text", !text.is_empty() && text.is_ascii(), "{text:x?}");
                verdict!("c5-info-why-is-padded", padding.iter().all(|&byte| byte == 0), "{padding:x?}");
                seen = true;
                break;
            }
            Some(_) => sleep(Duration::from_micros(50)),
            None => break,
        }
    }
    if !seen {
        runtime::println!("it was gone before it was asked about");
    }
    finish(id);
    equal("c5-info-of-no-more", platform::domain_info(0x7000).map(drop), Err(Errno::ENOENT));
    equal("m3-info-of-a-wide-id", platform::domain_info(0x1_0000).map(drop), Err(Errno::ENOENT));
}

/// A call on a structure of rubble answers the same as on one of zeros.
fn same<T: FromBytes + IntoBytes>(name: &str, command: u64, set: impl Fn(&mut T)) {
    let (mut clean, mut dirty): (T, T) = (T::new_zeroed(), rubble());
    set(&mut clean);
    set(&mut dirty);
    let results = (raw::platform(command, &mut clean), raw::platform(command, &mut dirty));
    equal(name, results, (Ok(0), Ok(0)));
    verdict!(name, clean.as_mut_bytes() == dirty.as_mut_bytes(), "{:x?}", dirty.as_mut_bytes());
}

fn other_facts() {
    let (id, friend) = (complete(VICTIM, SLEEPS), empty(FRIEND));
    let seeded = platform::seed_grant(id, GrantRef(3), gfn(STACK_TOP) - 1, friend, Access::ReadOnly);
    equal("c5-seed", seeded, Ok(()));
    same::<abi::GrantInfo>("c5-grant-info", abi::GRANT_INFO, |op| (op.domid, op.gref) = (id.0.into(), 0));
    same::<abi::DeviceInfo>("c5-device-info", abi::DEVICE_INFO, |op| op.index = 0);
    same::<abi::MachineInfo>("c5-machine-info", abi::MACHINE_INFO, |_| ());
    equal("c5-no-more-devices", platform::device_info(u32::MAX).map(drop), Err(Errno::ENOENT));
    equal("c5-no-more-grants", platform::grant_info(id, GrantRef(4)).map(drop), Err(Errno::ENOENT));
    equal("c5-no-more-grants", platform::grant_info(id, GrantRef(u32::MAX)).map(drop), Err(Errno::ENOENT));
    let port = event_channel::alloc_unbound(id, friend).map_or(0, |port| port.0);
    for (port, state) in [(port, ev::EVTCHNSTAT_UNBOUND), (port + 1, ev::EVTCHNSTAT_CLOSED)] {
        let mut op: ev::EvtchnStatus = rubble();
        (op.dom, op.pad, op.port) = (id.0, 0, port);
        let address = core::ptr::from_mut(&mut op) as u64;
        equal("c5-status", raw::hypercall(HYPERVISOR_EVENT_CHANNEL_OP, [ev::EVTCHNOP_STATUS, address, 0, 0, 0]), 0);
        let peer = if state == ev::EVTCHNSTAT_UNBOUND { friend.0 } else { 0 };
        equal("c5-status", (op.status, op.vcpu), (state, 0));
        equal("c5-status-detail", (op.detail.dom, op.detail.high, op.detail.port), (peer, 0, 0));
    }
    [id, friend].into_iter().for_each(finish);
}

/// A structure in read-only memory.
static READ_ONLY: [u32; 64] = [VICTIM; 64];

fn sizes_and_pointers() {
    let mut structure = [0_u64; 64];
    let good = structure.as_mut_ptr() as u64;
    let commands = [
        (abi::CREATE_DOMAIN, size_of::<abi::CreateDomain>()),
        (abi::POPULATE, size_of::<abi::Populate>()),
        (abi::COPY_IN, size_of::<abi::CopyIn>()),
        (abi::SEED_GRANT, size_of::<abi::SeedGrant>()),
        (abi::SET_ENTRY, size_of::<abi::SetEntry>()),
        (abi::ASSIGN_DEVICE, size_of::<abi::AssignDevice>()),
        (abi::UNPAUSE, size_of::<abi::DomainTarget>()),
        (abi::PAUSE, size_of::<abi::DomainTarget>()),
        (abi::DESTROY, size_of::<abi::DomainTarget>()),
        (abi::DOMAIN_INFO, size_of::<abi::DomainInfo>()),
        (abi::DEVICE_INFO, size_of::<abi::DeviceInfo>()),
        (abi::GRANT_INFO, size_of::<abi::GrantInfo>()),
        (abi::MACHINE_INFO, size_of::<abi::MachineInfo>()),
        (abi::POWER, size_of::<abi::Power>()),
        (abi::REAPED, size_of::<abi::DomainTarget>()),
        (abi::LEND, size_of::<abi::Lend>()),
    ];
    for (command, bytes) in commands {
        let bytes = bytes as u64;
        for wrong in [0, bytes - 1, bytes + 1, bytes + 8, u64::MAX] {
            if raw::at(command, good, wrong) != Err(Errno::EINVAL) {
                verdict::fail("c5-wrong-size", format_args!("command {command}, {wrong} bytes"));
            }
        }
        for pointer in [0, 0x18_0000_0000, 0x7fff_ffff_effc, 0x8000_0000_0000, 0xffff_8000_0000_1000, u64::MAX - 3] {
            if raw::at(command, pointer, bytes) != Err(Errno::EFAULT) {
                verdict::fail("m1-bad-pointer", format_args!("command {command} at {pointer:#x}"));
            }
        }
    }
    verdict::pass("sizes-and-pointers-tried");
    equal("no-structure-for-version", raw::at(abi::VERSION_QUERY, good, 8), Err(Errno::EINVAL));

    // Who cannot be told must not have changed anything.
    let read_only = READ_ONLY.as_ptr() as u64;
    let create = raw::at(abi::CREATE_DOMAIN, read_only, size_of::<abi::CreateDomain>() as u64);
    equal("c5-create-that-cannot-answer", create, Err(Errno::EFAULT));
    let id = empty(VICTIM);
    for (command, bytes) in [
        (abi::POPULATE, size_of::<abi::Populate>()),
        (abi::DOMAIN_INFO, size_of::<abi::DomainInfo>()),
        (abi::DEVICE_INFO, size_of::<abi::DeviceInfo>()),
        (abi::MACHINE_INFO, size_of::<abi::MachineInfo>()),
        (abi::GRANT_INFO, size_of::<abi::GrantInfo>()),
    ] {
        equal("c5-answer-into-read-only", raw::at(command, START_INFO, bytes as u64), Err(Errno::EFAULT));
        equal("c5-answer-into-read-only", raw::at(command, read_only, bytes as u64), Err(Errno::EFAULT));
    }
    finish(id);
}

fn commands_of_others() {
    for command in [abi::DEVICE_DESCRIBE, abi::CONFIG_READ, abi::CONFIG_WRITE, abi::READ_LOG] {
        equal("c1-not-the-policy-domains", raw::at(command, START_INFO, 8), Err(Errno::EPERM));
    }
    for command in [17, 31, 35, 47, 49, 1 << 32, 1 << 32 | abi::POWER, u64::MAX] {
        equal("unknown-command", raw::at(command, START_INFO, 8), Err(Errno::ENOSYS));
    }
    equal("unknown-power-action", platform::power(77, 0), Err(Errno::EINVAL));
    let id = running(VICTIM, SLEEPS);
    let label = platform::domain_info(id.0.into()).map_or(LABELS, |info| info.label);
    equal("still-served", label, VICTIM);
    finish(id);
}
