//! I/O APICs (Intel 82093AA): interrupt lines as messages. Every line is masked until a domain has it.

use super::{Bdf, Facts, Gate, Route, Trigger, Vec};
use crate::{acpi, mmio::Registers};
use hv_core::ids::Hpa;
use hv_core::iommu::vtd::{Polarity, REDIRECTION_MASKED, redirection_entry};

const SELECT: u64 = 0x00;
const WINDOW: u64 = 0x10;
const VERSION: u32 = 1;
const REDIRECTION: u32 = 0x10;

/// One I/O APIC.
pub struct IoApic {
    registers: Registers,
    first_line: u32,
    pins: u32,
    /// Its requester id as DMAR names it.
    pub source: Option<Bdf>,
}

impl IoApic {
    fn read(&self, index: u32) -> u32 {
        self.registers.write32(SELECT, index);
        self.registers.read32(WINDOW)
    }

    fn write(&self, index: u32, value: u32) {
        self.registers.write32(SELECT, index);
        self.registers.write32(WINDOW, value);
    }
}

/// All I/O APICs.
pub struct Lines(Vec<IoApic, 8>);

impl Lines {
    /// No lines at all.
    pub const NONE: Self = Self(Vec::new());

    /// Maps the controllers and masks all lines.
    pub fn new(facts: &Facts) -> Self {
        let mut lines = Self::NONE;
        for entry in &facts.io_apics {
            // SAFETY: the MADT says that an I/O APIC's registers are there.
            let registers = unsafe { Registers::map(Hpa(entry.io_apic_address.into()), 0x20) };
            let Ok(registers) = registers else { continue };
            let source = facts.dmar.as_ref().and_then(|dmar| dmar.io_apic(entry.io_apic_id));
            let first_line = entry.global_system_interrupt_base;
            let mut controller = IoApic { registers, first_line, pins: 0, source };
            controller.pins = (controller.read(VERSION) >> 16 & 0xff) + 1;
            for pin in 0..controller.pins {
                controller.write(REDIRECTION + pin * 2, REDIRECTION_MASKED as u32);
            }
            // As many as `Facts` has room for.
            let _ = lines.0.push(controller);
        }
        lines
    }

    /// The controller of a line, and the first of the two registers of the line's redirection entry.
    pub fn find(&self, line: u32) -> Option<(&IoApic, u32)> {
        self.0.iter().find_map(|controller| {
            let pin = line.checked_sub(controller.first_line).filter(|pin| *pin < controller.pins)?;
            Some((controller, REDIRECTION + pin * 2))
        })
    }

    /// Says where a line's interrupts go, and masks it.
    pub fn set(&self, line: u32, vector: u8, route: Route) {
        let (trigger, polarity) = signalling(line);
        let entry = redirection_entry(vector, route, trigger, polarity);
        if let Some((controller, at)) = self.find(line) {
            // Masked while it is half old, half new.
            controller.write(at, REDIRECTION_MASKED as u32);
            controller.write(at + 1, (entry >> 32) as u32);
            controller.write(at, entry as u32);
        }
    }

    /// Masks a line or opens it.
    pub fn mask(&self, line: u32, gate: Gate) {
        if let Some((controller, at)) = self.find(line) {
            let low = controller.read(at) & !(REDIRECTION_MASKED as u32);
            controller.write(at, if gate == Gate::Masked { low | REDIRECTION_MASKED as u32 } else { low });
        }
    }
}

/// How a line is signalled: as the MADT says (MPS INTI flags, ACPI 6.5, table 5.26); else ISA interrupts by edge, PCI
/// interrupts by level.
pub fn signalling(line: u32) -> (Trigger, Polarity) {
    let mut told = acpi::facts().into_iter().flat_map(|facts| &facts.overrides);
    let told = told.find(|told| told.global_system_interrupt == line).map(|told| told.flags);
    let (edge, high) = match told {
        Some(flags) => (flags >> 2 & 0b11 != 0b11, flags & 0b11 != 0b11),
        None => (line < 16, line < 16),
    };
    (if edge { Trigger::Edge } else { Trigger::Level }, if high { Polarity::High } else { Polarity::Low })
}
