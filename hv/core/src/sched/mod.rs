//! Scheduling one CPU: who runs next and how long, and whose timers are due.
//!
//! Pure bookkeeping: time is passed in (ticks of the CPU's counter, never going back), and nothing here switches anything.
//! [`RunQueue`] shares the CPU in proportion to weights, [`Timers`] keeps the vCPUs' deadlines. Both cost O(log n) in
//! the vCPUs that are runnable or waiting for a time; idle ones cost nothing.

mod heap;
mod queue;
mod timers;

pub use queue::{Preempt, RunQueue, SLICE_US};
pub use timers::{Alarm, Expired, TimerKind, Timers, singleshot};

use crate::domain::VCPUS_MAX;
use crate::ids::{SLOTS, Slot, VcpuId};

/// vCPUs that there can be.
pub const VCPU_KEYS: usize = SLOTS * VCPUS_MAX;

/// A vCPU among all of the machine.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct VcpuKey(u16);

impl VcpuKey {
    /// The vCPU of the domain in a slot.
    #[inline]
    pub const fn new(slot: Slot, vcpu: VcpuId) -> Self {
        let slot = slot.0 as usize % SLOTS;
        let vcpu = vcpu.0 as usize % VCPUS_MAX;
        Self((slot * VCPUS_MAX + vcpu) as u16)
    }

    /// Its domain's slot.
    #[inline]
    pub const fn slot(self) -> Slot {
        Slot((self.0 as usize / VCPUS_MAX) as u8)
    }

    /// Its number in the domain.
    #[inline]
    pub const fn vcpu(self) -> VcpuId {
        VcpuId((self.0 as usize % VCPUS_MAX) as u8)
    }

    #[inline]
    const fn index(self) -> usize {
        self.0 as usize
    }
}

#[cfg(test)]
mod tests;
