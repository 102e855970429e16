//! System time: nanoseconds since the TSC's frequency was known, early at boot, from the TSC, with the same arithmetic that
//! domains use on their shared info (Xen public `xen.h`, `vcpu_time_info`).

mod calibrate;

pub use calibrate::calibrate;

use core::sync::atomic::{AtomicU64, Ordering};
use spin::Once;

/// The TSC when the hypervisor was entered.
pub static ENTERED: AtomicU64 = AtomicU64::new(0);
/// The TSC when the policy domain was.
pub static STARTED: AtomicU64 = AtomicU64::new(0);
static SCALE: Once<Scale> = Once::new();

/// An instant: nanoseconds of system time.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Instant(pub u64);

impl Instant {
    /// This much later; stays at the end of time rather than wrapping.
    pub const fn plus_nanos(self, nanos: u64) -> Self {
        Self(self.0.saturating_add(nanos))
    }
}

/// How TSC ticks become nanoseconds: `((ticks << shift) * multiplier) >> 32`.
#[derive(Clone, Copy, Default, Debug)]
pub struct Scale {
    /// TSC frequency.
    pub khz: u64,
    /// TSC at system time 0.
    pub boot_tsc: u64,
    /// `tsc_to_system_mul`.
    pub multiplier: u32,
    /// `tsc_shift`.
    pub shift: u32,
}

/// The time-stamp counter.
#[inline]
pub fn tsc() -> u64 {
    // SAFETY: every 64-bit CPU has RDTSC; it has no effect on memory.
    unsafe { core::arch::x86_64::_rdtsc() }
}

/// Sets the frequency, and system time to 0: nanoseconds per tick = 10^6 / khz = multiplier / 2^32 * 2^shift.
pub fn set_khz(khz: u64) {
    let (mut shift, mut divisor) = (0, khz.max(1));
    while divisor <= 1_000_000 {
        divisor *= 2;
        shift += 1;
    }
    let multiplier = ((1_000_000 << 32) / divisor) as u32;
    SCALE.call_once(|| Scale { khz, boot_tsc: tsc(), multiplier, shift });
}

/// The scale in force; all zeros before there is one.
#[inline]
pub fn scale() -> Scale {
    SCALE.get().copied().unwrap_or_default()
}

/// The TSC value at `when`; `u64::MAX` for what is too far away.
pub fn tsc_at(when: Instant) -> u64 {
    let scale = scale();
    let ticks = (u128::from(when.0) << 32) / u128::from(scale.multiplier.max(1)) >> scale.shift;
    u64::try_from(ticks).ok().and_then(|ticks| ticks.checked_add(scale.boot_tsc)).unwrap_or(u64::MAX)
}

/// Nanoseconds that so many ticks of the TSC take.
#[inline]
pub fn nanos(ticks: u64) -> u64 {
    let scale = scale();
    ((u128::from(ticks) << scale.shift).wrapping_mul(u128::from(scale.multiplier)) >> 32) as u64
}

/// System time. 0 before the TSC is calibrated.
#[inline]
pub fn now() -> Instant {
    Instant(nanos(tsc().saturating_sub(scale().boot_tsc)))
}

/// Remembers the TSC of this moment.
pub fn mark(moment: &AtomicU64) {
    moment.store(tsc(), Ordering::Relaxed);
}

/// Polls until `done` answers yes, at most until `when`. Answers whether it did.
#[must_use]
pub fn poll_until(when: Instant, done: impl Fn() -> bool) -> bool {
    /// Should the clock stand still.
    const POLLS_MAX: u32 = 200_000_000;
    for _ in 0..POLLS_MAX {
        if done() {
            return true;
        }
        if now() >= when {
            break;
        }
        core::hint::spin_loop();
    }
    false
}
