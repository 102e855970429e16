//! The ways to end: power off, restart, leave QEMU, stop.

use crate::{acpi, acpi::SoftOff, start::boot_info};
use x86_64::instructions::port::Port;

/// QEMU's `isa-debug-exit` device.
const DEBUG_EXIT_PORT: u16 = 0xf4;
/// Reset control register of PCI chipsets.
const RESET_PORT: u16 = 0xcf9;
/// Hard reset of the CPU and the system.
const RESET_HARD: u8 = 0x0e;

/// Leaves QEMU with status `code << 1 | 1`. Comes back when `debug-exit` is not on the command line.
pub fn debug_exit(code: u32) {
    if boot_info().is_some_and(|info| info.option("debug-exit").is_some()) {
        // SAFETY: the command line promises that the device is there.
        unsafe { Port::new(DEBUG_EXIT_PORT).write(code) }
    }
}

/// Turns the machine off. Comes back when ACPI does not say how, or the hardware does not obey.
pub fn off() {
    const SCI_ENABLE: u16 = 1;
    const SLEEP_ENABLE: u16 = 1 << 13;
    let Some(SoftOff { control_a, control_b, enable }) = acpi::facts().and_then(|facts| facts.soft_off) else { return };
    // SAFETY: the ports are ACPI's fixed registers as the FADT gives them; the machine ends here.
    unsafe {
        let acpi_mode = Port::<u16>::new(control_a.0).read() & SCI_ENABLE != 0;
        if let Some((port, value)) = enable.filter(|_| !acpi_mode) {
            Port::new(port).write(value);
        }
        for (port, sleep_type) in [Some(control_a), control_b].into_iter().flatten() {
            Port::new(port).write(u16::from(sleep_type) << 10 | SLEEP_ENABLE);
        }
    }
}

/// Restarts the machine.
pub fn restart() -> ! {
    // SAFETY: the chipset's reset register; nothing survives it.
    unsafe { Port::new(RESET_PORT).write(RESET_HARD) };
    halt()
}

/// Leaves QEMU with this code, where that is allowed; else stops this CPU for good.
pub fn stop(code: u32) -> ! {
    debug_exit(code);
    halt()
}

/// Stops this CPU for good.
pub fn halt() -> ! {
    loop {
        x86_64::instructions::interrupts::disable();
        x86_64::instructions::hlt();
    }
}
