//! The ACPI tables of a virtual machine: hardware-reduced, for there is no hardware (ACPI 6.5, sections 4.1 and 5.2).
//!
//! RSDP, XSDT, FADT (sleep and reset registers at the ports of `xen_abi::pvh`; no VGA, no CMOS clock, no keyboard
//! controller), MADT (a local APIC for each vCPU) and DSDT (how to power off). No FACS: there is nothing to wake up to.

use alloc::vec::Vec;

use acpi_tables::Aml;
use acpi_tables::aml::{Name, Package};
use acpi_tables::fadt::{FADTBuilder, Flags};
use acpi_tables::gas::{AccessSize, AddressSpace, GAS};
use acpi_tables::madt::{EnabledStatus, LocalInterruptController, MADT, ProcessorLocalApic};
use acpi_tables::rsdp::Rsdp;
use acpi_tables::sdt::Sdt;
use acpi_tables::xsdt::XSDT;
use xen_abi::pvh::{RESET_PORT, RESET_VALUE, SLEEP_CONTROL_PORT, SLEEP_STATUS_PORT, SLEEP_TYPE_OFF};

const OEM: [u8; 6] = *b"BULKHD";
const OEM_TABLE: [u8; 8] = *b"BULKHEAD";
const OEM_REVISION: u32 = 1;
/// Bytes of a table's header.
const HEADER_BYTES: u32 = 36;
/// Where local APICs have their registers on a PC. These ones are in x2APIC mode, and have none in memory.
const LOCAL_APIC: u32 = 0xfee0_0000;
/// IA-PC boot architecture flags (ACPI 6.5, table 5.10): "VGA not present", "CMOS RTC not present". What is not set says
/// that there are no legacy devices and no keyboard controller.
const BOOT_ARCHITECTURE: u16 = 1 << 2 | 1 << 5;
/// The interrupt that fixed hardware would have, as Xen's FADT names it. Without such hardware it means nothing, but Linux speaks of
/// it in a warning ("setting ELCR"), which is thus the same here and there.
const SCI: u16 = 9;

/// The tables as they lie at guest-physical address `base`, the RSDP first.
pub fn tables(base: u64, vcpus: u32) -> Vec<u8> {
    let mut area = Area { base, bytes: Vec::new() };
    area.put(&Rsdp::new(OEM, 0)); // written anew once the others have their places
    let dsdt = area.put(&dsdt());
    let entries = [area.put(&fadt(dsdt)), area.put(&madt(vcpus))];
    let mut xsdt = XSDT::new(OEM, OEM_TABLE, OEM_REVISION);
    entries.into_iter().for_each(|entry| xsdt.add_entry(entry));
    let xsdt = area.put(&xsdt);
    let mut rsdp = Vec::new();
    Rsdp::new(OEM, xsdt).to_aml_bytes(&mut rsdp);
    area.bytes.iter_mut().zip(rsdp).for_each(|(to, from)| *to = from);
    area.bytes
}

/// The local APIC's number of a vCPU, as Xen has them.
pub fn apic_id(vcpu: u32) -> u32 {
    vcpu * 2
}

/// Tables one behind the other.
struct Area {
    base: u64,
    bytes: Vec<u8>,
}

impl Area {
    /// Appends a table and returns its address.
    fn put(&mut self, table: &dyn Aml) -> u64 {
        self.bytes.resize(self.bytes.len().next_multiple_of(16), 0);
        let address = self.base + self.bytes.len() as u64;
        table.to_aml_bytes(&mut self.bytes);
        address
    }
}

fn port(number: u16) -> GAS {
    GAS::new(AddressSpace::SystemIo, 8, 0, AccessSize::ByteAccess, number.into())
}

fn fadt(dsdt: u64) -> impl Aml {
    let flags = [
        Flags::HwReducedAcpi,
        Flags::ResetRegSup,
        Flags::Wbinvd,
        Flags::PwrButton, // no fixed power button, no fixed sleep button
        Flags::SlpButton,
        Flags::Headless,
    ];
    let mut fadt = FADTBuilder::new(OEM, OEM_TABLE, OEM_REVISION).dsdt_64(dsdt);
    fadt.sci_int = SCI.into();
    fadt.iapc_boot_arch = BOOT_ARCHITECTURE.into();
    fadt.reset_reg = port(RESET_PORT);
    fadt.reset_value = RESET_VALUE;
    fadt.sleep_control_reg = port(SLEEP_CONTROL_PORT);
    fadt.sleep_status_reg = port(SLEEP_STATUS_PORT);
    flags.into_iter().fold(fadt, FADTBuilder::flag).finalize()
}

fn madt(vcpus: u32) -> impl Aml {
    let mut madt = MADT::new(OEM, OEM_TABLE, OEM_REVISION, LocalInterruptController::Address(LOCAL_APIC));
    for vcpu in 0..vcpus {
        // Four vCPUs at most: both numbers are bytes.
        madt.add_structure(ProcessorLocalApic::new(vcpu as u8, apic_id(vcpu) as u8, EnabledStatus::Enabled));
    }
    madt
}

