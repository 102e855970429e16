//! What a VT-d unit reads from memory and says in registers: table entries, invalidation commands, fault records.
//!
//! Pure bit formats; `hv` owns the registers and the memory. Legacy mode (VT-d 9.1, 9.3), 4-level second-stage tables.

use crate::pci::Bdf;
use bitflags::bitflags;
use core::fmt;

/// An IOMMU domain id: the tag of cached translations, one for each address space. Never 0 (VT-d 6.1: reserved when
/// caching mode is on).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IommuDomainId(pub u16);

bitflags! {
    /// Capability register (VT-d 11.4.2).
    #[derive(Clone, Copy, Debug)]
    pub struct Capabilities: u64 {
        /// The unit's write buffer must be flushed by command before it sees what was written.
        const NEEDS_WRITE_BUFFER_FLUSH = 1 << 4;
        /// 4-level tables, 48-bit addresses (SAGAW bit 2).
        const FOUR_LEVELS = 1 << 10;
        /// Translations can be invalidated page by page.
        const PAGE_SELECTIVE = 1 << 39;
    }

    /// Extended capability register (VT-d 11.4.3).
    #[derive(Clone, Copy, Debug)]
    pub struct ExtendedCapabilities: u64 {
        /// Table walks snoop the CPU's caches; otherwise each entry must be written back.
        const COHERENT = 1;
        /// Queued invalidation.
        const QUEUED_INVALIDATION = 1 << 1;
        /// Interrupt remapping.
        const INTERRUPT_REMAPPING = 1 << 3;
    }
}

impl Capabilities {
    /// Domain ids that the unit can tell apart.
    pub fn domains(self) -> u32 {
        1 << (4 + 2 * (self.bits() as u32 & 7).min(6))
    }

    /// Register offsets of the fault records.
    pub fn fault_records(self) -> impl Iterator<Item = u64> {
        let (first, last) = (self.bits() >> 24 & 0x3ff, self.bits() >> 40 & 0xff);
        (0..=last).map(move |index| (first + index) * 16)
    }
}

/// Root table entry (VT-d 9.1): `context_table` is the machine address of the bus's context table.
pub const fn root_entry(context_table: u64) -> [u64; 2] {
    [context_table | 1, 0]
}

/// Context entry (VT-d 9.3) that translates by the 4-level table at machine address `table`; not-present entries block.
pub const fn context_entry(table: u64, id: IommuDomainId) -> [u64; 2] {
    const FOUR_LEVELS: u64 = 2;
    [table | 1, FOUR_LEVELS | (id.0 as u64) << 8]
}

/// A context entry that blocks all DMA.
pub const BLOCKED: [u64; 2] = [0, 0];

/// An invalidation command (VT-d 6.5.2), 128 bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Command(pub [u64; 2]);

impl Command {
    /// Forget all cached context entries.
    pub const CONTEXT_ALL: Self = Self([0x01 | 1 << 4, 0]);
    /// Forget all cached translations, after draining DMA in flight.
    pub const IOTLB_ALL: Self = Self([0x02 | 1 << 4 | DRAIN, 0]);
    /// Forget all cached interrupt remapping entries.
    pub const INTERRUPTS_ALL: Self = Self([0x04, 0]);

    /// Forget the context entry of one function, which was tagged `id`.
    pub const fn context(id: IommuDomainId, bdf: Bdf) -> Self {
        Self([0x01 | 3 << 4 | (id.0 as u64) << 16 | (bdf.0 as u64) << 32, 0])
    }

    /// Forget the translations of one address space, after draining DMA in flight.
    pub const fn iotlb(id: IommuDomainId) -> Self {
        Self([0x02 | 2 << 4 | DRAIN | (id.0 as u64) << 16, 0])
    }

    /// Forget the translation of the page at `iova`, after draining DMA in flight.
    pub const fn iotlb_page(id: IommuDomainId, iova: u64) -> Self {
        Self([0x02 | 3 << 4 | DRAIN | (id.0 as u64) << 16, iova & !0xfff])
    }

    /// Forget one interrupt remapping entry.
    pub const fn interrupt(index: u16) -> Self {
        Self([0x04 | 1 << 4 | (index as u64) << 32, 0])
    }

