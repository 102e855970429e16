//! The compiled policy in readable form, and its translation to and from bytes.
//!
//! [`Table`] says exactly what `xen_abi::policy_table` says. [`Table::encode`] makes the bytes that the hypervisor seals;
//! [`Table::decode`] reads them back, trusting nothing.

mod crc32;
mod decode;
mod encode;

#[cfg(test)]
mod tests;

pub use crc32::crc32;

use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;
use core::str::FromStr;

use xen_abi::policy_table as raw;

/// The index of a domain in the table. Label 0 is the policy domain.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Label(pub u32);

impl Label {
    /// The policy domain.
    pub const POLICY: Label = Label(0);
}

/// A PCI function of segment 0: bus << 8 | device << 3 | function.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Bdf(pub u16);

impl fmt::Display for Bdf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:02x}:{:02x}.{}", self.0 >> 8, self.0 >> 3 & 0x1f, self.0 & 7)
    }
}

/// A text that is no `BUS:DEVICE.FUNCTION`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NotASlot;

impl FromStr for Bdf {
    type Err = NotASlot;

    /// `BUS:DEVICE.FUNCTION` in hexadecimal, optionally after `0000:`.
    fn from_str(text: &str) -> Result<Self, NotASlot> {
        let text = text.strip_prefix("0000:").unwrap_or(text);
        let (bus, rest) = text.split_once(':').ok_or(NotASlot)?;
        let (device, function) = rest.split_once('.').ok_or(NotASlot)?;
        let field = |text: &str, digits: usize, limit: u16| {
            let plain = text.len() <= digits && text.bytes().all(|b| b.is_ascii_hexdigit());
            u16::from_str_radix(text, 16).ok().filter(|&value| plain && value < limit).ok_or(NotASlot)
        };
        Ok(Bdf(field(bus, 2, 256)? << 8 | field(device, 2, 32)? << 3 | field(function, 1, 8)?))
    }
}

/// What runs a domain's code.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Kind {
    /// Ring 3, hypercalls by SYSCALL.
    #[default]
    Native,
    /// A hardware virtual machine.
    Pvh,
}

/// `FLAG_*` of a domain.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Flags(pub u32);

impl Flags {
    /// All of `flags` are set.
    pub fn has(self, flags: u32) -> bool {
        self.0 & flags == flags
    }
}

/// `key=value` settings, in order. A key has no `=`; neither side has a newline; no side is checked further here.
pub type Settings = Vec<(String, String)>;

/// The setting of a domain that says what makes it ready.
pub const READY_SETTING: &str = "ready";
/// The value of [`READY_SETTING`] for a domain that is ready when it says so in `data/ready` of its xenstore home.
pub const READY_ANNOUNCED: &str = "announced";

/// The value of `key` in settings.
pub fn setting<'a>(settings: &'a Settings, key: &str) -> Option<&'a str> {
    settings.iter().find(|(name, _)| name == key).map(|(_, value)| value.as_str())
}

/// An inclusive range of I/O ports or interrupt lines.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Span {
    /// First.
    pub first: u32,
    /// Last, at least `first`.
    pub last: u32,
}

impl Span {
    /// Both have something in common.
    pub fn overlaps(self, other: Span) -> bool {
        self.first <= other.last && other.first <= self.last
    }
}

/// A domain of the table; see `xen_abi::policy_table::Domain` for the meaning of each field.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Domain {
    /// Unique name.
    pub name: String,
    /// What runs its code.
    pub kind: Kind,
    /// What it is for.
    pub flags: Flags,
    /// Memory in pages.
    pub memory_pages: u64,
    /// vCPUs.
    pub vcpus: u32,
    /// CPU share.
    pub weight: u32,
    /// CPU bound in per cent, 0 = none.
    pub cap: u32,
    /// Event channel ports.
    pub ports_max: u32,
    /// Grant table frames.
    pub grant_frames_max: u32,
    /// Foreign pages mapped at once.
    pub grant_maps_max: u32,
    /// I/O ports.
    pub io_ports: Vec<Span>,
    /// Interrupt lines.
    pub irq_lines: Vec<Span>,
    /// Image in the bundle.
    pub image: String,
    /// Command line.
    pub arguments: String,
    /// Settings for its xenstore home.
    pub config: Settings,
    /// Initrd in the bundle, for `pvh`.
    pub initrd: String,
}

