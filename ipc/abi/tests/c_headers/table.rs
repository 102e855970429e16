//! What is compared: each constant and structure of `xen-abi` beside its name in the C headers.

use std::mem::offset_of;

use super::{Check, constants, fields, structures};
use xen_abi::errno::Errno;
use xen_abi::io::xenbus::XenbusState;
use xen_abi::io::xs_wire::XSD_ERRORS;

fn xen() -> Vec<Check> {
    use xen_abi::xen::*;
    let mut checks = Vec::new();
    constants!(checks:
        HYPERVISOR_SET_TRAP_TABLE = "__HYPERVISOR_set_trap_table",
        HYPERVISOR_MMU_UPDATE = "__HYPERVISOR_mmu_update",
        HYPERVISOR_SET_GDT = "__HYPERVISOR_set_gdt",
        HYPERVISOR_STACK_SWITCH = "__HYPERVISOR_stack_switch",
        HYPERVISOR_SET_CALLBACKS = "__HYPERVISOR_set_callbacks",
        HYPERVISOR_FPU_TASKSWITCH = "__HYPERVISOR_fpu_taskswitch",
        HYPERVISOR_SCHED_OP_COMPAT = "__HYPERVISOR_sched_op_compat",
        HYPERVISOR_PLATFORM_OP = "__HYPERVISOR_platform_op",
        HYPERVISOR_SET_DEBUGREG = "__HYPERVISOR_set_debugreg",
        HYPERVISOR_GET_DEBUGREG = "__HYPERVISOR_get_debugreg",
        HYPERVISOR_UPDATE_DESCRIPTOR = "__HYPERVISOR_update_descriptor",
        HYPERVISOR_MEMORY_OP = "__HYPERVISOR_memory_op",
        HYPERVISOR_MULTICALL = "__HYPERVISOR_multicall",
        HYPERVISOR_UPDATE_VA_MAPPING = "__HYPERVISOR_update_va_mapping",
        HYPERVISOR_SET_TIMER_OP = "__HYPERVISOR_set_timer_op",
        HYPERVISOR_EVENT_CHANNEL_OP_COMPAT = "__HYPERVISOR_event_channel_op_compat",
        HYPERVISOR_XEN_VERSION = "__HYPERVISOR_xen_version",
        HYPERVISOR_CONSOLE_IO = "__HYPERVISOR_console_io",
        HYPERVISOR_PHYSDEV_OP_COMPAT = "__HYPERVISOR_physdev_op_compat",
        HYPERVISOR_GRANT_TABLE_OP = "__HYPERVISOR_grant_table_op",
        HYPERVISOR_VM_ASSIST = "__HYPERVISOR_vm_assist",
        HYPERVISOR_UPDATE_VA_MAPPING_OTHERDOMAIN = "__HYPERVISOR_update_va_mapping_otherdomain",
        HYPERVISOR_IRET = "__HYPERVISOR_iret",
        HYPERVISOR_VCPU_OP = "__HYPERVISOR_vcpu_op",
        HYPERVISOR_SET_SEGMENT_BASE = "__HYPERVISOR_set_segment_base",
        HYPERVISOR_MMUEXT_OP = "__HYPERVISOR_mmuext_op",
        HYPERVISOR_XSM_OP = "__HYPERVISOR_xsm_op",
        HYPERVISOR_NMI_OP = "__HYPERVISOR_nmi_op",
        HYPERVISOR_SCHED_OP = "__HYPERVISOR_sched_op",
        HYPERVISOR_CALLBACK_OP = "__HYPERVISOR_callback_op",
        HYPERVISOR_XENOPROF_OP = "__HYPERVISOR_xenoprof_op",
        HYPERVISOR_EVENT_CHANNEL_OP = "__HYPERVISOR_event_channel_op",
        HYPERVISOR_PHYSDEV_OP = "__HYPERVISOR_physdev_op",
        HYPERVISOR_HVM_OP = "__HYPERVISOR_hvm_op",
        HYPERVISOR_SYSCTL = "__HYPERVISOR_sysctl",
        HYPERVISOR_DOMCTL = "__HYPERVISOR_domctl",
        HYPERVISOR_KEXEC_OP = "__HYPERVISOR_kexec_op",
        HYPERVISOR_TMEM_OP = "__HYPERVISOR_tmem_op",
        HYPERVISOR_ARGO_OP = "__HYPERVISOR_argo_op",
        HYPERVISOR_XENPMU_OP = "__HYPERVISOR_xenpmu_op",
        HYPERVISOR_DM_OP = "__HYPERVISOR_dm_op",
        HYPERVISOR_HYPFS_OP = "__HYPERVISOR_hypfs_op",
        VIRQ_TIMER = "VIRQ_TIMER",
        VIRQ_DEBUG = "VIRQ_DEBUG",
        VIRQ_CONSOLE = "VIRQ_CONSOLE",
        VIRQ_DOM_EXC = "VIRQ_DOM_EXC",
        VIRQ_TBUF = "VIRQ_TBUF",
        VIRQ_DEBUGGER = "VIRQ_DEBUGGER",
        VIRQ_XENOPROF = "VIRQ_XENOPROF",
        VIRQ_CON_RING = "VIRQ_CON_RING",
        VIRQ_PCPU_STATE = "VIRQ_PCPU_STATE",
        VIRQ_MEM_EVENT = "VIRQ_MEM_EVENT",
        VIRQ_ARGO = "VIRQ_ARGO",
        VIRQ_ENOMEM = "VIRQ_ENOMEM",
        VIRQ_XENPMU = "VIRQ_XENPMU",
        VIRQ_ARCH_0 = "VIRQ_ARCH_0",
        VIRQ_ARCH_7 = "VIRQ_ARCH_7",
        NR_VIRQS = "NR_VIRQS",
        CONSOLEIO_WRITE = "CONSOLEIO_write",
        CONSOLEIO_READ = "CONSOLEIO_read",
        VMASST_CMD_ENABLE = "VMASST_CMD_enable",
        VMASST_CMD_DISABLE = "VMASST_CMD_disable",
        VMASST_TYPE_RUNSTATE_UPDATE_FLAG = "VMASST_TYPE_runstate_update_flag",
        DOMID_FIRST_RESERVED = "DOMID_FIRST_RESERVED",
        DOMID_SELF = "DOMID_SELF",
        DOMID_IO = "DOMID_IO",
        DOMID_XEN = "DOMID_XEN",
        DOMID_COW = "DOMID_COW",
        DOMID_INVALID = "DOMID_INVALID",
        DOMID_IDLE = "DOMID_IDLE",
        DOMID_MASK = "DOMID_MASK",
        XEN_LEGACY_MAX_VCPUS = "XEN_LEGACY_MAX_VCPUS",
        EVTCHN_WORDS = "sizeof(((struct shared_info *)0)->evtchn_pending) / 8",
        XEN_PVCLOCK_TSC_STABLE_BIT = "XEN_PVCLOCK_TSC_STABLE_BIT",
        XEN_PVCLOCK_GUEST_STOPPED = "XEN_PVCLOCK_GUEST_STOPPED",
    );
    structures!(checks:
        VcpuTimeInfo = "struct vcpu_time_info" {
            version, pad0, tsc_timestamp, system_time, tsc_to_system_mul, tsc_shift, flags, pad1,
        },
        ArchVcpuInfo = "struct arch_vcpu_info" { cr2, pad },
        VcpuInfo = "struct vcpu_info" { evtchn_upcall_pending, evtchn_upcall_mask, evtchn_pending_sel, arch, time },
        ArchSharedInfo = "struct arch_shared_info" {
            max_pfn, pfn_to_mfn_frame_list_list, nmi_reason, p2m_cr3, p2m_vaddr, p2m_generation,
        },
        SharedInfo = "struct shared_info" {
            vcpu_info, evtchn_pending, evtchn_mask, wc_version, wc_sec, wc_nsec, wc_sec_hi, arch,
        },
        MulticallEntry = "struct multicall_entry" { op, result, args },
    );
    checks
}

