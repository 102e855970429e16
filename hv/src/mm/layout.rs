//! The hypervisor's half of every address space, and the extent of its image.
//!
//! | from                    | what                                                            |
//! |-------------------------|-----------------------------------------------------------------|
//! | `0`                     | the current native domain                                       |
//! | [`DIRECT_MAP`]          | all RAM but the hypervisor's image, read-write, never executable |
//! | [`DEVICE_BASE`]         | device registers (uncached)                                     |
//! | [`STACK_BASE`]          | stacks, each with unmapped pages around it                      |
//! | [`HEAP_BASE`]           | the heap, as far as it has grown                                |
//! | [`KERNEL_BASE`] + 2 MiB | the image: text, read-only data, data                           |

use crate::boot::info::Region;
use x86_64::{PhysAddr, VirtAddr};

/// Where physical address 0 appears.
pub const DIRECT_MAP: u64 = 0xffff_8000_0000_0000;
/// One past the highest physical address that the direct map can show (64 TiB).
pub const DIRECT_MAP_BYTES: u64 = 0x4000_0000_0000;
/// The early tables show physical memory up to here: what the boot loader hands over, ACPI's tables and the first frames
/// that are taken must lie below.
pub const EARLY_LIMIT: u64 = 4 << 30;
/// First address for device mappings.
pub const DEVICE_BASE: u64 = 0xffff_c000_0000_0000;
/// First address for stacks.
pub const STACK_BASE: u64 = 0xffff_d000_0000_0000;
/// First address of the heap.
pub const HEAP_BASE: u64 = 0xffff_e000_0000_0000;
/// Virtual minus physical address of the image.
pub const KERNEL_BASE: u64 = 0xffff_ffff_8000_0000;

/// Bytes in a small page.
pub const PAGE: u64 = 4096;
/// Bytes in a large page.
pub const LARGE_PAGE: u64 = 2 * 1024 * 1024;

unsafe extern "C" {
    static image_start: u8;
    static text_start: u8;
    static text_end: u8;
    static rodata_end: u8;
    static data_end: u8;
}

/// The image in physical memory.
pub fn image() -> Region {
    // The symbols are addresses only; nothing is read through them.
    &raw const image_start as u64..&raw const data_end as u64 - KERNEL_BASE
}

/// Where the image's parts begin: text, read-only data, data; and where the last one ends. All page aligned.
pub fn image_parts() -> [VirtAddr; 4] {
    [&raw const text_start, &raw const text_end, &raw const rodata_end, &raw const data_end].map(VirtAddr::from_ptr)
}

/// The direct map's address of RAM at `address`.
pub fn direct(address: PhysAddr) -> VirtAddr {
    VirtAddr::new_truncate(DIRECT_MAP | (address.as_u64() & (DIRECT_MAP_BYTES - 1)))
}

/// Rounds up to a page.
pub const fn page_up(address: u64) -> u64 {
    address.saturating_add(PAGE - 1) & !(PAGE - 1)
}

/// Rounds down to a page.
pub const fn page_down(address: u64) -> u64 {
    address & !(PAGE - 1)
}
