//! Domains made, sealed, paused: native ones here, what guests need beside in `vm`.

use super::{schedule, vcpus};
use crate::{cpu::percpu, iommu, mm, pci, system::system, time, traps::Frame, vm};
use core::mem::offset_of;
use hv_core::authority::table::{FLAG_DRIVER, KIND_NATIVE};
use hv_core::domain::{self, Domain, VCPUS_MAX, Wait, Wake};
use hv_core::ids::{DomId, Hpa, Label};
use hv_core::{error::Errno, machine::MachineMemory, sched::VcpuKey, space::Rights};
use xen_abi::platform::{RIGHTS_ALL, RIGHTS_EXECUTE, RIGHTS_READ, RIGHTS_WRITE};
use xen_abi::{native::ADDRESS_LIMIT, xen::VcpuInfo};
use zerocopy::IntoBytes;

/// Makes an empty domain for a label, with the id of its predecessor if one is named.
///
/// # Errors
/// As `hv_core::domain::create`; `ENOSYS`: the label's kind needs what the CPU has not.
pub fn create(label: Label, predecessor: Option<DomId>) -> Result<DomId, Errno> {
    let system = system();
    let entry = system.policy.domain(label).ok_or(Errno::EINVAL)?;
    let format = if entry.flags & FLAG_DRIVER != 0 { iommu::table_format() } else { None };
    let id = domain::create(&system.env(), label, predecessor, format)?;
    let (slot, root) = system.domains.with(id, |domain| {
        domain.space.allow_tables(pci::tables_of(label));
        for vcpu in domain.vcpu_ids() {
            // It never changes, so this is all there is to keep right, and its version stays even.
            let clock = Hpa(domain.events.shared.vcpu_info(vcpu).0 + offset_of!(VcpuInfo, time) as u64);
            system.machine.write(clock, time::scale().clock.as_bytes());
        }
        time::wallclock::tell(domain.events.shared.frame(), &system.machine);
        (domain.slot(), domain.space.cpu_root())
    })?;
    let hypervisor_root = Hpa(mm::hypervisor_root().as_u64()).mfn();
    system.machine.copy(hypervisor_root.at(mm::UPPER_HALF as u64), root.at(mm::UPPER_HALF as u64), mm::UPPER_HALF);
    vcpus::occupy(slot, id, root.base());
    let machine = if entry.kind == KIND_NATIVE {
        vcpus::set_ports(slot, system.policy.io_ports(label)).map_err(Errno::from)
    } else {
        system.domains.with(id, |domain| vm::create(domain, entry.vcpus))?
    };
    machine.map(|()| id).or_else(|error| {
        super::end(id, domain::Death::new(0, format_args!("no hardware or memory for its vCPUs")))?;
        Err(error)
    })
}

/// Sets the first instruction, stack and argument of a domain that is being built.
///
/// # Errors
/// `EINVAL`: an address that no domain can have. `EPERM`: it is not being built. `ESRCH`.
pub fn set_entry(id: DomId, rip: u64, rsp: u64, argument: u64) -> Result<(), Errno> {
    if rip == 0 || rip >= ADDRESS_LIMIT || rsp > ADDRESS_LIMIT {
        return Err(Errno::EINVAL);
    }
    with_building(id, |domain| {
        let slot = domain.slot();
        vcpus::set_frame(slot, if domain.is_native() { Frame::start(rip, rsp, argument) } else { Frame::guest() });
        vm::set_entry(slot, rip, argument);
        Ok(())
    })
}

/// Rights as `platform_op` POPULATE numbers them.
///
/// # Errors
/// `EINVAL`: no such number.
pub fn rights(number: u32) -> Result<Rights, Errno> {
    match number {
        RIGHTS_READ => Ok(Rights::Read),
        RIGHTS_WRITE => Ok(Rights::ReadWrite),
        RIGHTS_EXECUTE => Ok(Rights::ReadExecute),
        RIGHTS_ALL => Ok(Rights::All),
        _ => Err(Errno::EINVAL),
    }
}

/// Acts on a domain that is being built.
///
/// # Errors
/// `EPERM`: it is not. `ESRCH`. Else as `act`.
pub fn with_building(id: DomId, act: impl FnOnce(&mut Domain) -> Result<(), Errno>) -> Result<(), Errno> {
    system().domains.with(id, |domain| if domain.is_building() { act(domain) } else { Err(Errno::EPERM) })?
}

/// Seals a domain that is being built and lets it run, or resumes a paused one.
///
/// # Errors
/// `EINVAL`: it runs, is dying, or has no entry point. `ESRCH`.
pub fn unpause(id: DomId) -> Result<(), Errno> {
    let system = system();
    let (slot, label, runs) = system.domains.with(id, |domain| {
        if !vcpus::has_entry(domain.slot()) {
            return Err(Errno::EINVAL);
        }
        domain.unpause()?;
        let ids = domain.vcpu_ids();
        let runs = |vcpu| (vcpu, domain.vcpu(vcpu).is_some_and(|vcpu| vcpu.wait == Wait::No));
        let runs: heapless::Vec<_, VCPUS_MAX> = ids.map(runs).collect();
        Ok((domain.slot(), domain.label(), runs))
    })??;
    let entry = system.policy.domain(label).ok_or(Errno::EINVAL)?;
    for (vcpu, runs) in runs {
        let key = VcpuKey::new(slot, vcpu);
        percpu::with(|cpu| cpu.queue.add(key, entry.weight, entry.cap));
        schedule::wake(runs.then_some(Wake(key)));
    }
    Ok(())
}

/// Stops scheduling a running domain.
///
/// # Errors
/// `EINVAL`: it does not run. `ESRCH`.
pub fn pause(id: DomId) -> Result<(), Errno> {
    let slot = system().domains.with(id, |domain| domain.pause().map(|()| domain.slot()))??;
    schedule::dismiss(slot);
    Ok(())
}
