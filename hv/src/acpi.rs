//! ACPI's static tables, read once at boot: interrupt controllers (MADT), configuration space (MCFG), timer and
//! power (FADT, and `_S5_` of the DSDT), remapping hardware (DMAR).
//!
//! They are read while the early page tables are in use, which show all memory below 4 GiB, where firmware keeps them;
//! what matters is copied, so nothing of theirs has to be mapped or kept later.
//!
//! Firmware is believed as far as values go; lengths are checked before they are followed.

use crate::boot::report::{Finding, fact, fail};
use crate::mm::layout::{self, EARLY_LIMIT};
use acpi::madt::{InterruptSourceOverrideEntry, IoApicEntry, Madt, MadtEntry};
use acpi::{AcpiError, AcpiHandler, AcpiTable, AcpiTables, PhysicalMapping, address::AddressSpace, fadt::Fadt};
use acpi::{mcfg::Mcfg, mcfg::McfgEntry, sdt::SdtHeader, sdt::Signature};
use core::ptr::NonNull;
use heapless::Vec;
use hv_core::{acpi::entries_are_sound, acpi::soft_off_types, iommu::dmar::Dmar};
use spin::Once;
use x86_64::PhysAddr;

/// How to turn the machine off (ACPI 6.5, 16.1.6).
#[derive(Clone, Copy, Debug)]
pub struct SoftOff {
    /// I/O port of PM1a control, and the sleep type to write there.
    pub control_a: (u16, u8),
    /// The same for PM1b control.
    pub control_b: Option<(u16, u8)>,
    /// Port and value that switch ACPI mode on.
    pub enable: Option<(u16, u8)>,
}

/// What the tables said.
#[derive(Debug, Default)]
pub struct Facts {
    /// I/O APICs: id, registers, first line.
    pub io_apics: Vec<IoApicEntry, 8>,
    /// ISA interrupts that are not wired one to one, by edge, active high.
    pub overrides: Vec<InterruptSourceOverrideEntry, 16>,
    /// PCI configuration space of segment 0.
    pub ecam: Option<McfgEntry>,
    /// I/O port of the power management timer.
    pub pm_timer: Option<u16>,
    /// Power off.
    pub soft_off: Option<SoftOff>,
    /// DMA and interrupt remapping.
    pub dmar: Option<Dmar>,
}

static FACTS: Once<Facts> = Once::new();

/// What the tables said; nothing before [`init`].
pub fn facts() -> Option<&'static Facts> {
    FACTS.get()
}

/// Reads the tables, before `mm::init`. `rsdp`: the root pointer as the boot loader tells it; else firmware's usual places
/// are searched.
pub fn init(rsdp: Option<PhysAddr>) {
    FACTS.call_once(|| {
        let tables = find(rsdp)
            .inspect_err(|why| fact("acpi", Finding::Missing, format_args!("{why:?}: no devices, no power off")));
        let Ok(tables) = tables else { return Facts::default() };
        let mut facts = Facts::default();
        if let Err(why) = read_madt(&tables, &mut facts) {
            fact("interrupts", Finding::Missing, format_args!("{why}"));
        }
        read_fadt(&tables, &mut facts);
        facts.ecam = read_mcfg(&tables);
        facts.dmar = read_dmar(&tables);
        let (revision, io_apics) = (tables.revision(), facts.io_apics.len());
        let off = if facts.soft_off.is_some() { "known" } else { "unknown" };
        let what = format_args!("revision {revision}, {io_apics} I/O APIC(s), power off {off}");
        fact("acpi", Finding::Ok, what);
        facts
    });
}

fn find(rsdp: Option<PhysAddr>) -> Result<AcpiTables<Firmware>, AcpiError> {
    match rsdp {
        // SAFETY: the boot loader says that the root pointer is there; signature and checksum are checked before use.
        Some(address) => unsafe { AcpiTables::from_rsdp(Firmware, address.as_u64() as usize) },
        // SAFETY: reads of the BIOS areas below 1 MiB, which exist on every PC; without a BIOS nothing is found there.
        None => unsafe { AcpiTables::search_for_rsdp_bios(Firmware) },
    }
}

fn read_madt(tables: &AcpiTables<Firmware>, facts: &mut Facts) -> Result<(), &'static str> {
    /// Bytes before the first entry: header, local APIC address, flags.
    const FIXED: usize = 44;
    let madt = tables.find_table::<Madt>().map_err(|_| "no MADT")?;
    if !bytes_of(&madt).get(FIXED..).is_some_and(entries_are_sound) {
        return Err("the MADT's entries do not fit in it");
    }
    // What does not fit in the lists is left out: interrupt lines that are not used.
    for entry in madt.get().entries() {
        let _left_out = match entry {
            MadtEntry::IoApic(io_apic) => facts.io_apics.push(*io_apic).is_err(),
            MadtEntry::InterruptSourceOverride(wiring) if wiring.bus == 0 => facts.overrides.push(*wiring).is_err(),
            _ => false,
        };
    }
    Ok(())
}

