//! The hypervisor's logic without the machine: frames, address spaces, event channels, grants, scheduling, domains,
//! and the sealed policy that bounds them all.
//!
//! Nothing here executes an instruction that ordinary code could not: `hv` gives access to memory and to the flushing
//! of translations through the traits of [`machine`]. So everything runs, and is tested, on a development machine.
//!
//! Read [`ids`] and [`machine`] first, then [`frames`] and [`space`] (memory), [`domain`] (what a domain is and how it
//! ends), [`events`] and [`grant`] (how domains talk), [`sched`], and [`authority`] (what the administrator allows).
#![no_std]
#![forbid(unsafe_code)]
#![expect(clippy::new_without_default, reason = "`new` is constant, for statics; nothing wants a default")]
#![cfg_attr(not(test), deny(clippy::indexing_slicing, clippy::unwrap_used, clippy::expect_used))]
#![cfg_attr(not(test), deny(clippy::panic, clippy::unreachable, clippy::todo))]

extern crate alloc;
#[cfg(test)]
extern crate std;

pub mod acpi;
pub mod authority;
pub mod bundle;
pub mod domain;
pub mod error;
pub mod events;
pub mod fallible;
pub mod frames;
pub mod grant;
pub mod ids;
pub mod iommu;
pub mod machine;
pub mod pci;
pub mod sched;
pub mod space;

#[cfg(test)]
mod model_tests;
#[cfg(test)]
mod parallel_tests;
#[cfg(test)]
mod testing;
