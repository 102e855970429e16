//! What must be refused with the right error and change nothing: bad arguments, features that do not exist, other
//! domains' things. Named after the rows of the catalogue of hypervisor flaws that they guard against.

use crate::raw::hypercall;
use runtime::hypercall::event_channel;
use runtime::info::own_domid;
use runtime::verdict::equal;
use runtime::{DomId, Errno, Port};
use xen_abi::event_channel as ev;
use xen_abi::grant_table as gt;
use xen_abi::xen as abi;
use xen_abi::xen::{
    DOMID_SELF, HYPERVISOR_CONSOLE_IO, HYPERVISOR_EVENT_CHANNEL_OP, HYPERVISOR_GRANT_TABLE_OP, HYPERVISOR_MEMORY_OP,
    HYPERVISOR_MMU_UPDATE, HYPERVISOR_SCHED_OP, HYPERVISOR_VCPU_OP, HYPERVISOR_XEN_VERSION,
};
use xen_abi::{errno, memory, platform, sched, vcpu};

/// An address of the hypervisor, one that is not mapped, one in the hole, and the very top.
const BAD_POINTERS: [u64; 5] =
    [0xffff_8000_0000_1000, 0x18_0000_0000, 0x8000_0000_0000, u64::MAX - 3, xen_abi::native::START_INFO];

/// What paravirtualized kernels, toolstacks and device models call, and nobody else: page and descriptor tables, traps,
/// segments, control of other domains, transcendent memory, device models.
const LEFT_OUT: [u64; 28] = [
    abi::HYPERVISOR_SET_TRAP_TABLE,
    abi::HYPERVISOR_SET_GDT,
    abi::HYPERVISOR_STACK_SWITCH,
    abi::HYPERVISOR_SET_CALLBACKS,
    abi::HYPERVISOR_FPU_TASKSWITCH,
    abi::HYPERVISOR_SET_DEBUGREG,
    abi::HYPERVISOR_GET_DEBUGREG,
    abi::HYPERVISOR_UPDATE_DESCRIPTOR,
    abi::HYPERVISOR_UPDATE_VA_MAPPING,
    abi::HYPERVISOR_EVENT_CHANNEL_OP_COMPAT,
    abi::HYPERVISOR_PHYSDEV_OP_COMPAT,
    abi::HYPERVISOR_UPDATE_VA_MAPPING_OTHERDOMAIN,
    abi::HYPERVISOR_IRET,
    abi::HYPERVISOR_SET_SEGMENT_BASE,
    abi::HYPERVISOR_MMUEXT_OP,
    abi::HYPERVISOR_XSM_OP,
    abi::HYPERVISOR_NMI_OP,
    abi::HYPERVISOR_CALLBACK_OP,
    abi::HYPERVISOR_XENOPROF_OP,
    abi::HYPERVISOR_HVM_OP,
    abi::HYPERVISOR_SYSCTL,
    abi::HYPERVISOR_DOMCTL,
    abi::HYPERVISOR_KEXEC_OP,
    abi::HYPERVISOR_TMEM_OP,
    abi::HYPERVISOR_ARGO_OP,
    abi::HYPERVISOR_XENPMU_OP,
    abi::HYPERVISOR_DM_OP,
    abi::HYPERVISOR_HYPFS_OP,
];

/// All of them, then a verdict on whether the domain still works.
pub fn all() {
    unknown_calls();
    bad_pointers();
    events();
    grants();
    memory_calls();
    platform_calls();
    timers();
    equal("still-served", hypercall(HYPERVISOR_XEN_VERSION, [0; 5]) > 0, true);
}

fn error(number: i64) -> i64 {
    -number
}

fn unknown_calls() {
    equal("m13-mmu-update", hypercall(HYPERVISOR_MMU_UPDATE, [0; 5]), error(errno::ENOSYS));
    for number in LEFT_OUT {
        equal("m13-left-out-hypercall", hypercall(number, [0; 5]), error(errno::ENOSYS));
    }
    for number in [60, 63, 64, 1 << 20, u64::MAX] {
        equal("unknown-hypercall", hypercall(number, [0; 5]), error(errno::ENOSYS));
    }
    for (number, name) in [
        (HYPERVISOR_EVENT_CHANNEL_OP, "unknown-event-op"),
        (HYPERVISOR_GRANT_TABLE_OP, "unknown-grant-op"),
        (HYPERVISOR_SCHED_OP, "unknown-sched-op"),
        (HYPERVISOR_VCPU_OP, "unknown-vcpu-op"),
        (HYPERVISOR_XEN_VERSION, "unknown-version-op"),
    ] {
        for command in [14, 0x3f, u64::MAX] {
            equal(name, hypercall(number, [command, 0, 0, 0, 0]), error(errno::ENOSYS));
        }
    }
}

