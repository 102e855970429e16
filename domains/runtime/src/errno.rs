//! What a hypercall or a xenstore request answers when it fails.

pub use xen_abi::errno::Errno;

/// The result of a hypercall or a xenstore request.
pub type Result<T> = core::result::Result<T, Errno>;
