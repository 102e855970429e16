//! How fast the TSC and the local APIC's timer run, measured against ACPI's power management timer (ACPI 6.4, 4.8.3.3:
//! 3.579545 MHz, 24 bits at least).

use super::tsc;
use crate::apic;
use x86_64::instructions::port::PortReadOnly;

/// The power management timer's frequency.
const PM_HERTZ: u64 = 3_579_545;
/// Ticks measured over: about 10 ms.
const WINDOW: u32 = 35_795;
/// Reads before the timer is held to be dead.
const READS_MAX: u32 = 10_000_000;
const MASK: u32 = 0xff_ffff;

/// What was measured.
pub struct Rates {
    /// TSC frequency.
    pub tsc_khz: u64,
    /// Local APIC timer frequency after its divider.
    pub apic_khz: u64,
}

/// Measures against the timer at I/O port `port`. `None`: that timer does not count.
pub fn calibrate(port: u16) -> Option<Rates> {
    let mut timer = PortReadOnly::<u32>::new(port);
    // SAFETY: reading the power management timer has no side effect.
    let mut read = || unsafe { timer.read() } & MASK;
    let start = read();
    let tsc_start = tsc();
    apic::start_counting();
    let mut elapsed = (0..READS_MAX).map(|_| read().wrapping_sub(start) & MASK);
    let elapsed = elapsed.find(|elapsed| *elapsed >= WINDOW)?;
    let (ticks, apic_ticks) = (tsc().wrapping_sub(tsc_start), apic::stop_counting());
    let khz = |count: u64| count * PM_HERTZ / u64::from(elapsed) / 1000;
    Some(Rates { tsc_khz: khz(ticks), apic_khz: khz(u64::from(apic_ticks)) })
}
