//! Devices go to whom the sealed table names, while it is being built, once, and come back.

use crate::child::{DRIVER, SLEEPS, SPINS, VICTIM, complete, empty, finish, gfn, running};
use runtime::hypercall::platform;
use runtime::verdict::equal;
use runtime::{Access, DomId, Errno, GrantRef, verdict};
use xen_abi::native::MMIO_WINDOW;
use xen_abi::platform as abi;

/// The device of [`DRIVER`].
const EDU: (u16, u16) = (0x1234, 0x11e8);
/// A device that the policy does not name.
const NIC: (u16, u16) = (0x1af4, 0x1041);

fn find((vendor, device): (u16, u16)) -> abi::DeviceInfo {
    let found = platform::devices().find(|info| (info.vendor, info.device) == (vendor, device));
    match found {
        Some(info) => info,
        None => panic!("no device {vendor:04x}:{device:04x}"),
    }
}

/// All of it.
pub fn all() {
    let (edu, nic) = (find(EDU), find(NIC));
    equal("device-starts-in-quarantine", (edu.owner, edu.label), (abi::OWNER_QUARANTINE, DRIVER));
    equal("device-without-a-label", (nic.owner, nic.label), (abi::OWNER_QUARANTINE, abi::LABEL_NONE));
    refused(edu.bdf, nic.bdf);
    for round in 0..3 {
        assigned(edu.bdf, round);
    }
    registers_in_the_way(&edu);
    equal("device-ends-in-quarantine", find(EDU).owner, abi::OWNER_QUARANTINE);
}

fn refused(edu: u32, nic: u32) {
    let (victim, driver) = (empty(VICTIM), empty(DRIVER));
    equal("c1-assign-to-the-wrong-domain", platform::assign_device(victim, edu), Err(Errno::EPERM));
    equal("c1-assign-what-nobody-was-given", platform::assign_device(driver, nic), Err(Errno::EPERM));
    for info in platform::devices().filter(|info| info.owner == abi::OWNER_HYPERVISOR) {
        let answer = platform::assign_device(driver, info.bdf);
        verdict!("c1-assign-a-bridge", answer == Err(Errno::EPERM), "{:#x} answered {answer:?}", info.bdf);
    }
    for bdf in [edu | 1, 0xffff, 0x1_0000 | edu, u32::MAX] {
        let answer = platform::assign_device(driver, bdf);
        verdict!("c1-assign-no-such-device", answer == Err(Errno::ENODEV), "{bdf:#x} answered {answer:?}");
    }
    equal("c1-assign-to-oneself", platform::assign_device(DomId::POLICY, edu), Err(Errno::EPERM));
    equal("c1-assign-to-nobody", platform::assign_device(DomId(0x6fff), edu), Err(Errno::ESRCH));
    [victim, driver].into_iter().for_each(finish);
    let driver = running(DRIVER, SPINS);
    equal("c1-assign-to-a-running-domain", platform::assign_device(driver, edu), Err(Errno::EPERM));
    equal("c1-pause", platform::pause(driver), Ok(()));
    equal("c1-assign-to-a-paused-domain", platform::assign_device(driver, edu), Err(Errno::EPERM));
    finish(driver);
    equal("p1-refused-stays-in-quarantine", find(EDU).owner, abi::OWNER_QUARANTINE);
}

fn assigned(edu: u32, round: u32) {
    let driver = complete(DRIVER, SLEEPS);
    equal("p2-assign", platform::assign_device(driver, edu), Ok(()));
    equal("c1-assign-twice", platform::assign_device(driver, edu), Err(Errno::EBUSY));
    equal("device-has-its-owner", find(EDU).owner, driver.0.into());
    let registers = gfn(MMIO_WINDOW) + (u64::from(find(EDU).index) << 24);
    let over = platform::populate(driver, registers, 1, abi::RIGHTS_WRITE);
    equal("i4-no-memory-over-registers", over, Err(Errno::EEXIST));
    equal("i4-no-copy-into-registers", platform::copy_in(driver, registers << 12, SLEEPS), Err(Errno::EFAULT));
    let grant = platform::seed_grant(driver, GrantRef(0), registers, driver, Access::ReadOnly);
    equal("i4-no-grant-of-registers", grant, Err(Errno::ENOENT));
    // It ends once while it is built, once while it runs, once while it is paused.
    if round > 0 {
        equal("device-unpause", platform::unpause(driver), Ok(()));
    }
    if round > 1 {
        equal("device-pause", platform::pause(driver), Ok(()));
    }
    finish(driver);
    equal("p1-device-is-back-in-quarantine", find(EDU).owner, abi::OWNER_QUARANTINE);
}

/// Memory where the registers would go: the assignment fails as a whole.
fn registers_in_the_way(edu: &abi::DeviceInfo) {
    let driver = empty(DRIVER);
    let registers = gfn(MMIO_WINDOW) + (u64::from(edu.index) << 24);
    equal("p3-populate", platform::populate(driver, registers + 5, 1, abi::RIGHTS_WRITE), Ok(()));
    equal("p3-assign-over-memory", platform::assign_device(driver, edu.bdf), Err(Errno::EEXIST));
    equal("p3-nothing-was-assigned", find(EDU).owner, abi::OWNER_QUARANTINE);
    let around = platform::populate(driver, registers, 5, abi::RIGHTS_WRITE);
    equal("p3-no-register-is-left-mapped", around, Ok(()));
    finish(driver);
}
