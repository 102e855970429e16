//! I/O APICs (Intel 82093AA): interrupt lines as messages. Every line is masked until a domain has it.

use crate::acpi::Facts;
use crate::mmio::Registers;
use heapless::Vec;
use hv_core::iommu::vtd::{Polarity, REDIRECTION_MASKED, Trigger};
use hv_core::pci::Bdf;
use x86_64::PhysAddr;

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

    /// Whether it has this line.
    fn has(&self, line: u32) -> bool {
        line.checked_sub(self.first_line).is_some_and(|pin| pin < self.pins)
    }

    /// Writes a redirection entry; masked while it is half old, half new.
    pub fn set(&self, line: u32, entry: u64) {
        if self.has(line) {
            let at = REDIRECTION + (line - self.first_line) * 2;
            self.write(at, REDIRECTION_MASKED as u32);
            self.write(at + 1, (entry >> 32) as u32);
            self.write(at, entry as u32);
        }
    }

    /// Masks a line or opens it.
    pub fn mask(&self, line: u32, masked: bool) {
        if self.has(line) {
            let at = REDIRECTION + (line - self.first_line) * 2;
            let low = self.read(at) & !(REDIRECTION_MASKED as u32);
            self.write(at, if masked { low | REDIRECTION_MASKED as u32 } else { low });
        }
    }
}

/// All I/O APICs and how ISA interrupts are wired to them.
pub struct Lines {
    controllers: Vec<IoApic, 8>,
    /// Line, trigger and polarity of ISA interrupts that are not wired one to one.
    wiring: Vec<(u32, Trigger, Polarity), 16>,
}

impl Lines {
    /// No lines at all.
    pub const NONE: Self = Self { controllers: Vec::new(), wiring: Vec::new() };

    /// Maps the controllers and masks all lines.
    pub fn new(facts: &Facts) -> Self {
        let mut lines = Self::NONE;
        for info in &facts.io_apics {
            let Ok(address) = PhysAddr::try_new(info.io_apic_address.into()) else {
                continue;
            };
            // SAFETY: the MADT says that an I/O APIC's registers are there.
            let Ok(registers) = (unsafe { Registers::map(address, 0x20) }) else {
                continue;
            };
            let source = facts.dmar.as_ref().and_then(|dmar| dmar.io_apic(info.io_apic_id));
            let mut controller = IoApic { registers, first_line: info.global_system_interrupt_base, pins: 0, source };
            controller.pins = (controller.read(VERSION) >> 16 & 0xff) + 1;
            for pin in 0..controller.pins {
                controller.set(controller.first_line + pin, REDIRECTION_MASKED);
            }
            // As many as `Facts` has room for.
            let _ = lines.controllers.push(controller);
        }
        let wiring = facts.overrides.iter().map(|wiring| (wiring.line, wiring.trigger, wiring.polarity));
        lines.wiring.extend(wiring.take(16));
        lines
    }

    /// The controller of a line.
    pub fn controller(&self, line: u32) -> Option<&IoApic> {
        self.controllers.iter().find(|controller| controller.has(line))
    }

    /// How a line is signalled: as the MADT says; else ISA interrupts by edge, PCI interrupts by level.
    pub fn signalling(&self, line: u32) -> (Trigger, Polarity) {
        let told = self.wiring.iter().find(|(told, ..)| *told == line);
        match told {
            Some((_, trigger, polarity)) => (*trigger, *polarity),
            None if line < 16 => (Trigger::Edge, Polarity::High),
            None => (Trigger::Level, Polarity::Low),
        }
    }
}
