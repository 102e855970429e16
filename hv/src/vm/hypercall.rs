//! Hypercalls of guests: the same servers as for native domains, with the guest's addresses; and `hvm_op`.

use super::{Vm, guest, hardware::Hardware, with};
use crate::hypercall::{self, Call, Errno, NUMBERS, Outcome, Server};
use crate::{domain, domain::next_key, system::system};
use hv_core::ids::{DomId, Gpa, Slot};
use hv_core::space::Access;
use xen_abi::grant_table::{GNTTABOP_COPY, GNTTABOP_MAP_GRANT_REF, GNTTABOP_UNMAP_GRANT_REF, GnttabCopy};
use xen_abi::{hvm as abi, native::SCHEDOP_SEND_AND_BLOCK, sched, xen};

/// The servers of guests' hypercalls.
static SERVERS: [Server; NUMBERS] = {
    let mut servers = hypercall::SERVERS;
    servers[xen::HYPERVISOR_SCHED_OP as usize] = sched_op;
    servers[xen::HYPERVISOR_GRANT_TABLE_OP as usize] = grant_table_op;
    // Guests have no use for it.
    servers[xen::HYPERVISOR_MULTICALL as usize] = hypercall::none;
    servers
};

/// Serves what RAX asks for.
#[inline(always)] // in the way of each hypercall
pub fn serve(slot: Slot, number: u64, [rdi, rsi, rdx, r10, r8]: [u64; 5]) -> u64 {
    domain::count_hypercall(slot);
    match SERVERS.get(number as usize) {
        Some(serve) => serve(rdi, rsi, rdx, r10, r8),
        None => Errno::ENOSYS.to_result() as u64,
    }
}

extern "C" fn sched_op(command: u64, structure: u64, rdx: u64, r10: u64, r8: u64) -> u64 {
    match command {
        sched::SCHEDOP_BLOCK => {
            next_key().map(super::wait);
            0
        }
        // Guests have no use for it.
        SCHEDOP_SEND_AND_BLOCK => Errno::ENOSYS.to_result() as u64,
        _ => hypercall::sched::server(command, structure, rdx, r10, r8),
    }
}

/// One structure names nothing else in memory: it is served where it is, as a native domain's.
extern "C" fn grant_table_op(command: u64, array: u64, count: u64, r10: u64, r8: u64) -> u64 {
    let serve = hypercall::SERVERS[xen::HYPERVISOR_GRANT_TABLE_OP as usize];
    let may_be_near = matches!(command, GNTTABOP_MAP_GRANT_REF | GNTTABOP_UNMAP_GRANT_REF | GNTTABOP_COPY);
    if may_be_near
        && count == 1
        && let Ok(at) = guest::in_one_page(Gpa(array), size_of::<GnttabCopy>(), Access::Write)
    {
        return guest::serve_direct(|| serve(command, at, 1, r10, r8));
    }
    serve(command, array, count, r10, r8)
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
            of(target, |vm| {
                vm.callback = callback;
                // What is offered has the vector of before.
                vm.vcpus.iter_mut().for_each(|vcpu| vcpu.hardware.offer(None, false));
            })
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
