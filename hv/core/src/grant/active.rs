//! Active entries: pinning a granted page, and letting it go.
//!
//! The guest may write its table at any time, so an entry's first word (flags and domain) is judged and marked in one
//! compare-exchange, retried a bounded number of times. The frame number is read once, translated once, and from then
//! on the snapshot counts: a second user of an active entry gets the page that the first one got.

use xen_abi::grant_table::{GTF_PERMIT_ACCESS, GTF_READING, GTF_READONLY, GTF_SUB_PAGE, GTF_TYPE_MASK, GTF_WRITING};

use super::{Access, Status, status::Why};
use crate::domain::{Domain, Env};
use crate::frames::{FrameError, FrameTable};
use crate::ids::{DomId, Gfn, GrantRef, Hpa, Mfn, Slot};
use crate::machine::{Machine, MachineMemory};

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

/// A use of a grant: a mapping, or a copy in progress. Its page is pinned until [`end_uses`].
#[derive(Clone, Copy, Debug)]
#[must_use = "the page stays pinned"]
pub(super) struct Use {
    pub grantor: DomId,
    /// The grantor's serial number: its id may have passed to another.
    pub serial: u32,
    pub gref: GrantRef,
    pub access: Access,
    /// See [`Use::mfn`].
    pub mfn: u32,
}

impl Use {
    pub fn mfn(&self) -> Mfn {
        Mfn(self.mfn.into())
    }
}

/// Ends uses: the grantors, if they still exist, see their entries unused; the pins go. No domain may be locked. A
/// grantor is locked once for all of its grants that are side by side.
#[inline(always)]
pub(super) fn end_uses<M: Machine>(env: &Env<'_, M>, mut uses: &[Use]) {
    while let Some(grantor) = uses.first().map(|first| first.grantor) {
        let found = env.domains.with(grantor, |domain| {
            while let [grant, later @ ..] = uses
                && grant.grantor == grantor
            {
                domain.end_use(env, grant);
                uses = later;
            }
        });
        if let (Err(_nothing_to_unmark), [grant, later @ ..]) = (found, uses) {
            unpin_orphan(env.frames, grant.mfn());
            uses = later;
        }
    }
}

/// The same for one.
#[inline(always)]
pub(super) fn end_use<M: Machine>(env: &Env<'_, M>, grant: &Use) {
    if env.domains.with(grant.grantor, |domain| domain.end_use(env, grant)).is_err() {
        unpin_orphan(env.frames, grant.mfn());
    }
}

fn unpin(frames: &FrameTable, mfn: Mfn) {
    let unpinned = frames.unpin(mfn);
    debug_assert!(unpinned.is_ok(), "a grant in use had no pin");
}

/// Unpins a frame whose grant is no more.
#[cold]
#[inline(never)]
fn unpin_orphan(frames: &FrameTable, mfn: Mfn) {
    unpin(frames, mfn);
}

impl Domain {
    /// Pins the page behind `gref` of this domain for `user`, and marks the entry as in use.
    ///
    /// # Errors
    /// [`Status`]; nothing is pinned or marked.
    #[inline(always)]
    pub(super) fn acquire<M: Machine, E: Why>(
        &mut self,
        env: &Env<'_, M>,
        user: DomId,
        gref: GrantRef,
        access: Access,
    ) -> Result<Use, E> {
        let mfn = self.pin_granted::<M, E>(env, user, gref, access)?;
        // Put together last, so that it need not be kept in memory before.
        Ok(Use { grantor: self.id(), serial: self.serial(), gref, access, mfn: mfn.0 as u32 })
    }

    #[inline(always)]
    fn pin_granted<M: Machine, E: Why>(
        &mut self,
        env: &Env<'_, M>,
        user: DomId,
        gref: GrantRef,
        access: Access,
    ) -> Result<Mfn, E> {
        let slot = self.slot();
        let (entry, active) = self.grants.entry_and_active(gref).ok_or(Status::BadGntref)?;
        if active.in_use() {
            let pinned =
                if E::EXACT { self.pin_in_use(&env.copied(), user, gref, access) } else { Err(Status::NoSpace) };
            return Ok(pinned?);
        }
        // Flags and domain in the low half, the frame number in the high one. The entry is judged here, so that a bad
        // entry is not taken for a bad page; when it is marked it must still be the same.
        let words = env.machine.load_u64(entry);
        judge(words as u32, user, access)?;
        let gfn = (words >> 32) as u32;
        let page = self.space.private_by(E::TABLES, Gfn(gfn.into()), access, env.machine).ok_or(Status::BadPage)?;
        pin_and_mark::<M, E>(env, page, slot, (entry, words as u32), user, access)?;
        // What could be pinned is in the frame table, so its number fits.
        *active = Active { mfn: page.0 as u32, gfn, uses: one(access), user };
        Ok(page)
    }