fn event_channel() -> Vec<Check> {
    use xen_abi::event_channel::*;
    let mut checks = Vec::new();
    constants!(checks:
        EVTCHN_2L_NR_CHANNELS = "EVTCHN_2L_NR_CHANNELS",
        EVTCHNOP_BIND_INTERDOMAIN = "EVTCHNOP_bind_interdomain",
        EVTCHNOP_BIND_VIRQ = "EVTCHNOP_bind_virq",
        EVTCHNOP_BIND_PIRQ = "EVTCHNOP_bind_pirq",
        EVTCHNOP_CLOSE = "EVTCHNOP_close",
        EVTCHNOP_SEND = "EVTCHNOP_send",
        EVTCHNOP_STATUS = "EVTCHNOP_status",
        EVTCHNOP_ALLOC_UNBOUND = "EVTCHNOP_alloc_unbound",
        EVTCHNOP_BIND_IPI = "EVTCHNOP_bind_ipi",
        EVTCHNOP_BIND_VCPU = "EVTCHNOP_bind_vcpu",
        EVTCHNOP_UNMASK = "EVTCHNOP_unmask",
        EVTCHNOP_RESET = "EVTCHNOP_reset",
        EVTCHNOP_INIT_CONTROL = "EVTCHNOP_init_control",
        EVTCHNOP_EXPAND_ARRAY = "EVTCHNOP_expand_array",
        EVTCHNOP_SET_PRIORITY = "EVTCHNOP_set_priority",
        BIND_PIRQ_WILL_SHARE = "BIND_PIRQ__WILL_SHARE",
        EVTCHNSTAT_CLOSED = "EVTCHNSTAT_closed",
        EVTCHNSTAT_UNBOUND = "EVTCHNSTAT_unbound",
        EVTCHNSTAT_INTERDOMAIN = "EVTCHNSTAT_interdomain",
        EVTCHNSTAT_PIRQ = "EVTCHNSTAT_pirq",
        EVTCHNSTAT_VIRQ = "EVTCHNSTAT_virq",
        EVTCHNSTAT_IPI = "EVTCHNSTAT_ipi",
    );
    structures!(checks:
        EvtchnAllocUnbound = "struct evtchn_alloc_unbound" { dom, remote_dom, port },
        EvtchnBindInterdomain = "struct evtchn_bind_interdomain" { remote_dom, remote_port, local_port },
        EvtchnBindVirq = "struct evtchn_bind_virq" { virq, vcpu, port },
        EvtchnBindPirq = "struct evtchn_bind_pirq" { pirq, flags, port },
        EvtchnBindIpi = "struct evtchn_bind_ipi" { vcpu, port },
        EvtchnClose = "struct evtchn_close" { port },
        EvtchnSend = "struct evtchn_send" { port },
        EvtchnStatus = "struct evtchn_status" { dom, port, status, vcpu, detail = "u" },
        EvtchnBindVcpu = "struct evtchn_bind_vcpu" { port, vcpu },
        EvtchnUnmask = "struct evtchn_unmask" { port },
        EvtchnReset = "struct evtchn_reset" { dom },
        EvtchnInitControl = "struct evtchn_init_control" { control_gfn, offset, vcpu, link_bits },
        EvtchnExpandArray = "struct evtchn_expand_array" { array_gfn },
        EvtchnSetPriority = "struct evtchn_set_priority" { port, priority },
    );
    checks
}

