//! `arch-x86/hvm/start_info.h`: what the PVH boot protocol hands over. All addresses are physical.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// [`HvmStartInfo::magic`]: "xEn3" with the top bit of the E set.
pub const XEN_HVM_START_MAGIC_VALUE: u32 = 0x336e_c578;

/// [`HvmMemmapTableEntry::kind`]: usable.
pub const XEN_HVM_MEMMAP_TYPE_RAM: u32 = 1;
/// [`HvmMemmapTableEntry::kind`]: leave alone.
pub const XEN_HVM_MEMMAP_TYPE_RESERVED: u32 = 2;
/// [`HvmMemmapTableEntry::kind`]: ACPI tables.
pub const XEN_HVM_MEMMAP_TYPE_ACPI: u32 = 3;
/// [`HvmMemmapTableEntry::kind`]: ACPI non-volatile storage.
pub const XEN_HVM_MEMMAP_TYPE_NVS: u32 = 4;
/// [`HvmMemmapTableEntry::kind`]: broken.
pub const XEN_HVM_MEMMAP_TYPE_UNUSABLE: u32 = 5;
/// [`HvmMemmapTableEntry::kind`]: disabled.
pub const XEN_HVM_MEMMAP_TYPE_DISABLED: u32 = 6;
/// [`HvmMemmapTableEntry::kind`]: persistent memory.
pub const XEN_HVM_MEMMAP_TYPE_PMEM: u32 = 7;

/// `struct hvm_start_info`. The memory map is there from version 1 on.
#[derive(Clone, Copy, Debug, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct HvmStartInfo {
    /// [`XEN_HVM_START_MAGIC_VALUE`].
    pub magic: u32,
    /// Version, 0 or 1.
    pub version: u32,
    /// `SIF_*`.
    pub flags: u32,
    /// Modules at `modlist_paddr`.
    pub nr_modules: u32,
    /// Address of [`HvmModlistEntry`]s.
    pub modlist_paddr: u64,
    /// Address of the command line, NUL-terminated; 0 = none.
    pub cmdline_paddr: u64,
    /// Address of the RSDP.
    pub rsdp_paddr: u64,
    /// Address of [`HvmMemmapTableEntry`]s; from version 1 on.
    pub memmap_paddr: u64,
    /// How many; from version 1 on.
    pub memmap_entries: u32,
    /// Zero.
    pub reserved: u32,
}
layout!(HvmStartInfo, 56, version @ 4, flags @ 8, nr_modules @ 12, modlist_paddr @ 16, cmdline_paddr @ 24,
    rsdp_paddr @ 32, memmap_paddr @ 40, memmap_entries @ 48, reserved @ 52);

/// `struct hvm_modlist_entry`.
#[derive(Clone, Copy, Debug, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct HvmModlistEntry {
    /// First byte.
    pub paddr: u64,
    /// Bytes.
    pub size: u64,
    /// Address of its command line; 0 = none.
    pub cmdline_paddr: u64,
    /// Zero.
    pub reserved: u64,
}
layout!(HvmModlistEntry, 32, size @ 8, cmdline_paddr @ 16, reserved @ 24);

/// `struct hvm_memmap_table_entry`.
#[derive(Clone, Copy, Debug, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct HvmMemmapTableEntry {
    /// First byte.
    pub addr: u64,
    /// Bytes.
    pub size: u64,
    /// `type`, `XEN_HVM_MEMMAP_TYPE_*`.
    pub kind: u32,
    /// Zero.
    pub reserved: u32,
}
layout!(HvmMemmapTableEntry, 24, size @ 8, kind @ 16, reserved @ 20);
