//! System time: nanoseconds since the hypervisor's first instruction, from the TSC, with the same arithmetic that
//! domains use on their shared info (Xen public `xen.h`, `vcpu_time_info`).

mod calibrate;

pub use calibrate::calibrate;

use core::sync::atomic::{AtomicU32, AtomicU64, Ordering};

unsafe extern "C" {
    /// Written by the first instructions, in the boot part of the image.
    static boot_tsc: u64;
}

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

    /// `nanos` after the hypervisor's first instruction.
    pub const fn from_nanos(nanos: u64) -> Self {
        Self(nanos)
    }

    /// Nanoseconds since the hypervisor's first instruction.
    pub const fn as_nanos(self) -> u64 {
        self.0
    }

    /// This much later; stays at [`Instant::NEVER`] rather than wrapping.
    pub const fn plus_nanos(self, nanos: u64) -> Self {
        Self(self.0.saturating_add(nanos))
    }
}

/// How TSC ticks become nanoseconds: `((ticks << shift) * multiplier) >> 32`, a negative shift to the right.
#[derive(Clone, Copy, Debug)]
pub struct Scale {
    /// TSC at system time 0.
    pub boot_tsc: u64,
    /// `tsc_to_system_mul`.
    pub multiplier: u32,
    /// `tsc_shift`.
    pub shift: i8,
}

/// Remembers when the hypervisor started. Call before the boot part of the image is dropped.
pub fn init_early() {
    let symbol = crate::mm::direct(x86_64::PhysAddr::new(&raw const boot_tsc as u64)).as_ptr::<u64>();
    // SAFETY: an aligned word in the boot part of the image, which the direct map still shows; written once, in the
    // first instructions.
    BOOT_TSC.store(unsafe { symbol.read() }, Ordering::Relaxed);
}

/// The time-stamp counter.
#[inline]
pub fn tsc() -> u64 {
    // SAFETY: every 64-bit CPU has RDTSC; it has no effect on memory.
    unsafe { core::arch::x86_64::_rdtsc() }
}

/// Sets the frequency.
pub fn set_khz(khz: u64) {
    let (multiplier, shift) = scale_of(khz);
    KHZ.store(khz, Ordering::Relaxed);
    SHIFT.store(shift as u32, Ordering::Relaxed);
    MULTIPLIER.store(multiplier, Ordering::Relaxed);
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
        shift: SHIFT.load(Ordering::Relaxed) as i8,
    }
}

/// Multiplier and shift for a frequency: the multiplier is between 2^31 and 2^32.
fn scale_of(khz: u64) -> (u32, i32) {
    // nanoseconds per tick = 10^6 / khz = multiplier / 2^32 * 2^shift
    let (mut shift, mut khz) = (0, khz.max(1));
    while khz > 2_000_000 {
        khz /= 2;
        shift -= 1;
    }
    while khz <= 1_000_000 {
        khz *= 2;
        shift += 1;
    }
    (u32::try_from((1_000_000 << 32) / khz).unwrap_or(u32::MAX), shift)
}

/// Ticks as nanoseconds.
fn to_nanos(ticks: u64) -> u64 {
    let scale = scale();
    let shifted =
        if scale.shift < 0 { ticks >> scale.shift.unsigned_abs() } else { ticks << scale.shift.unsigned_abs() };
    ((u128::from(shifted) * u128::from(scale.multiplier)) >> 32) as u64
}

/// The TSC value at `when`; `u64::MAX` for what is too far away.
pub fn tsc_at(when: Instant) -> u64 {
    let scale = scale();
    if when == Instant::NEVER || scale.multiplier == 0 {
        return u64::MAX;
    }
    let ticks = (u128::from(when.as_nanos()) << 32) / u128::from(scale.multiplier);
    let ticks = if scale.shift < 0 { ticks << scale.shift.unsigned_abs() } else { ticks >> scale.shift.unsigned_abs() };
    u64::try_from(ticks).ok().and_then(|ticks| ticks.checked_add(scale.boot_tsc)).unwrap_or(u64::MAX)
}

/// System time. 0 before the TSC is calibrated.
#[inline]
pub fn now() -> Instant {
    Instant(to_nanos(tsc().wrapping_sub(BOOT_TSC.load(Ordering::Relaxed))))
}
