//! The console's logic, without the machine: many domains' output on one line, one person's input to one of them.
//!
//! [`mux::Mux`] is the whole; the binary feeds it with bytes from rings and from the 16550, and carries away what it
//! has for them. `docs/console.md` tells what it does.
#![cfg_attr(not(test), no_std)]
#![forbid(unsafe_code)]

extern crate alloc;

pub mod editor;
pub mod kept;
pub mod mux;
pub mod sanitize;
pub mod screen;
