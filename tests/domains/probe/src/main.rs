//! A domain that misbehaves on purpose, one way a run: `do=NAME` in its arguments says which.
//!
//! It says `about to NAME` first. What must end it ends it there; if it lives on, it says so with a failed verdict. What
//! must be refused is reported verdict by verdict.
#![cfg_attr(target_os = "none", no_std, no_main)]

#[cfg(target_os = "none")]
extern crate alloc;
#[cfg(target_os = "none")]
mod channel;
#[cfg(target_os = "none")]
mod device;
#[cfg(target_os = "none")]
mod faults;
#[cfg(target_os = "none")]
mod fuzz;
#[cfg(target_os = "none")]
mod msix;
#[cfg(target_os = "none")]
mod pair;
#[cfg(target_os = "none")]
mod raw;
#[cfg(target_os = "none")]
mod refusals;

#[cfg(target_os = "none")]
mod domain {
    use crate::{channel, device, faults, fuzz, msix, pair, refusals};
    use runtime::{event, info, println, verdict};

    runtime::entry!(main);

    fn main() {
        let what = info::argument("do").unwrap_or("nothing");
        println!("about to {what}");
        // Give the console time to take the line: some of what follows ends us without notice.
        runtime::time::sleep(core::time::Duration::from_millis(300));
        match what {
            "rest" => rest(),
            "refusals" => refusals::all(),
            "observer" => refusals::observer(),
            "channel-front" => channel::front(),
            "channel-back" => channel::back(),
            "die-while-mapped" => channel::die_while_mapped(),
            "keep-mapped" => channel::keep_mapped(),
            "storm" => channel::storm(),
            "calm" => channel::calm(),
            "pair-front" => pair::front(),
            "pair-back" => pair::back(),
            "pair-for-ever" => pair::for_ever(),
            "third" => pair::third(),
            // The PC's clock, and its timers' gate.
            "ports-clock" => pair::ports(0x71, 0x61, 500, "clock-port-reached"),
            "ports-gate" => pair::ports(0x61, 0x71, 5_000, "gate-port-reached"),
            "device" => device::all(),
            "unconfined" => device::unconfined(),
            "msix-table" => msix::touch_table(),
            "msix-pending" => msix::touch_pending(),
            "fuzz" => fuzz::all(),
            other => match faults::find(other) {
                Some(fault) => {
                    fault();
                    verdict::fail(other, "lived on");
                }
                None => verdict::fail(other, "no such thing to do"),
            },
        }
        println!("done with {what}");
        rest()
    }

    /// Stays, and does nothing.
    fn rest() {
        loop {
            event::wait(None).for_each(drop);
        }
    }
}

#[cfg(not(target_os = "none"))]
fn main() {}
