//! `sched_op` (Xen public `sched.h`): yielding, waiting, ending.

use super::{Call, DomId, Errno, Gpa, OK, Outcome, domain, result, system, user, wake};
use crate::irq;
use crate::time::{self, Instant};
use core::sync::atomic::Ordering;
use heapless::Vec;
use hv_core::ids::{Port, VcpuId};
use hv_core::{domain::Death, events, sched::TimerKind, sched::VcpuKey};
use xen_abi::{native::SCHEDOP_SEND_AND_BLOCK, sched as abi, xen::HYPERVISOR_SCHED_OP};
use zerocopy::IntoBytes;

/// Ports of one poll at most.
const POLL_PORTS_MAX: usize = 128;

/// Giving way and waiting for events are the paths that matter; all else is apart.
pub extern "C" fn server(command: u64, structure: u64, _: u64, _: u64, _: u64) -> u64 {
    match command {
        abi::SCHEDOP_YIELD => {
            domain::yield_now();
            0
        }
        abi::SCHEDOP_BLOCK => block(),
        SCHEDOP_SEND_AND_BLOCK => send_and_block(Port(structure as u32)),
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

#[inline(never)]
fn block() -> u64 {
    let (system, caller) = (system(), domain::current());
    rearm(caller);
    let waits = system.domains.with(caller, |domain| domain.block(VcpuId(0), &system.machine));
    if waits == Ok(true) {
        domain::current_waits();
    }
    result(waits.map(drop))
}

/// An event for the peer, and nothing to do until it answers.
#[inline(never)]
fn send_and_block(port: Port) -> u64 {
    let caller = domain::current();
    rearm(caller);
    let sent = events::send_and_block(&system().env(), caller, port);
    result(sent.map(|sent| match sent.wake {
        Some(woken) if sent.waits => domain::hand_over(woken),
        Some(woken) => wake(Some(woken)),
        None if sent.waits => domain::current_waits(),
        None => {}
    }))
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
    if irq::ANY_WAITING.load(Ordering::Relaxed) {
        rearm_those_of(caller);
    }
}

#[inline(never)]
fn rearm_those_of(caller: DomId) {
    for pirq in irq::rearm(caller) {
        wake(events::raise_pirq(&system().env(), caller, pirq));
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
