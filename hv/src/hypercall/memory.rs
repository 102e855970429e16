//! `memory_op` (Xen public `memory.h`), for domains whose addresses are translated: placing the pages that the
//! hypervisor shares, and giving memory back and taking it again within the label's limit.

use super::{Answer, Call, OK, Outcome};
use crate::system::system;
use hv_core::domain::{self, Domain};
use hv_core::error::Errno;
use hv_core::ids::{DomId, Gfn, Gpa};
use hv_core::space::Rights;
use xen_abi::memory as abi;

/// Pages dealt with before others get a chance.
const SLICE: u32 = 64;

#[inline(never)]
pub fn serve(call: &Call) -> Outcome {
    match call.command() {
        abi::XENMEM_ADD_TO_PHYSMAP => add_to_physmap(call),
        abi::XENMEM_REMOVE_FROM_PHYSMAP => {
            let op: abi::XenRemoveFromPhysmap = call.read(call.structure())?;
            own(call, op.domid)?;
            let env = call.env();
            env.domains.with(call.caller, |domain| domain::remove_page(&env, domain, Gfn(op.gpfn)))??;
            OK
        }
        abi::XENMEM_POPULATE_PHYSMAP => {
            reservation(call, |call, domain, gfn| domain::populate(&call.env(), domain, gfn, Rights::ReadWrite))
        }
        abi::XENMEM_DECREASE_RESERVATION => {
            reservation(call, |call, domain, gfn| domain::release_page(&call.env(), domain, gfn))
        }
        abi::XENMEM_CURRENT_RESERVATION => pages(call, |domain| domain.account.pages),
        abi::XENMEM_MAXIMUM_RESERVATION => pages(call, |domain| domain.account.pages_max),
        _ => Err(Errno::ENOSYS),
    }
}

/// Only the caller itself: nobody else's memory is its business.
fn own(call: &Call, domid: u16) -> Result<(), Errno> {
    if DomId(domid).or_self(call.caller) == call.caller { Ok(()) } else { Err(Errno::EPERM) }
}

fn add_to_physmap(call: &Call) -> Outcome {
    let op: abi::XenAddToPhysmap = call.read(call.structure())?;
    own(call, op.domid)?;
    let env = call.env();
    match op.space {
        abi::XENMAPSPACE_SHARED_INFO if op.idx == 0 => {
            env.domains.with(call.caller, |domain| domain::add_shared_info(&env, domain, Gfn(op.gpfn)))??;
        }
        abi::XENMAPSPACE_GRANT_TABLE => {
            // Status frames (XENMAPIDX_GRANT_TABLE_STATUS) belong to version 2: their index is out of range.
            let index = u32::try_from(op.idx).map_err(|_| Errno::EINVAL)?;
            domain::add_grant_frame(&env, call.caller, index, Gfn(op.gpfn))?;
        }
        abi::XENMAPSPACE_SHARED_INFO => return Err(Errno::EINVAL),
        _ => return Err(Errno::ENOSYS),
    }
    OK
}

/// Goes through a list of single pages. The result is how many were done; the first failure ends the call.
fn reservation(call: &Call, mut act: impl FnMut(&Call, &mut Domain, Gfn) -> Result<(), Errno>) -> Outcome {
    let op: abi::XenMemoryReservation = call.read(call.structure())?;
    own(call, op.domid)?;
    let count = u32::try_from(op.nr_extents).map_err(|_| Errno::EINVAL)?;
    if op.extent_order != 0 {
        return Err(Errno::EINVAL);
    }
    let first = call.progress()?;
    let end = count.min(first.saturating_add(SLICE));
    for index in first..end {
        let at = op.extent_start.checked_add(u64::from(index) * 8).ok_or(Errno::EFAULT)?;
        let gfn: u64 = call.read(Gpa(at))?;
        let done = system().domains.with(call.caller, |domain| act(call, domain, Gfn(gfn)))?;
        if done.is_err() {
            return Ok(Answer::Done(u64::from(index)));
        }
    }
    if end < count {
        call.keep_progress(end)?;
        return Ok(Answer::Again);
    }
    Ok(Answer::Done(u64::from(count)))
}

fn pages(call: &Call, count: impl FnOnce(&Domain) -> u64) -> Outcome {
    let op: abi::XenMemoryDomain = call.read(call.structure())?;
    own(call, op.domid)?;
    Ok(Answer::Done(system().domains.with(call.caller, |domain| count(domain))?))
}
