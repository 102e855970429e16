//! `GNTTABOP_unmap_grant_ref`, and the undoing of all of a dying domain's mappings.
//!
//! In this order: the page tables forget the page, the translation caches forget it, the grantor sees the entry unused,
//! the pin goes.

use xen_abi::grant_table::{GNTST_OKAY, GnttabUnmapGrantRef};

use super::Status;
use super::active::{Use, end_use, end_uses};
use super::status::{Unusual, Why};
use crate::domain::{Domain, Env};
use crate::ids::{DomId, Gfn, Gpa, Handle};
use crate::space::{FlushedRun, Progress, RUN_MAX, Unmapped, UnmappedRun};
use crate::{error::Errno, machine::Machine};

/// What has to be ended when a run is flushed.
type Uses = heapless::Vec<Use, RUN_MAX>;

/// Undoes one mapping of the caller, without the lists that many need. `op` is the guest's structure, copied in once; its
/// status is set.
#[inline(always)]
pub fn unmap_alone<M: Machine>(env: &Env<'_, M>, caller: DomId, op: &mut GnttabUnmapGrantRef) {
    // Taken past the result of locking: in one with an error, it would be copied around in pieces.
    let mut taken = None;
    let _gone = env.domains.with(caller, |mapper| taken = take_usual(env, mapper, op).ok());
    let Some((grant, page)) = taken else { return unmap(&env.copied(), caller, core::slice::from_mut(op)) };
    op.status = GNTST_OKAY;
    let _flushed = page.flush(env.machine);
    end_use(env, &grant);
}

#[inline(always)]
fn take_usual<M: Machine>(
    env: &Env<'_, M>,
    mapper: &mut Domain,
    op: &GnttabUnmapGrantRef,
) -> Result<(Use, Unmapped), Unusual> {
    let space = &mut mapper.space;
    mapper.grants.tracking.take(Handle(op.handle), |gfn| {
        check(op, gfn)?;
        Ok(space.unmap_by(Unusual::TABLES, gfn, env.machine).map_err(Status::from)?)
    })
}

/// The same for many.
#[inline(never)]
pub fn unmap<M: Machine>(env: &Env<'_, M>, caller: DomId, ops: &mut [GnttabUnmapGrantRef]) {
    for ops in ops.chunks_mut(RUN_MAX) {
        let (mut run, mut uses) = (UnmappedRun::new(caller), Uses::new());
        if let Err(error) = env.domains.with(caller, |mapper| begin(env, mapper, ops, &mut run, &mut uses)) {
            ops.iter_mut().for_each(|op| op.status = Status::from(error) as i16);
        }
        finish(env, &uses, run.flush(env.machine));
    }
}

/// First half: the handles are void and the pages unmapped; the grantors still see them in use.
#[inline(always)]
pub(super) fn begin<M: Machine>(
    env: &Env<'_, M>,
    mapper: &mut Domain,
    ops: &mut [GnttabUnmapGrantRef],
    run: &mut UnmappedRun,
    uses: &mut Uses,
) {
    for op in ops {
        let taken = take(env, mapper, Handle(op.handle), run, |gfn| check(op, gfn));
        op.status = Status::of(&taken);
        if let Ok(grant) = taken {
            // A run takes as many.
            let _never_full = uses.push(grant);
        }
    }
}

/// Whether a request names the place that its handle is mapped at.
#[inline(always)]
fn check(op: &GnttabUnmapGrantRef, gfn: Gfn) -> Result<(), Status> {
    if gfn.base() != Gpa(op.host_addr) {
        return Err(Status::BadVirtAddr);
    }
    if op.dev_bus_addr != 0 && op.dev_bus_addr != op.host_addr {
        return Err(Status::BadDevAddr);
    }
    Ok(())
}

#[inline(always)]
fn take<M: Machine>(
    env: &Env<'_, M>,
    mapper: &mut Domain,
    handle: Handle,
    run: &mut UnmappedRun,
    check: impl FnOnce(Gfn) -> Result<(), Status>,
) -> Result<Use, Status> {
    let space = &mut mapper.space;
    let taken = mapper.grants.tracking.take(handle, |gfn| {
        check(gfn)?;
        Ok(space.unmap_in(run, gfn, env.machine)?)
    });
    taken.map(|(grant, ())| grant)
}

/// Second half: nobody can reach the pages any more, and the uses end. No domain may be locked.
pub(super) fn finish<M: Machine>(env: &Env<'_, M>, uses: &Uses, _: FlushedRun) {
    end_uses(env, uses);
}

/// Undoes mappings of a dying domain, looking at up to `entries` of its handles from `*next` on.
///
/// # Errors
/// `ESRCH`: no such domain.
pub fn unmap_slice<M: Machine>(env: &Env<'_, M>, dom: DomId, next: &mut u32, entries: u32) -> Result<Progress, Errno> {
    let end = next.saturating_add(entries);
    while *next < end {
        let (mut run, mut uses) = (UnmappedRun::new(dom), Uses::new());
        let more = env.domains.with(dom, |mapper| {
            let stop = end.min(mapper.grants.tracking.len());
            while *next < stop && !uses.is_full() {
                if let Some(handle) = mapper.grants.tracking.at(*next)
                    && let Ok(grant) = take(env, mapper, handle, &mut run, |_| Ok(()))
                {
                    let _never_full = uses.push(grant);
                }
                *next = next.wrapping_add(1);
            }
            *next < mapper.grants.tracking.len()
        })?;
        finish(env, &uses, run.flush(env.machine));
        if !more {
            return Ok(Progress::Done);
        }
    }
    Ok(Progress::More)
}
