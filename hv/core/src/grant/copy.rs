//! `GNTTABOP_copy`: within one page of each side, by reference or, for the caller's own pages, by frame number.
//!
//! Each side's page is found and pinned under its own domain's lock, so that never more than one domain is locked; the
//! copy itself runs on the pins alone.

use xen_abi::grant_table::{GNTCOPY_DEST_GREF, GNTCOPY_SOURCE_GREF, GnttabCopy, GnttabCopyPtr};

use super::Status;
use super::active::Access;
use crate::domain::Env;
use crate::ids::{DomId, Gfn, GrantRef, Mfn, PAGE_BYTES};
use crate::machine::Machine;
use crate::space::PageKind;

/// One side of a copy, pinned.
#[must_use = "the page stays pinned"]
struct Side {
    owner: DomId,
    serial: u32,
    gref: Option<GrantRef>,
    access: Access,
    mfn: Mfn,
}

/// How a side names its page.
#[derive(Clone, Copy)]
enum Name {
    Reference,
    OwnFrame,
}

/// Does one copy for the caller. `op` is the guest's structure, copied in once.
///
/// # Errors
/// [`Status`]; nothing was copied.
#[inline]
pub fn copy<M: Machine>(env: &Env<'_, M>, caller: DomId, op: &GnttabCopy) -> Result<(), Status> {
    if op.flags & !(GNTCOPY_SOURCE_GREF | GNTCOPY_DEST_GREF) != 0 {
        return Err(Status::GeneralError);
    }
    let name = |flag: u16| {
        if op.flags & flag != 0 { Name::Reference } else { Name::OwnFrame }
    };
    let (source_name, dest_name) = (name(GNTCOPY_SOURCE_GREF), name(GNTCOPY_DEST_GREF));
    let fits = |side: &GnttabCopyPtr| u64::from(side.offset).wrapping_add(u64::from(op.len)) <= PAGE_BYTES;
    if !fits(&op.source) || !fits(&op.dest) {
        return Err(Status::BadCopyArg);
    }
    let source = open(env, caller, &op.source, source_name, Access::Read)?;
    let dest = match open(env, caller, &op.dest, dest_name, Access::Write) {
        Ok(dest) => dest,
        Err(status) => {
            close(env, source);
            return Err(status);
        }
    };
    let from = source.mfn.at(u64::from(op.source.offset));
    env.machine.copy(from, dest.mfn.at(u64::from(op.dest.offset)), usize::from(op.len));
    close(env, dest);
    close(env, source);
    Ok(())
}

#[inline]
fn open<M: Machine>(
    env: &Env<'_, M>,
    caller: DomId,
    side: &GnttabCopyPtr,
    name: Name,
    access: Access,
) -> Result<Side, Status> {
    let owner = DomId(side.domid).or_self(caller);
    match name {
        Name::Reference => open_grant(env, caller, owner, side.target, access),
        Name::OwnFrame if owner == caller => open_own(env, caller, Gfn(side.target), access),
        Name::OwnFrame => Err(Status::PermissionDenied),
    }
}

fn open_grant<M: Machine>(
    env: &Env<'_, M>,
    caller: DomId,
    owner: DomId,
    target: u64,
    access: Access,
) -> Result<Side, Status> {
    // The reference is the low half of a union with a frame number.
    let gref = GrantRef(target as u32);
    let caller_label = env.domains.label(caller).ok_or(Status::BadDomain)?;
    let opened = env.domains.with(owner, |grantor| {
        if grantor.is_dying() {
            return Err(Status::BadDomain);
        }
        if !env.policy.may_share(caller_label, grantor.label()) {
            return Err(Status::PermissionDenied);
        }
        let mfn = grantor.acquire(env, caller, gref, access)?;
        Ok(Side { owner, serial: grantor.serial(), gref: Some(gref), access, mfn })
    });
    opened.map_err(|_| Status::BadDomain)?
}

fn open_own<M: Machine>(env: &Env<'_, M>, caller: DomId, gfn: Gfn, access: Access) -> Result<Side, Status> {
    let opened = env.domains.with(caller, |domain| {
        let page = domain.space.translate(gfn, env.machine).ok_or(Status::BadPage)?;
        let writable = page.rights.writable() || access == Access::Read;
        if page.kind != PageKind::Private || !writable {
            return Err(Status::BadPage);
        }
        env.frames.pin(page.mfn, domain.slot()).map_err(|_| Status::NoSpace)?;
        Ok(Side { owner: caller, serial: domain.serial(), gref: None, access, mfn: page.mfn })
    });
    opened.map_err(|_| Status::BadDomain)?
}

fn close<M: Machine>(env: &Env<'_, M>, side: Side) {
    let Side { owner, serial, gref, access, mfn } = side;
    let released = gref.is_some_and(|gref| {
        let release = env.domains.with(owner, |grantor| {
            let same = grantor.serial() == serial && grantor.grants.active(gref).is_some();
            if same {
                grantor.release(env, gref, access, mfn);
            }
            same
        });
        release == Ok(true)
    });
    if !released {
        let unpinned = env.frames.unpin(mfn);
        debug_assert!(unpinned.is_ok(), "a copied page had no pin");
    }
}
