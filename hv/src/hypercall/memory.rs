//! `memory_op` (Xen public `memory.h`), for domains whose addresses are translated: placing the pages that the
//! hypervisor shares, and giving pages back.

use super::{Call, Errno, Outcome, system};
use hv_core::{domain, ids::Gfn};
use xen_abi::memory as abi;

pub fn serve(call: &Call) -> Outcome {
    match call.command() {
        abi::XENMEM_ADD_TO_PHYSMAP => call.input(|op| add_to_physmap(call, op)),
        abi::XENMEM_REMOVE_FROM_PHYSMAP => call.input(|op: abi::XenRemoveFromPhysmap| {
            call.must_be_own(op.domid)?;
            let env = system().env();
            env.domains.with(call.caller, |domain| domain::remove_page(&env, domain, Gfn(op.gpfn)))?
        }),
        _ => Err(Errno::ENOSYS),
    }
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
