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

use super::status::{Unusual, Why};
use super::{Access, Status};
use crate::domain::{Domain, Env, Pair};
use crate::ids::{DomId, Gfn, Gpa, GrantRef};
use crate::machine::{FlushScope, Machine};
use crate::space::{Page, PageKind, Rights};

/// Maps one grant for the caller, without the loops that many need. `op` is the guest's structure, copied in once; its
/// outputs are set.
#[inline(always)]
pub fn map_alone<M: Machine>(env: &Env<'_, M>, caller: DomId, op: &mut GnttabMapGrantRef) {
    let found = env.domains.with_pair(caller, DomId(op.dom).or_self(caller), |pair| {
        let allowed = may_map(env, pair);
        map_one(env, pair, op, allowed);
    });
    if let Err(error) = found {
        answer(op, Err(error.into()));
    }
}

/// The same for many. A grantor is locked, and asked for, once for all of its grants that are side by side.
pub fn map<M: Machine>(env: &Env<'_, M>, caller: DomId, ops: &mut [GnttabMapGrantRef]) {
    let mut rest = ops;
    while let Some(dom) = rest.first().map(|first| first.dom) {
        let found = env.domains.with_pair(caller, DomId(dom).or_self(caller), |pair| {
            let allowed = may_map(env, pair);
            while rest.first().is_some_and(|op| op.dom == dom)
                && let Some(op) = rest.split_off_first_mut()
            {
                map_one(env, pair, op, allowed);
            }
        });
        if let Err(error) = found
            && let Some(op) = rest.split_off_first_mut()
        {
            answer(op, Err(error.into()));
        }
    }
}

/// Maps one, if it is allowed. Apart, so that it has the registers for itself.
#[inline(never)]
fn map_one<M: Machine>(env: &Env<'_, M>, pair: &mut Pair<'_>, op: &mut GnttabMapGrantRef, allowed: Result<(), Status>) {
    if let Err(status) = allowed {
        return answer(op, Err(status));
    }
    match try_map::<M, Unusual>(env, pair, op) {
        Ok(mapped) => answer(op, Ok(mapped)),
        Err(Unusual) => map_unusual(env, pair, op),
    }
}

#[cold]
#[inline(never)]
fn map_unusual<M: Machine>(env: &Env<'_, M>, pair: &mut Pair<'_>, op: &mut GnttabMapGrantRef) {
    let mapped = try_map::<M, Status>(env, pair, op);
    answer(op, mapped);
}

/// Sets what a structure tells.
fn answer(op: &mut GnttabMapGrantRef, mapped: Result<(u32, u64), Status>) {
    op.status = Status::of(&mapped);
    (op.handle, op.dev_bus_addr) = mapped.unwrap_or((INVALID_GRANT_HANDLE, 0));
}

/// Whether the caller may map anything of the other.
#[inline(always)]
fn may_map<M: Machine>(env: &Env<'_, M>, pair: &mut Pair<'_>) -> Result<(), Status> {
    // The caller too: another CPU may have ended it while it was on its way here.
    if pair.remote().is_dying() || pair.local().is_dying() {
        return Err(Status::BadDomain);
    }
    let permitted = env.policy.may_share(pair.local().label(), pair.remote().label());
    if permitted { Ok(()) } else { Err(Status::PermissionDenied) }
}

/// Maps one: its handle, and where the caller's devices see it, 0 when it was not mapped for them.
///
/// # Errors
/// [`Status`]; nothing changed.
#[inline(always)]
fn try_map<M: Machine, E: Why>(env: &Env<'_, M>, pair: &mut Pair<'_>, op: &GnttabMapGrantRef) -> Result<(u32, u64), E> {
    // Each access is a path of its own, whose masks are constants.
    match access(pair.local(), op.flags)? {
        Access::Read => map_for(env, pair, op, Access::Read),
        Access::Write => map_for(env, pair, op, Access::Write),
    }
}

#[inline(always)]
fn map_for<M: Machine, E: Why>(
    env: &Env<'_, M>,
    pair: &mut Pair<'_>,
    op: &GnttabMapGrantRef,
    access: Access,
) -> Result<(u32, u64), E> {
    let mapper = pair.local();
    let user = mapper.id();
    let gfn = place(mapper, op.host_addr)?;
    if !mapper.grants.tracking.has_room::<E>() {
        return Err(Status::NoSpace.into());
    }
    let prepared = mapper.space.prepare_by(E::TABLES, env, gfn, PageKind::Foreign).map_err(Status::from)?;
    let grant = pair.remote().acquire::<M, E>(env, user, GrantRef(op.gref), access)?;
    // Nothing below can fail.
    let rights = match access {
        Access::Read => Rights::Read,
        Access::Write => Rights::ReadWrite,
    };
    let mapper = pair.local();
    mapper.space.commit(prepared, Page { mfn: grant.mfn(), rights, kind: PageKind::Foreign }, env.machine);
    // Read again, as that is cheaper than to keep it.
    let handle = mapper.grants.tracking.fill(grant, Gpa(op.host_addr).gfn());
    let for_devices = op.flags & GNTMAP_DEVICE_MAP != 0;
    Ok((handle.0, if for_devices { op.host_addr } else { 0 }))
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
#[inline(always)]
fn place(mapper: &Domain, host_addr: u64) -> Result<Gfn, Status> {
    let in_window = (GRANT_WINDOW..GRANT_WINDOW_END).contains(&host_addr);
    if Gpa(host_addr).offset() != 0 || mapper.is_native() && !in_window {
        return Err(Status::BadVirtAddr);
    }
    Ok(Gpa(host_addr).gfn())
}
