//! Facts for the policy domain's shell.

use super::{DomId, Errno, abi, domid, system};
use crate::{cpu::percpu, domain, iommu, mm, time};
use core::sync::atomic::Ordering;
use hv_core::{domain::Domain, ids::GrantRef};

pub fn domain(op: &mut abi::DomainInfo) -> Result<(), Errno> {
    let from = domid(op.domid).map_err(|_| Errno::ENOENT)?;
    let id = system().domains.next(from).ok_or(Errno::ENOENT)?;
    // It may have gone since; then the caller asks again.
    system().domains.with(id, |domain| describe(id, domain, op)).map_err(|_| Errno::EAGAIN)
}

fn describe(id: DomId, domain: &mut Domain, info: &mut abi::DomainInfo) {
    let account = domain.account;
    let (ticks, hypercalls) = domain::usage(domain.slot());
    *info = abi::DomainInfo {
        domid: u32::from(id.0),
        label: u32::from(domain.label().0),
        state: domain.life() as u32,
        reason: domain.death().reason,
        pages: account.pages,
        table_pages: u64::from(domain.space.tables()),
        cpu_ns: time::nanos(ticks),
        hypercalls,
        events_sent: account.events_sent,
        grants_mapped: u64::from(domain.grants.mapped()),
        ports: domain.events.in_use(),
        devices: account.devices,
        why: [0; 128],
    };
    info.why.iter_mut().zip(domain.death().why.bytes()).for_each(|(to, from)| *to = from);
}

pub fn grant(op: &mut abi::GrantInfo) -> Result<(), Errno> {
    let info = |domain: &mut Domain| hv_core::grant::info(domain, GrantRef(op.gref), &system().machine);
    *op = system().domains.with(domid(op.domid)?, info)?.ok_or(Errno::ENOENT)?;
    Ok(())
}

pub fn machine(op: &mut abi::MachineInfo) -> Result<(), Errno> {
    let frames = mm::frames();
    *op = abi::MachineInfo {
        frames_total: frames.total(),
        frames_free: frames.free(),
        frames_hypervisor: frames.hypervisor(),
        tsc_khz: time::scale().khz,
        boot_tsc: time::ENTERED.load(Ordering::Relaxed),
        policy_tsc: time::STARTED.load(Ordering::Relaxed),
        idle_ticks: percpu::with(|cpu| cpu.idle_ticks),
        iommu: u32::from(iommu::available()),
        interrupt_remapping: u32::from(iommu::remaps_interrupts()),
        cpus: 1,
        reserved: 0,
    };
    Ok(())
}
