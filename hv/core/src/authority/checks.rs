//! What a policy table must satisfy beyond its layout.

use alloc::vec::Vec;

use super::table::{self, Domain, Run, Text};
use super::{PolicyError, SealedPolicy};
use crate::fallible;

/// Interrupt lines (GSIs) that the hypervisor handles.
const LINES: u32 = 256;
const PORTS: u32 = 0x1_0000;
/// Mappings that a handle can number.
pub(crate) const GRANT_MAPS_MAX: u32 = 0xffff;
/// vCPUs of a domain at most.
const VCPUS_MAX: u32 = crate::domain::VCPUS_MAX as u32;
/// 1 TiB: what the frame table can number.
const MEMORY_PAGES_MAX: u64 = 1 << 28;

const KNOWN_FLAGS: u32 = table::FLAG_CONTROL
    | table::FLAG_LOG
    | table::FLAG_STORE
    | table::FLAG_CONSOLE
    | table::FLAG_DRIVER
    | table::FLAG_AUTOSTART
    | table::FLAG_OBSERVE;

pub(super) fn check(policy: &SealedPolicy) -> Result<(), PolicyError> {
    for (index, domain) in policy.domains.iter().enumerate() {
        check_domain(policy, index, domain)?;
    }
    check_roles(policy)?;
    check_claims(policy, PORTS, &table::HYPERVISOR_PORTS, |domain| domain.io_ports)?;
    check_claims(policy, LINES, &[], |domain| domain.irq_lines)?;
    for (index, device) in policy.devices.iter().enumerate() {
        check_device(policy, device).ok_or(PolicyError::Device(index as u32))?;
    }
    for (index, link) in policy.links.iter().enumerate() {
        let labels = policy.domains.len() as u32;
        if link.front >= labels || link.back >= labels || link.front == link.back || link.kind > table::LINK_CHANNEL {
            return Err(PolicyError::Link(index as u32));
        }
        check_text(policy, link.parameters).ok_or(PolicyError::Link(index as u32))?;
    }
    Ok(())
}

fn check_domain(policy: &SealedPolicy, index: usize, domain: &Domain) -> Result<(), PolicyError> {
    let number = index as u32;
    if domain.flags & !KNOWN_FLAGS != 0 {
        return Err(PolicyError::Flags);
    }
    let repeated = policy.domains.iter().take(index).any(|earlier| earlier.name == domain.name);
    if !well_formed_name(&domain.name) || repeated {
        return Err(PolicyError::Name(number));
    }
    let native_is_uniprocessor = domain.kind != table::KIND_NATIVE || domain.vcpus == 1;
    let within_limits = domain.kind <= table::KIND_PVH
        && (1..=MEMORY_PAGES_MAX).contains(&domain.memory_pages)
        && (1..=VCPUS_MAX).contains(&domain.vcpus)
        && native_is_uniprocessor
        && (1..=65535).contains(&domain.weight)
        && domain.cap <= 100
        && (1..=4096).contains(&domain.ports_max)
        && domain.grant_frames_max <= 64
        && domain.grant_maps_max <= GRANT_MAPS_MAX;
    if !within_limits {
        return Err(PolicyError::Limits(number));
    }
    let texts = [domain.image, domain.arguments, domain.config, domain.initrd];
    let texts_fit = texts.iter().all(|&text| check_text(policy, text).is_some());
    if !texts_fit || !run_fits(policy, domain.io_ports) || !run_fits(policy, domain.irq_lines) {
        return Err(PolicyError::Reference(number));
    }
    Ok(())
}

/// `[a-z][a-z0-9-]{0,30}`, then only NULs.
fn well_formed_name(name: &[u8; 32]) -> bool {
    let Some(end) = name.iter().position(|&byte| byte == 0) else {
        return false;
    };
    let (text, padding) = name.split_at_checked(end).unwrap_or((&[], &[]));
    let first = text.first().is_some_and(u8::is_ascii_lowercase);
    let rest = text.iter().all(|&byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-');
    first && rest && padding.iter().all(|&byte| byte == 0)
}

fn check_roles(policy: &SealedPolicy) -> Result<(), PolicyError> {
    let mut taken = 0;
    for (index, domain) in policy.domains.iter().enumerate() {
        let services = domain.flags & (table::FLAG_LOG | table::FLAG_STORE | table::FLAG_CONSOLE);
        let is_control = domain.flags & table::FLAG_CONTROL != 0;
        let control_is_native = !is_control || domain.kind == table::KIND_NATIVE;
        if taken & services != 0 || is_control != (index == 0) || !control_is_native {
            return Err(PolicyError::Role(index as u32));
        }
        taken |= services;
    }
    Ok(())
}

fn run_fits(policy: &SealedPolicy, run: Run) -> bool {
    run.first.checked_add(run.count).is_some_and(|end| end as usize <= policy.ranges.len())
}

fn check_text(policy: &SealedPolicy, text: Text) -> Option<()> {
    let start = text.offset as usize;
    let bytes = policy.text.get(start..start.checked_add(text.bytes as usize)?)?;
    core::str::from_utf8(bytes).ok().map(drop)
}

/// No port or line is two domains' or one of `taken`, and all are below `size`.
fn check_claims(
    policy: &SealedPolicy,
    size: u32,
    taken: &[(u32, u32, &str)],
    of: fn(&Domain) -> Run,
) -> Result<(), PolicyError> {
    let mut claimed = Vec::new();
    // A range is claimed once at most.
    fallible::reserve(&mut claimed, taken.len().saturating_add(policy.ranges.len()))?;
    claimed.extend(taken.iter().map(|&(first, last, _)| (first, last)));
    for run in policy.domains.iter().map(of) {
        for (offset, range) in policy.run(run).iter().enumerate() {
            let free = claimed.iter().all(|&(first, last)| range.last < first || last < range.first);
            if range.first > range.last || range.last >= size || !free {
                return Err(PolicyError::Range(run.first.saturating_add(offset as u32)));
            }
            claimed.push((range.first, range.last));
        }
    }
    Ok(())
}

fn check_device(policy: &SealedPolicy, device: &table::Device) -> Option<()> {
    let domain = policy.domains.get(device.label as usize)?;
    let drives = domain.flags & table::FLAG_DRIVER != 0;
    let fits = |field: u32| field == table::ANY || field <= 0xffff;
    let selects = device.vendor != table::ANY || device.class_mask != 0 || device.bdf != table::ANY;
    let sound = fits(device.vendor) && fits(device.device) && fits(device.bdf);
    (drives && selects && sound && device.reserved == 0).then_some(())?;
    check_text(policy, device.name)
}