fn bad_pointers() {
    for pointer in BAD_POINTERS {
        // A structure that is read and written: the start info is readable but not writable.
        let alloc = hypercall(HYPERVISOR_EVENT_CHANNEL_OP, [ev::EVTCHNOP_ALLOC_UNBOUND, pointer, 0, 0, 0]);
        runtime::verdict!("m1-bad-pointer", alloc < 0, "{pointer:#x} answered {alloc}");
        let map = hypercall(HYPERVISOR_GRANT_TABLE_OP, [gt::GNTTABOP_MAP_GRANT_REF, pointer, 1, 0, 0]);
        runtime::verdict!("m1-bad-pointer", map < 0, "{pointer:#x} answered {map}");
        let poll = hypercall(HYPERVISOR_SCHED_OP, [sched::SCHEDOP_POLL, pointer & !7, 0, 0, 0]);
        runtime::verdict!("m1-bad-pointer", poll < 0 || pointer == xen_abi::native::START_INFO, "{poll}");
    }
    let write = hypercall(HYPERVISOR_CONSOLE_IO, [0, 1 << 40, BAD_POINTERS[0], 0, 0]);
    runtime::verdict!("m2-huge-console-write", write < 0, "answered {write}");
    let memory = hypercall(HYPERVISOR_MEMORY_OP, [7, BAD_POINTERS[1], 0, 0, 0]);
    equal("m1-memory-op-pointer", memory, error(errno::EFAULT));
}

fn events() {
    for (name, op) in [
        ("e1-init-control", ev::EVTCHNOP_INIT_CONTROL),
        ("e1-expand-array", ev::EVTCHNOP_EXPAND_ARRAY),
        ("e1-set-priority", ev::EVTCHNOP_SET_PRIORITY),
    ] {
        let structure = [0_u64; 4];
        equal(
            name,
            hypercall(HYPERVISOR_EVENT_CHANNEL_OP, [op, structure.as_ptr() as u64, 0, 0, 0]),
            error(errno::ENOSYS),
        );
    }
    let policy = DomId(0);
    equal("alloc-for-another", event_channel::alloc_unbound(policy, DomId::SELF), Err(Errno::EPERM));
    equal("alloc-for-nobody", event_channel::alloc_unbound(DomId::SELF, DomId(0x6fff)), Err(Errno::ESRCH));
    equal("alloc-without-a-link", event_channel::alloc_unbound(DomId::SELF, policy), Err(Errno::EPERM));
    equal("bind-nobody", event_channel::bind_interdomain(DomId(0x6fff), Port(1)), Err(Errno::ESRCH));
    equal("bind-not-ours", event_channel::bind_interdomain(policy, Port(1)), Err(Errno::EINVAL));
    equal("bind-out-of-range", event_channel::bind_interdomain(policy, Port(1 << 20)), Err(Errno::EINVAL));
    equal("virq-out-of-range", event_channel::bind_virq(24), Err(Errno::EINVAL));
    equal("virq-twice", event_channel::bind_virq(0), Err(Errno::EEXIST));
    equal("virq-not-ours", event_channel::bind_virq(event_channel::VIRQ_DOM_EXC), Err(Errno::EPERM));
    equal("log-not-ours", event_channel::bind_virq(event_channel::VIRQ_CON_RING), Err(Errno::EPERM));
    runtime::verdict!("i1-pirq-not-ours", event_channel::bind_pirq(1).is_err());
    equal("close-free", event_channel::close(Port(4000)), Err(Errno::EINVAL));
    equal("status-of-another", event_channel::status(policy, Port(1)).map(drop), Err(Errno::EPERM));
    equal("unmask-out-of-range", event_channel::unmask(Port(1 << 13)), Err(Errno::EINVAL));
    for port in (0..1 << 17).step_by(97).chain([4095, 4096, 65535, u32::MAX]) {
        // Our own few ports are low; sending to all others is an error, and never more than that.
        if port > 64 && event_channel::send(Port(port)).is_ok() {
            runtime::verdict::fail("e4-send-everywhere", port);
        }
    }
    runtime::verdict::pass("e4-send-everywhere-done");
    exhaust_ports();
}

