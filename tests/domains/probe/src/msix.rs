//! A driver that wants more interrupts than it has: of its own device's table, of others' devices, of lines.
//!
//! Run in two domains at once, each with a virtio device; one ends by touching the page of its MSI-X table, the other by
//! touching that of the pending bits.

use crate::raw;
use runtime::device::{Device, devices};
use runtime::event::Channel;
use runtime::hypercall::{event_channel, physdev};
use runtime::verdict::{fail, pass};
use runtime::{Errno, println};
use xen_abi::physdev as abi;
use xen_abi::xen::{DOMID_SELF, HYPERVISOR_PHYSDEV_OP};

/// PCI capability ids (PCI Local Bus 3.0, appendix H).
const VENDOR: u32 = 0x09;
const MSI_X: u32 = 0x11;
/// Configuration access by virtio's vendor capability (virtio 1.2, 4.1.4.9).
const VIRTIO_CONFIG_ACCESS: u32 = 5;

/// Where the device of the other domain may be: the test's disk and network card.
const SLOTS: [u32; 2] = [0x03 << 3, 0x08 << 3];

/// Reports what does not hold, and nothing else: there is so much of it that the console would not keep up.
macro_rules! must {
    ($name:expr, $condition:expr, $($detail:tt)*) => {
        if !$condition {
            fail($name, format_args!($($detail)*));
        }
    };
}

fn equal<T: PartialEq + core::fmt::Debug>(name: &str, actual: T, expected: T) {
    must!(name, actual == expected, "{actual:?} instead of {expected:?}");
}

/// `do=msix-table`.
pub fn touch_table() {
    touch("msix-table", 4);
}

/// `do=msix-pending`.
pub fn touch_pending() {
    touch("msix-pending", 8);
}

/// Tries all that must be refused, then touches what the double word at `offset` of the MSI-X capability names.
fn touch(name: &str, offset: u32) {
    let Some(device) = devices().next() else {
        return fail("msix-device", "no device");
    };
    let Some(capability) = capabilities(&device).find(|at| device.config_read(*at, 1) == Ok(MSI_X)) else {
        return fail("msix-capability", "none");
    };
    configuration(&device, capability);
    pass("i3-i4-configuration-tried");
    vectors(&device);
    pass("i1-i2-i5-vectors-tried");
    lines();
    pass("i1-i6-lines-tried");
    let Ok(place) = device.config_read(capability + offset, 4) else {
        return fail("msix-place", "unreadable");
    };
    let bar = device.facts().bars.get((place & 7) as usize).copied().unwrap_or_default();
    let address = bar.gpa + u64::from(place & !7);
    must!("msix-place", bar.gpa != 0 && bar.flags & xen_abi::platform::BAR_HAS_MSIX != 0, "{bar:?}");
    println!("touching {address:#x}");
    // The console must have it before we are gone.
    runtime::time::sleep(core::time::Duration::from_secs(1));
    let value = raw::read(address);
    fail(name, format_args!("read {value:#x}"));
}

fn capabilities(device: &Device) -> impl Iterator<Item = u32> {
    let next = |offset| device.config_read(offset, 1).ok().filter(|at| *at >= 0x40);
    core::iter::successors(next(0x34), move |at| next(at + 1)).take(48)
}

fn configuration(device: &Device, capability: u32) {
    for (offset, width) in [(0, 2), (2, 1), (2, 2), (3, 1), (4, 4), (8, 4), (0, 4)] {
        for value in [0, 0x8000, 0xc000, u32::MAX] {
            let answer = device.config_write(capability + offset, width, value);
            equal("i3-msix-control-is-the-hypervisors", answer, Err(Errno::EPERM));
        }
    }
    let vendor = |at: &u32| device.config_read(*at, 1) == Ok(VENDOR);
    let mut window = false;
    for at in capabilities(device).filter(vendor) {
        window |= device.config_read(at + 3, 1) == Ok(VIRTIO_CONFIG_ACCESS);
        for offset in (0..20).step_by(4) {
            equal("i4-virtio-window-stays-shut", device.config_write(at + offset, 4, 0), Err(Errno::EPERM));
            equal("i4-virtio-window-stays-shut", device.config_write(at + offset, 1, 0), Err(Errno::EPERM));
        }
    }
    must!("i4-virtio-window-was-tried", window, "no such capability");
}

/// One mapping with these arguments.
fn map(change: impl Fn(&mut abi::PhysdevMapPirq)) -> Result<u64, Errno> {
    let mut structure = abi::PhysdevMapPirq {
        domid: DOMID_SELF,
        kind: abi::MAP_PIRQ_TYPE_MSI,
        index: -1,
        pirq: -1,
        ..Default::default()
    };
    change(&mut structure);
    let address = core::ptr::from_mut(&mut structure) as u64;
    Errno::check(raw::hypercall(HYPERVISOR_PHYSDEV_OP, [abi::PHYSDEVOP_MAP_PIRQ, address, 0, 0, 0]))
}

