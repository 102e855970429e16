//! Which domain runs next on this CPU: the glue between traps, `hv_core::sched`, timers and the reaper.
//!
//! Every way out of the hypervisor asks [`resume`] for the frame to go on with. As long as nothing happened that the
//! scheduler must see (`PerCpu::attention`), that is the same domain's again, at the cost of one test.

use super::{Current, ending, vcpus};
use crate::cpu::percpu::{self, PerCpu};
use crate::time::{self, Instant};
use crate::{cpu::descriptors::scrub_segments, system::system, traps::Frame};
use crate::{logging, mm};
use hv_core::ids::{Slot, VcpuId};
use hv_core::sched::{Preempt, TimerKind, VcpuKey};
use hv_core::{authority::table::FLAG_LOG, domain::Wake, events};
use x86_64::PhysAddr;
use xen_abi::xen::{VIRQ_CON_RING, VIRQ_TIMER};

/// Native domains have one vCPU.
const VCPU: VcpuId = VcpuId(0);

/// Between two slices of returning what the dead had, while somebody runs.
const REAP_INTERVAL_NS: u64 = 1_000_000;

fn now() -> u64 {
    time::now().as_nanos()
}

/// The frame to go on with.
#[inline]
pub fn resume() -> *mut Frame {
    match percpu::with(|cpu| if cpu.attention == 0 { Some(cpu.frame()) } else { None }) {
        Some(frame) => frame,
        None => reschedule(),
    }
}

/// The timer's interrupt: the slice is over, or a deadline has come.
pub fn timer() {
    percpu::with(|cpu| {
        cpu.alarm = Instant::NEVER;
        cpu.attention = 1;
    });
}

/// A vCPU's wait has ended.
pub fn wake(wake: Wake) {
    percpu::with(|cpu| {
        cpu.timers.cancel(wake.into(), TimerKind::Poll);
        make_runnable_on(cpu, wake.into());
    });
}

/// An admitted vCPU can run.
pub fn make_runnable(slot: Slot) {
    percpu::with(|cpu| make_runnable_on(cpu, VcpuKey::new(slot, VCPU)));
}

fn make_runnable_on(cpu: &mut PerCpu, key: VcpuKey) {
    match cpu.queue.wake(key, now()) {
        Preempt::Yes => cpu.attention = 1,
        // Who ran alone has an end of slice now.
        Preempt::No => set_alarm(cpu),
    }
}

/// The current domain gives the CPU up and cannot run until it is woken.
pub fn current_waits() {
    percpu::with(|cpu| {
        if let Some(current) = cpu.current {
            cpu.queue.sleep(VcpuKey::new(current.slot, VCPU), now());
        }
        cpu.attention = 1;
    });
}

/// The current domain lets others go first.
pub fn yield_now() {
    percpu::with(|cpu| {
        cpu.queue.yield_now(now());
        cpu.attention = 1;
    });
}

/// Sets (`Some`) or cancels a deadline of the current domain.
pub fn set_deadline(kind: TimerKind, when: Option<Instant>) {
    percpu::with(|cpu| {
        let Some(current) = cpu.current else { return };
        let key = VcpuKey::new(current.slot, VCPU);
        match when {
            Some(when) => cpu.timers.set(key, kind, when.as_nanos()),
            None => cpu.timers.cancel(key, kind),
        }
        set_alarm(cpu);
    });
}

/// Makes sure that the timer's interrupt comes when the queue or a deadline wants it. An alarm that comes too early
/// does no harm, so a later one is not worth reprogramming for.
fn set_alarm(cpu: &mut PerCpu) {
    let deadline = cpu.timers.next_ns().unwrap_or(u64::MAX);
    set_alarm_at(cpu, Instant::from_nanos(cpu.queue.until_ns().min(deadline)));
}

fn set_alarm_at(cpu: &mut PerCpu, wanted: Instant) {
    if wanted < cpu.alarm {
        cpu.alarm = wanted;
        crate::apic::set_timer(wanted);
    }
}