fn exhaust_ports() {
    let mut count = 0;
    let last = loop {
        match event_channel::alloc_unbound(DomId::SELF, DomId::SELF) {
            Ok(_) => count += 1,
            Err(error) => break error,
        }
    };
    equal("e4-ports-run-out", (last, count > 8), (Errno::ENOSPC, true));
    equal("e6-virq-when-full", event_channel::bind_virq(1), Err(Errno::ENOSPC));
    for port in 0..4096 {
        if event_channel::status(DomId::SELF, Port(port)).is_ok_and(|status| status.status == ev::EVTCHNSTAT_UNBOUND) {
            runtime::verdict::report("close-one-of-many", event_channel::close(Port(port)).map_err(|_| port));
            break;
        }
    }
    runtime::verdict::report("port-is-free-again", event_channel::bind_virq(1).map_err(|_| "no port"));
}

fn grants() {
    for (name, op) in [
        ("g1-swap", gt::GNTTABOP_SWAP_GRANT_REF),
        ("g1-dump-table", gt::GNTTABOP_DUMP_TABLE),
        ("g4-transfer", gt::GNTTABOP_TRANSFER),
        ("g5-cache-flush", gt::GNTTABOP_CACHE_FLUSH),
        ("g2-status-frames", gt::GNTTABOP_GET_STATUS_FRAMES),
        ("g7-unmap-and-replace", gt::GNTTABOP_UNMAP_AND_REPLACE),
    ] {
        let structure = [0_u64; 8];
        let answer = hypercall(HYPERVISOR_GRANT_TABLE_OP, [op, structure.as_ptr() as u64, 1, 0, 0]);
        equal(name, answer, error(errno::ENOSYS));
    }
    let mut version = [2_u32, 0];
    let set = hypercall(HYPERVISOR_GRANT_TABLE_OP, [gt::GNTTABOP_SET_VERSION, version.as_mut_ptr() as u64, 1, 0, 0]);
    equal("g2-version-2", set, error(errno::ENOSYS));
    let count = hypercall(HYPERVISOR_GRANT_TABLE_OP, [gt::GNTTABOP_MAP_GRANT_REF, BAD_POINTERS[1], u64::MAX, 0, 0]);
    runtime::verdict!("g6-huge-count", count < 0, "answered {count}");
}