    /// Write `data` to machine address `status` (4-byte aligned) when all commands before it are done.
    pub const fn wait(status: u64, data: u32) -> Self {
        const STATUS_WRITE: u64 = 1 << 5;
        const FENCE: u64 = 1 << 6;
        Self([0x05 | STATUS_WRITE | FENCE | (data as u64) << 32, status & !3])
    }
}

/// Drain reads and writes (both bits are ignored by a unit that cannot).
const DRAIN: u64 = 1 << 6 | 1 << 7;

/// How an interrupt line or message is signalled, as table entries encode it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trigger {
    /// Once for each event.
    Edge = 0,
    /// For as long as the line is active.
    Level = 1,
}

/// Interrupt remapping table entry (VT-d 9.10): deliver `vector` to the CPU with local APIC id `cpu`, if and only if
/// the request comes from `source`.
pub const fn interrupt_entry(vector: u8, cpu: u8, trigger: Trigger, source: Bdf) -> [u64; 2] {
    const PRESENT: u64 = 1;
    const VERIFY_WHOLE_ID: u64 = 0b01 << 18;
    [PRESENT | (trigger as u64) << 4 | (vector as u64) << 16 | (cpu as u64) << 40, VERIFY_WHOLE_ID | source.0 as u64]
}

/// Address and data of a message in remappable format (VT-d 5.1.2.2) for the table entry `index`.
pub const fn remappable_message(index: u16) -> (u64, u32) {
    const REMAPPABLE: u64 = 1 << 4;
    (0xfee0_0000 | (index as u64 & 0x7fff) << 5 | REMAPPABLE | (index as u64 >> 15) << 2, 0)
}

/// Address and data of a message in the format without remapping (Intel SDM 3A, 11.11).
pub const fn plain_message(vector: u8, cpu: u8) -> (u64, u32) {
    (0xfee0_0000 | (cpu as u64) << 12, vector as u32)
}

/// Where an I/O APIC sends a line's interrupts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Route {
    /// Through this entry of the interrupt remapping table.
    Remapped(u16),
    /// To the CPU with this local APIC id.
    Plain(u8),
}

/// Electrical polarity of an interrupt line, as redirection entries encode it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Polarity {
    /// Active high.
    High = 0,
    /// Active low.
    Low = 1,
}

/// Mask bit of a redirection entry.
pub const REDIRECTION_MASKED: u64 = 1 << 16;

/// An I/O APIC's redirection entry, masked (82093AA 3.2.4; remappable format VT-d 5.1.5.1). The vector is that of the
/// remapping entry, so that the end-of-interrupt broadcast finds it.
pub const fn redirection_entry(vector: u8, route: Route, trigger: Trigger, polarity: Polarity) -> u64 {
    let destination = match route {
        Route::Remapped(index) => (index as u64 & 0x7fff) << 49 | 1 << 48 | (index as u64 >> 15) << 11,
        Route::Plain(cpu) => (cpu as u64) << 56,
    };
    destination | REDIRECTION_MASKED | (trigger as u64) << 15 | (polarity as u64) << 13 | vector as u64
}

/// A fault record (VT-d 11.4.15).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fault {
    /// Who.
    pub source: Bdf,
    /// What, in words.
    pub attempt: &'static str,
    /// Where: the page of the address, or the interrupt index.
    pub address: u64,
    /// Why (VT-d 7.1.3).
    pub reason: u8,
}

/// The bit in the upper half of a record that says it is valid, and that a one clears.
pub const FAULT_VALID: u64 = 1 << 63;

impl Fault {
    /// Reads a record; `None` when it is not valid.
    pub fn decode(record: [u64; 2]) -> Option<Self> {
        let [low, high] = record;
        if high & FAULT_VALID == 0 {
            return None;
        }
        let reason = (high >> 32) as u8;
        let (attempt, address) = match (reason, high >> 62 & 1) {
            (0x20..=0x2f, _) => ("interrupt request", low >> 48),
            (_, 0) => ("write of", low & !0xfff),
            _ => ("read of", low & !0xfff),
        };
        Some(Self { source: Bdf(high as u16), attempt, address, reason })
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { attempt, address, reason, .. } = self;
        // Those that a device or its driver can cause.
        let why = match reason {
            0x2 => "the device is in quarantine",
            0x4 => "address beyond the table",
            0x5 => "not mapped writable",
            0x6 => "not mapped readable",
            0x20..=0x22 => "no such interrupt entry",
            0x25 => "interrupt without remapping",
            0x26 => "interrupt entry of another device",
            _ => "see VT-d 7.1.3",
        };
        write!(f, "{attempt} {address:#x}, reason {reason}: {why}")
    }
}

