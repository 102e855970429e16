//! A request and the wait for its answer, or the answer and the wait for the next request, in one piece: what two domains
//! that work for each other do all day.

use super::{Binding, DomId, Port, VcpuId};
use crate::domain::{DomainTable, Env, Wait, Wake};
use crate::machine::Machine;

/// [`super::send`] and then [`block`](crate::domain::Domain::block), where the event ends a peer's wait and the caller has
/// been told of none itself. Both are locked, and all is checked, before anything is done.
///
/// `None`: it is not so simple, and nothing is done. The two apart know every case and every error.
#[inline(always)] // in the way of each request and its answer
pub fn hand_over<M: Machine>(env: &Env<'_, M>, caller: DomId, port: Port) -> Option<Wake> {
    let mut near = env.domains.lock(caller).ok()?;
    let local = DomainTable::named(&mut near, caller).ok()?;
    let Binding::Interdomain { remote, port: far } = local.events.binding(port).ok()? else { return None };
    if local.events.shared.upcall_pending(VcpuId(0), env.machine) {
        return None;
    }
    let own = local.vcpus.first_mut()?;
    // Not waited for, so not a matter of order. The caller itself is not to be had either.
    let mut there = env.domains.try_lock(remote)?;
    let peer = DomainTable::named(&mut there, remote).ok()?;
    let far = Port(u32::from(far));
    if !peer.events.leads_to(far, caller, port) {
        return None;
    }
    let vcpu = peer.events.vcpu_of(far);
    let theirs = peer.vcpus.get_mut(usize::from(vcpu.0))?;
    if theirs.wait != Wait::Blocked || !peer.events.shared.set_unmasked(far, vcpu, env.machine) {
        return None;
    }
    local.account.events_sent = local.account.events_sent.wrapping_add(1);
    own.wait = Wait::Blocked;
    Some(theirs.wake())
}
