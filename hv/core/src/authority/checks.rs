//! What a policy table must satisfy beyond its layout.

use super::table::{self, Domain, Run};
use super::{PolicyError, SealedPolicy, parse::first_of};
use crate::domain::VCPUS_MAX;

/// Interrupt lines (GSIs) that the hypervisor handles.
const LINES: u32 = 256;
const PORTS: u32 = 0x1_0000;
/// Mappings that a handle can number.
pub(crate) const GRANT_MAPS_MAX: u32 = 0xffff;
/// 1 TiB: what the frame table can number.
const MEMORY_PAGES_MAX: u64 = 1 << 28;

pub(super) fn check(policy: &SealedPolicy) -> Result<(), PolicyError> {
    for (index, domain) in policy.domains.iter().enumerate() {
        check_domain(policy, index, domain)?;
    }
    check_claims(policy, PORTS, &table::HYPERVISOR_PORTS, |domain| domain.io_ports)?;
    check_claims(policy, LINES, &[], |domain| domain.irq_lines)?;
    let device = policy.devices.iter().position(|device| !device_is_sound(policy, device));
    device.map_or(Ok(()), |index| Err(PolicyError::Device(index as u32)))?;
    let link = policy.links.iter().position(|link| !link_is_sound(policy, link));
    link.map_or(Ok(()), |index| Err(PolicyError::Link(index as u32)))
}

fn check_domain(policy: &SealedPolicy, index: usize, domain: &Domain) -> Result<(), PolicyError> {
    let number = index as u32;
    let mut earlier = policy.domains.iter().take(index);
    let named = well_formed_name(&domain.name) && earlier.clone().all(|other| other.name != domain.name);
    let native_is_uniprocessor = domain.kind != table::KIND_NATIVE || domain.vcpus == 1;
    let within_limits = domain.kind <= table::KIND_PVH
        && (1..=MEMORY_PAGES_MAX).contains(&domain.memory_pages)
        && (1..=VCPUS_MAX as u32).contains(&domain.vcpus)
        && native_is_uniprocessor
        && (1..=65535).contains(&domain.weight)
        && domain.cap <= 100
        && (1..=4096).contains(&domain.ports_max)
        && domain.grant_frames_max <= 64
        && domain.grant_maps_max <= GRANT_MAPS_MAX;
    let texts = [domain.image, domain.arguments, domain.config, domain.initrd];
    let runs_fit = [domain.io_ports, domain.irq_lines].iter().all(|&run| policy.run_at(run).is_some());
    let refers = runs_fit && texts.iter().all(|&text| policy.text_at(text).is_some());
    let services = domain.flags & (table::FLAG_LOG | table::FLAG_STORE | table::FLAG_CONSOLE);
    let is_control = domain.flags & table::FLAG_CONTROL != 0;
    let control_is_native = !is_control || domain.kind == table::KIND_NATIVE;
    let served = earlier.any(|other| other.flags & services != 0);
    first_of(&[
        (domain.flags & !table::FLAGS != 0, PolicyError::Flags),
        (!named, PolicyError::Name(number)),
        (!within_limits, PolicyError::Limits(number)),
        (!refers, PolicyError::Reference(number)),
        (served || is_control != (index == 0) || !control_is_native, PolicyError::Role(number)),
    ])
}

/// `[a-z][a-z0-9-]{0,30}`, then only NULs.
fn well_formed_name(name: &[u8; 32]) -> bool {
    let of_name = |byte: &&u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || **byte == b'-';
    let mut padding = name.iter().skip_while(of_name);
    matches!(name, [b'a'..=b'z', .., 0]) && padding.all(|&byte| byte == 0)
}

/// No port or line is two domains' or one of `taken`, and all are below `size`.
fn check_claims(
    policy: &SealedPolicy,
    size: u32,
    taken: &[(u32, u32, &str)],
    of: fn(&Domain) -> Run,
) -> Result<(), PolicyError> {
    let claims = || policy.domains.iter().map(of).flat_map(|run| (run.first..).zip(policy.run(run)));
    for (earlier, (index, range)) in claims().enumerate() {
        let apart = |first, last| range.last < first || last < range.first;
        let free = taken.iter().all(|&(first, last, _)| apart(first, last))
            && claims().take(earlier).all(|(_, other)| apart(other.first, other.last));
        if range.first > range.last || range.last >= size || !free {
            return Err(PolicyError::Range(index));
        }
    }
    Ok(())
}

fn device_is_sound(policy: &SealedPolicy, device: &table::Device) -> bool {
    let domain = policy.domains.get(device.label as usize);
    let drives = domain.is_some_and(|domain| domain.flags & table::FLAG_DRIVER != 0);
    let fits = |field: u32| field == table::ANY || field <= 0xffff;
    let selects = device.vendor != table::ANY || device.class_mask != 0 || device.bdf != table::ANY;
    let sound = fits(device.vendor) && fits(device.device) && fits(device.bdf);
    drives && selects && sound && device.reserved == 0 && policy.text_at(device.name).is_some()
}

fn link_is_sound(policy: &SealedPolicy, link: &table::Link) -> bool {
    let labels = policy.domains.len() as u32;
    let labels_exist = link.front < labels && link.back < labels && link.front != link.back;
    labels_exist && link.kind <= table::LINK_CHANNEL && policy.text_at(link.parameters).is_some()
}
