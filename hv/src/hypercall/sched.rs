//! `sched_op` (Xen public `sched.h`): yielding, waiting, ending.

use super::{Call, DomId, Errno, Gpa, OK, Outcome, domain, result, system, user, wake};
use crate::irq;
use crate::time::{self, Instant};
use core::sync::atomic::Ordering;
use heapless::Vec;
use hv_core::domain::Death;
use hv_core::ids::{Port, VcpuId};
use hv_core::{events, events::Sent, sched::TimerKind, sched::VcpuKey};
use xen_abi::{native::SCHEDOP_SEND_AND_BLOCK, sched as abi, xen::HYPERVISOR_SCHED_OP};
use zerocopy::IntoBytes;

/// Ports of one poll at most.
const POLL_PORTS_MAX: usize = 128;

/// Serves SYSCALL, whose caller's registers are in its frame: after most of these somebody else goes on. Giving way and
/// waiting for events are the paths that matter; all else is apart.
pub extern "C" fn serve_last(command: u64, structure: u64) -> ! {
    let result = match command {
        SCHEDOP_SEND_AND_BLOCK => result(send_and_block(Port(structure as u32))),
        _ => serve(command, structure),
    };
    domain::finish_call(result)
}

/// Serves an entry of a multicall.
pub extern "C" fn server(command: u64, structure: u64, _: u64, _: u64, _: u64) -> u64 {
    match command {
        SCHEDOP_SEND_AND_BLOCK => {
            result(super::event_channel::send(domain::current(), Port(structure as u32)).and_then(|()| block()))
        }
        _ => serve(command, structure),
    }
}

#[inline(always)]
fn serve(command: u64, structure: u64) -> u64 {
    match command {
        abi::SCHEDOP_YIELD => {
            domain::yield_now();
            0
        }
        abi::SCHEDOP_BLOCK => result(block()),
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

#[inline(always)]
fn block() -> Result<(), Errno> {
    let (system, caller) = (system(), domain::current());
    rearm(caller);
    if system.domains.with(caller, |domain| domain.block(VcpuId(0), &system.machine))? {
        domain::current_waits();
    }
    Ok(())
}

/// An event for the peer, and nothing to do until it answers.
#[inline(always)]
fn send_and_block(port: Port) -> Result<(), Errno> {
    let caller = domain::current();
    rearm(caller);
    let sent = events::send_and_block(&system().env(), caller, port)?;
    if let Sent { wake: Some(woken), waits: true } = sent {
        domain::hand_over(woken);
    }
    wake(sent.wake);
    if sent.waits {
        domain::current_waits();
    }
    Ok(())
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
