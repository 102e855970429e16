//! Grant tables, version 1: a domain offers a page to another by writing an entry of its table; the other maps it or
//! copies with it.
//!
//! An entry that is in use is *active*: the hypervisor's own snapshot of it (`active.rs`) holds who, what and how often,
//! and later uses go by the snapshot, never by what the guest has written since. What a domain has mapped is tracked by
//! handle (`tracking.rs`). Every use pins the frame, so a page outlives its owner for as long as it is mapped.
//!
//! Operations are two-phase: everything is checked and reserved, then done without a step that could fail. Every status
//! is a [`Status`], zero or negative by its type.

mod active;
mod copy;
mod info;
mod map;
mod status;
mod table;
mod tracking;
mod unmap;

pub use crate::space::Access;
pub use copy::{copy, copy_near};
pub use info::info;
pub use map::{map, map_near};
pub use status::Status;
pub use table::{GrantTable, query_size, seed, set_version, setup_table};
pub use unmap::{unmap, unmap_near, unmap_slice};

/// Entries of one table frame.
pub const ENTRIES_PER_FRAME: u32 = xen_abi::grant_table::GRANT_ENTRIES_PER_FRAME;
/// Frames of a table at most.
pub const FRAMES_MAX: usize = xen_abi::native::GRANT_TABLE_FRAMES_MAX as usize;

/// How far a batch has come: kept in the vCPU while others run, never in guest memory.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Continuation {
    /// The call's number and arguments, to tell that it is the same call.
    pub call: [u64; 4],
    /// Items done, their statuses written.
    pub done: u32,
}

impl Continuation {
    /// The beginning of a batch, or the rest of the one that was interrupted if it is the same call.
    pub fn resume(interrupted: Option<Continuation>, call: [u64; 4]) -> Self {
        interrupted.filter(|earlier| earlier.call == call).unwrap_or(Self { call, done: 0 })
    }
}

#[cfg(test)]
mod tests;
