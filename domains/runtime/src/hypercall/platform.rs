//! `platform_op`: Bulkhead's own hypercall. Building domains is for the policy domain, devices for driver domains,
//! the log for the console domain; others get [`Errno::EPERM`](crate::errno::Errno).

use xen_abi::platform as abi;
pub use xen_abi::platform::{
    AssignDevice, ConfigAccess, CopyIn, CreateDomain, DeviceDescribe, DeviceInfo, DomainInfo, DomainTarget, GrantInfo,
    Lend, MachineInfo, Populate, Power, ReadLog, SeedGrant, SetEntry,
};
use zerocopy::FromZeros;

use crate::errno::{Errno, Result};
use crate::ids::{Access, DomId, GrantRef};

fn op<T>(command: u64, structure: &mut T) -> Result<()> {
    let address = core::ptr::from_mut(structure) as u64;
    // SAFETY: the structure is borrowed exclusively; of the commands made in this module none changes other memory of
    // the caller, but READ_LOG, whose buffer is borrowed exclusively too.
    unsafe { super::call(abi::HYPERCALL, [command, address, size_of::<T>() as u64, 0, 0]) }.map(drop)
}

fn target(command: u64, domain: DomId) -> Result<()> {
    op(command, &mut DomainTarget { domid: u32::from(domain.0), reserved: 0 })
}

/// The version of this interface.
pub fn version() -> Result<u64> {
    // SAFETY: no memory is involved.
    unsafe { super::call(abi::HYPERCALL, [abi::VERSION_QUERY, 0, 0, 0, 0]) }
}

/// Makes an empty domain for a label of the policy, with an id that names nobody yet.
pub fn create_domain(label: u32) -> Result<DomId> {
    create_as(label, 0)
}

/// Makes an empty domain with the id of its predecessor, the last domain of that label.
pub fn create_successor(label: u32, predecessor: DomId) -> Result<DomId> {
    create_as(label, predecessor.0.into())
}

fn create_as(label: u32, domid: u32) -> Result<DomId> {
    let mut structure = CreateDomain { label, domid };
    op(abi::CREATE_DOMAIN, &mut structure)?;
    DomId::from_u32(structure.domid).ok_or(Errno::EINVAL)
}

