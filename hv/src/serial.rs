//! The first serial port (16550 at 0x3f8), polled, for the log before the console domain takes the line over and for
//! crash records ever after. National Semiconductor PC16550D data sheet, section 8.

use core::fmt;
use core::sync::atomic::{AtomicBool, Ordering};
use x86_64::instructions::port::Port;

const BASE: u16 = 0x3f8;
/// Line status: transmitter holding register empty.
const TRANSMIT_EMPTY: u8 = 0x20;
/// Polls before a byte is dropped: a dead port must not hang the hypervisor.
const POLLS_MAX: u32 = 100_000;

static PRESENT: AtomicBool = AtomicBool::new(false);

fn write(register: u16, value: u8) {
    // SAFETY: the hypervisor programs COM1 here; port I/O to it has no effect on memory.
    unsafe { Port::new(BASE + register).write(value) }
}

fn read(register: u16) -> u8 {
    // SAFETY: as in `write`.
    unsafe { Port::new(BASE + register).read() }
}

/// Sets 115200 baud, 8N1, no interrupts, if a port is there (its scratch register keeps a value).
pub fn init() {
    write(7, 0x5a);
    let present = read(7) == 0x5a;
    if present {
        for (register, value) in [(1, 0), (3, 0x80), (0, 1), (1, 0), (3, 0x03), (2, 0xc7), (4, 0x0b)] {
            write(register, value);
        }
    }
    PRESENT.store(present, Ordering::Relaxed);
}

fn write_byte(byte: u8) {
    if (0..POLLS_MAX).any(|_| read(5) & TRANSMIT_EMPTY != 0) {
        write(0, byte);
    }
}

/// The port as a formatter's target. Carriage returns are added; bytes are dropped when the port does not take them.
pub struct Serial;

impl fmt::Write for Serial {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        if PRESENT.load(Ordering::Relaxed) {
            for byte in text.bytes() {
                if byte == b'\n' {
                    write_byte(b'\r');
                }
                write_byte(byte);
            }
        }
        Ok(())
    }
}
