//! Grant copies between front ends' pages and DMA regions, many in one hypercall, with no allocation in the long run.
//!
//! `runtime::grant::copy` does the same for ordinary memory; this one keeps its list from batch to batch.

use crate::dma::{DmaRegion, OutsideRegion};
use alloc::vec::Vec;
use runtime::grant::GrantError;
use runtime::grant::copy::Remote;
use runtime::hypercall::grant_table;
use virtio_drivers::Hal;
use xen_abi::grant_table::{GNTCOPY_DEST_GREF, GNTCOPY_SOURCE_GREF, GNTST_GENERAL_ERROR, GnttabCopy, GnttabCopyPtr};
use xen_abi::native::PAGE_SIZE;
use xen_abi::xen::DOMID_SELF;

/// A batch of copies.
#[derive(Debug, Default)]
pub struct Copies {
    operations: Vec<GnttabCopy>,
}

/// The copy cannot be expressed: it leaves the region or crosses a page of it, or its length is 0 or above a page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BadCopy;

impl From<OutsideRegion> for BadCopy {
    fn from(_: OutsideRegion) -> Self {
        Self
    }
}

impl Copies {
    /// An empty batch with room for `expected` copies.
    pub fn with_capacity(expected: usize) -> Self {
        Self { operations: Vec::with_capacity(expected) }
    }

    /// Copies in the batch.
    pub fn len(&self) -> usize {
        self.operations.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.operations.is_empty()
    }

    /// Forgets all copies but the first ones.
    pub fn truncate(&mut self, count: usize) {
        self.operations.truncate(count);
    }

    /// Forgets all copies.
    pub fn clear(&mut self) {
        self.operations.clear();
    }

    /// Adds: fill a part of the region from a peer's page.
    pub fn from_peer<H: Hal>(
        &mut self,
        source: Remote,
        region: &mut DmaRegion<H>,
        offset: usize,
        bytes: u16,
    ) -> Result<(), BadCopy> {
        self.add(peer_end(source)?, own_end(region, offset, bytes)?, bytes, GNTCOPY_SOURCE_GREF);
        Ok(())
    }

    /// Adds: store a part of the region in a peer's page.
    pub fn to_peer<H: Hal>(
        &mut self,
        region: &DmaRegion<H>,
        offset: usize,
        bytes: u16,
        destination: Remote,
    ) -> Result<(), BadCopy> {
        self.add(own_end(region, offset, bytes)?, peer_end(destination)?, bytes, GNTCOPY_DEST_GREF);
        Ok(())
    }

    /// Adds: store a part of a peer's page in another's.
    pub fn between(&mut self, source: Remote, destination: Remote, bytes: u16) -> Result<(), BadCopy> {
        let flags = GNTCOPY_SOURCE_GREF | GNTCOPY_DEST_GREF;
        self.add(peer_end(source)?, peer_end(destination)?, bytes, flags);
        Ok(())
    }

    fn add(&mut self, source: GnttabCopyPtr, dest: GnttabCopyPtr, len: u16, flags: u16) {
        let status = GNTST_GENERAL_ERROR; // stays so for what the hypervisor does not get to
        self.operations.push(GnttabCopy { source, dest, len, flags, status, ..Default::default() });
    }

    /// Makes the copies; [`Copies::outcome`] tells how each went.
    pub fn run(&mut self) {
        if !self.operations.is_empty() {
            // SAFETY: the own ends lie in DMA regions, which nobody holds references into. An error of the call as a
            // whole leaves the preset status of what was not done.
            let _ = unsafe { grant_table::copy(&mut self.operations) };
        }
    }

    /// How copy number `index` went.
    pub fn outcome(&self, index: usize) -> Result<(), GrantError> {
        GrantError::check(self.operations.get(index).map_or(GNTST_GENERAL_ERROR, |operation| operation.status))
    }
}

fn own_end<H: Hal>(region: &DmaRegion<H>, offset: usize, bytes: u16) -> Result<GnttabCopyPtr, BadCopy> {
    let address = region.chunk(offset, bytes.into())?.address();
    let in_page = address % PAGE_SIZE;
    if in_page + u64::from(bytes) > PAGE_SIZE {
        return Err(BadCopy);
    }
    Ok(GnttabCopyPtr { target: address / PAGE_SIZE, domid: DOMID_SELF, offset: in_page as u16, ..Default::default() })
}

fn peer_end(place: Remote) -> Result<GnttabCopyPtr, BadCopy> {
    let offset = u16::try_from(place.offset).map_err(|_| BadCopy)?;
    let target = place.reference.0.into();
    Ok(GnttabCopyPtr { target, domid: place.peer.0, offset, ..Default::default() })
}
