//! `vcpu_op`: the one-shot timer.

use xen_abi::vcpu as abi;
use xen_abi::xen::HYPERVISOR_VCPU_OP;

use crate::errno::Result;

fn op<T>(command: u64, structure: Option<&mut T>) -> Result<()> {
    let address = structure.map_or(0, |structure| core::ptr::from_mut(structure) as u64);
    // SAFETY: the hypervisor only reads the structure.
    unsafe { super::call(HYPERVISOR_VCPU_OP, [command, 0, address, 0, 0]) }.map(drop)
}

/// Raises `VIRQ_TIMER` at `deadline_ns` of system time, instead of at the moment set before.
pub fn set_singleshot_timer(deadline_ns: u64) -> Result<()> {
    let mut structure = abi::VcpuSetSingleshotTimer { timeout_abs_ns: deadline_ns, ..Default::default() };
    op(abi::VCPUOP_SET_SINGLESHOT_TIMER, Some(&mut structure))
}

/// Takes the timer back.
pub fn stop_singleshot_timer() -> Result<()> {
    op::<()>(abi::VCPUOP_STOP_SINGLESHOT_TIMER, None)
}
