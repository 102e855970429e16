//! The domain's own PCI devices: what they are, their registers, their interrupts.

use core::sync::atomic::Ordering::{Acquire, Release};

pub use xen_abi::platform::DeviceDescribe;
use xen_abi::platform::{BAR_MEMORY, Bar};

use crate::errno::{Errno, Result};
use crate::event::Channel;
use crate::hypercall::{physdev, platform};
use crate::shared::Shared;

/// One PCI function that the policy gave to this domain.
#[derive(Clone, Copy, Debug)]
pub struct Device {
    facts: DeviceDescribe,
}

/// The devices of this domain.
pub fn devices() -> impl Iterator<Item = Device> {
    (0..).map_while(|index| platform::device_describe(index).ok()).map(|facts| Device { facts })
}

impl Device {
    /// What the hypervisor says of it.
    pub fn facts(&self) -> &DeviceDescribe {
        &self.facts
    }

    /// Reads 1, 2 or 4 bytes of configuration space.
    pub fn config_read(&self, offset: u32, width: u32) -> Result<u32> {
        platform::config_read(self.facts.bdf, offset, width)
    }

    /// Writes 1, 2 or 4 bytes of configuration space, where that cannot hurt others (`EPERM` elsewhere).
    pub fn config_write(&self, offset: u32, width: u32, value: u32) -> Result<()> {
        platform::config_write(self.facts.bdf, offset, width, value)
    }

    /// The registers behind base address register `index`. `ENXIO`: it has no memory there.
    pub fn registers(&self, index: usize) -> Result<Registers> {
        let bar = self.facts.bars.get(index).filter(|bar| bar.gpa != 0 && bar.flags & BAR_MEMORY != 0);
        Ok(Registers::of(bar.ok_or(Errno::ENXIO)?))
    }

    /// An event channel for MSI-X vector `entry`.
    pub fn interrupt(&self, entry: u16) -> Result<Channel> {
        Channel::pirq(physdev::map_msix(self.facts.bdf, entry)?)
    }
}

/// Memory-mapped registers of a device. They are not RAM: a read may have effects, and each access is made once, in
/// program order and with the width that is asked for.
#[derive(Clone, Copy, Debug)]
pub struct Registers(Shared<'static>);

impl Registers {
    fn of(bar: &Bar) -> Self {
        // SAFETY: the hypervisor mapped this BAR here for the life of the domain; no Rust memory lies in that window.
        // A page of it that is left out (MSI-X) faults when touched and ends the domain, which is sound.
        Self(unsafe { Shared::new(bar.gpa as *mut u8, bar.bytes as usize) })
    }

    /// Bytes of registers.
    pub fn bytes(self) -> usize {
        self.0.len()
    }

    /// The address of the first register.
    pub fn address(self) -> u64 {
        self.0.address()
    }

    /// Reads the byte at `offset`.
    pub fn read_u8(self, offset: usize) -> u8 {
        self.0.u8_at(offset).load(Acquire)
    }

    /// Reads two bytes at `offset`.
    pub fn read_u16(self, offset: usize) -> u16 {
        self.0.u16_at(offset).load(Acquire)
    }

    /// Reads four bytes at `offset`.
    pub fn read_u32(self, offset: usize) -> u32 {
        self.0.u32_at(offset).load(Acquire)
    }

    /// Reads eight bytes at `offset`, by one access.
    pub fn read_u64(self, offset: usize) -> u64 {
        self.0.u64_at(offset).load(Acquire)
    }

    /// Writes the byte at `offset`.
    pub fn write_u8(self, offset: usize, value: u8) {
        self.0.u8_at(offset).store(value, Release);
    }

    /// Writes two bytes at `offset`.
    pub fn write_u16(self, offset: usize, value: u16) {
        self.0.u16_at(offset).store(value, Release);
    }

    /// Writes four bytes at `offset`.
    pub fn write_u32(self, offset: usize, value: u32) {
        self.0.u32_at(offset).store(value, Release);
    }

    /// Writes eight bytes at `offset`, by one access.
    pub fn write_u64(self, offset: usize, value: u64) {
        self.0.u64_at(offset).store(value, Release);
    }
}
