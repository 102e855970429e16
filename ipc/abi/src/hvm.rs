//! `hvm/hvm_op.h`, `hvm/params.h` and `arch-x86/cpuid.h`: what a stock kernel in a hardware virtual machine asks for.
//! Sub-operations of `HYPERVISOR_HVM_OP` (RDI = command, RSI = address of its structure).

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// [`XenHvmParam`].
pub const HVMOP_SET_PARAM: u64 = 0;
/// [`XenHvmParam`].
pub const HVMOP_GET_PARAM: u64 = 1;
/// Flush TLBs.
pub const HVMOP_FLUSH_TLBS: u64 = 5;
/// A page table is going away.
pub const HVMOP_PAGETABLE_DYING: u64 = 9;
/// Guest time.
pub const HVMOP_GET_TIME: u64 = 10;
/// Type of a page.
pub const HVMOP_GET_MEM_TYPE: u64 = 15;
/// [`XenHvmEvtchnUpcallVector`].
pub const HVMOP_SET_EVTCHN_UPCALL_VECTOR: u64 = 23;

/// `struct xen_hvm_param`.
#[derive(Clone, Copy, Debug, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct XenHvmParam {
    /// In: `DOMID_SELF`.
    pub domid: u16,
    /// Zero.
    pub pad: u16,
    /// In: `HVM_PARAM_*`.
    pub index: u32,
    /// In or out.
    pub value: u64,
}
layout!(XenHvmParam, 16, index @ 4, value @ 8);

/// `struct xen_hvm_evtchn_upcall_vector`.
#[derive(Clone, Copy, Debug, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct XenHvmEvtchnUpcallVector {
    /// In: vCPU.
    pub vcpu: u32,
    /// In: vector.
    pub vector: u8,
    /// Zero.
    pub pad: [u8; 3],
}
layout!(XenHvmEvtchnUpcallVector, 8, vector @ 4);

/// How events are delivered; type in the top byte.
pub const HVM_PARAM_CALLBACK_IRQ: u32 = 0;
/// [`HVM_PARAM_CALLBACK_IRQ`]: which bits are the type.
pub const HVM_PARAM_CALLBACK_IRQ_TYPE_MASK: u64 = 0xff00_0000_0000_0000;
/// [`HVM_PARAM_CALLBACK_IRQ`]: an interrupt line.
pub const HVM_PARAM_CALLBACK_TYPE_GSI: u64 = 0;
/// [`HVM_PARAM_CALLBACK_IRQ`]: a PCI interrupt pin.
pub const HVM_PARAM_CALLBACK_TYPE_PCI_INTX: u64 = 1;
/// [`HVM_PARAM_CALLBACK_IRQ`]: a vector.
pub const HVM_PARAM_CALLBACK_TYPE_VECTOR: u64 = 2;
/// Guest frame number of the xenstore ring.
pub const HVM_PARAM_STORE_PFN: u32 = 1;
/// Event channel of the xenstore ring.
pub const HVM_PARAM_STORE_EVTCHN: u32 = 2;
/// Device model ring.
pub const HVM_PARAM_IOREQ_PFN: u32 = 5;
/// Device model ring.
pub const HVM_PARAM_BUFIOREQ_PFN: u32 = 6;
/// Viridian enlightenments.
pub const HVM_PARAM_VIRIDIAN: u32 = 9;
/// Timer mode.
pub const HVM_PARAM_TIMER_MODE: u32 = 10;
/// HPET.
pub const HVM_PARAM_HPET_ENABLED: u32 = 11;
/// Identity page table.
pub const HVM_PARAM_IDENT_PT: u32 = 12;
/// ACPI sleep state.
pub const HVM_PARAM_ACPI_S_STATE: u32 = 14;
/// TSS of virtual-8086 mode.
pub const HVM_PARAM_VM86_TSS: u32 = 15;
/// Timer alignment.
pub const HVM_PARAM_VPT_ALIGN: u32 = 16;
/// Guest frame number of the console ring.
pub const HVM_PARAM_CONSOLE_PFN: u32 = 17;
/// Event channel of the console ring.
pub const HVM_PARAM_CONSOLE_EVTCHN: u32 = 18;
/// Where the ACPI ports are.
pub const HVM_PARAM_ACPI_IOPORTS_LOCATION: u32 = 19;
/// Shutdown reason of a triple fault.
pub const HVM_PARAM_TRIPLE_FAULT_REASON: u32 = 31;
/// Address of the VM generation id.
pub const HVM_PARAM_VM_GENERATION_ID_ADDR: u32 = 34;
/// Number of parameters.
pub const HVM_NR_PARAMS: u32 = 39;

/// First hypervisor CPUID leaf.
pub const XEN_CPUID_FIRST_LEAF: u32 = 0x4000_0000;
/// EBX of the first leaf: "XenV".
pub const XEN_CPUID_SIGNATURE_EBX: u32 = 0x566e_6558;
/// ECX of the first leaf: "MMXe".
pub const XEN_CPUID_SIGNATURE_ECX: u32 = 0x6558_4d4d;
/// EDX of the first leaf: "nVMM".
pub const XEN_CPUID_SIGNATURE_EDX: u32 = 0x4d4d_566e;
/// Leaf 4, EAX: the vCPU id is in EBX.
pub const XEN_HVM_CPUID_VCPU_ID_PRESENT: u32 = 1 << 3;
/// Leaf 4, EAX: the domain id is in ECX.
pub const XEN_HVM_CPUID_DOMID_PRESENT: u32 = 1 << 4;
