//! The xenstore domain: serves every introduced domain's ring with the engine of the library.
//!
//! The policy domain's connection comes by argument, `policy-port=N`; all others, at most `clients=N` at once, by its
//! `INTRODUCE`. Each connection gets a bounded number of requests in turn, so that none can keep the others waiting.
//! `handover=REFERENCE,...+PAGES` names the memory in which it keeps what its successor needs, and in which it finds what its
//! predecessor left (`docs/restart.md`).
#![cfg_attr(target_os = "none", no_std, no_main)]
#![forbid(unsafe_code)]

#[cfg(target_os = "none")]
extern crate alloc;

#[cfg(target_os = "none")]
mod server;

#[cfg(target_os = "none")]
runtime::entry!(server::run);

#[cfg(not(target_os = "none"))]
fn main() {}
