//! The DMA Remapping Reporting table of ACPI (VT-d 8): which remapping units there are and what is behind each.
//!
//! Firmware wrote it, so it is believed, but not its lengths: every step is bounded by the bytes that are there and goes
//! forward by at least the size of a header. What is of no use here (address translation services, affinities) is skipped.

use crate::pci::Bdf;
use crate::pci::group::{Member, Node};
use heapless::Vec;
use zerocopy::{FromBytes, little_endian as le};

/// Remapping units at most.
pub const UNITS_MAX: usize = 8;
/// Device scopes at most, of all units and regions together.
pub const SCOPES_MAX: usize = 128;
/// Bridges on the way to a device, itself included, at most.
pub const PATH_MAX: usize = 4;

/// [`Scope::kind`]: one PCI function.
const ENDPOINT: u8 = 1;
/// [`Scope::kind`]: a PCI bridge and everything behind it.
const BRIDGE: u8 = 2;
/// [`Scope::kind`]: an I/O APIC; the path gives its requester id.
const IO_APIC: u8 = 3;

/// A device scope: a path from a bus through bridges to a function.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Scope {
    /// The unit (`units[n]`) that it belongs to. `None`: it belongs to a reserved memory region (RMRR), which firmware or
    /// the device uses by DMA behind our back. A device with one is not given away.
    pub unit: Option<usize>,
    /// What it names (VT-d 8.3.1).
    pub kind: u8,
    /// The APIC id of an I/O APIC.
    pub enumeration_id: u8,
    /// Where the path starts.
    pub start_bus: u8,
    /// Device and function of each step.
    pub path: Vec<[u8; 2], PATH_MAX>,
}

impl Scope {
    /// The function it names among those of the machine; `None` when its path leads over one that is no bridge.
    pub fn resolve(&self, members: &[Member]) -> Option<Bdf> {
        let (&[device, function], bridges) = self.path.split_last()?;
        let bus = bridges.iter().try_fold(self.start_bus, |bus, &[device, function]| {
            let bridge = members.iter().find(|member| member.bdf == Bdf::new(bus, device, function))?;
            if let Node::Bridge { secondary, .. } = bridge.node { Some(secondary) } else { None }
        })?;
        Some(Bdf::new(bus, device, function))
    }
}

/// A DMA remapping hardware unit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unit {
    /// Machine address of its registers.
    pub registers: u64,
    /// It has every device that no other unit has.
    pub includes_all: bool,
}

/// The table's contents.
#[derive(Clone, Debug, Default)]
pub struct Dmar {
    /// The platform supports interrupt remapping.
    pub interrupt_remapping: bool,
    /// Remapping units.
    pub units: Vec<Unit, UNITS_MAX>,
    /// Device scopes of units and of reserved memory.
    pub scopes: Vec<Scope, SCOPES_MAX>,
}

/// Why the table is of no use, in words.
pub type DmarError = &'static str;

const TRUNCATED: DmarError = "the DMAR table ends inside a structure";
const SHORT: DmarError = "a structure of the DMAR table is too short";
const TOO_MANY: DmarError = "the DMAR table has more units or scopes than supported";
/// Tables are by bus number, so devices of another segment would be taken for those of segment 0.
const SEGMENT: DmarError = "the DMAR table has units of several PCI segments, which is not supported";

/// The head of the table (VT-d 8.1): an ACPI header, host address width, flags, reserved bytes.
const HEAD_BYTES: usize = 48;
const FLAGS_AT: usize = 37;
/// The head of each remapping structure (VT-d 8.2): kind and length, 16 bits each.
const STRUCTURE_HEAD_BYTES: usize = 4;
/// A device scope without its path (VT-d 8.3.1): kind, length, two bytes of flags, enumeration id, start bus.
const SCOPE_HEAD_BYTES: usize = 6;
/// RMRR behind its head (VT-d 8.4): reserved, segment, base, limit.
const REGION_BYTES: usize = 20;

const KIND_DRHD: u16 = 0;
const KIND_RMRR: u16 = 1;
const FLAG_INTERRUPT_REMAPPING: u8 = 1;
const FLAG_INCLUDE_ALL: u32 = 1;

impl Dmar {
    /// Reads the table: `bytes` is the whole of it, whose signature, length and checksum were found right.
    pub fn parse(bytes: &[u8]) -> Result<Self, DmarError> {
        let (head, mut rest) = bytes.split_first_chunk::<HEAD_BYTES>().ok_or(TRUNCATED)?;
        let interrupt_remapping = head[FLAGS_AT] & FLAG_INTERRUPT_REMAPPING != 0;
        let mut dmar = Self { interrupt_remapping, ..Self::default() };
        while !rest.is_empty() {
            rest = dmar.structure(rest)?;
        }
        Ok(dmar)
    }