fn memory_calls() {
    let served = [
        memory::XENMEM_ADD_TO_PHYSMAP,
        memory::XENMEM_REMOVE_FROM_PHYSMAP,
        memory::XENMEM_POPULATE_PHYSMAP,
        memory::XENMEM_DECREASE_RESERVATION,
        memory::XENMEM_CURRENT_RESERVATION,
        memory::XENMEM_MAXIMUM_RESERVATION,
    ];
    for command in (0..64).filter(|command| !served.contains(command)) {
        let structure = [0_u64; 16];
        let answer = hypercall(HYPERVISOR_MEMORY_OP, [command, structure.as_ptr() as u64, 0, 0, 0]);
        runtime::verdict!("m2-m3-left-out-memory-op", answer == error(errno::ENOSYS), "{command} answered {answer}");
    }
    let place = |domid: u16, space: u32, idx: u64, gpfn: u64| {
        let op = memory::XenAddToPhysmap { domid, space, idx, gpfn, ..Default::default() };
        hypercall(HYPERVISOR_MEMORY_OP, [memory::XENMEM_ADD_TO_PHYSMAP, core::ptr::from_ref(&op) as u64, 0, 0, 0])
    };
    let free = 0x18_0000_0000 >> 12;
    let (info, grants) = (memory::XENMAPSPACE_SHARED_INFO, memory::XENMAPSPACE_GRANT_TABLE);
    equal("m5-shared-info-of-another", place(0, info, 0, free), error(errno::EPERM));
    equal("m5-shared-info-over-memory", place(DOMID_SELF, info, 0, 0x200), error(errno::EEXIST));
    equal("m3-no-such-shared-info", place(DOMID_SELF, info, 1, free), error(errno::EINVAL));
    for index in [64, 1 << 31 | 1, u64::from(u32::MAX), 1 << 32, u64::MAX] {
        equal("g2-no-such-grant-frame", place(DOMID_SELF, grants, index, free), error(errno::EINVAL));
    }
    for gfn in [xen_abi::native::ADDRESS_LIMIT >> 12, 1 << 52, u64::MAX] {
        equal("m3-no-such-place", place(DOMID_SELF, info, 0, gfn), error(errno::EINVAL));
    }
    for space in (memory::XENMAPSPACE_GMFN..=memory::XENMAPSPACE_DEV_MMIO).chain([6, u32::MAX]) {
        equal("m13-no-such-space", place(DOMID_SELF, space, 0, free), error(errno::ENOSYS));
    }
    let remove = |domid: u16, gpfn: u64| {
        let op = memory::XenRemoveFromPhysmap { domid, gpfn, ..Default::default() };
        hypercall(HYPERVISOR_MEMORY_OP, [memory::XENMEM_REMOVE_FROM_PHYSMAP, core::ptr::from_ref(&op) as u64, 0, 0, 0])
    };
    let reservation = |command: u64, domid: u16, first: u64, nr_extents: u64, extent_order: u32| {
        let extents: [u64; 4] = core::array::from_fn(|index| first + index as u64);
        let extent_start = extents.as_ptr() as u64;
        let op = memory::XenMemoryReservation { extent_start, nr_extents, extent_order, domid, ..Default::default() };
        hypercall(HYPERVISOR_MEMORY_OP, [command, core::ptr::from_ref(&op) as u64, 0, 0, 0])
    };
    let populate = |domid: u16, first: u64, count: u64, order: u32| {
        reservation(memory::XENMEM_POPULATE_PHYSMAP, domid, first, count, order)
    };
    let give_back = |domid: u16, first: u64| reservation(memory::XENMEM_DECREASE_RESERVATION, domid, first, 4, 0);
    let pages = |command: u64, domid: u16| {
        let op = memory::XenMemoryDomain { domid };
        hypercall(HYPERVISOR_MEMORY_OP, [command, core::ptr::from_ref(&op) as u64, 0, 0, 0])
    };
    let own = || pages(memory::XENMEM_CURRENT_RESERVATION, DOMID_SELF);
    let most = pages(memory::XENMEM_MAXIMUM_RESERVATION, DOMID_SELF);
    let before = own();
    equal("populate-of-another", populate(0, free, 1, 0), error(errno::EPERM));
    equal("m3-populate-large-extents", populate(DOMID_SELF, free, 1, 9), error(errno::EINVAL));
    equal("m3-populate-huge-count", populate(DOMID_SELF, free, 1 << 32, 0), error(errno::E2BIG));
    equal("populate-over-memory", populate(DOMID_SELF, 0x200, 4, 0), 0);
    equal("populate-beyond", populate(DOMID_SELF, (xen_abi::native::ADDRESS_LIMIT >> 12) - 1, 4, 0), 1);
    equal("populate", populate(DOMID_SELF, free, 4, 0), 4);
    equal("populate-again", populate(DOMID_SELF, free, 4, 0), 0);
    equal("populated", (own(), most), (before + 5, 512));
    equal("give-back-of-another", give_back(0, free), error(errno::EPERM));
    equal("give-back", (give_back(DOMID_SELF, free), give_back(DOMID_SELF, free)), (4, 0));
    let steps = (free..).step_by(4);
    steps.clone().find(|&first| populate(DOMID_SELF, first, 4, 0) < 4);
    equal("m2-populate-ends-with-the-own-memory", own(), most);
    steps.clone().find(|&first| give_back(DOMID_SELF, first) < 4);
    remove(DOMID_SELF, (xen_abi::native::ADDRESS_LIMIT >> 12) - 1);
    equal("given-back", own(), before);
    for command in [memory::XENMEM_CURRENT_RESERVATION, memory::XENMEM_MAXIMUM_RESERVATION] {
        equal("memory-of-another", pages(command, 0), error(errno::EPERM));
    }
    equal("remove-of-another", remove(0, 0x200), error(errno::EPERM));
    equal("remove-nothing", remove(DOMID_SELF, free), error(errno::ENOENT));
    equal("remove-beyond", remove(DOMID_SELF, u64::MAX), error(errno::ENOENT));
}

