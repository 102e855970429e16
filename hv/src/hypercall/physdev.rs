//! `physdev_op` (Xen public `physdev.h`): interrupts of the caller's own devices and lines.

use super::{Call, Errno, Outcome, system, wake};
use crate::irq;
use hv_core::{events, ids::Pirq};
use xen_abi::physdev as abi;

pub fn serve(call: &Call) -> Outcome {
    let (env, caller) = (&system().env(), call.caller);
    match call.command() {
        abi::PHYSDEVOP_EOI => call.input(|op: abi::PhysdevEoi| {
            if irq::end_of_interrupt(caller, Pirq(op.irq))? {
                wake(events::raise_pirq(env, caller, Pirq(op.irq)));
            }
            Ok(())
        }),
        abi::PHYSDEVOP_MAP_PIRQ => call.in_out(|op: &mut abi::PhysdevMapPirq| {
            call.must_be_own(op.domid)?;
            let label = env.domains.label(caller).ok_or(Errno::ESRCH)?;
            op.pirq = irq::map(caller, label, op)?.0 as i32;
            Ok(())
        }),
        abi::PHYSDEVOP_UNMAP_PIRQ => call.input(|op: abi::PhysdevUnmapPirq| {
            call.must_be_own(op.domid)?;
            irq::unmap(caller, Pirq(u32::try_from(op.pirq).map_err(|_| Errno::EINVAL)?))
        }),
        abi::PHYSDEVOP_IRQ_STATUS_QUERY => call.in_out(|op: &mut abi::PhysdevIrqStatusQuery| {
            irq::status(caller, Pirq(op.irq)).map(|flags| op.flags = flags)
        }),
        _ => Err(Errno::ENOSYS),
    }
}
