//! Memory of the hypervisor: its own address space, physical memory at boot, its heap, stacks and device mappings.

mod early;
mod heap;
pub mod layout;
mod paging;
mod stack;

pub use heap::free_bytes as heap_free;
pub use early::{Plan, Usable};
pub use layout::direct;
pub use paging::{
    DeviceMapping, MapError, UPPER_HALF, hypervisor_root, load_root, map_device, map_firmware, unmap_boot, upper_half_entry,
};
pub use stack::Stack;

use crate::boot::info::BootInfo;

/// Lays out physical memory, makes the final page tables and the heap.
pub fn init(info: &BootInfo) -> Result<Plan, early::Failure> {
    let mut machine = Plan::new(info)?;
    paging::init(&mut machine, info);
    heap::init(&machine);
    Ok(machine)
}
