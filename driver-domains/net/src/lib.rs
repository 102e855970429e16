//! The net domain's logic, free of hardware and hypercalls: the switch, the source guard, buffers, checksums.
//!
//! | module | what |
//! |---|---|
//! | [`frame`] | Ethernet addresses, and who may send as whom |
//! | [`switch`] | which ports get a frame |
//! | [`pool`] | frame buffers and the bounded queue before each vif |
//! | [`checksum`] | transport checksums that front ends left blank |
//! | [`segment`] | packets that front ends left to be cut into frames |
//! | [`layout`] | how such a packet lies in the buffers of a front end that takes it as it is |

#![cfg_attr(not(test), no_std)]
#![forbid(unsafe_code)]

extern crate alloc;

pub mod checksum;
pub mod frame;
pub mod layout;
pub mod pool;
pub mod segment;
pub mod switch;
