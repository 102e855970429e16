//! Active entries: pinning a granted page, and letting it go.
//!
//! The guest may write its table at any time, so an entry's first word (flags and domain) is judged and marked in one
//! compare-exchange, retried a bounded number of times. The frame number is read once, translated once, and from then
//! on the snapshot counts: a second user of an active entry gets the page that the first one got.

use xen_abi::grant_table::{GTF_PERMIT_ACCESS, GTF_READING, GTF_READONLY, GTF_SUB_PAGE, GTF_TYPE_MASK, GTF_WRITING};

use super::{Access, GrantTable, Status};
use crate::domain::{Domain, Env};
use crate::frames::{FrameError, FrameTable};
use crate::ids::{DomId, Gfn, GrantRef, Hpa, Mfn, Slot};
use crate::machine::{Machine, MachineMemory};
use crate::space::AddressSpace;

/// Tries to mark an entry that its owner keeps changing.
const MARK_TRIES: u32 = 4;

/// The hypervisor's side of an entry. In use while any count is not 0.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Active {
    /// Frame numbers fit: machine frames are below 2^28, and a v1 entry has 32 bits.
    mfn: u32,
    gfn: u32,
    /// Readers in the low half, writers in the high one: one comparison tells whether there are any.
    uses: u32,
    pub user: DomId,
}

/// What one use counts for in [`Active::uses`].
const fn one(access: Access) -> u32 {
    match access {
        Access::Read => 1,
        Access::Write => 1 << 16,
    }
}

impl Active {
    pub fn in_use(&self) -> bool {
        self.uses != 0
    }

    pub fn uses(&self) -> u32 {
        u32::from(self.count(Access::Read)).wrapping_add(self.count(Access::Write).into())
    }

    pub fn gfn(&self) -> Gfn {
        Gfn(u64::from(self.gfn))
    }

    const fn count(&self, access: Access) -> u16 {
        match access {
            Access::Read => self.uses as u16,
            Access::Write => (self.uses >> 16) as u16,
        }
    }
}

/// A use of a grant: a mapping, or a copy in progress. Its page is pinned until [`end_uses`]. In two words, which is
/// what is kept in registers while it ends.
#[derive(Clone, Copy, Debug)]
#[must_use = "the page stays pinned"]
pub(super) struct Use {
    /// The grantor's serial number (its id may have passed to another) in the low half, the reference in the high one.
    source: u64,
    /// The frame's number in the low half, the grantor's id above, then 1 for writing.
    page: u64,
}

impl Use {
    /// No use.
    pub const NONE: Self = Self { source: 0, page: 0 };

    #[inline(always)]
    pub fn new(grantor: DomId, serial: u32, gref: GrantRef, mfn: Mfn, access: Access) -> Self {
        let write = if access == Access::Write { 1 << 48 } else { 0 };
        let source = u64::from(serial) | u64::from(gref.0) << 32;
        Self { source, page: u64::from(mfn.0 as u32) | u64::from(grantor.0) << 32 | write }
    }

    pub const fn mfn(&self) -> Mfn {
        Mfn(self.page & 0xffff_ffff)
    }

    pub const fn grantor(&self) -> DomId {
        DomId((self.page >> 32) as u16)
    }

    pub const fn access(&self) -> Access {
        if self.page >> 48 != 0 { Access::Write } else { Access::Read }
    }

    const fn serial(&self) -> u32 {
        self.source as u32
    }

    const fn gref(&self) -> GrantRef {
        GrantRef((self.source >> 32) as u32)
    }
}

/// A grant that was found by the tables that are remembered, and judged: nothing is pinned or marked yet.
pub(super) struct Found<'a> {
    at: Hpa,
    active: &'a mut Active,
    words: u64,
    mfn: Mfn,
}

impl<'a> Found<'a> {
    /// Looks for the page behind `gref` of a grantor. `None`: the entry is in use, or does not grant this, or the page is
    /// elsewhere or not to be used so.
    #[inline(always)]
    pub fn look(
        grantor: &'a mut GrantTable,
        space: &AddressSpace,
        memory: &impl MachineMemory,
        user: DomId,
        gref: GrantRef,
        access: Access,
    ) -> Option<Self> {
        let (at, active) = grantor.entry(gref).filter(|(_, active)| !active.in_use())?;
        // As in `Domain::acquire`.
        let words = memory.load_u64(at);
        judge(words as u32, user, access).ok()?;
        let mfn = space.private_near(Gfn(words >> 32), access, memory)?;
        Some(Self { at, active, words, mfn })
    }

