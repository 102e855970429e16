//! The contract of `pvh` domains: hardware virtual machines that start as Xen's PVH guests do.
//!
//! The first vCPU starts as the PVH boot protocol says (Xen public `arch-x86/hvm/start_info.h`, `docs/misc/pvh.pandoc`):
//! 32-bit protected mode, paging off, flat segments, EBX = guest-physical address of
//! [`HvmStartInfo`](crate::start_info::HvmStartInfo), EIP = the value of the kernel's ELF note
//! `XEN_ELFNOTE_PHYS32_ENTRY`. Its builder gives memory with [`RIGHTS_ALL`](crate::platform::RIGHTS_ALL), sets
//! `HVM_PARAM_*` of the domain by `HVMOP_set_param`, and the entry by `SET_ENTRY` (RIP = entry, RSP = 0, argument = start
//! info).
//!
//! There is no device model. Of I/O ports there are only those below, which the ACPI tables name; all others read as ones
//! and ignore writes. The local APIC is in x2APIC mode from the start and has no registers in memory.

/// ACPI's SLEEP_CONTROL register (ACPI 6.4, 4.8.3.7): [`SLEEP_POWER_OFF`] ends the domain, power off.
pub const SLEEP_CONTROL_PORT: u16 = 0x604;
/// ACPI's SLEEP_STATUS register: reads as zero.
pub const SLEEP_STATUS_PORT: u16 = 0x605;
/// The type of sleep (SLP_TYPx) that the DSDT's `\_S5` must name.
pub const SLEEP_TYPE_OFF: u8 = 5;
/// What is written to [`SLEEP_CONTROL_PORT`] to power off: SLP_EN, and the type.
pub const SLEEP_POWER_OFF: u8 = 1 << 5 | SLEEP_TYPE_OFF << 2;
/// The FADT's RESET_REG, as on a PC: [`RESET_VALUE`] ends the domain, restart.
pub const RESET_PORT: u16 = 0xcf9;
/// The FADT's RESET_VALUE.
pub const RESET_VALUE: u8 = 6;