fn grant_table() -> Vec<Check> {
    use xen_abi::grant_table::*;
    let mut checks = Vec::new();
    constants!(checks:
        GNTTABOP_MAP_GRANT_REF = "GNTTABOP_map_grant_ref",
        GNTTABOP_UNMAP_GRANT_REF = "GNTTABOP_unmap_grant_ref",
        GNTTABOP_SETUP_TABLE = "GNTTABOP_setup_table",
        GNTTABOP_DUMP_TABLE = "GNTTABOP_dump_table",
        GNTTABOP_TRANSFER = "GNTTABOP_transfer",
        GNTTABOP_COPY = "GNTTABOP_copy",
        GNTTABOP_QUERY_SIZE = "GNTTABOP_query_size",
        GNTTABOP_UNMAP_AND_REPLACE = "GNTTABOP_unmap_and_replace",
        GNTTABOP_SET_VERSION = "GNTTABOP_set_version",
        GNTTABOP_GET_STATUS_FRAMES = "GNTTABOP_get_status_frames",
        GNTTABOP_GET_VERSION = "GNTTABOP_get_version",
        GNTTABOP_SWAP_GRANT_REF = "GNTTABOP_swap_grant_ref",
        GNTTABOP_CACHE_FLUSH = "GNTTABOP_cache_flush",
        GNTTAB_NR_RESERVED_ENTRIES = "GNTTAB_NR_RESERVED_ENTRIES",
        GNTTAB_RESERVED_CONSOLE = "GNTTAB_RESERVED_CONSOLE",
        GNTTAB_RESERVED_XENSTORE = "GNTTAB_RESERVED_XENSTORE",
        GTF_INVALID = "GTF_invalid",
        GTF_PERMIT_ACCESS = "GTF_permit_access",
        GTF_ACCEPT_TRANSFER = "GTF_accept_transfer",
        GTF_TRANSITIVE = "GTF_transitive",
        GTF_TYPE_MASK = "GTF_type_mask",
        GTF_READONLY = "GTF_readonly",
        GTF_READING = "GTF_reading",
        GTF_WRITING = "GTF_writing",
        GTF_PWT = "GTF_PWT",
        GTF_PCD = "GTF_PCD",
        GTF_PAT = "GTF_PAT",
        GTF_SUB_PAGE = "GTF_sub_page",
        GTF_TRANSFER_COMMITTED = "GTF_transfer_committed",
        GTF_TRANSFER_COMPLETED = "GTF_transfer_completed",
        GRANT_ENTRIES_PER_FRAME = "4096 / sizeof(struct grant_entry_v1)",
        GNTMAP_DEVICE_MAP = "GNTMAP_device_map",
        GNTMAP_HOST_MAP = "GNTMAP_host_map",
        GNTMAP_READONLY = "GNTMAP_readonly",
        GNTMAP_APPLICATION_MAP = "GNTMAP_application_map",
        GNTMAP_CONTAINS_PTE = "GNTMAP_contains_pte",
        GNTMAP_GUEST_AVAIL_MASK = "GNTMAP_guest_avail_mask",
        GNTST_OKAY = "GNTST_okay",
        GNTST_GENERAL_ERROR = "GNTST_general_error",
        GNTST_BAD_DOMAIN = "GNTST_bad_domain",
        GNTST_BAD_GNTREF = "GNTST_bad_gntref",
        GNTST_BAD_HANDLE = "GNTST_bad_handle",
        GNTST_BAD_VIRT_ADDR = "GNTST_bad_virt_addr",
        GNTST_BAD_DEV_ADDR = "GNTST_bad_dev_addr",
        GNTST_NO_DEVICE_SPACE = "GNTST_no_device_space",
        GNTST_PERMISSION_DENIED = "GNTST_permission_denied",
        GNTST_BAD_PAGE = "GNTST_bad_page",
        GNTST_BAD_COPY_ARG = "GNTST_bad_copy_arg",
        GNTST_ADDRESS_TOO_BIG = "GNTST_address_too_big",
        GNTST_EAGAIN = "GNTST_eagain",
        GNTST_NO_SPACE = "GNTST_no_space",
        GNTCOPY_SOURCE_GREF = "GNTCOPY_source_gref",
        GNTCOPY_DEST_GREF = "GNTCOPY_dest_gref",
    );
    structures!(checks:
        GrantEntryV1 = "struct grant_entry_v1" { flags, domid, frame },
        GnttabMapGrantRef = "struct gnttab_map_grant_ref" {
            host_addr, flags, gref = "ref", dom, status, handle, dev_bus_addr,
        },
        GnttabUnmapGrantRef = "struct gnttab_unmap_grant_ref" { host_addr, dev_bus_addr, handle, status },
        GnttabSetupTable = "struct gnttab_setup_table" { dom, nr_frames, status, frame_list },
        GnttabCopyPtr = "struct gnttab_copy_ptr" { target = "u", domid, offset },
        GnttabCopy = "struct gnttab_copy" { source, dest, len, flags, status },
        GnttabQuerySize = "struct gnttab_query_size" { dom, nr_frames, max_nr_frames, status },
        GnttabSetVersion = "struct gnttab_set_version" { version },
        GnttabGetVersion = "struct gnttab_get_version" { dom, pad, version },
    );
    checks
}

fn memory() -> Vec<Check> {
    use xen_abi::memory::*;
    let mut checks = Vec::new();
    constants!(checks:
        XENMEM_INCREASE_RESERVATION = "XENMEM_increase_reservation",
        XENMEM_DECREASE_RESERVATION = "XENMEM_decrease_reservation",
        XENMEM_MAXIMUM_RAM_PAGE = "XENMEM_maximum_ram_page",
        XENMEM_CURRENT_RESERVATION = "XENMEM_current_reservation",
        XENMEM_MAXIMUM_RESERVATION = "XENMEM_maximum_reservation",
        XENMEM_MACHPHYS_MFN_LIST = "XENMEM_machphys_mfn_list",
        XENMEM_POPULATE_PHYSMAP = "XENMEM_populate_physmap",
        XENMEM_ADD_TO_PHYSMAP = "XENMEM_add_to_physmap",
        XENMEM_MEMORY_MAP = "XENMEM_memory_map",
        XENMEM_MACHINE_MEMORY_MAP = "XENMEM_machine_memory_map",
        XENMEM_EXCHANGE = "XENMEM_exchange",
        XENMEM_MACHPHYS_MAPPING = "XENMEM_machphys_mapping",
        XENMEM_SET_MEMORY_MAP = "XENMEM_set_memory_map",
        XENMEM_MAXIMUM_GPFN = "XENMEM_maximum_gpfn",
        XENMEM_REMOVE_FROM_PHYSMAP = "XENMEM_remove_from_physmap",
        XENMEM_SET_POD_TARGET = "XENMEM_set_pod_target",
        XENMEM_GET_POD_TARGET = "XENMEM_get_pod_target",
        XENMEM_ADD_TO_PHYSMAP_BATCH = "XENMEM_add_to_physmap_batch",
        XENMEM_MACHPHYS_COMPAT_MFN_LIST = "XENMEM_machphys_compat_mfn_list",
        XENMEM_GET_VNUMAINFO = "XENMEM_get_vnumainfo",
        XENMEM_ACQUIRE_RESOURCE = "XENMEM_acquire_resource",
        XENMAPSPACE_SHARED_INFO = "XENMAPSPACE_shared_info",
        XENMAPSPACE_GRANT_TABLE = "XENMAPSPACE_grant_table",
        XENMAPSPACE_GMFN = "XENMAPSPACE_gmfn",
        XENMAPSPACE_GMFN_RANGE = "XENMAPSPACE_gmfn_range",
        XENMAPSPACE_GMFN_FOREIGN = "XENMAPSPACE_gmfn_foreign",
        XENMAPSPACE_DEV_MMIO = "XENMAPSPACE_dev_mmio",
        XENMAPIDX_GRANT_TABLE_STATUS = "XENMAPIDX_grant_table_status",
        XENMEMF_POPULATE_ON_DEMAND = "XENMEMF_populate_on_demand",
        XENMEMF_EXACT_NODE_REQUEST = "XENMEMF_exact_node_request",
        XENMEMF_VNODE = "XENMEMF_vnode",
    );
    structures!(checks:
        XenMemoryReservation = "struct xen_memory_reservation" {
            extent_start, nr_extents, extent_order, mem_flags, domid,
        },
        XenMemoryDomain = "struct xen_memory_domain" { domid },
        XenAddToPhysmap = "struct xen_add_to_physmap" { domid, size, space, idx, gpfn },
        XenAddToPhysmapBatch = "struct xen_add_to_physmap_batch" {
            domid, space, size, foreign_domid = "u.foreign_domid", idxs, gpfns, errs,
        },
        XenRemoveFromPhysmap = "struct xen_remove_from_physmap" { domid, gpfn },
        XenMemoryMap = "struct xen_memory_map" { nr_entries, buffer },
    );
    checks
}

