//! Pages that a remapping unit reads: root, context and interrupt tables, the command queue.

use crate::mm::direct;
use crate::system::system;
use core::sync::atomic::{Ordering, fence};
use hv_core::frames::Purpose;
use hv_core::machine::MachineMemory;
use x86_64::PhysAddr;

/// A page of the hypervisor's that an IOMMU reads or writes. Never freed; reached with volatile accesses only.
#[derive(Clone, Copy, Debug)]
pub struct TablePage(PhysAddr);

/// 16-byte entries in a page.
pub const ENTRIES: usize = 256;

impl TablePage {
    /// A page of zeros.
    pub fn new() -> Option<Self> {
        let system = system();
        let frame = system.frames.allocate(Purpose::Hypervisor, &system.machine)?;
        let page = Self(PhysAddr::try_new(frame.base().0).ok()?);
        // The zeros have to be in memory for a unit that does not look into caches.
        (0..64).for_each(|line| system.machine.write_back(hv_core::ids::Hpa(frame.base().0 + line * 64)));
        Some(page)
    }

    /// Its machine address.
    pub fn address(self) -> PhysAddr {
        self.0
    }

    fn word(self, index: usize) -> *mut u64 {
        // `index` is below 512 for all callers in this file.
        direct(self.0).as_mut_ptr::<u64>().wrapping_add(index % 512)
    }

    /// Writes entry `index` so that no state between is present: its lower half, which has the present bit, goes last
    /// when the entry becomes present, first when it ceases to be. Entries never change from one present value to
    /// another. Written back to memory for a unit that does not look into caches.
    pub fn write(self, index: usize, entry: [u64; 2]) {
        let order = if entry[0] & 1 != 0 { [1, 0] } else { [0, 1] };
        for half in order {
            let word = self.word(index * 2 + half);
            // SAFETY: the page was allocated for the hypervisor for good, the direct map shows it, and no reference to
            // it exists; `word` stays inside it.
            unsafe { word.write_volatile(entry[half]) };
            fence(Ordering::SeqCst);
            let at = self.0.as_u64() + (index * 16 + half * 8) as u64 % 4096;
            system().machine.write_back(hv_core::ids::Hpa(at));
        }
    }

    /// Reads four bytes that the unit writes.
    pub fn read_u32(self, index: usize) -> u32 {
        // SAFETY: as in `write`; `index % 1024` keeps it inside the page.
        unsafe { direct(self.0).as_ptr::<u32>().wrapping_add(index % 1024).read_volatile() }
    }
}
