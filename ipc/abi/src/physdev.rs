//! `physdev.h`: interrupts of physical devices. Sub-operations of `HYPERVISOR_PHYSDEV_OP` (RDI = command,
//! RSI = address of its structure).

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// [`PhysdevIrqStatusQuery`]: does the interrupt need an end-of-interrupt call?
pub const PHYSDEVOP_IRQ_STATUS_QUERY: u64 = 5;
/// I/O privilege of paravirtualized domains.
pub const PHYSDEVOP_SET_IOPL: u64 = 6;
/// I/O bitmap of paravirtualized domains.
pub const PHYSDEVOP_SET_IOBITMAP: u64 = 7;
/// I/O APIC read.
pub const PHYSDEVOP_APIC_READ: u64 = 8;
/// I/O APIC write.
pub const PHYSDEVOP_APIC_WRITE: u64 = 9;
/// Vector of an interrupt.
pub const PHYSDEVOP_ALLOC_IRQ_VECTOR: u64 = 10;
/// Vector of an interrupt.
pub const PHYSDEVOP_FREE_IRQ_VECTOR: u64 = 11;
/// [`PhysdevEoi`]: the interrupt is handled.
pub const PHYSDEVOP_EOI: u64 = 12;
/// [`PhysdevMapPirq`]: a pirq for an own device's vector or line.
pub const PHYSDEVOP_MAP_PIRQ: u64 = 13;
/// [`PhysdevUnmapPirq`]: undo that.
pub const PHYSDEVOP_UNMAP_PIRQ: u64 = 14;
/// A device has appeared.
pub const PHYSDEVOP_MANAGE_PCI_ADD: u64 = 15;
/// A device has gone.
pub const PHYSDEVOP_MANAGE_PCI_REMOVE: u64 = 16;
/// End-of-interrupt by memory.
pub const PHYSDEVOP_PIRQ_EOI_GMFN_V1: u64 = 17;
/// MSI after suspend.
pub const PHYSDEVOP_RESTORE_MSI: u64 = 19;
/// A device has appeared.
pub const PHYSDEVOP_MANAGE_PCI_ADD_EXT: u64 = 20;
/// [`PhysdevSetupGsi`]: trigger and polarity of a line.
pub const PHYSDEVOP_SETUP_GSI: u64 = 21;
/// [`PhysdevGetFreePirq`]: a pirq that is not in use.
pub const PHYSDEVOP_GET_FREE_PIRQ: u64 = 23;
/// The kernel has reserved a configuration window.
pub const PHYSDEVOP_PCI_MMCFG_RESERVED: u64 = 24;
/// A device has appeared.
pub const PHYSDEVOP_PCI_DEVICE_ADD: u64 = 25;
/// A device has gone.
pub const PHYSDEVOP_PCI_DEVICE_REMOVE: u64 = 26;
/// MSI after suspend.
pub const PHYSDEVOP_RESTORE_MSI_EXT: u64 = 27;
/// End-of-interrupt by memory.
pub const PHYSDEVOP_PIRQ_EOI_GMFN_V2: u64 = 28;
/// Debug port reset.
pub const PHYSDEVOP_DBGP_OP: u64 = 29;
/// MSI-X of a device given away.
pub const PHYSDEVOP_PREPARE_MSIX: u64 = 30;
/// MSI-X of a device given away.
pub const PHYSDEVOP_RELEASE_MSIX: u64 = 31;

/// [`PhysdevMapPirq::kind`]: message-signalled.
pub const MAP_PIRQ_TYPE_MSI: i32 = 0;
/// [`PhysdevMapPirq::kind`]: interrupt line `index`.
pub const MAP_PIRQ_TYPE_GSI: i32 = 1;
/// [`PhysdevMapPirq::kind`]: unknown.
pub const MAP_PIRQ_TYPE_UNKNOWN: i32 = 2;
/// [`PhysdevMapPirq::kind`]: message-signalled, with a PCI segment.
pub const MAP_PIRQ_TYPE_MSI_SEG: i32 = 3;
/// [`PhysdevMapPirq::kind`]: several MSI vectors at once.
pub const MAP_PIRQ_TYPE_MULTI_MSI: i32 = 4;

/// [`PhysdevIrqStatusQuery::flags`]: handle, then [`PHYSDEVOP_EOI`].
pub const XENIRQSTAT_NEEDS_EOI: u32 = 1;
/// [`PhysdevIrqStatusQuery::flags`]: shared with others.
pub const XENIRQSTAT_SHARED: u32 = 2;

/// `struct physdev_eoi`.
#[derive(Clone, Copy, Debug, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct PhysdevEoi {
    /// In: pirq.
    pub irq: u32,
}
layout!(PhysdevEoi, 4);

/// `struct physdev_irq_status_query`.
#[derive(Clone, Copy, Debug, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct PhysdevIrqStatusQuery {
    /// In: pirq.
    pub irq: u32,
    /// Out: `XENIRQSTAT_*`.
    pub flags: u32,
}
layout!(PhysdevIrqStatusQuery, 8, flags @ 4);

/// `struct physdev_map_pirq`.
#[derive(Clone, Copy, Debug, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct PhysdevMapPirq {
    /// In: `DOMID_SELF`.
    pub domid: u16,
    /// Zero.
    pub pad0: u16,
    /// In: `type`, `MAP_PIRQ_TYPE_*`.
    pub kind: i32,
    /// In: line number; -1 for message-signalled ones.
    pub index: i32,
    /// In: number wanted, or -1. Out: the pirq.
    pub pirq: i32,
    /// In: PCI bus; segment << 16 with [`MAP_PIRQ_TYPE_MSI_SEG`].
    pub bus: i32,
    /// In: PCI device << 3 | function.
    pub devfn: i32,
    /// In: entry of the MSI-X table; number of vectors with [`MAP_PIRQ_TYPE_MULTI_MSI`].
    pub entry_nr: i32,
    /// Zero.
    pub pad1: u32,
    /// In: non-zero for MSI-X (Xen: address of the table; not believed here).
    pub table_base: u64,
}
layout!(PhysdevMapPirq, 40, kind @ 4, index @ 8, pirq @ 12, bus @ 16, devfn @ 20, entry_nr @ 24, table_base @ 32);

/// `struct physdev_unmap_pirq`.
#[derive(Clone, Copy, Debug, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct PhysdevUnmapPirq {
    /// In: `DOMID_SELF`.
    pub domid: u16,
    /// Zero.
    pub pad: u16,
    /// In: pirq.
    pub pirq: i32,
}
layout!(PhysdevUnmapPirq, 8, pirq @ 4);

/// `struct physdev_setup_gsi`.
#[derive(Clone, Copy, Debug, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct PhysdevSetupGsi {
    /// In: line number.
    pub gsi: i32,
    /// In: 0 = edge, 1 = level.
    pub triggering: u8,
    /// In: 0 = active high, 1 = active low.
    pub polarity: u8,
    /// Zero.
    pub pad: u16,
}
layout!(PhysdevSetupGsi, 8, triggering @ 4, polarity @ 5);

/// `struct physdev_get_free_pirq`.
#[derive(Clone, Copy, Debug, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct PhysdevGetFreePirq {
    /// In: `type`, `MAP_PIRQ_TYPE_*`.
    pub kind: i32,
    /// Out: pirq.
    pub pirq: u32,
}
layout!(PhysdevGetFreePirq, 8, pirq @ 4);