fn sched() -> Vec<Check> {
    use xen_abi::sched::*;
    let mut checks = Vec::new();
    constants!(checks:
        SCHEDOP_YIELD = "SCHEDOP_yield",
        SCHEDOP_BLOCK = "SCHEDOP_block",
        SCHEDOP_SHUTDOWN = "SCHEDOP_shutdown",
        SCHEDOP_POLL = "SCHEDOP_poll",
        SCHEDOP_REMOTE_SHUTDOWN = "SCHEDOP_remote_shutdown",
        SCHEDOP_SHUTDOWN_CODE = "SCHEDOP_shutdown_code",
        SCHEDOP_WATCHDOG = "SCHEDOP_watchdog",
        SCHEDOP_PIN_OVERRIDE = "SCHEDOP_pin_override",
        SHUTDOWN_POWEROFF = "SHUTDOWN_poweroff",
        SHUTDOWN_REBOOT = "SHUTDOWN_reboot",
        SHUTDOWN_SUSPEND = "SHUTDOWN_suspend",
        SHUTDOWN_CRASH = "SHUTDOWN_crash",
        SHUTDOWN_WATCHDOG = "SHUTDOWN_watchdog",
        SHUTDOWN_SOFT_RESET = "SHUTDOWN_soft_reset",
        SHUTDOWN_MAX = "SHUTDOWN_MAX",
    );
    structures!(checks:
        SchedShutdown = "struct sched_shutdown" { reason },
        SchedPoll = "struct sched_poll" { ports, nr_ports, timeout },
        SchedRemoteShutdown = "struct sched_remote_shutdown" { domain_id, reason },
        SchedWatchdog = "struct sched_watchdog" { id, timeout },
    );
    checks
}

fn vcpu() -> Vec<Check> {
    use xen_abi::vcpu::*;
    let mut checks = Vec::new();
    constants!(checks:
        VCPUOP_INITIALISE = "VCPUOP_initialise",
        VCPUOP_UP = "VCPUOP_up",
        VCPUOP_DOWN = "VCPUOP_down",
        VCPUOP_IS_UP = "VCPUOP_is_up",
        VCPUOP_GET_RUNSTATE_INFO = "VCPUOP_get_runstate_info",
        VCPUOP_REGISTER_RUNSTATE_MEMORY_AREA = "VCPUOP_register_runstate_memory_area",
        VCPUOP_SET_PERIODIC_TIMER = "VCPUOP_set_periodic_timer",
        VCPUOP_STOP_PERIODIC_TIMER = "VCPUOP_stop_periodic_timer",
        VCPUOP_SET_SINGLESHOT_TIMER = "VCPUOP_set_singleshot_timer",
        VCPUOP_STOP_SINGLESHOT_TIMER = "VCPUOP_stop_singleshot_timer",
        VCPUOP_REGISTER_VCPU_INFO = "VCPUOP_register_vcpu_info",
        VCPUOP_SEND_NMI = "VCPUOP_send_nmi",
        VCPUOP_GET_PHYSID = "VCPUOP_get_physid",
        VCPUOP_REGISTER_VCPU_TIME_MEMORY_AREA = "VCPUOP_register_vcpu_time_memory_area",
        RUNSTATE_RUNNING = "RUNSTATE_running",
        RUNSTATE_RUNNABLE = "RUNSTATE_runnable",
        RUNSTATE_BLOCKED = "RUNSTATE_blocked",
        RUNSTATE_OFFLINE = "RUNSTATE_offline",
        XEN_RUNSTATE_UPDATE = "XEN_RUNSTATE_UPDATE",
        VCPU_SSHOTTMR_FUTURE = "VCPU_SSHOTTMR_future",
    );
    structures!(checks:
        VcpuRunstateInfo = "struct vcpu_runstate_info" { state, state_entry_time, time },
        VcpuRegisterRunstateMemoryArea = "struct vcpu_register_runstate_memory_area" { addr },
        VcpuSetPeriodicTimer = "struct vcpu_set_periodic_timer" { period_ns },
        VcpuSetSingleshotTimer = "struct vcpu_set_singleshot_timer" { timeout_abs_ns, flags },
        VcpuRegisterVcpuInfo = "struct vcpu_register_vcpu_info" { mfn, offset, rsvd },
        VcpuRegisterTimeMemoryArea = "struct vcpu_register_time_memory_area" { addr },
    );
    checks
}

fn physdev() -> Vec<Check> {
    use xen_abi::physdev::*;
    let mut checks = Vec::new();
    constants!(checks:
        PHYSDEVOP_IRQ_STATUS_QUERY = "PHYSDEVOP_irq_status_query",
        PHYSDEVOP_SET_IOPL = "PHYSDEVOP_set_iopl",
        PHYSDEVOP_SET_IOBITMAP = "PHYSDEVOP_set_iobitmap",
        PHYSDEVOP_APIC_READ = "PHYSDEVOP_apic_read",
        PHYSDEVOP_APIC_WRITE = "PHYSDEVOP_apic_write",
        PHYSDEVOP_ALLOC_IRQ_VECTOR = "PHYSDEVOP_alloc_irq_vector",
        PHYSDEVOP_FREE_IRQ_VECTOR = "PHYSDEVOP_free_irq_vector",
        PHYSDEVOP_EOI = "PHYSDEVOP_eoi",
        PHYSDEVOP_MAP_PIRQ = "PHYSDEVOP_map_pirq",
        PHYSDEVOP_UNMAP_PIRQ = "PHYSDEVOP_unmap_pirq",
        PHYSDEVOP_MANAGE_PCI_ADD = "PHYSDEVOP_manage_pci_add",
        PHYSDEVOP_MANAGE_PCI_REMOVE = "PHYSDEVOP_manage_pci_remove",
        PHYSDEVOP_PIRQ_EOI_GMFN_V1 = "PHYSDEVOP_pirq_eoi_gmfn_v1",
        PHYSDEVOP_RESTORE_MSI = "PHYSDEVOP_restore_msi",
        PHYSDEVOP_MANAGE_PCI_ADD_EXT = "PHYSDEVOP_manage_pci_add_ext",
        PHYSDEVOP_SETUP_GSI = "PHYSDEVOP_setup_gsi",
        PHYSDEVOP_GET_FREE_PIRQ = "PHYSDEVOP_get_free_pirq",
        PHYSDEVOP_PCI_MMCFG_RESERVED = "PHYSDEVOP_pci_mmcfg_reserved",
        PHYSDEVOP_PCI_DEVICE_ADD = "PHYSDEVOP_pci_device_add",
        PHYSDEVOP_PCI_DEVICE_REMOVE = "PHYSDEVOP_pci_device_remove",
        PHYSDEVOP_RESTORE_MSI_EXT = "PHYSDEVOP_restore_msi_ext",
        PHYSDEVOP_PIRQ_EOI_GMFN_V2 = "PHYSDEVOP_pirq_eoi_gmfn_v2",
        PHYSDEVOP_DBGP_OP = "PHYSDEVOP_dbgp_op",
        PHYSDEVOP_PREPARE_MSIX = "PHYSDEVOP_prepare_msix",
        PHYSDEVOP_RELEASE_MSIX = "PHYSDEVOP_release_msix",
        MAP_PIRQ_TYPE_MSI = "MAP_PIRQ_TYPE_MSI",
        MAP_PIRQ_TYPE_GSI = "MAP_PIRQ_TYPE_GSI",
        MAP_PIRQ_TYPE_UNKNOWN = "MAP_PIRQ_TYPE_UNKNOWN",
        MAP_PIRQ_TYPE_MSI_SEG = "MAP_PIRQ_TYPE_MSI_SEG",
        MAP_PIRQ_TYPE_MULTI_MSI = "MAP_PIRQ_TYPE_MULTI_MSI",
        XENIRQSTAT_NEEDS_EOI = "XENIRQSTAT_needs_eoi",
        XENIRQSTAT_SHARED = "XENIRQSTAT_shared",
    );
    structures!(checks:
        PhysdevEoi = "struct physdev_eoi" { irq },
        PhysdevIrqStatusQuery = "struct physdev_irq_status_query" { irq, flags },
        PhysdevMapPirq = "struct physdev_map_pirq" {
            domid, kind = "type", index, pirq, bus, devfn, entry_nr, table_base,
        },
        PhysdevUnmapPirq = "struct physdev_unmap_pirq" { domid, pirq },
        PhysdevSetupGsi = "struct physdev_setup_gsi" { gsi, triggering, polarity },
        PhysdevGetFreePirq = "struct physdev_get_free_pirq" { kind = "type", pirq },
    );
    checks
}

