//! The web domain: serves the files of an ext4 file system over HTTP.
//!
//! Its disk is a blkif front end, its network a netif front end under a TCP/IP stack. It serves from its first moment:
//! without a disk, or with one that holds no file system, every request is answered with 503 and the reason.
//!
//! Arguments: `ip=10.0.2.15/24` (default: the interface's `ip` node in xenstore), `gateway=10.0.2.2`, `port=80`.
#![cfg_attr(target_os = "none", no_std, no_main)]
#![forbid(unsafe_code)]

#[cfg(target_os = "none")]
extern crate alloc;

#[cfg(target_os = "none")]
mod disk_site;
#[cfg(target_os = "none")]
mod network;
#[cfg(target_os = "none")]
mod server;
#[cfg(target_os = "none")]
mod volume;

#[cfg(target_os = "none")]
runtime::entry!(server::run);

#[cfg(not(target_os = "none"))]
fn main() {}
