//! Does a policy fit a machine and the images at hand?

use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use xen_abi::native::STACK_PAGES;
use xen_abi::policy_table::HYPERVISOR_PORTS;

use super::diagnostics::Sink;
use super::parse::did_you_mean;
use super::spec::{self, Spec};
use crate::table::{Bdf, Kind, Span};

/// What a policy is checked against: the machine it will run on.
#[derive(Clone, Debug, Default)]
pub struct Machine {
    /// Bytes of memory.
    pub memory: u64,
    /// The PCI functions that it has.
    pub devices: Vec<PciFunction>,
}

/// A PCI function of a machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PciFunction {
    /// bus << 8 | device << 3 | function.
    pub bdf: u16,
    /// Vendor id.
    pub vendor: u16,
    /// Device id.
    pub device: u16,
    /// class << 16 | subclass << 8 | programming interface.
    pub class: u32,
}

/// An image that the bundle can carry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ImageInfo {
    /// Its name, as `image` keys of the policy use it.
    pub name: String,
    /// Bytes of its file, or 0 when they are not known yet.
    pub bytes: u64,
}

/// All checks against the machine.
pub fn check(spec: &Spec, machine: &Machine, images: &[ImageInfo], sink: &Sink) {
    check_images(spec, images, sink);
    check_memory(spec, machine, images, sink);
    check_devices(spec, machine, sink);
    check_ports(spec, sink);
}

const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;

fn shown(bytes: u64) -> String {
    match bytes {
        bytes if bytes.is_multiple_of(MIB) => format!("{} MiB", bytes / MIB),
        bytes if bytes >= 10 * MIB => format!("{:.1} MiB", bytes as f64 / MIB as f64),
        bytes => format!("{} KiB", bytes.div_ceil(KIB)),
    }
}

fn check_images(spec: &Spec, images: &[ImageInfo], sink: &Sink) {
    for domain in spec.domains.iter().filter(|domain| domain.kind == Kind::Pvh) {
        check_guest(domain, images, sink);
    }
    let natives = spec.domains.iter().filter(|domain| domain.kind == Kind::Native);
    for (domain, program) in natives.flat_map(|domain| domain.programs().map(move |program| (domain, program))) {
        let Some(image) = images.iter().find(|image| image.name == program.value) else {
            let known = images.iter().map(|image| image.name.as_str());
            sink.error(program.span.clone(), format!("no image `{}`", program.value)).help(did_you_mean(
                &program.value,
                known,
                "there are no images at all; build them first",
            ));
            continue;
        };
        let fixed = (STACK_PAGES + 64) * 4096;
        if image.bytes + fixed > domain.memory.value {
            let message = format!("`{}` has too little memory for its image", domain.name.value);
            let wanted = (image.bytes + fixed + MIB).div_ceil(MIB);
            sink.error(domain.memory.span.clone(), message).help(format!(
                "image `{}` has {} and stack and tables take {} more: give it \"{wanted}M\" at least",
                image.name,
                shown(image.bytes),
                shown(fixed),
            ));
        }
    }
}

/// What a kernel needs beside itself and its initrd: small ones do with this, Linux wants some 32 MiB more.
const GUEST_MIN: u64 = 16 * MIB;

/// Does a virtual machine's memory hold what it boots? Its kernel and initrd are files of the user's, and those who read
/// them say when they are missing.
fn check_guest(domain: &spec::Domain, images: &[ImageInfo], sink: &Sink) {
    let bytes = |name: &str| images.iter().find(|image| image.name == name).map_or(0, |image| image.bytes);
    let kernel = bytes(&domain.image.value);
    let initrd = domain.initrd_file().map_or(0, |name| bytes(&name));
    // The kernel keeps the initrd until it has unpacked it.
    let needed = kernel + 2 * initrd + GUEST_MIN;
    if needed > domain.memory.value {
        let message = format!("`{}` has too little memory for a virtual machine", domain.name.value);
        sink.error(domain.memory.span.clone(), message).help(format!(
            "its kernel has {}, its initrd {}: give it \"{}M\" at least",
            shown(kernel),
            shown(initrd),
            needed.div_ceil(MIB)
        ));
    }
}

/// What the hypervisor takes for itself: image, heap, firmware's memory, and a descriptor and tables for each frame.
fn overhead(memory: u64) -> u64 {
    16 * MIB + memory / 64
}

fn bundle_bytes(spec: &Spec, images: &[ImageInfo]) -> u64 {
    let used = |image: &&ImageInfo| {
        let uses = |domain: &spec::Domain| {
            domain.programs().any(|program| program.value == image.name)
                || domain.initrd_file().is_some_and(|name| name == image.name)
        };
        spec.domains.iter().any(uses)
    };
    images.iter().filter(used).map(|image| image.bytes).sum()
}

