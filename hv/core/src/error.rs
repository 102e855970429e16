//! Errors that a hypercall can answer, by their Xen (and Linux) names.

pub use xen_abi::errno::Errno;

use crate::fallible::OutOfMemory;

impl From<OutOfMemory> for Errno {
    fn from(_: OutOfMemory) -> Self {
        Errno::ENOMEM
    }
}
