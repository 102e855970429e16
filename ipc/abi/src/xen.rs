//! `xen.h` and `arch-x86/xen.h`, `xen-x86_64.h`: hypercall numbers, reserved domain ids, virtual interrupts, and the
//! shared info page of an x86-64 domain.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// `__HYPERVISOR_set_trap_table`.
pub const HYPERVISOR_SET_TRAP_TABLE: u64 = 0;
/// `__HYPERVISOR_mmu_update`.
pub const HYPERVISOR_MMU_UPDATE: u64 = 1;
/// `__HYPERVISOR_set_gdt`.
pub const HYPERVISOR_SET_GDT: u64 = 2;
/// `__HYPERVISOR_stack_switch`.
pub const HYPERVISOR_STACK_SWITCH: u64 = 3;
/// `__HYPERVISOR_set_callbacks`.
pub const HYPERVISOR_SET_CALLBACKS: u64 = 4;
/// `__HYPERVISOR_fpu_taskswitch`.
pub const HYPERVISOR_FPU_TASKSWITCH: u64 = 5;
/// `__HYPERVISOR_sched_op_compat`.
pub const HYPERVISOR_SCHED_OP_COMPAT: u64 = 6;
/// `__HYPERVISOR_platform_op`: here a call of our own, see [`crate::platform`].
pub const HYPERVISOR_PLATFORM_OP: u64 = 7;
/// `__HYPERVISOR_set_debugreg`.
pub const HYPERVISOR_SET_DEBUGREG: u64 = 8;
/// `__HYPERVISOR_get_debugreg`.
pub const HYPERVISOR_GET_DEBUGREG: u64 = 9;
/// `__HYPERVISOR_update_descriptor`.
pub const HYPERVISOR_UPDATE_DESCRIPTOR: u64 = 10;
/// `__HYPERVISOR_memory_op`: sub-operations in [`crate::memory`].
pub const HYPERVISOR_MEMORY_OP: u64 = 12;
/// `__HYPERVISOR_multicall`.
pub const HYPERVISOR_MULTICALL: u64 = 13;
/// `__HYPERVISOR_update_va_mapping`.
pub const HYPERVISOR_UPDATE_VA_MAPPING: u64 = 14;
/// `__HYPERVISOR_set_timer_op`: one argument, absolute nanoseconds, 0 = stop.
pub const HYPERVISOR_SET_TIMER_OP: u64 = 15;
/// `__HYPERVISOR_event_channel_op_compat`.
pub const HYPERVISOR_EVENT_CHANNEL_OP_COMPAT: u64 = 16;
/// `__HYPERVISOR_xen_version`: sub-operations in [`crate::version`].
pub const HYPERVISOR_XEN_VERSION: u64 = 17;
/// `__HYPERVISOR_console_io`: `CONSOLEIO_*`.
pub const HYPERVISOR_CONSOLE_IO: u64 = 18;
/// `__HYPERVISOR_physdev_op_compat`.
pub const HYPERVISOR_PHYSDEV_OP_COMPAT: u64 = 19;
/// `__HYPERVISOR_grant_table_op`: sub-operations in [`crate::grant_table`].
pub const HYPERVISOR_GRANT_TABLE_OP: u64 = 20;
/// `__HYPERVISOR_vm_assist`.
pub const HYPERVISOR_VM_ASSIST: u64 = 21;
/// `__HYPERVISOR_update_va_mapping_otherdomain`.
pub const HYPERVISOR_UPDATE_VA_MAPPING_OTHERDOMAIN: u64 = 22;
/// `__HYPERVISOR_iret`.
pub const HYPERVISOR_IRET: u64 = 23;
/// `__HYPERVISOR_vcpu_op`: sub-operations in [`crate::vcpu`].
pub const HYPERVISOR_VCPU_OP: u64 = 24;
/// `__HYPERVISOR_set_segment_base`.
pub const HYPERVISOR_SET_SEGMENT_BASE: u64 = 25;
/// `__HYPERVISOR_mmuext_op`.
pub const HYPERVISOR_MMUEXT_OP: u64 = 26;
/// `__HYPERVISOR_xsm_op`.
pub const HYPERVISOR_XSM_OP: u64 = 27;
/// `__HYPERVISOR_nmi_op`.
pub const HYPERVISOR_NMI_OP: u64 = 28;
/// `__HYPERVISOR_sched_op`: sub-operations in [`crate::sched`].
pub const HYPERVISOR_SCHED_OP: u64 = 29;
/// `__HYPERVISOR_callback_op`.
pub const HYPERVISOR_CALLBACK_OP: u64 = 30;
/// `__HYPERVISOR_xenoprof_op`.
pub const HYPERVISOR_XENOPROF_OP: u64 = 31;
/// `__HYPERVISOR_event_channel_op`: sub-operations in [`crate::event_channel`].
pub const HYPERVISOR_EVENT_CHANNEL_OP: u64 = 32;
/// `__HYPERVISOR_physdev_op`: sub-operations in [`crate::physdev`].
pub const HYPERVISOR_PHYSDEV_OP: u64 = 33;
/// `__HYPERVISOR_hvm_op`: sub-operations in [`crate::hvm`].
pub const HYPERVISOR_HVM_OP: u64 = 34;
/// `__HYPERVISOR_sysctl`.
pub const HYPERVISOR_SYSCTL: u64 = 35;
/// `__HYPERVISOR_domctl`.
pub const HYPERVISOR_DOMCTL: u64 = 36;
/// `__HYPERVISOR_kexec_op`.
pub const HYPERVISOR_KEXEC_OP: u64 = 37;
/// `__HYPERVISOR_tmem_op`.
pub const HYPERVISOR_TMEM_OP: u64 = 38;
/// `__HYPERVISOR_argo_op`.
pub const HYPERVISOR_ARGO_OP: u64 = 39;
/// `__HYPERVISOR_xenpmu_op`.
pub const HYPERVISOR_XENPMU_OP: u64 = 40;
/// `__HYPERVISOR_dm_op`.
pub const HYPERVISOR_DM_OP: u64 = 41;
/// `__HYPERVISOR_hypfs_op`.
pub const HYPERVISOR_HYPFS_OP: u64 = 42;

