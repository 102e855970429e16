//! `grant_table.h`: version 1. Sub-operations of `HYPERVISOR_GRANT_TABLE_OP` (RDI = command, RSI = address of an array
//! of its structures, RDX = how many). Each structure has its own `status`; the call itself returns 0 or `-errno`.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// [`GnttabMapGrantRef`]: map another domain's page.
pub const GNTTABOP_MAP_GRANT_REF: u64 = 0;
/// [`GnttabUnmapGrantRef`]: undo that.
pub const GNTTABOP_UNMAP_GRANT_REF: u64 = 1;
/// [`GnttabSetupTable`]: grow the table and tell its frames.
pub const GNTTABOP_SETUP_TABLE: u64 = 2;
/// Not provided.
pub const GNTTABOP_DUMP_TABLE: u64 = 3;
/// Not provided.
pub const GNTTABOP_TRANSFER: u64 = 4;
/// [`GnttabCopy`]: copy within pages.
pub const GNTTABOP_COPY: u64 = 5;
/// [`GnttabQuerySize`]: how large the table is and may grow.
pub const GNTTABOP_QUERY_SIZE: u64 = 6;
/// Not provided.
pub const GNTTABOP_UNMAP_AND_REPLACE: u64 = 7;
/// [`GnttabSetVersion`]: 1 is the only version.
pub const GNTTABOP_SET_VERSION: u64 = 8;
/// Not provided.
pub const GNTTABOP_GET_STATUS_FRAMES: u64 = 9;
/// [`GnttabGetVersion`]: always 1.
pub const GNTTABOP_GET_VERSION: u64 = 10;
/// Not provided.
pub const GNTTABOP_SWAP_GRANT_REF: u64 = 11;
/// Not provided.
pub const GNTTABOP_CACHE_FLUSH: u64 = 12;

/// References that the builder uses; a domain allocates from here on.
pub const GNTTAB_NR_RESERVED_ENTRIES: u32 = 8;
/// The console ring.
pub const GNTTAB_RESERVED_CONSOLE: u32 = 0;
/// The xenstore ring.
pub const GNTTAB_RESERVED_XENSTORE: u32 = 1;

/// [`GrantEntryV1::flags`]: unused entry.
pub const GTF_INVALID: u16 = 0;
/// [`GrantEntryV1::flags`]: `domid` may map or copy the page.
pub const GTF_PERMIT_ACCESS: u16 = 1;
/// [`GrantEntryV1::flags`]: transfer, not provided.
pub const GTF_ACCEPT_TRANSFER: u16 = 2;
/// [`GrantEntryV1::flags`]: transitive, version 2 only.
pub const GTF_TRANSITIVE: u16 = 3;
/// [`GrantEntryV1::flags`]: which bits are the type.
pub const GTF_TYPE_MASK: u16 = 3;
/// [`GrantEntryV1::flags`]: no writing.
pub const GTF_READONLY: u16 = 1 << 2;
/// [`GrantEntryV1::flags`]: set by the hypervisor while mapped or copied from.
pub const GTF_READING: u16 = 1 << 3;
/// [`GrantEntryV1::flags`]: set by the hypervisor while mapped writable or copied to.
pub const GTF_WRITING: u16 = 1 << 4;
/// [`GrantEntryV1::flags`]: cache attribute.
pub const GTF_PWT: u16 = 1 << 5;
/// [`GrantEntryV1::flags`]: cache attribute.
pub const GTF_PCD: u16 = 1 << 6;
/// [`GrantEntryV1::flags`]: cache attribute.
pub const GTF_PAT: u16 = 1 << 7;
/// [`GrantEntryV1::flags`]: part of a page, version 2 only.
pub const GTF_SUB_PAGE: u16 = 1 << 8;
/// [`GrantEntryV1::flags`] of a transfer: frame is on its way.
pub const GTF_TRANSFER_COMMITTED: u16 = 1 << 2;
/// [`GrantEntryV1::flags`] of a transfer: frame has arrived.
pub const GTF_TRANSFER_COMPLETED: u16 = 1 << 3;

