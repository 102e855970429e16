//! `GNTTABOP_unmap_grant_ref`, and the undoing of all of a dying domain's mappings.
//!
//! In this order: the page tables forget the page, the translation caches forget it, the grantor sees the entry unused,
//! the pin goes.

use xen_abi::grant_table::GnttabUnmapGrantRef;

use super::Status;
use super::active::end_use;
use super::tracking::Mapping;
use crate::domain::{Domain, Env};
use crate::error::Errno;
use crate::ids::{DomId, Gpa, Handle};
use crate::machine::Machine;
use crate::space::{Flushed, Progress, Unmapped};

/// Undoes one mapping of the caller. `op` is the guest's structure, copied in once.
///
/// # Errors
/// [`Status`]; nothing changed.
#[inline(always)]
pub fn unmap<M: Machine>(env: &Env<'_, M>, caller: DomId, op: &GnttabUnmapGrantRef) -> Result<(), Status> {
    let (mapping, unmapped) = env.domains.with(caller, |mapper| begin(env, mapper, op))??;
    finish(env, mapping, unmapped.flush(env.machine));
    Ok(())
}

/// First half: the handle is void and the page unmapped; the grantor still sees it in use.
#[inline(always)]
pub(super) fn begin<M: Machine>(
    env: &Env<'_, M>,
    mapper: &mut Domain,
    op: &GnttabUnmapGrantRef,
) -> Result<(Mapping, Unmapped), Status> {
    let handle = Handle(op.handle);
    let mapping = mapper.grants.tracking.get(handle).ok_or(Status::BadHandle)?;
    if mapping.gfn.base() != Gpa(op.host_addr) {
        return Err(Status::BadVirtAddr);
    }
    if op.dev_bus_addr != 0 && op.dev_bus_addr != op.host_addr {
        return Err(Status::BadDevAddr);
    }
    take(env, mapper, handle, mapping)
}

#[inline(always)]
fn take<M: Machine>(
    env: &Env<'_, M>,
    mapper: &mut Domain,
    handle: Handle,
    mapping: Mapping,
) -> Result<(Mapping, Unmapped), Status> {
    // The page is there: nothing but this function takes a foreign page out of a space.
    let unmapped = mapper.space.unmap(mapping.gfn, env.machine)?;
    mapper.grants.tracking.free(handle);
    Ok((mapping, unmapped))
}

/// Second half: nobody can reach the page any more, and the use ends. No domain may be locked.
#[inline(always)]
pub(super) fn finish<M: Machine>(env: &Env<'_, M>, mapping: Mapping, flushed: Flushed) {
    debug_assert_eq!(flushed.into_page().mfn, mapping.grant.mfn, "another page was at the mapping's place");
    end_use(env, mapping.grant);
}

/// Undoes mappings of a dying domain, looking at up to `entries` of its handles from `*next` on.
///
/// # Errors
/// `ESRCH`: no such domain.
pub fn unmap_slice<M: Machine>(env: &Env<'_, M>, dom: DomId, next: &mut u32, entries: u32) -> Result<Progress, Errno> {
    for _ in 0..entries {
        let index = *next;
        let taken = env.domains.with(dom, |mapper| {
            let found = mapper.grants.tracking.at(index);
            let taken = found.and_then(|(handle, mapping)| take(env, mapper, handle, mapping).ok());
            (index < mapper.grants.tracking.len()).then_some(taken)
        })?;
        match taken {
            None => return Ok(Progress::Done),
            Some(None) => {}
            Some(Some((mapping, unmapped))) => finish(env, mapping, unmapped.flush(env.machine)),
        }
        *next = index.wrapping_add(1);
    }
    Ok(Progress::More)
}