/// The timer of a vCPU has fired.
pub const VIRQ_TIMER: u32 = 0;
/// A debug dump is wanted.
pub const VIRQ_DEBUG: u32 = 1;
/// Input on the emergency console.
pub const VIRQ_CONSOLE: u32 = 2;
/// A domain has changed its state (died).
pub const VIRQ_DOM_EXC: u32 = 3;
/// The trace buffer has records.
pub const VIRQ_TBUF: u32 = 4;
/// A domain has stopped for the debugger.
pub const VIRQ_DEBUGGER: u32 = 6;
/// XenOProfile.
pub const VIRQ_XENOPROF: u32 = 7;
/// The hypervisor's log has new text.
pub const VIRQ_CON_RING: u32 = 8;
/// A physical CPU has changed its state.
pub const VIRQ_PCPU_STATE: u32 = 9;
/// A memory event.
pub const VIRQ_MEM_EVENT: u32 = 10;
/// Argo interdomain message.
pub const VIRQ_ARGO: u32 = 11;
/// Memory is running low.
pub const VIRQ_ENOMEM: u32 = 12;
/// Performance monitoring.
pub const VIRQ_XENPMU: u32 = 13;
/// The first of eight that belong to the architecture.
pub const VIRQ_ARCH_0: u32 = 16;
/// The last of eight that belong to the architecture.
pub const VIRQ_ARCH_7: u32 = 23;
/// Number of virtual interrupts.
pub const NR_VIRQS: u32 = 24;

/// console_io: write `RSI` bytes at `RDX`.
pub const CONSOLEIO_WRITE: u64 = 0;
/// console_io: read up to `RSI` bytes to `RDX`.
pub const CONSOLEIO_READ: u64 = 1;

/// vm_assist: enable.
pub const VMASST_CMD_ENABLE: u64 = 0;
/// vm_assist: disable.
pub const VMASST_CMD_DISABLE: u64 = 1;
/// vm_assist: flag updates of the runstate area.
pub const VMASST_TYPE_RUNSTATE_UPDATE_FLAG: u64 = 5;

/// Domain ids from here on are not ordinary domains.
pub const DOMID_FIRST_RESERVED: u16 = 0x7ff0;
/// The calling domain.
pub const DOMID_SELF: u16 = 0x7ff0;
/// Owner of I/O memory.
pub const DOMID_IO: u16 = 0x7ff1;
/// The hypervisor.
pub const DOMID_XEN: u16 = 0x7ff2;
/// Owner of shared (copy-on-write) pages.
pub const DOMID_COW: u16 = 0x7ff3;
/// No domain.
pub const DOMID_INVALID: u16 = 0x7ff4;
/// The idle domain.
pub const DOMID_IDLE: u16 = 0x7fff;
/// The bits of a domain id.
pub const DOMID_MASK: u16 = 0x7fff;

/// vCPUs that have their [`VcpuInfo`] in the shared info page.
pub const XEN_LEGACY_MAX_VCPUS: usize = 32;
pub use crate::event_channel::EVTCHN_2L_NR_CHANNELS;

/// Words of [`SharedInfo::evtchn_pending`] and [`SharedInfo::evtchn_mask`].
pub const EVTCHN_WORDS: usize = 64;

