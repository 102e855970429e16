//! `GNTTABOP_unmap_grant_ref`, and the undoing of all of a dying domain's mappings.
//!
//! In this order: the page tables forget the page, the translation caches forget it, the grantor sees the entry unused,
//! the pin goes. [`begin_unmap`] and [`finish_unmap`] are apart so that a batch can flush once.

use xen_abi::grant_table::GnttabUnmapGrantRef;

use super::Status;
use super::tracking::Mapping;
use crate::domain::{Domain, Env};
use crate::error::Errno;
use crate::ids::{DomId, Gpa, Handle};
use crate::machine::Machine;
use crate::space::{Flushed, Progress, Unmapped};

/// A mapping whose page table entries are gone, and which is still counted.
#[derive(Debug)]
#[must_use = "the grantor still sees its page in use"]
pub struct PendingUnmap {
    mapping: Mapping,
    unmapped: Unmapped,
}

impl PendingUnmap {
    /// Flushes the page from the translation caches.
    #[inline]
    pub fn flush(self, machine: &impl Machine) -> FlushedUnmap {
        let flushed = self.unmapped.flush(machine);
        FlushedUnmap { mapping: self.mapping, flushed }
    }
}

/// A mapping that nobody can use any more.
#[derive(Debug)]
#[must_use = "the grantor still sees its page in use"]
pub struct FlushedUnmap {
    mapping: Mapping,
    flushed: Flushed,
}

/// Undoes one mapping of the caller. `op` is the guest's structure, copied in once.
///
/// # Errors
/// [`Status`]; nothing changed.
#[inline]
pub fn unmap<M: Machine>(env: &Env<'_, M>, caller: DomId, op: &GnttabUnmapGrantRef) -> Result<(), Status> {
    let pending = env.domains.with(caller, |mapper| begin_unmap(env, mapper, op)).map_err(|_| Status::BadDomain)??;
    finish_unmap(env, pending.flush(env.machine));
    Ok(())
}

/// First half: the handle is void and the page unmapped.
///
/// # Errors
/// [`Status::BadHandle`], [`Status::BadVirtAddr`], [`Status::BadDevAddr`]; nothing changed.
#[inline]
pub fn begin_unmap<M: Machine>(
    env: &Env<'_, M>,
    mapper: &mut Domain,
    op: &GnttabUnmapGrantRef,
) -> Result<PendingUnmap, Status> {
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

#[inline]
fn take<M: Machine>(
    env: &Env<'_, M>,
    mapper: &mut Domain,
    handle: Handle,
    mapping: Mapping,
) -> Result<PendingUnmap, Status> {
    // The page is there: nothing but this function takes a foreign page out of a space.
    let unmapped = mapper.space.unmap(mapping.gfn, env.machine).map_err(|_| Status::GeneralError)?;
    mapper.grants.tracking.free(handle);
    Ok(PendingUnmap { mapping, unmapped })
}

/// Second half: the grantor, if it still exists, sees its entry unused; the pin goes. No domain may be locked.
#[inline]
pub fn finish_unmap<M: Machine>(env: &Env<'_, M>, unmapped: FlushedUnmap) {
    let FlushedUnmap { mapping, flushed } = unmapped;
    debug_assert_eq!(flushed.into_page().mfn, mapping.mfn, "another page was at the mapping's place");
    let released = env.domains.with(mapping.grantor, |grantor| {
        let same = grantor.serial() == mapping.serial && !grantor.is_dying_without_grants();
        if same {
            grantor.release(env, mapping.gref, mapping.access, mapping.mfn);
        }
        same
    });
    if released != Ok(true) {
        // The grantor is gone: the pin is all that is left of the grant.
        let unpinned = env.frames.unpin(mapping.mfn);
        debug_assert!(unpinned.is_ok(), "a mapping had no pin");
    }
}

/// Undoes mappings of a dying domain, looking at up to `entries` of its handles from `*next` on.
///
/// # Errors
/// `ESRCH`: no such domain.
pub fn unmap_slice<M: Machine>(env: &Env<'_, M>, dom: DomId, next: &mut u32, entries: u32) -> Result<Progress, Errno> {
    for _ in 0..entries {
        let index = *next;
        let found = env.domains.with(dom, |mapper| {
            if index >= mapper.grants.tracking.len() {
                return None;
            }
            let handle = mapper.grants.tracking.handle_at(index);
            let mapping = handle.and_then(|handle| Some((handle, mapper.grants.tracking.get(handle)?)));
            Some(mapping.and_then(|(handle, mapping)| take(env, mapper, handle, mapping).ok()))
        })?;
        let Some(pending) = found else {
            return Ok(Progress::Done);
        };
        if let Some(pending) = pending {
            finish_unmap(env, pending.flush(env.machine));
        }
        *next = index.wrapping_add(1);
    }
    Ok(Progress::More)
}

impl Domain {
    /// Whether the domain's entries were dropped with its table: its grants are then pins only.
    fn is_dying_without_grants(&self) -> bool {
        self.is_dying() && self.grants.entries() == 0
    }
}
