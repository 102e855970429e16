//! A policy domain gone bad: it has the authority to build domains, and tries to get more out of it.
//!
//! It runs in place of the policy domain. Each thing that the hypervisor must refuse is one verdict, with the exact
//! error; what is legal in between must go on working. There is no console domain: the hypervisor prints the verdicts.
//! It ends by leaving the emulator.
//!
//! The labels that it expects are those of the policy in the test `rogue.rs`.
#![cfg_attr(target_os = "none", no_std, no_main)]

#[cfg(target_os = "none")]
mod answers;
#[cfg(target_os = "none")]
mod building;
#[cfg(target_os = "none")]
mod child;
#[cfg(target_os = "none")]
mod devices;
#[cfg(target_os = "none")]
mod ending;
#[cfg(target_os = "none")]
mod fuzz;
#[cfg(target_os = "none")]
mod life;
#[cfg(target_os = "none")]
mod raw;

#[cfg(target_os = "none")]
mod domain {
    use crate::{answers, building, devices, ending, fuzz, life};
    use runtime::hypercall::platform;
    use runtime::{info, println};
    use xen_abi::platform::POWER_DEBUG_EXIT;

    runtime::entry!(main);

    /// What the test expects QEMU to be left with.
    const DONE: u32 = 21;

    fn main() {
        match info::argument("do").unwrap_or("all") {
            "fuzz" => fuzz::all(),
            _ => {
                building::all();
                answers::all();
                life::all();
                devices::all();
                ending::all();
            }
        }
        println!("rogue is done");
        if let Err(error) = platform::power(POWER_DEBUG_EXIT, DONE) {
            runtime::verdict::fail("debug-exit", error);
        }
    }
}

#[cfg(not(target_os = "none"))]
fn main() {}
