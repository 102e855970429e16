//! `platform_op`: the one hypercall that Xen has no stable counterpart for. Number [`HYPERCALL`].
//!
//! `platform_op(RDI = command, RSI = address of the command's structure, RDX = its size in bytes)`. The size must be
//! exactly that of the structure (`-EINVAL` otherwise); commands without a structure take 0, 0. The structure is
//! copied in once, checked, acted on, and copied out where it has an output. Every call is checked against the
//! sealed policy table; a caller without the authority gets `-EPERM`, whatever its arguments are.
//!
//! Three groups of callers: the *policy domain* (label flag `CONTROL`), a *driver domain* for its own devices,
//! and the domain with label flag `LOG` for the hypervisor's log. `docs/hypercalls.md` has the register tables.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// The hypercall number (`__HYPERVISOR_platform_op`).
pub const HYPERCALL: u64 = 7;
/// The version that command [`VERSION_QUERY`] returns.
pub const VERSION: u32 = 3;

/// Returns [`VERSION`]. Any native domain. No structure.
pub const VERSION_QUERY: u64 = 0;

// --- the policy domain ---

/// [`CreateDomain`]: make an empty domain for a label of the policy. `-EEXIST`: that label has a domain already.
pub const CREATE_DOMAIN: u64 = 1;
/// [`Populate`]: give zeroed frames to a domain that is being built. Restartable: see the structure.
pub const POPULATE: u64 = 2;
/// [`CopyIn`]: copy from the caller's memory into a domain that is being built.
pub const COPY_IN: u64 = 3;
/// [`SeedGrant`]: write a grant entry of a domain that is being built, to a peer that the policy links it to.
pub const SEED_GRANT: u64 = 4;
/// [`SetEntry`]: set the first instruction and stack of a domain that is being built.
pub const SET_ENTRY: u64 = 5;
/// [`AssignDevice`]: give a quarantined device to the domain that the sealed table names for it.
pub const ASSIGN_DEVICE: u64 = 6;
/// [`DomainTarget`]: seal a domain that is being built and let it run (building -> running), or resume a paused one.
pub const UNPAUSE: u64 = 7;
/// [`DomainTarget`]: stop scheduling a running domain.
pub const PAUSE: u64 = 8;
/// [`DomainTarget`]: destroy a domain in any state (not the caller). Returns at once; resources come back in slices
/// and `VIRQ_DOM_EXC` is raised for the policy domain when the domain is gone.
pub const DESTROY: u64 = 9;
/// [`DomainInfo`]: facts of the first domain whose id is `domid` or higher. `-ENOENT`: no more.
pub const DOMAIN_INFO: u64 = 10;
/// [`DeviceInfo`]: facts of PCI function number `index`. `-ENOENT`: no more.
pub const DEVICE_INFO: u64 = 11;
/// [`GrantInfo`]: the first grant of `domid`, at `gref` or higher, that is active or mapped. `-ENOENT`: no more.
pub const GRANT_INFO: u64 = 12;
/// [`MachineInfo`]: facts of the machine.
pub const MACHINE_INFO: u64 = 13;
/// [`Power`]: power off or restart the machine.
pub const POWER: u64 = 14;
/// [`DomainTarget`]: take a device's domain's devices back is part of DESTROY; this one asks whether a dead domain has
/// been fully returned: 0 gone, `-EBUSY` still dying, `-ESRCH` never existed.
pub const REAPED: u64 = 15;
/// [`Lend`]: show pages of the boot bundle to a native domain that is being built.
pub const LEND: u64 = 16;

// --- a driver domain, for its own devices ---

/// [`DeviceDescribe`]: the caller's device number `index`. `-ENOENT`: no more.
pub const DEVICE_DESCRIBE: u64 = 32;
/// [`ConfigAccess`]: read configuration space of an own device.
pub const CONFIG_READ: u64 = 33;
/// [`ConfigAccess`]: write configuration space of an own device; only harmless fields (`-EPERM` otherwise).
pub const CONFIG_WRITE: u64 = 34;

// --- the domain with the log flag ---

