//! The console domain: owns the serial line and serves every domain's console ring.
#![cfg_attr(target_os = "none", no_std, no_main)]
#![forbid(unsafe_code)]

#[cfg(target_os = "none")]
extern crate alloc;

#[cfg(target_os = "none")]
mod links;
#[cfg(target_os = "none")]
mod serial;
#[cfg(target_os = "none")]
mod server;

#[cfg(target_os = "none")]
runtime::entry!(server::run);

#[cfg(not(target_os = "none"))]
fn main() {}
