//! The sub-operations. Each names its caller, checks all it needs, and changes nothing when it fails.
//!
//! Two domains are locked together, in slot order, where both change ([`bind_interdomain`], [`close`]). [`send`] takes
//! one lock after the other: the far end is believed only if it points back.

use super::{Binding, Channel, DomId, Errno, NR_VIRQS, PIRQS_MAX, Port, VcpuId, is_global_virq};
use crate::authority::table::{FLAG_CONTROL, FLAG_LOG};
use crate::domain::{Domain, DomainTable, Env, Pair, Wake};
use crate::{ids::Pirq, machine::Machine, space::Progress};
use xen_abi::xen::{VIRQ_CON_RING, VIRQ_DEBUG, VIRQ_DOM_EXC, VIRQ_TIMER};

/// `EVTCHNOP_alloc_unbound`: a port of `dom` that `remote` may connect to. A domain does it for itself; the policy
/// domain also for a domain that is being built.
///
/// # Errors
/// `ESRCH`: no such domain. `EPERM`: not the caller's to do, or the policy links the two in no way. `ENOSPC`.
pub fn alloc_unbound<M: Machine>(env: &Env<'_, M>, caller: DomId, dom: DomId, remote: DomId) -> Result<Port, Errno> {
    let (dom, remote) = (dom.or_self(caller), remote.or_self(caller));
    let remote_label = env.domains.label(remote).ok_or(Errno::ESRCH)?;
    let control = dom != caller && caller_has(env, caller, FLAG_CONTROL);
    env.domains.with(dom, |domain| {
        let for_it = dom == caller || control && domain.is_building();
        if !for_it || !env.policy.may_event(domain.label(), remote_label) {
            return Err(Errno::EPERM);
        }
        domain.events.allocate(Binding::Unbound { remote }, VcpuId(0))
    })?
}

fn caller_has<M: Machine>(env: &Env<'_, M>, caller: DomId, flag: u32) -> bool {
    env.domains.label(caller).is_some_and(|label| env.policy.has_flag(label, flag))
}

/// `EVTCHNOP_bind_interdomain`: connects a new port of the caller to an unbound one of `remote`. The new port is
/// pending at once, since the other end may have sent before.
///
/// # Errors
/// `ESRCH`: no such domain. `EINVAL`: its port does not wait for the caller. `EPERM`: by the policy. `ENOSPC`.
pub fn bind_interdomain<M: Machine>(
    env: &Env<'_, M>,
    caller: DomId,
    remote: DomId,
    remote_port: Port,
) -> Result<(Port, Option<Wake>), Errno> {
    let remote = remote.or_self(caller);
    env.domains.with_pair(caller, remote, |pair| {
        // The caller too: another CPU may have ended it while it was on its way here.
        if pair.remote().is_dying() || pair.local().is_dying() {
            return Err(Errno::ESRCH);
        }
        if pair.remote().events.binding(remote_port)? != (Binding::Unbound { remote: caller }) {
            return Err(Errno::EINVAL);
        }
        if !env.policy.may_event(pair.local().label(), pair.remote().label()) {
            return Err(Errno::EPERM);
        }
        let near = Binding::Interdomain { remote, port: remote_port.0 as u16 };
        let port = pair.local().events.allocate(near, VcpuId(0))?;
        let far = Binding::Interdomain { remote: caller, port: port.0 as u16 };
        pair.remote().events.channel_mut(remote_port)?.binding = far;
        Ok((port, pair.local().deliver(port, env.machine)))
    })?
}

/// `EVTCHNOP_bind_virq`: a port for a virtual interrupt. `VIRQ_CON_RING` is for the domain with the log flag,
/// `VIRQ_DOM_EXC` for the policy domain, the timer and debug ones for everybody.
///
/// # Errors
/// `EINVAL`: no such interrupt, or a global one for another vCPU than 0. `ENOENT`: no such vCPU. `EPERM`. `EEXIST`:
/// bound already. `ENOSPC`.
pub fn bind_virq<M: Machine>(env: &Env<'_, M>, caller: DomId, virq: u32, vcpu: u32) -> Result<Port, Errno> {
    env.domains.with(caller, |domain| {
        if virq >= NR_VIRQS || (is_global_virq(virq as u8) && vcpu != 0) {
            return Err(Errno::EINVAL);
        }
        let vcpu = domain.vcpu_id(vcpu).ok_or(Errno::ENOENT)?;
        let allowed = match virq {
            VIRQ_TIMER | VIRQ_DEBUG => true,
            VIRQ_CON_RING => env.policy.has_flag(domain.label(), FLAG_LOG),
            VIRQ_DOM_EXC => env.policy.has_flag(domain.label(), FLAG_CONTROL),
            _ => false,
        };
        if !allowed {
            return Err(Errno::EPERM);
        }
        domain.events.bind_interrupt(Binding::Virq(virq as u8), vcpu)
    })?
}

