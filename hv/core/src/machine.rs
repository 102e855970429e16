//! What the logic needs of the machine: memory by machine address, and the flushing of stale translations.
//!
//! `hv` implements this over its direct map, the tests over a vector. Guest memory is reached through these calls only
//! and never becomes a reference: other CPUs, and the guests, write it at the same time.

use crate::ids::{DomId, Gfn, Hpa, Mfn};

/// Which translation caches may hold a mapping.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum FlushScope {
    /// CPU TLBs only.
    Cpu,
    /// CPU TLBs and the IOTLB.
    CpuAndIommu,
}

/// Access to machine memory. Implementations may rely on this: the addresses lie in frames that the frame table owns
/// or that it was told belong to the hypervisor, byte runs do not leave their frame, and words are aligned.
pub trait MachineMemory {
    /// Copies bytes out of a frame.
    fn read(&self, from: Hpa, into: &mut [u8]);
    /// Copies bytes into a frame.
    fn write(&self, to: Hpa, bytes: &[u8]);
    /// Copies `bytes` from frame to frame. The ranges may overlap, then the result is any mixture.
    fn copy(&self, from: Hpa, to: Hpa, bytes: usize);
    /// Zeroes a frame.
    fn zero(&self, frame: Mfn);
    /// Loads a word.
    fn load_u32(&self, at: Hpa) -> u32;
    /// Loads a word.
    fn load_u64(&self, at: Hpa) -> u64;
    /// Stores a byte.
    fn store_u8(&self, at: Hpa, value: u8);
    /// Stores a word. A table walker of the CPU or the IOMMU sees the old or the new value, never a mixture.
    fn store_u64(&self, at: Hpa, value: u64);
    /// Ors and returns the old value.
    fn fetch_or_u64(&self, at: Hpa, bits: u64) -> u64;
    /// Ands and returns the old value.
    fn fetch_and_u64(&self, at: Hpa, bits: u64) -> u64;
    /// Ands and returns the old value.
    fn fetch_and_u16(&self, at: Hpa, bits: u16) -> u16;
    /// Stores `new` where `current` is found. The error is what was found.
    fn compare_exchange_u32(&self, at: Hpa, current: u32, new: u32) -> Result<u32, u32>;
    /// Makes an entry of an IOMMU table visible to an IOMMU that does not snoop caches.
    fn write_back(&self, at: Hpa) {
        let _ = at;
    }
}

/// Everything the logic asks of the machine.
pub trait Machine: MachineMemory {
    /// On return, no CPU and (if in scope) no IOMMU uses an old translation of these pages of this domain.
    fn flush_pages(&self, domain: DomId, pages: impl ExactSizeIterator<Item = Gfn>, scope: FlushScope);
    /// The same for all pages of the domain.
    fn flush_all(&self, domain: DomId, scope: FlushScope);
}
