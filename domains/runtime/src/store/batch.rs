//! Requests that are sent together: the way to the server and back is gone once for many, not once for each.

use alloc::string::String;
use alloc::vec::Vec;
use core::fmt::Display;

use xen_abi::io::xs_wire as abi;

use super::wire::Permission;
use crate::errno::Errno;

/// One request of a batch.
#[derive(Debug)]
pub(super) struct Request {
    pub kind: u32,
    pub payload: Vec<u8>,
    /// An answer that is as good as none.
    pub tolerated: Option<Errno>,
}

/// Requests whose answers say no more than that they were done. They are done in order; one that fails does not keep
/// those behind it from being done.
#[derive(Debug, Default)]
pub struct Batch {
    pub(super) requests: Vec<Request>,
}

impl Batch {
    /// Nothing yet.
    pub fn new() -> Self {
        Self::default()
    }

    fn add(&mut self, kind: u32, parts: &[&[u8]], tolerated: Option<Errno>) {
        self.requests.push(Request { kind, payload: parts.concat(), tolerated });
    }

    /// Sets a node's value, as [`super::Store::write`] does.
    pub fn write(&mut self, path: &str, value: impl Display) {
        self.add(abi::XS_WRITE, &[path.as_bytes(), b"\0", alloc::format!("{value}").as_bytes()], None);
    }

    /// Removes a node and all below it, if it is there.
    pub fn remove(&mut self, path: &str) {
        self.add(abi::XS_RM, &[path.as_bytes(), b"\0"], Some(Errno::ENOENT));
    }

    /// Sets a node's permissions, as [`super::Store::set_permissions`] does.
    pub fn set_permissions(&mut self, path: &str, permissions: &[Permission]) {
        let list: String = permissions.iter().map(|permission| alloc::format!("{permission}\0")).collect();
        self.add(abi::XS_SET_PERMS, &[path.as_bytes(), b"\0", list.as_bytes()], None);
    }
}