fn version() -> Vec<Check> {
    use xen_abi::version::*;
    let mut checks = Vec::new();
    constants!(checks:
        XENVER_VERSION = "XENVER_version",
        XENVER_EXTRAVERSION = "XENVER_extraversion",
        XENVER_COMPILE_INFO = "XENVER_compile_info",
        XENVER_CAPABILITIES = "XENVER_capabilities",
        XENVER_CHANGESET = "XENVER_changeset",
        XENVER_PLATFORM_PARAMETERS = "XENVER_platform_parameters",
        XENVER_GET_FEATURES = "XENVER_get_features",
        XENVER_PAGESIZE = "XENVER_pagesize",
        XENVER_GUEST_HANDLE = "XENVER_guest_handle",
        XENVER_COMMANDLINE = "XENVER_commandline",
        XENVER_BUILD_ID = "XENVER_build_id",
        XENFEAT_WRITABLE_PAGE_TABLES = "XENFEAT_writable_page_tables",
        XENFEAT_WRITABLE_DESCRIPTOR_TABLES = "XENFEAT_writable_descriptor_tables",
        XENFEAT_AUTO_TRANSLATED_PHYSMAP = "XENFEAT_auto_translated_physmap",
        XENFEAT_SUPERVISOR_MODE_KERNEL = "XENFEAT_supervisor_mode_kernel",
        XENFEAT_PAE_PGDIR_ABOVE_4GB = "XENFEAT_pae_pgdir_above_4gb",
        XENFEAT_MMU_PT_UPDATE_PRESERVE_AD = "XENFEAT_mmu_pt_update_preserve_ad",
        XENFEAT_HIGHMEM_ASSIST = "XENFEAT_highmem_assist",
        XENFEAT_GNTTAB_MAP_AVAIL_BITS = "XENFEAT_gnttab_map_avail_bits",
        XENFEAT_HVM_CALLBACK_VECTOR = "XENFEAT_hvm_callback_vector",
        XENFEAT_HVM_SAFE_PVCLOCK = "XENFEAT_hvm_safe_pvclock",
        XENFEAT_HVM_PIRQS = "XENFEAT_hvm_pirqs",
        XENFEAT_DOM0 = "XENFEAT_dom0",
        XENFEAT_MEMORY_OP_VNODE_SUPPORTED = "XENFEAT_memory_op_vnode_supported",
        XENFEAT_LINUX_RSDP_UNRESTRICTED = "XENFEAT_linux_rsdp_unrestricted",
        XENFEAT_NOT_DIRECT_MAPPED = "XENFEAT_not_direct_mapped",
        XENFEAT_DIRECT_MAPPED = "XENFEAT_direct_mapped",
        XENFEAT_NR_SUBMAPS = "XENFEAT_NR_SUBMAPS",
    );
    structures!(checks:
        XenCompileInfo = "struct xen_compile_info" { compiler, compile_by, compile_domain, compile_date },
        XenPlatformParameters = "struct xen_platform_parameters" { virt_start },
        XenFeatureInfo = "struct xen_feature_info" { submap_idx, submap },
    );
    checks
}

fn hvm() -> Vec<Check> {
    use xen_abi::hvm::*;
    let mut checks = Vec::new();
    constants!(checks:
        HVMOP_SET_PARAM = "HVMOP_set_param",
        HVMOP_GET_PARAM = "HVMOP_get_param",
        HVMOP_FLUSH_TLBS = "HVMOP_flush_tlbs",
        HVMOP_PAGETABLE_DYING = "HVMOP_pagetable_dying",
        HVMOP_GET_TIME = "HVMOP_get_time",
        HVMOP_GET_MEM_TYPE = "HVMOP_get_mem_type",
        HVMOP_SET_EVTCHN_UPCALL_VECTOR = "HVMOP_set_evtchn_upcall_vector",
        HVM_PARAM_CALLBACK_IRQ = "HVM_PARAM_CALLBACK_IRQ",
        HVM_PARAM_CALLBACK_IRQ_TYPE_MASK = "HVM_PARAM_CALLBACK_IRQ_TYPE_MASK",
        HVM_PARAM_CALLBACK_TYPE_GSI = "HVM_PARAM_CALLBACK_TYPE_GSI",
        HVM_PARAM_CALLBACK_TYPE_PCI_INTX = "HVM_PARAM_CALLBACK_TYPE_PCI_INTX",
        HVM_PARAM_CALLBACK_TYPE_VECTOR = "HVM_PARAM_CALLBACK_TYPE_VECTOR",
        HVM_PARAM_STORE_PFN = "HVM_PARAM_STORE_PFN",
        HVM_PARAM_STORE_EVTCHN = "HVM_PARAM_STORE_EVTCHN",
        HVM_PARAM_IOREQ_PFN = "HVM_PARAM_IOREQ_PFN",
        HVM_PARAM_BUFIOREQ_PFN = "HVM_PARAM_BUFIOREQ_PFN",
        HVM_PARAM_VIRIDIAN = "HVM_PARAM_VIRIDIAN",
        HVM_PARAM_TIMER_MODE = "HVM_PARAM_TIMER_MODE",
        HVM_PARAM_HPET_ENABLED = "HVM_PARAM_HPET_ENABLED",
        HVM_PARAM_IDENT_PT = "HVM_PARAM_IDENT_PT",
        HVM_PARAM_ACPI_S_STATE = "HVM_PARAM_ACPI_S_STATE",
        HVM_PARAM_VM86_TSS = "HVM_PARAM_VM86_TSS",
        HVM_PARAM_VPT_ALIGN = "HVM_PARAM_VPT_ALIGN",
        HVM_PARAM_CONSOLE_PFN = "HVM_PARAM_CONSOLE_PFN",
        HVM_PARAM_CONSOLE_EVTCHN = "HVM_PARAM_CONSOLE_EVTCHN",
        HVM_PARAM_ACPI_IOPORTS_LOCATION = "HVM_PARAM_ACPI_IOPORTS_LOCATION",
        HVM_PARAM_TRIPLE_FAULT_REASON = "HVM_PARAM_TRIPLE_FAULT_REASON",
        HVM_PARAM_VM_GENERATION_ID_ADDR = "HVM_PARAM_VM_GENERATION_ID_ADDR",
        HVM_NR_PARAMS = "HVM_NR_PARAMS",
        XEN_CPUID_FIRST_LEAF = "XEN_CPUID_FIRST_LEAF",
        XEN_CPUID_SIGNATURE_EBX = "XEN_CPUID_SIGNATURE_EBX",
        XEN_CPUID_SIGNATURE_ECX = "XEN_CPUID_SIGNATURE_ECX",
        XEN_CPUID_SIGNATURE_EDX = "XEN_CPUID_SIGNATURE_EDX",
        XEN_HVM_CPUID_VCPU_ID_PRESENT = "XEN_HVM_CPUID_VCPU_ID_PRESENT",
        XEN_HVM_CPUID_DOMID_PRESENT = "XEN_HVM_CPUID_DOMID_PRESENT",
    );
    structures!(checks:
        XenHvmParam = "struct xen_hvm_param" { domid, pad, index, value },
        XenHvmEvtchnUpcallVector = "struct xen_hvm_evtchn_upcall_vector" { vcpu, vector },
    );
    checks
}