/// `EVTCHNOP_bind_ipi`.
///
/// # Errors
/// `ENOENT`: no such vCPU. `ENOSPC`.
pub fn bind_ipi<M: Machine>(env: &Env<'_, M>, caller: DomId, vcpu: u32) -> Result<Port, Errno> {
    env.domains.with(caller, |domain| {
        let vcpu = domain.vcpu_id(vcpu).ok_or(Errno::ENOENT)?;
        domain.events.allocate(Binding::Ipi, vcpu)
    })?
}

/// `EVTCHNOP_bind_pirq`: a port for a physical interrupt. The caller of this function has made sure that the pirq was
/// mapped for this domain (`PHYSDEVOP_map_pirq`): `EPERM` otherwise.
///
/// # Errors
/// `EINVAL`: no such pirq. `EEXIST`: bound already. `ENOSPC`.
pub fn bind_pirq<M: Machine>(env: &Env<'_, M>, caller: DomId, pirq: Pirq) -> Result<Port, Errno> {
    if pirq.0 as usize >= PIRQS_MAX {
        return Err(Errno::EINVAL);
    }
    env.domains.with(caller, |domain| domain.events.bind_interrupt(Binding::Pirq(pirq.0 as u16), VcpuId(0)))?
}

/// `EVTCHNOP_close`: frees a port. A connected port's other end becomes unbound, waiting for the caller, as on Xen.
/// Tells what the port was bound to, for those who keep something behind it (a pirq's mask state).
///
/// # Errors
/// `EINVAL`: no such port, or not in use.
pub fn close<M: Machine>(env: &Env<'_, M>, caller: DomId, port: Port) -> Result<Binding, Errno> {
    let binding = env.domains.with(caller, |domain| close_alone(domain, port, env.machine))??;
    let Binding::Interdomain { remote, .. } = binding else {
        return Ok(binding);
    };
    env.domains.with_pair(caller, remote, |pair| close_both(pair, port, env.machine))?
}

/// Closes a port unless it is connected; tells what it was bound to.
fn close_alone<M: Machine>(domain: &mut Domain, port: Port, machine: &M) -> Result<Binding, Errno> {
    let binding = domain.events.binding(port)?;
    match binding {
        Binding::Free | Binding::Reserved => return Err(Errno::EINVAL),
        Binding::Interdomain { .. } => {}
        _ => domain.events.vacate(port, machine),
    }
    Ok(binding)
}

fn close_both<M: Machine>(pair: &mut Pair<'_>, port: Port, machine: &M) -> Result<Binding, Errno> {
    let binding = pair.local().events.binding(port)?;
    let Binding::Interdomain { port: far, .. } = binding else {
        return close_alone(pair.local(), port, machine);
    };
    let caller = pair.local().id();
    let far = Port(u32::from(far));
    // A port may be connected to its own domain; then both ends are found here, one after the other.
    pair.local().events.vacate(port, machine);
    let back = Binding::Interdomain { remote: caller, port: port.0 as u16 };
    if pair.remote().events.binding(far)? == back {
        pair.remote().events.channel_mut(far)?.binding = Binding::Unbound { remote: caller };
    }
    Ok(binding)
}

/// `EVTCHNOP_reset`, and the end of a domain: closes ports from `*next` on, up to `ports` of them. What was bound is
/// told to `closed`.
///
/// # Errors
/// `ESRCH`: no such domain.
pub fn close_slice<M: Machine>(
    env: &Env<'_, M>,
    dom: DomId,
    next: &mut u32,
    ports: u32,
    closed: impl FnMut(Binding),
) -> Result<Progress, Errno> {
    let limit = env.domains.with(dom, |domain| domain.events.channels.len() as u32)?;
    let end = limit.min(next.saturating_add(ports));
    (*next..end).filter_map(|port| close(env, dom, Port(port)).ok()).for_each(closed);
    *next = end;
    Ok(if end == limit { Progress::Done } else { Progress::More })
}

