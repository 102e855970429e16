//! `memory.h`: what a domain with a translated address space uses. Sub-operations of `HYPERVISOR_MEMORY_OP`
//! (RDI = command, RSI = address of its structure).

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// [`XenMemoryReservation`]: more memory (paravirtualized domains).
pub const XENMEM_INCREASE_RESERVATION: u64 = 0;
/// [`XenMemoryReservation`]: give pages back. Returns the number of extents done.
pub const XENMEM_DECREASE_RESERVATION: u64 = 1;
/// Highest machine frame number; no structure.
pub const XENMEM_MAXIMUM_RAM_PAGE: u64 = 2;
/// [`XenMemoryDomain`]: returns the pages that a domain has.
pub const XENMEM_CURRENT_RESERVATION: u64 = 3;
/// [`XenMemoryDomain`]: returns the pages that a domain may have.
pub const XENMEM_MAXIMUM_RESERVATION: u64 = 4;
/// Machine-to-physical table.
pub const XENMEM_MACHPHYS_MFN_LIST: u64 = 5;
/// [`XenMemoryReservation`]: get pages at given frame numbers. Returns the number of extents done.
pub const XENMEM_POPULATE_PHYSMAP: u64 = 6;
/// [`XenAddToPhysmap`]: map a page of a named kind.
pub const XENMEM_ADD_TO_PHYSMAP: u64 = 7;
/// [`XenMemoryMap`]: the domain's memory map, as e820 entries.
pub const XENMEM_MEMORY_MAP: u64 = 9;
/// The machine's memory map.
pub const XENMEM_MACHINE_MEMORY_MAP: u64 = 10;
/// Exchange of frames.
pub const XENMEM_EXCHANGE: u64 = 11;
/// Where the machine-to-physical table is.
pub const XENMEM_MACHPHYS_MAPPING: u64 = 12;
/// The builder's side of the memory map.
pub const XENMEM_SET_MEMORY_MAP: u64 = 13;
/// [`XenMemoryDomain`]: returns the highest guest frame number in use.
pub const XENMEM_MAXIMUM_GPFN: u64 = 14;
/// [`XenRemoveFromPhysmap`]: unmap a page.
pub const XENMEM_REMOVE_FROM_PHYSMAP: u64 = 15;
/// Populate on demand.
pub const XENMEM_SET_POD_TARGET: u64 = 16;
/// Populate on demand.
pub const XENMEM_GET_POD_TARGET: u64 = 17;
/// [`XenAddToPhysmapBatch`]: many pages of one kind.
pub const XENMEM_ADD_TO_PHYSMAP_BATCH: u64 = 23;
/// Compat machine-to-physical table.
pub const XENMEM_MACHPHYS_COMPAT_MFN_LIST: u64 = 25;
/// Virtual NUMA.
pub const XENMEM_GET_VNUMAINFO: u64 = 26;
/// Frames of ioreq servers and grant tables, for tools.
pub const XENMEM_ACQUIRE_RESOURCE: u64 = 28;

/// Commands use these low bits; the rest is Xen's continuation index, which we refuse.
pub const MEMOP_CMD_MASK: u64 = 0x3f;

/// [`XenAddToPhysmap::space`]: the shared info page.
pub const XENMAPSPACE_SHARED_INFO: u32 = 0;
/// [`XenAddToPhysmap::space`]: frame `idx` of the grant table.
pub const XENMAPSPACE_GRANT_TABLE: u32 = 1;
/// [`XenAddToPhysmap::space`]: an own frame, moved.
pub const XENMAPSPACE_GMFN: u32 = 2;
/// [`XenAddToPhysmap::space`]: `size` own frames, moved.
pub const XENMAPSPACE_GMFN_RANGE: u32 = 3;
/// [`XenAddToPhysmap::space`]: another domain's frame.
pub const XENMAPSPACE_GMFN_FOREIGN: u32 = 4;
/// [`XenAddToPhysmap::space`]: device memory.
pub const XENMAPSPACE_DEV_MMIO: u32 = 5;
/// [`XenAddToPhysmap::idx`]: status frames of a version 2 grant table.
pub const XENMAPIDX_GRANT_TABLE_STATUS: u64 = 0x8000_0000;

