//! Which domain runs next on this CPU: the glue between traps, `hv_core::sched`, timers and the reaper.
//!
//! As long as nothing happened that the scheduler must see (`PerCpu::attention`), the same domain goes on, at the cost of
//! one test; else [`reschedule`] decides. A domain that waits or gives way by a hypercall of its own comes there directly.
//!
//! Time is counted in ticks of the time stamp counter here; only what domains ask for and are told is in nanoseconds.

use super::{VcpuId, ending, events, percpu, system, vcpus};
use crate::cpu::percpu::{NOBODY, PerCpu};
use crate::time::{self, Instant, tsc};
use crate::{logging, mm, traps::Frame};
use core::sync::atomic::{AtomicU8, Ordering};
use hv_core::sched::{TimerKind, VcpuKey};
use hv_core::{authority::table::FLAG_LOG, domain::VCPUS_MAX, domain::Wake, ids::Slot};
use x86_64::instructions::interrupts;
use xen_abi::xen::{VIRQ_CON_RING, VIRQ_TIMER};

/// Between two slices of returning what the dead had, while somebody runs.
const REAP_INTERVAL_NS: u64 = 1_000_000;

/// [`PerCpu::attention`]: who runs next is to be decided.
const DECIDE: u32 = 1;
/// [`PerCpu::attention`]: who runs next has been decided, and is to be loaded.
const SWITCH: u32 = 2;
/// [`PerCpu::attention`]: a deadline may have come.
const EXPIRE: u32 = 4;
/// [`PerCpu::attention`]: the hypercall of the current domain is to be made again ([`PerCpu::restart`]).
const RESTART: u32 = 8;

/// What there is to do beside serving calls and choosing who runs next.
pub static ERRANDS: AtomicU8 = AtomicU8::new(0);
/// [`ERRANDS`]: the log has news, or a dead domain has resources.
pub const CHORES: u8 = 1;
/// [`ERRANDS`]: devices may interrupt again when their domains come back for more (`irq::rearm`).
pub const REARM: u8 = 2;

/// Whether there are chores.
fn chores() -> bool {
    ERRANDS.load(Ordering::Relaxed) & CHORES != 0
}

/// The frame to go on with after a trap.
pub fn resume() -> *mut Frame {
    percpu::with(|cpu| (cpu.attention == 0).then_some(cpu.frame)).unwrap_or_else(|| reschedule())
}

/// The frame to go on with after a hypercall whose caller's registers are in its own, and to have this result there.
pub fn finish_call(result: u64) -> *mut Frame {
    percpu::with(|cpu| {
        // SAFETY: the frame of the domain that made the call; this CPU runs the hypervisor, so nobody uses it.
        unsafe { (*cpu.frame).rax = result }
    });
    resume()
}

/// The current domain's hypercall is to be made again when it runs next.
#[cold]
pub fn restart(number: u64, args: [u64; 5]) {
    percpu::with(|cpu| {
        cpu.restart = Some((number, args));
        cpu.attention |= RESTART;
    });
}

/// Takes a [`restart`] back, if there was one.
pub fn take_restart() -> Option<(u64, [u64; 5])> {
    percpu::with(|cpu| cpu.restart.take())
}

/// Whether the domain whose hypercall is being served does not go on after it.
pub fn waits() -> bool {
    percpu::with(|cpu| !cpu.queue.is_running())
}

/// The timer's interrupt: the slice is over, or a deadline has come.
pub fn timer() {
    percpu::with(|cpu| {
        cpu.alarm = u64::MAX;
        cpu.attention |= DECIDE | EXPIRE;
    });
}

/// A vCPU's wait has ended, if it has: it runs when its turn comes.
pub fn wake(woken: Option<Wake>) {
    let Some(Wake(key)) = woken else { return };
    percpu::with(|cpu| {
        if cpu.queue.wake(key, tsc()) {
            cpu.attention |= DECIDE;
        } else {
            // Who ran alone has an end of slice now.
            set_alarm(cpu, cpu.queue.until());
        }
    });
}