    /// Pins the page and marks the entry. `None`: it is not as it was, or cannot be; nothing is pinned or marked.
    #[inline(always)]
    pub fn acquire(self, memory: &impl MachineMemory, frames: &FrameTable, owner: Slot, access: Access) -> Option<Mfn> {
        let Self { at, active, words, mfn } = self;
        frames.pin_at_once(mfn, owner)?;
        if mark_once(memory, at, words as u32, access).is_err() {
            unpin_orphan(frames, mfn);
            return None;
        }
        let user = DomId((words >> 16) as u16);
        *active = Active { mfn: mfn.0 as u32, gfn: (words >> 32) as u32, uses: one(access), user };
        Some(mfn)
    }
}

/// Ends uses: the grantors, if they still exist, see their entries unused; the pins go. No domain may be locked. A
/// grantor is locked once for all of its grants of one access that are side by side.
#[inline(always)]
pub(super) fn end_uses<M: Machine>(env: &Env<'_, M>, mut uses: &[(Gfn, Use)]) {
    while let Some((_, first)) = uses.first() {
        let found = env.domains.with(first.grantor(), |domain| {
            let one = one(first.access());
            while let [(_, grant), later @ ..] = uses
                && grant.page >> 32 == first.page >> 32
            {
                domain.end_use(env, grant, one);
                uses = later;
            }
        });
        if let (Err(_nothing_to_unmark), [(_, grant), later @ ..]) = (found, uses) {
            unpin_orphan(env.frames, grant.mfn());
            uses = later;
        }
    }
}

/// The same for one.
#[inline(always)]
pub(super) fn end_use<M: Machine>(env: &Env<'_, M>, grant: &Use) {
    let one = one(grant.access());
    if env.domains.with(grant.grantor(), |domain| domain.end_use(env, grant, one)).is_err() {
        unpin_orphan(env.frames, grant.mfn());
    }
}

#[inline(always)]
fn unpin(frames: &FrameTable, mfn: Mfn) {
    let unpinned = frames.unpin(mfn);
    debug_assert!(unpinned.is_ok(), "a grant in use had no pin");
}

/// Unpins a frame whose grant is no more.
#[cold]
fn unpin_orphan(frames: &FrameTable, mfn: Mfn) {
    unpin(frames, mfn);
}

impl Domain {
    /// Pins the page behind `gref` of this domain for `user`, and marks the entry as in use.
    ///
    /// # Errors
    /// [`Status`]; nothing is pinned or marked.
    pub(super) fn acquire<M: Machine>(
        &mut self,
        env: &Env<'_, M>,
        user: DomId,
        gref: GrantRef,
        access: Access,
    ) -> Result<Use, Status> {
        let slot = self.slot();
        let (at, active) = self.grants.entry(gref).ok_or(Status::BadGntref)?;
        let mfn = if active.in_use() {
            self.pin_in_use(env, user, gref, access)?
        } else {
            // Flags and domain in the low half, the frame number in the high one. The entry is judged here, so that a bad
            // entry is not taken for a bad page; when it is marked it must still be the same.
            let words = env.machine.load_u64(at);
            judge(words as u32, user, access)?;
            let gfn = (words >> 32) as u32;
            let page = self.space.private(Gfn(gfn.into()), access, env.machine).ok_or(Status::BadPage)?;
            pin_and_mark(env, page, slot, (at, words as u32), user, access)?;
            // What could be pinned is in the frame table, so its number fits.
            *active = Active { mfn: page.0 as u32, gfn, uses: one(access), user };
            page
        };
        Ok(Use::new(self.id, self.serial, gref, mfn, access))
    }

    /// The same for an entry that is in use already: its snapshot counts.
    fn pin_in_use<M: Machine>(
        &mut self,
        env: &Env<'_, M>,
        user: DomId,
        gref: GrantRef,
        access: Access,
    ) -> Result<Mfn, Status> {
        let slot = self.slot();
        let (entry, active) = self.grants.entry(gref).ok_or(Status::BadGntref)?;
        if active.user != user {
            return Err(Status::GeneralError);
        }
        let (mfn, gfn) = (Mfn(u64::from(active.mfn)), active.gfn());
        let count = active.count(access);
        let first_writer = access == Access::Write && count == 0;
        // A page that was pinned for reading may be one that its owner itself cannot write, its code for example.
        if first_writer && self.space.private(gfn, access, env.machine) != Some(mfn) {
            return Err(Status::BadPage);
        }
        if count == u16::MAX {
            return Err(Status::NoSpace);
        }
        if first_writer {
            let word = env.machine.load_u32(entry);
            judge(word, user, access)?;
            pin_and_mark(env, mfn, slot, (entry, word), user, access)?;
        } else {
            pin(env, mfn, slot)?;
        }
        active.uses = active.uses.wrapping_add(one(access));
        Ok(mfn)
    }