#[cfg(test)]
mod tests {
    extern crate std;
    use super::*;
    use std::string::ToString;

    const BDF: Bdf = Bdf::new(0, 5, 0);

    #[test]
    fn entries_have_their_fields_in_place() {
        assert_eq!(root_entry(0x12_3000), [0x12_3001, 0]);
        assert_eq!(context_entry(0x12_3000, IommuDomainId(0x45)), [0x12_3001, 0x4502]);
        assert_eq!(BLOCKED[0] & 1, 0);
    }

    #[test]
    fn interrupt_entries_always_verify_the_source() {
        let [low, high] = interrupt_entry(0x41, 3, Trigger::Level, BDF);
        assert_eq!(low, 0x0000_0300_0041_0011);
        assert_eq!(high & 0xffff, 0x28);
        assert_eq!(high >> 16 & 0b11, 0b00, "all bits of the id are compared");
        assert_eq!(high >> 18 & 0b11, 0b01, "verification is on");
    }

    #[test]
    fn messages_and_lines_carry_the_entry_number() {
        assert_eq!(remappable_message(0x8001), (0xfee0_0000 | 1 << 5 | 1 << 4 | 1 << 2, 0));
        assert_eq!(plain_message(0x41, 2), (0xfee0_2000, 0x41));
        let entry = redirection_entry(0x41, Route::Remapped(3), Trigger::Level, Polarity::Low);
        assert_eq!(entry, 3 << 49 | 1 << 48 | 1 << 16 | 1 << 15 | 1 << 13 | 0x41);
        let entry = redirection_entry(0x42, Route::Plain(1), Trigger::Edge, Polarity::High);
        assert_eq!(entry, 1 << 56 | 1 << 16 | 0x42);
    }

    #[test]
    fn commands_are_what_the_queue_expects() {
        let id = IommuDomainId(7);
        assert_eq!(Command::context(id, BDF).0, [0x0000_0028_0007_0031, 0]);
        assert_eq!(Command::iotlb(id).0, [0x0000_0000_0007_00e2, 0]);
        assert_eq!(Command::iotlb_page(id, 0x5000).0, [0x0000_0000_0007_00f2, 0x5000]);
        assert_eq!(Command::interrupt(9).0, [0x0000_0009_0000_0014, 0]);
        assert_eq!(Command::wait(0x1234, 0xabcd).0, [0x0000_abcd_0000_0065, 0x1234]);
    }

    #[test]
    fn qemus_capabilities_are_understood() {
        // As read from QEMU 7.2 with aw-bits=48.
        let cap = Capabilities::from_bits_retain(0x00d2_008c_222f_0686);
        assert!(cap.contains(Capabilities::FOUR_LEVELS | Capabilities::PAGE_SELECTIVE));
        assert!(!cap.contains(Capabilities::NEEDS_WRITE_BUFFER_FLUSH));
        assert!(cap.fault_records().eq([0x220]));
        assert_eq!(cap.domains(), 65536);
        let extended = ExtendedCapabilities::from_bits_retain(0xf00f4a);
        let there = ExtendedCapabilities::QUEUED_INVALIDATION | ExtendedCapabilities::INTERRUPT_REMAPPING;
        assert!(extended.contains(there) && !extended.contains(ExtendedCapabilities::COHERENT));
    }

    #[test]
    fn faults_say_who_did_what() {
        let record = [0xdead_b000, FAULT_VALID | 5 << 32 | 0x28];
        let fault = Fault::decode(record).unwrap();
        assert_eq!((fault.source, fault.attempt, fault.address), (BDF, "write of", 0xdead_b000));
        assert_eq!(fault.to_string(), "write of 0xdeadb000, reason 5: not mapped writable");
        let fault = Fault::decode([9 << 48, FAULT_VALID | 0x26 << 32 | 0x28]).unwrap();
        assert_eq!(fault.to_string(), "interrupt request 0x9, reason 38: interrupt entry of another device");
        assert_eq!(Fault::decode([0, 5 << 32]), None);
    }
}