/// `struct xen_memory_reservation`.
#[derive(Clone, Copy, Debug, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct XenMemoryReservation {
    /// In: address of `nr_extents` u64 frame numbers.
    pub extent_start: u64,
    /// In: how many.
    pub nr_extents: u64,
    /// In: each is `1 << extent_order` frames.
    pub extent_order: u32,
    /// In: `XENMEMF_*`.
    pub mem_flags: u32,
    /// In: `DOMID_SELF`.
    pub domid: u16,
    /// Zero.
    pub pad: [u16; 3],
}
layout!(XenMemoryReservation, 32, nr_extents @ 8, extent_order @ 16, mem_flags @ 20, domid @ 24);

/// [`XenMemoryReservation::mem_flags`]: populate on demand.
pub const XENMEMF_POPULATE_ON_DEMAND: u32 = 1 << 16;
/// [`XenMemoryReservation::mem_flags`]: from this NUMA node only.
pub const XENMEMF_EXACT_NODE_REQUEST: u32 = 1 << 17;
/// [`XenMemoryReservation::mem_flags`]: the node is a virtual one.
pub const XENMEMF_VNODE: u32 = 1 << 18;

/// `struct xen_memory_domain`.
#[derive(Clone, Copy, Debug, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct XenMemoryDomain {
    /// In: domain.
    pub domid: u16,
}
layout!(XenMemoryDomain, 2);

/// `struct xen_add_to_physmap`.
#[derive(Clone, Copy, Debug, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct XenAddToPhysmap {
    /// In: `DOMID_SELF`.
    pub domid: u16,
    /// In: frames, for [`XENMAPSPACE_GMFN_RANGE`].
    pub size: u16,
    /// In: `XENMAPSPACE_*`.
    pub space: u32,
    /// In: which page of the space.
    pub idx: u64,
    /// In: guest frame number to map it at.
    pub gpfn: u64,
}
layout!(XenAddToPhysmap, 24, size @ 2, space @ 4, idx @ 8, gpfn @ 16);

/// `struct xen_add_to_physmap_batch`.
#[derive(Clone, Copy, Debug, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct XenAddToPhysmapBatch {
    /// In: `DOMID_SELF`.
    pub domid: u16,
    /// In: `XENMAPSPACE_*`.
    pub space: u16,
    /// In: pages.
    pub size: u16,
    /// In: `u.foreign_domid`.
    pub foreign_domid: u16,
    /// In: address of `size` u64: which pages of the space.
    pub idxs: u64,
    /// In: address of `size` u64: guest frame numbers.
    pub gpfns: u64,
    /// Out: address of `size` i32: results.
    pub errs: u64,
}
layout!(XenAddToPhysmapBatch, 32, space @ 2, size @ 4, foreign_domid @ 6, idxs @ 8, gpfns @ 16, errs @ 24);

/// `struct xen_remove_from_physmap`.
#[derive(Clone, Copy, Debug, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct XenRemoveFromPhysmap {
    /// In: `DOMID_SELF`.
    pub domid: u16,
    /// Zero.
    pub pad: [u16; 3],
    /// In: guest frame number.
    pub gpfn: u64,
}
layout!(XenRemoveFromPhysmap, 16, gpfn @ 8);

/// `struct xen_memory_map`.
#[derive(Clone, Copy, Debug, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct XenMemoryMap {
    /// In: entries that fit into the buffer. Out: entries written.
    pub nr_entries: u32,
    /// Zero.
    pub pad: u32,
    /// In: address of the buffer.
    pub buffer: u64,
}
layout!(XenMemoryMap, 16, buffer @ 8);

/// The e820 entry that [`XENMEM_MEMORY_MAP`] writes: the BIOS's layout of 20 bytes, in no public header.
#[derive(Clone, Copy, Debug, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C, packed)]
pub struct E820Entry {
    /// First byte.
    pub addr: u64,
    /// Bytes.
    pub size: u64,
    /// 1 = RAM, 2 = reserved, 3 = ACPI, 4 = NVS.
    pub kind: u32,
}
layout!(E820Entry, 20, size @ 8, kind @ 16);