/// `Name (\_S5, Package () { type, type, 0, 0 })`: the type of sleep that is "off".
fn dsdt() -> impl Aml {
    let off: &dyn Aml = &SLEEP_TYPE_OFF;
    let zero: &dyn Aml = &0u8;
    let mut dsdt = Sdt::new(*b"DSDT", HEADER_BYTES, 2, OEM, OEM_TABLE, OEM_REVISION);
    Name::new("\\_S5_".into(), &Package::new(Vec::from([off, off, zero, zero]))).to_aml_bytes(&mut dsdt);
    dsdt
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::guest::layout::ACPI_PAGES;
    use alloc::string::String;
    use xen_abi::native::PAGE_SIZE;

    const BASE: u64 = 0xffd_d000;

    fn number(bytes: &[u8], at: usize, size: usize) -> u64 {
        bytes[at..at + size].iter().rev().fold(0, |number, byte| number << 8 | u64::from(*byte))
    }

    fn sum(bytes: &[u8]) -> u8 {
        bytes.iter().fold(0, |sum: u8, byte| sum.wrapping_add(*byte))
    }

    /// The table at an address, by its own length.
    fn table(tables: &[u8], address: u64) -> &[u8] {
        let at = (address - BASE) as usize;
        let bytes = &tables[at..at + number(tables, at + 4, 4) as usize];
        assert_eq!(sum(bytes), 0, "checksum of {}", String::from_utf8_lossy(&bytes[..4]));
        bytes
    }

    /// FADT, MADT and DSDT, found as a kernel finds them.
    fn found(tables: &[u8]) -> [&[u8]; 3] {
        assert_eq!((&tables[..8], tables[15]), (b"RSD PTR ".as_slice(), 2));
        assert_eq!((sum(&tables[..20]), sum(&tables[..36])), (0, 0), "checksums of the RSDP");
        let xsdt = table(tables, number(tables, 24, 8));
        assert_eq!((&xsdt[..4], xsdt.len()), (b"XSDT".as_slice(), 36 + 2 * 8));
        let [fadt, madt] = [36, 44].map(|at| table(tables, number(xsdt, at, 8)));
        let dsdt = table(tables, number(fadt, 140, 8));
        assert_eq!([&fadt[..4], &madt[..4], &dsdt[..4]], [b"FACP", b"APIC", b"DSDT"]);
        [fadt, madt, dsdt]
    }

    #[test]
    fn the_fadt_says_that_there_is_no_hardware_but_sleep_and_reset() {
        let tables = tables(BASE, 1);
        let [fadt, ..] = found(&tables);
        let flags = number(fadt, 112, 4);
        assert_eq!(flags, 1 << 20 | 1 << 12 | 1 << 10 | 1 << 5 | 1 << 4 | 1);
        assert_eq!(number(fadt, 109, 2), 0x24, "no VGA, no CMOS clock, no legacy devices");
        let register = |at: usize| (number(fadt, at, 1), number(fadt, at + 1, 1), number(fadt, at + 4, 8));
        assert_eq!((register(116), number(fadt, 128, 1)), ((1, 8, 0xcf9), 6));
        assert_eq!((register(244), register(256)), ((1, 8, 0x604), (1, 8, 0x605)));
        assert_eq!(number(fadt, 46, 2), 9, "the interrupt that Xen's names");
        assert!(fadt[48..109].iter().all(|byte| *byte == 0), "no fixed registers, no century in a CMOS clock");
    }

    #[test]
    fn the_madt_has_an_apic_for_each_vcpu() {
        for vcpus in 1..=4 {
            let tables = tables(BASE, vcpus);
            let [_, madt, _] = found(&tables);
            assert_eq!((number(madt, 36, 4), number(madt, 40, 4)), (LOCAL_APIC.into(), 0));
            let entries: Vec<&[u8]> = madt[44..].chunks(8).collect();
            let expected: Vec<[u8; 8]> = (0..vcpus as u8).map(|vcpu| [0, 8, vcpu, vcpu * 2, 1, 0, 0, 0]).collect();
            assert_eq!(entries, expected);
        }
    }

    #[test]
    fn the_dsdt_names_the_sleep_state_that_powers_off() {
        let tables = tables(BASE, 1);
        let [.., dsdt] = found(&tables);
        // DefName, root prefix, name; PackageOp, length, elements; ByteConst 5, twice; Zero, twice.
        assert_eq!(dsdt[36..], *b"\x08\\_S5_\x12\x08\x04\x0a\x05\x0a\x05\x00\x00");
    }

    #[test]
    fn the_tables_fit_into_their_pages() {
        assert!(tables(BASE, 4).len() as u64 <= ACPI_PAGES * PAGE_SIZE);
    }
}
