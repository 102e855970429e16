//! `event_channel_op` (Xen public `event_channel.h`, 2-level interface): copying in, `hv_core::events`, copying out.

use super::{Call, DomId, Errno, OK, Outcome, wake};
use crate::irq::{self, Gate};
use crate::logging::{SerialOwner, set_serial_owner};
use hv_core::events::{self, Binding, Channel, EvtchnOp};
use hv_core::ids::{Pirq, Port};
use hv_core::space::Progress;
use xen_abi::event_channel as abi;
use xen_abi::xen::VIRQ_CON_RING;

/// Ports closed in one slice of a reset.
const RESET_SLICE: u32 = 128;

#[inline(never)]
pub fn serve(call: &Call) -> Outcome {
    match EvtchnOp::try_from(call.command())? {
        EvtchnOp::Send => {
            call.input(|op: abi::EvtchnSend| events::send(&call.env(), call.caller, Port(op.port)).map(wake))
        }
        other => serve_other(call, other),
    }
}

/// All but sending, apart from the path that matters.
#[inline(never)]
fn serve_other(call: &Call, operation: EvtchnOp) -> Outcome {
    let (env, caller) = (&call.env(), call.caller);
    match operation {
        EvtchnOp::Send => Err(Errno::ENOSYS),
        EvtchnOp::Unmask => call.input(|op: abi::EvtchnUnmask| events::unmask(env, caller, Port(op.port)).map(wake)),
        EvtchnOp::AllocUnbound => call.in_out(|op: &mut abi::EvtchnAllocUnbound| {
            events::alloc_unbound(env, caller, DomId(op.dom), DomId(op.remote_dom)).map(|port| op.port = port.0)
        }),
        EvtchnOp::BindInterdomain => call.in_out(|op: &mut abi::EvtchnBindInterdomain| {
            let (port, woken) = events::bind_interdomain(env, caller, DomId(op.remote_dom), Port(op.remote_port))?;
            wake(woken);
            op.local_port = port.0;
            Ok(())
        }),
        EvtchnOp::BindVirq => call.in_out(|op: &mut abi::EvtchnBindVirq| {
            op.port = events::bind_virq(env, caller, op.virq, op.vcpu)?.0;
            if op.virq == VIRQ_CON_RING {
                set_serial_owner(SerialOwner::Console);
            }
            Ok(())
        }),
        EvtchnOp::BindPirq => call.in_out(|op: &mut abi::EvtchnBindPirq| {
            irq::check(caller, Pirq(op.pirq))?;
            op.port = events::bind_pirq(env, caller, Pirq(op.pirq))?.0;
            irq::set_bound(caller, Pirq(op.pirq), Gate::Open);
            Ok(())
        }),
        EvtchnOp::BindIpi => call
            .in_out(|op: &mut abi::EvtchnBindIpi| events::bind_ipi(env, caller, op.vcpu).map(|port| op.port = port.0)),
        EvtchnOp::BindVcpu => {
            call.input(|op: abi::EvtchnBindVcpu| events::bind_vcpu(env, caller, Port(op.port), op.vcpu))
        }
        EvtchnOp::Close => call.input(|op: abi::EvtchnClose| {
            events::close(env, caller, Port(op.port)).map(|binding| closed(caller, binding))
        }),
        EvtchnOp::Status => call.in_out(|op: &mut abi::EvtchnStatus| {
            events::status(env, caller, DomId(op.dom), Port(op.port)).map(|status| describe(status, op))
        }),
        EvtchnOp::Reset => reset(call),
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
    let op: abi::EvtchnReset = call.read(call.structure())?;
    call.must_be_own(op.dom)?;
    let mut next = call.progress()?;
    let undo = |binding| closed(call.caller, binding);
    match events::close_slice(&call.env(), call.caller, &mut next, RESET_SLICE, undo)? {
        Progress::More => call.again(next),
        Progress::Done => OK,
    }
}

/// Undoes what stood behind a closed port. Whoever gives up the log's interrupt gives the serial line back.
pub fn closed(dom: DomId, binding: Binding) {
    match binding {
        Binding::Pirq(pirq) => irq::set_bound(dom, Pirq(u32::from(pirq)), Gate::Masked),
        Binding::Virq(virq) if u32::from(virq) == VIRQ_CON_RING => set_serial_owner(SerialOwner::Hypervisor),
        _ => {}
    }
}