/// [`wake`], where nothing is done for the current domain after it: who goes on is decided with it.
#[inline(always)] // in the way of each event and interrupt
pub fn wake_at_last(woken: Option<Wake>) {
    let Some(Wake(key)) = woken else { return };
    let decided = percpu::with(|cpu| {
        let next = cpu.queue.wake_and_pick(key, tsc(), cpu.alarm)?;
        cpu.attention |= if next == key { SWITCH } else { 0 };
        Some(())
    });
    if decided.is_none() {
        wake(woken);
    }
}

/// A vCPU's wait has ended, and the current domain's begins, whose registers are in its frame: the one goes on in the
/// other's place, if there is no more to decide than that (and there are no [`ERRANDS`], which the caller has looked at).
/// Answers the frame to go on with.
#[inline(always)] // in the way of each request and its answer
pub fn hand_over(woken: Wake) -> *mut Frame {
    let next = percpu::with(|cpu| {
        let next = cpu.queue.hand_over(woken.0, tsc())?;
        Some(load(cpu, next))
    });
    next.unwrap_or_else(|| wake_and_wait(woken))
}

/// What [`hand_over`] comes to where somebody else may be to run.
#[cold]
fn wake_and_wait(woken: Wake) -> *mut Frame {
    wake(Some(woken));
    current_waits();
    resume()
}

/// The current domain gives the CPU up and cannot run until it is woken.
pub fn current_waits() {
    percpu::with(|cpu| {
        cpu.queue.current_sleeps();
        cpu.attention |= DECIDE;
    });
}

/// A vCPU of a guest cannot run until it is woken.
pub fn vcpu_waits(key: VcpuKey) {
    percpu::with(|cpu| {
        cpu.queue.sleep(key);
        cpu.attention |= DECIDE;
    });
}

/// The current domain lets others go first.
pub fn yield_now() {
    percpu::with(|cpu| {
        cpu.queue.yield_now();
        cpu.attention |= DECIDE;
    });
}

/// Sets (`Some`) or cancels a deadline of a vCPU of the current domain.
pub fn set_deadline(vcpu: VcpuId, kind: TimerKind, when: Option<Instant>) {
    percpu::with(|cpu| {
        let key = VcpuKey::new(cpu.current.slot(), vcpu);
        match when {
            Some(when) => {
                let when = time::tsc_at(when);
                cpu.timers.set(key, kind, when);
                set_alarm(cpu, when);
            }
            None => cpu.timers.cancel(key, kind),
        }
    });
}

/// Makes sure that the timer's interrupt comes when the queue or a deadline wants it. An alarm that comes too early does no
/// harm, so a later one is not worth reprogramming for, and it is never later than the deadlines that were set before.
fn set_alarm(cpu: &mut PerCpu, wanted: u64) {
    if wanted < cpu.alarm {
        reprogram(cpu, wanted);
    }
}

#[cold]
fn reprogram(cpu: &mut PerCpu, wanted: u64) {
    cpu.alarm = wanted;
    crate::apic::set_timer(wanted);
}

/// Decides who goes on, unless that has been done. The current domain's registers are in its frame.
pub extern "C" fn reschedule() -> *mut Frame {
    let next = percpu::with(|cpu| {
        if chores() {
            return None;
        }
        let next = match cpu.attention {
            DECIDE => cpu.queue.pick_of_two(tsc(), cpu.alarm)?,
            SWITCH => cpu.queue.current()?,
            _ => return None,
        };
        cpu.attention = 0;
        Some(load(cpu, next))
    });
    next.unwrap_or_else(decide)
}

/// The same where it is not so simple.
#[cold]
fn decide() -> *mut Frame {
    let next = percpu::with(|cpu| {
        if cpu.attention & !(DECIDE | SWITCH) != 0 || chores() {
            return None;
        }
        cpu.attention = 0;
        choose(cpu)
    });
    next.unwrap_or_else(look_at_all)
}

