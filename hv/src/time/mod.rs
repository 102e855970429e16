//! System time: nanoseconds since the TSC's frequency was known, early at boot, from the TSC, with the same arithmetic that
//! domains use on their shared info (Xen public `xen.h`, `vcpu_time_info`).

mod calibrate;
pub mod wallclock;

pub use calibrate::calibrate;

use core::sync::atomic::AtomicU64;
use spin::Once;
use xen_abi::xen::VcpuTimeInfo;

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
#[derive(Clone, Copy, Default)]
pub struct Scale {
    /// TSC frequency.
    pub khz: u64,
    /// What domains are told. Its shift is not negative, its `system_time` 0.
    pub clock: VcpuTimeInfo,
}

/// The time-stamp counter.
pub fn tsc() -> u64 {
    // SAFETY: every 64-bit CPU has RDTSC; it has no effect on memory.
    unsafe { core::arch::x86_64::_rdtsc() }
}

/// Sets the frequency, and system time to 0: nanoseconds per tick = 10^6 / khz = multiplier / 2^32 * 2^shift.
pub fn set_khz(khz: u64) {
    let (mut tsc_shift, mut divisor) = (0, khz.max(1));
    while divisor <= 1_000_000 {
        divisor *= 2;
        tsc_shift += 1;
    }
    let tsc_to_system_mul = ((1_000_000 << 32) / divisor) as u32;
    let (version, tsc_timestamp) = (2, tsc());
    let clock = VcpuTimeInfo { version, tsc_timestamp, tsc_to_system_mul, tsc_shift, ..VcpuTimeInfo::default() };
    SCALE.call_once(|| Scale { khz, clock });
}

/// The scale in force; all zeros before there is one.
pub fn scale() -> Scale {
    SCALE.get().copied().unwrap_or_default()
}

/// The TSC value at `when`; `u64::MAX` for what is too far away.
pub fn tsc_at(when: Instant) -> u64 {
    let clock = scale().clock;
    let ticks = (u128::from(when.0) << 32) / u128::from(clock.tsc_to_system_mul.max(1)) >> clock.tsc_shift;
    u64::try_from(ticks).ok().and_then(|ticks| ticks.checked_add(clock.tsc_timestamp)).unwrap_or(u64::MAX)
}

/// Nanoseconds that so many ticks of the TSC take.
pub fn nanos(ticks: u64) -> u64 {
    let clock = scale().clock;
    ((u128::from(ticks) << clock.tsc_shift).wrapping_mul(u128::from(clock.tsc_to_system_mul)) >> 32) as u64
}

/// System time. 0 before the TSC is calibrated.
pub fn now() -> Instant {
    Instant(nanos(tsc().saturating_sub(scale().clock.tsc_timestamp)))
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
