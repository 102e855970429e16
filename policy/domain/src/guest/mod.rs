//! A virtual machine's start of day, as the PVH boot protocol has it (Xen public `arch-x86/hvm/start_info.h`): where
//! everything lies in its memory, its ACPI tables, and the start info that its kernel finds.

pub mod acpi;
pub mod layout;
pub mod start;