    /// Reads the structure at the beginning of `rest`; returns what follows it.
    fn structure<'a>(&mut self, rest: &'a [u8]) -> Result<&'a [u8], DmarError> {
        let ([kind, length], _) = <[le::U16; 2]>::ref_from_prefix(rest).map_err(|_| TRUNCATED)?;
        let (structure, behind) = rest.split_at_checked(length.get().into()).ok_or(TRUNCATED)?;
        let body = structure.get(STRUCTURE_HEAD_BYTES..).ok_or(SHORT)?;
        match kind.get() {
            KIND_DRHD => {
                // VT-d 8.3: flags and size (a byte each), segment (two); then the address of the registers.
                let ([flags, low, high], scopes) = <[le::U32; 3]>::ref_from_prefix(body).map_err(|_| SHORT)?;
                if flags.get() >> 16 != 0 {
                    return Err(SEGMENT);
                }
                let registers = u64::from(high.get()) << 32 | u64::from(low.get());
                let unit = Unit { registers, includes_all: flags.get() & FLAG_INCLUDE_ALL != 0 };
                self.units.push(unit).map_err(|_| TOO_MANY)?;
                self.scopes(scopes, Some(self.units.len() - 1))?;
            }
            KIND_RMRR => self.scopes(body.get(REGION_BYTES..).ok_or(SHORT)?, None)?,
            _ => {}
        }
        Ok(behind)
    }

    fn scopes(&mut self, mut rest: &[u8], unit: Option<usize>) -> Result<(), DmarError> {
        while !rest.is_empty() {
            let &[kind, length, _, _, enumeration_id, start_bus, ..] = rest else { return Err(SHORT) };
            let (scope, behind) = rest.split_at_checked(length.into()).ok_or(SHORT)?;
            let (steps, _) = scope.get(SCOPE_HEAD_BYTES..).ok_or(SHORT)?.as_chunks::<2>();
            if steps.is_empty() {
                return Err(SHORT);
            }
            let path = Vec::from_slice(steps).map_err(|_| TOO_MANY)?;
            self.scopes.push(Scope { unit, kind, enumeration_id, start_bus, path }).map_err(|_| TOO_MANY)?;
            rest = behind;
        }
        Ok(())
    }

    /// The requester id that the I/O APIC with this APIC id uses for its interrupts.
    pub fn io_apic(&self, id: u8) -> Option<Bdf> {
        let scope = self.scopes.iter().find(|scope| scope.kind == IO_APIC && scope.enumeration_id == id)?;
        scope.resolve(&[])
    }

    /// The index of the unit that has the function, which is one of `members`, all functions of the machine. The only unit
    /// of a machine has everything, whatever its scopes say: devices that are plugged in later are in no scope.
    pub fn unit_of(&self, function: Bdf, members: &[Member]) -> Option<usize> {
        if self.units.len() == 1 {
            return Some(0);
        }
        let named = self.scopes.iter().find_map(|scope| {
            let unit = scope.unit?;
            let at = scope.resolve(members)?;
            let behind = || members.iter().any(|bridge| bridge.bdf == at && bridge.leads_to(function));
            let covered = match scope.kind {
                ENDPOINT => at == function,
                BRIDGE => at == function || behind(),
                _ => false,
            };
            covered.then_some(unit)
        });
        named.or_else(|| self.units.iter().position(|unit| unit.includes_all))
    }

    /// Whether firmware reserved memory for the function's DMA.
    pub fn has_reserved_memory(&self, function: Bdf, members: &[Member]) -> bool {
        let mut regions = self.scopes.iter().filter(|scope| scope.unit.is_none());
        regions.any(|scope| scope.resolve(members) == Some(function))
    }
}

#[cfg(test)]
mod tests {
    extern crate std;
    use super::*;
    use proptest::prelude::*;
    use std::vec;

    type Bytes = std::vec::Vec<u8>;

    fn table(structures: &[Bytes]) -> Bytes {
        let mut bytes = vec![0u8; HEAD_BYTES];
        bytes[..4].copy_from_slice(b"DMAR");
        bytes[36] = 38;
        bytes[37] = 1;
        structures.iter().for_each(|structure| bytes.extend(structure));
        bytes
    }

    fn structure(kind: u16, body: &[u8]) -> Bytes {
        let mut bytes = kind.to_le_bytes().to_vec();
        bytes.extend((body.len() as u16 + 4).to_le_bytes());
        bytes.extend(body);
        bytes
    }

    fn drhd(flags: u8, base: u64, scopes: &[u8]) -> Bytes {
        let mut body = vec![flags, 0, 0, 0];
        body.extend(base.to_le_bytes());
        body.extend(scopes);
        structure(KIND_DRHD, &body)
    }

    fn bridge(bdf: Bdf, secondary: u8, subordinate: u8) -> Member {
        let node = Node::Bridge { secondary, subordinate, express: true };
        Member { bdf, vendor: 0, device: 0, class: 0, node, access_control: false }
    }

