//! System time: nanoseconds since the hypervisor's first Rust code, from the TSC, with the same arithmetic that
//! domains use on their shared info (Xen public `xen.h`, `vcpu_time_info`).

mod calibrate;

pub use calibrate::calibrate;

use core::sync::atomic::{AtomicU32, AtomicU64, Ordering};

static BOOT_TSC: AtomicU64 = AtomicU64::new(0);
static KHZ: AtomicU64 = AtomicU64::new(0);
static MULTIPLIER: AtomicU32 = AtomicU32::new(0);
static SHIFT: AtomicU32 = AtomicU32::new(0);

/// An instant: nanoseconds of system time.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Instant(u64);

impl Instant {
    /// Never.
    pub const NEVER: Instant = Instant(u64::MAX);

    /// `nanos` after the hypervisor's start.
    pub const fn from_nanos(nanos: u64) -> Self {
        Self(nanos)
    }

    /// Nanoseconds since the hypervisor's start.
    pub const fn as_nanos(self) -> u64 {
        self.0
    }

    /// This much later; stays at [`Instant::NEVER`] rather than wrapping.
    pub const fn plus_nanos(self, nanos: u64) -> Self {
        Self(self.0.saturating_add(nanos))
    }
}

/// How TSC ticks become nanoseconds: `((ticks << shift) * multiplier) >> 32`.
#[derive(Clone, Copy, Debug)]
pub struct Scale {
    /// TSC at system time 0.
    pub boot_tsc: u64,
    /// `tsc_to_system_mul`.
    pub multiplier: u32,
    /// `tsc_shift`.
    pub shift: u32,
}

/// Remembers when the hypervisor started.
pub fn init_early() {
    BOOT_TSC.store(tsc(), Ordering::Relaxed);
}

/// The time-stamp counter.
#[inline]
pub fn tsc() -> u64 {
    // SAFETY: every 64-bit CPU has RDTSC; it has no effect on memory.
    unsafe { core::arch::x86_64::_rdtsc() }
}

/// Sets the frequency: nanoseconds per tick = 10^6 / khz = multiplier / 2^32 * 2^shift.
pub fn set_khz(khz: u64) {
    let (mut shift, mut divisor) = (0, khz.max(1));
    while divisor <= 1_000_000 {
        divisor *= 2;
        shift += 1;
    }
    KHZ.store(khz, Ordering::Relaxed);
    SHIFT.store(shift, Ordering::Relaxed);
    MULTIPLIER.store(((1_000_000 << 32) / divisor) as u32, Ordering::Relaxed);
}

/// The frequency in kHz.
pub fn khz() -> u64 {
    KHZ.load(Ordering::Relaxed)
}

/// The scale in force.
pub fn scale() -> Scale {
    Scale {
        boot_tsc: BOOT_TSC.load(Ordering::Relaxed),
        multiplier: MULTIPLIER.load(Ordering::Relaxed),
        shift: SHIFT.load(Ordering::Relaxed),
    }
}

/// The TSC value at `when`; `u64::MAX` for what is too far away.
pub fn tsc_at(when: Instant) -> u64 {
    let scale = scale();
    if when == Instant::NEVER || scale.multiplier == 0 {
        return u64::MAX;
    }
    let ticks = (u128::from(when.as_nanos()) << 32) / u128::from(scale.multiplier) >> scale.shift;
    u64::try_from(ticks).ok().and_then(|ticks| ticks.checked_add(scale.boot_tsc)).unwrap_or(u64::MAX)
}

/// System time. 0 before the TSC is calibrated.
#[inline]
pub fn now() -> Instant {
    let scale = scale();
    let ticks = tsc().wrapping_sub(scale.boot_tsc) << scale.shift;
    Instant((u128::from(ticks) * u128::from(scale.multiplier) >> 32) as u64)
}
