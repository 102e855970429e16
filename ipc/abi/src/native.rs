//! The native domain contract: what a native domain finds when it starts, and where.
//!
//! A native domain runs in ring 3 of 64-bit mode and enters the hypervisor by SYSCALL. Its guest-physical
//! address *is* its virtual address *is* its devices' I/O virtual address. Everything below is an address in
//! that one space. `docs/native-domain.md` tells the story; this file has the numbers.
//!
//! Registers at the first instruction: RIP = ELF entry, RSP = [`STACK_TOP`], RDI = [`START_INFO`], all others 0.
//! Hypercalls: RAX = number, RDI RSI RDX R10 R8 = arguments, result in RAX, RCX and R11 are clobbered.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Bytes in a page.
pub const PAGE_SIZE: u64 = 4096;

/// The [`StartInfo`] page, read-only to the domain.
pub const START_INFO: u64 = 0x0010_0000;
/// The console ring page (`xencons_interface`), read-write, granted by reference [`GRANT_REF_CONSOLE`].
pub const CONSOLE_RING: u64 = 0x0010_1000;
/// The xenstore ring page (`xenstore_domain_interface`), read-write, granted by reference [`GRANT_REF_XENSTORE`].
pub const STORE_RING: u64 = 0x0010_2000;
/// Where the runtime places shared info (`XENMAPSPACE_shared_info`).
pub const SHARED_INFO: u64 = 0x0010_3000;
/// Where the runtime places grant table frames (`XENMAPSPACE_grant_table`), [`GRANT_TABLE_FRAMES_MAX`] pages.
pub const GRANT_TABLE: u64 = 0x0011_0000;
/// Grant table frames a native domain can have at most: 64 frames of 512 v1 entries.
pub const GRANT_TABLE_FRAMES_MAX: u64 = 64;
/// The lowest address of an ELF segment; images are linked here.
pub const IMAGE_BASE: u64 = 0x0020_0000;
/// One past the highest address of an ELF segment.
pub const IMAGE_LIMIT: u64 = 0x0800_0000;
/// Initial stack pointer. The stack grows down through [`STACK_PAGES`] pages to an unmapped guard page.
pub const STACK_TOP: u64 = 0x0900_0000;
/// Pages of stack.
pub const STACK_PAGES: u64 = 64;
/// First address of the heap: all memory that the image and the fixed pages leave, contiguous, read-write.
pub const HEAP_BASE: u64 = 0x1000_0000;
/// The boot bundle (cpio), read-only, in the policy domain only. Its length is in [`StartInfo`].
pub const BUNDLE_BASE: u64 = 0x20_0000_0000;
/// Where a domain maps other domains' grants: free for `GNTTABOP_map_grant_ref`, up to [`GRANT_WINDOW_END`].
pub const GRANT_WINDOW: u64 = 0x40_0000_0000;
/// One past the grant window.
pub const GRANT_WINDOW_END: u64 = 0x50_0000_0000;
/// Where the hypervisor maps the BARs of assigned devices (see `platform::DeviceDescribe`).
pub const MMIO_WINDOW: u64 = 0x60_0000_0000;
/// One past the highest address that may ever be mapped in a native domain (the last page below the
/// non-canonical hole stays empty, so that SYSRET never returns to a non-canonical address).
pub const ADDRESS_LIMIT: u64 = 0x7fff_ffff_f000;

/// Command of `sched_op` that Xen does not have: sends an event on the port in RSI and, if that could be done, waits as
/// `SCHEDOP_block` does. One hypercall for a request and the wait for its answer.
pub const SCHEDOP_SEND_AND_BLOCK: u64 = 0x100;

/// The grant reference that holds the console ring, as on Xen (`GNTTAB_RESERVED_CONSOLE`).
pub const GRANT_REF_CONSOLE: u32 = 0;
/// The grant reference that holds the xenstore ring, as on Xen (`GNTTAB_RESERVED_XENSTORE`).
pub const GRANT_REF_XENSTORE: u32 = 1;

/// In the memory in which xenstore keeps what its successor needs: the offset of the word that says from where to start.
pub const HANDOVER_SELECTOR: usize = 8;
/// The value of that word when nobody can start from there: the server found that it makes no sense, or had no room.
pub const HANDOVER_UNUSABLE: u32 = 0xdead;

/// "BULKHEAD" in [`StartInfo::magic`].
pub const START_MAGIC: u64 = u64::from_le_bytes(*b"BULKHEAD");
/// [`StartInfo::version`].
pub const START_VERSION: u32 = 2;

/// Bytes of [`StartInfo::arguments`].
pub const ARGUMENTS_MAX: usize = 2048;

/// What a native domain is told at its start; one page at [`START_INFO`]. Written by the builder (for the
/// policy domain: by the hypervisor), read-only to the domain.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct StartInfo {
    /// [`START_MAGIC`].
    pub magic: u64,
    /// [`START_VERSION`].
    pub version: u32,
    /// This domain's id.
    pub domid: u32,
    /// Its label: the index of its entry in the sealed policy table.
    pub label: u32,
    /// The domain that serves xenstore, or `u32::MAX` when there is none.
    pub store_domid: u32,
    /// This domain's event channel port for the xenstore ring, 0 when there is none.
    pub store_port: u32,
    /// The domain that serves the console ring, or `u32::MAX` when there is none.
    pub console_domid: u32,
    /// This domain's event channel port for the console ring, 0 when there is none.
    pub console_port: u32,
    /// Pages at [`HEAP_BASE`] that are there already. The others the domain gets itself (`XENMEM_populate_physmap`), when it
    /// wants them; nobody else can take them.
    pub heap_pages: u32,
    /// Bytes that the heap at [`HEAP_BASE`] may have.
    pub heap_bytes: u64,
    /// Bytes of the bundle at [`BUNDLE_BASE`]; 0 except in the policy domain.
    pub bundle_bytes: u64,
    /// Offset of the sealed policy table in the bundle; 0 except in the policy domain.
    pub policy_offset: u64,
    /// Bytes of the policy table; 0 except in the policy domain.
    pub policy_bytes: u64,
    /// The label as text, NUL-padded UTF-8.
    pub name: [u8; 32],
    /// Command line from the policy (`arguments`), NUL-padded UTF-8.
    pub arguments: [u8; ARGUMENTS_MAX],
}

const _: () = assert!(size_of::<StartInfo>() <= PAGE_SIZE as usize);
