//! Building domains, for the policy domain: only what the sealed table describes, and only until a domain is unpaused.

use super::{Call, OK, Outcome, domid, in_out, input, output};
use crate::domain;
use crate::system::system;
use hv_core::domain::{Death, Domain};
use hv_core::error::Errno;
use hv_core::grant::{self, Access};
use hv_core::ids::{DomId, Gfn, Gpa, GrantRef, Label};
use hv_core::space::Rights;
use xen_abi::platform as abi;
use xen_abi::sched::SHUTDOWN_POWEROFF;

/// Pages that one call populates at most.
const POPULATE_MAX: u64 = 512;

pub fn create(call: &Call) -> Outcome {
    let mut op: abi::CreateDomain = in_out(call)?;
    let label = u16::try_from(op.label).map(Label).map_err(|_| Errno::EINVAL)?;
    op.domid = u32::from(domain::create(label)?.0);
    output(call, &op)
}

/// Acts on a domain that is being built.
fn with_building<R>(id: DomId, act: impl FnOnce(&mut Domain) -> Result<R, Errno>) -> Result<R, Errno> {
    system().domains.with(id, |domain| if domain.is_building() { act(domain) } else { Err(Errno::EPERM) })?
}

pub fn populate(call: &Call) -> Outcome {
    let mut op: abi::Populate = in_out(call)?;
    let rights = match op.rights {
        abi::RIGHTS_READ => Rights::Read,
        abi::RIGHTS_WRITE => Rights::ReadWrite,
        abi::RIGHTS_EXECUTE => Rights::ReadExecute,
        _ => return Err(Errno::EINVAL),
    };
    let env = call.env();
    op.done = 0;
    let outcome = with_building(domid(op.domid)?, |domain| {
        for page in 0..op.count.min(POPULATE_MAX) {
            let gfn = op.gfn.checked_add(page).ok_or(Errno::EINVAL)?;
            hv_core::domain::populate(&env, domain, Gfn(gfn), rights)?;
            op.done = page + 1;
        }
        if op.done < op.count { Err(Errno::EAGAIN) } else { Ok(()) }
    });
    let written = output(call, &op)?;
    outcome.map(|()| written)
}

pub fn copy_in(call: &Call) -> Outcome {
    let op: abi::CopyIn = input(call)?;
    if op.reserved != 0 {
        return Err(Errno::EINVAL);
    }
    if op.bytes > abi::COPY_IN_MAX {
        return Err(Errno::E2BIG);
    }
    let env = call.env();
    env.domains.with_pair(call.caller, domid(op.domid)?, |pair| {
        // The caller runs, so it is not its own target.
        let (source, Some(target)) = pair.both() else { return Err(Errno::EPERM) };
        if !target.is_building() {
            return Err(Errno::EPERM);
        }
        target.space.fill_from(Gpa(op.gpa), &source.space, Gpa(op.source), op.bytes, env.machine)?;
        Ok(())
    })??;
    OK
}

pub fn seed_grant(call: &Call) -> Outcome {
    let op: abi::SeedGrant = input(call)?;
    let access = match op.read_only {
        0 => Access::Write,
        1 => Access::Read,
        _ => return Err(Errno::EINVAL),
    };
    let env = call.env();
    let peer = domid(op.peer)?;
    let peer_label = env.domains.label(peer).ok_or(Errno::ESRCH)?;
    with_building(domid(op.domid)?, |domain| {
        if !env.policy.may_share(peer_label, domain.label()) {
            return Err(Errno::EPERM);
        }
        grant::seed(&env, domain, GrantRef(op.gref), Gfn(op.gfn), peer, access)
    })?;
    OK
}

pub fn set_entry(call: &Call) -> Outcome {
    let op: abi::SetEntry = input(call)?;
    if op.reserved != 0 {
        return Err(Errno::EINVAL);
    }
    domain::set_entry(domid(op.domid)?, op.rip, op.rsp, op.argument)?;
    OK
}

/// The target of a command that one must not give to oneself.
fn other(call: &Call) -> Result<DomId, Errno> {
    let op: abi::DomainTarget = input(call)?;
    let id = domid(op.domid)?;
    match op.reserved {
        0 if id == call.caller || id == DomId::SELF => Err(Errno::EPERM),
        0 => Ok(id),
        _ => Err(Errno::EINVAL),
    }
}

pub fn unpause(call: &Call) -> Outcome {
    domain::unpause(other(call)?)?;
    OK
}

pub fn pause(call: &Call) -> Outcome {
    domain::pause(other(call)?)?;
    OK
}

pub fn destroy(call: &Call) -> Outcome {
    domain::end(other(call)?, Death::new(SHUTDOWN_POWEROFF, format_args!("destroyed by the policy domain")))?;
    OK
}

pub fn reaped(call: &Call) -> Outcome {
    let id = other(call)?;
    match system().domains.with(id, |domain| domain.is_dying()) {
        Ok(_) => Err(Errno::EBUSY),
        Err(_) if domain::existed(id) => OK,
        Err(_) => Err(Errno::ESRCH),
    }
}
