//! A domain's grant table: the frames it shares with the hypervisor, and the hypervisor's side of each entry.

use alloc::boxed::Box;
use alloc::vec::Vec;

use xen_abi::grant_table::{GTF_PERMIT_ACCESS, GTF_READONLY, GrantEntryV1};
use zerocopy::IntoBytes;

use super::{Access, ENTRIES_PER_FRAME, FRAMES_MAX, Status, active::Active, tracking::Tracking};
use crate::domain::{Domain, Env};
use crate::frames::{FrameTable, Purpose};
use crate::ids::{DomId, Gfn, GrantRef, Hpa, Mfn, Slot};
use crate::{error::Errno, fallible, machine::Machine};

const ENTRY_BYTES: u64 = size_of::<GrantEntryV1>() as u64;
const _: () = assert!(ENTRY_BYTES == 8);

/// A frame of the table, and the hypervisor's side of its entries.
#[derive(Debug)]
struct TableFrame {
    mfn: Mfn,
    active: Box<[Active; ENTRIES_PER_FRAME as usize]>,
}

/// What a domain grants, and what it has mapped.
#[derive(Debug)]
pub struct GrantTable {
    frames: Vec<TableFrame>,
    frames_max: u32,
    pub(super) tracking: Tracking,
}

impl GrantTable {
    /// An empty table that may grow to `frames_max` frames, and a domain that may map `maps_max` pages of others.
    pub fn new(frames_max: u32, maps_max: u32) -> Self {
        let frames_max = frames_max.min(FRAMES_MAX as u32);
        Self { frames: Vec::new(), frames_max, tracking: Tracking::new(maps_max) }
    }

    /// Frames now.
    pub fn frames(&self) -> u32 {
        self.frames.len() as u32
    }

    /// Pages of others that the domain has mapped.
    pub fn mapped(&self) -> u32 {
        self.tracking.in_use()
    }

    /// A frame of the table.
    pub fn frame(&self, index: u32) -> Option<Mfn> {
        self.frames.get(index as usize).map(|frame| frame.mfn)
    }

    /// Where the guest's entry is, and the hypervisor's side of it.
    #[inline(always)]
    pub(super) fn entry(&mut self, gref: GrantRef) -> Option<(Hpa, &mut Active)> {
        let frame = self.frames.get_mut((gref.0 / ENTRIES_PER_FRAME) as usize)?;
        let index = gref.0 % ENTRIES_PER_FRAME;
        let active = frame.active.get_mut(index as usize)?;
        Some((frame.mfn.at(u64::from(index).wrapping_mul(ENTRY_BYTES)), active))
    }

    /// Gives back the frames, after the domain's address space is gone.
    pub(crate) fn free_frames(&mut self, slot: Slot, frames: &FrameTable) {
        for frame in self.frames.drain(..) {
            let freed = frames.free_unmapped(frame.mfn, Purpose::Shared(slot));
            debug_assert!(freed.is_ok(), "a grant table frame was something else");
        }
    }
}

impl Domain {
    /// Grows the grant table to `wanted` frames. It never shrinks while its domain lives.
    ///
    /// # Errors
    /// `EINVAL`: more than allowed. `ENOMEM`: the table has grown by as much as there was memory for, or not at all.
    pub(crate) fn grow_grants<M: Machine>(&mut self, env: &Env<'_, M>, wanted: u32) -> Result<(), Errno> {
        let purpose = Purpose::Shared(self.slot());
        let table = &mut self.grants;
        if wanted > table.frames_max {
            return Err(Errno::EINVAL);
        }
        while table.frames() < wanted {
            fallible::reserve(&mut table.frames, 1)?;
            let active = fallible::filled(ENTRIES_PER_FRAME as usize, Active::default())?;
            let active = active.into_boxed_slice().try_into().map_err(|_| Errno::ENOMEM)?;
            let mfn = env.frames.allocate(purpose, env.machine).ok_or(Errno::ENOMEM)?;
            table.frames.push(TableFrame { mfn, active });
        }
        Ok(())
    }
}

/// `GNTTABOP_setup_table`: grows the caller's own table. The frames are then to be mapped by
/// `XENMAPSPACE_grant_table`.
///
/// # Errors
/// [`Status::PermissionDenied`]: another domain's. [`Status::GeneralError`]: more frames than allowed.
/// [`Status::NoSpace`].
pub fn setup_table<M: Machine>(env: &Env<'_, M>, caller: DomId, dom: DomId, frames: u32) -> Result<(), Status> {
    own(caller, dom)?;
    Ok(env.domains.with(caller, |domain| domain.grow_grants(env, frames))??)
}

/// `GNTTABOP_query_size` of the caller's own table: frames now and at most.
///
/// # Errors
/// [`Status::PermissionDenied`]: another domain's.
pub fn query_size<M: Machine>(env: &Env<'_, M>, caller: DomId, dom: DomId) -> Result<(u32, u32), Status> {
    own(caller, dom)?;
    Ok(env.domains.with(caller, |domain| (domain.grants.frames(), domain.grants.frames_max))?)
}

fn own(caller: DomId, dom: DomId) -> Result<(), Status> {
    if dom.or_self(caller) == caller { Ok(()) } else { Err(Status::PermissionDenied) }
}

/// `GNTTABOP_set_version`: version 1 is what there is.
///
/// # Errors
/// `ENOSYS`: version 2. `EINVAL`: anything else.
pub fn set_version(version: u32) -> Result<(), Errno> {
    match version {
        1 => Ok(()),
        2 => Err(Errno::ENOSYS),
        _ => Err(Errno::EINVAL),
    }
}

/// Writes an entry of a domain that is being built, for its builder: access to `gfn` for `peer`.
///
/// # Errors
/// `EINVAL`: no such reference, or a frame number that an entry cannot hold. `EBUSY`: the entry is in use. `ENOENT`:
/// no such page of the domain's own. `ENOMEM`.
pub fn seed<M: Machine>(
    env: &Env<'_, M>,
    domain: &mut Domain,
    gref: GrantRef,
    gfn: Gfn,
    peer: DomId,
    access: Access,
) -> Result<(), Errno> {
    domain.grow_grants(env, (gref.0 / ENTRIES_PER_FRAME).saturating_add(1))?;
    let (at, active) = domain.grants.entry(gref).ok_or(Errno::EINVAL)?;
    if active.in_use() {
        return Err(Errno::EBUSY);
    }
    domain.space.private(gfn, Access::Read, env.machine).ok_or(Errno::ENOENT)?;
    let read_only = if access == Access::Read { GTF_READONLY } else { 0 };
    let frame = u32::try_from(gfn.0).map_err(|_| Errno::EINVAL)?;
    let entry = GrantEntryV1 { flags: GTF_PERMIT_ACCESS | read_only, domid: peer.0, frame };
    env.machine.write(at, entry.as_bytes());
    Ok(())
}
