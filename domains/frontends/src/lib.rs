//! Front ends of split devices for native domains: a virtual disk ([`block`]) and a network interface ([`net`]).
//!
//! Both are opened by steps that never wait ([`block::Opening`], [`net::Opening`]), so that a domain goes on serving
//! while a back end is missing or starts again. `xen_rings` has the protocols and checks every answer; this crate has the
//! pages, the event channel and the xenbus dance.
//!
//! Pages are granted once, for as long as the connection lives, and used for nothing else meanwhile: what the back end
//! writes into them is copied out before it is looked at, and no page goes back to the heap before its grant is revoked.
#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;

pub mod block;
pub mod net;
mod opening;
