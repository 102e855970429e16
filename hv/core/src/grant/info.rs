//! What the admin shell sees of grants.

use xen_abi::grant_table::{GTF_INVALID, GTF_TYPE_MASK};
use xen_abi::platform::GrantInfo;

use super::ENTRIES_PER_FRAME;
use crate::ids::{GrantRef, Hpa};
use crate::{domain::Domain, machine::MachineMemory};

/// Entries looked at in a call.
const LOOK_MAX: u32 = 4096;

/// The first grant at `from` or higher that is in use or that the table offers.
pub fn info(domain: &mut Domain, from: GrantRef, memory: &impl MachineMemory) -> Option<GrantInfo> {
    let domid = domain.id.0.into();
    let end = (domain.grants.frames().saturating_mul(ENTRIES_PER_FRAME)).min(from.0.saturating_add(LOOK_MAX));
    (from.0..end).find_map(|gref| {
        let (entry, active) = domain.grants.entry(GrantRef(gref))?;
        let word = memory.load_u32(entry);
        // The page is the snapshot's while in use, else the entry's.
        let (gfn, peer) = if active.in_use() {
            (active.gfn().0, active.user.0)
        } else {
            (memory.load_u32(Hpa(entry.0.wrapping_add(4))).into(), (word >> 16) as u16)
        };
        let offered = word as u16 & GTF_TYPE_MASK != GTF_INVALID;
        let (peer, flags, mappings) = (peer.into(), (word as u16).into(), active.uses());
        let found = GrantInfo { domid, gref, gfn, peer, flags, mappings, reserved: 0 };
        (offered || active.in_use()).then_some(found)
    })
}
