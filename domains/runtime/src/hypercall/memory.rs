//! `memory_op`: placing shared info and grant table frames, and getting memory of the own share that is not there yet.

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

/// Frame numbers that one call names.
const EXTENTS: usize = 32;

/// Gets zeroed pages from `gfn` on, `count` of them, out of what the policy gives this domain, to be read and written.
/// Tells how many there are now: fewer when it has all of it, or something is mapped there.
pub(crate) fn populate(gfn: u64, count: u64) -> u64 {
    let mut done = 0;
    while done < count {
        let extents: [u64; EXTENTS] = core::array::from_fn(|index| gfn + done + index as u64);
        let wanted = (count - done).min(EXTENTS as u64);
        let mut structure = abi::XenMemoryReservation {
            extent_start: extents.as_ptr() as u64,
            nr_extents: wanted,
            domid: DOMID_SELF,
            ..Default::default()
        };
        // SAFETY: the list of numbers is only read; vacant pages become memory, which changes nothing that exists.
        let got = unsafe { super::with(HYPERVISOR_MEMORY_OP, abi::XENMEM_POPULATE_PHYSMAP, &mut structure) };
        let got = got.unwrap_or(0).min(wanted);
        done += got;
        if got < wanted {
            break;
        }
    }
    done
}
