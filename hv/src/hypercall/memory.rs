//! `memory_op` (Xen public `memory.h`), for domains whose addresses are translated: placing the pages that the
//! hypervisor shares, getting pages and giving them back.

use super::{Call, Errno, Gpa, Outcome, system, user};
use hv_core::{domain, ids::Gfn, space::Rights};
use xen_abi::memory as abi;

pub fn serve(call: &Call) -> Outcome {
    match call.command() {
        abi::XENMEM_ADD_TO_PHYSMAP => call.input(|op| add_to_physmap(call, op)),
        abi::XENMEM_REMOVE_FROM_PHYSMAP => call.input(|op: abi::XenRemoveFromPhysmap| {
            call.must_be_own(op.domid)?;
            let env = system().env();
            env.domains.with(call.caller, |domain| domain::remove_page(&env, domain, Gfn(op.gpfn)))?
        }),
        abi::XENMEM_DECREASE_RESERVATION | abi::XENMEM_POPULATE_PHYSMAP => reservation(call),
        abi::XENMEM_CURRENT_RESERVATION => account(call, |account| account.pages),
        abi::XENMEM_MAXIMUM_RESERVATION => account(call, |account| account.pages_max),
        _ => Err(Errno::ENOSYS),
    }
}

/// Extents of a reservation that are changed before others get a chance.
const EXTENTS_PER_SLICE: u32 = 64;

/// Pages given back, or got within what the policy allows: a balloon, or a heap that grows. Tells how many were.
fn reservation(call: &Call) -> Outcome {
    let op: abi::XenMemoryReservation = user::read(call.structure())?;
    call.must_be_own(op.domid)?;
    let count = u32::try_from(op.nr_extents).map_err(|_| Errno::E2BIG)?;
    if op.extent_order != 0 {
        return Err(Errno::EINVAL);
    }
    let (first, env) = (call.progress()?, system().env());
    let end = count.min(first.saturating_add(EXTENTS_PER_SLICE));
    for index in first..end {
        let change = || {
            let at = op.extent_start.checked_add(u64::from(index) * 8).ok_or(Errno::EFAULT)?;
            let gfn = Gfn(user::read(Gpa(at))?);
            env.domains.with(call.caller, |domain| match (call.command(), domain.is_native()) {
                (abi::XENMEM_DECREASE_RESERVATION, _) => domain::remove_page(&env, domain, gfn),
                (_, true) => domain::populate(&env, domain, gfn, Rights::ReadWrite),
                (_, false) => domain::populate(&env, domain, gfn, Rights::All),
            })?
        };
        if change().is_err() {
            return Ok(index.into());
        }
    }
    if end < count { call.again(end) } else { Ok(count.into()) }
}

fn account(call: &Call, pages: impl FnOnce(&domain::Account) -> u64) -> Outcome {
    let op: abi::XenMemoryDomain = user::read(call.structure())?;
    call.must_be_own(op.domid)?;
    system().domains.with(call.caller, |domain| pages(&domain.account))
}

fn add_to_physmap(call: &Call, op: abi::XenAddToPhysmap) -> Result<(), Errno> {
    call.must_be_own(op.domid)?;
    let env = system().env();
    match op.space {
        abi::XENMAPSPACE_SHARED_INFO if op.idx == 0 => {
            env.domains.with(call.caller, |domain| domain::add_shared_info(&env, domain, Gfn(op.gpfn)))?
        }
        abi::XENMAPSPACE_GRANT_TABLE => {
            // Status frames (XENMAPIDX_GRANT_TABLE_STATUS) belong to version 2: their index is out of range.
            let index = u32::try_from(op.idx).map_err(|_| Errno::EINVAL)?;
            domain::add_grant_frame(&env, call.caller, index, Gfn(op.gpfn))
        }
        abi::XENMAPSPACE_SHARED_INFO => Err(Errno::EINVAL),
        _ => Err(Errno::ENOSYS),
    }
}