fn platform_calls() {
    let structure = [0_u64; 32];
    let call =
        |command: u64, bytes: u64| hypercall(platform::HYPERCALL, [command, structure.as_ptr() as u64, bytes, 0, 0]);
    let commands: [(&str, u64, usize); 16] = [
        ("c1-create", platform::CREATE_DOMAIN, size_of::<platform::CreateDomain>()),
        ("c1-populate", platform::POPULATE, size_of::<platform::Populate>()),
        ("c1-copy-in", platform::COPY_IN, size_of::<platform::CopyIn>()),
        ("c1-lend", platform::LEND, size_of::<platform::Lend>()),
        ("c1-seed-grant", platform::SEED_GRANT, size_of::<platform::SeedGrant>()),
        ("c1-set-entry", platform::SET_ENTRY, size_of::<platform::SetEntry>()),
        ("c1-assign-device", platform::ASSIGN_DEVICE, size_of::<platform::AssignDevice>()),
        ("c1-unpause", platform::UNPAUSE, size_of::<platform::DomainTarget>()),
        ("c1-pause", platform::PAUSE, size_of::<platform::DomainTarget>()),
        ("c1-destroy", platform::DESTROY, size_of::<platform::DomainTarget>()),
        ("c1-domain-info", platform::DOMAIN_INFO, size_of::<platform::DomainInfo>()),
        ("c1-machine-info", platform::MACHINE_INFO, size_of::<platform::MachineInfo>()),
        ("c1-device-info", platform::DEVICE_INFO, size_of::<platform::DeviceInfo>()),
        ("c1-grant-info", platform::GRANT_INFO, size_of::<platform::GrantInfo>()),
        ("c1-power", platform::POWER, size_of::<platform::Power>()),
        ("c1-read-log", platform::READ_LOG, size_of::<platform::ReadLog>()),
    ];
    for (name, command, bytes) in commands {
        equal(name, call(command, bytes as u64), error(errno::EPERM));
    }
    let config = call(platform::CONFIG_READ, size_of::<platform::ConfigAccess>() as u64);
    runtime::verdict!("p10-config-of-no-device", config < 0, "answered {config}");
    runtime::verdict!("unknown-platform-command", call(999, 0) < 0);
}

/// The policy's `observe`: facts of the machine and of all domains, and nothing else.
pub fn observer() {
    let domains = runtime::hypercall::platform::domains().filter(|info| info.domid != u32::from(own_domid())).count();
    runtime::verdict!("observer-sees-others", domains >= 3, "{domains}");
    let machine = runtime::hypercall::platform::machine_info();
    runtime::verdict!("observer-sees-the-machine", machine.is_ok_and(|machine| machine.frames_total > 0));
    for (name, command, bytes) in [
        ("observer-grant-info", platform::GRANT_INFO, size_of::<platform::GrantInfo>()),
        ("observer-device-info", platform::DEVICE_INFO, size_of::<platform::DeviceInfo>()),
        ("observer-pause", platform::PAUSE, size_of::<platform::DomainTarget>()),
        ("observer-read-log", platform::READ_LOG, size_of::<platform::ReadLog>()),
    ] {
        let structure = [0_u64; 32];
        let answer = hypercall(platform::HYPERCALL, [command, structure.as_ptr() as u64, bytes as u64, 0, 0]);
        equal(name, answer, error(errno::EPERM));
    }
}

fn timers() {
    for deadline in [0_u64, 1, 1 << 63, u64::MAX] {
        let structure = [deadline, 0];
        let answer =
            hypercall(HYPERVISOR_VCPU_OP, [vcpu::VCPUOP_SET_SINGLESHOT_TIMER, 0, structure.as_ptr() as u64, 0, 0]);
        runtime::verdict!("e9-timer", answer == 0 || answer == error(62), "deadline {deadline:#x} answered {answer}");
    }
    let structure = [0_u64; 2];
    let other = hypercall(HYPERVISOR_VCPU_OP, [vcpu::VCPUOP_SET_SINGLESHOT_TIMER, 7, structure.as_ptr() as u64, 0, 0]);
    runtime::verdict!("timer-of-no-vcpu", other < 0, "answered {other}");
}
