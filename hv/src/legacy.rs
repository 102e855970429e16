//! The PC's old interrupt controllers and timer, silenced: firmware leaves them running, and their first interrupt would
//! look like a double fault (vector 8).

use x86_64::instructions::port::Port;

fn out(port: u16, value: u8) {
    // SAFETY: these are the 8259 interrupt controllers and the 8254 timer of every PC; port I/O to them affects only
    // interrupts, which are off.
    unsafe { Port::new(port).write(value) }
}

/// Moves both controllers' vectors out of the exceptions' way, masks every line, and stops the timer.
pub fn silence() {
    const MASTER: u16 = 0x20;
    const SLAVE: u16 = 0xa0;
    for (base, vector, cascade) in [(MASTER, 0x20, 0x04), (SLAVE, 0x28, 0x02)] {
        for (register, value) in [(0, 0x11), (1, vector), (1, cascade), (1, 0x01), (1, 0xff)] {
            out(base + register, value);
        }
    }
    // Channel 0, low and high byte, mode 0; without a count it does not run.
    out(0x43, 0x30);
}