fn read_mcfg(tables: &AcpiTables<Firmware>) -> Option<McfgEntry> {
    let mcfg = tables.find_table::<Mcfg>().ok()?;
    let entry = mcfg.entries().iter().find(|entry| entry.pci_segment_group == 0)?;
    (entry.bus_number_start <= entry.bus_number_end).then_some(*entry)
}

fn read_fadt(tables: &AcpiTables<Firmware>, facts: &mut Facts) {
    let Ok(fadt) = tables.find_table::<Fadt>() else { return };
    let port = |address: acpi::address::GenericAddress| {
        let port = u16::try_from(address.address).ok().filter(|port| *port != 0);
        port.filter(|_| address.address_space == AddressSpace::SystemIo)
    };
    facts.pm_timer = fadt.pm_timer_block().ok().flatten().and_then(port);
    let types = tables.dsdt().ok().and_then(|dsdt| {
        // SAFETY: `dsdt` checked the table at this address; a `u8` can be read anywhere in it.
        let aml = unsafe { Firmware.map_physical_region::<u8>(dsdt.address, dsdt.length as usize) };
        // SAFETY: the mapping shows `length` bytes of firmware memory that nobody writes.
        soft_off_types(unsafe { core::slice::from_raw_parts(aml.virtual_start().as_ptr(), dsdt.length as usize) })
    });
    let control_a = fadt.pm1a_control_block().ok().and_then(port);
    facts.soft_off = types.zip(control_a).map(|(types, control_a)| SoftOff {
        control_a: (control_a, types.0),
        control_b: fadt.pm1b_control_block().ok().flatten().and_then(port).map(|port| (port, types.1)),
        enable: match (u16::try_from(fadt.smi_cmd_port), fadt.acpi_enable) {
            (Ok(0) | Err(_), _) | (_, 0) => None,
            (Ok(port), value) => Some((port, value)),
        },
    });
}

fn read_dmar(tables: &AcpiTables<Firmware>) -> Option<Dmar> {
    let table = tables.find_table::<DmarTable>().ok()?;
    Dmar::parse(bytes_of(&table)).inspect_err(|why| fact("iommu", Finding::Missing, format_args!("{why}"))).ok()
}

/// The whole of a table.
fn bytes_of<T: AcpiTable>(table: &PhysicalMapping<Firmware, T>) -> &[u8] {
    let bytes = table.get().header().length as usize;
    // SAFETY: the crate mapped the table to the length in its header and checked its checksum over all of it; firmware
    // memory is shown by the early tables, and nobody writes it.
    unsafe { core::slice::from_raw_parts(table.virtual_start().as_ptr().cast(), bytes) }
}

/// The DMAR table, for its bytes.
#[repr(transparent)]
struct DmarTable(SdtHeader);

// SAFETY: the type is the common header alone, which every table has.
unsafe impl AcpiTable for DmarTable {
    const SIGNATURE: Signature = Signature::DMAR;

    fn header(&self) -> &SdtHeader {
        &self.0
    }
}

/// Shows physical memory to the `acpi` crate, through the early tables.
#[derive(Clone, Debug)]
struct Firmware;

impl AcpiHandler for Firmware {
    // SAFETY: the caller's promise, that a `T` is at `address`, is not needed before the last line.
    unsafe fn map_physical_region<T>(&self, address: usize, bytes: usize) -> PhysicalMapping<Self, T> {
        let bytes = bytes.max(size_of::<T>());
        let shown = address.checked_add(bytes).is_some_and(|end| end as u64 <= EARLY_LIMIT);
        let start = NonNull::new(layout::direct(PhysAddr::new_truncate(address as u64)).as_mut_ptr());
        let Some(start) = start.filter(|_| shown) else {
            fail("acpi", format_args!("a table at {address:#x}, {bytes} bytes: not below 4 GiB"), "report this");
        };
        // SAFETY: the early tables show at least `bytes` bytes there, readable, for as long as tables are read; the
        // crate's types have no alignment (`repr(packed)`), and the caller promises that they fit what is there.
        unsafe { PhysicalMapping::new(address, start, bytes, bytes, Self) }
    }

    fn unmap_physical_region<T>(_region: &PhysicalMapping<Self, T>) {}
}