/// `struct grant_entry_v1`: one entry of the table that a domain shares with the hypervisor. Write `domid` and `frame`
/// first, `flags` last.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct GrantEntryV1 {
    /// `GTF_*`.
    pub flags: u16,
    /// Domain that gets access.
    pub domid: u16,
    /// Guest frame number of the page.
    pub frame: u32,
}
layout!(GrantEntryV1, 8, domid @ 2, frame @ 4);

/// Entries of a table frame.
pub const GRANT_ENTRIES_PER_FRAME: u32 = 4096 / 8;

/// [`GnttabMapGrantRef::flags`]: map for the caller's devices.
pub const GNTMAP_DEVICE_MAP: u32 = 1 << 0;
/// [`GnttabMapGrantRef::flags`]: map for the caller's CPUs at `host_addr`.
pub const GNTMAP_HOST_MAP: u32 = 1 << 1;
/// [`GnttabMapGrantRef::flags`]: map without the right to write.
pub const GNTMAP_READONLY: u32 = 1 << 2;
/// [`GnttabMapGrantRef::flags`]: map for user mode of a paravirtualized domain; not provided.
pub const GNTMAP_APPLICATION_MAP: u32 = 1 << 3;
/// [`GnttabMapGrantRef::flags`]: `host_addr` is a page table entry's; not provided.
pub const GNTMAP_CONTAINS_PTE: u32 = 1 << 4;
/// [`GnttabMapGrantRef::flags`]: the guest's own bits of the page table entry.
pub const GNTMAP_GUEST_AVAIL_MASK: u32 = 0xffff_0000;

/// Done.
pub const GNTST_OKAY: i16 = 0;
/// Failed, no better word.
pub const GNTST_GENERAL_ERROR: i16 = -1;
/// No such domain.
pub const GNTST_BAD_DOMAIN: i16 = -2;
/// No such reference, or its entry grants nothing of the kind.
pub const GNTST_BAD_GNTREF: i16 = -3;
/// No such handle.
pub const GNTST_BAD_HANDLE: i16 = -4;
/// `host_addr` is not usable.
pub const GNTST_BAD_VIRT_ADDR: i16 = -5;
/// `dev_bus_addr` is not usable.
pub const GNTST_BAD_DEV_ADDR: i16 = -6;
/// No space in the IOMMU.
pub const GNTST_NO_DEVICE_SPACE: i16 = -7;
/// Not permitted.
pub const GNTST_PERMISSION_DENIED: i16 = -8;
/// The granted frame is not an ordinary page of the granting domain.
pub const GNTST_BAD_PAGE: i16 = -9;
/// A copy that crosses a page's end.
pub const GNTST_BAD_COPY_ARG: i16 = -10;
/// Address too big.
pub const GNTST_ADDRESS_TOO_BIG: i16 = -11;
/// Try again.
pub const GNTST_EAGAIN: i16 = -12;
/// Out of space (handles, table frames).
pub const GNTST_NO_SPACE: i16 = -13;

/// The handle of no mapping.
pub const INVALID_GRANT_HANDLE: u32 = u32::MAX;

/// `struct gnttab_map_grant_ref`.
#[derive(Clone, Copy, Debug, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct GnttabMapGrantRef {
    /// In: page-aligned guest-physical address to map at.
    pub host_addr: u64,
    /// In: `GNTMAP_*`.
    pub flags: u32,
    /// In: `ref`, the grant reference.
    pub gref: u32,
    /// In: granting domain.
    pub dom: u16,
    /// Out: `GNTST_*`.
    pub status: i16,
    /// Out: for unmapping.
    pub handle: u32,
    /// Out: address for the caller's devices.
    pub dev_bus_addr: u64,
}
layout!(GnttabMapGrantRef, 32, flags @ 8, gref @ 12, dom @ 16, status @ 18, handle @ 20, dev_bus_addr @ 24);

