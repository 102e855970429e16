//! Device registers: volatile accesses inside a checked range.

use crate::caps::Structure;

/// A width in which registers are accessed.
pub(crate) trait Width: Copy {}
impl Width for u8 {}
impl Width for u16 {}
impl Width for u32 {}

/// Registers of a device, mapped in the domain for as long as it lives. Not empty, aligned to 4.
#[derive(Debug)]
pub(crate) struct Registers {
    base: *mut u8,
    bytes: usize,
}

// SAFETY: device registers are as good on any thread; the transport that owns them is used by one at a time.
unsafe impl Send for Registers {}

impl Registers {
    /// The registers of a structure that [`crate::caps::find_structures`] found.
    ///
    /// # Safety
    ///
    /// `structure` lies in a memory BAR of a device of this domain, mapped by the hypervisor, and no other `Registers`
    /// covers it.
    pub(crate) unsafe fn new(structure: Structure) -> Self {
        let base = core::ptr::with_exposed_provenance_mut(structure.address as usize);
        Self { base, bytes: structure.bytes as usize }
    }

    /// Whether `width` bytes at `offset` are inside.
    pub(crate) fn covers(&self, offset: usize, width: usize) -> bool {
        offset.checked_add(width).is_some_and(|end| end <= self.bytes)
    }

    /// The register at `offset`. Outside the range or unaligned: `None`.
    pub(crate) fn get<T: Width>(&self, offset: usize) -> Option<T> {
        if !self.covers(offset, size_of::<T>()) || !offset.is_multiple_of(size_of::<T>()) {
            return None;
        }
        // SAFETY: inside a mapped BAR (`new`) and aligned (checked above, the base is aligned to 4).
        Some(unsafe { self.base.add(offset).cast::<T>().read_volatile() })
    }

    /// Sets the register at `offset`. Outside the range or unaligned: nothing happens, `false`.
    pub(crate) fn set<T: Width>(&self, offset: usize, value: T) -> bool {
        if !self.covers(offset, size_of::<T>()) || !offset.is_multiple_of(size_of::<T>()) {
            return false;
        }
        // SAFETY: as in `get`.
        unsafe { self.base.add(offset).cast::<T>().write_volatile(value) };
        true
    }
}
