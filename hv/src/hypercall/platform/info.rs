//! Facts for the policy domain's shell.

use super::{Call, Outcome, domid, in_out, output};
use crate::system::system;
use crate::{iommu, pci, time};
use hv_core::domain::{Domain, Life};
use hv_core::error::Errno;
use hv_core::ids::{DomId, GrantRef};
use xen_abi::platform as abi;

pub fn domain(call: &Call) -> Outcome {
    let mut op: abi::DomainInfo = in_out(call)?;
    let from = domid(op.domid).map_err(|_| Errno::ENOENT)?;
    let id = system().domains.next(from).ok_or(Errno::ENOENT)?;
    // It may have gone since; then the caller asks again.
    system().domains.with(id, |domain| describe(id, domain, &mut op)).map_err(|_| Errno::EAGAIN)?;
    output(call, &op)
}

fn describe(id: DomId, domain: &mut Domain, info: &mut abi::DomainInfo) {
    let account = domain.account;
    let (cpu_ns, hypercalls) = crate::domain::usage(domain.slot());
    *info = abi::DomainInfo {
        domid: u32::from(id.0),
        label: u32::from(domain.label().0),
        state: match domain.life() {
            Life::Building => abi::STATE_BUILDING,
            Life::Running => abi::STATE_RUNNING,
            Life::Paused => abi::STATE_PAUSED,
            Life::Dying => abi::STATE_DYING,
        },
        reason: domain.death().reason,
        pages: account.pages,
        table_pages: u64::from(domain.space.tables()),
        cpu_ns,
        hypercalls,
        events_sent: account.events_sent,
        grants_mapped: u64::from(domain.grants.mapped()),
        ports: domain.events.in_use(),
        devices: account.devices,
        why: [0; 128],
    };
    for (to, from) in info.why.iter_mut().zip(domain.death().why.bytes()) {
        *to = from;
    }
}

pub fn device(call: &Call) -> Outcome {
    let op: abi::DeviceInfo = in_out(call)?;
    output(call, &pci::info(op.index)?)
}

pub fn grant(call: &Call) -> Outcome {
    let mut op: abi::GrantInfo = in_out(call)?;
    let system = system();
    let found = system.domains.with(domid(op.domid)?, |domain| {
        hv_core::grant::info(domain, GrantRef(op.gref), &system.machine)
    })?;
    let found = found.ok_or(Errno::ENOENT)?;
    op.gref = found.gref.0;
    op.gfn = found.gfn.0;
    op.peer = u32::from(found.peer.0);
    op.flags = u32::from(found.flags);
    op.mappings = found.mappings;
    op.reserved = 0;
    output(call, &op)
}

pub fn machine(call: &Call) -> Outcome {
    let _outputs_only: abi::MachineInfo = in_out(call)?;
    let frames = &system().frames;
    output(
        call,
        &abi::MachineInfo {
            frames_total: frames.total(),
            frames_free: frames.free(),
            frames_hypervisor: frames.hypervisor(),
            tsc_khz: time::khz(),
            boot_tsc: time::scale().boot_tsc,
            iommu: u32::from(iommu::available()),
            interrupt_remapping: u32::from(iommu::remaps_interrupts()),
            cpus: 1,
            reserved: 0,
        },
    )
}
