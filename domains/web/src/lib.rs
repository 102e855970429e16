//! The web domain without its devices: HTTP, the site that it serves, and the bookkeeping of reads from the disk.
#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;

pub mod cache;
pub mod checksum;
pub mod http;
pub mod site;
