//! vCPU timers: absolute deadlines in ticks, so nothing is added and nothing overflows.

use super::{VCPU_KEYS, VcpuKey, heap::IndexedHeap};
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

/// Judges `VCPUOP_set_singleshot_timer`; tells the deadline. Any is acceptable: 0 is past, and expires at once;
/// `u64::MAX` never comes.
///
/// # Errors
/// `ETIME`: the time has passed and the guest asked to be told so.
pub fn singleshot(now: u64, timeout_abs_ns: u64, flags: u32) -> Result<u64, Errno> {
    let too_late = timeout_abs_ns <= now && flags & VCPU_SSHOTTMR_FUTURE != 0;
    if too_late { Err(Errno::ETIME) } else { Ok(timeout_abs_ns) }
}

/// The deadlines of one CPU's vCPUs.
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
    pub fn cancel(&mut self, vcpu: VcpuKey, kind: TimerKind) {
        self.heap.remove(item(vcpu, kind));
    }

    /// The next deadline.
    pub fn next(&self) -> Option<u64> {
        self.heap.peek().map(|(_, deadline)| deadline)
    }

    /// Takes out one deadline that has passed: whose it was, and what for.
    pub fn expire(&mut self, now: u64) -> Option<(VcpuKey, TimerKind)> {
        let (item, _) = self.heap.peek().filter(|&(_, deadline)| deadline <= now)?;
        self.heap.remove(item);
        let kind = if item.is_multiple_of(KINDS) { TimerKind::Singleshot } else { TimerKind::Poll };
        Some((VcpuKey::of_index(item / KINDS), kind))
    }
}
