//! Making an empty domain for a label of the policy. All or nothing: a failure at any step leaves no trace.

use alloc::vec::Vec;

use super::{Account, AddressSpace, Death, DomId, Domain, Env, Errno, destroy::Stage, table::Reservation};
use super::{EventChannels, GrantTable, Label, Life, Machine, Vcpu, VcpuId};
use crate::{authority::table as policy_table, events::SharedInfoPage, fallible, frames::Purpose};
use crate::{sched::VcpuKey, space::VtdFormat};

/// Frames that page tables may use beside those that memory and grants, densely placed, need: a few scattered pages.
const TABLES_SPARE: u64 = 64;
/// Pages that one table of the last level maps.
const PAGES_PER_TABLE: u64 = 512;

/// How many frames a domain's page tables may use: enough for its memory and its grant mappings in twice the places
/// they need, in both formats.
fn tables_max(entry: &policy_table::Domain, spaces: u64) -> u32 {
    let pages = entry.memory_pages.saturating_add(u64::from(entry.grant_maps_max));
    let dense = pages.div_ceil(PAGES_PER_TABLE).saturating_mul(2);
    u32::try_from(dense.saturating_add(TABLES_SPARE).saturating_mul(spaces)).unwrap_or(u32::MAX)
}

/// Makes a domain, building, with nothing mapped. `iommu` is the table format for domains that drive devices; `None`
/// for others, or where there is no IOMMU (the caller decides by the policy whether that is acceptable). It has the id of its
/// `predecessor`, if one is named.
///
/// # Errors
/// `EINVAL`: no such label; the predecessor is not the last domain that had its slot, or was of another label. `EEXIST`: the
/// label has a domain already, if only a dying one. `ENOMEM`. `ENOSPC`: 128 domains.
pub fn create<M: Machine>(
    env: &Env<'_, M>,
    label: Label,
    predecessor: Option<DomId>,
    iommu: Option<VtdFormat>,
) -> Result<DomId, Errno> {
    let entry = env.policy.domain(label).ok_or(Errno::EINVAL)?;
    if env.domains.of_label(label).is_some() {
        return Err(Errno::EEXIST);
    }
    let reservation = env.domains.reserve(label, predecessor)?;
    let id = reservation.id;
    let domain = build(env, label, entry, reservation, iommu).inspect_err(|_| env.domains.give_back(id, label))?;
    env.domains.publish(id, label, domain);
    Ok(id)
}

fn build<M: Machine>(
    env: &Env<'_, M>,
    label: Label,
    entry: &policy_table::Domain,
    reservation: Reservation,
    iommu: Option<VtdFormat>,
) -> Result<Vec<Domain>, Errno> {
    let Reservation { id, slot, serial } = reservation;
    let mut place = Vec::new();
    fallible::reserve(&mut place, 1)?;
    let mut vcpus = heapless::Vec::new();
    for vcpu in 0..entry.vcpus {
        vcpus.push(Vcpu::new(VcpuKey::new(slot, VcpuId(vcpu as u8)))).map_err(|_| Errno::EINVAL)?;
    }
    let spaces = if iommu.is_some() { 2 } else { 1 };
    let shared_info = env.frames.allocate(Purpose::Shared(slot), env.machine).ok_or(Errno::ENOMEM)?;
    let parts = || -> Result<_, Errno> {
        let events = EventChannels::new(entry.ports_max, SharedInfoPage::new(shared_info))?;
        Ok((events, AddressSpace::new(env, id, slot, tables_max(entry, spaces), iommu)?))
    };
    let (events, space) = parts().inspect_err(|_| {
        let freed = env.frames.free_unmapped(shared_info, Purpose::Shared(slot));
        debug_assert!(freed.is_ok(), "allocated a moment ago");
    })?;
    place.push(Domain {
        id,
        slot,
        serial,
        label,
        sharing: (env.policy.shares(label), 1_u128.wrapping_shl(label.0.into())),
        kind: entry.kind,
        life: Life::Building,
        death: Death::default(),
        space,
        events,
        grants: GrantTable::new(entry.grant_frames_max, entry.grant_maps_max),
        vcpus,
        account: Account { pages_max: entry.memory_pages, ..Account::default() },
        ending: Stage::Devices,
    });
    Ok(place)
}
