//! The Xen public interface, and the few structures that Bulkhead adds to it: numbers and layouts, no behaviour.
#![no_std]
#![forbid(unsafe_code)]

pub mod native;
pub mod platform;
pub mod policy_table;
