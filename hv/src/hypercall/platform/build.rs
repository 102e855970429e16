//! Building domains, for the policy domain: only what the sealed table describes, and only until a domain is unpaused.

use super::{DomId, Errno, Gpa, abi, domain, domid, pci, system};
use hv_core::ids::{Gfn, GrantRef, Label, Mfn, PAGE_BYTES};
use hv_core::{domain::Death, grant, grant::Access, pci::Bdf, space::Rights};
use xen_abi::sched::SHUTDOWN_POWEROFF;

/// Pages that one call populates at most.
const POPULATE_MAX: u64 = 512;

pub fn create(op: &mut abi::CreateDomain) -> Result<(), Errno> {
    let label = u16::try_from(op.label).map(Label).map_err(|_| Errno::EINVAL)?;
    let predecessor = Some(domid(op.domid)?).filter(|id| !matches!(*id, DomId::POLICY | DomId::SELF));
    op.domid = u32::from(domain::create(label, predecessor)?.0);
    Ok(())
}

pub fn populate(op: &mut abi::Populate) -> Result<(), Errno> {
    let rights = domain::rights(op.rights)?;
    op.done = 0;
    domain::with_building(domid(op.domid)?, |domain| {
        if rights == Rights::All && domain.is_native() {
            return Err(Errno::EINVAL);
        }
        for page in 0..op.count.min(POPULATE_MAX) {
            let gfn = op.gfn.checked_add(page).ok_or(Errno::EINVAL)?;
            hv_core::domain::populate(&system().env(), domain, Gfn(gfn), rights)?;
            op.done = page + 1;
        }
        if op.done < op.count { Err(Errno::EAGAIN) } else { Ok(()) }
    })
}

pub fn lend(op: abi::Lend) -> Result<(), Errno> {
    let (rights, system) = (domain::rights(op.rights)?, system());
    if op.count > abi::LEND_MAX {
        return Err(Errno::E2BIG);
    }
    // Whole pages: what follows the archive in its last one may be anything.
    let end = op.page.saturating_add(op.count).saturating_mul(PAGE_BYTES);
    domain::with_building(domid(op.domid)?, |domain| {
        if !domain.is_native() || end > system.bundle.archive().len() as u64 {
            return Err(Errno::EINVAL);
        }
        (0..op.count).try_for_each(|page| {
            let (gfn, mfn) = (Gfn(op.gfn.saturating_add(page)), Mfn(system.bundle_start.mfn().0 + op.page + page));
            hv_core::domain::lend(&system.env(), domain, gfn, mfn, rights)
        })
    })
}

pub fn copy_in(caller: DomId, op: abi::CopyIn) -> Result<(), Errno> {
    if op.reserved != 0 {
        return Err(Errno::EINVAL);
    }
    if op.bytes > abi::COPY_IN_MAX {
        return Err(Errno::E2BIG);
    }
    system().domains.with_pair(caller, domid(op.domid)?, |pair| match pair.both() {
        (source, Some(target)) if target.is_building() => {
            Ok(target.space.fill_from(Gpa(op.gpa), &mut source.space, Gpa(op.source), op.bytes, &system().machine)?)
        }
        // The caller runs, so it is not its own target.
        _ => Err(Errno::EPERM),
    })?
}

pub fn seed_grant(op: abi::SeedGrant) -> Result<(), Errno> {
    let access = match op.read_only {
        0 => Access::Write,
        1 => Access::Read,
        _ => return Err(Errno::EINVAL),
    };
    let env = system().env();
    let peer = domid(op.peer)?;
    let peer_label = env.domains.label(peer).ok_or(Errno::ESRCH)?;
    domain::with_building(domid(op.domid)?, |domain| {
        if !env.policy.may_share(peer_label, domain.label()) {
            return Err(Errno::EPERM);
        }
        grant::seed(&env, domain, GrantRef(op.gref), Gfn(op.gfn), peer, access)
    })
}

pub fn set_entry(op: abi::SetEntry) -> Result<(), Errno> {
    if op.reserved == 0 { domain::set_entry(domid(op.domid)?, op.rip, op.rsp, op.argument) } else { Err(Errno::EINVAL) }
}

pub fn assign_device(op: abi::AssignDevice) -> Result<(), Errno> {
    let bdf = Bdf::from_abi(op.bdf).ok_or(Errno::ENODEV)?;
    domain::with_building(domid(op.domid)?, |domain| {
        pci::assign(bdf, domain)?;
        domain.account.devices += 1;
        Ok(())
    })
}

pub fn destroy(id: DomId) -> Result<(), Errno> {
    domain::end(id, Death::new(SHUTDOWN_POWEROFF, format_args!("destroyed by the policy domain")))
}

pub fn reaped(id: DomId) -> Result<(), Errno> {
    if system().domains.label(id).is_some() {
        return Err(Errno::EBUSY);
    }
    if domain::existed(id) { Ok(()) } else { Err(Errno::ESRCH) }
}
