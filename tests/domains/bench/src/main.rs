//! What `cargo xtask bench` runs: one domain measures, another serves it. `do=NAME` in its arguments says which.
//!
//! `docs/performance.md` says what each figure means; a figure is a line `BENCH name min median p99 mean n`.
#![cfg_attr(target_os = "none", no_std, no_main)]

#[cfg(target_os = "none")]
extern crate alloc;
#[cfg(target_os = "none")]
mod guest;
#[cfg(target_os = "none")]
mod interrupts;
#[cfg(target_os = "none")]
mod lifecycle;
#[cfg(target_os = "none")]
mod link;
#[cfg(target_os = "none")]
#[macro_use]
mod paths;
#[cfg(target_os = "none")]
mod peer;
#[cfg(target_os = "none")]
mod primitives;
#[cfg(target_os = "none")]
mod restart;
#[cfg(target_os = "none")]
mod samples;
#[cfg(target_os = "none")]
mod usage;
#[cfg(target_os = "none")]
mod watch;

#[cfg(target_os = "none")]
mod domain {
    use crate::samples::Report;
    use crate::{guest, interrupts, lifecycle, paths, peer, primitives, restart, watch};
    use runtime::{event, info, println};

    runtime::entry!(main);

    fn main() {
        let what = info::argument("do").unwrap_or("rest");
        let outcome = match what {
            "primitives" => primitives::all(),
            "lifecycle" => lifecycle::all(),
            "interrupts" => interrupts::all(),
            "disk" => paths::disk(),
            "nic" => paths::nic(),
            "restart" => restart::read(),
            "peer" => peer::serve(),
            "serve-guest" => guest::serve(),
            "watch-linux" => watch::all(),
            "rest" => rest(),
            other => Err(alloc::format!("nothing is called {other}")),
        };
        match outcome {
            Ok(reports) => {
                reports.iter().for_each(Report::print);
                println!("BENCH-END {what}");
            }
            Err(why) => println!("BENCH-FAILED {what}: {why}"),
        }
        rest()
    }

    /// Nothing any more.
    fn rest() -> ! {
        loop {
            event::wait(None).for_each(drop);
        }
    }
}

#[cfg(not(target_os = "none"))]
fn main() {}
