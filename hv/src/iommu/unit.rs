//! One VT-d remapping unit: its registers, its invalidation queue, its faults (VT-d 11.4, 6.5, 7).

use super::{Command, ExtendedCapabilities, Failure, Hpa, TablePage};
use crate::{mmio::Registers, time};
use core::sync::atomic::{Ordering, fence};
use heapless::Vec;
use hv_core::ids::SLOTS;
use hv_core::iommu::vtd::{Capabilities, FAULT_VALID, Fault};

mod register {
    //! Offsets (VT-d 11.4).
    pub const CAPABILITIES: u64 = 0x08;
    pub const EXTENDED_CAPABILITIES: u64 = 0x10;
    pub const GLOBAL_COMMAND: u64 = 0x18;
    pub const GLOBAL_STATUS: u64 = 0x1c;
    pub const ROOT_TABLE: u64 = 0x20;
    pub const FAULT_STATUS: u64 = 0x34;
    pub const FAULT_CONTROL: u64 = 0x38;
    pub const FAULT_DATA: u64 = 0x3c;
    pub const FAULT_ADDRESS: u64 = 0x40;
    pub const FAULT_UPPER_ADDRESS: u64 = 0x44;
    pub const PROTECTED_MEMORY: u64 = 0x64;
    pub const QUEUE_HEAD: u64 = 0x80;
    pub const QUEUE_TAIL: u64 = 0x88;
    pub const QUEUE_ADDRESS: u64 = 0x90;
    pub const INTERRUPT_TABLE: u64 = 0xb8;
}

mod command {
    //! Bits of global command and status (VT-d 11.4.4).
    pub const TRANSLATION: u32 = 1 << 31;
    pub const ROOT_POINTER: u32 = 1 << 30;
    pub const QUEUE: u32 = 1 << 26;
    pub const INTERRUPTS: u32 = 1 << 25;
    pub const INTERRUPT_POINTER: u32 = 1 << 24;
    /// What stays as it is when another bit is commanded.
    pub const PERSISTENT: u32 = TRANSLATION | QUEUE | INTERRUPTS | 1 << 23;
}

/// Fault status: records were lost, and the three ways the queue can fail.
const FAULT_OVERFLOW: u32 = 1;
const QUEUE_ERRORS: u32 = 0b111 << 4;

/// Fault control: no interrupt.
const FAULT_MASKED: u32 = 1 << 31;

const LATE: Failure = "the IOMMU does not answer";
/// Bytes of registers. The fault records may lie further up, within this.
pub const REGISTER_BYTES: u64 = 0x4000;
/// Commands in the queue; a page of them.
const QUEUE_ENTRIES: usize = 256;
/// A unit that has not answered after this long is broken.
const ANSWER_NANOS: u64 = 500_000_000;
/// Faults handled in one visit.
const FAULTS_PER_VISIT: usize = 16;

/// A remapping unit in use.
pub struct Unit {
    registers: Registers,
    capabilities: Capabilities,
    /// What it can do.
    pub extended: ExtendedCapabilities,
    queue: TablePage,
    /// The unit writes a number here when it has come to a wait command.
    status: TablePage,
    tail: usize,
    waits: u32,
    broken: bool,
}

impl Unit {
    /// Maps the unit's registers and checks that it has what is needed.
    pub fn new(address: Hpa, queue: TablePage, status: TablePage) -> Result<Self, Failure> {
        // SAFETY: the DMAR table says that a remapping unit's registers are there.
        let registers = unsafe { Registers::map(address, REGISTER_BYTES) };
        let registers = registers.map_err(|_| "the IOMMU's registers cannot be mapped")?;
        let capabilities = Capabilities::from_bits_retain(registers.read64(register::CAPABILITIES));
        let extended = ExtendedCapabilities::from_bits_retain(registers.read64(register::EXTENDED_CAPABILITIES));
        let needed = [
            (capabilities.contains(Capabilities::FOUR_LEVELS), "the IOMMU lacks 48-bit addresses (QEMU: aw-bits=48)"),
            (capabilities.domains() > SLOTS as u32, "the IOMMU lacks enough domain ids"),
            (capabilities.contains(Capabilities::PAGE_SELECTIVE), "the IOMMU lacks page-selective invalidation"),
            (!capabilities.contains(Capabilities::NEEDS_WRITE_BUFFER_FLUSH), "the IOMMU has old write buffers"),
            (extended.contains(ExtendedCapabilities::QUEUED_INVALIDATION), "the IOMMU lacks queued invalidation"),
        ];
        if let Some((_, lack)) = needed.iter().find(|(there, _)| !there) {
            return Err(lack);
        }
        Ok(Self { registers, capabilities, extended, queue, status, tail: 0, waits: 0, broken: false })
    }

