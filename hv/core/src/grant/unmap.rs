//! `GNTTABOP_unmap_grant_ref`, and the undoing of all of a dying domain's mappings.
//!
//! In this order: the page tables forget the page, the translation caches forget it, the grantor sees the entry unused,
//! the pin goes.

use xen_abi::grant_table::{GNTST_OKAY, GnttabUnmapGrantRef};

use super::Status;
use super::active::{Use, end_use, end_uses};
use super::tracking::Entry;
use crate::domain::{Domain, Env};
use crate::ids::{DomId, Gfn, Gpa, Handle};
use crate::space::{Progress, RUN_MAX, Unmapped, UnmappedRun};
use crate::{error::Errno, machine::Machine};

/// Undoes one mapping of the caller in the usual case. `op` is the guest's structure, copied in once; its status is set.
/// `None`: it is another case, or refused; nothing changed.
#[inline(always)]
pub fn unmap_near<M: Machine>(env: &Env<'_, M>, caller: DomId, op: &mut GnttabUnmapGrantRef) -> Option<()> {
    // Taken past the result of locking: in one with an error, it would be copied around in pieces.
    let mut taken = None;
    let _gone = env.domains.with(caller, |mapper| taken = take_near(env, mapper, op));
    let (grant, page) = taken?;
    op.status = GNTST_OKAY;
    let _flushed = page.flush(env.machine);
    end_use(env, &grant);
    Some(())
}

/// Takes a mapping out in the usual case: it is where the tables that are remembered show it. `None`: it is not so, or
/// refused; nothing changed.
#[inline(always)]
fn take_near<M: Machine>(env: &Env<'_, M>, mapper: &mut Domain, op: &GnttabUnmapGrantRef) -> Option<(Use, Unmapped)> {
    let found = mapper.grants.tracking.find(Handle(op.handle))?;
    let Entry { grant, gfn, .. } = *found.entry;
    if gfn.base() != Gpa(op.host_addr) || op.dev_bus_addr != 0 {
        return None;
    }
    let page = mapper.space.unmap_near(gfn, env.machine)?;
    found.free();
    Some((grant, page))
}

/// The same in any case; `check` says whether it is to go.
///
/// # Errors
/// [`Status`]; nothing changed.
fn take<M: Machine>(
    env: &Env<'_, M>,
    mapper: &mut Domain,
    handle: Handle,
    check: impl FnOnce(Gfn) -> Result<(), Status>,
) -> Result<(Use, Unmapped), Status> {
    let found = mapper.grants.tracking.find(handle).ok_or(Status::BadHandle)?;
    let Entry { grant, gfn, .. } = *found.entry;
    check(gfn)?;
    let page = mapper.space.unmap(gfn, env.machine)?;
    found.free();
    Ok((grant, page))
}

/// Undoes mappings of the caller. `ops` are the guest's structures, copied in once; their statuses are set.
pub fn unmap<M: Machine>(env: &Env<'_, M>, caller: DomId, ops: &mut [GnttabUnmapGrantRef]) {
    for ops in ops.chunks_mut(RUN_MAX) {
        let mut run = UnmappedRun::new(caller);
        if let Err(error) = env.domains.with(caller, |mapper| begin(env, mapper, ops, &mut run)) {
            ops.iter_mut().for_each(|op| op.status = Status::from(error) as i16);
        }
        end_uses(env, run.flush(env.machine).what());
    }
}

/// First half: the handles are void and the pages unmapped; the grantors still see them in use.
#[inline(always)]
pub(super) fn begin<M: Machine>(
    env: &Env<'_, M>,
    mapper: &mut Domain,
    ops: &mut [GnttabUnmapGrantRef],
    run: &mut UnmappedRun<Use>,
) {
    for op in ops {
        if let Some((grant, page)) = take_near(env, mapper, op) {
            op.status = GNTST_OKAY;
            run.add(page, grant, env.machine);
        } else {
            begin_exactly(env, mapper, op, run);
        }
    }
}

#[cold]
fn begin_exactly<M: Machine>(
    env: &Env<'_, M>,
    mapper: &mut Domain,
    op: &mut GnttabUnmapGrantRef,
    run: &mut UnmappedRun<Use>,
) {
    let taken = take(env, mapper, Handle(op.handle), |gfn| check(op, gfn));
    op.status = Status::of(&taken);
    if let Ok((grant, page)) = taken {
        run.add(page, grant, env.machine);
    }
}

/// Whether a request names the place that its handle is mapped at.
fn check(op: &GnttabUnmapGrantRef, gfn: Gfn) -> Result<(), Status> {
    if gfn.base() != Gpa(op.host_addr) {
        return Err(Status::BadVirtAddr);
    }
    if op.dev_bus_addr != 0 && op.dev_bus_addr != op.host_addr {
        return Err(Status::BadDevAddr);
    }
    Ok(())
}

/// Undoes mappings of a dying domain, looking at up to `entries` of its handles from `*next` on.
///
/// # Errors
/// `ESRCH`: no such domain.
pub fn unmap_slice<M: Machine>(env: &Env<'_, M>, dom: DomId, next: &mut u32, entries: u32) -> Result<Progress, Errno> {
    let end = next.saturating_add(entries);
    while *next < end {
        let mut run = UnmappedRun::new(dom);
        let more = env.domains.with(dom, |mapper| {
            let stop = end.min(mapper.grants.tracking.len());
            while *next < stop && !run.is_full() {
                if let Some(handle) = mapper.grants.tracking.at(*next)
                    && let Ok((grant, page)) = take(env, mapper, handle, |_| Ok(()))
                {
                    run.add(page, grant, env.machine);
                }
                *next = next.wrapping_add(1);
            }
            *next < mapper.grants.tracking.len()
        })?;
        end_uses(env, run.flush(env.machine).what());
        if !more {
            return Ok(Progress::Done);
        }
    }
    Ok(Progress::More)
}
