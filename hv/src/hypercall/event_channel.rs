//! `event_channel_op` (Xen public `event_channel.h`, 2-level interface): copying in, `hv_core::events`, copying out.

use super::{Answer, Call, OK, Outcome, wake};
use hv_core::error::Errno;
use hv_core::events::{self, Binding, EvtchnOp, Status};
use hv_core::ids::{DomId, Pirq, Port};
use hv_core::space::Progress;
use xen_abi::event_channel as abi;

/// Ports closed in one slice of a reset.
const RESET_SLICE: u32 = 128;

#[inline(never)]
pub fn serve(call: &Call) -> Outcome {
    match EvtchnOp::try_from(call.command())? {
        EvtchnOp::Send => {
            let op: abi::EvtchnSend = call.read(call.structure())?;
            wake(events::send(&call.env(), call.caller, Port(op.port))?);
            OK
        }
        other => serve_other(call, other),
    }
}

/// All but sending, apart from the path that matters.
#[inline(never)]
fn serve_other(call: &Call, operation: EvtchnOp) -> Outcome {
    let at = call.structure();
    match operation {
        EvtchnOp::Send => Err(Errno::ENOSYS),
        EvtchnOp::Unmask => {
            let op: abi::EvtchnUnmask = call.read(at)?;
            wake(events::unmask(&call.env(), call.caller, Port(op.port))?);
            OK
        }
        EvtchnOp::AllocUnbound => {
            let mut op: abi::EvtchnAllocUnbound = call.read_in_out(at)?;
            let port = events::alloc_unbound(&call.env(), call.caller, DomId(op.dom), DomId(op.remote_dom))?;
            op.port = port.0;
            finish(call, op)
        }
        EvtchnOp::BindInterdomain => bind_interdomain(call),
        EvtchnOp::BindVirq => {
            let mut op: abi::EvtchnBindVirq = call.read_in_out(at)?;
            op.port = events::bind_virq(&call.env(), call.caller, op.virq, op.vcpu)?.0;
            crate::domain::virq_bound(op.virq);
            finish(call, op)
        }
        EvtchnOp::BindPirq => {
            let mut op: abi::EvtchnBindPirq = call.read_in_out(at)?;
            crate::irq::check(call.caller, Pirq(op.pirq))?;
            op.port = events::bind_pirq(&call.env(), call.caller, Pirq(op.pirq))?.0;
            crate::irq::bound(call.caller, Pirq(op.pirq));
            finish(call, op)
        }
        EvtchnOp::BindIpi => {
            let mut op: abi::EvtchnBindIpi = call.read_in_out(at)?;
            op.port = events::bind_ipi(&call.env(), call.caller, op.vcpu)?.0;
            finish(call, op)
        }
        EvtchnOp::BindVcpu => {
            let op: abi::EvtchnBindVcpu = call.read(at)?;
            events::bind_vcpu(&call.env(), call.caller, Port(op.port), op.vcpu)?;
            OK
        }
        EvtchnOp::Close => {
            let op: abi::EvtchnClose = call.read(at)?;
            closed(call.caller, events::close(&call.env(), call.caller, Port(op.port))?);
            OK
        }
        EvtchnOp::Status => status(call),
        EvtchnOp::Reset => reset(call),
    }
}

/// Copies a structure back that has the port in it.
fn finish<T: zerocopy::IntoBytes + zerocopy::Immutable>(call: &Call, op: T) -> Outcome {
    call.write(call.structure(), &op)?;
    OK
}

fn bind_interdomain(call: &Call) -> Outcome {
    let mut op: abi::EvtchnBindInterdomain = call.read_in_out(call.structure())?;
    let remote = DomId(op.remote_dom);
    let (port, woken) = events::bind_interdomain(&call.env(), call.caller, remote, Port(op.remote_port))?;
    wake(woken);
    op.local_port = port.0;
    finish(call, op)
}

fn status(call: &Call) -> Outcome {
    let mut op: abi::EvtchnStatus = call.read(call.structure())?;
    let Status { binding, vcpu } = events::status(&call.env(), call.caller, DomId(op.dom), Port(op.port))?;
    let none = abi::EvtchnStatusDetail::default();
    (op.status, op.detail) = match binding {
        Binding::Free | Binding::Reserved => (abi::EVTCHNSTAT_CLOSED, none),
        Binding::Unbound { remote } => (abi::EVTCHNSTAT_UNBOUND, abi::EvtchnStatusDetail::of_peer(remote.0, 0)),
        Binding::Interdomain { remote, port } => {
            (abi::EVTCHNSTAT_INTERDOMAIN, abi::EvtchnStatusDetail::of_peer(remote.0, u32::from(port)))
        }
        Binding::Pirq(pirq) => (abi::EVTCHNSTAT_PIRQ, abi::EvtchnStatusDetail::of_number(u32::from(pirq))),
        Binding::Virq(virq) => (abi::EVTCHNSTAT_VIRQ, abi::EvtchnStatusDetail::of_number(u32::from(virq))),
        Binding::Ipi => (abi::EVTCHNSTAT_IPI, none),
    };
    op.vcpu = u32::from(vcpu.0);
    finish(call, op)
}

/// Closes all ports, a slice a call.
fn reset(call: &Call) -> Outcome {
    let op: abi::EvtchnReset = call.read(call.structure())?;
    if DomId(op.dom).or_self(call.caller) != call.caller {
        return Err(Errno::EPERM);
    }
    let mut next = call.progress()?;
    let undo = |binding| closed(call.caller, binding);
    if events::close_slice(&call.env(), call.caller, &mut next, RESET_SLICE, undo)? == Progress::More {
        call.keep_progress(next)?;
        return Ok(Answer::Again);
    }
    OK
}

/// Undoes what stood behind a closed port.
pub fn closed(dom: DomId, binding: Binding) {
    match binding {
        Binding::Pirq(pirq) => crate::irq::unbound(dom, Pirq(u32::from(pirq))),
        Binding::Virq(virq) => crate::domain::virq_unbound(u32::from(virq)),
        _ => {}
    }
}