/// [`ReadLog`]: take text from the hypervisor's log ring. `VIRQ_CON_RING` tells that there is more. While a domain
/// holds this virq, the hypervisor writes nothing but crash records to the serial line itself.
pub const READ_LOG: u64 = 48;

/// See [`CREATE_DOMAIN`].
#[derive(Clone, Copy, Debug, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct CreateDomain {
    /// In: index into the sealed table's domains.
    pub label: u32,
    /// In: 0 or `DOMID_SELF` for an id that names nobody yet; else the id that the label's last domain had, for its successor
    /// (`-EINVAL` or `-ESRCH` if that was another label's, or its slot has had another domain since). Out: the new domain's id.
    pub domid: u32,
}

/// May be read. Always implied.
pub const RIGHTS_READ: u32 = 0;
/// May be written (excludes execute: `-EINVAL`).
pub const RIGHTS_WRITE: u32 = 1;
/// May be executed (excludes write: `-EINVAL`).
pub const RIGHTS_EXECUTE: u32 = 2;
/// Everything: the memory of a `pvh` domain, which has page tables of its own to tell code from data (`-EINVAL` for a
/// native one).
pub const RIGHTS_ALL: u32 = 3;

/// See [`POPULATE`]. Frames count against the label's memory; `-ENOMEM` when that or the machine is exhausted,
/// `-EEXIST` where a page is mapped already. On any result `done` tells how many pages were populated (contiguous
/// from `gfn`): on `-EAGAIN` the caller goes on from there, as the hypervisor does a bounded amount per call.
#[derive(Clone, Copy, Debug, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Populate {
    /// In: target.
    pub domid: u32,
    /// In: `RIGHTS_*`.
    pub rights: u32,
    /// In: first guest frame number.
    pub gfn: u64,
    /// In: pages.
    pub count: u64,
    /// Out: pages done.
    pub done: u64,
}

/// Bytes that one [`COPY_IN`] copies at most (`-E2BIG`).
pub const COPY_IN_MAX: u64 = 256 * 1024;

/// See [`COPY_IN`]. The destination must be populated; its rights do not matter (the domain does not run yet).
#[derive(Clone, Copy, Debug, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct CopyIn {
    /// In: target.
    pub domid: u32,
    /// Zero.
    pub reserved: u32,
    /// In: guest-physical destination.
    pub gpa: u64,
    /// In: source in the caller's memory.
    pub source: u64,
    /// In: bytes, at most [`COPY_IN_MAX`].
    pub bytes: u64,
}

/// Pages that one [`LEND`] shows at most (`-E2BIG`).
pub const LEND_MAX: u64 = 512;

/// See [`LEND`]. The pages stay the hypervisor's, are the same for all who are shown them, never change and count against
/// nobody's memory. `-EINVAL`: rights to write; pages that are not all of them the bundle's; not a native domain. `-EEXIST`
/// where a page is mapped already. An error leaves the pages before the failing one mapped: destroy the domain.
#[derive(Clone, Copy, Debug, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Lend {
    /// In: target.
    pub domid: u32,
    /// In: [`RIGHTS_READ`] or [`RIGHTS_EXECUTE`].
    pub rights: u32,
    /// In: first guest frame number.
    pub gfn: u64,
    /// In: first page of the bundle, counted from its beginning.
    pub page: u64,
    /// In: pages, at most [`LEND_MAX`].
    pub count: u64,
}

/// See [`SEED_GRANT`].
#[derive(Clone, Copy, Debug, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct SeedGrant {
    /// In: the granting domain, being built.
    pub domid: u32,
    /// In: grant reference.
    pub gref: u32,
    /// In: the granted page.
    pub gfn: u64,
    /// In: the domain that may map it.
    pub peer: u32,
    /// In: 1 = read-only, 0 = read-write.
    pub read_only: u32,
}

/// See [`SET_ENTRY`]. Addresses must be canonical and below `native::ADDRESS_LIMIT`.
#[derive(Clone, Copy, Debug, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct SetEntry {
    /// In: target.
    pub domid: u32,
    /// Zero.
    pub reserved: u32,
    /// In: RIP.
    pub rip: u64,
    /// In: RSP.
    pub rsp: u64,
    /// In: RDI.
    pub argument: u64,
}

