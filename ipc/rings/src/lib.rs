//! Shared rings and what runs over them: blkif, netif, console, xenstore wire. Both ends, no I/O, no allocation.
//!
//! The memory is abstract ([`memory::SharedMemory`]), so the same code runs in a domain over granted pages and in a
//! test over an array. Three rules hold everywhere:
//!
//! - what the peer can write is copied once, and only the copy is checked and used;
//! - an index, id, length or status that cannot be is a typed error, never a panic, and kills the connection where
//!   nothing after it can be trusted;
//! - what goes out is initialised to the last byte.
#![no_std]
#![forbid(unsafe_code)]

pub mod blkif;
pub mod byte_ring;
pub mod console;
pub mod memory;
pub mod netif;
pub mod ring;
pub mod slots;
pub mod store;
