//! From a device's interrupt to the driver domain that waits for it, while another domain runs.
//!
//! The device is the PC's clock (Motorola MC146818): its periodic interrupt on line 8. The other domain writes the time
//! into a shared page as fast as it can: the last time in it, when the driver runs, is when the interrupt came, or up to
//! one round of that loop earlier.

use crate::link::{self, Mode, TIME};
use crate::samples::{Report, Samples, forever};
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::sync::atomic::Ordering::Acquire;
use runtime::Access;
use runtime::event::{self, Channel};
use runtime::grant::Mapping;
use runtime::hypercall::{physdev, sched};
use runtime::port_io::PortRange;
use runtime::time::ticks;

const CLOCK: PortRange = PortRange::new(0x70, 0x71);
const LINE: u32 = 8;
/// Status register A: 32,768 Hz time base, a periodic interrupt each 1/8192 s.
const REGISTER_A: u8 = 0x0a;
const RATE_8192_HZ: u8 = 0x23;
/// Status register B: 24 hours, periodic interrupts.
const REGISTER_B: u8 = 0x0b;
const PERIODIC: u8 = 0x42;
/// Status register C: reading it makes the next interrupt possible.
const REGISTER_C: u8 = 0x0c;
const SAMPLES: usize = 100;
const NAME: &str = "interrupt_to_driver";

fn set(register: u8, value: u8) {
    CLOCK.write_u8(0, register);
    CLOCK.write_u8(1, value);
}

fn acknowledge() {
    CLOCK.write_u8(0, REGISTER_C);
    CLOCK.read_u8(1);
}

/// Measures.
pub fn all() -> Result<Vec<Report>, String> {
    let peer = link::accept()?;
    link::settle();
    let page = Mapping::page_of(peer.domain, peer.references[0], Access::ReadWrite).map_err(|e| e.to_string())?;
    let page = page.page(0);
    let pirq = physdev::map_line(LINE).map_err(|error| error.to_string())?;
    let channel = Channel::pirq(pirq).map_err(|error| error.to_string())?;
    let port = channel.port();
    event::mask_all_but(&[port]);
    Mode::Spin.tell(page);
    peer.channel.notify();
    set(REGISTER_A, RATE_8192_HZ);
    set(REGISTER_B, PERIODIC);
    let one = || {
        acknowledge();
        while !event::take(port) {
            sched::block();
        }
        let here = ticks();
        here.wrapping_sub(page.u64_at(TIME).load(Acquire))
    };
    for _ in 0..8 {
        one();
    }
    while forever(NAME, 1) {
        one();
    }
    let mut samples = Samples::with_room(SAMPLES);
    for _ in 0..SAMPLES {
        samples.add(one(), 1);
    }
    Mode::Echo.tell(page);
    set(REGISTER_B, 2);
    Ok(Vec::from([samples.report(NAME)]))
}
