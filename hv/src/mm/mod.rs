//! Memory of the hypervisor: its own address space, physical memory at boot, its heap, stacks and device mappings.

mod early;
mod heap;
pub mod layout;
mod paging;
pub mod user;

pub use early::Plan;
pub use hv_core::space::MapError;
pub use paging::{UPPER_HALF, hypervisor_root, load_root, map_device, map_stack};

use crate::boot::info::BootInfo;

/// Lays out physical memory, makes the final page tables and the heap. `Err`: that many bytes of free RAM are missing.
pub fn init(info: &BootInfo) -> Result<Plan, u64> {
    let plan = Plan::new(info)?;
    heap::init(&plan);
    paging::init(&plan);
    Ok(plan)
}
