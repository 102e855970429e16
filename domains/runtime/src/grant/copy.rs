//! Copying between own memory and a peer's granted page, by the hypervisor, without mapping it.
//!
//! One operation copies within one page on either side. A batch checks each operation's status by itself.

use alloc::vec::Vec;
use core::marker::PhantomData;

use xen_abi::grant_table as abi;
use xen_abi::native::PAGE_SIZE;
use xen_abi::xen::DOMID_SELF;

use super::GrantError;
use crate::hypercall::grant_table;
use crate::ids::{DomId, GrantRef};
use crate::pages::PAGE;
use crate::shared::Shared;

/// A place in a peer's granted page.
#[derive(Clone, Copy, Debug)]
pub struct Remote {
    /// Whose page.
    pub peer: DomId,
    /// Which.
    pub reference: GrantRef,
    /// Bytes from its start.
    pub offset: usize,
}

/// Copies that are made by one hypercall. The lifetime is that of the own memory named in it.
#[derive(Debug, Default)]
pub struct CopyBatch<'a> {
    operations: Vec<abi::GnttabCopy>,
    /// For each request: the operations it was split into end here.
    ends: Vec<usize>,
    _memory: PhantomData<&'a mut [u8]>,
}

impl<'a> CopyBatch<'a> {
    /// An empty batch.
    pub fn new() -> Self {
        Self::default()
    }

    /// Requests that were added.
    pub fn len(&self) -> usize {
        self.ends.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    /// Adds: fill `destination` from the peer's page.
    pub fn read(&mut self, source: Remote, destination: &'a mut [u8]) {
        self.add(source, destination.as_mut_ptr() as u64, destination.len(), Direction::FromPeer);
    }

    /// Adds: store `source` in the peer's page.
    pub fn write(&mut self, source: &'a [u8], destination: Remote) {
        self.add(destination, source.as_ptr() as u64, source.len(), Direction::ToPeer);
    }

    /// Adds: fill shared memory of our own.
    pub fn read_shared(&mut self, source: Remote, destination: Shared<'a>) {
        self.add(source, destination.address(), destination.len(), Direction::FromPeer);
    }

    /// Adds: store shared memory of our own in the peer's page.
    pub fn write_shared(&mut self, source: Shared<'a>, destination: Remote) {
        self.add(destination, source.address(), source.len(), Direction::ToPeer);
    }

    /// Splits a request where it crosses a page of ours; a request that does not fit the peer's page is left whole for
    /// the hypervisor to refuse.
    fn add(&mut self, remote: Remote, address: u64, bytes: usize, direction: Direction) {
        let mut done = 0;
        while done < bytes {
            let at = address + done as u64;
            let own_offset = (at % PAGE_SIZE) as usize;
            let len = (bytes - done).min(PAGE - own_offset);
            let own = abi::GnttabCopyPtr {
                target: at / PAGE_SIZE,
                domid: DOMID_SELF,
                offset: own_offset as u16,
                ..Default::default()
            };
            let peer = abi::GnttabCopyPtr {
                target: u64::from(remote.reference.0),
                domid: remote.peer.0,
                offset: u16::try_from(remote.offset.saturating_add(done)).unwrap_or(u16::MAX),
                ..Default::default()
            };
            let (source, dest, flags) = match direction {
                Direction::FromPeer => (peer, own, abi::GNTCOPY_SOURCE_GREF),
                Direction::ToPeer => (own, peer, abi::GNTCOPY_DEST_GREF),
            };
            let status = abi::GNTST_GENERAL_ERROR;
            self.operations.push(abi::GnttabCopy {
                source,
                dest,
                len: len as u16,
                flags,
                status,
                ..Default::default()
            });
            done += len;
        }
        self.ends.push(self.operations.len());
    }

    /// Makes the copies and tells for each request, in order, how it went.
    #[must_use = "a copy may have been refused"]
    pub fn run(mut self) -> Vec<Result<(), GrantError>> {
        if !self.operations.is_empty() {
            // SAFETY: destinations are borrowed mutably for the batch's lifetime, or are shared memory; sources are
            // borrowed. An error of the call leaves the preset status of what was not looked at.
            let _ = unsafe { grant_table::copy(&mut self.operations) };
        }
        let mut start = 0;
        self.ends
            .iter()
            .map(|&end| {
                let part = &self.operations[start..end];
                start = end;
                part.iter().try_for_each(|operation| GrantError::check(operation.status))
            })
            .collect()
    }
}

#[derive(Clone, Copy)]
enum Direction {
    FromPeer,
    ToPeer,
}

/// Fills `destination` from a peer's page.
pub fn read(source: Remote, destination: &mut [u8]) -> Result<(), GrantError> {
    let mut batch = CopyBatch::new();
    batch.read(source, destination);
    batch.run().into_iter().collect()
}

/// Stores `source` in a peer's page.
pub fn write(source: &[u8], destination: Remote) -> Result<(), GrantError> {
    let mut batch = CopyBatch::new();
    batch.write(source, destination);
    batch.run().into_iter().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_is_split_where_own_memory_crosses_a_page() {
        let mut memory = alloc::vec![0u8; 3 * PAGE];
        let start = memory.as_ptr().align_offset(PAGE) + PAGE - 10;
        let remote = Remote { peer: DomId(2), reference: GrantRef(9), offset: 100 };
        let mut batch = CopyBatch::new();
        batch.read(remote, &mut memory[start..start + 30]);
        let parts: Vec<_> =
            batch.operations.iter().map(|op| (op.source.offset, op.dest.offset, op.len, op.flags)).collect();
        assert_eq!(parts, [(100, 4086, 10, abi::GNTCOPY_SOURCE_GREF), (110, 0, 20, abi::GNTCOPY_SOURCE_GREF)]);
        assert_eq!(batch.len(), 1);
    }

    #[test]
    fn what_the_hypervisor_did_not_look_at_is_an_error() {
        let remote = Remote { peer: DomId(2), reference: GrantRef(9), offset: 0 };
        assert!(write(b"x", remote).is_err());
        assert_eq!(write(b"", remote), Ok(()));
    }
}
