//! The block domain's logic, free of hardware and hypercalls: partition tables and the bounds of an export.
//!
//! | module | what |
//! |---|---|
//! | [`gpt`] | reads a GUID partition table that may be broken or hostile |
//! | [`export`] | what a virtual disk shows, and that no request leaves it |

#![cfg_attr(not(test), no_std)]
#![forbid(unsafe_code)]

extern crate alloc;

pub mod export;
pub mod gpt;
pub mod runs;