/// See [`ASSIGN_DEVICE`]. `-EPERM`: the table gives the device to another label, or there is no IOMMU and the policy
/// does not accept unprotected DMA, or the device cannot be kept apart from one that is not the label's; `-EBUSY`: not
/// in quarantine; `-ENODEV`: no such function, or it does not answer after its reset. Memory decoding is on afterwards;
/// bus mastering is for the domain to switch on ([`CONFIG_WRITE`]), once it has brought the device to a known state.
#[derive(Clone, Copy, Debug, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct AssignDevice {
    /// In: target, being built.
    pub domid: u32,
    /// In: bus << 8 | device << 3 | function (segment 0).
    pub bdf: u32,
}

/// A command's target domain.
#[derive(Clone, Copy, Debug, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct DomainTarget {
    /// In: domain id.
    pub domid: u32,
    /// Zero.
    pub reserved: u32,
}

/// [`DomainInfo::state`]: being built, paused since creation.
pub const STATE_BUILDING: u32 = 0;
/// [`DomainInfo::state`]: sealed and schedulable.
pub const STATE_RUNNING: u32 = 1;
/// [`DomainInfo::state`]: sealed, not scheduled.
pub const STATE_PAUSED: u32 = 2;
/// [`DomainInfo::state`]: ended; its resources are being returned.
pub const STATE_DYING: u32 = 3;

/// See [`DOMAIN_INFO`].
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct DomainInfo {
    /// In: lowest id wanted. Out: the id found.
    pub domid: u32,
    /// Out: label index.
    pub label: u32,
    /// Out: `STATE_*`.
    pub state: u32,
    /// Out: [`DomainInfo::state`] dying: why, `SHUTDOWN_*` of `sched_op`; else 0.
    pub reason: u32,
    /// Out: pages of memory it owns.
    pub pages: u64,
    /// Out: pages of page tables (CPU and IOMMU) it pays for.
    pub table_pages: u64,
    /// Out: nanoseconds it has run.
    pub cpu_ns: u64,
    /// Out: hypercalls it has made.
    pub hypercalls: u64,
    /// Out: events it has sent.
    pub events_sent: u64,
    /// Out: pages of others that it has mapped by grant now.
    pub grants_mapped: u64,
    /// Out: event channel ports in use.
    pub ports: u32,
    /// Out: devices assigned.
    pub devices: u32,
    /// Out: text of why it died, NUL-padded ("page fault: read of 0x... at rip 0x...").
    pub why: [u8; 128],
}

/// Owner of a device that nobody drives.
pub const OWNER_QUARANTINE: u32 = u32::MAX;
/// Owner of a device that the hypervisor keeps (bridges, the IOMMU).
pub const OWNER_HYPERVISOR: u32 = u32::MAX - 1;
/// [`DeviceInfo::label`] of a function that the policy does not name.
pub const LABEL_NONE: u32 = u32::MAX;

/// See [`DEVICE_INFO`].
#[derive(Clone, Copy, Debug, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct DeviceInfo {
    /// In: number of the function in bus order, from 0.
    pub index: u32,
    /// Out: bus << 8 | device << 3 | function.
    pub bdf: u32,
    /// Out: PCI vendor id.
    pub vendor: u16,
    /// Out: PCI device id.
    pub device: u16,
    /// Out: class << 16 | subclass << 8 | programming interface.
    pub class: u32,
    /// Out: domain id, [`OWNER_QUARANTINE`] or [`OWNER_HYPERVISOR`].
    pub owner: u32,
    /// Out: the label that the sealed table gives it to, or [`LABEL_NONE`].
    pub label: u32,
    /// Out: the table's device entry that selects it, or `u32::MAX`.
    pub selector: u32,
    /// Out: DMA faults recorded since boot.
    pub faults: u32,
}

/// See [`GRANT_INFO`].
#[derive(Clone, Copy, Debug, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct GrantInfo {
    /// In: the granting domain.
    pub domid: u32,
    /// In: lowest reference wanted. Out: the one found.
    pub gref: u32,
    /// Out: the granted page.
    pub gfn: u64,
    /// Out: the domain it is granted to.
    pub peer: u32,
    /// Out: `GTF_*` as the entry has them.
    pub flags: u32,
    /// Out: mappings in force.
    pub mappings: u32,
    /// Zero.
    pub reserved: u32,
}