/// Gives `count` zeroed pages with `rights` (`RIGHTS_*`) to a domain that is being built, from `gfn` on. An error leaves the pages
/// before the failing one populated: destroy the domain.
pub fn populate(domain: DomId, gfn: u64, count: u64, rights: u32) -> Result<()> {
    let mut done = 0;
    while done < count {
        let mut structure =
            Populate { domid: u32::from(domain.0), rights, gfn: gfn + done, count: count - done, done: 0 };
        match op(abi::POPULATE, &mut structure) {
            Ok(()) => return Ok(()),
            Err(Errno::EAGAIN) => done += structure.done.min(count - done),
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Copies bytes into a domain that is being built, in as many calls as it takes.
pub fn copy_in(domain: DomId, gpa: u64, bytes: &[u8]) -> Result<()> {
    let mut gpa = gpa;
    for piece in bytes.chunks(abi::COPY_IN_MAX as usize) {
        op(
            abi::COPY_IN,
            &mut CopyIn {
                domid: u32::from(domain.0),
                reserved: 0,
                gpa,
                source: piece.as_ptr() as u64,
                bytes: piece.len() as u64,
            },
        )?;
        gpa += piece.len() as u64;
    }
    Ok(())
}

/// Shows `count` pages of the boot bundle, from number `page` on, to a domain that is being built, in as many calls as it takes.
pub fn lend(domain: DomId, gfn: u64, page: u64, count: u64, rights: u32) -> Result<()> {
    for done in (0..count).step_by(abi::LEND_MAX as usize) {
        let count = abi::LEND_MAX.min(count - done);
        op(abi::LEND, &mut Lend { domid: u32::from(domain.0), rights, gfn: gfn + done, page: page + done, count })?;
    }
    Ok(())
}

/// Writes a grant entry of a domain that is being built.
pub fn seed_grant(domain: DomId, reference: GrantRef, gfn: u64, peer: DomId, access: Access) -> Result<()> {
    op(
        abi::SEED_GRANT,
        &mut SeedGrant {
            domid: u32::from(domain.0),
            gref: reference.0,
            gfn,
            peer: u32::from(peer.0),
            read_only: u32::from(access == Access::ReadOnly),
        },
    )
}

/// Sets the first instruction, stack pointer and RDI of a domain that is being built.
pub fn set_entry(domain: DomId, rip: u64, rsp: u64, argument: u64) -> Result<()> {
    op(abi::SET_ENTRY, &mut SetEntry { domid: u32::from(domain.0), reserved: 0, rip, rsp, argument })
}

/// Gives a quarantined device to a domain that is being built.
pub fn assign_device(domain: DomId, bdf: u32) -> Result<()> {
    op(abi::ASSIGN_DEVICE, &mut AssignDevice { domid: u32::from(domain.0), bdf })
}

/// Seals a domain that is being built and lets it run, or resumes a paused one.
pub fn unpause(domain: DomId) -> Result<()> {
    target(abi::UNPAUSE, domain)
}

/// Stops scheduling a running domain.
pub fn pause(domain: DomId) -> Result<()> {
    target(abi::PAUSE, domain)
}

/// Destroys a domain in any state; `VIRQ_DOM_EXC` tells when all is returned.
pub fn destroy(domain: DomId) -> Result<()> {
    target(abi::DESTROY, domain)
}

/// Whether a dead domain has been returned in full: `Ok` gone, `EBUSY` still dying, `ESRCH` never existed.
pub fn reaped(domain: DomId) -> Result<()> {
    target(abi::REAPED, domain)
}

/// Facts of the first domain whose id is `from` or higher.
pub fn domain_info(from: u32) -> Result<DomainInfo> {
    let mut structure = DomainInfo { domid: from, ..DomainInfo::new_zeroed() };
    op(abi::DOMAIN_INFO, &mut structure)?;
    Ok(structure)
}

/// All domains there are.
pub fn domains() -> impl Iterator<Item = DomainInfo> {
    let mut next = Some(0);
    core::iter::from_fn(move || {
        let info = domain_info(next?).ok()?;
        next = info.domid.checked_add(1);
        Some(info)
    })
}

/// Facts of PCI function number `index`.
pub fn device_info(index: u32) -> Result<DeviceInfo> {
    let mut structure = DeviceInfo { index, ..Default::default() };
    op(abi::DEVICE_INFO, &mut structure)?;
    Ok(structure)
}

/// All PCI functions.
pub fn devices() -> impl Iterator<Item = DeviceInfo> {
    (0..).map_while(|index| device_info(index).ok())
}

/// The first grant of `domain`, at reference `from` or higher, that is active or mapped.
pub fn grant_info(domain: DomId, from: GrantRef) -> Result<GrantInfo> {
    let mut structure = GrantInfo { domid: u32::from(domain.0), gref: from.0, ..Default::default() };
    op(abi::GRANT_INFO, &mut structure)?;
    Ok(structure)
}

/// All grants of a domain that are active or mapped.
pub fn grants(domain: DomId) -> impl Iterator<Item = GrantInfo> {
    let mut next = Some(0);
    core::iter::from_fn(move || {
        let info = grant_info(domain, GrantRef(next?)).ok()?;
        next = info.gref.checked_add(1);
        Some(info)
    })
}

/// Facts of the machine.
pub fn machine_info() -> Result<MachineInfo> {
    let mut structure = MachineInfo::default();
    op(abi::MACHINE_INFO, &mut structure)?;
    Ok(structure)
}

/// Powers off, restarts, or leaves QEMU (`POWER_*`, with `code` for the last).
pub fn power(action: u32, code: u32) -> Result<()> {
    op(abi::POWER, &mut Power { action, code })
}

/// Facts of this domain's own device number `index`.
pub fn device_describe(index: u32) -> Result<DeviceDescribe> {
    let mut structure = DeviceDescribe { index, ..Default::default() };
    op(abi::DEVICE_DESCRIBE, &mut structure)?;
    Ok(structure)
}

/// Reads configuration space of an own device; `width` is 1, 2 or 4 bytes.
pub fn config_read(bdf: u32, offset: u32, width: u32) -> Result<u32> {
    let mut structure = ConfigAccess { bdf, offset, width, value: 0 };
    op(abi::CONFIG_READ, &mut structure)?;
    Ok(structure.value)
}

/// Writes configuration space of an own device, where the hypervisor lets it.
pub fn config_write(bdf: u32, offset: u32, width: u32, value: u32) -> Result<()> {
    op(abi::CONFIG_WRITE, &mut ConfigAccess { bdf, offset, width, value })
}

/// Takes text from the hypervisor's log: how many bytes of `buffer` were filled, 0 when there is no more.
pub fn read_log(buffer: &mut [u8]) -> Result<usize> {
    let mut structure = ReadLog { buffer: buffer.as_mut_ptr() as u64, bytes: buffer.len() as u64 };
    op(abi::READ_LOG, &mut structure)?;
    Ok((structure.bytes as usize).min(buffer.len()))
}
