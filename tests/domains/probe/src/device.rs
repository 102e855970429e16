//! A driver that tells its device (QEMU's `edu`, which does DMA to any address it is told) to reach outside.
//!
//! `edu` (QEMU, docs/specs/edu): identification at 0, DMA source at 0x80, destination at 0x88, count at 0x90, command at
//! 0x98 (1 = start, 2 = to memory), a 4096-byte buffer at 0x40000 in its own address space.

use core::time::Duration;
use runtime::device::{Device, Registers, devices};
use runtime::pages::Pages;
use runtime::verdict::{equal, fail, report};
use runtime::{Errno, time, verdict};

const IDENTIFICATION: u32 = 0x0100_00ed;
const SOURCE: usize = 0x80;
const DESTINATION: usize = 0x88;
const COUNT: usize = 0x90;
const COMMAND: usize = 0x98;
const START: u32 = 1;
const TO_MEMORY: u32 = 2;
const BUFFER: u64 = 0x4_0000;

/// Machine memory of others: the hypervisor is loaded at 1 MiB and up. The test compares it from outside.
const OUTSIDE: u64 = 0x10_0000;

/// Tries it all.
pub fn all() {
    let Some(device) = devices().next() else {
        return fail("device-present", "no device");
    };
    let registers = match device.registers(0) {
        Ok(registers) => registers,
        Err(error) => return fail("device-registers", error),
    };
    equal("device-registers", registers.read_u32(0), IDENTIFICATION);
    equal("no-dma-before-bus-mastering", reaches_memory(registers), false);
    report("bus-mastering", device.config_read(4, 2).and_then(|command| device.config_write(4, 2, command | 4)));
    equal("dma-inside-arrives", reaches_memory(registers), true);
    outside(registers);
    configuration(&device);
}

/// On a machine without an IOMMU: registers work, DMA cannot be switched on, and so none happens.
pub fn unconfined() {
    let found = devices().next().map(|device| (device.registers(0), device));
    let Some((Ok(registers), device)) = found else { return fail("device-present", "no device, or no registers") };
    equal("device-registers", registers.read_u32(0), IDENTIFICATION);
    let tried = [(1, 0x06), (2, 0x406), (4, 0x406)].map(|(width, value)| device.config_write(4, width, value));
    equal("bus-mastering-refused", tried, [Err(Errno::EPERM); 3]);
    equal("no-dma", reaches_memory(registers), false);
}

/// DMA from a page of ours to the device and back to another page of ours: whether it arrives.
fn reaches_memory(registers: Registers) -> bool {
    let (Some(mut from), Some(mut to)) = (Pages::new(1), Pages::new(1)) else {
        fail("dma-pages", "no memory");
        return false;
    };
    from.as_mut_slice()[..8].copy_from_slice(b"bulkhead");
    transfer(registers, from.address(), BUFFER, START);
    transfer(registers, BUFFER, to.address(), START | TO_MEMORY);
    to.as_mut_slice()[..8] == *b"bulkhead"
}

/// DMA to memory that is not ours.
fn outside(registers: Registers) {
    transfer(registers, BUFFER, OUTSIDE, START | TO_MEMORY);
    transfer(registers, BUFFER, 0x18_0000_0000, START | TO_MEMORY);
    // Our own code is ours, but not to be written.
    let code = all as fn() as usize as u64 & !0xfff;
    let before = [crate::raw::read(code), crate::raw::read(code + 1), crate::raw::read(code + 7)];
    transfer(registers, BUFFER, code, START | TO_MEMORY);
    let after = [crate::raw::read(code), crate::raw::read(code + 1), crate::raw::read(code + 7)];
    equal("dma-to-own-code-blocked", after, before);
    verdict::pass("dma-outside-tried");
}

fn transfer(registers: Registers, from: u64, to: u64, command: u32) {
    registers.write_u64(SOURCE, from);
    registers.write_u64(DESTINATION, to);
    registers.write_u64(COUNT, 8);
    registers.write_u64(COMMAND, u64::from(command));
    for _ in 0..400 {
        if registers.read_u32(COMMAND) & START == 0 {
            return;
        }
        time::sleep(Duration::from_millis(5));
    }
    fail("dma-ends", "the device did not finish");
}

/// Configuration writes that could hurt others or the hypervisor's bookkeeping.
fn configuration(device: &Device) {
    report("p10-config-read", device.config_read(0, 4));
    equal("p10-vendor-is-fixed", device.config_write(0, 2, 0xffff), Err(Errno::EPERM));
    for bar in (0x10..0x28).step_by(4) {
        equal("i4-bar-stays", device.config_write(bar, 4, 0xfee0_0000), Err(Errno::EPERM));
    }
    equal("p10-rom-stays", device.config_write(0x30, 4, 0xfee0_0001), Err(Errno::EPERM));
    if let Some(message) = capability(device, 5) {
        for offset in [2, 4, 8, 12] {
            let width = if offset == 4 || offset == 8 { 4 } else { 2 };
            equal("i3-msi-is-the-hypervisors", device.config_write(message + offset, width, 1), Err(Errno::EPERM));
        }
        verdict::pass("msi-tried");
    }
    equal("p10-misaligned", device.config_read(1, 4), Err(Errno::EINVAL));
    equal("p10-beyond", device.config_read(4096, 4), Err(Errno::EINVAL));
    equal("p10-width", device.config_read(0, 3), Err(Errno::EINVAL));
    let other = runtime::hypercall::platform::config_read(device.facts().bdf ^ 0x08, 0, 4);
    equal("p10-config-of-anothers-device", other, Err(Errno::EPERM));
    verdict::pass("configuration-done");
}

fn capability(device: &Device, wanted: u32) -> Option<u32> {
    let mut at = device.config_read(0x34, 1).ok()?;
    for _ in 0..48 {
        if at < 0x40 {
            return None;
        }
        if device.config_read(at, 1).ok()? == wanted {
            return Some(at);
        }
        at = device.config_read(at + 1, 1).ok()?;
    }
    None
}
