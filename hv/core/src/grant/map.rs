//! `GNTTABOP_map_grant_ref`.
//!
//! A mapping is for the CPU and, in a domain that drives devices, for its devices at the same address; it is one
//! thing with one pin, undone as one. So the flags that elsewhere make parts of a mapping (`device_map` alone,
//! `application_map`, `contains_pte`) are refused.

use xen_abi::grant_table::{
    GNTMAP_DEVICE_MAP, GNTMAP_GUEST_AVAIL_MASK, GNTMAP_HOST_MAP, GNTMAP_READONLY, GnttabMapGrantRef,
};
use xen_abi::native::{GRANT_WINDOW, GRANT_WINDOW_END};

use super::tracking::Mapping;
use super::{Access, Status};
use crate::domain::{Domain, Env, Pair};
use crate::ids::{DomId, Gfn, Gpa, GrantRef, Handle};
use crate::machine::{FlushScope, Machine};
use crate::space::{Page, PageKind, Rights};

/// A mapping that was made.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Mapped {
    /// To unmap it by.
    pub handle: Handle,
    /// Where the caller's devices see it; 0 when it was not mapped for them.
    pub dev_bus_addr: u64,
}

/// Maps one grant for the caller. `op` is the guest's structure, copied in once; its outputs are ignored.
///
/// # Errors
/// [`Status`]; nothing changed.
#[inline(always)]
pub fn map<M: Machine>(env: &Env<'_, M>, caller: DomId, op: &GnttabMapGrantRef) -> Result<Mapped, Status> {
    let grantor = DomId(op.dom).or_self(caller);
    env.domains.with_pair(caller, grantor, |pair| map_between(env, pair, op))?
}

#[inline(always)]
fn map_between<M: Machine>(env: &Env<'_, M>, pair: &mut Pair<'_>, op: &GnttabMapGrantRef) -> Result<Mapped, Status> {
    // The caller too: another CPU may have ended it while it was on its way here.
    if pair.remote().is_dying() || pair.local().is_dying() {
        return Err(Status::BadDomain);
    }
    if !env.policy.may_share(pair.local().label(), pair.remote().label()) {
        return Err(Status::PermissionDenied);
    }
    let mapper = pair.local();
    let user = mapper.id();
    let access = access(mapper, op.flags)?;
    let gfn = place(mapper, op.host_addr)?;
    let handle = mapper.grants.tracking.next_handle().ok_or(Status::NoSpace)?;
    let prepared = mapper.space.prepare(env, gfn, PageKind::Foreign)?;
    let grant = pair.remote().acquire(env, user, GrantRef(op.gref), access)?;
    // Nothing below can fail.
    let rights = match access {
        Access::Read => Rights::Read,
        Access::Write => Rights::ReadWrite,
    };
    let mapper = pair.local();
    mapper.space.commit(prepared, Page { mfn: grant.mfn, rights, kind: PageKind::Foreign }, env.machine);
    mapper.grants.tracking.fill(handle, Mapping { grant, gfn });
    let for_devices = op.flags & GNTMAP_DEVICE_MAP != 0;
    Ok(Mapped { handle, dev_bus_addr: if for_devices { gfn.base().0 } else { 0 } })
}

/// Judges the flags: `host_map` is needed, `device_map` is for domains with an IOMMU space, nothing else is known.
#[inline(always)]
fn access(mapper: &Domain, flags: u32) -> Result<Access, Status> {
    let known = GNTMAP_HOST_MAP | GNTMAP_DEVICE_MAP | GNTMAP_READONLY | GNTMAP_GUEST_AVAIL_MASK;
    if flags & (GNTMAP_HOST_MAP | GNTMAP_DEVICE_MAP) == 0 {
        return Err(Status::BadGntref);
    }
    let for_devices = flags & GNTMAP_DEVICE_MAP != 0;
    let has_devices = mapper.space.scope() == FlushScope::CpuAndIommu;
    if flags & !known != 0 || flags & GNTMAP_HOST_MAP == 0 || for_devices && !has_devices {
        return Err(Status::GeneralError);
    }
    Ok(if flags & GNTMAP_READONLY != 0 { Access::Read } else { Access::Write })
}

/// Where to map: a page-aligned address; in a native domain within the grant window.
#[inline(always)]
fn place(mapper: &Domain, host_addr: u64) -> Result<Gfn, Status> {
    let in_window = (GRANT_WINDOW..GRANT_WINDOW_END).contains(&host_addr);
    if Gpa(host_addr).offset() != 0 || mapper.is_native() && !in_window {
        return Err(Status::BadVirtAddr);
    }
    Ok(Gpa(host_addr).gfn())
}
