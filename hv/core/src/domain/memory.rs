//! A domain's pages: populating, sharing the hypervisor's pages with it, and taking pages back from it.

use super::{DomId, Domain, Env, Errno, Gfn, Machine};
use crate::space::{Page, PageKind, Rights};
use crate::{frames::Purpose, ids::Mfn};

/// Gives a zeroed frame to a domain at `gfn`. For the builder (building domains) and `XENMEM_populate_physmap`
/// (the domain itself): who may is the caller's check.
///
/// # Errors
/// `EEXIST`: something is there. `EINVAL`: not an address of a domain. `ENOMEM`: the label's or the machine's memory is
/// used up.
pub fn populate<M: Machine>(env: &Env<'_, M>, domain: &mut Domain, gfn: Gfn, rights: Rights) -> Result<(), Errno> {
    if domain.account.pages >= domain.account.pages_max {
        return Err(Errno::ENOMEM);
    }
    let prepared = domain.space.prepare(env, gfn, PageKind::Private)?;
    let mfn = env.frames.allocate(Purpose::Private(domain.slot()), env.machine).ok_or(Errno::ENOMEM)?;
    domain.space.commit(prepared, Page { mfn, rights, kind: PageKind::Private }, env.machine);
    domain.account.pages = domain.account.pages.saturating_add(1);
    Ok(())
}

/// Shows a frame of the boot bundle to a domain at `gfn`. It is never anybody's and never written: not by the domain, nor by
/// its devices, nor by its builder.
///
/// # Errors
/// `EINVAL`: rights to write; not an address of a domain. `EEXIST`, `ENOMEM` as [`populate`].
pub fn lend<M: Machine>(env: &Env<'_, M>, it: &mut Domain, gfn: Gfn, mfn: Mfn, rights: Rights) -> Result<(), Errno> {
    let page = Page { mfn, rights, kind: PageKind::Lent };
    if rights.writable() { Err(Errno::EINVAL) } else { Ok(it.space.map(env, gfn, page)?) }
}

/// `XENMEM_remove_from_physmap`: own memory is taken from the domain (the frame is free when the last grant mapping of it
/// ends), a page shared by the hypervisor only unmapped.
///
/// # Errors
/// `ENOENT`: nothing there. `EPERM`: a mapped grant, device registers, the bundle.
pub fn remove_page<M: Machine>(env: &Env<'_, M>, domain: &mut Domain, gfn: Gfn) -> Result<(), Errno> {
    let kind = domain.space.translate(gfn, env.machine).ok_or(Errno::ENOENT)?.kind;
    if !matches!(kind, PageKind::Private | PageKind::Shared) {
        return Err(Errno::EPERM);
    }
    let flushed = domain.space.unmap(gfn, env.machine)?.flush(env.machine);
    if kind == PageKind::Private {
        env.frames.release(flushed, domain.slot()).map_err(|_| Errno::EPERM)?;
        domain.account.pages = domain.account.pages.saturating_sub(1);
    }
    Ok(())
}

/// `XENMAPSPACE_shared_info`: shows the domain its shared info page at `gfn`.
///
/// # Errors
/// `EEXIST`, `EINVAL`, `ENOMEM` as [`populate`].
pub fn add_shared_info<M: Machine>(env: &Env<'_, M>, domain: &mut Domain, gfn: Gfn) -> Result<(), Errno> {
    map_shared(env, domain, gfn, domain.events.shared.frame())
}

/// `XENMAPSPACE_grant_table`: shows the domain frame `index` of its grant table at `gfn`, growing the table to it.
///
/// # Errors
/// `EINVAL`: beyond the frames that the policy allows; else as [`populate`].
pub fn add_grant_frame<M: Machine>(env: &Env<'_, M>, dom: DomId, index: u32, gfn: Gfn) -> Result<(), Errno> {
    env.domains.with(dom, |domain| {
        let frames = index.checked_add(1).ok_or(Errno::EINVAL)?;
        domain.grow_grants(env, frames)?;
        let mfn = domain.grants.frame(index).ok_or(Errno::EINVAL)?;
        map_shared(env, domain, gfn, mfn)
    })?
}

fn map_shared<M: Machine>(env: &Env<'_, M>, domain: &mut Domain, gfn: Gfn, mfn: Mfn) -> Result<(), Errno> {
    // Guests name a page of their memory, which is given back (as on Xen).
    if !domain.is_native() && domain.space.translate(gfn, env.machine).is_some() {
        remove_page(env, domain, gfn)?;
    }
    let page = Page { mfn, rights: Rights::ReadWrite, kind: PageKind::Shared };
    Ok(domain.space.map(env, gfn, page)?)
}
