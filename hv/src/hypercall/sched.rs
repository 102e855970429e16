//! `sched_op` (Xen public `sched.h`): yielding, waiting, ending.

use super::{Call, DomId, Errno, Gpa, OK, Outcome, domain, result, system, user, wake};
use crate::time::{self, Instant};
use crate::{irq, traps::Frame};
use core::sync::atomic::Ordering;
use heapless::Vec;
use hv_core::domain::Death;
use hv_core::ids::{Pirq, Port, VcpuId};
use hv_core::{events, sched::TimerKind, sched::VcpuKey};
use xen_abi::{native::SCHEDOP_SEND_AND_BLOCK, sched as abi, xen::HYPERVISOR_SCHED_OP};
use zerocopy::IntoBytes;

/// Ports of one poll at most.
const POLL_PORTS_MAX: usize = 128;

/// Serves SYSCALL with `send_and_block`: an event for a peer that mostly waits, and goes on in the caller's place. Does not
/// come back: what a function must preserve is in the caller's frame, so there is nothing to restore.
pub extern "C" fn send_and_block(command: u64, port: u64) -> ! {
    if domain::ERRANDS.load(Ordering::Relaxed) == 0
        && let Some(woken) = events::hand_over(&system().env(), domain::current(), Port(port as u32))
    {
        crate::traps::entry::enter(domain::hand_over(woken))
    }
    crate::traps::entry::enter(serve_last(command, port))
}

/// Serves SYSCALL, whose caller's registers are in its frame, with a result of 0. Answers the frame to go on with.
pub extern "C" fn serve_last(command: u64, structure: u64) -> *mut Frame {
    // A `block` that does not wait is made twice, and comes to the same.
    if command == abi::SCHEDOP_BLOCK && block() == Ok(true) {
        return domain::reschedule();
    }
    domain::finish_call(server(command, structure, 0, 0, 0))
}

/// Serves an entry of a multicall: who runs next is decided after it.
pub extern "C" fn server(command: u64, structure: u64, _: u64, _: u64, _: u64) -> u64 {
    match command {
        abi::SCHEDOP_YIELD => {
            domain::yield_now();
            0
        }
        abi::SCHEDOP_BLOCK => result(block().map(drop)),
        SCHEDOP_SEND_AND_BLOCK => {
            let sent = events::send(&system().env(), domain::current(), Port(structure as u32)).map(wake);
            result(sent.and_then(|()| block()).map(drop))
        }
        _ => others(command, structure),
    }
}

#[inline(never)]
fn others(command: u64, structure: u64) -> u64 {
    super::answer(HYPERVISOR_SCHED_OP, [command, structure, 0, 0, 0], |call| match command {
        abi::SCHEDOP_POLL => poll(call),
        abi::SCHEDOP_SHUTDOWN => shutdown(user::read(call.structure())?),
        _ => Err(Errno::ENOSYS),
    })
}

/// Lets the caller wait, unless it has been told of an event; says whether it waits.
#[inline(always)]
fn block() -> Result<bool, Errno> {
    let (system, caller) = (system(), domain::current());
    rearm(caller);
    let waits = system.domains.with(caller, |domain| domain.block(VcpuId(0), &system.machine))?;
    if waits {
        domain::current_waits();
    }
    Ok(waits)
}

fn poll(call: &Call) -> Outcome {
    let op: abi::SchedPoll = user::read(call.structure())?;
    let mut numbers = [0u32; POLL_PORTS_MAX];
    let numbers = numbers.get_mut(..op.nr_ports as usize).ok_or(Errno::EINVAL)?;
    user::read_bytes(Gpa(op.ports), numbers.as_mut_bytes())?;
    let ports: Vec<Port, POLL_PORTS_MAX> = numbers.iter().map(|number| Port(*number)).collect();
    rearm(call.caller);
    let (system, vcpu) = (system(), domain::current_vcpu());
    if !system.domains.with(call.caller, |domain| domain.poll(vcpu, &ports, &system.machine))?? {
        return OK;
    }
    // What an earlier poll left is for another time.
    domain::set_deadline(vcpu, TimerKind::Poll, None);
    if op.timeout != 0 {
        let limit = Instant(op.timeout);
        if limit <= time::now() {
            let _runs_on = system.domains.with(call.caller, |domain| domain.end_poll(vcpu))?;
            return OK;
        }
        domain::set_deadline(vcpu, TimerKind::Poll, Some(limit));
    }
    domain::vcpu_waits(VcpuKey::new(call.caller.slot(), vcpu));
    OK
}

/// The caller has come back for more: its devices may interrupt again.
fn rearm(caller: DomId) {
    if domain::ERRANDS.load(Ordering::Relaxed) & domain::REARM != 0 {
        rearm_those_of(caller);
    }
}

#[inline(never)]
fn rearm_those_of(caller: DomId) {
    let mut lost = irq::rearm(caller);
    while lost != 0 {
        wake(events::raise_pirq(&system().env(), caller, Pirq(lost.trailing_zeros())));
        lost &= lost - 1;
    }
}

fn shutdown(op: abi::SchedShutdown) -> Outcome {
    let why = match op.reason {
        abi::SHUTDOWN_POWEROFF => "power off",
        abi::SHUTDOWN_REBOOT => "restart",
        abi::SHUTDOWN_CRASH => "crashed",
        abi::SHUTDOWN_WATCHDOG => "watchdog",
        // A domain that cannot be resumed does not suspend.
        _ => return Err(Errno::EINVAL),
    };
    domain::end_current(Death::new(op.reason, format_args!("shutdown: {why}")));
    OK
}