    /// The same for an entry that is in use already: its snapshot counts.
    #[cold]
    #[inline(never)]
    fn pin_in_use<M: Machine>(
        &mut self,
        env: &Env<'_, M>,
        user: DomId,
        gref: GrantRef,
        access: Access,
    ) -> Result<Mfn, Status> {
        let slot = self.slot();
        let (entry, active) = self.grants.entry_and_active(gref).ok_or(Status::BadGntref)?;
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
            pin_and_mark::<M, Status>(env, mfn, slot, (entry, word), user, access)?;
        } else {
            pin(env, mfn, slot)?;
        }
        active.uses = active.uses.wrapping_add(one(access));
        Ok(mfn)
    }

    #[inline(always)]
    fn end_use<M: Machine>(&mut self, env: &Env<'_, M>, grant: &Use) {
        if grant.serial == self.serial() {
            self.unmark(env.machine, grant);
        }
        unpin(env.frames, grant.mfn());
    }

    /// Clears the marks of a use that no other use needs. An entry that is gone with its table needs none.
    #[inline(always)]
    fn unmark(&mut self, memory: &impl MachineMemory, grant: &Use) {
        let Some((entry, active)) = self.grants.entry_and_active(grant.gref) else { return };
        if active.uses == one(grant.access) && active.mfn == grant.mfn {
            active.uses = 0;
            memory.fetch_and_u16(entry, !marks(grant.access));
        } else {
            self.unmark_one(memory, grant);
        }
    }

    /// The same where other uses are left.
    #[cold]
    #[inline(never)]
    fn unmark_one(&mut self, memory: &impl MachineMemory, grant: &Use) {
        let Some((entry, active)) = self.grants.entry_and_active(grant.gref) else { return };
        if active.count(grant.access) == 0 || active.mfn != grant.mfn {
            debug_assert!(false, "a use that was never counted");
            return;
        }
        active.uses = active.uses.wrapping_sub(one(grant.access));
        if active.count(Access::Write) == 0 && grant.access == Access::Write {
            memory.fetch_and_u16(entry, !GTF_WRITING);
        }
    }
}

#[inline(always)]
fn pin<M: Machine>(env: &Env<'_, M>, mfn: Mfn, owner: Slot) -> Result<(), Status> {
    env.frames.pin(mfn, owner).map_err(|error| match error {
        FrameError::TooManyPins => Status::NoSpace,
        FrameError::NotOwned | FrameError::NotPinned => Status::BadPage,
    })
}

/// Both or none. `word` is the entry's place and first word, as it was read and judged last.
#[inline(always)]
fn pin_and_mark<M: Machine, E: Why>(
    env: &Env<'_, M>,
    mfn: Mfn,
    owner: Slot,
    (entry, word): (Hpa, u32),
    user: DomId,
    access: Access,
) -> Result<(), E> {
    pin(env, mfn, owner)?;
    mark::<E>(env.machine, entry, word, user, access).inspect_err(|_| unpin_orphan(env.frames, mfn))
}

/// Whether an entry's first word (flags below, domain above) grants this access to this domain.
#[inline(always)]
pub(super) fn judge(word: u32, user: DomId, access: Access) -> Result<(), Status> {
    let (flags, domid) = (word as u16, (word >> 16) as u16);
    let plain = flags & (GTF_TYPE_MASK | GTF_SUB_PAGE) == GTF_PERMIT_ACCESS;
    let writable = flags & GTF_READONLY == 0 || access == Access::Read;
    if plain && writable && domid == user.0 { Ok(()) } else { Err(Status::GeneralError) }
}

/// Marks an entry as being read or written, if it grants that at this very moment. `word` is its first word as it was
/// read and judged last.
///
/// # Errors
/// [`Status::GeneralError`]; it is not marked.
#[inline(always)]
pub(super) fn mark<E: Why>(
    memory: &impl MachineMemory,
    entry: Hpa,
    word: u32,
    user: DomId,
    access: Access,
) -> Result<(), E> {
    match memory.compare_exchange_u32(entry, word, word | u32::from(marks(access))) {
        Ok(_) => Ok(()),
        Err(found) if E::EXACT => Ok(mark_again(memory, entry, found, user, access)?),
        Err(_) => Err(Status::GeneralError.into()),
    }
}

/// Marks an entry that has just been changed. `word` is its first word as it was found.
#[cold]
#[inline(never)]
fn mark_again(
    memory: &impl MachineMemory,
    entry: Hpa,
    mut word: u32,
    user: DomId,
    access: Access,
) -> Result<(), Status> {
    for _ in 1..MARK_TRIES {
        judge(word, user, access)?;
        match memory.compare_exchange_u32(entry, word, word | u32::from(marks(access))) {
            Ok(_) => return Ok(()),
            Err(found) => word = found,
        }
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