/// The long way round.
#[cold]
fn look_at_all() -> *mut Frame {
    if let Some((number, args)) = take_restart() {
        percpu::with(|cpu| {
            // SAFETY: the frame of the domain that made the call; this CPU runs the hypervisor, so nobody uses it.
            unsafe { (*cpu.frame).restart_syscall(number, args) };
        });
    }
    loop {
        percpu::with(|cpu| cpu.attention = 0);
        ERRANDS.fetch_and(!CHORES, Ordering::Relaxed);
        expire_deadlines();
        percpu::with(|cpu| set_alarm(cpu, cpu.timers.next().unwrap_or(u64::MAX)));
        if logging::NEWS.swap(false, Ordering::Relaxed) {
            super::raise_for_flag(FLAG_LOG, VIRQ_CON_RING);
        }
        let reaping = ending::slice();
        if let Some(frame) = percpu::with(choose) {
            if reaping {
                // Who runs alone and never waits would keep what the dead had for ever.
                ERRANDS.fetch_or(CHORES, Ordering::Relaxed);
                let next = time::tsc_at(time::now().plus_nanos(REAP_INTERVAL_NS));
                percpu::with(|cpu| set_alarm(cpu, next));
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
    let next = cpu.queue.pick(tsc());
    set_alarm(cpu, cpu.queue.until());
    next.map(|next| load(cpu, next))
}

/// Makes a domain the current one. Answers its registers, to be entered with.
#[inline(always)] // in the way of each switch
fn load(cpu: &mut PerCpu, next: VcpuKey) -> *mut Frame {
    let place = vcpus::place(next.slot());
    if cpu.current == place.domain() { cpu.frame } else { place.load(cpu) }
}

/// Raises what is due.
fn expire_deadlines() {
    while let Some((key, kind)) = percpu::with(|cpu| cpu.timers.expire(tsc())) {
        let (domain, vcpu) = (vcpus::domain(key.slot()), key.vcpu());
        wake(match kind {
            TimerKind::Singleshot => events::raise_virq(&system().env(), domain, VIRQ_TIMER, vcpu),
            TimerKind::Poll => system().domains.with(domain, |domain| domain.end_poll(vcpu)).ok().flatten(),
        });
    }
}

/// Lets interrupts in, which nothing else here does: `when` enables them for as long as it takes.
pub fn let_interrupts_in(when: fn()) {
    percpu::with(|cpu| cpu.idle = 1);
    when();
    interrupts::disable();
    percpu::with(|cpu| cpu.idle = 0);
}

/// Waits for an interrupt.
fn idle() {
    let since = tsc();
    let_interrupts_in(interrupts::enable_and_hlt);
    percpu::with(|cpu| cpu.idle_ticks += tsc() - since);
}

/// A domain is no longer schedulable; its page tables are not loaded any more. The scheduler looks at once.
pub fn dismiss(slot: Slot) {
    percpu::with(|cpu| {
        for key in keys(slot) {
            vcpus::place(slot).ran.fetch_add(cpu.queue.remove(key, tsc()), Ordering::Relaxed);
        }
        cpu.attention |= DECIDE;
        if cpu.current == vcpus::domain(slot) {
            mm::load_root(mm::hypervisor_root());
            cpu.current = NOBODY;
        }
    });
}

/// All vCPUs that a domain in this slot can have.
fn keys(slot: Slot) -> impl Iterator<Item = VcpuKey> {
    (0..VCPUS_MAX as u8).map(move |vcpu| VcpuKey::new(slot, VcpuId(vcpu)))
}

/// Forgets a dying domain's deadlines.
pub fn forget_deadlines(slot: Slot) {
    percpu::with(|cpu| {
        for key in keys(slot) {
            cpu.timers.cancel(key, TimerKind::Singleshot);
            cpu.timers.cancel(key, TimerKind::Poll);
        }
    });
}

/// Ticks that a domain has run, and hypercalls that it has made.
pub fn usage(slot: Slot) -> (u64, u64) {
    percpu::with(|cpu| {
        cpu.queue.charge(tsc());
        let vcpus::Place { ran, hypercalls, .. } = vcpus::place(slot);
        let ran = ran.load(Ordering::Relaxed) + keys(slot).map(|key| cpu.queue.ran(key)).sum::<u64>();
        (ran, hypercalls.load(Ordering::Relaxed))
    })
}