fn start_info() -> Vec<Check> {
    use xen_abi::start_info::*;
    let mut checks = Vec::new();
    constants!(checks:
        XEN_HVM_START_MAGIC_VALUE = "XEN_HVM_START_MAGIC_VALUE",
        XEN_HVM_MEMMAP_TYPE_RAM = "XEN_HVM_MEMMAP_TYPE_RAM",
        XEN_HVM_MEMMAP_TYPE_RESERVED = "XEN_HVM_MEMMAP_TYPE_RESERVED",
        XEN_HVM_MEMMAP_TYPE_ACPI = "XEN_HVM_MEMMAP_TYPE_ACPI",
        XEN_HVM_MEMMAP_TYPE_NVS = "XEN_HVM_MEMMAP_TYPE_NVS",
        XEN_HVM_MEMMAP_TYPE_UNUSABLE = "XEN_HVM_MEMMAP_TYPE_UNUSABLE",
        XEN_HVM_MEMMAP_TYPE_DISABLED = "XEN_HVM_MEMMAP_TYPE_DISABLED",
        XEN_HVM_MEMMAP_TYPE_PMEM = "XEN_HVM_MEMMAP_TYPE_PMEM",
    );
    structures!(checks:
        HvmStartInfo = "struct hvm_start_info" {
            magic, version, flags, nr_modules, modlist_paddr, cmdline_paddr, rsdp_paddr, memmap_paddr,
            memmap_entries, reserved,
        },
        HvmModlistEntry = "struct hvm_modlist_entry" { paddr, size, cmdline_paddr, reserved },
        HvmMemmapTableEntry = "struct hvm_memmap_table_entry" { addr, size, kind = "type", reserved },
    );
    checks
}

fn elfnote() -> Vec<Check> {
    use xen_abi::elfnote::*;
    let mut checks = Vec::new();
    constants!(checks:
        XEN_ELFNOTE_INFO = "XEN_ELFNOTE_INFO",
        XEN_ELFNOTE_ENTRY = "XEN_ELFNOTE_ENTRY",
        XEN_ELFNOTE_HYPERCALL_PAGE = "XEN_ELFNOTE_HYPERCALL_PAGE",
        XEN_ELFNOTE_VIRT_BASE = "XEN_ELFNOTE_VIRT_BASE",
        XEN_ELFNOTE_PADDR_OFFSET = "XEN_ELFNOTE_PADDR_OFFSET",
        XEN_ELFNOTE_XEN_VERSION = "XEN_ELFNOTE_XEN_VERSION",
        XEN_ELFNOTE_GUEST_OS = "XEN_ELFNOTE_GUEST_OS",
        XEN_ELFNOTE_GUEST_VERSION = "XEN_ELFNOTE_GUEST_VERSION",
        XEN_ELFNOTE_LOADER = "XEN_ELFNOTE_LOADER",
        XEN_ELFNOTE_PAE_MODE = "XEN_ELFNOTE_PAE_MODE",
        XEN_ELFNOTE_FEATURES = "XEN_ELFNOTE_FEATURES",
        XEN_ELFNOTE_BSD_SYMTAB = "XEN_ELFNOTE_BSD_SYMTAB",
        XEN_ELFNOTE_HV_START_LOW = "XEN_ELFNOTE_HV_START_LOW",
        XEN_ELFNOTE_L1_MFN_VALID = "XEN_ELFNOTE_L1_MFN_VALID",
        XEN_ELFNOTE_SUSPEND_CANCEL = "XEN_ELFNOTE_SUSPEND_CANCEL",
        XEN_ELFNOTE_INIT_P2M = "XEN_ELFNOTE_INIT_P2M",
        XEN_ELFNOTE_MOD_START_PFN = "XEN_ELFNOTE_MOD_START_PFN",
        XEN_ELFNOTE_SUPPORTED_FEATURES = "XEN_ELFNOTE_SUPPORTED_FEATURES",
        XEN_ELFNOTE_PHYS32_ENTRY = "XEN_ELFNOTE_PHYS32_ENTRY",
    );
    checks
}

fn io_ring() -> Vec<Check> {
    use xen_abi::io::ring::*;
    let mut checks = Vec::new();
    constants!(checks:
        SRING_ENTRIES_OFFSET = "offsetof(struct blkif_sring, ring)",
    );
    checks
}

