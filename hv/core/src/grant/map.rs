//! `GNTTABOP_map_grant_ref`.
//!
//! A mapping is for the CPU and, in a domain that drives devices, for its devices at the same address; it is one
//! thing with one pin, undone as one. So the flags that elsewhere make parts of a mapping (`device_map` alone,
//! `application_map`, `contains_pte`) are refused.

use xen_abi::grant_table::{
    GNTMAP_DEVICE_MAP, GNTMAP_GUEST_AVAIL_MASK, GNTMAP_HOST_MAP, GNTMAP_READONLY, GnttabMapGrantRef,
    INVALID_GRANT_HANDLE,
};
use xen_abi::native::{GRANT_WINDOW, GRANT_WINDOW_END};

use super::active::{Found, Use};
use super::{Access, Status};
use crate::domain::{Domain, Env, Pair};
use crate::frames::FrameTable;
use crate::ids::{DomId, Gfn, Gpa, GrantRef, Handle};
use crate::machine::{FlushScope, Machine};
use crate::space::{Page, PageKind, Rights};

/// Maps one grant for the caller in the usual case. `op` is the guest's structure, copied in once; its outputs are set.
/// `None`: it is another case, or refused; nothing changed.
#[inline(always)]
pub fn map_near<M: Machine>(env: &Env<'_, M>, caller: DomId, op: &mut GnttabMapGrantRef) -> Option<()> {
    let mut two = env.domains.lock_two(caller, DomId(op.dom))?;
    let (near, far) = two.domains(caller, DomId(op.dom))?;
    if !near.may_use(far) {
        return None;
    }
    let handle = map_one(env.machine, env.frames, near, far, op.host_addr, op.flags, GrantRef(op.gref))?;
    answer(op, Ok(handle));
    Some(())
}

/// Maps grants for the caller. A grantor is locked, and asked for, once for all of its grants that are side by side.
pub fn map<M: Machine>(env: &Env<'_, M>, caller: DomId, ops: &mut [GnttabMapGrantRef]) {
    let mut rest = ops;
    while let Some(dom) = rest.first().map(|first| first.dom) {
        let found = env.domains.with_pair(caller, DomId(dom).or_self(caller), |pair| {
            let allowed = may_map(env, pair);
            let (mut ops, mut left) = (core::mem::take(&mut rest).iter_mut(), true);
            while left && let Some(op) = ops.next() {
                left = ops.as_slice().first().is_some_and(|next| next.dom == dom);
                if let (near, Some(far)) = pair.both()
                    && allowed.is_ok()
                    && let Some(handle) =
                        map_one(env.machine, env.frames, near, far, op.host_addr, op.flags, GrantRef(op.gref))
                {
                    answer(op, Ok(handle));
                } else {
                    let mapped = allowed.and_then(|()| try_map(env, pair, op));
                    answer(op, mapped);
                }
            }
            rest = ops.into_slice();
        });
        if let Err(error) = found
            && let Some(op) = rest.split_off_first_mut()
        {
            answer(op, Err(error.into()));
        }
    }
}

/// Sets what a structure tells.
#[inline(always)]
fn answer(op: &mut GnttabMapGrantRef, mapped: Result<Handle, Status>) {
    op.status = Status::of(&mapped);
    op.handle = mapped.map_or(INVALID_GRANT_HANDLE, |handle| handle.0);
    op.dev_bus_addr = 0;
    if mapped.is_ok() && op.flags & GNTMAP_DEVICE_MAP != 0 {
        op.dev_bus_addr = op.host_addr;
    }
}

/// Whether the caller may map anything of the other.
fn may_map<M: Machine>(env: &Env<'_, M>, pair: &mut Pair<'_>) -> Result<(), Status> {
    // The caller too: another CPU may have ended it while it was on its way here.
    if pair.remote().is_dying() || pair.local().is_dying() {
        return Err(Status::BadDomain);
    }
    let permitted = env.policy.may_share(pair.local().label(), pair.remote().label());
    if permitted { Ok(()) } else { Err(Status::PermissionDenied) }
}

