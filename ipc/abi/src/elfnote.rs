//! `elfnote.h`: note types of the owner name "Xen".

/// The owner name of the notes, with its NUL.
pub const XEN_ELFNOTE_NAME: [u8; 4] = *b"Xen\0";
/// Old-style information text.
pub const XEN_ELFNOTE_INFO: u32 = 0;
/// Entry point of a paravirtualized kernel.
pub const XEN_ELFNOTE_ENTRY: u32 = 1;
/// Address of the hypercall page.
pub const XEN_ELFNOTE_HYPERCALL_PAGE: u32 = 2;
/// Virtual base.
pub const XEN_ELFNOTE_VIRT_BASE: u32 = 3;
/// Offset of physical addresses.
pub const XEN_ELFNOTE_PADDR_OFFSET: u32 = 4;
/// Version of Xen it was made for.
pub const XEN_ELFNOTE_XEN_VERSION: u32 = 5;
/// Name of the kernel.
pub const XEN_ELFNOTE_GUEST_OS: u32 = 6;
/// Version of the kernel.
pub const XEN_ELFNOTE_GUEST_VERSION: u32 = 7;
/// Loader type.
pub const XEN_ELFNOTE_LOADER: u32 = 8;
/// PAE mode.
pub const XEN_ELFNOTE_PAE_MODE: u32 = 9;
/// Features, as text.
pub const XEN_ELFNOTE_FEATURES: u32 = 10;
/// BSD symbol table.
pub const XEN_ELFNOTE_BSD_SYMTAB: u32 = 11;
/// Lowest address of the hypervisor.
pub const XEN_ELFNOTE_HV_START_LOW: u32 = 12;
/// Present bit of page table entries.
pub const XEN_ELFNOTE_L1_MFN_VALID: u32 = 13;
/// Suspend can be cancelled.
pub const XEN_ELFNOTE_SUSPEND_CANCEL: u32 = 14;
/// Where the initial p2m table goes.
pub const XEN_ELFNOTE_INIT_P2M: u32 = 15;
/// Module start is a frame number.
pub const XEN_ELFNOTE_MOD_START_PFN: u32 = 16;
/// Features, as bits.
pub const XEN_ELFNOTE_SUPPORTED_FEATURES: u32 = 17;
/// 32-bit physical entry point: the PVH boot protocol.
pub const XEN_ELFNOTE_PHYS32_ENTRY: u32 = 18;
