//! `vcpu_op` (Xen public `vcpu.h`): timers, and where the vCPU's part of shared info is.

use super::{Call, Errno, Gpa, OK, Outcome, domain, system, user};
use crate::{time, time::Instant, vm};
use hv_core::{ids::Gfn, ids::VcpuId, sched::TimerKind, sched::singleshot};
use xen_abi::vcpu as abi;

pub fn serve(call: &Call) -> Outcome {
    let [command, vcpu, structure, ..] = call.args;
    let number = u32::try_from(vcpu).map_err(|_| Errno::ENOENT)?;
    system().domains.with(call.caller, |domain| domain.vcpu_id(number))?.ok_or(Errno::ENOENT)?;
    match command {
        abi::VCPUOP_IS_UP => return Ok(1),
        abi::VCPUOP_STOP_PERIODIC_TIMER => {}
        abi::VCPUOP_REGISTER_RUNSTATE_MEMORY_AREA => {
            let op: abi::VcpuRegisterRunstateMemoryArea = user::read(Gpa(structure))?;
            vm::register_runstate(call.caller.slot(), VcpuId(number as u8), Gpa(op.addr))?;
        }
        abi::VCPUOP_SET_SINGLESHOT_TIMER => {
            let op: abi::VcpuSetSingleshotTimer = user::read(Gpa(structure))?;
            let when = singleshot(time::now().0, op.timeout_abs_ns, op.flags)?;
            domain::set_deadline(VcpuId(number as u8), TimerKind::Singleshot, Some(Instant(when)));
        }
        abi::VCPUOP_STOP_SINGLESHOT_TIMER => domain::set_deadline(VcpuId(number as u8), TimerKind::Singleshot, None),
        abi::VCPUOP_REGISTER_VCPU_INFO => {
            let op: abi::VcpuRegisterVcpuInfo = user::read(Gpa(structure))?;
            hv_core::domain::register_vcpu_info(&system().env(), call.caller, number, Gfn(op.mfn), op.offset)?;
            let vcpu = VcpuId(number as u8);
            let info = system().domains.with(call.caller, |domain| domain.events.shared.vcpu_info(vcpu))?;
            vm::move_info(call.caller.slot(), vcpu, info);
        }
        _ => return Err(Errno::ENOSYS),
    }
    OK
}