/// Maps one in the usual case: into a place of the grant window near the last one, a page that nobody else has mapped.
/// `None`: it is not so, or refused; nothing changed. Apart, so that it has the registers for itself.
#[inline(never)]
fn map_one<M: Machine>(
    machine: &M,
    frames: &FrameTable,
    mapper: &mut Domain,
    grantor: &mut Domain,
    host_addr: u64,
    flags: u32,
    gref: GrantRef,
) -> Option<Handle> {
    // By far the most frequent.
    let access = if flags == GNTMAP_HOST_MAP { Access::Write } else { access(mapper, flags).ok()? };
    // Each access is a path of its own, whose masks are constants.
    match access {
        Access::Read => map_for(machine, frames, mapper, grantor, Gpa(host_addr), gref, Access::Read),
        Access::Write => map_for(machine, frames, mapper, grantor, Gpa(host_addr), gref, Access::Write),
    }
}

#[inline(always)]
fn map_for<M: Machine>(
    machine: &M,
    frames: &FrameTable,
    mapper: &mut Domain,
    grantor: &mut Domain,
    at: Gpa,
    gref: GrantRef,
    access: Access,
) -> Option<Handle> {
    if at.offset() != 0 {
        return None;
    }
    let found = Found::look(&mut grantor.grants, &grantor.space, machine, mapper.id, gref, access)?;
    // Only places in the grant window are near.
    let prepared = mapper.space.prepare_near(at.gfn(), machine)?;
    let vacancy = mapper.grants.tracking.vacancy()?;
    let mfn = found.acquire(machine, frames, grantor.slot, access)?;
    let grant = Use::new(grantor.id, grantor.serial, gref, mfn, access);
    mapper.space.commit(prepared, page(&grant), machine);
    Some(vacancy.fill(grant, at.gfn()))
}

/// Maps one in any case.
///
/// # Errors
/// [`Status`]; nothing changed.
#[cold]
fn try_map<M: Machine>(env: &Env<'_, M>, pair: &mut Pair<'_>, op: &GnttabMapGrantRef) -> Result<Handle, Status> {
    let mapper = pair.local();
    let (user, access, gfn) = (mapper.id(), access(mapper, op.flags)?, place(mapper, op.host_addr)?);
    if !mapper.grants.tracking.make_room() {
        return Err(Status::NoSpace);
    }
    let prepared = mapper.space.prepare(env, gfn, PageKind::Foreign)?;
    let grant = pair.remote().acquire(env, user, GrantRef(op.gref), access)?;
    // Nothing below can fail: there is room.
    let mapper = pair.local();
    mapper.space.commit(prepared, page(&grant), env.machine);
    mapper.grants.tracking.vacancy().map(|vacancy| vacancy.fill(grant, gfn)).ok_or(Status::NoSpace)
}

/// What the mapper's page tables show.
#[inline(always)]
fn page(grant: &Use) -> Page {
    let rights = match grant.access() {
        Access::Read => Rights::Read,
        Access::Write => Rights::ReadWrite,
    };
    Page { mfn: grant.mfn(), rights, kind: PageKind::Foreign }
}

/// Judges the flags: `host_map` is needed, `device_map` is for domains with an IOMMU space, nothing else is known.
#[inline(always)]
fn access(mapper: &Domain, flags: u32) -> Result<Access, Status> {
    match flags & !(GNTMAP_READONLY | GNTMAP_GUEST_AVAIL_MASK) {
        GNTMAP_HOST_MAP => (),
        HOST_AND_DEVICES if mapper.space.scope() == FlushScope::CpuAndIommu => (),
        odd if odd & HOST_AND_DEVICES == 0 => return Err(Status::BadGntref),
        _ => return Err(Status::GeneralError),
    }
    Ok(if flags & GNTMAP_READONLY != 0 { Access::Read } else { Access::Write })
}

const HOST_AND_DEVICES: u32 = GNTMAP_HOST_MAP | GNTMAP_DEVICE_MAP;

/// Where to map: a page-aligned address; in a native domain within the grant window.
fn place(mapper: &Domain, host_addr: u64) -> Result<Gfn, Status> {
    let in_window = (GRANT_WINDOW..GRANT_WINDOW_END).contains(&host_addr);
    if Gpa(host_addr).offset() != 0 || mapper.is_native() && !in_window {
        return Err(Status::BadVirtAddr);
    }
    Ok(Gpa(host_addr).gfn())
}
