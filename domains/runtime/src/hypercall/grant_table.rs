//! `grant_table_op`. The modules of [`crate::grant`] are its users.

use xen_abi::grant_table as abi;
use xen_abi::xen::{DOMID_SELF, HYPERVISOR_GRANT_TABLE_OP};

use crate::errno::Result;

/// Runs one sub-operation over an array of structures. Each has a status of its own (`GNTST_*`); an error of the call
/// as a whole means that some were not looked at.
///
/// # Safety
///
/// Map: the addresses are unoccupied. Unmap: nothing refers to the pages. Copy: the destinations in this domain are
/// borrowed exclusively.
unsafe fn op<T>(command: u64, structures: &mut [T]) -> Result<()> {
    // SAFETY: the array is borrowed exclusively; the rest is the caller's promise.
    unsafe {
        super::call(HYPERVISOR_GRANT_TABLE_OP, [command, structures.as_mut_ptr() as u64, structures.len() as u64, 0, 0])
    }
    .map(drop)
}

/// Maps grants of other domains.
///
/// # Safety
///
/// Every `host_addr` is a page-aligned address at which nothing is mapped.
pub unsafe fn map(structures: &mut [abi::GnttabMapGrantRef]) -> Result<()> {
    // SAFETY: the caller's promise.
    unsafe { op(abi::GNTTABOP_MAP_GRANT_REF, structures) }
}

/// Unmaps them.
///
/// # Safety
///
/// Nothing uses the mapped pages any more.
pub unsafe fn unmap(structures: &mut [abi::GnttabUnmapGrantRef]) -> Result<()> {
    // SAFETY: the caller's promise.
    unsafe { op(abi::GNTTABOP_UNMAP_GRANT_REF, structures) }
}

/// Copies between own memory and others' grants.
///
/// # Safety
///
/// Destinations in this domain are borrowed exclusively or shared memory; sources are readable.
pub unsafe fn copy(structures: &mut [abi::GnttabCopy]) -> Result<()> {
    // SAFETY: the caller's promise.
    unsafe { op(abi::GNTTABOP_COPY, structures) }
}

/// Frames that the own grant table has, and may have.
pub fn query_size() -> Result<(u32, u32)> {
    let mut structure = [abi::GnttabQuerySize { dom: DOMID_SELF, ..Default::default() }];
    // SAFETY: touches the structure only.
    unsafe { op(abi::GNTTABOP_QUERY_SIZE, &mut structure) }?;
    Ok((structure[0].nr_frames, structure[0].max_nr_frames))
}