    /// The table that QEMU makes: one unit with the I/O APIC and one function.
    fn qemu() -> Bytes {
        table(&[drhd(0, 0xfed9_0000, &[3, 8, 0, 0, 0, 0xff, 0, 0, 1, 8, 0, 0, 0, 0, 2, 0])])
    }

    #[test]
    fn a_unit_with_an_io_apic_and_a_function() {
        let dmar = Dmar::parse(&qemu()).unwrap();
        assert!(dmar.interrupt_remapping);
        assert_eq!(dmar.units[..], [Unit { registers: 0xfed9_0000, includes_all: false }]);
        assert_eq!(dmar.io_apic(0), Some(Bdf(0xff00)));
        assert_eq!(dmar.io_apic(1), None);
        // The sole unit has hot-plugged devices too.
        assert_eq!(dmar.unit_of(Bdf::new(9, 9, 0), &[]), Some(0));
    }

    #[test]
    fn scopes_are_followed_through_bridges() {
        // Unit 0: what is behind bridge 00:01.0 -> bus 1 -> 01:02.0. Unit 1: everything else.
        let bytes = table(&[drhd(0, 0x1000, &[2, 10, 0, 0, 0, 0, 1, 0, 2, 0]), drhd(1, 0x2000, &[])]);
        let dmar = Dmar::parse(&bytes).unwrap();
        let members = [bridge(Bdf::new(0, 1, 0), 1, 2), bridge(Bdf::new(1, 2, 0), 2, 2)];
        assert_eq!(dmar.unit_of(Bdf::new(2, 0, 0), &members), Some(0));
        assert_eq!(dmar.unit_of(Bdf::new(1, 2, 0), &members), Some(0));
        assert_eq!(dmar.unit_of(Bdf::new(0, 3, 0), &members), Some(1));
        // The bridge on the path is gone: the scope names nothing.
        assert_eq!(dmar.unit_of(Bdf::new(2, 0, 0), &members[1..]), Some(1));
    }

    #[test]
    fn reserved_memory_sticks_to_its_device() {
        let mut body = vec![0; 4];
        body.extend(0x7f00_0000u64.to_le_bytes());
        body.extend(0x7f0f_ffffu64.to_le_bytes());
        body.extend([1, 8, 0, 0, 0, 0, 0x14, 0]);
        let dmar = Dmar::parse(&table(&[structure(KIND_RMRR, &body), structure(9, &[1, 2, 3])])).unwrap();
        assert!(dmar.has_reserved_memory(Bdf::new(0, 0x14, 0), &[]));
        assert!(!dmar.has_reserved_memory(Bdf::new(0, 0x15, 0), &[]));
    }

    #[test]
    fn lengths_that_lie_are_errors() {
        assert_eq!(Dmar::parse(b"DMAR").unwrap_err(), TRUNCATED);
        for cut in 1..qemu().len() - HEAD_BYTES {
            assert_eq!(Dmar::parse(&qemu()[..qemu().len() - cut]).unwrap_err(), TRUNCATED);
        }
        let mut zero = qemu();
        zero[50] = 0;
        assert_eq!(Dmar::parse(&zero).unwrap_err(), SHORT);
        let mut scope = qemu();
        scope[65] = 0;
        assert_eq!(Dmar::parse(&scope).unwrap_err(), SHORT);
        let mut beyond = qemu();
        beyond[50] = 200;
        assert_eq!(Dmar::parse(&beyond).unwrap_err(), TRUNCATED);
    }

    #[test]
    fn a_unit_of_another_segment_is_an_error() {
        let mut bytes = qemu();
        bytes[HEAD_BYTES + STRUCTURE_HEAD_BYTES + 2] = 1;
        assert_eq!(Dmar::parse(&bytes).unwrap_err(), SEGMENT);
    }

    #[test]
    fn more_than_there_is_room_for_is_an_error_not_a_gap() {
        let unit = drhd(0, 0x1000, &[]);
        assert_eq!(Dmar::parse(&table(&vec![unit; UNITS_MAX + 1])).unwrap_err(), TOO_MANY);
        let deep = [1, 6 + 2 * (PATH_MAX as u8 + 1), 0, 0, 0, 0, 1, 0, 1, 0, 1, 0, 1, 0, 1, 0];
        assert_eq!(Dmar::parse(&table(&[drhd(0, 0, &deep)])).unwrap_err(), TOO_MANY);
    }

    proptest! {
        #[test]
        fn any_bytes_end_in_a_result(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
            let _ = Dmar::parse(&bytes);
        }

        #[test]
        fn a_flipped_byte_never_panics(at in 0usize..80, value: u8) {
            let mut bytes = qemu();
            let at = at % bytes.len();
            bytes[at] = value;
            if let Ok(dmar) = Dmar::parse(&bytes) {
                let _ = dmar.unit_of(Bdf::new(0, 2, 0), &[bridge(Bdf::new(0, 0, 0), 0, 9)]);
                let _ = dmar.io_apic(0);
            }
        }
    }
}
