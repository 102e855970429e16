//! `GNTTABOP_copy`: within one page of each side, by reference or, for the caller's own pages, by frame number.
//!
//! A granted page is found and pinned under its own domain's lock, so that never more than one domain is locked, and
//! copied by its pin; an own page is found and copied under the caller's lock.

use xen_abi::grant_table::{GNTCOPY_DEST_GREF, GNTCOPY_SOURCE_GREF, GnttabCopy, GnttabCopyPtr};

use super::active::{Use, end_use};
use super::{Access, Status};
use crate::domain::Env;
use crate::ids::{DomId, Gfn, GrantRef, Mfn, PAGE_BYTES};
use crate::machine::Machine;

/// A side of a copy.
enum Side {
    /// Pinned.
    Granted(Use),
    /// Found when the copy runs, under the caller's lock.
    Own(Gfn),
}

/// Does one copy for the caller. `op` is the guest's structure, copied in once.
///
/// # Errors
/// [`Status`]; nothing was copied.
#[inline(always)]
pub fn copy<M: Machine>(env: &Env<'_, M>, caller: DomId, op: &GnttabCopy) -> Result<(), Status> {
    if op.flags & !(GNTCOPY_SOURCE_GREF | GNTCOPY_DEST_GREF) != 0 {
        return Err(Status::GeneralError);
    }
    let fits = |side: &GnttabCopyPtr| u64::from(side.offset).wrapping_add(u64::from(op.len)) <= PAGE_BYTES;
    if !fits(&op.source) || !fits(&op.dest) {
        return Err(Status::BadCopyArg);
    }
    let source = open(env, caller, &op.source, op.flags & GNTCOPY_SOURCE_GREF, Access::Read)?;
    let dest = open(env, caller, &op.dest, op.flags & GNTCOPY_DEST_GREF, Access::Write);
    let copied = dest.and_then(|dest| {
        let copied = run(env, caller, op, &source, &dest);
        close(env, dest);
        copied
    });
    close(env, source);
    copied
}

/// Pins a granted side; `reference` is its flag. An own page needs none: it is used under its domain's lock.
#[inline(always)]
fn open<M: Machine>(
    env: &Env<'_, M>,
    caller: DomId,
    side: &GnttabCopyPtr,
    reference: u16,
    access: Access,
) -> Result<Side, Status> {
    let owner = DomId(side.domid).or_self(caller);
    if reference == 0 {
        return if owner == caller { Ok(Side::Own(Gfn(side.target))) } else { Err(Status::PermissionDenied) };
    }
    // The reference is the low half of a union with a frame number.
    let gref = GrantRef(side.target as u32);
    let caller_label = env.domains.label(caller).ok_or(Status::BadDomain)?;
    env.domains.with(owner, |grantor| {
        if grantor.is_dying() {
            return Err(Status::BadDomain);
        }
        if !env.policy.may_share(caller_label, grantor.label()) {
            return Err(Status::PermissionDenied);
        }
        grantor.acquire(env, caller, gref, access).map(Side::Granted)
    })?
}

#[inline(always)]
fn run<M: Machine>(env: &Env<'_, M>, caller: DomId, op: &GnttabCopy, source: &Side, dest: &Side) -> Result<(), Status> {
    let between = |source: Mfn, dest: Mfn| {
        let (from, to) = (source.at(u64::from(op.source.offset)), dest.at(u64::from(op.dest.offset)));
        env.machine.copy(from, to, usize::from(op.len));
    };
    if let (Side::Granted(source), Side::Granted(dest)) = (source, dest) {
        between(source.mfn, dest.mfn);
        return Ok(());
    }
    env.domains.with(caller, |domain| {
        let mut find = |side: &Side, access| match side {
            Side::Granted(granted) => Some(granted.mfn),
            Side::Own(gfn) => domain.space.private(*gfn, access, env.machine),
        };
        between(find(source, Access::Read).ok_or(Status::BadPage)?, find(dest, Access::Write).ok_or(Status::BadPage)?);
        Ok(())
    })?
}

#[inline(always)]
fn close<M: Machine>(env: &Env<'_, M>, side: Side) {
    if let Side::Granted(grant) = side {
        end_use(env, grant);
    }
}
