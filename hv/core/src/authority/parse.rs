//! From bytes to [`SealedPolicy`]: sizes, checksum, then the arrays. `checks.rs` judges what they say.

use alloc::vec::Vec;
use core::mem::size_of;

use crc::{CRC_32_ISO_HDLC, Crc};
use zerocopy::{FromBytes, Immutable, KnownLayout};

use super::table::{Device, Domain, Header, Link, Range};
use super::{SealedPolicy, checks, table};
use crate::fallible::{self, OutOfMemory};

/// Why a table is not a policy. Numbers are indices into the table's arrays.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum PolicyError {
    /// Shorter than its header, or not as long as its header says.
    Size,
    /// It does not begin with `BULKPOL1`.
    Magic,
    /// Made for another version of the hypervisor.
    Version(u32),
    /// The checksum is wrong: the file is damaged.
    Checksum,
    /// More entries than the hypervisor takes, or none.
    Counts,
    /// Unknown flag bits in the header or a domain.
    Flags,
    /// A domain's name is ill-formed or taken.
    Name(u32),
    /// A domain's numbers (memory, vCPUs, weight, cap, ports, grants) are out of bounds.
    Limits(u32),
    /// The control flag is not on label 0 alone, or a service flag is on two labels.
    Role(u32),
    /// A domain refers to ranges that do not exist, or to a text outside the text area or not UTF-8.
    Reference(u32),
    /// A range runs backwards or too far, is claimed twice, or holds what the hypervisor needs itself.
    Range(u32),
    /// A device selector names no label, a label that drives no devices, or selects nothing in particular.
    Device(u32),
    /// A link names no label, or the same one twice, or is of an unknown kind.
    Link(u32),
    /// The hypervisor has no memory for it.
    OutOfMemory,
}

impl From<OutOfMemory> for PolicyError {
    fn from(_: OutOfMemory) -> Self {
        PolicyError::OutOfMemory
    }
}

impl core::fmt::Display for PolicyError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::Size => f.write_str("truncated, or longer than it says"),
            Self::Magic => f.write_str("not a policy table"),
            Self::Version(version) => write!(f, "version {version}, wanted {}", table::VERSION),
            Self::Checksum => f.write_str("wrong checksum: the file is damaged"),
            Self::Counts => f.write_str("too many entries, or no domain"),
            Self::Flags => f.write_str("unknown flags"),
            Self::Name(index) => write!(f, "domain {index}: bad or repeated name"),
            Self::Limits(index) => write!(f, "domain {index}: a limit is out of bounds"),
            Self::Role(index) => write!(f, "domain {index}: a role that it cannot have"),
            Self::Reference(index) => write!(f, "entry {index}: refers outside the table"),
            Self::Range(index) => write!(f, "range {index}: bad, claimed twice, or the hypervisor's own"),
            Self::Device(index) => write!(f, "device {index}: bad selector"),
            Self::Link(index) => write!(f, "link {index}: bad link"),
            Self::OutOfMemory => f.write_str("out of memory"),
        }
    }
}

/// The checksum of a table, as in IEEE 802.3 and gzip.
pub(crate) const CHECKSUM: Crc<u32> = Crc::<u32>::new(&CRC_32_ISO_HDLC);
/// Offset of the first byte under the checksum: behind [`Header::crc`].
const CHECKED_FROM: usize = 16;

impl SealedPolicy {
    /// Checks a compiled table and seals it.
    ///
    /// # Errors
    /// [`PolicyError`].
    pub fn parse(bytes: &[u8]) -> Result<Self, PolicyError> {
        let (header, mut rest) = Header::read_from_prefix(bytes).map_err(|_| PolicyError::Size)?;
        check_header(&header, bytes)?;
        let domains = take_array::<Domain>(&mut rest, header.domains)?;
        let devices = take_array::<Device>(&mut rest, header.devices)?;
        let links = take_array::<Link>(&mut rest, header.links)?;
        let ranges = take_array::<Range>(&mut rest, header.ranges)?;
        if rest.len() != header.text_bytes as usize {
            return Err(PolicyError::Size);
        }
        let mut text = Vec::new();
        fallible::reserve(&mut text, rest.len())?;
        text.extend_from_slice(rest);
        let mut policy = SealedPolicy {
            flags: header.flags,
            grants: fallible::filled(domains.len(), 0)?,
            events: fallible::filled(domains.len(), 0)?,
            domains,
            devices,
            links,
            ranges,
            text,
        };
        checks::check(&policy)?;
        policy.fill_matrices();
        Ok(policy)
    }

    fn fill_matrices(&mut self) {
        for link in &self.links {
            let (front, back) = (link.front, link.back);
            set(&mut self.events, front, back);
            set(&mut self.events, back, front);
            set(&mut self.grants, back, front);
            if link.kind == table::LINK_CHANNEL {
                set(&mut self.grants, front, back);
            }
        }
    }
}

fn set(matrix: &mut super::Matrix, row: u32, column: u32) {
    if let Some(row) = matrix.get_mut(row as usize) {
        *row |= 1u128.checked_shl(column).unwrap_or(0);
    }
}

fn check_header(header: &Header, bytes: &[u8]) -> Result<(), PolicyError> {
    let size = bytes.len() as u64;
    let too_many = header.domains > table::DOMAINS_MAX
        || header.devices > table::DEVICES_MAX
        || header.links > table::LINKS_MAX
        || header.ranges > table::RANGES_MAX;
    first_of(&[
        (header.magic != table::MAGIC, PolicyError::Magic),
        (header.version != table::VERSION, PolicyError::Version(header.version)),
        (u64::from(header.table_bytes) != size || size > table::TABLE_BYTES_MAX, PolicyError::Size),
        (CHECKSUM.checksum(bytes.get(CHECKED_FROM..).unwrap_or_default()) != header.crc, PolicyError::Checksum),
        (header.domains == 0 || too_many, PolicyError::Counts),
        (header.flags & !table::ACCEPT_UNPROTECTED_DMA != 0 || header.reserved != 0, PolicyError::Flags),
    ])
}

/// The first of several errors that is there.
pub(super) fn first_of(errors: &[(bool, PolicyError)]) -> Result<(), PolicyError> {
    errors.iter().find(|(there, _)| *there).map_or(Ok(()), |&(_, error)| Err(error))
}

/// Copies `count` entries off the front of `rest`: files in the bundle are aligned to 4 bytes only.
fn take_array<T: FromBytes + KnownLayout + Immutable>(rest: &mut &[u8], count: u32) -> Result<Vec<T>, PolicyError> {
    let mut entries = Vec::new();
    fallible::reserve(&mut entries, count as usize)?;
    for _ in 0..count {
        let (entry, behind) = T::read_from_prefix(rest).map_err(|_| PolicyError::Size)?;
        entries.push(entry);
        *rest = behind;
    }
    Ok(entries)
}

const _: () = assert!(core::mem::offset_of!(Header, crc) + size_of::<u32>() == CHECKED_FROM);
