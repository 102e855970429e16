//! Resetting a function before it changes hands (PCI Express Base 5.0, 6.6.2; PCI Power Management 1.2, 5.4).
//!
//! A reset is started when a device comes back (and at boot), and waited for when it is given away: usually the time
//! has long passed by then. A reset loses the BARs; they are put back as they were at boot.

use super::{Command, Function, Reset, State};
use crate::time;

/// After a function-level reset it may take this long until the function answers.
const FUNCTION_LEVEL_NANOS: u64 = 100_000_000;
/// The same for leaving D3hot.
const POWER_CYCLE_NANOS: u64 = 10_000_000;
/// A function that does not answer this long after that is dead.
const ANSWER_NANOS: u64 = 1_000_000_000;

/// Starts a reset. The function must not be anyone's.
pub fn start(function: &Function, state: &mut State) {
    /// Device control, initiate function-level reset.
    const INITIATE: u32 = 1 << 15;
    const POWER_STATE: u32 = 0b11;
    let config = function.config;
    let wait = match function.reset {
        Reset::FunctionLevel(at) => {
            config.change(at + 8, INITIATE, INITIATE);
            FUNCTION_LEVEL_NANOS
        }
        Reset::PowerCycle(at) => {
            // D3hot now, D0 when it is waited for.
            config.change(at + 4, POWER_STATE, POWER_STATE);
            POWER_CYCLE_NANOS
        }
        Reset::None => 0,
    };
    state.ready_at = time::now().plus_nanos(wait);
}

/// Waits until a reset is over and puts configuration space in order. `false`: the function does not answer.
#[must_use]
pub fn finish(function: &Function, state: &State) -> bool {
    let config = function.config;
    let _over = time::poll_until(state.ready_at, || false);
    if let Reset::PowerCycle(at) = function.reset {
        config.change(at + 4, 0b11, 0);
        let _over = time::poll_until(time::now().plus_nanos(POWER_CYCLE_NANOS), || false);
    }
    let identity = u32::from(function.found.device) << 16 | u32::from(function.found.vendor);
    let alive = time::poll_until(time::now().plus_nanos(ANSWER_NANOS), || config.read(0) == identity);
    if alive {
        restore(function);
    }
    alive
}

/// Configuration space as it is in quarantine.
pub fn restore(function: &Function) {
    let config = function.config;
    config.command(Command::INTERRUPT_DISABLE);
    for (register, value) in (0x10..).step_by(4).zip(function.bar_registers) {
        config.write(register, value);
    }
    if let Some((at, control)) = function.express {
        // Payload sizes and the like; the upper half is status, and bit 15 would reset it again.
        config.change(at + 8, 0xffff_7fff, u32::from(control));
    }
}
