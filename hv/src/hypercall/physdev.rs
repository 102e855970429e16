//! `physdev_op` (Xen public `physdev.h`): interrupts of the caller's own devices and lines.

use super::{Call, OK, Outcome, wake};
use crate::irq;
use hv_core::error::Errno;
use hv_core::events;
use hv_core::ids::{DomId, Pirq};
use xen_abi::physdev as abi;

#[inline(never)]
pub fn serve(call: &Call) -> Outcome {
    match call.command() {
        abi::PHYSDEVOP_EOI => {
            let op: abi::PhysdevEoi = call.read(call.structure())?;
            if irq::end_of_interrupt(call.caller, Pirq(op.irq))? {
                wake(events::raise_pirq(&call.env(), call.caller, Pirq(op.irq)));
            }
            OK
        }
        abi::PHYSDEVOP_MAP_PIRQ => {
            let mut op: abi::PhysdevMapPirq = call.read_in_out(call.structure())?;
            own(call, op.domid)?;
            let label = call.env().domains.label(call.caller).ok_or(Errno::ESRCH)?;
            let pirq = irq::map(call.caller, label, &op)?;
            op.pirq = pirq.0 as i32;
            call.write(call.structure(), &op)?;
            OK
        }
        abi::PHYSDEVOP_UNMAP_PIRQ => {
            let op: abi::PhysdevUnmapPirq = call.read(call.structure())?;
            own(call, op.domid)?;
            irq::unmap(call.caller, Pirq(u32::try_from(op.pirq).map_err(|_| Errno::EINVAL)?))?;
            OK
        }
        abi::PHYSDEVOP_IRQ_STATUS_QUERY => {
            let mut op: abi::PhysdevIrqStatusQuery = call.read(call.structure())?;
            op.flags = irq::status(call.caller, Pirq(op.irq))?;
            call.write(call.structure(), &op)?;
            OK
        }
        _ => Err(Errno::ENOSYS),
    }
}

fn own(call: &Call, domid: u16) -> Result<(), Errno> {
    if DomId(domid).or_self(call.caller) == call.caller { Ok(()) } else { Err(Errno::EPERM) }
}
