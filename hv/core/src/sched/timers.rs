//! vCPU timers: absolute deadlines in ticks, so nothing is added and nothing overflows.

use super::heap::IndexedHeap;
use super::{VCPU_KEYS, VcpuKey};
use crate::error::Errno;
use xen_abi::vcpu::VCPU_SSHOTTMR_FUTURE;

const KINDS: usize = 2;

/// What a deadline is for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum TimerKind {
    /// `VCPUOP_set_singleshot_timer`: raises `VIRQ_TIMER`.
    Singleshot = 0,
    /// The timeout of `SCHEDOP_poll`: ends the wait.
    Poll = 1,
}

/// A deadline that has passed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Expired {
    /// Whose.
    pub vcpu: VcpuKey,
    /// What for.
    pub kind: TimerKind,
}

/// What a guest's request for a one-shot timer comes to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Alarm {
    /// Set a timer for this system time.
    At(u64),
    /// The time has passed: raise the interrupt now.
    Now,
}

/// Judges `VCPUOP_set_singleshot_timer`. Any deadline is acceptable: 0 is past, `u64::MAX` never comes.
///
/// # Errors
/// `ETIME`: the time has passed and the guest asked to be told so.
pub fn singleshot(now: u64, timeout_abs_ns: u64, flags: u32) -> Result<Alarm, Errno> {
    if timeout_abs_ns > now {
        Ok(Alarm::At(timeout_abs_ns))
    } else if flags & VCPU_SSHOTTMR_FUTURE != 0 {
        Err(Errno::ETIME)
    } else {
        Ok(Alarm::Now)
    }
}

/// The deadlines of one CPU's vCPUs.
#[derive(Debug)]
pub struct Timers {
    heap: IndexedHeap<{ VCPU_KEYS * KINDS }>,
}

fn item(vcpu: VcpuKey, kind: TimerKind) -> usize {
    vcpu.index().wrapping_mul(KINDS).wrapping_add(kind as usize)
}

impl Timers {
    /// No deadlines.
    pub const fn new() -> Self {
        Self { heap: IndexedHeap::new() }
    }

    /// Sets or moves a deadline.
    pub fn set(&mut self, vcpu: VcpuKey, kind: TimerKind, deadline: u64) {
        self.heap.set(item(vcpu, kind), deadline);
    }

    /// Takes a deadline back, if there is one.
    #[inline]
    pub fn cancel(&mut self, vcpu: VcpuKey, kind: TimerKind) {
        self.heap.remove(item(vcpu, kind));
    }

    /// The next deadline.
    #[inline]
    pub fn next(&self) -> Option<u64> {
        self.heap.peek().map(|(_, deadline)| deadline)
    }

    /// Takes out one deadline that has passed.
    pub fn expire(&mut self, now: u64) -> Option<Expired> {
        let (item, _) = self.heap.peek().filter(|&(_, deadline)| deadline <= now)?;
        self.heap.remove(item);
        let kind = if item.is_multiple_of(KINDS) { TimerKind::Singleshot } else { TimerKind::Poll };
        Some(Expired { vcpu: VcpuKey::of_index(item / KINDS), kind })
    }
}