fn io_blkif() -> Vec<Check> {
    use xen_abi::io::blkif::*;
    let mut checks = Vec::new();
    constants!(checks:
        BLKIF_OP_READ = "BLKIF_OP_READ",
        BLKIF_OP_WRITE = "BLKIF_OP_WRITE",
        BLKIF_OP_WRITE_BARRIER = "BLKIF_OP_WRITE_BARRIER",
        BLKIF_OP_FLUSH_DISKCACHE = "BLKIF_OP_FLUSH_DISKCACHE",
        BLKIF_OP_RESERVED_1 = "BLKIF_OP_RESERVED_1",
        BLKIF_OP_DISCARD = "BLKIF_OP_DISCARD",
        BLKIF_OP_INDIRECT = "BLKIF_OP_INDIRECT",
        BLKIF_MAX_SEGMENTS_PER_REQUEST = "BLKIF_MAX_SEGMENTS_PER_REQUEST",
        BLKIF_MAX_INDIRECT_PAGES_PER_REQUEST = "BLKIF_MAX_INDIRECT_PAGES_PER_REQUEST",
        SEGMENTS_PER_INDIRECT_PAGE = "4096 / sizeof(struct blkif_request_segment)",
        BLKIF_DISCARD_SECURE = "BLKIF_DISCARD_SECURE",
        BLKIF_RSP_OKAY = "BLKIF_RSP_OKAY",
        BLKIF_RSP_ERROR = "BLKIF_RSP_ERROR",
        BLKIF_RSP_EOPNOTSUPP = "BLKIF_RSP_EOPNOTSUPP",
        BLKIF_ENTRY_BYTES = "sizeof(union blkif_sring_entry)",
        BLKIF_RING_ENTRIES = "__CONST_RING_SIZE(blkif, 4096)",
        VDISK_CDROM = "VDISK_CDROM",
        VDISK_REMOVABLE = "VDISK_REMOVABLE",
        VDISK_READONLY = "VDISK_READONLY",
    );
    structures!(checks:
        BlkifRequestSegment = "struct blkif_request_segment" { gref, first_sect, last_sect },
        BlkifRequest = "struct blkif_request" { operation, nr_segments, handle, id, sector_number, seg },
        BlkifRequestDiscard = "struct blkif_request_discard" {
            operation, flag, handle, id, sector_number, nr_sectors,
        },
        BlkifRequestIndirect = "struct blkif_request_indirect" {
            operation, indirect_op, nr_segments, id, sector_number, handle, indirect_grefs,
        },
        BlkifResponse = "struct blkif_response" { id, operation, status },
    );
    checks
}

fn io_netif() -> Vec<Check> {
    use xen_abi::io::netif::*;
    let mut checks = Vec::new();
    constants!(checks:
        XEN_NETIF_NR_SLOTS_MIN = "XEN_NETIF_NR_SLOTS_MIN",
        XEN_NETIF_MAX_TX_SIZE = "XEN_NETIF_MAX_TX_SIZE",
        NETTXF_CSUM_BLANK = "NETTXF_csum_blank",
        NETTXF_DATA_VALIDATED = "NETTXF_data_validated",
        NETTXF_MORE_DATA = "NETTXF_more_data",
        NETTXF_EXTRA_INFO = "NETTXF_extra_info",
        XEN_NETIF_EXTRA_TYPE_NONE = "XEN_NETIF_EXTRA_TYPE_NONE",
        XEN_NETIF_EXTRA_TYPE_GSO = "XEN_NETIF_EXTRA_TYPE_GSO",
        XEN_NETIF_EXTRA_TYPE_MCAST_ADD = "XEN_NETIF_EXTRA_TYPE_MCAST_ADD",
        XEN_NETIF_EXTRA_TYPE_MCAST_DEL = "XEN_NETIF_EXTRA_TYPE_MCAST_DEL",
        XEN_NETIF_EXTRA_TYPE_HASH = "XEN_NETIF_EXTRA_TYPE_HASH",
        XEN_NETIF_EXTRA_TYPE_MAX = "XEN_NETIF_EXTRA_TYPE_MAX",
        XEN_NETIF_EXTRA_FLAG_MORE = "XEN_NETIF_EXTRA_FLAG_MORE",
        XEN_NETIF_GSO_TYPE_NONE = "XEN_NETIF_GSO_TYPE_NONE",
        XEN_NETIF_GSO_TYPE_TCPV4 = "XEN_NETIF_GSO_TYPE_TCPV4",
        XEN_NETIF_GSO_TYPE_TCPV6 = "XEN_NETIF_GSO_TYPE_TCPV6",
        NETRXF_DATA_VALIDATED = "NETRXF_data_validated",
        NETRXF_CSUM_BLANK = "NETRXF_csum_blank",
        NETRXF_MORE_DATA = "NETRXF_more_data",
        NETRXF_EXTRA_INFO = "NETRXF_extra_info",
        NETRXF_GSO_PREFIX = "NETRXF_gso_prefix",
        NETIF_RSP_OKAY = "NETIF_RSP_OKAY",
        NETIF_RSP_ERROR = "NETIF_RSP_ERROR",
        NETIF_RSP_DROPPED = "NETIF_RSP_DROPPED",
        NETIF_RSP_NULL = "NETIF_RSP_NULL",
        NETIF_TX_ENTRY_BYTES = "sizeof(union netif_tx_sring_entry)",
        NETIF_RX_ENTRY_BYTES = "sizeof(union netif_rx_sring_entry)",
        NETIF_TX_RING_ENTRIES = "__CONST_RING_SIZE(netif_tx, 4096)",
        NETIF_RX_RING_ENTRIES = "__CONST_RING_SIZE(netif_rx, 4096)",
    );
    structures!(checks:
        NetifTxRequest = "struct netif_tx_request" { gref, offset, flags, id, size },
        NetifExtraInfo = "struct netif_extra_info" { kind = "type", flags, u },
        NetifTxResponse = "struct netif_tx_response" { id, status },
        NetifRxRequest = "struct netif_rx_request" { id, pad, gref },
        NetifRxResponse = "struct netif_rx_response" { id, offset, flags, status },
    );
    checks
}

fn io_console() -> Vec<Check> {
    use xen_abi::io::console::*;
    let mut checks = Vec::new();
    constants!(checks:
        XENCONS_IN_BYTES = "sizeof(((struct xencons_interface *)0)->in)",
        XENCONS_OUT_BYTES = "sizeof(((struct xencons_interface *)0)->out)",
    );
    structures!(checks:
        XenconsInterface = "struct xencons_interface" {
            input = "in", output = "out", in_cons, in_prod, out_cons, out_prod,
        },
    );
    checks
}

