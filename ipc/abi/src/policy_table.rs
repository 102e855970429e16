//! The compiled policy: the table that the hypervisor checks once, seals, and enforces ever after.
//!
//! Made by the `policy` crate from a TOML file, put into the bundle as `policy.table`. Layout, all little-endian:
//! [`Header`], then `domains` x [`Domain`], `devices` x [`Device`], `links` x [`Link`], `ranges` x [`Range`], then
//! `text_bytes` of UTF-8 text that [`Text`] points into. The checksum is CRC-32 (IEEE 802.3, as in gzip) over
//! everything behind the header's `crc` field. Label 0 is always the policy domain.
//!
//! The hypervisor reads domains, devices, ranges and, of links, who may share with whom. Texts other than names, and
//! link parameters, are for the policy domain alone.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// "BULKPOL1".
pub const MAGIC: [u8; 8] = *b"BULKPOL1";
/// [`Header::version`].
pub const VERSION: u32 = 1;
/// Labels at most.
pub const DOMAINS_MAX: u32 = 128;
/// Device selectors at most.
pub const DEVICES_MAX: u32 = 64;
/// Links at most.
pub const LINKS_MAX: u32 = 512;
/// Port and interrupt ranges at most.
pub const RANGES_MAX: u32 = 256;
/// Bytes of the whole table at most.
pub const TABLE_BYTES_MAX: u64 = 256 * 1024;

/// I/O ports that no policy can give away, `(first, last, what is there)`: what the hypervisor drives itself, and what
/// reaches around every confinement. The compiler says so to the author, the hypervisor refuses the table.
pub const HYPERVISOR_PORTS: [(u32, u32, &str); 12] = [
    (0x00, 0x0f, "the ISA DMA controller"),
    (0x20, 0x21, "the interrupt controller"),
    (0x40, 0x43, "the timer"),
    (0x81, 0x8f, "the ISA DMA controller's pages"),
    (0x92, 0x92, "reset"),
    (0xa0, 0xa1, "the interrupt controller"),
    (0xb2, 0xb3, "system management"),
    (0xc0, 0xdf, "the ISA DMA controller"),
    (0xf4, 0xf7, "the way out of the emulator"),
    // Its DMA is the emulator's own and passes no IOMMU.
    (0x510, 0x51b, "the emulator's firmware configuration"),
    (0x600, 0x67f, "power management"),
    (0xcf8, 0xcff, "PCI configuration and reset"),
];

/// [`Header::flags`]: driver domains run although no IOMMU confines their devices (`unprotected-dma = "accept"`).
pub const ACCEPT_UNPROTECTED_DMA: u32 = 1;

/// A piece of the text area.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Text {
    /// Byte offset in the text area.
    pub offset: u32,
    /// Bytes; 0 = empty.
    pub bytes: u32,
}

/// A run of entries in one of the table's arrays.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Run {
    /// First entry.
    pub first: u32,
    /// Entries.
    pub count: u32,
}

/// The head of the table.
#[derive(Clone, Copy, Debug, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Header {
    /// [`MAGIC`].
    pub magic: [u8; 8],
    /// [`VERSION`].
    pub version: u32,
    /// CRC-32 over all bytes behind this field to the end of the table.
    pub crc: u32,
    /// Bytes of the whole table.
    pub table_bytes: u32,
    /// Header flags, e.g. [`ACCEPT_UNPROTECTED_DMA`].
    pub flags: u32,
    /// Number of [`Domain`] entries.
    pub domains: u32,
    /// Number of [`Device`] entries.
    pub devices: u32,
    /// Number of [`Link`] entries.
    pub links: u32,
    /// Number of [`Range`] entries.
    pub ranges: u32,
    /// Bytes of text.
    pub text_bytes: u32,
    /// Zero.
    pub reserved: u32,
}

/// [`Domain::kind`]: ring 3, SYSCALL.
pub const KIND_NATIVE: u32 = 0;
/// [`Domain::kind`]: hardware virtual machine with a PVH entry.
pub const KIND_PVH: u32 = 1;

