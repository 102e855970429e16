//! `memory_op` (Xen public `memory.h`), for domains whose addresses are translated: placing the pages that the
//! hypervisor shares, and giving pages back.

use super::{Call, OK, Outcome};
use hv_core::domain;
use hv_core::error::Errno;
use hv_core::ids::{DomId, Gfn};
use xen_abi::memory as abi;

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
