//! Scheduling one CPU: who runs next and how long, and whose timers are due.
//!
//! Pure bookkeeping: time is passed in (ticks of the CPU's counter, never going back), and nothing here switches anything.
//! [`RunQueue`] shares the CPU in proportion to weights, [`Timers`] keeps the vCPUs' deadlines. Both cost O(log n) in
//! the vCPUs that are runnable or waiting for a time; idle ones cost nothing.

mod heap;
mod queue;
mod timers;

pub use queue::{RunQueue, SLICE_US};
pub use timers::{TimerKind, Timers, singleshot};

use core::num::NonZero;

use crate::domain::VCPUS_MAX;
use crate::ids::{SLOTS, Slot, VcpuId};

/// vCPUs that there can be.
pub const VCPU_KEYS: usize = SLOTS * VCPUS_MAX;

/// A vCPU among all of the machine: `index << 6 | 1`. (Never zero, so that having none costs no room; shifted so that
/// tables with entries of 64 bytes are looked into without a shift.)
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct VcpuKey(NonZero<u16>);

const INDEX_SHIFT: u32 = 6;
const _: () = assert!(VCPU_KEYS <= 1 << (16 - INDEX_SHIFT) && VCPU_KEYS.is_power_of_two());

impl VcpuKey {
    /// The vCPU of the domain in a slot.
    pub fn new(slot: Slot, vcpu: VcpuId) -> Self {
        let vcpu = vcpu.0 as usize % VCPUS_MAX;
        Self::of_index(slot.0 as usize * VCPUS_MAX + vcpu)
    }

    /// Its domain's slot.
    pub const fn slot(self) -> Slot {
        Slot((self.0.get() >> (INDEX_SHIFT + VCPUS_MAX.ilog2())) as u8)
    }

    /// Its number in the domain.
    pub const fn vcpu(self) -> VcpuId {
        VcpuId((self.index() % VCPUS_MAX) as u8)
    }

    /// Below [`VCPU_KEYS`], for certain.
    const fn index(self) -> usize {
        (self.0.get() >> INDEX_SHIFT) as usize % VCPU_KEYS
    }

    fn of_index(index: usize) -> Self {
        Self(NonZero::<u16>::MIN | ((index % VCPU_KEYS) as u16) << INDEX_SHIFT)
    }
}

#[cfg(test)]
mod tests;
