//! Hypercalls of guests: the same servers as for native domains, with the guest's addresses; and `hvm_op`.

use super::{Vm, guest, with};
use crate::hypercall::{Call, Errno, Outcome, SERVERS};
use crate::{domain, system::system};
use hv_core::ids::{DomId, Gpa};
use hv_core::{sched::VcpuKey, space::Access, space::Fault};
use xen_abi::grant_table::{GNTTABOP_COPY, GNTTABOP_MAP_GRANT_REF, GNTTABOP_UNMAP_GRANT_REF, GnttabCopy};
use xen_abi::{hvm as abi, native::SCHEDOP_SEND_AND_BLOCK, sched, xen};

/// Serves what RAX asks for. `None`: the call is to be made again.
pub fn serve(key: VcpuKey, number: u64, args: [u64; 5]) -> Option<u64> {
    domain::count_hypercall(key.slot());
    let result = guest::serve(|| dispatch(key, number, args));
    if domain::take_restart().is_some() { None } else { Some(result) }
}

fn dispatch(key: VcpuKey, number: u64, args: [u64; 5]) -> u64 {
    let [rdi, rsi, rdx, r10, r8] = args;
    match (number, rdi) {
        (xen::HYPERVISOR_SCHED_OP, sched::SCHEDOP_BLOCK) => {
            super::wait(key);
            0
        }
        (xen::HYPERVISOR_GRANT_TABLE_OP, GNTTABOP_MAP_GRANT_REF | GNTTABOP_UNMAP_GRANT_REF | GNTTABOP_COPY)
            if rdx == 1 =>
        {
            // One structure names nothing else in memory: it is served where it is, as a native domain's.
            let serve = SERVERS[xen::HYPERVISOR_GRANT_TABLE_OP as usize];
            match guest::in_one_page(Gpa(rsi), size_of::<GnttabCopy>(), Access::Write) {
                Ok(at) => guest::serve_direct(|| serve(rdi, at, 1, 0, 0)),
                Err(Fault) => serve(rdi, rsi, 1, 0, 0),
            }
        }
        // Guests have no use for these.
        (xen::HYPERVISOR_MULTICALL, _) | (xen::HYPERVISOR_SCHED_OP, SCHEDOP_SEND_AND_BLOCK) => {
            Errno::ENOSYS.to_result() as u64
        }
        _ => {
            SERVERS.get(number as usize).map_or(Errno::ENOSYS.to_result() as u64, |serve| serve(rdi, rsi, rdx, r10, r8))
        }
    }
}

/// `hvm_op` (Xen public `hvm_op.h`).
pub fn hvm_op(call: &Call) -> Outcome {
    match call.command() {
        _ if !guest::is_served() && call.caller != DomId::POLICY => Err(Errno::ENOSYS),
        abi::HVMOP_SET_PARAM => call.input(|op: abi::XenHvmParam| set_param(call.caller, &op)),
        abi::HVMOP_GET_PARAM => call.in_out(|op: &mut abi::XenHvmParam| {
            call.must_be_own(op.domid)?;
            let value = of(call.caller, |vm| vm.params.get(op.index as usize).copied())?;
            op.value = value.ok_or(Errno::EINVAL)?;
            Ok(())
        }),
        _ => Err(Errno::ENOSYS),
    }
}

/// The builder sets what the guest finds, the guest how it is told of events.
fn set_param(caller: DomId, op: &abi::XenHvmParam) -> Result<(), Errno> {
    let target = DomId(op.domid).or_self(caller);
    match op.index {
        abi::HVM_PARAM_CALLBACK_IRQ if target == caller => {
            let callback = match (op.value & abi::HVM_PARAM_CALLBACK_IRQ_TYPE_MASK) >> 56 {
                abi::HVM_PARAM_CALLBACK_TYPE_VECTOR => Some(op.value as u8),
                abi::HVM_PARAM_CALLBACK_TYPE_GSI if op.value == 0 => None,
                _ => return Err(Errno::EINVAL),
            };
            if callback.is_some_and(|vector| vector < 16) {
                return Err(Errno::EINVAL);
            }
            of(target, |vm| vm.callback = callback)
        }
        abi::HVM_PARAM_STORE_PFN
        | abi::HVM_PARAM_STORE_EVTCHN
        | abi::HVM_PARAM_CONSOLE_PFN
        | abi::HVM_PARAM_CONSOLE_EVTCHN => {
            if caller != DomId::POLICY {
                return Err(Errno::EPERM);
            }
            domain::with_building(target, |_| Ok(()))?;
            of(target, |vm| vm.params.get_mut(op.index as usize).map(|param| *param = op.value)).map(drop)
        }
        _ => Err(Errno::EINVAL),
    }
}

/// Acts on the machine of a domain. `ENOSYS`: it has none.
fn of<R>(domain: DomId, act: impl FnOnce(&mut Vm) -> R) -> Result<R, Errno> {
    let slot = system().domains.with(domain, |domain| domain.slot())?;
    with(slot, act).ok_or(Errno::ENOSYS)
}