/// See [`MACHINE_INFO`].
#[derive(Clone, Copy, Debug, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct MachineInfo {
    /// Usable frames at boot.
    pub frames_total: u64,
    /// Frames on the free list.
    pub frames_free: u64,
    /// Frames that the hypervisor uses for itself.
    pub frames_hypervisor: u64,
    /// TSC frequency.
    pub tsc_khz: u64,
    /// TSC at the hypervisor's first instruction.
    pub boot_tsc: u64,
    /// TSC when the policy domain was entered.
    pub policy_tsc: u64,
    /// Ticks of the TSC that passed while no domain could run.
    pub idle_ticks: u64,
    /// 1: DMA remapping is on; 0: no IOMMU.
    pub iommu: u32,
    /// 1: interrupt remapping is on.
    pub interrupt_remapping: u32,
    /// CPUs online.
    pub cpus: u32,
    /// Zero.
    pub reserved: u32,
}

/// [`Power::action`]: ACPI S5.
pub const POWER_OFF: u32 = 0;
/// [`Power::action`]: reset.
pub const POWER_RESTART: u32 = 1;
/// [`Power::action`]: leave QEMU with [`Power::code`] through its `isa-debug-exit` device (exit status
/// `code << 1 | 1`); `-ENODEV` unless the command line has `debug-exit`.
pub const POWER_DEBUG_EXIT: u32 = 2;

/// See [`POWER`].
#[derive(Clone, Copy, Debug, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Power {
    /// In: `POWER_*`.
    pub action: u32,
    /// In: for [`POWER_DEBUG_EXIT`].
    pub code: u32,
}

/// [`Bar::flags`]: memory, mapped into the domain at `gpa`. Else there is none: it is not implemented, or decodes I/O ports,
/// which no domain reaches.
pub const BAR_MEMORY: u32 = 1;
/// [`Bar::flags`]: holds the MSI-X table or pending bits; those pages are not mapped.
pub const BAR_HAS_MSIX: u32 = 2;

/// One base address register.
#[derive(Clone, Copy, Debug, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Bar {
    /// Where it is mapped in the domain; 0: not present.
    pub gpa: u64,
    /// Bytes.
    pub bytes: u64,
    /// `BAR_*`.
    pub flags: u32,
    /// Zero.
    pub reserved: u32,
}

/// See [`DEVICE_DESCRIBE`].
#[derive(Clone, Copy, Debug, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct DeviceDescribe {
    /// In: number of the caller's device, from 0.
    pub index: u32,
    /// Out: bus << 8 | device << 3 | function.
    pub bdf: u32,
    /// Out: PCI vendor id.
    pub vendor: u16,
    /// Out: PCI device id.
    pub device: u16,
    /// Out: class << 16 | subclass << 8 | programming interface.
    pub class: u32,
    /// Out: MSI-X vectors that the domain may map (`PHYSDEVOP_map_pirq`, `entry_nr` below this); 1 for a device with
    /// MSI alone.
    pub msix_vectors: u32,
    /// Out: the table's device entry that selects it.
    pub selector: u32,
    /// Out: base address registers.
    pub bars: [Bar; 6],
}

/// See [`CONFIG_READ`], [`CONFIG_WRITE`].
#[derive(Clone, Copy, Debug, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct ConfigAccess {
    /// In: bus << 8 | device << 3 | function.
    pub bdf: u32,
    /// In: byte offset, aligned to the width, below 4096.
    pub offset: u32,
    /// In: 1, 2 or 4 bytes.
    pub width: u32,
    /// Out for reads, in for writes.
    pub value: u32,
}

/// See [`READ_LOG`].
#[derive(Clone, Copy, Debug, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct ReadLog {
    /// In: destination in the caller's memory.
    pub buffer: u64,
    /// In: its bytes. Out: bytes written, 0 when the ring is empty.
    pub bytes: u64,
}