/// Looks at everything that may have happened, and chooses.
#[cold]
fn reschedule() -> *mut Frame {
    percpu::with(|cpu| {
        if let Some(current) = cpu.current.take() {
            vcpus::add_hypercalls(current.slot, core::mem::take(&mut cpu.hypercalls));
        }
    });
    loop {
        percpu::with(|cpu| cpu.attention = 0);
        expire_deadlines();
        if logging::take_news() {
            super::raise_for_flag(FLAG_LOG, VIRQ_CON_RING);
        }
        let reaping = ending::slice();
        if let Some(frame) = percpu::with(choose) {
            if reaping {
                // Who runs alone and never waits would keep what the dead had for ever.
                percpu::with(|cpu| set_alarm_at(cpu, Instant::from_nanos(now() + REAP_INTERVAL_NS)));
            }
            return frame;
        }
        if !reaping {
            idle();
        }
    }
}

/// Takes the next domain from the queue and loads it. `None`: nobody can run.
fn choose(cpu: &mut PerCpu) -> Option<*mut Frame> {
    let slot = cpu.queue.pick(now()).run?.slot();
    let frame = vcpus::frame(slot);
    cpu.current = Some(Current { domain: vcpus::domain(slot), slot });
    cpu.set_frame(frame);
    if cpu.loaded != Some(slot) {
        mm::load_root(PhysAddr::new(vcpus::root(slot).0));
        cpu.loaded = Some(slot);
        vcpus::load_ports(slot, cpu.descriptors);
        scrub_segments();
    }
    set_alarm(cpu);
    Some(frame)
}

/// Raises what is due.
fn expire_deadlines() {
    while let Some(expired) = percpu::with(|cpu| cpu.timers.expire(now())) {
        let (domain, vcpu) = (vcpus::domain(expired.vcpu.slot()), expired.vcpu.vcpu());
        let woken = match expired.kind {
            TimerKind::Singleshot => events::raise_virq(&system().env(), domain, VIRQ_TIMER, vcpu),
            TimerKind::Poll => system().domains.with(domain, |domain| domain.end_wait(vcpu)).ok().flatten(),
        };
        if let Some(woken) = woken {
            wake(woken);
        }
    }
}

/// Waits for an interrupt. The only place where interrupts are let in.
fn idle() {
    percpu::with(|cpu| {
        set_alarm(cpu);
        cpu.idle = 1;
    });
    x86_64::instructions::interrupts::enable_and_hlt();
    x86_64::instructions::interrupts::disable();
    percpu::with(|cpu| cpu.idle = 0);
}

/// A domain becomes schedulable, and runs when [`make_runnable`] or a [`Wake`] says so.
pub fn admit(slot: Slot, weight: u32, cap: u32) {
    percpu::with(|cpu| cpu.queue.add(VcpuKey::new(slot, VCPU), weight, cap));
}

/// A domain is no longer schedulable; its page tables are not loaded any more. The scheduler looks at once.
pub fn dismiss(slot: Slot) {
    percpu::with(|cpu| {
        let key = VcpuKey::new(slot, VCPU);
        cpu.queue.sleep(key, now());
        vcpus::add_run_ns(slot, cpu.queue.run_ns(key));
        cpu.queue.remove(key, now());
        cpu.attention = 1;
        if cpu.loaded == Some(slot) {
            mm::load_root(mm::hypervisor_root());
            cpu.loaded = None;
        }
    });
}

/// Forgets a dying domain's deadlines.
pub fn forget_deadlines(slot: Slot) {
    percpu::with(|cpu| {
        for kind in [TimerKind::Singleshot, TimerKind::Poll] {
            cpu.timers.cancel(VcpuKey::new(slot, VCPU), kind);
        }
    });
}

/// Nanoseconds that a domain has run, and hypercalls that it has made.
pub fn usage(slot: Slot) -> (u64, u64) {
    percpu::with(|cpu| {
        cpu.queue.charge(now());
        let fresh = if cpu.current.is_some_and(|current| current.slot == slot) { cpu.hypercalls } else { 0 };
        let run_ns = vcpus::run_ns(slot) + cpu.queue.run_ns(VcpuKey::new(slot, VCPU));
        (run_ns, vcpus::hypercalls(slot) + fresh)
    })
}
