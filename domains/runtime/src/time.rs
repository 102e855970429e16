//! Time since boot, without entering the hypervisor: the time stamp counter scaled by the time page.
//!
//! Xen public header `xen.h`, `struct vcpu_time_info`: the hypervisor bumps `version` to odd, writes, bumps it to even;
//! a reader that saw an odd or a changed version reads again.

use core::ops::{Add, Sub};
use core::sync::atomic::Ordering::{Acquire, Relaxed};
use core::time::Duration;

use crate::arch;
use crate::shared::Shared;
use crate::shared_info;

/// A moment: nanoseconds of system time, which starts near 0 at boot and is the same in all domains.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Instant(pub u64);

impl Instant {
    /// The time from `earlier` to this moment; zero when `earlier` is later.
    pub fn since(self, earlier: Instant) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }

    /// Milliseconds since boot.
    pub fn millis(self) -> u64 {
        self.0 / 1_000_000
    }
}

impl Add<Duration> for Instant {
    type Output = Instant;

    fn add(self, duration: Duration) -> Instant {
        Instant(self.0.saturating_add(u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)))
    }
}

impl Sub for Instant {
    type Output = Duration;

    fn sub(self, earlier: Instant) -> Duration {
        self.since(earlier)
    }
}

/// The time now.
pub fn now() -> Instant {
    read(shared_info::time_page(), arch::read_tsc)
}

/// The time stamp counter, for differences: ticks of whatever length.
#[inline]
pub fn ticks() -> u64 {
    arch::read_tsc()
}

/// Sleeps; events that come meanwhile stay pending.
pub fn sleep(duration: Duration) {
    let end = now() + duration;
    while now() < end {
        crate::event::poll(&[], Some(end));
    }
}

/// Offsets in `struct vcpu_time_info`.
mod offset {
    pub const VERSION: usize = 0;
    pub const TSC_TIMESTAMP: usize = 8;
    pub const SYSTEM_TIME: usize = 16;
    pub const MULTIPLIER: usize = 24;
    pub const SHIFT: usize = 28;
}

fn read(page: Shared<'_>, tsc: impl Fn() -> u64) -> Instant {
    let version = page.u32_at(offset::VERSION);
    loop {
        let before = version.load(Acquire);
        let stamp = page.u64_at(offset::TSC_TIMESTAMP).load(Acquire);
        let system = page.u64_at(offset::SYSTEM_TIME).load(Acquire);
        let multiplier = page.u32_at(offset::MULTIPLIER).load(Acquire);
        let shift = page.u8_at(offset::SHIFT).load(Acquire) as i8;
        let ticks = tsc();
        if before & 1 == 0 && version.load(Relaxed) == before {
            return Instant(system.wrapping_add(scale(ticks.saturating_sub(stamp), multiplier, shift)));
        }
        core::hint::spin_loop();
    }
}

/// `((ticks << shift) * multiplier) >> 32`, where a negative shift goes right.
fn scale(ticks: u64, multiplier: u32, shift: i8) -> u64 {
    let ticks = u128::from(ticks);
    let shifted = match shift {
        0.. => ticks << u32::from(shift.unsigned_abs()).min(63),
        _ => ticks >> u32::from(shift.unsigned_abs()).min(127),
    };
    (((shifted & u128::from(u64::MAX)) * u128::from(multiplier)) >> 32) as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_become_nanoseconds() {
        // 1 GHz: one tick is one nanosecond: multiplier 2^31, shift 1.
        assert_eq!(scale(1_000_000, 1 << 31, 1), 1_000_000);
        // 4 GHz: four ticks are one nanosecond.
        assert_eq!(scale(4_000_000_000, 1 << 31, -1), 1_000_000_000);
        assert_eq!(scale(u64::MAX, u32::MAX, -128), 0);
    }

    #[test]
    fn the_page_is_read_with_its_base() {
        // Version 2, stamp, system time, multiplier 2^31 and shift 1: a tick is a nanosecond.
        let mut words = [2u64, 1000, 5_000, 1 << 31 | 1 << 32];
        // SAFETY: the array outlives the use and is not touched otherwise.
        let page = unsafe { Shared::new(words.as_mut_ptr().cast(), 32) };
        assert_eq!(read(page, || 1300), Instant(5_300));
        assert_eq!(read(page, || 10), Instant(5_000), "a counter behind the stamp does not wrap");
    }

    #[test]
    fn moments_add_and_subtract_without_wrapping() {
        assert_eq!(Instant(u64::MAX) + Duration::from_secs(1), Instant(u64::MAX));
        assert_eq!(Instant(5) - Instant(7), Duration::ZERO);
    }
}