fn vectors(device: &Device) {
    let facts = device.facts();
    let (bdf, count) = (facts.bdf, facts.msix_vectors);
    let own = |op: &mut abi::PhysdevMapPirq| (op.bus, op.devfn) = ((bdf >> 8) as i32, (bdf & 0xff) as i32);
    must!("msix-has-vectors", (1..2049).contains(&count), "{count}");
    for entry in [count as i32, count as i32 + 1, 0xffff, 0x1_0000, i32::MAX, -1, i32::MIN] {
        let answer = map(|op| {
            own(op);
            op.entry_nr = entry;
        });
        must!("i1-no-more-vectors-than-there-are", answer == Err(Errno::EINVAL), "{entry}: {answer:?}");
    }
    for other in SLOTS.into_iter().filter(|other| *other != bdf).chain([bdf | 1, bdf ^ 8, 0, 0xf8, 0xffff]) {
        equal("i1-vector-of-anothers-device", physdev::map_msix(other, 0), Err(Errno::EPERM));
    }
    for (bus, devfn) in
        [(0x1_0000, bdf as i32), (-1, bdf as i32), (0, 0x100 | bdf as i32), (0, -1), (i32::MAX, i32::MIN)]
    {
        let answer = map(|op| (op.bus, op.devfn) = (bus, devfn));
        must!("i1-vector-of-no-device", answer == Err(Errno::EPERM), "{bus:#x} {devfn:#x}: {answer:?}");
    }
    for kind in [abi::MAP_PIRQ_TYPE_UNKNOWN, abi::MAP_PIRQ_TYPE_MULTI_MSI, 5, -1, i32::MIN] {
        let answer = map(|op| {
            own(op);
            op.kind = kind;
        });
        must!("i2-no-such-kind", answer == Err(Errno::EINVAL), "{kind}: {answer:?}");
    }
    let for_another = map(|op| {
        own(op);
        op.domid = 0;
    });
    equal("i1-vector-for-another-domain", for_another, Err(Errno::EPERM));
    let beyond = map(|op| {
        own(op);
        op.pirq = i32::MAX;
    });
    equal("i1-pirq-out-of-range", beyond, Err(Errno::EINVAL));
    let Ok(pirq) = physdev::map_msix(bdf, 0) else {
        return fail("i1-own-vector", "refused");
    };
    equal("i1-vector-twice", physdev::map_msix(bdf, 0), Err(Errno::EBUSY));
    let taken = map(|op| {
        own(op);
        (op.entry_nr, op.pirq) = (1, pirq as i32);
    });
    equal("i1-pirq-twice", taken, Err(Errno::EEXIST));
    let channel = Channel::pirq(pirq);
    must!("i1-own-vector-is-bound", channel.is_ok(), "refused");
    equal("i1-vector-bound-twice", event_channel::bind_pirq(pirq), Err(Errno::EEXIST));
    drop(channel);
    equal("i2-unmap", physdev::unmap(pirq), Ok(()));
    equal("i2-unmap-twice", physdev::unmap(pirq), Err(Errno::EINVAL));
    equal("i2-bind-what-was-unmapped", event_channel::bind_pirq(pirq), Err(Errno::EPERM));
    equal("i2-end-what-was-unmapped", physdev::eoi(pirq), Err(Errno::EINVAL));
    for _ in 0..300 {
        // Each time the same vector: none is lost, or they would run out.
        match physdev::map_msix(bdf, 0).and_then(physdev::unmap) {
            Ok(()) => {}
            Err(error) => return fail("i5-no-vector-is-lost", error),
        }
    }
}

fn lines() {
    // The console's, the timer's, somebody's, none's.
    for line in [4, 0, 1, 9, 11, 23, 24, 1000] {
        equal("i1-line-of-others", physdev::map_line(line), Err(Errno::EPERM));
    }
    let negative = map(|op| (op.kind, op.index) = (abi::MAP_PIRQ_TYPE_GSI, -1));
    equal("i1-line-below-zero", negative, Err(Errno::EINVAL));
    for command in (0..40).filter(|command| ![5, 12, 13, 14].contains(command)) {
        let structure = [0_u64; 8];
        let answer = raw::hypercall(HYPERVISOR_PHYSDEV_OP, [command, structure.as_ptr() as u64, 0, 0, 0]);
        must!("i6-no-such-command", answer == Errno::ENOSYS.to_result(), "{command}: {answer}");
    }
}
