//! `memory_op`: placing shared info and grant table frames. All other memory is there from the start.

use xen_abi::memory as abi;
use xen_abi::xen::{DOMID_SELF, HYPERVISOR_MEMORY_OP};

use crate::errno::Result;

/// Places the shared info page.
///
/// # Safety
///
/// Nothing is mapped or referred to at `gfn`.
pub unsafe fn add_shared_info(gfn: u64) -> Result<()> {
    // SAFETY: the caller's promise.
    unsafe { add_to_physmap(abi::XENMAPSPACE_SHARED_INFO, 0, gfn) }
}

/// Places frame `index` of the own grant table, which grows to hold it.
///
/// # Safety
///
/// Nothing is mapped or referred to at `gfn`.
pub unsafe fn add_grant_frame(index: u64, gfn: u64) -> Result<()> {
    // SAFETY: the caller's promise.
    unsafe { add_to_physmap(abi::XENMAPSPACE_GRANT_TABLE, index, gfn) }
}

/// # Safety
///
/// Nothing is mapped or referred to at `gfn`.
unsafe fn add_to_physmap(space: u32, index: u64, gfn: u64) -> Result<()> {
    let mut structure = abi::XenAddToPhysmap { domid: DOMID_SELF, space, idx: index, gpfn: gfn, ..Default::default() };
    // SAFETY: the caller's promise.
    unsafe { super::with(HYPERVISOR_MEMORY_OP, abi::XENMEM_ADD_TO_PHYSMAP, &mut structure) }.map(drop)
}
