//! `io/blkif.h`: requests and responses of a virtual disk, in the 64-bit layout (`protocol = x86_64-abi`). A sector is
//! 512 bytes here whatever the disk's sectors are.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use super::ring::ring_entries;

/// `protocol` in xenstore that names these layouts (`XEN_IO_PROTO_ABI_X86_64`).
pub const XEN_IO_PROTO_ABI_X86_64: &str = "x86_64-abi";
/// Bytes of a sector on the wire.
pub const SECTOR_BYTES: u64 = 512;
/// Sectors of a page.
pub const SECTORS_PER_PAGE: u8 = 8;

/// Read.
pub const BLKIF_OP_READ: u8 = 0;
/// Write.
pub const BLKIF_OP_WRITE: u8 = 1;
/// Write with barrier; obsolete, not provided.
pub const BLKIF_OP_WRITE_BARRIER: u8 = 2;
/// Flush the disk's write cache.
pub const BLKIF_OP_FLUSH_DISKCACHE: u8 = 3;
/// Reserved.
pub const BLKIF_OP_RESERVED_1: u8 = 4;
/// Discard: [`BlkifRequestDiscard`].
pub const BLKIF_OP_DISCARD: u8 = 5;
/// Read or write with segments in pages of their own: [`BlkifRequestIndirect`].
pub const BLKIF_OP_INDIRECT: u8 = 6;

/// Segments of a [`BlkifRequest`].
pub const BLKIF_MAX_SEGMENTS_PER_REQUEST: usize = 11;
/// Pages of segments of a [`BlkifRequestIndirect`].
pub const BLKIF_MAX_INDIRECT_PAGES_PER_REQUEST: usize = 8;
/// Segments of an indirect page.
pub const SEGMENTS_PER_INDIRECT_PAGE: usize = 4096 / size_of::<BlkifRequestSegment>();

/// `struct blkif_request_segment`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct BlkifRequestSegment {
    /// Grant of the page.
    pub gref: u32,
    /// First sector in the page.
    pub first_sect: u8,
    /// Last sector in the page, inclusive.
    pub last_sect: u8,
    /// Zero.
    pub pad: u16,
}
layout!(BlkifRequestSegment, 8, first_sect @ 4, last_sect @ 5);

/// `struct blkif_request`: read, write, flush.
#[derive(Clone, Copy, Debug, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct BlkifRequest {
    /// `BLKIF_OP_*`.
    pub operation: u8,
    /// Segments in use.
    pub nr_segments: u8,
    /// Virtual device number.
    pub handle: u16,
    /// Zero.
    pub pad: u32,
    /// The front end's own, echoed.
    pub id: u64,
    /// First sector on the disk.
    pub sector_number: u64,
    /// Where the data is.
    pub seg: [BlkifRequestSegment; BLKIF_MAX_SEGMENTS_PER_REQUEST],
}
layout!(BlkifRequest, 112, nr_segments @ 1, handle @ 2, id @ 8, sector_number @ 16, seg @ 24);

/// [`BlkifRequestDiscard::flag`]: the data must be unreadable afterwards.
pub const BLKIF_DISCARD_SECURE: u8 = 1;

/// `struct blkif_request_discard`.
#[derive(Clone, Copy, Debug, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct BlkifRequestDiscard {
    /// [`BLKIF_OP_DISCARD`].
    pub operation: u8,
    /// [`BLKIF_DISCARD_SECURE`] or 0.
    pub flag: u8,
    /// Virtual device number.
    pub handle: u16,
    /// Zero.
    pub pad: u32,
    /// The front end's own, echoed.
    pub id: u64,
    /// First sector on the disk.
    pub sector_number: u64,
    /// Sectors.
    pub nr_sectors: u64,
}
layout!(BlkifRequestDiscard, 32, flag @ 1, handle @ 2, id @ 8, sector_number @ 16, nr_sectors @ 24);

/// `struct blkif_request_indirect`.
#[derive(Clone, Copy, Debug, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct BlkifRequestIndirect {
    /// [`BLKIF_OP_INDIRECT`].
    pub operation: u8,
    /// [`BLKIF_OP_READ`] or [`BLKIF_OP_WRITE`].
    pub indirect_op: u8,
    /// Segments in the pages.
    pub nr_segments: u16,
    /// Zero.
    pub pad0: u32,
    /// The front end's own, echoed.
    pub id: u64,
    /// First sector on the disk.
    pub sector_number: u64,
    /// Virtual device number.
    pub handle: u16,
    /// Zero.
    pub pad1: u16,
    /// Grants of pages full of [`BlkifRequestSegment`].
    pub indirect_grefs: [u32; BLKIF_MAX_INDIRECT_PAGES_PER_REQUEST],
    /// Zero.
    pub pad2: u32,
}
layout!(BlkifRequestIndirect, 64, indirect_op @ 1, nr_segments @ 2, id @ 8, sector_number @ 16, handle @ 24,
    indirect_grefs @ 28);

/// [`BlkifResponse::status`]: done.
pub const BLKIF_RSP_OKAY: i16 = 0;
/// [`BlkifResponse::status`]: failed.
pub const BLKIF_RSP_ERROR: i16 = -1;
/// [`BlkifResponse::status`]: operation not supported.
pub const BLKIF_RSP_EOPNOTSUPP: i16 = -2;

/// `struct blkif_response`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct BlkifResponse {
    /// Of the request.
    pub id: u64,
    /// Of the request.
    pub operation: u8,
    /// Zero.
    pub pad0: u8,
    /// `BLKIF_RSP_*`.
    pub status: i16,
    /// Zero.
    pub pad1: u32,
}
layout!(BlkifResponse, 16, operation @ 8, status @ 10);

/// Bytes of a ring entry (`union blkif_sring_entry`).
pub const BLKIF_ENTRY_BYTES: usize = size_of::<BlkifRequest>();
/// Entries of a ring of one page.
pub const BLKIF_RING_ENTRIES: u32 = ring_entries(4096, BLKIF_ENTRY_BYTES);

/// `info` in xenstore: a CD-ROM.
pub const VDISK_CDROM: u32 = 1;
/// `info` in xenstore: removable.
pub const VDISK_REMOVABLE: u32 = 2;
/// `info` in xenstore: writes are refused.
pub const VDISK_READONLY: u32 = 4;
