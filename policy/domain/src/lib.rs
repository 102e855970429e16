//! What the policy domain decides, without doing it: memory layouts, tables of virtual machines, xenstore nodes, readiness,
//! restarts, the shell's language.
//!
//! Everything here is pure and has its tests on the host; `main.rs` and its modules do it.
#![cfg_attr(target_os = "none", no_std)]
#![forbid(unsafe_code)]

extern crate alloc;

pub mod bundle;
pub mod guest;
pub mod handover;
pub mod layout;
pub mod nodes;
pub mod program;
pub mod ready;
pub mod shell;
pub mod supervision;
pub mod turns;
pub mod writing;
