//! The policy: what domains there are, what each may use, and who may talk to whom.
//!
//! An administrator writes it as a TOML file. [`load`] reads and checks that file, [`Policy::check`] compares it with a
//! machine and a set of images, and [`Policy::compile`] makes the binary table (`xen_abi::policy_table`) that the
//! hypervisor seals at boot. All errors of a file are found in one go; each says where it is, what is wrong and how to
//! mend it. `docs/policy-language.md` describes the language.
//!
//! Without the feature `std` only [`table`], [`reach`], [`restart`] and [`size`] remain: the policy domain reads the sealed table with them.
#![cfg_attr(not(feature = "std"), no_std)]
#![forbid(unsafe_code)]

extern crate alloc;

pub mod reach;
pub mod restart;
pub mod size;
pub mod table;

#[cfg(feature = "std")]
mod language;

#[cfg(feature = "std")]
pub use language::{Diagnostic, Errors, Guest, ImageInfo, Machine, PciFunction, Policy, load};

pub use table::{Bdf, Label, Table};