/// [`VcpuTimeInfo::flags`]: the TSC is in step over all vCPUs.
pub const XEN_PVCLOCK_TSC_STABLE_BIT: u8 = 1;
/// [`VcpuTimeInfo::flags`]: the domain was stopped by its host.
pub const XEN_PVCLOCK_GUEST_STOPPED: u8 = 2;

/// `struct vcpu_time_info`: system time as a linear function of the TSC. `version` is odd while it is written; read
/// it, the rest, and it again.
///
/// system time = `system_time` + ((tsc - `tsc_timestamp`) shifted left by `tsc_shift` (right if negative)) *
/// `tsc_to_system_mul` >> 32.
#[derive(Clone, Copy, Debug, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct VcpuTimeInfo {
    /// Odd while being written; changed by every write.
    pub version: u32,
    /// Unused.
    pub pad0: u32,
    /// TSC at `system_time`.
    pub tsc_timestamp: u64,
    /// Nanoseconds since boot at `tsc_timestamp`.
    pub system_time: u64,
    /// Multiplier, 32 fraction bits.
    pub tsc_to_system_mul: u32,
    /// Shift before the multiplication.
    pub tsc_shift: i8,
    /// `XEN_PVCLOCK_*`.
    pub flags: u8,
    /// Unused.
    pub pad1: [u8; 2],
}
layout!(VcpuTimeInfo, 32, tsc_timestamp @ 8, system_time @ 16, tsc_to_system_mul @ 24, tsc_shift @ 28, flags @ 29);

/// `struct arch_vcpu_info` of x86-64.
#[derive(Clone, Copy, Debug, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct ArchVcpuInfo {
    /// Fault address of a paravirtualized domain.
    pub cr2: u64,
    /// Unused.
    pub pad: u64,
}
layout!(ArchVcpuInfo, 16);

/// `struct vcpu_info`: a vCPU's events and clock.
#[derive(Clone, Copy, Debug, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct VcpuInfo {
    /// Non-zero: an unmasked event is pending for this vCPU.
    pub evtchn_upcall_pending: u8,
    /// Non-zero: no upcalls wanted.
    pub evtchn_upcall_mask: u8,
    /// Unused.
    pub pad: [u8; 6],
    /// Which words of [`SharedInfo::evtchn_pending`] may have pending bits.
    pub evtchn_pending_sel: u64,
    /// Architecture's part.
    pub arch: ArchVcpuInfo,
    /// Clock.
    pub time: VcpuTimeInfo,
}
layout!(VcpuInfo, 64, evtchn_upcall_mask @ 1, evtchn_pending_sel @ 8, arch @ 16, time @ 32);

/// `struct arch_shared_info` of x86.
#[derive(Clone, Copy, Debug, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct ArchSharedInfo {
    /// Highest guest frame number plus one, for tools.
    pub max_pfn: u64,
    /// Root of the frame list, for tools.
    pub pfn_to_mfn_frame_list_list: u64,
    /// Reasons of an NMI.
    pub nmi_reason: u64,
    /// Page table of the linear p2m map.
    pub p2m_cr3: u64,
    /// Its address.
    pub p2m_vaddr: u64,
    /// Its generation.
    pub p2m_generation: u64,
}
layout!(ArchSharedInfo, 48, nmi_reason @ 16, p2m_cr3 @ 24, p2m_vaddr @ 32, p2m_generation @ 40);

/// `struct shared_info` of x86-64: one page that a domain and the hypervisor write together.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct SharedInfo {
    /// vCPUs 0 to 31.
    pub vcpu_info: [VcpuInfo; XEN_LEGACY_MAX_VCPUS],
    /// One bit a port: an event has arrived.
    pub evtchn_pending: [u64; EVTCHN_WORDS],
    /// One bit a port: do not tell the vCPU.
    pub evtchn_mask: [u64; EVTCHN_WORDS],
    /// Odd while the wall clock is being written.
    pub wc_version: u32,
    /// Wall clock at system time 0: seconds since 1970, low half.
    pub wc_sec: u32,
    /// Wall clock at system time 0: nanoseconds.
    pub wc_nsec: u32,
    /// Seconds, high half.
    pub wc_sec_hi: u32,
    /// Architecture's part.
    pub arch: ArchSharedInfo,
}
layout!(SharedInfo, 3136, evtchn_pending @ 2048, evtchn_mask @ 2560, wc_version @ 3072, wc_sec @ 3076, wc_nsec @ 3080,
    wc_sec_hi @ 3084, arch @ 3088);

/// `struct multicall_entry`.
#[derive(Clone, Copy, Debug, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct MulticallEntry {
    /// Hypercall number.
    pub op: u64,
    /// Its result.
    pub result: u64,
    /// Its arguments.
    pub args: [u64; 6],
}
layout!(MulticallEntry, 64, result @ 8, args @ 16);
