//! `version.h` and `features.h`: sub-operations of `HYPERVISOR_XEN_VERSION` (RDI = command, RSI = address of its
//! structure, or 0).

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Returns major << 16 | minor; no structure.
pub const XENVER_VERSION: u64 = 0;
/// [`XenExtraversion`].
pub const XENVER_EXTRAVERSION: u64 = 1;
/// [`XenCompileInfo`].
pub const XENVER_COMPILE_INFO: u64 = 2;
/// [`XenCapabilitiesInfo`].
pub const XENVER_CAPABILITIES: u64 = 3;
/// [`XenChangesetInfo`].
pub const XENVER_CHANGESET: u64 = 4;
/// [`XenPlatformParameters`].
pub const XENVER_PLATFORM_PARAMETERS: u64 = 5;
/// [`XenFeatureInfo`].
pub const XENVER_GET_FEATURES: u64 = 6;
/// Returns the page size; no structure.
pub const XENVER_PAGESIZE: u64 = 7;
/// [`XenDomainHandle`]: the domain's UUID.
pub const XENVER_GUEST_HANDLE: u64 = 8;
/// [`XenCommandline`].
pub const XENVER_COMMANDLINE: u64 = 9;
/// Build id of the hypervisor.
pub const XENVER_BUILD_ID: u64 = 10;

/// `xen_extraversion_t`: NUL-padded text.
pub type XenExtraversion = [u8; 16];
/// `xen_capabilities_info_t`: NUL-padded text.
pub type XenCapabilitiesInfo = [u8; 1024];
/// `xen_changeset_info_t`: NUL-padded text.
pub type XenChangesetInfo = [u8; 64];
/// `xen_commandline_t`: NUL-padded text.
pub type XenCommandline = [u8; 1024];
/// `xen_domain_handle_t`: a UUID.
pub type XenDomainHandle = [u8; 16];

/// `struct xen_compile_info`: NUL-padded texts.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct XenCompileInfo {
    /// Compiler.
    pub compiler: [u8; 64],
    /// By whom.
    pub compile_by: [u8; 16],
    /// Where.
    pub compile_domain: [u8; 32],
    /// When.
    pub compile_date: [u8; 32],
}
layout!(XenCompileInfo, 144, compile_by @ 64, compile_domain @ 80, compile_date @ 112);

/// `struct xen_platform_parameters`.
#[derive(Clone, Copy, Debug, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct XenPlatformParameters {
    /// Out: where the hypervisor begins in a paravirtualized domain's address space; 0.
    pub virt_start: u64,
}
layout!(XenPlatformParameters, 8);

/// `struct xen_feature_info`.
#[derive(Clone, Copy, Debug, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct XenFeatureInfo {
    /// In: which 32 features.
    pub submap_idx: u32,
    /// Out: one bit a feature.
    pub submap: u32,
}
layout!(XenFeatureInfo, 8, submap @ 4);

/// Feature bit: the domain writes its page tables itself.
pub const XENFEAT_WRITABLE_PAGE_TABLES: u32 = 0;
/// Feature bit: the domain writes its descriptor tables itself.
pub const XENFEAT_WRITABLE_DESCRIPTOR_TABLES: u32 = 1;
/// Feature bit: guest frame numbers are translated by the hypervisor.
pub const XENFEAT_AUTO_TRANSLATED_PHYSMAP: u32 = 2;
/// Feature bit: the kernel runs in ring 0.
pub const XENFEAT_SUPERVISOR_MODE_KERNEL: u32 = 3;
/// Feature bit: 32-bit page directories above 4 GiB.
pub const XENFEAT_PAE_PGDIR_ABOVE_4GB: u32 = 4;
/// Feature bit: `MMU_PT_UPDATE_PRESERVE_AD`.
pub const XENFEAT_MMU_PT_UPDATE_PRESERVE_AD: u32 = 5;
/// Feature bit: clear and copy page operations.
pub const XENFEAT_HIGHMEM_ASSIST: u32 = 6;
/// Feature bit: available bits in grant maps.
pub const XENFEAT_GNTTAB_MAP_AVAIL_BITS: u32 = 7;
/// Feature bit: vector callback for events.
pub const XENFEAT_HVM_CALLBACK_VECTOR: u32 = 8;
/// Feature bit: the clock is usable without a hypercall.
pub const XENFEAT_HVM_SAFE_PVCLOCK: u32 = 9;
/// Feature bit: pirqs for hardware domains.
pub const XENFEAT_HVM_PIRQS: u32 = 10;
/// Feature bit: this is the initial domain.
pub const XENFEAT_DOM0: u32 = 11;
/// Feature bit: virtual NUMA nodes in memory_op.
pub const XENFEAT_MEMORY_OP_VNODE_SUPPORTED: u32 = 13;
/// Feature bit: the RSDP may be anywhere.
pub const XENFEAT_LINUX_RSDP_UNRESTRICTED: u32 = 15;
/// Feature bit: not direct-mapped.
pub const XENFEAT_NOT_DIRECT_MAPPED: u32 = 16;
/// Feature bit: direct-mapped.
pub const XENFEAT_DIRECT_MAPPED: u32 = 17;
/// Words of features.
pub const XENFEAT_NR_SUBMAPS: u32 = 1;
