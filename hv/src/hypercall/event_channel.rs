//! `event_channel_op` (Xen public `event_channel.h`, 2-level interface): copying in, `hv_core::events`, copying out.

use super::{Call, DomId, Errno, Gpa, OK, Outcome, domain, result, system, user, wake};
use crate::irq::{self, Gate};
use crate::logging;
use core::sync::atomic::Ordering;
use hv_core::domain::Wake;
use hv_core::events::{self, Binding, Channel};
use hv_core::ids::{Pirq, Port};
use hv_core::space::Progress;
use xen_abi::event_channel::{self as abi, EVTCHNOP_SEND};
use xen_abi::xen::{HYPERVISOR_EVENT_CHANNEL_OP, VIRQ_CON_RING};

/// Ports closed in one slice of a reset.
const RESET_SLICE: u32 = 128;

/// Serves an entry of a multicall.
pub extern "C" fn server(command: u64, structure: u64, _: u64, _: u64, _: u64) -> u64 {
    if command == EVTCHNOP_SEND { send(structure, wake) } else { others(command, structure) }
}

/// Serves SYSCALL, after which nothing more is done for the caller. Sending is the path that matters; all else is apart.
pub extern "C" fn serve_last(command: u64, structure: u64, _: u64, _: u64, _: u64) -> u64 {
    if command == EVTCHNOP_SEND { send(structure, domain::wake_at_last) } else { others(command, structure) }
}

#[inline(always)]
fn send(structure: u64, wake: impl FnOnce(Option<Wake>)) -> u64 {
    let op = user::read::<abi::EvtchnSend>(Gpa(structure)).map_err(Errno::from);
    result(op.and_then(|op| events::send(&system().env(), domain::current(), Port(op.port)).map(wake)))
}

#[inline(never)]
fn others(command: u64, structure: u64) -> u64 {
    super::answer(HYPERVISOR_EVENT_CHANNEL_OP, [command, structure, 0, 0, 0], |call| serve(call, command))
}

/// What is not here is not provided, the whole FIFO interface first of all.
fn serve(call: &Call, command: u64) -> Outcome {
    let (env, caller) = (&system().env(), call.caller);
    match command {
        abi::EVTCHNOP_UNMASK => {
            call.input(|op: abi::EvtchnUnmask| events::unmask(env, caller, Port(op.port)).map(wake))
        }
        abi::EVTCHNOP_ALLOC_UNBOUND => call.in_out(|op: &mut abi::EvtchnAllocUnbound| {
            events::alloc_unbound(env, caller, DomId(op.dom), DomId(op.remote_dom)).map(|port| op.port = port.0)
        }),
        abi::EVTCHNOP_BIND_INTERDOMAIN => call.in_out(|op: &mut abi::EvtchnBindInterdomain| {
            let (port, woken) = events::bind_interdomain(env, caller, DomId(op.remote_dom), Port(op.remote_port))?;
            wake(woken);
            op.local_port = port.0;
            Ok(())
        }),
        abi::EVTCHNOP_BIND_VIRQ => call.in_out(|op: &mut abi::EvtchnBindVirq| {
            op.port = events::bind_virq(env, caller, op.virq, op.vcpu)?.0;
            if op.virq == VIRQ_CON_RING {
                logging::OWN_SERIAL.store(false, Ordering::Relaxed);
            }
            Ok(())
        }),
        abi::EVTCHNOP_BIND_PIRQ => call.in_out(|op: &mut abi::EvtchnBindPirq| {
            irq::check(caller, Pirq(op.pirq))?;
            op.port = events::bind_pirq(env, caller, Pirq(op.pirq))?.0;
            irq::set_bound(caller, Pirq(op.pirq), Gate::Open);
            Ok(())
        }),
        abi::EVTCHNOP_BIND_IPI => call
            .in_out(|op: &mut abi::EvtchnBindIpi| events::bind_ipi(env, caller, op.vcpu).map(|port| op.port = port.0)),
        abi::EVTCHNOP_BIND_VCPU => {
            call.input(|op: abi::EvtchnBindVcpu| events::bind_vcpu(env, caller, Port(op.port), op.vcpu))
        }
        abi::EVTCHNOP_CLOSE => call.input(|op: abi::EvtchnClose| {
            events::close(env, caller, Port(op.port)).map(|binding| closed(caller, binding))
        }),
        abi::EVTCHNOP_STATUS => call.in_out(|op: &mut abi::EvtchnStatus| {
            events::status(env, caller, DomId(op.dom), Port(op.port)).map(|status| describe(status, op))
        }),
        abi::EVTCHNOP_RESET => reset(call),
        _ => Err(Errno::ENOSYS),
    }
}

fn describe(Channel { binding, vcpu }: Channel, op: &mut abi::EvtchnStatus) {
    use abi::EvtchnStatusDetail as Detail;
    (op.status, op.detail) = match binding {
        Binding::Free | Binding::Reserved => (abi::EVTCHNSTAT_CLOSED, Detail::default()),
        Binding::Unbound { remote } => (abi::EVTCHNSTAT_UNBOUND, Detail::of_peer(remote.0, 0)),
        Binding::Interdomain { remote, port } => {
            (abi::EVTCHNSTAT_INTERDOMAIN, Detail::of_peer(remote.0, u32::from(port)))
        }
        Binding::Pirq(pirq) => (abi::EVTCHNSTAT_PIRQ, Detail::of_number(u32::from(pirq))),
        Binding::Virq(virq) => (abi::EVTCHNSTAT_VIRQ, Detail::of_number(u32::from(virq))),
        Binding::Ipi => (abi::EVTCHNSTAT_IPI, Detail::default()),
    };
    op.vcpu = u32::from(vcpu.0);
}

/// Closes all ports, a slice a call.
fn reset(call: &Call) -> Outcome {
    let op: abi::EvtchnReset = user::read(call.structure())?;
    call.must_be_own(op.dom)?;
    let mut next = call.progress()?;
    let undo = |binding| closed(call.caller, binding);
    match events::close_slice(&system().env(), call.caller, &mut next, RESET_SLICE, undo)? {
        Progress::More => call.again(next),
        Progress::Done => OK,
    }
}

/// Undoes what stood behind a closed port. Whoever gives up the log's interrupt gives the serial line back.
pub fn closed(dom: DomId, binding: Binding) {
    match binding {
        Binding::Pirq(pirq) => irq::set_bound(dom, Pirq(u32::from(pirq)), Gate::Masked),
        Binding::Virq(virq) if u32::from(virq) == VIRQ_CON_RING => logging::OWN_SERIAL.store(true, Ordering::Relaxed),
        _ => {}
    }
}
