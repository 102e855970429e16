//! What the admin shell sees of grants.

use xen_abi::grant_table::{GTF_INVALID, GTF_TYPE_MASK};

use super::ENTRIES_PER_FRAME;
use crate::ids::{DomId, Gfn, GrantRef, Hpa};
use crate::{domain::Domain, machine::MachineMemory};

/// A grant.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Info {
    /// Its reference.
    pub gref: GrantRef,
    /// The page: the snapshot's while in use, else the entry's.
    pub gfn: Gfn,
    /// Who has access.
    pub peer: DomId,
    /// `GTF_*` of the entry.
    pub flags: u16,
    /// Uses in force.
    pub mappings: u32,
}

/// Entries looked at in a call.
const LOOK_MAX: u32 = 4096;

/// The first grant at `from` or higher that is in use or that the table offers.
pub fn info(domain: &mut Domain, from: GrantRef, memory: &impl MachineMemory) -> Option<Info> {
    let end = (domain.grants.frames().saturating_mul(ENTRIES_PER_FRAME)).min(from.0.saturating_add(LOOK_MAX));
    (from.0..end).map(GrantRef).find_map(|gref| {
        let (entry, active) = domain.grants.entry(gref)?;
        let word = memory.load_u32(entry);
        let flags = word as u16;
        if active.in_use() {
            let (gfn, peer) = (active.gfn(), active.user);
            return Some(Info { gref, gfn, peer, flags, mappings: active.uses() });
        }
        let offered = flags & GTF_TYPE_MASK != GTF_INVALID;
        let gfn = Gfn(u64::from(memory.load_u32(Hpa(entry.0.wrapping_add(4)))));
        offered.then_some(Info { gref, gfn, peer: DomId((word >> 16) as u16), flags, mappings: 0 })
    })
}