/// A device class to match: the bits of `mask` must equal those of `value`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Class {
    /// class << 16 | subclass << 8 | programming interface.
    pub value: u32,
    /// Which bits count; not 0.
    pub mask: u32,
}

/// A device selector; `None` matches anything.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Device {
    /// Its name in the policy.
    pub name: String,
    /// The domain that drives it.
    pub label: Label,
    /// PCI vendor.
    pub vendor: Option<u16>,
    /// PCI device.
    pub device: Option<u16>,
    /// PCI class.
    pub class: Option<Class>,
    /// Slot.
    pub bdf: Option<Bdf>,
    /// The machine may lack it.
    pub optional: bool,
}

/// What a link is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum LinkKind {
    /// Xenstore ring.
    Store,
    /// Console ring.
    Console,
    /// Block device.
    Block,
    /// Network interface.
    Net,
    /// Events and grants with a protocol of their own.
    Channel,
}

/// A link between two domains.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Link {
    /// Client.
    pub front: Label,
    /// Server.
    pub back: Label,
    /// What for.
    pub kind: LinkKind,
    /// The server refuses writes.
    pub read_only: bool,
    /// Settings for the xenbus nodes.
    pub parameters: Settings,
}

/// The whole policy.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Table {
    /// Driver domains run without an IOMMU too.
    pub accept_unprotected_dma: bool,
    /// Domains; the index is the [`Label`].
    pub domains: Vec<Domain>,
    /// Device selectors.
    pub devices: Vec<Device>,
    /// Links.
    pub links: Vec<Link>,
}

impl Table {
    /// The domain of a label.
    pub fn domain(&self, label: Label) -> Option<&Domain> {
        self.domains.get(label.0 as usize)
    }

    /// The label of a name.
    pub fn find(&self, name: &str) -> Option<Label> {
        self.labels().find(|(_, domain)| domain.name == name).map(|(label, _)| label)
    }

    /// All domains with their labels.
    pub fn labels(&self) -> impl Iterator<Item = (Label, &Domain)> {
        (0..).map(Label).zip(&self.domains)
    }

    /// The first domain that has `flag`.
    pub fn flagged(&self, flag: u32) -> Option<Label> {
        self.labels().find(|(_, domain)| domain.flags.has(flag)).map(|(label, _)| label)
    }
}

/// Why bytes are no valid table, or a table does not fit into one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TableError {
    /// Shorter than it says, or than a header.
    Truncated,
    /// Not a policy table at all.
    Magic,
    /// Of a version that this program does not know.
    Version(u32),
    /// The checksum does not match: damaged.
    Checksum,
    /// The sizes in the header contradict each other.
    Layout,
    /// More of these than the format allows.
    TooMany(&'static str),
    /// More bytes than [`raw::TABLE_BYTES_MAX`].
    TooLarge,
    /// This field has a value that it cannot have.
    Bad(&'static str),
}

impl fmt::Display for TableError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            TableError::Truncated => f.write_str("it is truncated"),
            TableError::Magic => f.write_str("it is not a policy table"),
            TableError::Version(version) => write!(f, "it has version {version}, known is {}", raw::VERSION),
            TableError::Checksum => f.write_str("its checksum is wrong"),
            TableError::Layout => f.write_str("its header contradicts itself"),
            TableError::TooMany(what) => write!(f, "too many {what}"),
            TableError::TooLarge => write!(f, "more than {} bytes", raw::TABLE_BYTES_MAX),
            TableError::Bad(what) => write!(f, "bad {what}"),
        }
    }
}

impl core::error::Error for TableError {}

/// A domain's name may be `[a-z][a-z0-9-]{0,30}`.
pub fn is_name(text: &str) -> bool {
    (1..=31).contains(&text.len())
        && text.starts_with(|c: char| c.is_ascii_lowercase())
        && text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
}
