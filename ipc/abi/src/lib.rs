//! The Xen public interface, and the few structures that Bulkhead adds to it: numbers and layouts, no behaviour.
#![no_std]
#![forbid(unsafe_code)]

/// Asserts, at compile time, a structure's size and the offsets of its fields.
macro_rules! layout {
    ($name:ty, $size:literal $(, $field:ident @ $offset:literal)* $(,)?) => {
        const _: () = {
            assert!(size_of::<$name>() == $size);
            $(assert!(core::mem::offset_of!($name, $field) == $offset);)*
        };
    };
}

pub mod elfnote;
pub mod errno;
pub mod event_channel;
pub mod grant_table;
pub mod hvm;
pub mod io;
pub mod memory;
pub mod native;
pub mod physdev;
pub mod platform;
pub mod policy_table;
pub mod pvh;
pub mod sched;
pub mod start_info;
pub mod vcpu;
pub mod version;
pub mod xen;