/// `struct gnttab_unmap_grant_ref`.
#[derive(Clone, Copy, Debug, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct GnttabUnmapGrantRef {
    /// In: as given to map.
    pub host_addr: u64,
    /// In: as map told it, or 0.
    pub dev_bus_addr: u64,
    /// In: from map.
    pub handle: u32,
    /// Out: `GNTST_*`.
    pub status: i16,
    /// Zero.
    pub pad: u16,
}
layout!(GnttabUnmapGrantRef, 24, dev_bus_addr @ 8, handle @ 16, status @ 20);

/// `struct gnttab_setup_table`.
#[derive(Clone, Copy, Debug, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct GnttabSetupTable {
    /// In: `DOMID_SELF`.
    pub dom: u16,
    /// Zero.
    pub pad0: u16,
    /// In: frames wanted.
    pub nr_frames: u32,
    /// Out: `GNTST_*`.
    pub status: i16,
    /// Zero.
    pub pad1: [u16; 3],
    /// In: address of `nr_frames` u64 for the frame numbers.
    pub frame_list: u64,
}
layout!(GnttabSetupTable, 24, nr_frames @ 4, status @ 8, frame_list @ 16);

/// [`GnttabCopy::flags`]: the source is a grant reference.
pub const GNTCOPY_SOURCE_GREF: u16 = 1 << 0;
/// [`GnttabCopy::flags`]: the destination is a grant reference.
pub const GNTCOPY_DEST_GREF: u16 = 1 << 1;

/// `struct gnttab_copy_ptr`: one end of a copy.
#[derive(Clone, Copy, Debug, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct GnttabCopyPtr {
    /// `u`: grant reference (low 32 bits) or own guest frame number, by the flags.
    pub target: u64,
    /// The page's domain; `DOMID_SELF` for own frames.
    pub domid: u16,
    /// Offset in the page.
    pub offset: u16,
    /// Zero.
    pub pad: u32,
}
layout!(GnttabCopyPtr, 16, domid @ 8, offset @ 10);

/// `struct gnttab_copy`.
#[derive(Clone, Copy, Debug, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct GnttabCopy {
    /// In: from.
    pub source: GnttabCopyPtr,
    /// In: to.
    pub dest: GnttabCopyPtr,
    /// In: bytes.
    pub len: u16,
    /// In: `GNTCOPY_*`.
    pub flags: u16,
    /// Out: `GNTST_*`.
    pub status: i16,
    /// Zero.
    pub pad: u16,
}
layout!(GnttabCopy, 40, dest @ 16, len @ 32, flags @ 34, status @ 36);

/// `struct gnttab_query_size`.
#[derive(Clone, Copy, Debug, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct GnttabQuerySize {
    /// In: `DOMID_SELF`.
    pub dom: u16,
    /// Zero.
    pub pad0: u16,
    /// Out: frames now.
    pub nr_frames: u32,
    /// Out: frames at most.
    pub max_nr_frames: u32,
    /// Out: `GNTST_*`.
    pub status: i16,
    /// Zero.
    pub pad1: u16,
}
layout!(GnttabQuerySize, 16, nr_frames @ 4, max_nr_frames @ 8, status @ 12);

/// `struct gnttab_set_version`.
#[derive(Clone, Copy, Debug, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct GnttabSetVersion {
    /// In: version wanted. Out: version in force.
    pub version: u32,
}
layout!(GnttabSetVersion, 4);

/// `struct gnttab_get_version`.
#[derive(Clone, Copy, Debug, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct GnttabGetVersion {
    /// In: domain.
    pub dom: u16,
    /// Zero.
    pub pad: u16,
    /// Out: its version.
    pub version: u32,
}
layout!(GnttabGetVersion, 8, version @ 4);