    /// Turns translation on with this root table, from whatever state firmware left, and interrupt remapping with this
    /// table of 256 entries, if there is one. Interrupts in compatibility format are blocked then: that bit stays off.
    pub fn enable(&mut self, root: u64, interrupts: Option<u64>) -> Result<(), Failure> {
        /// Of the interrupt table: 2^(7+1) entries.
        const SIZE: u64 = 7;
        for bit in [command::TRANSLATION, command::INTERRUPTS, command::QUEUE] {
            self.set(bit, false)?;
        }
        self.registers.write32(register::FAULT_CONTROL, FAULT_MASKED);
        let _of_before = self.take_faults();
        self.registers.write32(register::FAULT_STATUS, QUEUE_ERRORS);
        self.registers.write64(register::QUEUE_TAIL, 0);
        self.registers.write64(register::QUEUE_ADDRESS, self.queue.address());
        self.set(command::QUEUE, true)?;
        self.registers.write64(register::ROOT_TABLE, root);
        self.set(command::ROOT_POINTER, true)?;
        self.run(&[Command::CONTEXT_ALL, Command::IOTLB_ALL])?;
        self.set(command::TRANSLATION, true)?;
        // Protected memory regions (VT-d 11.4.9) would stay in the way of DMA that translation allows.
        if self.registers.read32(register::PROTECTED_MEMORY) & 1 != 0 {
            self.registers.write32(register::PROTECTED_MEMORY, 0);
        }
        let Some(table) = interrupts else { return Ok(()) };
        self.registers.write64(register::INTERRUPT_TABLE, table | SIZE);
        self.set(command::INTERRUPT_POINTER, true)?;
        self.run(&[Command::INTERRUPTS_ALL])?;
        self.set(command::INTERRUPTS, true)
    }

    /// Sends an interrupt by this message when a fault is recorded.
    pub fn enable_fault_interrupt(&self, (address, data): (u64, u32)) {
        self.registers.write32(register::FAULT_DATA, data);
        self.registers.write32(register::FAULT_ADDRESS, address as u32);
        self.registers.write32(register::FAULT_UPPER_ADDRESS, (address >> 32) as u32);
        self.registers.write32(register::FAULT_CONTROL, 0);
    }

    /// Turns a bit of global command on or off, and waits until the unit has done it.
    fn set(&mut self, bit: u32, on: bool) -> Result<(), Failure> {
        let status = self.registers.read32(register::GLOBAL_STATUS) & command::PERSISTENT;
        let wanted = if on { status | bit } else { status & !bit };
        self.registers.write32(register::GLOBAL_COMMAND, wanted);
        self.poll(|unit| (unit.registers.read32(register::GLOBAL_STATUS) & bit != 0) == on)
    }

    /// Waits with a bound. Not being answered in time breaks the unit for good.
    fn poll(&mut self, done: impl Fn(&Self) -> bool) -> Result<(), Failure> {
        if time::poll_until(time::now().plus_nanos(ANSWER_NANOS), || done(self)) {
            return Ok(());
        }
        self.broken = true;
        Err(LATE)
    }

    /// Executes commands (a few) in order and waits until the last is done: then no stale entry is in use, and DMA
    /// that began under one has ended. A unit that was late once is broken and never trusted again.
    pub fn run(&mut self, commands: &[Command]) -> Result<(), Failure> {
        if self.broken {
            return Err(LATE);
        }
        self.waits = self.waits.wrapping_add(1);
        let number = self.waits;
        // Table entries, and what the caller wrote before, come before the commands that are about them.
        fence(Ordering::SeqCst);
        for command in commands {
            self.push(*command);
        }
        self.push(Command::wait(self.status.address(), number));
        fence(Ordering::SeqCst);
        self.registers.write64(register::QUEUE_TAIL, self.tail as u64 * 16);
        self.poll(|unit| {
            // The queue stops at an error; then the number never comes, and polling on would be pointless.
            unit.status.first() == number || unit.registers.read32(register::FAULT_STATUS) & QUEUE_ERRORS != 0
        })?;
        if self.status.first() == number {
            return Ok(());
        }
        self.broken = true;
        let head = self.registers.read64(register::QUEUE_HEAD) / 16;
        log::error!("iommu: command {head} failed, status {:#x}", self.registers.read32(register::FAULT_STATUS));
        Err("the IOMMU refused a command")
    }

    /// The queue is empty whenever this is called first, so it never fills up.
    fn push(&mut self, command: Command) {
        self.queue.write(self.tail, command.0);
        self.tail = (self.tail + 1) % QUEUE_ENTRIES;
    }

    /// Takes the recorded faults, a bounded number, and makes room for new ones.
    pub fn take_faults(&self) -> Vec<Fault, FAULTS_PER_VISIT> {
        let mut faults = Vec::new();
        for at in self.capabilities.fault_records().take(FAULTS_PER_VISIT) {
            let record = [self.registers.read64(at), self.registers.read64(at + 8)];
            if let Some(fault) = Fault::decode(record) {
                // There is room for as many as are looked at.
                let _ = faults.push(fault);
                self.registers.write32(at + 12, (FAULT_VALID >> 32) as u32);
            }
        }
        self.registers.write32(register::FAULT_STATUS, FAULT_OVERFLOW);
        faults
    }
}
