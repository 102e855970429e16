//! `event_channel_op`.

use xen_abi::event_channel as abi;
use xen_abi::xen::HYPERVISOR_EVENT_CHANNEL_OP;
pub use xen_abi::xen::{VIRQ_CON_RING, VIRQ_DOM_EXC, VIRQ_TIMER};

use super::with;
use crate::errno::Result;
use crate::ids::{DomId, Port};

fn op<T>(command: u64, structure: &mut T) -> Result<u64> {
    // SAFETY: no event channel operation touches the domain's memory but the structure and the event bits, which are
    // atomics.
    unsafe { with(HYPERVISOR_EVENT_CHANNEL_OP, command, structure) }
}

/// Makes a port of `domain` to which `remote` may bind. For another domain than `SELF`: the policy domain, while it
/// builds it.
pub fn alloc_unbound(domain: DomId, remote: DomId) -> Result<Port> {
    let mut structure = abi::EvtchnAllocUnbound { dom: domain.0, remote_dom: remote.0, port: 0 };
    op(abi::EVTCHNOP_ALLOC_UNBOUND, &mut structure)?;
    Ok(Port(structure.port))
}

/// Binds a new port to a port that another domain allocated for us.
pub fn bind_interdomain(remote: DomId, remote_port: Port) -> Result<Port> {
    let mut structure =
        abi::EvtchnBindInterdomain { remote_dom: remote.0, remote_port: remote_port.0, ..Default::default() };
    op(abi::EVTCHNOP_BIND_INTERDOMAIN, &mut structure)?;
    Ok(Port(structure.local_port))
}

/// Binds a virtual interrupt to a new port.
pub fn bind_virq(virq: u32) -> Result<Port> {
    let mut structure = abi::EvtchnBindVirq { virq, vcpu: 0, port: 0 };
    op(abi::EVTCHNOP_BIND_VIRQ, &mut structure)?;
    Ok(Port(structure.port))
}

/// Binds a physical interrupt that was mapped before.
pub fn bind_pirq(pirq: u32) -> Result<Port> {
    let mut structure = abi::EvtchnBindPirq { pirq, flags: 0, port: 0 };
    op(abi::EVTCHNOP_BIND_PIRQ, &mut structure)?;
    Ok(Port(structure.port))
}

/// Frees a port.
pub fn close(port: Port) -> Result<()> {
    op(abi::EVTCHNOP_CLOSE, &mut abi::EvtchnClose { port: port.0 }).map(drop)
}

/// Sends an event.
#[inline]
pub fn send(port: Port) -> Result<()> {
    op(abi::EVTCHNOP_SEND, &mut abi::EvtchnSend { port: port.0 }).map(drop)
}

/// Unmasks by the hypervisor. [`crate::event::unmask`] does it without entering it.
pub fn unmask(port: Port) -> Result<()> {
    op(abi::EVTCHNOP_UNMASK, &mut abi::EvtchnUnmask { port: port.0 }).map(drop)
}

/// What a port is bound to.
pub fn status(domain: DomId, port: Port) -> Result<abi::EvtchnStatus> {
    let mut structure = abi::EvtchnStatus { dom: domain.0, port: port.0, ..Default::default() };
    op(abi::EVTCHNOP_STATUS, &mut structure)?;
    Ok(structure)
}
