//! `GNTTABOP_copy`: within one page of each side, by reference or, for the caller's own pages, by frame number.
//!
//! The usual copy, between an own page and a granted one that is not in use, locks both domains and needs no pin. In all
//! other cases a granted page is found and pinned under its own domain's lock, so that never more than one domain is
//! locked, and copied by its pin; an own page is found and copied under the caller's lock.

use xen_abi::grant_table::{GNTCOPY_DEST_GREF, GNTCOPY_SOURCE_GREF, GNTST_OKAY, GnttabCopy, GnttabCopyPtr};

use super::active::{Use, end_uses, judge, mark, marks};
use super::status::{Unusual, Why};
use super::{Access, Status};
use crate::domain::{Env, Pair};
use crate::ids::{DomId, Gfn, GrantRef, Mfn, PAGE_BYTES};
use crate::{authority::SealedPolicy, machine::Machine};

/// A side of a copy.
enum Side {
    /// Pinned.
    Granted(Use),
    /// Found when the copy runs, under the caller's lock.
    Own(Gfn),
}

/// Does one copy for the caller. `op` is the guest's structure, copied in once; its status is set.
#[inline(always)]
pub fn copy_alone<M: Machine>(env: &Env<'_, M>, caller: DomId, op: &mut GnttabCopy) {
    op.status = match copy_one::<M, Unusual>(env, caller, op) {
        Ok(()) => GNTST_OKAY,
        Err(Unusual) => copy_exactly(&env.copied(), caller, op),
    };
}

/// The same for many.
#[inline(never)]
pub fn copy<M: Machine>(env: &Env<'_, M>, caller: DomId, ops: &mut [GnttabCopy]) {
    ops.iter_mut().for_each(|op| op.status = copy_exactly(env, caller, op));
}

#[inline(never)]
fn copy_exactly<M: Machine>(env: &Env<'_, M>, caller: DomId, op: &GnttabCopy) -> i16 {
    Status::of(&copy_one::<M, Status>(env, caller, op))
}

/// Does one copy.
///
/// # Errors
/// [`Status`]; nothing was copied.
#[inline(always)]
fn copy_one<M: Machine, E: Why>(env: &Env<'_, M>, caller: DomId, op: &GnttabCopy) -> Result<(), E> {
    if op.flags & !(GNTCOPY_SOURCE_GREF | GNTCOPY_DEST_GREF) != 0 {
        return Err(Status::GeneralError.into());
    }
    let fits = |side: &GnttabCopyPtr| u64::from(side.offset).wrapping_add(u64::from(op.len)) <= PAGE_BYTES;
    if !fits(&op.source) || !fits(&op.dest) {
        return Err(Status::BadCopyArg.into());
    }
    let by_pins = || {
        let copied = if E::EXACT { copy_by_pins(&env.copied(), caller, op) } else { Err(Status::GeneralError) };
        Ok(copied?)
    };
    let (granted, own) = match op.flags {
        GNTCOPY_SOURCE_GREF => (op.source.domid, op.dest.domid),
        GNTCOPY_DEST_GREF => (op.dest.domid, op.source.domid),
        _ => return by_pins(),
    };
    if DomId(own).or_self(caller) != caller {
        // It is refused there, unless something else is wrong first.
        return by_pins();
    }
    let owner = DomId(granted).or_self(caller);
    let (machine, policy) = (env.machine, env.policy);
    let done = env.domains.with_pair(caller, owner, |pair| copy_in_pair::<M, E>(machine, policy, pair, op));
    // An entry that is in use has a snapshot, which counts.
    done.map_err(Status::from)??.map_or_else(by_pins, Ok)
}

/// Copies to or from an entry that nobody uses. `None`: it is in use. Apart, so that it has the registers for itself;
/// each direction is a path of its own, whose masks are constants.
#[inline(never)]
fn copy_in_pair<M: Machine, E: Why>(
    machine: &M,
    policy: &SealedPolicy,
    pair: &mut Pair<'_>,
    op: &GnttabCopy,
) -> Result<Option<()>, E> {
    if pair.remote().is_dying() {
        return Err(Status::BadDomain.into());
    }
    if !policy.may_share(pair.local().label(), pair.remote().label()) {
        return Err(Status::PermissionDenied.into());
    }
    match op.flags {
        GNTCOPY_SOURCE_GREF => copy_between(machine, pair, op.len, &op.source, &op.dest, Access::Read),
        _ => copy_between(machine, pair, op.len, &op.dest, &op.source, Access::Write),
    }
}

/// Copies between an own page and one behind an entry that nobody uses. Both domains are locked until it is done, so
/// both pages stay what they are; the entry is marked, so that its owner sees that it is in use.
#[inline(always)]
fn copy_between<M: Machine, E: Why>(
    machine: &M,
    pair: &mut Pair<'_>,
    bytes: u16,
    granted: &GnttabCopyPtr,
    own: &GnttabCopyPtr,
    access: Access,
) -> Result<Option<()>, E> {
    let user = pair.local().id();
    // The reference is the low half of a union with a frame number.
    let gref = GrantRef(granted.target as u32);
    let grantor = pair.remote();
    let (entry, active) = grantor.grants.entry_and_active(gref).ok_or(Status::BadGntref)?;
    if active.in_use() {
        return Ok(None);
    }
    let words = machine.load_u64(entry);
    judge(words as u32, user, access)?;
    let far = grantor.space.private_by(E::TABLES, Gfn(words >> 32), access, machine).ok_or(Status::BadPage)?;
    let own_access = if access == Access::Read { Access::Write } else { Access::Read };
    let mine = &mut pair.local().space;
    let near = mine.private_by(E::TABLES, Gfn(own.target), own_access, machine).ok_or(Status::BadPage)?;
    mark::<E>(machine, entry, words as u32, user, access)?;
    let (far, near) = (far.at(u64::from(granted.offset)), near.at(u64::from(own.offset)));
    let (from, to) = if access == Access::Read { (far, near) } else { (near, far) };
    machine.copy(from, to, usize::from(bytes));
    machine.fetch_and_u16(entry, !marks(access));
    Ok(Some(()))
}

/// Any copy, by pinning what is granted.
#[cold]
#[inline(never)]
fn copy_by_pins<M: Machine>(env: &Env<'_, M>, caller: DomId, op: &GnttabCopy) -> Result<(), Status> {
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
        end_uses(env, &[grant]);
    }
}