/// Bytes of a machine that holds all domains that start at boot, in whole MiB.
pub fn memory_needed(spec: &Spec, images: &[ImageInfo]) -> u64 {
    let domains = spec.domains.iter().filter(|domain| domain.autostart).map(|domain| domain.memory.value);
    let used = domains.fold(bundle_bytes(spec, images), u64::saturating_add);
    // Of the sum, a 64th is overhead too: used + fixed = memory - memory / 64.
    let fixed = overhead(0);
    (used.saturating_add(fixed).saturating_mul(64) / 63).saturating_add(MIB).next_multiple_of(MIB)
}

fn check_memory(spec: &Spec, machine: &Machine, images: &[ImageInfo], sink: &Sink) {
    let bundle = bundle_bytes(spec, images);
    let usable = machine.memory.saturating_sub(overhead(machine.memory)).saturating_sub(bundle);
    let mut sum: u64 = 0;
    for domain in spec.domains.iter().filter(|domain| domain.autostart) {
        let before = sum;
        sum = sum.saturating_add(domain.memory.value);
        if before <= usable && sum > usable {
            let all: u64 =
                spec.domains.iter().filter(|domain| domain.autostart).map(|domain| domain.memory.value).sum();
            sink.error(
                domain.memory.span.clone(),
                format!("the machine's memory ends at `{}`", domain.name.value),
            )
            .help(format!(
                "the domains want {} together; of {} the hypervisor and the bundle leave {}: make domains smaller or \
                     the machine larger (`--memory`)",
                shown(all),
                shown(machine.memory),
                shown(usable)
            ));
        }
    }
}

fn matches(device: &spec::Device, function: &PciFunction) -> bool {
    device.vendor.is_none_or(|vendor| vendor == function.vendor)
        && device.device.is_none_or(|id| id == function.device)
        && device.class.is_none_or(|class| (class.value ^ function.class) & class.mask == 0)
        && device.slot.as_ref().is_none_or(|slot| slot.value.0 == function.bdf)
}

fn function_text(function: &PciFunction) -> String {
    let PciFunction { bdf, vendor, device, class } = *function;
    format!("{} is {vendor:04x}:{device:04x} class {class:06x}", Bdf(bdf))
}

fn check_devices(spec: &Spec, machine: &Machine, sink: &Sink) {
    let mut taken: Vec<(u16, &spec::Device)> = Vec::new();
    for device in &spec.devices {
        let name = &device.name.value;
        let found: Vec<&PciFunction> = machine.devices.iter().filter(|function| matches(device, function)).collect();
        match found.as_slice() {
            [] if device.optional => {}
            [] => {
                let all: Vec<String> = machine.devices.iter().map(function_text).collect();
                let has = if all.is_empty() { "no such devices at all".to_string() } else { all.join("; ") };
                sink.error(device.name.span.clone(), format!("no device of the machine is `{name}`"))
                    .help(format!("the machine has: {has}. Say `optional = true` if the system can go on without it"));
            }
            [function] => match taken.iter().find(|(bdf, _)| *bdf == function.bdf) {
                Some((_, other)) => {
                    let message = format!("`{name}` and `{}` are the same device", other.name.value);
                    sink.error(device.name.span.clone(), message)
                        .related(&other.name.span, format!("`{}` is described", other.name.value))
                        .help(format!("{}: name it once", function_text(function)));
                }
                None => taken.push((function.bdf, device)),
            },
            several => {
                let all: Vec<String> = several.iter().map(|function| function_text(function)).collect();
                let slot = several.first().map(|function| Bdf(function.bdf).to_string()).unwrap_or_default();
                sink.error(device.name.span.clone(), format!("{} devices of the machine are `{name}`", several.len()))
                    .help(format!("{}. Add a slot to say which: `slot = \"{slot}\"`", all.join("; ")));
            }
        }
    }
}

fn check_ports(spec: &Spec, sink: &Sink) {
    for range in spec.domains.iter().flat_map(|domain| &domain.io_ports) {
        let kept = |&&(first, last, _): &&(u32, u32, &str)| range.value.overlaps(Span { first, last });
        if let Some((first, last, what)) = HYPERVISOR_PORTS.iter().find(kept) {
            sink.error(range.span.clone(), "the hypervisor keeps some of these I/O ports for itself")
                .help(format!("{first:#x}-{last:#x} is {what}"));
        }
    }
}
