//! Pages that a remapping unit reads: root, context and interrupt tables, the command queue.

use crate::{mm, system::system};
use core::sync::atomic::{Ordering, fence};
use hv_core::{frames::Purpose, ids::Mfn, ids::PAGE_BYTES, machine::MachineMemory};

/// A page of the hypervisor's that an IOMMU reads or writes. Never freed.
#[derive(Clone, Copy, Debug)]
pub struct TablePage(Mfn);

/// 16-byte entries in a page.
pub const ENTRIES: usize = 256;

impl TablePage {
    /// A page of zeros.
    pub fn new() -> Option<Self> {
        let machine = &system().machine;
        let page = mm::frames().allocate(Purpose::Hypervisor, machine)?;
        // The zeros have to be in memory for a unit that does not look into caches.
        (0..PAGE_BYTES).step_by(64).for_each(|line| machine.write_back(page.at(line)));
        Some(Self(page))
    }

    /// Its machine address.
    pub fn address(self) -> u64 {
        self.0.base().0
    }

    /// Writes entry `index` so that no state between is present: its lower half, which has the present bit, goes last
    /// when the entry becomes present, first when it ceases to be. Entries never change from one present value to
    /// another. Written back to memory for a unit that does not look into caches.
    pub fn write(self, index: usize, entry: [u64; 2]) {
        let order = if entry[0] & 1 != 0 { [1, 0] } else { [0, 1] };
        for half in order {
            let word = self.0.at((index * 16 + half * 8) as u64);
            system().machine.store_u64(word, entry[half]);
            fence(Ordering::SeqCst);
            system().machine.write_back(word);
        }
    }

    /// Reads the first four bytes, which the unit writes.
    pub fn first(self) -> u32 {
        system().machine.load_u32(self.0.base())
    }
}