/// `EVTCHNOP_send`: makes the other end pending. Into an unbound port it goes nowhere, as on Xen.
///
/// # Errors
/// `EINVAL`: not a port that can send.
#[inline(always)] // in the way of each event
pub fn send<M: Machine>(env: &Env<'_, M>, caller: DomId, port: Port) -> Result<Option<Wake>, Errno> {
    let mut place = env.domains.lock(caller)?;
    let domain = DomainTable::named(&mut place, caller)?;
    let (remote, far) = match domain.events.binding(port)? {
        Binding::Interdomain { remote, port: far } => (remote, Port(u32::from(far))),
        Binding::Ipi => (caller, port),
        // Nobody is called that.
        Binding::Unbound { .. } => (DomId::SELF, port),
        _ => return Err(Errno::EINVAL),
    };
    domain.account.events_sent = domain.account.events_sent.wrapping_add(1);
    if remote == caller {
        return Ok(domain.deliver(far, env.machine));
    }
    drop(place);
    // A peer that is gone, or does not point back, hears nothing.
    let Ok(mut place) = env.domains.lock(remote) else { return Ok(None) };
    match DomainTable::named(&mut place, remote) {
        Ok(domain) if domain.events.leads_to(far, caller, port) => Ok(domain.deliver(far, env.machine)),
        _ => Ok(None),
    }
}

/// Raises a virtual interrupt for a domain, if it bound it. For the hypervisor itself.
#[inline(never)]
pub fn raise_virq<M: Machine>(env: &Env<'_, M>, dom: DomId, virq: u32, vcpu: VcpuId) -> Option<Wake> {
    raise(env, dom, Binding::Virq(virq as u8), vcpu)
}

/// Raises a physical interrupt for a domain, if it bound it. For the hypervisor itself.
#[inline(always)] // in the way of each interrupt
pub fn raise_pirq<M: Machine>(env: &Env<'_, M>, dom: DomId, pirq: Pirq) -> Option<Wake> {
    raise(env, dom, Binding::Pirq(pirq.0 as u16), VcpuId(0))
}

#[inline(always)]
fn raise<M: Machine>(env: &Env<'_, M>, dom: DomId, interrupt: Binding, vcpu: VcpuId) -> Option<Wake> {
    let mut place = env.domains.lock(dom).ok()?;
    let domain = DomainTable::named(&mut place, dom).ok()?;
    let port = domain.events.interrupt_port(interrupt, vcpu)?;
    domain.deliver(port, env.machine)
}

/// `EVTCHNOP_status`: of an own port; of any for the policy domain.
///
/// # Errors
/// `ESRCH`: no such domain. `EPERM`. `EINVAL`: no such port.
pub fn status<M: Machine>(env: &Env<'_, M>, caller: DomId, dom: DomId, port: Port) -> Result<Channel, Errno> {
    let dom = dom.or_self(caller);
    let allowed = dom == caller || caller_has(env, caller, FLAG_CONTROL);
    env.domains.with(dom, |domain| if allowed { domain.events.channel(port) } else { Err(Errno::EPERM) })?
}

/// `EVTCHNOP_unmask`.
///
/// # Errors
/// `EINVAL`: no such port.
pub fn unmask<M: Machine>(env: &Env<'_, M>, caller: DomId, port: Port) -> Result<Option<Wake>, Errno> {
    env.domains.with(caller, |domain| {
        let channel = domain.events.channel(port)?;
        let signal = domain.events.shared.unmask(port, channel.vcpu, env.machine);
        Ok(domain.wake_for(channel.vcpu, signal, port))
    })?
}

/// `EVTCHNOP_bind_vcpu`: which vCPU a port notifies.
///
/// # Errors
/// `ENOENT`: no such vCPU. `EINVAL`: no such port, or one that is tied to its vCPU.
pub fn bind_vcpu<M: Machine>(env: &Env<'_, M>, caller: DomId, port: Port, vcpu: u32) -> Result<(), Errno> {
    env.domains.with(caller, |domain| {
        let vcpu = domain.vcpu_id(vcpu).ok_or(Errno::ENOENT)?;
        let channel = domain.events.channel_mut(port)?;
        match channel.binding {
            Binding::Unbound { .. } | Binding::Interdomain { .. } | Binding::Pirq(_) => {}
            Binding::Virq(virq) if is_global_virq(virq) => {}
            Binding::Free | Binding::Reserved | Binding::Virq(_) | Binding::Ipi => return Err(Errno::EINVAL),
        }
        channel.vcpu = vcpu;
        Ok(())
    })?
}
