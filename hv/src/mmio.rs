//! Device registers in memory: every access is volatile, aligned, and inside the window.

use crate::mm::{MapError, map_device};
use hv_core::ids::Hpa;
use x86_64::VirtAddr;

/// A window of device registers, mapped uncached for good.
#[derive(Clone, Copy, Debug)]
pub struct Registers {
    base: VirtAddr,
    bytes: u64,
}

impl Registers {
    /// Maps registers.
    ///
    /// # Safety
    /// Nothing but device registers may lie in the range: writing them must not change memory that Rust code or a
    /// domain owns.
    pub unsafe fn map(start: Hpa, bytes: u64) -> Result<Self, MapError> {
        Ok(Self { base: map_device(start, bytes)?, bytes })
    }

    /// The address of the register at `offset`, if it is aligned and inside.
    pub fn pointer<T>(&self, offset: u64) -> Option<*mut T> {
        let size = size_of::<T>() as u64;
        let inside = offset.checked_add(size)? <= self.bytes && (self.base.as_u64() + offset).is_multiple_of(size);
        inside.then(|| (self.base + offset).as_mut_ptr())
    }

    /// Reads a register; all ones outside the window, as the bus answers.
    pub fn read32(&self, offset: u64) -> u32 {
        // SAFETY: `map`'s mapping is never undone, and `pointer` gives aligned addresses inside it only.
        self.pointer::<u32>(offset).map_or(!0, |register| unsafe { register.read_volatile() })
    }

    /// Writes a register; nothing happens outside the window.
    pub fn write32(&self, offset: u64, value: u32) {
        if let Some(register) = self.pointer::<u32>(offset) {
            // SAFETY: as in `read32`; that writing is harmless to memory is the promise made to `map`.
            unsafe { register.write_volatile(value) }
        }
    }

    /// Reads a register of 64 bits.
    pub fn read64(&self, offset: u64) -> u64 {
        // SAFETY: as in `read32`.
        self.pointer::<u64>(offset).map_or(!0, |register| unsafe { register.read_volatile() })
    }

    /// Writes a register of 64 bits.
    pub fn write64(&self, offset: u64, value: u64) {
        if let Some(register) = self.pointer::<u64>(offset) {
            // SAFETY: as in `write32`.
            unsafe { register.write_volatile(value) }
        }
    }
}