fn io_xs_wire() -> Vec<Check> {
    use xen_abi::io::xs_wire::*;
    let mut checks = Vec::new();
    constants!(checks:
        XS_CONTROL = "XS_CONTROL",
        XS_DIRECTORY = "XS_DIRECTORY",
        XS_READ = "XS_READ",
        XS_GET_PERMS = "XS_GET_PERMS",
        XS_WATCH = "XS_WATCH",
        XS_UNWATCH = "XS_UNWATCH",
        XS_TRANSACTION_START = "XS_TRANSACTION_START",
        XS_TRANSACTION_END = "XS_TRANSACTION_END",
        XS_INTRODUCE = "XS_INTRODUCE",
        XS_RELEASE = "XS_RELEASE",
        XS_GET_DOMAIN_PATH = "XS_GET_DOMAIN_PATH",
        XS_WRITE = "XS_WRITE",
        XS_MKDIR = "XS_MKDIR",
        XS_RM = "XS_RM",
        XS_SET_PERMS = "XS_SET_PERMS",
        XS_WATCH_EVENT = "XS_WATCH_EVENT",
        XS_ERROR = "XS_ERROR",
        XS_IS_DOMAIN_INTRODUCED = "XS_IS_DOMAIN_INTRODUCED",
        XS_RESUME = "XS_RESUME",
        XS_SET_TARGET = "XS_SET_TARGET",
        XS_RESET_WATCHES = "XS_RESET_WATCHES",
        XS_DIRECTORY_PART = "XS_DIRECTORY_PART",
        XS_TYPE_COUNT = "XS_TYPE_COUNT",
        XS_INVALID = "XS_INVALID",
        XENSTORE_RING_SIZE = "XENSTORE_RING_SIZE",
        XENSTORE_PAYLOAD_MAX = "XENSTORE_PAYLOAD_MAX",
        XENSTORE_ABS_PATH_MAX = "XENSTORE_ABS_PATH_MAX",
        XENSTORE_REL_PATH_MAX = "XENSTORE_REL_PATH_MAX",
        XENSTORE_SERVER_FEATURE_RECONNECTION = "XENSTORE_SERVER_FEATURE_RECONNECTION",
        XENSTORE_SERVER_FEATURE_ERROR = "XENSTORE_SERVER_FEATURE_ERROR",
        XENSTORE_CONNECTED = "XENSTORE_CONNECTED",
        XENSTORE_RECONNECT = "XENSTORE_RECONNECT",
        XENSTORE_ERROR_NONE = "XENSTORE_ERROR_NONE",
        XENSTORE_ERROR_COMM = "XENSTORE_ERROR_COMM",
        XENSTORE_ERROR_RINGIDX = "XENSTORE_ERROR_RINGIDX",
        XENSTORE_ERROR_PROTO = "XENSTORE_ERROR_PROTO",
    );
    structures!(checks:
        XsdSockmsg = "struct xsd_sockmsg" { kind = "type", req_id, tx_id, len },
        XenstoreDomainInterface = "struct xenstore_domain_interface" {
            req, rsp, req_cons, req_prod, rsp_cons, rsp_prod, server_features, connection, error,
        },
    );
    checks
}

/// A ring's head: its C structure goes on with the entries, so its size is where they begin.
fn ring_head() -> Vec<Check> {
    use xen_abi::io::ring::SringHeader;
    let mut checks = vec![Check::new("offsetof(struct netif_tx_sring, ring)", size_of::<SringHeader>())];
    fields!(checks: SringHeader = "struct blkif_sring" { req_prod, req_event, rsp_prod, rsp_event, pvt });
    checks
}

/// The union of an event channel's status.
fn status_detail() -> Vec<Check> {
    use xen_abi::event_channel::EvtchnStatusDetail as Detail;
    let base = "offsetof(struct evtchn_status, u)";
    vec![
        Check::new(&format!("offsetof(struct evtchn_status, u.interdomain.dom) - {base}"), offset_of!(Detail, dom)),
        Check::new(&format!("offsetof(struct evtchn_status, u.interdomain.port) - {base}"), offset_of!(Detail, port)),
        Check::new(&format!("offsetof(struct evtchn_status, u.unbound.dom) - {base}"), offset_of!(Detail, dom)),
        Check::new("sizeof(((struct evtchn_status *)0)->u)", size_of::<Detail>()),
        Check::new("sizeof(((struct evtchn_status *)0)->u.virq)", size_of_val(&Detail::default().number())),
    ]
}

/// Error numbers, xenbus states, and the errors that xenstore may send, in its order.
fn enumerations() -> Vec<Check> {
    let errnos = Errno::ALL.iter().filter(|errno| !HIDDEN_ERRNOS.contains(errno));
    let errnos = errnos.map(|errno| Check::new(&format!("XEN_{errno}"), errno.number()));
    let same = [("XEN_EWOULDBLOCK", xen_abi::errno::EWOULDBLOCK), ("XEN_EDEADLOCK", xen_abi::errno::EDEADLOCK)];
    let same = same.map(|(name, number)| Check::new(name, number));
    let unknown = Check::new("XenbusStateUnknown", XenbusState::Unknown.number());
    let states = XenbusState::ALL.iter();
    let states = states.map(|state| Check::new(&format!("XenbusState{state:?}"), state.number()));
    let count = Check::new("sizeof(xsd_errors) / sizeof(xsd_errors[0])", XSD_ERRORS.len());
    let errors = XSD_ERRORS.iter().enumerate();
    let errors = errors.flat_map(|(index, error)| {
        let name = error.name();
        [
            Check::new(&format!("xsd_errors[{index}].errnum"), error.number()),
            Check::new(&format!("strcmp(xsd_errors[{index}].errstring, \"{name}\")"), 0),
        ]
    });
    errnos.chain(same).chain([unknown, count]).chain(states).chain(errors).collect()
}

/// Error numbers that the header shows to the hypervisor alone.
const HIDDEN_ERRNOS: [Errno; 2] = [Errno::EINTR, Errno::ERESTART];

/// Texts, and types that are no structures.
fn texts() -> Vec<Check> {
    use xen_abi::version::*;
    let protocol = xen_abi::io::blkif::XEN_IO_PROTO_ABI_X86_64;
    vec![
        Check::new(&format!("strcmp(XEN_IO_PROTO_ABI_X86_64, \"{protocol}\")"), 0),
        Check::new("sizeof(xen_extraversion_t)", size_of::<XenExtraversion>()),
        Check::new("sizeof(xen_capabilities_info_t)", size_of::<XenCapabilitiesInfo>()),
        Check::new("sizeof(xen_changeset_info_t)", size_of::<XenChangesetInfo>()),
        Check::new("sizeof(xen_commandline_t)", size_of::<XenCommandline>()),
        Check::new("sizeof(xen_domain_handle_t)", size_of::<XenDomainHandle>()),
    ]
}

/// What `xen-abi` has and no public header does: ours, derived, or the hypervisor's own.
pub const NOT_IN_HEADERS: &[&str] = &[
    "E820Entry",            // the BIOS's; Xen writes it without naming it
    "INVALID_GRANT_HANDLE", // ours
    "MEMOP_CMD_MASK",       // Xen's own
    "SECTORS_PER_PAGE",     // prose in blkif.h
    "SECTOR_BYTES",         // prose in blkif.h
    "XEN_ELFNOTE_NAME",     // prose in elfnote.h
];

/// All of it.
pub fn all() -> Vec<Check> {
    [
        xen(),
        event_channel(),
        grant_table(),
        memory(),
        sched(),
        vcpu(),
        physdev(),
        version(),
        hvm(),
        start_info(),
        elfnote(),
        io_ring(),
        io_blkif(),
        io_netif(),
        io_console(),
        io_xs_wire(),
        ring_head(),
        status_detail(),
        enumerations(),
        texts(),
    ]
    .concat()
}