/// [`Domain::flags`]: the policy domain (label 0 and no other).
pub const FLAG_CONTROL: u32 = 1;
/// [`Domain::flags`]: may read the hypervisor's log (the console domain).
pub const FLAG_LOG: u32 = 2;
/// [`Domain::flags`]: serves xenstore (told to all others in their start info).
pub const FLAG_STORE: u32 = 4;
/// [`Domain::flags`]: serves the console rings.
pub const FLAG_CONSOLE: u32 = 8;
/// [`Domain::flags`]: may drive devices: its memory is mapped in the IOMMU.
pub const FLAG_DRIVER: u32 = 16;
/// [`Domain::flags`]: started by the policy domain at boot.
pub const FLAG_AUTOSTART: u32 = 32;
/// [`Domain::flags`]: may read what `DOMAIN_INFO` and `MACHINE_INFO` tell: a monitor.
pub const FLAG_OBSERVE: u32 = 64;
/// Every flag that there is.
pub const FLAGS: u32 =
    FLAG_CONTROL | FLAG_LOG | FLAG_STORE | FLAG_CONSOLE | FLAG_DRIVER | FLAG_AUTOSTART | FLAG_OBSERVE;

/// One domain label.
#[derive(Clone, Copy, Debug, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Domain {
    /// Its name, NUL-padded; `[a-z][a-z0-9-]{0,30}`, unique.
    pub name: [u8; 32],
    /// `KIND_*`.
    pub kind: u32,
    /// `FLAG_*`.
    pub flags: u32,
    /// Pages of memory it may own.
    pub memory_pages: u64,
    /// vCPUs.
    pub vcpus: u32,
    /// Share of the CPU relative to others, 1 to 65535; 256 is usual.
    pub weight: u32,
    /// Upper bound in per cent of one CPU, 0 = none.
    pub cap: u32,
    /// Event channel ports at most, up to 4096.
    pub ports_max: u32,
    /// Grant table frames at most, up to 64 (512 entries each).
    pub grant_frames_max: u32,
    /// Pages of others that it may have mapped at once.
    pub grant_maps_max: u32,
    /// I/O port ranges, in [`Range`].
    pub io_ports: Run,
    /// Interrupt lines (GSI), in [`Range`].
    pub irq_lines: Run,
    /// Name of its image in the bundle.
    pub image: Text,
    /// Its command line.
    pub arguments: Text,
    /// `key=value` lines that the policy domain writes under `config/` of its xenstore home.
    pub config: Text,
    /// For `pvh`: name of the initrd in the bundle.
    pub initrd: Text,
}

/// An inclusive range of I/O ports or interrupt lines.
#[derive(Clone, Copy, Debug, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Range {
    /// First.
    pub first: u32,
    /// Last, at least `first`.
    pub last: u32,
}

/// A selector field that matches anything.
pub const ANY: u32 = u32::MAX;

/// One device selector. It must match exactly one function of the machine.
#[derive(Clone, Copy, Debug, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Device {
    /// The label that drives it.
    pub label: u32,
    /// PCI vendor id or [`ANY`].
    pub vendor: u32,
    /// PCI device id or [`ANY`].
    pub device: u32,
    /// class << 16 | subclass << 8 | programming interface, compared under `class_mask`.
    pub class: u32,
    /// 0 = any class.
    pub class_mask: u32,
    /// bus << 8 | device << 3 | function, or [`ANY`].
    pub bdf: u32,
    /// Non-zero: the system goes on without it when the machine lacks it.
    pub optional: u32,
    /// Zero.
    pub reserved: u32,
    /// Its name in the policy, for messages.
    pub name: Text,
}

/// [`Link::kind`]: xenstore ring (every domain to the store domain).
pub const LINK_STORE: u32 = 0;
/// [`Link::kind`]: console ring (every domain to the console domain).
pub const LINK_CONSOLE: u32 = 1;
/// [`Link::kind`]: block device, `vbd`.
pub const LINK_BLOCK: u32 = 2;
/// [`Link::kind`]: network interface, `vif`.
pub const LINK_NET: u32 = 3;
/// [`Link::kind`]: events and grants with a protocol of their own.
pub const LINK_CHANNEL: u32 = 4;

/// A link lets `front` and `back` open event channels to each other, and `back` map and copy what `front` grants.
/// [`LINK_CHANNEL`] lets both map and copy what the other grants. Without a link there is no way.
#[derive(Clone, Copy, Debug, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Link {
    /// Label of the client (front end).
    pub front: u32,
    /// Label of the server (back end).
    pub back: u32,
    /// `LINK_*`.
    pub kind: u32,
    /// For [`LINK_BLOCK`]: non-zero when writes are refused.
    pub read_only: u32,
    /// `key=value` lines: `device` (virtual device number), `export`, `mac`, `ip`, ... for the xenbus nodes.
    pub parameters: Text,
}