    /// `one` is what the use counts for.
    #[inline(always)]
    fn end_use<M: Machine>(&mut self, env: &Env<'_, M>, grant: &Use, one: u32) {
        if grant.serial() == self.serial {
            self.unmark(env.machine, grant, one);
        }
        unpin(env.frames, grant.mfn());
    }

    /// Clears the marks of a use that no other use needs. An entry that is gone with its table needs none.
    #[inline(always)]
    fn unmark(&mut self, memory: &impl MachineMemory, grant: &Use, one: u32) {
        let Some((entry, active)) = self.grants.entry(grant.gref()) else { return };
        if active.uses == one && u64::from(active.mfn) == grant.mfn().0 {
            active.uses = 0;
            memory.fetch_and_u16(entry, !(GTF_READING | GTF_WRITING));
        } else {
            unmark_one(memory, entry, active, grant);
        }
    }
}

/// The same where other uses are left.
#[cold]
fn unmark_one(memory: &impl MachineMemory, entry: Hpa, active: &mut Active, grant: &Use) {
    if active.count(grant.access()) == 0 || u64::from(active.mfn) != grant.mfn().0 {
        debug_assert!(false, "a use that was never counted");
        return;
    }
    active.uses = active.uses.wrapping_sub(one(grant.access()));
    if active.count(Access::Write) == 0 && grant.access() == Access::Write {
        memory.fetch_and_u16(entry, !GTF_WRITING);
    }
}

fn pin<M: Machine>(env: &Env<'_, M>, mfn: Mfn, owner: Slot) -> Result<(), Status> {
    env.frames.pin(mfn, owner).map_err(|error| match error {
        FrameError::TooManyPins => Status::NoSpace,
        FrameError::NotOwned | FrameError::NotPinned => Status::BadPage,
    })
}

/// Both or none. `word` is the entry's place and first word, as it was read and judged last.
fn pin_and_mark<M: Machine>(
    env: &Env<'_, M>,
    mfn: Mfn,
    owner: Slot,
    (entry, word): (Hpa, u32),
    user: DomId,
    access: Access,
) -> Result<(), Status> {
    pin(env, mfn, owner)?;
    mark(env.machine, entry, word, user, access).inspect_err(|_| unpin(env.frames, mfn))
}

/// Whether an entry's first word (flags below, domain above) grants this access to this domain. All in one comparison.
#[inline(always)]
pub(super) fn judge(word: u32, user: DomId, access: Access) -> Result<(), Status> {
    let read_only = if access == Access::Write { GTF_READONLY } else { 0 };
    let mask = u32::from(GTF_TYPE_MASK | GTF_SUB_PAGE | read_only) | 0xffff_0000;
    let wanted = u32::from(GTF_PERMIT_ACCESS) | u32::from(user.0) << 16;
    if word & mask == wanted { Ok(()) } else { Err(Status::GeneralError) }
}

/// Marks an entry as being read or written, if it still is what was read and judged last: `word`. The error is what it
/// is now; it is not marked.
#[inline(always)]
pub(super) fn mark_once(memory: &impl MachineMemory, entry: Hpa, word: u32, access: Access) -> Result<u32, u32> {
    memory.compare_exchange_u32(entry, word, word | u32::from(marks(access)))
}

/// Marks an entry as being read or written, if it grants that at this very moment, whatever else its owner changes.
/// `word` is its first word as it was read and judged last.
///
/// # Errors
/// [`Status::GeneralError`]; it is not marked.
pub(super) fn mark(
    memory: &impl MachineMemory,
    entry: Hpa,
    mut word: u32,
    user: DomId,
    access: Access,
) -> Result<(), Status> {
    for _ in 0..MARK_TRIES {
        match mark_once(memory, entry, word, access) {
            Ok(_) => return Ok(()),
            Err(found) => word = found,
        }
        judge(word, user, access)?;
    }
    Err(Status::GeneralError)
}

/// The flags of an entry that is in use.
#[inline(always)]
pub(super) const fn marks(access: Access) -> u16 {
    match access {
        Access::Read => GTF_READING,
        Access::Write => GTF_READING | GTF_WRITING,
    }
}
