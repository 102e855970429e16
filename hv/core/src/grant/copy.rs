//! `GNTTABOP_copy`: within one page of each side, by reference or, for the caller's own pages, by frame number.
//!
//! The usual copy, between an own page and a granted one that is not in use, locks both domains and needs no pin. In all
//! other cases a granted page is found and pinned under its own domain's lock, so that never more than one domain is
//! locked, and copied by its pin; an own page is found and copied under the caller's lock.

use xen_abi::grant_table::{GNTCOPY_DEST_GREF, GNTCOPY_SOURCE_GREF, GNTST_OKAY, GnttabCopy, GnttabCopyPtr};

use super::active::{Use, end_use, judge, mark_once, marks};
use super::{Access, Status};
use crate::domain::{Domain, Env};
use crate::ids::{DomId, Gfn, GrantRef, Hpa, Mfn, PAGE_BYTES};
use crate::machine::Machine;

/// A side of a copy.
enum Side {
    /// Pinned.
    Granted(Use),
    /// Found when the copy runs, under the caller's lock.
    Own(Gfn),
}

/// Does copies for the caller. `ops` are the guest's structures, copied in once; their statuses are set.
pub fn copy<M: Machine>(env: &Env<'_, M>, caller: DomId, ops: &mut [GnttabCopy]) {
    for op in ops {
        if copy_near(env, caller, op).is_none() {
            op.status = Status::of(&copy_by_pins(env, caller, op));
        }
    }
}

/// Whether a copy stays within its pages.
#[inline(always)]
fn fits(op: &GnttabCopy) -> bool {
    let within = |side: &GnttabCopyPtr| u64::from(side.offset).wrapping_add(u64::from(op.len)) <= PAGE_BYTES;
    within(&op.source) && within(&op.dest)
}

/// Does one copy in the usual case: between an own page and another domain's, which nobody has mapped, both found by
/// the tables that are remembered. `None`: it is not so, or refused; nothing was copied.
///
/// Both domains are locked until it is done, so both pages stay what they are; the entry is marked, so that its owner
/// sees that it is in use.
#[inline(always)]
pub fn copy_near<M: Machine>(env: &Env<'_, M>, caller: DomId, op: &mut GnttabCopy) -> Option<()> {
    let (granted, own) = match op.flags {
        GNTCOPY_SOURCE_GREF => (op.source.domid, op.dest.domid),
        GNTCOPY_DEST_GREF => (op.dest.domid, op.source.domid),
        _ => return None,
    };
    if !fits(op) || DomId(own).or_self(caller) != caller {
        return None;
    }
    let mut two = env.domains.lock_two(caller, DomId(granted))?;
    let (user, grantor) = two.domains(caller, DomId(granted))?;
    if !user.may_use(grantor) {
        return None;
    }
    let (source, dest) = (&op.source, &op.dest);
    match op.flags {
        GNTCOPY_SOURCE_GREF => {
            let (far, near) = (source.offset, dest.offset);
            copy_one::<M, true>(env.machine, user, grantor, source.target, far, dest.target, near, op.len)?;
        }
        _ => {
            let (far, near) = (dest.offset, source.offset);
            copy_one::<M, false>(env.machine, user, grantor, dest.target, far, source.target, near, op.len)?;
        }
    }
    op.status = GNTST_OKAY;
    Some(())
}

/// Each direction is a path of its own, whose masks are constants; apart, so that it has the registers for itself, and
/// with what it needs in registers.
#[allow(clippy::too_many_arguments, reason = "each in a register")]
#[inline(never)]
fn copy_one<M: Machine, const READS: bool>(
    machine: &M,
    user: &mut Domain,
    grantor: &mut Domain,
    granted: u64,
    granted_offset: u16,
    own: u64,
    own_offset: u16,
    bytes: u16,
) -> Option<()> {
    let (access, own_access) = if READS { (Access::Read, Access::Write) } else { (Access::Write, Access::Read) };
    // The reference is the low half of a union with a frame number.
    let gref = GrantRef(granted as u32);
    let (entry, _) = grantor.grants.entry(gref).filter(|(_, active)| !active.in_use())?;
    let words = machine.load_u64(entry);
    judge(words as u32, user.id, access).ok()?;
    let far = grantor.space.private_near(Gfn(words >> 32), access, machine)?;
    let near = user.space.private_near(Gfn(own), own_access, machine)?;
    mark_once(machine, entry, words as u32, access).ok()?;
    // Offsets were checked with the length.
    let (far, near) = (Hpa(far.base().0 + u64::from(granted_offset)), Hpa(near.base().0 + u64::from(own_offset)));
    let (from, to) = if READS { (far, near) } else { (near, far) };
    machine.copy(from, to, usize::from(bytes));
    machine.fetch_and_u16(entry, !marks(access));
    Some(())
}

/// Any copy, by pinning what is granted.
///
/// # Errors
/// [`Status`]; nothing was copied.
#[cold]
fn copy_by_pins<M: Machine>(env: &Env<'_, M>, caller: DomId, op: &GnttabCopy) -> Result<(), Status> {
    if op.flags & !(GNTCOPY_SOURCE_GREF | GNTCOPY_DEST_GREF) != 0 {
        return Err(Status::GeneralError);
    }
    if !fits(op) {
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
        between(source.mfn(), dest.mfn());
        return Ok(());
    }
    env.domains.with(caller, |domain| {
        let mut find = |side: &Side, access| match side {
            Side::Granted(granted) => Some(granted.mfn()),
            Side::Own(gfn) => domain.space.private(*gfn, access, env.machine),
        };
        between(find(source, Access::Read).ok_or(Status::BadPage)?, find(dest, Access::Write).ok_or(Status::BadPage)?);
        Ok(())
    })?
}

#[inline(always)]
fn close<M: Machine>(env: &Env<'_, M>, side: Side) {
    if let Side::Granted(grant) = side {
        end_use(env, &grant);
    }
}
