//! The policy domain: builds all other domains as the sealed policy says, hands out the devices, introduces domains to
//! each other through xenstore, watches over them, and answers the administrator.
//!
//! It has authority but no trust beyond it: the hypervisor checks each of its acts against the sealed table, and it
//! cannot look into a domain once that runs. What it decides is in the library beside this program; here it is done.
//!
//! | module | does |
//! |---|---|
//! | `boot` | the order of starting up |
//! | `builder` | one domain from its image |
//! | `guest_builder` | one virtual machine from its kernel |
//! | `wiring` | the xenstore nodes of domains and links |
//! | `watch` | the main loop: deaths, and whether the system is ready |
//! | `rescue` | keeps xenstore alive, also while requests wait for it |
//! | `supervise` | what becomes of the dead: started again, or mourned |
//! | `admin` | the shell |
//! | `system` | what they all share |
//!
//! Arguments: `test-exit[=CODE]` makes `shutdown` leave the emulator with an exit code instead of powering off.
#![cfg_attr(target_os = "none", no_std, no_main)]
#![forbid(unsafe_code)]

#[cfg(target_os = "none")]
extern crate alloc;

#[cfg(target_os = "none")]
mod admin;
#[cfg(target_os = "none")]
mod boot;
#[cfg(target_os = "none")]
mod builder;
#[cfg(target_os = "none")]
mod guest_builder;
#[cfg(target_os = "none")]
mod rescue;
#[cfg(target_os = "none")]
mod supervise;
#[cfg(target_os = "none")]
mod system;
#[cfg(target_os = "none")]
mod watch;
#[cfg(target_os = "none")]
mod wiring;

#[cfg(target_os = "none")]
runtime::entry!(boot::run);

#[cfg(not(target_os = "none"))]
fn main() {}
