//! The ways to end: power off, restart, leave QEMU, stop.

use crate::acpi;
use core::sync::atomic::{AtomicBool, Ordering};
use x86_64::instructions::port::Port;

/// QEMU's `isa-debug-exit` device.
const DEBUG_EXIT_PORT: u16 = 0xf4;
/// Exit code of a boot that failed: QEMU's status is 2 * 0x1e + 1 = 61.
const BOOT_FAILED: u32 = 0x1e;
/// Reset control register of PCI chipsets.
const RESET_PORT: u16 = 0xcf9;
/// Hard reset of the CPU and the system.
const RESET_HARD: u8 = 0x0e;

static DEBUG_EXIT: AtomicBool = AtomicBool::new(false);

/// `debug-exit` on the command line: the machine has `isa-debug-exit`.
pub fn enable_debug_exit() {
    DEBUG_EXIT.store(true, Ordering::Relaxed);
}

/// Leaves QEMU with status `code << 1 | 1`. Comes back when there is no such device.
pub fn debug_exit(code: u32) {
    if DEBUG_EXIT.load(Ordering::Relaxed) {
        // SAFETY: the command line promises that the device is there.
        unsafe { Port::new(DEBUG_EXIT_PORT).write(code) }
    }
}

/// Turns the machine off. Comes back when ACPI does not say how.
pub fn off() {
    if let Some(soft_off) = acpi::facts().and_then(|facts| facts.soft_off.as_ref()) {
        soft_off.execute();
    }
}

/// Restarts the machine.
pub fn restart() -> ! {
    // SAFETY: the chipset's reset register; nothing survives it.
    unsafe { Port::new(RESET_PORT).write(RESET_HARD) };
    halt()
}

/// Ends a boot that cannot go on.
pub fn stop() -> ! {
    debug_exit(BOOT_FAILED);
    halt()
}

/// Stops this CPU for good.
pub fn halt() -> ! {
    loop {
        x86_64::instructions::interrupts::disable();
        x86_64::instructions::hlt();
    }
}
